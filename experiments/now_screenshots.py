"""Take the pictures of the dashboard's page *Now*, for docs/live.md and docs/dashboard.md.

    python -m experiments.now_screenshots

A synthetic person's day, which the loop of live has just gone through as if it were today's, with some votes.
Needs Chromium and Playwright; looks at the page only as a browser does.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from env.errors import run_main
from env.timeline import Event
from experiments.dashboard_screenshots import FLAGS, LOOKS, OUT, ROOT, TALLEST, drawn, smaller
from rlmemo.live.activitywatch import WEB, WINDOW, BucketRow, News
from rlmemo.live.lock import OneRecorder
from rlmemo.options import Parser

TAKEN = ("light", "phone-dark")


@dataclass
class OneByOne:
    """A source that tells of an event at a time."""

    events: list[Event]
    place: dict[str, Any] = field(default_factory=dict)

    def read(self, *, look: bool = False) -> News:
        """The next one."""
        event = self.events.pop(0)
        page = event.kind == "page"
        data = {"url": f"https://{event.target}/"} if page else {"app": event.target}
        kind = WEB if page else WINDOW
        return News((BucketRow("told", kind, len(self.events), event.t, event.t, data),), windows=False)

    def in_pause(self) -> News:
        """There is none."""
        return News()

    def kept(self, due_s: float | None) -> None:
        """Nobody waits for that."""


def lived_store(path: Path, opens: int = 700) -> None:
    """A store in which live has recorded what a synthetic person does until a moment ago, with some votes."""
    from env.sources import load_timelines
    from rlmemo.live.clock import WallClock
    from rlmemo.live.loop import Loop
    from rlmemo.live.mind import Minding
    from rlmemo.policies.registry import to_follow
    from rlmemo.store import now as live_now
    from rlmemo.store import now_votes
    from rlmemo.store.database import open_store
    from rlmemo.store.live_ledger import NOT_YET, LiveLedger, LiveRow

    person = load_timelines("demo").timelines[2]
    made = to_follow("base", {"budget": 4.0})
    minding = Minding(made, "me", person.tz, 800.0, "rlmemo", 0.1)
    told = [Event(e.t - person.t[-1], e.target, e.kind) for e in person]
    mind, plans = minding.mind(), list[int]()
    for k, e in enumerate(told):
        event = replace(e, t=e.t + time.time())
        plans.append(len(mind.think(LiveRow(k + 1, event, 0.0, NOT_YET)).plan.plan))
    last = max(k for k in range(len(plans)) if plans[k] > 1 and sum(map(bool, plans[k - 5 : k])) > 2)
    shift = time.time() - 12.0 - told[last].t
    events = [replace(e, t=e.t + shift) for e in told[max(0, last + 1 - opens) : last + 1]]
    with open_store(path) as store, open_store(path) as dashboard:
        ledger = LiveLedger(store, "me", person.tz)
        settings = {
            "policy": "base", "act": "none", "budget_mb": 800.0, "began_at": events[0].t, "port": 5600,
            "threshold": 0.1, "world": asdict(made.world),
        }  # fmt: skip
        ledger.put(settings=settings)
        loop = Loop(ledger, OneByOne(events), minding, None, WallClock(), events[0].t, say=lambda _: None)
        (of,) = live_now.recordings(store)
        while events:
            loop.turn()
            how = live_now.standing(store, of, time.time())
            if how.moments and how.moments[0].plan and len(events) % 7 == 2:
                now_votes.vote(dashboard, of, how, how.moments[0], "me", int(len(events) % 2), 0)


def take(entrance: str) -> None:
    """The page in its looks. entrance: the address that the dashboard printed, with its token."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for look in TAKEN:
            settings: dict[str, Any] = LOOKS[look]
            page = browser.new_context(**settings).new_page()
            page.goto(entrance)
            page.goto(f"{entrance.partition('/?')[0]}/now")
            page.wait_for_selector("[data-testid=earlier]", timeout=90_000)
            drawn(page)
            height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
            page.set_viewport_size({**settings["viewport"], "height": min(TALLEST, max(600, height))})
            drawn(page)
            page.screenshot(path=OUT / f"now-{look}.png")
            smaller(OUT / f"now-{look}.png")
        browser.close()


def main() -> None:
    Parser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        db = Path(folder) / "rlmemo.db"
        lived_store(db)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        with closing(OneRecorder(db)):  # as if live went on
            server = subprocess.Popen(
                [sys.executable, "-m", "dashboard", "--db", str(db), "--port", str(port), "--no-open"],
                cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            try:
                assert server.stdout is not None
                take(server.stdout.readline().split()[1])
            finally:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(20)


if __name__ == "__main__":
    run_main(main)

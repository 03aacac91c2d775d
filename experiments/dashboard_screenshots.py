"""Take the pictures of docs/dashboard.md: synthetic people, ratings by a coin and the outcome.

    python -m rlmemo.benchmark --policies mru,markov1,backoff3,gbdt --json shots/baselines.json
    python -m rlmemo.train --out shots/first --sft-states 1500 --plan-states 500 --dpo-pairs 600
    python -m experiments.dashboard_screenshots shots

The folder given holds the runs that *Policies* and *Train* show. Needs Chromium and Playwright; looks at
the pages only as a browser does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from env.errors import run_main
from rlmemo.options import Parser

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "screenshots"
PAGES = {
    "rate": "",
    "votes": "votes",
    "days": "days",
    "policies": "policies",
    "train": "train",
    "privacy": "privacy",
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
LOOKS = {
    "light": {"viewport": {"width": 1100, "height": 760}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 760}, "color_scheme": "dark"},
    "phone-dark": {"viewport": {"width": 390, "height": 760}, "color_scheme": "dark"},
}
DARK = ("rate", "policies")  # on a large screen; on a phone all pages are taken dark
TALLEST = 4400


def rated_store(path: Path, votes: int = 12) -> None:
    """A store with demo predictions of which some are rated; the last vote changes the plan of its moment."""
    from env.sources import load_timelines
    from rlmemo.approval.placed_ratings import read_ratings
    from rlmemo.evaluation.after_vote import after_vote
    from rlmemo.policies.registry import to_follow
    from rlmemo.predict import Options, predict
    from rlmemo.store import raters, ratings
    from rlmemo.store.database import open_store
    from rlmemo.store.waiting import Told

    toss, used = random.Random(1), to_follow("base")
    with open_store(path) as store:
        predict(store, "demo", "base", Options(n=200, explore=0.0))
        people = {x.user: x for x in load_timelines(str(path)).timelines}
        raters.write_guidelines(store, "Say **yes** to what you would have waited for. In doubt: can't say.")
        for k in range(150):
            showing = ratings.open_showing(store, "me") or ratings.show_next(store, "me", toss.random())
            assert showing is not None
            outcome = showing.moment.prediction.outcome or {}
            ratings.rate(store, showing, int("hit" in outcome["prewarms"] or toss.random() < 0.3))
            last = ratings.latest(store, "me")
            assert last is not None
            if not last.rating.thumbs and k % 3 == 0:
                ratings.explain(store, last, ("wrong moment", "wrong thing: not on a Sunday")[k % 2])
            if k < votes or ratings.tell_after(store, "me", last.moment) is not Told.ALL:
                continue
            rated = read_ratings(store)
            found = after_vote(used, people[showing.moment.prediction.user], rated, rated[-1].id)
            if found and found.before.targets and found.before.targets != found.now.targets:
                return


def drawn(page: Any) -> None:
    """Wait until nothing on the page is a placeholder, nor says that it is still being worked on."""
    page.wait_for_timeout(1500)
    page.wait_for_function(
        "() => !document.querySelector('[data-testid=stSkeleton], [data-testid=stStatusWidget], "
        "[data-testid=stSpinner]') && [...document.querySelectorAll('[data-testid=stVegaLiteChart]')]"
        ".every(x => x.querySelector('canvas, svg'))",
        timeout=90_000,
    )
    page.wait_for_timeout(700)


def smaller(path: Path) -> None:
    """A picture in 256 colours, rare ones too: a third of its size."""
    from PIL import Image

    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
        )
    few.save(path, optimize=True)


def take(entrance: str, pages: Sequence[str]) -> None:
    """Some pages in all looks. entrance: the address that the dashboard printed, with its token."""
    from playwright.sync_api import sync_playwright

    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for look, settings in LOOKS.items():
            page = browser.new_context(**settings).new_page()
            page.goto(entrance)
            url = entrance.partition("/?")[0]
            for name in pages:
                if look == "dark" and name not in DARK:
                    continue
                page.set_viewport_size(settings["viewport"])
                page.goto(f"{url}/{PAGES[name]}")
                page.wait_for_selector("h1, [data-testid=card]", timeout=90_000)
                if name == "rate":
                    page.wait_for_selector("[data-testid=after-vote]:has-text('Before your vote')")
                if name == "days":
                    page.get_by_text("Replay the last week").click()
                    page.wait_for_selector("text=waiting, over")
                drawn(page)
                height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
                page.set_viewport_size({**settings["viewport"], "height": min(TALLEST, max(600, height))})
                page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop = 0")
                drawn(page)
                page.mouse.move(5, 300)
                page.wait_for_timeout(500)  # what stood below the pointer forgets it
                page.screenshot(path=OUT / f"{name}-{look}.png")
                smaller(OUT / f"{name}-{look}.png")
        browser.close()


def main() -> None:
    parser = Parser(
        description=__doc__,
    )
    parser.add_argument("runs", type=Path, help="folder of the runs that the pages show")
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), help="these pages alone")
    args = parser.parse_args()
    runs = args.runs.absolute()
    if not runs.is_dir():
        parser.error(f"{runs} is no folder; make runs for the pictures first, as above")
    with tempfile.TemporaryDirectory() as folder:
        rated_store(Path(folder) / "my.db")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "dashboard", "--db", str(Path(folder) / "my.db"), "--runs", str(runs),
             "--port", str(port), "--no-open"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            take(server.stdout.readline().split()[1], args.only)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)


if __name__ == "__main__":
    run_main(main)

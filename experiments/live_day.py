"""A recorded day, told to a real aw-server at many times its speed, with live recording it and being killed.

    python -m experiments.live_day                        # no kills: plans against offline replay
    python -m experiments.live_day --kills 100 --speed 200
    python -m experiments.live_day --timelines gesis --user 3 --memory-mb 800    # more goes to live

Needs aw-server (experiments/aw_server.py). Prints one JSON line: `lost` and `doubled` events, `differ` (plans
that are not those of offline replay), `unjudged` (prewarms whose outcome is not offline's), `twice` (steps
done more often than they were begun), all of which have to be 0; and by the hour of the virtual clock RSS,
with and without the pages of files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from env.judge.case import Case
from env.judge.plans import OUTCOME_NAMES
from env.sources import load_timelines
from env.timeline import Event, Timeline, collapse
from experiments.aw_server import Server, Watchers
from rlmemo.live.clock import FastClock
from rlmemo.live.mind import Minding
from rlmemo.policies.registry import to_follow
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import NOT_YET, LiveLedger

CATCH_UP_S = 180.0
BACK_S = 90.0
"""How long somebody who was away is back when they open something."""


def a_day(timeline: Timeline, day: int | None = None, tz: str = "UTC") -> Timeline:
    """A day of a recording as ActivityWatch can tell it: whole seconds, pages and programs. day: counted from
    the first event (None: the one with the most events)."""
    days = ((timeline.t - timeline.t[0]) // 86400.0).astype(int)
    day = int(np.bincount(days).argmax()) if day is None else day
    events = [
        Event(float(int(e.t)), e.target, "page" if e.kind == "page" else "app")
        for e, d in zip(timeline, days, strict=True)
        if d == day
    ]
    apart = [e for k, e in enumerate(events) if k == 0 or e.t - events[k - 1].t >= 1.0]
    return collapse(Timeline.from_events("me", apart, tz=tz, tz_known=True))


@dataclass
class Person:
    """Tells the watchers of a day, event by event."""

    watchers: Watchers
    day: Timeline
    backs: dict[int, float]
    front: tuple[str, str] | None = None

    def back(self, k: int) -> None:
        """The person, who was away, is there again before event k."""
        self.watchers.afk(float(self.day.t[k - 1]) + 60.0, True)
        self.watchers.afk(self.backs[k], False)

    def tell(self, k: int) -> None:
        """Event k: a program comes to the front, or a page in the browser."""
        event = self.day.event(k)
        window = ("Firefox", "a page") if event.kind == "page" else (event.target, "a window")
        if self.front is not None:
            self.watchers.window(event.t - 0.003, *self.front)  # until then it was what it was
        if event.kind == "page" and self.front != window:  # its page is there before it is in front
            self.watchers.page(event.t - 0.001, f"https://{event.target}/a/page?of=it")
            self.watchers.window(event.t, *window)
        elif event.kind == "page":
            self.watchers.page(event.t, f"https://{event.target}/a/page?of=it")
            self.watchers.window(event.t + 0.001, *window)
        else:
            self.watchers.window(event.t, *window)
        self.front = window


@dataclass
class Recorder:
    """`python -m rlmemo.live start`, again and again."""

    db: Path
    port: int
    clock: FastClock
    policy: str
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0
    more: Sequence[str] = ()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "rlmemo.live", "start", "--db", str(self.db), "--port", str(self.port),
            "--policy", self.policy, "--tz", "UTC", "--days", "0", "--clock", str(self.clock), *self.more,
        ]  # fmt: skip
        with self.db.with_name("live.out").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1
        self.start()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def rss_mb(self) -> tuple[float, float]:
        """Resident memory now, MB: all of it, and without the pages of files."""
        assert self.process is not None
        _, resident, of_files, *_ = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        size = os.sysconf("SC_PAGESIZE") / 1e6
        return round(int(resident) * size, 1), round((int(resident) - int(of_files)) * size, 1)


@dataclass
class Played:
    """What a day was played into, and what was measured on the way."""

    db: Path
    kills: int
    rss: dict[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """How a day is played: how many times its speed, how often live is killed in between, how many hours of
    it at least; off_after_s: after a longer pause they were away, and the machine was off; given: more of
    live's options."""

    policy: str = "base"
    speed: float = 1000.0
    kills: int = 0
    seed: int = 0
    hours: float = 0.0
    given: Sequence[str] = ()
    off_after_s: float = 0.0

    def backs(self, day: Timeline) -> dict[int, float]:
        """By event that comes after an off: when the person was back."""
        after = np.flatnonzero(np.diff(day.t) > (self.off_after_s or np.inf)) + 1
        off = day.t[after - 1] + self.off_after_s
        return dict(zip(after.tolist(), np.maximum(day.t[after] - BACK_S, off + 0.5).tolist(), strict=True))

    def told(self, day: Timeline) -> Timeline:
        """A day, as it is recorded then."""
        backs = self.backs(day)
        offs = [float(day.t[k - 1]) + self.off_after_s for k in backs]
        return replace(day, offs=np.array(offs), wakes=np.array(list(backs.values())))

    @property
    def world(self) -> dict[str, float]:
        """What is not usual of it."""
        return {"off_after_s": self.off_after_s} if self.off_after_s else {}


def play(server: Server, day: Timeline, folder: Path, way: Way) -> Played:
    """Tell a day to the server while live records into `folder`."""
    rng, db = random.Random(way.seed), folder / "live.db"
    policy, speed, kills, hours = way.policy, way.speed, way.kills, way.hours
    person = Person(Watchers(server), day, way.backs(day))
    acts = folder / "acts"
    act = f"sh -c 'echo \"$1\" >> {acts}' sh {{target}}"
    world = [f"--{x.replace('_', '-')}={value}" for x, value in way.world.items()]
    more = [
        *way.given,
        *world,
        *(("--act", "command", "--load-command", act, "--late-s", "1e9") if kills else ()),
    ]
    # it has begun before the day does, however long it takes to start here
    recorder = Recorder(
        db, server.port, FastClock(float(day.t[0]) - 1e5, 1.0, time.time()), policy, more=more
    )
    recorder.start()
    _wait(db, 0, recorder)
    recorder.stop()
    clock = recorder.clock = FastClock(float(day.t[0]) - 2.0 * speed, speed, time.time())
    recorder.start()
    played = Played(db, 0)
    due, after_offs = time.time() + rng.uniform(0.5, 4.0), set(person.backs)
    for k in range(len(day) + 1):
        due_t = day.t[k] if k < len(day) else day.t[0] + 3600.0 * hours
        while clock.now() < due_t:
            if k in after_offs and clock.now() >= person.backs[k]:
                after_offs.remove(k)
                person.back(k)
            hour = int((clock.now() - day.t[0]) // 3600)
            if hour >= 0 and not kills and hour not in played.rss:
                played.rss[hour] = recorder.rss_mb()
            if recorder.kills < kills and time.time() >= due:
                recorder.kill()
                due = time.time() + rng.uniform(0.05, 6.0)
            time.sleep(min(0.02, max(0.0, (due_t - clock.now()) / speed)))
        if k < len(day):
            if k in after_offs:  # somebody was quicker than this
                person.back(k)
            person.tell(k)
        if recorder.kills < kills and rng.random() < 0.5:
            due = min(due, time.time() + rng.uniform(0.0, 0.1))
    while recorder.kills < kills:  # what is left of them: while it catches up
        time.sleep(rng.uniform(0.05, 6.0))
        recorder.kill()
    _wait(db, len(day), recorder)
    assert recorder.stop() == 0, db.with_name("live.out").read_text()[-2000:]
    played.kills = recorder.kills
    return played


def _wait(db: Path, events: int, recorder: Recorder) -> None:
    """Until it has begun and as many events have their plan, or it takes too long."""
    until = time.time() + CATCH_UP_S
    while time.time() < until:
        if db.exists():
            with open_store(db) as store:
                ledger = LiveLedger(store, "me", "UTC")
                rows, begun = list(ledger.rows()), ledger.state("settings")
            if begun and len(rows) >= events and all(r.planned != NOT_YET for r in rows):
                return
        assert recorder.process is not None
        if recorder.process.poll() is not None:
            return
        time.sleep(0.2)


def compare(played: Played, day: Timeline, way: Way) -> dict[str, Any]:
    """What was recorded and planned, against the day and offline replay of it."""
    with open_store(played.db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        rows, settings = list(ledger.rows()), ledger.state("settings")
        begun = Counter(r["target"] for r in store.rows("SELECT target FROM live_acts WHERE what = 'load'"))
        late = store.rows("SELECT took_s FROM live_plans")
    told = Counter((e.t, e.target, e.kind) for e in day)
    kept = Counter((round(r.event.t, 3), r.event.target, r.event.kind) for r in rows)
    acts = played.db.with_name("acts")
    done = Counter(acts.read_text().splitlines()) if acts.exists() else Counter[str]()
    found: dict[str, Any] = {
        "events": len(day),
        "kills": played.kills,
        "lost": sum((told - kept).values()),
        "doubled": sum((kept - told).values()),
        "acts": sum(done.values()),
        "twice": sum((done - begun).values()),
    }
    made = to_follow(way.policy, way.world)
    minding = Minding(made, "me", "UTC", settings["budget_mb"], "offline", settings["threshold"], wakes=True)
    found |= _plans(rows, way.told(day), minding)
    took = sorted(1000.0 * r["took_s"] for r in late)
    found["thought_ms"] = {q: round(took[int(q / 100 * (len(took) - 1))], 2) for q in (50, 95)}
    if played.rss:
        found["rss_mb"] = played.rss
    return found


def _plans(rows: Sequence[Any], day: Timeline, minding: Minding) -> dict[str, Any]:
    costs = minding.setup.world.cost_model().arrays(day)
    case = Case(day, costs, minding.rules(), 1, len(day))
    planned = minding.planner().plan(minding.setup.policy, case)
    outcomes, names = case.replay(planned), day.names
    differ = unjudged = prewarms = at_wakes = 0
    most = case.world.max_picks
    for k, row in enumerate(rows[: len(day) - 1]):
        plan = (
            [names[x] for x in planned.target[k] if x >= 0],
            [names[x] for x in planned.let_go[k] if x >= 0],
        )
        woken = row.woken[1] if row.woken else ()
        differ += plan != ([p.target for p in (*row.plan, *woken)], list(row.let_go))
        prewarms += len(plan[0])
        at_wakes += len(woken)
        for place, one in enumerate((row.outcome or {"prewarms": []})["prewarms"]):
            column = place if place < len(row.plan) else most + place - len(row.plan)
            unjudged += one is not None and one["came"] != OUTCOME_NAMES[outcomes.outcome[k, column]]
    return {"prewarms": prewarms, "at_wakes": at_wakes, "differ": differ, "unjudged": unjudged}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--timelines", default="demo")
    p.add_argument("--user", type=int, default=0, help="which of its people")
    p.add_argument("--day", type=int)
    p.add_argument("--policy", default="base")
    p.add_argument("--speed", type=float, default=1000.0)
    p.add_argument("--kills", type=int, default=0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--hours", type=float, default=0.0, help="of the virtual clock, at least")
    p.add_argument("--off-after-s", type=float, default=0.0, help="whoever pauses longer was away")
    args, given = p.parse_known_args()
    day = a_day(load_timelines(args.timelines).timelines[args.user], args.day)
    with tempfile.TemporaryDirectory() as folder:
        (home := Path(folder) / "aw").mkdir()
        server = Server(home)
        try:
            way = Way(
                args.policy, args.speed, args.kills, args.seed, args.hours, given, args.off_after_s
            )  # fmt: skip
            played = play(server, day, Path(folder), way)
            print(json.dumps(compare(played, day, way)))
        finally:
            server.stop()


if __name__ == "__main__":
    main()

"""What live costs: from an event to its plan, processor time when idle, memory.

    AW_SERVER=… python -m experiments.live_speed              # base, 300 events, a real aw-server
    python -m experiments.live_speed --policy markov1 --past 20000
    python -m experiments.live_speed --thumbs 200             # of somebody who has said that much

An event is told to a real aw-server. `turn_ms` is one turn of live's loop from then on: three questions over
HTTP, two transactions, the ranking and the plan; `plan_ms` the same without the questions, from having the
event to having its plan in the ledger; `thought_ms` the ranking and the plan alone. `plan_cpu_ms` is the
processor time of `plan_ms`: what other programs take from this one, and the disk, are not in it. `idle` is
what turns without news take of a core, at one a second. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from env.sources import load_timelines
from env.timeline import Event
from experiments.aw_server import Server, Watchers
from rlmemo.live.activitywatch import ActivityWatch, BucketReader
from rlmemo.live.clock import WallClock
from rlmemo.live.loop import POLL_S, Loop
from rlmemo.live.mind import Minding
from rlmemo.policies.registry import to_follow
from rlmemo.store.database import Store, open_store
from rlmemo.store.live_ledger import LiveLedger, Seen
from rlmemo.store.records import Prediction, Prewarm


def say(store: Store, seen: Sequence[Seen], thumbs: int) -> None:
    """Thumbs on plans that name what comes next, or something else."""
    rng = np.random.default_rng(0)
    for k in rng.choice(len(seen) - 1, thumbs, replace=False).tolist():
        other = seen[k + 1 if rng.random() < 0.5 else int(rng.integers(len(seen)))].event.target
        plan = Prediction("me", seen[k].event.t, "base", "1", "", [Prewarm(other)], {}, 1.0)
        store.rate(store.add_prediction(plan), "me", int(rng.random() < 0.6))


def measure(server: Server, folder: Path, policy: str, events: int, past: int, thumbs: int) -> dict[str, Any]:
    """What a recording of so many events costs that has so many, and so many thumbs, behind it."""
    made = load_timelines("demo").timelines[0]
    names = [(e.target, "page" if e.kind == "page" else "app") for e in made]
    with open_store(folder / "live.db") as store:
        ledger, now = LiveLedger(store, "me", "UTC"), time.time()
        before = [Seen(str(k), Event(now - 60.0 * (past - k), *names[k % len(names)])) for k in range(past)]
        ledger.add(before, at=now, since=now - 30.0)
        say(store, before, thumbs)
        reader = BucketReader(ActivityWatch(port=server.port), now - 1.0)
        minding = Minding(to_follow(policy), "me", "UTC", 3200.0, "test")
        began = time.perf_counter()
        loop = Loop(ledger, reader, minding, None, WallClock(), now - 1.0)
        asked: list[tuple[float, float]] = []
        reader.read = _timed(reader.read, asked)  # type: ignore[method-assign]
        started_s = time.perf_counter() - began
        watchers, took, planned, last = Watchers(server), list[float](), list[tuple[float, float]](), ""
        for k in range(events):
            target, kind = names[(past + k) % len(names)]
            if target != last:
                watchers.window(time.time(), target if kind == "app" else f"{target} app")
                last = target
                began_at, began_cpu = time.perf_counter(), time.process_time()
                loop.turn()
                took.append(1000.0 * (time.perf_counter() - began_at))
                cpu = 1000.0 * (time.process_time() - began_cpu)
                planned.append((took[-1] - asked[-1][0], cpu - asked[-1][1]))
            time.sleep(0.01)
        thought = [1000.0 * r["took_s"] for r in store.rows("SELECT took_s FROM live_plans ORDER BY id")]
        idle = []
        for _ in range(100):
            time.sleep(0.02)
            before_cpu = time.process_time()
            loop.turn()
            idle.append(time.process_time() - before_cpu)
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    return {
        "policy": policy, "events": len(took), "past": past, "thumbs": thumbs,
        "restore_s": round(started_s, 2),
        "turn_ms": _shares(took[3:]), "plan_ms": _shares([x for x, _ in planned[3:]]),
        "plan_cpu_ms": _shares([x for _, x in planned[3:]]), "thought_ms": _shares(thought[3:]),
        "idle_share_of_a_core": round(float(np.mean(idle)) / POLL_S, 5), "rss_mb": round(rss, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000.0, 1),
    }  # fmt: skip


def _timed(read: Callable[..., Any], took: list[tuple[float, float]]) -> Callable[..., Any]:
    """The same; how many milliseconds each call took, and of a core, goes into `took`."""

    def timed(*given: Any, **more: Any) -> Any:
        began, began_cpu = time.perf_counter(), time.process_time()
        found = read(*given, **more)
        took.append((1000.0 * (time.perf_counter() - began), 1000.0 * (time.process_time() - began_cpu)))
        return found

    return timed


def _shares(values: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--policy", default="base")
    p.add_argument("--events", type=int, default=300)
    p.add_argument("--past", type=int, default=2000)
    p.add_argument("--thumbs", type=int, default=0)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (home := Path(folder) / "aw").mkdir()
        server = Server(home)
        try:
            found = measure(server, Path(folder), args.policy, args.events, args.past, args.thumbs)
            print(json.dumps(found))
        finally:
            server.stop()


if __name__ == "__main__":
    main()

"""Ratings that cannot be lost: many writers and a trainer on one database, and writers that are killed.

    python -m experiments.durability --minutes 10              # eight raters, and real trainings, at once
    python -m experiments.durability --kills 1000              # kill -9 around the write

One JSON line each, exit status 1 where a promise was broken. A vote is *acknowledged* when
`rlmemo.store.ratings.rate` has returned: the dashboard says thanks then. Promised are: no "database is
locked"; every acknowledged vote is in the table; no vote is there twice; SQLite finds the file whole.

Kills are real SIGKILLs to forks of this process, one of three kinds in turn: before a chosen SQL statement
of the child (BEGIN, the reads, INSERT, COMMIT, also those of opening the file), after a chosen number of
instructions of SQLite's machine (within a statement), and after a chosen time, which mostly falls into the
writing and syncing of the commit; the clock follows the machine, so that most of these find the child at
work. A child that ended first is no kill, and another one is sent. Whoever comes next sends the vote again
that was not acknowledged, as a page does that was reloaded, and goes on; every fourth time somebody else
votes meanwhile.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from env.errors import run_main
from env.sources import load_timelines
from env.sources.database import is_database
from env.sources.sqlite_files import Connection
from env.timeline import Event
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.record import database_of
from rlmemo.options import Parser
from rlmemo.store import forgetting, ratings
from rlmemo.store.database import Store, check_store, open_store
from rlmemo.store.records import Prediction, Prewarm

KINDS = ("statement", "instruction", "time")
CLOCK_S = (0.001, 0.06, 0.25)
"""Kills by the clock come within so many seconds: at least, at first, at most."""
START = 1_714_982_400.0
PAUSE_S = 0.02
SMALL = (
    "--method", "dpo", "--sft-states", "64", "--sft-batch", "16", "--plan-states", "12",
    "--plan-samples", "1", "--dpo-pairs", "16", "--dpo-batch", "8", "--lora-rank", "2", "--policies", "none",
)  # fmt: skip


def fill(path: Path, predictions: int) -> None:
    """A store with the demo's first fortnight, and predictions to rate."""
    with open_store(path) as store:
        store.add_timelines(load_timelines("demo", weeks=2, collapsed=False))
        for k in range(predictions):
            add_prediction(store, f"first-{k}", START + 600.0 * k)


def add_prediction(store: Store, key: str, t: float) -> None:
    """A prediction that can be shown and rated."""
    identity = store.add_prediction(
        Prediction(
            user="ada", t=t, policy="markov1", policy_version="durability", state="now", key=key,
            plan=(Prewarm("Chat"),), probabilities={"Chat": 0.6}, propensity=0.9,
        )
    )  # fmt: skip
    ratings.add_moment(
        store, identity, ratings.ToRate("durability", "UTC", True, "validation", [(t, "Mail")], 0.5)
    )


def _days(store: Store) -> None:
    """The person's days, and whether the file is a database of ours."""
    load_timelines(str(store.path))


def _policies(store: Store) -> None:
    ratings.approval(store)
    ratings.rated_predictions(store, "nobody")


def _train(store: Store) -> None:
    """Where a training would be noted, and what it could learn from."""
    database_of(TrainConfig(timelines=str(store.path), feedback=str(store.path)))
    is_database(store.path)


def _privacy(store: Store) -> None:
    forgetting.holdings(store)
    store.timelines()


def _again(store: Store) -> None:
    """Another command in the same process, or a page that opens the file anew."""
    check_store(store.path)
    open_store(store.path).close()


PAGES = (_days, _policies, _train, _privacy, _again)
"""What the dashboard's pages do with the file, in the process that holds it."""


# many at once


def write_for(path: Path, number: int, rater: str, begin: Any, stop: Any, told: Path, pause: float) -> None:
    """One writer: rates what it is shown, takes votes back, adds reasons, predictions and events, and opens
    the file anew now and then; notes on `told` what was acknowledged and how long that took.

    begin: a barrier that it waits at; stop: an event that ends it; pause: seconds between writes, on average.
    """
    rng = random.Random(number)
    done = 0
    with told.open("w", encoding="utf-8") as file:

        def tell(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        begin.wait()
        while not stop.is_set():
            try:
                with open_store(path) as store:
                    for _ in range(40):
                        if stop.is_set():
                            return
                        began = time.perf_counter()
                        _one_write(store, number, rater, rng, done, tell)
                        done += 1
                        tell(seconds=time.perf_counter() - began)
                        time.sleep(rng.uniform(0.0, 2 * pause))
            except Exception as error:
                tell(error=f"{type(error).__name__}: {error}")


def _one_write(store: Store, number: int, rater: str, rng: random.Random, done: int, tell: Any) -> None:
    what = rng.random()
    if rng.random() < 0.1:
        rng.choice(PAGES)(store)
    if what < 0.05:
        store.add_events("live", rater, [Event(time.time(), "Mail")], tz="UTC")
        return
    if what < 0.15:
        add_prediction(store, f"{number}-{done}", time.time())
        return
    last = ratings.latest(store, rater)
    if what < 0.20 and last is not None:
        ratings.withdraw(store, last)
        return
    if what < 0.25 and last is not None:
        ratings.explain(store, last, "wrong moment")
        tell(key=f"{last.rating.key}:because:wrong moment", thumbs=last.rating.thumbs)
        return
    showing = ratings.open_showing(store, rater) or ratings.show_next(store, rater, rng.random())
    if showing is None:
        add_prediction(store, f"{number}-{done}", time.time())
        return
    thumbs = rng.randrange(2)
    if ratings.rate(store, showing, thumbs) is ratings.Vote.RECORDED:
        tell(key=showing.key, thumbs=thumbs)
    else:  # the other window was first, with this key or with a later one
        tell(rated=[showing.moment.id, rater])


def crowd(minutes: float, writers: int = 8, trainings: bool = True, pause: float = PAUSE_S) -> dict[str, Any]:
    """Writers and a trainer on one database, for `minutes` and until the training under way then is done;
    what was promised and what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memo.db"
        fill(path, 200)
        # the first two are one person with two windows
        raters = ["rater 0", *(f"rater {k}" for k in range(writers - 1))]
        told = [Path(folder) / f"told{k}" for k in range(writers)]
        context = multiprocessing.get_context("forkserver")  # each begins with what one has imported
        context.set_forkserver_preload([__name__])
        begin, stop = context.Barrier(writers + 1), context.Event()
        crew = [
            context.Process(target=write_for, args=(path, k, raters[k], begin, stop, told[k], pause))
            for k in range(writers)
        ]
        for one in crew:
            one.start()
        begin.wait(300)
        until, trained, failed = time.time() + 60 * minutes, 0, []
        while trainings and (trained == 0 or time.time() < until):
            here = ("--timelines", str(path), "--feedback", str(path), *SMALL)
            done = subprocess.run(
                [sys.executable, "-m", "rlmemo.train", *here, "--out", str(Path(folder) / f"run{trained}")],
                capture_output=True,
                text=True,
                check=False,
            )
            trained += 1
            if done.returncode:
                failed.append(done.stderr[-2000:])
        time.sleep(max(0.0, until - time.time()))
        stop.set()
        for one in crew:
            one.join(120)
        said = [json.loads(line) for file in told for line in file.read_text().splitlines()]
        took = sorted(x["seconds"] for x in said if "seconds" in x)
        found = {
            "minutes": minutes,
            "writers": writers,
            "writes": len(took),
            "write_ms_p50": round(1000 * took[len(took) // 2], 1) if took else None,
            "write_ms_p99": round(1000 * took[int(0.99 * len(took))], 1) if took else None,
            "write_ms_max": round(1000 * took[-1], 1) if took else None,
            "trainings": trained,
            "trainings_failed": failed,
            "errors": sorted({x["error"] for x in said if "error" in x}),
            "exits": [one.exitcode for one in crew],
            **compare(path, {x["key"]: x["thumbs"] for x in said if "key" in x}),
            "told_that_it_was_rated_already": sum("rated" in x for x in said),
        }
        with open_store(path) as store:
            rated = {(r.prediction_id, r.rater) for r in store.ratings(latest=False)}
            found["lost"] += sum(tuple(x["rated"]) not in rated for x in said if "rated" in x)
            found["runs_noted"] = sum(run.status == "finished" for run in store.runs())
    kept = not (found["errors"] or failed or found["lost"] or found["doubled"] or any(found["exits"]))
    found["kept"] = kept and found["integrity"] == "ok" and found["runs_noted"] == trained
    return found


def compare(path: Path, acknowledged: dict[str, int]) -> dict[str, Any]:
    """What was acknowledged (thumbs by key) against what is stored."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT key, thumbs FROM ratings").fetchall()
        integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
    stored, count = dict(rows), Counter(key for key, _ in rows)
    return {
        "acknowledged": len(acknowledged),
        "stored": len(rows),
        "lost": sum(stored.get(key) != thumbs for key, thumbs in acknowledged.items()),
        "doubled": sum(n > 1 for n in count.values()),
        "integrity": integrity,
    }


# kills


def kills(count: int, seed: int = 0) -> dict[str, Any]:
    """Kill a writer `count` times (one that ended first does not count; after 3 * `count` writers it is given
    up); what was promised and what came of it."""
    rng = random.Random(seed)
    acknowledged: dict[str, int] = {}
    died: Counter[str] = Counter()
    errors: list[str] = []
    pending: tuple[str, int, int] | None = None
    resent = there = n = 0
    least, clock, most = CLOCK_S
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memo.db"
        with open_store(path) as store:
            store.add_events(
                "live", "ada", [Event(START + 60.0 * k, f"app {k % 7}") for k in range(200)], tz="UTC"
            )
            for k in range(60):
                add_prediction(store, f"first-{k}", START + 600.0 * k)
        while sum(died[k] for k in KINDS) < count and n < 3 * count:
            rater = f"rater {n // 3}"
            kind = KINDS[n % 3]
            point = {
                "statement": rng.randrange(1, 120),
                "instruction": rng.randrange(1, 9000),
                "time": rng.uniform(0.0, clock),
            }[kind]
            bystander = _fork(path, f"bystander {n}", None, "", 0.0, votes=2) if n % 4 == 0 else None
            # by the clock: as many votes as there are moments, however fast the machine is
            victim = _fork(path, rater, pending, kind, point, votes=60 if kind == "time" else 6)
            resent += pending is not None
            pending = None
            for pid, pipe, after in filter(None, (victim, bystander)):
                said, status = _wait(pid, pipe, after if pid == victim[0] else None)
                begun: dict[str, tuple[str, int, int]] = {}
                for line in said:
                    if "error" in line:
                        errors.append(line["error"])
                    elif "there" in line:
                        there += 1
                    elif "begins" in line:
                        begun[line["begins"]] = (line["begins"], line["prediction"], line["thumbs"])
                    else:
                        begun.pop(line["acknowledged"], None)
                        acknowledged[line["acknowledged"]] = line["thumbs"]
                if pid == victim[0]:
                    killed = status == -signal.SIGKILL
                    died[kind if killed else "not at all"] += 1
                    if kind == "time" and not killed:  # it was faster than the clock
                        clock = max(least, 0.8 * clock)
                    elif kind == "time" and not said:  # it had not got to its first vote
                        clock = min(most, 1.25 * clock)
                    pending = next(iter(begun.values()), None)
                elif status:
                    errors.append(f"a bystander ended with {status}")
            n += 1
            if n % 100 == 0:
                errors += _look(path, acknowledged)
        errors += _look(path, acknowledged)
        found = {
            "kills": sum(died[k] for k in KINDS),
            "writers": n,
            "clock_ms": round(1000 * clock, 1),
            "by_kind": dict(died),
            "sent_again": resent,
            "of_these_there_already": there,
            "errors": sorted(set(errors)),
            **compare(path, acknowledged),
        }
        with closing(sqlite3.connect(path)) as db:
            votes = db.execute("SELECT COUNT(*) FROM ratings GROUP BY prediction_id, rater").fetchall()
        found["doubled"] += sum(times > 1 for (times,) in votes)
    found["kept"] = not (errors or found["lost"] or found["doubled"]) and found["integrity"] == "ok"
    return found


def _look(path: Path, acknowledged: dict[str, int]) -> list[str]:
    """What is wrong with the file now."""
    with closing(sqlite3.connect(path)) as db:
        whole = db.execute("PRAGMA integrity_check").fetchone()[0]
        stored = dict(db.execute("SELECT key, thumbs FROM ratings").fetchall())
    missing = [key for key, thumbs in acknowledged.items() if stored.get(key) != thumbs]
    return [*([] if whole == "ok" else [whole]), *(f"{key} is lost" for key in missing)]


def _fork(
    path: Path, rater: str, pending: tuple[str, int, int] | None, kind: str, point: float, votes: int
) -> tuple[int, int, float | None]:
    """A fork that votes; (process id, pipe that it tells on, seconds after which it is to be killed)."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writes)
        return pid, reads, point if kind == "time" else None
    os.close(reads)
    status = 0
    try:
        _vote(path, rater, pending, kind, int(point) if kind != "time" else 0, votes, writes)
    except BaseException as error:
        os.write(writes, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        status = 1
    finally:
        os._exit(status)


def _vote(
    path: Path, rater: str, pending: tuple[str, int, int] | None, kind: str, point: int, votes: int, pipe: int
) -> None:
    """In the fork: send again what was not acknowledged, then vote; die at the point that was chosen."""
    left = point

    def tick(*_: object) -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    class Watched(Connection):
        """Counts from its first statement on, so that opening the file is among the points."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if kind == "statement":
                self.set_trace_callback(tick)
            elif kind == "instruction":
                self.set_progress_handler(tick, 1)

    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, **{**k, "factory": Watched})  # type: ignore[assignment]

    def tell(**what: Any) -> None:
        os.write(pipe, json.dumps(what).encode() + b"\n")

    rng = random.Random(f"{rater} {point}")
    with open_store(path) as store:
        if pending is not None:
            key, prediction, thumbs = pending
            if store.rows("SELECT 1 FROM ratings WHERE key = ?", [key]):
                tell(there=key)
            store.rate(prediction, key.split(":")[0], thumbs, key=key)
            tell(acknowledged=key, thumbs=thumbs)
        for _ in range(votes):
            showing = ratings.open_showing(store, rater) or ratings.show_next(store, rater, rng.random())
            if showing is None:
                return
            thumbs = rng.randrange(2)
            rng.choice(PAGES)(store)
            tell(begins=showing.key, prediction=showing.moment.id, thumbs=thumbs)
            if ratings.rate(store, showing, thumbs) is ratings.Vote.RECORDED:
                tell(acknowledged=showing.key, thumbs=thumbs)


def _wait(pid: int, pipe: int, after: float | None) -> tuple[list[dict[str, Any]], int]:
    """What a fork told until its end, and its exit status or minus the signal."""
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(pipe, "rb") as file:
        lines = file.read().decode().splitlines()
    return [json.loads(x) for x in lines], os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> int:
    """Run what was asked for."""
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=0.0, help="how long many are at work at once")
    parser.add_argument("--writers", type=int, default=8, help="how many of them rate")
    parser.add_argument("--kills", type=int, default=0, help="how often a writer is killed")
    parser.add_argument("--seed", type=int, default=0, help="which moments it is killed at")
    asked = parser.parse_args()
    if not asked.minutes and not asked.kills:
        parser.error("give --minutes M, --kills N, or both")
    kept = True
    for found in (
        crowd(asked.minutes, asked.writers) if asked.minutes else None,
        kills(asked.kills, asked.seed) if asked.kills else None,
    ):
        if found is not None:
            print(json.dumps(found), flush=True)
            kept &= bool(found["kept"])
    return 0 if kept else 1


if __name__ == "__main__":
    run_main(main)

"""What one more person costs whoever plans for many: processor time, memory, bytes; and what many need.

    python -m experiments.person_cost [--timelines webtrackr] [--policy base] [--opens 600] [--people 5]

Real days are played to the server's own people (`rlmemo.serve.people`), in this process and without HTTP:
every open is sent, kept and planned for as over the network. Measured are the first opens of every recording,
in turn, after some that are not counted. At the end the same by the number of people, multiplied from what
was measured on one core: nothing of that was simulated.

Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from env.errors import InputError, run_main
from env.sources import load_timelines
from env.sources.names import target_and_kind
from env.timeline import KINDS, Event, Timeline
from rlmemo.options import Parser
from rlmemo.policies.registry import to_follow
from rlmemo.serve.__main__ import maker
from rlmemo.serve.people import People, SentEvent
from rlmemo.store.database import open_store

DAY_S = 86_400.0
BUSY = 3.0
"""A busy hour has so many times the mean: assumed."""
MEMORY_MB = 1600.0


def opens_a_day(timelines: list[Timeline]) -> float:
    """The mean of people's opens on days on which they opened anything."""
    counts = [len(t) / len(np.unique(t.local() // DAY_S)) for t in timelines]
    return float(np.mean(counts))


def played(people: People, timeline: Timeline, places: Sequence[int]) -> float:
    """Processor seconds in which opens of somebody are sent, one after another, and planned for."""
    began = time.process_time()
    for k in places:
        opened = target_and_kind(timeline.names[timeline.target[k]], KINDS[timeline.kind[k]])
        event = Event(float(timeline.t[k]), *opened)
        person = people.person(timeline.user, "UTC", MEMORY_MB)
        person.take([SentEvent(f"{timeline.user}-{k}", event)])
    return time.process_time() - began


def resident_mb() -> float:
    """Of this process, now."""
    import psutil

    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


def files_mb(db: Path) -> float:
    """The database, with what is written ahead of it."""
    return sum(x.stat().st_size for x in db.parent.glob(db.name + "*")) / 2**20


def rounded(x: float) -> str:
    """To two digits."""
    return f"{float(f'{x:.2g}'):,.10g}"


def table(day: float, ms: float, bytes_an_open: float, mb: float, anew_s: float) -> str:
    """What was measured, and what follows for so many people."""
    cpu_day, kb_day = day * ms / 1000, day * bytes_an_open / 1000
    rows = [
        "| one person | |",
        "|---|---|",
        f"| opens on a day | {day:.0f} |",
        f"| processor time an open (kept and planned for) | {ms:.1f} ms |",
        f"| processor time a day | {cpu_day:.1f} s |",
        f"| on disk, an open with its plan | {bytes_an_open / 1000:.1f} kB |",
        f"| on disk, a year | {365 * kb_day / 1000:.0f} MB |",
        f"| in memory while asked for | {mb:.1f} MB |",
        f"| processor time to begin again from what is kept | {anew_s:.2f} s |",
        "",
        "| people | cores, over 24 h | cores, at a busy hour | on disk, a year | in memory, one in ten |",
        "|---|---|---|---|---|",
    ]
    for people in (1_000, 10_000, 1_000_000, 10_000_000):
        cores = people * cpu_day / DAY_S
        disk, memory = people * 365 * kb_day / 1e9, people * mb / 10 / 1e6
        rows.append(
            f"| {people:,} | {rounded(cores)} | {rounded(cores * BUSY)} "
            f"| {rounded(disk)} TB | {rounded(memory)} TB |"
        )
    return "\n".join(rows)


def main() -> int:
    """Run the command line."""
    p: argparse.ArgumentParser = Parser(prog="python -m experiments.person_cost", description=__doc__)
    p.add_argument(
        "--timelines", default="webtrackr", metavar="NAME|PATH", help="whose days (default: %(default)s)"
    )
    p.add_argument(
        "--policy", default="base", metavar="NAME|RUN_DIR", help="who plans (default: %(default)s)"
    )
    p.add_argument("--opens", type=int, default=600, metavar="N", help="of each (default: %(default)s)")
    p.add_argument(
        "--copies", type=int, default=4, metavar="N", help="of each, under other names (default: %(default)s)"
    )
    args = p.parse_args()
    timelines = load_timelines(args.timelines).timelines
    if args.opens < 1 or args.copies < 1:
        raise InputError("give 1 or more --opens and --copies")
    make = maker(to_follow(args.policy), "shipped", None)
    everybody = [replace(t, user=f"{t.user}-{k}") for k in range(args.copies) for t in timelines]
    with TemporaryDirectory() as folder, open_store(Path(folder) / "served.db") as store:
        held = People(store, make, most=10_000)
        played(held, replace(timelines[0], user="not counted"), range(100))
        size, kept = resident_mb(), files_mb(store.path)
        first = [range(min(args.opens, len(t) - 1)) for t in everybody]
        seconds = sum(played(held, t, k) for t, k in zip(everybody, first, strict=True))
        opens = sum(map(len, first))
        bytes_an_open = (files_mb(store.path) - kept) * 2**20 / opens
        mb = (resident_mb() - size) / len(everybody)
        again = People(store, make, most=10_000)  # as after a start: everybody is made from what is kept
        anew_s = sum(played(again, t, [k[-1] + 1]) for t, k in zip(everybody, first, strict=True)) / len(
            everybody
        )
    day = opens_a_day(timelines)
    print(table(day, 1000 * seconds / opens, bytes_an_open, mb, anew_s))
    return 0


if __name__ == "__main__":
    run_main(main)

"""Very many invented people, as a folder of Parquet files: for what has to work for a lab, not for one's own.

    python -m experiments.many_people --people 10000 --out /tmp/people [--opens 500] [--seed 0]

The people are those of the base's pre-training (`experiments.personas`), drawn from seeds of their own, one
after the other, so that none but a hundred of them are in memory. Nobody ever did any of this.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from env.errors import InputError, run_main
from env.timeline import Timeline
from rlmemo.options import Parser, seed

FIRST_SEED = 2**31
"""Pre-training and tuning draw people from smaller seeds alone."""


def people(count: int, opens: int, first: int) -> Iterator[Timeline]:
    """So many timelines of so many opens each, repeats collapsed, by their number."""
    from experiments.personas import persona

    for k in range(count):
        t, target, _, targets = persona(FIRST_SEED + (first * 1_000_003 + k) % 2**31, opens)
        none = np.full(opens, -1, np.int16)
        yield Timeline(
            f"person{k:06d}", t, target, tuple(f"target{x}" for x in range(targets)),
            np.zeros(opens, np.int8), np.full(opens, np.nan), none, np.zeros(opens, np.int16), tz_known=True,
        )  # fmt: skip


def main() -> int:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.many_people", description=__doc__)
    top.add_argument("--people", type=int, default=10_000, metavar="N", help="default: %(default)s")
    top.add_argument("--opens", type=int, default=500, metavar="N", help="of each (default: %(default)s)")
    top.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that is not there")
    top.add_argument("--seed", type=seed, default=0, metavar="N", help="other people (default: %(default)s)")
    args = top.parse_args()
    if args.people < 1 or args.opens < 2:
        raise InputError("give 1 or more --people with 2 or more --opens each")
    from rlmemo.runs.parquet_folder import write

    made, rows = write(args.out, people(args.people, args.opens, args.seed), synthetic=True)
    print(f"{args.out}: {rows:,} rows of {made:,} invented people written")
    return 0


if __name__ == "__main__":
    run_main(main)

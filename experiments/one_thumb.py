"""Does one thumb act at once on how a run's model ranks? Up and down, each by itself, at the next like one.

    python -m experiments.one_thumb runs/smollm2 [--cases 500]

A case: at some decision of the run's validation part a person says one thumb about one of the likelier
candidates. Asked is the next decision of the same person at the same hour of the day that has it among its
candidates: is its probability above what it was without the thumb (up), or below (down)? Cases are drawn over
people and decisions by --seed. Prints a Markdown row: the run's last stage as the run ranks, with its trees
where it has some. (By itself a text model ranks without thumbs; they move what both say together.)
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from env.errors import InputError, run_main
from env.ranking import decisions
from env.slate.slate import build_slates
from env.thumbs import Thumb, Thumbs
from env.timeline import Timeline
from rlmemo.options import Parser

if TYPE_CHECKING:
    from rlmemo.policies.protocol import Policy

LIKELY = 3
"""What is rated is one of so many first candidates."""


class ThumbCase(NamedTuple):
    """A thumb to be said at one decision, and the like moment that follows."""

    timeline: Timeline
    at: int
    target: int
    next: int


def cases(moments: list[tuple[Timeline, np.ndarray]], most: int, seed: int) -> list[ThumbCase]:
    """So many, drawn from all that there are."""
    found: list[ThumbCase] = []
    for timeline, rows in moments:
        candidates, hour = build_slates(timeline).candidates, timeline.local_now() // 3600 % 24
        for k, i in enumerate(rows.tolist()):
            later = rows[k + 1 :][hour[rows[k + 1 :]] == hour[i]]
            for target in candidates[i, :LIKELY].tolist():
                like = later[(candidates[later] == target).any(axis=1)] if target >= 0 else later[:0]
                if len(like):
                    found.append(ThumbCase(timeline, i, target, int(like[0])))
    drawn = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[k] for k in np.sort(drawn)]


def right(policy: Policy, asked: list[ThumbCase]) -> dict[bool, int]:
    """In how many cases the probability went where the thumb points, by thumb."""
    found = {True: 0, False: 0}
    for one in asked:
        row, timeline = np.array([one.next]), one.timeline
        hour = int(timeline.local_now()[one.at] // 3600 % 24)

        def probability(of: Timeline, row: np.ndarray = row, target: int = one.target) -> float:
            ranking = policy.rank(of, row)
            return float(ranking.probability[0][ranking.targets[0] == target].sum())

        before = probability(timeline)
        for up in (True, False):
            thumb = Thumb(float(timeline.t[one.at]), hour, up, None, (timeline.names[one.target],))
            after = probability(replace(timeline, thumbs=Thumbs.of([thumb])))
            found[up] += (after > before) if up else (after < before)
    return found


def table(run: Path, most: int, seed: int) -> list[str]:
    """The rows. Raises InputError where the run has no stage, or where there are too few cases."""
    from rlmemo.learning.config import make_config, read_yaml
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.learning.prepare import prepare
    from rlmemo.runs.folder import RunFolder

    config = make_config(read_yaml(run / "config.yaml"), str(run))
    prepared, folder = prepare(config, run, resume=True), RunFolder(run)
    there = [stage for stage in config.shared_stages if (run / stage).is_dir()]
    if not there:
        raise InputError(f"{run}: no stage of it has come to its end; go on with rlmemo.train --resume")
    last = there[-1]
    policy = stage_policies(config, folder)[last]
    moments = [
        (timeline, decisions(part))
        for timeline, part in zip(prepared.timelines, prepared.split.validation, strict=True)
    ]
    asked = cases(moments, most, seed)
    if len(asked) < most:
        raise InputError(f"{run}: there are {len(asked)} cases in its validation part, not {most}")
    found = right(policy, asked)
    return [f"| {last} | {most} | {found[True] / most:.3f} | {found[False] / most:.3f} |"]


def main() -> int:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.one_thumb", description=__doc__)
    top.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    top.add_argument("--cases", type=int, default=500, metavar="N", help="cases (default: %(default)s)")
    top.add_argument("--seed", type=int, default=0, metavar="N", help="draws the cases")
    args = top.parse_args()
    if args.cases < 1:
        raise InputError(f"--cases {args.cases} is no number of cases; give 1 or more")
    found = table(args.run, args.cases, args.seed)
    print("| policy | cases | rises after a thumb up | falls after a thumb down |\n|---|---|---|---|")
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    run_main(main)

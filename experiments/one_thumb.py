"""Does one thumb act at once on how a run's model ranks? Up and down, each by itself, at the next like one.

    python -m experiments.one_thumb runs/smollm2 [--cases 500]

A case: at some decision of the run's validation part a person says one thumb about one of the likelier
candidates. Asked is the next decision of the same person at the same hour of the day that has it among its
candidates: is its probability above what it was without the thumb (up), or below (down)? Cases are drawn over
people and decisions by --seed. Prints two Markdown rows: the run's last stage as the run ranks, and what
its language model by itself makes of the thumb in its prompt, without what Bayes' rule adds for the trees
(of a run without trees both are the same).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
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
    from rlmemo.policies.language import LanguagePolicy

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


@dataclass
class Right:
    """In how many cases the probability went where the thumb points, by thumb: as the run ranks, and as its
    model by itself reads."""

    ranked: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    model: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})


def right(policy: LanguagePolicy, asked: list[ThumbCase]) -> Right:
    """Ask every case."""
    from rlmemo.model.ask import Answered, answered
    from rlmemo.model.readings import reading_of

    found = Right()
    for one in asked:
        row, timeline = np.array([one.next]), one.timeline
        hour = int(timeline.local_now()[one.at] // 3600 % 24)
        model = policy.source.of(timeline.user)
        slates = reading_of(model).look(timeline, row)
        target = slates.candidates[one.next] == one.target

        def probability(said: Answered, target: int = one.target) -> float:
            ranking = said.together()
            return float(ranking.probability[0][ranking.targets[0] == target].sum())

        before = probability(answered(model, timeline, slates, row))
        for up in (True, False):
            thumb = Thumb(float(timeline.t[one.at]), hour, up, None, (timeline.names[one.target],))
            after = answered(model, replace(timeline, thumbs=Thumbs.of([thumb])), slates, row)
            moved = probability(after) - before
            own = moved if after.own is None else float(after.own[0, :-1][target].sum())
            found.ranked[up] += (moved > 0) if up else (moved < 0)
            found.model[up] += (own > 0) if up else (own < 0)
    return found


def table(run: Path, most: int, seed: int) -> list[str]:
    """The rows: as the run ranks, and its model by itself. Raises InputError where the run has no stage, or
    where there are too few cases."""
    from rlmemo.learning.config import of_run, read_yaml
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.learning.prepare import prepare
    from rlmemo.runs.folder import RunFolder

    config = of_run(read_yaml(run / "config.yaml"), str(run))
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
    each = {last: found.ranked, f"{last}, its model by itself": found.model}
    return [f"| {who} | {most} | {x[True] / most:.3f} | {x[False] / most:.3f} |" for who, x in each.items()]


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

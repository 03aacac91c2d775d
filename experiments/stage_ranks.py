"""How a text model ranks on a run's validation or test part: as it came and after each stage, each alone and
with the run's trees.

    python -m experiments.stage_ranks runs/smollm2 [--part validation|test] [--decisions 200]

The run need not have come to its end: what counts is which stages are there. Everybody is asked for the same
decisions, the last --decisions of each person (none given: all). Prints one Markdown row a policy: hr@1 and
hr@5, then what they are above (`AGAINST`) the model as it came, the same with the trees, and backoff-3:
differences on the same decisions, with 95 % intervals over sessions.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from env.errors import InputError, run_main
from env.ranking import decisions
from env.splits import sessions
from rlmemo.options import Parser

if TYPE_CHECKING:
    from rlmemo.learning.config import TrainConfig
    from rlmemo.policies.language import LanguagePolicy
    from rlmemo.policies.protocol import Policy

METRICS, PARTS = ("hr@1", "hr@5"), ("validation", "test")
AGAINST = ("as it came", "as it came with its trees", "backoff3")
"""Whom every policy is compared with."""
HEAD = ("policy", *METRICS, *(f"{m} less {other}" for other in AGAINST for m in METRICS))


def policies_of(run: Path, config: TrainConfig) -> dict[str, LanguagePolicy]:
    """A run's language policies by what they are called here. Raises InputError where no stage is there.

    The model as it came has no trees in a report; here it has, too, so that what they bring and what was
    learned are told apart.
    """
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.model.load import load_adapted, with_scorer
    from rlmemo.policies.language import LanguagePolicy
    from rlmemo.runs.folder import RunFolder

    there = [stage for stage in config.shared_stages if (run / stage).is_dir()]
    if not there:
        raise InputError(f"{run}: no stage of it has come to its end; go on with rlmemo.train --resume")
    stages = stage_policies(replace(config, adapter_per_user=False), RunFolder(run))
    came = LanguagePolicy(with_scorer(load_adapted(config.model, None, config.loading), run))
    made = {AGAINST[0]: came.alone(AGAINST[0]), AGAINST[1]: came}
    for stage in there:
        made |= {f"{stage} alone": stages[stage].alone(stage), f"{stage} with its trees": stages[stage]}
    return made


def rows(run: Path, most: int | None, part: str = "validation") -> list[str]:
    """The table's rows, of the last `most` decisions of each person in a part of the split (None: of all)."""
    from rlmemo.evaluation.bootstrap import Draws, session_groups
    from rlmemo.evaluation.metrics import places, rank_scores
    from rlmemo.learning.config import of_run, read_yaml
    from rlmemo.learning.prepare import prepare
    from rlmemo.policies.registry import make_policy

    config = of_run(read_yaml(run / "config.yaml"), str(run))
    prepared = prepare(config, run, resume=True)
    asked = [
        (timeline, decisions(events)[-(most or len(events)) :])
        for timeline, events in zip(prepared.timelines, getattr(prepared.split, part), strict=True)
        if len(decisions(events))
    ]
    backoff = make_policy("backoff3")
    backoff.fit(prepared.timelines, prepared.split, seed=config.seed)
    policies: dict[str, Policy] = {**policies_of(run, config), "backoff3": backoff}
    found = {
        name: rank_scores(np.concatenate([places(one.rank(t, d), t.target[d + 1]) for t, d in asked]))
        for name, one in policies.items()
    }
    draws = Draws(*session_groups([sessions(t)[d] for t, d in asked]), seed=0)
    table = []
    for name, scores in found.items():
        cells = [f"{scores[m].mean():.3f}" for m in METRICS]
        for other in AGAINST:
            for m in METRICS:
                gap = draws.difference(scores[m], found[other][m])
                cells.append(f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


def main() -> int:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.stage_ranks", description=__doc__)
    top.add_argument("run", type=Path, metavar="RUN", help="a run folder of a text model")
    top.add_argument("--part", choices=PARTS, default=PARTS[0], help="which part of the run's split")
    top.add_argument("--decisions", type=int, metavar="N", help="the last N of each person alone")
    args = top.parse_args()
    if args.decisions is not None and args.decisions < 1:
        raise InputError(f"--decisions {args.decisions} is no number of decisions; give 1 or more")
    found = rows(args.run, args.decisions, args.part)
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    run_main(main)

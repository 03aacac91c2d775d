"""How a text model ranks on a run's validation part: as it came, after each stage alone, and with its trees.

    python -m experiments.stage_ranks runs/smollm2 [--decisions 200]

The run need not have come to its end: what counts is which stages are there. Everybody is asked for the same
decisions, the last --decisions of each person (none given: all). Prints one Markdown row a policy: hr@1 and
hr@5, and their difference to the model as it came, paired, with 95 % intervals over sessions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from env.errors import InputError, run_main
from env.ranking import decisions
from env.splits import sessions
from rlmemo.options import Parser

METRICS = ("hr@1", "hr@5")


def rows(run: Path, most: int | None) -> list[str]:
    """The table's rows. Raises InputError where there is no run with a stage."""
    from rlmemo.evaluation.bootstrap import Draws, session_groups
    from rlmemo.evaluation.metrics import places, rank_scores
    from rlmemo.learning.config import make_config, read_yaml
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.learning.prepare import prepare
    from rlmemo.policies.protocol import Policy
    from rlmemo.policies.registry import make_policy
    from rlmemo.runs.folder import RunFolder

    config = make_config(read_yaml(run / "config.yaml"), str(run))
    prepared, folder = prepare(config, run, resume=True), RunFolder(run)
    there = [stage for stage in config.shared_stages if (run / stage).is_dir()]
    if not there:
        raise InputError(f"{run}: no stage of it has come to its end; go on with rlmemo.train --resume")
    stages = stage_policies(config, folder)
    asked = [
        (timeline, decisions(part)[-(most or len(part)) :])
        for timeline, part in zip(prepared.timelines, prepared.split.validation, strict=True)
        if len(decisions(part))
    ]
    backoff = make_policy("backoff3")
    backoff.fit(prepared.timelines, prepared.split, seed=config.seed)
    policies: dict[str, Policy] = {"as it came": stages["base"], "backoff3": backoff}
    for stage in there:
        policies |= {f"{stage} alone": stages[stage].alone(stage), f"{stage} with its trees": stages[stage]}
    found = {
        name: rank_scores(np.concatenate([places(one.rank(t, d), t.target[d + 1]) for t, d in asked]))
        for name, one in policies.items()
    }
    draws = Draws(*session_groups([sessions(t)[d] for t, d in asked]), seed=0)
    first, table = found["as it came"], []
    for name, scores in found.items():
        cells = [f"{scores[m].mean():.3f}" for m in METRICS]
        for m in METRICS:
            gap = draws.difference(scores[m], first[m])
            cells.append(f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


def main() -> int:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.stage_ranks", description=__doc__)
    top.add_argument("run", type=Path, metavar="RUN", help="a run folder of a text model")
    top.add_argument("--decisions", type=int, metavar="N", help="the last N of each person alone")
    args = top.parse_args()
    if args.decisions is not None and args.decisions < 1:
        raise InputError(f"--decisions {args.decisions} is no number of decisions; give 1 or more")
    found = rows(args.run, args.decisions)
    print("| policy | hr@1 | hr@5 | hr@1 less as it came | hr@5 less as it came |\n|---|---|---|---|---|")
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    run_main(main)

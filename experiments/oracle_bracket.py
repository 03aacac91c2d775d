"""How tight the oracle is bracketed: a Markdown table, one row per timelines, budget and kind of plan.

    python -m experiments.oracle_bracket [--timelines demo,webtrackr,gesis] [--costs desktop]

Over the last 20 % of every timeline's opens: the waiting without prewarms, what the clairvoyant plan saved,
what no plan can exceed, and the gap between the two as a share of the bound; for plans that only load early,
and for plans that also name who leaves. The last rows are 10,000 invented opens of 300 targets, all counted.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np

from env.errors import run_main
from rlmemo.options import Parser

if TYPE_CHECKING:
    from env.timeline import Timeline


def main() -> None:
    """Measure and print."""
    parser = Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--timelines", default="demo,webtrackr,gesis", help="what to replay")
    parser.add_argument("--costs", default="desktop", help="cost preset")
    given = parser.parse_args()

    from env.judge.cost import WorldConfig
    from env.judge.cost_presets import cost_model
    from env.judge.oracle import bracket
    from env.sources import load_timelines

    print("| timelines | budget | lets go | no prewarms, wait s | plan saves s | bound s | gap | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    asked = [(name, load_timelines(name).timelines, 0.8) for name in given.timelines.split(",")]
    for name, timelines, share in [*asked, ("10,000 opens", [invented(10_000)], 0.0)]:
        for budget in (2.0, 8.0):
            for let_go in (False, True):
                began = time.process_time()
                base = feasible = bound = 0.0
                for timeline in timelines:
                    both = bracket(
                        timeline,
                        cost_model(given.costs).arrays(timeline),
                        WorldConfig(budget_targets=budget),
                        start=int(share * len(timeline)),
                        let_go=let_go,
                    )
                    base += both.outcomes.total("base_wait_s")
                    feasible += both.feasible_s
                    bound += both.bound_s
                gap = (bound - feasible) / bound if bound else 0.0
                print(
                    f"| {name} | {budget:g} | {'yes' if let_go else 'no'} | {base:.1f} | {feasible:.1f} | "
                    f"{bound:.1f} | {gap:.2%} | {time.process_time() - began:.1f} |",
                    flush=True,
                )


def invented(n: int) -> Timeline:
    """n opens of 300 targets, some far more often than others, with pauses among them."""
    from env.timeline import Event, Timeline

    rng = np.random.default_rng(1)
    gap = np.where(rng.random(n) < 0.05, rng.exponential(20_000, n), rng.exponential(15, n))
    weights = 1 / np.arange(1, 301)
    target = rng.choice(300, n, p=weights / weights.sum())
    kinds = rng.choice(["app", "page", "file"], 300)
    when = 1.7e9 + np.cumsum(gap)
    events = [Event(float(t), f"t{x}", kinds[x]) for t, x in zip(when, target, strict=True)]
    return Timeline.from_events("invented", events)


if __name__ == "__main__":
    run_main(main)

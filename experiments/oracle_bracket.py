"""How tight the oracle is bracketed: one JSON line per budget.

    python -m experiments.oracle_bracket [--timelines demo] [--costs desktop]

Per budget, over the last 20 % of every timeline's opens: the waiting without prewarms, what the clairvoyant
plan saved, what no plan can exceed, and the gap between the two as a share of the bound.
"""

from __future__ import annotations

import argparse
import json
import time

from env.errors import run_main
from rlmemo.options import Parser


def main() -> None:
    """Measure and print."""
    parser = Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--timelines", default="demo", help="what to replay")
    parser.add_argument("--costs", default="desktop", help="cost preset")
    given = parser.parse_args()

    from env.judge.cost import WorldConfig
    from env.judge.cost_presets import cost_model
    from env.judge.oracle import bracket
    from env.sources import load_timelines

    timelines = load_timelines(given.timelines).timelines
    for budget in (2.0, 4.0, 8.0, 16.0):
        began = time.perf_counter()
        base = feasible = bound = 0.0
        for timeline in timelines:
            both = bracket(
                timeline,
                cost_model(given.costs).arrays(timeline),
                WorldConfig(budget_targets=budget),
                start=int(0.8 * len(timeline)),
            )
            base += both.outcomes.total("base_wait_s")
            feasible += both.feasible_s
            bound += both.bound_s
        print(
            json.dumps(
                {
                    "timelines": given.timelines,
                    "collapsed": True,
                    "costs": given.costs,
                    "budget_targets": budget,
                    "no_prewarm_wait_s": round(base, 1),
                    "feasible_saved_s": round(feasible, 1),
                    "bound_saved_s": round(bound, 1),
                    "gap": round((bound - feasible) / bound if bound else 0.0, 4),
                    "seconds": round(time.perf_counter() - began, 1),
                }
            )
        )


if __name__ == "__main__":
    run_main(main)

"""The embedded model against `gbdt` on earlier parts of a recording, from rolling origins.

    python -m experiments.rolling --until 0.4,0.6,0.8 --seeds 0,1            # some 5 minutes on one core
    python -m experiments.rolling --boosters 1                               # a scorer of one booster alone

Every user's timeline is taken as if it had ended after a share of its events (`--until`); what is left is
split in time order as always, scorers and the model learn from its training part (`python -m rlmemo.train
--method sft` does the same), and its test part judges. With shares up to the 0.8 at which the test part of
the whole recording begins, not one event of that is read: choices can be made here, and the test part be
kept for one look.

Prints differences to `gbdt` of the same seed on the same events, hr@1/3/5 and mrr@5, in thousandths, means
over the seeds with paired 95 % intervals over sessions, and the log loss: of the model alone, of the model
and its scorer pooled with several weights for the scorer, of the scorer, and of each of its boosters.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from experiments.compare_adapters import policy_of, train_one
from rlmemo.model.ask import FirstPick, ranking, read
from rlmemo.options import Parser

Answers = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name of a way to rank: (place of what was opened, log-probability given to it) of every event."""


def ended(timeline: Any, share: float) -> Any:
    """The timeline as if it had ended after a share of its events; names it never reaches stay unused."""
    n = len(timeline)
    parts = {f.name: getattr(timeline, f.name) for f in dataclasses.fields(timeline)}
    cut = {k: x[: int(share * n)] for k, x in parts.items() if isinstance(x, np.ndarray) and len(x) == n}
    return dataclasses.replace(timeline, **cut)


def ways(
    timelines: list[Any], split: Any, seed: int, boosters: int | None, pools: list[float]
) -> Iterator[tuple[str, Any]]:
    """(name, how it ranks decisions of a timeline) after learning from the training part."""
    from env.judge.cost import WorldConfig
    from env.judge.cost_presets import cost_model
    from rlmemo.learning.config import make_config
    from rlmemo.learning.training_data import TrainingData, draw, part_states
    from rlmemo.model.readings import SlotReading
    from rlmemo.model.scorer import CrossFitted, Scorer, fit_scorers, shortlist_of
    from rlmemo.policies.gbdt import GbdtPolicy

    gbdt = GbdtPolicy()
    gbdt.fit(timelines, split, seed=seed)
    yield "gbdt", gbdt.rank
    config = make_config({"method": "sft", "seed": seed, "checkpoint_steps": 10**6})
    data = TrainingData.prepare(timelines, split, cost_model("desktop"), WorldConfig())
    crossed = fit_scorers(data.wide(), data.train, seed=seed)
    some = [Scorer(s.boosters[:boosters], s.below) for s in (crossed.final, *crossed.fold)]
    crossed = CrossFitted(some[0], tuple(some[1:]))
    states, _ = draw(part_states(data.split.train), config.sft_states, config.plan_states, config.seed)
    with tempfile.TemporaryDirectory() as work:
        train_one(data.scored(crossed), config, states, Path(work))
        model = policy_of(config, Path(work) / "adapter").model
    model.reading = SlotReading(crossed.final)
    said: dict[int, Any] = {}

    def pooled(timeline: Any, rows: np.ndarray, pool: float) -> Any:
        slates = model.reading.look(timeline, rows)
        if id(timeline) not in said:
            said[id(timeline)] = read(model, model.reading.prompts(timeline, slates, rows))
        return ranking(said[id(timeline)], slates.candidates[rows], slates.score[rows], pool)

    for pool in pools:
        name = {0.0: "the model alone", 1.0: "its scorer alone"}.get(pool, f"{pool:.2f} of the scorer")
        yield name, lambda timeline, rows, pool=pool: pooled(timeline, rows, pool)

    def by_one(timeline: Any, rows: np.ndarray, booster: Any) -> Any:
        wide = data.wide()[next(u for u, x in enumerate(timelines) if x is timeline)]
        slates = shortlist_of(wide, rows, Scorer((booster,), crossed.final.below))
        return ranking(FirstPick(slates.score, None), slates.candidates)

    for k, booster in enumerate(crossed.final.boosters if len(crossed.final.boosters) > 1 else ()):
        yield f"its booster {k + 1} alone", lambda timeline, rows, b=booster: by_one(timeline, rows, b)


def judged(timelines: list[Any], split: Any, rankers: Iterator[tuple[str, Any]], note: str) -> Answers:
    """What every way to rank said of the test part."""
    from env.ranking import Ranking, decisions
    from rlmemo.evaluation.metrics import answer_log_p, places

    opened = np.concatenate([x.target[events] for x, events in zip(timelines, split.test, strict=True)])
    found = {}
    shown = sys.stderr.isatty()
    for name, rank in rankers:
        if shown:
            print(f"\r{note}: {name}".ljust(60), end="", file=sys.stderr, flush=True)
        made = [rank(x, decisions(events)) for x, events in zip(timelines, split.test, strict=True)]
        both = Ranking.join(made)
        place = places(both, opened)
        found[name] = (place, answer_log_p(both, place))
    if shown:
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
    return found


def table(found: list[list[Answers]], draws: Any) -> str:
    """Rows of Markdown; found: by share, then by seed. draws: over the events of all shares, in order."""
    from rlmemo.evaluation.bootstrap import Estimate
    from rlmemo.evaluation.metrics import rank_scores

    def scores(name: str) -> dict[str, np.ndarray]:
        """Means over the seeds, events of all shares in a row."""
        by_seed = [rank_scores(np.concatenate([a[name][0] for a in one])) for one in zip(*found, strict=True)]
        return {metric: np.mean([x[metric] for x in by_seed], axis=0) for metric in by_seed[0]}

    best = scores("gbdt")
    rows = [f"| {len(draws.groups):,} events | " + " | ".join(best) + " | log loss |"]
    rows.append("|---|" + "---|" * (len(best) + 1))
    for name in [n for n in found[0][0] if all(n in a for seeds in found for a in seeds)]:
        cells = []
        for metric, score in scores(name).items():
            e = draws.difference(score, best[metric])
            cells.append(Estimate(1000 * e.value, 1000 * e.low, 1000 * e.high).text("+.1f"))
        if name == "gbdt":
            cells = ["0"] * len(cells)
        loss = -np.mean(np.concatenate([a[name][1] for seeds in found for a in seeds]))
        rows.append(f"| {name} | " + " | ".join(cells) + f" | {loss:.4f} |")
    return "\n".join(rows)


def shares(text: str) -> list[float]:
    """Numbers from 0 to 1, joined by commas."""
    try:
        found = [float(x) for x in text.split(",")]
    except ValueError:
        found = [-1.0]
    if not all(0 <= x <= 1 for x in found):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 0 to 1, such as 0.4,0.8")
    return found


def whole(text: str) -> list[int]:
    """Whole numbers from 0 on, joined by commas."""
    if not all(x.strip().isdecimal() for x in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers, such as 0,1")
    return [int(x) for x in text.split(",")]


def main() -> None:
    parser = Parser(
        description=__doc__,
    )
    parser.add_argument("--timelines", default="webtrackr", help="what to learn from")
    parser.add_argument(
        "--until", type=shares, default=[0.4, 0.6, 0.8], metavar="X,X", help="shares of each user's events"
    )
    parser.add_argument(
        "--seeds", type=whole, default=[0, 1], metavar="N,N", help="of scorers, trees and training"
    )
    parser.add_argument(
        "--boosters", type=int, choices=(1, 2), help="use the first so many boosters of the scorer (all)"
    )
    parser.add_argument(
        "--pools", type=shares, metavar="X,X", help="weights of the scorer (0, 1/2, the product's, 3/4, 1)"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

    from env.sources import load_timelines
    from env.splits import chrono, sessions
    from rlmemo.evaluation.bootstrap import Draws, session_groups
    from rlmemo.model.ask import POOL

    pools = args.pools or [0.0, 0.5, POOL, 0.75, 1.0]
    everything = load_timelines(args.timelines, seed=0).timelines
    found, of = [], []
    for share in args.until:
        timelines = [ended(x, share) for x in everything]
        split = chrono(timelines)
        of += [sessions(x)[i] for x, i in zip(timelines, split.test, strict=True)]
        seeds = []
        for seed in args.seeds:
            rankers = ways(timelines, split, seed, args.boosters, pools)
            seeds.append(judged(timelines, split, rankers, f"until {share:g}, seed {seed}"))
        found.append(seeds)
    print(table(found, Draws(*session_groups(of))))


if __name__ == "__main__":
    run_main(main)

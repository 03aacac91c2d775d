"""What thumbs change at once, without any training: the shipped base, and simulated people who rate.

    python -m experiments.thumbs_at_once --seeds 12 13 14 --out runs/thumbs
    python -m experiments.thumbs_at_once --taste drawn

The people, their tastes and what is measured are those of `experiments.closed_loop`: predictions on the
training part are rated through the functions that the dashboard calls, and judged is the test part, on
which the true taste is known to the experiment. Neither pre-training (`experiments.raters`) nor tuning has
seen these people. N ratings are N of every person, the earliest moments first, or as many as there are: a
fifth of what is shown is skipped, and where the policy keeps still there is nothing to rate. How many that
were stands beside N. Approval is compared at the threshold that wastes as many prewarms per open as without
ratings (equal waste), and at the one that shows a plan as often (equal coverage); hits at equal waste;
reward at the threshold of before. With `--turn`, everybody swaps what they ban and what they love half-way
through their ratings.
95 % intervals by bootstrap over sessions, paired; over seeds, of the mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from experiments.closed_loop import (
    GRID,
    Asked,
    Data,
    asked_of,
    best_threshold,
    chances,
    over_seeds,
    show,
    tastes_of,
    told,
)
from experiments.simulated_rater import Taste, rate_all
from rlmemo.approval.placed_ratings import Placed, place_ratings, read_ratings
from rlmemo.approval.thumbs_said import told as hearing
from rlmemo.options import Parser
from rlmemo.runs.atomic import write_atomic

COUNTS = (1, 10, 50, 200, 1000)
ASKED = 1.5
"""Predictions that are asked for, of the ratings that are wanted: enough for people who skip a fifth."""


@dataclasses.dataclass(frozen=True)
class Swept:
    """A policy on the test part at every threshold of `GRID`, float64 [T, n] per open: chance of thumbs up
    where a plan is shown (else NaN), hits, prewarms wasted, reward."""

    chance: np.ndarray
    hit: np.ndarray
    wasted: np.ndarray
    reward: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Whether a plan is shown."""
        return ~np.isnan(self.chance)


def swept(asked: list[Asked], tastes: Mapping[str, Taste]) -> Swept:
    """What plans by every threshold come to."""
    from env.judge.plans import FIELDS, HIT, WASTED
    from reward import parse_reward

    weights = parse_reward("net_seconds").weights(FIELDS)
    rows: dict[str, list[np.ndarray]] = {f.name: [] for f in dataclasses.fields(Swept)}
    for theta in GRID:
        one: dict[str, list[np.ndarray]] = {name: [] for name in rows}
        for case, ranking in asked:
            found, plans = case.replay_ranked(ranking, float(theta))
            outcome = found.outcome[case.indices]
            one["chance"].append(chances(tastes, case.timeline, case.indices, plans.target))
            one["hit"].append((outcome == HIT).sum(1))
            one["wasted"].append((outcome == WASTED).sum(1))
            one["reward"].append((found.table @ weights)[case.start : case.stop])
        for name, parts in one.items():
            rows[name].append(np.concatenate(parts).astype(np.float64))
    return Swept(**{name: np.stack(x) for name, x in rows.items()})


def compared(
    one: Swept, before: Swept, at: int, group: np.ndarray, replicates: int = 400
) -> dict[str, list[float]]:
    """Differences from before: [value, low, high]; at: the threshold before, by its place in `GRID`."""
    waste = int(np.argmin(np.abs(one.wasted.mean(1) - before.wasted[at].mean())))
    cover = int(np.argmin(np.abs(one.shown.mean(1) - before.shown[at].mean())))
    groups = int(group.max()) + 1
    drawn = np.random.default_rng(0).multinomial(groups, np.full(groups, 1.0 / groups), replicates)
    often = np.concatenate([np.ones((1, groups)), drawn])[:, group]  # [1 + replicates, n]

    def mean(x: np.ndarray) -> np.ndarray:
        known = ~np.isnan(x)
        found: np.ndarray = (often @ np.nan_to_num(x)) / np.maximum(often @ known.astype(float), 1e-12)
        return found

    was = mean(before.chance[at])
    found = {
        "approval at equal waste": mean(one.chance[waste]) - was,
        "approval at equal coverage": mean(one.chance[cover]) - was,
        "hits at equal waste": mean(one.hit[waste]) - mean(before.hit[at]),
        "reward at the same threshold": mean(one.reward[at]) - mean(before.reward[at]),
        "approval": mean(one.chance[at]),
    }
    return {name: [float(x[0]), *np.quantile(x[1:], [0.025, 0.975]).tolist()] for name, x in found.items()}


def turned(taste: Taste) -> Taste:
    """Somebody who now loves what they banned, and the other way round."""
    return dataclasses.replace(taste, banned=taste.loved, loved=taste.banned)


def first_of_each(placed: list[Placed], many: int) -> list[Placed]:
    """The earliest ratings of every person."""
    kept: list[Placed] = []
    for user in sorted({p.user for p in placed}):
        kept += sorted((p for p in placed if p.user == user), key=lambda p: p.index)[:many]
    return kept


def measure(out: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The people of one seed."""
    from rlmemo.policies.registry import setup
    from rlmemo.predict import main as predict
    from rlmemo.store.database import open_store

    out.mkdir(parents=True, exist_ok=True)
    data = Data(args.timelines, args.people, seed)
    policy: Any = setup(args.policy, {}).policy
    policy.fit(data.timelines, data.split, seed=seed)
    theta = best_threshold(asked_of(policy, data, "validation"))
    tastes = tastes_of(args.taste, data, policy, theta, seed)
    at = int(np.argmin(np.abs(GRID - theta)))
    plain = asked_of(policy, data, "test")
    judged_by = {user: turned(x) for user, x in tastes.items()} if args.turn else tastes
    before = swept(plain, judged_by)
    general = float(np.nanmean(before.chance[at]))
    knowing = compared(swept(told(plain, judged_by, general, 1.0), judged_by), before, at, data.group)
    db = out / "people.db"
    for stale in out.glob("people.db*"):
        stale.unlink()
    with open_store(str(db)) as store:
        store.add_timelines(data.recorded)
    asked = ["--timelines", str(db), "--policy", args.policy, "--db", str(db), "--part", "train"]
    predict([*asked, "--n", str(int(ASKED * max(args.counts) * args.people)), "--seed", str(seed)])
    with open_store(str(db)) as store:
        if args.turn:
            _rate_turning(store, tastes, data, seed)
        else:
            rate_all(store, tastes, "simulated", seed)
        placed = place_ratings(read_ratings(store), data.timelines, learn_on=data.split).placed
    found = []
    recorded = data.timelines
    for many in args.counts:
        some = first_of_each(placed, many)
        data.timelines = hearing(recorded, some)
        one = swept(asked_of(policy, data, "test"), judged_by)
        line = {
            "seed": seed, "ratings": many, "rated": len(some), "rated of each": len(some) / args.people,
            **compared(one, before, at, data.group),
        }  # fmt: skip
        print(json.dumps(line), flush=True)
        found.append(line)
    result = {"seed": seed, "taste": args.taste, "turn": args.turn, "knowing": knowing, "found": found}
    write_atomic(out / "thumbs.json", json.dumps(result, indent=1))
    return result


def _rate_turning(store: Any, tastes: Mapping[str, Taste], data: Data, seed: int) -> None:
    """Everybody's mind changes at the middle of what they were asked about."""
    from rlmemo.store.ratings import rate, show_next, skip

    rng = np.random.default_rng([seed, 103])
    rows = store.rows("SELECT user, t FROM predictions")
    middle = {user: float(np.median([r["t"] for r in rows if r["user"] == user])) for user in tastes}
    while (showing := show_next(store, "simulated", float(rng.random()))) is not None:
        about = showing.moment.prediction
        taste = tastes[about.user]
        if rng.random() < taste.lazy:
            skip(store, showing)
            continue
        from experiments.simulated_rater import local_hour

        mind = turned(taste) if about.t >= middle[about.user] else taste
        opened = str((about.outcome or {}).get("next_target"))
        chance = mind.chance(local_hour(showing.moment), [p.target for p in about.plan], opened)
        rate(store, showing, int(rng.random() < chance))


COLUMNS = ("approval at equal waste", "approval at equal coverage", "hits at equal waste")
REWARD = "reward at the same threshold"


def table(results: list[dict[str, Any]]) -> str:
    """The means over seeds, in Markdown, in per cent; reward in seconds an open."""
    head = ["ratings of each", "rated of each, mean", *COLUMNS, f"{REWARD}, s / open"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows = [(str(first["ratings"]), [r["found"][k] for r in results])
            for k, first in enumerate(results[0]["found"])]  # fmt: skip
    for name, found in [*rows, ("told the taste", [r["knowing"] for r in results])]:
        each = [x["rated of each"] for x in found if "rated of each" in x]
        cells = [name, f"{np.mean(each):.1f}" if each else ""]
        cells += [show(over_seeds([x[column] for x in found])) for column in COLUMNS]
        cells.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*over_seeds([x[REWARD] for x in found])))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    p = Parser(description=__doc__)
    p.add_argument("--timelines", default="demo")
    p.add_argument("--people", type=int, default=6, help="how many of its people (the first ones)")
    p.add_argument("--policy", default="base", help="who predicts: `base`, or a run folder")
    p.add_argument("--seeds", type=int, nargs="+", default=[12, 13, 14])
    p.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="ratings of each person")
    p.add_argument("--taste", choices=("use", "drawn"), default="use", help="see `closed_loop.tastes_of`")
    p.add_argument("--turn", action="store_true", help="everybody changes their mind half-way")
    p.add_argument("--out", type=Path, default=Path("runs/thumbs"))
    args = p.parse_args()
    results = [measure(args.out / f"seed{seed}", args, seed) for seed in args.seeds]
    print(table(results))


if __name__ == "__main__":
    run_main(main)

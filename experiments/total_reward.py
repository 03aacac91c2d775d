"""Seconds and thumbs together: does learning from both end above SFT with its tuned planner?

    python -m experiments.total_reward --seeds 12 13 14 --out runs/total

People and tastes are those of `experiments.closed_loop`. Moments of the training part are predicted by the
shipped base and rated; SFT, DPO and PPO (`--methods`) learn with `--feedback`, and every policy hears what
was said. The
planner of each (a threshold, or its own plans) is the one with the highest total on validation, thumbs as
the approval model expects them; `approval` is SFT under that model's planner, its strength chosen, too;
`told the taste` is SFT under a planner that knows it.

Reported is the total per open on the test part: seconds as the judge counts them, and the true mean rating
of what is shown, times the seconds that a thumb counts; and approval as in `experiments.thumbs_at_once`,
against the base without ratings, before and after learning. 95 % intervals by bootstrap over sessions,
paired.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from env.judge.case import Case
from experiments.closed_loop import (
    GRID,
    Asked,
    Data,
    asked_of,
    best_threshold,
    chances,
    options,
    over_seeds,
    show,
    tastes_of,
)
from experiments.closed_loop import told as told_tastes
from experiments.simulated_rater import rate_all
from experiments.thumbs_at_once import COLUMNS, compared, swept
from rlmemo.options import Parser
from rlmemo.policies.planners import BY_SOON, NEVER, Threshold, planned, told
from rlmemo.policies.protocol import Planned
from rlmemo.runs.atomic import write_atomic

SIZES = {"sft-states": 2000, "plan-states": 500, "dpo-pairs": 1000, "kto-plans": 2000}
REWARD = "net_seconds"
METHODS = ("dpo", "kto", "ppo", "grpo")
TOLD = (0.0, 0.5, 1.0, 2.0)
NAMING = Threshold(NEVER, BY_SOON)


@dataclass(frozen=True)
class Result:
    """Of the people of a seed, by policy. per_open: float64 [n, 2], seconds and expected rating of every open
    of the test part; approval: as of `thumbs_at_once.compared`; group: int64 [n], sessions."""

    per_open: dict[str, np.ndarray]
    approval: dict[str, dict[str, list[float]]]
    group: np.ndarray


def rated(out: Path, args: Any, seed: int) -> tuple[Data, dict[str, Any], Path, Any, float]:
    """The people, their tastes, a database with what they rated of the training part; the shipped base, and
    its threshold."""
    from rlmemo.policies.registry import setup
    from rlmemo.predict import main as predict
    from rlmemo.store.database import open_store

    data, db = Data(args.timelines, args.people, seed), out / "people.db"
    policy: Any = setup("base", {}).policy
    policy.fit(data.timelines, data.split, seed=seed)
    theta = best_threshold(asked_of(policy, data, "validation"))
    tastes = tastes_of(args.taste, data, policy, theta, seed)
    if not db.exists():
        part = out / "part.db"
        part.unlink(missing_ok=True)
        with open_store(str(part)) as store:
            store.add_timelines(data.recorded)
        asked = ["--timelines", str(part), "--policy", "base", "--db", str(part), "--part", "train"]
        predict([*asked, "--n", str(int(1.5 * args.ratings * args.people)), "--seed", str(seed)])
        with open_store(str(part)) as store:
            rate_all(store, tastes, "simulated", seed, args.ratings * args.people)
        part.rename(db)
    return data, tastes, db, policy, theta


def measure(out: Path, args: Any, seed: int) -> Result:
    """The people of one seed."""
    from reward import parse_reward
    from rlmemo.approval.approval import MODEL, Approval
    from rlmemo.approval.placed_ratings import place_ratings, read_ratings
    from rlmemo.approval.thumbs_said import told as hear
    from rlmemo.learning.approval_choice import HEARD, STRENGTHS, choose
    from rlmemo.learning.config import make_config
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.learning.rating_feedback import per_thumb
    from rlmemo.learning.training_data import TrainingData
    from rlmemo.runs.folder import RunFolder
    from rlmemo.store.database import open_store

    out.mkdir(parents=True, exist_ok=True)
    data, tastes, db, base, theta = rated(out, args, seed)
    at, before = int(np.argmin(np.abs(GRID - theta))), swept(asked_of(base, data, "test"), tastes)
    with open_store(str(db)) as store:
        placed = place_ratings(read_ratings(store), data.timelines, learn_on=data.split).placed
    data.timelines = hear(data.timelines, placed)
    hearing = TrainingData.prepare(data.timelines, data.split, data.model, data.world)
    reward = parse_reward(REWARD)
    thumb = per_thumb(reward, args.weight)
    policies, approval = {"base": base}, None
    for method in args.methods:
        run = learn(out / method, db, method, args, seed)
        config = make_config({"method": method, "seed": seed, "timelines": str(db)})
        found = stage_policies(config, RunFolder(run))
        policies |= {name: found[name] for name in ("sft", method) if name not in policies}
        approval = approval or Approval.load(run / "adapter" / MODEL)
    result = Result({}, {}, data.group)
    for name, policy in policies.items():
        swept_now = swept(asked_of(policy, data, "test"), tastes)
        result.approval[name] = compared(swept_now, before, at, data.group)
        ways = {name: HEARD, **({"approval": STRENGTHS} if name == "sft" else {})}
        for called, tried in ways.items():
            planner = choose(policy, approval, hearing, reward, thumb, seed, NAMING, strengths=tried)
            result.per_open[called] = total(policy, planner, hearing, tastes, reward, seed)
            print(json.dumps({"seed": seed, "policy": called, **planner.to_json()}), flush=True)
    general = float(np.nanmean(before.chance[at]))
    knows = best_knowing(policies["sft"], hearing, tastes, general, reward, thumb)
    result.per_open["told the taste"] = total(policies["sft"], knows, hearing, tastes, reward, seed)
    return result


def learn(run: Path, db: Path, method: str, args: Any, seed: int) -> Path:
    """A training on the ratings, gone on with where it was stopped."""
    from rlmemo.train import main as train

    if not (run / "report.json").exists():
        more = {"method": method, "feedback": db, "feedback-weight": args.weight, "seed": seed}
        start = ["--timelines", str(db), "--policies", "none", *options({**SIZES, **more})]
        train(["--out", str(run), *(["--resume"] if (run / "config.yaml").exists() else start)])
    return run


@dataclass(frozen=True)
class Knowing:
    """Plans by a threshold of somebody who is told the tastes: the odds of an open times what the target does
    to the true odds of thumbs up, to the power of `strength`."""

    tastes: dict[str, Any]
    general: float
    strength: float
    theta: float

    def plan(self, policy: Any, case: Case, *, seed: int = 0) -> Planned:
        """The plans for the decisions of a case; they name who leaves."""
        case = told(policy, case)
        asked = [Asked(case, policy.rank(case.timeline, case.indices))]
        (counted,) = told_tastes(asked, self.tastes, self.general, self.strength)
        return planned(case.replay_ranked(counted.ranking, self.theta, case.worth is not None)[1])


def best_knowing(policy: Any, data: Any, tastes: Any, general: float, reward: Any, thumb: float) -> Knowing:
    """The best of them on validation."""
    ways = [Knowing(tastes, general, s, float(t)) for s in TOLD for t in np.geomspace(0.1, 0.8, 10)]
    both, part = [1.0, thumb], data.split.validation
    return max(ways, key=lambda way: total(policy, way, data, tastes, reward, 0, part).mean(0) @ both)


def total(
    policy: Any, planner: Any, data: Any, tastes: Any, reward: Any, seed: int, part: Any = None
) -> np.ndarray:
    """float64 [n, 2] of a part (the test part): seconds, and the true mean rating of what is shown."""
    from env.judge.plans import FIELDS

    rows = []
    for case in data.cases(data.split.test if part is None else part):
        plans = planner.plan(policy, case, seed=seed)
        seconds = (case.replay(plans).table @ reward.weights(FIELDS))[case.start : case.stop]
        chance = chances(tastes, case.timeline, case.indices, plans.target)
        rows.append(np.stack([seconds, np.nan_to_num(2.0 * chance - 1.0)], axis=1))
    return np.concatenate(rows)


def difference(one: np.ndarray, other: np.ndarray, group: np.ndarray) -> list[float]:
    """Mean difference per open: [value, low, high], by bootstrap over sessions."""
    groups = int(group.max()) + 1
    drawn = np.random.default_rng(0).multinomial(groups, np.full(groups, 1.0 / groups), 2000)
    often = np.concatenate([np.ones((1, groups)), drawn])
    summed = (
        np.bincount(group, one - other, groups) @ often.T / (np.bincount(group, minlength=groups) @ often.T)
    )
    return [float(summed[0]), *np.quantile(summed[1:], [0.025, 0.975]).tolist()]


def table(results: Sequence[Result], thumb: float) -> str:
    """The means over seeds, in Markdown. thumb: seconds that it counts."""
    lines = ["| policy | seconds / open | rating / open | total / open | less SFT | less approval |"]
    lines.append("|---" * 6 + "|")
    both = np.array([1.0, thumb])
    for name in results[0].per_open:
        seconds, rating = np.mean([r.per_open[name].mean(0) for r in results], axis=0)
        cells = [f"{seconds:.3f}", f"{rating:+.3f}", f"{seconds + thumb * rating:.3f}"]
        for other in ("sft", "approval"):
            each = [difference(r.per_open[name] @ both, r.per_open[other] @ both, r.group) for r in results]
            cells.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*over_seeds(each)))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| policy | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name in results[0].approval:
        cells = [show(over_seeds([r.approval[name][c] for r in results])) for c in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    p = Parser(description=__doc__)
    p.add_argument("--timelines", default="demo")
    p.add_argument("--people", type=int, default=6, help="how many of its people (the first ones)")
    p.add_argument("--ratings", type=int, default=200, help="of each person, on average")
    p.add_argument("--weight", type=float, default=1.0, help="`--feedback-weight`")
    p.add_argument(
        "--methods", choices=METHODS, nargs="+", default=["dpo", "ppo"], help="what learns after SFT"
    )
    p.add_argument("--seeds", type=int, nargs="+", default=[12, 13, 14])
    p.add_argument("--taste", choices=("use", "drawn"), default="use", help="see `closed_loop.tastes_of`")
    p.add_argument("--out", type=Path, default=Path("runs/total"))
    args = p.parse_args()
    results = [measure(args.out / f"seed{seed}", args, seed) for seed in args.seeds]
    from reward import parse_reward
    from rlmemo.learning.rating_feedback import per_thumb

    text = table(results, per_thumb(parse_reward(REWARD), args.weight))
    write_atomic(args.out / "total.md", text + "\n")
    print(text)


if __name__ == "__main__":
    run_main(main)

"""Seconds and thumbs together: does learning from both end above SFT with its tuned planner?

    python -m experiments.total_reward --seeds 12 13 14 --out runs/total

People and tastes are those of `experiments.closed_loop`. Moments of the training part are predicted by the
shipped base and rated; SFT, DPO and PPO learn with `--feedback`, and every policy hears what was said. The
planner of each (a threshold, or its own plans) is the one with the highest total on validation, thumbs as
the approval model expects them; `approval` is SFT under that model's planner, its strength chosen, too.
Reported is the total per open on the test part: seconds as the judge counts them, and the true mean rating
of what is shown, times the seconds that a thumb counts. 95 % intervals by bootstrap over sessions, paired.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from experiments.closed_loop import Data, asked_of, best_threshold, chances, options, over_seeds, tastes_of
from experiments.simulated_rater import rate_all
from rlmemo.options import Parser
from rlmemo.runs.atomic import write_atomic

SIZES = {"sft-states": 2000, "plan-states": 500, "dpo-pairs": 1000}
REWARD = "net_seconds"
METHODS = ("sft", "dpo", "ppo")


def rated(out: Path, args: Any, seed: int) -> tuple[Data, dict[str, Any], Path]:
    """The people, their tastes, and a database with what they rated of the training part."""
    from rlmemo.policies.registry import setup
    from rlmemo.predict import main as predict
    from rlmemo.store.database import open_store

    data, db = Data(args.timelines, args.people, seed), out / "people.db"
    policy: Any = setup("base", {}).policy
    policy.fit(data.timelines, data.split, seed=seed)
    tastes = tastes_of(args.taste, data, policy, best_threshold(asked_of(policy, data, "validation")), seed)
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
    return data, tastes, db


def measure(out: Path, args: Any, seed: int) -> dict[str, np.ndarray]:
    """Per policy float64 [n, 2]: seconds and expected rating of every open of the test part; and `group`."""
    from reward import parse_reward
    from rlmemo.approval.approval import MODEL, Approval
    from rlmemo.approval.placed_ratings import place_ratings, read_ratings
    from rlmemo.approval.thumbs_said import told
    from rlmemo.learning import approval_choice
    from rlmemo.learning.config import make_config
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.learning.rating_feedback import per_thumb
    from rlmemo.learning.training_data import TrainingData
    from rlmemo.runs.folder import RunFolder
    from rlmemo.store.database import open_store
    from rlmemo.train import main as train

    out.mkdir(parents=True, exist_ok=True)
    data, tastes, db = rated(out, args, seed)
    reward, found = parse_reward(REWARD), {}
    thumb = per_thumb(reward, args.weight)
    with open_store(str(db)) as store:
        placed = place_ratings(read_ratings(store), data.timelines, learn_on=data.split).placed
    hearing = TrainingData.prepare(told(data.timelines, placed), data.split, data.model, data.world)
    for method in args.methods:
        run = out / method
        if not (run / "report.json").exists():
            more = {"method": method, "feedback": db, "feedback-weight": args.weight, "seed": seed}
            begun = ["--resume"] if (run / "config.yaml").exists() else [
                "--timelines", str(db), "--policies", "none", *options({**SIZES, **more}),
            ]  # fmt: skip
            train(["--out", str(run), *begun])
        stage = make_config({"method": method}).stages[-1]
        config = make_config({"method": method, "seed": seed, "timelines": str(db)})
        policy = stage_policies(config, RunFolder(run))[stage]
        approval = Approval.load(run / "adapter" / MODEL)
        ways = {method: (0.0,), **({"approval": approval_choice.STRENGTHS} if method == "sft" else {})}
        for name, strengths in ways.items():
            approval_choice.STRENGTHS = strengths
            planner = approval_choice.choose(policy, approval, hearing, reward, thumb, seed)
            print(json.dumps({"seed": seed, "policy": name, **planner.to_json()}), flush=True)
            found[name] = total(policy, planner, hearing, tastes, reward, seed)
    return {**found, "group": data.group}


def total(policy: Any, planner: Any, data: Any, tastes: Any, reward: Any, seed: int) -> np.ndarray:
    """float64 [n, 2] of the test part: seconds, and the true mean rating of what is shown."""
    from env.judge.plans import FIELDS

    rows = []
    for case in data.cases(data.split.test):
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


def table(results: Sequence[dict[str, np.ndarray]], thumb: float) -> str:
    """The means over seeds, in Markdown. thumb: seconds that it counts."""
    lines = ["| policy | seconds / open | rating / open | total / open | less SFT | less approval |"]
    lines.append("|---" * 6 + "|")
    for name in [n for n in results[0] if n != "group"]:
        parts = [r[name].mean(0) for r in results]
        seconds, rating = np.mean(parts, axis=0)
        cells = [f"{seconds:.3f}", f"{rating:+.3f}", f"{seconds + thumb * rating:.3f}"]
        for other in ("sft", "approval"):
            each = [difference(r[name] @ [1.0, thumb], r[other] @ [1.0, thumb], r["group"]) for r in results]
            cells.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*over_seeds(each)))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    p = Parser(description=__doc__)
    p.add_argument("--timelines", default="demo")
    p.add_argument("--people", type=int, default=6, help="how many of its people (the first ones)")
    p.add_argument("--ratings", type=int, default=200, help="of each person, on average")
    p.add_argument("--weight", type=float, default=1.0, help="`--feedback-weight`")
    p.add_argument("--seeds", type=int, nargs="+", default=[12, 13, 14])
    p.add_argument("--methods", nargs="+", default=list(METHODS))
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

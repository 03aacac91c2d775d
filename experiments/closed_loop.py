"""Do ratings change the policy? Five rounds of predict, rate 200, train, with a simulated person.

    python -m experiments.closed_loop --seeds 0 1 2 --out runs/closed_loop

Everything is the real thing: `rlmemo.predict` stores predictions, the simulated person rates them through
the functions that the dashboard calls, `rlmemo.train --feedback --init-adapter` goes on from the last round.
Ratings are given on the training part; what is reported as held out is the test part, never rated. There
the person's true taste is known to the experiment, and approval is its mean chance of thumbs up over all
plans that are shown (so it has no sampling noise but that of the moments), hits and waste are the judge's.

Hit rate at equal waste: hits per open where the policy, at whatever threshold, wastes as many prewarms per
open as the policy before round 1 did. 95 % intervals by bootstrap over sessions; differences are paired.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.simulated_rater import Taste, draw_taste, rate_all

ROUNDS, PER_ROUND, ASKED = 5, 200, 300
FIRST = {"sft-states": 3000, "plan-states": 400, "dpo-pairs": 800}
LATER = {"plan-states": 250, "dpo-pairs": 500}


@dataclasses.dataclass
class HeldOut:
    """A policy on the test part, per open: chance of thumbs up where a plan is shown (else NaN), hits and
    wasted of its own planner, and hits and wasted by threshold [T, n]."""

    chance: np.ndarray
    hit: np.ndarray
    wasted: np.ndarray
    reward: np.ndarray
    hit_by: np.ndarray
    wasted_by: np.ndarray


def held_out(run: Path, data: Any, taste: Taste) -> HeldOut:
    """Judge the policy of a run folder on the test part."""
    from env.plans import FIELDS, HIT, WASTED
    from reward import parse_reward
    from rlmemo.policies import make_policy
    from rlmemo.policies.approved import ApprovedPolicy
    from rlmemo.policies.planners import THRESHOLDS, PlanningPolicy, Window, replay_planned, replay_threshold
    from rlmemo.policies.ranked_replay import sweep

    policy: Any = make_policy(str(run))
    choice = json.loads((run / "adapter" / "plan.json").read_text())
    weights = parse_reward("net_seconds").weights(FIELDS)
    columns: dict[str, list[np.ndarray]] = {f.name: [] for f in dataclasses.fields(HeldOut)}
    for timeline, events in zip(data.timelines, data.split.test, strict=True):
        a, b = int(events[0]), int(events[-1]) + 1
        indices = np.arange(a - 1, b - 1, dtype=np.int64)
        costs = data.model.arrays(timeline)
        ranking = policy.rank(timeline, indices)
        if isinstance(policy, ApprovedPolicy):
            ranking = policy.counted(timeline, indices, ranking)
        window = Window(timeline, costs, a, b, ranking)
        if isinstance(policy, PlanningPolicy):
            planned = policy.plan(timeline, indices, costs, data.world, seed=0)
            target, found = planned.target, replay_planned(window, data.world, planned)
        else:
            found, shown = replay_threshold(window, data.world, float(choice["threshold"]))
            target = shown[indices]
        hours = timeline.local()[indices] / 3600 % 24
        columns["chance"].append(
            np.array([
                taste.chance(float(h), [timeline.names[x] for x in row if x >= 0],
                             timeline.names[timeline.target[i + 1]]) if (row >= 0).any() else np.nan
                for i, h, row in zip(indices, hours, target, strict=True)
            ])
        )  # fmt: skip
        outcome = found.outcome[indices]
        columns["hit"].append((outcome == HIT).sum(1))
        columns["wasted"].append((outcome == WASTED).sum(1))
        columns["reward"].append((found.table @ weights)[a:b])
        table = sweep(timeline, costs, data.world, ranking, np.array(THRESHOLDS), start=a, stop=b)
        columns["hit_by"].append(table[:, :, FIELDS.index("hit")])
        columns["wasted_by"].append(table[:, :, FIELDS.index("wasted")])
    return HeldOut(**{k: np.concatenate(v, axis=-1) for k, v in columns.items()})


def hits_at(waste: float, hit_by: np.ndarray, wasted_by: np.ndarray) -> float:
    """Hits per open at `waste` wasted prewarms per open, between the two thresholds around it."""
    w, h = wasted_by.mean(-1), hit_by.mean(-1)
    order = np.argsort(w, kind="stable")
    return float(np.interp(waste, w[order], h[order]))


class Data:
    """The timelines, their split, and the sessions of the test part."""

    def __init__(self, spec: str, people: int) -> None:
        from env.cost import WorldConfig, cost_model
        from env.sources import load_timelines
        from env.splits import chrono, sessions

        recorded = load_timelines(spec, collapsed=False)
        self.recorded = dataclasses.replace(recorded, timelines=recorded.timelines[:people])
        self.timelines = load_timelines(spec).timelines[:people]
        self.split = chrono(self.timelines)
        self.world, self.model = WorldConfig(), cost_model("desktop")
        groups, at = [], 0
        for timeline, events in zip(self.timelines, self.split.test, strict=True):
            found = sessions(timeline)[events]
            groups.append(np.unique(found, return_inverse=True)[1] + at)
            at = int(groups[-1].max()) + 1
        self.group = np.concatenate(groups)


def bootstrap(data: Data, one: HeldOut, before: HeldOut, replicates: int = 400) -> dict[str, list[float]]:
    """Each quantity of `one` and its difference from `before`: [value, low, high]."""

    def measure(rows: np.ndarray | slice) -> np.ndarray:
        waste = before.wasted[rows].mean()
        now = hits_at(waste, one.hit_by[:, rows], one.wasted_by[:, rows])
        was = hits_at(waste, before.hit_by[:, rows], before.wasted_by[:, rows])
        a, b = one.chance[rows], before.chance[rows]
        approval = [np.nanmean(x) if (~np.isnan(x)).any() else np.nan for x in (a, b)]
        net = [np.nansum(2.0 * x - (~np.isnan(x))) / len(x) for x in (a, b)]
        return np.array([
            approval[0], approval[0] - approval[1], now, now - was, (~np.isnan(a)).mean(), net[0],
            net[0] - net[1], one.hit[rows].mean(), one.wasted[rows].mean(), one.reward[rows].mean(),
            one.reward[rows].mean() - before.reward[rows].mean(),
        ])  # fmt: skip

    names = (
        "approval", "approval_change", "hits_at_equal_waste", "hits_at_equal_waste_change", "coverage",
        "net_thumbs_per_open", "net_thumbs_change", "hits_per_open", "wasted_per_open", "reward_per_open",
        "reward_change",
    )  # fmt: skip
    value = measure(slice(None))
    rng = np.random.default_rng(0)
    order = np.argsort(data.group, kind="stable")
    bounds = np.searchsorted(data.group[order], np.arange(data.group.max() + 2))
    parts = [order[a:b] for a, b in pairwise(bounds.tolist())]
    drawn = np.array([
        measure(np.concatenate([parts[k] for k in rng.integers(0, len(parts), len(parts))]))
        for _ in range(replicates)
    ])  # fmt: skip
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return {n: [float(v), float(a), float(b)] for n, v, a, b in zip(names, value, low, high, strict=True)}


def wilson(up: int, n: int) -> list[float]:
    """[share, low, high], 95 %."""
    if n == 0:
        return [float("nan")] * 3
    z, p = 1.96, up / n
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5,
    )
    return [p, middle - half, middle + half]


def options(values: dict[str, Any]) -> list[str]:
    """Command-line options."""
    return [x for k, v in values.items() for x in (f"--{k}", str(v))]


def loop(out: Path, data: Data, seed: int, weight: float, method: str) -> dict[str, Any]:
    """One person, `ROUNDS` rounds; what happened."""
    from rlmemo.predict import main as predict
    from rlmemo.store import open_store
    from rlmemo.train import main as train

    began = time.perf_counter()
    taste = draw_taste(data.timelines, seed)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    db = str(out / "person.db")
    with open_store(db) as store:
        store.add_timelines(data.recorded)
    base = ["--timelines", db, "--seed", str(seed), "--policies", ""]
    train([*base, "--out", str(out / "round0"), *options(FIRST)])
    before = held_out(out / "round0", data, taste)
    rounds: list[dict[str, Any]] = [{"round": 0, "held_out": bootstrap(data, before, before)}]
    for k in range(1, ROUNDS + 1):
        last = str(out / f"round{k - 1}")
        predict(
            [
                "--timelines",
                db,
                "--policy",
                last,
                "--db",
                db,
                "--n",
                str(ASKED),
                "--part",
                "train",
                "--seed",
                str(k),
            ]
        )
        with open_store(db) as store:
            rated, up = rate_all(store, taste, "simulated", 1000 * seed + k, PER_ROUND)
        now = out / f"round{k}"
        more = {"init-adapter": last, "feedback": db, "feedback-weight": weight, "method": method, **LATER}
        train([*base, "--out", str(now), *options(more)])
        found = bootstrap(data, held_out(now, data, taste), before)
        rounds.append({"round": k, "rated": rated, "thumbs_up": wilson(up, rated), "held_out": found})
        print(json.dumps({"seed": seed, **rounds[-1]}), flush=True)
    result = {
        "seed": seed, "banned": sorted(taste.banned), "loved": sorted(taste.loved), "weight": weight,
        "method": method, "rounds": rounds, "seconds": time.perf_counter() - began,
    }  # fmt: skip
    (out / "closed_loop.json").write_text(json.dumps(result, indent=1))
    return result


def say(results: list[dict[str, Any]]) -> str:
    """The tables, in Markdown."""

    def show(x: list[float], percent: bool = True) -> str:
        f = (lambda v: f"{100 * v:.1f}") if percent else (lambda v: f"{v:.3f}")
        return f"{f(x[0])} [{f(x[1])}, {f(x[2])}]"

    lines = []
    for r in results:
        head = (
            "after round", "thumbs up in it, %", "held out: approval, %", "coverage, %",
            "hits at equal waste, %", "change of them, points", "net thumbs per open",
        )  # fmt: skip
        title = f"Seed {r['seed']}, {r['method']}, --feedback-weight {r['weight']:g}, {r['seconds']:.0f} s"
        lines += ["", title, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for x in r["rounds"]:
            h = x["held_out"]
            thumbs = show(x["thumbs_up"]) if "thumbs_up" in x else ""
            lines.append(
                f"| {x['round']} | {thumbs} | {show(h['approval'])} | {show(h['coverage'])} | "
                f"{show(h['hits_at_equal_waste'])} | {show(h['hits_at_equal_waste_change'])} | "
                f"{show(h['net_thumbs_per_open'], False)} |"
            )
        end = r["rounds"][-1]["held_out"]
        lines.append("")
        lines.append(
            f"Approval {show(end['approval_change'])} points, hits at equal waste "
            f"{show(end['hits_at_equal_waste_change'])} points, reward per open "
            f"{show(end['reward_change'], False)}."
        )
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--timelines", default="demo")
    p.add_argument("--people", type=int, default=6, help="how many of its people (the first ones)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--out", type=Path, default=Path("runs/closed_loop"))
    p.add_argument("--weight", type=float, default=1.5, help="--feedback-weight of every round")
    p.add_argument("--method", default="dpo")
    args = p.parse_args()
    data = Data(args.timelines, args.people)
    results = [loop(args.out / f"seed{s}", data, s, args.weight, args.method) for s in args.seeds]
    print(say(results))


if __name__ == "__main__":
    main()

"""Do ratings change the policy? Five rounds of predict, rate 200, train, with simulated people.

    python -m experiments.closed_loop --seeds 12 13 14 --out runs/closed_loop
    python -m experiments.closed_loop --taste drawn     # the first, harsher taste
    python -m experiments.closed_loop --method dpo      # the adapter learns in each round, too

Every seed has people of its own (`demo`), a first policy of its own and tastes of its own. `rlmemo.predict`
stores predictions, the simulated person rates them through the functions that the dashboard calls. By
default a round then learns what `rlmemo.train --feedback --feedback-keep` learns from ratings but for the
adapter: approval model, strength and threshold, by the same functions. Ratings are given on the training
part; what is reported is the test part, never rated. There the person's true taste is known to the
experiment: approval is its mean chance of thumbs up over all plans that are shown, hits and waste are the
judge's.

Hit rate at equal waste: hits per open where the policy, at whatever threshold, wastes as many prewarms per
open as the policy before round 1 did; approval at equal waste is read there, too. Beside it stands the same
for a planner that knows the taste (its strength the best in hindsight that costs no hits): more than that
cannot be learned. 95 % intervals by bootstrap over sessions; differences are paired.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from env.errors import run_main
from env.judge.case import Case, cases
from env.ranking import Ranking
from experiments.simulated_rater import Taste, draw_taste, rate_all, tastes_by_use
from rlmemo.evaluation.bootstrap import Estimate
from rlmemo.options import Parser
from rlmemo.policies.planners import Planner, Threshold, from_json
from rlmemo.runs import plan_file
from rlmemo.runs.atomic import write_atomic

ROUNDS, PER_ROUND, ASKED = 5, 200, 300
FIRST = {"sft-states": 2000, "plan-states": 250, "dpo-pairs": 500}
LATER = {"plan-states": 250, "dpo-pairs": 500}
GRID = np.append(np.geomspace(0.01, 0.95, 48), 2.0)
ALSO = (1.0, 0.9, 0.8, 0.65, 0.5)
"""What of the reward is kept, in the table of what obeying costs."""


@dataclasses.dataclass
class HeldOut:
    """A policy on the test part, per open: chance of thumbs up where a plan is shown (else NaN), hits and
    wasted of its own planner, and hits and wasted by threshold [T, n]; at_waste: the chances of the plans at
    the threshold that wastes about as much as before round 1."""

    chance: np.ndarray
    hit: np.ndarray
    wasted: np.ndarray
    reward: np.ndarray
    hit_by: np.ndarray
    wasted_by: np.ndarray
    at_waste: np.ndarray


def chances(
    tastes: Mapping[str, Taste], timeline: Any, indices: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """True chance of thumbs up of plans int32 [D, K], float64 [D], NaN where nothing is shown."""
    taste, hours = tastes[timeline.user], timeline.local()[indices] / 3600 % 24
    return np.array([
        taste.chance(float(h), [timeline.names[x] for x in row if x >= 0],
                     timeline.names[timeline.target[i + 1]]) if (row >= 0).any() else np.nan
        for i, h, row in zip(indices, hours, target, strict=True)
    ])  # fmt: skip


class Asked(NamedTuple):
    """A stretch, and the ranking of its decisions as it counts for planning."""

    case: Case
    ranking: Ranking


def asked_of(policy: Any, data: Data, part: str, planner: Planner | None = None) -> list[Asked]:
    """The stretches of a part as a policy ranks them, and as a planner that minds approval counts."""
    from rlmemo.policies.planners import Approved

    made = []
    for case in cases(data.timelines, data.costs, data.world, getattr(data.split, part)):
        ranking = policy.rank(case.timeline, case.indices)
        if isinstance(planner, Approved):
            ranking = planner.counted(case, ranking)
        made.append(Asked(case, ranking))
    return made


def measure(
    asked: list[Asked], threshold: float, tastes: Mapping[str, Taste], data: Data, waste: float | None = None
) -> HeldOut:
    """What plans by a threshold come to. waste: where `at_waste` is read (None: at the threshold)."""
    from env.judge.plans import FIELDS, HIT, WASTED
    from reward import parse_reward

    weights = parse_reward("net_seconds").weights(FIELDS)
    columns: dict[str, list[np.ndarray]] = {f.name: [] for f in dataclasses.fields(HeldOut)}
    for case, ranking in asked:
        found, plans = case.replay_ranked(ranking, threshold)
        shown = plans.target
        outcome = found.outcome[case.indices]
        columns["chance"].append(chances(tastes, case.timeline, case.indices, shown))
        columns["hit"].append((outcome == HIT).sum(1))
        columns["wasted"].append((outcome == WASTED).sum(1))
        columns["reward"].append((found.table @ weights)[case.start : case.stop])
        table = case.sweep(ranking, GRID)
        columns["hit_by"].append(table[:, :, FIELDS.index("hit")])
        columns["wasted_by"].append(table[:, :, FIELDS.index("wasted")])
    if waste is None:
        columns["at_waste"] = columns["chance"]
    else:
        by = np.concatenate(columns["wasted_by"], axis=-1).mean(-1)
        same = float(GRID[int(np.argmin(np.abs(by - waste)))])
        for case, ranking in asked:
            shown = case.replay_ranked(ranking, same)[1].target
            columns["at_waste"].append(chances(tastes, case.timeline, case.indices, shown))
    return HeldOut(**{k: np.concatenate(v, axis=-1) for k, v in columns.items()})


class Data:
    """The timelines, their split, and the sessions of the test part."""

    def __init__(self, spec: str, people: int, seed: int) -> None:
        from env.judge.cost import WorldConfig
        from env.judge.cost_presets import cost_model
        from env.sources import load_timelines
        from env.splits import chrono, sessions

        recorded = load_timelines(spec, seed=seed, collapsed=False)
        self.recorded = dataclasses.replace(recorded, timelines=recorded.timelines[:people])
        self.timelines = load_timelines(spec, seed=seed).timelines[:people]
        self.split = chrono(self.timelines)
        self.world, self.model = WorldConfig(), cost_model("desktop")
        self.costs = [self.model.arrays(x) for x in self.timelines]
        groups, at = [], 0
        for timeline, events in zip(self.timelines, self.split.test, strict=True):
            found = sessions(timeline)[events]
            groups.append(np.unique(found, return_inverse=True)[1] + at)
            at = int(groups[-1].max()) + 1
        self.group = np.concatenate(groups)


def bootstrap(data: Data, one: HeldOut, before: HeldOut, replicates: int = 400) -> dict[str, list[float]]:
    """Each quantity of `one` and its difference from `before`: [value, low, high].

    Everything is a ratio of sums, so sessions are summed up once and drawn by how often they come up.
    """
    n, groups = len(data.group), int(data.group.max()) + 1

    def by_session(x: np.ndarray) -> np.ndarray:
        total = np.zeros((*x.shape[:-1], groups))
        np.add.at(total.T, data.group, np.nan_to_num(x.astype(np.float64)).T)
        return total

    rng = np.random.default_rng(0)
    drawn = rng.multinomial(groups, np.full(groups, 1.0 / groups), replicates)
    often = np.concatenate([np.ones((1, groups)), drawn]).T  # [sessions, 1 + replicates]
    opens = by_session(np.ones(n)) @ often

    def per_open(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = by_session(x) @ often / opens
        return found

    def approval(chance: np.ndarray) -> np.ndarray:
        found: np.ndarray = per_open(chance) / np.maximum(per_open(~np.isnan(chance)), 1e-12)
        return found

    from rlmemo.learning.approval_choice import hits_at

    def at_waste(x: HeldOut) -> np.ndarray:
        hits, wasted = per_open(x.hit_by), per_open(x.wasted_by)
        return np.array([hits_at(w, wasted[:, k], hits[:, k]) for k, w in enumerate(waste)])

    waste = per_open(before.wasted)
    now, was, same = approval(one.chance), approval(before.chance), approval(one.at_waste)
    hits, hits_before = at_waste(one), at_waste(before)
    reward, reward_before = per_open(one.reward), per_open(before.reward)
    found = {
        "approval": now, "approval_change": now - was, "hits_at_equal_waste": hits,
        "hits_at_equal_waste_change": hits - hits_before, "approval_at_equal_waste": same,
        "approval_at_equal_waste_change": same - was, "coverage": per_open(~np.isnan(one.chance)),
        "hits_per_open": per_open(one.hit), "wasted_per_open": per_open(one.wasted),
        "reward_per_open": reward, "reward_change": reward - reward_before,
    }  # fmt: skip
    if groups < 2:  # one session can only be drawn as it is
        return {name: [float(x[0]), float("nan"), float("nan")] for name, x in found.items()}
    return {name: [float(x[0]), *np.quantile(x[1:], [0.025, 0.975]).tolist()] for name, x in found.items()}


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


def tastes_of(kind: str, data: Data, policy: Any, threshold: float, seed: int) -> dict[str, Taste]:
    """A taste for every person: `use` (what the first policy prewarmed in vain on the training part is
    disliked) or `drawn` (anything fairly common)."""
    if kind == "drawn":
        taste = draw_taste(data.timelines, seed)
        return {t.user: taste for t in data.timelines}
    from env.judge.plans import HIT

    tried, hit = [], []
    for case, ranking in asked_of(policy, data, "train"):
        found, plans = case.replay_ranked(ranking, threshold)
        shown = plans.target
        n = len(case.timeline.names)
        tried.append(np.bincount(shown[shown >= 0], minlength=n))
        hit.append(np.bincount(shown[(shown >= 0) & (found.outcome[case.indices] == HIT)], minlength=n))
    return tastes_by_use(data.timelines, data.split.train, tried, hit)


def told(plain: list[Asked], tastes: Mapping[str, Taste], general: float, strength: float) -> list[Asked]:
    """The same for a planner that is told the taste instead of learning it."""
    from rlmemo.policies.planners import counted, log_odds

    made = []
    for case, r in plain:
        taste, names = tastes[case.timeline.user], case.timeline.names
        hours = case.timeline.local()[case.indices] / 3600 % 24
        both = np.array([
            [[taste.chance(h, [name], name), taste.chance(h, [name], "")] for name in names]
            for h in range(24)
        ])[hours.astype(int)[:, None], r.targets]  # fmt: skip
        p = r.probability * both[:, :, 0] + (1 - r.probability) * both[:, :, 1]
        liking = np.where(r.targets >= 0, log_odds(p) - log_odds(np.array(general)), 0.0)
        made.append(Asked(case, counted(r, liking, strength)))
    return made


def learned(out: Path, first: Path, db: str, policy: Any, data: Any, keep: float, seed: int) -> Planner:
    """What `rlmemo.train --feedback` learns from the ratings but for the adapter: a run folder like `first`
    with the approval model, and the planner chosen on validation."""
    from reward import parse_reward
    from rlmemo.learning.approval_choice import choose_keeping
    from rlmemo.learning.rating_feedback import MODEL, read_feedback

    reward = parse_reward("net_seconds")
    shutil.rmtree(out, ignore_errors=True)
    keep_out = shutil.ignore_patterns("checkpoints", "report*", "*.npz", "*.pkl", "pairs.jsonl")
    shutil.copytree(first, out, ignore=keep_out)
    feedback = read_feedback(db, data, reward, weight=1.0, seed=seed)
    planner = from_json(plan_file.read(out), out / "adapter")
    if feedback is not None and feedback.approval is not None:
        feedback.approval.save(out / "adapter" / MODEL)
        planner = choose_keeping(policy, feedback.approval, data, reward, keep, seed) or planner
        plan_file.write(out, planner.to_json())
    return planner


def loop(out: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The people of one seed, `ROUNDS` rounds; what happened. A first policy that is in `out` is taken."""
    from rlmemo.learning.training_data import TrainingData
    from rlmemo.policies.run import load_run
    from rlmemo.predict import main as predict
    from rlmemo.store.database import open_store
    from rlmemo.train import main as train

    began = time.perf_counter()
    data = Data(args.timelines, args.people, seed)
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("person.db*"):
        stale.unlink()
    db, first = str(out / "person.db"), out / "round0"
    with open_store(db) as store:
        store.add_timelines(data.recorded)
    base = ["--timelines", db, "--seed", str(seed), "--policies", ""]
    if not (first / "adapter" / "plan.json").exists():
        train([*base, "--out", str(first), *options(FIRST)])
    plan_file.write(first, Threshold(1.0).to_json())  # what it learned is in charge, come what may
    start: Any = load_run(first).policy
    training = TrainingData.prepare(data.timelines, data.split, data.model, data.world)
    theta = best_threshold(asked_of(start, data, "validation"))
    plan_file.write(first, Threshold(theta).to_json())
    tastes = tastes_of(args.taste, data, start, theta, seed)
    plain = asked_of(start, data, "test")
    before = measure(plain, theta, tastes, data)
    waste = float(before.wasted.mean())
    rounds: list[dict[str, Any]] = [{"round": 0, "held_out": bootstrap(data, before, before)}]
    general = float(np.nanmean(before.chance))
    knowing = [
        {"strength": k, "held_out": bootstrap(
            data, measure(told(plain, tastes, general, k), theta, tastes, data, waste), before
        )} for k in (0.5, 1.0, 1.5)
    ]  # fmt: skip
    for x in knowing:
        h = x["held_out"]
        print(
            json.dumps(
                {
                    "seed": seed,
                    "told the taste, strength": x["strength"],
                    **{k: h[k] for k in ("approval_at_equal_waste_change", "hits_at_equal_waste_change")},
                }
            ),
            flush=True,
        )
    print(json.dumps({"seed": seed, **rounds[0]}), flush=True)
    last = first
    for k in range(1, ROUNDS + 1):
        wanted = ["--timelines", db, "--policy", str(last), "--db", db, "--n", str(ASKED)]
        predict([*wanted, "--part", "train", "--seed", str(k)])
        with open_store(db) as store:
            rated, up = rate_all(store, tastes, "simulated", 1000 * seed + k, PER_ROUND)
        now = out / f"round{k}"
        if args.method == "planner":
            policy, planner = start, learned(now, first, db, start, training, args.keep, seed)
        else:
            shutil.rmtree(now, ignore_errors=True)
            more = {"init-adapter": last, "feedback": db, "feedback-keep": args.keep, "method": args.method}
            train([*base, "--out", str(now), *options({**more, **LATER})])
            run = load_run(now)
            policy, planner = run.policy, run.by([])
        choice = planner.to_json()
        asked = asked_of(policy, data, "test", planner)
        found = measure(asked, float(choice["threshold"]), tastes, data, waste)
        said = {"round": k, "rated": rated, "thumbs_up": wilson(up, rated), "choice": choice}
        rounds.append({**said, "held_out": bootstrap(data, found, before)})
        print(json.dumps({"seed": seed, **rounds[-1]}), flush=True)
        last = now
    price = []
    for keep in ALSO if args.method == "planner" else ():
        planner = learned(out / "other", first, db, start, training, keep, seed)
        choice, asked = planner.to_json(), asked_of(start, data, "test", planner)
        found = measure(asked, float(choice["threshold"]), tastes, data, waste)
        price.append({"keep": keep, "choice": choice, "held_out": bootstrap(data, found, before)})
        print(json.dumps({"seed": seed, **price[-1]}), flush=True)
    result = {
        "seed": seed, "taste": args.taste, "keep": args.keep, "method": args.method, "rounds": rounds,
        "knowing": knowing, "price": price, "seconds": time.perf_counter() - began,
        "tastes": {u: [sorted(t.banned), sorted(t.loved), list(t.night)] for u, t in tastes.items()},
    }  # fmt: skip
    write_atomic(out / "closed_loop.json", json.dumps(result, indent=1))
    return result


def best_threshold(asked: list[Asked]) -> float:
    from reward import parse_reward
    from rlmemo.policies.planners import choose_threshold

    found, rankings = zip(*asked, strict=True)
    return choose_threshold(found, rankings, parse_reward("net_seconds"))[0].theta


def show(x: list[float], digits: int = 1) -> str:
    """A share and its interval, in per cent."""
    return Estimate(*(100 * v for v in x)).text(f".{digits}f")


COLUMNS = {
    "approval": "approval, %", "approval_change": "change",
    "hits_at_equal_waste_change": "hits at equal waste",
    "approval_at_equal_waste_change": "approval at equal waste", "coverage": "shown at, % of opens",
    "hits_per_open": "its own hits, %", "wasted_per_open": "wasted, %",
}  # fmt: skip


def over_seeds(found: list[list[float]]) -> list[float]:
    """Mean of independent [value, low, high], with an interval of the mean."""
    x = np.array(found)
    half = float(np.sqrt((((x[:, 2] - x[:, 1]) / 2) ** 2).sum())) / len(x)
    mean = float(x[:, 0].mean())
    return [mean, mean - half, mean + half]


def say(results: list[dict[str, Any]]) -> str:
    """The tables, in Markdown."""
    lines = [f"| seed | after round | thumbs up in it, % | {' | '.join(COLUMNS.values())} |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for r in results:
        for x in r["rounds"]:
            thumbs = f"{100 * x['thumbs_up'][0]:.0f}" if "thumbs_up" in x else ""
            cells = " | ".join(show(x["held_out"][c]) for c in COLUMNS)
            lines.append(f"| {r['seed']} | {x['round']} | {thumbs} | {cells} |")
    last = [r["rounds"][-1] for r in results]
    cells = " | ".join(show(over_seeds([x["held_out"][c] for x in last])) for c in COLUMNS)
    lines.append(f"| mean | {last[0]['round']} | | {cells} |")
    lines += [
        "",
        f"| seed | reward kept | {' | '.join(COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for r in results:
        for x in r["price"]:
            cells = " | ".join(show(x["held_out"][c]) for c in COLUMNS)
            lines.append(f"| {r['seed']} | {x['keep']:g} | {cells} |")
    lines += [
        "",
        "| seed | told the taste, strength | approval at equal waste | hits at equal waste |",
        "|---|---|---|---|",
    ]
    for r in results:
        for x in r["knowing"]:
            h = x["held_out"]
            cells = " | ".join(show(h[f"{c}_at_equal_waste_change"]) for c in ("approval", "hits"))
            lines.append(f"| {r['seed']} | {x['strength']:g} | {cells} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Approval and hits at equal waste by round, a line for every seed, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    names = {"approval": "approval, %", "hits_at_equal_waste": "hits at equal waste, % of opens"}
    for ax, (name, label) in zip(axes, names.items(), strict=True):
        for k, r in enumerate(results):
            y = 100 * np.array([x["held_out"][name] for x in r["rounds"]])
            at = np.arange(len(y)) + 0.06 * (k - (len(results) - 1) / 2)
            ax.errorbar(at, y[:, 0], (y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]), marker="o", capsize=2,
                        linewidth=1, markersize=3, label=f"seed {r['seed']}")  # fmt: skip
        ax.set(xlabel="round of 200 ratings", ylabel=label)
        ax.set_ylim(bottom=0)
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    p = Parser(
        description=__doc__,
    )
    p.add_argument("--timelines", default="demo")
    p.add_argument("--people", type=int, default=6, help="how many of its people (the first ones)")
    p.add_argument("--seeds", type=int, nargs="+", default=[12, 13, 14])
    p.add_argument("--out", type=Path, default=Path("runs/closed_loop"))
    p.add_argument("--taste", choices=("use", "drawn"), default="use", help="see `tastes_of`")
    p.add_argument("--keep", type=float, default=0.4, help="--feedback-keep of every round")
    p.add_argument("--method", default="planner", help="planner, or a method of rlmemo.train (slower)")
    p.add_argument("--figure", type=Path, help="where to draw approval and hits by round (PNG)")
    p.add_argument("--table", action="store_true", help="only show what is in --out already")
    args = p.parse_args()
    if args.table:
        files = [args.out / f"seed{s}" / "closed_loop.json" for s in args.seeds]
        results = [json.loads(f.read_text()) for f in files if f.exists()]
    else:
        results = [loop(args.out / f"seed{s}", args, s) for s in args.seeds]
    print(say(results))
    if args.figure:
        draw(results, args.figure)


if __name__ == "__main__":
    run_main(main)

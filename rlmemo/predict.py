"""Let a policy predict on a recorded timeline, and store what it would have done for people to rate.

    python -m rlmemo.predict --timelines demo --policy markov1 --db my.db --n 200
    python -m rlmemo.predict --timelines my.db --policy runs/first --db my.db

Predictions are made at the most recent decisions of one part of the split: training, unless told otherwise,
as ratings of validation and test moments do not train (they belong to what chooses and what judges). Each
is stored with its plan, probabilities, propensity, policy version, the moment as text, and what came of it:
the environment's outcome of this plan alone, with nothing prewarmed before or after it.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.private import private_files
from rlmemo.errors import InputError, run_main
from rlmemo.options import Parser, seed
from rlmemo.policies.exploring import LISTED, _explored, something_shown, tried, warm_listed

if TYPE_CHECKING:
    import numpy as np

    from env.judge.cost import Costs, WorldConfig
    from env.ranking import Ranking
    from env.splits import Split
    from env.timeline import Timeline
    from rlmemo.evaluation.gain import Gain, Stretch
    from rlmemo.policies.endpoint_options import Asking
    from rlmemo.policies.protocol import Planned, Policy
    from rlmemo.store.database import Store

PARTS = ("train", "validation", "test")
STEPS = 6
SPREAD = 8  # predictions are drawn from this many times as many recent decisions


def parser() -> argparse.ArgumentParser:
    from rlmemo.policies.endpoint_options import add_options

    p = Parser(
        prog="python -m rlmemo.predict",
        description=__doc__,
    )
    p.add_argument(
        "--timelines", metavar="NAME|PATH", default="demo", help="what to predict on (default: demo)"
    )
    p.add_argument("--policy", metavar="NAME|RUN_DIR|openai:URL#MODEL", default="markov1",
                   help="who predicts (default: markov1)")  # fmt: skip
    p.add_argument("--db", metavar="FILE", default="rlmemo.db", help="store to write to (default: rlmemo.db)")
    p.add_argument("--n", type=int, default=200, help="how many predictions (default: 200)")
    p.add_argument(
        "--part",
        choices=PARTS,
        default="train",
        help="part of the split; only ratings of the training part train (default: train)",
    )
    p.add_argument("--explore", type=float, default=0.1, metavar="SHARE",
                   help="share of decisions that try another single target (default: 0.1)")  # fmt: skip
    p.add_argument("--threshold", type=float, metavar="P",
                   help="prewarm what is at least this probable (default: tuned on validation)")  # fmt: skip
    p.add_argument("--cost", default="desktop", help="cost preset of the outcome (default: desktop)")
    p.add_argument("--budget", type=float, metavar="N",
                   help="memory, in typical targets (default: the run's, else 8)")  # fmt: skip
    p.add_argument("--still", action="store_true", help="store decisions to keep still, too")
    p.add_argument("--tz", help="IANA time zone, where the recording does not say")
    p.add_argument("--against", metavar="NAME|RUN_DIR",
                   help="another policy: moments at which they disagree teach more")  # fmt: skip
    p.add_argument("--seed", type=seed, default=0, help="which moments, and which are tried out (default: 0)")
    add_options(p)
    return p


@dataclass(frozen=True)
class Options:
    """What `predict` needs to know; see the command line."""

    n: int = 200
    part: str = "train"
    explore: float = 0.1
    threshold: float | None = None
    cost: str = "desktop"
    still: bool = False
    seed: int = 0
    against: str | None = None
    asking: Asking | None = None
    budget: float | None = None

    def check(self) -> None:
        """Raises InputError for numbers that make no sense."""
        if self.n < 1:
            raise InputError(f"--n {self.n} is no number of predictions; give 1 or more")
        if not 0.0 <= self.explore <= 1.0:
            raise InputError(f"--explore {self.explore} is no share; give 0 to 1")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"--threshold {self.threshold} is no probability; give 0 to 1")
        if self.budget is not None and not 0.0 < self.budget < math.inf:
            raise InputError(
                f"--budget {self.budget} is no memory; give a number of targets above 0, such as 8"
            )


@dataclass
class Made:
    """What came of asking a policy. new: predictions that were stored. again: those that were there already.
    still: decisions at which it kept still, which were passed over. likeliest: the highest probability of a
    listed target that was not in memory at one of these, 0 where there was none. plans_itself: whether a
    threshold has no say. gain: what there was to gain at the decisions that were looked at."""

    new: int = 0
    again: int = 0
    still: int = 0
    likeliest: float = 0.0
    plans_itself: bool = False
    gain: Gain | None = None

    def why_none(self) -> str:
        """Why nothing is new, and the one thing that helps."""
        if self.again:
            return f"all {self.again} of them are there already; for other moments, try --seed 1"
        nothing = self.gain.why_nothing() if self.gain else None
        if nothing:
            return f"it kept still: {nothing}"
        at = f"it kept still at all {self.still} decisions"
        if self.plans_itself or self.likeliest < 1e-4:
            return f"{at}; to rate that, try --still"
        lower = math.floor(self.likeliest * 1e4 * 0.9) / 1e4
        most = f"what was cold had a probability of {self.likeliest:.2g} at most"
        return f"{at}: {most}; try --threshold {lower:.2g}"


def predict(store: Store, spec: str, policy_name: str, options: Options, *, tz: str | None = None) -> int:
    """Make predictions on the timelines `spec` and store them; returns how many are new."""
    return make(store, spec, policy_name, options, tz=tz).new


def make(store: Store, spec: str, policy_name: str, options: Options, *, tz: str | None = None) -> Made:
    """As `predict`; returns what came of it all."""
    import numpy as np

    from env.judge.cost import WorldConfig, cost_model
    from env.sources import load_timelines
    from env.splits import chrono
    from rlmemo.evaluation.gain import gain
    from rlmemo.policies.protocol import PlanningPolicy
    from rlmemo.policies.registry import make_policy

    options.check()
    loaded = load_timelines(spec, tz=tz)
    split = chrono(loaded.timelines)
    folder = Path(policy_name)

    def ready(name: str) -> Policy:
        made = make_policy(name, options.asking)
        if not Path(name).is_dir():
            made.fit(loaded.timelines, split, seed=options.seed)
        return made

    policy = ready(policy_name)
    other = ready(options.against) if options.against else None
    version = folder.resolve().name if folder.is_dir() else f"rlmemo {_version()}"
    identities = _keep_timelines(store, spec, loaded, tz)
    budget = options.budget if options.budget is not None else _budget_of(folder)
    world, model = WorldConfig(budget_targets=budget), cost_model(options.cost)
    threshold = options.threshold
    if threshold is None:
        threshold = _tuned(policy, loaded.timelines, split, world, options)
    rng = np.random.default_rng(options.seed)
    chosen = _decisions(loaded.timelines, split, options, rng)
    made = Made(plans_itself=isinstance(policy, PlanningPolicy))
    looked: list[Stretch] = []
    for timeline, picked, (first, last) in chosen:
        costs = model.arrays(timeline)
        indices = np.arange(first, last + 1, dtype=np.int64)
        ranking = policy.rank(timeline, indices)
        apart = disagreement(ranking, other.rank(timeline, indices)) if other else np.zeros(len(indices))
        planned = _plans(policy, timeline, indices, ranking, costs, world, threshold, options.seed)
        warm = warm_listed(timeline, indices, ranking, costs, world)
        looked.append((timeline, costs, first + 1, last + 2))
        wanted = 0
        for row in rng.permutation(len(indices)).tolist():
            if wanted == picked:
                break
            i = int(indices[row])
            target, delay, propensity = _explored(planned, ranking, warm, row, options.explore, rng)
            if not options.still and not (target >= 0).any():
                cold = np.isin(ranking.targets[row], tried(ranking, warm, row))
                made.still += 1
                made.likeliest = max(made.likeliest, float(ranking.probability[row][cold].max(initial=0.0)))
                continue
            shown = something_shown(planned, ranking, warm, row, options.explore)
            if not options.still and shown is not None:
                propensity = min(1.0, propensity / shown)  # of what is stored, as only that can be rated
            wanted += 1
            outcome = _outcome(timeline, i, target, delay, costs, world)
            new = _write(
                store, timeline, i, policy.name, version, ranking, row, target, delay, propensity, outcome,
                float(apart[row]), identities.get(timeline.user), loaded.name, loaded.synthetic, options,
                world, shown, float(timeline.t[first]),
            )  # fmt: skip
            made.new += new
            made.again += 1 - new
    made.gain = gain(looked, world)
    return made


def _budget_of(run: Path) -> float:
    """The memory that a run learned to plan for, in typical targets; the usual one for any other policy."""
    from env.judge.cost import TYPICAL_BUDGET
    from rlmemo.learning.config import read_yaml

    settings = read_yaml(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    return float(settings.get("budget", TYPICAL_BUDGET))


def _keep_timelines(store: Store, spec: str, loaded: Any, tz: str | None) -> dict[str, int]:
    """Ids of the timelines in the store, by user; what is not there yet is imported."""
    from env.sources import load_timelines

    rows = store.timelines()
    if Path(spec).exists() and Path(spec).resolve() == store.path.resolve():
        by_user = {r.user: r.id for r in rows}
        return {**by_user, **{f"{r.source}/{r.user}": r.id for r in rows}}
    if not any(r.source == loaded.name for r in rows):
        store.add_timelines(load_timelines(spec, tz=tz, collapsed=False))
        rows = store.timelines()
    return {r.user: r.id for r in rows if r.source == loaded.name}


def _version() -> str:
    from rlmemo.__main__ import version

    return version()


def _tuned(
    policy: Policy, timelines: Sequence[Timeline], split: Split, world: WorldConfig, options: Options
) -> float:
    """The threshold that is best on the validation part; 1 where the policy plans by itself."""
    import numpy as np

    from env.judge.cost import cost_model
    from reward import parse_reward
    from rlmemo.policies.planners import Window, tune_threshold
    from rlmemo.policies.protocol import PlanningPolicy

    if isinstance(policy, PlanningPolicy):
        return 1.0
    windows = []
    for timeline, events in zip(timelines, split.validation, strict=True):
        if len(events):
            a, b = int(events[0]), int(events[-1]) + 1
            ranking = policy.rank(timeline, np.arange(a - 1, b - 1, dtype=np.int64))
            windows.append(Window(timeline, cost_model(options.cost).arrays(timeline), a, b, ranking))
    return tune_threshold(windows, world, parse_reward("net_seconds"))


def _decisions(
    timelines: Sequence[Timeline], split: Split, options: Options, rng: np.random.Generator
) -> list[tuple[Timeline, int, tuple[int, int]]]:
    """Per timeline: how many predictions, and the range of decisions (first, last) they are drawn from."""
    parts = getattr(split, options.part)
    users = [(t, events) for t, events in zip(timelines, parts, strict=True) if len(events)]
    if not users:
        raise InputError(f"the {options.part} part is empty; record more events, or choose another --part")
    out = []
    for k, (timeline, events) in enumerate(users):
        each = options.n // len(users) + (k < options.n % len(users))
        recent = events[-max(1, SPREAD * each) :]
        if each:
            out.append((timeline, each, (int(recent[0]) - 1, int(recent[-1]) - 1)))
    return out


def _plans(
    policy: Policy, timeline: Timeline, indices: np.ndarray, ranking: Ranking, costs: Costs,
    world: WorldConfig, threshold: float, seed: int,
) -> Planned:  # fmt: skip
    import numpy as np

    from rlmemo.policies.planners import Window, replay_threshold
    from rlmemo.policies.protocol import Planned, PlanningPolicy

    if isinstance(policy, PlanningPolicy):
        return policy.plan(timeline, indices, costs, world, seed=seed)
    a, b = int(indices[0]) + 1, int(indices[-1]) + 2
    _, target = replay_threshold(Window(timeline, costs, a, b, ranking), world, threshold)
    rows = target[indices] if len(target) == len(timeline) else target
    return Planned(rows, np.zeros(rows.shape, np.int8), np.ones(len(indices)))


def _outcome(
    timeline: Timeline, i: int, target: np.ndarray, delay: np.ndarray, costs: Costs, world: WorldConfig
) -> dict[str, Any]:
    """What became of the plan of decision i, alone, until its prewarms are resolved."""
    import numpy as np

    from env.judge.kernel import replay
    from env.judge.plans import OUTCOME_NAMES, Plans

    plans = Plans.empty(len(timeline), len(target))
    plans.target[i], plans.delay[i] = target, delay
    horizon = timeline.t[i] + max(world.delays) + float(costs.load_s.max(initial=0.0)) + world.ttl_s
    stop = min(len(timeline), int(np.searchsorted(timeline.t, horizon, side="right")) + 1)
    found = replay(timeline, costs, world, plans, start=i + 1, stop=max(stop, i + 2))
    picks = [k for k in range(len(target)) if target[k] >= 0]
    return {
        "next_target": timeline.names[timeline.target[i + 1]],
        "next_t": float(timeline.t[i + 1]),
        "prewarms": [OUTCOME_NAMES[found.outcome[i, k]] for k in picks],
        "saved_s": round(found.total("saved_s"), 6),
        "pollution": int(found.total("pollution")),
        "wasted_mb_s": round(found.total("wasted_mb_s"), 3),
    }


def _write(
    store: Store, timeline: Timeline, i: int, policy: str, version: str, ranking: Ranking, row: int,
    target: np.ndarray, delay: np.ndarray, propensity: float, outcome: dict[str, Any],
    apart: float, timeline_id: int | None, source: str, synthetic: bool, options: Options, world: WorldConfig,
    shown: float | None, since: float,
) -> int:  # fmt: skip
    """Store one prediction with its moment; 0 where the same one is there already."""
    from env.judge.cost import TYPICAL_BUDGET
    from rlmemo.store.ratings import add_moment
    from rlmemo.store.records import Prediction, Prewarm

    listed = [
        (timeline.names[x], min(1.0, max(0.0, float(p))))
        for x, p in zip(ranking.targets[row][:LISTED], ranking.probability[row][:LISTED], strict=True)
        if x >= 0
    ]
    plan = [
        Prewarm(timeline.names[x], float(world.delays[d]))
        for x, d in zip(target, delay, strict=True)
        if x >= 0
    ]
    probability = dict(listed)
    likely = (
        sum(probability.get(p.target, 0.0) for p in plan) if plan else max(probability.values(), default=0.0)
    )
    steps = [
        (float(timeline.t[k]), timeline.names[timeline.target[k]])
        for k in range(max(0, i + 1 - STEPS), i + 1)
    ]
    t = float(timeline.t[i])
    said = "\n".join(
        [
            source,
            timeline.user,
            str(i),
            repr(t),
            policy,
            version,
            options.part,
            str(options.seed),
            str(options.explore),
            str(options.threshold),
            options.cost,
            *([] if world.budget_targets == TYPICAL_BUDGET else [f"budget {world.budget_targets:g}"]),
        ]
    )
    key = hashlib.sha256(said.encode()).hexdigest()[:32]
    none = float(ranking.none[row]) + float(ranking.probability[row][LISTED:].sum())  # of the listed
    identity = store.add_prediction(
        Prediction(
            user=timeline.user,
            t=t,
            policy=policy,
            policy_version=version,
            state=state_text(steps, timeline.tz),
            plan=plan,
            probabilities=probability,
            none_probability=min(1.0, max(0.0, none)) if math.isfinite(none) else None,
            propensity=propensity,
            timeline_id=timeline_id,
            key=key,
            outcome=outcome,
        )
    )
    # Most is learned where the plan had even odds, or where another policy thinks otherwise.
    teaches = max(0.02, 1.0 - abs(2.0 * min(1.0, likely) - 1.0), apart)
    new = add_moment(
        store, identity, source=source, tz=timeline.tz, synthetic=synthetic, part=options.part, steps=steps,
        teaches=teaches, shown=shown, since=since,
        stills=None if shown is None and not options.still else options.still,
    )  # fmt: skip
    return int(new)


def disagreement(a: Ranking, b: Ranking) -> np.ndarray:
    """How far two rankings of the same D decisions are apart, float64 [D], 0 to 1: half the summed
    differences of their probabilities (total variation), what one does not list counting as 0."""
    import numpy as np

    same = (a.targets[:, :, None] == b.targets[:, None, :]) & (a.targets[:, :, None] >= 0)
    shared = np.minimum(a.probability[:, :, None], b.probability[:, None, :])
    overlap = np.where(same, shared, 0.0).sum(axis=(1, 2)) + np.minimum(a.none, b.none)
    apart: np.ndarray = np.clip(1.0 - overlap.astype(np.float64), 0.0, 1.0)
    return apart


def state_text(steps: Sequence[tuple[float, str]], tz: str) -> str:
    """The moment as text: local time, then what was opened and how long before, oldest first.

    Names stand in JSON strings, so that a name with a line break or an instruction in it stays a name.
    """
    import json
    from datetime import datetime

    from env.timeline import zone

    now = steps[-1][0]
    local = datetime.fromtimestamp(now, UTC).astimezone(zone(tz))
    lines = [f"now {local:%A %Y-%m-%d %H:%M} {tz}"]
    lines += [f"{now - t:.0f} s ago {json.dumps(target, ensure_ascii=False)}" for t, target in steps]
    return "\n".join(lines)


@private_files()
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from rlmemo.policies.endpoint_options import asking
    from rlmemo.pulse import Pulse
    from rlmemo.store.database import store_when_done

    options = Options(
        args.n, args.part, args.explore, args.threshold, args.cost, args.still, args.seed, args.against,
        asking(args), args.budget,
    )  # fmt: skip
    options.check()
    with Pulse(f"predicting with {args.policy}"), store_when_done(args.db) as store:
        made = make(store, args.timelines, args.policy, options, tz=args.tz)
    print(f"{made.new} new predictions of {args.policy} in {args.db}")
    if made.new == 0:
        print(made.why_none())
    if made.new or made.again:
        print(f"rate them: python -m dashboard --db {shlex.quote(args.db)}")
    if made.new and args.part != "train":
        print(f"ratings of {args.part} moments do not train; predict with --part train for some that do")
    return 0


if __name__ == "__main__":
    run_main(main)

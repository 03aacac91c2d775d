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
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from env.errors import InputError, run_main
from env.judge.case import Case, cases
from env.judge.plans import OUTCOME_NAMES, Plans
from env.judge.world_options import WorldOptions
from env.private import private_files
from env.sources import SOURCES, load_timelines
from env.splits import chrono
from env.timeline import Timeline
from rlmemo.__main__ import version
from rlmemo.approval.thumbs_said import told_today
from rlmemo.evaluation.each_person import Alone, best_thresholds
from rlmemo.evaluation.gain import gain
from rlmemo.evaluation.ray_crew import add_ray, crew_of
from rlmemo.heartbeat import Pulse
from rlmemo.options import Parser, add_world, seed, world_given
from rlmemo.policies.endpoint_options import add_options, asking
from rlmemo.policies.exploring import LISTED, explored, in_memory, something_shown, tried, warm_listed
from rlmemo.policies.planners import Threshold, fed
from rlmemo.policies.registry import check_finished, is_run, setup
from rlmemo.store.database import store_when_done
from rlmemo.store.database_file import DEFAULT_DB
from rlmemo.store.ratings import ToRate, add_moment
from rlmemo.store.records import Prediction, Prewarm, state_text

if TYPE_CHECKING:
    import numpy as np

    from env.judge.case import Case
    from env.ranking import Ranking
    from env.splits import Split
    from rlmemo.evaluation.each_person import Crew
    from rlmemo.evaluation.gain import Gain
    from rlmemo.policies.endpoint_options import Asking
    from rlmemo.policies.planners import Planned, Planner
    from rlmemo.policies.protocol import Policy
    from rlmemo.policies.run import Setup
    from rlmemo.store.database import Store

PARTS = ("train", "validation", "test")
STEPS = 6
SPREAD = 8  # predictions are drawn from this many times as many recent decisions


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m rlmemo.predict",
        description=__doc__,
    )
    p.add_argument(
        "--timelines",
        metavar="NAME|PATH",
        default="demo",
        help="what to predict on, as in benchmark (default: demo)",
    )
    p.add_argument("--policy", metavar="NAME|RUN_DIR|openai:URL#MODEL", default="markov1",
                   help="who predicts (default: markov1)")  # fmt: skip
    p.add_argument(
        "--db", metavar="FILE", default=DEFAULT_DB, help=f"store to write to (default: {DEFAULT_DB})"
    )
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
    p.add_argument("--still", action="store_true", help="store decisions to keep still, too")
    p.add_argument("--tz", help="IANA time zone, where the recording does not say")
    p.add_argument("--against", metavar="NAME|RUN_DIR",
                   help="another policy: moments at which they disagree teach more")  # fmt: skip
    p.add_argument("--seed", type=seed, default=0, help="which moments, and which are tried out (default: 0)")
    add_world(p, run=True)
    add_options(p)
    add_ray(p, "ask the policy")
    return p


@dataclass(frozen=True)
class Options:
    """What `predict` needs to know; see the command line."""

    n: int = 200
    part: str = "train"
    explore: float = 0.1
    threshold: float | None = None
    still: bool = False
    seed: int = 0
    against: str | None = None
    asking: Asking | None = None
    world: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises InputError for numbers that make no sense."""
        if self.n < 1:
            raise InputError(f"--n {self.n} is no number of predictions; give 1 or more")
        if not 0.0 <= self.explore <= 1.0:
            raise InputError(f"--explore {self.explore} is no share; give 0 to 1")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"--threshold {self.threshold} is no probability; give 0 to 1")


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


@dataclass(frozen=True)
class PlannedCase:
    """A case, and what a policy says of it. planned: what it would do right away; apart: how far another
    policy's ranking is, float64 [D]."""

    case: Case
    ranking: Ranking
    planned: Planned
    apart: np.ndarray


def answered(
    asked: Sequence[Case], policies: tuple[Policy, Policy | None], planner: Planner, seed: int
) -> list[PlannedCase]:
    """What a policy, compared with another one, says of some cases."""
    policy, other = policies
    found = []
    for case in (fed(policy, c) for c in asked):
        ranking = policy.rank(case.timeline, case.indices)
        apart = disagreement(ranking, other.rank(case.timeline, case.indices)) if other else None
        planned = planner.plan(policy, case, seed=seed, ranking=ranking).right_away()
        found.append(
            PlannedCase(case, ranking, planned, np.zeros(len(case.indices)) if apart is None else apart)
        )
    return found


def _planner(used: Setup, options: Options, validation: list[Case], crew: Crew) -> Planner:
    """As `Setup.planning_by`; who looks for a threshold is the crew."""
    if options.threshold is not None or used.planner is not None:
        return used.planning_by(options.threshold, validation)
    worlds = {used.world.budget: used.world.rules()}
    policy, parts = crew.share(used.policy), crew.parts(validation)
    return best_thresholds(crew, policy, parts, worlds, used.world.worth())[used.world.budget]


def make(
    store: Store, spec: str, policy_name: str, options: Options, *, tz: str | None = None,
    crew: Crew | None = None,
) -> Made:  # fmt: skip
    """As `predict`; returns what came of it all. crew: who is asked person by person (None: this process)."""
    options.check()
    loaded = load_timelines(spec, tz=tz)
    split = chrono(loaded.timelines)
    folder = Path(policy_name)

    def ready(name: str) -> Setup:
        made = setup(name, options.world, options.asking)
        if not is_run(name):
            made.policy.fit(loaded.timelines, split, seed=options.seed)
        return made

    used = ready(policy_name)
    policy, world = used.policy, used.world
    other = ready(options.against).policy if options.against else None
    version = folder.resolve().name if folder.is_dir() else f"rlmemo {_version()}"
    identities = _keep_timelines(store, spec, loaded, tz)
    rules, costs = world.rules(), world.costs_of(loaded.timelines)
    crew = crew or Alone()
    planner = _planner(used, options, cases(loaded.timelines, costs, rules, split.validation), crew)
    about = About(store, policy.name, version, loaded.name, loaded.synthetic, identities, options, world)
    rng = np.random.default_rng(options.seed)
    chosen = _decisions(split, options)
    heard = told_today(loaded.timelines, store)
    made = Made(plans_itself=not isinstance(planner, Threshold))
    looked: list[Case] = []
    asked = [Case(heard[user], costs[user], rules, a + 1, b + 2, user) for user, _, (a, b) in chosen]
    answers = crew.do(answered, crew.parts(asked), crew.share((policy, other)), planner, options.seed)
    each = (answer for part in answers for answer in crew.get([part])[0])
    for (_, picked, _), answer in zip(chosen, each, strict=True):
        case, ranking, planned, apart = answer.case, answer.ranking, answer.planned, answer.apart
        indices = case.indices
        warm, held = warm_listed(case, ranking), in_memory(case)
        looked.append(case)
        wanted = 0
        for row in rng.permutation(len(indices)).tolist():
            if wanted == picked:
                break
            target, delay, propensity = explored(planned, ranking, warm, row, options.explore, rng)
            if not options.still and not (target >= 0).any():
                cold = np.isin(ranking.targets[row], tried(ranking, warm, row))
                made.still += 1
                made.likeliest = max(made.likeliest, float(ranking.probability[row][cold].max(initial=0.0)))
                continue
            shown = something_shown(planned, ranking, warm, row, options.explore)
            if not options.still and shown is not None:
                propensity = min(1.0, propensity / shown)  # of what is stored, as only that can be rated
            wanted += 1
            let_go = planned.let_go[row][~np.isin(planned.let_go[row], target)]  # not what is to be loaded
            plan = Decision(case, row, ranking, target, delay, let_go, propensity, shown, float(apart[row]))
            new = _write(about, plan, held[row])
            made.new += new
            made.again += 1 - new
    made.gain = gain(looked)
    return made


def _keep_timelines(store: Store, spec: str, loaded: Any, tz: str | None) -> dict[str, int]:
    """Ids of the timelines in the store, by user; what is not there yet is imported. A file may have grown
    since: what is new in it is added."""
    rows = store.timelines()
    if Path(spec).exists() and Path(spec).resolve() == store.path.resolve():
        first = {r.user: r.id for r in sorted(rows, key=lambda r: -r.id)}
        return {**first, **{f"{r.source}/{r.user}": r.id for r in rows}}
    if spec not in SOURCES or not any(r.source == loaded.name for r in rows):
        store.add_timelines(load_timelines(spec, tz=tz, collapsed=False))
        rows = store.timelines()
    return {r.user: r.id for r in rows if r.source == loaded.name}


def _version() -> str:
    return version()


def _decisions(split: Split, options: Options) -> list[tuple[int, int, tuple[int, int]]]:
    """Per timeline (its place): how many predictions, and the range of decisions (first, last) they are drawn
    from."""
    parts = getattr(split, options.part)
    users = [(user, events[events > 0]) for user, events in enumerate(parts) if (events > 0).any()]
    if not users:
        raise InputError(f"the {options.part} part is empty; record more events, or choose another --part")
    out = []
    for k, (user, events) in enumerate(users):
        each = options.n // len(users) + (k < options.n % len(users))
        recent = events[-max(1, SPREAD * each) :]
        if each:
            out.append((user, each, (int(recent[0]) - 1, int(recent[-1]) - 1)))
    return out


@dataclass(frozen=True)
class About:
    """What all predictions of one command have in common. identities: the stored timelines' ids by user."""

    store: Store
    policy: str
    version: str
    source: str
    synthetic: bool
    identities: dict[str, int]
    options: Options
    world: WorldOptions


@dataclass(frozen=True)
class Decision:
    """What is shown after one event of a case. target, delay: [K], let_go: [R], as in `Plans`; propensity:
    the probability with which it is shown; shown: see `something_shown`; apart: how far another policy's
    ranking is."""

    case: Case
    row: int
    ranking: Ranking
    target: np.ndarray
    delay: np.ndarray
    let_go: np.ndarray
    propensity: float
    shown: float | None
    apart: float

    @property
    def index(self) -> int:
        """The event that it is made after."""
        return self.case.start - 1 + self.row

    def picks(self) -> list[Prewarm]:
        """The plan by names, with its delays in seconds."""
        names, delays = self.case.timeline.names, self.case.world.delays
        return [
            Prewarm(names[x], float(delays[d]))
            for x, d in zip(self.target, self.delay, strict=True)
            if x >= 0
        ]

    def outcome(self) -> dict[str, Any]:
        """What became of the plan, alone, until its prewarms are resolved; seconds and pollution against
        keeping still, because another let-go rule than the usual one saves some by itself."""
        i, timeline, costs, world = self.index, self.case.timeline, self.case.costs, self.case.world
        horizon = timeline.t[i] + max(world.delays) + float(costs.load_s.max(initial=0.0)) + world.ttl_s
        stop = min(len(timeline), int(np.searchsorted(timeline.t, horizon, side="right")) + 1)
        after = replace(self.case, start=i + 1, stop=max(stop, i + 2))
        plans = Plans.empty(len(after), len(self.target), len(self.let_go))
        plans.target[0], plans.delay[0], plans.let_go[0] = self.target, self.delay, self.let_go
        found, still = after.replay(plans), after.replay(Plans.empty(len(after), len(self.target)))
        picked = [k for k in range(len(self.target)) if self.target[k] >= 0]
        colder = np.flatnonzero(found.pollution > still.pollution)
        pushed_out = list(dict.fromkeys(timeline.names[timeline.target[k]] for k in colder))
        return {
            "next_target": timeline.names[timeline.target[i + 1]],
            "next_t": float(timeline.t[i + 1]),
            "prewarms": [OUTCOME_NAMES[found.outcome[i, k]] for k in picked],
            "saved_s": round(found.total("saved_s") - still.total("saved_s"), 6),
            "pollution": int(found.total("pollution") - still.total("pollution")),
            "wasted_mb_s": round(found.total("wasted_mb_s"), 3),
            **({"pushed_out": pushed_out} if pushed_out else {}),
        }


def _write(about: About, made: Decision, held: np.ndarray) -> int:
    """Store one prediction with its moment; 0 where the same one is there already. held: who is in memory, as
    of `in_memory`."""
    timeline, options, i, row = made.case.timeline, about.options, made.index, made.row
    targets, shares = made.ranking.targets[row], made.ranking.probability[row]
    probability = {
        timeline.names[x]: min(1.0, max(0.0, float(p)))
        for x, p in zip(targets[:LISTED], shares[:LISTED], strict=True)
        if x >= 0
    }
    plan = made.picks()
    likely = (
        sum(probability.get(p.target, 0.0) for p in plan) if plan else max(probability.values(), default=0.0)
    )
    steps = [
        (float(timeline.t[k]), timeline.names[timeline.target[k]])
        for k in range(max(0, i + 1 - STEPS), i + 1)
    ]
    none = float(made.ranking.none[row]) + float(shares[LISTED:].sum())  # of the listed
    identity = about.store.add_prediction(
        Prediction(
            user=timeline.user,
            t=float(timeline.t[i]),
            policy=about.policy,
            policy_version=about.version,
            state=state_text(steps, timeline.tz),
            plan=plan,
            let_go=[timeline.names[x] for x in made.let_go if x >= 0],
            probabilities=probability,
            none_probability=min(1.0, max(0.0, none)) if math.isfinite(none) else None,
            propensity=made.propensity,
            timeline_id=about.identities.get(timeline.user),
            key=_key(about, timeline, i, plan),
            outcome=made.outcome(),
        )
    )
    # Most is learned where the plan had even odds, or where another policy thinks otherwise.
    teaches = max(0.02, 1.0 - abs(2.0 * min(1.0, likely) - 1.0), made.apart)
    new = ToRate(
        about.source, timeline.tz, about.synthetic, options.part, steps, teaches, shown=made.shown,
        since=float(timeline.t[made.case.start - 1]),
        stills=None if made.shown is None and not options.still else options.still, world=about.world,
        memory=_last_opened(timeline, i, held),
    )  # fmt: skip
    return int(add_moment(about.store, identity, new))


def _last_opened(timeline: Timeline, i: int, held: np.ndarray) -> list[tuple[float, str]]:
    """When each of some targets was last opened up to event i, the latest first."""
    before = timeline.target[: i + 1]
    last = sorted((int(np.flatnonzero(before == x)[-1]) for x in held if x >= 0), reverse=True)
    return [(float(timeline.t[k]), timeline.names[timeline.target[k]]) for k in last]


def _key(about: About, timeline: Timeline, i: int, plan: Sequence[Prewarm]) -> str:
    """The same prediction has the same key: whose moment, who says it, and how it was asked for; and what it
    is, where thumbs that came since have changed that."""
    options, usual = about.options, WorldOptions()
    said = [
        about.source,
        timeline.user,
        str(i),
        repr(float(timeline.t[i])),
        about.policy,
        about.version,
        options.part,
    ]
    said += [str(options.seed), str(options.explore), str(options.threshold), about.world.costs_identity()]
    for name in (
        "budget",
        "picks",
        "ttl_s",
        "off_after_s",
        "close_after_s",
    ):  # left out where usual: keys are what they were before
        if getattr(about.world, name) != getattr(usual, name):
            said.append(f"{name} {getattr(about.world, name):g}")
    for name in ("reward", "let_go"):
        if getattr(about.world, name) != getattr(usual, name):
            said.append(f"{name} {getattr(about.world, name)}")
    if about.world.let_go_picks:  # left out where there are none: older keys are what they were
        said.append(f"let_go_picks {about.world.let_go_picks}")
    key = hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]
    if timeline.thumbs is None:
        return key
    known = about.store.rows("SELECT plan FROM predictions WHERE key = ?", [key])
    shown = [(x.target, x.delay_s) for x in plan]
    if not known or [(x["target"], x["delay_s"]) for x in json.loads(known[0]["plan"])] == shown:
        return key
    said += [f"{target} {delay:g}" for target, delay in shown] or ["still"]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]


def disagreement(a: Ranking, b: Ranking) -> np.ndarray:
    """How far two rankings of the same D decisions are apart, float64 [D], 0 to 1: half the summed
    differences of their probabilities (total variation), what one does not list counting as 0."""
    same = (a.targets[:, :, None] == b.targets[:, None, :]) & (a.targets[:, :, None] >= 0)
    shared = np.minimum(a.probability[:, :, None], b.probability[:, None, :])
    overlap = np.where(same, shared, 0.0).sum(axis=(1, 2)) + np.minimum(a.none, b.none)
    apart: np.ndarray = np.clip(1.0 - overlap.astype(np.float64), 0.0, 1.0)
    return apart


@private_files()
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)

    options = Options(
        args.n, args.part, args.explore, args.threshold, args.still, args.seed, args.against,
        asking(args), world_given(args),
    )  # fmt: skip
    options.check()
    check_finished([args.policy, *([args.against] if args.against else [])])
    pulse = Pulse(f"predicting with {args.policy}")
    with crew_of(args) as crew, pulse, store_when_done(args.db) as store:
        made = make(store, args.timelines, args.policy, options, tz=args.tz, crew=crew)
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

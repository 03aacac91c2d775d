"""From what a policy answers to plans: three planners, and the one rule that chooses among them.

A planner says what is prewarmed over a case (`env.judge.case`): `OwnPlans`, what the policy itself plans;
`Threshold`, the best-ranked cold targets with probability >= theta; `Approved`, either of the two, minding
what the person approves of. What a run plans by is its `plan.json` (`to_json`, `from_json`), chosen on its
validation part by `choose`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.case import Case, summed
from env.judge.cost import EXPECTED
from env.judge.plans import FIELDS, Plans
from env.ranking import Ranking
from env.splits import Split
from env.timeline import Timeline
from reward import Reward
from rlmemo.approval.approval import MODEL, Approval
from rlmemo.model.readings import slates_of
from rlmemo.policies.protocol import Planned

NEVER = 2.0
BY_NOBODY, BY_SOON, BY_MODEL = "", "soon", "model"
"""Who says whom a plan names to leave first: nobody is named; those least worth keeping by who is opened soon
(`told`); the language model, which reads of them and of the moment."""
THRESHOLDS: tuple[float, ...] = (*np.geomspace(0.02, 0.95, 22).round(4).tolist(), NEVER)
"""Grid for theta; the last one is never reached, so keeping still is always among the choices."""


def check_fed(policies: Collection[Any], let_go: str) -> None:
    """Raises InputError where a let-go rule goes by who is opened soon, and one of the policies does not say
    who is."""
    silent = [policy.name for policy in policies if not hasattr(policy, "soon")]
    if let_go == EXPECTED and silent:
        raise InputError(
            f"--let-go {EXPECTED}: goes by who is opened soon, and {', '.join(silent)} cannot say who is; "
            "take policies that can (base, gbdt, a run folder), or another rule"
        )


def fed(policy: Any, case: Case) -> Case:
    """The case, told as its let-go rule has to be, after every event; as it is where the rule knows by
    itself. Raises InputError where the policy does not say."""
    if case.world.let_go != EXPECTED or case.worth is not None:
        return case
    check_fed([policy], EXPECTED)
    every = np.arange(len(case.timeline))
    targets, chance = policy.soon(case.timeline, every)
    return case.told(targets, chance, every)


def told(policy: Any, case: Case) -> Case:
    """The case, told by the policy who is opened soon; as it is where the policy does not say, or where a
    plan may name nobody and the let-go rule does not ask (see `fed`)."""
    if case.world.let_go == EXPECTED:
        return fed(policy, case)
    if case.world.max_let_go == 0 or not hasattr(policy, "soon"):
        return case
    return case.told(*policy.soon(case.timeline, case.indices))


@dataclass(frozen=True)
class OwnPlans:
    """What the policy itself plans (a language model, the oracle). names: whether the plans name who leaves
    first, and who says it (BY_NOBODY, BY_SOON, BY_MODEL)."""

    names: str = BY_NOBODY

    def plan(self, policy: Any, case: Case, *, seed: int = 0, ranking: Ranking | None = None) -> Planned:
        """The plans of `policy` for the decisions of `case`."""
        if self.names == BY_MODEL:
            own: Planned = policy.plan(told(policy, case), seed=seed, naming=True)
            return own
        if not self.names and case.world.let_go != EXPECTED:  # a case that was told would have plans name
            case = replace(case, worth=None)
        planned: Planned = policy.plan((told if self.names else fed)(policy, case), seed=seed)
        return planned

    def to_json(self) -> dict[str, Any]:
        """As `plan.json` keeps it."""
        return {"planner": "own", **_names(self.names)}


@dataclass(frozen=True)
class Threshold:
    """Prewarm the best guesses with probability >= theta that are not warm, at once; and at a wake, when
    nothing is, the best with probability >= wake. names: as of `OwnPlans`."""

    theta: float
    names: str = BY_NOBODY
    wake: float = NEVER

    def plan(self, policy: Any, case: Case, *, seed: int = 0, ranking: Ranking | None = None) -> Planned:
        """The plans for the decisions of `case`. ranking: of these decisions (None: `policy` is asked)."""
        ranking = policy.rank(case.timeline, case.indices) if ranking is None else ranking
        waking = self.waking(case, rank_wakes(policy, case)) if self.wake < NEVER else None
        case = (told if self.names else fed)(policy, case)
        if self.names == BY_MODEL and case.worth is not None:
            return planned(policy.naming(case, ranking, self.theta, waking))
        names = self.names != BY_NOBODY and case.worth is not None
        return planned(case.replay_ranked(ranking, self.theta, names, waking)[1])

    def waking(self, case: Case, wakes: Ranking) -> np.ndarray | None:
        """What it loads at the wakes of a case, ranked as in `wakes`; None where there are none."""
        return case.waking(wakes, self.wake) if self.wake < NEVER and len(wakes) else None

    def picks(self, row: Ranking, warm: Collection[int], most: int = 3) -> list[int]:
        """The targets for one decision (a ranking of one row), when `warm` is in memory; at most `most`."""
        found = [
            int(target)
            for target, p in zip(row.targets[0], row.probability[0], strict=True)
            if target >= 0 and float(p) >= self.theta and int(target) not in warm
        ]
        return found[:most]

    def to_json(self) -> dict[str, Any]:
        """As `plan.json` keeps it."""
        wake = {"wake": self.wake} if self.wake < NEVER else {}
        return {"planner": "threshold", "threshold": self.theta, **_names(self.names), **wake}


def _names(names: str) -> dict[str, Any]:
    return {"names": names} if names else {}


def who_names(data: Mapping[str, Any]) -> str:
    """Who names, as a planner's JSON says it; where only the one way was known, it is true. Raises
    ValueError."""
    names = data.get("names", BY_NOBODY)
    if names not in (BY_NOBODY, BY_SOON, BY_MODEL, True, False):
        raise ValueError(f"names {names!r}")
    return str(names) if isinstance(names, str) else BY_SOON if names else BY_NOBODY


@dataclass(frozen=True)
class Approved:
    """Plans that mind what the person approves of.

    The approval model knows what the embedded language model is never told: which target it is. For planning,
    the odds of a target being opened next are multiplied by what its name and the moment do to the odds of
    thumbs up, to the power of `strength`: what is disliked must be much likelier to be prewarmed, what is
    liked less so. Strength 0 is the planner without ratings. Rankings stay what they were.

    inner: a threshold is what the changed odds must come to, as a probability; of own plans, the picks stay
    whose changed odds come to `least`. found: what the choice came to on validation.
    """

    inner: OwnPlans | Threshold
    approval: Approval = field(repr=False)
    strength: float
    least: float = 0.0
    found: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def counted(self, case: Case, ranking: Ranking) -> Ranking:
        """The ranking of the case's decisions with probabilities as they count for planning."""
        slates = slates_of(case.timeline)
        liking = self.approval.liking(case.timeline, slates, case.indices, ranking.targets)
        return counted(ranking, liking, self.strength)

    def plan(self, policy: Any, case: Case, *, seed: int = 0, ranking: Ranking | None = None) -> Planned:
        """The plans for the decisions of `case`. ranking: as the policy ranks them (None: it is asked)."""
        ranking = policy.rank(case.timeline, case.indices) if ranking is None else ranking
        changed = self.counted(case, ranking)
        if isinstance(self.inner, Threshold):
            return self.inner.plan(policy, case, seed=seed, ranking=changed)
        return keep_approved(self.inner.plan(policy, case, seed=seed), changed, self.least)

    def to_json(self) -> dict[str, Any]:
        """As `plan.json` keeps it; the approval model lies beside it."""
        threshold = self.inner.theta if isinstance(self.inner, Threshold) else self.least
        inner = self.inner.to_json() | {"threshold": threshold}
        return {**inner, "strength": self.strength, **self.found}


Planner = OwnPlans | Threshold | Approved


def from_json(data: Mapping[str, Any], adapter: Path) -> Planner:
    """The planner that `to_json` described; `adapter` is the folder that its approval model lies in.

    Raises InputError for what is none, and where the approval model is missing or damaged.
    """
    try:
        own = data["planner"] == "own"
        if not own and data["planner"] != "threshold":
            raise ValueError(f"planner {data['planner']!r}")
        names = who_names(data)
        at_wakes = float(data.get("wake", NEVER))
        if "strength" not in data:
            return OwnPlans(names) if own else Threshold(float(data["threshold"]), names, at_wakes)
        threshold, strength = float(data["threshold"]), float(data["strength"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{adapter / 'plan.json'}: is damaged ({error}); train the run again") from None
    own_words = ("planner", "names", "threshold", "wake", "strength", "stage")
    rest = {k: v for k, v in data.items() if k not in own_words}
    inner = OwnPlans(names) if own else Threshold(threshold, names, at_wakes)
    approval = Approval.load(adapter / MODEL)
    return Approved(inner, approval, strength, threshold if own else 0.0, rest)


def planner_of(policy: Any) -> Planner | None:
    """What a policy plans by; None where that is the judge's to choose (a threshold, on validation)."""
    planner: Planner | None = getattr(policy, "planner", None)
    return planner


def planned(plans: Plans) -> Planned:
    """Plans that were chosen for sure."""
    return Planned(plans.target, plans.delay, np.ones(len(plans)), plans.let_go)


def rank_wakes(policy: Any, case: Case) -> Ranking:
    """How a policy ranks the wakes of a case."""
    wakes = case.wakes
    return policy.rank(case.woken, wakes) if len(wakes) else Ranking.empty(0)  # type: ignore[no-any-return]


class NonePolicy:
    """Never prewarms: what is warm is what was opened recently (LRU)."""

    name = "none"
    planner = OwnPlans()

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing to learn."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Lists nothing."""
        return Ranking.empty(len(indices))

    def plan(self, case: Case, *, seed: int = 0) -> Planned:
        """Keeps still."""
        return planned(Plans.empty(len(case), case.world.max_picks))


def best_of(rewards: np.ndarray) -> int:
    """Where the highest reward stands; ties go to the last (thresholds ascend: it prewarms least)."""
    return len(rewards) - 1 - int(np.argmax(rewards[::-1]))


def sweep(
    cases: Sequence[Case],
    rankings: Sequence[Ranking],
    thresholds: Sequence[float] = THRESHOLDS,
    names: bool = False,
) -> np.ndarray:
    """Records summed over all opens of the cases, one row per threshold: float64 [T, len(FIELDS)]. names: as
    of `Case.sweep`."""
    if not cases:
        return np.zeros((len(thresholds), len(FIELDS)))
    return summed([c.sweep(r, thresholds, names) for c, r in zip(cases, rankings, strict=True)])


def choose_threshold(
    cases: Sequence[Case],
    rankings: Sequence[Ranking],
    reward: Reward,
    thresholds: Sequence[float] = THRESHOLDS,
    wakes: Sequence[Ranking] = (),
) -> tuple[Threshold, float]:
    """The threshold with the highest reward over `cases`, and that reward summed over their opens; whether
    who leaves is named is chosen with it, where the cases are `told`.

    wakes: how each case's wakes are ranked; a threshold of their own is then chosen for them, and the other
    one anew. Ties go to naming nobody, then to the higher threshold (fewer prewarms). Without a case nothing
    is known of rewards, and the answer is to keep still.
    """
    if not cases:
        return Threshold(float(thresholds[-1])), 0.0
    is_told = all(case.worth is not None for case in cases)
    swept = _swept(cases, rankings, wakes)
    found, rewards = by_rewards(swept, reward, thresholds, told=is_told, wakes=any(map(len, wakes)))
    return found, float(rewards.max())


Swept = Callable[[Sequence[float], Threshold], np.ndarray]
"""swept(thresholds, by): records summed over the opens of some cases, float64 [T, len(FIELDS)], where who
leaves is named, and loads are made at wakes, as `by` says."""


def _swept(cases: Sequence[Case], rankings: Sequence[Ranking], wakes: Sequence[Ranking]) -> Swept:
    """The records of cases that are here."""
    woken = wakes if len(wakes) else [Ranking.empty(0)] * len(cases)

    def swept(thresholds: Sequence[float], by: Threshold) -> np.ndarray:
        names = by.names != BY_NOBODY
        return summed([
            c.sweep(r, thresholds, names, by.waking(c, w))
            for c, r, w in zip(cases, rankings, woken, strict=True)
        ])  # fmt: skip

    return swept


def by_rewards(
    swept: Swept, reward: Reward, thresholds: Sequence[float] = THRESHOLDS, *, told: bool, wakes: bool
) -> tuple[Threshold, np.ndarray]:
    """What `choose_threshold` finds, and the rewards by threshold, by the records alone. told: whether all
    cases are told who is opened soon; wakes: whether anybody wakes."""
    weights = reward.weights(FIELDS)
    rewards, names = swept(thresholds, Threshold(NEVER)) @ weights, BY_NOBODY
    if told:
        naming = swept(thresholds, Threshold(NEVER, BY_SOON)) @ weights
        if naming.max() > rewards.max():
            rewards, names = naming, BY_SOON
    found = Threshold(float(thresholds[best_of(rewards)]), names)
    if not wakes:
        return found, rewards
    best = best_of(
        np.concatenate([swept([found.theta], replace(found, wake=q)) @ weights for q in THRESHOLDS])
    )
    found = replace(found, wake=THRESHOLDS[best])
    rewards = swept(THRESHOLDS, found) @ weights
    return replace(found, theta=THRESHOLDS[best_of(rewards)]), rewards


@dataclass(frozen=True)
class Choice:
    """What a policy plans best by over some cases, and what that was chosen by: rewards per open.

    best: the best threshold; by_threshold: float64 [len(THRESHOLDS)], of others beside it; own: of the
    policy's own plans, NaN where they were not asked for, and own_by, who names in them; named: of the best
    threshold where the model says who leaves, if that is better.
    """

    planner: OwnPlans | Threshold
    best: Threshold
    by_threshold: np.ndarray
    own: float
    named: float = float("-inf")
    own_by: OwnPlans = field(default_factory=OwnPlans)

    @property
    def by_threshold_alone(self) -> Threshold:
        """The best threshold, with the model saying who leaves where that is better."""
        return replace(self.best, names=BY_MODEL) if self.named > self.threshold[1] else self.best

    @property
    def threshold(self) -> tuple[Threshold, float]:
        """The best threshold, and its reward per open."""
        return self.best, float(self.by_threshold.max())


def choose(
    policy: Any,
    cases: Sequence[Case],
    rankings: Sequence[Ranking],
    reward: Reward,
    *,
    own: bool = False,
    seed: int = 0,
) -> Choice:
    """What a policy plans best by over `cases` (at least one), which it ranks as in `rankings`: a threshold
    or, where `own`, its own plans if these earn more. Ties go to the threshold, to naming nobody, and to the
    higher one of two."""
    cases = [told(policy, case) for case in cases]
    opens = sum(len(case) for case in cases)
    wakes = [rank_wakes(policy, case) for case in cases]
    is_told = all(c.worth is not None for c in cases)
    swept = _swept(cases, rankings, wakes)
    best, rewards = by_rewards(swept, reward, told=is_told, wakes=any(map(len, wakes)))
    says = is_told and can_name(policy)
    found = Choice(best, best, rewards / opens, float("nan"))
    if says:  # at the same threshold: to ask the model takes as long as all of the above
        way = replace(best, names=BY_MODEL)
        named = _worth(policy, cases, rankings, reward, way, seed)
        if named > rewards.max():
            found = replace(found, planner=way, named=named / opens)
    if not own:
        return found
    ways = [OwnPlans(x) for x in (BY_NOBODY, *([BY_SOON] if is_told else []), *([BY_MODEL] if says else []))]
    worth = [own_worth(policy, cases, reward, way, seed=seed) / opens for way in ways]
    k = int(np.argmax(worth))
    before = max(float(found.by_threshold.max()), found.named)
    planner = ways[k] if worth[k] > before else found.planner
    return replace(found, planner=planner, own=worth[k], own_by=ways[k])


def can_name(policy: Any) -> bool:
    """Whether a policy's model says who leaves first."""
    return bool(getattr(policy, "names", False))


def _worth(
    policy: Any, cases: Sequence[Case], rankings: Sequence[Ranking], reward: Reward, way: Threshold, seed: int
) -> float:
    """The reward of planning by a threshold, summed over the opens of the cases."""
    weights = reward.weights(FIELDS)
    each = [
        c.replay(way.plan(policy, c, seed=seed, ranking=r)).table
        for c, r in zip(cases, rankings, strict=True)
    ]
    return float(sum((table @ weights).sum() for table in each))


def own_worth(
    policy: Any,
    cases: Sequence[Case],
    reward: Reward,
    way: OwnPlans = OwnPlans(),
    *,
    seed: int = 0,
) -> float:
    """The reward of a policy's own plans, summed over the opens of the cases."""
    weights = reward.weights(FIELDS)
    return sum(float((c.replay(way.plan(policy, c, seed=seed)).table @ weights).sum()) for c in cases)


def log_odds(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), with p held within 1e-4 of 0 and 1."""
    held = np.clip(p, 1e-4, 1.0 - 1e-4)
    found: np.ndarray = np.log(held) - np.log1p(-held)
    return found


def counted(ranking: Ranking, liking: np.ndarray, strength: float) -> Ranking:
    """A ranking whose log-odds are moved by strength * liking (float64 [D, P]), in their new order."""
    moved = log_odds(ranking.probability.astype(np.float64)) + strength * liking
    p = np.where(ranking.targets >= 0, 1.0 / (1.0 + np.exp(-moved)), 0.0)
    order = np.argsort(-p, axis=1, kind="stable")
    rows = np.arange(len(p))[:, None]
    return replace(
        ranking, targets=ranking.targets[rows, order], probability=p[rows, order].astype(np.float32)
    )


def keep_approved(planned: Planned, counted: Ranking, threshold: float) -> Planned:
    """The plans without the picks that count for less than `threshold`."""
    target = planned.target.copy()
    for k in range(target.shape[1]):
        same = (counted.targets == target[:, k, None]) & (target[:, k, None] >= 0)
        value = np.where(same, counted.probability, 0.0).sum(1)
        target[same.any(1) & (value < threshold), k] = -1
    delay = np.where(target >= 0, planned.delay, 0).astype(np.int8)
    return Planned(target, delay, planned.propensity, planned.let_go)

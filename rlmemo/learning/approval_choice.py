"""Which way of planning is best once ratings count: chosen on validation, as the plain one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from env.judge.case import Case
from env.judge.plans import FIELDS
from env.ranking import Ranking
from reward import Reward
from rlmemo.approval.approval import LEAST_STILL, MODEL, Approval
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.rating_feedback import per_thumb
from rlmemo.learning.training_data import TrainingData
from rlmemo.policies.planners import (
    BY_NOBODY,
    BY_SOON,
    NEVER,
    THRESHOLDS,
    Approved,
    OwnPlans,
    Planner,
    Threshold,
    best_of,
    counted,
    fed,
    keep_approved,
    planned,
    sweep,
    told,
)
from rlmemo.policies.protocol import Planned

HEARD = (0.0,)
"""Strength where the model hears thumbs: what was liked is in its ranking already, and to count it once more
gains nothing (experiments/LOG.md, seconds and thumbs together)."""
STRENGTHS = (*HEARD, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
KEEP = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Thresholds below which a pick of the model's own plan is dropped; 0 keeps all."""
FINE = (*np.geomspace(0.01, 0.5, 36).round(4).tolist(), *np.linspace(0.52, 0.98, 24).round(4).tolist(), 2.0)
AROUND = (0.8, 1.0, 1.2)
"""Hits at equal waste are read at these multiples of the plain planner's waste, and averaged."""
TRUSTED = tuple(x for x in STRENGTHS if x <= 1.0)
"""Strengths where the price is bounded: at 1 the odds of thumbs up count for what they are; beyond, a
validation part of a hundred hits does not see what is lost (experiments/LOG.md, the closed loop)."""
STILL = Threshold(NEVER)
"""Nobody names who leaves, and nothing is loaded at wakes."""
SLACK = 0.04
"""Share of them that may be missing: with a hundred hits, less cannot be told from none."""


class _Part:
    """One user's validation part with what is asked of it again and again. names: who names who leaves."""

    def __init__(
        self, policy: Any, approval: Approval, data: TrainingData, case: Case, seed: int, names: str
    ) -> None:
        self.policy, self.approval, self.seed = policy, approval, seed
        self.case = (told if names else fed)(policy, case)
        self.names = names if names and self.case.worth is not None else BY_NOBODY
        self.slates = data.plain[case.user]
        self.ranking: Ranking = policy.rank(case.timeline, case.indices)
        self.liking = approval.liking(case.timeline, self.slates, case.indices, self.ranking.targets)

    @cached_property
    def own(self) -> Planned:
        """The model's own plans."""
        return OwnPlans(self.names).plan(self.policy, self.case, seed=self.seed)

    def rating(self, planned: Planned, *, still: bool = True) -> float:
        """Sum of the expected ratings of plans; those that say nothing are only asked about if they count and
        `still` says so."""
        case, delays = self.case, np.asarray(self.case.world.delays)
        asked = (planned.target >= 0).any(1) | (still and self.approval.still >= LEAST_STILL)
        target, delay_s = planned.target[asked], delays[planned.delay[asked]]
        expected = self.approval.expected(case.timeline, self.slates, case.indices[asked], target, delay_s)
        return float(expected.sum())

    def by_threshold(self, strength: float, threshold: float) -> tuple[Any, Planned]:
        outcomes, plans = self.case.replay_ranked(self.counted(strength), threshold, bool(self.names))
        return outcomes, planned(plans)

    def by_own(self, strength: float, threshold: float) -> tuple[Any, Planned]:
        planned = keep_approved(self.own, self.counted(strength), threshold)
        return self.case.replay(planned), planned

    def counted(self, strength: float) -> Ranking:
        return counted(self.ranking, self.liking, strength)


def _parts(
    policy: Any, approval: Approval, data: TrainingData, seed: int, plain: OwnPlans | Threshold
) -> list[_Part]:
    """What is to choose by. To ask the model who leaves, at every threshold, would take too long."""
    names = BY_SOON if plain.names else BY_NOBODY
    return [_Part(policy, approval, data, case, seed, names) for case in data.cases(data.split.validation)]


def _by_threshold(parts: Sequence[_Part], theta: float, plain: OwnPlans | Threshold) -> Threshold:
    """Such a threshold, naming as was chosen by, and loading at wakes as the planner without ratings does."""
    wake = plain.wake if isinstance(plain, Threshold) else NEVER
    return Threshold(float(theta), parts[0].names, wake)


def hits_at(waste: float, wasted: np.ndarray, hit: np.ndarray) -> float:
    """Hits where `waste` is wasted, between the two thresholds around it; wasted, hit: float64 [T]."""
    order = np.argsort(wasted, kind="stable")
    return float(np.interp(waste, wasted[order], hit[order]))


def choose_keeping(
    model: Any,
    approval: Approval,
    data: TrainingData,
    reward: Reward,
    keep: float,
    seed: int,
    plain: OwnPlans | Threshold = STILL,
    *,
    only: bool = False,
) -> Approved | None:
    """The (strength, threshold) whose plans are liked most on validation, at a bounded price; None where
    there is no validation part.

    The price: of the plain planner's hits at equal waste at most `SLACK` is given up, of its reward at
    most 1 - `keep`. Strength 0 at its best threshold pays it, so there is always one. Ties go to the smaller
    strength, then to the higher threshold. plain: the planner without ratings, which says whether somebody
    names who leaves; only: whether its threshold stays.
    """
    parts = _parts(model, approval, data, seed, plain)
    if not parts:
        return None
    thresholds = (plain.theta,) if only and isinstance(plain, Threshold) else FINE
    names = bool(parts[0].names)
    opens = sum(len(part.case) for part in parts)
    weights, columns = reward.weights(FIELDS), [FIELDS.index("hit"), FIELDS.index("wasted")]
    best: tuple[float, Approved] | None = None
    least_hits = least_reward = plain_reward = waste = 0.0
    for strength in TRUSTED:
        ranked = [p.counted(strength) for p in parts]
        total = sweep([p.case for p in parts], ranked, thresholds, names) / opens
        worth, (hit, wasted) = total @ weights, total[:, columns].T
        if strength == 0.0:
            usual = best_of(worth)
            waste = float(wasted[usual])
            plain_reward = float(worth[usual])
            least_reward = plain_reward * keep if plain_reward > 0 else plain_reward
        hits = float(np.mean([hits_at(x * waste, wasted, hit) for x in AROUND]))
        if strength == 0.0:
            least_hits = hits
        if hits < (1.0 - SLACK) * least_hits - 1e-12:
            continue
        for place in reversed(np.flatnonzero(worth >= least_reward - 1e-12).tolist()):
            rated, shown = 0.0, 0
            for part in parts:
                _, planned = part.by_threshold(strength, thresholds[place])
                rated += part.rating(planned, still=False)
                shown += int((planned.target >= 0).any(1).sum())
            liked = 0.5 + 0.5 * rated / shown if shown else 0.0
            if best is None or liked > best[0] + 1e-12:
                found = {
                    "reward_per_open": float(worth[place]), "expected_approval": liked,
                    "shown_per_open": shown / opens, "hits_at_equal_waste": hits,
                    "hits_at_equal_waste_plain": least_hits, "reward_per_open_plain": plain_reward,
                }  # fmt: skip
                inner = _by_threshold(parts, thresholds[place], plain)
                best = liked, Approved(inner, approval, strength, found={"keep": keep, "validation": found})
    assert best is not None
    return best[1]


def choose(
    model: Any,
    approval: Approval,
    data: TrainingData,
    reward: Reward,
    thumb: float,
    seed: int,
    plain: OwnPlans | Threshold = STILL,
    *,
    strengths: Sequence[float] = HEARD,
) -> Approved | None:
    """The best (planner, strength, threshold) on validation, None where there is no validation part. plain:
    the planner without ratings, which says whether somebody names who leaves.

    Best is the reward per open plus `thumb` (seconds per unit of expected rating) times the expected
    rating per open. Ties go to the smaller strength, then to the higher threshold.
    """
    parts = _parts(model, approval, data, seed, plain)
    opens = sum(len(part.case) for part in parts)
    if not parts:
        return None
    weights = reward.weights(FIELDS)
    best: tuple[float, Approved] | None = None
    for strength in strengths:
        kept = KEEP if strength else KEEP[:1]
        ways = [("threshold", x) for x in reversed(THRESHOLDS)] + [("own", x) for x in kept]
        for planner, threshold in ways:
            worth = rated = 0.0
            for part in parts:
                how = part.by_own if planner == "own" else part.by_threshold
                outcomes, planned = how(strength, threshold)
                worth += float((outcomes.table @ weights).sum())
                rated += part.rating(planned)
            value = (worth + thumb * rated) / opens
            if best is None or value > best[0] + 1e-12:
                found = {"reward_per_open": worth / opens, "expected_rating_per_open": rated / opens}
                about = {"per_thumb": thumb, "worth_per_open": value, "validation": found}
                best = (
                    value,
                    (
                        Approved(OwnPlans(parts[0].names), approval, strength, float(threshold), about)
                        if planner == "own"
                        else Approved(_by_threshold(parts, threshold, plain), approval, strength, found=about)
                    ),
                )
    assert best is not None
    return best[1]


def minding_as_shipped(
    shipped: Threshold, policy: Any, adapter: Path, data: TrainingData, config: TrainConfig, reward: Reward
) -> Planner:
    """As `minding`, for the model as it came: its planner is not chosen anew, only how much ratings count
    where a price is set for them."""
    keep = config.feedback_keep
    if keep is None or not (adapter / MODEL).is_file():
        return shipped
    approval = Approval.load(adapter / MODEL)
    found = choose_keeping(policy, approval, data, reward, keep, config.seed, shipped, only=True)
    return shipped if found is None else replace(found, inner=shipped)


def minding(
    planner: OwnPlans | Threshold,
    policy: Any,
    adapter: Path,
    data: TrainingData,
    config: TrainConfig,
    reward: Reward,
) -> tuple[Planner, dict[str, Any]]:
    """(the planner that is best on validation once ratings count, what it came to there), for the run's
    settings: seconds and expected ratings together (`--feedback-weight`), or what is liked most at a price
    (`--feedback-keep`). `planner` and nothing where there is no approval model in `adapter`."""
    if not (adapter / MODEL).is_file():
        return planner, {}
    approval, keep = Approval.load(adapter / MODEL), config.feedback_keep
    if keep is not None:
        return choose_keeping(policy, approval, data, reward, keep, config.seed, planner) or planner, {}
    thumb = per_thumb(reward, config.feedback_weight)
    found = choose(policy, approval, data, reward, thumb, config.seed, planner)
    return (planner, {}) if found is None else (found.inner, dict(found.found))

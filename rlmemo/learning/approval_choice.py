"""Which way of planning is best once ratings count: chosen on validation, as the plain one is."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from env.judge.plans import FIELDS
from reward import Reward
from rlmemo.approval.approval import LEAST_STILL, MODEL, Approval
from rlmemo.learning.ratings_used import per_thumb
from rlmemo.learning.training_data import TrainingData
from rlmemo.policies.approved import ApprovedPolicy, counted, keep_approved
from rlmemo.policies.planners import THRESHOLDS, Window, replay_planned, replay_threshold, sweep_windows
from rlmemo.policies.protocol import Planned

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
KEEP = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Thresholds below which a pick of the model's own plan is dropped; 0 keeps all."""
FINE = (*np.geomspace(0.01, 0.5, 36).round(4).tolist(), *np.linspace(0.52, 0.98, 24).round(4).tolist(), 2.0)
AROUND = (0.8, 1.0, 1.2)
"""Hits at equal waste are read at these multiples of the plain planner's waste, and averaged."""
TRUSTED = tuple(x for x in STRENGTHS if x <= 1.0)
"""Strengths where the price is bounded: at 1 the odds of thumbs up count for what they are; beyond, a
validation part of a hundred hits does not see what is lost (experiments/LOG.md, the closed loop)."""
SLACK = 0.04
"""Share of them that may be missing: with a hundred hits, less cannot be told from none."""


class _Part:
    """One user's validation window with what is asked of it again and again."""

    def __init__(
        self, policy: ApprovedPolicy, ground: TrainingData, user: int, a: int, b: int, seed: int
    ) -> None:
        self.ground, self.user, self.policy, self.seed = ground, user, policy, seed
        timeline, costs = ground.timelines[user], ground.costs[user]
        indices = np.arange(a - 1, b - 1, dtype=np.int64)
        self.window = Window(timeline, costs, a, b, policy.rank(timeline, indices))
        self.liking = policy.liking(timeline, indices, self.window.ranking.targets)

    @cached_property
    def own(self) -> Planned:
        """The model's own plans."""
        w = self.window
        planned: Planned = self.policy.inner.plan(
            w.timeline, w.indices, w.costs, self.ground.world, seed=self.seed
        )
        return planned

    def rating(self, approval: Approval, planned: Planned, *, still: bool = True) -> float:
        """Sum of the expected ratings of plans; those that say nothing are only asked about if they count and
        `still` says so."""
        w, delays = self.window, np.asarray(self.ground.world.delays)
        asked = (planned.target >= 0).any(1) | (still and approval.still >= LEAST_STILL)
        target, delay_s = planned.target[asked], delays[planned.delay[asked]]
        slates = self.ground.plain[self.user]
        return float(approval.expected(w.timeline, slates, w.indices[asked], target, delay_s).sum())

    def by_threshold(self, strength: float, threshold: float) -> tuple[Any, Planned]:
        w = self.window
        ranking = counted(w.ranking, self.liking, strength)
        outcomes, target = replay_threshold(
            Window(w.timeline, w.costs, w.start, w.stop, ranking), self.ground.world, threshold
        )
        shown = target[w.indices]
        return outcomes, Planned(shown, np.zeros(shown.shape, np.int8), np.ones(len(shown)))

    def by_own(self, strength: float, threshold: float) -> tuple[Any, Planned]:
        w = self.window
        planned = keep_approved(self.own, counted(w.ranking, self.liking, strength), threshold)
        return replay_planned(w, self.ground.world, planned), planned


def _parts(model: Any, approval: Approval, ground: TrainingData, seed: int) -> list[_Part]:
    policy = ApprovedPolicy(model, approval, strength=0.0, threshold=0.0, own=False, name="approved")
    parts = []
    for user in range(len(ground.timelines)):
        events = ground.split.validation[user]
        events = events[events > 0]
        if len(events):
            parts.append(_Part(policy, ground, user, int(events[0]), int(events[-1]) + 1, seed))
    return parts


def hits_at(waste: float, wasted: np.ndarray, hit: np.ndarray) -> float:
    """Hits where `waste` is wasted, between the two thresholds around it; wasted, hit: float64 [T]."""
    order = np.argsort(wasted, kind="stable")
    return float(np.interp(waste, wasted[order], hit[order]))


def choose_keeping(
    model: Any, approval: Approval, ground: TrainingData, reward: Reward, keep: float, seed: int
) -> dict[str, Any] | None:
    """The (strength, threshold) whose plans are liked most on validation, at a bounded price; None where
    there is no validation part.

    The price: of the plain planner's hits at equal waste at most `SLACK` is given up, of its reward at
    most 1 - `keep`. Strength 0 at its best threshold pays it, so there is always one. Ties go to the smaller
    strength, then to the higher threshold.
    """
    parts = _parts(model, approval, ground, seed)
    if not parts:
        return None
    opens = sum(len(part.window.indices) for part in parts)
    weights, columns = reward.weights(FIELDS), [FIELDS.index("hit"), FIELDS.index("wasted")]
    best: tuple[float, dict[str, Any]] | None = None
    least_hits = least_reward = plain_reward = waste = 0.0
    for strength in TRUSTED:
        windows = [
            Window(w.timeline, w.costs, w.start, w.stop, counted(w.ranking, part.liking, strength))
            for part in parts
            for w in (part.window,)
        ]
        total = sweep_windows(windows, ground.world, FINE) / opens
        worth, (hit, wasted) = total @ weights, total[:, columns].T
        if strength == 0.0:
            plain = len(worth) - 1 - int(np.argmax(worth[::-1]))
            waste = float(wasted[plain])
            plain_reward = float(worth[plain])
            least_reward = plain_reward * keep if plain_reward > 0 else plain_reward
        hits = float(np.mean([hits_at(x * waste, wasted, hit) for x in AROUND]))
        if strength == 0.0:
            least_hits = hits
        if hits < (1.0 - SLACK) * least_hits - 1e-12:
            continue
        for place in reversed(np.flatnonzero(worth >= least_reward - 1e-12).tolist()):
            rated, shown = 0.0, 0
            for part in parts:
                _, planned = part.by_threshold(strength, FINE[place])
                rated += part.rating(approval, planned, still=False)
                shown += int((planned.target >= 0).any(1).sum())
            liked = 0.5 + 0.5 * rated / shown if shown else 0.0
            if best is None or liked > best[0] + 1e-12:
                found = {
                    "reward_per_open": float(worth[place]), "expected_approval": liked,
                    "shown_per_open": shown / opens, "hits_at_equal_waste": hits,
                    "hits_at_equal_waste_plain": least_hits, "reward_per_open_plain": plain_reward,
                }  # fmt: skip
                best = liked, {
                    "planner": "threshold", "threshold": float(FINE[place]), "strength": strength,
                    "keep": keep, "validation": found,
                }  # fmt: skip
    assert best is not None
    return best[1]


def choose(
    model: Any, approval: Approval, ground: TrainingData, reward: Reward, thumb: float, seed: int
) -> dict[str, Any] | None:
    """The best (planner, strength, threshold) on validation, None where there is no validation part.

    Best is the reward per open plus `thumb` (seconds per unit of expected rating) times the expected
    rating per open. Ties go to the smaller strength, then to the higher threshold.
    """
    parts = _parts(model, approval, ground, seed)
    opens = sum(len(part.window.indices) for part in parts)
    if not parts:
        return None
    weights = reward.weights(FIELDS)
    best: tuple[float, dict[str, Any]] | None = None
    for strength in STRENGTHS:
        ways = [("threshold", x) for x in reversed(THRESHOLDS)] + [("own", x) for x in KEEP]
        for planner, threshold in ways:
            worth = rated = 0.0
            for part in parts:
                how = part.by_own if planner == "own" else part.by_threshold
                outcomes, planned = how(strength, threshold)
                worth += float((outcomes.table @ weights).sum())
                rated += part.rating(approval, planned)
            value = (worth + thumb * rated) / opens
            if best is None or value > best[0] + 1e-12:
                found = {"reward_per_open": worth / opens, "expected_rating_per_open": rated / opens}
                best = value, {
                    "planner": planner, "threshold": float(threshold), "strength": strength,
                    "per_thumb": thumb, "validation": found,
                }  # fmt: skip
    assert best is not None
    return best[1]


def with_approval(
    adapter: Path,
    model: Any,
    ground: TrainingData,
    reward: Reward,
    weight: float,
    choice: dict[str, Any],
    seed: int,
    keep: float | None = None,
) -> dict[str, Any]:
    """The choice of a planner that minds the approval model in `adapter`, as `plan.json` keeps it; `choice`
    as it is where there is no such model. keep: as in `choose_keeping`; None: `choose`."""
    if not (adapter / MODEL).is_file():
        return choice
    approval = Approval.load(adapter / MODEL)
    if keep is not None:
        return choose_keeping(model, approval, ground, reward, keep, seed) or choice
    return choose(model, approval, ground, reward, per_thumb(reward, weight), seed) or choice

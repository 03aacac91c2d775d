"""Which way of planning is best once ratings count: chosen on validation, as the plain one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from env.plans import FIELDS
from reward import Reward
from rlmemo.feedback.approval import LEAST_STILL, Approval
from rlmemo.feedback.learning import MODEL, per_thumb
from rlmemo.learning.states import Ground
from rlmemo.policies.approved import ApprovedPolicy, counted, keep_approved
from rlmemo.policies.planners import THRESHOLDS, Planned, Window, replay_planned, replay_threshold

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
KEEP = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Thresholds below which a pick of the model's own plan is dropped; 0 keeps all."""


class _Part:
    """One user's validation window with what is asked of it again and again."""

    def __init__(self, policy: ApprovedPolicy, ground: Ground, user: int, a: int, b: int, seed: int) -> None:
        self.ground, self.user = ground, user
        timeline, costs = ground.timelines[user], ground.costs[user]
        indices = np.arange(a - 1, b - 1, dtype=np.int64)
        self.window = Window(timeline, costs, a, b, policy.rank(timeline, indices))
        self.liking = policy.liking(timeline, indices, self.window.ranking.targets)
        self.own: Planned = policy.inner.plan(timeline, indices, costs, ground.world, seed=seed)

    def rating(self, approval: Approval, planned: Planned) -> float:
        """Sum of the expected ratings of plans; those that say nothing are only asked about if they count."""
        w, delays = self.window, np.asarray(self.ground.world.delays)
        asked = (planned.target >= 0).any(1) | (approval.still >= LEAST_STILL)
        target, delay_s = planned.target[asked], delays[planned.delay[asked]]
        slates = self.ground.slates[self.user]
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


def choose(
    model: Any, approval: Approval, ground: Ground, reward: Reward, thumb: float, seed: int
) -> dict[str, Any] | None:
    """The best (planner, strength, threshold) on validation, None where there is no validation part.

    Best is the reward per open plus `thumb` (seconds per unit of expected rating) times the expected
    rating per open. Ties go to the smaller strength, then to the higher threshold.
    """
    policy = ApprovedPolicy(model, approval, strength=0.0, threshold=0.0, own=False, name="approved")
    parts, opens = [], 0
    for user in range(len(ground.timelines)):
        events = ground.split.validation[user]
        events = events[events > 0]
        if len(events):
            parts.append(_Part(policy, ground, user, int(events[0]), int(events[-1]) + 1, seed))
            opens += len(events)
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
    ground: Ground,
    reward: Reward,
    weight: float,
    choice: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """The choice of a planner that minds the approval model in `adapter`, as `plan.json` keeps it; `choice`
    as it is where there is no such model."""
    if not (adapter / MODEL).is_file():
        return choice
    approval = Approval.load(adapter / MODEL)
    return choose(model, approval, ground, reward, per_thumb(reward, weight), seed) or choice


def approved(model: Any, adapter: Path, choice: dict[str, Any], name: str, note: str = "") -> Any:
    """The policy that `choice` describes, None where it minds no approval.

    Raises InputError where the approval model is missing or damaged.
    """
    if "strength" not in choice:
        return None
    return ApprovedPolicy(
        model, Approval.load(adapter / MODEL), strength=float(choice["strength"]),
        threshold=float(choice["threshold"]), own=choice["planner"] == "own", name=name, note=note,
    )  # fmt: skip

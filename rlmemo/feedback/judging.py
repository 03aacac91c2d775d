"""Which way of planning is best once ratings count: chosen on validation, as the plain one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from env.plans import FIELDS
from env.timeline import Timeline
from reward import Reward
from rlmemo.feedback.approval import Approval
from rlmemo.feedback.learning import MODEL, per_thumb
from rlmemo.learning.states import Ground
from rlmemo.policies.approved import ApprovedPolicy
from rlmemo.policies.planners import THRESHOLDS, Window, replay_planned, replay_threshold

Valued = tuple[float, float]
"""(reward per open without ratings, expected rating per open)"""


def expected_rating(
    approval: Approval, timeline: Timeline, slates: Any, indices: np.ndarray, target: np.ndarray,
    delay_s: np.ndarray,
) -> float:  # fmt: skip
    """Sum of the expected ratings of the plans of decisions `indices`."""
    return float(approval.expected(timeline, slates, indices, target, delay_s).sum())


def value_by_threshold(
    policy: ApprovedPolicy, windows: list[tuple[int, Window]], ground: Ground, reward: Reward
) -> list[Valued]:
    """What planning by each of `THRESHOLDS` is worth over the windows (with the user that each is of)."""
    weights = reward.weights(FIELDS)
    opens = sum(w.stop - w.start for _, w in windows)
    counted = [
        Window(w.timeline, w.costs, w.start, w.stop,
               policy.counted(w.timeline, w.indices, w.ranking, w.costs)) for _, w in windows
    ]  # fmt: skip
    found = []
    for threshold in THRESHOLDS:
        worth = rated = 0.0
        for (user, w), c in zip(windows, counted, strict=True):
            outcomes, target = replay_threshold(c, ground.world, threshold)
            worth += float((outcomes.table @ weights).sum())
            shown = target[w.indices]
            rated += expected_rating(
                policy.approval, w.timeline, ground.slates[user], w.indices, shown, np.zeros(shown.shape)
            )
        found.append((worth / opens, rated / opens))
    return found


def value_of_plans(
    policy: Any,
    approval: Approval,
    windows: list[tuple[int, Window]],
    ground: Ground,
    reward: Reward,
    seed: int,
) -> Valued:
    """What a policy's own plans are worth over the windows."""
    weights = reward.weights(FIELDS)
    delays = np.asarray(ground.world.delays)
    worth = rated = 0.0
    for user, w in windows:
        planned = policy.plan(w.timeline, w.indices, w.costs, ground.world, seed=seed)
        worth += float((replay_planned(w, ground.world, planned).table @ weights).sum())
        rated += expected_rating(
            approval, w.timeline, ground.slates[user], w.indices, planned.target, delays[planned.delay]
        )
    opens = sum(w.stop - w.start for _, w in windows)
    return worth / opens, rated / opens


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
    approval, thumb = Approval.load(adapter / MODEL), per_thumb(reward, weight)
    windows = []
    for user, timeline in enumerate(ground.timelines):
        events = ground.split.validation[user]
        events = events[events > 0]
        if len(events):
            a, b = int(events[0]), int(events[-1]) + 1
            ranking = model.rank(timeline, np.arange(a - 1, b - 1, dtype=np.int64))
            windows.append((user, Window(timeline, ground.costs[user], a, b, ranking)))
    if not windows:
        return choice
    policy = ApprovedPolicy(model, approval, thumb, None, "approved")
    own = value_of_plans(policy, approval, windows, ground, reward, seed)
    by_threshold = value_by_threshold(policy, windows, ground, reward)
    worth = [a + thumb * b for a, b in by_threshold]
    best = len(worth) - 1 - int(np.argmax(worth[::-1]))
    planner = "own" if own[0] + thumb * own[1] > worth[best] else "threshold"
    taken = own if planner == "own" else by_threshold[best]
    return {
        "planner": planner,
        "threshold": float(THRESHOLDS[best]),
        "per_thumb": thumb,
        "validation": {"reward_per_open": taken[0], "expected_rating_per_open": taken[1]},
    }


def approved(model: Any, adapter: Path, choice: dict[str, Any], name: str, note: str = "") -> Any:
    """The policy that `choice` describes, None where it minds no approval."""
    if "per_thumb" not in choice:
        return None
    threshold = None if choice["planner"] == "own" else float(choice["threshold"])
    return ApprovedPolicy(
        model, Approval.load(adapter / MODEL), float(choice["per_thumb"]), threshold, name, note
    )


def replayed(window: Window, ground: Ground, policy: ApprovedPolicy) -> tuple[Any, np.ndarray]:
    """(outcomes, targets int32 [D, K]) of an approved policy's plans over a window."""
    planned = policy.plan(window.timeline, window.indices, window.costs, ground.world)
    return replay_planned(window, ground.world, planned), planned.target

"""A language policy that minds what a person approves of: what is disliked must be much likelier to be
prewarmed, and is not at all where the dislike outweighs the waiting it could save.

The approval model knows what the embedded language model is never told: which target it is. A target's
probability p counts as p + c * r / s for planning, where r is the expected rating of prewarming it (-1 to
1, only its dislike: to be liked makes p count up to half as much again, and no target likely that is not),
c what a thumb counts in seconds and s the seconds that a hit saves. Rankings stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from env.cost import Costs, WorldConfig
from env.splits import Split
from env.timeline import Timeline
from rlmemo.feedback.approval import Approval
from rlmemo.policies.planners import Planned, Window, replay_threshold
from rlmemo.policies.protocol import Ranking

LIKED = 0.5
"""How much more likely a target that is surely liked counts."""


class ApprovedPolicy:
    """A policy with plans that mind approval; see the module's docstring.

    inner: ranks, and plans where `threshold` is None. per_thumb: seconds that a thumb counts.
    """

    def __init__(
        self,
        inner: Any,
        approval: Approval,
        per_thumb: float,
        threshold: float | None,
        name: str,
        note: str = "",
    ) -> None:
        self.inner, self.approval, self.per_thumb = inner, approval, per_thumb
        self.threshold, self.name, self.note = threshold, name, note
        self.model = getattr(inner, "model", None)

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """It was trained already."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `Policy.rank`: what is likely, liked or not."""
        ranking: Ranking = self.inner.rank(timeline, indices)
        return ranking

    def counted(self, timeline: Timeline, indices: np.ndarray, ranking: Ranking, costs: Costs) -> Ranking:
        """The ranking with probabilities as they count for planning, in their order."""
        from rlmemo.policies.language import slates_of

        indices = np.asarray(indices, np.int64)
        rating = self.approval.of_targets(timeline, slates_of(timeline), indices, ranking.targets)
        p = self._counted(ranking.targets, ranking.probability.astype(np.float64), rating, costs)
        order = np.argsort(-p, axis=1, kind="stable")
        rows = np.arange(len(indices))[:, None]
        return Ranking(
            ranking.targets[rows, order], p[rows, order].astype(np.float32), ranking.none, ranking.delay_s
        )

    def _counted(self, target: np.ndarray, p: np.ndarray, rating: np.ndarray, costs: Costs) -> np.ndarray:
        saves = np.maximum((costs.cold_s - costs.warm_s)[np.maximum(target, 0)], 1e-3)
        shift = np.where(rating < 0, self.per_thumb * rating / saves, LIKED * p * rating)
        counted: np.ndarray = np.where(target >= 0, np.clip(p + shift, 0.0, 1.0), 0.0)
        return counted

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """See `PlanningPolicy.plan`."""
        indices = np.asarray(indices, np.int64)
        ranking = self.counted(timeline, indices, self.rank(timeline, indices), costs)
        if self.threshold is not None:
            window = Window(timeline, costs, int(indices[0]) + 1, int(indices[-1]) + 2, ranking)
            _, target = replay_threshold(window, config, self.threshold)
            rows = target[indices]
            return Planned(rows, np.zeros(rows.shape, np.int8), np.ones(len(indices)))
        planned: Planned = self.inner.plan(timeline, indices, costs, config, seed=seed)
        return keep_approved(planned, ranking)


def keep_approved(planned: Planned, counted: Ranking) -> Planned:
    """The plans without the picks that count for nothing."""
    target = planned.target.copy()
    for k in range(target.shape[1]):
        same = (counted.targets == target[:, k, None]) & (target[:, k, None] >= 0)
        value = np.where(same, counted.probability, 0.0).sum(1)
        target[same.any(1) & (value <= 0.0), k] = -1
    return Planned(target, np.where(target >= 0, planned.delay, 0).astype(np.int8), planned.propensity)

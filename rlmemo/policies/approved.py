"""A language policy that minds what a person approves of.

The approval model knows what the embedded language model is never told: which target it is. For planning,
the odds of a target being opened next are multiplied by what its name and the moment do to the odds of
thumbs up, to the power of `strength`: what is disliked must be much likelier to be prewarmed, what is liked
less so. Strength 0 is the policy without ratings. Strength and threshold are chosen together on validation,
for the reward and what a thumb counts in it (`rlmemo.learning.approval_choice`). Rankings stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from env.judge.cost import Costs, WorldConfig
from env.ranking import Ranking, Stream
from env.splits import Split
from env.timeline import Timeline
from rlmemo.approval.approval import MODEL, Approval
from rlmemo.policies.planners import Window, replay_threshold
from rlmemo.policies.protocol import Planned, stream_of


class ApprovedPolicy:
    """A policy with plans that mind approval; see the module's docstring.

    inner: ranks, and plans where `own`. threshold: what the changed odds must come to, as a probability, for
    a target to be prewarmed (own: for a pick of the inner policy's plan to stay in it).
    """

    def __init__(
        self,
        inner: Any,
        approval: Approval,
        *,
        strength: float,
        threshold: float,
        own: bool,
        name: str,
        note: str = "",
    ) -> None:
        self.inner, self.approval, self.strength = inner, approval, strength
        self.threshold, self.own, self.name, self.note = threshold, own, name, note
        self.model = getattr(inner, "model", None)

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """It was trained already."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `Policy.rank`: what is likely, liked or not."""
        ranking: Ranking = self.inner.rank(timeline, indices)
        return ranking

    def stream(self, timeline: Timeline) -> Stream:
        """See `StreamingPolicy.stream`."""
        return stream_of(self.inner, timeline)

    def liking(self, timeline: Timeline, indices: np.ndarray, target: np.ndarray) -> np.ndarray:
        """`Approval.liking` of the targets, float64 [D, P]."""
        from rlmemo.model.readings import slates_of

        return self.approval.liking(timeline, slates_of(timeline), np.asarray(indices, np.int64), target)

    def counted(self, timeline: Timeline, indices: np.ndarray, ranking: Ranking) -> Ranking:
        """The ranking with probabilities as they count for planning, in their order."""
        return counted(ranking, self.liking(timeline, indices, ranking.targets), self.strength)

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """See `PlanningPolicy.plan`."""
        indices = np.asarray(indices, np.int64)
        ranking = self.counted(timeline, indices, self.rank(timeline, indices))
        if not self.own:
            window = Window(timeline, costs, int(indices[0]) + 1, int(indices[-1]) + 2, ranking)
            _, target = replay_threshold(window, config, self.threshold)
            rows = target[indices]
            return Planned(rows, np.zeros(rows.shape, np.int8), np.ones(len(indices)))
        planned: Planned = self.inner.plan(timeline, indices, costs, config, seed=seed)
        return keep_approved(planned, ranking, self.threshold)


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
    return Planned(target, np.where(target >= 0, planned.delay, 0).astype(np.int8), planned.propensity)


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

"""A policy that reads every user's events with that user's own adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from env.judge.cost import Costs, WorldConfig
from env.ranking import Ranking, Stream
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model.switching import Switching
from rlmemo.policies.protocol import Planned, stream_of


class PerUserPolicy:
    """A policy over a switching model: every timeline is read with its user's adapter."""

    def __init__(self, policy: Any, switch: Switching) -> None:
        self.policy, self.switch = policy, switch
        self.name, self.model = policy.name, switch.model

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing: it was trained by `python -m rlmemo.train`."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `Policy.rank`."""
        self.switch.use(timeline.user)
        ranking: Ranking = self.policy.rank(timeline, indices)
        return ranking

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another; streams of several users may be asked in turn."""
        self.switch.use(timeline.user)
        ask = stream_of(self.policy, timeline)

        def one(i: int) -> Ranking:
            self.switch.use(timeline.user)
            return ask(i)

        return one


class PlanningPerUserPolicy(PerUserPolicy):
    """The same for a policy with plans of its own."""

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """See `PlanningPolicy.plan`."""
        self.switch.use(timeline.user)
        planned: Planned = self.policy.plan(timeline, indices, costs, config, seed=seed)
        return planned


def per_user(policy: Any, switch: Switching) -> PerUserPolicy:
    """`policy`, whose model is that of `switch`, switching by user."""
    kind = PlanningPerUserPolicy if hasattr(policy, "plan") else PerUserPolicy
    return kind(policy, switch)

"""The clairvoyant as a policy: a plan that knows the future, and the bound that no plan exceeds.

It is no competitor but a yardstick. `env.judge.oracle` says how both are computed and why the bound holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from env.ranking import Ranking
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.protocol import Planned

if TYPE_CHECKING:
    from env.judge.cost import Costs, WorldConfig


class OraclePolicy:
    """Plans with `env.judge.oracle.feasible`: what a clairvoyant could really have followed, for saved seconds."""

    name = "oracle"

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing to learn: it knows."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Lists nothing: its ranking would be the answers themselves."""
        return Ranking.empty(len(indices))

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """The clairvoyant plan for the opens right after `indices` (increasing, without gaps)."""
        from env.judge.oracle import feasible

        start, stop = int(indices[0]) + 1, int(indices[-1]) + 2
        plans, _ = feasible(timeline, costs, config, start=start, stop=stop)
        return Planned(plans.target[indices], plans.delay[indices], np.ones(len(indices)))


def bound_per_open(
    timeline: Timeline, costs: Costs, config: WorldConfig, start: int, stop: int
) -> np.ndarray:
    """The bound on saved seconds, spread over the opens start..stop-1: float64 [stop - start].

    It sums to the proven bound of the window. The proof gives no share to single opens, so it is spread
    like the savings of the feasible clairvoyant plan; that only matters for the interval of a ratio, never
    for its value.
    """
    from env.judge.oracle import feasible, upper_bound

    bound = upper_bound(timeline, costs, config, start=start, stop=stop)
    saved = feasible(timeline, costs, config, start=start, stop=stop)[1].saved_s[start:stop]
    total = float(saved.sum())
    return saved * (bound / total) if total > 0 else np.full(stop - start, bound / max(1, stop - start))

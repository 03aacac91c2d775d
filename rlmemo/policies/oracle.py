"""The clairvoyant as a policy: a plan that knows the future, and the bound that no plan exceeds.

It is no competitor but a yardstick. `env.judge.oracle` says how both are computed and why the bound holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from env.judge.cost import EXPECTED
from env.judge.oracle import feasible
from env.judge.oracle_bound import upper_bound
from env.ranking import Ranking
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.planners import OwnPlans
from rlmemo.policies.protocol import Planned

if TYPE_CHECKING:
    from env.judge.case import Case


class OraclePolicy:
    """Plans with `env.judge.oracle.feasible`: what a clairvoyant could really have followed, for saved
    seconds. It names who leaves where plans may (`WorldConfig.max_let_go`)."""

    name = "oracle"
    planner = OwnPlans()

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing to learn: it knows."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Lists nothing: its ranking would be the answers themselves."""
        return Ranking.empty(len(indices))

    def plan(self, case: Case, *, seed: int = 0) -> Planned:
        """The clairvoyant plan for the opens of a case."""
        given = case.timeline, case.costs, case.world
        let_go = case.world.max_let_go > 0
        plans, _ = feasible(*given, start=case.start, stop=case.stop, let_go=let_go)
        rows = case.indices
        return Planned(plans.target[rows], plans.delay[rows], np.ones(len(case)), plans.let_go[rows])


def bound_per_open(case: Case) -> np.ndarray:
    """The bound on saved seconds, spread over the opens of a case: float64 [stop - start].

    It sums to the proven bound of the case. The proof gives no share to single opens, so it is spread
    like the savings of the feasible clairvoyant plan; that only matters for the interval of a ratio, never
    for its value. Where plans may name who leaves, it is the bound of plans that do.
    """
    given, let_go = (case.timeline, case.costs, case.world), case.world.max_let_go > 0
    bound = upper_bound(*given, start=case.start, stop=case.stop, let_go=let_go)
    if case.world.let_go == EXPECTED:  # which nobody tells the clairvoyant: spread as under the usual rule
        given = case.timeline, case.costs, replace(case.world, let_go="lru")
    found = feasible(*given, start=case.start, stop=case.stop, let_go=let_go)[1].saved_s
    saved: np.ndarray = found[case.start : case.stop]
    total = float(saved.sum())
    return saved * (bound / total) if total > 0 else np.full(len(case), bound / max(1, len(case)))

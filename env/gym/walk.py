"""A world that is gone through event by event: what the environment and the trainers' rollouts step."""

from __future__ import annotations

import numpy as np

from env.gym import stepper
from env.judge.accounting import OFF, course
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import N_FIELDS
from env.judge.state import LRU, Ledger, new_state, rules
from env.timeline import Timeline


class Walk:
    """The judge's own state over one timeline, with room for `prewarms` of an episode.

    candidates: int32 [n, C], what can be picked after each event; weights: float64 [len(FIELDS)], the reward.
    residents: how many rows of those that are resident are seen and can be let go (0: no action does). seen:
    float32 [n, P], what is seen beside memory after each event (None: nothing). `i` is the event that was
    opened last, `first` the one before the episode's first decision.
    """

    def __init__(
        self, timeline: Timeline, candidates: np.ndarray, costs: Costs, config: WorldConfig,
        weights: np.ndarray, prewarms: int, residents: int = 0, seen: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.timeline, self.candidates = timeline, candidates
        self.rules, self.course = rules(costs, config), course(timeline, config)
        marks = config.max_let_go if residents else 0
        self.state = new_state(len(costs), 2 * prewarms, self.rules.let_go, marks)
        self.book = Ledger(
            np.full(prewarms, -1, np.int32),
            np.zeros(prewarms, np.int8),
            np.zeros(prewarms),
            np.full(prewarms, np.nan),
        )
        self.first = self.i = 0
        seen = np.zeros((len(timeline), 0), np.float32) if seen is None else seen
        more = residents * stepper.N_RESIDENT + seen.shape[1]
        self.width = 3 * candidates.shape[1] + stepper.N_MEMORY + more
        place = np.full(len(costs), -1, np.int64)
        # One tuple, so that a step need not gather its arrays again.
        self.fixed = (
            tuple(self.state), tuple(self.rules), tuple(self.course), tuple(self.book),
            (candidates, seen, place, residents, weights, np.zeros(N_FIELDS)),
        )  # fmt: skip
        # Without these, who is warm can be looked up; with them, the past has to be gone through.
        self._simple = (
            self.rules.let_go == LRU
            and not np.isfinite(self.rules.close_after)
            and not np.isfinite(self.course.clock[:, OFF]).any()
        )

    def enter(self, i: int, residents: np.ndarray | None = None) -> None:
        """Stand right after event i. residents: who is warm then, least recently used first (None: whom the
        events until then left so, without prewarms)."""
        if not self._simple:
            stepper.retrace(self.fixed, i, np.zeros(N_FIELDS))
        else:
            if residents is None:
                starts = np.array([i], np.int64)
                _, residents = stepper.warm_starts(self.course.target[: i + 1], self.rules, starts)
            stepper.begin(self.fixed, residents, i)
        self.first = self.i = i

    def observe(self, out: np.ndarray) -> None:
        """Fill `out`, float32 [width]; see `stepper.observe`."""
        stepper.observe(self.fixed, self.i, out)

    def step(self, action: np.ndarray, last: int, record: np.ndarray, out: np.ndarray) -> float:
        """Do `action` (int64 [2 K + R]) and open the next event; see `stepper.step`, also for NaN."""
        reward: float = stepper.step(self.fixed, action, self.i, self.first, last, record, out)
        if reward == reward:
            self.i += 1
        return reward

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
    residents: how many of those that are resident an action can let go, R (0: no action does); their number
    is `config.max_let_go`. `i` is the event that was opened last, `first` the one before the episode's first
    decision.
    """

    def __init__(
        self, timeline: Timeline, candidates: np.ndarray, costs: Costs, config: WorldConfig,
        weights: np.ndarray, prewarms: int, residents: int = 0,
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
        self.place = np.full(len(costs), -1, np.int64)
        self.first = self.i = 0
        r = self.rules
        numbers = np.array([r.budget, r.ttl, r.let_go, r.close_after, residents], np.float64)
        # One tuple, so that a step need not gather its arrays again.
        self.fixed = (
            *self.state, r.cost, r.delays, numbers, *self.book, self.course.clock, self.course.target,
            candidates, weights, self.place,
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
        r, w = self.rules, self.course
        if not self._simple:
            stepper.retrace(self.state, r, w, self.book, i, np.zeros(N_FIELDS))
        else:
            if residents is None:
                starts = np.array([i], np.int64)
                _, residents = stepper.warm_starts(w.target[: i + 1], r.cost, r.budget, r.delays, starts)
            stepper.begin(self.state, r, w, residents, i)
        self.first = self.i = i

    def observe(self, out: np.ndarray) -> None:
        """Fill `out`: warm, loading and scheduled places, then memory (see `stepper.observe`)."""
        s = self.state
        stepper.observe(
            s.link, s.when, s.due_code, s.reg, s.ireg, self.rules.cost, self.rules.budget, self.book.target,
            self.candidates[self.i], self.timeline.t[self.i], self.place, out,
        )  # fmt: skip

    def observe_residents(self, out: np.ndarray) -> None:
        """Fill `out`, float32 [residents, len(RESIDENT_COLUMNS)]; see `stepper.observe_residents`."""
        s = self.state
        stepper.observe_residents(
            s.link, s.when, s.ireg, self.rules.cost, self.rules.budget, self.candidates[self.i],
            self.timeline.t[self.i], out,
        )  # fmt: skip

    def step(self, action: np.ndarray, last: int, record: np.ndarray, out: np.ndarray) -> float:
        """Do `action` (int64 [2 K + R]) and open the next event; see `stepper.step`, also for NaN."""
        reward: float = stepper.step(*self.fixed, action, self.i, self.first, last, record, out)
        if reward == reward:
            self.i += 1
        return reward

"""A world that is gone through event by event: what the environment and the trainers' rollouts step."""

from __future__ import annotations

import numpy as np

from env.gym import stepper
from env.judge.accounting import OFF, course
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import N_FIELDS
from env.judge.state import LRU, MARKS, Ledger, new_state, rules
from env.timeline import Timeline


class Walk:
    """The judge's own state over one timeline, with room for `prewarms` of an episode.

    candidates: int32 [n, C], what can be picked after each event; weights: float64 [len(FIELDS)], the reward.
    residents: how many rows of those that are resident are seen and can be let go (0: no action does). seen:
    float32 [n, P], what is seen beside memory after each event (None: nothing). `i` is the event that was
    opened last, `first` the one before the episode's first decision; `woken`: whether it stands at the wake
    that follows event i.
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
        self.woken = False
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
        self.woken = False

    @property
    def now(self) -> float:
        """When this moment is, unix seconds."""
        return float(self.timeline.t[self.i])

    @property
    def listed(self) -> np.ndarray:
        """The slate of this moment, int32 [C]."""
        row: np.ndarray = self.candidates[self.i]
        return row

    @property
    def asked(self) -> np.ndarray:
        """The slate of the moment before, int32 [C]."""
        row: np.ndarray = self.candidates[self.i - 1]
        return row

    def observe(self, out: np.ndarray) -> None:
        """Fill `out`, float32 [width]; see `stepper.observe`."""
        stepper.observe(self.fixed, self.i, out)

    def step(self, action: np.ndarray, last: int, record: np.ndarray, out: np.ndarray) -> float:
        """Do `action` (int64 [2 K + R]) and open the next event; see `stepper.step`, also for NaN."""
        reward: float = stepper.step(self.fixed, action, self.i, self.first, last, record, out)
        if reward == reward:
            self.i += 1
        return reward


class WakingWalk(Walk):
    """A walk that stops at every wake, too. after, at_wakes: candidates and what is seen, as of `Walk`, after
    each event and at the wake that follows it."""

    def __init__(
        self, timeline: Timeline, after: tuple[np.ndarray, np.ndarray],
        at_wakes: tuple[np.ndarray, np.ndarray], costs: Costs, config: WorldConfig, weights: np.ndarray,
        prewarms: int, residents: int,
    ) -> None:  # fmt: skip
        # A moment's prewarms have numbers behind those of the moments before: what starts at the same time
        # starts in the order in which it was asked for.
        super().__init__(timeline, after[0], costs, config, weights, 2 * prewarms, residents, after[1])
        self.at_wakes, self.weights = at_wakes, weights

    @property
    def now(self) -> float:
        """When this moment is, unix seconds."""
        return float(self.course.wake[self.i + 1]) if self.woken else super().now

    @property
    def listed(self) -> np.ndarray:
        """The slate of this moment, int32 [C]."""
        row: np.ndarray = self.at_wakes[0][self.i] if self.woken else self.candidates[self.i]
        return row

    @property
    def asked(self) -> np.ndarray:
        """The slate of the moment before, int32 [C]."""
        if self.woken:
            before = self.candidates[self.i]
        else:
            at = self.candidates if self.course.wake[self.i] == np.inf else self.at_wakes[0]
            before = at[self.i - 1]
        row: np.ndarray = before
        return row

    def observe(self, out: np.ndarray) -> None:
        """Fill `out`, float32 [width]; see `stepper.observe`."""
        if self.woken:
            stepper.observe_wake(self.fixed, self.at_wakes, self.i, out)
        else:
            super().observe(out)

    def step(self, action: np.ndarray, last: int, record: np.ndarray, out: np.ndarray) -> float:
        """Do `action`, and go on to the next open, or to the wake before it; see `Walk.step`."""
        moment = 2 * (self.i - self.first)
        if not self.woken and self.course.wake[self.i + 1] == np.inf:
            begun = self.i - moment  # as if all moments had been events
            reward: float = stepper.step(self.fixed, action, self.i, begun, last, record, out)
            if reward == reward:
                self.i += 1
            return reward
        if not stepper.fits(self.fixed, action):
            return float("nan")
        picks = (len(action) - (len(self.state.ireg) - MARKS)) // 2
        if self.woken:
            number = (moment + 1) * picks
            stepper.step_from_wake(self.fixed, self.at_wakes, action, number, self.i, last, record)
            self.i += 1
        else:
            stepper.step_to_wake(self.fixed, action, moment * picks, self.i, record)
        self.woken = not self.woken
        self.observe(out)
        return float(record @ self.weights)

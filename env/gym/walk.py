"""A world that is gone through event by event: what the environment and the trainers' rollouts step."""

from __future__ import annotations

import numpy as np

from env.gym import stepper
from env.judge.accounting import Ledger, Rules, new_state
from env.timeline import Timeline


class Walk:
    """The judge's own state over one timeline, with room for `prewarms` of an episode.

    candidates: int32 [n, C], what can be picked after each event; weights: float64 [len(FIELDS)], the reward.
    `i` is the event that was opened last, `first` the one before the episode's first decision.
    """

    def __init__(
        self, timeline: Timeline, candidates: np.ndarray, rules: Rules, weights: np.ndarray, prewarms: int
    ) -> None:
        self.timeline, self.candidates, self.rules = timeline, candidates, rules
        self.state = new_state(len(rules.cost), 2 * prewarms)
        self.book = Ledger(
            np.full(prewarms, -1, np.int32),
            np.zeros(prewarms, np.int8),
            np.zeros(prewarms),
            np.full(prewarms, np.nan),
        )
        self.place = np.full(len(rules.cost), -1, np.int64)
        self.first = self.i = 0
        # One tuple, so that a step need not gather its arrays again.
        self.fixed = (
            *self.state, *rules, *self.book, timeline.t, timeline.target, candidates, weights, self.place,
        )  # fmt: skip

    def enter(self, i: int, residents: np.ndarray | None = None) -> None:
        """Stand right after event i. residents: who is warm then, least recently used first (None: whom the
        events until then left so, without prewarms)."""
        t, target = self.timeline.t, self.timeline.target
        if residents is None:
            r = self.rules
            _, residents = stepper.warm_starts(
                target[: i + 1], r.cost, r.budget, r.delays, np.array([i], np.int64)
            )
        stepper.begin(*self.state, self.rules.cost, residents, int(target[i]), float(t[i]))
        self.first = self.i = i

    def observe(self, out: np.ndarray) -> None:
        """Fill `out`: warm, loading and scheduled places, then memory (see `stepper.observe`)."""
        s = self.state
        stepper.observe(
            s.link, s.when, s.due_code, s.reg, s.ireg, self.rules.cost, self.rules.budget, self.book.target,
            self.candidates[self.i], self.timeline.t[self.i], self.place, out,
        )  # fmt: skip

    def step(self, action: np.ndarray, last: int, record: np.ndarray, out: np.ndarray) -> float:
        """Do `action` (int64 [2 K]) and open the next event; see `stepper.step`, also for NaN."""
        reward: float = stepper.step(*self.fixed, action, self.i, self.first, last, record, out)
        if reward == reward:
            self.i += 1
        return reward

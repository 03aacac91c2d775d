"""From rankings to plans: prewarm the best guesses that are sure enough and not warm already.

A planner sees, right after an event, a row of a ranking and which targets are warm; it names up to K
prewarms. `ThresholdPlanner` is the one rule behind every classical policy: it turns any calibrated
ranking into a planner with one number to tune, theta, and that is tuned on the validation part for the
reward that is asked for. `sweep` replays a whole grid of thresholds: the hits-against-waste curve.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from env.ranking import Ranking
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.protocol import Planned

if TYPE_CHECKING:
    from env.judge.cost import Costs, WorldConfig
    from env.judge.plans import Outcomes
    from reward import Reward

THRESHOLDS: tuple[float, ...] = (*np.geomspace(0.02, 0.95, 22).round(4).tolist(), 2.0)
"""Grid for theta; the last one is never reached, so keeping still is always among the choices."""


@dataclass(frozen=True)
class ThresholdPlanner:
    """Prewarm the best guesses with probability >= `threshold` that are not warm, at most `max_picks`."""

    threshold: float
    max_picks: int = 3
    delay: int = 0

    def choose(self, row: Ranking, warm: Collection[int]) -> list[tuple[int, int]]:
        """The plan for one decision (a ranking of one row), when `warm` is in memory: (target, delay)."""
        picks = [
            (int(target), self.delay)
            for target, p in zip(row.targets[0], row.probability[0], strict=True)
            if target >= 0 and float(p) >= self.threshold and int(target) not in warm
        ]
        return picks[: self.max_picks]


class NonePolicy:
    """Never prewarms: what is warm is what was opened recently (LRU)."""

    name = "none"

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing to learn."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Lists nothing."""
        return Ranking.empty(len(indices))

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """Keeps still."""
        shape = (len(indices), config.max_picks)
        return Planned(np.full(shape, -1, np.int32), np.zeros(shape, np.int8), np.ones(len(indices)))


@dataclass(frozen=True)
class Window:
    """Part of one timeline that is judged: opens start..stop-1, with the ranking of the decisions
    start-1..stop-2 right before them."""

    timeline: Timeline
    costs: Costs
    start: int
    stop: int
    ranking: Ranking

    @property
    def indices(self) -> np.ndarray:
        """Decision indices, int64 [stop - start]."""
        return np.arange(self.start - 1, self.stop - 1, dtype=np.int64)


def replay_threshold(window: Window, config: WorldConfig, threshold: float) -> tuple[Outcomes, np.ndarray]:
    """Judge the threshold planner on one window: outcomes, and what it prewarmed, int32 [n, K]."""
    from env.judge.ranked_replay import replay_ranked

    return replay_ranked(
        window.timeline, window.costs, config, window.ranking, threshold,
        start=window.start, stop=window.stop,
    )  # fmt: skip


def sweep_windows(
    windows: Sequence[Window], config: WorldConfig, thresholds: Sequence[float] = THRESHOLDS
) -> np.ndarray:
    """Records summed over all opens of the windows, one row per threshold: float64 [T, len(FIELDS)]."""
    from env.judge.plans import N_FIELDS
    from env.judge.ranked_replay import sweep

    total = np.zeros((len(thresholds), N_FIELDS))
    for w in windows:
        table = sweep(
            w.timeline, w.costs, config, w.ranking, np.array(thresholds), start=w.start, stop=w.stop
        )
        total += table.sum(axis=1)
    return total


def replay_planned(window: Window, config: WorldConfig, planned: Planned) -> Outcomes:
    """Judge ready-made plans for the decisions of one window."""
    from env.judge.kernel import replay
    from env.judge.plans import Plans

    plans = Plans.empty(len(window.timeline), planned.target.shape[1])
    plans.target[window.indices] = planned.target
    plans.delay[window.indices] = planned.delay
    return replay(window.timeline, window.costs, config, plans, start=window.start, stop=window.stop)


def tune_threshold(
    windows: Sequence[Window],
    config: WorldConfig,
    reward: Reward,
    thresholds: Sequence[float] = THRESHOLDS,
) -> float:
    """The threshold with the highest reward over `windows`; ties go to the higher one (fewer prewarms).

    Without a window nothing is known of rewards, and the answer is to keep still.
    """
    from env.judge.plans import FIELDS

    if not windows:
        return thresholds[-1]
    rewards = sweep_windows(windows, config, thresholds) @ reward.weights(FIELDS)
    return float(thresholds[len(rewards) - 1 - int(np.argmax(rewards[::-1]))])

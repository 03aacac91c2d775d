"""Exploring: now and then another single target is shown in a plan's place, so that its rating can be
known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from env.judge.case import Case
from env.judge.plans import Plans

if TYPE_CHECKING:
    from env.ranking import Ranking
    from rlmemo.policies.protocol import Planned

LISTED = 8
"""So many of the ranked targets may be tried, and are stored with a prediction."""


def warm_listed(case: Case, ranking: Ranking) -> np.ndarray:
    """Which of the first `LISTED` targets are in memory anyway at each decision of a case, bool [D,
    LISTED]: in the world in which nobody prewarms, as in the stored outcome."""
    listed = np.full((len(case.timeline), LISTED), -1, np.int32)
    depth = min(LISTED, ranking.targets.shape[1])
    listed[case.indices, :depth] = ranking.targets[:, :depth]
    warm, _, _ = case.memory(listed, Plans.empty(len(case)))
    found: np.ndarray = warm > 0
    return found


def in_memory(case: Case, most: int = 24) -> np.ndarray:
    """Who is in memory at each decision of a case besides what is open, in the same world, int64 [D, most],
    -1 for no more."""
    listed = np.full((len(case.timeline), 0), -1, np.int32)
    held: np.ndarray = case.memory(listed, Plans.empty(len(case)), residents=most)[2]
    return held


def tried(ranking: Ranking, warm: np.ndarray, row: int) -> np.ndarray:
    """The targets that exploring may try at a decision, int [m]: listed, and not in memory anyway; a prewarm
    of what is warm would teach nothing."""
    listed = ranking.targets[row][:LISTED]
    return listed[(listed >= 0) & ~warm[row][: len(listed)]]


def explored(
    planned: Planned, ranking: Ranking, warm: np.ndarray, row: int, explore: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """The plan that is shown, its delays, and the probability with which it is shown.

    With probability `explore` one of the listed cold targets alone, at once, drawn evenly, takes the plan's
    place; a plan that can come about both ways has both probabilities.
    """
    target, delay = planned.target[row].copy(), planned.delay[row].copy()
    others = tried(ranking, warm, row)
    share = explore if len(others) else 0.0
    if rng.random() < share:
        target[:], delay[:] = -1, 0
        target[0] = others[rng.integers(len(others))]
    chance = shown_chance(picks_of(target, delay), planned, ranking, warm, row, explore)
    return target, delay, min(1.0, max(chance, 1e-9))


def shown_chance(
    plan: list[tuple[int, int]], planned: Planned, ranking: Ranking, warm: np.ndarray, row: int,
    explore: float,
) -> float:  # fmt: skip
    """Probability with which `plan`, (target, delay bucket) sorted, is what is shown for decision `row`.
    warm: see `warm_listed`."""
    others = tried(ranking, warm, row)
    share = explore if len(others) else 0.0
    chance = 0.0
    if plan == picks_of(planned.target[row], planned.delay[row]):
        chance += (1.0 - share) * float(planned.propensity[row])
    if len(plan) == 1 and plan[0][1] == 0 and plan[0][0] in others.tolist():
        chance += share / len(others)
    return chance


def something_shown(
    planned: Planned, ranking: Ranking, warm: np.ndarray, row: int, explore: float
) -> float | None:
    """Probability that the plan that is shown for decision `row` is not empty; None where the policy draws
    its plans, so that nobody knows how often it draws an empty one."""
    if float(planned.propensity[row]) < 1.0 - 1e-9:
        return None
    if (planned.target[row] >= 0).any():
        return 1.0
    return explore if len(tried(ranking, warm, row)) else 0.0


def picks_of(target: np.ndarray, delay: np.ndarray) -> list[tuple[int, int]]:
    return sorted((int(x), int(d)) for x, d in zip(target, delay, strict=True) if x >= 0)

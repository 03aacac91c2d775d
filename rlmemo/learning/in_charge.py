"""Who is in charge once a run is over: what it learned, or the model as it came, with the shipped planner.

The model as it came never learned from this person, so it may be judged by all that came before the test
part. What was learned is judged on the validation part, open by open beside it, and put in charge where it
is better by more than two standard errors (one, where `MANY` opens choose) and not below zero. How it plans
is chosen on that part, too: so what it earned in a session counts as it would have planned had the other
sessions alone chosen. With little to choose by, the shipped one stays: of 56 opens the threshold that did
best on them is mostly luck. Where ratings are learned from, what they are expected to be counts, of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from env.judge.case import Case
from env.judge.plans import FIELDS
from env.splits import sessions
from reward import Reward
from rlmemo.evaluation.bootstrap import Draws, session_groups
from rlmemo.policies.planners import (
    BY_MODEL,
    BY_NOBODY,
    THRESHOLDS,
    OwnPlans,
    Planner,
    Threshold,
    choose_threshold,
    rank_wakes,
    told,
)
from rlmemo.runs.plan_file import BASE

MANY = 1000
"""Opens from which on one standard error is enough. What was better by 1.9 on 300 opens was worse on the 600
after them (experiments/LOG.md, the first 3,000 opens)."""
WIDTH = 2 * 1.96
"""Of a 95 % interval, in standard errors."""
WorthOfRatings = Callable[[Case, Any], np.ndarray]
"""Seconds that the expected rating of every plan of a case is worth, float64 [n]."""


@dataclass(frozen=True)
class InCharge:
    """Who is in charge, and why. stage: `base` or the run's last stage, `learned`; opens: how many both were
    judged on; before, after: rewards per open on them, of the model as it came and of what was learned (see
    `honest`); error: the standard error of their difference, NaN where sessions are too few to say; base:
    what the model that came is called; rated: whether expected ratings count in the rewards."""

    stage: str
    learned: str
    opens: int
    before: float
    after: float
    error: float
    base: str = "shipped model"
    rated: bool = False

    @property
    def kept_base(self) -> bool:
        """Whether the model as it came stays in charge."""
        return self.stage == BASE

    @property
    def said(self) -> tuple[str, ...]:
        """What to tell of it, a clause; nothing where what was learned is in charge."""
        if not self.kept_base:
            return ()
        if not self.opens:
            return (f"there were no opens to choose by, so the {self.base} stays in charge",)
        last = "the last open" if self.opens == 1 else f"the last {self.opens:,} opens"
        counted = "reward per open, ratings counted," if self.rated else "reward per open"
        worth = f"{counted} {_signed(self.after)}, of the {self.base} {_signed(self.before)}"
        said = f"what it learned was not clearly better on {last} before the test part ({worth}), so"
        return (f"{said} the {self.base} stays in charge",)

    def to_json(self) -> dict[str, Any]:
        """As `report.json` keeps it."""
        return {
            "stage": self.stage,
            "learned": self.learned,
            "opens": self.opens,
            "base_reward_per_open": self.before,
            "learned_reward_per_open": self.after,
            "standard_error": self.error if np.isfinite(self.error) else None,
            "ratings_counted": self.rated,
        }


def put_in_charge(before: np.ndarray, after: np.ndarray, draws: Draws) -> tuple[bool, float]:
    """Whether what was learned is better than the model as it came, by more than two standard errors (one,
    where `MANY` opens choose), and not below zero; and that error, over sessions or over opens, whichever is
    larger (few sessions that came out alike would be too sure), NaN where there are too few sessions.

    before, after: rewards of the same opens, float64 [n]; draws: of their sessions.
    """
    if not len(before):
        return False, float("nan")
    found = draws.difference(after, before)
    if not found.bounded:
        return False, float("nan")
    single = float((after - before).std()) / np.sqrt(len(before))
    error = max((found.high - found.low) / WIDTH, single)
    least = error if len(before) >= MANY else 2.0 * error
    return bool(found.value > least and after.mean() >= 0.0), error


def honest(ways: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """What the opens of every session earn the way that is best on all other sessions: float64 [n].

    ways: rewards by way of planning, float64 [W, n]; ties go to the first. groups: int64 [n], the sessions of
    the opens.
    """
    by_session = np.array([np.bincount(groups, weights=way) for way in ways])
    others = by_session.sum(1, keepdims=True) - by_session
    chosen: np.ndarray = ways[others.argmax(0)[groups], np.arange(len(groups))]
    return chosen


def as_shipped(
    policy: Any, shipped: Threshold, cases: Sequence[Case], reward: Reward, seed: int
) -> Threshold:
    """What the model as it came plans by: the shipped planner, unless that costs more than it saves over
    `cases`, a person's past; then the threshold that is best on them, which may be to keep still."""
    if rewards(policy, shipped, cases, reward, seed).sum() >= 0.0:
        return shipped
    rankings = [policy.rank(case.timeline, case.indices) for case in cases]
    wakes = [rank_wakes(policy, case) for case in cases]
    return choose_threshold([told(policy, case) for case in cases], rankings, reward, wakes=wakes)[0]


def decide(
    learned: tuple[str, Any, Planner],
    base: tuple[Any, Planner],
    cases: Sequence[Case],
    reward: Reward,
    *,
    seed: int,
    called: str,
    rated: WorthOfRatings | None = None,
) -> InCharge:
    """Who is in charge, judged on `cases`. learned: the last stage's name, its policy and its planner; base:
    policy and planner of the model as it came; called: what it is called; rated: None where ratings do not
    count."""
    name, policy, planner = learned
    if not cases:
        return InCharge(BASE, name, 0, 0.0, 0.0, float("nan"), called, rated is not None)
    groups, users = session_groups([sessions(c.timeline)[c.start : c.stop] for c in cases])
    before = rewards(*base, cases, reward, seed, rated)
    after = honest(_ways(policy, planner, cases, reward, seed, rated), groups)
    better, error = put_in_charge(before, after, Draws(groups, users, seed=seed))
    was, now = float(before.mean()), float(after.mean())
    return InCharge(name if better else BASE, name, len(before), was, now, error, called, rated is not None)


def _ways(
    policy: Any,
    planner: Planner,
    cases: Sequence[Case],
    reward: Reward,
    seed: int,
    rated: WorthOfRatings | None,
) -> np.ndarray:
    """Rewards of every open by every way of planning that was to choose from, float64 [W, n]: thresholds,
    those that name nobody and the higher ones first; its own plans, and whom it names, only where they were
    chosen, as they take long to ask for."""
    weights = reward.weights(FIELDS)
    by_case = []
    for case in (told(policy, case) for case in cases):
        ranking = policy.rank(case.timeline, case.indices)
        naming = (False, True) if case.worth is not None else (False,)
        waking = planner.waking(case, rank_wakes(policy, case)) if isinstance(planner, Threshold) else None
        found = [case.sweep(ranking, THRESHOLDS, names, waking)[::-1] @ weights for names in naming]
        if rated is not None:
            for names, worth in zip(naming, found, strict=True):
                for way, theta in zip(worth, reversed(THRESHOLDS), strict=True):
                    way += rated(case, case.replay_ranked(ranking, float(theta), names, waking)[1])
        by_case.append(np.concatenate(found))
    ways = np.concatenate(by_case, axis=1)
    if isinstance(planner, OwnPlans) or getattr(planner, "names", BY_NOBODY) == BY_MODEL:
        ways = np.vstack([ways, rewards(policy, planner, cases, reward, seed, rated)])
    return ways


def rewards(
    policy: Any,
    planner: Planner,
    cases: Sequence[Case],
    reward: Reward,
    seed: int,
    rated: WorthOfRatings | None = None,
) -> np.ndarray:
    """The reward of every open of the cases, float64 [n], as `policy` plans by `planner`."""
    weights, found = reward.weights(FIELDS), []
    for case in cases:
        plans = planner.plan(policy, case, seed=seed)
        found.append((case.replay(plans).table @ weights)[case.start : case.stop])
        if rated is not None:
            found[-1] += rated(case, plans)
    return np.concatenate(found) if found else np.zeros(0)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")

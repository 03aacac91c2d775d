"""What another policy would have shown at the rated moments, for off-policy estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from env.judge.case import Case, cases
from env.slate.slate import Slates
from env.splits import Split, sessions
from env.timeline import Timeline
from rlmemo.approval.approval import Approval, fit_approval, rows_of
from rlmemo.approval.logistic import folds_of
from rlmemo.approval.placed_ratings import Placed
from rlmemo.feedback.offpolicy import Estimates, estimate
from rlmemo.policies.exploring import shown_chance, tried, warm_listed
from rlmemo.policies.planners import fed
from rlmemo.policies.run import Setup


@dataclass(frozen=True)
class Shown:
    """For n rated moments: chance float64 [n] that the other policy shows the rated plan; plans: per moment
    what it would show, as (targets, delays in seconds, probability) each; often float64 [n], how much
    oftener than the policy that was shown it shows anything there (0: it keeps still; 1 where keeping still
    is stored, too, or where that is not known).

    Where keeping still is not stored, chance and plans are given that something is shown, as the stored
    propensities are: two probabilities can only be compared on the same condition.
    """

    chance: np.ndarray
    plans: list[list[tuple[tuple[int, ...], tuple[float, ...], float]]]
    often: np.ndarray


def shown_by(
    used: Setup,
    placed: Sequence[Placed],
    timelines: Sequence[Timeline],
    split: Split,
    *,
    explore: float,
    threshold: float | None = None,
    seed: int = 0,
) -> Shown:
    """Ask a fitted policy what it would show at the moments of `placed`, in its world, as `rlmemo.predict`
    does. threshold: what it prewarms is at least this probable; None: as the run chose, or chosen on
    validation."""
    rules, costs = used.world.rules(), used.world.costs_of(timelines)
    planner = used.planning_by(threshold, cases(timelines, costs, rules, split.validation))
    chance, often = np.zeros(len(placed)), np.ones(len(placed))
    plans: list[Any] = [[] for _ in placed]
    delays = np.asarray(rules.delays)
    for user, rows, first in _begun(placed, timelines):
        last = max(placed[k].index for k in rows)
        case = fed(used.policy, Case(timelines[user], costs[user], rules, first + 1, last + 2, user))
        ranking = used.policy.rank(case.timeline, case.indices)
        planned = planner.plan(used.policy, case, seed=seed, ranking=ranking).right_away()
        warm = warm_listed(case, ranking)
        for k in rows:
            p, row = placed[k], placed[k].index - first
            said = sorted(
                (int(x), int(np.abs(delays - d).argmin())) for x, d in zip(p.target, p.delay_s, strict=True)
            )
            chance[k] = shown_chance(said, planned, ranking, warm, row, explore)
            others = tried(ranking, warm, row).tolist()
            share = explore if others else 0.0
            has = planned.target[row] >= 0
            own = tuple(planned.target[row][has].tolist()), tuple(delays[planned.delay[row][has]].tolist())
            plans[k] = [(*own, 1.0 - share), *(((x,), (0.0,), share / len(others)) for x in others)]
            plans[k] = [x for x in plans[k] if x[2] > 0]
            if p.rated.stills or (p.rated.stills is None and not len(p.target)):
                continue
            plans[k] = [x for x in plans[k] if x[0]]
            shows = sum(x[2] for x in plans[k])
            plans[k] = [(*x[:2], x[2] / shows) for x in plans[k]]
            # An older row's propensity is of all plans, the empty one too: so is its chance.
            if p.rated.stills is not None:
                chance[k] = chance[k] / shows if shows else 0.0
                often[k] = shows / p.rated.shown if p.rated.shown else 1.0
            elif not shows:
                often[k] = 0.0
    return Shown(chance, plans, often)


def _begun(placed: Sequence[Placed], timelines: Sequence[Timeline]) -> list[tuple[int, list[int], int]]:
    """The rated moments as they were planned, (user, rows, first decision): a plan depends on those before
    it, so they are made again from where they were begun."""
    groups: dict[tuple[int, float], list[int]] = {}
    for k, p in enumerate(placed):
        groups.setdefault((p.user, -1.0 if p.rated.since is None else p.rated.since), []).append(k)
    found = []
    for (user, since), rows in sorted(groups.items()):
        first = int(np.searchsorted(timelines[user].t, since - 1e-3)) if since >= 0 else len(timelines[user])
        found.append((user, rows, min(first, *(placed[k].index for k in rows))))
    return found


def guesses(
    approval: Approval,
    placed: Sequence[Placed],
    shown: Shown,
    timelines: Sequence[Timeline],
    slates: Sequence[Slates],
) -> np.ndarray:
    """The approval model's mean guess over what is shown at each moment, float64 [n]; for an empty plan too
    where such were rated, and 0 (nobody says up to nothing) where not."""
    out = np.zeros(len(placed))
    for user in sorted({p.user for p in placed}):
        rows = [(k, plan) for k, p in enumerate(placed) if p.user == user for plan in shown.plans[k]]
        most = max(1, max((len(plan[0]) for _, plan in rows), default=1))
        target, delay = np.full((len(rows), most), -1, np.int32), np.zeros((len(rows), most))
        for r, (_, (targets, delays, _p)) in enumerate(rows):
            target[r, : len(targets)], delay[r, : len(delays)] = targets, delays
        index = np.array([placed[k].index for k, _ in rows], np.int64)
        p = approval.probability(timelines[user], slates[user], index, target, delay)
        if not approval.still:
            p = np.where((target >= 0).any(1), p, 0.0)
        for (k, plan), value in zip(rows, p, strict=True):
            out[k] += plan[2] * value
    return out


def cross_fitted(
    placed: Sequence[Placed],
    shown: Shown,
    timelines: Sequence[Timeline],
    slates: Sequence[Slates],
    *,
    folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(guess for the rated plan, guess for what the other policy shows), float64 [n] each, by models that
    have not seen the rating: what DR's interval needs."""
    n = len(placed)
    mean = np.mean([p.rated.thumbs for p in placed]) if n else 0.5
    rated_guess, other_guess = np.full(n, mean), np.full(n, mean)
    fold = folds_of(np.array([p.rated.prediction_id for p in placed]), seed, folds)
    for f in np.unique(fold):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        approval, _ = fit_approval([placed[k] for k in inside.tolist()], timelines, slates, seed=seed)
        if approval is None:
            continue
        some = [placed[k] for k in outside.tolist()]
        rated_guess[outside] = approval.model.probability(rows_of(some, timelines, slates))
        there = Shown(shown.chance[outside], [shown.plans[k] for k in outside.tolist()], shown.often[outside])
        other_guess[outside] = guesses(approval, some, there, timelines, slates)
    return rated_guess, other_guess


def evaluate_policy(
    used: Setup,
    placed: Sequence[Placed],
    timelines: Sequence[Timeline],
    slates: Sequence[Slates],
    split: Split,
    *,
    explore: float,
    threshold: float | None = None,
    seed: int = 0,
) -> Estimates:
    """IPS, SNIPS and DR of a fitted policy's approval from the ratings `placed`.

    Where keeping still is not stored, it is the approval of what the policy shows: a moment counts as often
    as the policy shows something there. The policy that was shown gets what was observed.
    """
    shown = shown_by(used, placed, timelines, split, explore=explore, threshold=threshold, seed=seed)
    rated_guess, other_guess = cross_fitted(placed, shown, timelines, slates, seed=seed)
    counts = np.array([p.weight for p in placed]) * shown.often
    return estimate(
        np.array([p.rated.thumbs for p in placed], np.float64),
        np.array([p.rated.propensity for p in placed]),
        shown.chance,
        rated_guess,
        other_guess,
        sampling=counts / counts.mean() if counts.any() else counts,
        cluster=sessions_of(placed, timelines),
    )


def sessions_of(placed: Sequence[Placed], timelines: Sequence[Timeline]) -> np.ndarray:
    """A number for the session of each rated moment, int [n]; sessions of two users differ."""
    of = {user: sessions(timelines[user]) for user in {p.user for p in placed}}
    pairs = np.array([(p.user, of[p.user][p.index]) for p in placed], np.int64).reshape(-1, 2)
    return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()

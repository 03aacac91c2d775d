"""Preferences from ratings: pairs for DPO and single rows for KTO, each naming its rating.

Of a rating it is known what was shown and whether it was liked, not what else would have been. So:

- a plan with thumbs down loses against the best-approved other plan, often keeping still;
- a plan with thumbs up wins over keeping still, and over a plan that the approval model expects to be
  disliked; a plan that was never rated is never taken as disliked by itself;
- a plan with thumbs up in a like moment (same person, same open target, both by day or both by night) wins
  over the one with thumbs down.

What was opened afterwards does not enter: named only where it came true, it would always win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlmemo.approval.approval import Approval
from rlmemo.approval.features import NIGHT
from rlmemo.approval.placed_ratings import Placed
from rlmemo.learning.pairs import KtoExample, Pair, Picks, picked
from rlmemo.learning.training_data import States, TrainingData, memory_at


@dataclass(frozen=True)
class Sayable:
    """A rating as the model could have said it: row of its moment, plan as places in the slate."""

    placed: Placed
    row: int
    plan: Picks


def states_of(placed: Sequence[Placed]) -> tuple[States, np.ndarray]:
    """(the different moments of the ratings, row of each rating's moment int64 [n])."""
    table = np.array([(p.user, p.index) for p in placed], np.int64).reshape(-1, 2)
    unique, back = np.unique(table, axis=0, return_inverse=True)
    return States(unique[:, 0], unique[:, 1]), back.ravel()


def sayable(placed: Sequence[Placed], data: TrainingData) -> list[Sayable]:
    """The ratings whose plan stands in its moment's slate and is not warm already."""
    _, rows = states_of(placed)
    delays = np.asarray(data.world.delays)
    warm_of = {u: memory_at(data, u).warm for u in sorted({p.user for p in placed})}
    found = []
    for p, row in zip(placed, rows.tolist(), strict=True):
        slate, warm = data.slates[p.user].candidates[p.index], warm_of[p.user][p.index]
        plan = []
        for target, delay in zip(p.target, p.delay_s, strict=True):
            place = np.flatnonzero((slate == target) & (warm == 0))
            if len(place):
                plan.append((int(place[0]), int(np.abs(delays - delay).argmin())))
        if plan or not len(p.target):
            found.append(Sayable(p, row, tuple(sorted(plan[: data.world.max_picks]))))
    return found


def expected_of(
    data: TrainingData, approval: Approval | None, user: int, index: np.ndarray, plans: Sequence[Picks]
) -> np.ndarray:
    """Expected rating of plans, float64 [R], plan r at decision index[r] of one user; 0 without a model."""
    if approval is None or not len(plans):
        return np.zeros(len(plans))
    most = max(1, max(len(p) for p in plans))
    target, delay = np.full((len(plans), most), -1, np.int32), np.zeros((len(plans), most))
    for r, plan in enumerate(plans):
        for k, (place, bucket) in enumerate(picked(plan)):
            target[r, k] = data.slates[user].candidates[index[r], place]
            delay[r, k] = data.world.delays[bucket]
    return approval.expected(data.timelines[user], data.plain[user], np.asarray(index), target, delay)


def others(plan: Picks, valid: np.ndarray) -> list[Picks]:
    """What could have been said instead of `plan`: nothing, each valid place alone at once, parts of it."""
    made: list[Picks] = [(), *(((int(p), 0),) for p in np.flatnonzero(valid))]
    if len(plan) > 1:
        made += [plan[:k] + plan[k + 1 :] for k in range(len(plan))]
    return [p for p in dict.fromkeys(made) if p != plan]


def rating_pairs(
    said: Sequence[Sayable],
    data: TrainingData,
    approval: Approval | None,
    *,
    offset: int,
    limit: int,
    seed: int,
) -> list[Pair]:
    """At most `limit` pairs from ratings, those with the largest difference in expected rating first.

    offset: where the ratings' moments begin among the prompts.
    """
    found: list[Pair] = []
    likes = _by_likeness(said, data)
    warm_of = {u: memory_at(data, u).warm for u in sorted({s.placed.user for s in said})}
    for s in said:
        p = s.placed
        slate = data.slates[p.user].candidates[p.index]
        valid = (slate >= 0) & (warm_of[p.user][p.index] == 0)
        instead = others(s.plan, valid)
        if not s.plan and (approval is None or not instead):
            continue  # nothing is known of what would have been better, or worse, than keeping still
        worth = expected_of(data, approval, p.user, np.full(len(instead), p.index), instead)

        def pair(chosen: Picks, rejected: Picks, a: float, b: float, how: tuple[str, str], *also: str,
                 p: Placed = p, s: Sayable = s) -> None:  # fmt: skip
            source = " ".join([p.rated.name, *also])
            user = data.timelines[p.user].user
            found.append(Pair(offset + s.row, user, p.index, chosen, rejected, a, b, how, source))

        if p.rated.thumbs:
            if s.plan:
                pair(s.plan, (), 1.0, 0.0, ("up", "none"))
            worst = int(np.argmin(worth))
            if worth[worst] < 0:
                pair(s.plan, instead[worst], 1.0, float(worth[worst]), ("up", "disapproved"))
            continue
        best = int(np.argmax(worth))
        pair(instead[best], s.plan, float(worth[best]), -1.0, ("approved", "down"))
        for like in likes[_likeness(s, data)]:
            there = data.slates[like.placed.user].candidates[like.placed.index]
            plan = tuple(
                sorted((int(np.flatnonzero(slate == there[x])[0]), d) for x, d in like.plan
                       if (valid & (slate == there[x])).any())
            )  # fmt: skip
            if like.plan and len(plan) == len(like.plan) and plan != s.plan:
                pair(plan, s.plan, 1.0, -1.0, ("up", "down"), like.placed.rated.name)
                break
    order = np.random.default_rng([seed, 5]).permutation(len(found))
    order = order[np.argsort([-(found[i].chosen_reward - found[i].rejected_reward) for i in order],
                             kind="stable")]  # fmt: skip
    return [found[i] for i in order[:limit]]


def _likeness(s: Sayable, data: TrainingData) -> tuple[int, int, bool]:
    timeline = data.timelines[s.placed.user]
    hour = float(timeline.local()[s.placed.index] // 3600 % 24)
    night = hour >= NIGHT[0] or hour < NIGHT[1]
    return s.placed.user, int(timeline.target[s.placed.index]), night


def _by_likeness(said: Sequence[Sayable], data: TrainingData) -> dict[tuple[int, int, bool], list[Sayable]]:
    found: dict[tuple[int, int, bool], list[Sayable]] = {}
    for s in said:
        group = found.setdefault(_likeness(s, data), [])
        if s.placed.rated.thumbs:
            group.append(s)
    return found


def rating_examples(said: Sequence[Sayable], data: TrainingData, *, offset: int) -> list[KtoExample]:
    """One KTO row per rating: good where the thumb was up."""
    return [
        KtoExample(
            offset + s.row, data.timelines[s.placed.user].user, s.placed.index, s.plan,
            bool(s.placed.rated.thumbs), 1.0 if s.placed.rated.thumbs else -1.0, "rated",
            s.placed.rated.name,
        )
        for s in said
    ]  # fmt: skip

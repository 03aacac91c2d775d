"""What one vote changes at the moment that it is about: the plan without it, and the plan with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from env.judge.case import cases
from env.timeline import Timeline
from rlmemo.approval.placed_ratings import Placed, RatedMoment, place_ratings
from rlmemo.approval.thumbs_said import told
from rlmemo.policies.exploring import in_memory
from rlmemo.policies.planners import Approved, Threshold, fed
from rlmemo.policies.run import Setup


@dataclass(frozen=True)
class PlanThen:
    """What would be loaded at a moment: targets, and the chance of everything that is ranked, by name."""

    targets: tuple[str, ...]
    chance: Mapping[str, float]


@dataclass(frozen=True)
class AfterVote:
    """The plan without a vote and with it. loads_from: the chance from which on something is loaded, None
    where that is not how it plans."""

    before: PlanThen
    now: PlanThen
    loads_from: float | None


def after_vote(used: Setup, timeline: Timeline, rated: Sequence[RatedMoment], vote: int) -> AfterVote | None:
    """What the rating of id `vote` changes, all of `rated` being known; None where its moment is not in the
    timeline (any more), or is its last.

    Both plans are made in the same memory: what is there if nobody has loaded anything before, but for what
    the rated plan loads.
    """
    placed = place_ratings(rated, [timeline]).placed
    mine = next((p for p in placed if p.rated.id == vote), None)
    if used.planner is None or mine is None or mine.index + 1 >= len(timeline):
        return None
    threshold = used.planner.inner if isinstance(used.planner, Approved) else used.planner
    before, now = (
        _plan(used, timeline, said, mine) for said in ([p for p in placed if p is not mine], placed)
    )
    return AfterVote(before, now, threshold.theta if isinstance(threshold, Threshold) else None)


def _plan(used: Setup, timeline: Timeline, said: Sequence[Placed], about: Placed) -> PlanThen:
    heard, planner = told([timeline], said, now=True)[0], used.planner
    costs, opened_next = used.world.costs_of([heard]), [np.array([about.index + 1])]
    case = fed(used.policy, cases([heard], costs, used.world.rules(), opened_next)[0])
    ranking = used.policy.rank(heard, case.indices)
    if isinstance(planner, Approved) and isinstance(planner.inner, Threshold):
        ranking = planner.counted(case, ranking)
        planner = planner.inner
    assert planner is not None
    if isinstance(planner, Threshold):
        held = {*in_memory(case)[0].tolist(), int(heard.target[about.index])}
        targets = planner.picks(ranking, held - set(about.target.tolist()), case.world.max_picks)
    else:
        targets = planner.plan(used.policy, case, ranking=ranking).right_away().target[0].tolist()
    listed = zip(ranking.targets[0].tolist(), ranking.probability[0].tolist(), strict=True)
    return PlanThen(
        tuple(heard.names[x] for x in targets if x >= 0), {heard.names[x]: p for x, p in listed if x >= 0}
    )

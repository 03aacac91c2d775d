"""What a judgement does person by person, each by themselves: the clairvoyant's bound, what a policy says,
what comes of planning by it. `evaluate` puts people together.

Nothing here looks at two people at once, and nothing is kept between two calls: it may be done anywhere, in
any order, and again where a machine died (`Crew`). Lists go in and out by case, in the order of people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from env.judge.case import Case, summed
from env.judge.cost import WorldConfig
from env.judge.plans import HIT, LATE, NONE, REDUNDANT, WASTED
from env.ranking import Ranking
from rlmemo.evaluation.metrics import Opens
from rlmemo.policies.oracle import bound_per_open
from rlmemo.policies.planners import (
    BY_NOBODY,
    THRESHOLDS,
    Planner,
    Threshold,
    by_rewards,
    fed,
    rank_wakes,
    told,
)  # fmt: skip
from rlmemo.policies.protocol import Policy, stream_of

if TYPE_CHECKING:
    from env.judge.plans import Outcomes
    from reward import Reward

Worlds = Mapping[float, WorldConfig]
"""The rules of a world by budget, in typical targets."""


class Crew(Protocol):
    """Who does the work. `do(what, parts, …)` calls what(part, …) for every part and gives what came of each,
    or a promise of it that may be a part again; `get` fulfils promises. `parts` divides a list of cases, and
    what is `share`d may be given along with many calls."""

    def parts(self, cases: Sequence[Case]) -> list[Any]: ...

    def share(self, what: Any) -> Any: ...

    def do(self, what: Callable[..., Any], parts: Sequence[Any], *given: Any) -> list[Any]: ...

    def get(self, promised: Sequence[Any]) -> list[Any]: ...


class Alone:
    """This process does everything, as one part."""

    def parts(self, cases: Sequence[Case]) -> list[Any]:
        """All cases."""
        return [list(cases)] if len(cases) else []

    def share(self, what: Any) -> Any:
        """It is here."""
        return what

    def do(self, what: Callable[..., Any], parts: Sequence[Any], *given: Any) -> list[Any]:
        """Done at once."""
        return [what(part, *given) for part in parts]

    def get(self, promised: Sequence[Any]) -> list[Any]:
        """As they are."""
        return list(promised)


@dataclass(frozen=True)
class Asked:
    """A case, told what the policy tells of it, and how the policy ranks its decisions and its wakes."""

    case: Case
    ranking: Ranking
    wakes: Ranking


@dataclass(frozen=True)
class CaseAnswers:
    """What a policy said of some cases. seconds: that took; latency_ms: of single decisions of the first."""

    asked: list[Asked]
    seconds: float
    latency_ms: list[float]


@dataclass(frozen=True)
class CaseResult:
    """What came of planning by a policy in one case.

    opens, terms (the reward's, by name, float64 [opens]): at the main budget. by_budget: (reward, saved_s,
    cold), float64 [opens] each. swept: records by threshold, None where the policy lists nobody.
    """

    ranking: Ranking
    opens: Opens
    terms: dict[str, np.ndarray]
    by_budget: dict[float, tuple[np.ndarray, np.ndarray, np.ndarray]]
    swept: np.ndarray | None


def bounds(cases: Sequence[Case], worlds: Worlds) -> list[dict[float, np.ndarray]]:
    """What the clairvoyant bound saves at each open, float64 [opens], by budget."""
    return [{budget: bound_per_open(c.under(world)) for budget, world in worlds.items()} for c in cases]


def validated(cases: Sequence[Case], policy: Policy) -> list[Asked]:
    """What a policy says of the cases that its planner is chosen by."""
    known = [told(policy, c) for c in cases]
    return [Asked(c, policy.rank(c.timeline, c.indices), rank_wakes(policy, c)) for c in known]


def tested(cases: Sequence[Case], policy: Policy, planner: Planner | None, decisions: int) -> CaseAnswers:
    """What a policy says of the cases that it is judged on. planner: what it plans by, if that is known;
    decisions: so many are timed one by one."""
    found: list[Asked] = []
    latency: list[float] = []
    seconds = 0.0
    for case in cases:
        known = fed(policy, case)
        started = time.perf_counter()
        ranking = policy.rank(known.timeline, known.indices)
        wakes = Ranking.empty(0) if planner else rank_wakes(policy, known)
        seconds += time.perf_counter() - started
        latency = latency or _latency(policy, known, decisions)
        found.append(Asked(known, ranking, wakes))
    return CaseAnswers(found, seconds, latency)


def _latency(policy: Policy, case: Case, decisions: int) -> list[float]:
    """Milliseconds of single decisions, one after another, the first one (start-up) left out."""
    ask = stream_of(policy, case.timeline)
    ask(case.start - 1)
    found = []
    for i in range(case.start, min(case.stop - 1, case.start + decisions)):
        started = time.perf_counter()
        ask(i)
        found.append(1000.0 * (time.perf_counter() - started))
    return found


def swept(
    asked: Sequence[Asked], world: WorldConfig, thresholds: Sequence[float], by: Threshold
) -> list[np.ndarray]:
    """Records summed over the opens of each case, by threshold, float64 [T, fields]: in that world, where who
    leaves is named, and loads are made at wakes, as `by` says."""
    found = []
    for x in asked:
        case = x.case.under(world)
        table = case.sweep(x.ranking, thresholds, by.names != BY_NOBODY, by.waking(case, x.wakes))
        found.append(table.sum(axis=1))
    return found


def best_thresholds(
    crew: Crew, policy: Any, parts: Sequence[Any], worlds: Worlds, reward: Reward
) -> dict[float, Threshold]:
    """The threshold that a policy (as the crew shares it) plans best by over parts of cases, by budget; where
    there is no case, the highest."""
    asked = crew.do(validated, parts, policy)
    known = crew.get(crew.do(facts, asked))
    is_told, wakes = all(x for x, _ in known), any(x for _, x in known)

    def over(world: WorldConfig) -> Threshold:
        def records(thresholds: Sequence[float], by: Threshold) -> np.ndarray:
            found = crew.get(crew.do(swept, asked, world, thresholds, by))
            return added([table for part in found for table in part])

        if not parts:
            return Threshold(float(THRESHOLDS[-1]))
        return by_rewards(records, reward, told=is_told, wakes=wakes)[0]

    return {budget: over(world) for budget, world in worlds.items()}


def facts(asked: Sequence[Asked]) -> tuple[bool, bool]:
    """(whether all are told who is opened soon, whether anybody wakes)."""
    return all(x.case.worth is not None for x in asked), any(len(x.wakes) for x in asked)


def lists_anybody(said: CaseAnswers) -> bool:
    """Whether the policy lists any target."""
    return any(bool((x.ranking.targets >= 0).any()) for x in said.asked)


def timed(said: CaseAnswers) -> tuple[float, list[float]]:
    """(seconds, milliseconds of single decisions)."""
    return said.seconds, said.latency_ms


def added(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Records of cases, [T, fields], summed in their order: so the sum is the same whoever made them."""
    total = np.zeros_like(tables[0]) if len(tables) else np.zeros(0)
    for table in tables:
        total = total + table
    return total


@dataclass(frozen=True)
class HowJudged:
    """How plans are made and what they are worth.

    worlds: by budget, `main` is the one that counts; ways: what is planned by, by budget; ranked: whether
    these are thresholds that the judge chose, by which what was ranked already is followed; lists: whether
    the policy lists anybody.
    """

    worlds: Worlds
    main: float
    ways: Mapping[float, Planner]
    ranked: bool
    lists: bool
    reward: Reward
    seed: int


def came(said: CaseAnswers, policy: Policy, how: HowJudged) -> list[CaseResult]:
    """What comes of planning by a policy in each of the cases."""
    found = []
    for x in said.asked:
        outcomes: dict[float, Outcomes] = {}
        for budget, world in how.worlds.items():
            case, way = x.case.under(world), how.ways[budget]
            if how.ranked:
                assert isinstance(way, Threshold)
                names = way.names != BY_NOBODY
                known = told(policy, case) if names else case
                waking = way.waking(known, x.wakes)
                outcomes[budget] = known.replay_ranked(x.ranking, way.theta, names, waking)[0]
            else:
                outcomes[budget] = case.replay(way.plan(policy, case, seed=how.seed))
        table = None
        if how.lists:
            names = how.ranked and getattr(how.ways[how.main], "names", BY_NOBODY) != BY_NOBODY
            known = told(policy, x.case) if names else x.case
            table = summed([known.sweep(x.ranking, THRESHOLDS, names)])
        found.append(_came(x, outcomes, how.main, how.reward, table))
    return found


def _came(
    x: Asked, outcomes: dict[float, Outcomes], main: float, reward: Reward, table: np.ndarray | None
) -> CaseResult:
    opens = {budget: opens_of(found, reward) for budget, found in outcomes.items()}
    at = outcomes[main]
    parts = reward.parts(at)
    terms = {
        term: np.broadcast_to(parts[term], len(at.table))[at.start : at.stop] for term, _ in reward.terms
    }
    few = {budget: (o.reward, o.saved_s, o.cold) for budget, o in opens.items()}
    return CaseResult(x.ranking, opens[main], terms, few, table)


def opens_of(outcomes: Outcomes, reward: Reward) -> Opens:
    """What happened to each open, and to the prewarms planned right before it."""
    a, b = outcomes.start, outcomes.stop
    outcome = outcomes.outcome[a - 1 : b - 1]
    lead = outcomes.lead_s[a - 1 : b - 1]
    used = (outcome == HIT) | (outcome == LATE)
    return Opens(
        base_wait_s=outcomes.base_wait_s[a:b],
        wait_s=outcomes.wait_s[a:b],
        saved_s=outcomes.saved_s[a:b],
        hit=outcomes.hit[a:b],
        late=outcomes.late[a:b],
        pollution=outcomes.pollution[a:b],
        cold=outcomes.cold[a:b],
        base_cold=outcomes.base_cold[a:b],
        kept=outcomes.kept[a:b],
        prewarms=(outcome != NONE).sum(axis=1).astype(np.float64),
        wasted=(outcome == WASTED).sum(axis=1).astype(np.float64),
        redundant=(outcome == REDUNDANT).sum(axis=1).astype(np.float64),
        wasted_mb_s=outcomes.wasted_prewarm_mb_s[a - 1 : b - 1].sum(axis=1),
        planned=(outcome != NONE).any(axis=1).astype(np.float64),
        reward=np.broadcast_to(reward.per_open(outcomes), len(outcomes.table))[a:b].astype(np.float64),
        lead_s=lead[used],
        lead_open=np.nonzero(used)[0],
    )

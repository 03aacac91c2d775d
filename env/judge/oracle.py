"""The oracle: what a planner that knows the future could save, bracketed from both sides.

`upper_bound` (`env.judge.oracle_bound`, with the proof) is a number that no plan exceeds, `feasible` a plan
(scored by the judge) that a clairvoyant could have followed; the truth lies between, and `bracket` reports
both and the gap.
`tests.reference.oracle_exact` computes the truth itself for a handful of events. All maximise saved
seconds, without a price on memory: it is the bound on what can be saved, not on what should be. All do so
with plans that only load early, or (let_go) with plans that also name who leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from env.judge.case import cases
from env.judge.cost import Costs, WorldConfig
from env.judge.oracle_bound import Relaxed, relaxed, start_times, upper_bound
from env.judge.plans import HIT, LATE, SAVED, Outcomes, Plans
from env.timeline import Timeline

_ADD, _AHEAD, _IMPROVEMENTS = 2, 8, 12  # improvement: opens tried per decision, how far ahead, rounds
_ROUNDS, _NAMINGS = 30, 4  # rounds of loading anew, and of naming anew who leaves


@dataclass(frozen=True)
class Bracket:
    """The oracle's saved seconds: `feasible_s` was reached, `bound_s` cannot be exceeded."""

    feasible_s: float
    bound_s: float
    plans: Plans
    outcomes: Outcomes

    @property
    def gap(self) -> float:
        """(bound - feasible) / bound, 0 where the bound is 0."""
        return (self.bound_s - self.feasible_s) / self.bound_s if self.bound_s > 0 else 0.0


def bracket(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    *,
    start: int = 0,
    stop: int | None = None,
    let_go: bool = False,
) -> Bracket:
    """Both sides of the oracle for the opens start..stop-1 (see `env.judge.accounting.replay` for the
    window). let_go: its plans also name who leaves (up to `config.max_let_go` each)."""
    given = timeline, costs, config
    plans, outcomes = feasible(*given, start=start, stop=stop, let_go=let_go)
    bound = upper_bound(*given, start=start, stop=stop, let_go=let_go and config.max_let_go > 0)
    return Bracket(outcomes.total("saved_s"), bound, plans, outcomes)


# --- a plan that a clairvoyant could have followed ------------------------------------------------


def feasible(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    *,
    start: int = 0,
    stop: int | None = None,
    let_go: bool = False,
) -> tuple[Plans, Outcomes]:
    """A clairvoyant plan, and what the judge says of it. let_go: it also names who leaves: `plans.let_go`,
    int32 [n, max_let_go], whom each decision lets go first, -1 where nobody has to leave before the next.

    Not optimal; never better than `upper_bound`, and never worse with let_go than without.
    """
    stop = len(timeline) if stop is None else stop
    if let_go and config.max_let_go and stop - max(start, 1) >= 1:
        return _letting_go(timeline, costs, config, start, stop)
    return _loading(timeline, costs, config, start, stop)


def _loading(
    timeline: Timeline, costs: Costs, config: WorldConfig, start: int, stop: int
) -> tuple[Plans, Outcomes]:
    """A clairvoyant plan that names nobody.

    Every open that would not be warm gets a prewarm as late as it can be ready in time (a just-in-time
    prewarm holds memory shortest, so it evicts least); the judge replays; what did not turn out a hit or
    late is taken out, what is still not warm gets another start; the best plan seen is kept. Then every
    decision is asked, round after round, whether more is saved without one of its picks or with a pick for
    one of the next opens that are not warm.
    """
    from env.judge.accounting import replay

    n = len(timeline)
    picks = config.max_picks
    plans = Plans.empty(n, picks)
    outcomes = replay(timeline, costs, config, plans, start=start, stop=stop)
    best = (outcomes.total("saved_s"), plans, outcomes)
    if stop - max(start, 1) < 1:
        return plans, outcomes
    starts, owner = start_times(timeline.t[:stop], config, max(start - 1, 0), stop)
    seconds = np.array(config.delays)
    tried: dict[int, int] = {}
    stale = 0
    warm = costs.warm_s[timeline.target]
    for _ in range(_ROUNDS):
        target, delay = plans.target.copy(), plans.delay.copy()
        keep = (outcomes.outcome == HIT) | (outcomes.outcome == LATE)
        target[~keep] = -1
        free = (target < 0).sum(axis=1)
        added = 0
        for j in np.flatnonzero(outcomes.wait_s > warm):
            if j < max(start, 1):
                continue
            x = int(timeline.target[j])
            hi = int(np.searchsorted(starts, timeline.t[j] - costs.load_s[x], side="right"))
            skip = tried.get(int(j), 0)
            seen = 0
            for g in _candidates(starts, hi, float(timeline.t[j]), float(costs.load_s[x] + config.ttl_s)):
                i = int(owner[g])
                if i >= j or not free[i] or (timeline.target[i] == x and starts[g] <= timeline.t[i]):
                    continue
                seen += 1
                if seen <= skip:
                    continue
                k = int(np.flatnonzero(target[i] < 0)[0])
                target[i, k] = x
                delay[i, k] = int(np.argmin(np.abs(timeline.t[i] + seconds - starts[g])))
                free[i] -= 1
                tried[int(j)] = (skip + 1) % 3
                added += 1
                break
        if not added:
            break
        plans = Plans(target, delay)
        outcomes = replay(timeline, costs, config, plans, start=start, stop=stop)
        saved = outcomes.total("saved_s")
        stale = 0 if saved > best[0] else stale + 1
        if saved > best[0]:
            best = (saved, plans, outcomes)
        if stale >= 2:
            break
    plans, outcomes = _improved(timeline, costs, config, start, stop, best[1], best[2])
    return _tidy(timeline, costs, config, start, stop, plans, outcomes)


def _tidy(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    start: int,
    stop: int,
    plans: Plans,
    outcomes: Outcomes,
) -> tuple[Plans, Outcomes]:
    """Without the picks that came to nothing, which would stand in the clairvoyant's waste rate."""
    from env.judge.accounting import replay

    useful = (outcomes.outcome == HIT) | (outcomes.outcome == LATE)
    tidy = replace(plans, target=np.where(useful, plans.target, -1).astype(np.int32))
    result = replay(timeline, costs, config, tidy, start=start, stop=stop)
    return (tidy, result) if result.total("saved_s") >= outcomes.total("saved_s") else (plans, outcomes)


def _candidates(starts: np.ndarray, hi: int, open_t: float, reach: float) -> list[int]:
    """Grid places to try for one open: the latest starts that are ready in time, then the late ones."""
    early = [g for g in range(hi - 1, max(-1, hi - 13), -1) if starts[g] + reach > open_t]
    end = int(np.searchsorted(starts, open_t, side="left"))
    return early + list(range(hi, min(end, hi + 6)))


def _improved(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    start: int,
    stop: int,
    plans: Plans,
    outcomes: Outcomes,
) -> tuple[Plans, Outcomes]:
    """Ask every decision whether more is saved without one of its picks, or with another one."""
    from env.judge.accounting import replay
    from env.judge.effects import plan_effects

    # plan_effects looks to the end of the timeline: give it none beyond the window.
    config = config.resolved(costs)
    clipped = timeline if stop == len(timeline) else timeline.take(np.arange(stop))
    seen = len(clipped.names)
    own = Costs(costs.memory_mb[:seen], costs.cold_s[:seen], costs.warm_s[:seen], costs.load_s[:seen])
    for _ in range(_IMPROVEMENTS):
        where, choices = _neighbours(clipped, own, config, start, stop, plans, outcomes)
        if not len(where):
            break
        base = Plans(plans.target[:stop], plans.delay[:stop], plans.let_go[:stop])
        (whole,) = cases([clipped], [own], config, [np.arange(1, len(clipped))])
        saved = plan_effects(whole, where, choices, base, math.inf)[:, :, SAVED]
        choice = np.argmax(saved, axis=1)
        gain = saved[np.arange(len(where)), choice] - saved[:, 0]
        better = np.flatnonzero(gain > 1e-9)
        better = better[np.argsort(-gain[better], kind="stable")]
        improved = False
        # Neighbouring changes can undo each other's gain: all at once, else the clearest half, and so on.
        while len(better):
            target, delay = plans.target.copy(), plans.delay.copy()
            target[where[better]] = choices.target[better, choice[better]]
            delay[where[better]] = choices.delay[better, choice[better]]
            candidate = replace(plans, target=target, delay=delay)
            result = replay(timeline, costs, config, candidate, start=start, stop=stop)
            if result.total("saved_s") > outcomes.total("saved_s"):
                plans, outcomes, improved = candidate, result, True
                break
            better = better[: len(better) // 2]
        if not improved:
            break
    return plans, outcomes


def _neighbours(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    start: int,
    stop: int,
    plans: Plans,
    outcomes: Outcomes,
) -> tuple[np.ndarray, Plans]:
    """Decisions worth asking, and their alternatives [D, 1 + K + _ADD, K]: as it is, without each pick,
    with a prewarm for each of the next opens that are not warm."""
    picks = plans.target.shape[1]
    t, x = timeline.t, timeline.target
    cold = np.flatnonzero(outcomes.wait_s[:stop] > costs.warm_s[x[:stop]])
    delays = np.array(config.delays)
    reach = float(delays.max() + costs.load_s.max() + config.ttl_s)
    rows: list[int] = []
    targets: list[np.ndarray] = []
    seconds: list[np.ndarray] = []
    for i in range(max(start - 1, 0), stop - 1):
        planned = plans.target[i] >= 0
        first = int(np.searchsorted(cold, i, side="right"))
        near = [j for j in cold[first : first + _ADD] if j <= i + _AHEAD and t[j] - t[i] < reach]
        if not planned.any() and not near:
            continue
        target = np.repeat(plans.target[i][None], 1 + picks + _ADD, axis=0)
        delay = np.repeat(plans.delay[i][None], 1 + picks + _ADD, axis=0)
        target[1 + np.arange(picks), np.arange(picks)] = -1
        free = np.flatnonzero(~planned)
        # A full plan can still exchange its last pick.
        slot = int(free[0]) if len(free) else picks - 1
        for a, j in enumerate(near):
            slack = t[j] - t[i] - costs.load_s[x[j]] - delays
            bucket = int(np.argmin(np.where(slack >= 0, slack, np.inf)))
            if slack[bucket] < 0:
                bucket = int(np.argmin(delays))
            target[1 + picks + a, slot], delay[1 + picks + a, slot] = x[j], bucket
        rows.append(i)
        targets.append(target)
        seconds.append(delay)
    if not rows:
        return np.zeros(0, np.int64), plans
    named = np.repeat(plans.let_go[rows][:, None], 1 + picks + _ADD, axis=1)
    return np.array(rows), Plans(np.stack(targets), np.stack(seconds), named)


# --- and one that also names who leaves -----------------------------------------------------------


def _letting_go(
    timeline: Timeline, costs: Costs, config: WorldConfig, start: int, stop: int
) -> tuple[Plans, Outcomes]:
    """A plan that names who leaves, at least as good as the one that does not.

    Two are begun with: what the bound's linear program would load early and keep, and, unless that reaches
    the bound, the plan that names nobody. In each, who leaves is named by foresight, picks are improved, and
    so on in turns while it gets better.
    """
    given = timeline, costs, config, start, stop
    program = relaxed(timeline, costs, config, start=start, stop=stop, let_go=True)
    enough = program.bound_s - 1e-6
    loaded, wanted = _relaxed_plan(*given, program)
    best = _named(*given, (loaded, wanted), wanted, enough)
    if best[1].total("saved_s") >= enough:
        return best
    other = _loading(*given)
    none = replace(other[0], let_go=np.full((len(timeline), config.max_let_go), -1, np.int32))
    named = _named(*given, (other[0], _needed(*given, *other, wanted)), wanted, enough)
    return max((none, other[1]), best, named, key=lambda found: found[1].total("saved_s"))


def _named(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    start: int,
    stop: int,
    begun: tuple[Plans, np.ndarray],
    wanted: np.ndarray,
    enough: float,
) -> tuple[Plans, Outcomes]:
    """Plans (and from when on each open's target has to be there) with names, both
    improved in turns until `enough` is saved or nothing gets better."""
    from env.judge.accounting import replay
    from env.judge.foresight import name_who_leaves

    given = timeline, costs, config, start, stop
    plans, since = begun
    best: tuple[Plans, Outcomes] | None = None
    for _ in range(_NAMINGS):
        named = name_who_leaves(timeline, costs, config, plans, since, start=start, stop=stop)
        result = replay(timeline, costs, config, named, start=start, stop=stop)
        saved = result.total("saved_s")
        if best and saved <= best[1].total("saved_s"):
            break
        best = _tidy(*given, *((named, result) if saved >= enough else _improved(*given, named, result)))
        if best[1].total("saved_s") >= enough:
            break
        plans, since = best[0], _needed(*given, *best, wanted)
    assert best is not None
    return best


def _relaxed_plan(
    timeline: Timeline, costs: Costs, config: WorldConfig, start: int, stop: int, program: Relaxed
) -> tuple[Plans, np.ndarray]:
    """What the linear program of the bound would load early, as far as plans have room for it, and from when
    on it wants each open's target in memory (see `name_who_leaves`)."""
    starts, owner = start_times(timeline.t[:stop], config, max(start - 1, 0), stop)
    plans = Plans.empty(len(timeline), config.max_picks)
    since = np.full(stop, np.inf)
    for j in np.flatnonzero(program.taken >= 0).tolist():
        x, place = int(timeline.target[j]), int(program.options.start[program.taken[j]])
        if place < 0:
            since[j] = -np.inf
            continue
        reach = float(costs.load_s[x] + config.ttl_s)
        for g in range(place, max(place - 12, -1), -1):
            i = int(owner[g])
            free = np.flatnonzero(plans.target[i] < 0)
            if i < j and len(free) and starts[g] + reach > timeline.t[j]:
                plans.target[i, free[0]], plans.delay[i, free[0]] = x, _bucket(timeline, config, i, starts[g])
                since[j] = starts[g]
                break
    return plans, since


def _bucket(timeline: Timeline, config: WorldConfig, i: int, start: float) -> int:
    """The delay bucket with which decision i starts a prewarm at `start`."""
    return int(np.argmin(np.abs(timeline.t[i] + np.array(config.delays) - start)))


def _needed(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    start: int,
    stop: int,
    plans: Plans,
    outcomes: Outcomes,
    wanted: np.ndarray,
) -> np.ndarray:
    """From when on each open's target was in memory, where it was warm; else as wanted."""
    since = np.where(outcomes.wait_s[:stop] <= costs.warm_s[timeline.target[:stop]], -np.inf, wanted)
    for i, k in zip(*np.nonzero((outcomes.outcome == HIT) | (outcomes.outcome == LATE)), strict=True):
        begun = timeline.t[i] + config.delays[plans.delay[i, k]]
        opens = np.flatnonzero(timeline.target[i + 1 : stop] == plans.target[i, k]) + i + 1
        since[opens[timeline.t[opens] >= begun][0]] = begun
    return since

"""The oracle: what a planner that knows the future could save, bracketed from both sides.

`upper_bound` is a number that no plan exceeds, `feasible` a plan (scored by the judge) that a clairvoyant
could have followed; the truth lies between, and `bracket` reports both and the gap.
`tests.reference.oracle_exact` computes the truth itself for a handful of events. All maximise saved
seconds, without a price on memory: it is the bound on what can be saved, not on what should be.

Why the bound holds. Take any plan and any open j of target x. If j waits less than cold_s, then x was
resident just before t[j], and it had been so without interruption since it was either opened (the open p
before j) or brought in by a prewarm that started at some s = t[i] + d with i < j, was not expired (s + load +
ttl > t[j]), and did not start before event p + 1 (until then x was in front, and the prewarm redundant). That
gives j a list of *options*, each with an interval of residency ending at j and with the seconds that it saves
compared with a cold open: cold - warm for keeping and for prewarms ready in time, less for late ones. Of the
prewarms ready in time only the latest start is listed: its interval lies within every other's. Keeping is
possible only where the no-prewarm world keeps x, too: targets opened after p are used more recently than x,
and eviction goes by least recent use (the target in front is the one exception, and nothing that was opened
is newer than that), so as long as x stays, they all stay; x leaves the no-prewarm world only when x and they
do not fit together. (Where the let-go rule is another, or plans may let go, that does not hold, and keeping
is listed for every open of a target that was opened before. Nothing stays over an off, so no option begins
before the wake after one; plans may start prewarms there, too, and nobody is in front then. Closes take
options away, which are listed all the same: that only loosens the bound.) Options of the same target do not
overlap. Just before every open k the resident targets fit into the budget together, the target in front
(x[k-1]) among them; so the memory of the options that cover that moment is at most budget - memory[x[k-1]],
where intervals do not count while their own target is in front; an option that alone exceeds that is
impossible. The actual world therefore picks at most one option for every open, within these capacities, and
saves at most their value. Everything else (eviction order, K, what the options cost outside these moments) is
dropped, which can only raise the maximum; so is integrality, which leaves a linear program. Saved seconds
count from the no-prewarm world: subtract what its warm opens save compared with cold ones.

The solver (HiGHS through SciPy) is not trusted with the result: by weak duality, any non-negative prices
L[k] for the capacities give the bound  sum L[k] capacity[k] + sum over j of max(0, max over options of
(value - memory * sum of L over the interval)), and that is what is returned, computed from HiGHS's prices
(clipped at 0), plus a relative 1e-9 for rounding. Bad prices make the bound loose, never wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from env.errors import InputError
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import HIT, LATE, SAVED, Outcomes, Plans
from env.timeline import Timeline

_ADD, _AHEAD, _IMPROVEMENTS = 2, 8, 12  # improvement: opens tried per decision, how far ahead, rounds
_MAX_LATE = 6  # late options listed per open; more are merged into these, each as good as its best member


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


@dataclass(frozen=True)
class _Options:
    """Columns, one row per option: open, value (s), memory (MB), covered points first..open (int)."""

    open: np.ndarray
    value: np.ndarray
    memory: np.ndarray
    first: np.ndarray


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
    window). let_go: the oracle also says who leaves; its plans are then those of a world whose let-go rule is
    `belady`."""
    played = replace(config, let_go="belady") if let_go else config
    plans, outcomes = feasible(timeline, costs, played, start=start, stop=stop)
    bound = upper_bound(timeline, costs, played, start=start, stop=stop)
    return Bracket(outcomes.total("saved_s"), bound, plans, outcomes)


def upper_bound(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    *,
    start: int = 0,
    stop: int | None = None,
    solve: bool = True,
) -> float:
    """Saved seconds over the opens start..stop-1 that no plan exceeds; the proof is in the module.

    Where the world's let-go rule is `lru`, plans that let go may exceed it; with any other rule they do not.
    solve: False skips the linear program and uses prices of zero (memory is free): looser, and instant.
    """
    from env.judge import accounting
    from env.judge.state import rules as world_rules

    n = len(timeline)
    stop = n if stop is None else stop
    if not 0 <= start <= stop <= n:
        raise InputError(f"window {start}..{stop} does not fit {n} events")
    if stop - start < 1:
        return 0.0
    rules = world_rules(costs, config)
    base = accounting.replay(timeline, costs, config, Plans.empty(n, 1), start=0, stop=stop)
    worth = (costs.cold_s - costs.warm_s)[timeline.target[:stop]]
    base_saves = costs.cold_s[timeline.target[:stop]] - base.base_wait_s[:stop]
    room = np.full(stop, rules.budget)
    room[1:] -= rules.cost[timeline.target[: stop - 1], 0]
    booted = _booted(config.offs(timeline)[0][:stop], timeline.t)
    room[booted[booted > 0]] = rules.budget  # nobody is in front before the first open after an off
    options = _options(timeline, costs, config, rules.cost[:, 0], room, base_saves > 0, booted, start, stop)
    # Opens right after an open of the same target are warm in any world: no option, and nothing to gain.
    again = np.zeros(stop, bool)
    again[1:] = timeline.target[1:stop] == timeline.target[: stop - 1]
    again &= booted != np.arange(stop)
    fixed = float(worth[start:stop][again[start:stop]].sum() - base_saves[start:stop].sum())
    prices = _prices(options, room, stop) if solve and len(options.open) else np.zeros(stop)
    total = np.concatenate([[0.0], np.cumsum(prices)])
    cost = options.memory * (total[options.open + 1] - total[options.first])
    best = np.zeros(stop)
    np.maximum.at(best, options.open, options.value - cost)
    bound = fixed + float(best.sum()) + float((prices * room).sum())
    scale = abs(fixed) + float(best.sum()) + float((prices * room).sum())
    return max(0.0, bound) + 1e-9 * scale


def _options(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    memory: np.ndarray,
    room: np.ndarray,
    base_warm: np.ndarray,
    booted: np.ndarray,
    start: int,
    stop: int,
) -> _Options:
    t = timeline.t[:stop]
    target = timeline.target[:stop]
    begin = max(start - 1, 0)  # the first decision that acts
    previous = _previous(target)
    back = config.offs(timeline)[1]
    starts, after = _and_at_wakes(*_grid(t, config, begin, stop), back[:stop], config, begin)
    rows: list[tuple[int, float, float, int]] = []
    for j in range(max(start, 1), stop):
        x, p = int(target[j]), int(previous[j])
        if p == j - 1 and p >= booted[j]:
            continue
        worth, load = float(costs.cold_s[x] - costs.warm_s[x]), float(costs.load_s[x])
        if worth <= 0:
            continue
        on = back[booted[j]] if booted[j] else t[begin]  # since when the machine is on
        earliest = max(t[p + 1] if p >= booted[j] else on, t[begin], on)
        lo = int(np.searchsorted(starts, earliest, side="left"))
        hi = int(np.searchsorted(starts, t[j], side="right"))
        ready = starts[lo:hi] + load
        # Start times are not decisions: one from decision >= j would be listed too, which only loosens.
        live = np.flatnonzero((after[lo:hi] < j) & (ready + config.ttl_s > t[j]))
        in_time = live[ready[live] <= t[j]]
        found = False
        if len(in_time):
            s = float(starts[lo + in_time[-1]])
            rows.append((j, worth, float(memory[x]), _first_point(t, s, j)))
            found = True
        late = live[ready[live] > t[j]]
        for group in np.array_split(late, min(_MAX_LATE, len(late))) if len(late) else ():
            value = worth - (float(ready[group[0]]) - float(t[j]))
            if value > 0:
                rows.append((j, value, float(memory[x]), _first_point(t, float(starts[lo + group[-1]]), j)))
        if not found and (base_warm[j] or (config.let_go != "lru" and p >= booted[j])):
            rows.append((j, worth, float(memory[x]), min(j, max(p + 2, begin + 1))))
    # What does not fit beside a target in front at all cannot fit in part.
    rows = [row for row in rows if row[3] > row[0] or row[2] <= room[row[3] : row[0] + 1].min()]
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return _Options(
        open=np.array(columns[0], np.int64),
        value=np.array(columns[1]),
        memory=np.array(columns[2]),
        first=np.array(columns[3], np.int64),
    )


def _booted(off: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The first event since the machine was last switched on, for each event (0: it never was off)."""
    return np.maximum.accumulate(np.where(off < t[: len(off)], np.arange(len(off)), 0))


def _first_point(t: np.ndarray, s: float, j: int) -> int:
    """The first open k <= j before which an interval that begins at s is in memory for sure: t[k] > s.
    (j + 1, no point at all, where there is none.)"""
    return min(int(np.searchsorted(t, s, side="right")), j + 1)


def _grid(t: np.ndarray, config: WorldConfig, begin: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """All start times that a plan can ask for, sorted, and the decision of each."""
    decisions = np.arange(begin, max(begin, stop - 1))
    starts = (t[decisions][:, None] + np.array(config.delays)[None, :]).reshape(-1)
    owner = np.repeat(decisions, len(config.delays))
    order = np.lexsort((owner, starts))
    return starts[order], owner[order]


def _and_at_wakes(
    starts: np.ndarray, after: np.ndarray, back: np.ndarray, config: WorldConfig, begin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Those of `_grid`, and the start times that a plan can ask for at wakes. back: when the person was back
    before each event, infinite where it was never off."""
    woken = np.flatnonzero(np.isfinite(back[begin + 1 :])) + begin + 1
    more = (back[woken][:, None] + np.array(config.delays)[None, :]).reshape(-1)
    starts = np.concatenate([starts, more])
    after = np.concatenate([after, np.repeat(woken - 1, len(config.delays))])
    order = np.lexsort((after, starts))
    return starts[order], after[order]


def _previous(target: np.ndarray) -> np.ndarray:
    """Index of the open of the same target before each open, -1 where there is none."""
    last: dict[int, int] = {}
    out = np.full(len(target), -1, np.int64)
    for j, x in enumerate(target.tolist()):
        out[j] = last.get(x, -1)
        last[x] = j
    return out


def _prices(options: _Options, room: np.ndarray, stop: int) -> np.ndarray:
    """The linear program's shadow prices of the capacities, >= 0, float64 [stop]."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix, vstack

    m = len(options.open)
    lengths = options.open + 1 - options.first
    column = np.repeat(np.arange(m), lengths)
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    point = np.repeat(options.first, lengths) + offset
    capacity = coo_matrix((options.memory[column], (point, column)), shape=(stop, m)).tocsr()
    crowded = np.flatnonzero(np.asarray(capacity.sum(axis=1)).ravel() > room)
    prices = np.zeros(stop)
    if not len(crowded):
        return prices
    _, row = np.unique(options.open, return_inverse=True)
    choose = coo_matrix((np.ones(m), (row, np.arange(m))), shape=(row.max() + 1, m)).tocsr()
    scale = float(np.median(options.memory))
    result = linprog(
        -options.value,
        A_ub=vstack([capacity[crowded] / scale, choose]).tocsr(),
        b_ub=np.concatenate([room[crowded] / scale, np.ones(row.max() + 1)]),
        bounds=(0, None),
        method="highs",
    )
    if result.status == 0:
        prices[crowded] = np.maximum(0.0, -result.ineqlin.marginals[: len(crowded)]) / scale
    return prices


# --- a plan that a clairvoyant could have followed ------------------------------------------------


def feasible(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    *,
    start: int = 0,
    stop: int | None = None,
    rounds: int = 30,
) -> tuple[Plans, Outcomes]:
    """A clairvoyant plan, and what the judge says of it.

    Every open that would not be warm gets a prewarm as late as it can be ready in time (a just-in-time
    prewarm holds memory shortest, so it evicts least); the judge replays; what did not turn out a hit or
    late is taken out, what is still not warm gets another start; the best plan seen is kept. Then every
    decision is asked, round after round, whether more is saved without one of its picks or with a pick for
    one of the next opens that are not warm. Not optimal; never better than `upper_bound`.
    """
    from env.judge.accounting import replay

    n = len(timeline)
    stop = n if stop is None else stop
    picks = config.max_picks
    plans = Plans.empty(n, picks)
    outcomes = replay(timeline, costs, config, plans, start=start, stop=stop)
    best = (outcomes.total("saved_s"), plans, outcomes)
    if stop - max(start, 1) < 1:
        return plans, outcomes
    starts, owner = _grid(timeline.t[:stop], config, max(start - 1, 0), stop)
    seconds = np.array(config.delays)
    tried: dict[int, int] = {}
    stale = 0
    warm = costs.warm_s[timeline.target]
    for _ in range(rounds):
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
    # Picks that came to nothing would stand in the clairvoyant's waste rate.
    useful = (outcomes.outcome == HIT) | (outcomes.outcome == LATE)
    tidy = Plans(np.where(useful, plans.target, -1).astype(np.int32), plans.delay)
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
        base = Plans(plans.target[:stop], plans.delay[:stop])
        saved = plan_effects(clipped, own, config, where, choices, base, math.inf)[:, :, SAVED]
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
            candidate = Plans(target, delay)
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
    return np.array(rows), Plans(np.stack(targets), np.stack(seconds))

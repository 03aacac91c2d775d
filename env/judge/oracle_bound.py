"""The oracle's bound: a number of saved seconds that no plan exceeds.

Why it holds. Take any plan and any open j of target x. If j waits less than cold_s, then x was
resident just before t[j], and it had been so without interruption since it was either opened (the open p
before j) or brought in by a prewarm that started at some s = t[i] + d with i < j, was not expired (s + load +
ttl > t[j]), and did not start before event p + 1 (until then x was in front, and the prewarm redundant). That
gives j a list of *options*, each with an interval of residency ending at j and with the seconds that it saves
compared with a cold open: cold - warm for keeping and for prewarms ready in time, less for late ones. Of the
prewarms ready in time only the latest start is listed: its interval lies within every other's. Where the
let-go rule is `lru` and plans name nobody, keeping is possible only where the no-prewarm world keeps x, too:
targets opened after p are used more recently than x, and eviction goes by least recent use (the target in
front is the one exception, and nothing that was opened is newer than that), so as long as x stays, they all
stay; x leaves the no-prewarm world only when x and they do not fit together. Where plans name who leaves
(let_go), or another rule says it, keeping is listed for every open of a target that was opened before, or,
where that was before the window, that the world without plans holds after the event of the window's first
decision. Nothing stays over an off, so no option begins before the wake after one; plans may start prewarms
there, too, and nobody is in front then. Who was closed was not kept. Options of the same target do not
overlap. Just before every open k the resident targets fit into the budget together, the target in front
(x[k-1]) among them; so the memory of the options that cover that moment is at most budget - memory[x[k-1]],
where intervals do not count while their own target is in front; an option that alone exceeds that is
impossible. The actual world therefore picks at most one option for every open, within these capacities, and
saves at most their value. Everything else (eviction order, K, R, what the options cost outside these moments)
is dropped, which can only raise the maximum; so is integrality, which leaves a linear program.
Saved seconds count from the no-prewarm world: subtract what its warm opens save compared with cold ones.

The solver (HiGHS through SciPy) is not trusted with the result: by weak duality, any non-negative prices
L[k] for the capacities give the bound  sum L[k] capacity[k] + sum over j of max(0, max over options of
(value - memory * sum of L over the interval)), and that is what is returned, computed from HiGHS's prices
(clipped at 0), plus a relative 1e-9 for rounding. Bad prices make the bound loose, never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from env.errors import InputError
from env.judge.case import Case
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import Plans
from env.timeline import Timeline

_MAX_LATE = 6  # late options listed per open; more are merged into these, each as good as its best member


@dataclass(frozen=True)
class Intervals:
    """Columns, one row per option: open, value (s), memory (MB), covered points first..open (int), and the
    place in `start_times` of the prewarm that it takes, -1 for keeping and for what is loaded at a wake."""

    open: np.ndarray
    value: np.ndarray
    memory: np.ndarray
    first: np.ndarray
    start: np.ndarray


@dataclass(frozen=True)
class Relaxed:
    """The linear program's answer: the bound (s), and per open the option it would take, -1 for none."""

    bound_s: float
    options: Intervals
    taken: np.ndarray


def upper_bound(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    *,
    start: int = 0,
    stop: int | None = None,
    let_go: bool = False,
    solve: bool = True,
) -> float:
    """Saved seconds over the opens start..stop-1 that no plan exceeds; the proof is in the module.

    let_go: no plan that names who leaves exceeds it, either. (Without it they may, where the world's let-go
    rule is `lru`, whatever R is; under any other rule they do not.)
    solve: False skips the linear program and uses prices of zero (memory is free): looser, and instant.
    """
    found = relaxed(timeline, costs, config, start=start, stop=stop, let_go=let_go, solve=solve)
    return found.bound_s


def relaxed(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    *,
    start: int = 0,
    stop: int | None = None,
    let_go: bool = False,
    solve: bool = True,
) -> Relaxed:
    """The bound with what it would take to reach it; as `upper_bound`. Raises InputError for a window that
    does not fit."""
    from env.judge import accounting
    from env.judge.state import rules as world_rules

    n = len(timeline)
    stop = n if stop is None else stop
    if not 0 <= start <= stop <= n:
        raise InputError(f"window {start}..{stop} does not fit {n} events")
    none = Intervals(*(np.zeros(0, kind) for kind in (np.int64, float, float, np.int64, np.int64)))  # type: ignore[arg-type]
    if stop - start < 1:
        return Relaxed(0.0, none, np.full(stop, -1, np.int64))
    rules = world_rules(costs, config)
    plain = replace(config, let_go="lru")  # what the no-prewarm world does, whatever the rule
    base = accounting.replay(timeline, costs, plain, Plans.empty(n, 1), start=0, stop=stop)
    worth = (costs.cold_s - costs.warm_s)[timeline.target[:stop]]
    base_saves = costs.cold_s[timeline.target[:stop]] - base.base_wait_s[:stop]
    room = np.full(stop, rules.budget)
    room[1:] -= rules.cost[timeline.target[: stop - 1], 0]
    booted = _booted(config.offs(timeline)[0][:stop], timeline.t)
    room[booted[booted > 0]] = rules.budget  # nobody is in front before the first open after an off
    kept = base_saves > 0
    if let_go or config.let_go != "lru":
        kept = _there_before(timeline, costs, config, max(start - 1, 0), stop)
    options = _options(timeline, costs, config, rules.cost[:, 0], room, kept, booted, start, stop)
    # Opens right after an open of the same target are warm in any world: no option, and nothing to gain.
    again = np.zeros(stop, bool)
    again[1:] = timeline.target[1:stop] == timeline.target[: stop - 1]
    again &= booted != np.arange(stop)
    fixed = float(worth[start:stop][again[start:stop]].sum() - base_saves[start:stop].sum())
    m = len(options.open)
    prices, share = _solved(options, room, stop) if solve and m else (np.zeros(stop), np.ones(m))
    total = np.concatenate([[0.0], np.cumsum(prices)])
    cost = options.memory * (total[options.open + 1] - total[options.first])
    best = np.zeros(stop)
    np.maximum.at(best, options.open, options.value - cost)
    bound = fixed + float(best.sum()) + float((prices * room).sum())
    scale = abs(fixed) + float(best.sum()) + float((prices * room).sum())
    taken = np.full(stop, -1, np.int64)
    rising = np.lexsort((options.value - cost, share))
    rising = rising[share[rising] > 1e-6]
    taken[options.open[rising]] = rising
    return Relaxed(max(0.0, bound) + 1e-9 * scale, options, taken)


def _options(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    memory: np.ndarray,
    room: np.ndarray,
    kept: np.ndarray,
    booted: np.ndarray,
    start: int,
    stop: int,
) -> Intervals:
    t = timeline.t[:stop]
    target = timeline.target[:stop]
    begin = max(start - 1, 0)  # the first decision that acts
    previous = _previous(target)
    back = config.offs(timeline)[1]
    starts, after, places = _and_at_wakes(*start_times(t, config, begin, stop), back[:stop], config, begin)
    rows: list[tuple[int, float, float, int, int]] = []
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
            g = lo + int(in_time[-1])
            rows.append((j, worth, float(memory[x]), _first_point(t, float(starts[g]), j), int(places[g])))
            found = True
        late = live[ready[live] > t[j]]
        for group in np.array_split(late, min(_MAX_LATE, len(late))) if len(late) else ():
            value = worth - (float(ready[group[0]]) - float(t[j]))
            if value > 0:
                first = _first_point(t, float(starts[lo + group[-1]]), j)
                rows.append((j, value, float(memory[x]), first, int(places[lo + group[0]])))
        closed = p >= 0 and t[p + 1] + config.close_after_s <= t[j]
        if not found and kept[j] and p >= booted[j] and not closed:
            rows.append((j, worth, float(memory[x]), min(j, max(p + 2, begin + 1)), -1))
    # What does not fit beside a target in front at all cannot fit in part.
    rows = [row for row in rows if row[3] > row[0] or row[2] <= room[row[3] : row[0] + 1].min()]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return Intervals(
        open=np.array(columns[0], np.int64),
        value=np.array(columns[1]),
        memory=np.array(columns[2]),
        first=np.array(columns[3], np.int64),
        start=np.array(columns[4], np.int64),
    )


def _there_before(timeline: Timeline, costs: Costs, config: WorldConfig, begin: int, stop: int) -> np.ndarray:
    """bool [stop], whether the target of each open may have been kept over the decision after event `begin`,
    before which no plan acts."""
    held = np.ones(len(costs), bool)
    if config.let_go != "expected":  # which would have to be told more
        everything = np.tile(np.arange(len(costs), dtype=np.int32), (begin + 1, 1))
        still = Plans.empty(1, 1)
        held = Case(timeline, costs, config, begin + 1, begin + 2).memory(everything, still)[0][0] > 0
    may: np.ndarray = held[timeline.target[:stop]] | (_previous(timeline.target[:stop]) > begin)
    return may


def _booted(off: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The first event since the machine was last switched on, for each event (0: it never was off)."""
    return np.maximum.accumulate(np.where(off < t[: len(off)], np.arange(len(off)), 0))


def _first_point(t: np.ndarray, s: float, j: int) -> int:
    """The first open k <= j before which an interval that begins at s is in memory for sure: t[k] > s.
    (j + 1, no point at all, where there is none.)"""
    return min(int(np.searchsorted(t, s, side="right")), j + 1)


def start_times(t: np.ndarray, config: WorldConfig, begin: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """All start times that a plan can ask for, sorted, and the decision of each."""
    decisions = np.arange(begin, max(begin, stop - 1))
    starts = (t[decisions][:, None] + np.array(config.delays)[None, :]).reshape(-1)
    owner = np.repeat(decisions, len(config.delays))
    order = np.lexsort((owner, starts))
    return starts[order], owner[order]


def _and_at_wakes(
    starts: np.ndarray, after: np.ndarray, back: np.ndarray, config: WorldConfig, begin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of `start_times`, and the start times that a plan can ask for at wakes; with the place of each in
    `start_times`, -1 for the latter. back: when the person was back before each event, infinite where the
    machine was never off."""
    woken = np.flatnonzero(np.isfinite(back[begin + 1 :])) + begin + 1
    more = (back[woken][:, None] + np.array(config.delays)[None, :]).reshape(-1)
    places = np.concatenate([np.arange(len(starts)), np.full(len(more), -1)])
    starts = np.concatenate([starts, more])
    after = np.concatenate([after, np.repeat(woken - 1, len(config.delays))])
    order = np.lexsort((after, starts))
    return starts[order], after[order], places[order]


def _previous(target: np.ndarray) -> np.ndarray:
    """Index of the open of the same target before each open, -1 where there is none."""
    last: dict[int, int] = {}
    out = np.full(len(target), -1, np.int64)
    for j, x in enumerate(target.tolist()):
        out[j] = last.get(x, -1)
        last[x] = j
    return out


def _solved(options: Intervals, room: np.ndarray, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The linear program's shadow prices of the capacities, >= 0, float64 [stop], and how much of each option
    it takes (0 of all where it could not be solved)."""
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
        return prices, np.ones(m)
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
    if result.status != 0:
        return prices, np.zeros(m)
    prices[crowded] = np.maximum(0.0, -result.ineqlin.marginals[: len(crowded)]) / scale
    return prices, result.x

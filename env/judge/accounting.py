"""The judge, compiled: the same arithmetic as `tests.reference.world`, bit for bit, on whole arrays of plans.

Three entrances: `replay` (one plan array over one timeline), `plan_effects` (every one of M alternatives at
each of D decisions, by forking the world) and `advance` for the Gymnasium environment's step. Importing
this module imports numba; the compiled code is cached on disk. No fastmath: the order of floating-point
operations is that of the reference.

State of one world, shared by all three:
    link    int64 [T+1, 3]  per target: next older, next newer, number of its unused prewarm or -1; the
                            first column is -1 for a target that is not resident; row T is the list's end
    when    float64 [T, 2]  per target: begin and ready, unix seconds
    base    int64 [T+1, 2]  the no-prewarm world's list, the same way
    due_t, due_code         binary heap of what is due: time, and START_CODE * (is a start) + number
    reg     float64 [4]     memory used, memory held unused, settled until, base memory used
    ireg    int64 [2]       foreground target, heap size
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from env.errors import InputError
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import (
    BASE_WAIT,
    HELD,
    HIT,
    LATE,
    N_FIELDS,
    N_HIT,
    N_LATE,
    N_REDUNDANT,
    N_WASTED,
    OPENS,
    PLANNED,
    POLLUTION,
    REDUNDANT,
    SAVED,
    WAIT,
    WASTED,
    WASTED_MB_S,
    Outcomes,
    Plans,
)
from env.timeline import Timeline

START_CODE = 1 << 40
USED, HELD_MB, SETTLED, BASE_USED = 0, 1, 2, 3
FOREGROUND, N_DUE = 0, 1
MEMORY, COLD, WARM, LOAD = 0, 1, 2, 3


class State(NamedTuple):
    """What is in memory, and what is due, in both worlds."""

    link: np.ndarray
    when: np.ndarray
    base: np.ndarray
    due_t: np.ndarray
    due_code: np.ndarray
    reg: np.ndarray
    ireg: np.ndarray


class Rules(NamedTuple):
    """Costs and rules of one world, as arrays."""

    cost: np.ndarray  # float64 [T, 4]: memory (at most the budget), cold, warm, load
    budget: float
    ttl: float
    delays: np.ndarray


class Ledger(NamedTuple):
    """Per prewarm (flat, by number): target, then what became of it."""

    target: np.ndarray
    outcome: np.ndarray
    mb_s: np.ndarray
    lead: np.ndarray


def rules(costs: Costs, config: WorldConfig) -> Rules:
    """The costs and rules as the compiled code wants them."""
    budget = config.budget(costs)
    memory = np.minimum(costs.memory_mb, budget)
    cost = np.ascontiguousarray(np.stack([memory, costs.cold_s, costs.warm_s, costs.load_s], axis=1))
    return Rules(cost, budget, float(config.ttl_s), np.array(config.delays, dtype=np.float64))


def new_state(n_targets: int, capacity: int) -> State:
    """An empty world for `n_targets`, with room for `capacity` things due (2 per prewarm)."""
    state = State(
        np.empty((n_targets + 1, 3), np.int64),
        np.zeros((max(n_targets, 1), 2)),
        np.empty((n_targets + 1, 2), np.int64),
        np.zeros(max(capacity, 1)),
        np.zeros(max(capacity, 1), np.int64),
        np.zeros(4),
        np.zeros(2, np.int64),
    )
    clear(state)
    return state


@njit(cache=True)
def clear(s):  # type: ignore[no-untyped-def]
    """Empty the world."""
    end = len(s.link) - 1
    s.link[:] = -1
    s.base[:] = -1
    s.link[end, 0] = end
    s.link[end, 1] = end
    s.base[end, 0] = end
    s.base[end, 1] = end
    s.reg[:] = 0.0
    s.ireg[0] = -1
    s.ireg[1] = 0


@njit(cache=True)
def copy_state(source, into):  # type: ignore[no-untyped-def]
    into.link[:] = source.link
    into.when[:] = source.when
    into.base[:] = source.base
    n = source.ireg[N_DUE]
    into.due_t[:n] = source.due_t[:n]
    into.due_code[:n] = source.due_code[:n]
    into.reg[:] = source.reg
    into.ireg[:] = source.ireg


@njit(cache=True)
def _push(s, t, code):  # type: ignore[no-untyped-def]
    i = s.ireg[N_DUE]
    s.ireg[N_DUE] = i + 1
    while i > 0:
        up = (i - 1) >> 1
        if s.due_t[up] < t or (s.due_t[up] == t and s.due_code[up] < code):
            break
        s.due_t[i] = s.due_t[up]
        s.due_code[i] = s.due_code[up]
        i = up
    s.due_t[i] = t
    s.due_code[i] = code


@njit(cache=True)
def _pop(s):  # type: ignore[no-untyped-def]
    n = s.ireg[N_DUE] - 1
    s.ireg[N_DUE] = n
    t = s.due_t[n]
    code = s.due_code[n]
    i = 0
    while True:
        down = 2 * i + 1
        if down >= n:
            break
        right = down + 1
        if right < n and (
            s.due_t[right] < s.due_t[down]
            or (s.due_t[right] == s.due_t[down] and s.due_code[right] < s.due_code[down])
        ):
            down = right
        if t < s.due_t[down] or (t == s.due_t[down] and code < s.due_code[down]):
            break
        s.due_t[i] = s.due_t[down]
        s.due_code[i] = s.due_code[down]
        i = down
    s.due_t[i] = t
    s.due_code[i] = code


@njit(cache=True)
def _to_front(link, x):  # type: ignore[no-untyped-def]
    """Make x the most recently used; x may be new."""
    end = len(link) - 1
    older = link[x, 0]
    if older >= 0:
        newer = link[x, 1]
        link[newer, 0] = older
        link[older, 1] = newer
    first = link[end, 0]
    link[x, 0] = first
    link[x, 1] = end
    link[first, 1] = x
    link[end, 0] = x


@njit(cache=True)
def _unlink(link, x):  # type: ignore[no-untyped-def]
    older = link[x, 0]
    newer = link[x, 1]
    link[newer, 0] = older
    link[older, 1] = newer
    link[x, 0] = -1


@njit(cache=True)
def _settle(s, t, record):  # type: ignore[no-untyped-def]
    record[HELD] += s.reg[HELD_MB] * (t - s.reg[SETTLED])
    s.reg[SETTLED] = t


@njit(cache=True)
def _waste(s, r, book, x, t, record):  # type: ignore[no-untyped-def]
    mb_s = r.cost[x, MEMORY] * (t - s.when[x, 0])
    number = s.link[x, 2]
    s.reg[HELD_MB] -= r.cost[x, MEMORY]
    book.outcome[number] = WASTED
    book.mb_s[number] = mb_s
    record[N_WASTED] += 1.0
    record[WASTED_MB_S] += mb_s
    s.link[x, 2] = -1


@njit(cache=True)
def _evict(s, r, book, x, t, record):  # type: ignore[no-untyped-def]
    if s.link[x, 2] >= 0:
        _settle(s, t, record)
        _waste(s, r, book, x, t, record)
    s.reg[USED] -= r.cost[x, MEMORY]
    _unlink(s.link, x)


@njit(cache=True)
def _start(s, r, book, x, number, t, record):  # type: ignore[no-untyped-def]
    if s.link[x, 0] >= 0:
        book.outcome[number] = REDUNDANT
        record[N_REDUNDANT] += 1.0
        return
    memory = r.cost[x, MEMORY]
    front = s.ireg[FOREGROUND]
    if front >= 0 and memory + r.cost[front, MEMORY] > r.budget:
        book.outcome[number] = WASTED
        record[N_WASTED] += 1.0
        return
    _settle(s, t, record)
    end = len(s.link) - 1
    while s.reg[USED] + memory > r.budget:
        old = s.link[end, 1]
        if old == front:
            old = s.link[old, 1]
        _evict(s, r, book, old, t, record)
    s.reg[USED] += memory
    s.reg[HELD_MB] += memory
    s.when[x, 0] = t
    ready = t + r.cost[x, LOAD]
    s.when[x, 1] = ready
    s.link[x, 2] = number
    _to_front(s.link, x)
    _push(s, ready + r.ttl, number)


@njit(cache=True)
def _advance(s, r, book, t, record):  # type: ignore[no-untyped-def]
    while s.ireg[N_DUE] > 0 and s.due_t[0] <= t:
        when = s.due_t[0]
        code = s.due_code[0]
        _pop(s)
        if code >= START_CODE:
            number = code - START_CODE
            _start(s, r, book, book.target[number], number, when, record)
        else:
            x = book.target[code]
            if s.link[x, 0] >= 0 and s.link[x, 2] == code:
                _evict(s, r, book, x, when, record)


@njit(cache=True)
def _open_base(s, r, x):  # type: ignore[no-untyped-def]
    warm = s.base[x, 0] >= 0
    _to_front(s.base, x)
    if not warm:
        s.reg[BASE_USED] += r.cost[x, MEMORY]
        end = len(s.base) - 1
        while s.reg[BASE_USED] > r.budget:
            old = s.base[end, 1]
            _unlink(s.base, old)
            s.reg[BASE_USED] -= r.cost[old, MEMORY]
    return warm


@njit(cache=True)
def open_target(s, r, book, x, t, record):  # type: ignore[no-untyped-def]
    """The user opens x at t: process what is due, account for the wait, make room."""
    _advance(s, r, book, t, record)
    _settle(s, t, record)
    base_warm = _open_base(s, r, x)
    base_wait = r.cost[x, WARM] if base_warm else r.cost[x, COLD]
    warm = False
    if s.link[x, 0] < 0:
        wait = r.cost[x, COLD]
        s.reg[USED] += r.cost[x, MEMORY]
        s.link[x, 2] = -1
        s.when[x, 0] = t
    else:
        ready = s.when[x, 1]
        warm = ready <= t
        wait = r.cost[x, WARM]
        if not warm:
            wait = min(r.cost[x, COLD], r.cost[x, WARM] + (ready - t))
        number = s.link[x, 2]
        if number >= 0:
            s.link[x, 2] = -1
            s.reg[HELD_MB] -= r.cost[x, MEMORY]
            book.mb_s[number] = r.cost[x, MEMORY] * (t - s.when[x, 0])
            if base_warm:
                book.outcome[number] = REDUNDANT
                record[N_REDUNDANT] += 1.0
            else:
                if warm:
                    book.outcome[number] = HIT
                    record[N_HIT] += 1.0
                else:
                    book.outcome[number] = LATE
                    record[N_LATE] += 1.0
                book.lead[number] = t - s.when[x, 0]
    s.when[x, 1] = t
    _to_front(s.link, x)
    s.ireg[FOREGROUND] = x
    end = len(s.link) - 1
    while s.reg[USED] > r.budget:
        _evict(s, r, book, s.link[end, 1], t, record)
    record[OPENS] += 1.0
    record[BASE_WAIT] += base_wait
    record[WAIT] += wait
    record[SAVED] += base_wait - wait
    if base_warm and not warm:
        record[POLLUTION] += 1.0


@njit(cache=True)
def plan_prewarm(s, r, book, number, delay, t, record):  # type: ignore[no-untyped-def]
    """Ask for prewarm `number` (its target stands in the ledger) `delay` seconds after t."""
    record[PLANNED] += 1.0
    start = t + delay
    if start <= t:  # everything due until t has been processed, so it is its turn
        _start(s, r, book, book.target[number], number, t, record)
    else:
        _push(s, start, START_CODE + number)


@njit(cache=True)
def finish(s, r, book, record):  # type: ignore[no-untyped-def]
    """The recording ends: what is still unused is wasted."""
    end = len(s.link) - 1
    x = s.link[end, 1]
    while x != end:
        newer = s.link[x, 1]
        if s.link[x, 2] >= 0:
            _waste(s, r, book, x, s.reg[SETTLED], record)
        x = newer
    for i in range(s.ireg[N_DUE]):
        if s.due_code[i] >= START_CODE:
            book.outcome[s.due_code[i] - START_CODE] = WASTED
            record[N_WASTED] += 1.0
    s.ireg[N_DUE] = 0


@njit(cache=True)
def _replay(s, r, book, t, target, delay, picks, start, stop, table):  # type: ignore[no-untyped-def]
    scratch = np.zeros(table.shape[1])
    for j in range(stop):
        record = table[j] if j >= start else scratch
        open_target(s, r, book, target[j], t[j], record)
        if start - 1 <= j < stop - 1:
            after = table[j + 1]
            for number in range(j * picks, (j + 1) * picks):
                if book.target[number] >= 0:
                    plan_prewarm(s, r, book, number, r.delays[delay[number]], t[j], after)
    if stop > start:
        scratch[:] = 0.0
        finish(s, r, book, scratch)
        table[stop - 1] += scratch


def replay(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    plans: Plans,
    *,
    start: int = 0,
    stop: int | None = None,
) -> Outcomes:
    """Replay a timeline under `plans` ([n, K]); equal to `tests.reference.world.replay` bit for bit.

    Opens start..stop-1 are counted, and the plans of decisions start-1..stop-2 act; earlier events only
    warm the world. What is unused at the end is wasted at open stop-1. Raises InputError for plans or a
    window that do not fit the timeline.
    """
    n = len(timeline)
    stop = n if stop is None else stop
    if not 0 <= start <= stop <= n:
        raise InputError(f"window {start}..{stop} does not fit {n} events")
    plans = plans.checked((n,), len(costs), len(config.delays))
    shape = plans.target.shape
    table = np.zeros((n, N_FIELDS))
    outcome = np.zeros(shape, np.int8)
    mb_s = np.zeros(shape)
    lead = np.full(shape, np.nan)
    book = Ledger(plans.target.reshape(-1), outcome.reshape(-1), mb_s.reshape(-1), lead.reshape(-1))
    state = new_state(len(costs), 2 * plans.count())
    _replay(state, rules(costs, config), book, timeline.t, timeline.target, plans.delay.reshape(-1),
            shape[1], start, stop, table)  # fmt: skip
    return Outcomes(table, outcome, mb_s, lead, start, stop)


@njit(cache=True)
def resolved(target, outcome, own):  # type: ignore[no-untyped-def]
    """Whether it is known of every prewarm from number `own` on what became of it (columns of a ledger)."""
    for number in range(own, len(target)):  # noqa: SIM110 (compiled)
        if target[number] >= 0 and outcome[number] == 0:
            return False
    return True


@njit(cache=True)
def same(a, b):  # type: ignore[no-untyped-def]
    """Whether two worlds hold the same targets in the same order, all of them settled."""
    end = len(a.link) - 1
    x = a.link[end, 0]
    y = b.link[end, 0]
    while x == y and x != end:
        if a.link[x, 2] != b.link[x, 2] or a.when[x, 1] != b.when[x, 1]:
            return False
        x = a.link[x, 0]
        y = b.link[y, 0]
    return x == y


@njit(cache=True)
def _score(s, a, b, r, book, t, target, delay, picks, alt_target, alt_delay, indices, horizon, out):  # type: ignore[no-untyped-def]
    n = len(t)
    waste = np.zeros(out.shape[2])
    alt_picks = alt_target.shape[2]
    own = n * picks
    d = 0
    for i in range(n):
        if d >= len(indices):
            break
        open_target(s, r, book, target[i], t[i], waste)
        while d < len(indices) and indices[d] == i:
            for m in range(alt_target.shape[1]):
                acc = out[d, m]
                asked = 0
                for k in range(alt_picks):
                    book.target[own + k] = alt_target[d, m, k]
                    book.outcome[own + k] = 0
                    asked += alt_target[d, m, k] >= 0
                if asked == 0:
                    continue
                copy_state(s, a)
                copy_state(s, b)
                waste[:] = 0.0
                for k in range(alt_picks):
                    if alt_target[d, m, k] >= 0:
                        plan_prewarm(a, r, book, own + k, r.delays[alt_delay[d, m, k]], t[i], acc)
                stop = t[i] + horizon
                converged = False
                for j in range(i + 1, n):
                    if t[j] > stop:
                        break
                    open_target(a, r, book, target[j], t[j], acc)
                    open_target(b, r, book, target[j], t[j], waste)
                    if resolved(book.target, book.outcome, own) and same(a, b):
                        converged = True
                        break
                    for number in range(j * picks, (j + 1) * picks):
                        if book.target[number] >= 0 and j < n - 1:
                            seconds = r.delays[delay[number]]
                            plan_prewarm(a, r, book, number, seconds, t[j], acc)
                            plan_prewarm(b, r, book, number, seconds, t[j], waste)
                if not converged:
                    until = min(stop, t[n - 1])
                    _advance(a, r, book, until, acc)
                    _settle(a, until, acc)
                    _advance(b, r, book, until, waste)
                    _settle(b, until, waste)
                    if stop >= t[n - 1]:
                        finish(a, r, book, acc)
                        finish(b, r, book, waste)
                acc -= waste
            d += 1
        if i < n - 1:
            for number in range(i * picks, (i + 1) * picks):
                if book.target[number] >= 0:
                    plan_prewarm(s, r, book, number, r.delays[delay[number]], t[i], waste)


def shared_ledger(plans: Plans, more: int) -> Ledger:
    """A ledger for a world and its forks: the prewarms of `plans` [n, K], then `more` of an alternative. Only
    what became of the alternative's is ever read, so that all of them may write into it."""
    size = plans.target.size + more
    target = np.concatenate([plans.target.reshape(-1), np.full(more, -1, np.int32)])
    return Ledger(target, np.zeros(size, np.int8), np.zeros(size), np.zeros(size))


def plan_effects(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    indices: np.ndarray,
    plans: Plans,
    base: Plans | None = None,
    horizon_s: float | None = None,
) -> np.ndarray:
    """What each alternative plan changes: float64 [D, M, len(FIELDS)], in the units of the fields.

    For decision `indices[d]` and alternative m, the world is forked after event `indices[d]` (its past
    under `base`, or without prewarms): one copy does `plans[d, m]`, the other keeps still, both follow
    `base` afterwards. The difference of their records is summed until the two copies are the same again,
    but over no more than `horizon_s` seconds (None: the longest delay + the longest load + ttl, by when every
    prewarm of the plan is resolved; what it evicted may be missed later still, and `math.inf` waits for
    that). Keeping still is 0 by definition. indices: sorted or not; plans: [D, M, K].
    Raises InputError for indices or plans that do not fit.
    """
    n = len(timeline)
    indices = np.asarray(indices, dtype=np.int64)
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise InputError(f"decision indices lie outside 0..{n - 1}")
    if plans.target.ndim != 3 or len(plans.target) != len(indices):
        raise InputError(f"plans have shape {plans.target.shape}; expected ({len(indices)}, M, K)")
    plans = plans.checked(plans.target.shape[:2], len(costs), len(config.delays))
    base = Plans.empty(n, 1) if base is None else base
    base = base.checked((n,), len(costs), len(config.delays))
    order = np.argsort(indices, kind="stable")
    picks, alt_picks = base.target.shape[1], plans.target.shape[2]
    book = shared_ledger(base, alt_picks)
    capacity = 2 * (base.count() + alt_picks)
    now, done, still = (new_state(len(costs), capacity) for _ in range(3))
    horizon = max(config.delays) + (float(costs.load_s.max()) if len(costs) else 0.0) + config.ttl_s
    horizon = horizon if horizon_s is None else float(horizon_s)
    out = np.zeros((len(indices), plans.target.shape[1], N_FIELDS))
    _score(now, done, still, rules(costs, config), book, timeline.t, timeline.target,
           base.delay.reshape(-1), picks, plans.target[order], plans.delay[order], indices[order], horizon,
           out)  # fmt: skip
    effects = np.empty_like(out)
    effects[order] = out
    return effects

"""The judge, compiled: the same arithmetic as `tests.reference.world`, bit for bit, on whole arrays of plans.

What happens to a world is said here (`open_event`, `plan_prewarm`, `let_go`, `finish`), and `replay` does it
for one plan array over one timeline. `env.judge.effects` and `env.judge.credit` fork such worlds,
`env.gym.stepper` walks one open by open. No fastmath: the order of floating-point operations is that of the
reference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from env.compiled import compiled, inlined
from env.errors import InputError
from env.judge import let_go
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import (
    BASE_COLD,
    BASE_WAIT,
    COLD_OPENS,
    HELD,
    HIT,
    KEPT,
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
from env.judge.state import (
    BASE_USED,
    BEGIN,
    COLD,
    EVENT,
    EXPECTED,
    FOREGROUND,
    HELD_MB,
    IN_FRONT,
    LOAD,
    LRU,
    MARKS,
    MEMORY,
    N_DUE,
    NUMBER,
    READY,
    SETTLED,
    START_CODE,
    USED,
    WAKE_CODE,
    WARM,
    Ledger,
    new_state,
    pop,
    push,
    rules,
    to_front,
    unlink,
)
from env.timeline import Timeline

T, OFF, NEXT_USE = 0, 1, 2


class Course(NamedTuple):
    """What one timeline does to a world.

    clock float64 [n, 3]: when each target is opened (T), when the machine was switched off since the open
    before (OFF, infinite: it was not), and when the target is opened next (NEXT_USE, for belady). target
    int32 [n]. told float64 [n, 2 V]: for expected, V targets (-1: none) and then the chance of each of being
    opened soon, after event j. wake float64 [n]: when the person was back after the off before each open,
    infinite where there was none; empty where nothing is ever switched off.
    """

    clock: np.ndarray
    target: np.ndarray
    told: np.ndarray
    wake: np.ndarray


def course(
    timeline: Timeline, config: WorldConfig, worth: tuple[np.ndarray, np.ndarray] | None = None
) -> Course:
    """What `timeline` does to a world of these rules. worth: for the let-go rule `expected`, targets int32
    [n, V] (-1: none) and the chance of each of being opened soon, after each event, float64 [n, V].

    Raises InputError where `expected` is asked for without them.
    """
    t, target = timeline.t, timeline.target
    clock, wake = np.full((len(t), 3), np.inf), np.zeros(0)
    clock[:, T] = t
    if np.isfinite(config.off_after_s) or len(timeline.offs) or len(timeline.wakes):
        clock[:, OFF], wake = config.offs(timeline)
    if config.let_go == "belady":
        after = np.full(len(timeline.names), np.inf)
        for j in range(len(t) - 1, -1, -1):
            clock[j, NEXT_USE] = after[target[j]]
            after[target[j]] = t[j]
    if config.let_go == "expected" and worth is None:
        raise InputError(
            "the let-go rule 'expected' needs a policy that says who is opened soon, and nobody does here; "
            "take another rule"
        )
    told = np.zeros((0, 0)) if worth is None else np.concatenate(worth, axis=1).astype(np.float64)
    return Course(clock, target, np.ascontiguousarray(told), wake)


@compiled
def settle(s, t, record):  # type: ignore[no-untyped-def]
    record[HELD] += s.reg[HELD_MB] * (t - s.reg[SETTLED])
    s.reg[SETTLED] = t


@compiled
def _waste(s, r, book, x, t, record):  # type: ignore[no-untyped-def]
    mb_s = r.cost[x, MEMORY] * (t - s.when[x, BEGIN])
    number = s.link[x, 2]
    s.reg[HELD_MB] -= r.cost[x, MEMORY]
    book.outcome[number] = WASTED
    book.mb_s[number] = mb_s
    record[N_WASTED] += 1.0
    record[WASTED_MB_S] += mb_s
    s.link[x, 2] = -1


@compiled
def _leave(s, r, book, x, t, record):  # type: ignore[no-untyped-def]
    if s.link[x, 2] >= 0:
        settle(s, t, record)
        _waste(s, r, book, x, t, record)
    s.reg[USED] -= r.cost[x, MEMORY]
    unlink(s.link, x)
    if r.let_go != LRU:
        let_go.left(s, r, x)


@inlined
def _leave_base(s, r, x):  # type: ignore[no-untyped-def]
    unlink(s.base, x)
    s.reg[BASE_USED] -= r.cost[x, MEMORY]


@compiled
def _close(s, r, book, t, record):  # type: ignore[no-untyped-def]
    """The user has closed what was not in front for so long. (Nobody waits for it: it may be done late.)"""
    end = len(s.link) - 1
    front = s.ireg[FOREGROUND]
    x = s.link[end, 1]
    while x != end:
        newer = s.link[x, 1]
        if x != front and s.link[x, 2] < 0 and s.when[x, IN_FRONT] + r.close_after <= t:
            _leave(s, r, book, x, t, record)
        x = newer
    x = s.base[end, 1]
    while x != end:
        newer = s.base[x, 1]
        if x != front and s.when[x, IN_FRONT] + r.close_after <= t:
            _leave_base(s, r, x)
        x = newer


@inlined
def _who_leaves(s, r, protected):  # type: ignore[no-untyped-def]
    """Who leaves now; the usual case without a call, which would cost more than the rest."""
    if r.let_go == LRU and len(s.ireg) == MARKS:
        x = s.link[len(s.link) - 1, 1]
        if x == protected:
            x = s.link[x, 1]
    else:
        x = let_go.next_to_leave(s, r, protected)
    return x


@compiled
def _start(s, r, book, x, number, t, record):  # type: ignore[no-untyped-def]
    if r.close_after != np.inf:
        _close(s, r, book, t, record)
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
    settle(s, t, record)
    if r.let_go != LRU:
        let_go.wanted(s, r, x)
    while s.reg[USED] + memory > r.budget:
        _leave(s, r, book, _who_leaves(s, r, front), t, record)
    s.reg[USED] += memory
    s.reg[HELD_MB] += memory
    s.when[x, BEGIN] = t
    ready = t + r.cost[x, LOAD]
    s.when[x, READY] = ready
    s.link[x, 2] = number
    to_front(s.link, x)
    if r.let_go != LRU:
        let_go.came_in(s, r, x)
    push(s, ready + r.ttl, number)


@compiled
def advance(s, r, book, t, record):  # type: ignore[no-untyped-def]
    """What is due at or before t happens."""
    while s.ireg[N_DUE] > 0 and s.due_t[0] <= t:
        when = s.due_t[0]
        code = s.due_code[0]
        pop(s)
        if code >= START_CODE:
            number = code & NUMBER
            _start(s, r, book, np.int64(book.target[number]), number, when, record)
        else:
            x = np.int64(book.target[code])
            if s.link[x, 0] >= 0 and s.link[x, 2] == code:
                _leave(s, r, book, x, when, record)


@compiled
def switch_off(s, r, book, t, record):  # type: ignore[no-untyped-def]
    """The machine is off at t: nothing is resident any more, and what was due is not done."""
    advance(s, r, book, t, record)
    settle(s, t, record)
    end = len(s.link) - 1
    while s.link[end, 1] != end:
        _leave(s, r, book, s.link[end, 1], t, record)
    while s.base[end, 1] != end:
        _leave_base(s, r, s.base[end, 1])
    _cancel(s, book, record)
    s.ireg[FOREGROUND] = -1
    s.ireg[MARKS:] = -1


@compiled
def _cancel(s, book, record):  # type: ignore[no-untyped-def]
    """What was due is not done; what waits for the wake is due then, like anything else."""
    n = s.ireg[N_DUE]
    s.ireg[N_DUE] = 0
    for i in range(n):  # (what is pushed never overtakes what is read)
        if s.due_code[i] >= WAKE_CODE:
            push(s, s.due_t[i], s.due_code[i] - WAKE_CODE)
        elif s.due_code[i] >= START_CODE:
            book.outcome[s.due_code[i] & NUMBER] = WASTED
            record[N_WASTED] += 1.0


@compiled
def open_base(s, r, x):  # type: ignore[no-untyped-def]
    warm = s.base[x, 0] >= 0
    to_front(s.base, x)
    if not warm:
        s.reg[BASE_USED] += r.cost[x, MEMORY]
        end = len(s.base) - 1
        while s.reg[BASE_USED] > r.budget:
            _leave_base(s, r, s.base[end, 1])
    return warm


@compiled
def _open(s, r, book, told, j, x, t, off, next_use, record):  # type: ignore[no-untyped-def]
    if off < t:
        switch_off(s, r, book, off, record)
    advance(s, r, book, t, record)
    settle(s, t, record)
    front = s.ireg[FOREGROUND]
    if front >= 0:
        s.when[front, IN_FRONT] = t
    if r.close_after != np.inf:
        _close(s, r, book, t, record)
    s.ireg[EVENT] = j
    if r.let_go == EXPECTED:
        let_go.told(s, told, j)
    base_warm = open_base(s, r, x)
    base_wait = r.cost[x, WARM] if base_warm else r.cost[x, COLD]
    resident = s.link[x, 0] >= 0
    if r.let_go != LRU:
        let_go.opened(s, r, x, j, next_use, resident)
    warm = False
    if not resident:
        wait = r.cost[x, COLD]
        record[COLD_OPENS] += 1.0
        if r.let_go != LRU:
            let_go.wanted(s, r, x)
        while s.reg[USED] + r.cost[x, MEMORY] > r.budget:
            _leave(s, r, book, _who_leaves(s, r, np.int64(-1)), t, record)
        s.reg[USED] += r.cost[x, MEMORY]
        s.link[x, 2] = -1
        s.when[x, BEGIN] = t
    else:
        ready = s.when[x, READY]
        warm = ready <= t
        wait = r.cost[x, WARM]
        if not warm:
            wait = min(r.cost[x, COLD], r.cost[x, WARM] + (ready - t))
        number = s.link[x, 2]
        if number >= 0:
            s.link[x, 2] = -1
            s.reg[HELD_MB] -= r.cost[x, MEMORY]
            book.mb_s[number] = r.cost[x, MEMORY] * (t - s.when[x, BEGIN])
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
                book.lead[number] = t - s.when[x, BEGIN]
        elif not base_warm:
            record[KEPT] += 1.0
    s.when[x, READY] = t
    to_front(s.link, x)
    if r.let_go != LRU and not resident:
        let_go.came_in(s, r, x)
    s.ireg[FOREGROUND] = x
    record[OPENS] += 1.0
    record[BASE_WAIT] += base_wait
    record[WAIT] += wait
    record[SAVED] += base_wait - wait
    if not base_warm:
        record[BASE_COLD] += 1.0
    elif not warm:
        record[POLLUTION] += 1.0


@compiled
def sleep(s, r, w, book, j, record):  # type: ignore[no-untyped-def]
    """Go on to the wake before event j: the machine was off, and the person is back."""
    switch_off(s, r, book, w.clock[j, OFF], record)
    advance(s, r, book, w.wake[j], record)
    settle(s, w.wake[j], record)


@inlined
def open_woken(s, r, w, book, j, record):  # type: ignore[no-untyped-def]
    """Event j, after `sleep`: as `open_event`, but the machine is on already."""
    x = np.int64(w.target[j])
    _open(s, r, book, w.told, j, x, w.clock[j, T], np.inf, w.clock[j, NEXT_USE], record)


@inlined
def open_event(s, r, w, book, j, record):  # type: ignore[no-untyped-def]
    """Event j: process what is due, account for the wait of its target, make room."""
    x = np.int64(w.target[j])  # of one type everywhere, or all is compiled twice
    _open(s, r, book, w.told, j, x, w.clock[j, T], w.clock[j, OFF], w.clock[j, NEXT_USE], record)


@compiled
def plan_let_go(s, names):  # type: ignore[no-untyped-def]
    """A decision says who leaves first: `names`, -1 for nobody; they stand until the next decision."""
    for k in range(len(s.ireg) - MARKS):
        s.ireg[MARKS + k] = names[k] if k < len(names) else -1


@compiled
def plan_nobody(s):  # type: ignore[no-untyped-def]
    """A decision that lets nobody go first."""
    for k in range(MARKS, len(s.ireg)):
        s.ireg[k] = -1


@compiled
def plan_prewarm(s, r, book, number, delay, t, record):  # type: ignore[no-untyped-def]
    """Ask for prewarm `number` (its target stands in the ledger) `delay` seconds after t."""
    record[PLANNED] += 1.0
    start = t + delay
    if start <= t:  # everything due until t has been processed, so it is its turn
        _start(s, r, book, np.int64(book.target[number]), number, t, record)
    else:
        push(s, start, START_CODE + number)


@inlined
def wake_after(w, i):  # type: ignore[no-untyped-def]
    """When the person is back if the machine is switched off between event i and the next; else infinite."""
    return w.wake[i + 1] if i + 1 < len(w.wake) else np.inf


@compiled
def plan_at_wake(s, r, number, delay, wake, record):  # type: ignore[no-untyped-def]
    """Ask for prewarm `number` `delay` seconds after a wake of `wake_after`, if there is one."""
    if wake != np.inf:
        record[PLANNED] += 1.0
        push(s, wake + delay, WAKE_CODE + START_CODE + number)


@inlined
def plan_pick(s, r, w, book, number, code, i, record):  # type: ignore[no-untyped-def]
    """Ask after event i for prewarm `number`, at a delay as in `Plans`."""
    if code >= 0:
        plan_prewarm(s, r, book, number, r.delays[code], w.clock[i, T], record)
    else:
        plan_at_wake(s, r, number, r.delays[-1 - code], wake_after(w, i), record)


@compiled
def finish(s, r, book, record):  # type: ignore[no-untyped-def]
    """The recording ends: what is still unused is wasted."""
    end = len(s.link) - 1
    x = s.link[end, 1]
    while x != end:
        newer = s.link[x, 1]
        if s.link[x, 2] >= 0:
            _waste(s, r, book, x, s.reg[SETTLED], record)
        x = newer
    _cancel(s, book, record)


@compiled
def _replay(s, r, w, book, delay, names, picks, start, stop, table, scratch):  # type: ignore[no-untyped-def]
    let_go.begin(s, r, w)
    for j in range(stop):
        record = table[j] if j >= start else scratch
        open_event(s, r, w, book, j, record)
        if start - 1 <= j < stop - 1:
            after = table[j + 1]
            if len(s.ireg) > MARKS:
                plan_let_go(s, names[j])
            for number in range(j * picks, (j + 1) * picks):
                if book.target[number] >= 0:
                    plan_pick(s, r, w, book, number, delay[number], j, after)
    if stop > start:
        scratch[:] = 0.0
        finish(s, r, book, scratch)
        for f in range(len(scratch)):
            table[stop - 1, f] += scratch[f]


def replay(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    plans: Plans,
    *,
    start: int = 0,
    stop: int | None = None,
    worth: tuple[np.ndarray, np.ndarray] | None = None,
) -> Outcomes:
    """Replay a timeline under `plans` ([n, K]); equal to `tests.reference.world.replay` bit for bit.

    Opens start..stop-1 are counted, and the plans of decisions start-1..stop-2 act; earlier events only
    warm the world. What is unused at the end is wasted at open stop-1. worth: see `course`.
    Raises InputError for plans or a window that do not fit the timeline.
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
    r = rules(costs, config)
    state = new_state(len(costs), 2 * plans.count(), r.let_go, plans.let_go.shape[1])
    _replay(state, r, course(timeline, config, worth), book, plans.delay.reshape(-1), plans.let_go,
            shape[1], start, stop, table, np.zeros(N_FIELDS))  # fmt: skip
    return Outcomes(table, outcome, mb_s, lead, start, stop)

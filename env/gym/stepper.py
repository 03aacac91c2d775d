"""One environment step, compiled: do the plan, open the next target, read the memory.

Split from `env.judge.accounting` only because the environment walks one open at a time; the accounting is the
kernel's own functions, so a step cannot differ from a replay.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from env.judge import let_go
from env.judge.accounting import (
    WAKE,
    Course,
    T,
    finish,
    open_base,
    open_event,
    open_woken,
    plan_prewarm,
    sleep,
)
from env.judge.state import (
    BASE_USED,
    BEGIN,
    COLD,
    EVENT,
    FOREGROUND,
    HELD_MB,
    IN_FRONT,
    MARKS,
    MEMORY,
    N_DUE,
    READY,
    SETTLED,
    START_CODE,
    USED,
    WARM,
    Ledger,
    Rules,
    State,
    clear,
    to_front,
)

N_MEMORY = 3  # free, held unused, foreground: shares of the budget
RESIDENT_COLUMNS = (
    "present", "in_front", "unused", "loading", "memory_share", "hit_saving", "log_seconds_unused",
    "slate_place",
)  # fmt: skip


@njit(cache=True)
def warm_starts(target, cost, budget, delays, starts):  # type: ignore[no-untyped-def]
    """Who is resident, without prewarms, after each of the events `starts` (sorted int64 [E]), where the
    least recently used leaves and nothing is switched off or closed.

    Returns (offsets int64 [E + 1], targets int32, least recently used first in each slice).
    """
    n_targets = len(cost)
    s = State(
        np.empty((n_targets + 1, 3), np.int64),
        np.zeros((n_targets + 1, 3)),
        np.empty((n_targets + 1, 2), np.int64),
        np.zeros(1),
        np.zeros(1, np.int64),
        np.zeros(4),
        np.zeros(MARKS, np.int64),
        np.zeros((3, 4), np.int64),
    )
    clear(s)
    r = Rules(cost, budget, 1.0, delays, 0, np.inf)
    offsets = np.zeros(len(starts) + 1, np.int64)
    out = np.empty(16 * len(starts) + n_targets, np.int32)
    size = 0
    e = 0
    for i in range(len(target)):
        open_base(s, r, target[i])
        while e < len(starts) and starts[e] == i:
            if size + n_targets > len(out):
                bigger = np.empty(2 * len(out) + n_targets, np.int32)
                bigger[:size] = out[:size]
                out = bigger
            x = s.base[n_targets, 1]
            while x != n_targets:
                out[size] = x
                size += 1
                x = s.base[x, 1]
            e += 1
            offsets[e] = size
    return offsets, out[:size].copy()


@njit(cache=True)
def begin(s, r, w, residents, i):  # type: ignore[no-untyped-def]
    """Put the world into the state after event i: `residents` warm (least recently used first)."""
    clear(s)
    used, t = 0.0, w.clock[i, T]
    for x in residents:
        to_front(s.link, x)
        to_front(s.base, x)
        for column in range(3):
            s.when[x, column] = t
        used += r.cost[x, MEMORY]
    s.reg[USED] = used
    s.reg[BASE_USED] = used
    s.reg[SETTLED] = t
    s.ireg[FOREGROUND] = w.target[i]
    s.ireg[EVENT] = i
    # When the others were last in front: when what was opened after them came.
    unknown = len(residents) - 1
    for j in range(i - 1, -1, -1):
        if unknown <= 0:
            break
        x = w.target[j]
        if x != w.target[i] and s.link[x, 0] >= 0 and s.when[x, IN_FRONT] == t:
            s.when[x, IN_FRONT] = w.clock[j + 1, T]
            unknown -= 1


@njit(cache=True)
def retrace(s, r, w, book, i, record):  # type: ignore[no-untyped-def]
    """The state after event i, from the first event on, without prewarms. record: scratch."""
    clear(s)
    let_go.begin(s, r, w)
    for j in range(i + 1):
        open_event(s, r, w, book, j, record)


@njit(cache=True)
def observe(link, when, due_code, reg, ireg, cost, budget, book_target, candidates, t, place, out):  # type: ignore[no-untyped-def]
    """Fill `out` (float32 [3 C + N_MEMORY]): warm, loading and scheduled flags of the slate, then memory.

    place: int64 [n_targets] of scratch, -1 everywhere before and after.
    """
    n = len(candidates)
    out[:] = 0.0
    for c in range(n):
        x = candidates[c]
        if x >= 0:
            place[x] = c
            if link[x, 0] >= 0:
                out[c if when[x, READY] <= t else n + c] = 1.0
    for d in range(ireg[N_DUE]):
        if due_code[d] >= START_CODE:
            c = place[book_target[due_code[d] - START_CODE]]
            if c >= 0:
                out[2 * n + c] = 1.0
    for c in range(n):
        if candidates[c] >= 0:
            place[candidates[c]] = -1
    out[3 * n] = 1.0 - reg[USED] / budget
    out[3 * n + 1] = reg[HELD_MB] / budget
    if ireg[FOREGROUND] >= 0:
        out[3 * n + 2] = cost[ireg[FOREGROUND], MEMORY] / budget


@njit(cache=True)
def observe_residents(link, when, ireg, cost, budget, candidates, t, out):  # type: ignore[no-untyped-def]
    """Fill `out`, float32 [M, len(RESIDENT_COLUMNS)]: who is resident, least recently used first."""
    out[:] = 0.0
    end = len(link) - 1
    x = link[end, 1]
    for m in range(len(out)):
        if x == end:
            break
        front = x == ireg[FOREGROUND]
        unused = link[x, 2] >= 0
        since = 0.0 if front else t - (when[x, BEGIN] if unused else when[x, IN_FRONT])
        out[m, 0] = 1.0
        out[m, 1] = front
        out[m, 2] = unused
        out[m, 3] = when[x, READY] > t
        out[m, 4] = cost[x, MEMORY] / budget
        out[m, 5] = min(1.0, (cost[x, COLD] - cost[x, WARM]) / 10.0)
        out[m, 6] = min(1.0, np.log1p(since) / 20.0)
        for c in range(len(candidates)):
            if candidates[c] == x:
                out[m, 7] = (c + 1) / len(candidates)
        x = link[x, 1]


@njit(cache=True)
def step(  # type: ignore[no-untyped-def]
    link, when, base, due_t, due_code, reg, ireg, queue,
    cost, delays, numbers, book_target, book_outcome, book_mb_s, book_lead,
    clock, target, candidates, weights, place, action, i, first, last, record, out,
):  # fmt: skip
    """Decide `action` after event i and open event i + 1; the episode ends with event `last`.

    numbers: budget, ttl, let-go rule, close_after, rows of residents; one array, because handing over many
    numbers takes longer than what is done with them. action: int64 [2 picks + R]: `picks` pairs of a place in
    the slate and a delay, then R places among the first rows of those that are resident, least recently used
    first; 0 for nobody. Fills record (float64 [len(FIELDS)]) and out (see `observe`); returns the reward, or
    NaN for an action outside the action space, which changes nothing.
    """
    picks = (len(action) - (len(ireg) - MARKS)) // 2
    for k in range(picks):
        if not (0 <= action[2 * k] <= candidates.shape[1] and 0 <= action[2 * k + 1] < len(delays)):
            return np.nan
    for k in range(2 * picks, len(action)):
        if not 0 <= action[k] <= numbers[4]:
            return np.nan
    s = State(link, when, base, due_t, due_code, reg, ireg, queue)
    r = Rules(cost, numbers[0], numbers[1], delays, int(numbers[2]), numbers[3])
    w = Course(clock, target, cost)  # nobody is told anything here
    book = Ledger(book_target, book_outcome, book_mb_s, book_lead)
    record[:] = 0.0
    for k in range(len(ireg) - MARKS):
        ireg[MARKS + k] = _resident(link, action[2 * picks + k])
    for k in range(picks):
        pick = action[2 * k]
        x = -1
        if pick > 0:
            x = candidates[i, pick - 1]
        number = (i - first) * picks + k
        book_target[number] = x
        book_outcome[number] = 0
        if x >= 0:
            plan_prewarm(s, r, book, number, action[2 * k + 1], clock[i, T], np.inf, record)
    open_event(s, r, w, book, i + 1, record)
    if i + 1 == last:
        rest = np.zeros(len(record))
        finish(s, r, book, rest)
        record += rest
    observe(
        link,
        when,
        due_code,
        reg,
        ireg,
        cost,
        numbers[0],
        book_target,
        candidates[i + 1],
        clock[i + 1, T],
        place,
        out,
    )
    reward = 0.0
    for f in range(len(record)):
        reward += record[f] * weights[f]
    return reward


@njit(cache=True)
def fits(action, places, delays, rows, picks):  # type: ignore[no-untyped-def]
    """Whether an action lies in the action space; as in `step`."""
    for k in range(picks):
        if not (0 <= action[2 * k] <= places and 0 <= action[2 * k + 1] < delays):
            return False
    most = action[2 * picks :].max() if len(action) > 2 * picks else 0
    least = action[2 * picks :].min() if len(action) > 2 * picks else 0
    return least >= 0 and most <= rows


@njit(cache=True)
def plan_action(s, r, book, candidates, action, picks, number, t, record):  # type: ignore[no-untyped-def]
    """Decide `action` over the slate `candidates` (int32 [C]) at t; its prewarms are `number` on."""
    for k in range(len(s.ireg) - MARKS):
        s.ireg[MARKS + k] = _resident(s.link, action[2 * picks + k])
    for k in range(picks):
        pick = action[2 * k]
        x = candidates[pick - 1] if pick > 0 else -1
        book.target[number + k] = x
        book.outcome[number + k] = 0
        if x >= 0:
            plan_prewarm(s, r, book, number + k, action[2 * k + 1], t, np.inf, record)


@njit(cache=True)
def step_to_wake(s, r, w, book, candidates, action, picks, number, i, record):  # type: ignore[no-untyped-def]
    """Decide `action` after event i, and go on to the wake before event i + 1."""
    plan_action(s, r, book, candidates, action, picks, number, w.clock[i, T], record)
    sleep(s, r, w, book, i + 1, record)


@njit(cache=True)
def step_from_wake(s, r, w, book, candidates, action, picks, number, i, last, record):  # type: ignore[no-untyped-def]
    """Decide `action` at the wake before event i + 1, and open that."""
    plan_action(s, r, book, candidates, action, picks, number, w.clock[i + 1, WAKE], record)
    open_woken(s, r, w, book, i + 1, record)
    if i + 1 == last:
        rest = np.zeros(len(record))
        finish(s, r, book, rest)
        record += rest


@njit(cache=True)
def _resident(link, number):  # type: ignore[no-untyped-def]
    """Resident number 1, 2, ... from the least recently used on; -1 for number 0 or where there is none."""
    if number == 0:
        return -1
    end = len(link) - 1
    x = link[end, 1]
    for _ in range(number - 1):
        if x == end:
            return -1
        x = link[x, 1]
    return -1 if x == end else x

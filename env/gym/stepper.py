"""One environment step, compiled: do the plan, open the next target, read the memory.

Split from `env.judge.accounting` only because the environment walks one open at a time; the accounting is the
kernel's own functions, so a step cannot differ from a replay. `fixed` is `Walk.fixed`: plain tuples, because
numba takes twice as long to look at a named one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from env.compiled import compiled
from env.judge import let_go
from env.judge.accounting import (
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
    new_state,
    to_front,
)

N_MEMORY = 3  # free, held unused, foreground: shares of the budget
RESIDENT_COLUMNS = (
    "present", "in_front", "unused", "loading", "memory_share", "hit_saving", "log_seconds_unused",
    "slate_place",
)  # fmt: skip
N_RESIDENT = len(RESIDENT_COLUMNS)


def warm_starts(target: np.ndarray, r: Rules, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who is resident, without prewarms, after each of the events `starts` (sorted int64 [E]), where the
    least recently used leaves and nothing is switched off or closed.

    Returns (offsets int64 [E + 1], targets int32, least recently used first in each slice).
    """
    state, offsets = new_state(len(r.cost), 1), np.zeros(len(starts) + 1, np.int64)
    out = np.empty(16 * len(starts) + 1, np.int32)
    while not _warm_starts(state, r, target, starts, offsets, out):
        clear(state)
        out = np.empty(2 * len(out), np.int32)
    return offsets, out[: offsets[-1]].copy()


@compiled
def _warm_starts(s, r, target, starts, offsets, out):  # type: ignore[no-untyped-def]
    """Fill offsets and out; False where out is too short."""
    end = len(s.base) - 1
    size = 0
    e = 0
    for i in range(len(target)):
        open_base(s, r, np.int64(target[i]))
        while e < len(starts) and starts[e] == i:
            x = s.base[end, 1]
            while x != end:
                if size == len(out):
                    return False
                out[size] = x
                size += 1
                x = s.base[x, 1]
            e += 1
            offsets[e] = size
    return True


@compiled
def begin(fixed, residents, i):  # type: ignore[no-untyped-def]
    """Put the world into the state after event i: `residents` warm (least recently used first)."""
    s, r, w = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2])
    clear(s)
    used, t = 0.0, w.clock[i, T]
    for k in range(len(residents)):
        x = np.int64(residents[k])
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
        x = np.int64(w.target[j])
        if x != w.target[i] and s.link[x, 0] >= 0 and s.when[x, IN_FRONT] == t:
            s.when[x, IN_FRONT] = w.clock[j + 1, T]
            unknown -= 1


@compiled
def retrace(fixed, i, record):  # type: ignore[no-untyped-def]
    """The state after event i, from the first event on, without prewarms. record: scratch."""
    s, r, w, book = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2]), Ledger(*fixed[3])
    clear(s)
    let_go.begin(s, r, w)
    for j in range(i + 1):
        open_event(s, r, w, book, j, record)


@compiled
def observe(fixed, i, out):  # type: ignore[no-untyped-def]
    """Fill `out` (float32 [`Walk.width`]) with what is seen right after event i: flags of the slate, C each
    (warm, loading, scheduled), then memory (N_MEMORY), the rows of those that are resident, least recently
    used first (RESIDENT_COLUMNS), and what is known from the past alone (`Walk.seen`)."""
    s, r, w, book = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2]), Ledger(*fixed[3])
    candidates, seen, place, rows, _, _ = fixed[4]
    _look(s, r, book, candidates[i], seen[i], place, rows, w.clock[i, T], out)


@compiled
def _look(s, r, book, candidates, seen, place, rows, t, out):  # type: ignore[no-untyped-def]
    """place: int64 [n_targets] of scratch, -1 everywhere before and after."""
    n = len(candidates)
    for k in range(len(out)):
        out[k] = 0.0
    for c in range(n):
        x = candidates[c]
        if x >= 0:
            place[x] = c
            if s.link[x, 0] >= 0:
                out[c if s.when[x, READY] <= t else n + c] = 1.0
    for d in range(s.ireg[N_DUE]):
        if s.due_code[d] >= START_CODE:
            c = place[book.target[s.due_code[d] - START_CODE]]
            if c >= 0:
                out[2 * n + c] = 1.0
    out[3 * n] = 1.0 - s.reg[USED] / r.budget
    out[3 * n + 1] = s.reg[HELD_MB] / r.budget
    if s.ireg[FOREGROUND] >= 0:
        out[3 * n + 2] = r.cost[s.ireg[FOREGROUND], MEMORY] / r.budget
    at = 3 * n + N_MEMORY
    end = len(s.link) - 1
    x = s.link[end, 1]
    for _ in range(rows):
        if x != end:
            front = x == s.ireg[FOREGROUND]
            unused = s.link[x, 2] >= 0
            since = 0.0 if front else t - (s.when[x, BEGIN] if unused else s.when[x, IN_FRONT])
            out[at] = 1.0
            out[at + 1] = front
            out[at + 2] = unused
            out[at + 3] = s.when[x, READY] > t
            out[at + 4] = r.cost[x, MEMORY] / r.budget
            out[at + 5] = min(1.0, (r.cost[x, COLD] - r.cost[x, WARM]) / 10.0)
            out[at + 6] = min(1.0, np.log1p(since) / 20.0)
            out[at + 7] = (place[x] + 1) / n
            x = s.link[x, 1]
        at += N_RESIDENT
    for c in range(n):
        if candidates[c] >= 0:
            place[candidates[c]] = -1
    for k in range(len(seen)):
        out[at + k] = seen[k]


@compiled
def step(fixed, action, i, first, last, record, out):  # type: ignore[no-untyped-def]
    """Decide `action` after event i and open event i + 1; the episode ends with event `last`.

    action: int64 [2 picks + R]: `picks` pairs of a place in the slate and a delay, then R places among the
    first rows of those that are resident, least recently used first; 0 for nobody. Fills record (float64
    [len(FIELDS)]) and out (see `observe`); returns the reward, or NaN for an action outside the action space,
    which changes nothing.
    """
    s, r, w, book = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2]), Ledger(*fixed[3])
    candidates, seen, place, rows, weights, rest = fixed[4]
    if not fits(fixed, action):
        return np.nan
    for f in range(len(record)):
        record[f] = 0.0
        rest[f] = 0.0
    number = (i - first) * ((len(action) - (len(s.ireg) - MARKS)) // 2)
    plan_action(s, r, book, candidates[i], action, number, w.clock[i, T], record)
    open_event(s, r, w, book, i + 1, record)
    if i + 1 == last:
        finish(s, r, book, rest)
    reward = 0.0
    for f in range(len(record)):
        record[f] += rest[f]
        reward += record[f] * weights[f]
    _look(s, r, book, candidates[i + 1], seen[i + 1], place, rows, w.clock[i + 1, T], out)
    return reward


@compiled
def observe_wake(fixed, at_wakes, i, out):  # type: ignore[no-untyped-def]
    """As `observe`, at the wake that follows event i. at_wakes: slates and what is seen then."""
    s, r, w, book = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2]), Ledger(*fixed[3])
    candidates, seen = at_wakes
    _, _, place, rows, _, _ = fixed[4]
    _look(s, r, book, candidates[i], seen[i], place, rows, w.wake[i + 1], out)


@compiled
def fits(fixed, action):  # type: ignore[no-untyped-def]
    """Whether an action lies in the action space."""
    s, r = State(*fixed[0]), Rules(*fixed[1])
    candidates, _, _, rows, _, _ = fixed[4]
    picks = (len(action) - (len(s.ireg) - MARKS)) // 2
    for k in range(picks):
        if not (0 <= action[2 * k] <= candidates.shape[1] and 0 <= action[2 * k + 1] < len(r.delays)):
            return False
    for k in range(2 * picks, len(action)):  # noqa: SIM110 (compiled)
        if not 0 <= action[k] <= rows:
            return False
    return True


@compiled
def plan_action(s, r, book, candidates, action, number, t, record):  # type: ignore[no-untyped-def]
    """Decide `action` over the slate `candidates` (int32 [C]) at t; its prewarms are `number` on."""
    picks = (len(action) - (len(s.ireg) - MARKS)) // 2
    for k in range(len(s.ireg) - MARKS):
        s.ireg[MARKS + k] = _resident(s.link, action[2 * picks + k])
    for k in range(picks):
        pick = action[2 * k]
        x = -1
        if pick > 0:
            x = candidates[pick - 1]
        book.target[number + k] = x
        book.outcome[number + k] = 0
        if x >= 0:
            plan_prewarm(s, r, book, number + k, r.delays[action[2 * k + 1]], t, record)


@compiled
def step_to_wake(fixed, action, number, i, record):  # type: ignore[no-untyped-def]
    """Decide `action` after event i, and go on to the wake before event i + 1; as `plan_action`."""
    s, r, w, book = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2]), Ledger(*fixed[3])
    for f in range(len(record)):
        record[f] = 0.0
    plan_action(s, r, book, fixed[4][0][i], action, number, w.clock[i, T], record)
    sleep(s, r, w, book, i + 1, record)


@compiled
def step_from_wake(fixed, at_wakes, action, number, i, last, record):  # type: ignore[no-untyped-def]
    """Decide `action` at the wake before event i + 1, and open that. at_wakes: as of `observe_wake`."""
    s, r, w, book = State(*fixed[0]), Rules(*fixed[1]), Course(*fixed[2]), Ledger(*fixed[3])
    rest = fixed[4][5]
    for f in range(len(record)):
        record[f] = 0.0
        rest[f] = 0.0
    plan_action(s, r, book, at_wakes[0][i], action, number, w.wake[i + 1], record)
    open_woken(s, r, w, book, i + 1, record)
    if i + 1 == last:
        finish(s, r, book, rest)
    for f in range(len(record)):
        record[f] += rest[f]


@compiled
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


def rows_of(fixed: tuple[Any, ...], targets: np.ndarray) -> np.ndarray:
    """Where targets (int64 [N]) stand among the first rows of those that are resident, least recently used
    first: from 1, 0 for who does not."""
    found = np.zeros(len(targets), np.int64)
    link, rows = State(*fixed[0]).link, fixed[4][3]
    _rows_of(link, rows, targets, found)
    return found


@compiled
def _rows_of(link, rows, targets, found):  # type: ignore[no-untyped-def]
    end = len(link) - 1
    x = link[end, 1]
    for row in range(rows):
        if x == end:
            break
        for k in range(len(targets)):
            if targets[k] == x:
                found[k] = row + 1
        x = link[x, 1]

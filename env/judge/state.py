"""The state of one world, compiled: what is in memory, in which order, and what is due.

Everything that the judge changes lies in the arrays of a `State`; `Rules` and `Course` say what happens to
it, `Ledger` what became of every prewarm. Importing this module imports numba; the compiled code is cached
on disk.

    link    int64 [T+1, 3]    per target: next older, next newer, number of its unused prewarm or -1; the
                              first column is -1 for a target that is not resident; row T is the list's end
    when    float64 [T+1, 3]  per target: begin, ready, and when it was last in front, unix seconds; for the
                              let-go rules that need them three more columns, NOTE on (see `env.judge.let_go`)
    base    int64 [T+1, 2]    the no-prewarm world's list, the same way
    due_t, due_code           binary heap of what is due: time, and START_CODE * (is a start) + number; a
                              start that waits for a wake has WAKE_CODE besides, until the machine is off
    reg     float64 [4]       memory used, memory held unused, settled until, base memory used
    ireg    int64 [3 + R]     foreground target, heap size, index of the event opened last; then whom the
                              latest plan lets go first, -1 for nobody
    queue   int64 [T+3, 4]    the lists of sieve and s3fifo; three rows for the other rules

Few arrays, and few of them handed on: the compiled code counts references at every call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from env.compiled import compiled
from env.judge.cost import LET_GO_RULES, Costs, WorldConfig

START_CODE, WAKE_CODE = 1 << 40, 1 << 41
NUMBER = START_CODE - 1  # the bits of a code that are the number
USED, HELD_MB, SETTLED, BASE_USED = 0, 1, 2, 3
FOREGROUND, N_DUE, EVENT, MARKS = 0, 1, 2, 3
MEMORY, COLD, WARM, LOAD = 0, 1, 2, 3
BEGIN, READY, IN_FRONT, NOTE = 0, 1, 2, 3
LRU, LFU_DECAY, GDSF, S3FIFO, SIEVE, EXPECTED, BELADY = range(len(LET_GO_RULES))


class State(NamedTuple):
    """What is in memory, and what is due, in both worlds."""

    link: np.ndarray
    when: np.ndarray
    base: np.ndarray
    due_t: np.ndarray
    due_code: np.ndarray
    reg: np.ndarray
    ireg: np.ndarray
    queue: np.ndarray


class Rules(NamedTuple):
    """Costs and rules of one world."""

    cost: np.ndarray  # float64 [T, 4]: memory (at most the budget), cold, warm, load
    budget: float
    ttl: float
    delays: np.ndarray
    let_go: int  # index into LET_GO_RULES
    close_after: float  # seconds


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
    delays = np.array(config.delays, dtype=np.float64)
    return Rules(
        cost, budget, float(config.ttl_s), delays, LET_GO_RULES.index(config.let_go),
        float(config.close_after_s),
    )  # fmt: skip


def new_state(n_targets: int, capacity: int, let_go: int = LRU, marks: int = 0) -> State:
    """An empty world for `n_targets`, with room for `capacity` things due (2 per prewarm) and `marks` targets
    that a plan lets go. let_go: the rule, as in `Rules`."""
    noted = 3 if let_go in (LFU_DECAY, GDSF, S3FIFO, EXPECTED, BELADY) else 0
    queued = n_targets if let_go in (S3FIFO, SIEVE) else 0
    state = State(
        np.empty((n_targets + 1, 3), np.int64),
        np.zeros((n_targets + 1, 3 + noted)),
        np.empty((n_targets + 1, 2), np.int64),
        np.zeros(max(capacity, 1)),
        np.zeros(max(capacity, 1), np.int64),
        np.zeros(4),
        np.zeros(MARKS + marks, np.int64),
        np.zeros((queued + 3, 4), np.int64),
    )
    clear(state)
    return state


@compiled
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
    s.ireg[:] = -1
    s.ireg[N_DUE] = 0
    s.when[:, NOTE:] = 0.0
    s.queue[:] = -1
    for row in range(len(s.queue) - 3, len(s.queue)):
        s.queue[row, 0] = row
        s.queue[row, 1] = row


@compiled
def copy_state(source, into):  # type: ignore[no-untyped-def]
    """Element by element: numba compiles an array's assignment slowly."""
    for row in range(len(source.link)):
        for column in range(3):
            into.link[row, column] = source.link[row, column]
        for column in range(2):
            into.base[row, column] = source.base[row, column]
        for column in range(source.when.shape[1]):
            into.when[row, column] = source.when[row, column]
    for i in range(source.ireg[N_DUE]):
        into.due_t[i] = source.due_t[i]
        into.due_code[i] = source.due_code[i]
    for i in range(len(source.reg)):
        into.reg[i] = source.reg[i]
    for i in range(len(source.ireg)):
        into.ireg[i] = source.ireg[i]
    for row in range(len(source.queue) if len(source.queue) > 3 else 0):
        for column in range(4):
            into.queue[row, column] = source.queue[row, column]


@compiled
def push(s, t, code):  # type: ignore[no-untyped-def]
    """Something more is due."""
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


@compiled
def pop(s):  # type: ignore[no-untyped-def]
    """Take out what is due first."""
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


@compiled
def to_front(link, x):  # type: ignore[no-untyped-def]
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


@compiled
def unlink(link, x):  # type: ignore[no-untyped-def]
    """Take x out of the list."""
    older = link[x, 0]
    newer = link[x, 1]
    link[newer, 0] = older
    link[older, 1] = newer
    link[x, 0] = -1


@compiled
def same(a, b):  # type: ignore[no-untyped-def]
    """Whether two worlds after the same events hold the same targets in the same order, all of them settled,
    and their let-go rules know the same. (Marks are the next decision's affair.)"""
    end = len(a.link) - 1
    x = a.link[end, 0]
    y = b.link[end, 0]
    while x == y and x != end:
        if a.link[x, 2] != b.link[x, 2] or a.when[x, 1] != b.when[x, 1]:
            return False
        x = a.link[x, 0]
        y = b.link[y, 0]
    if x != y:
        return False
    for column in range(NOTE, a.when.shape[1]):
        for row in range(len(a.when)):
            if a.when[row, column] != b.when[row, column]:
                return False
    for row in range(len(a.queue) if len(a.queue) > 3 else 0):
        for column in range(4):
            if a.queue[row, column] != b.queue[row, column]:
                return False
    return True

"""Who leaves when room is needed, compiled: what the latest plan names, in its order, then a rule.

    lru        the least recently used (a target that was loaded early counts as used then)
    lfu-decay  the least c / sqrt(a): c, how often it was opened, halved every 200 opens; a, opens since it
               was opened or loaded, plus one
    gdsf       the least H = L + f * (cold - warm seconds) / MB, f: opens since it came in (1 for coming in);
               H is set when it comes in or is opened, L is the H of whom the rule let go last (Cherkasova,
               1998)
    s3fifo     a small queue (a quarter of the budget), a main one, and a list of who left the small one
               (nine tenths of the budget); twice used in the small queue is main (Yang and others, SOSP 2023)
    sieve      one queue by time of coming in, a used bit, and a hand (Zhang and others, NSDI 2024)
    expected   the least p * (cold - warm seconds) / MB, p: chance of being opened soon, from `Course.told`
    belady     the one that is opened again last: clairvoyant

Whoever is protected (what is in front, while something is loaded; what is just being opened) never leaves.
Ties go to the least recently used. `tests.reference.let_go` says the same in plain Python.

The three columns NOTE of `State.when`: lfu-decay: count, event of that count, event of the last touch;
gdsf: H, f, and in the last row L; s3fifo: only the last row: MB in the small queue, in the main one, in the
list; belady: when it is opened next. Columns of `State.queue`: older, newer, which list (0 small, 1 main, 2
those who left the small one; 3 none, but it was among those when it was wanted again; -1 none), uses; the
last three rows are the ends of the lists, and the last row's uses are sieve's hand (-1: none) or whether
s3fifo has let somebody go yet.
"""

from __future__ import annotations

import math

import numpy as np

from env.compiled import compiled
from env.judge.state import (
    BELADY,
    COLD,
    EVENT,
    FOREGROUND,
    GDSF,
    LFU_DECAY,
    LRU,
    MARKS,
    MEMORY,
    NOTE,
    S3FIFO,
    SIEVE,
    WARM,
)

HALF_LIFE = 200.0  # opens; chosen on the first four fifths of webtrackr and demo
HALVES = 0.5 ** (np.arange(8192) / HALF_LIFE)  # a table, so that every implementation has the same bits
SMALL_SHARE, LEFT_SHARE, USES_FOR_MAIN, MOST_USES = 0.25, 0.9, 2, 3
SMALL, MAIN, LEFT, BACK = np.arange(4)  # NumPy's integers: for each literal one numba would compile anew


@compiled
def _saving_per_mb(r, x):  # type: ignore[no-untyped-def]
    return (r.cost[x, COLD] - r.cost[x, WARM]) / r.cost[x, MEMORY]


@compiled
def begin(s, r, w):  # type: ignore[no-untyped-def]
    """Before the first event: what belady knows."""
    if r.let_go == BELADY:
        for x in range(len(s.when)):
            s.when[x, NOTE] = np.inf
        for j in range(len(w.target) - 1, -1, -1):
            s.when[w.target[j], NOTE] = w.clock[j, 0]


@compiled
def told(s, rows, j):  # type: ignore[no-untyped-def]
    """What `expected` is told at event j (see `Course.told`), in place of what it was told before."""
    half = rows.shape[1] // 2
    for k in range(half):
        if j > 0 and rows[j - 1, k] >= 0:
            s.when[int(rows[j - 1, k]), NOTE] = 0.0
    for k in range(half):
        if rows[j, k] >= 0:
            s.when[int(rows[j, k]), NOTE] = rows[j, half + k]


@compiled
def opened(s, r, x, j, next_use, resident):  # type: ignore[no-untyped-def]
    """x is opened as event j; it is resident or not."""
    if r.let_go == LFU_DECAY:
        s.when[x, NOTE] = s.when[x, NOTE] * _halves(j - s.when[x, NOTE + 1]) + 1.0
        s.when[x, NOTE + 1] = j
        s.when[x, NOTE + 2] = j
    elif r.let_go == BELADY:
        s.when[x, NOTE] = next_use
    elif resident and r.let_go == GDSF:
        s.when[x, NOTE + 1] += 1.0
        s.when[x, NOTE] = s.when[len(s.when) - 1, NOTE] + s.when[x, NOTE + 1] * _saving_per_mb(r, x)
    elif resident and r.let_go == S3FIFO:
        s.queue[x, 3] += 1
    elif resident and r.let_go == SIEVE:
        s.queue[x, 3] = 1


@compiled
def wanted(s, r, x):  # type: ignore[no-untyped-def]
    """x is about to come in; room will be made for it."""
    if r.let_go == S3FIFO and s.queue[x, 2] == LEFT:
        _take(s, r, x)
        s.queue[x, 2] = BACK


@compiled
def came_in(s, r, x):  # type: ignore[no-untyped-def]
    """x came into memory, for which there was made room before."""
    if r.let_go == LFU_DECAY:
        s.when[x, NOTE + 2] = s.ireg[EVENT]
    elif r.let_go == GDSF:
        s.when[x, NOTE + 1] = 1.0
        s.when[x, NOTE] = s.when[len(s.when) - 1, NOTE] + _saving_per_mb(r, x)
    elif r.let_go == SIEVE:
        _append(s, r, x, SMALL)
    elif r.let_go == S3FIFO:
        end = len(s.when) - 1
        if s.queue[x, 2] == BACK:
            _append(s, r, x, MAIN)
        elif s.queue[len(s.queue) - 1, 3] < 0 and s.when[end, NOTE + SMALL] >= SMALL_SHARE * r.budget:
            _append(s, r, x, MAIN)  # nobody had to go yet, and the small queue is full
        else:
            _append(s, r, x, SMALL)


@compiled
def left(s, r, x):  # type: ignore[no-untyped-def]
    """x is no longer in memory, whatever the reason."""
    if (r.let_go == S3FIFO or r.let_go == SIEVE) and (s.queue[x, 2] == SMALL or s.queue[x, 2] == MAIN):
        end = len(s.queue) - 1
        if r.let_go == SIEVE and s.queue[end, 3] == x:
            newer = s.queue[x, 1]
            s.queue[end, 3] = newer if newer < len(s.queue) - 3 else -1
        _take(s, r, x)


@compiled
def next_to_leave(s, r, protected):  # type: ignore[no-untyped-def]
    """Who leaves now: a resident other than `protected`, of which there must be one."""
    for k in range(MARKS, len(s.ireg)):
        x = s.ireg[k]
        if x >= 0 and x != protected and s.link[x, 0] >= 0:
            return x
    end = len(s.link) - 1
    x = s.link[end, 1]
    if x == protected:
        x = s.link[x, 1]
    if r.let_go == LRU:
        return x
    if r.let_go == SIEVE:
        return _sieve(s, protected)
    if r.let_go == S3FIFO:
        return _s3fifo(s, r, protected)
    best, least = x, np.inf
    while x != end:
        if x != protected:
            kept = _kept(s, r, x)
            if kept < least:
                best, least = x, kept
        x = s.link[x, 1]
    if r.let_go == GDSF:
        s.when[len(s.when) - 1, NOTE] = least
    return best


@compiled
def name(s, r, told, j, value):  # type: ignore[no-untyped-def]
    """The decision after event j names who leaves first: as many as may be named of `least_worth`."""
    least_worth(s, r, told, j, value, s.ireg[MARKS:])


@compiled
def least_worth(s, r, told, j, value, found):  # type: ignore[no-untyped-def]
    """Fill found int64 [R] with the residents that are least worth keeping (chance of being opened soon *
    saving per MB), the least first, -1 where there are no more; never what is in front. told: as
    `Course.told`; value: float64, one for each row of the state, all 0."""
    half = told.shape[1] // 2
    for k in range(half):
        if told[j, k] >= 0:
            value[int(told[j, k])] = told[j, half + k]
    for place in range(len(found)):
        found[place] = -1
    end = len(s.link) - 1
    for place in range(len(found)):
        best, least = -1, np.inf
        x = s.link[end, 1]
        while x != end:
            if x != s.ireg[FOREGROUND] and not _is_among(x, found, place):
                kept = value[x] * _saving_per_mb(r, x)
                if kept < least:
                    best, least = x, kept
            x = s.link[x, 1]
        if best < 0:
            break
        found[place] = best
    for k in range(half):
        if told[j, k] >= 0:
            value[int(told[j, k])] = 0.0


@compiled
def _is_among(x, found, stop):  # type: ignore[no-untyped-def]
    for k in range(stop):  # noqa: SIM110 (compiled)
        if found[k] == x:
            return True
    return False


@compiled
def _halves(opens):  # type: ignore[no-untyped-def]
    return HALVES[int(opens)] if opens < len(HALVES) else 0.0


@compiled
def _kept(s, r, x):  # type: ignore[no-untyped-def]
    """What keeping x is worth; the least leaves."""
    if r.let_go == LFU_DECAY:
        j = s.ireg[EVENT]
        return s.when[x, NOTE] * _halves(j - s.when[x, NOTE + 1]) / math.sqrt(j - s.when[x, NOTE + 2] + 1.0)
    if r.let_go == GDSF:
        return s.when[x, NOTE]
    if r.let_go == BELADY:
        return -s.when[x, NOTE]
    return s.when[x, NOTE] * _saving_per_mb(r, x)  # expected


@compiled
def _append(s, r, x, which):  # type: ignore[no-untyped-def]
    """x is the newest of a list."""
    end = len(s.queue) - 3 + which
    newest = s.queue[end, 0]
    s.queue[x, 0] = newest
    s.queue[x, 1] = end
    s.queue[newest, 1] = x
    s.queue[end, 0] = x
    s.queue[x, 2] = which
    s.queue[x, 3] = 0
    if r.let_go == S3FIFO:
        s.when[len(s.when) - 1, NOTE + which] += r.cost[x, MEMORY]


@compiled
def _take(s, r, x):  # type: ignore[no-untyped-def]
    """x stands in no list any more."""
    older = s.queue[x, 0]
    newer = s.queue[x, 1]
    s.queue[newer, 0] = older
    s.queue[older, 1] = newer
    if r.let_go == S3FIFO:
        s.when[len(s.when) - 1, NOTE + s.queue[x, 2]] -= r.cost[x, MEMORY]
    for column in range(4):  # an array's assignment would compile slowly
        s.queue[x, column] = -1


@compiled
def _sieve(s, protected):  # type: ignore[no-untyped-def]
    """The hand goes from old to new, takes the used bit, and stops at who has none."""
    last = len(s.queue) - 1
    end = len(s.queue) - 3
    x = s.queue[last, 3]
    if x < 0:
        x = s.queue[end, 1]
    while x == protected or s.queue[x, 3] > 0:
        if x != protected:
            s.queue[x, 3] = 0
        x = s.queue[x, 1]
        if x == end:
            x = s.queue[end, 1]
    s.queue[last, 3] = x
    return x


@compiled
def _s3fifo(s, r, protected):  # type: ignore[no-untyped-def]
    end = len(s.when) - 1
    ends = len(s.queue) - 3
    s.queue[ends + LEFT, 3] = 1
    main = s.queue[ends + MAIN, 1]
    alone = main == protected and s.queue[main, 1] == ends + MAIN
    if s.when[end, NOTE + MAIN] <= (1.0 - SMALL_SHARE) * r.budget or main >= ends or alone:
        while s.queue[ends + SMALL, 1] < ends:
            x = s.queue[ends + SMALL, 1]
            uses = s.queue[x, 3]
            _take(s, r, x)
            if x == protected or uses >= USES_FOR_MAIN:
                _append(s, r, x, MAIN)
                continue
            if r.cost[x, MEMORY] <= LEFT_SHARE * r.budget:
                while s.when[end, NOTE + LEFT] + r.cost[x, MEMORY] > LEFT_SHARE * r.budget:
                    _take(s, r, s.queue[ends + LEFT, 1])
                _append(s, r, x, LEFT)
            return x
    while True:
        x = s.queue[ends + MAIN, 1]
        uses = s.queue[x, 3]
        if x != protected and uses == 0:
            return x
        _take(s, r, x)
        _append(s, r, x, MAIN)
        s.queue[x, 3] = uses if x == protected else min(uses, MOST_USES) - 1

"""The oracle's exact value for a handful of events: dynamic programming over the states of the world.

Two plans that leave the same memory, the same loads under way and the same starts scheduled have the same
future, so states are compared and each is solved once. Of what may follow, the best next open comes first,
and the rest is left out when it could not do better even if everything were warm from then on. What happens
is said by the compiled judge alone. Exponential all the same: up to about 12 events, 4 targets, 2 delays, 2
names. `tests/test_oracle.py` checks it against plain enumeration.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numba import njit

from env.errors import InputError
from env.judge import accounting, let_go
from env.judge.accounting import T, course, open_event, plan_let_go, plan_prewarm
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import N_FIELDS, SAVED, Plans
from env.judge.state import N_DUE, NOTE, READY, START_CODE, Ledger, State, copy_state, new_state, rules
from env.timeline import Timeline

MAX_EVENTS = 12


def exact(
    timeline: Timeline, costs: Costs, config: WorldConfig, *, let_go: bool = False
) -> tuple[float, Plans]:
    """The most seconds that any plan saves over the whole (small) timeline, and a plan that does. let_go:
    plans also name up to `config.max_let_go` who leave first.

    Raises InputError for more than MAX_EVENTS events.
    """
    n, m = len(timeline), len(costs)
    if n > MAX_EVENTS:
        raise InputError(f"exact() takes up to {MAX_EVENTS} events, not {n}; use env.judge.oracle.bracket")
    places = config.max_let_go if let_go else 0
    plans = Plans.empty(n, config.max_picks, places)
    if n < 2:
        return 0.0, plans
    target, delay, names = _plans(m, config, places)
    base = accounting.replay(timeline, costs, config, plans).base_wait_s
    # No more can be saved at an open than its no-prewarm wait less its warm wait.
    rest = np.append(np.cumsum((base - costs.warm_s[timeline.target])[::-1])[::-1], 0.0)
    r, w = rules(costs, config), course(timeline, config)
    # A prewarm's number says its decision, its place in the plan, and its target, in this order.
    book = Ledger(
        np.tile(np.arange(m, dtype=np.int32), n * config.max_picks),
        *(np.zeros(n * config.max_picks * m, kind) for kind in (np.int8, float, float)),
    )
    memo: dict[tuple[int, bytes], tuple[float, int]] = {}

    def world() -> State:
        return new_state(m, 2 * n * config.max_picks, r.let_go, places)

    def ahead(state: State, i: int, rows: slice, after: State) -> tuple[np.ndarray, list[bytes]]:
        saved = np.zeros(len(target[rows]))
        keys = np.full(
            (len(saved), 3 * m + 2 * n * config.max_picks + state.when.size + state.queue.size), -1.0
        )
        _ahead(state, after, r, w, book, i, target[rows], delay[rows], names[rows], saved, keys)
        return saved, [row.tobytes() for row in keys]

    def solve(state: State, key: bytes, i: int) -> float:
        """Most saved at opens i + 1, ..., standing after event i."""
        if i == n - 1:
            return 0.0
        if (i, key) in memo:
            return memo[i, key][0]
        saved, keys = ahead(state, i, slice(None), world())
        best, choice, seen = -np.inf, 0, set[bytes]()
        for q in np.argsort(-saved, kind="stable").tolist():
            if saved[q] + rest[i + 2] <= best:
                break
            if keys[q] in seen:
                continue
            seen.add(keys[q])
            child = world()
            ahead(state, i, slice(q, q + 1), child)
            value = float(saved[q]) + solve(child, keys[q], i + 1)
            if value > best:
                best, choice = value, q
        memo[i, key] = best, choice
        return best

    state, key = _first(world(), r, w, book), b""
    value = solve(state, key, 0)
    for i in range(n - 1):
        solve(state, key, i)
        _, q = memo[i, key]
        plans.target[i], plans.delay[i], plans.let_go[i] = target[q], delay[q], names[q]
        after = world()
        _, (key,) = ahead(state, i, slice(q, q + 1), after)
        state = after
    return value, plans


def _plans(m: int, config: WorldConfig, places: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All plans that differ: picks in every order, with every list of names, keeping still first."""
    single = list(itertools.product(range(m), range(len(config.delays))))
    picks = [q for k in range(config.max_picks + 1) for q in itertools.permutations(single, k)]
    named = [q for k in range(places + 1) for q in itertools.permutations(range(m), k)]
    both = list(itertools.product(picks, named))
    target = np.full((len(both), config.max_picks), -1, np.int32)
    delay, names = np.zeros(target.shape, np.int8), np.full((len(both), places), -1, np.int32)
    for row, (pick, name) in enumerate(both):
        for k, (x, d) in enumerate(pick):
            target[row, k], delay[row, k] = x, d
        names[row, : len(name)] = name
    return target, delay, names


def _first(state: State, r: Any, w: Any, book: Ledger) -> State:
    """The world after the first event."""
    let_go.begin(state, r, w)
    open_event(state, r, w, book, 0, np.zeros(N_FIELDS))
    return state


@njit(cache=True)
def _ahead(s, after, r, w, book, i, target, delay, names, saved, keys):  # type: ignore[no-untyped-def]
    """What each plan after event i saves at the next open, and what the future then depends on."""
    record = np.zeros(N_FIELDS)
    for m in range(len(target)):
        copy_state(s, after)
        record[:] = 0.0
        plan_let_go(after, names[m])
        for k in range(target.shape[1]):
            if target[m, k] >= 0:
                number = (i * target.shape[1] + k) * r.cost.shape[0] + target[m, k]
                plan_prewarm(after, r, book, number, r.delays[delay[m, k]], w.clock[i, T], record)
        open_event(after, r, w, book, i + 1, record)
        saved[m] = record[SAVED]
        _write_key(after, r, w.clock[i + 1, T], w.clock[-1, T], book, keys[m])


@njit(cache=True)
def _write_key(s, r, now, last, book, key):  # type: ignore[no-untyped-def]
    """Residents in order, loads under way, expiries, scheduled starts, what the rule knows; nothing of what
    comes after the last event. (The no-prewarm world, and when a target was in front, are the same whatever
    was planned.)"""
    end = len(s.link) - 1
    at = 0
    x = s.link[end, 1]
    while x != end:
        unused = s.link[x, 2] >= 0
        key[at] = x
        expires = unused and s.when[x, READY] + r.ttl <= last
        key[at + 1] = s.when[x, READY] if expires or s.when[x, READY] > now else 0.0
        key[at + 2] = unused
        at += 3
        x = s.link[x, 1]
    at = 3 * end
    due = s.ireg[N_DUE]
    order = np.argsort(s.due_code[:due])  # ties among starts go by number; expiries at one time commute
    order = order[np.argsort(s.due_t[:due][order], kind="mergesort")]
    for q in order:
        if s.due_code[q] >= START_CODE and s.due_t[q] <= last:
            key[at] = s.due_t[q]
            key[at + 1] = book.target[s.due_code[q] - START_CODE]
            at += 2
    at = len(key) - s.when.size - s.queue.size
    for row in range(len(s.when)):
        for column in range(NOTE, s.when.shape[1]):
            key[at] = s.when[row, column]
            at += 1
    for row in range(len(s.queue)):
        for column in range(4):
            key[at] = s.queue[row, column]
            at += 1

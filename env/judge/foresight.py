"""Whom a clairvoyant lets go, compiled: the names of a plan, by trying what comes of each.

Given what is loaded early, and from when on each open's target has to stay in memory, `name_who_leaves` walks
through the world. At every decision it forks it, tries each resident as the next to leave first, and takes
the one after which most is still there that has to be, at the next open; of equals, the one that is opened
last. Nobody is named who would not have to leave before the next decision.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from env.judge import let_go
from env.judge.accounting import T, course, open_event, plan_let_go, plan_prewarm
from env.judge.cost import Costs, WorldConfig
from env.judge.effects import shared_ledger
from env.judge.plans import N_FIELDS, SAVED, Plans
from env.judge.state import BEGIN, copy_state, new_state, rules
from env.timeline import Timeline

NEVER = 1 << 40


@njit(cache=True)
def _tried(s, fork, r, w, book, delay, picks, j, names, since, worth, upcoming, record):  # type: ignore[no-untyped-def]
    """What letting `names` go first after event j comes to at the next open: seconds saved there, and those
    of what is there afterwards and has to be."""
    copy_state(s, fork)
    plan_let_go(fork, names)
    record[:] = 0.0
    for number in range(j * picks, (j + 1) * picks):
        if book.target[number] >= 0:
            plan_prewarm(fork, r, book, number, r.delays[delay[number]], w.clock[j, T], record)
    open_event(fork, r, w, book, j + 1, record)
    found = record[SAVED]
    end = len(fork.link) - 1
    x = fork.link[end, 0]
    while x != end:
        opens = upcoming[x]
        if opens < len(since) and x != w.target[j + 1] and since[opens] <= w.clock[j + 1, T]:
            found += worth[x]
        x = fork.link[x, 0]
    return found


@njit(cache=True)
def _walk(s, fork, r, w, book, delay, picks, start, stop, since, worth, upcoming, after, names):  # type: ignore[no-untyped-def]
    record = np.zeros(N_FIELDS)
    end = len(s.link) - 1
    let_go.begin(s, r, w)
    for j in range(stop - 1):
        open_event(s, r, w, book, j, record)
        upcoming[w.target[j]] = after[j]
        if j < start - 1:
            continue
        for k in range(names.shape[1]):
            best, most, opens = -1, -np.inf, np.int64(-1)
            x = s.link[end, 1]
            while x != end:
                names[j, k] = x
                named = False
                for q in range(k):
                    named = named or names[j, q] == x
                if not named:
                    found = _tried(
                        s, fork, r, w, book, delay, picks, j, names[j], since, worth, upcoming, record
                    )
                    stays = fork.link[x, 0] >= 0 and fork.when[x, BEGIN] == s.when[x, BEGIN]
                    better = found > most + 1e-9 or (found > most - 1e-9 and upcoming[x] > opens)
                    if not stays and better:
                        best, most, opens = x, found, upcoming[x]
                x = s.link[x, 1]
            names[j, k] = best
            if best < 0:
                break
        plan_let_go(s, names[j])
        for number in range(j * picks, (j + 1) * picks):
            if book.target[number] >= 0:
                plan_prewarm(s, r, book, number, r.delays[delay[number]], w.clock[j, T], record)


def name_who_leaves(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    plans: Plans,
    since: np.ndarray,
    *,
    start: int,
    stop: int,
) -> Plans:
    """`plans` [n, K] for the opens start..stop-1, with up to `config.max_let_go` names at each decision.

    since: float64 [stop], from when on the target of each open has to be in memory, unix seconds; -inf: all
    the time since its last open, inf: it need not be.
    """
    n, picks = plans.target.shape
    plans = replace(plans, let_go=np.full((n, config.max_let_go), -1, np.int32))
    plans = plans.checked((n,), len(costs), len(config.delays))
    after = np.full(stop, NEVER, np.int64)
    upcoming = np.full(len(costs), NEVER, np.int64)
    for j in range(stop - 1, -1, -1):
        after[j] = upcoming[timeline.target[j]]
        upcoming[timeline.target[j]] = j
    r = rules(costs, config)
    capacity = 2 * plans.count()
    now, fork = (new_state(len(costs), capacity, r.let_go, config.max_let_go) for _ in range(2))
    _walk(
        now, fork, r, course(timeline, config), shared_ledger(plans, 0), plans.delay.reshape(-1), picks,
        start, stop, since, costs.cold_s - costs.warm_s, upcoming, after, plans.let_go,
    )  # fmt: skip
    return plans

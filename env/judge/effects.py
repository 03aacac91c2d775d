"""What alternative plans change, compiled: every one of M alternatives at each of D decisions, by forking the
world of `env.judge.accounting` and following both copies until they are the same again.
"""

from __future__ import annotations

import numpy as np

from env.compiled import compiled
from env.errors import InputError
from env.judge import let_go
from env.judge.accounting import (
    OFF,
    T,
    advance,
    course,
    finish,
    open_event,
    plan_let_go,
    plan_nobody,
    plan_pick,
    settle,
    switch_off,
    wake_after,
)
from env.judge.plans import N_FIELDS, AnyCase, Plans
from env.judge.state import MARKS, Ledger, copy_state, new_state, rules, same


@compiled
def resolved(target, outcome, own):  # type: ignore[no-untyped-def]
    """Whether it is known of every prewarm from number `own` on what became of it (columns of a ledger)."""
    for number in range(own, len(target)):  # noqa: SIM110 (compiled)
        if target[number] >= 0 and outcome[number] == 0:
            return False
    return True


@compiled
def _score(  # type: ignore[no-untyped-def]
    s,
    a,
    b,
    r,
    w,
    book,
    delay,
    names,
    naming,
    picks,
    alt_target,
    alt_delay,
    alt_names,
    indices,
    horizon,
    waste,
    value,
    out,
):
    n, t = len(w.target), w.clock[:, T]
    alt_picks = alt_target.shape[2]
    own = n * picks
    d = 0
    let_go.begin(s, r, w)
    for i in range(n):
        if d >= len(indices):
            break
        open_event(s, r, w, book, i, waste)
        while d < len(indices) and indices[d] == i:
            for m in range(alt_target.shape[1]):
                acc = out[d, m]
                asked = 0
                since = t[i]
                wake = wake_after(w, i)
                for k in range(alt_picks):
                    x, code = alt_target[d, m, k], alt_delay[d, m, k]
                    book.target[own + k] = x if code >= 0 or wake != np.inf else -1
                    book.outcome[own + k] = 0
                    asked += book.target[own + k] >= 0
                    if code < 0 and book.target[own + k] >= 0:
                        since = wake
                for k in range(alt_names.shape[2]):
                    asked += alt_names[d, m, k] >= 0
                if asked == 0 and not naming:
                    continue
                copy_state(s, a)
                copy_state(s, b)
                waste[:] = 0.0
                plan_let_go(a, alt_names[d, m])
                if naming:
                    let_go.name(b, r, w.told, i, value)
                else:
                    plan_nobody(b)
                for k in range(alt_picks):
                    if book.target[own + k] >= 0:
                        plan_pick(a, r, w, book, own + k, alt_delay[d, m, k], i, acc)
                stop = since + horizon
                converged = False
                ahead = n
                for j in range(i + 1, n):
                    if t[j] > stop:
                        ahead = j
                        break
                    open_event(a, r, w, book, j, acc)
                    open_event(b, r, w, book, j, waste)
                    if resolved(book.target, book.outcome, own) and same(a, b):
                        converged = True
                        break
                    if j < n - 1 and naming:
                        let_go.name(a, r, w.told, j, value)
                        let_go.name(b, r, w.told, j, value)
                    elif j < n - 1:
                        plan_let_go(a, names[j])
                        plan_let_go(b, names[j])
                    for number in range(j * picks, (j + 1) * picks):
                        if book.target[number] >= 0 and j < n - 1:
                            plan_pick(a, r, w, book, number, delay[number], j, acc)
                            plan_pick(b, r, w, book, number, delay[number], j, waste)
                if not converged:
                    until = min(stop, t[n - 1])
                    if ahead < n and w.clock[ahead, OFF] <= until:
                        switch_off(a, r, book, w.clock[ahead, OFF], acc)
                        switch_off(b, r, book, w.clock[ahead, OFF], waste)
                    advance(a, r, book, until, acc)
                    settle(a, until, acc)
                    advance(b, r, book, until, waste)
                    settle(b, until, waste)
                    if stop >= t[n - 1]:
                        finish(a, r, book, acc)
                        finish(b, r, book, waste)
                for f in range(len(acc)):
                    acc[f] -= waste[f]
            d += 1
        if i < n - 1:
            if naming:
                let_go.name(s, r, w.told, i, value)
            elif len(s.ireg) > MARKS:
                plan_let_go(s, names[i])
            for number in range(i * picks, (i + 1) * picks):
                if book.target[number] >= 0:
                    plan_pick(s, r, w, book, number, delay[number], i, waste)


def shared_ledger(plans: Plans, more: int) -> Ledger:
    """A ledger for a world and its forks: the prewarms of `plans` [n, K], then `more` of an alternative. Only
    what became of the alternative's is ever read, so that all of them may write into it."""
    size = plans.target.size + more
    target = np.concatenate([plans.target.reshape(-1), np.full(more, -1, np.int32)])
    return Ledger(target, np.zeros(size, np.int8), np.zeros(size), np.zeros(size))


def plan_effects(
    case: AnyCase,
    indices: np.ndarray,
    plans: Plans,
    base: Plans | None = None,
    horizon_s: float | None = None,
    naming: int = 0,
) -> np.ndarray:
    """What each alternative plan changes: float64 [D, M, len(FIELDS)], in the units of the fields.

    Of the whole timeline of the case. For decision `indices[d]` and alternative m, the world is forked after
    event `indices[d]` (its past under `base`, or without prewarms): one copy does `plans[d, m]`, the other
    keeps still, both follow `base` afterwards. The difference of their records is summed until the two copies
    are the same again, but over no more than `horizon_s` seconds from the event, or from the wake that is
    planned for (None: the longest delay + the longest load + ttl, by when every prewarm of the plan is
    resolved; what it evicted may be missed later still, and `math.inf` waits for that). Keeping still is 0 by
    definition. indices: sorted or not; plans: [D, M, K]. naming: who keeps still names so many,
    those that are least worth keeping by what the case is told, and so does everybody before and after, in
    each world those of its own, in place of whom `base` names (a name that was right in one world is none of
    another's). Raises InputError for indices or plans that do not fit.
    """
    timeline, costs, config = case.timeline, case.costs, case.world
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
    r = rules(costs, config)
    marks = naming if naming else max(base.let_go.shape[1], plans.let_go.shape[2])
    now, done, still = (new_state(len(costs), capacity, r.let_go, marks) for _ in range(3))
    horizon = max(config.delays) + (float(costs.load_s.max()) if len(costs) else 0.0) + config.ttl_s
    horizon = horizon if horizon_s is None else float(horizon_s)
    out = np.zeros((len(indices), plans.target.shape[1], N_FIELDS))
    _score(now, done, still, r, course(timeline, config, case.worth), book, base.delay.reshape(-1),
           base.let_go, naming > 0, picks, plans.target[order], plans.delay[order], plans.let_go[order],
           indices[order], horizon, np.zeros(N_FIELDS), np.zeros(len(now.link)), out)  # fmt: skip
    effects = np.empty_like(out)
    effects[order] = out
    return effects

"""What is in memory at each decision, under given plans: the judge's own walk, looked at from outside."""

from __future__ import annotations

import numpy as np
from numba import njit

from env.judge import let_go
from env.judge.accounting import T, course, open_event, plan_let_go, plan_prewarm, wake_after
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import N_FIELDS, Plans
from env.judge.state import READY, USED, Ledger, new_state, rules
from env.timeline import Timeline


@njit(cache=True)
def _walk(s, r, w, book, delay, names, picks, first, last, candidates, warm, free):  # type: ignore[no-untyped-def]
    record = np.zeros(N_FIELDS)
    let_go.begin(s, r, w)
    for i in range(last + 1):
        open_event(s, r, w, book, i, record)
        if i >= first:
            free[i - first] = 1.0 - s.reg[USED] / r.budget
            for c in range(candidates.shape[1]):
                x = candidates[i, c]
                if x >= 0 and s.link[x, 0] >= 0:
                    warm[i - first, c] = 1 if s.when[x, READY] <= w.clock[i, T] else 2
            plan_let_go(s, names[i - first])
            for k in range(picks):
                number = (i - first) * picks + k
                if book.target[number] >= 0:
                    plan_prewarm(s, r, book, number, delay[number], w.clock[i, T], wake_after(w, i), record)


def residency(
    timeline: Timeline,
    candidates: np.ndarray,
    costs: Costs,
    config: WorldConfig,
    plans: Plans,
    first: int,
    last: int,
    worth: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What is resident right after each of the events first..last, before that event's plan acts.

    candidates: int32 [n, size], the slates. plans: of the decisions first..last, [last - first + 1, K].
    Returns (warm int8 [D, size]: 0 cold, 1 warm, 2 loading; free float64 [D], share of the budget).
    """
    rows, picks = plans.target.shape
    size = rows * picks
    book = Ledger(
        np.ascontiguousarray(plans.target, np.int32).ravel(),
        np.zeros(size, np.int8), np.zeros(size), np.full(size, np.nan),
    )  # fmt: skip
    r = rules(costs, config)
    state = new_state(len(costs), 2 * size, r.let_go, plans.let_go.shape[1])
    delays = np.ascontiguousarray(plans.delay, np.int8).ravel()
    warm, free = np.zeros((rows, candidates.shape[1]), np.int8), np.zeros(rows)
    _walk(
        state, r, course(timeline, config, worth), book, delays, np.ascontiguousarray(plans.let_go, np.int32),
        picks, first, last, candidates, warm, free,
    )  # fmt: skip
    return warm, free

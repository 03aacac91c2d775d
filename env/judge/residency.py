"""What is in memory at each decision, under given plans: the judge's own walk, looked at from outside."""

from __future__ import annotations

import numpy as np

from env.compiled import compiled
from env.judge import let_go
from env.judge.accounting import T, course, open_event, plan_let_go, plan_pick
from env.judge.plans import N_FIELDS, AnyCase, Plans
from env.judge.state import MARKS, READY, USED, Ledger, new_state, rules


@compiled
def _walk(  # type: ignore[no-untyped-def]
    s, r, w, book, delay, names, choose, picks, first, last, candidates, record, value, warm, free, listed
):
    let_go.begin(s, r, w)
    for i in range(last + 1):
        open_event(s, r, w, book, i, record)
        if i >= first:
            free[i - first] = 1.0 - s.reg[USED] / r.budget
            for c in range(candidates.shape[1]):
                x = candidates[i, c]
                if x >= 0 and s.link[x, 0] >= 0:
                    warm[i - first, c] = 1 if s.when[x, READY] <= w.clock[i, T] else 2
            if listed.shape[1] > 0:
                let_go.least_worth(s, r, w.told, i, value, listed[i - first])
            if choose:
                let_go.name(s, r, w.told, i, value)
                for k in range(names.shape[1]):
                    names[i - first, k] = s.ireg[MARKS + k]
            else:
                plan_let_go(s, names[i - first])
            for k in range(picks):
                number = (i - first) * picks + k
                if book.target[number] >= 0:
                    plan_pick(s, r, w, book, number, delay[number], i, record)


def residency(
    case: AnyCase, candidates: np.ndarray, plans: Plans, names: bool = False, list_: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is resident right after each event start-1..stop-2, before that event's plan acts.

    candidates: int32 [n, size], the slates. plans: of these decisions, [stop - start, K]. names: whether who
    leaves first is chosen on the way, by what the case is told, and written into `plans.let_go`. list_: how
    many residents are listed.
    Returns (warm int8 [D, size]: 0 cold, 1 warm, 2 loading; free float64 [D], share of the budget; the
    residents that are least worth keeping by what the case is told, int64 [D, list_], -1 for no more).
    """
    rows, picks = plans.target.shape
    size = rows * picks
    book = Ledger(
        np.ascontiguousarray(plans.target, np.int32).ravel(),
        np.zeros(size, np.int8), np.zeros(size), np.full(size, np.nan),
    )  # fmt: skip
    r = rules(case.costs, case.world)
    state = new_state(len(case.costs), 2 * size, r.let_go, plans.let_go.shape[1])
    delays = np.ascontiguousarray(plans.delay, np.int8).ravel()
    warm, free = np.zeros((rows, candidates.shape[1]), np.int8), np.zeros(rows)
    named = np.ascontiguousarray(plans.let_go, np.int32)
    listed = np.full((rows, list_), -1, np.int64)
    _walk(
        state, r, course(case.timeline, case.world, case.worth), book, delays, named, names, picks,
        case.start - 1, case.stop - 2, candidates, np.zeros(N_FIELDS), np.zeros(len(state.link)), warm, free,
        listed,
    )  # fmt: skip
    if names:
        plans.let_go[:] = named
    return warm, free, listed

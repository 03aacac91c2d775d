"""Replay rankings under a threshold: the planner's choice is made inside the judge's own compiled loop.

What a planner may ask for depends on what is warm, and that depends on what it asked for before; so
choosing and judging cannot be two passes. The accounting is `env.judge.accounting`'s own functions; this file
only names who leaves first (where a case is told who is opened soon), walks the ranked list after every
event, leaves out what is resident (warm or loading), and stops at K. Replaying the plans that it chose
through `env.judge.accounting.replay` gives the same records bit for bit (tested).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from env.compiled import compiled
from env.judge import let_go
from env.judge.accounting import T, course, finish, open_event, plan_let_go, plan_pick, plan_prewarm
from env.judge.plans import N_FIELDS, AnyCase, Outcomes, Plans, at_wake
from env.judge.state import MARKS, Ledger, copy_state, new_state, rules

if TYPE_CHECKING:
    from env.ranking import Ranking


WAKING = at_wake(0)


@compiled
def _sweep(  # type: ignore[no-untyped-def]
    past,
    s,
    r,
    w,
    book,
    listed,
    probability,
    thresholds,
    waking,
    picks,
    start,
    stop,
    scratch,
    value,
    table,
    names,
    choose,
):
    width = picks + waking.shape[1]
    let_go.begin(past, r, w)
    for j in range(start):
        open_event(past, r, w, book, j, scratch)
    for q in range(len(thresholds)):
        copy_state(past, s)
        book.target[:] = -1
        book.outcome[:] = 0
        book.mb_s[:] = 0.0
        book.lead[:] = np.nan
        for d in range(stop - start):
            i = start - 1 + d
            asked = 0
            if not choose:
                plan_let_go(s, names[d])
            elif names.shape[1] > 0:
                let_go.name(s, r, w.told, i, value)
                for k in range(names.shape[1]):
                    names[d, k] = s.ireg[MARKS + k]
            for k in range(listed.shape[1]):
                x = listed[d, k]
                if x < 0 or probability[d, k] < thresholds[q] or s.link[x, 0] >= 0:
                    continue
                number = d * width + asked
                book.target[number] = x
                plan_prewarm(s, r, book, number, r.delays[0], w.clock[i, T], table[q, d])
                asked += 1
                if asked == picks:
                    break
            for k in range(waking.shape[1]):
                if waking[d, k] >= 0:
                    number = d * width + picks + k
                    book.target[number] = waking[d, k]
                    plan_pick(s, r, w, book, number, WAKING, i, table[q, d])
            open_event(s, r, w, book, i + 1, table[q, d])
        scratch[:] = 0.0
        finish(s, r, book, scratch)
        for f in range(len(scratch)):
            table[q, stop - start - 1, f] += scratch[f]


def sweep(
    case: AnyCase,
    ranking: Ranking,
    thresholds: np.ndarray,
    names: bool = False,
    waking: np.ndarray | None = None,
) -> np.ndarray:
    """Records of the opens of a case under each threshold, float64 [thresholds, opens, fields]. ranking: of
    its decisions. names: whether plans name who leaves first, by what the case is told. waking: what is
    loaded at the wake after each decision, whatever the threshold, int32 [opens, W], -1 for nothing (None: W
    is 0)."""
    return _run(case, ranking, np.asarray(thresholds, np.float64), names, waking)[0]


def replay_ranked(
    case: AnyCase,
    ranking: Ranking,
    threshold: float,
    names: bool | np.ndarray = False,
    waking: np.ndarray | None = None,
) -> tuple[Outcomes, Plans]:
    """Outcomes over the whole timeline (zero outside the case) and the plans of the case's decisions.
    names: as of `sweep`, or who leaves first after each decision, int32 [opens, R]. waking: see `sweep`; its
    picks stand behind the others."""
    table, book, named = _run(case, ranking, np.array([threshold]), names, waking)
    n, start, stop = len(case.timeline), case.start, case.stop
    k = len(book.target) // (stop - start)
    records, outcome = np.zeros((n, N_FIELDS)), np.zeros((n, k), np.int8)
    mb_s, lead = np.zeros((n, k)), np.full((n, k), np.nan)
    records[start:stop] = table[0]
    rows = slice(start - 1, stop - 1)
    outcome[rows], mb_s[rows] = book.outcome.reshape(-1, k), book.mb_s.reshape(-1, k)
    lead[rows] = book.lead.reshape(-1, k)
    chosen = book.target.reshape(-1, k).astype(np.int32)
    delay = np.zeros(chosen.shape, np.int8)
    delay[:, case.world.max_picks :] = WAKING
    plans = Plans(chosen, delay, named)
    return Outcomes(records, outcome, mb_s, lead, start, stop), plans


def _run(
    case: AnyCase,
    ranking: Ranking,
    thresholds: np.ndarray,
    names: bool | np.ndarray,
    waking: np.ndarray | None,
) -> tuple[np.ndarray, Ledger, np.ndarray]:
    config, start, stop = case.world, case.start, case.stop
    if not 1 <= start < stop <= len(case.timeline) or len(ranking) != stop - start:
        raise ValueError(
            f"window {start}..{stop} with {len(ranking)} rankings does not fit {len(case.timeline)} events"
        )
    choose = isinstance(names, bool)
    if choose and names and case.worth is None:
        raise ValueError("a case that is told nothing names nobody")
    waking = np.full((stop - start, 0), -1, np.int32) if waking is None else waking
    size = (stop - start) * (config.max_picks + waking.shape[1])
    book = Ledger(np.full(size, -1, np.int32), np.zeros(size, np.int8), np.zeros(size), np.full(size, np.nan))
    r = rules(case.costs, config)
    if isinstance(names, bool):
        named = np.full((stop - start, config.max_let_go if names else 0), -1, np.int32)
    else:
        named = np.ascontiguousarray(names, np.int32)
    past, state = (new_state(len(case.costs), 2 * size, r.let_go, named.shape[1]) for _ in range(2))
    table = np.zeros((len(thresholds), stop - start, N_FIELDS))
    _sweep(
        past, state, r, course(case.timeline, config, case.worth), book,
        np.ascontiguousarray(ranking.targets, np.int32),
        np.ascontiguousarray(ranking.probability, np.float64),
        thresholds, np.ascontiguousarray(waking, np.int32), config.max_picks, start, stop, np.zeros(N_FIELDS),
        np.zeros(len(state.link)), table, named, choose,
    )  # fmt: skip
    return table, book, named

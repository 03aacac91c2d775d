"""Replay rankings under a threshold: the planner's choice is made inside the judge's own compiled loop.

What a planner may ask for depends on what is warm, and that depends on what it asked for before; so
choosing and judging cannot be two passes. The accounting is `env.judge.accounting`'s own functions; this file
only walks the ranked list after every event, leaves out what is resident (warm or loading), and stops at K.
Replaying the plans that it chose through `env.judge.accounting.replay` gives the same records bit for bit
(tested).
"""

from __future__ import annotations

import numpy as np

from env.compiled import compiled
from env.judge import let_go
from env.judge.accounting import T, course, finish, open_event, plan_prewarm
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import N_FIELDS, Outcomes
from env.judge.state import Ledger, copy_state, new_state, rules
from env.ranking import Ranking
from env.timeline import Timeline


@compiled
def _sweep(  # type: ignore[no-untyped-def]
    past, s, r, w, book, listed, probability, thresholds, picks, delay, start, stop, scratch, table
):
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
            for k in range(listed.shape[1]):
                x = listed[d, k]
                if x < 0 or probability[d, k] < thresholds[q] or s.link[x, 0] >= 0:
                    continue
                number = d * picks + asked
                book.target[number] = x
                plan_prewarm(s, r, book, number, delay, w.clock[i, T], table[q, d])
                asked += 1
                if asked == picks:
                    break
            open_event(s, r, w, book, i + 1, table[q, d])
        scratch[:] = 0.0
        finish(s, r, book, scratch)
        for f in range(len(scratch)):
            table[q, stop - start - 1, f] += scratch[f]


def sweep(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    ranking: Ranking,
    thresholds: np.ndarray,
    *,
    start: int,
    stop: int,
    worth: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Records of opens start..stop-1 under each threshold: float64 [len(thresholds), stop - start,
    len(env.judge.plans.FIELDS)]. ranking: of decisions start-1..stop-2, so start >= 1. worth: see
    `env.judge.accounting.course`."""
    table, _ = _run(timeline, costs, config, ranking, np.asarray(thresholds, np.float64), start, stop, worth)
    return table


def replay_ranked(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    ranking: Ranking,
    threshold: float,
    *,
    start: int,
    stop: int,
    worth: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Outcomes, np.ndarray]:
    """Outcomes over the whole timeline (zero outside the window) and the targets that were prewarmed,
    int32 [n, K], by decision."""
    table, book = _run(timeline, costs, config, ranking, np.array([threshold]), start, stop, worth)
    n, k = len(timeline), config.max_picks
    records, outcome = np.zeros((n, N_FIELDS)), np.zeros((n, k), np.int8)
    mb_s, lead, chosen = np.zeros((n, k)), np.full((n, k), np.nan), np.full((n, k), -1, np.int32)
    records[start:stop] = table[0]
    rows = slice(start - 1, stop - 1)
    outcome[rows], mb_s[rows] = book.outcome.reshape(-1, k), book.mb_s.reshape(-1, k)
    lead[rows], chosen[rows] = book.lead.reshape(-1, k), book.target.reshape(-1, k)
    return Outcomes(records, outcome, mb_s, lead, start, stop), chosen


def _run(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    ranking: Ranking,
    thresholds: np.ndarray,
    start: int,
    stop: int,
    worth: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, Ledger]:
    if not 1 <= start < stop <= len(timeline) or len(ranking) != stop - start:
        raise ValueError(
            f"window {start}..{stop} with {len(ranking)} rankings does not fit {len(timeline)} events"
        )
    size = (stop - start) * config.max_picks
    book = Ledger(np.full(size, -1, np.int32), np.zeros(size, np.int8), np.zeros(size), np.full(size, np.nan))
    r = rules(costs, config)
    past, state = (new_state(len(costs), 2 * size, r.let_go) for _ in range(2))
    table = np.zeros((len(thresholds), stop - start, N_FIELDS))
    _sweep(
        past, state, r, course(timeline, config, worth), book,
        np.ascontiguousarray(ranking.targets, np.int32),
        np.ascontiguousarray(ranking.probability, np.float64),
        thresholds, config.max_picks, float(config.delays[0]), start, stop, np.zeros(N_FIELDS),
        table,
    )  # fmt: skip
    return table, book

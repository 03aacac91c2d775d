"""Replay rankings under a threshold: the planner's choice is made inside the judge's own compiled loop.

What a planner may ask for depends on what is warm, and that depends on what it asked for before; so
choosing and judging cannot be two passes. The accounting is `env.judge.accounting`'s own functions; this file
only walks the ranked list after every event, leaves out what is resident (warm or loading), and stops at K.
Replaying the plans that it chose through `env.judge.accounting.replay` gives the same records bit for bit
(tested).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numba import njit

from env.judge import let_go
from env.judge.accounting import WAKE, T, course, finish, open_event, plan_prewarm
from env.judge.plans import N_FIELDS, Outcomes, at_wake
from env.judge.state import Ledger, copy_state, new_state, rules

if TYPE_CHECKING:
    from env.judge.cost import Costs, WorldConfig
    from env.ranking import Ranking
    from env.timeline import Timeline

WAKING = at_wake(0)


class ReplayedCase(Protocol):
    """What is asked of a case (`env.judge.case.Case`)."""

    @property
    def timeline(self) -> Timeline: ...
    @property
    def costs(self) -> Costs: ...
    @property
    def world(self) -> WorldConfig: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def worth(self) -> tuple[np.ndarray, np.ndarray] | None: ...
    def __len__(self) -> int: ...


@njit(cache=True)
def _sweep(  # type: ignore[no-untyped-def]
    past, s, r, w, book, listed, probability, thresholds, waking, picks, start, stop, table
):
    width = picks + waking.shape[1]
    scratch = np.zeros(table.shape[2])
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
            t, wake = w.clock[i, T], w.clock[i + 1, WAKE]
            asked = 0
            for k in range(listed.shape[1]):
                x = listed[d, k]
                if x < 0 or probability[d, k] < thresholds[q] or s.link[x, 0] >= 0:
                    continue
                number = d * width + asked
                book.target[number] = x
                plan_prewarm(s, r, book, number, 0, t, wake, table[q, d])
                asked += 1
                if asked == picks:
                    break
            for k in range(waking.shape[1]):
                if waking[d, k] >= 0:
                    number = d * width + picks + k
                    book.target[number] = waking[d, k]
                    plan_prewarm(s, r, book, number, WAKING, t, wake, table[q, d])
            open_event(s, r, w, book, i + 1, table[q, d])
        scratch[:] = 0.0
        finish(s, r, book, scratch)
        table[q, stop - start - 1] += scratch


def sweep(
    case: ReplayedCase, ranking: Ranking, thresholds: np.ndarray, waking: np.ndarray | None = None
) -> np.ndarray:
    """Records of a case's opens under each threshold: float64 [len(thresholds), stop - start,
    len(env.judge.plans.FIELDS)]. ranking: of its decisions. waking: what is loaded at the wake after each
    decision, whatever the threshold, int32 [stop - start, W], -1 for nothing (None: W is 0)."""
    return _run(case, ranking, np.asarray(thresholds, np.float64), waking)[0]


def replay_ranked(
    case: ReplayedCase, ranking: Ranking, threshold: float, waking: np.ndarray | None = None
) -> tuple[Outcomes, np.ndarray]:
    """Outcomes over the whole timeline (zero outside the case) and the targets that were prewarmed,
    int32 [n, K], by decision. waking: see `sweep`; W columns of the outcomes are of these."""
    table, book = _run(case, ranking, np.array([threshold]), waking)
    n, k, start, stop = len(case.timeline), len(book.target) // len(case), case.start, case.stop
    records, outcome = np.zeros((n, N_FIELDS)), np.zeros((n, k), np.int8)
    mb_s, lead, chosen = np.zeros((n, k)), np.full((n, k), np.nan), np.full((n, k), -1, np.int32)
    records[start:stop] = table[0]
    rows = slice(start - 1, stop - 1)
    outcome[rows], mb_s[rows] = book.outcome.reshape(-1, k), book.mb_s.reshape(-1, k)
    lead[rows], chosen[rows] = book.lead.reshape(-1, k), book.target.reshape(-1, k)
    return Outcomes(records, outcome, mb_s, lead, start, stop), chosen[:, : case.world.max_picks]


def _run(
    case: ReplayedCase, ranking: Ranking, thresholds: np.ndarray, waking: np.ndarray | None
) -> tuple[np.ndarray, Ledger]:
    timeline, costs, config = case.timeline, case.costs, case.world
    if not 1 <= case.start < case.stop <= len(timeline) or len(ranking) != len(case):
        raise ValueError(
            f"window {case.start}..{case.stop} with {len(ranking)} rankings does not fit {len(timeline)} "
            "events"
        )
    waking = np.full((len(case), 0), -1, np.int32) if waking is None else waking
    size = len(case) * (config.max_picks + waking.shape[1])
    book = Ledger(np.full(size, -1, np.int32), np.zeros(size, np.int8), np.zeros(size), np.full(size, np.nan))
    r = rules(costs, config)
    past, state = (new_state(len(costs), 2 * size, r.let_go) for _ in range(2))
    table = np.zeros((len(thresholds), len(case), N_FIELDS))
    _sweep(
        past, state, r, course(timeline, config, case.worth), book,
        np.ascontiguousarray(ranking.targets, np.int32),
        np.ascontiguousarray(ranking.probability, np.float64),
        thresholds, np.ascontiguousarray(waking, np.int32), config.max_picks,
        case.start, case.stop, table,
    )  # fmt: skip
    return table, book

"""Plans go into the judge, outcomes come out: the two columnar records, and nothing else.

Both are indexed like the timeline. Row i of a `Plans` is what was decided right after event i; entry j of
an `Outcomes` column is what was realised in the interval that ends with open j, that is in
(t[j-1], t[j]]: the wait of open j itself, and everything that happened to prewarms in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from env.errors import InputError

if TYPE_CHECKING:
    from env.judge.cost import Costs, WorldConfig
    from env.timeline import Timeline

NONE, HIT, LATE, REDUNDANT, WASTED = 0, 1, 2, 3, 4
OUTCOME_NAMES = ("none", "hit", "late", "redundant", "wasted")

# The columns of one outcome record, in the order in which the kernel fills them.
FIELDS = (
    "opens",  # 1 for every open that is counted
    "base_wait_s",  # wait in the no-prewarm world, seconds
    "wait_s",  # wait in the actual world, seconds
    "saved_s",  # base_wait_s - wait_s
    "planned",  # prewarms asked for by the decision before this open
    "hit",  # prewarms resolved as hit (0 or 1: only the opened target's own prewarm can be)
    "late",  # prewarms resolved as late (0 or 1)
    "redundant",  # prewarms resolved as redundant in the interval
    "wasted",  # prewarms resolved as wasted in the interval
    "pollution",  # 1 when the open was not warm, and would have been in the no-prewarm world
    "held_mb_s",  # memory-time of prewarms not yet used, over the interval, MB * s
    "wasted_mb_s",  # whole memory-time of the prewarms that were resolved as wasted, MB * s
    "rating",  # what the user said: +1, -1, 0 for nothing; the environment leaves it 0
    "cold",  # 1 when the target of the open was not resident
    "base_cold",  # 1 when it was not, in the no-prewarm world
    "kept",  # 1 when it was resident without a prewarm of its own, and not in the no-prewarm world
)
N_FIELDS = len(FIELDS)
(OPENS, BASE_WAIT, WAIT, SAVED, PLANNED, N_HIT, N_LATE, N_REDUNDANT, N_WASTED, POLLUTION, HELD, WASTED_MB_S,
 RATING, COLD_OPENS, BASE_COLD, KEPT) = range(N_FIELDS)  # fmt: skip


class AnyCase(Protocol):
    """Opens start..stop-1 of a timeline in one world: what `env.judge.case.Case` is to the compiled judge."""

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


def at_wake(delay: int) -> int:
    """The delay of a prewarm that starts so long after the wake, not after the event. `delay` is an index
    into `WorldConfig.delays`; the answer is negative."""
    return -1 - delay


@dataclass(frozen=True)
class Plans:
    """What was decided after every event.

    target  int32 [..., K], target ids of the timeline, -1 for no pick; any order, gaps allowed
    delay   int8 [..., K], index into `WorldConfig.delays`: so long after the event; `at_wake(index)`: so long
            after the wake, if the machine is switched off before the next open, and else never. Ignored where
            target is -1
    let_go  int32 [..., R], who leaves first when room is needed, in this order, until the next decision; -1
            for nobody, and who is not resident is passed over. None: R is 0

    For `replay` the leading shape is [n] (one row per event of the timeline); for `plan_effects` it is
    [D, M]: M alternatives for each of D decisions.
    """

    target: np.ndarray
    delay: np.ndarray
    let_go: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.let_go is None:
            object.__setattr__(self, "let_go", np.full((*np.shape(self.target)[:-1], 0), -1, np.int32))

    @classmethod
    def empty(cls, n: int, picks: int = 3, let_go: int = 0) -> Plans:
        """Keep still after each of n events."""
        return cls(
            np.full((n, picks), -1, np.int32),
            np.zeros((n, picks), np.int8),
            np.full((n, let_go), -1, np.int32),
        )

    def checked(self, shape: tuple[int, ...], n_targets: int, n_delays: int) -> Plans:
        """The same plans as contiguous arrays of their types. Raises InputError where they do not fit."""
        target = np.ascontiguousarray(self.target, dtype=np.int32)
        delay = np.ascontiguousarray(self.delay, dtype=np.int8)
        let_go = np.ascontiguousarray(self.let_go, dtype=np.int32)
        if target.shape != delay.shape or target.shape[:-1] != shape:
            raise InputError(
                f"plans have shapes {target.shape} and {delay.shape}; expected {(*shape, 'K')} for both"
            )
        if let_go.shape[:-1] != shape:
            raise InputError(f"plans let go {let_go.shape}; expected {(*shape, 'R')}")
        for named in (target, let_go):
            if named.size and not (named.min() >= -1 and named.max() < n_targets):
                raise InputError(f"plans name a target outside -1..{n_targets - 1}")
        used = delay[target >= 0]
        if used.size and not (used.min() >= at_wake(n_delays - 1) and used.max() < n_delays):
            raise InputError(f"plans name a delay outside {at_wake(n_delays - 1)}..{n_delays - 1}")
        return Plans(target, delay, let_go)

    def __len__(self) -> int:
        return len(self.target)

    def count(self) -> int:
        """Number of prewarms asked for."""
        return int((self.target >= 0).sum())


@dataclass(frozen=True)
class Outcomes:
    """What a replay found. Opens outside start..stop-1 are zero (lead_s: NaN) everywhere.

    table        float64 [n, len(FIELDS)], the per-open record; each field is an attribute as well
                 (`outcomes.saved_s` is float64 [n])
    outcome      int8 [n, K], per prewarm: NONE, HIT, LATE, REDUNDANT or WASTED
    prewarm_mb_s float64 [n, K], memory-time that the prewarm held while unused, MB * s (0 where it never
                 held any)
    lead_s       float64 [n, K], open time minus the prewarm's start for hits and lates, seconds; else NaN
    """

    table: np.ndarray
    outcome: np.ndarray
    prewarm_mb_s: np.ndarray
    lead_s: np.ndarray
    start: int
    stop: int

    def __getattr__(self, name: str) -> np.ndarray:
        if name in FIELDS:
            column: np.ndarray = self.table[:, FIELDS.index(name)]
            return column
        raise AttributeError(name)

    @property
    def wasted_prewarm_mb_s(self) -> np.ndarray:
        """Memory-time of the wasted prewarms, float64 [n, K], 0 for all others."""
        wasted: np.ndarray = np.where(self.outcome == WASTED, self.prewarm_mb_s, 0.0)
        return wasted

    def total(self, field: str) -> float:
        """Sum of one field over the counted opens, added in order."""
        return float(self.table[self.start : self.stop, FIELDS.index(field)].sum())

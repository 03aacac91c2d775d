"""A world that goes on: an event comes, a decision is made, and nobody knows yet what comes next.

`env.judge.accounting.replay` judges a timeline that has ended. A live recording has not: `Ongoing` takes one
event at a time into the same compiled state, by the same functions, so that what is in memory, what every
prewarm came to and what every open waited are those of a replay of the same events and plans, bit for bit
(tests/test_ongoing.py). What is not known yet stays open: a prewarm that waits to be used has no outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from env.compiled import compiled
from env.errors import InputError
from env.judge import let_go
from env.judge.accounting import Course, T, open_event, plan_let_go, plan_pick, plan_prewarm
from env.judge.cost import PAST_RULES, Cost, Costs, WorldConfig
from env.judge.plans import N_FIELDS, NONE, at_wake
from env.judge.state import MARKS, N_DUE, READY, USED, Ledger, Rules, State, new_state, rules

if TYPE_CHECKING:
    from env.ranking import Ranking

ROOM = 256


@compiled
def _take(s, r, w, book, j, table):  # type: ignore[no-untyped-def]
    """Event j."""
    open_event(s, r, w, book, j, table[j])


@compiled
def _decide(s, r, w, book, delay, names, width, j, table):  # type: ignore[no-untyped-def]
    """The plan after event j, as it stands in the arrays."""
    if len(s.ireg) > MARKS:
        plan_let_go(s, names[j])
    for number in range(j * width, (j + 1) * width):
        if book.target[number] >= 0:
            plan_pick(s, r, w, book, number, delay[number], j, table[j + 1])


@compiled
def _wake(s, r, w, book, delay, first, last, j, table):  # type: ignore[no-untyped-def]
    """What is to be loaded at the wake after event j: some numbers of the ledger."""
    for number in range(first, last):
        if book.target[number] >= 0:
            plan_pick(s, r, w, book, number, delay[number], j, table[j + 1])


@compiled
def _again(s, r, w, book, delay, names, width, opened, decided, table):  # type: ignore[no-untyped-def]
    """All events and plans so far, in an empty world."""
    for j in range(opened):
        _take(s, r, w, book, j, table)
        if j < decided:
            _decide(s, r, w, book, delay, names, width, j, table)


@compiled
def _by_threshold(  # type: ignore[no-untyped-def]
    s, r, w, book, listed, probability, theta, picks, width, j, told, value, names, table
):
    """As one decision of `env.judge.ranked_replay`: the best-ranked that are not resident, at once."""
    if len(s.ireg) > MARKS:
        let_go.name(s, r, told, 0, value)
        for k in range(names.shape[1]):
            names[j, k] = s.ireg[MARKS + k]
    asked = 0
    for k in range(len(listed)):
        x = listed[k]
        if x < 0 or probability[k] < theta or s.link[x, 0] >= 0:
            continue
        number = j * width + asked
        book.target[number] = x
        plan_prewarm(s, r, book, number, r.delays[0], w.clock[j, T], table[j + 1])
        asked += 1
        if asked == picks:
            break


@compiled
def _name(s, r, told, value):  # type: ignore[no-untyped-def]
    let_go.name(s, r, told, 0, value)


class Ongoing:
    """One person's memory so far, and what plans have come to.

    config: the world's rules; its budget has to stand in MB, as there is no whole timeline to take a typical
    target from. names: whether plans name who leaves first; wakes: whether something is planned at wakes.

    After every `open` comes at most one decision, `by_threshold` or `plan`, and after that at most one
    `wake`. Targets are numbered by first appearance. Raises InputError for rules that need to know the
    future.
    """

    def __init__(self, config: WorldConfig, *, names: bool = False, wakes: bool = False) -> None:
        if config.budget_mb is None:
            raise InputError("a world that goes on needs its budget in MB")
        if config.let_go not in PAST_RULES:
            raise InputError(f"the let-go rule {config.let_go!r} needs to know what comes")
        self.config, self.picks = config, config.max_picks
        self.width = self.picks * (2 if wakes else 1)  # what is loaded at a wake stands behind the others
        self.marks = config.max_let_go if names else 0
        self.opened = self.decided = self.known = 0
        self._open_numbers: list[int] = []
        self._rules: Rules = rules(_costs([]), config)
        self._clock, self._target = np.full((0, 3), np.inf), np.zeros(0, np.int32)
        self._names = np.full((0, self.marks), -1, np.int32)
        self._delay, self._table = np.zeros(0, np.int8), np.zeros((1, N_FIELDS))
        self._back = np.zeros(0)
        self._book = _ledger(0)
        self._cost = np.zeros((0, 4))
        self._state: State = new_state(0, 1)
        self._room_for_events(ROOM)
        self._room_for_targets(ROOM)

    def open(self, t: float, target: int, cost: Cost, off: float = math.inf) -> np.ndarray:
        """Take in the next event; its record, float64 [len(FIELDS)], which is final. cost: of its target,
        read when it first appears; off: when the machine was switched off since the event before, as
        recorded. Raises ValueError where time runs backwards or numbers are left out."""
        j = self.opened
        if j and t < self._clock[j - 1, T]:
            raise ValueError(f"event {j} is at {t}, before the one at {self._clock[j - 1, T]}")
        if not 0 <= target <= self.known:
            raise ValueError(f"event {j} opens target {target}, but only {self.known} were seen before")
        self._append(t, target, cost, off)
        _take(self._state, self._rules, self._course, self._book, j, self._table)
        self.opened = j + 1
        record: np.ndarray = self._table[j].copy()
        return record

    def by_threshold(
        self, row: Ranking, theta: float, told: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decide after the latest event as the planner `Threshold` does: (target int32 [K], let_go int32
        [R]).

        row: a ranking of one decision. told: who is opened soon, (targets int32 [1, V], their chances float64
        [1, V]); wanted where plans name who leaves.
        """
        j = self._deciding()
        said = np.zeros((1, 0)) if told is None else np.concatenate(told, axis=1).astype(np.float64)
        listed = np.ascontiguousarray(row.targets[0], np.int32)
        probability = np.ascontiguousarray(row.probability[0], np.float64)
        _by_threshold(
            self._state, self._rules, self._course, self._book, listed, probability, theta, self.picks,
            self.width, j, said, self._value, self._names, self._table,
        )  # fmt: skip
        return self._decision(j)

    def plan(self, target: Sequence[int], delay: Sequence[int], named: Sequence[int] = ()) -> None:
        """Decide after the latest event what somebody else has planned; see `env.judge.plans.Plans`."""
        j = self._deciding()
        self._write(j, target, delay, named)
        _decide(self._state, self._rules, self._course, self._book, self._delay, self._names, self.width, j,
                self._table)  # fmt: skip
        self._decision(j)

    def wake(self, t: float, target: Sequence[int]) -> None:
        """The machine was off, and the person is back at t with nothing opened yet: load these at once. When
        it was switched off is told with the next `open`."""
        j = self.opened - 1
        if self.width == self.picks or self.decided != self.opened or np.isfinite(self._back[j + 1]):
            raise ValueError(f"there is nothing to decide at a wake after event {j}, or it was decided")
        self._make_room(2 * self.picks)
        self._write_wake(j, t, target)
        first, last = j * self.width + self.picks, (j + 1) * self.width
        _wake(self._state, self._rules, self._course, self._book, self._delay, first, last, j, self._table)
        self._open_numbers += range(first, first + len(target))

    def name(self, told: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Who is least worth keeping, int32 [R]; see `by_threshold`. This alone names nobody."""
        before = self._state.ireg[MARKS:].copy()
        said = np.concatenate(told, axis=1).astype(np.float64)
        _name(self._state, self._rules, said, self._value)
        found = self._state.ireg[MARKS:].astype(np.int32)
        self._state.ireg[MARKS:] = before
        return found

    def memory(self, candidates: np.ndarray) -> tuple[np.ndarray, float]:
        """Of every candidate (int32 [size], -1 for none) whether it is cold 0, warm 1 or loading 2, int8
        [size], and the free share of memory, right after the latest event."""
        s, t = self._state, self._clock[self.opened - 1, T]
        x = np.maximum(candidates, 0)
        resident = (candidates >= 0) & (s.link[x, 0] >= 0)
        warm = np.where(resident, np.where(s.when[x, READY] <= t, 1, 2), 0).astype(np.int8)
        return warm, float(1.0 - s.reg[USED] / self._rules.budget)

    def residents(self) -> list[tuple[int, bool]]:
        """Who is in memory, least recently used first, and whether it was loaded early and not used yet."""
        link, found = self._state.link, []
        x = int(link[-1, 1])
        while x != len(link) - 1:
            found.append((x, bool(link[x, 2] >= 0)))
            x = int(link[x, 1])
        return found

    def resolved(self) -> list[tuple[int, int, int, float, float]]:
        """What has been resolved since this was asked last: (event that it was planned after, place in the
        plan, outcome as in `env.judge.plans`, MB * s held, seconds between its start and the open)."""
        now = [n for n in self._open_numbers if self._book.outcome[n] != NONE]
        self._open_numbers = [n for n in self._open_numbers if self._book.outcome[n] == NONE]
        b = self._book
        return [(*divmod(n, self.width), int(b.outcome[n]), float(b.mb_s[n]), float(b.lead[n])) for n in now]

    def restore(
        self,
        events: Sequence[Opened],
        plans: Sequence[Planlike],
        woken: Mapping[int, tuple[float, Sequence[int]]] = {},
    ) -> None:
        """Stand where these events (as of `open`) and the plans after them (as of `plan`; one for each, or
        one fewer) have led, in an empty world. woken: by event, the wake after it, as of `wake`. What their
        prewarms came to is told by `resolved`."""
        for t, target, cost, off in events:
            self._append(t, target, cost, off, alone=False)
            self.opened += 1
        for j, plan in enumerate(plans):
            self._write(j, *plan)
        for j, (back, loaded) in woken.items():
            self._write_wake(j, back, loaded)
        self.decided = len(plans)
        self._rebuild()
        used = self._book.target[: self.decided * self.width] >= 0
        self._open_numbers = np.flatnonzero(used).tolist()

    def records(self) -> np.ndarray:
        """The records of all opens so far, float64 [opened, len(FIELDS)]."""
        found: np.ndarray = self._table[: self.opened].copy()
        return found

    def _deciding(self) -> int:
        if self.decided != self.opened - 1:
            raise ValueError(f"decision {self.decided} was made already, or its event has not come")
        self._make_room(2 * self.picks)
        return self.decided

    def _make_room(self, due: int) -> None:
        """For so many things more that are due."""
        heap = self._state.ireg[N_DUE] + due
        if heap > len(self._state.due_t):
            longer = {n: _longer(getattr(self._state, n), 2 * heap) for n in ("due_t", "due_code")}
            self._state = self._state._replace(**longer)

    def _decision(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._book.target[j * self.width : j * self.width + self.picks].copy()
        self._open_numbers += [j * self.width + int(k) for k in np.flatnonzero(chosen >= 0)]
        self.decided = j + 1
        return chosen, self._names[j].copy()

    def _append(self, t: float, target: int, cost: Cost, off: float, *, alone: bool = True) -> None:
        """Write down event number `opened`. alone: whether the state has to fit at once."""
        j = self.opened
        if j == len(self._clock):
            self._room_for_events(2 * j)
        if target == self.known:
            if target == len(self._cost):
                self._cost = _longer(self._cost, 2 * target)
                if alone:
                    self._room_for_targets(2 * target)
            self._cost[target] = rules(_costs([cost]), self.config).cost[0]
            if target < len(self._rules.cost):
                self._rules.cost[target] = self._cost[target]
            self.known = target + 1
        before = self._clock[j - 1, T] if j else math.inf
        assumed = before + self.config.off_after_s
        off = min(off, assumed if assumed < t else math.inf)
        self._clock[j] = t, off if j else math.inf, math.inf
        self._target[j] = target

    def _write(self, j: int, target: Sequence[int], delay: Sequence[int], named: Sequence[int]) -> None:
        """A plan into the arrays."""
        if len(target) > self.picks or len(named) > max(self.marks, 0):
            raise InputError(f"a plan of {len(target)} prewarms and {len(named)} names fits no such world")
        rows = slice(j * self.width, j * self.width + len(target))
        self._book.target[rows], self._delay[rows] = target, delay
        self._names[j, : len(named)] = named

    def _write_wake(self, j: int, t: float, target: Sequence[int]) -> None:
        """What is loaded at a wake into the arrays."""
        if len(target) > self.width - self.picks:
            raise InputError(f"{len(target)} prewarms at a wake fit no such world")
        first = j * self.width + self.picks
        rows = slice(first, first + len(target))
        self._book.target[rows], self._delay[rows] = target, at_wake(0)
        self._back[j + 1] = t

    def _room_for_events(self, n: int) -> None:
        self._clock, self._target = _longer(self._clock, n, math.inf), _longer(self._target, n)
        self._names = _longer(self._names, n, -1)
        self._table = _longer(self._table, n + 1)
        self._delay = _longer(self._delay, n * self.width)
        self._back = _longer(self._back, n + 1, math.inf)
        old, self._book = self._book, _ledger(n * self.width)
        for few, many in zip(old, self._book, strict=True):
            many[: len(few)] = few
        self._course = Course(self._clock, self._target, np.zeros((0, 0)), self._back)

    def _room_for_targets(self, n: int) -> None:
        """Room for n targets: the lists end behind the last of them, so they are made anew."""
        self._cost = _longer(self._cost, n)
        self._rebuild()

    def _rebuild(self) -> None:
        n = len(self._cost)
        self._rules = self._rules._replace(cost=self._cost.copy())
        self._value = np.zeros(n + 1)
        room = 2 * self.width * (self.decided + 1)  # as many as can be due at once
        self._state = new_state(n, room, self._rules.let_go, self.marks)
        self._table[:] = 0.0
        _, outcome, mb_s, lead = self._book
        outcome[:], mb_s[:], lead[:] = NONE, 0.0, np.nan
        _again(self._state, self._rules, self._course, self._book, self._delay, self._names, self.width,
               self.opened, self.decided, self._table)  # fmt: skip


Opened = tuple[float, int, Cost, float]
"""An event of `Ongoing.open`: its time, target, cost, and the off before it."""
Planlike = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Targets, delays and who is let go first of one plan; see `env.judge.plans.Plans`."""


def _costs(of: Sequence[Cost]) -> Costs:
    columns = np.array([(c.memory_mb, c.cold_s, c.warm_s, c.load) for c in of]).reshape(len(of), 4)
    return Costs(*columns.T)


def _ledger(size: int) -> Ledger:
    return Ledger(np.full(size, -1, np.int32), np.zeros(size, np.int8), np.zeros(size), np.full(size, np.nan))


def _longer(a: np.ndarray, n: int, fill: float = 0) -> np.ndarray:
    """`a` with room for n rows."""
    out = np.full((n, *a.shape[1:]), fill, a.dtype)
    out[: len(a)] = a
    return out

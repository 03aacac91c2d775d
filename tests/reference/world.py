"""The judge, readable: the resident set in continuous time, with the no-prewarm world beside it.

This is the reference. `env.judge.accounting` does the same arithmetic compiled, and a test holds the two
together bit for bit; so the order of the floating-point operations here matters. The rules, with a worked
example, are in docs/accounting.md.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.cost import WAKE_S, Costs, WorldConfig
from env.judge.plans import (
    BASE_COLD,
    BASE_WAIT,
    COLD_OPENS,
    HELD,
    HIT,
    KEPT,
    LATE,
    N_FIELDS,
    N_HIT,
    N_LATE,
    N_REDUNDANT,
    N_WASTED,
    NONE,
    OPENS,
    PLANNED,
    POLLUTION,
    REDUNDANT,
    SAVED,
    WAIT,
    WASTED,
    WASTED_MB_S,
    Outcomes,
    Plans,
)
from env.timeline import Timeline
from tests.reference.let_go import RULES

EXPIRE, START = 0, 1  # what is due; at the same time an expiry comes before a start


@dataclass
class Residency:
    """One target in memory. begin: when it entered, ready: when it is warm (loading before that), unix
    seconds. prewarm: number of the prewarm that brought it and was not used yet, or -1."""

    begin: float
    ready: float
    prewarm: int = -1


class World:
    """One user's memory, and the same memory without prewarms beside it.

    Call `open(target, t)` for every event and, after it, `plan(picks, let_go)` for what was decided; `open`
    returns the record (float64 [len(FIELDS)]) of the interval that this open ends. `finish()` resolves what
    is left. `fork()` gives an independent copy; going on with either gives the same results.

    costs: of the timeline's targets. config: the rules. told: what the let-go rule wants to know besides
    (`chances` of expected, `opens` of belady).
    """

    def __init__(self, costs: Costs, config: WorldConfig, **told: Any) -> None:
        self.config = config.resolved(costs)
        self.budget = config.budget(costs)
        # A target larger than the budget takes the whole budget: opening it evicts everything else, and
        # it goes when the next target is opened.
        self.memory = [min(float(m), self.budget) for m in costs.memory_mb]
        self.cold = costs.cold_s.tolist()
        self.warm = costs.warm_s.tolist()
        self.load = costs.load_s.tolist()
        self.resident: OrderedDict[int, Residency] = OrderedDict()  # least recently used first
        self.base: OrderedDict[int, None] = OrderedDict()
        self.rule = RULES[config.let_go](self.memory, costs, self.budget, **told)
        self.marks: tuple[int, ...] = ()  # whom the latest plan lets go first
        self.in_front: dict[int, float] = {}  # when each target was last in front, unless it is now
        self.event = -1  # number of the event that was opened last
        self.used = 0.0
        self.base_used = 0.0
        self.held = 0.0  # memory of prewarms that were not used yet
        self.settled = 0.0  # until when `held` has been charged
        self.foreground = -1
        self.opened_at = 0.0
        self.due: list[tuple[float, int, int, int]] = []  # (time, EXPIRE or START, prewarm, target)
        self.waiting: list[tuple[float, int, int]] = []  # for the wake: (seconds after it, prewarm, target)
        self.prewarms = 0
        self.outcome: list[int] = []  # per prewarm, by number
        self.prewarm_mb_s: list[float] = []
        self.lead_s: list[float] = []
        self.record = [0.0] * N_FIELDS

    def fork(self) -> World:
        """An independent copy."""
        other = copy.copy(self)
        other.resident = OrderedDict((x, copy.copy(r)) for x, r in self.resident.items())
        other.base = self.base.copy()
        other.rule = self.rule.fork()
        other.in_front = self.in_front.copy()
        other.due = self.due.copy()
        other.waiting = self.waiting.copy()
        other.outcome = self.outcome.copy()
        other.prewarm_mb_s = self.prewarm_mb_s.copy()
        other.lead_s = self.lead_s.copy()
        other.record = self.record.copy()
        return other

    def restore(self, saved: World) -> None:
        """Become what `saved` (an earlier `fork()`) is; `saved` stays usable."""
        self.__dict__.update(saved.fork().__dict__)

    # --- what happens -------------------------------------------------------------------------------

    def open(
        self, target: int, t: float, offs: Sequence[float] = (), wakes: Sequence[float] = ()
    ) -> np.ndarray:
        """The user opens `target` at `t`; returns the record of the interval since the last open. offs,
        wakes: when the machine was switched off and back in between, as recorded."""
        if self.foreground >= 0:
            self._rest(t, list(offs), list(wakes))
        self.waiting = []
        self._advance(t)
        self._settle(t)
        if self.foreground >= 0:
            self.in_front[self.foreground] = t
        self._close(t)
        self.event += 1
        self.opened_at = t
        base_warm = self._open_base(target)
        base_wait = self.warm[target] if base_warm else self.cold[target]
        here = self.resident.get(target)
        self.rule.opened(target, self.event, here is not None)
        warm = here is not None and here.ready <= t
        kept = here is not None and here.prewarm < 0 and not base_warm
        if here is None:
            wait = self.cold[target]
            self.rule.wanted(target)
            while self.used + self.memory[target] > self.budget:
                self._evict(self._next_to_leave(-1), t)
            self.used += self.memory[target]
            self.resident[target] = Residency(begin=t, ready=t)
            self.rule.came_in(target, self.event, False)
        else:
            wait = self.warm[target]
            if not warm:
                wait = min(self.cold[target], self.warm[target] + (here.ready - t))
            if here.prewarm >= 0:
                self._use(target, here, t, base_warm, warm)
            here.ready = t  # once opened it is warm
            self.resident.move_to_end(target)
        self.foreground = target
        record = self.record
        record[OPENS] += 1.0
        record[BASE_WAIT] += base_wait
        record[WAIT] += wait
        record[SAVED] += base_wait - wait
        record[COLD_OPENS] += here is None
        record[BASE_COLD] += not base_warm
        record[KEPT] += kept
        if base_warm and not warm:
            record[POLLUTION] += 1.0
        self.record = [0.0] * N_FIELDS
        return np.array(record)

    def plan(self, picks: Iterable[tuple[int, int]], let_go: Sequence[int] = ()) -> list[int]:
        """Decide, right after an open: `picks` are (target, delay bucket or `at_wake` of one), `let_go` leave
        first when room is needed, until the next decision. Returns the prewarms' numbers."""
        self.marks = tuple(let_go)
        numbers = []
        for target, bucket in picks:
            number = self.prewarms
            self.prewarms += 1
            self.outcome.append(NONE)
            self.prewarm_mb_s.append(0.0)
            self.lead_s.append(float("nan"))
            numbers.append(number)
            if bucket < 0:
                self.waiting.append((self.config.delays[-1 - bucket], number, target))
                continue
            self.record[PLANNED] += 1.0
            start = self.settled + self.config.delays[bucket]
            heapq.heappush(self.due, (start, START, number, target))
        self._advance(self.settled)
        return numbers

    def finish(self) -> np.ndarray:
        """The recording ends here: what is still unused is wasted. Returns the record of it."""
        now = self.settled
        for target, here in self.resident.items():
            if here.prewarm >= 0:
                self._waste(target, here, now)
        self._cancel()
        record, self.record = self.record, [0.0] * N_FIELDS
        return np.array(record)

    # --- its parts ----------------------------------------------------------------------------------

    def _rest(self, t: float, offs: list[float], wakes: list[float]) -> None:
        """What became of the machine between the last open and the one at `t`."""
        if t - self.opened_at > self.config.off_after_s:
            offs.append(self.opened_at + self.config.off_after_s)
        if not offs and not wakes:
            return
        last = max(offs, default=-math.inf)
        if wakes and (not offs or min(wakes) <= min(offs)):
            offs.append(math.nextafter(min(wakes), -math.inf))  # nobody says since when, but off it was
        self._switch_off(min(offs))
        if wakes and max(wakes) > last:
            self._wake(max(wakes))
        else:
            self._wake(max(math.nextafter(last, math.inf), t - WAKE_S))

    def _advance(self, t: float) -> None:
        """Process what is due at or before `t`, in order of (time, expiry before start, number)."""
        while self.due and self.due[0][0] <= t:
            when, kind, number, target = heapq.heappop(self.due)
            if kind == START:
                self._start(target, number, when)
                continue
            here = self.resident.get(target)
            if here is not None and here.prewarm == number:
                self._evict(target, when)

    def _cancel(self) -> None:
        """What was to be loaded later is not."""
        for _, kind, number, _ in self.due:
            if kind == START:
                self.outcome[number] = WASTED
                self.record[N_WASTED] += 1.0
        self.due = []

    def _switch_off(self, t: float) -> None:
        """The machine is off: nothing is resident afterwards, in both worlds."""
        self._advance(t)
        self._settle(t)
        for target in list(self.resident):
            self._evict(target, t)
        self.base.clear()
        self.base_used = 0.0
        self._cancel()
        self.foreground = -1
        self.marks = ()

    def _wake(self, t: float) -> None:
        """The person is back: what was planned for that is asked for now."""
        for seconds, number, target in self.waiting:
            self.record[PLANNED] += 1.0
            heapq.heappush(self.due, (t + seconds, START, number, target))

    def _close(self, t: float) -> None:
        """The user has closed what was not in front for so long."""
        if math.isinf(self.config.close_after_s):
            return
        old = {
            x for x, at in self.in_front.items()
            if x != self.foreground and at + self.config.close_after_s <= t
        }  # fmt: skip
        for target in [x for x, here in self.resident.items() if x in old and here.prewarm < 0]:
            self._evict(target, t)
        for target in [x for x in self.base if x in old]:
            del self.base[target]
            self.base_used -= self.memory[target]

    def _next_to_leave(self, protected: int) -> int:
        """Who leaves: whom the plan names, then whom the rule names."""
        for target in self.marks:
            if target in self.resident and target != protected:
                return target
        return self.rule.choose(list(self.resident), protected, self.event)

    def _start(self, target: int, number: int, t: float) -> None:
        """A prewarm begins to load."""
        self._close(t)
        if target in self.resident:
            self.outcome[number] = REDUNDANT
            self.record[N_REDUNDANT] += 1.0
            return
        if self.foreground >= 0 and self.memory[target] + self.memory[self.foreground] > self.budget:
            self.outcome[number] = WASTED  # does not fit beside what is in front: never loaded
            self.record[N_WASTED] += 1.0
            return
        self._settle(t)
        self.rule.wanted(target)
        while self.used + self.memory[target] > self.budget:
            self._evict(self._next_to_leave(self.foreground), t)
        self.used += self.memory[target]
        self.held += self.memory[target]
        ready = t + self.load[target]
        self.resident[target] = Residency(begin=t, ready=ready, prewarm=number)
        self.rule.came_in(target, self.event, True)
        heapq.heappush(self.due, (ready + self.config.ttl_s, EXPIRE, number, target))

    def _use(self, target: int, here: Residency, t: float, base_warm: bool, warm: bool) -> None:
        """The user opens what was prewarmed."""
        number = here.prewarm
        here.prewarm = -1
        self.held -= self.memory[target]
        self.prewarm_mb_s[number] = self.memory[target] * (t - here.begin)
        if base_warm:
            self.outcome[number] = REDUNDANT
            self.record[N_REDUNDANT] += 1.0
            return
        self.outcome[number] = HIT if warm else LATE
        self.record[N_HIT if warm else N_LATE] += 1.0
        self.lead_s[number] = t - here.begin

    def _evict(self, target: int, t: float) -> None:
        """`target` leaves memory; a prewarm that was not used is wasted."""
        here = self.resident[target]
        if here.prewarm >= 0:
            self._settle(t)
            self._waste(target, here, t)
        self.used -= self.memory[target]
        del self.resident[target]
        self.rule.left(target)

    def _waste(self, target: int, here: Residency, t: float) -> None:
        mb_s = self.memory[target] * (t - here.begin)
        self.held -= self.memory[target]
        self.outcome[here.prewarm] = WASTED
        self.prewarm_mb_s[here.prewarm] = mb_s
        self.record[N_WASTED] += 1.0
        self.record[WASTED_MB_S] += mb_s
        here.prewarm = -1

    def _settle(self, t: float) -> None:
        """Charge the memory-time of unused prewarms up to `t`."""
        self.record[HELD] += self.held * (t - self.settled)
        self.settled = t

    def _open_base(self, target: int) -> bool:
        """Open in the no-prewarm world; returns whether it was warm there."""
        if target in self.base:
            self.base.move_to_end(target)
            return True
        self.base[target] = None
        self.base_used += self.memory[target]
        while self.base_used > self.budget:
            oldest, _ = self.base.popitem(last=False)
            self.base_used -= self.memory[oldest]
        return False


def replay(
    timeline: Timeline,
    costs: Costs,
    config: WorldConfig,
    plans: Plans,
    *,
    start: int = 0,
    stop: int | None = None,
    worth: tuple[np.ndarray, np.ndarray] | None = None,
) -> Outcomes:
    """Replay a timeline under `plans`, in plain Python: what `env.judge.accounting.replay` must equal bit for
    bit.

    Opens start..stop-1 are counted, and the plans of decisions start-1..stop-2 act; earlier events only
    warm the world. plans: [n, K]. What is unused at the end is wasted at open stop-1.
    """
    n = len(timeline)
    stop = n if stop is None else stop
    if not 0 <= start <= stop <= n:
        raise InputError(f"window {start}..{stop} does not fit {n} events")
    plans = plans.checked((n,), len(costs), len(config.delays))
    told: dict[str, Any] = {}
    if config.let_go == "belady":
        told["opens"] = list(zip(timeline.t.tolist(), timeline.target.tolist(), strict=True))
    if config.let_go == "expected":
        assert worth is not None
        told["chances"] = [
            dict(zip(*row, strict=True)) for row in zip(worth[0].tolist(), worth[1].tolist(), strict=True)
        ]
    world = World(costs, config, **told)
    table = np.zeros((n, N_FIELDS))
    where: list[tuple[int, int]] = []
    for j in range(stop):
        before, t = float(timeline.t[j - 1]) if j else -math.inf, float(timeline.t[j])
        offs = [x for x in timeline.offs.tolist() if before <= x < t]
        wakes = [x for x in timeline.wakes.tolist() if before < x <= t]
        record = world.open(int(timeline.target[j]), t, offs, wakes)
        if j >= start:
            table[j] = record
        if start - 1 <= j <= stop - 2:
            slots = [k for k in range(plans.target.shape[1]) if plans.target[j, k] >= 0]
            where += [(j, k) for k in slots]
            world.plan(
                ((int(plans.target[j, k]), int(plans.delay[j, k])) for k in slots), plans.let_go[j].tolist()
            )
    if stop > start:
        table[stop - 1] += world.finish()
    outcome = np.zeros(plans.target.shape, np.int8)
    mb_s = np.zeros(plans.target.shape)
    lead = np.full(plans.target.shape, np.nan)
    for number, slot in enumerate(where):
        outcome[slot] = world.outcome[number]
        mb_s[slot] = world.prewarm_mb_s[number]
        lead[slot] = world.lead_s[number]
    return Outcomes(table, outcome, mb_s, lead, start, stop)

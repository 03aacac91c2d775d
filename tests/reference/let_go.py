"""The let-go rules, readable: one class each, told what happens, asked who leaves. `env.judge.let_go`
describes them and does the same compiled; `tests/test_let_go.py` holds the two together.

Every rule is told of an open (`opened`), of a target that came into memory (`came_in`) and of one that is no
longer there (`left`). `choose(residents, protected, event)` names who leaves: residents, least recently used
first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from env.judge.cost import Costs


class Lru:
    """The least recently used. The base of all others."""

    def __init__(self, memory: Sequence[float], costs: Costs, budget: float) -> None:
        self.memory, self.budget = memory, budget
        saving = (costs.cold_s - costs.warm_s).tolist()
        self.per_mb = [s / m for s, m in zip(saving, memory, strict=True)]

    def fork(self) -> Lru:
        return copy.deepcopy(self)

    def opened(self, x: int, event: int, resident: bool) -> None:
        """x is opened as event number `event`."""

    def wanted(self, x: int) -> None:
        """x is about to come in; room will be made for it."""

    def came_in(self, x: int, event: int, loaded: bool) -> None:
        """x is in memory now; room was made before. event: the one that was opened last."""

    def left(self, x: int) -> None:
        """x is no longer in memory."""

    def choose(self, residents: list[int], protected: int, event: int) -> int:
        others = [x for x in residents if x != protected]
        return min(others, key=lambda x: self.worth(x, event))  # the first of equals

    def worth(self, x: int, event: int) -> float:
        """What keeping x is worth: the least leaves."""
        return 0.0


class LfuDecay(Lru):
    """How often (halved every 200 opens) over the root of how long ago."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.count: dict[int, float] = {}
        self.at: dict[int, int] = {}
        self.touched: dict[int, int] = {}

    def _halved(self, opens: int) -> float:
        return float(0.5 ** (opens / 200.0)) if opens < 8192 else 0.0

    def opened(self, x: int, event: int, resident: bool) -> None:
        self.count[x] = self.count.get(x, 0.0) * self._halved(event - self.at.get(x, 0)) + 1.0
        self.at[x] = self.touched[x] = event

    def came_in(self, x: int, event: int, loaded: bool) -> None:
        if loaded:
            self.touched[x] = event

    def worth(self, x: int, event: int) -> float:
        count = self.count.get(x, 0.0) * self._halved(event - self.at.get(x, 0))
        return count / math.sqrt(event - self.touched[x] + 1.0)


class Gdsf(Lru):
    """Greedy dual size frequency."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.inflation = 0.0
        self.uses: dict[int, float] = {}
        self.value: dict[int, float] = {}

    def _set(self, x: int, uses: float) -> None:
        self.uses[x] = uses
        self.value[x] = self.inflation + uses * self.per_mb[x]

    def opened(self, x: int, event: int, resident: bool) -> None:
        if resident:
            self._set(x, self.uses[x] + 1.0)

    def came_in(self, x: int, event: int, loaded: bool) -> None:
        self._set(x, 1.0)

    def worth(self, x: int, event: int) -> float:
        return self.value[x]

    def choose(self, residents: list[int], protected: int, event: int) -> int:
        x = super().choose(residents, protected, event)
        self.inflation = self.value[x]
        return x


class S3Fifo(Lru):
    """A small queue, a main one, and a list of those who left the small one. Oldest first."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.small: list[int] = []
        self.main: list[int] = []
        self.gone: list[int] = []
        self.uses: dict[int, int] = {}
        self.full_once = False
        self.back = -1  # who was on the list when it was wanted again

    def _mb(self, queue: list[int]) -> float:
        return sum(self.memory[x] for x in queue)

    def opened(self, x: int, event: int, resident: bool) -> None:
        if resident:
            self.uses[x] += 1

    def wanted(self, x: int) -> None:
        if x in self.gone:
            self.gone.remove(x)
            self.back = x

    def came_in(self, x: int, event: int, loaded: bool) -> None:
        self.uses[x] = 0
        if x == self.back:
            self.back = -1
            self.main.append(x)
        elif not self.full_once and self._mb(self.small) >= 0.25 * self.budget:
            self.main.append(x)
        else:
            self.small.append(x)

    def left(self, x: int) -> None:
        for queue in (self.small, self.main):
            if x in queue:
                queue.remove(x)

    def choose(self, residents: list[int], protected: int, event: int) -> int:
        self.full_once = True
        if self._mb(self.main) <= 0.75 * self.budget or not set(self.main) - {protected}:
            while self.small:
                x = self.small.pop(0)
                if x == protected or self.uses[x] >= 2:
                    self.uses[x] = 0
                    self.main.append(x)
                    continue
                if self.memory[x] <= 0.9 * self.budget:
                    while self._mb(self.gone) + self.memory[x] > 0.9 * self.budget:
                        self.gone.pop(0)
                    self.gone.append(x)
                return x
        while True:
            x = self.main[0]
            if x != protected and not self.uses[x]:
                return x
            self.main.append(self.main.pop(0))
            if x != protected:
                self.uses[x] = min(self.uses[x], 3) - 1


class Sieve(Lru):
    """One queue, oldest first, a used bit each, and a hand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queue: list[int] = []
        self.used: set[int] = set()
        self.hand: int | None = None

    def opened(self, x: int, event: int, resident: bool) -> None:
        if resident:
            self.used.add(x)

    def came_in(self, x: int, event: int, loaded: bool) -> None:
        self.queue.append(x)

    def left(self, x: int) -> None:
        if x == self.hand:
            place = self.queue.index(x) + 1
            self.hand = self.queue[place] if place < len(self.queue) else None
        self.queue.remove(x)
        self.used.discard(x)

    def choose(self, residents: list[int], protected: int, event: int) -> int:
        place = 0 if self.hand is None else self.queue.index(self.hand)
        while self.queue[place] == protected or self.queue[place] in self.used:
            if self.queue[place] != protected:
                self.used.discard(self.queue[place])
            place = (place + 1) % len(self.queue)
        self.hand = self.queue[place]
        return self.hand


class Expected(Lru):
    """The least expected saving per MB. chances: after each event, by target."""

    def __init__(self, *args: Any, chances: Sequence[dict[int, float]] = ()) -> None:
        super().__init__(*args)
        self.chances = chances

    def worth(self, x: int, event: int) -> float:
        return self.chances[event].get(x, 0.0) * self.per_mb[x]


class Belady(Lru):
    """The one that is opened again last. opens: all targets, in order, with their times."""

    def __init__(self, *args: Any, opens: Sequence[tuple[float, int]] = ()) -> None:
        super().__init__(*args)
        self.opens = opens

    def worth(self, x: int, event: int) -> float:
        return -next((t for t, y in self.opens[event + 1 :] if y == x), math.inf)


RULES = {
    "lru": Lru, "lfu-decay": LfuDecay, "gdsf": Gdsf, "s3fifo": S3Fifo, "sieve": Sieve, "expected": Expected,
    "belady": Belady,
}  # fmt: skip

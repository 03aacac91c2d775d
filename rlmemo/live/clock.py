"""What time it is, and how one waits: a clock that can be replaced, so that a day passes in a minute."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

from env.errors import InputError


class Waiting(Protocol):
    """Tells the time, and waits until something is due or one is told to stop."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait so long by this clock, or until `stop` is set."""
        ...


class WallClock:
    """The machine's own."""

    def now(self) -> float:
        return time.time()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(max(0.0, seconds))


@dataclass(frozen=True)
class FastClock:
    """A clock that showed `begin` when the machine's own showed `since`, and goes `speed` times as fast. It
    shows the same in every process that is told the same."""

    begin: float
    speed: float
    since: float

    def now(self) -> float:
        return self.begin + (time.time() - self.since) * self.speed

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(max(0.0, seconds) / self.speed)

    def __str__(self) -> str:
        return f"{self.begin!r},{self.speed!r},{self.since!r}"


def clock_of(text: str | None) -> Waiting:
    """The clock that `BEGIN,SPEED,SINCE` names (see `FastClock`), the machine's own for None. Raises
    InputError for anything else."""
    if text is None:
        return WallClock()
    try:
        begin, speed, since = (float(x) for x in text.split(","))
        if not 0.0 < speed <= 1e6:
            raise ValueError(text)
    except ValueError:
        raise InputError(f"--clock {text!r} is no clock; give BEGIN,SPEED,SINCE in unix seconds") from None
    return FastClock(begin, speed, since)

"""Whose turn it is: what is urgent goes before what is not, and else who came first.

A request is of one of two classes. What somebody waits for is urgent; a batch, such as a recording that is
replayed, gets what is left. Which of them is being answered is known wherever it leads (`BATCH`).
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from itertools import count

BATCH: ContextVar[bool] = ContextVar("batch", default=False)
"""Whether what is being answered is a batch."""


SWITCH_S = 0.0005
"""Threads give way to each other so often (Python's own: .005, several times a request)."""


def answers_promptly() -> None:
    """Once all is loaded: have what is long give way often, and the garbage collector, for which everybody
    waits, pass over what is here."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


class Turns:
    """One at a time. A turn is handed on, so that nobody who has just had one takes it again from under who
    waits."""

    def __init__(self) -> None:
        self._lock, self._numbers = threading.Lock(), count()
        self._waiting: list[tuple[bool, int, threading.Event]] = []
        self._taken = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within a turn: others have theirs meanwhile."""
        self._give()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            heappush(self._waiting, (BATCH.get(), next(self._numbers), mine))
        mine.wait()

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                heappop(self._waiting)[2].set()
            else:
                self._taken = False

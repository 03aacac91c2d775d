"""A sign of life for whoever reads a log or a pipe: a plain line at least every half minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

EVERY_S = 30.0


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Pulse:
    """While this context lasts, says every `EVERY_S` what is done, how far it is and how long it has taken.

    A thread of its own says it, so that one long step is no silence. write: where lines go; silent: say
    nothing, for where a bar is drawn or nobody wants to know.
    """

    def __init__(self, what: str, *, write: Callable[[str], None] = _to_stderr, silent: bool = False) -> None:
        self.what, self.write, self.silent = what, write, silent
        self.note = ""
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def update(
        self, what: str, done: float | None = None, total: float | None = None, note: str = ""
    ) -> None:
        """What is being done now, and how much of it is."""
        self.what, self.note = what, note
        self.far = f"{done:g} of {total:g}" if done is not None and total else ""

    far = ""

    def line(self) -> str:
        """What is said."""
        took = f"{time.monotonic() - self._began:.0f} s"
        return ", ".join(
            x for x in (f"{self.what}: {self.far}" if self.far else self.what, took, self.note) if x
        )

    def __enter__(self) -> Pulse:
        self._began = time.monotonic()
        self._over.clear()
        if not self.silent:
            self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(EVERY_S):
            self.write(self.line())

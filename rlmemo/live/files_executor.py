"""`--act files`: before a target is asked for, what its program maps is read ahead; let go, it is dropped.

An executor of live: it does one step when it is told to, says what came of it in numbers, never raises for a
step that it cannot do, and undoes everything in the end. Which files a target needs is known from `live
measure`, from a look at the program while it was open, or, before that, from its Debian package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookLonger
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from env.errors import InputError
from rlmemo.live.file_list import FilePart, needed_by, package_files, read_lists, write_lists
from rlmemo.live.read_ahead import Dropped, LoadedEarly, ReadAhead

OTHER_NAMES = {"libreoffice": "soffice", "navigator": "firefox-esr"}
"""Windows whose program is called otherwise, by how the window's name begins."""
WAIT_S = 2.0
"""A step is waited for so long; what takes longer goes on by itself."""


class FilesExecutor:
    """Reads the files of targets ahead, within `limit_mb` together. lists: a file, see `file_list`; it is
    written where something new was learned."""

    def __init__(self, lists: Path, limit_mb: float) -> None:
        """Raises InputError where it can't be done here."""
        if sys.platform != "linux":
            raise InputError("--act files reads ahead on Linux alone; give --act none, pages or command")
        if not 0 < limit_mb <= 1e9:
            raise InputError(f"the memory for what is read ahead is {limit_mb} MB; give more than 0")
        self.path = lists
        self.lists = read_lists(lists)
        self.ahead = ReadAhead(self._needs, limit_mb)
        self._seen: set[str] = set()

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        """Read a program's files ahead."""
        if kind != "app":
            return {"failed": f"a {kind} has no files to read ahead"}
        told = _outcome(self.ahead.load(target))
        if told.get("held_mb") == told.get("left_out_mb") == 0:
            return {"failed": "its files are not known; python -m rlmemo.live measure finds them"}
        return told

    def let_go(self, target: str, kind: str) -> Mapping[str, Any]:
        """Drop what was read for a target, as far as nobody uses it. If the program runs, it was opened, and
        what it maps is kept for the next time."""
        told = _outcome(self.ahead.let_go(target))
        self.opened(target, kind)
        return told

    def undo(self) -> None:
        """Drop all that was read; nothing is read any more."""
        self.ahead.stop()

    def opened(self, target: str, kind: str = "app") -> Future[bool] | None:
        """Look at a program that the person has opened, and keep what it maps, once; whether it was found.
        None where there is nothing to look at."""
        if kind != "app" or target in self._seen:
            return None
        return self.ahead.after(lambda: self._look(target))

    def _look(self, target: str) -> bool:
        found = needed_by(list(_running_as(target)))
        if not found:
            return False
        self._seen.add(target)
        self.lists[target] = list(dict.fromkeys([*self.lists.get(target, ()), *found]))
        with suppress(InputError):  # a full disk must not end a recording
            write_lists(self.path, self.lists)
        return True

    def _needs(self, target: str) -> list[FilePart]:
        if target not in self.lists:
            self.lists[target] = package_files(_program(target))
        return self.lists[target]


def _program(target: str) -> str:
    """What a window's program is called among the processes."""
    name = target.lower()
    return next((other for begin, other in OTHER_NAMES.items() if name.startswith(begin)), name)


def _outcome(step: Future[LoadedEarly] | Future[Dropped]) -> Mapping[str, Any]:
    try:
        told = asdict(step.result(timeout=WAIT_S))
    except TookLonger:
        return {"begun": True}
    return {name: round(value, 4) for name, value in told.items() if name != "target"}


def _running_as(target: str) -> Iterable[int]:
    """The processes that a window's program runs as, by its name, and their children."""
    name = _program(target)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if name in {
                x.lower().removesuffix(".bin") for x in (process.name(), os.path.basename(process.exe()))
            }:
                yield process.pid
                yield from (child.pid for child in process.children(recursive=True))

"""Notices a database file that is opened otherwise than through SQLite while SQLite holds it in this process.

On POSIX, closing such a file drops SQLite's locks on it, and votes are lost. Python raises an audit event for
each file that it opens, and SQLite's own opening raises none. Whether SQLite holds a file is read off the
process's open files, so that nothing here depends on what the code under test believes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

VARIABLE = "RLMEMO_RAW_OPENS"
BESIDE = ("-wal", "-shm", "-journal")
EVENTS = ("open", "sqlite3.connect", "sqlite3.connect/handle")
found: list[str] = []
_databases: set[tuple[int, int]] = set()
_here = threading.local()


def install(tell: Callable[[str], None]) -> None:
    """Watch from now on: what is noticed is told, and raised where it happens. It cannot be taken out."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or getattr(_here, "busy", False):
            return
        _here.busy = True
        try:
            if event == "open":
                _opened(args[0], tell)
            elif event == "sqlite3.connect":
                _here.name = os.fsdecode(args[0])
            else:  # now the file is there
                _remember(_here.name)
        finally:
            _here.busy = False

    sys.addaudithook(hook)


def install_from_environment() -> None:
    """In a child: tell into the file that the environment names."""
    file = os.environ.get(VARIABLE)
    if not file:
        return

    def tell(text: str) -> None:
        with open(file, "a") as out:
            out.write(text + "\n")

    install(tell)


def _remember(name: str) -> None:
    if name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    key = _key(name)
    if key is not None:
        _databases.add(key)


def _opened(path: Any, tell: Callable[[str], None]) -> None:
    if not _databases or not isinstance(path, str | bytes | os.PathLike):
        return
    name = os.fsdecode(path)
    for whole in (name, *(name.removesuffix(end) for end in BESIDE if name.endswith(end))):
        key = _key(whole)
        if key in _databases and key in _held():
            text = f"{name} is opened while SQLite holds {whole}: its locks will be lost"
            tell(text)
            raise AssertionError(text)


def _held() -> set[tuple[int, int] | None]:
    return {_key(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}


def _key(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_dev, stat.st_ino

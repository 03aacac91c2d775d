"""Database files: what one is, which of them this process holds, and copies of those that are not ours.

A program that opens and closes a file through which it also talks to SQLite loses SQLite's locks on it: that
is how POSIX has it, and "How to corrupt an SQLite database file" tells what comes of it. So nothing here, or
anywhere in this project, opens a database file or its `-wal`, `-shm` or `-journal` otherwise than through
SQLite while a connection of this process may hold it. Connections are made by `connect`, which remembers
them; what none of them holds is judged by the bytes of its header.

Other people's databases are never opened at all, not even by SQLite, which would fold a `-wal` into them or
roll a `-journal` back: `private_copy` is what is read.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from weakref import WeakSet

from env.errors import InputError
from env.sources.lines import MAGIC_SQLITE, first_bytes

APPLICATION_ID = 0x524C4D45
"""What `PRAGMA application_id` says of our databases: "RLME"."""
AT = slice(68, 72)
"""Where that stands in a database's first bytes, big-endian (https://sqlite.org/fileformat.html)."""
FIXED = slice(21, 24)
"""Where bytes stand that are the same in every whole database."""
BESIDE = ("-wal", "-shm", "-journal")
"""How the files are called that SQLite keeps beside a database."""
TRIES, PAUSE_S = 20, 0.1

DOOR = threading.RLock()
"""Held while a connection is made or closed and while a file is read otherwise than through SQLite, so that
no thread's reading ends in the midst of another's connection."""


class Kind(Enum):
    """What a file is. UNTOLD: a database whose header does not say whose, or is damaged."""

    NOTHING = "there is no such file"
    EMPTY = "an empty file"
    OURS = "a database of rlmemo's"
    OTHER = "another program's database"
    UNTOLD = "a database"
    NONE = "no database"


Copy = sqlite3.Connection
"""What `private_copy` gives."""
Unreadable = sqlite3.Error
"""What it raises."""
DATABASES = (Kind.OURS, Kind.OTHER, Kind.UNTOLD)


class Connection(sqlite3.Connection):
    """A connection that is remembered until it is closed."""

    file: tuple[int, int] | None = None

    def close(self) -> None:
        with DOOR:
            super().close()
            _connections.discard(self)


_connections: WeakSet[Connection] = WeakSet()


def connect(path: Path, database: str | Path, **options: Any) -> sqlite3.Connection:
    """`sqlite3.connect(database, **options)` to the file at `path`, remembered as what holds it."""
    with DOOR:
        made = sqlite3.connect(database, factory=Connection, **options)
        try:
            stat = path.stat()
        except OSError as error:
            made.close()
            raise sqlite3.OperationalError(f"unable to open database file ({error.strerror})") from error
        made.file = (stat.st_dev, stat.st_ino)
        _connections.add(made)
        return made


def is_held(path: Path) -> bool:
    """Whether a connection of this process holds the file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return False
    with DOOR:
        return any(x.file == (stat.st_dev, stat.st_ino) for x in _connections)


def kind_of(path: Path) -> Kind:
    """What the file at `path` is, without touching it.

    Raises InputError for what is no regular file, cannot be read, or lies beside a database and is a part
    of it.
    """
    for end in BESIDE:
        whole = path.with_name(path.name.removesuffix(end))
        if path.name.endswith(end) and whole.name and kind_of(whole) in DATABASES:
            raise InputError(f"{path}: is a part of the database {whole}; name that file")
    with DOOR:
        if is_held(path):
            return Kind.OURS
        if not path.exists():
            return Kind.NOTHING
        head = first_bytes(path, 100)
    if not head:
        return Kind.EMPTY
    if not head.startswith(MAGIC_SQLITE):
        return Kind.NONE
    application = int.from_bytes(head[AT], "big")
    if application == APPLICATION_ID:
        return Kind.OURS
    return Kind.OTHER if application and head[FIXED] == b"\x40\x20\x20" else Kind.UNTOLD


def spare_database(path: Path) -> None:
    """Raises InputError where what is to be written would take the place of a database, or go into one."""
    if path.is_file() and kind_of(path) in DATABASES:
        raise InputError(f"{path}: is a database, and would be overwritten; name another file")


@contextmanager
def private_copy(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a copy of a database that is not ours, with what stands in its `-wal` and
    without what its `-journal` takes back. The copy lies in a folder that only its owner can enter, and goes
    when the block ends; the original and what lies beside it stay as they are, to the last byte.

    Raises InputError where it cannot be copied, sqlite3.Error where it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="rlmemo-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "copy.db"
        _copy(path.resolve(), copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as folding:
            folding.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            folding.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        uri = copy.resolve().as_uri() + "?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection


def _copy(path: Path, copy: Path) -> None:
    """Copy a database and what belongs to it, while nobody writes to it."""
    names = [("", copy), *((end, copy.with_name(copy.name + end)) for end in BESIDE if end != "-shm")]
    try:
        for _ in range(TRIES):
            before = _stamps(path)
            with DOOR:
                if is_held(path):
                    raise InputError(f"{path}: is in use by this program; it is read where it lies")
                for end, to in names:
                    to.unlink(missing_ok=True)
                    source = path.with_name(path.name + end)
                    if source.is_file():
                        shutil.copyfile(source, to)
                        to.chmod(0o600)
            if _stamps(path) == before:
                return
            time.sleep(PAUSE_S)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be copied, and other programs' databases are read as a copy ({error.strerror})"
        ) from error
    raise InputError(f"{path}: another program keeps writing to it; close that program, and try again")


def _stamps(path: Path) -> list[tuple[int, int, int] | None]:
    found: list[tuple[int, int, int] | None] = []
    for end in ("", "-wal", "-journal"):
        try:
            stat = path.with_name(path.name + end).stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found

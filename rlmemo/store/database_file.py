"""The file of a store, before it is opened: whether it is one, and how a new one comes to its place."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from env.errors import InputError
from env.sources.sqlite_files import APPLICATION_ID, Kind, kind_of, private_copy

DEFAULT_DB = "rlmemo.db"
NO_STORE = "{}: is no database, or a damaged one ({}); restore a copy, or name another file"


def check_store(path: Path) -> Kind:
    """What is at `path`, without touching it. Raises InputError for what neither is a store nor can become
    one."""
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a file in it, such as {path / DEFAULT_DB}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; name a database file, such as {DEFAULT_DB}")
    kind = kind_of(path)
    if kind is Kind.NONE:
        raise InputError(NO_STORE.format(path, "it does not begin as SQLite's do"))
    ours = kind is not Kind.OTHER
    if kind is Kind.UNTOLD:  # one without tables, or ours of old that was killed before it was folded in
        try:
            with private_copy(path) as copy:
                application = copy.execute("PRAGMA application_id").fetchone()[0]
                tables = copy.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.Error as error:
            raise InputError(NO_STORE.format(path, error)) from error
        ours = application == APPLICATION_ID or not (application or tables)
    if not ours:
        raise InputError(f"{path}: is another program's database; name another file, it will be made")
    return kind


def check_folder(path: Path) -> None:
    """Raises InputError where no new file can be made at `path`."""
    folder = path.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be made; name a file in a folder that exists and is yours")


def put(new: Path, path: Path) -> None:
    """Put a closed new store at `path`, unless somebody else has made one there meanwhile."""
    try:
        if path.exists() and path.stat().st_size == 0:
            os.replace(new, path)
            return
        try:
            os.link(new, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if path.exists():
                raise FileExistsError from None
            os.rename(new, path)
    except FileExistsError:
        raise InputError(f"{path}: another program has made it meanwhile; run the same again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another file") from error


def make_private(path: Path) -> None:
    """Make the file if there is none, readable and writable by its owner only; tighten it if there is. The
    caller holds `DOOR`."""
    try:
        if not path.exists():
            # before SQLite makes it, because SQLite would make it as the umask says
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            with suppress(FileNotFoundError):
                if name.stat().st_mode & 0o177:
                    name.chmod(0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be made or kept private ({reason}); name a file in a folder that exists "
            "and is yours"
        ) from error


def fold(path: Path, wait_s: float = 1.0) -> None:
    """Bring what stands in a store's `-wal` into the file, so that the file alone is all of it. Where another
    program is in the midst of it for so long, the `-wal` stays, and SQLite finds it there."""
    if not Path(f"{path}-wal").exists():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=wait_s)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

"""One process at a time records into a database; who it is, and how it is told to stop.

A file beside the database is locked as long as the process lives, so that one that was killed lets go by
dying. It holds the process's number for `stop`, and nothing else.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from env.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STOP_S = 30.0


def lock_file(db: Path) -> Path:
    """The file that is locked for a database."""
    return db.with_name(f".{db.name}.live")


class OneRecorder:
    """Held by the process that records into `db`. Raises InputError where another one does."""

    def __init__(self, db: Path) -> None:
        file = lock_file(db.resolve())
        try:
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(
                f"{file}: cannot be made ({error.strerror}); name a --db in a folder of yours"
            ) from None
        if fcntl is not None:
            try:
                _lock(self._handle)
            except OSError:
                os.close(self._handle)
                raise InputError(
                    f"{db}: another program records into it already (live or serve, process "
                    f"{_number(file)}); stop it, or name another --db"
                ) from None
        os.ftruncate(self._handle, 0)
        os.write(self._handle, str(os.getpid()).encode())

    def close(self) -> None:
        """Let the next one in."""
        os.ftruncate(self._handle, 0)
        os.close(self._handle)


def _lock(handle: int, tries: int = 5) -> None:
    """Lock a file. Who only looks whether it is locked holds it for a moment, and is waited for. Raises
    OSError where it stays locked."""
    for k in range(tries):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if k == tries - 1:
                raise
            time.sleep(0.05)


def recorder(db: Path) -> int | None:
    """The number of the process that records into `db`; None where none does."""
    file = lock_file(db.resolve())
    if not file.exists() or fcntl is None:
        return _number(file)
    handle = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except OSError:
        return _number(file)
    finally:
        os.close(handle)


def stop(db: Path) -> bool:
    """Tell the process that records into `db` to stop, and wait until it has; False where none does. Raises
    InputError where it does not."""
    number = recorder(db)
    if number is None:
        return False
    os.kill(number, signal.SIGTERM)
    until = time.monotonic() + STOP_S
    while recorder(db) == number:
        if time.monotonic() > until:
            raise InputError(f"process {number} does not stop; see what it does, or end it: kill -9 {number}")
        time.sleep(0.05)
    return True


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii") or "x")
    except (OSError, ValueError):
        return None

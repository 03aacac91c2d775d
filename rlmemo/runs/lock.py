"""One command at a time writes into a run folder.

The folder itself is locked (flock), so there is no lock file: nothing is left behind that could be stale, and
a run that is killed lets go by dying. Who only reads a run (predict, benchmark, the dashboard) asks for
nothing. Where folders cannot be locked, on Windows and on some network drives, nobody is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

from env.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Hold:
    """A run folder that this process writes into, until the last of its holds is gone."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __del__(self) -> None:
        os.close(self._handle)


_holds: WeakValueDictionary[tuple[int, int], Hold] = WeakValueDictionary()


def hold(folder: Path) -> Hold | None:
    """Hold an existing run folder for as long as the result lives; None where folders cannot be locked. The
    same process may hold one several times.

    Raises InputError where another command writes into it.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stat = os.fstat(handle)
    known = _holds.get((stat.st_dev, stat.st_ino))
    if known is not None:
        os.close(handle)
        return known
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{folder}: another command is writing into this run folder; wait for it, stop it, or choose "
            "another --out"
        ) from None
    except OSError:
        os.close(handle)
        return None
    held = _holds[stat.st_dev, stat.st_ino] = Hold(handle)
    return held


def busy(folder: Path) -> bool:
    """Whether another command writes into a run folder."""
    try:
        hold(folder)
    except InputError:
        return True
    return False

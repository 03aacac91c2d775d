"""Which parts of a file lie in the page cache (Linux), and how to get a file out of it.

`mincore(2)` tells it only to whoever could write the file or owns it; to anybody else the kernel says that
all of it is there (since Linux 5.2), so nothing is claimed then.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

PAGE = mmap.PAGESIZE
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def can_tell(path: str | Path) -> bool:
    """Whether the kernel tells this process what of a file is resident."""
    return sys.platform == "linux" and (os.access(path, os.W_OK) or os.stat(path).st_uid == os.geteuid())


def resident(path: str | Path) -> np.ndarray | None:
    """bool [pages]: which pages of a file are in memory; None where the kernel does not tell. Raises OSError
    for a file that cannot be read."""
    if not can_tell(path):
        return None
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.zeros(0, bool)
        seen = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    pages = np.zeros(-(-len(seen) // PAGE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    if libc.mincore(seen.ctypes.data, len(seen), pages.ctypes.data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return (pages & 1).astype(bool)


def maps_of(pid: int | str) -> Iterator[tuple[int, int, int, str]]:
    """(first address, end, offset in the file, path) of every file that a process maps; none where it is gone
    or somebody else's."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        parts = line.split(None, 5)
        if len(parts) == 6 and parts[5].startswith("/") and not parts[5].endswith(" (deleted)"):
            first, _, end = parts[0].partition("-")
            yield int(first, 16), int(end, 16), int(parts[2], 16), parts[5]


def mapped_now() -> set[str]:
    """The files that any process maps whose maps this one may read: root sees all, others their own."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    return {path for pid in pids for *_, path in maps_of(pid)}


def drop(paths: Collection[str]) -> list[str]:
    """Ask the kernel to forget files that nobody maps now; what it was asked. Pages that are mapped or not
    yet written stay, whoever asks."""
    busy, asked = mapped_now(), []
    for path in paths:
        if os.path.realpath(path) in busy or path in busy:
            continue
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            asked.append(path)
        except OSError:
            pass
        finally:
            os.close(handle)
    return asked


def may_drop_all() -> bool:
    """Whether this process may empty the page cache of the whole machine."""
    return os.access(DROP_CACHES, os.W_OK)


def drop_all() -> None:
    """Empty the machine's page cache, and what it knows of folders. Raises PermissionError unless root."""
    DROP_CACHES.write_text("3", encoding="ascii")

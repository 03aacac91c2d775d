"""`--act files`: the files of a target are read ahead, and dropped again (Linux).

All reading is done by one thread in the idle class of I/O, so whatever a person does goes first. The memory
is the page cache's, which the kernel takes back by itself when a program needs it. What was in memory before
is nobody's doing here: it counts against the limit, and is never dropped.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from itertools import groupby

import psutil

from rlmemo.live.file_list import FilePart
from rlmemo.live.residency import mapped_now

CHUNK = 128 << 10
"""Bytes asked for at a time: the kernel cuts a request to what it would read ahead of itself (128 KiB unless
told otherwise), and says nothing."""
LEAVE_FREE = 0.5
"""Never more than this share of the memory that is available, whatever the limit."""
MB = 2**20


@dataclass(frozen=True)
class LoadedEarly:
    """What reading ahead came to: read_mb from the disk; held_mb for the target now, what was in memory
    before included; left_out_mb for which there was no room; seconds from its turn to its end."""

    target: str
    seconds: float
    read_mb: float
    held_mb: float
    left_out_mb: float


@dataclass(frozen=True)
class Dropped:
    """What letting go came to: MB that the kernel was asked to forget, and MB that stay since somebody maps
    the file now."""

    seconds: float
    dropped_mb: float
    in_use_mb: float


@dataclass
class Chunk:
    """At most 128 KiB of a file: who wants it, and whether it was read from the disk for them."""

    size: int
    wanted_by: set[str] = field(default_factory=set)
    ours: bool = False


class ReadAhead:
    """Reads files ahead and drops them, within `limit_mb` for all targets together. `load` and `let_go`
    return at once, with a Future; `stop` undoes everything, as the end of a `with` does.

    needs: what a target needs; it is asked in the thread that reads, so it may take its time.
    """

    def __init__(self, needs: Callable[[str], Iterable[FilePart] | None], limit_mb: float) -> None:
        self.needs, self.limit_mb = needs, limit_mb
        self._held: dict[tuple[str, int], Chunk] = {}
        self._bytes = 0
        self._over = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="read-ahead", initializer=_idle_io)

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def held_mb(self) -> float:
        """MB that are held for all targets together."""
        return self._bytes / MB

    def load(self, target: str) -> Future[LoadedEarly]:
        """Read the target's files; nothing where there is no list for it."""
        return self._worker.submit(self._load, target)

    def let_go(self, target: str) -> Future[Dropped]:
        """Drop what was read for this target, and nobody else wants or maps."""
        return self._worker.submit(self._let_go, {target})

    def after(self, work: Callable[[], bool]) -> Future[bool]:
        """Do something else that takes a while in the same thread, when it is its turn."""
        return self._worker.submit(work)

    def stop(self) -> Dropped:
        """End what is being read, and drop all that was read here."""
        self._over.set()
        self._worker.shutdown(cancel_futures=True)
        return self._let_go({target for chunk in self._held.values() for target in chunk.wanted_by})

    def _load(self, target: str) -> LoadedEarly:
        began, read, left_out = time.perf_counter(), 0, 0
        asked: dict[str, dict[int, Chunk]] = {}
        needs = list(self.needs(target) or ())
        for path, _, length in needs:
            if not length and not self._over.is_set():
                _look(path)
        for path, sizes in _chunks(needs):
            if self._over.is_set():
                break
            with suppress(OSError), _opened(path) as opened:
                asked[path] = self._take(target, path, sizes)
                left_out += sum(sizes.values()) - sum(sizes[offset] for offset in asked[path])
                for offset, chunk in asked[path].items():
                    found = _ask(opened.fileno(), offset, chunk.size)
                    chunk.ours |= found > 0
                    read += found
        for path, chunks in asked.items():
            with suppress(OSError), _opened(path) as opened:
                for offset, chunk in chunks.items():
                    if self._over.is_set():
                        break
                    os.pread(opened.fileno(), 1, offset + chunk.size - 1)  # comes when the chunk is there
        held = sum(chunk.size for chunk in self._held.values() if target in chunk.wanted_by)
        return LoadedEarly(target, time.perf_counter() - began, read / MB, held / MB, left_out / MB)

    def _take(self, target: str, path: str, sizes: Mapping[int, int]) -> dict[int, Chunk]:
        """The chunks of a file, by offset, for which there is room; from now on the target holds them."""
        free = psutil.virtual_memory().available * LEAVE_FREE
        room = int(min(self.limit_mb * MB - self._bytes, free))
        taken = {}
        for offset, size in sizes.items():
            chunk = self._held.get((path, offset))
            if chunk is None and size <= room:
                chunk = self._held[path, offset] = Chunk(size)
                self._bytes += size
                room -= size
            if chunk is not None:
                chunk.wanted_by.add(target)
                taken[offset] = chunk
        return taken

    def _let_go(self, targets: set[str]) -> Dropped:
        began, dropped, in_use = time.perf_counter(), 0, 0
        ours = self._give_up(targets)
        busy = mapped_now() if ours else set()
        for path, sizes in ours.items():
            if os.path.realpath(path) in busy:
                in_use += sum(sizes.values())
                continue
            with suppress(OSError), _opened(path) as opened:
                for offset, length in _runs(sizes):
                    os.posix_fadvise(opened.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
                dropped += sum(sizes.values())
        return Dropped(time.perf_counter() - began, dropped / MB, in_use / MB)

    def _give_up(self, targets: set[str]) -> dict[str, dict[int, int]]:
        """The chunks that nobody else holds and that were read here: {path: {offset: size}}."""
        ours: dict[str, dict[int, int]] = {}
        for (path, offset), chunk in list(self._held.items()):
            if chunk.wanted_by & targets:
                chunk.wanted_by -= targets
                if not chunk.wanted_by:
                    del self._held[path, offset]
                    self._bytes -= chunk.size
                    if chunk.ours:
                        ours.setdefault(path, {})[offset] = chunk.size
        return ours


def _chunks(parts: Iterable[FilePart]) -> Iterator[tuple[str, dict[int, int]]]:
    """Each file, once, and its chunks that are asked for: {offset: size}."""
    files: dict[str, set[int]] = {}
    for path, offset, length in (x for x in parts if x.length):
        files.setdefault(path, set()).update(range(offset // CHUNK, -(-(offset + length) // CHUNK)))
    for path, places in files.items():
        with suppress(OSError):  # an update took it away: nothing to be had
            end = os.stat(path).st_size
            yield path, {k * CHUNK: min(CHUNK, end - k * CHUNK) for k in sorted(places) if k * CHUNK < end}


def _runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) of chunks that follow each other, as one: the kernel keeps what is asked for in part.
    The length is that of whole chunks, since half a page at the end of a file would be kept, too."""
    for _, run in groupby(enumerate(sorted(offsets)), key=lambda row: row[1] - row[0] * CHUNK):
        places = [offset for _, offset in run]
        yield places[0], len(places) * CHUNK


def _opened(path: str) -> FileIO:
    """A file, open for reading; a pipe that took its place does not hold us up. Raises OSError."""
    return FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))


def _look(path: str) -> None:
    """Look for something, so that what the disk says of it is in memory: what is in a folder, or that there
    is no such file."""
    with suppress(OSError):
        if stat.S_ISDIR(os.stat(path).st_mode):
            os.listdir(path)


def _ask(file: int, offset: int, size: int) -> int:
    """Ask for a part of a file; bytes that were really asked of the disk, all of them where nobody counts."""
    before = _bytes_read()
    os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)
    after = _bytes_read()
    return size if before is None or after is None else after - before


def _bytes_read() -> int | None:
    """What this thread has had read from disks; None where the kernel does not count it."""
    try:
        with open("/proc/thread-self/io", "rb", buffering=0) as file:
            return int(file.read(1000).partition(b"\nread_bytes: ")[2].split()[0])
    except (OSError, IndexError):
        return None


def _idle_io() -> None:
    """The calling thread reads and writes only when nobody else does."""
    with suppress(psutil.Error, OSError, AttributeError):
        psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)

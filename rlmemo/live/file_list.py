"""Which files, and which parts of them, a start of a program needs: watched once, kept by target.

A mapped file's parts come from `/proc/PID/pagemap`: the pages that the program really has. A file that was
opened and only read (Python's modules, say) is seen by `strace` where that is installed, and counts whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from env.errors import InputError
from rlmemo.live.residency import PAGE, maps_of
from rlmemo.runs.atomic import write_atomic

DEFAULT_FILES = "live_files.json"
JOIN = 16
"""Pages that are left out between two parts before they count as two: 64 KiB, what the kernel itself maps
around a page that was asked for."""
MOST_READ = 64 << 20
"""A file that was read and not mapped counts whole up to so many bytes; of a larger one, so many."""
PRESENT = np.uint64(1 << 63 | 1 << 62)  # in memory, or swapped out: it was used
OPENED = re.compile(r"\bopen(?:at)?\(.*O_RD(?:ONLY|WR).* = \d+<(/.*)>$")
NAMED = re.compile(r"\b\w+\((?:(?:AT_FDCWD|\d+)<(/[^>]*)>, )?\"([^\"\\]+)\"")
NO_FILES = ("/proc/", "/sys/", "/dev/", "/run/")


class FilePart(NamedTuple):
    """A part of a file: bytes from `offset` on. Of length 0: something that was looked for, a folder or a
    file that need not be there; finding that out takes a look at the disk, too."""

    path: str
    offset: int
    length: int


def megabytes(parts: Collection[FilePart]) -> float:
    """How much they are together, MB."""
    return sum(x.length for x in parts) / 2**20


class Watched:
    """What processes were seen to need; `look` may be called as often as one likes while they run.

    memory_mb: the most that they held at one time, MB, each its share of what several hold (PSS)."""

    def __init__(self) -> None:
        self.memory_mb = 0.0
        self.pages: dict[str, np.ndarray] = {}  # path -> bool [pages of the file]
        self.read: dict[str, None] = {}
        self.looked_for: dict[str, None] = {}

    def look(self, family: Collection[psutil.Process]) -> None:
        """Add what these processes have mapped now."""
        held = 0
        for process in family:
            with suppress(OSError, psutil.Error):  # it is gone, or somebody else's
                held += process.memory_full_info().pss
                with open(f"/proc/{process.pid}/pagemap", "rb", buffering=0) as pagemap:
                    for first, end, offset, path in maps_of(process.pid):
                        self._add(path, offset, _present(pagemap.fileno(), first, end))
        self.memory_mb = max(self.memory_mb, held / 2**20)

    def add_read(self, trace: Path) -> None:
        """Add the files that `strace` saw being opened for reading, and the names that were looked for."""
        for line in trace.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            if found := OPENED.search(line):
                self.read.setdefault(found[1])
            elif found := NAMED.search(line):
                path = os.path.normpath(os.path.join(found[1] or "", found[2]))
                if path.startswith("/") and not path.startswith(NO_FILES):
                    self.looked_for.setdefault(path)

    def parts(self) -> list[FilePart]:
        """What was needed and is still there, in the order in which it was seen."""
        out = []
        for path in dict.fromkeys([*self.pages, *self.read]):
            size = _size(path)
            if not size:
                continue
            if path in self.pages:
                out += [FilePart(path, *part) for part in _page_runs(self.pages[path], size)]
            else:
                out.append(FilePart(path, 0, min(size, MOST_READ)))
        return out + [FilePart(path, 0, 0) for path in self.looked_for]

    def _add(self, path: str, offset: int, present: np.ndarray) -> None:
        first = offset // PAGE
        known = self.pages.get(path)
        if known is None or len(known) < first + len(present):
            grown = np.zeros(first + len(present), bool)
            if known is not None:
                grown[: len(known)] = known
            known = self.pages[path] = grown
        known[first : first + len(present)] |= present


def _present(pagemap: int, first: int, end: int) -> np.ndarray:
    """bool [pages]: which pages between two addresses a process has."""
    raw = os.pread(pagemap, (end - first) // PAGE * 8, first // PAGE * 8)
    return (np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64) & PRESENT) != 0


def _size(path: str) -> int:
    """Bytes of a regular file; 0 for anything else."""
    if path.startswith(NO_FILES):
        return 0
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _page_runs(pages: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the runs of pages, those that lie close together as one."""
    there = np.flatnonzero(pages)
    if not len(there):
        return
    cut = np.flatnonzero(np.diff(there) > JOIN)
    for first, last in zip(there[[0, *(cut + 1)]], there[[*cut, len(there) - 1]], strict=True):
        offset = int(first) * PAGE
        if offset < size:
            yield offset, min((int(last) + 1) * PAGE, size) - offset


def needed_by(pids: Collection[int]) -> list[FilePart]:
    """What programs that run have mapped now, for one that the person has opened: nothing is started."""
    watched = Watched()
    with suppress(psutil.NoSuchProcess):
        watched.look([psutil.Process(pid) for pid in pids])
    return watched.parts()


def package_files(program: str) -> list[FilePart]:
    """The files of the Debian package that a program belongs to, whole: for one that cannot be watched. None
    where there is no dpkg, or no such program."""
    found = shutil.which(program)
    if found is None or shutil.which("dpkg") is None:
        return []
    owner = _said("dpkg", "-S", found) or _said("dpkg", "-S", os.path.realpath(found))
    paths = _said("dpkg", "-L", owner.split(": ")[0].split(",")[0]).splitlines() if owner else []
    return [FilePart(path, 0, min(size, MOST_READ)) for path in paths if (size := _size(path))]


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout if done.returncode == 0 else ""


def read_lists(path: Path) -> dict[str, list[FilePart]]:
    """The lists by target; none where there is no such file. Raises InputError for a file that is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            target: [FilePart(str(p), int(o), int(n)) for p, o, n in rows] for target, rows in data.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"{path}: is no list of files; remove it and run python -m rlmemo.live measure --files {path}"
        ) from None


def write_lists(path: Path, lists: dict[str, list[FilePart]]) -> None:
    """Put the lists there, whole or not at all, for their owner's eyes alone: paths tell of a person."""
    write_atomic(path, json.dumps(lists, ensure_ascii=False, indent=0) + "\n")

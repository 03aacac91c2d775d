"""Cold, warmed and warm starts of a program, in turns: medians, and how far they are apart.

cold     what it needs was dropped from memory first: the machine's whole page cache where root may do that,
         else the program's own files, as far as nobody maps them (what others use stays, as it does when a
         person opens something on a machine that runs)
warmed   dropped likewise, then read ahead, then started
warm     started again right afterwards
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.cost import Cost
from rlmemo.live.file_list import FilePart, megabytes, package_files
from rlmemo.live.programs import TRACE, Program, StartingPlace, start, start_watched
from rlmemo.live.read_ahead import LoadedEarly, ReadAhead
from rlmemo.live.residency import drop, drop_all

SETTLE_S = 0.3
COLD = ("machine", "files")


@dataclass(frozen=True)
class Cooling:
    """How something is made cold: `machine` empties the machine's page cache, `files` drops the files."""

    how: str

    def __call__(self, files: list[FilePart]) -> None:
        drop({x.path for x in files})
        if self.how == "machine":
            drop_all()
        time.sleep(SETTLE_S)


@dataclass
class Samples:
    """What was measured of one target, a number for every repeat. Seconds; memory_mb when it is open; read_s
    and read_mb: what reading ahead took; files_mb: how large its list is."""

    target: str
    kind: str = "app"
    cold_s: list[float] = field(default_factory=list)
    warmed_s: list[float] = field(default_factory=list)
    warm_s: list[float] = field(default_factory=list)
    read_s: list[float] = field(default_factory=list)
    read_mb: list[float] = field(default_factory=list)
    memory_mb: float = 0.0
    files_mb: float = 0.0

    def taken_away(self) -> float:
        """The share of the difference between cold and warm that warming takes away, by medians; not a number
        where cold is no longer than warm."""
        cold, warmed, warm = (float(np.median(x)) for x in (self.cold_s, self.warmed_s, self.warm_s))
        return (cold - warmed) / (cold - warm) if cold > warm else float("nan")

    def cost(self) -> Cost:
        """As the judge takes it. Its warm_s is the warmed start, so that cold_s - warm_s is what a prewarm
        really saves, and not what it would save at best."""
        cold, warmed, read = (float(np.median(x)) for x in (self.cold_s, self.warmed_s, self.read_s))
        return Cost(
            memory_mb=round(max(self.memory_mb, 0.001), 3),
            cold_s=round(max(cold, warmed), 4), warm_s=round(warmed, 4), load_s=round(read, 4),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Every number, and what follows from them."""
        share = self.taken_away()
        return {**vars(self), "taken_away": None if np.isnan(share) else round(share, 3)}


@dataclass(frozen=True)
class Rounds:
    """How starts are measured: where, how they are made cold, how often, and the memory for reading ahead."""

    place: StartingPlace
    cooling: Cooling
    repeats: int
    limit_mb: float

    def measure(self, program: Program) -> tuple[Samples, list[FilePart]]:
        """What a program's starts take, and the list of what it needs. It is started three times
        beforehand: to make its profile, to see what memory it holds, and to see what it needs. Raises
        InputError where it does not get ready."""
        say(f"{program.target}: a first start")
        start(program, self.place)
        found = Samples(program.target)
        files = learn(program, self.place, found)
        found.files_mb = round(megabytes(files), 2)
        for k in range(self.repeats):
            say(f"{program.target}: {k + 1} of {self.repeats}")
            self.cooling(files)
            found.cold_s.append(round(start(program, self.place), 4))
            found.warm_s.append(round(start(program, self.place), 4))
            self.cooling(files)
            with ReadAhead(lambda _: files, self.limit_mb) as ahead:
                loaded: LoadedEarly = ahead.load(program.target).result()
                found.warmed_s.append(round(start(program, self.place), 4))
            found.read_s.append(round(loaded.seconds, 4))
            found.read_mb.append(round(loaded.read_mb, 2))
        return found, files


def say(line: str) -> None:
    """Tell a person who waits how far it is."""
    print(line, file=sys.stderr, flush=True)


def learn(program: Program, place: StartingPlace, found: Samples) -> list[FilePart]:
    """What a start needs, watched; its package's files where nothing could be seen."""
    untraced = start_watched(program, place, trace=False)
    traced = untraced
    if shutil.which(TRACE[0]):
        with suppress(InputError):  # a container, or a sandbox of the program's own, may not allow it
            traced = start_watched(program, place, trace=True)
    seen = (untraced, traced) if program.ready == "exit" else (untraced,)
    found.memory_mb = round(max(x.memory_mb for x in seen), 2)  # what is over soon is held up by strace
    return traced.parts() or untraced.parts() or package_files(program.executable)

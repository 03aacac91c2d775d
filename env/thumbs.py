"""What a person said of what was shown to them: thumbs, in the order in which they count.

A timeline may carry them (`Timeline.thumbs`). Names stand for targets, because a timeline that is cut or
collapsed numbers its targets anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HOURS = 24


@dataclass(frozen=True)
class Thumb:
    """One thumb. since: it counts after events later than this, unix seconds (-inf: at any moment);
    hour: local hour of the moment that it is about, 0 to 23; up: which of the two; hit: whether what was
    opened next stood in the plan (None: not known); targets: names in the plan that was shown, none where it
    was to keep still."""

    since: float
    hour: int
    up: bool
    hit: bool | None
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Thumbs:
    """Thumbs of one person, by the time from which they count, in columns: since float64 [R], ascending; hour
    int64 [R]; up bool [R]; hit float64 [R], NaN where not known; targets, a tuple of names each."""

    since: np.ndarray
    hour: np.ndarray
    up: np.ndarray
    hit: np.ndarray
    targets: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, said: Iterable[Thumb]) -> Thumbs:
        """Put into the order in which they count (stable)."""
        rows = sorted(said, key=lambda one: one.since)
        return cls(
            np.array([x.since for x in rows], np.float64),
            np.array([x.hour for x in rows], np.int64),
            np.array([x.up for x in rows], bool),
            np.array([np.nan if x.hit is None else x.hit for x in rows], np.float64),
            tuple(x.targets for x in rows),
        )

    def __len__(self) -> int:
        return len(self.targets)

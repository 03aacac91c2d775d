"""Events of a recording by their ids, in order, and a digest of any beginning of it.

Two sides that agree on a number and its digest agree on everything before: so one word tells whether the
server knows what the device knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

DIGEST = 24  # hex digits


class Chain:
    """ids: in order. `digest(n)` stands for the first n of them."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.ids: list[str] = []
        self.place: dict[str, int] = {}
        self._digests = [""]
        for one in ids:
            self.add(one)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, one: str) -> None:
        """The next id."""
        self.place[one] = len(self.ids)
        self.ids.append(one)
        self._digests.append(hashlib.sha256(f"{self._digests[-1]} {one}".encode()).hexdigest()[:DIGEST])

    def digest(self, count: int | None = None) -> str:
        """Of the first `count`, of all for None."""
        return self._digests[-1 if count is None else count]

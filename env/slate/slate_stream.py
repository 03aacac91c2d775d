"""The slate of a recording that is still going on: one event comes, and the next slate is there.

`build_slates` walks a whole timeline; asked after every event, it would walk it n times. `SlateStream` keeps
the counts instead and takes one step of the same compiled walk per event, so its slates are those of
`build_slates` to the last bit (tests/test_slate_stream.py). Time per event O(targets seen so far), memory
O(events + targets).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from env.slate.slate import CONTEXT, FEATURES, ORDERS, PACES_S, SLATE_SIZE, Slates

if TYPE_CHECKING:
    from env.slate.slate_kernel import Counts

ROOM = 512


class SlateStream:
    """The slates of one person's events, as they come.

    `window` holds the slates of the last `keep` events and `targets`, int32 [keep], what they opened, the
    latest last (rows before the first event are empty). The answer column stays -1: what comes next is not
    known. Both are written over with the next event; copy what is to be kept.
    """

    def __init__(self, size: int = SLATE_SIZE, keep: int = 1, room: int = ROOM) -> None:
        from env.slate.slate_kernel import N_SEEN, new_counts, take_event

        self._take, self._new, self._n_seen = take_event, new_counts, N_SEEN
        self.size, self.keep, self.seen = size, keep, 0
        self._counts: Counts = new_counts(room, ORDERS, room)
        self._t, self._target = np.zeros(room), np.zeros(room, np.int32)
        self._contexts = np.zeros((ORDERS, room), np.int32)
        self._site = np.full(room, -1, np.int32)
        self._ids: list[dict[tuple[int, ...], int]] = [{} for _ in range(ORDERS)]
        self.window = Slates(
            np.full((keep, size), -1, np.int32),
            np.zeros((keep, size, len(FEATURES)), np.float32),
            np.zeros((keep, len(CONTEXT)), np.float32),
            np.full(keep, -1, np.int32),
        )
        self.targets = np.full(keep, -1, np.int32)

    def see(self, t: float, local: float, target: int, site: int) -> None:
        """Take in the next event.

        t: unix seconds, not before the last one's. local: wall-clock seconds since 1970. target: index, by
        first appearance, other than the last one's. site: number of the target's site, always the same.
        Raises ValueError where time runs backwards or a target comes before its predecessors.
        """
        i, c = self.seen, int(target)
        if i and t < self._t[i - 1]:
            raise ValueError(f"event {i} is at {t}, before the one at {self._t[i - 1]}")
        known = int(self._counts.number[self._n_seen])
        if not 0 <= c <= known:
            raise ValueError(f"event {i} opens target {c}, but only {known} targets were seen before")
        if i == len(self._t) or c == len(self._site):
            self._grow()
        self._t[i], self._target[i], self._site[c] = t, c, site
        back1 = int(self._target[i - 1]) if i else -1
        back2 = int(self._target[i - 2]) if i > 1 else -1
        gap = t - self._t[i - 1] if i else 0.0
        pace = sum(gap >= edge for edge in PACES_S)
        daypart = int(local // 21600 % 4)
        keys = ((c,), (c, back1), (c, back1, back2), (int(site),), (c, daypart), (c, pace), (back1,))
        for order, (ids, key) in enumerate(zip(self._ids, keys, strict=True)):
            self._contexts[order, i] = ids.setdefault(key, len(ids))

        w = self.window
        before = w.candidates[-1].copy()
        for rows in (w.candidates, w.features, w.context, self.targets):
            rows[:-1] = rows[1:]
        w.candidates[-1], w.features[-1], self.targets[-1] = -1, 0.0, c
        self._take(
            self._counts, i, self._t, self._target, int(local // 3600 % 24),
            int((local // 86400 + 3) % 7), local / 3600 % 24, self._site, self._contexts, before,
            w.candidates[-1], w.features[-1], w.context[-1],
        )  # fmt: skip
        self.seen += 1

    def woken(self, now: float, local: float) -> Slates:
        """The slate after the latest event as it is looked at later, one row: the machine was off, and what
        was opened last is not open any more. now: unix seconds; local: wall-clock seconds since 1970."""
        from env.slate.slate_kernel import write_slate

        made = self.window.at(slice(-1, None))
        found = Slates(
            np.full_like(made.candidates, -1), np.zeros_like(made.features), made.context.copy(), made.answer
        )
        write_slate(
            self._counts, self.seen - 1, self._t, self._target, float(now), int(local // 3600 % 24),
            int((local // 86400 + 3) % 7), local / 3600 % 24, -1, self._site, self._contexts,
            found.candidates[0], found.features[0], found.context[0],
        )  # fmt: skip
        return found

    def _grow(self) -> None:
        """Twice the room."""
        room = 2 * len(self._t)
        bigger = self._new(room, ORDERS, room)
        for old, new in zip(self._counts, bigger, strict=True):
            new[tuple(slice(0, n) for n in old.shape)] = old
        self._counts = bigger
        self._t, self._target = _longer(self._t, room), _longer(self._target, room)
        self._contexts, self._site = _longer(self._contexts, room), _longer(self._site, room)


def _longer(a: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros((*a.shape[:-1], n), a.dtype)
    out[..., : a.shape[-1]] = a
    return out

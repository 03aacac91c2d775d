"""What the approval model looks at: the moment, and what would be prewarmed at it, as hashed rows.

Names are hashed (CRC-32 into `SIZE` places), so a model's file holds no target's name, and a name is never
read as anything but a name. What is known of a target comes from the slate's statistics, from the past
alone, so a plan of any policy can be asked about, also one that was never shown.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from env.slate.slate import CONTEXT, FEATURES, Slates
from env.timeline import Timeline

BITS = 14
SIZE = 1 << BITS
NIGHT = (23, 7)
"""Local hours from which and until which it is night."""

_STATS = ("share1", "frequency", "hour_share", "recent_frequency")
OWN, SHARED = 2.0, 0.25
"""Sizes of the hashed features: what a person thinks of one target, and everything else. One penalty on all
weights so holds the first back least; chosen on simulated people (experiments/LOG.md)."""
NUMERIC = ("plan_size", "log_delay", "place", "unlisted", *_STATS, "miss_rate")
WIDTH = SIZE + len(NUMERIC)


def bucket(name: str) -> int:
    """The place of a named feature."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % SIZE


def _hashed(codes: Iterable[np.ndarray], say: Any) -> np.ndarray:
    """Places of categorical features given by integer columns; `say(*codes)` names one combination."""
    table = np.stack([np.asarray(c, np.int64) for c in codes], axis=1)
    unique, back = np.unique(table, axis=0, return_inverse=True)
    places = np.array([bucket(say(*row)) for row in unique.tolist()], np.int64)
    found: np.ndarray = places[back.ravel()]
    return found


def plan_rows(
    timeline: Timeline, slates: Slates, index: np.ndarray, target: np.ndarray, delay_s: np.ndarray
) -> Any:
    """Feature rows of R plans, a sparse matrix [R, WIDTH].

    index: int64 [R], decisions; target: int [R, K], ids, -1 none; delay_s: float [R, K], seconds.
    A plan's row is the sum of its picks' rows and its moment's, so that what holds of one target is
    learned whatever else is planned. Of an empty plan only the moment is said, under other names.
    """
    from scipy.sparse import csr_matrix

    index = np.asarray(index, np.int64)
    n = len(target)
    names = timeline.names
    picked = target >= 0
    still = np.where(picked.any(1), 0, 1)
    local = timeline.local()[index]
    hour = (local // 3600 % 24).astype(np.int64)
    night = ((hour >= NIGHT[0]) | (hour < NIGHT[1])).astype(np.int64)
    weekend = ((local // 86400 + 3) % 7 >= 5).astype(np.int64)
    current = timeline.target[index]
    row = np.arange(n)
    columns = [
        _hashed((hour // 3, still), lambda h, s: f"hours {h} {s}"),
        _hashed((night, still), lambda a, s: f"night {a} {s}"),
        _hashed((weekend, still), lambda a, s: f"weekend {a} {s}"),
        _hashed((current, still), lambda c, s: f"at {s} {names[c]}"),
        _hashed((picked.sum(1),), lambda k: f"picks {k}"),
    ]
    rows, sizes = [row] * len(columns), [SHARED] * len(columns)
    r, k = np.nonzero(picked)
    if len(r):
        x = target[r, k]
        columns += [
            _hashed((x,), lambda a: f"target {names[a]}"),
            _hashed((x,), lambda a: f"of {timeline.user}\0{names[a]}"),
            _hashed((x, night[r]), lambda a, h: f"target {h} {names[a]}"),
            _hashed((current[r], x), lambda c, a: f"after {names[c]}\0{names[a]}"),
        ]
        rows += [r] * 4
        sizes += [SHARED, OWN, SHARED, SHARED]
    values = [np.full(len(c), size) for c, size in zip(columns, sizes, strict=True)]
    numeric = _numeric(slates, index, target, delay_s)
    rr, cc = np.nonzero(numeric)
    return csr_matrix(
        (
            np.concatenate([*values, numeric[rr, cc]]),
            (np.concatenate([*rows, rr]), np.concatenate([*columns, SIZE + cc])),
        ),
        shape=(n, WIDTH),
    )


def _numeric(slates: Slates, index: np.ndarray, target: np.ndarray, delay_s: np.ndarray) -> np.ndarray:
    """Numbers about a plan, about of size 1, float64 [R, len(NUMERIC)]."""
    n, picks = target.shape
    out = np.zeros((n, len(NUMERIC)))
    candidates = slates.candidates[index]
    stats = [FEATURES.index(name) for name in _STATS]
    for k in range(picks):
        has = target[:, k] >= 0
        match = (candidates == target[:, k, None]) & has[:, None]
        listed = match.any(1)
        place = match.argmax(1)
        out[:, 0] += has / 3.0
        out[:, 1] += np.where(has, np.log1p(np.maximum(delay_s[:, k], 0.0)) / 7.5, 0.0)
        out[:, 2] += np.where(listed, 1.0 / (1.0 + place), 0.0)
        out[:, 3] += has & ~listed
        found = slates.features[index, place][:, stats]
        out[:, 4 : 4 + len(stats)] += np.where(listed[:, None], 2.0 * found, 0.0)
    out[:, -1] = slates.context[index, CONTEXT.index("miss_rate")]
    return out

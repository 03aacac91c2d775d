"""Whom a clairvoyant lets go, as something to learn from: residents in the order in which they may leave.

The one that is opened last leaves first (Belady). That alone is mostly chance: when something comes that is
far away nobody can know. So right is, within a horizon that is drawn for every moment, anybody who is not
opened within it, and else the one that is opened last: who leaves should be missed late, whatever late is.
"""

from __future__ import annotations

import numpy as np

MOST = 2000.0
"""Opens, from which on it makes no difference when a target is opened."""
HORIZONS = (10.0, 30.0, np.inf)


def opens_until(target: np.ndarray, rows: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Opens after each of the events `rows` (int64 [D]) until each target of listed (int64 [D, L]) is opened:
    float64 [D, L], MOST for what is not opened in as many or ever again. target: int32 [n], what was
    opened."""
    order = np.argsort(target, kind="stable")
    keys = target[order].astype(np.int64) * (len(target) + 1) + order
    at = np.searchsorted(keys, listed * (len(target) + 1) + rows[:, None], "right")
    there = order[np.minimum(at, len(order) - 1)]
    again = (at < len(order)) & (target[there] == listed)
    return np.where(again, np.minimum(there - rows[:, None], MOST), MOST)


def leaving(wait: np.ndarray, names: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(who is right to be named at each turn, bool [D, names, L]; and one who is drawn from those, int64 [D,
    names],
    -1 where nobody is left).

    wait: float64 [D, L], opens until each resident is opened, by what keeping it saves per MB, -1 for nobody.
    """
    left = wait.copy()
    n, places = wait.shape
    horizon = rng.choice(HORIZONS, (n, 1))
    right, chosen = np.zeros((n, names, places), bool), np.full((n, names), -1)
    for turn in range(names):
        last = left.max(1, keepdims=True)
        right[:, turn] = (left >= np.minimum(horizon, last)) & (left >= 0)
        drawn = np.where(right[:, turn], rng.random((n, places)), -1.0).argmax(1)
        chosen[:, turn] = np.where(right[:, turn].any(1), drawn, -1)
        left[np.arange(n), drawn] = -1.0
    return right, chosen

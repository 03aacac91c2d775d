"""The compiled walks down trees, of `rlmemo.model.trees` and `rlmemo.model.codebook`.

Apart from them because numba is slow to import, and `--help` needs none of it (tests/test_help.py).
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROWS = 128
"""Rows asked together: they stay in a core's first cache."""


@njit(cache=True)
def reached(
    values: np.ndarray, feature: np.ndarray, threshold: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """The leaf node of every row, int64 [m]."""
    node = np.zeros(len(values), np.int64)
    for row in range(len(values)):
        at = 0
        while feature[at] >= 0:
            at = left[at] if values[row, feature[at]] <= threshold[at] else right[at]
        node[row] = at
    return node


@njit(cache=True)
def scores(
    rows: np.ndarray,
    root: np.ndarray,
    child: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    leaf: np.ndarray,
) -> np.ndarray:
    """The sum of the trees' leaves for every row, float64 [m]; arrays as of `rlmemo.model.trees.Trees`."""
    m = len(rows)
    out = np.zeros(m)
    for first in range(0, m, ROWS):
        for start in root:
            # Four rows at a time: a core follows one while it waits for the others.
            for r in range(first, min(first + ROWS, m), 4):
                r1, r2, r3 = min(r + 1, m - 1), min(r + 2, m - 1), min(r + 3, m - 1)
                a = b = c = d = start
                while True:
                    next_a = child[2 * a + (not np.float64(rows[r, feature[a]]) <= threshold[a])]
                    next_b = child[2 * b + (not np.float64(rows[r1, feature[b]]) <= threshold[b])]
                    next_c = child[2 * c + (not np.float64(rows[r2, feature[c]]) <= threshold[c])]
                    next_d = child[2 * d + (not np.float64(rows[r3, feature[d]]) <= threshold[d])]
                    if next_a == a and next_b == b and next_c == c and next_d == d:
                        break
                    a, b, c, d = next_a, next_b, next_c, next_d
                out[r] += leaf[a]
                if r + 1 < m:
                    out[r1] += leaf[b]
                if r + 2 < m:
                    out[r2] += leaf[c]
                if r + 3 < m:
                    out[r3] += leaf[d]
    return out

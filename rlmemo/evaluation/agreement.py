"""Do raters agree? Cohen's kappa for two of them, Krippendorff's alpha for any number, with intervals.

Alpha: K. Krippendorff, Content Analysis (2004), chapter 11, nominal data, any pattern of missing ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from rlmemo.approval.placed_ratings import RatedMoment
from rlmemo.evaluation.bootstrap import Estimate

REPLICATES = 1000


def table(rated: Sequence[RatedMoment]) -> tuple[list[str], np.ndarray]:
    """(raters, thumbs float64 [predictions, raters], NaN where not rated)."""
    raters = sorted({r.rater for r in rated})
    places = {p: i for i, p in enumerate(sorted({r.prediction_id for r in rated}))}
    out = np.full((len(places), len(raters)), np.nan)
    for r in rated:
        out[places[r.prediction_id], raters.index(r.rater)] = r.thumbs
    return raters, out


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two columns of 0 and 1; NaN where chance alone would always agree."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if not len(a):
        return float("nan")
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def alpha(thumbs: np.ndarray) -> float:
    """Krippendorff's alpha of a table [predictions, raters] with NaN for missing; NaN where no prediction
    has two ratings, or where all ratings are the same."""
    given = (~np.isnan(thumbs)).sum(1)
    units = thumbs[given >= 2]
    m = given[given >= 2].astype(np.float64)
    if not len(m):
        return float("nan")
    ups = np.nansum(units, axis=1)
    downs = m - ups
    observed = float((2.0 * ups * downs / (m - 1.0)).sum())
    n, up, down = float(m.sum()), float(ups.sum()), float(downs.sum())
    expected = 2.0 * up * down / (n - 1.0)
    return 1.0 - observed / expected if expected > 0 else float("nan")


def pairwise(rated: Sequence[RatedMoment]) -> list[tuple[str, str, int, float, float]]:
    """(rater, rater, predictions both rated, share on which they agree, kappa) for all pairs with some."""
    raters, thumbs = table(rated)
    found = []
    for i, j in combinations(range(len(raters)), 2):
        a, b = thumbs[:, i], thumbs[:, j]
        both = ~(np.isnan(a) | np.isnan(b))
        if both.any():
            agree = float((a[both] == b[both]).mean())
            found.append((raters[i], raters[j], int(both.sum()), agree, kappa(a, b)))
    return found


def alpha_estimate(rated: Sequence[RatedMoment], seed: int = 0) -> Estimate:
    """Krippendorff's alpha with a 95 % interval by bootstrap over predictions."""
    _, thumbs = table(rated)
    value = alpha(thumbs)
    if np.isnan(value):
        return Estimate(value)
    units = thumbs[(~np.isnan(thumbs)).sum(1) >= 2]
    if len(units) < 2:  # one prediction can only be drawn as it is
        return Estimate(value)
    rng = np.random.default_rng([seed, 11])
    drawn = [alpha(units[rng.integers(0, len(units), len(units))]) for _ in range(REPLICATES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if not np.isnan(drawn).all() else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))

"""What approval another policy would have had, from ratings of what was shown: IPS, SNIPS and DR.

Every shown plan has its logged propensity; `chance` is the probability with which the other policy would
have shown the same plan at the same moment. Their ratio is the weight w.

- IPS: mean of w * thumb. Unbiased, and wild where the policies differ.
- SNIPS: sum of w * thumb / sum of w. A little biased, much steadier.
- DR: the approval model's guess for the other policy's own plans, corrected by w times what the model got
  wrong on the rated ones. Unbiased if either the propensities or the model are right.

The policy that was shown, judged on its own log, gets what was observed from all three (w is 1 throughout).

Where the other policy does things that were never shown, no estimate can know: see `Support`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlmemo.evaluation.bootstrap import Estimate

LEAST_EFFECTIVE = 20.0
"""An effective sample below this is worth a warning."""


@dataclass(frozen=True)
class Support:
    """How much the ratings say about the other policy.

    n: ratings; effective: (sum of w)^2 / (sum of w^2); overlap: share of ratings whose plan the other
    policy could have shown; mean_weight: near 1 where the log covers what the other policy does.
    """

    n: int
    effective: float
    overlap: float
    mean_weight: float

    @property
    def warning(self) -> str | None:
        """What is wrong with the support, in a line; None where nothing is."""
        if self.n and self.overlap == 0.0:
            return "no support: none of the rated plans is one that this policy would show"
        if self.effective < LEAST_EFFECTIVE:
            return (
                f"little support: {self.n} ratings are worth {self.effective:.0f} here; rate predictions of "
                "this policy itself, or log with more --explore"
            )
        if self.mean_weight < 0.7:
            return (
                f"part of what this policy shows was never shown: the weights add up to "
                f"{self.mean_weight:.0%} of what they should"
            )
        return None


@dataclass(frozen=True)
class Estimates:
    """Approval of the other policy, 0 to 1, each with a 95 % interval."""

    ips: Estimate
    snips: Estimate
    dr: Estimate
    support: Support


def support(weight: np.ndarray) -> Support:
    """The support that weights leave, [n]."""
    n = len(weight)
    total, squares = float(weight.sum()), float((weight**2).sum())
    return Support(
        n,
        total**2 / squares if squares > 0 else 0.0,
        float((weight > 0).mean()) if n else 0.0,
        total / n if n else 0.0,
    )


def estimate(
    thumbs: np.ndarray,
    propensity: np.ndarray,
    chance: np.ndarray,
    guess_shown: np.ndarray,
    guess_other: np.ndarray,
    *,
    sampling: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
) -> Estimates:
    """IPS, SNIPS and DR of n rated moments.

    thumbs: 0 or 1, [n]. propensity: of the shown plan under the policy that showed it. chance: of the same
    plan under the other. guess_shown: the approval model's guess for the shown plan. guess_other: its
    mean guess over what the other policy would show at that moment. sampling: weight of each moment, mean 1
    (clipped inverse propensity of having been rated); None for all alike. cluster: int [n], moments with the
    same number hang together, as those of one session do; None: each stands alone. From one cluster alone
    there is no interval.
    """
    n = len(thumbs)
    s = np.ones(n) if sampling is None else sampling
    of = _clusters(n, cluster)
    w = chance / propensity
    ips = _mean(s * w * thumbs, of)
    total = float((s * w).sum())
    if total > 0:
        value = float((s * w * thumbs).sum() / total)
        snips = _interval(value, n * s * w * (thumbs - value) / total, of)
    else:
        snips = Estimate(float("nan"))
    doubly = _mean(s * (guess_other + w * (thumbs - guess_shown)), of)
    if n and np.abs(w - 1.0).max() < 1e-6:
        # Its own log: there is nothing for a model to correct, and guess_other - guess_shown is only how the
        # dice fell between the policy's plan and what it tried out, zero on average.
        doubly = ips
    return Estimates(ips, snips, doubly, support(s * w))


def observed(thumbs: np.ndarray, sampling: np.ndarray, cluster: np.ndarray | None = None) -> Estimate:
    """Thumbs up of what was shown, n rated moments, each with its weight: what the estimates compare with.
    cluster: see `estimate`."""
    weight = sampling / sampling.mean()
    value = float((weight * thumbs).mean())
    return _interval(value, weight * (thumbs - value), _clusters(len(thumbs), cluster))


def _clusters(n: int, cluster: np.ndarray | None) -> np.ndarray:
    """Numbers from 0 for what hangs together, int [n]."""
    return np.arange(n) if cluster is None else np.unique(cluster, return_inverse=True)[1].ravel()


def _mean(x: np.ndarray, cluster: np.ndarray) -> Estimate:
    value = float(x.mean()) if len(x) else float("nan")
    return _interval(value, x - value, cluster)


def _interval(value: float, influence: np.ndarray, cluster: np.ndarray) -> Estimate:
    """A value with the interval that its influence values [n] give, summed by cluster int [n] (Student's t
    over clusters), kept within 0 and 1 where the value is."""
    from scipy.stats import t

    n = int(cluster.max()) + 1 if len(cluster) else 0
    if n < 2 or not np.isfinite(value):
        return Estimate(value)
    each = np.bincount(cluster, weights=influence, minlength=n) * n / len(influence)
    half = float(t.ppf(0.975, n - 1) * each.std(ddof=1) / np.sqrt(n))
    low, high = value - half, value + half
    if 0.0 <= value <= 1.0:
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(value, low, high)


def share(part: int, n: int) -> Estimate:
    """part / n with its 95 % interval (Wilson); NaN where n is 0, and no interval from one alone."""
    if n < 2:
        return Estimate(float(part) if n else float("nan"))
    z, p = 1.959964, part / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return Estimate(p, middle - half, middle + half)

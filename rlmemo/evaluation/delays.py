"""How good a policy's distribution over the time until the next open is, and what a count would have said.

A policy that says such a distribution (`Ranking.when`) says it in buckets of its own. It is judged by the
logarithm of what it gave to the bucket that came, beside a count of the user's own past, and by where in
it the real times fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlmemo.evaluation.bootstrap import Draws, Estimate
from rlmemo.evaluation.metrics import SMALLEST


def buckets(gaps_s: np.ndarray, edges_s: Sequence[float]) -> np.ndarray:
    """Bucket of each gap in seconds, int64, from 0; a gap on an edge is in the upper one."""
    return np.searchsorted(np.asarray(edges_s), gaps_s, side="right").astype(np.int64)


def past_shares(past_s: Sequence[np.ndarray], edges_s: Sequence[float]) -> list[np.ndarray]:
    """What a count of past gaps says of each user's next one: float64 [B], one probability a bucket.

    past_s: gaps of each user's past, in seconds. Each bucket of everybody's starts at 1, and they count for a
    user as B gaps would, so somebody without a past gets what everybody does, and nothing is impossible.
    """
    counts = [np.bincount(buckets(x, edges_s), minlength=len(edges_s) + 1) for x in past_s]
    everyone = np.sum(counts, axis=0) + 1.0
    usual = len(everyone) * everyone / everyone.sum()
    return [np.asarray((own + usual) / (own + usual).sum()) for own in counts]


def delay_metrics(
    when: np.ndarray, edges_s: Sequence[float], gaps_s: np.ndarray, past: np.ndarray, draws: Draws
) -> dict[str, Estimate]:
    """How good a distribution over the time until the next open is.

    when: float [D, B], as `Ranking.when`, of the edges `edges_s`; gaps_s: float64 [D], the real times;
    past: float64 [D, B], the distribution to compare with (`past_shares`). For the median and the central
    80 % a gap in a bucket that the bound cuts counts with the share of the bucket's probability on this
    side of it: the non-randomised form of the probability integral transform, which needs no guess at
    where in its bucket a gap lies (Czado, Gneiting & Held 2009, doi:10.1111/j.1541-0420.2009.01191.x).
    """
    bucket = buckets(gaps_s, edges_s)
    rows = np.arange(len(bucket))
    when = np.asarray(when, np.float64)
    own, other = (-np.log(np.maximum(p[rows, bucket], SMALLEST)) for p in (when, past))
    reach = when.cumsum(axis=1) / when.sum(axis=1, keepdims=True)
    above = np.minimum(reach[rows, bucket], 1.0)
    below = np.where(bucket > 0, reach[rows, bucket - 1], 0.0)

    def under(bound: float) -> np.ndarray:
        """Share of each gap's bucket that lies below a quantile."""
        width = above - below
        inside = (np.clip(bound, below, above) - below) / np.where(width > 0, width, 1.0)
        return np.where(width > 0, inside, 1.0 * (above <= bound))

    return {
        "delay_log_loss": draws.ratio(own),
        "delay_log_loss_past": draws.ratio(other),
        "delay_gain": draws.difference(other, own),
        "delay_below_median": draws.ratio(under(0.5)),
        "delay_within_80": draws.ratio(under(0.9) - under(0.1)),
    }


@dataclass(frozen=True)
class Delays:
    """The time until the next open, in the buckets of a policy that says a distribution over them.

    edges_s: the B - 1 seconds that part them. predicted, observed, past: float64 [B], mean probability that
    the policy gave, share of the test events, and mean probability by a count of each user's past, whose
    own metrics are `past_metrics`.
    """

    edges_s: tuple[float, ...]
    predicted: np.ndarray
    observed: np.ndarray
    past: np.ndarray
    past_metrics: dict[str, Estimate]

    def as_json(self) -> dict[str, object]:
        return {
            "edges_s": list(self.edges_s),
            **{k: getattr(self, k).tolist() for k in ("predicted", "observed", "past")},
            "past_metrics": {m: e.as_json() for m, e in self.past_metrics.items()},
        }

    @classmethod
    def judge(
        cls, when: np.ndarray, edges_s: tuple[float, ...], gaps_s: np.ndarray, past: np.ndarray, draws: Draws
    ) -> tuple[Delays, dict[str, Estimate]]:
        """Means by bucket, and the metrics of `when`; the arguments are those of `delay_metrics`."""
        of_past = delay_metrics(past, edges_s, gaps_s, past, draws)
        seen = np.bincount(buckets(gaps_s, edges_s), minlength=len(edges_s) + 1) / max(1, len(gaps_s))
        kept = {m: of_past[m] for m in ("delay_log_loss", "delay_below_median", "delay_within_80")}
        made = cls(edges_s, when.mean(axis=0, dtype=np.float64), seen, past.mean(axis=0), kept)
        return made, delay_metrics(when, edges_s, gaps_s, past, draws)

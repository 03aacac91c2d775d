"""The metrics of DESIGN section 9, from arrays of outcomes to values with 95 % intervals.

Everything is per event or per prewarm first and summed last, so that the same `Draws` (bootstrap over
sessions) give every interval and every paired difference. Nothing here knows where a ranking or an
outcome came from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from env.ranking import Ranking
from rlmemo.evaluation.bootstrap import Draws, Estimate, interval_of_a_gap

METRICS: dict[str, str] = {
    "hr@1": "share of events whose target stood first in the list",
    "hr@3": "share of events whose target stood in the first three places",
    "hr@5": "share of events whose target stood in the first five places",
    "mrr@5": "mean of 1 / place, 0 beyond the fifth place",
    "hr@1_macro": "hr@1 of each user, averaged over users",
    "log_loss": "mean of -log(probability given to what came next), in nats; unlisted counts as none",
    "ece": "mean gap between a first guess's probability and how often it was right, 10 bins of equal count",
    "ece_all": "the same over every listed target, first guess or not",
    "ece_none": "the same for the probability of none of the listed targets",
    "new_auc": "how well the probability of none tells new targets from known ones; 0.5: not at all",
    "hit_rate": "opens that were fast only because of a prewarm, per open",
    "waste_rate": "prewarms that expired, were evicted or never used, per prewarm",
    "prewarms_per_open": "prewarms per open",
    "wasted_mb_minutes_per_open": "MB x minutes held by wasted prewarms, per open",
    "saved_seconds_per_open": "waiting in the no-prewarm world minus waiting in the actual world, s per open",
    "pollution_rate": "opens that are cold only because a prewarm evicted the target, per open",
    "cold_rate": "opens whose target was not in memory, per open",
    "base_cold_rate": "the same in the no-prewarm world",
    "kept_rate": "opens that are warm only because of what was let go instead, per open",
    "coverage": "share of opens for which the plan was not empty",
    "reward_per_open": "reward per open, in the unit of the reward that was asked for",
    "oracle_share": "saved seconds as a share of the clairvoyant bound's",
    "lead_time_median_s": "median seconds from the start of a prewarm that was used to its opening",
    "delay_error_median_s": "median absolute error of the predicted delay until the next open, s",
    "delay_log_loss": "mean of -log(probability given to the bucket of the next open's delay), in nats",
    "delay_log_loss_past": "the same for a count of the user's delays in training and validation",
    "delay_gain": "delay_log_loss_past minus delay_log_loss: what the policy adds, nats",
    "delay_below_median": "share of times until the next open below the predicted median; 0.5 is right",
    "delay_within_80": "share of them within the predicted central 80 %; 0.8 is right",
    "memo_score": "1 for target and time right, 1/2 for the target alone, 0 otherwise; mean",
    "decisions_per_second": "decisions ranked per second, in one batch",
    "p50_ms": "median milliseconds for one decision, one after another",
    "p95_ms": "95th percentile of the same",
    "peak_rss_mb": "peak resident memory of the process so far, MB",
}
"""Every metric and what it means; units stand in the text."""

BETTER: dict[str, int] = {
    **dict.fromkeys(METRICS, 1),
    **dict.fromkeys((
        "log_loss", "ece", "ece_all", "ece_none", "waste_rate", "wasted_mb_minutes_per_open",
        "pollution_rate", "cold_rate",
        "delay_error_median_s", "delay_log_loss", "p50_ms", "p95_ms", "peak_rss_mb",
    ), -1),
    **dict.fromkeys((
        "prewarms_per_open", "base_cold_rate", "coverage", "lead_time_median_s", "delay_log_loss_past",
        "delay_below_median", "delay_within_80",
    ), 0),
}  # fmt: skip
"""1: more is better, -1: less is better, 0: neither by itself."""

SMALLEST = 1e-6
"""The least probability that a log loss counts."""

TIME_TOLERANCE = 2.0
"""A predicted delay counts as right within this factor of the real one (at least within 10 s)."""


@dataclass(frozen=True)
class Opens:
    """What happened to the n test opens of one policy, and to the prewarms planned right before each.

    Row j belongs to test open j: its waiting, and the plan of the decision just before it. A plan's
    outcomes (`prewarms`, `wasted`, `wasted_mb_s`) stand with the open it was planned before, even where
    they are resolved later. All float64 [n] except lead_s float64 [m], lead_open int64 [m] (one entry
    per hit or late prewarm).
    """

    base_wait_s: np.ndarray
    wait_s: np.ndarray
    saved_s: np.ndarray
    hit: np.ndarray
    late: np.ndarray
    pollution: np.ndarray
    cold: np.ndarray
    base_cold: np.ndarray
    kept: np.ndarray
    prewarms: np.ndarray
    wasted: np.ndarray
    redundant: np.ndarray
    wasted_mb_s: np.ndarray
    planned: np.ndarray
    reward: np.ndarray
    lead_s: np.ndarray
    lead_open: np.ndarray

    @classmethod
    def join(cls, parts: list[Opens]) -> Opens:
        """The opens of several timelines, one after the other."""
        joined = {}
        base, lead_open = 0, []
        for part in parts:
            lead_open.append(part.lead_open + base)
            base += len(part.saved_s)
        for field in fields(cls):
            arrays = [getattr(part, field.name) for part in parts]
            joined[field.name] = np.concatenate(arrays) if arrays else np.zeros(0)
        joined["lead_open"] = np.concatenate(lead_open) if lead_open else np.zeros(0, np.int64)
        return cls(**joined)


def places(ranking: Ranking, answers: np.ndarray) -> np.ndarray:
    """Place of each answer int [D] in its list, int64 [D], from 0; -1 where it is not listed."""
    found = ranking.targets == np.asarray(answers)[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), -1)


def rank_scores(place: np.ndarray) -> dict[str, np.ndarray]:
    """What each answer at a `places` int64 [D] counts for hr@1, hr@3, hr@5 and mrr@5, float64 [D] each."""
    out = {f"hr@{k}": ((place >= 0) & (place < k)).astype(np.float64) for k in (1, 3, 5)}
    return out | {"mrr@5": out["hr@5"] / np.maximum(place + 1.0, 1.0)}


def answer_log_p(ranking: Ranking, place: np.ndarray) -> np.ndarray:
    """Log-probability given to each answer at a `places` int64 [D], none's where it is not listed: [D]."""
    listed = ranking.probability[np.arange(len(place)), np.maximum(place, 0)]
    return np.log(np.maximum(np.where(place >= 0, listed, ranking.none), SMALLEST))


def ranking_metrics(ranking: Ranking, answers: np.ndarray, draws: Draws) -> dict[str, Estimate]:
    """hr@1, hr@3, hr@5, mrr@5, hr@1_macro, log_loss and ece of a ranking whose answers are known."""
    place = places(ranking, answers)
    scores = rank_scores(place)
    out = {name: draws.ratio(score) for name, score in scores.items()}
    out["hr@1_macro"] = draws.macro(scores["hr@1"])
    out["log_loss"] = draws.ratio(-answer_log_p(ranking, place))
    out["ece"] = calibration(ranking, answers, draws).ece
    out["ece_all"] = listed_calibration(ranking, answers, draws).ece
    out["ece_none"] = none_calibration(ranking, answers, draws).ece
    return out


def listed_calibration(ranking: Ranking, answers: np.ndarray, draws: Draws, bins: int = 20) -> Calibration:
    """Reliability of every listed target's probability, first guess or not."""
    row, column = np.nonzero(ranking.targets >= 0)
    right = 1.0 * (places(ranking, answers)[row] == column)
    return reliability(ranking.probability[row, column], right, row, draws, bins)


def none_calibration(ranking: Ranking, answers: np.ndarray, draws: Draws, bins: int = 10) -> Calibration:
    """Reliability of "none of the listed targets"; true where what came next is not in the list."""
    return reliability(
        ranking.none, 1.0 * (places(ranking, answers) < 0), np.arange(len(ranking)), draws, bins
    )


def new_target_auc(ranking: Ranking, new: np.ndarray, draws: Draws) -> Estimate:
    """Area under the curve of the probability of none against `new` bool [D], whether what came next had
    never been opened before. NaN where all or none are new."""
    from scipy.stats import rankdata

    new = np.asarray(new, bool)
    if not 0 < new.sum() < len(new):
        return Estimate(float("nan"))

    # With weights the statistic is no ratio of sums; each new target's share of known ones below it is,
    # given the known ones, so what varies from draw to draw is which new targets are in it.
    above = np.zeros(len(new))
    both = rankdata(ranking.none)
    above[new] = (both[new] - rankdata(ranking.none[new])) / (~new).sum()
    return draws.ratio(above, 1.0 * new)


@dataclass(frozen=True)
class Calibration:
    """Reliability: per bin the mean probability, the share that was right, its size."""

    predicted: np.ndarray
    observed: np.ndarray
    size: np.ndarray
    ece: Estimate

    def merged(self, bins: int) -> list[tuple[float, float, float]]:
        """(mean probability, share that was right, size) of at most `bins` bins, neighbours put together."""
        parts = [c for c in np.array_split(np.arange(len(self.size)), bins) if len(c)]
        return [
            (
                float(self.predicted[c] @ self.size[c] / total),
                float(self.observed[c] @ self.size[c] / total),
                total,
            )
            for c in parts
            if (total := float(self.size[c].sum()))
        ]


def calibration(ranking: Ranking, answers: np.ndarray, draws: Draws, bins: int = 10) -> Calibration:
    """Bins of equal count over the probability of the first guess; decisions without a guess are left
    out of the curve and count with gap 0."""
    if len(ranking) == 0:
        return Calibration(np.zeros(0), np.zeros(0), np.zeros(0), Estimate(float("nan")))
    right = (ranking.targets[:, 0] == np.asarray(answers)).astype(np.float64)
    rows = np.flatnonzero(ranking.targets[:, 0] >= 0)
    return reliability(ranking.probability[rows, 0], right[rows], rows, draws, bins)


def reliability(
    probability: np.ndarray, right: np.ndarray, decision: np.ndarray, draws: Draws, bins: int
) -> Calibration:
    """Bins of equal count over `probability` [m], with `right` [m] (1 or 0); decision int64 [m] says which
    of the draws' events each belongs to."""
    p = np.asarray(probability, np.float64)
    order = np.argsort(p, kind="stable")
    chunks = [c for c in np.array_split(order, min(bins, max(1, len(order)))) if len(c)]
    if not chunks:
        return Calibration(np.zeros(0), np.zeros(0), np.zeros(0), Estimate(float("nan")))
    predicted = np.array([p[c].mean() for c in chunks])
    observed = np.array([right[c].mean() for c in chunks])
    size = np.array([len(c) for c in chunks], dtype=np.float64)
    gap, total = np.zeros(len(draws.weights)), np.zeros(len(draws.weights))
    value = float(np.abs(predicted - observed) @ size / max(size.sum(), 1.0))
    for c in chunks:
        group = draws.groups[decision[c]]
        gap += np.abs(draws.weights @ np.bincount(group, p[c] - right[c], draws.n_groups))
        total += draws.weights @ np.bincount(group, minlength=draws.n_groups)
    mass = np.bincount(draws.groups[np.asarray(decision)], minlength=draws.n_groups)
    drawn = gap / np.maximum(total, 1.0)
    ece = interval_of_a_gap(value, drawn) if draws.tell(mass) else Estimate(value)
    return Calibration(predicted, observed, size, ece)


def prewarm_metrics(opens: Opens, draws: Draws, oracle_saved_s: np.ndarray | None) -> dict[str, Estimate]:
    """The prewarming metrics; `oracle_saved_s` float64 [n] is what the bound saves at each open."""
    out = {
        "hit_rate": draws.ratio(opens.hit),
        "waste_rate": draws.ratio(opens.wasted, opens.prewarms),
        "prewarms_per_open": draws.ratio(opens.prewarms),
        "wasted_mb_minutes_per_open": draws.ratio(opens.wasted_mb_s / 60.0),
        "saved_seconds_per_open": draws.ratio(opens.saved_s),
        "pollution_rate": draws.ratio(opens.pollution),
        "cold_rate": draws.ratio(opens.cold),
        "base_cold_rate": draws.ratio(opens.base_cold),
        "kept_rate": draws.ratio(opens.kept),
        "coverage": draws.ratio(opens.planned),
        "reward_per_open": draws.ratio(opens.reward),
        "lead_time_median_s": draws.median(opens.lead_s, opens.lead_open),
    }
    if oracle_saved_s is not None:
        out["oracle_share"] = draws.ratio(opens.saved_s, oracle_saved_s)
    return out


def timing_metrics(
    ranking: Ranking, answers: np.ndarray, gaps_s: np.ndarray, draws: Draws
) -> dict[str, Estimate]:
    """delay_error_median_s and memo_score; gaps_s float64 [D] is the real time until the next open.

    MEMO (the predecessor) gave 1 for the right operation at the right time and 1/2 for the right
    operation alone. Empty where the policy predicts no delay.
    """
    if ranking.delay_s is None:
        return {}
    delay = ranking.delay_s.astype(np.float64)
    error = np.abs(delay - gaps_s)
    close = (error <= 10.0) | (
        (delay <= TIME_TOLERANCE * gaps_s) & (gaps_s <= TIME_TOLERANCE * delay) & np.isfinite(delay)
    )
    right = ranking.targets[:, 0] == np.asarray(answers)
    return {
        "delay_error_median_s": draws.median(error, np.arange(len(error))),
        "memo_score": draws.ratio(np.where(right, np.where(close, 1.0, 0.5), 0.0)),
    }

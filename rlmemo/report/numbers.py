"""Metrics as text: their short names, and their values as they stand in every table of a report."""

from __future__ import annotations

import numpy as np

from rlmemo.evaluation.bootstrap import Estimate

PERCENT = {
    "hr@1", "hr@3", "hr@5", "hr@1_macro", "hit_rate", "waste_rate", "pollution_rate", "coverage",
    "cold_rate", "base_cold_rate", "kept_rate",
    "oracle_share", "delay_below_median", "delay_within_80",
}  # fmt: skip
SHORT = {
    "reward_per_open": "reward, s/open",
    "saved_seconds_per_open": "saved, s/open",
    "oracle_share": "share of oracle bound",
    "hit_rate": "hits / open",
    "waste_rate": "wasted / prewarm",
    "pollution_rate": "pollution / open",
    "prewarms_per_open": "prewarms / open",
    "cold_rate": "cold / open",
    "base_cold_rate": "cold without plans / open",
    "kept_rate": "kept / open",
    "wasted_mb_minutes_per_open": "wasted MB·min/open",
    "lead_time_median_s": "lead time, s",
    "delay_error_median_s": "delay error, s",
    "delay_log_loss": "delay log loss, nats",
    "delay_log_loss_past": "delay log loss of a count, nats",
    "delay_gain": "gain on a count, nats",
    "delay_below_median": "below the median",
    "delay_within_80": "within 80 %",
    "memo_score": "MEMO score",
    "decisions_per_second": "decisions / s",
    "p50_ms": "p50, ms",
    "p95_ms": "p95, ms",
    "peak_rss_mb": "peak RSS, MB",
    "hr@1_macro": "hr@1, user mean",
    "log_loss": "log loss, nats",
    "ece": "calibration error",
    "ece_all": "calibration error, all listed",
    "ece_none": "calibration error, none",
    "new_auc": "new targets foreseen, AUC",
}


def number(value: float, metric: str) -> str:
    """A metric's value as it is shown everywhere."""
    if metric in PERCENT:
        return f"{100 * value:.1f} %"
    if metric in ("decisions_per_second", "peak_rss_mb"):
        return f"{value:,.0f}"
    if metric in ("p50_ms", "p95_ms"):
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    if metric in ("delay_error_median_s", "lead_time_median_s"):
        return f"{value:.0f}"
    if metric == "wasted_mb_minutes_per_open":
        return f"{value:.1f}"
    return f"{value:.3f}"


def value(e: Estimate | None, metric: str) -> str:
    """The same with its interval in a second line; an en dash without a value."""
    if e is None or not np.isfinite(e.value):
        return "–"
    text = number(e.value, metric)
    if e.bounded:
        low, high = number(e.low, metric).removesuffix(" %"), number(e.high, metric).removesuffix(" %")
        text += f"\n{low} … {high}"
    return text


def signed(e: Estimate, metric: str) -> str:
    """A difference with its sign, and its interval in a second line."""

    def one(x: float) -> str:
        return f"{100 * x:+.1f}" if metric in PERCENT else f"{x:+.3f}"

    text = one(e.value)
    if e.bounded:
        text += f"\n{one(e.low)} … {one(e.high)}"
    return text

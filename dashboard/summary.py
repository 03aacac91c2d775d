"""A timeline in numbers: what *My days* draws. NumPy in, NumPy out; nothing here knows of Streamlit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from env.sources.clock import DAY_S
from env.timeline import Timeline

PERIODS = {"Last 7 days": 7, "Last 28 days": 28, "Everything": None}
GAP_EDGES_S = (0.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, np.inf)
GAP_NAMES = ("<10 s", "10–30 s", "30–60 s", "1–5 min", "5–15 min", "15–60 min", "1–4 h", "4–12 h", ">12 h")


def period(timeline: Timeline, days: int | None) -> Timeline:
    """The last `days` days of a timeline, counted from its last event; all of it for None."""
    if days is None or len(timeline) == 0:
        return timeline
    return timeline.take(timeline.t > timeline.t[-1] - days * DAY_S)


def by_hour_and_weekday(timeline: Timeline) -> np.ndarray:
    """Opens by local weekday (0 is Monday) and hour, int64 [7, 24]."""
    local = timeline.local()
    cell = ((local // DAY_S + 3) % 7).astype(np.int64) * 24 + (local // 3600 % 24).astype(np.int64)
    return np.bincount(cell, minlength=168).reshape(7, 24)


def top_targets(timeline: Timeline, most: int = 12) -> list[tuple[str, int]]:
    """The most opened targets with their number of opens, most first."""
    opens = np.bincount(timeline.target, minlength=len(timeline.names))
    order = np.argsort(-opens, kind="stable")[:most]
    return [(timeline.names[i], int(opens[i])) for i in order if opens[i] > 0]


@dataclass(frozen=True)
class Successors:
    """What followed a target: `left` is how often it was left, `next` (target, share of those) most first."""

    target: str
    left: int
    next: list[tuple[str, float]]


def transitions(timeline: Timeline, targets: int = 8, successors: int = 3) -> list[Successors]:
    """For the most opened targets, what was opened next."""
    a, b = timeline.target[:-1].astype(np.int64), timeline.target[1:].astype(np.int64)
    n = len(timeline.names)
    out = []
    for name, _ in top_targets(timeline, targets):
        follow = np.bincount(b[a == timeline.names.index(name)], minlength=n)
        left = int(follow.sum())
        if left:
            order = np.argsort(-follow, kind="stable")[:successors]
            out.append(
                Successors(name, left, [(timeline.names[i], follow[i] / left) for i in order if follow[i]])
            )
    return out


def gaps(timeline: Timeline) -> tuple[np.ndarray, np.ndarray]:
    """Number of pauses between opens in each class of `GAP_NAMES`, int64: those in which the machine was on,
    and those in which it was off, as far as the recording tells."""
    off, edges = timeline.rested()[1:], np.array(GAP_EDGES_S)
    pauses = np.diff(timeline.t)
    return np.histogram(pauses[~off], bins=edges)[0], np.histogram(pauses[off], bins=edges)[0]

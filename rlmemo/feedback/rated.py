"""The ratings of a store, each with the moment it is about, and where that moment stands in a timeline.

What is unrated never enters: nobody disliked it. A rating of a test moment is left out of training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from env.timeline import Timeline
from rlmemo.errors import InputError
from rlmemo.ratings import AT_RANDOM
from rlmemo.store import Store, open_store

CLIP = 10.0
"""An inverse propensity weight is at most this many times the median one."""


@dataclass(frozen=True)
class Rated:
    """One rating that counts. blind: whether the rater did not know what had happened.

    plan: (target, delay in seconds) of what was shown; propensity: probability with which the policy
    chose that plan; teaches: what the choice of the moment went by; steps: last events up to the moment.
    """

    id: int
    prediction_id: int
    rater: str
    thumbs: int
    user: str
    source: str
    t: float
    current: str | None
    plan: tuple[tuple[str, float], ...]
    propensity: float
    policy: str
    policy_version: str
    part: str
    teaches: float
    blind: bool = True

    @property
    def knowing(self) -> str:
        """The same in words."""
        return "blind" if self.blind else "outcome known"

    @property
    def name(self) -> str:
        """How pairs and rows name it."""
        return f"rating:{self.id}"


@dataclass(frozen=True)
class Placed:
    """A rating found in a timeline: user (position of the timeline), index (event known last), target
    int32 [K] (ids in that timeline, -1 none), delay_s float64 [K], weight (clipped inverse propensity of
    having been rated)."""

    rated: Rated
    user: int
    index: int
    target: np.ndarray
    delay_s: np.ndarray
    weight: float


@dataclass(frozen=True)
class Found:
    """Ratings placed in timelines; left_out counts those that could not be used, by reason."""

    placed: list[Placed]
    left_out: Counter[str] = field(default_factory=Counter)


def existing_store(path: str | Path) -> Store:
    """Open a store that must be there. Raises InputError where there is none."""
    if not Path(path).is_file():
        raise InputError(
            f"{path}: there is no such file; make predictions with python -m rlmemo.predict --db {path}, "
            f"and rate them with python -m dashboard --db {path}"
        )
    return open_store(path, make=False)


def read_ratings(store: Store) -> list[Rated]:
    """All ratings that count (of each rater the latest on each prediction), in the order they were given."""
    rows = store.rows(
        """SELECT r.id AS id, r.prediction_id AS prediction_id, r.rater AS rater, r.thumbs AS thumbs,
                  r.blind AS blind,
                  p.user AS user, p.t AS t, p.plan AS plan, p.propensity AS propensity, p.policy AS policy,
                  p.policy_version AS policy_version, m.source AS source, m.part AS part,
                  m.teaches AS teaches, m.steps AS steps
           FROM latest_ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
           LEFT JOIN moments AS m ON m.prediction_id = p.id ORDER BY r.id"""
    )
    return [_rated(row) for row in rows]


def _rated(row: dict[str, Any]) -> Rated:
    steps = json.loads(row.pop("steps") or "[]")
    plan = tuple((str(x["target"]), float(x["delay_s"])) for x in json.loads(row.pop("plan")))
    return Rated(
        **{
            **row,
            "source": row["source"] or "",
            "part": row["part"] or "",
            "teaches": row["teaches"] or 0.0,
            "blind": bool(row["blind"]),
        },
        plan=plan,
        current=str(steps[-1][1]) if steps else None,
    )


def rating_propensities(store: Store, rated: Sequence[Rated]) -> np.ndarray:
    """How likely each rated prediction was to be rated by its rater, float64 [n], in (0, 1].

    The dashboard draws without replacement, by what a rating would teach and partly at random
    (`rlmemo.ratings.shares`). Drawn m times, a prediction with share q is among them with a chance of about
    1 - (1 - q)^m; m is such that these chances add up to what was rated. Where a rater saw nearly all, they
    are nearly 1.
    """
    stored = np.array([r["teaches"] for r in store.rows("SELECT teaches FROM moments")], np.float64)
    if not len(stored) or not rated:
        return np.ones(len(rated))
    total = stored.sum()
    count = Counter(r.rater for r in rated)
    out = np.ones(len(rated))
    drawn = {rater: _draws(stored, k) for rater, k in count.items()}
    for i, r in enumerate(rated):
        by_teaching = r.teaches / total if total > 0 else 1.0 / len(stored)
        q = AT_RANDOM / len(stored) + (1.0 - AT_RANDOM) * by_teaching
        out[i] = -np.expm1(drawn[r.rater] * np.log1p(-min(q, 1.0 - 1e-12)))
    return np.clip(out, 1e-6, 1.0)


def _draws(teaches: np.ndarray, rated: int) -> float:
    """m for which the chances of `rating_propensities` add up to `rated` (1e9: all of them)."""
    n, total = len(teaches), teaches.sum()
    share = AT_RANDOM / n + (1.0 - AT_RANDOM) * (teaches / total if total > 0 else 1.0 / n)
    log = np.log1p(-np.minimum(share, 1.0 - 1e-12))
    low, high = 0.0, 1e9
    if rated >= n or -np.expm1(high * log).sum() <= rated:
        return high
    for _ in range(200):
        middle = (low + high) / 2 if low else high**0.5 if high > 4 else high / 2
        if -np.expm1(middle * log).sum() < rated:
            low = middle
        else:
            high = middle
        if high - low < 1e-6 * high:
            break
    return high


def clipped_weights(propensity: np.ndarray) -> np.ndarray:
    """Inverse propensities, clipped at `CLIP` times their median and scaled to a mean of 1."""
    if not len(propensity):
        return np.ones(0)
    weight = 1.0 / propensity
    weight = np.minimum(weight, CLIP * np.median(weight))
    scaled: np.ndarray = weight / weight.mean()
    return scaled


def place_ratings(
    rated: Sequence[Rated],
    timelines: Sequence[Timeline],
    *,
    weight: np.ndarray | None = None,
    keep_out: Sequence[np.ndarray] | None = None,
) -> Found:
    """Find each rating's moment in `timelines`.

    keep_out: per timeline, events whose decisions must not be learned from (the test part).
    """
    weights = np.ones(len(rated)) if weight is None else weight
    by_user = {x.user: k for k, x in enumerate(timelines)}
    names = [{name: i for i, name in enumerate(x.names)} for x in timelines]
    hidden = [set(np.asarray(x).tolist()) for x in keep_out] if keep_out is not None else None
    found = Found([])
    for r, w in zip(rated, weights, strict=True):
        user = by_user.get(r.user, by_user.get(f"{r.source}/{r.user}"))
        if user is None:
            found.left_out["of a user who is not among these timelines"] += 1
            continue
        timeline = timelines[user]
        i = int(np.searchsorted(timeline.t, r.t - 1e-3))
        same = i < len(timeline) and abs(float(timeline.t[i]) - r.t) <= 1e-3
        if not same or (r.current is not None and timeline.names[timeline.target[i]] != r.current):
            found.left_out["of a moment that is not in these timelines"] += 1
            continue
        if hidden is not None and i + 1 in hidden[user]:
            found.left_out["of a test moment"] += 1
            continue
        if any(target not in names[user] for target, _ in r.plan):
            found.left_out["of a target that is not in these timelines"] += 1
            continue
        target = np.array([names[user][x] for x, _ in r.plan], np.int32)
        delay = np.array([d for _, d in r.plan], np.float64)
        found.placed.append(Placed(r, user, i, target, delay, float(w)))
    return found

"""The ratings of a store, each with the moment it is about, and where that moment stands in a timeline.

What is unrated never enters: nobody disliked it. A rating of a validation or test moment does not train:
what chooses and what judges must not have been learned from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.world_options import WorldOptions
from env.splits import Split
from env.timeline import Timeline
from rlmemo.store.database import Store, open_store

VALIDATION = "of a validation moment (validation chooses, and what chooses does not train)"
TEST = "of a test moment"

CLIP = 10.0
"""An inverse propensity weight is at most this many times the median one."""


@dataclass(frozen=True)
class RatedMoment:
    """One rating that counts. blind: whether the rater did not know what had happened.

    plan: (target, delay in seconds) of what was shown; propensity: probability with which the policy
    chose that plan, given that something is shown where stills is False; stills: whether decisions to keep
    still are stored, too; shown: probability that anything is shown there; since: plans were made one after
    the other from then on (None, all three: not known); world: what the plan was made and judged in, as
    `env.judge.world_options` names it (None: the usual one); teaches: what the choice of the moment went by;
    share: probability with which this prediction was picked for the rater, out of `pool` that waited (None:
    it was not given on a showing).
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
    share: float | None = None
    pool: int | None = None
    stills: bool | None = None
    shown: float | None = None
    since: float | None = None
    world: dict[str, Any] | None = None

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

    rated: RatedMoment
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

    @property
    def advice(self) -> str:
        """What to do about what was left out most."""
        if self.left_out[VALIDATION] + self.left_out[TEST] < max(1, self.left_out.total() / 2):
            return "name the timelines that were predicted on with --timelines"
        return (
            "rate predictions of the training part (python -m rlmemo.predict --part train); those of the "
            "latest days can train once the recording has grown and they lie in it"
        )


def existing_store(path: str | Path) -> Store:
    """Open a store that must be there. Raises InputError where there is none."""
    if not Path(path).is_file():
        raise InputError(
            f"{path}: there is no such file; make predictions with python -m rlmemo.predict --db {path}, "
            f"and rate them with python -m dashboard --db {path}"
        )
    return open_store(path, make=False)


def read_ratings(store: Store) -> list[RatedMoment]:
    """All ratings that count (of each rater the latest on each prediction), in the order they were given."""
    rows = store.rows(
        """SELECT r.id AS id, r.prediction_id AS prediction_id, r.rater AS rater, r.thumbs AS thumbs,
                  r.blind AS blind,
                  COALESCE(t.user, p.user) AS user, p.t AS t, p.plan AS plan,
                  p.propensity AS propensity, p.policy AS policy,
                  p.policy_version AS policy_version, COALESCE(t.source, m.source) AS source, m.part AS part,
                  m.teaches AS teaches, m.steps AS steps, m.stills AS stills, m.shown AS shown,
                  m.since AS since, m.world AS world, s.share AS share, s.pool AS pool
           FROM latest_ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
           LEFT JOIN moments AS m ON m.prediction_id = p.id
           LEFT JOIN timelines AS t ON t.id = p.timeline_id
           LEFT JOIN showings AS s ON s.prediction_id = p.id AND s.rater = r.rater
                AND (s.key = r.key OR substr(r.key, 1, length(s.key) + 9)
                     IN (s.key || ':because:', s.key || ':changed:'))
           ORDER BY r.id"""
    )
    return [_rated(row) for row in rows]


def _rated(row: dict[str, Any]) -> RatedMoment:
    steps = json.loads(row.pop("steps") or "[]")
    plan = tuple((str(x["target"]), float(x["delay_s"])) for x in json.loads(row.pop("plan")))
    return RatedMoment(
        **{
            **row,
            "source": row["source"] or "",
            "part": row["part"] or "",
            "teaches": row["teaches"] or 0.0,
            "blind": bool(row["blind"]),
            "stills": None if row["stills"] is None else bool(row["stills"]),
            "world": None if row["world"] is None else json.loads(row["world"]),
        },
        plan=plan,
        current=str(steps[-1][1]) if steps else None,
    )


def rating_propensities(rated: Sequence[RatedMoment]) -> np.ndarray:
    """Probability with which each rated prediction was picked when it was shown, float64 [n], in (0, 1]; NaN
    where a rating was not given on a showing, so that nobody knows."""
    return np.array([np.nan if r.share is None else r.share for r in rated], np.float64)


def rating_weights(rated: Sequence[RatedMoment]) -> np.ndarray:
    """What each rating counts, float64 [n], mean 1: the inverse of how much likelier it was to be shown than
    in an even draw from what waited then (`share` times `pool`), clipped as in `clipped_weights`.

    So every showing stands for the predictions it was picked from. (The bare inverse of `share` would let the
    last ones of a list that was rated to its end count nearly nothing: few were left to pick from.) What was
    not given on a showing counts as much as the others do on average.
    """
    pool = np.array([np.nan if r.pool is None else r.pool for r in rated], np.float64)
    over = rating_propensities(rated) * pool
    known = np.isfinite(over)
    weight = np.ones(len(over))
    weight[known] = clipped_weights(over[known])
    return weight


def clipped_weights(propensity: np.ndarray) -> np.ndarray:
    """Inverse propensities, clipped at `CLIP` times their median and scaled to a mean of 1, float64 [n]."""
    if not len(propensity):
        return np.ones(0)
    weight = 1.0 / propensity
    weight = np.minimum(weight, CLIP * np.median(weight))
    scaled: np.ndarray = weight / weight.mean()
    return scaled


def not_learned(split: Split) -> list[dict[int, str]]:
    """Per timeline, the events whose decisions do not train, with the reason."""
    made: list[dict[int, str]] = [{} for _ in split.train]
    for parts, why in ((split.validation, VALIDATION), (split.test, TEST)):
        for events, reasons in zip(parts, made, strict=True):
            reasons.update(dict.fromkeys(np.asarray(events).tolist(), why))
    return made


def place_ratings(
    rated: Sequence[RatedMoment],
    timelines: Sequence[Timeline],
    *,
    weight: np.ndarray | None = None,
    learn_on: Split | None = None,
) -> Found:
    """Find each rating's moment in `timelines`.

    learn_on: leave out the moments of this split's validation and test parts; None: nothing is learned.
    """
    weights = np.ones(len(rated)) if weight is None else weight
    by_user = {x.user: k for k, x in enumerate(timelines)}
    names = [{name: i for i, name in enumerate(x.names)} for x in timelines]
    hidden = [{} for _ in timelines] if learn_on is None else not_learned(learn_on)
    found = Found([])
    for r, w in zip(rated, weights, strict=True):
        user = by_user.get(f"{r.source}/{r.user}", by_user.get(r.user))
        if user is None:
            found.left_out["of a user who is not among these timelines"] += 1
            continue
        timeline = timelines[user]
        i = int(np.searchsorted(timeline.t, r.t - 1e-3))
        same = i < len(timeline) and abs(float(timeline.t[i]) - r.t) <= 1e-3
        if not same or (r.current is not None and timeline.names[timeline.target[i]] != r.current):
            found.left_out["of a moment that is not in these timelines"] += 1
            continue
        if i + 1 in hidden[user]:
            found.left_out[hidden[user][i + 1]] += 1
            continue
        if any(target not in names[user] for target, _ in r.plan):
            found.left_out["of a target that is not in these timelines"] += 1
            continue
        target = np.array([names[user][x] for x, _ in r.plan], np.int32)
        delay = np.array([d for _, d in r.plan], np.float64)
        found.placed.append(Placed(r, user, i, target, delay, float(w)))
    return found


def worlds_of(placed: Sequence[Placed]) -> list[WorldOptions]:
    """The worlds in which the rated plans were made, each once, in the order of their first rating."""
    return list(dict.fromkeys(WorldOptions.of(p.rated.world or {}) for p in placed))

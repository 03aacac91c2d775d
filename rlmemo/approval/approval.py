"""The approval model: how likely a person is to say thumbs up to a plan at a moment.

Fitted on what was rated alone, each rating weighted by the inverse of its chance of having been rated
(clipped); what nobody rated does not enter, and is not disliked. Calibrated by cross-validation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.slate.slate import Slates
from env.timeline import Timeline
from rlmemo.approval import features
from rlmemo.approval.logistic import Logistic, fit_calibrated
from rlmemo.approval.placed_ratings import Placed
from rlmemo.runs.atomic import write_atomic

MODEL = "approval.json"
"""What a run calls the file that keeps it."""
LEAST = 10
"""Fewer ratings than this teach no model."""

LEAST_STILL = 10
"""Fewer ratings of plans to keep still than this, and keeping still counts as unrated: 0."""


@dataclass(frozen=True)
class Approval:
    """How likely somebody is to approve of a plan.

    model: over `features.plan_rows`; ratings, up: what it was fitted on; still: rated empty plans; named:
    what names and moments added to the log-odds of a rated plan, on average.
    """

    model: Logistic
    ratings: int
    up: int
    still: int = 0
    named: float = 0.0

    def probability(
        self, timeline: Timeline, slates: Slates, index: np.ndarray, target: np.ndarray, delay_s: np.ndarray
    ) -> np.ndarray:
        """Probability of thumbs up of R plans, float64 [R]; arguments as in `features.plan_rows`."""
        return self.model.probability(features.plan_rows(timeline, slates, index, target, delay_s))

    def expected(
        self, timeline: Timeline, slates: Slates, index: np.ndarray, target: np.ndarray, delay_s: np.ndarray
    ) -> np.ndarray:
        """Expected rating of R plans, float64 [R]: from -1 (surely down) to 1. Keeping still is 0 unless it
        was itself rated often enough."""
        value = 2.0 * self.probability(timeline, slates, index, target, delay_s) - 1.0
        if self.still < LEAST_STILL:
            value = np.where((target >= 0).any(1), value, 0.0)
        return value

    def liking(self, timeline: Timeline, slates: Slates, index: np.ndarray, target: np.ndarray) -> np.ndarray:
        """What their names and the moment add to the log-odds of thumbs up of prewarming each target alone,
        beyond the average of what was rated: float64 [D, P] for target int [D, P]; 0 where there is none.

        How likely a target is (the numbers of `features`) is left out: a planner that asks has its odds
        already, and would count them twice.
        """
        shape = target.shape
        flat = target.reshape(-1, 1)
        index = np.repeat(np.asarray(index, np.int64), shape[1])
        rows = features.plan_rows(timeline, slates, index, flat, np.zeros(flat.shape))
        found = self.model.slope * _named(self.model, rows).reshape(shape) - self.named
        return np.where(target >= 0, found, 0.0)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        data = {
            "what": "rlmemo approval model", "version": 2, "features": features.WIDTH,
            "ratings": self.ratings, "up": self.up, "still": self.still, "named": self.named,
            "model": self.model.as_json(),
        }  # fmt: skip
        write_atomic(path, json.dumps(data) + "\n")

    @classmethod
    def load(cls, path: Path) -> Approval:
        """What `save` wrote. Raises InputError for anything else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] != 2 or data["features"] != features.WIDTH:
                raise ValueError("it is of another version")
            model = Logistic.from_json(data["model"])
            if len(model.weights) != features.WIDTH:
                raise ValueError("it is of another size")
            named = float(data["named"])
            if not np.isfinite(named):
                raise ValueError("a weight is no finite number")
            return cls(model, int(data["ratings"]), int(data["up"]), int(data["still"]), named)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"{path}: is no approval model ({error}); train again with --feedback") from None


def _named(model: Logistic, rows: Any) -> np.ndarray:
    """What the hashed features of rows say in log-odds, uncalibrated, float64 [n]."""
    found: np.ndarray = np.asarray(
        rows @ np.where(np.arange(features.WIDTH) < features.SIZE, model.weights, 0.0)
    )
    return found.ravel()


def rows_of(placed: Sequence[Placed], timelines: Sequence[Timeline], slates: Sequence[Slates]) -> Any:
    """Feature rows of rated plans, sparse [n, WIDTH], in their order."""
    from scipy.sparse import csr_matrix, vstack

    made: list[Any] = [None] * len(placed)
    most = max((len(p.target) for p in placed), default=1) or 1
    for user in sorted({p.user for p in placed}):
        some = [k for k, p in enumerate(placed) if p.user == user]
        target, delay = np.full((len(some), most), -1, np.int32), np.zeros((len(some), most))
        for row, k in enumerate(some):
            p = placed[k]
            target[row, : len(p.target)], delay[row, : len(p.target)] = p.target, p.delay_s
        index = np.array([placed[k].index for k in some], np.int64)
        rows = features.plan_rows(timelines[user], slates[user], index, target, delay)
        for row, k in enumerate(some):
            made[k] = rows[row]
    return vstack(made, format="csr") if made else csr_matrix((0, features.WIDTH))


def fit_approval(
    placed: Sequence[Placed], timelines: Sequence[Timeline], slates: Sequence[Slates], *, seed: int = 0
) -> tuple[Approval | None, np.ndarray]:
    """(model, out-of-fold probability of thumbs up of each rating, float64 [n]); None and the raters' mean
    where there are fewer than `LEAST` ratings. Ratings of one prediction are held out together."""
    up = np.array([p.rated.thumbs for p in placed], np.float64)
    if len(placed) < LEAST:
        return None, np.full(len(placed), up.mean() if len(placed) else 0.5)
    weight = np.array([p.weight for p in placed])
    groups = np.array([p.rated.prediction_id for p in placed])
    rows = rows_of(placed, timelines, slates)
    model, held_out = fit_calibrated(rows, up, weight, groups, seed=seed)
    still = sum(1 for p in placed if not len(p.target))
    named = float(np.average(model.slope * _named(model, rows), weights=weight))
    return Approval(model, len(placed), int(up.sum()), still, named), held_out

"""A simulated person who rates predictions: hidden taste, noise, laziness. For closed-loop experiments.

The person is asked about predictions in the order in which the dashboard shows them, through the same
functions (`rlmemo.ratings`), and knows what they opened next, as a person who looks back does. Nothing of
the taste reaches the learner but by ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from env.timeline import Timeline
from rlmemo.ratings import Moment, rate, show_next, skip
from rlmemo.store import Store

NIGHT = (23, 6)
COMMON = (0.03, 0.12)
"""Loved and banned targets are drawn from those that are this share of somebody's opens."""


@dataclass(frozen=True)
class Taste:
    """What a person likes, never told. banned, loved: targets; up: chances of thumbs up of a plan that
    disturbs at night, has something banned, something loved, what was opened next, or none of these, the
    first that applies; noise: chance that a thumb is turned round; lazy: chance of skipping."""

    banned: frozenset[str]
    loved: frozenset[str]
    at_night: float = 0.05
    with_banned: float = 0.05
    with_loved: float = 0.95
    right: float = 0.85
    otherwise: float = 0.35
    noise: float = 0.05
    lazy: float = 0.2

    def chance(self, hour: float, plan: Sequence[str], opened: str) -> float:
        """Probability of thumbs up of a plan that is not empty, noise included."""
        if hour >= NIGHT[0] or hour < NIGHT[1]:
            p = self.at_night
        elif self.banned & set(plan):
            p = self.with_banned
        elif self.loved & set(plan):
            p = self.with_loved
        else:
            p = self.right if opened in plan else self.otherwise
        return p * (1.0 - self.noise) + (1.0 - p) * self.noise


def draw_taste(timelines: Sequence[Timeline], seed: int) -> Taste:
    """A taste: of every person's fairly common targets one is banned and one loved, drawn from the seed."""
    rng = np.random.default_rng([seed, 101])
    banned: set[str] = set()
    loved: set[str] = set()
    for x in timelines:
        share = np.bincount(x.target, minlength=len(x.names)) / len(x)
        names = [x.names[i] for i in np.flatnonzero((share >= COMMON[0]) & (share <= COMMON[1]))]
        names = [n for n in names if n not in banned | loved]
        if len(names) >= 2:
            a, b = rng.permutation(len(names))[:2]
            banned.add(names[a])
            loved.add(names[b])
    return Taste(frozenset(banned), frozenset(loved))


def local_hour(moment: Moment) -> float:
    """Local hour of day of a moment."""
    from datetime import UTC, datetime

    from env.timeline import zone

    at = datetime.fromtimestamp(moment.prediction.t, UTC).astimezone(zone(moment.tz))
    return at.hour + at.minute / 60.0


def rate_all(store: Store, taste: Taste, rater: str, seed: int, limit: int | None = None) -> tuple[int, int]:
    """Rate, or skip, the predictions that wait for `rater`, until `limit` are rated; (rated, thumbs up)."""
    rng = np.random.default_rng([seed, 103])
    rated = up = 0
    while rated != limit and (showing := show_next(store, rater, float(rng.random()))) is not None:
        moment = showing.moment
        if rng.random() < taste.lazy:
            skip(store, showing)
            continue
        outcome = moment.prediction.outcome or {}
        plan = [p.target for p in moment.prediction.plan]
        thumb = int(rng.random() < taste.chance(local_hour(moment), plan, str(outcome.get("next_target"))))
        rate(store, showing, thumb)
        rated, up = rated + 1, up + thumb
    return rated, up

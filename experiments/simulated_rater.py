"""A simulated person who rates predictions: hidden taste, noise, laziness. For closed-loop experiments.

The person is asked about predictions in the order in which the dashboard shows them, through the same
functions (`rlmemo.store.ratings`), and knows what they opened next, as a person who looks back does.
Nothing of the taste reaches the learner but by ratings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from env.timeline import Timeline
from rlmemo.store.database import Store
from rlmemo.store.ratings import Moment, rate, show_next, skip

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
    night: tuple[int, int] = NIGHT

    def chance(self, hour: float, plan: Sequence[str], opened: str) -> float:
        """Probability of thumbs up of a plan that is not empty, noise included."""
        a, b = self.night
        if (hour - a) % 24 < (b - a) % 24:
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


USELESS, USEFUL, HOURS = 0.2, 0.15, 5


def tastes_by_use(
    timelines: Sequence[Timeline], lived: Sequence[np.ndarray], tried: Sequence[np.ndarray],
    hit: Sequence[np.ndarray],
) -> dict[str, Taste]:  # fmt: skip
    """Tastes, by user, of people who have lived with a first policy: they dislike the targets that it kept
    ready for them in vain, love those for which it was mostly right, and do not want to be disturbed in the
    five hours in which they open least.

    lived: events of each timeline that were lived through; tried, hit: int64 [targets], how often each
    target was prewarmed in them and how often that was a hit. Banned is what has the lowest share of hits,
    (hit + 1) / (tried + 2), until that is `USELESS` of all prewarms; loved what has the highest, `USEFUL`.
    """
    rows = sorted(
        ((int(h[i]) + 1) / (int(n[i]) + 2), user, int(i), int(n[i]))
        for user, (n, h) in enumerate(zip(tried, hit, strict=True))
        for i in np.flatnonzero(n >= 2)
    )
    total = sum(int(n.sum()) for n in tried)
    banned: list[set[str]] = [set() for _ in timelines]
    loved: list[set[str]] = [set() for _ in timelines]
    for found, order, share in ((banned, rows, USELESS), (loved, rows[::-1], USEFUL)):
        left = share * total
        for _, user, i, n in order:
            left -= n
            if left < 0:
                break
            found[user].add(timelines[user].names[i])
    made = {}
    for user, timeline in enumerate(timelines):
        hours = np.bincount((timeline.local()[lived[user]] // 3600 % 24).astype(np.int64), minlength=24)
        begin = int(np.argmin([sum(hours[(h + k) % 24] for k in range(HOURS)) for h in range(24)]))
        made[timeline.user] = Taste(
            frozenset(banned[user]),
            frozenset(loved[user] - banned[user]),
            night=(begin, (begin + HOURS) % 24),
        )
    return made


def local_hour(moment: Moment) -> float:
    """Local hour of day of a moment."""
    from datetime import UTC, datetime

    from env.timeline import zone

    at = datetime.fromtimestamp(moment.prediction.t, UTC).astimezone(zone(moment.tz))
    return at.hour + at.minute / 60.0


def rate_all(
    store: Store, tastes: Mapping[str, Taste], rater: str, seed: int, limit: int | None = None
) -> tuple[int, int]:
    """Rate, or skip, the predictions that wait for `rater`, until `limit` are rated; (rated, thumbs up).

    tastes: by the user of the timeline that a prediction is about.
    """
    rng = np.random.default_rng([seed, 103])
    rated = up = 0
    while rated != limit and (showing := show_next(store, rater, float(rng.random()))) is not None:
        moment = showing.moment
        if rng.random() < (taste := tastes[moment.prediction.user]).lazy:
            skip(store, showing)
            continue
        outcome = moment.prediction.outcome or {}
        plan = [p.target for p in moment.prediction.plan]
        thumb = int(rng.random() < taste.chance(local_hour(moment), plan, str(outcome.get("next_target"))))
        rate(store, showing, thumb)
        rated, up = rated + 1, up + thumb
    return rated, up

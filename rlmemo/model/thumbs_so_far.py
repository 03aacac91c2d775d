"""Thumbs so far: what a person has said by a moment, of every target that may come next and of the moment.

Of a target: its ups and downs, overall and at this time of day, and the last one with its age. Of the moment:
what whole plans got at this time of day, and what keeping still got. An older thumb counts less with every
newer one on the same thing, so a person may change their mind. A thumb down is shared out among the targets
of its plan and the time of day, by how likely each was the reason after what was said before; a thumb up is
for all.

What is made of them is an opinion, by Bayes' rule: a person is against a target, for it, or neither, and says
so more or less reliably (`AGAINST`, `FOR`, `USUAL`). A thumb down on what was opened next says more than one
on what was loaded in vain. How much an opinion matters is not said here: a model learns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from env.thumbs import HOURS, Thumbs
from env.timeline import Timeline

FADES = 0.97
"""What an older thumb counts after a newer one on the same thing."""
ELSEWHERE = 0.8
"""What a thumb at another time of day counts, in what is made of them."""
AROUND = 2
"""Hours to either side that are the same time of day."""
KINDS = 4  # down in vain, down on a hit, up in vain, up on a hit
USUAL, AGAINST, FOR = np.array([0.37, 0.78]), np.array([0.12, 0.12]), np.array([0.88, 0.88])
"""Chances of thumbs up, in vain and on a hit, of somebody who is neither for nor against it, and who is."""
PRIOR = np.array([0.74, 0.14, 0.12])
WORTH = np.array([1.0, 0.08, 4.0])
"""How much sooner it is wanted by somebody who is neither, against, for it."""
STILL_UP = np.array([0.6, 0.15, 0.9])
"""Chances of thumbs up on keeping still, of somebody who is neither, against it, and for it."""
HARDLY = 0.4
"""How much less than a target the time of day is blamed, where nothing is known of either."""
EDGES = np.array([-2.0, -1.3, -0.75, -0.24, -0.02, 0.02, 0.12, 0.33, 0.65, 1.0])
LEVELS = len(EDGES) + 1
NEUTRAL = LEVELS // 2
"""The level of what nothing was said of."""
MOOD_EDGES = np.array([-1.0, -0.4, -0.03, 0.03, 0.25])
STILL_EDGES = np.array([-0.1, 0.1])
MOODS = (len(MOOD_EDGES) + 1) * (len(STILL_EDGES) + 1)
NO_MOOD = int(np.searchsorted(MOOD_EDGES, 0.0)) * (len(STILL_EDGES) + 1) + 1
COLUMNS = ("ups", "downs", "ups_here", "downs_here", "last", "age_s", "opinion")


@dataclass(frozen=True)
class SoFar:
    """What was said by D decisions. said: float64 [D, size, len(COLUMNS)], of the candidates (last: 1 up, -1
    down, 0 none; age_s inf where none); moment: float64 [D, 2], opinions of being shown a plan, and of being
    shown none, at this time of day."""

    said: np.ndarray
    moment: np.ndarray

    def levels(self) -> np.ndarray:
        """What a model reads of the candidates: int64 [D, size], `NEUTRAL` where nothing was said."""
        return np.searchsorted(EDGES, self.said[..., COLUMNS.index("opinion")], side="right")

    def mood(self) -> np.ndarray:
        """What a model reads of the moment: int64 [D], `NO_MOOD` where nothing was said."""
        plans = np.searchsorted(MOOD_EDGES, self.moment[:, 0], side="right")
        still = np.searchsorted(STILL_EDGES, self.moment[:, 1], side="right")
        return plans * (len(STILL_EDGES) + 1) + still


_PEOPLE = np.stack([USUAL, AGAINST, FOR])


def opinion(counts: np.ndarray) -> np.ndarray:
    """Log of how much sooner something is wanted than by somebody of whom nothing is known, float64 [...]; 0
    where nothing was said. counts: float64 [..., KINDS]."""
    return _sooner(counts, _PEOPLE)


def still_opinion(counts: np.ndarray) -> np.ndarray:
    """The same of keeping still, where a hit or not is nothing."""
    return _sooner(counts, np.repeat(STILL_UP[:, None], 2, axis=1))


def _kinds(counts: np.ndarray, up: np.ndarray) -> np.ndarray:
    """How likely each of the three kinds of people said that, float64 [..., 3]. up: chances of thumbs up in
    vain and on a hit, float64 [3, 2]."""
    said = np.log(np.concatenate([1.0 - up, up], axis=1))  # [3, KINDS]
    fit = np.log(PRIOR) + counts @ said.T
    odds = np.exp(fit - fit.max(-1, keepdims=True))
    found: np.ndarray = odds / odds.sum(-1, keepdims=True)
    return found


def _sooner(counts: np.ndarray, up: np.ndarray) -> np.ndarray:
    found = np.log(_kinds(counts, up) @ WORTH) - np.log(PRIOR @ WORTH)
    return np.where(counts.any(-1), found, 0.0)  # not as good as 0, but 0


def so_far(
    thumbs: Thumbs | ToldThumbs,
    names: Sequence[str],
    now: np.ndarray,
    hour: np.ndarray,
    candidates: np.ndarray,
) -> SoFar:
    """What was said before each of D moments.

    thumbs: or what was made of them once, for who asks at many moments one by one; names: of the timeline's
    targets; now: float64 [D], unix seconds; hour: int64 [D], local, 0 to 23; candidates: int32 [D, size], -1
    for none.
    """
    told = thumbs if isinstance(thumbs, ToldThumbs) else ToldThumbs(thumbs)
    n, size = candidates.shape
    known = np.searchsorted(told.thumbs.since, now, side="left")  # a thumb counts later than `since` only
    said = np.zeros((n, size, len(COLUMNS)))
    said[..., COLUMNS.index("age_s")] = np.inf
    moment = np.zeros((n, 2))
    index = {name: i for i, name in enumerate(names)}
    for about, history in told.about.items():
        if about in (PLANS, STILL):
            moment[:, int(about == STILL)] = history.moment(known, hour, about == STILL)
            continue
        d, place = np.nonzero(candidates == index.get(about, -2))
        if len(d):
            said[d, place] = history.said(known[d], hour[d], now[d])
    return SoFar(said, moment)


def said_by(timeline: Timeline, rows: np.ndarray, candidates: np.ndarray) -> SoFar:
    """What a timeline's person has said before its decisions `rows`, int64 [D]; candidates: int32 [D,
    size]."""
    assert timeline.thumbs is not None
    now = (timeline.t if timeline.now is None else timeline.now)[rows]
    hour = (timeline.local_now()[rows] // 3600 % HOURS).astype(np.int64)
    return so_far(timeline.thumbs, timeline.names, now, hour, candidates)


PLANS, STILL = "\0plans", "\0still"
"""What thumbs are about beside targets: that there was a plan, and that there was none."""
_HERE = np.arange(-AROUND, AROUND + 1)


class ToldThumbs:
    """Thumbs, and what was said of everything that they are about."""

    def __init__(self, thumbs: Thumbs) -> None:
        self.thumbs, self.about = thumbs, _told(thumbs)


def _told(thumbs: Thumbs) -> dict[str, _History]:
    """What was said of everything that thumbs are about, after each of them."""
    about: dict[str, _History] = {}
    for row, targets in enumerate(thumbs.targets):
        up, hit, hour = int(thumbs.up[row]), float(thumbs.hit[row]), int(thumbs.hour[row])
        split = np.array([0.5, 0.5]) if np.isnan(hit) else np.array([1.0 - hit, hit])
        things = [*dict.fromkeys(targets), PLANS] if targets else [STILL]
        found = [about.setdefault(x, _History()) for x in things]
        weight = np.ones(len(found))
        if not up and targets:
            weight = _blame(np.stack([x.now(hour, x is not found[-1]) for x in found]))
        for x, share in zip(found, weight.tolist(), strict=True):
            x.add(row, thumbs, share * split)
    return about


def _blame(counts: np.ndarray) -> np.ndarray:
    """What a thumb down counts against each of the targets of its plan and, last, the time of day, float64
    [m]: how likely it was that the person is against it. counts: float64 [m, KINDS], said before."""
    against = _kinds(counts, _PEOPLE)[:, 1]
    against[-1] *= HARDLY
    found: np.ndarray = against / against.sum()
    return found


class _History:
    """What was said of one thing: rows of `Thumbs`, and after each (and before the first) the faded counts
    [1 + HOURS, KINDS], overall and around each hour."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.counts = [np.zeros((1 + HOURS, KINDS))]
        self.since: list[float] = []
        self.up: list[bool] = []

    def add(self, row: int, thumbs: Thumbs, weight: np.ndarray) -> None:
        """weight: float64 [2], in vain and on a hit."""
        counts = self.counts[-1] * FADES
        up = int(thumbs.up[row])
        counts[np.append(0, 1 + (int(thumbs.hour[row]) + _HERE) % HOURS), 2 * up : 2 * up + 2] += weight
        self.counts.append(counts)
        self.rows.append(row)
        self.since.append(float(thumbs.since[row]))
        self.up.append(bool(up))

    def now(self, hour: int, elsewhere: bool) -> np.ndarray:
        """Counts as they stand at an hour, float64 [KINDS]. elsewhere: with what was said at other hours."""
        every, here = self.counts[-1][0], self.counts[-1][1 + hour]
        return here + ELSEWHERE * (every - here) if elsewhere else here

    def moment(self, known: np.ndarray, hour: np.ndarray, still: bool) -> np.ndarray:
        """The opinion at each of D moments, at this time of day. known: how many thumbs count by then."""
        here = np.stack(self.counts)[np.searchsorted(self.rows, known, side="left"), 1 + hour]
        return still_opinion(here) if still else opinion(here)

    def said(self, known: np.ndarray, hour: np.ndarray, now: np.ndarray) -> np.ndarray:
        """As in `SoFar.said`, float64 [D, len(COLUMNS)]."""
        many = np.searchsorted(self.rows, known, side="left")
        counts = np.stack(self.counts)
        every, here = counts[many, 0], counts[many, 1 + hour]
        before = np.maximum(many - 1, 0)
        last = np.where(many > 0, np.where(np.array(self.up)[before], 1.0, -1.0), 0.0)
        age = np.where(many > 0, now - np.array(self.since)[before], np.inf)
        thinks = opinion(here + ELSEWHERE * (every - here))
        return np.stack(
            [every[:, 2:].sum(1), every[:, :2].sum(1), here[:, 2:].sum(1), here[:, :2].sum(1), last, age,
             thinks], axis=1,
        )  # fmt: skip

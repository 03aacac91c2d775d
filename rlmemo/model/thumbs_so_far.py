"""Thumbs so far: what a person has said by a moment, of every target that may come next and of the moment.

Of a target: its ups and downs, overall and at this time of day, and the last one with its age. Of the moment:
what whole plans got at this time of day, and what keeping still got. An older thumb counts less with every
newer one on the same thing, so a person may change their mind. A thumb down is shared among the targets of
its plan, as one of them may have been the reason; a thumb up is for all.

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

FADES = 0.9
"""What an older thumb counts after a newer one on the same thing."""
ELSEWHERE = 0.6
"""What a thumb at another time of day counts, in what is made of them."""
AROUND = 2
"""Hours to either side that are the same time of day."""
KINDS = 4  # down in vain, down on a hit, up in vain, up on a hit
USUAL, AGAINST, FOR = np.array([0.37, 0.78]), np.array([0.12, 0.12]), np.array([0.88, 0.88])
"""Chances of thumbs up, in vain and on a hit, of somebody who is neither for nor against it, and who is."""
PRIOR = np.array([0.74, 0.14, 0.12])
WORTH = np.array([1.0, 0.08, 4.0])
"""How much sooner it is wanted by somebody who is neither, against, for it."""
STILL = np.array([0.6, 0.15, 0.9])
"""Chances of thumbs up on keeping still, of somebody who is neither, against it, and for it."""
EDGES = np.array([-1.6, -1.0, -0.55, -0.25, -0.03, 0.03, 0.15, 0.35, 0.65, 1.0])
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


def opinion(counts: np.ndarray) -> np.ndarray:
    """Log of how much sooner something is wanted than by somebody of whom nothing is known, float64 [...]; 0
    where nothing was said. counts: float64 [..., KINDS]."""
    return _sooner(counts, np.stack([USUAL, AGAINST, FOR]))


def still_opinion(counts: np.ndarray) -> np.ndarray:
    """The same of keeping still, where a hit or not is nothing."""
    return _sooner(counts, np.repeat(STILL[:, None], 2, axis=1))


def _sooner(counts: np.ndarray, up: np.ndarray) -> np.ndarray:
    """up: chances of thumbs up in vain and on a hit, float64 [3, 2], of the three kinds of people."""
    said = np.log(np.concatenate([1.0 - up, up], axis=1))  # [3, KINDS]
    fit = counts @ said.T
    fit = np.log(PRIOR) + fit - fit.max(-1, keepdims=True)
    odds = np.exp(fit)
    found: np.ndarray = np.log((odds @ WORTH) / odds.sum(-1)) - np.log(PRIOR @ WORTH)
    return found


def so_far(
    thumbs: Thumbs, names: Sequence[str], now: np.ndarray, hour: np.ndarray, candidates: np.ndarray
) -> SoFar:
    """What was said before each of D moments.

    names: of the timeline's targets; now: float64 [D], unix seconds; hour: int64 [D], local, 0 to 23;
    candidates: int32 [D, size], -1 for none.
    """
    n, size = candidates.shape
    known = np.searchsorted(thumbs.since, now, side="left")  # a thumb counts later than `since` only
    about: dict[str, list[int]] = {}
    for row, targets in enumerate(thumbs.targets):
        for name in dict.fromkeys(targets):
            about.setdefault(name, []).append(row)
    said = np.zeros((n, size, len(COLUMNS)))
    said[..., COLUMNS.index("age_s")] = np.inf
    index = {name: i for i, name in enumerate(names)}
    for name, rows in about.items():
        d, place = np.nonzero(candidates == index.get(name, -2))
        if len(d):
            said[d, place] = _History.of(thumbs, np.array(rows)).said(known[d], hour[d], now[d])
    moment = np.zeros((n, 2))
    plans = [row for row, targets in enumerate(thumbs.targets) if targets]
    still = [row for row, targets in enumerate(thumbs.targets) if not targets]
    for k, (rows, think) in enumerate(((plans, opinion), (still, still_opinion))):
        if rows:
            moment[:, k] = think(_History.of(thumbs, np.array(rows), shared=False).here(known, hour))
    return SoFar(said, moment)


def said_by(timeline: Timeline, rows: np.ndarray, candidates: np.ndarray) -> SoFar:
    """What a timeline's person has said before its decisions `rows`, int64 [D]; candidates: int32 [D, size]."""
    assert timeline.thumbs is not None
    now = (timeline.t if timeline.now is None else timeline.now)[rows]
    hour = (timeline.local_now()[rows] // 3600 % HOURS).astype(np.int64)
    return so_far(timeline.thumbs, timeline.names, now, hour, candidates)


@dataclass(frozen=True)
class _History:
    """What was said of one thing, after each of its m thumbs. rows: int64 [m], of `Thumbs`; counts: float64
    [m + 1, 1 + HOURS, KINDS], faded, overall and around each hour; since, up: of each."""

    rows: np.ndarray
    counts: np.ndarray
    since: np.ndarray
    up: np.ndarray

    @classmethod
    def of(cls, thumbs: Thumbs, rows: np.ndarray, shared: bool = True) -> _History:
        counts = np.zeros((len(rows) + 1, 1 + HOURS, KINDS))
        around = np.arange(-AROUND, AROUND + 1)
        for k, row in enumerate(rows.tolist()):
            up, hit = int(thumbs.up[row]), thumbs.hit[row]
            weight = 1.0 if up or not shared else 1.0 / len(set(thumbs.targets[row]))
            share = np.array([0.5, 0.5]) if np.isnan(hit) else np.array([1.0 - hit, hit])
            counts[k + 1] = counts[k] * FADES
            where = np.append(0, 1 + (int(thumbs.hour[row]) + around) % HOURS)
            counts[k + 1, where, 2 * up : 2 * up + 2] += weight * share
        return cls(rows, counts, thumbs.since[rows], thumbs.up[rows])

    def here(self, known: np.ndarray, hour: np.ndarray) -> np.ndarray:
        """Counts at this time of day, float64 [D, KINDS]. known: of all thumbs, how many count by then."""
        found: np.ndarray = self.counts[np.searchsorted(self.rows, known, side="left"), 1 + hour]
        return found

    def said(self, known: np.ndarray, hour: np.ndarray, now: np.ndarray) -> np.ndarray:
        """As in `SoFar.said`, float64 [D, len(COLUMNS)]."""
        many = np.searchsorted(self.rows, known, side="left")
        every, here = self.counts[many, 0], self.counts[many, 1 + hour]
        before = np.maximum(many - 1, 0)
        last = np.where(many > 0, np.where(self.up[before], 1.0, -1.0), 0.0)
        age = np.where(many > 0, now - self.since[before], np.inf)
        thinks = opinion(here + ELSEWHERE * (every - here))
        return np.stack(
            [every[:, 2:].sum(1), every[:, :2].sum(1), here[:, 2:].sum(1), here[:, :2].sum(1), last, age,
             thinks], axis=1,
        )  # fmt: skip

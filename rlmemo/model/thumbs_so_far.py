"""Thumbs so far: what a person has said by a moment, of every target that may come next and of the moment.

Of a target: its ups and downs, overall and at this time of day, and the last one with its age. Of the moment:
what whole plans got at this time of day, and what keeping still got. An older thumb counts less with every
newer one on the same thing, so a person may change their mind.

What is made of them is an opinion, by Bayes' rule: a person is against a target, for it, or neither, and
wants to be left alone at a time of day, or not. One target that they are against spoils a plan; else one that
they are for makes it good; else it is liked as it turns out (`AGAINST`, `FOR`, `USUAL`). A thumb on a plan of
several speaks of each by what is thought of the others: who is for one of them has said little of the rest by
a thumb up. How much an opinion matters is not said here: a model learns it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
USUAL, AGAINST, FOR = (0.37, 0.78), 0.12, 0.88
"""Chances of thumbs up of a plan: in vain and on a hit, of somebody who is neither for nor against anything
in it; of somebody who is against something; who is for something, and against nothing."""
PRIOR = np.array([0.74, 0.14, 0.12])
"""Of being neither, against a target, for it."""
AT_TIMES = np.array([0.93, 0.07, 0.0])
"""Of minding no plan at a time of day, and of wanting none."""
WORTH = np.array([1.0, 0.08, 4.0])
"""How much sooner it is wanted by somebody who is neither, against, for it."""
MINDED = 2.0
"""How strongly an opinion of a target counts where no model has learned it."""
STILL_UP = np.array([0.6, 0.15, 0.9])
"""Chances of thumbs up on keeping still, of somebody who is neither, against it, and for it."""
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

    def sooner(self) -> np.ndarray:
        """By how much thumbs move the log of how likely each place is picked, and that nothing is, for who
        minds them by Bayes' rule alone: float64 [D, size + 1], 0 where nothing was said."""
        plans, still = self.moment[:, :1], self.moment[:, 1:]
        moved = MINDED * self.said[..., COLUMNS.index("opinion")] + plans
        return np.concatenate([moved, still], axis=1)

    def levels(self) -> np.ndarray:
        """What a model reads of the candidates: int64 [D, size], `NEUTRAL` where nothing was said."""
        return np.searchsorted(EDGES, self.said[..., COLUMNS.index("opinion")], side="right")

    def row(self, d: int) -> SoFar:
        """By one of the decisions."""
        return SoFar(self.said[d : d + 1], self.moment[d : d + 1])

    def mood(self) -> np.ndarray:
        """What a model reads of the moment: int64 [D], `NO_MOOD` where nothing was said."""
        plans = np.searchsorted(MOOD_EDGES, self.moment[:, 0], side="right")
        still = np.searchsorted(STILL_EDGES, self.moment[:, 1], side="right")
        return plans * (len(STILL_EDGES) + 1) + still


def opinion(evidence: np.ndarray, prior: np.ndarray = PRIOR) -> np.ndarray:
    """Log of how much sooner something is wanted than by somebody of whom nothing is known, float64 [...]; 0
    where nothing was said. evidence: float64 [..., 3], log-likelihoods of what was said by somebody who is
    neither, against it, for it."""
    found = np.log(_kind(evidence, prior) @ WORTH) - np.log(prior @ WORTH)
    return np.where(evidence.any(-1), found, 0.0)  # not as good as 0, but 0


def _kind(evidence: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """How likely each of the three kinds of people said that, float64 [..., 3]."""
    odds = prior * np.exp(evidence - evidence.max(-1, keepdims=True))
    found: np.ndarray = odds / odds.sum(-1, keepdims=True)
    return found


def says(kind: np.ndarray, up: bool, hit: float) -> np.ndarray:
    """What a thumb on a plan says of each of its targets and, last, of the time of day: log-likelihoods
    float64 [m, 3]. kind: what was thought of them before, float64 [m, 3]; hit: 0, 1, or nan for not known."""
    usual = float(np.mean(USUAL)) if np.isnan(hit) else USUAL[int(hit)]
    liked = np.empty((len(kind), 3))
    for k in range(len(kind)):
        others = np.delete(kind, k, axis=0)
        against = 1.0 - np.prod(1.0 - others[:, 1])
        nothing = np.prod(
            others[:, 0] / np.maximum(1.0 - others[:, 1], 1e-12)
        )  # for none of them, where against none
        good = (1.0 - nothing) * FOR + nothing * usual
        liked[k] = [AGAINST * against + (1.0 - against) * x for x in (good, AGAINST, FOR)]
        if k == len(kind) - 1:
            liked[k, 2] = liked[k, 0]
    found: np.ndarray = np.log(liked if up else 1.0 - liked)
    return found


def so_far(
    thumbs: Thumbs | ToldThumbs,
    names: Sequence[str],
    now: np.ndarray,
    hour: np.ndarray,
    candidates: np.ndarray,
    after: np.ndarray | None = None,
) -> SoFar:
    """What was said before each of D moments.

    thumbs: or what was made of them once, for who asks at many moments one by one; names: of the timeline's
    targets; now: float64 [D], unix seconds; hour: int64 [D], local, 0 to 23; candidates: int32 [D, size], -1
    for none. after: float64 [D], when the event came that each moment stands after; earlier than `now` at a
    wake (None: nowhere). A thumb on that event's moment counts at its wake no more than at it: it may know
    what is opened next.
    """
    told = thumbs if isinstance(thumbs, ToldThumbs) else ToldThumbs(thumbs)
    n, size = candidates.shape
    after = now if after is None else after
    known = np.searchsorted(told.thumbs.since, after, side="left")  # a thumb counts later than `since` only
    said = np.zeros((n, size, len(COLUMNS)))
    said[..., COLUMNS.index("age_s")] = np.inf
    moment = np.zeros((n, 2))
    for column, about in enumerate((PLANS, STILL)):
        if (history := told.about.get(about)) is not None:
            moment[:, column] = history.moment(known, hour)
    for target in np.unique(candidates[candidates >= 0]).tolist():  # of what is asked, however much was said
        if (history := told.about.get(names[target])) is not None:
            d, place = np.nonzero(candidates == target)
            said[d, place] = history.said(known[d], hour[d], now[d])
    return SoFar(said, moment)


def said_by(timeline: Timeline, rows: np.ndarray, candidates: np.ndarray) -> SoFar:
    """What a timeline's person has said before its decisions `rows`, int64 [D]; candidates: int32 [D,
    size]."""
    assert timeline.thumbs is not None
    now = (timeline.t if timeline.now is None else timeline.now)[rows]
    hour = (timeline.local_now()[rows] // 3600 % HOURS).astype(np.int64)
    return so_far(timeline.thumbs, timeline.names, now, hour, candidates, timeline.t[rows])


PLANS, STILL = "\0plans", "\0still"
"""What thumbs are about beside targets: that there was a plan, and that there was none."""
_HERE = np.arange(-AROUND, AROUND + 1)


class ToldThumbs:
    """Thumbs, and what was said of everything that they are about, after each of them. before: what an
    earlier part of them came to; it is counted on, and not to be used any more."""

    def __init__(self, thumbs: Thumbs, before: ToldThumbs | None = None) -> None:
        self.thumbs = thumbs
        self.about: dict[str, _History] = {}
        same = 0
        if before is not None:
            same = _alike(before.thumbs, thumbs)
            cut = {about: history.cut(same) for about, history in before.about.items()}
            self.about = {about: history for about, history in cut.items() if history.n}
        for row in range(same, len(thumbs)):
            self._add(row)

    def _add(self, row: int) -> None:
        thumbs, about = self.thumbs, self.about
        up, hit, hour = bool(thumbs.up[row]), float(thumbs.hit[row]), int(thumbs.hour[row])
        targets = thumbs.targets[row]
        if not targets:
            evidence = np.log(STILL_UP if up else 1.0 - STILL_UP)
            about.setdefault(STILL, _History(PRIOR)).add(row, thumbs, evidence, 1.0)
            return
        found = [about.setdefault(x, _History(PRIOR)) for x in dict.fromkeys(targets)]
        found.append(about.setdefault(PLANS, _History(AT_TIMES)))
        kind = np.stack([x.now(hour, x is not found[-1]) for x in found])
        share = np.ones(len(found)) if up else kind[:, 1] / kind[:, 1].sum()
        for x, one, part in zip(found, says(kind, up, hit), share.tolist(), strict=True):
            x.add(row, thumbs, one, part)


def _alike(a: Thumbs, b: Thumbs) -> int:
    """How many thumbs are the same at the beginning of both."""
    n = min(len(a), len(b))
    same = (a.since[:n] == b.since[:n]) & (a.hour[:n] == b.hour[:n]) & (a.up[:n] == b.up[:n])
    same &= (a.hit[:n] == b.hit[:n]) | (np.isnan(a.hit[:n]) & np.isnan(b.hit[:n]))
    same &= np.array([x == y for x, y in zip(a.targets, b.targets, strict=False)], bool)
    return n if same.all() else int(np.argmin(same))


class _History:
    """What was said of one thing, n thumbs: rows of `Thumbs`, and after each (and before the first), overall
    and around each hour, what it comes to, faded: downs, ups, and log-likelihoods by kind, [1 + HOURS, 5].
    The arrays have room for more."""

    def __init__(self, prior: np.ndarray) -> None:
        self.prior, self.n = prior, 0
        self.rows = np.zeros(1, np.int64)
        self.sums = np.zeros((2, 1 + HOURS, 5))
        self.since = np.zeros(1)
        self.up = np.zeros(1, bool)
        self._known: dict[tuple[int, int], np.ndarray] = {}

    def add(self, row: int, thumbs: Thumbs, evidence: np.ndarray, part: float) -> None:
        """part: how much of the thumb is about this."""
        n = self.n
        if n == len(self.rows):
            self.rows, self.since, self.up = (_twice(x, 2 * n) for x in (self.rows, self.since, self.up))
            self.sums = _twice(self.sums, 2 * n + 1)
        up = bool(thumbs.up[row])
        sums = np.multiply(self.sums[n], FADES, out=self.sums[n + 1])
        one = np.concatenate([[0.0, part] if up else [part, 0.0], evidence])
        sums[np.append(0, 1 + (int(thumbs.hour[row]) + _HERE) % HOURS)] += one
        self.rows[n], self.since[n], self.up[n] = row, thumbs.since[row], up
        self.n = n + 1
        self._known.clear()

    def cut(self, row: int) -> _History:
        """The same, with thumbs before `row` alone."""
        self.n = int(np.searchsorted(self.rows[: self.n], row, side="left"))
        self._known.clear()
        return self

    def now(self, hour: int, elsewhere: bool) -> np.ndarray:
        """What is thought of it at an hour, float64 [3]. elsewhere: with what was said at other hours."""
        every, here = self.sums[self.n, 0, 2:], self.sums[self.n, 1 + hour, 2:]
        return _kind(here + ELSEWHERE * (every - here) if elsewhere else here, self.prior)

    def moment(self, known: np.ndarray, hour: np.ndarray) -> np.ndarray:
        """The opinion at each of D moments, at this time of day. known: how many thumbs count by then."""
        return self._kept(self._moment, self._many(known), hour)

    def said(self, known: np.ndarray, hour: np.ndarray, now: np.ndarray) -> np.ndarray:
        """As in `SoFar.said`, float64 [D, len(COLUMNS)]."""
        many = self._many(known)
        found = self._kept(self._said, many, hour)
        age = np.where(many > 0, now - self.since[np.maximum(many - 1, 0)], np.inf)
        return np.concatenate([found[:, :5], age[:, None], found[:, 5:]], axis=1)

    def _many(self, known: np.ndarray) -> np.ndarray:
        """How many of these thumbs are among the first `known` of all."""
        return np.searchsorted(self.rows[: self.n], known, side="left")

    def _kept(self, how: Callable[..., np.ndarray], many: np.ndarray, hour: np.ndarray) -> np.ndarray:
        """What is found after so many thumbs at an hour; who asks of one moment after the other finds the
        same until the hour is over or more is said."""
        if len(many) != 1:
            return how(many, hour)
        key = int(many[0]), int(hour[0])
        if key not in self._known:
            self._known[key] = how(many, hour)
        return self._known[key]

    def _moment(self, many: np.ndarray, hour: np.ndarray) -> np.ndarray:
        return opinion(self.sums[many, 1 + hour][:, 2:], self.prior)

    def _said(self, many: np.ndarray, hour: np.ndarray) -> np.ndarray:
        """All columns but the age."""
        every, here = self.sums[many, 0], self.sums[many, 1 + hour]
        last = np.where(many > 0, np.where(self.up[np.maximum(many - 1, 0)], 1.0, -1.0), 0.0)
        thinks = opinion((here + ELSEWHERE * (every - here))[:, 2:])
        return np.stack([every[:, 1], every[:, 0], here[:, 1], here[:, 0], last, thinks], axis=1)


def _twice(a: np.ndarray, n: int) -> np.ndarray:
    """`a` with room for n rows."""
    out = np.zeros((n, *a.shape[1:]), a.dtype)
    out[: len(a)] = a
    return out

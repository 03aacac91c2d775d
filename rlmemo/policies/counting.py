"""Baselines that only count: most frequent, most recent, Markov chains with backoff, and the omnibox rule.

Counts are kept online: every event, test events too, updates them after it was predicted. Nothing is
learned across users. The current target never stands in a list, and a target never seen before cannot.
The order of each list is that of DESIGN section 7 and must not change: its table is the check that the
setting is right. Probabilities are smoothed conditional frequencies (Witten and Bell 1991, method C: a
context seen n times with d distinct successors keeps d / (n + d) for what never followed it).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from env.ranking import DEPTH, Ranking, Stream
from env.splits import Split
from env.timeline import Timeline


class CountingState(Protocol):
    """What a counting policy knows of one timeline so far."""

    def see(self, target: int) -> None:
        """Take in the next event."""
        ...

    def ranked(self, depth: int) -> Iterator[tuple[int, float]]:
        """Targets and probabilities, best first, at least `depth` of them where so many were seen."""
        ...


class Frequency:
    """Targets by count, ties by who was seen first, kept in order as counts grow."""

    def __init__(self) -> None:
        self.order: list[tuple[int, int, int]] = []  # (-count, place of first appearance, target)
        self.entry: dict[int, tuple[int, int, int]] = {}
        self.events = 0
        self.current = -1

    def see(self, target: int) -> None:
        old = self.entry.get(target)
        if old is None:
            new = (-1, len(self.entry), target)
        else:
            del self.order[bisect_left(self.order, old)]
            new = (old[0] - 1, old[1], target)
        self.entry[target] = new
        insort(self.order, new)
        self.events += 1
        self.current = target

    def ranked(self, depth: int) -> Iterator[tuple[int, float]]:
        """p = count / (events at other targets + distinct targets)."""
        if not self.order:
            return
        elsewhere = self.events + self.entry[self.current][0]  # the current target cannot come next
        for count, _, target in self.order:
            if target != self.current:
                yield target, -count / (elsewhere + len(self.order))


class Recency:
    """Targets by last use; the probability of a place is how often that place was right so far."""

    def __init__(self) -> None:
        self.last_use: dict[int, None] = {}  # in order of last use, latest at the end
        self.right = [0] * DEPTH
        self.predicted = 0

    def see(self, target: int) -> None:
        if self.last_use:
            for place, (other, _) in zip(range(DEPTH), self.ranked(DEPTH), strict=False):
                if other == target:
                    self.right[place] += 1
            self.predicted += 1
        self.last_use.pop(target, None)
        self.last_use[target] = None

    def ranked(self, depth: int) -> Iterator[tuple[int, float]]:
        recent = reversed(self.last_use)
        next(recent, None)
        for place, target in enumerate(recent):
            right = self.right[place] if place < DEPTH else 0
            yield target, (right + 1) / (self.predicted + 2 * (DEPTH + 1))


class Backoff:
    """Successors of the last `order` targets, then of ever fewer, then the most frequent."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.frequency = Frequency()
        self.followed: dict[tuple[int, ...], dict[int, int]] = {}
        self.history: tuple[int, ...] = ()

    def see(self, target: int) -> None:
        for length in range(1, len(self.history) + 1):
            counts = self.followed.setdefault(self.history[-length:], {})
            counts[target] = counts.get(target, 0) + 1
        self.history = (*self.history, target)[-self.order :]
        self.frequency.see(target)

    def ranked(self, depth: int) -> Iterator[tuple[int, float]]:
        if not self.history:
            return
        listed = {self.history[-1]}
        left = 1.0  # probability that no context so far has spoken for
        for length in range(len(self.history), 0, -1):
            counts = self.followed.get(self.history[-length:])
            if not counts:
                continue
            # What a longer context has spoken for is taken out of the shorter one (exclusion).
            fresh = [(x, c) for x, c in counts.items() if x not in listed]
            total = sum(c for _, c in fresh) + len(counts)
            for target, count in sorted(fresh, key=lambda pair: -pair[1]):
                yield target, left * count / total
                listed.add(target)
            left *= len(counts) / total
        for target, p in self.frequency.ranked(depth):
            if target not in listed:
                yield target, left * p


class Omnibox:
    """The browser's confidence rule, per item (current target, candidate): hits / (hits + misses).

    An item exists from the first time the candidate followed the current target. From then on each
    visit to the current target is a hit for the candidate that came next and a miss for every other
    item. Below three hits the confidence is 0. This is how Chromium decides to prerender from the
    address bar (chrome/browser/predictors/autocomplete_action_predictor.cc: kMinimumNumberOfHits = 3,
    prerender at 0.8 in older and 0.5 in newer versions), with what was typed replaced by the current
    target. Items below three hits are listed after the others, by hits / (hits + misses), confidence 0.
    """

    MINIMUM_HITS = 3

    def __init__(self) -> None:
        self.items: dict[int, dict[int, list[int]]] = {}  # current -> candidate -> [hits, misses]
        self.current = -1

    def see(self, target: int) -> None:
        if self.current >= 0 and target != self.current:
            items = self.items.setdefault(self.current, {})
            for candidate, counts in items.items():
                counts[candidate != target] += 1
            items.setdefault(target, [1, 0])
        self.current = target

    def ranked(self, depth: int) -> Iterator[tuple[int, float]]:
        scored = [
            (hits >= self.MINIMUM_HITS, hits / (hits + misses), candidate)
            for candidate, (hits, misses) in self.items.get(self.current, {}).items()
        ]
        for sure, confidence, candidate in sorted(scored, key=lambda item: (-item[0], -item[1])):
            yield candidate, confidence if sure else 0.0


class PastDelays:
    """Predicted seconds until the next open: the median gap after the current target so far, or after
    any target while the current one has fewer than three gaps behind it."""

    def __init__(self) -> None:
        self.gaps: dict[int, list[float]] = {}
        self.all_gaps: list[float] = []
        self.current = -1
        self.since = 0.0

    def see(self, target: int, t: float) -> None:
        if self.current >= 0:
            insort(self.gaps.setdefault(self.current, []), t - self.since)
            insort(self.all_gaps, t - self.since)
        self.current = target
        self.since = t

    def predicted(self) -> float:
        """Seconds; NaN before the first gap."""
        own = self.gaps.get(self.current, [])
        gaps = own if len(own) >= 3 else self.all_gaps
        return gaps[len(gaps) // 2] if gaps else float("nan")


def predicted_delays(timeline: Timeline, indices: np.ndarray) -> np.ndarray:
    """What `PastDelays` predicts at decisions `indices` (increasing), float32 [D]."""
    delays, seconds = PastDelays(), np.empty(len(indices), np.float32)
    seen = -1
    for row, i in enumerate(indices.tolist()):
        for k in range(seen + 1, i + 1):
            delays.see(int(timeline.target[k]), float(timeline.t[k]))
        seen = i
        seconds[row] = delays.predicted()
    return seconds


class CountingPolicy:
    """A policy made of online counts; `name` says which (see `STATES`)."""

    def __init__(self, name: str, depth: int = DEPTH) -> None:
        if name not in STATES:
            raise ValueError(f"no counting policy is called {name!r}; there are {', '.join(STATES)}")
        self.name = name
        self.depth = depth

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing to learn beforehand: counts start empty with every timeline."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Rankings at decisions `indices` int64 [D] (increasing), from one walk over the events."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and (np.diff(indices) < 0).any():
            raise ValueError("decision indices must not decrease")
        state, delays = STATES[self.name](), PastDelays()
        ranking = _blank(len(indices), self.depth)
        targets, times = timeline.target.tolist(), timeline.t.tolist()
        seen = -1
        for row, i in enumerate(indices.tolist()):
            for k in range(seen + 1, i + 1):
                state.see(targets[k])
                delays.see(targets[k], times[k])
            seen = max(seen, i)
            _write(ranking, row, state, delays)
        return ranking

    def stream(self, timeline: Timeline) -> Stream:
        """Answers one decision after another, taking in only the events since the last."""
        see, ask = self.follow()
        seen = -1

        def answer(i: int) -> Ranking:
            nonlocal seen
            for k in range(seen + 1, i + 1):
                see(int(timeline.target[k]), float(timeline.t[k]))
            seen = max(seen, i)
            return ask()

        return answer

    def follow(self) -> tuple[Callable[[int, float], None], Callable[[], Ranking]]:
        """What takes in the next event (its target and time), and what ranks after the latest."""
        state, delays = STATES[self.name](), PastDelays()

        def see(target: int, t: float) -> None:
            state.see(target)
            delays.see(target, t)

        def ask() -> Ranking:
            ranking = _blank(1, self.depth)
            _write(ranking, 0, state, delays)
            return ranking

        return see, ask


def _blank(decisions: int, depth: int) -> Ranking:
    return Ranking(
        targets=np.full((decisions, depth), -1, np.int32),
        probability=np.zeros((decisions, depth), np.float32),
        none=np.ones(decisions, np.float32),
        delay_s=np.full(decisions, np.nan, np.float32),
    )


def _write(ranking: Ranking, row: int, state: CountingState, delays: PastDelays) -> None:
    depth = ranking.targets.shape[1]
    total = 0.0
    for place, (target, p) in zip(range(depth), state.ranked(depth), strict=False):
        ranking.targets[row, place] = target
        ranking.probability[row, place] = p
        total += p
    ranking.none[row] = max(0.0, 1.0 - total)
    assert ranking.delay_s is not None
    ranking.delay_s[row] = delays.predicted()


STATES: dict[str, Callable[[], CountingState]] = {
    "mfu": Frequency,
    "mru": Recency,
    "markov1": lambda: Backoff(1),
    "backoff3": lambda: Backoff(3),
    "omnibox": Omnibox,
}
"""The counting policies by name."""

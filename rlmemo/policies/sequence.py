"""Neural sequence rankers from the literature, as policies: what `gru4rec` and `sasrec` share.

A network has a row for every target of the training part, by name, so that people share what they have in
common. It scores all rows after each event; the softmax goes over those that this person has opened so far,
without the current one, as no list here holds anything else. Two things a network cannot say are counted in
this person's last `WINDOW` opens, test opens too, each after it was predicted: how often something was
opened for the first time (that is left to `none`), and how often something that the training part did not
have. The latter's share goes to such targets by how often and how lately they were opened.

The number of epochs and a temperature come from the log loss on the validation part; test events are never
read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from env.ranking import DEPTH, Ranking, Stream, decisions
from env.splits import Split, sessions
from env.timeline import Timeline
from rlmemo.model.scorer import MINIMUM_DECISIONS, log_loss, softmax
from rlmemo.policies.counting import CountingPolicy, predicted_delays

EPOCHS, PATIENCE = 60, 5
"""Epochs at most, and how many without a lower log loss on validation end the training. With fewer than 50
validation events nothing can be told from them, and it is a quarter of the epochs."""
WINDOW = 200
"""A person's last opens, in which is counted what a network cannot know."""


@dataclass(frozen=True)
class OpenedRows:
    """A timeline as a network reads it: per event its row (int64 [n], 0 for a target that the training part
    did not have), the number of its session (int64 [n]) and its time (float64 [n])."""

    row: np.ndarray
    session: np.ndarray
    t: np.ndarray

    def __getitem__(self, events: slice) -> OpenedRows:
        return OpenedRows(self.row[events], self.session[events], self.t[events])


class Network(Protocol):
    """What a ranker brings: a torch module with these methods."""

    def epoch(self, parts: Sequence[OpenedRows]) -> None:
        """Learn from the training parts once."""
        ...

    def scores(self, opens: OpenedRows, indices: np.ndarray) -> np.ndarray:
        """Of every row after each of the events `indices`, float32 [D, rows], from events 0..i alone."""
        ...


class SequencePolicy:
    """A network that reads what was opened in order; `markov1` where there is too little to learn from.

    make: a `Network` for as many rows as it is given counts (int64 [rows], how often each was opened in the
    training part; row 0 is whatever was not).
    """

    def __init__(self, name: str, make: Callable[[np.ndarray], Any]) -> None:
        self.name = name
        self.depth = DEPTH
        self.temperature = 1.0
        self.note = ""
        self.epochs = 0
        self._make = make
        self._row: dict[str, int] = {}
        self._network: Any = None
        self._fallback = CountingPolicy("markov1", depth=self.depth)

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Learn from `split.train`; stop early and fit the temperature on `split.validation`."""
        self._network, self.note, self.temperature = None, "", 1.0
        rows = sum(len(decisions(part)) for part in split.train)
        if rows < MINIMUM_DECISIONS:
            self.note = (
                f"{self.name}: {rows} training decisions, fewer than {MINIMUM_DECISIONS}: "
                "ranking by counts (markov1) instead"
            )
            warnings.warn(self.note, stacklevel=2)
            return
        read = [
            (timeline, slice(int(part[0]) - 1, int(part[-1]) + 1))
            for timeline, part in zip(timelines, split.train, strict=True)
            if len(part)
        ]
        counts = Counter(one.names[k] for one, events in read for k in one.target[events].tolist())
        self._row = {name: k for k, name in enumerate(counts, start=1)}
        parts = [self._opens(one)[events] for one, events in read]
        held = [(one, decisions(v)) for one, v in zip(timelines, split.validation, strict=True) if len(v)]
        early = sum(len(indices) for _, indices in held) >= 50
        with _repeatable(seed):
            network = self._network = self._make(np.array([0, *counts.values()]))
            best, kept, since = np.inf, None, 0
            for epoch in range(1, 1 + (EPOCHS if early else EPOCHS // 4)):
                network.train()
                network.epoch(parts)
                network.eval()
                if not early:
                    self.epochs = epoch
                    continue
                loss, temperature = self._validate(held)
                if loss < best:
                    best, kept, since = loss, deepcopy(network.state_dict()), 0
                    self.temperature, self.epochs = temperature, epoch
                elif (since := since + 1) == PATIENCE:
                    break
            if kept is not None:
                network.load_state_dict(kept)

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Rankings at decisions `indices`; see `Policy.rank`."""
        indices = np.asarray(indices, dtype=np.int64)
        if self._network is None:
            return self._fallback.rank(timeline, indices)
        if len(indices) == 0:
            return Ranking.empty(0, self.depth)
        parts = [self._answer(timeline, indices[k : k + 512]) for k in range(0, len(indices), 512)]
        return replace(Ranking.join(parts), delay_s=predicted_delays(timeline, indices))

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another, each read afresh."""
        if self._network is None:
            return self._fallback.stream(timeline)
        return lambda i: self._answer(timeline, np.array([i], dtype=np.int64))

    def _rows(self, timeline: Timeline) -> np.ndarray:
        return np.array([self._row.get(name, 0) for name in timeline.names], np.int64)

    def _opens(self, timeline: Timeline) -> OpenedRows:
        return OpenedRows(self._rows(timeline)[timeline.target], sessions(timeline), timeline.t)

    def _scores(self, timeline: Timeline, indices: np.ndarray) -> np.ndarray:
        """The network's score of each of this person's targets, float64 [D, names]; -inf for one that cannot
        be listed: not opened so far, open now, or without a row."""
        row, id_ = self._rows(timeline), np.arange(len(timeline.names))
        # Ids are in order of first opening: what was opened so far is whatever is not above the highest.
        highest = np.maximum.accumulate(timeline.target)[indices]
        out = (id_ > highest[:, None]) | (id_ == timeline.target[indices][:, None]) | (row == 0)
        assert self._network is not None
        found = self._network.scores(self._opens(timeline), indices)
        return np.where(out, -np.inf, found[:, row].astype(np.float64))

    def _validate(self, held: Sequence[tuple[Timeline, np.ndarray]]) -> tuple[float, float]:
        """Log loss of the answers that can be listed at the temperature where it is least, and that."""
        from scipy.optimize import minimize_scalar

        asked = []
        for timeline, indices in held:
            scores, answer = self._scores(timeline, indices), timeline.target[indices + 1]
            can = np.isfinite(scores[np.arange(len(indices)), answer])
            asked.append((scores[can], answer[can]))

        def loss(log_t: float) -> float:
            return sum(log_loss(s / np.exp(log_t), a) * len(a) for s, a in asked if len(a))

        found = minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded", options={"xatol": 0.01})
        return float(found.fun), float(np.exp(found.x))

    def _answer(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        scores = self._scores(timeline, indices) / self.temperature
        listed = np.isfinite(scores)
        scores[~listed.any(1)] = 0.0  # nothing to rank: any softmax will do, as all of it is taken out
        new, strange = self._counted(timeline, indices)
        p = softmax(scores) * listed * (1.0 - new[:, None] - strange.sum(1, keepdims=True)) + strange
        p = np.pad(p, ((0, 0), (0, self.depth)))  # so that there are as many places as are listed
        targets = np.argsort(-p, axis=1, kind="stable")[:, : self.depth]
        probability = np.take_along_axis(p, targets, axis=1).astype(np.float32)
        none = np.maximum(0.0, 1.0 - probability.sum(1)).astype(np.float32)
        return Ranking(np.where(probability > 0, targets, -1).astype(np.int32), probability, none)

    def _counted(self, timeline: Timeline, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the last `WINDOW` opens, the share that were first openings [D]; and the share of targets opened
        before that have no row, given to those that are not open now by how often and lately [D, names]."""
        target, decision = timeline.target, np.arange(len(indices))[:, None]
        rowless = self._rows(timeline)[target] == 0
        first = np.diff(np.maximum.accumulate(target), prepend=-1) > 0
        back = np.arange(WINDOW)
        event = indices[:, None] - back
        past, event = event >= 0, np.maximum(event, 0)
        events = past.sum(1) + 2.0
        share = np.zeros((len(indices), len(timeline.names)))
        others = past & rowless[event] & (target[event] != target[indices][:, None])
        np.add.at(share, (decision, target[event]), others / (1.0 + back))
        share /= np.maximum(share.sum(1, keepdims=True), 1e-12)
        share *= ((past & rowless[event] & ~first[event]).sum(1) / events)[:, None]
        return ((past & first[event]).sum(1) + 1.0) / events, share


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Torch's random numbers from `seed`, and one thread (these networks are too small for two); both as they
    were afterwards."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)

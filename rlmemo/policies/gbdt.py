"""A gradient-boosted ranker over the slate: the strongest baseline that is not a language model.

One tree ensemble scores every place of a wide slate and one further row that stands for "none of
these"; the scores of a decision go through a softmax, and the trees are boosted on the softmax's own
log loss (a conditional logit). So the probabilities of a decision sum to one and need no binning, and
`none` is learnt like any candidate. Trained on the training part of all timelines together; the number
of rounds and a temperature come from the validation part; test events are never read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from env.ranking import DEPTH, Ranking, Stream, decisions
from env.slate.slate import Slates, build_slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model.scorer import MINIMUM_DECISIONS, ROUNDS, boost, log_loss, right_places, softmax, table
from rlmemo.model.soon import Soon, base_soon, fit_soon
from rlmemo.policies.counting import CountingPolicy, predicted_delays

SLATE = 32
"""Places of the slate the ranker sees: of webtrackr's 2,856 test targets 73.4 % stand in 32 places, 68.5 %
in 16 (share of `build_slates(timeline, size).answer >= 0` at the test decisions)."""


MOST_DECISIONS = 50_000
"""Trained on: the rows of more would take gigabytes."""


def some_people(sizes: Sequence[int], seed: int) -> list[int]:
    """All people, or so many, drawn by the seed, that their decisions (sizes, by person) are `MOST_DECISIONS`
    and those of the last one; in their order."""
    if sum(sizes) <= MOST_DECISIONS:
        return list(range(len(sizes)))
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    enough = int(np.searchsorted(np.cumsum(np.asarray(sizes)[drawn]), MOST_DECISIONS)) + 1
    return sorted(int(u) for u in drawn[:enough])


class GbdtPolicy:
    """LightGBM on slate statistics; falls back to `markov1` where there is too little to learn from."""

    def __init__(self) -> None:
        self.name = "gbdt"
        self.depth = min(DEPTH, SLATE)
        self.slate = SLATE
        self.temperature = 1.0
        self.note = ""
        self._model: Any = None
        self._soon: Soon = base_soon()
        self._fallback = CountingPolicy("markov1", depth=self.depth)

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Boost on `split.train`; stop early and fit the temperature on `split.validation`."""
        self._model, self.note, self.temperature = None, "", 1.0
        rows = sum(len(decisions(part)) for part in split.train)
        if rows < MINIMUM_DECISIONS:
            self.note = (
                f"gbdt: {rows} training decisions, fewer than {MINIMUM_DECISIONS}: "
                "ranking by counts (markov1) instead"
            )
            warnings.warn(self.note, stacklevel=2)
            return
        few = some_people([len(decisions(part)) for part in split.train], seed)
        if len(few) < len(timelines):
            self.note = f"gbdt: fitted to {len(few):,} of {len(timelines):,} people, drawn by the seed"
        slates = [build_slates(timelines[u], self.slate) for u in few]
        train = [decisions(split.train[u]) for u in few]
        self._soon = fit_soon(slates, [timelines[u].target for u in few], train, seed=seed)
        x, y = _gather(slates, [split.train[u] for u in few])
        xv, yv = _gather(slates, [split.validation[u] for u in few])
        early = len(yv) >= 50  # enough to stop early on; otherwise a fixed, small number of rounds
        self._model = boost(
            x,
            y,
            self.slate,
            seed=seed,
            rounds=ROUNDS if early else ROUNDS // 3,
            held=(xv, yv) if early else None,
        )
        if len(yv) >= 50:
            self.temperature = _fit_temperature(
                self._model.predict(xv, num_threads=1, raw_score=True).reshape(-1, self.slate + 1), yv
            )

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Rankings at decisions `indices`; see `Policy.rank`."""
        indices = np.asarray(indices, dtype=np.int64)
        if self._model is None:
            return self._fallback.rank(timeline, indices)
        if len(indices) == 0:
            return Ranking.empty(0, self.depth)
        slates = build_slates(timeline, self.slate)
        return replace(self._answer(slates, indices), delay_s=predicted_delays(timeline, indices))

    def soon(self, timeline: Timeline, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The chance of targets to be opened soon, as in `rlmemo.policies.language`."""
        return self._soon.told(build_slates(timeline, self.slate), indices)

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another; the slates are looked up (building one takes about 25 µs)."""
        if self._model is None:
            return self._fallback.stream(timeline)
        slates = build_slates(timeline, self.slate)
        return lambda i: self._answer(slates, np.array([i], dtype=np.int64))

    def _answer(self, slates: Slates, indices: np.ndarray) -> Ranking:
        p = softmax(self._scores(slates, indices) / self.temperature)
        candidates = slates.candidates[indices]
        listed = np.where(candidates >= 0, p[:, :-1], -1.0)
        order = np.argsort(-listed, axis=1, kind="stable")[:, : self.depth]
        targets = np.take_along_axis(candidates, order, axis=1)
        probability = np.where(targets >= 0, np.take_along_axis(p, order, axis=1), 0.0).astype(np.float32)
        none = np.maximum(0.0, 1.0 - probability.sum(1)).astype(np.float32)
        return Ranking(targets.astype(np.int32), probability, none)

    def _scores(self, slates: Slates, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict(table(slates, indices), num_threads=1, raw_score=True)).reshape(
            -1, self.slate + 1
        )


def _gather(slates: Sequence[Slates], parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all decisions that predict the events in `parts`, and the place that was right."""
    found = [(one, decisions(events)) for one, events in zip(slates, parts, strict=True)]
    return (
        np.concatenate([table(one, indices) for one, indices in found]),
        np.concatenate([right_places(one, indices) for one, indices in found]),
    )


def _fit_temperature(scores: np.ndarray, right: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: log_loss(scores / np.exp(log_t), right), bounds=(-1.0, 1.0), method="bounded"
    )
    return float(np.exp(found.x))

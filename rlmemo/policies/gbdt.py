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
from typing import Any

import numpy as np

from env.slate import CONTEXT, FEATURES, Slates, build_slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.counting import CountingPolicy, Delays
from rlmemo.policies.protocol import DEPTH, Ranking, Stream, decisions

SLATE = 32
"""Places of the slate the ranker sees: of webtrackr's 2,856 test targets 73.4 % stand in 32 places, 68.5 %
in 16 (share of `build_slates(timeline, size).answer >= 0` at the test decisions)."""

MINIMUM_DECISIONS = 300
"""Below this many training decisions trees only memorise, and counting is used instead."""

ROUNDS, PATIENCE = 500, 40
PARAMETERS: dict[str, Any] = {
    # Chosen among four settings by log loss on webtrackr's validation part.
    "learning_rate": 0.03,
    "num_leaves": 31,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "metric": "None",
    # One thread: tables of this size gain little from two, and where the cores are busy LightGBM's threads
    # wait for each other spinning (measured: 16 s became 121 s on two cores shared by five processes).
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_RELATIVE = [FEATURES.index(f) for f in ("share1", "share2", "share3", "fresh_share1", "recent_frequency")]


class GbdtPolicy:
    """LightGBM on slate statistics; falls back to `markov1` where there is too little to learn from."""

    def __init__(self, depth: int = DEPTH, slate: int = SLATE) -> None:
        self.name = "gbdt"
        self.depth = min(depth, slate)
        self.slate = slate
        self.temperature = 1.0
        self.note = ""
        self._model: Any = None
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
        import lightgbm as lgb

        slates = [build_slates(timeline, self.slate) for timeline in timelines]
        x, y = self._table(slates, split.train)
        xv, yv = self._table(slates, split.validation)
        data = lgb.Dataset(x, np.zeros(len(x)), params={"verbose": -1})
        options: dict[str, Any] = {}
        rounds = ROUNDS // 3
        if len(yv) >= 50:  # enough to stop early on; otherwise a fixed, small number of rounds
            rounds = ROUNDS
            options = {
                "valid_sets": [lgb.Dataset(xv, np.zeros(len(xv)), reference=data)],
                "feval": lambda scores, _: ("log_loss", _log_loss(self._grid(scores), yv), False),
                "callbacks": [lgb.early_stopping(PATIENCE, verbose=False)],
            }
        parameters = {**PARAMETERS, "seed": seed, "objective": lambda scores, _: self._gradient(scores, y)}
        # 200 rows on webtrackr's 9,986 training decisions, fewer where there are fewer.
        parameters["min_data_in_leaf"] = max(20, min(200, len(y) // 50))
        self._model = lgb.train(parameters, data, rounds, **options)
        if len(yv) >= 50:
            self.temperature = _fit_temperature(self._scores(xv), yv)

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Rankings at decisions `indices`; see `Policy.rank`."""
        indices = np.asarray(indices, dtype=np.int64)
        if self._model is None:
            return self._fallback.rank(timeline, indices)
        if len(indices) == 0:
            return Ranking.empty(0, self.depth)
        slates = build_slates(timeline, self.slate)
        ranking = self._answer(slates, indices)
        delays, seconds = Delays(), np.empty(len(indices), np.float32)
        seen = -1
        for row, i in enumerate(indices.tolist()):
            for k in range(seen + 1, i + 1):
                delays.see(int(timeline.target[k]), float(timeline.t[k]))
            seen = i
            seconds[row] = delays.predicted()
        return Ranking(ranking.targets, ranking.probability, ranking.none, seconds)

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another; the slates are looked up (building one takes about 25 µs)."""
        if self._model is None:
            return self._fallback.stream(timeline)
        slates = build_slates(timeline, self.slate)
        return lambda i: self._answer(slates, np.array([i], dtype=np.int64))

    def _answer(self, slates: Slates, indices: np.ndarray) -> Ranking:
        p = _softmax(self._scores(self._rows(slates, indices)) / self.temperature)
        candidates = slates.candidates[indices]
        listed = np.where(candidates >= 0, p[:, :-1], -1.0)
        order = np.argsort(-listed, axis=1, kind="stable")[:, : self.depth]
        targets = np.take_along_axis(candidates, order, axis=1)
        probability = np.where(targets >= 0, np.take_along_axis(p, order, axis=1), 0.0).astype(np.float32)
        none = np.maximum(0.0, 1.0 - probability.sum(1)).astype(np.float32)
        return Ranking(targets.astype(np.int32), probability, none)

    def _table(self, slates: Sequence[Slates], parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of all decisions that predict the events in `parts`, and the place that was right."""
        rows, right = [], []
        for one, events in zip(slates, parts, strict=True):
            indices = decisions(events)
            rows.append(self._rows(one, indices))
            right.append(np.where(one.answer[indices] >= 0, one.answer[indices], self.slate))
        return np.concatenate(rows), np.concatenate(right).astype(np.int64)

    def _rows(self, slates: Slates, indices: np.ndarray) -> np.ndarray:
        """float32 [D * (slate + 1), columns]: features, context, place, distance from the best."""
        f = slates.features[indices]
        d, k, n = f.shape
        table = np.zeros((d, k + 1, n + len(CONTEXT) + 1 + len(_RELATIVE)), np.float32)
        table[:, :k, :n] = f
        table[:, :, n : n + len(CONTEXT)] = slates.context[indices][:, None, :]
        table[:, :k, n + len(CONTEXT)] = np.where(slates.candidates[indices] >= 0, np.arange(k), k + 1)
        table[:, k, n + len(CONTEXT)] = -1  # "none of these"
        best = f[:, :, _RELATIVE]
        table[:, :k, n + len(CONTEXT) + 1 :] = best - best.max(axis=1, keepdims=True)
        return table.reshape(d * (k + 1), table.shape[2])

    def _grid(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores).reshape(-1, self.slate + 1)

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        return self._grid(self._model.predict(rows, num_threads=1, raw_score=True))

    def _gradient(self, scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = _softmax(self._grid(scores))
        hessian = np.maximum(p * (1.0 - p), 1e-6)
        p[np.arange(len(right)), right] -= 1.0
        return p.ravel(), hessian.ravel()


def _softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _log_loss(scores: np.ndarray, right: np.ndarray) -> float:
    s = scores - scores.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(s).sum(axis=1)) - s[np.arange(len(right)), right]))


def _fit_temperature(scores: np.ndarray, right: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: _log_loss(scores / np.exp(log_t), right), bounds=(-1.0, 1.0), method="bounded"
    )
    return float(np.exp(found.x))

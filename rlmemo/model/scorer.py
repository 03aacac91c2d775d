"""The scorer: boosted trees that put one number on every candidate of a slate, and on "none of these".

A small language model reads tokens, and tokens keep little of a statistic. What a candidate's statistics
say together is therefore summed up by a ranker of boosted trees (a conditional logit over the places of
the slate and one row for "none"), and its answer is what the model reads as the candidate's `q` token
(`rlmemo.model.slots`). The package ships one that was fitted on synthetic personas alone
(`experiments/fit_scorer.py`, `rlmemo/base/scorer.txt`). A training run fits its own on its training part
(`fit_scorers`): two boosters, one with the shipped scorer's answer as one more column and one without it,
whose log-probabilities are averaged. The first ranks better at the top, the second further down, and the
mean is above both (experiments/LOG.md, "two boosters").

Scored are the `WIDE` places of a wide slate, and the best `SLATE_SIZE` of them, still in the slate's
order, are what the model reads (`shortlist`): what the slate's own blended score puts at place 20 may well
be third.

A ranker is too sure of moments it was fitted on. So the training part is read through scorers that were
fitted without it (`CrossFitted`: the part is cut into blocks of time, each scored by the fit on the others),
and everything after it through the fit on all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.slate.slate import CONTEXT, FEATURES, SLATE_SIZE, Slates
from rlmemo.model.trees import BoosterText, Trees
from rlmemo.runs.atomic import write_atomic

WIDE = 16
"""Candidates that are scored; the best `SLATE_SIZE` of them are what the model reads."""
BLOCKS = 3
ROUNDS, PATIENCE = 500, 40
FAST = 0.05
"""Learning rate of a run's scorers: half the trees, and half the time, of PARAMETERS' own."""
MINIMUM_DECISIONS = 300
"""Below this many training decisions trees only memorise, and the shipped scorer is used as it is."""

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
RELATIVE = [FEATURES.index(f) for f in ("share1", "share2", "share3", "fresh_share1", "recent_frequency")]
COLUMNS = len(FEATURES) + len(CONTEXT) + 1 + len(RELATIVE)
WIDTHS = (COLUMNS + 1, COLUMNS)
"""Columns of a run's boosters: with the shipped scorer's answer, and without it."""


def table(slates: Slates, indices: np.ndarray) -> np.ndarray:
    """Rows of decisions: float32 [D * (size + 1), COLUMNS], features, context, place, distance from the
    best; the last row of each decision stands for "none of these"."""
    f = slates.features[indices]
    d, k, n = f.shape
    rows = np.zeros((d, k + 1, COLUMNS), np.float32)
    rows[:, :k, :n] = f
    rows[:, :, n : n + len(CONTEXT)] = slates.context[indices][:, None, :]
    rows[:, :k, n + len(CONTEXT)] = np.where(slates.candidates[indices] >= 0, np.arange(k), k + 1)
    rows[:, k, n + len(CONTEXT)] = -1
    best = f[:, :, RELATIVE]
    rows[:, :k, n + len(CONTEXT) + 1 :] = best - best.max(axis=1, keepdims=True)
    return rows.reshape(d * (k + 1), COLUMNS)


def right_places(slates: Slates, indices: np.ndarray) -> np.ndarray:
    """Column of the target opened next, int64 [D]; the last one (size) where the slate does not hold it."""
    answer = slates.answer[indices].astype(np.int64)
    return np.where(answer >= 0, answer, slates.candidates.shape[1])


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def log_loss(scores: np.ndarray, right: np.ndarray) -> float:
    """Mean nats a decision of scores [D, places + 1]."""
    s = scores - scores.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(s).sum(axis=1)) - s[np.arange(len(right)), right]))


def boost(
    rows: np.ndarray,
    right: np.ndarray,
    places: int,
    *,
    seed: int,
    rounds: int,
    held: tuple[np.ndarray, np.ndarray] | None = None,
    **parameters: Any,
) -> Any:
    """A LightGBM booster of the conditional logit over `places` + 1 rows a decision.

    rows: [D * (places + 1), columns]; right: [D]. held: the same of decisions to stop early on.
    """
    import lightgbm as lgb

    def grid(scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores).reshape(-1, places + 1)

    def gradient(scores: np.ndarray, _: Any) -> tuple[np.ndarray, np.ndarray]:
        p = softmax(grid(scores))
        hessian = np.maximum(p * (1.0 - p), 1e-6)
        p[np.arange(len(right)), right] -= 1.0
        return p.ravel(), hessian.ravel()

    data = lgb.Dataset(rows, np.zeros(len(rows)), params={"verbose": -1})
    options: dict[str, Any] = {}
    if held is not None:
        options = {
            "valid_sets": [lgb.Dataset(held[0], np.zeros(len(held[0])), reference=data)],
            "feval": lambda scores, _: ("log_loss", log_loss(grid(scores), held[1]), False),
            "callbacks": [lgb.early_stopping(PATIENCE, verbose=False)],
        }
    # 200 rows on webtrackr's 9,986 training decisions, fewer where there are fewer.
    least = max(20, min(200, len(right) // 50))
    chosen = {**PARAMETERS, "min_data_in_leaf": least, "seed": seed, "objective": gradient, **parameters}
    return lgb.train(chosen, data, rounds, **options)


@dataclass(frozen=True)
class Scorer:
    """Boosters whose log-probabilities are averaged, and below them the scorer whose answer is one more
    column of every booster that has COLUMNS + 1 of them (None: none has)."""

    boosters: tuple[Any, ...]
    below: Scorer | None = None

    def log_p(self, slates: Slates, indices: np.ndarray) -> np.ndarray:
        """Log-probability of every place and, last, of none: float32 [D, size + 1]."""
        indices = np.asarray(indices, np.int64)
        width = slates.candidates.shape[1] + 1
        if not len(indices):
            return np.zeros((0, width), np.float32)
        rows = columns(slates, indices, self.below)
        return pooled([t.scores(rows).reshape(-1, width) for t in self.trees]).astype(np.float32)

    @cached_property
    def trees(self) -> tuple[Trees, ...]:
        """The boosters' trees, for quick answers."""
        return tuple(Trees.of(booster) for booster in self.boosters)

    def save(self, path: Path) -> None:
        """As LightGBM's text, one booster after the other."""
        texts = [b.model_to_string(num_iteration=b.best_iteration or None) for b in self.boosters]
        write_atomic(path, "".join(texts))


def pooled(said: Sequence[np.ndarray]) -> np.ndarray:
    """Log-probabilities [D, places + 1] of the mean of scores that are each right up to a constant a row."""
    scores = sum(said[1:], said[0]) / len(said)
    scores = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))


def columns(slates: Slates, indices: np.ndarray, below: Scorer | None) -> np.ndarray:
    """`table`, with the answer of the scorer below as one more column."""
    rows = table(slates, indices)
    return rows if below is None else np.column_stack([rows, below.log_p(slates, indices).ravel()])


@dataclass(frozen=True)
class Scored(Slates):
    """Slates as a model reads them, with a scorer's answer. score: float32 [n, size + 1], log-probability of
    every place and, last, of none of them."""

    score: np.ndarray


@dataclass(frozen=True)
class CrossFitted:
    """The scorers of a run: `final` for what comes after the training part; `fold[b]` for block b of it,
    fitted without that block. rounds: of each."""

    final: Scorer
    fold: tuple[Scorer, ...]

    def score(self, slates: Slates, train: np.ndarray, *, leading: bool = False) -> Scored:
        """Wide slates with the scores of every decision, narrowed. train: int64, the training decisions;
        leading: as of `shortlist_of`."""
        n, size = slates.candidates.shape
        score = np.empty((n, size + 1), np.float32)
        after = np.setdiff1d(np.arange(n), train) if self.fold else np.arange(n)
        score[after] = self.final.log_p(slates, after)
        for scorer, block in zip(
            self.fold, np.array_split(np.sort(train), max(len(self.fold), 1)), strict=False
        ):
            score[block] = scorer.log_p(slates, block)
        return _leading(slates, score) if leading else shortlist(slates, score)


def shortlist(slates: Slates, score: np.ndarray, size: int = SLATE_SIZE) -> Scored:
    """The `size` places of every slate that score best, in the slate's order; what the others had goes to
    none. score: float32 [n, places + 1], as of `Scored`."""
    places = slates.candidates.shape[1]
    if places == size:
        return Scored(slates.candidates, slates.features, slates.context, slates.answer, score)
    if places < size:
        raise ValueError(f"slates of {places} places cannot be narrowed to {size}")
    worth = np.where(slates.candidates >= 0, score[:, :-1], -np.inf)
    return _narrowed(slates, score, np.sort(np.argsort(-worth, axis=1, kind="stable")[:, :size], axis=1))


def _leading(slates: Slates, score: np.ndarray) -> Scored:
    """The first `SLATE_SIZE` places of every slate; otherwise as `shortlist`."""
    return _narrowed(slates, score, np.tile(np.arange(SLATE_SIZE), (len(score), 1)))


def _narrowed(slates: Slates, score: np.ndarray, kept: np.ndarray) -> Scored:
    """Some of the places of every slate, int64 [n, size]."""
    mine = np.take_along_axis(score, kept, axis=1)
    none = np.log(np.maximum(-np.expm1(np.log(np.exp(mine.astype(np.float64)).sum(1))), 1e-9))
    at = kept == slates.answer[:, None]
    return Scored(
        np.take_along_axis(slates.candidates, kept, axis=1),
        np.take_along_axis(slates.features, kept[:, :, None], axis=1),
        slates.context,
        np.where(at.any(1), at.argmax(1), -1).astype(np.int32),
        np.concatenate([mine, none[:, None].astype(np.float32)], axis=1),
    )


def shortlist_of(
    slates: Slates, indices: np.ndarray, scorer: Scorer | None = None, *, leading: bool = False
) -> Scored:
    """Decisions `indices` of wide slates as a model that reads `scorer` (None: the shipped one) reads them:
    one row each, in their order. leading: with the slate's own first places instead of the scorer's best."""
    indices = np.asarray(indices, np.int64)
    rows = slates.at(indices)
    score = (scorer or base_scorer()).log_p(rows, np.arange(len(indices)))
    return _leading(rows, score) if leading else shortlist(rows, score)


def fit_scorers(slates: Sequence[Slates], train: Sequence[np.ndarray], *, seed: int) -> CrossFitted:
    """Fit on the training decisions of wide slates (per timeline); nothing else is read, the validation part
    neither.

    Each booster of a block stops early on the block it leaves out; the final one of its kind takes the mean
    of their rounds, scaled by how much more it learns from. Where there are fewer than MINIMUM_DECISIONS, or
    the fits are no better on what they have not seen than the shipped scorer, the shipped one is used.
    """
    base = base_scorer()
    blocks = [np.array_split(np.sort(np.asarray(one, np.int64)), BLOCKS) for one in train]
    if sum(len(one) for one in train) < MINIMUM_DECISIONS:
        return CrossFitted(base, ())
    places = slates[0].candidates.shape[1]
    rows, right = [], []
    for b in range(BLOCKS):
        pieces = [(s, one[b]) for s, one in zip(slates, blocks, strict=True) if len(one[b])]
        rows.append(np.concatenate([columns(s, block, base) for s, block in pieces]))
        right.append(np.concatenate([right_places(s, block) for s, block in pieces]))

    def fit(width: int, blocks: Sequence[int], rounds: int, held: int | None = None) -> Any:
        return boost(
            np.concatenate([rows[b][:, :width] for b in blocks]),
            np.concatenate([right[b] for b in blocks]),
            places,
            seed=seed,
            rounds=rounds,
            held=None if held is None else (rows[held][:, :width], right[held]),
            learning_rate=FAST,
        )

    every = range(BLOCKS)
    folds = [[fit(w, [c for c in every if c != b], ROUNDS, held=b) for w in WIDTHS] for b in every]
    said = [
        [x.predict(rows[b][:, : x.num_feature()], num_threads=1).reshape(-1, places + 1) for x in fold]
        for b, fold in enumerate(folds)
    ]
    found = log_loss(np.concatenate([pooled(x) for x in said]), np.concatenate(right))
    before = np.concatenate([r[:, -1].reshape(-1, places + 1) for r in rows])
    if found >= log_loss(before, np.concatenate(right)):
        return CrossFitted(base, ())
    rounds = [float(np.mean([fold[k].best_iteration for fold in folds])) for k in range(len(WIDTHS))]
    final = [
        fit(w, every, max(1, round(n * BLOCKS / (BLOCKS - 1)))) for w, n in zip(WIDTHS, rounds, strict=True)
    ]
    return CrossFitted(Scorer(tuple(final), base), tuple(Scorer(tuple(fold), base) for fold in folds))


def read_boosters(path: Path) -> tuple[Any, ...]:
    """LightGBM's texts, one after the other, with COLUMNS columns or one more. Raises InputError where they
    cannot be read."""
    try:
        texts = re.split(r"^(?=tree$)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        boosters = tuple(BoosterText(text) for text in texts[1:] or texts)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the trees cannot be read ({error}); train the run again") from None
    for booster in boosters:
        if booster.num_feature() not in (COLUMNS, COLUMNS + 1):
            raise InputError(f"{path}: the trees have {booster.num_feature()} columns; train the run again")
    return boosters


def load_scorer(path: Path, below: Scorer | None = None) -> Scorer:
    """What `Scorer.save` wrote. Raises InputError where it cannot be read."""
    boosters = read_boosters(path)
    if below is None and any(x.num_feature() > COLUMNS for x in boosters):
        raise InputError(f"{path}: the scorer has a column too many; train the run again")
    return Scorer(boosters, below)


@lru_cache(maxsize=1)
def base_scorer() -> Scorer:
    """The shipped scorer, fitted on synthetic personas alone."""
    return load_scorer(Path(str(files("rlmemo.base") / "scorer.txt")))


def save_scorers(crossed: CrossFitted, folder: Path) -> None:
    """Into an empty folder; the shipped scorer itself is not copied."""
    if crossed.final is not base_scorer():
        crossed.final.save(folder / "final.txt")
        for b, scorer in enumerate(crossed.fold):
            scorer.save(folder / f"block{b}.txt")


def load_scorers(folder: Path) -> CrossFitted:
    """What `save_scorers` wrote; the shipped scorer where it wrote nothing."""
    base = base_scorer()
    if not (folder / "final.txt").exists():
        return CrossFitted(base, ())
    blocks = sorted(folder.glob("block*.txt"))
    return CrossFitted(load_scorer(folder / "final.txt", base), tuple(load_scorer(p, base) for p in blocks))

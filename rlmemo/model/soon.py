"""Soon: the chance that a target is opened within the next few opens, which is what it is kept in memory for.

Who comes next is one question, who is needed soon another: of what is in memory, most is not opened next,
and the one that leaves should be the one that is missed last. Boosted trees read the statistics of a wide
slate and answer for every place the chance that it is among the next `SOON` opens. What a clairvoyant lets
go, the one that is opened last, says more than that and is learned worse: when something comes that is far
away is mostly chance (experiments/LOG.md, "who leaves").

The package ships trees that were fitted on synthetic personas alone (`experiments/fit_soon.py`,
`rlmemo/base/soon.txt`). A training run fits its own on its training part, with the shipped ones' answer as
one more column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from env.slate.slate import Slates
from rlmemo.model.scorer import COLUMNS, MINIMUM_DECISIONS, PARAMETERS, read_boosters, table
from rlmemo.model.trees import Trees
from rlmemo.runs.atomic import write_atomic

SOON = 10
"""Opens ahead. Chosen among 3, 6, 10, 15, 30 and 100 on validation parts of webtrackr, demo and gesis."""
PLACES = 32
"""Candidates of the slates that are read: what is in memory stands among them more often than not."""
ROUNDS = 150
FILE = "soon.txt"


@dataclass(frozen=True)
class Soon:
    """A booster, and the one whose answer it reads as one more column (None: it reads none)."""

    booster: Any
    below: Soon | None = None

    @cached_property
    def _trees(self) -> Trees:
        return Trees.of(self.booster)

    def log_odds(self, slates: Slates, rows: np.ndarray) -> np.ndarray:
        """Of every place of the slates to be opened soon, float64 [D, size]; what empty ones get means
        nothing."""
        return self._log_odds(candidate_rows(slates, rows)).reshape(len(rows), -1)

    def _log_odds(self, known: np.ndarray) -> np.ndarray:
        if self.below is None:
            return self._trees.scores(known)
        before = self.below._log_odds(known)
        return self._trees.scores(np.column_stack([known, before]).astype(np.float32))

    def told(self, slates: Slates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(targets int32 [D, size], -1 for none; the chance of each to be opened soon, float64 [D, size]), as
        a case is told (`env.judge.case.Case.told`)."""
        rows = np.asarray(rows, np.int64)
        targets = slates.candidates[rows]
        chance = 1.0 / (1.0 + np.exp(-self.log_odds(slates, rows)))
        return targets, np.where(targets >= 0, chance, 0.0)

    def save(self, path: Path) -> None:
        """As text, whole or not at all."""
        write_atomic(path, self.booster.model_to_string(num_iteration=self.booster.best_iteration or None))


def candidate_rows(slates: Slates, rows: np.ndarray) -> np.ndarray:
    """What is known of every place: float32 [D * size, COLUMNS], as in `rlmemo.model.scorer.table`."""
    size = slates.candidates.shape[1]
    known: np.ndarray = table(slates, rows).reshape(len(rows), size + 1, COLUMNS)[:, :size]
    return known.reshape(-1, COLUMNS)


def soon_after(target: np.ndarray, candidates: np.ndarray, rows: np.ndarray, opens: int = SOON) -> np.ndarray:
    """Whether each candidate is among the next `opens` after each of the events `rows`: bool [D, size].

    target: int32 [n], all of them known; rows must not reach into the last `opens`.
    """
    found = np.zeros((len(rows), candidates.shape[1]), bool)
    for ahead in range(1, opens + 1):
        found |= candidates[rows] == target[rows + ahead, None]
    return found


def fit(rows: np.ndarray, soon: np.ndarray, *, seed: int, rounds: int) -> Any:
    """A LightGBM booster. rows: float32 [m, columns]; soon: bool [m]."""
    import lightgbm as lgb

    chosen = {
        **PARAMETERS, "learning_rate": 0.05, "min_data_in_leaf": max(20, min(200, len(soon) // 500)),
        "seed": seed, "objective": "binary",
    }  # fmt: skip
    return lgb.train(chosen, lgb.Dataset(rows, soon.astype(np.float64), params={"verbose": -1}), rounds)


def fit_soon(
    slates: Sequence[Slates],
    targets: Sequence[np.ndarray],
    train: Sequence[np.ndarray],
    *,
    seed: int,
    opens: int = SOON,
) -> Soon:
    """Fit on the training decisions of slates; what is opened after the last of them is not looked at. The
    shipped one where there are fewer than MINIMUM_DECISIONS.

    slates, targets (int32 [n], what was opened), train (int64, decisions): per timeline. opens: how many of
    the next ones are soon.
    """
    shipped = base_soon()
    known, soon = [], []
    for one, target, decisions in zip(slates, targets, train, strict=True):
        if len(decisions):
            rows = np.sort(decisions)
            rows = rows[rows + opens <= int(decisions.max()) + 1]
            filled = one.candidates[rows] >= 0
            known.append(candidate_rows(one, rows)[filled.ravel()])
            soon.append(soon_after(target, one.candidates, rows, opens)[filled])
    if sum(len(d) for d in train) < MINIMUM_DECISIONS or not np.concatenate(soon).any():
        return shipped
    rows_ = np.concatenate(known)
    rows_ = np.column_stack([rows_, shipped._log_odds(rows_)]).astype(np.float32)
    return Soon(fit(rows_, np.concatenate(soon), seed=seed, rounds=ROUNDS), shipped)


@lru_cache(maxsize=1)
def base_soon() -> Soon:
    """The shipped one, fitted on synthetic personas alone."""
    return Soon(read_boosters(Path(str(files("rlmemo.base") / FILE)))[0])


def save_soon(soon: Soon, folder: Path) -> None:
    """Into a folder; the shipped one itself is not copied."""
    if soon is not base_soon():
        soon.save(folder / FILE)


def load_soon(folder: Path) -> Soon:
    """What `save_soon` wrote; the shipped one where it wrote nothing. Raises InputError if damaged."""
    shipped = base_soon()
    return Soon(read_boosters(folder / FILE)[0], shipped) if (folder / FILE).exists() else shipped


def soon_of(model: Any) -> Soon:
    """What goes with a model (`rlmemo.model.load`); the shipped one where nothing does."""
    found: Soon | None = getattr(model, "soon", None)
    return base_soon() if found is None else found

"""Who is in memory, as a model reads it: the residents that are least worth keeping, the least first.

Which those are, the judge's walk says (`env.judge.let_go.least_worth`), by the chance of each to be opened
soon (`rlmemo.model.soon`) and what keeping it saves per MB. Of each, a model reads that chance and how many
opens ago it was opened last, in a few levels. What is in front never leaves and is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from env.slate.slate import FEATURES, Slates
from rlmemo.model.soon import Soon

LISTED = 8
"""Residents that a model reads of."""
ODDS_EDGES = np.array([-4.2, -3.5, -3.0, -2.6, -2.2, -1.8, -1.4, -0.9, -0.3, 0.4, 1.3])
AGO_EDGES = np.array([1.3, 2.2, 3.2])  # of log(1 + opens since it was opened last)
LEVELS = (len(ODDS_EDGES) + 1) * (len(AGO_EDGES) + 1)
_UNKNOWN = len(AGO_EDGES)  # the level of a target that no slate holds: never soon, opened long ago
_AGO = FEATURES.index("log_events_ago")


@dataclass(frozen=True)
class Residents:
    """What is known of those who may be in memory at D decisions of one timeline.

    targets int32 [D, V], -1 for none; chance float64 [D, V], of each to be opened soon; ago float32 [D, V],
    log(1 + opens since it was opened last).
    """

    targets: np.ndarray
    chance: np.ndarray
    ago: np.ndarray

    @classmethod
    def of(cls, slates: Slates, rows: np.ndarray, soon: Soon) -> Residents:
        """From slates of `rlmemo.model.soon.PLACES`. rows: int64 [D]."""
        return cls(*soon.told(slates, rows), slates.features[rows][:, :, _AGO])

    @property
    def told(self) -> tuple[np.ndarray, np.ndarray]:
        """As a case is told (`env.judge.case.Case.told`)."""
        return self.targets, self.chance

    def levels(self, at: np.ndarray, listed: np.ndarray) -> np.ndarray:
        """What is read of residents: int64 [N, LISTED], -1 for nobody. at: which of the D decisions, int64
        [N]; listed: their residents as `Case.memory` lists them, int64 [N, LISTED]."""
        same = self.targets[at][:, None, :] == listed[:, :, None]
        known = same.any(2)
        chance = np.clip((same * self.chance[at][:, None, :]).max(2), 1e-9, 1.0 - 1e-9)
        odds = np.searchsorted(ODDS_EDGES, np.log(chance / (1.0 - chance)), side="right")
        ago = np.searchsorted(AGO_EDGES, (same * self.ago[at][:, None, :]).max(2), side="right")
        level = np.where(known, odds * (len(AGO_EDGES) + 1) + ago, _UNKNOWN)
        return np.where(listed >= 0, level, -1)

"""A policy that dies: in a module of its own, so that Ray's workers can import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from env.ranking import Ranking
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.protocol import Policy


@dataclass
class Mortal:
    """A policy whose worker is killed the first times that it ranks; another one goes on."""

    inner: Policy
    marks: Path
    name: str = "mortal"
    note: str = ""

    def fit(self, timelines: list[Timeline], split: Split, *, seed: int = 0) -> None:
        self.inner.fit(timelines, split, seed=seed)

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        for k in range(2):
            try:
                (self.marks / f"killed{k}").mkdir()
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.rank(timeline, indices)

"""Examples for a model that is not trained: earlier moments of the same person, with what came next.

An example of decision i is a decision j of the same timeline whose next event is in the training part and
no later than event i, so that its answer was known by then. The most similar ones are taken: the same
target open, then the same one before it, then the same time of day, then the more recent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.text_prompt import TextTimeline

SAME_TARGET, SAME_BEFORE, SAME_HOURS = 4, 2, 1
HOURS = 2.0
"""How far apart two times of day may be to be the same, hours."""


class Examples:
    """Chooses examples. train: by user, indices of the events of the training part, int64, sorted."""

    def __init__(self, shots: int) -> None:
        self.shots = shots
        self.train: dict[str, np.ndarray] = {}

    def fit(self, timelines: Sequence[Timeline], split: Split) -> None:
        """Remember which events are for training. A user without any (left out) gets no examples."""
        self.train = {t.user: np.asarray(e, np.int64) for t, e in zip(timelines, split.train, strict=True)}

    def choose(self, text: TextTimeline, i: int) -> list[int]:
        """Decisions to show before decision i, the most similar last; fewer than asked for where there are
        not as many."""
        events = self.train.get(text.timeline.user)
        if self.shots < 1 or events is None:
            return []
        earlier = events[(events >= 1) & (events <= i)] - 1
        earlier = earlier[(text.slates.candidates[earlier] >= 0).any(axis=1)]
        target, local = text.timeline.target, text.local
        apart = np.abs(local[earlier] / 3600.0 % 24.0 - local[i] / 3600.0 % 24.0)
        score = SAME_TARGET * (target[earlier] == target[i])
        score = score + SAME_HOURS * (np.minimum(apart, 24.0 - apart) <= HOURS)
        if i > 0:
            before = np.where(earlier > 0, target[np.maximum(earlier - 1, 0)], -1)
            score = score + SAME_BEFORE * (before == target[i - 1])
        return [int(j) for j in earlier[np.lexsort((earlier, score))[-self.shots :]]]

    def shown(self, text: TextTimeline, i: int) -> list[tuple[str, int]]:
        """(question, place in its slate of what was opened next, -1 for none of them) of each example."""
        return [(text.question(j), int(text.slates.answer[j])) for j in self.choose(text, i)]

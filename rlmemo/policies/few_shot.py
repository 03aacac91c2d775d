"""Models that are not trained here, and examples for them: earlier moments of the same person, with what
came next.

An example of decision i is a decision j of the same timeline whose next event is in the training part and
no later than event i, so that its answer was known by then. The most similar ones are taken: the same
target open, then the same one before it, then the same time of day, then the more recent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.slate.slate import Slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model import slots
from rlmemo.model.load import load_adapted
from rlmemo.model.text import TextReading
from rlmemo.model.text_prompt import ANSWER, TextTimeline, answer_text
from rlmemo.model.thumbs_so_far import SoFar
from rlmemo.policies.language import LanguagePolicy

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

    def shown(self, text: TextTimeline, i: int) -> list[tuple[str, list[tuple[int, int]]]]:
        """(question, plan that was right: the place in its slate of what was opened next and when to load it,
        or nothing) of each example."""
        found = []
        for j in self.choose(text, i):
            place, t = int(text.slates.answer[j]), text.timeline.t
            delay = int(slots.delay_bucket(t[j + 1] - t[j]))
            found.append((text.question(j), [(place, delay)] if place >= 0 else []))
        return found


@dataclass(frozen=True)
class _ExamplesFirst(TextTimeline):
    """A timeline whose questions have examples in front of them."""

    examples: Examples = field(default_factory=lambda: Examples(0))

    def question(
        self, i: int, warm: np.ndarray | None = None, free: float = 1.0, said: SoFar | None = None
    ) -> str:
        """See `TextTimeline.question`."""
        plain = TextTimeline(
            self.timeline, self.slates, self.shown, self.lines, self.local, self.keep, self.wording
        )
        shown = [
            f"Example:\n{question.lstrip()}{ANSWER}{answer_text(plan)}\n"
            for question, plan in self.examples.shown(plain, i)
        ]
        question = plain.question(i, warm, free, said)
        if not question.startswith("\n"):  # a history of whole lines
            return "".join(shown) + question
        return "".join(["\n", *shown, question.lstrip()])


@dataclass(frozen=True)
class FewShotReading(TextReading):
    """A text reading with examples between the history and the question, so that the tokens before them stay
    the same from event to event."""

    examples: Examples = field(default_factory=lambda: Examples(0), repr=False, compare=False)

    def prompts(
        self,
        timeline: Timeline,
        slates: Slates,
        rows: np.ndarray,
        warm: np.ndarray | None = None,
        free: np.ndarray | None = None,
        residents: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `TextReading.prompts`."""
        try:
            return super().prompts(timeline, slates, rows, warm, free, residents)
        except InputError as error:
            raise InputError(f"{error}, or fewer --shots than {self.examples.shots}") from None

    def _tell(self, timeline: Timeline, slates: Slates) -> Any:
        told = super()._tell(timeline, slates)
        if not isinstance(told.story, _ExamplesFirst):
            told.story = _ExamplesFirst(**vars(told.story), examples=self.examples)
        return told


def untrained(name: str, shots: int = 0) -> LanguagePolicy:
    """A causal language model as it came, as a policy: zero-shot, or with examples.

    name: a folder in hub format, or a hub's name that lies in the local cache. Raises InputError for what
    is no causal language model.
    """
    model = load_adapted(name, None)
    how = getattr(model, "reading", None)
    examples = Examples(shots)
    shown = shots > 0 and isinstance(how, TextReading)  # a model that reads slots reads no examples
    if shown:
        parts = {f.name: getattr(how, f.name) for f in fields(TextReading)}
        model.reading = FewShotReading(**parts | {"told": {}}, examples=examples)
    return LanguagePolicy(model, Path(name).name + (f" {shots}-shot" if shown else ""), learn=examples.fit)

"""Policies of one run's stages that share the room of one model: a large one is not kept several times."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from rlmemo.policies.language import LanguagePolicy


class Shelf:
    """Room for one model. load: makes the model of a stage."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        self._load, self._stage, self._model = load, "", None

    def take(self, stage: str) -> Any:
        """The model of `stage`; the one that lay here before is let go first."""
        if stage != self._stage:
            self._stage, self._model = "", None
            gc.collect()
            self._model = self._load(stage)
            self._stage = stage
        return self._model


class ShelvedPolicy(LanguagePolicy):
    """A `LanguagePolicy` whose model is loaded when it is asked."""

    def __init__(self, shelf: Shelf, stage: str) -> None:
        self._shelf, self.name, self.temperature = shelf, stage, 0.0

    @property
    def model(self) -> Any:
        """The stage's model."""
        return self._shelf.take(self.name)

    @model.setter
    def model(self, _: Any) -> None:
        raise AttributeError("the model of a shelved policy lies on its shelf")

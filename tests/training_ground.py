"""What the training tests share: a small synthetic ground, a tiny base model, and a random sampler."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.sources import load_timelines
from env.splits import chrono
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.pairs import Picks
from rlmemo.learning.training import Lesson
from rlmemo.learning.training_data import TrainingData
from rlmemo.model import slots
from rlmemo.runs.folder import RunFolder
from tests.tiny_base import write_tiny_base


@lru_cache(maxsize=1)
def small_ground() -> TrainingData:
    """Two weeks of the demo's first two people."""
    timelines = load_timelines("demo", weeks=2).timelines[:2]
    return TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), WorldConfig())


def base_of(path: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of a tiny base, written to `path` the first time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (path / "config.json").exists():
        write_tiny_base(path, hidden=32, layers=2)
    model = AutoModelForCausalLM.from_pretrained(path)
    return model, AutoTokenizer.from_pretrained(path)


def lesson_of(
    config: TrainConfig, folder: RunFolder, stage: str, base: Path, adapter: Path | None = None, **more: Any
) -> Lesson:
    """A lesson on a tiny base. more: of `Lesson`, interrupt and progress."""
    base_of(base)
    return Lesson(replace(config, model=str(base)), folder, stage, adapter, **more)


class RandomSampler:
    """Stands in for the model: up to two random valid places at random delays; greedy is the first."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, valid: np.ndarray, greedy: bool) -> list[Picks]:
        made: list[Picks] = []
        for row in valid:
            places = np.flatnonzero(row)
            if greedy:
                made.append(tuple((int(p), 0) for p in places[:1]))
                continue
            chosen = self.rng.permutation(places)[: self.rng.integers(0, 3)]
            made.append(tuple((int(p), int(self.rng.integers(len(slots.DELAYS_S)))) for p in chosen))
        return made

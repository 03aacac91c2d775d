"""A run under way: what it is made of, and the stages that it goes through.

    if run.finished("sft"):
        return
    with run.stage("sft", "SFT on 64 states") as stage:
        run.save(stage, *run_sft(run.lesson(stage), run.data, states))

A stage that is finished stands in `state.json` and is not done again; one that is broken off, by Ctrl-C or by
an error, does not stand there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward import Reward
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.display import Bar, Display
from rlmemo.learning.no_signal import NoSignal
from rlmemo.learning.prepare import Prepared
from rlmemo.learning.rating_feedback import Feedback
from rlmemo.learning.sft import save_adapter
from rlmemo.learning.training import Interrupt, Lesson
from rlmemo.learning.training_data import TrainingData
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import weights_file


@dataclass
class UnderWay:
    """A stage that is being done. found: what is to stand in `state.json`; before: the stage whose adapter it
    goes on from."""

    name: str
    bar: Bar
    before: str | None = None
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a run is made of. feedback: the ratings that it learns from, None where there are none."""

    prepared: Prepared
    folder: RunFolder
    data: TrainingData
    display: Display
    interrupt: Interrupt = field(default_factory=Interrupt)
    feedback: Feedback | None = None

    @property
    def config(self) -> TrainConfig:
        """Its settings."""
        return self.prepared.config

    @property
    def reward(self) -> Reward:
        """What it is rewarded for."""
        return self.prepared.reward

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    def finished(self, stage: str) -> bool:
        """Whether a stage was brought to its end, now or before a resume."""
        return stage in self.folder.state()

    @contextmanager
    def stage(self, name: str, title: str, before: str | None = None) -> Iterator[UnderWay]:
        """Do a stage, under its bar; at its end what it found, and the seconds it took, go to `state.json`.

        Where there is nothing to learn from (`NoSignal`) it is finished all the same: with the adapter of the
        stage `before`, and the reason.
        """
        try:
            with self.display.stage(title) as bar:
                began = time.perf_counter()
                stage = UnderWay(name, bar, before)
                yield stage
                self.folder.finish(name, {**stage.found, "seconds": time.perf_counter() - began})
        except NoSignal as why:
            assert before is not None
            self.display.say(f"{name.upper()} has nothing to learn from: {why}")
            digest = self.copy(before, name)
            self.folder.finish(name, {"steps": 0, "nothing": str(why), "adapter_sha256": digest})

    def lesson(self, stage: UnderWay, config: TrainConfig | None = None) -> Lesson:
        """What a trainer of the stage needs. config: where it is not quite the run's."""
        adapter = None if stage.before is None else self.path / stage.before
        return Lesson(config or self.config, self.folder, stage.name, adapter, self.interrupt, stage.bar)

    def save(self, stage: UnderWay, model: Any, found: dict[str, Any]) -> None:
        """Write the adapter that a trainer has made to the stage's folder."""
        digest = save_adapter(model, self.path / stage.name, self.config.model)
        stage.found = {**found, "adapter_sha256": digest}

    def copy(self, stage: str, to: str) -> str:
        """Let the folder `to` hold the adapter of a stage; its SHA-256."""
        with folder_atomic(self.path / to) as part:
            shutil.copytree(self.path / stage, part, dirs_exist_ok=True)
        return sha256(weights_file(self.path / to))

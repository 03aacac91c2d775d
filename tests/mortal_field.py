"""A field on which workers die: in a module of its own, so that Ray's workers can import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from rlmemo.learning.rollout import Field, Moments, Rollout, Say


class MortalField(Field):
    """A field whose worker is killed the first time that it plays; another one goes on."""

    def __init__(self, data: Any, reward: Any, marks: Path) -> None:
        super().__init__(data, reward)
        self.marks = marks

    def play(self, moments: Moments, picks: int, say: Say) -> Rollout:
        played = super().play(moments, picks, say)
        try:
            (self.marks / "killed").mkdir()
        except FileExistsError:
            return played
        os.kill(os.getpid(), signal.SIGKILL)
        return played

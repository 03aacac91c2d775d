"""Ratings that cannot be lost, in small: the whole of it is `python -m experiments.durability`."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from env.sources import load_timelines
from env.sources.report import Loaded
from experiments.durability import KINDS, SMALL, crowd, kills
from tests.tiny_base import write_tiny_base
from tests.warm import Warm


@pytest.mark.slow
def test_eight_writers_and_a_trainer_on_one_database(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds, or until one real training (read from the database, noted in it) is done; with pauses of
    0.1 s, not 0.02: else the writers leave the training little of two cores."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return warm.run(command[2], *command[3:], cwd=tmp_path, env=os.environ)

    def two_people(*_: object, **__: object) -> Loaded:
        people = load_timelines("demo", weeks=1, collapsed=False)
        return replace(people, timelines=people.timelines[:2])

    base = write_tiny_base(tmp_path / "base", hidden=16, layers=1)
    monkeypatch.setattr(warm, "light", True)
    monkeypatch.setattr("experiments.durability.SMALL", (*SMALL, "--model", str(base)))
    monkeypatch.setattr("experiments.durability.load_timelines", two_people)
    monkeypatch.setattr("experiments.durability.subprocess", SimpleNamespace(run=run))
    found = crowd(minutes=1 / 12, pause=0.1)
    assert found["errors"] == []
    assert found["trainings_failed"] == []
    assert found["acknowledged"] > 100, found
    assert found["told_that_it_was_rated_already"] > 0, "two windows of one person met"
    assert found["kept"], found


@pytest.mark.slow
def test_a_hundred_kills_lose_no_vote() -> None:
    found = kills(100)
    assert found["kills"] == 100, found
    assert all(found["by_kind"][kind] >= 25 for kind in KINDS), found
    assert found["of_these_there_already"] > 0, "some died between the commit and the thanks"
    assert found["of_these_there_already"] < found["sent_again"], "and some before the commit"
    assert found["kept"], found

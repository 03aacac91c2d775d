"""Of few states SFT makes more passes, where the settings ask for so many updates; of many it makes one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlmemo.learning.config import make_config
from rlmemo.learning.sft import passes, run_sft
from rlmemo.learning.training import Lesson
from rlmemo.learning.training_data import part_states
from rlmemo.runs.folder import RunFolder
from tests.tiny_text_model import write_text_model
from tests.training_ground import small_ground


@pytest.mark.parametrize(
    ("states", "given", "times"),
    [
        (3000, {"model": "smollm2"}, 1.0),  # webtrackr: 188 updates
        (561, {"model": "smollm2"}, 1.0),
        (560, {"model": "smollm2"}, 2.0),
        (210, {"model": "smollm2"}, 3.0),  # of 300 opens
        (31, {"model": "smollm2"}, 18.0),  # of 45
        (31, {"model": "smollm2", "sft_updates": 0}, 1.0),
        (31, {"model": "smollm2", "sft_epochs": 20.5}, 20.5),
        (31, {}, 1.0),
        (0, {"model": "smollm2"}, 36.0),
    ],
)
def test_as_many_passes_as_it_takes(states: int, given: dict[str, object], times: float) -> None:
    assert passes(make_config(given), states) == times


@pytest.mark.slow
def test_a_short_recording_is_learned_from_more_often(tmp_path: Path) -> None:
    from rlmemo.model.load import reading_for

    path = str(write_text_model(tmp_path / "model", kind="llama"))
    config = make_config({"sft_batch": 8, "sft_updates": 5, "lora_rank": 4, "history": 1, "model": path})
    ground = replace(small_ground(), reading=reading_for(path, config.loading))
    steps = {}
    for states in (16, 48):
        folder = RunFolder(tmp_path / f"run{states}")
        folder.path.mkdir()
        some = part_states(ground.split.train)[100 : 100 + states]
        steps[states] = run_sft(Lesson(config, folder, "sft"), ground, some)[1]["steps"]
        logged = [json.loads(x) for x in (folder.path / "metrics.jsonl").read_text().splitlines()]
        assert logged[-1]["step"] == steps[states], "the curves end where learning does"
    assert steps == {16: 6, 48: 6}, "three passes over two batches, one over six"

"""Why a stage has no signal: that nothing was ever cold is said only where it is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.sources import load_timelines
from env.splits import chrono
from rlmemo.learning.no_signal import no_signal
from rlmemo.learning.training_data import TrainingData


def ground(budget: float, tmp_path: Path) -> TrainingData:
    rows = ["user,t,target"]
    rows += [f"ada,{1_700_000_000 + 90 * k},app{k * (k // 7) % 8}" for k in range(300)]
    rows += [f"bob,{1_700_000_000 + 90 * k},app{k}" for k in range(3)]  # none of them to learn from
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    timelines = load_timelines(str(tmp_path / "a.csv"), tz="UTC").timelines
    world = WorldConfig(budget_targets=budget)
    return TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), world)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (8.0, "as nothing was ever cold: what is opened again fits into memory; give a --budget below 8"),
        (
            2.0,
            "as nothing was cold at the moments that were looked at; look at more, or give a --budget",
        ),
    ],
)
def test_a_few_moments_are_not_all(budget: float, says: str, tmp_path: Path) -> None:
    said = no_signal(32, ground(budget, tmp_path), cold=False, picked=False)
    assert said.startswith(f"no signal: all 32 plans are worth the same, {says}")
    assert "\n" not in said


def test_what_was_cold_and_left_alone(tmp_path: Path) -> None:
    data = ground(2.0, tmp_path)
    still = no_signal(32, data, cold=True, picked=False)
    assert still.endswith("all 32 plans are worth the same, as every one of them keeps still")
    assert no_signal(32, data, cold=True, picked=True).endswith("all 32 plans are worth the same")

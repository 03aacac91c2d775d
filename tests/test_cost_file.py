"""Costs by target: a file's, and those of programs that differ; what is wrong is said in one line; a run
keeps its own copy."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.cost import Cost
from env.judge.cost_file import read_costs
from env.judge.cost_presets import VARIED, cost_model
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from rlmemo import train
from rlmemo.policies.run import load_run
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base

MAIL = {"memory_mb": 450, "cold_s": 5.2, "warm_s": 0.9}
TINY = ("--lora-rank", "2", "--sft-states", "40", "--sft-batch", "8", "--policies", "none", "--method", "sft")


def write(path: Path, **parts: Any) -> str:
    path.write_text(json.dumps(parts))
    return str(path)


def test_a_file_says_what_targets_kinds_and_others_cost(tmp_path: Path) -> None:
    spec = write(
        tmp_path / "mine.json", source="a stop watch", default={**MAIL, "memory_mb": 300},
        kinds={"page": {"memory_mb": 90, "cold_s": 1.6, "warm_s": 0.3}},
        targets={"mail": {**MAIL, "load_s": 4}},
    )  # fmt: skip
    model = cost_model(spec)
    assert (model.name, model.source) == ("mine", "a stop watch")
    assert model.cost("mail") == Cost(450.0, 5.2, 0.9, 4.0)
    assert model.cost("other.example", "page") == Cost(90.0, 1.6, 0.3)
    assert model.cost("other") == Cost(300.0, 5.2, 0.9)
    short = read_costs(write(tmp_path / "short.json", targets={"a": MAIL, "b": {**MAIL, "memory_mb": 50}}))
    assert short.cost("elsewhere") == Cost(250.0, 5.2, 0.9)  # the median of the targets


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"targets": {\n "a": 1,\n}}', "line 3: is no JSON"),
        ("[1]", "the file is [1]; give a mapping"),
        ("{}", "names no target and no default"),
        ('{"target": {}}', "has 'target'; a cost file has name, source, default, kinds, targets"),
        ('{"targets": {"mail": 3}}', "targets, 'mail' is 3; give a mapping"),
        ('{"targets": {"mail": {"memory_mb": 3, "cold_s": 1}}}', "targets, 'mail' has no warm_s"),
        (
            '{"default": {"memory_mb": "big", "cold_s": 1, "warm_s": 1}}',
            'memory_mb is "big"; give a number',
        ),
        (
            '{"default": {"memory_mb": NaN, "cold_s": 1, "warm_s": 1}}',
            "default, memory_mb is NaN; give a number",
        ),
        ('{"default": {"memory_mb": 1, "cold_s": 1, "warm_s": 2}}', "breaks 0 < memory"),
        ('{"default": {"memory_mb": 1, "cold_s": 1, "warm_s": 1, "hot_s": 1}}', "default has 'hot_s'"),
        ('{"kinds": {"tab": {}}}', "kinds has 'tab'; there are app, page, file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        WorldOptions(costs=str(path)).check()
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_preset_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        cost_model(str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="desktop, phone, web, varied, or a cost file"):
        cost_model("laptop")


def test_varied_targets_differ_and_are_the_same_for_everybody() -> None:
    costs = [VARIED.cost(f"app {k}") for k in range(400)]
    memory, cold = np.array([c.memory_mb for c in costs]), np.array([c.cold_s for c in costs])
    assert 100.0 <= memory.min() < 130.0
    assert 1250.0 < memory.max() <= 1600.0
    assert 1.3 <= cold.min() < 1.4
    assert 8.5 < cold.max() <= 9.1
    assert abs(np.corrcoef(np.log(memory), np.log(cold))[0, 1]) < 0.15  # heavy is not slow
    assert VARIED.cost("app 7") == costs[7]
    one, two = (VARIED.arrays(x) for x in load_timelines("demo", weeks=1).timelines[:2])
    assert len(np.unique(one.memory_mb)) > 5
    assert len(np.unique(two.cold_s)) > 5


@pytest.mark.slow
@pytest.mark.usefixtures("light_trainings")
def test_a_run_goes_by_its_own_copy(tmp_path: Path) -> None:
    """The file may change or go: the run is predicted and resumed with what it was trained with."""
    csv, base = write_csv(tmp_path / "two.csv", 240), write_tiny_base(tmp_path / "base")
    spec = write(tmp_path / "mine.json", default=MAIL, targets={"app1": {**MAIL, "memory_mb": 900}})
    line = ["--timelines", str(csv), "--tz", "UTC", "--model", str(base), *TINY, "--costs", spec]
    with redirect_stdout(StringIO()):
        assert train.main([*line, "--out", str(tmp_path / "run")]) == 0
    Path(spec).unlink()
    world = load_run(tmp_path / "run").world
    assert world.cost_model().cost("app1") == Cost(900.0, 5.2, 0.9)
    assert "costs.json costs" in world.in_words()
    before = WorldOptions(costs=write(tmp_path / "a.json", default=MAIL)).costs_identity()
    assert before == WorldOptions(costs=write(tmp_path / "b.json", default=MAIL)).costs_identity()
    assert before != world.costs_identity()

"""Every loss that `--dpo-loss` accepts trains; what the SFT term and the division by length do."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlmemo.learning.config import DPO_LOSSES, make_config
from rlmemo.learning.dpo_kto import run_dpo
from rlmemo.learning.pairs import Pair, Picks
from rlmemo.learning.sft import run_sft, save_adapter
from rlmemo.learning.training_data import part_states, prompts
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from tests.tiny_base import write_tiny_base
from tests.training_ground import lesson_of, small_ground

BATCH = 4
SMALL = {"sft_batch": 8, "dpo_batch": BATCH, "lora_rank": 2, "checkpoint_steps": 100}
STILL: Picks = ()
ONE: Picks = ((0, 0),)
OTHER: Picks = ((1, 2),)
TWO: Picks = ((0, 0), (3, 1))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with a base and an SFT adapter, and the prompts of 2 x BATCH states."""
    folder = tmp_path_factory.mktemp("losses")
    states = part_states(small_ground().split.train)[100 : 100 + 2 * BATCH]
    write_tiny_base(folder / "base", hidden=16, layers=1)
    run = RunFolder(folder)
    model, _ = run_sft(lesson_of(make_config(SMALL), run, "sft", folder / "base"), small_ground(), states)
    save_adapter(model, folder / "sft", "embedded")
    return folder, prompts(small_ground(), states)


def learn(
    ground: tuple[Path, np.ndarray], run: Path, both: list[tuple[Picks, Picks]], **settings: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Two updates on pairs (chosen, rejected), over and over; what was found, what was logged, the hash of
    the adapter."""
    folder, asked = ground
    rows = [Pair(r, "a", 0, *both[r % len(both)], 1.0, 0.0, ("top", "none")) for r in range(len(asked))]
    run.mkdir()
    config = make_config({**SMALL, **settings})
    lesson = lesson_of(config, RunFolder(run), "dpo", folder / "base", folder / "sft")
    model, found = run_dpo(lesson, asked, rows)
    digest = save_adapter(model, run / "dpo", "embedded")
    return found, RunFolder(run).logged("dpo"), digest


MIXED = [(ONE, STILL), (STILL, TWO), (TWO, OTHER), (OTHER, ONE)]


@pytest.mark.parametrize("loss", [*DPO_LOSSES, "sigmoid+sft", "apo_zero+hinge"])
def test_every_loss_trains(ground: tuple[Path, np.ndarray], tmp_path: Path, loss: str) -> None:
    found, logged, digest = learn(ground, tmp_path / "run", MIXED, dpo_loss=loss)
    assert found["steps"] == 2
    assert math.isfinite(found["loss"])
    assert logged[0]["grad_norm"] > 0
    assert digest != sha256(ground[0] / "sft" / "adapter_model.safetensors"), "it has learned something"


def test_losses_are_added(ground: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Before the first update both log-ratios are 0, so the sigmoid loss is log 2 there."""
    first = {}
    for name, settings in {
        "plain": {}, "alone": {"dpo_loss": "sft"},
        "joined": {"dpo_loss": "sigmoid+sft"},
    }.items():  # fmt: skip
        found, logged, _ = learn(ground, tmp_path / name, MIXED, **settings)
        assert found["steps"] == 2
        first[name] = logged[0]["loss"]
    assert first["plain"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["alone"] > 0.5
    assert first["joined"] == pytest.approx(first["plain"] + first["alone"], abs=1e-3)


@pytest.mark.parametrize(("both", "tokens"), [((ONE, OTHER), 3), ((TWO, ((2, 0), (5, 3))), 5)])
def test_sigmoid_norm_divides_by_the_length_of_a_plan(
    ground: tuple[Path, np.ndarray], tmp_path: Path, both: tuple[Picks, Picks], tokens: int
) -> None:
    """Of two plans of n tokens, <end> among them, the first gradient is 1/n of the summed loss's."""
    norm = {}
    for loss in ("sigmoid", "sigmoid_norm"):
        _, logged, _ = learn(ground, tmp_path / loss, [both], dpo_loss=loss)
        assert logged[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        norm[loss] = logged[0]["grad_norm"]
    assert norm["sigmoid"] / norm["sigmoid_norm"] == pytest.approx(tokens, rel=1e-3)


def test_all_losses_that_need_no_setting_are_accepted() -> None:
    """TRL knows one more, exo_pair, which needs a label smoothing."""
    import trl

    source = Path(trl.__file__).with_name("trainer") / "dpo_trainer.py"
    known = re.findall(r'if loss_type == "(\w+)"', source.read_text(encoding="utf-8"))
    assert sorted(known) == sorted(["exo_pair", *DPO_LOSSES])

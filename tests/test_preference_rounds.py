"""Which round of preferences a run keeps, through its front door."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlmemo.learning.job import run_job
from rlmemo.learning.prepare import prepare
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.train import read_command_line
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base

pytestmark = pytest.mark.usefixtures("light_trainings")

WEIGHTS = "adapter_model.safetensors"
STAGES = ("sft", "dpo-1", "dpo")


def go(arguments: list[str]) -> None:
    """A training as the command line starts it, without the report at its end."""
    config, path, resume = read_command_line(arguments)
    run_job(prepare(config, path, resume=resume), RunFolder(path), judged=False)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds that kept the last; then made to differ in what they are worth, by random weights
    (a few updates of a tiny model change too little of its ranking for that)."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("rounds")
    base = write_tiny_base(folder / "base", hidden=16, layers=1)
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 100.0  # as it comes, it is sure of nothing, whatever the adapter
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    options = {
        "timelines": write_csv(folder / "two.csv", 240), "tz": "UTC", "model": base, "policies": "none",
        "sft-states": 40, "sft-batch": 8, "plan-states": 40, "plan-samples": 1, "dpo-pairs": 64,
        "dpo-batch": 8, "lora-rank": 2, "preference-rounds": 2, "preference-keep": "last",
    }  # fmt: skip
    run = folder / "run"
    go([*(x for k, v in options.items() for x in (f"--{k}", str(v))), "--out", str(run)])
    assert "kept" not in RunFolder(run).state(), "the last one was asked for"
    for stage in STAGES[1:]:
        file = run / stage / WEIGHTS
        made = torch.Generator().manual_seed(len(stage))
        weights = {k: torch.randn(x.shape, generator=made) for k, x in load_file(file).items()}
        save_file(weights, file, {"format": "pt"})
    return run


def keeping_best(rounds: Path, run: Path, order: tuple[str, ...]) -> None:
    """A copy of the run as if its stages had come out in this order, ended by keeping the best."""
    shutil.copytree(rounds, run)
    state = json.loads((run / "state.json").read_text())
    for stage, source in zip(STAGES, order, strict=True):
        shutil.copy(rounds / source / WEIGHTS, run / stage / WEIGHTS)
        state[stage]["adapter_sha256"] = sha256(run / stage / WEIGHTS)
    (run / "state.json").write_text(json.dumps(state))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("preference_keep: last", "preference_keep: best"))
    go(["--resume", "--out", str(run)])


@pytest.mark.slow
def test_the_best_round_is_kept_wherever_it_stands(rounds: Path, tmp_path: Path) -> None:
    keeping_best(rounds, tmp_path / "first", STAGES)
    worth = RunFolder(tmp_path / "first").state()["kept"]["reward"]
    assert len(set(worth.values())) == 3, "they can be told apart"
    best, *others = sorted(STAGES, key=lambda stage: -worth[stage])
    digest = sha256(rounds / best / WEIGHTS)
    for place, stage in enumerate(STAGES):
        run = tmp_path / stage
        keeping_best(rounds, run, (*others[:place], best, *others[place:]))
        state = RunFolder(run).state()
        assert state["kept"]["stage"] == stage
        assert state["kept"]["reward"][stage] == max(state["kept"]["reward"].values())
        assert state["dpo"]["adapter_sha256"] == digest
        assert sha256(run / "dpo" / WEIGHTS) == sha256(run / "adapter" / WEIGHTS) == digest
        assert state["dpo"]["pairs"] == RunFolder(rounds).state()["dpo"]["pairs"], (
            "what it learned from stays"
        )
        assert not list(run.glob(".*.part"))
        assert prepare(*read_command_line(["--resume", "--out", str(run)])[:2], resume=True).resumed
        assert RunFolder(run).state() == state, "a resumed run takes it as it is"

"""Two processes that torchrun starts learn what one learns: the same losses, the same adapter, one writer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from env.errors import InputError
from rlmemo.learning.config import make_config
from rlmemo.learning.processes import check_processes
from rlmemo.runs.folder import RunFolder
from tests.killing import ROOT
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base

TWENTY = {
    "sft-states": 79, "sft-batch": 8, "sft-epochs": 2, "plan-states": 80, "plan-samples": 3, "dpo-pairs": 159,
    "dpo-batch": 8, "lora-rank": 2, "policies": "none", "preference-rounds": 1, "preference-keep": "last",
    "checkpoint-steps": 5, "tz": "UTC",
}  # fmt: skip
"""Twenty updates of SFT and of DPO; the last of every pass has fewer examples than the others."""


def options(below: Path, name: str) -> list[str]:
    given = {**TWENTY, "timelines": below / "two.csv", "model": below / "base", "out": below / name}
    return [x for key, value in given.items() for x in (f"--{key}", str(value))]


def torchrun(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*start, "-m", "tests.several", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path, light_trainings: None) -> None:
    """One of the two is killed on the way, and they go on."""
    write_csv(tmp_path / "two.csv")
    write_tiny_base(tmp_path / "base")
    from rlmemo.train import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlmemo.learning.planner_choice.judge", lambda _: None)
        assert main(options(tmp_path, "one")) == 0
    two = RunFolder(tmp_path / "two")
    done = torchrun(["--dies", "dpo:12", *options(tmp_path, "two"), ",", "--out", str(two.path), "--resume"])
    ends = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith("training "))
    assert ends == {
        "training 0 of 0": "2", "training 0 of 1": "-9", "training 1 of 0": "0", "training 1 of 1": "0",
    }, done.stderr  # fmt: skip
    (said,) = [line for line in done.stderr.splitlines() if line.startswith(("error:", "stopped"))]
    assert "another process of this training has ended" in said
    assert "going on with" in done.stdout
    assert "finished are start, scorer, sft, plans\n" in done.stdout
    assert done.stdout.count("plans for 80 states, by replay") == 1, "one of them speaks"
    one = RunFolder(tmp_path / "one").logged()
    both = two.logged()
    assert [(x["stage"], x["step"]) for x in both] == [(x["stage"], x["step"]) for x in one]
    assert {x["stage"]: x["step"] for x in one} == {"sft": 20, "dpo": 20}
    for x, y in zip(one, both, strict=True):
        assert y["loss"] == pytest.approx(x["loss"], abs=1e-4)
        assert y["grad_norm"] == pytest.approx(x["grad_norm"], abs=1e-3)
    before, learned = RunFolder(tmp_path / "one").state(), two.state()
    assert learned["dpo"]["loss"] == pytest.approx(before["dpo"]["loss"], abs=1e-4), "of all updates"
    weights, same = (
        load_file(tmp_path / x / "adapter" / "adapter_model.safetensors") for x in ("one", "two")
    )
    begun = load_file(tmp_path / "one" / "sft" / "adapter_model.safetensors")
    assert max(float(np.abs(weights[k] - begun[k]).max()) for k in weights) > 1e-3, "DPO learned something"
    assert max(float(np.abs(weights[k] - same[k]).max()) for k in weights) < 1e-5


def test_what_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    check_processes(make_config({"sft_batch": 9, "dpo_batch": 6}), None)
    with pytest.raises(InputError, match="dpo_batch 8 cannot be shared out evenly among 3 processes"):
        check_processes(make_config({"sft_batch": 9, "dpo_batch": 8}), None)
    for method in ("ppo", "grpo", "rloo", "dpo-ppo"):
        with pytest.raises(InputError, match="learns in one; start it without torchrun"):
            check_processes(make_config({"method": method}), None)


@pytest.mark.parametrize(("examples", "even"), [(24, True), (18, True), (21, False), (17, False)])
def test_every_update_is_shared_out_or_learned_whole(
    monkeypatch: pytest.MonkeyPatch, examples: int, even: bool
) -> None:
    """Updates of two passes of four. In one update the passes are not shared out some so and some otherwise:
    examples would weigh more in the ones than in the others."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, DataLoader

    from rlmemo.learning.training import _share_out

    monkeypatch.setenv("WORLD_SIZE", "2")
    whole = [list(x) for x in BatchSampler(range(examples), 4, False)]
    seen = []
    for place in "01":
        monkeypatch.setenv("RANK", place)
        sampler = BatchSampler(range(examples), 4, False)
        loader = DataLoader(
            list(range(examples)),  # type: ignore[arg-type]
            batch_sampler=BatchSamplerShard(sampler, 2, int(place), split_batches=True),
        )
        trainer = SimpleNamespace(
            args=SimpleNamespace(gradient_accumulation_steps=2), get_train_dataloader=lambda made=loader: made
        )
        _share_out(trainer)
        seen.append([x.tolist() for x in trainer.get_train_dataloader()])
    last = (len(whole) - 1) // 2 * 2  # where the last update begins
    for k, batch in enumerate(whole):
        mine, others = seen[0][k], seen[1][k]
        if even or k < last:
            assert mine + others == batch
            assert len(mine) == len(others)
        else:
            assert mine == others == batch
    assert len(seen[0]) == len(seen[1]) == len(whole)

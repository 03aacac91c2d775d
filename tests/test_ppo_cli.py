"""`python -m rlmemo.train --method ppo` on very little data: it works, or says in one line why not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rlmemo.train import main as train
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base

pytestmark = pytest.mark.usefixtures("light_trainings")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_thirty_events_of_one_person_are_too_little(cli: Cli, tmp_path: Path) -> None:
    lines = ["user,t,target", *(f"me,{1_700_000_000 + 60 * i},app{i % 4}" for i in range(30))]
    (tmp_path / "thirty.csv").write_text("\n".join(lines) + "\n")
    done = cli("rlmemo.train", "--method", "ppo", "--timelines", "thirty.csv", "--tz", "UTC")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "30, 1 and 5 are needed" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "dpo-ppo", "grpo", "rloo"])
def test_a_short_timeline_is_enough(tmp_path: Path, method: str) -> None:
    base = write_tiny_base(tmp_path / "base")
    csv = write_csv(tmp_path / "short.csv", 120)
    small = {
        "ppo-lanes": 2, "ppo-steps": 16, "ppo-batch": 16, "ppo-rollouts": 2, "group-states": 16,
        "group-plans": 4, "group-batch": 32, "plan-states": 40, "dpo-pairs": 40,
        "lora-rank": 2, "policies": "none", "out": tmp_path / "run",
    }  # fmt: skip
    options = [x for name, value in small.items() for x in (f"--{name}", str(value))]
    given = ["--method", method, "--timelines", str(csv), "--tz", "UTC", "--model", str(base), *options]
    assert train(given) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    stage = method.split("-")[-1]
    assert report["in_charge"]["learned"] == stage
    found = report["stages"][stage]
    assert found["steps"] > 0
    if stage == "ppo":
        assert found["best_validation"] >= found["start_validation"]
        logged = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        first = next(row for row in logged if row["stage"] == "ppo")
        assert first["clip_ratio/region_mean"] == 0.0
        assert {"explained_variance", "plan_reward", "kl_to_start", "entropy", "value_loss"} <= set(first)

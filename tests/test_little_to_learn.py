"""Little to learn from: what there is counts in full; where there is nothing, that is said in one line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from env.errors import InputError
from rlmemo.learning.config import make_config
from rlmemo.model.text import TextReading
from rlmemo.predict import Options, predict
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.store.database import open_store
from rlmemo.train import main as train
from tests.shared_cases import case
from tests.test_feedback_training import TINY, rate_everything, write_csv
from tests.test_preference_rounds import go
from tests.tiny_base import write_tiny_base

pytestmark = pytest.mark.usefixtures("light_trainings")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
WEIGHTS = "adapter_model.safetensors"
SMALL = (
    *TINY, "--ppo-lanes", "2", "--ppo-steps", "16", "--ppo-batch", "16", "--ppo-rollouts", "2",
    "--group-states", "16", "--group-plans", "4", "--group-batch", "32",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("little") / "base")


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(timelines as CSV, store with rated predictions of markov1 on the training part)."""
    folder = tmp_path_factory.mktemp("rated")
    csv, db = write_csv(folder / "two.csv"), folder / "r.db"
    with open_store(db) as store:
        predict(store, str(csv), "markov1", Options(60, "train", threshold=0.05, explore=0.5), tz="UTC")
    assert rate_everything(db) >= 40
    return csv, db


# an update counts what was asked for


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({"method": "sft", "sft_batch": 32, "micro_batch": 20}, 16),
        ({"method": "kto", "sft_batch": 24, "kto_batch": 36, "micro_batch": 8}, 6),
        ({"method": "dpo", "init_adapter": "runs/x", "dpo_batch": 30, "micro_batch": 4}, 3),
    ],
)
def test_a_micro_batch_that_does_not_divide_is_refused(given: dict[str, object], fits: int) -> None:
    with pytest.raises(InputError, match=rf"does not divide .*such as {fits}$"):
        make_config(given)
    make_config({**given, "micro_batch": fits})


def test_only_the_batches_of_the_run_need_to_divide() -> None:
    make_config({"method": "sft", "sft_batch": 32, "dpo_batch": 30, "micro_batch": 16})
    make_config({"method": "dpo", "init_adapter": "runs/x", "sft_batch": 30, "micro_batch": 16})
    make_config({"method": "sft", "sft_batch": 32, "micro_batch": 50})  # more than there is: all at once


@pytest.mark.parametrize(("batch", "micro"), [(32, 16), (32, 1), (32, 0), (32, 50), (7, 7), (30, 10)])
def test_an_update_counts_its_batch(batch: int, micro: int) -> None:
    asked = TextReading.arguments(
        type("Read", (), {"batch": micro or 16, "on_gpu": False})(),
        batch,  # type: ignore[arg-type]
    )
    assert asked["per_device_train_batch_size"] * asked["gradient_accumulation_steps"] == batch


# ratings alone


def with_ratings(rated: tuple[Path, Path], base: Path, run: Path, *more: str) -> None:
    """A training in which no two plans differ by enough, with ratings of its training part."""
    csv, db = rated
    given = ["--timelines", str(csv), "--tz", "UTC", "--model", str(base), *TINY, "--feedback", str(db)]
    go([*given, "--margin", "1000", "--preference-keep", "last", *more, "--out", str(run)])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_ratings_train_where_replay_gives_nothing(
    rated: tuple[Path, Path], base: Path, tmp_path: Path, method: str
) -> None:
    run = tmp_path / "run"
    with_ratings(rated, base, run, "--method", method)
    state = RunFolder(run).state()
    assert 0 < state["plans"]["from_ratings"] == state["plans"]["kept"] <= 24
    assert state[method]["steps"] > 0
    assert sha256(run / method / WEIGHTS) != sha256(run / "sft" / WEIGHTS)


@pytest.mark.slow
def test_a_weight_of_nothing_is_the_reason_that_is_given(
    rated: tuple[Path, Path], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_ratings(rated, base, tmp_path / "run", "--feedback-weight", "0")
    said = [line for line in capsys.readouterr().out.splitlines() if "nothing to learn" in line]
    assert len(said) == 1
    assert "no two plans of a state differ by --margin 1000" in said[0]
    assert said[0].endswith("no rating is learned from with --feedback-weight 0")


# no validation part


def test_timelines_too_short_for_a_validation_part_are_refused(cli: Cli, tmp_path: Path) -> None:
    """Twelve people with six events each leave enough to learn from and to test on, and nothing between."""
    lines = ["user,t,target"]
    lines += [
        f"p{u},{1_700_000_000 + 400 * i},app{(i * (u + 1)) % 7}x{i % 2}" for u in range(12) for i in range(6)
    ]
    (tmp_path / "short.csv").write_text("\n".join(lines) + "\n")
    for method in ("sft", "dpo", "ppo"):
        done = cli("rlmemo.train", "--method", method, "--timelines", "short.csv", "--tz", "UTC")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert "0 for validation" in done.stderr
        assert not (tmp_path / "runs").exists()


# no signal


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto", "ppo", "grpo", "rloo"])
def test_where_everything_fits_it_is_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    """Eight targets, memory for eight: whatever is opened again is warm, so all rewards are equal."""
    run = tmp_path / "run"
    given = ["--timelines", str(case("training/one.csv")), "--tz", "UTC", "--model", str(base), *SMALL]
    assert train([*given, "--method", method, "--out", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith(f"{method.upper()} has nothing to learn from")]
    assert len(said) == 1
    assert "no signal" in said[0]
    assert "nothing was ever cold" in said[0]
    assert "--budget below 8" in said[0]
    assert len([line for line in lines if line.startswith("validation: no signal")]) == 1
    state = RunFolder(run).state()
    assert state[method]["steps"] == 0
    assert sha256(run / method / WEIGHTS) == sha256(run / "sft" / WEIGHTS)
    assert "learned nothing" in (run / "report.html").read_text()
    assert "learned nothing" in (run / "README.md").read_text()


# all stages are judged alike


@pytest.mark.slow
def test_the_same_adapter_is_worth_the_same_in_every_stage(tmp_path: Path) -> None:
    """No pair, so DPO's adapter is SFT's; on this timeline its own plans are better than any threshold."""
    run = tmp_path / "run"
    given = [
        "--timelines",
        str(case("training/one.csv")),
        "--tz",
        "UTC",
        "--budget",
        "2",
        "--model",
        "embedded-1",
        "--let-go-picks",
        "0",
    ]
    assert train([*given, "--margin", "1000", "--policies", "none", "--out", str(run)]) == 0
    assert sha256(run / "dpo" / WEIGHTS) == sha256(run / "sft" / WEIGHTS)
    report = json.loads((run / "report.json").read_text())
    both = [report["stages"][stage]["validation"] for stage in ("sft", "dpo")]
    assert both[0] == both[1]
    assert both[0]["planner"] == "own"
    for metric in ("reward_per_open", "saved_seconds_per_open", "hit_rate", "waste_rate"):
        values = [report["policies"][stage][metric] for stage in ("sft", "dpo")]
        assert values[0] == values[1], metric
    for stage in ("sft", "dpo"):
        assert any(note.startswith(f"{stage}: its own plans") for note in report["notes"])

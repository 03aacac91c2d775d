"""No command leaves a file open that it has done with: Python's own watch for that stays silent."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base

HOUSE = Path(__file__).parents[1]
SHORT = ("--sft-states", "32", "--sft-batch", "8", "--lora-rank", "2", "--checkpoint-steps", "1")


def left_open(folder: Path, module: str, *words: str, status: int = 0) -> list[str]:
    """What a command complained of when it ended."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-W", "always::ResourceWarning", "-m", module, *words],
        cwd=folder, capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return [line for line in done.stderr.splitlines() if "ResourceWarning" in line]


def test_commands_close_their_files(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "two.csv", 160)
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    (tmp_path / "latin.csv").write_bytes(csv.read_bytes() + b"person0,1700099999,caf\xe9\n")
    asked = [
        ("rlmemo.timelines", "import", "two.csv", "--tz", "UTC", "--db", "a.db"),
        ("rlmemo.timelines", "import", "packed.csv.gz", "--tz", "UTC", "--db", "b.db"),
        ("rlmemo.timelines", "list", "--db", "a.db"),
        ("rlmemo.timelines", "show", "a.db", "--plot", "p.png"),
        ("rlmemo.predict", "--timelines", "a.db", "--db", "a.db", "--n", "3", "--still"),
        ("rlmemo.benchmark", "--timelines", "a.db", "--policies", "gbdt", "--draws", "20", "--json", "b.json",
         "--html", "b.html"),
    ]  # fmt: skip
    assert {words: left for words in asked if (left := left_open(tmp_path, *words))} == {}
    refused = ("import", "latin.csv", "--tz", "UTC", "--db", "c.db")
    assert left_open(tmp_path, "rlmemo.timelines", *refused, status=2) == []


@pytest.mark.slow
def test_a_training_closes_its_files(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base", hidden=16, layers=1)
    csv = str(write_csv(tmp_path / "two.csv", 160))
    words = ("--timelines", csv, "--tz", "UTC", "--model", str(base), "--policies", "mru", *SHORT)
    told = ("--method", "sft", "--report-to", "tensorboard", "--out", str(tmp_path / "run"))
    assert left_open(tmp_path, "rlmemo.train", *words, *told) == []

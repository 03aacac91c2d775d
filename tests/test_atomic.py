"""Files that are there whole or not at all: one writer for all of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from env.errors import InputError
from rlmemo.runs import atomic
from rlmemo.runs.atomic import file_atomic, not_written, write_atomic

ROOT = Path(__file__).parents[1]


def test_a_file_takes_its_place_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "world.npz"
    with file_atomic(path) as part, part.open("wb") as file:
        np.savez_compressed(file, x=np.arange(3))
        assert not path.exists()
    with np.load(path) as found:
        assert found["x"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["world.npz"]
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(ZeroDivisionError), file_atomic(path) as part:
        part.write_text(str(1 / (part.write_text("half") - 4)))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_disk_that_takes_nothing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(InputError, match=r"could not be written \(No space left"):
        write_atomic(tmp_path / "a.json", "new")
    with pytest.raises(OSError, match="No space left"), file_atomic(tmp_path / "b.json") as part:
        part.write_text("new")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "alone", "in_a_run"),
    [
        (OSError(28, "No space left on device"), "free some space", "free some space and run with --resume"),
        (OSError(122, "Disk quota exceeded"), "free some space", "free some space and run with --resume"),
        (RuntimeError("PytorchStreamWriter failed"), "free some space", "free some space and run with --re"),
        (
            OSError(2, "No such file or directory"),
            "name a place in a",
            "see that its folder is yours and run",
        ),
        (
            SafetensorError("denied (os error 13)"),
            "name a place in a",
            "see that its folder is yours and run",
        ),
    ],
)
def test_what_helps_is_said_and_to_resume_only_of_a_run(
    tmp_path: Path, error: Exception, alone: str, in_a_run: str
) -> None:
    path = tmp_path / "checkpoints" / "a.json"
    said = str(not_written(path, error))
    assert f"); {alone}" in said
    assert "--resume" not in said
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert f"); {in_a_run}" in str(not_written(path, error))


def test_nobody_else_puts_files_in_place() -> None:
    with_care = {"rlmemo/runs/atomic.py", "rlmemo/store/database_file.py"}  # the store's is SQLite's own file
    found = {
        str(path.relative_to(ROOT))
        for room in ("reward", "env", "rlmemo", "dashboard", "experiments")
        for path in (ROOT / room).rglob("*.py")
        if "os.replace" in path.read_text(encoding="utf-8")
    }
    assert found == with_care

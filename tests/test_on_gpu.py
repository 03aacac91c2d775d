"""The script for a machine with a GPU, on the CPU with a tiny model: it is cut off, goes on, and says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from experiments import one_thumb, stage_ranks
from experiments.stages_table import rows
from tests.tiny_text_model import write_text_model

SMALL = (
    "--sft-states 32 --sft-batch 8 --plan-states 8 --dpo-batch 8 --history 8 --dtype bfloat16 --lora-layers 1"
)


def go(root: Path, tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    said = {
        **os.environ, "PYTHON": sys.executable, "MODEL": str(tmp_path / "model"),
        "OUT": str(tmp_path / "out"),
        "TIMELINES": str(tmp_path / "opens.csv"), "KEPT": str(tmp_path / "kept"), "MORE": SMALL,
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root / "tests" / "watching"), str(root)]),
        "RLMEMO_TESTS_LIGHT": "1", **more,
    }  # fmt: skip
    return subprocess.run(
        ["bash", "experiments/on_gpu.sh", *arguments], cwd=root, env=said, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_cut_off_goes_on_and_prints_one_table(repo_root: Path, tmp_path: Path) -> None:
    write_text_model(tmp_path / "model", kind="llama")
    rng = np.random.default_rng(0)
    t = 1.7e9 + np.cumsum(rng.exponential(900, 400))
    lines = [
        "user,t,target",
        *(f"ada,{x:.0f},app{k}" for x, k in zip(t, rng.zipf(1.6, 400) % 9, strict=True)),
    ]
    (tmp_path / "opens.csv").write_text("\n".join(lines) + "\n")
    cut = go(repo_root, tmp_path, "go", LIMIT_S="8")
    assert cut.returncode == 124, cut.stderr
    assert "call it again to go on" in cut.stderr
    done = go(repo_root, tmp_path, "go")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert table[0] == "| run | policy | hr@1 | hr@5 | reward_per_open | seconds |"
    assert {"base", "sft", "dpo", "dpo alone", "markov1"} <= {line.split(" | ")[1] for line in table}
    ranked = stage_ranks.rows(tmp_path / "out", 20)
    assert [x.split(" | ")[0][2:] for x in ranked] == [
        "as it came", "as it came with its trees", "sft alone", "sft with its trees", "dpo alone",
        "dpo with its trees", "backoff3",
    ]  # fmt: skip
    nothing = "+0.000 [+0.000, +0.000] | +0.000 [+0.000, +0.000] |"
    assert ranked[0].split(" | ", 3)[3].startswith(nothing)
    assert ranked[-1].endswith(nothing)
    assert ranked[2] != ranked[3].replace(" with its trees", " alone"), "the trees have a say"
    moved, alone = one_thumb.table(tmp_path / "out", 20, 0)
    assert moved.startswith("| dpo | 20 | ")
    assert alone.startswith("| dpo, its model by itself | 20 | ")
    assert alone.split(" | ")[2:] != moved.split(" | ")[2:], "the trees mind it by Bayes' rule"
    assert min(float(x.strip(" |")) for x in moved.split(" | ")[2:]) >= 0.95
    with pytest.raises(InputError, match="cases in its validation part, not 100000"):
        one_thumb.table(tmp_path / "out", 100_000, 0)


def test_without_a_word_it_says_how(repo_root: Path, tmp_path: Path) -> None:
    done = go(repo_root, tmp_path)
    assert done.returncode == 2
    assert "experiments/on_gpu.sh pack" in done.stdout


def test_parts_that_travelled_are_put_together(repo_root: Path, tmp_path: Path) -> None:
    """`keep` takes what is there; both halves together are the whole."""
    root, whole = tmp_path / "tree", os.urandom(1001)
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "on_gpu.sh").write_text((repo_root / "experiments" / "on_gpu.sh").read_text())
    for part, name, data in (("a", "part-00", whole[:500]), ("b", "part-01", whole[500:])):
        (root / ".gpu" / part).mkdir(parents=True)
        (root / ".gpu" / part / name).write_bytes(data)
        assert go(root, tmp_path, "keep").returncode == 0
        for left in (root / ".gpu" / part).iterdir():
            left.unlink()
        (root / ".gpu" / part).rmdir()
    kept = sorted((tmp_path / "kept").glob("part-*"))
    assert b"".join(x.read_bytes() for x in kept) == whole


def test_a_run_that_has_no_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no finished run"):
        rows(tmp_path)

"""What a run folder, a plot or a report holds of a person is for that person's eyes alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from env.private import make_private
from tests.predictions_to_rate import fill
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base
from tests.warm import Warm

SMALL = (
    "--sft-states", "32", "--sft-batch", "8", "--plan-states", "24", "--plan-samples", "1", "--dpo-pairs",
    "16", "--dpo-batch", "8", "--lora-rank", "2", "--checkpoint-steps", "1", "--policies", "mru",
)  # fmt: skip
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes"),
    pytest.mark.usefixtures("light_trainings"),
]


@pytest.fixture
def command(warm: Warm) -> Callable[..., str]:
    """Run a command under a umask that lets everybody read."""

    def run(module: str, *words: str, cwd: Path, public: int = 0o022) -> str:
        done = warm.run(module, *words, cwd=cwd, env=os.environ, umask=public, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def readable(folder: Path) -> list[str]:
    """What in a folder somebody else could read or list, with its mode."""
    wrong = []
    for one in [folder, *folder.rglob("*")]:
        mode, right = one.stat().st_mode & 0o777, 0o700 if one.is_dir() else 0o600
        if mode != right:
            wrong.append(f"{one.relative_to(folder)} {mode:o}")
    return wrong


@pytest.mark.slow
def test_a_run_folder_and_all_that_is_in_it(command: Callable[..., str], tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base", hidden=16, layers=1)
    csv = write_csv(tmp_path / "two.csv", 160)
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(0o755)
    command(
        "rlmemo", "train", "--timelines", str(csv), "--tz", "UTC", "--model", str(base), *SMALL, "--out",
        str(run), "--report-to", "tensorboard", "--adapter-per-user", cwd=tmp_path,
    )  # fmt: skip
    names = {p.name for p in run.iterdir()}
    assert {"adapter", "config.yaml", "metrics.jsonl", "report.html", "tensorboard"} <= names
    assert readable(run) == []
    # A folder of an older version, or copied about, is its owner's again when the run goes on.
    for one in [run, *run.rglob("*")]:
        one.chmod(0o755 if one.is_dir() else 0o644)
    (run / "report.json").unlink()
    command("rlmemo.train", "--resume", "--out", str(run), cwd=tmp_path)
    assert readable(run) == []


def test_plots_reports_and_what_was_rated(command: Callable[..., str], tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "two.csv", 160)
    out = tmp_path / "out"
    out.mkdir(mode=0o755)
    out.chmod(0o755)
    (out / "b.json").write_text("{}")
    (out / "b.json").chmod(0o644)
    command("rlmemo.timelines", "show", str(csv), "--tz", "UTC", cwd=out)
    command(
        "rlmemo.benchmark", "--timelines", str(csv), "--policies", "mru", "--draws", "20", "--quiet",
        "--json", str(out / "b.json"), "--html", str(out / "deep" / "b.html"), cwd=out,
    )  # fmt: skip
    db = fill(out / "p.db")
    command("rlmemo.predict", "--timelines", str(csv), "--tz", "UTC", "--db", str(db), "--n", "5", cwd=out)
    wrong = readable(out)
    assert (out / "runs").is_dir()
    assert wrong == [". 755"]  # the user's own folder stays as it was made


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    make_private(folder)
    assert outside.stat().st_mode & 0o777 == 0o644


def test_the_commands_leave_the_umask_as_it_was(tmp_path: Path) -> None:
    from rlmemo.benchmark import main

    before = os.umask(0o022)
    try:
        csv = write_csv(tmp_path / "two.csv", 160)
        given = ["--policies", "mru", "--draws", "20", "--quiet", "--json", str(tmp_path / "b.json")]
        main(["--timelines", str(csv), *given])
        assert (tmp_path / "b.json").stat().st_mode & 0o777 == 0o600
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)

"""One command at a time writes into a run folder; a killed one lets go, and reading is free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from env.errors import InputError
from rlmemo.runs.folder import RunFolder, old_folder
from rlmemo.runs.lock import hold
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base
from tests.warm import Warm

Cli = Callable[..., subprocess.CompletedProcess[str]]
SMALL = (
    "--method",
    "sft",
    "--sft-states",
    "96",
    "--sft-batch",
    "8",
    "--lora-rank",
    "2",
    "--policies",
    "none",
)

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there"),
    pytest.mark.usefixtures("light_trainings"),
]


def holding(folder: Path) -> subprocess.Popen[str]:
    code = f"""if True:
        import sys
        from pathlib import Path
        from rlmemo.runs.lock import hold
        kept = hold(Path({str(folder)!r}))
        print("held", flush=True)
        sys.stdin.readline()"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_another_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    child = holding(tmp_path)
    with pytest.raises(InputError, match="another command is writing"):
        hold(tmp_path)
    end(child)
    first = hold(tmp_path)
    assert hold(tmp_path) is first  # the same command may ask again
    assert list(tmp_path.iterdir()) == []  # there is no lock file


def test_a_command_may_be_stopped_and_the_next_one_goes_on_at_once(tmp_path: Path) -> None:
    for _ in range(3):
        end(holding(tmp_path))
    held = hold(tmp_path)
    del held
    end(holding(tmp_path))


def begun(run: Path, *stages: str) -> Path:
    """A run of DPO that has finished some stages."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("settings: {method: dpo}\n")
    for stage in stages:
        RunFolder(run).finish(stage, {"steps": 3})
    return run


def test_resume_passes_over_a_run_that_another_command_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    begun(Path("runs/mine"))
    later = time.time() + 60
    begun(Path("runs/busy"))
    os.utime("runs/busy/config.yaml", (later, later))
    assert old_folder(None) == Path("runs/busy"), "the one that was touched last"
    assert capsys.readouterr().out == "resuming runs/busy\n"
    child = holding(Path("runs/busy").resolve())
    try:
        assert old_folder(None) == Path("runs/mine")
        assert capsys.readouterr().out == "resuming runs/mine (another command is writing into runs/busy)\n"
        (tmp_path / "runs/mine/report.json").write_text("{}")
        with pytest.raises(
            InputError,
            match=r"no other unfinished run .*\(another command .* runs/busy\)",
        ):
            old_folder(None)
    finally:
        end(child)
    assert old_folder(None) == Path("runs/busy")


@pytest.mark.parametrize("done", [(), ("start", "scorer", "sft"), ("sft", "dpo")])
def test_an_unfinished_run_is_refused_by_who_would_use_it(
    cli: Cli, tmp_path: Path, done: tuple[str, ...]
) -> None:
    """At once, and before what is heavy is loaded; the database that was named is not made."""
    begun(tmp_path / "my run", *done)
    where = {(): "SFT", ("sft", "dpo"): "its last stage"}.get(done, "DPO")
    said = (
        f"error: my run is not finished (its training stopped in {where}); go on with: "
        "python -m rlmemo.train --out 'my run' --resume\n"
    )
    for line in (
        ("rlmemo.predict", "--policy", "my run", "--db", "new.db"),
        ("rlmemo.predict", "--against", "my run", "--db", "new.db"),
        ("rlmemo.benchmark", "--policies", "base,gbdt,my run"),
    ):
        refused = cli(*line)
        assert (refused.returncode, refused.stderr) == (2, said)
    assert not (tmp_path / "new.db").exists()
    child = holding(tmp_path / "my run")
    try:
        refused = cli("rlmemo.predict", "--policy", "my run", "--db", "new.db")
        assert "my run is not finished (another command is training it, in" in refused.stderr
    finally:
        end(child)


def test_refusing_an_unfinished_run_loads_nothing_heavy(tmp_path: Path, repo_root: Path) -> None:
    begun(tmp_path / "run")
    code = f"""if True:
        import sys
        from env.errors import InputError
        from rlmemo import benchmark, predict
        for main, option in ((predict.main, "--policy"), (benchmark.main, "--policies")):
            try:
                main([option, {str(tmp_path / "run")!r}])
            except InputError:
                print([x for x in ("torch", "transformers", "lightgbm") if x in sys.modules])"""
    env = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


@pytest.mark.slow
def test_two_trainings_on_one_folder(cli: Cli, warm: Warm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    base = write_tiny_base(tmp_path / "base")
    csv = str(write_csv(tmp_path / "two.csv", 200))
    line = ("--timelines", csv, "--tz", "UTC", "--model", str(base), *SMALL, "--out", "run")
    first = warm.start("rlmemo.train", *line, cwd=tmp_path, env=os.environ)
    try:
        until = time.monotonic() + 120
        while not (run / "config.yaml").exists() and time.monotonic() < until:
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # it must not be done before the others have been refused
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "the-same").symlink_to(run)  # what --resume alone finds
        before = {p: p.stat().st_mtime_ns for p in (run / "config.yaml",)}
        for other in (("--out", "run", "--resume"), ("--resume",), line):
            second = cli("rlmemo.train", *other)
            assert (second.returncode, second.stderr.count("\n")) == (2, 1), second.stderr
            assert "another command is writing into" in second.stderr
        assert {p: p.stat().st_mtime_ns for p in before} == before
    finally:
        first.kill()
        first.wait()
    done = cli("rlmemo.train", "--out", "run", "--resume")
    assert done.returncode == 0, done.stderr
    child = holding(run)
    read = cli(
        "rlmemo.predict",
        "--timelines",
        csv,
        "--tz",
        "UTC",
        "--policy",
        "run",
        "--still",
        "--db",
        "a.db",
        "--n",
        "3",
    )
    end(child)
    assert read.returncode == 0, read.stderr

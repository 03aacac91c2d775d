"""Every command line answers `--help` at once, says what it does, and loads nothing heavy to say it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from rlmemo.__main__ import COMMANDS

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "pandas",
    "numba",
    "lightgbm",
    "sklearn",
    "scipy",
)
HEAVY += ("matplotlib", "streamlit", "rdata", "xarray", "huggingface_hub", "altair", "sqlite_utils")
MODULES = ("rlmemo", *(module for module, _ in COMMANDS.values()))
WALL_S = 1.0
TRIES = 5


def run(arguments: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def spent(arguments: list[str], root: Path) -> tuple[float, float, str, str]:
    """(seconds by the clock, seconds of the processor, stdout, stderr) of a child that ends well."""
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        before = time.perf_counter()
        child = subprocess.Popen(arguments, cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - before
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, complained = out.read(), err.read()
    assert child.returncode == 0, complained
    return wall, used.ru_utime + used.ru_stime, said, complained


def alone_s(wall: float, cpu: float, root: Path) -> float:
    """What a child that took so long would have taken on an idle machine: other work shares the cores, and
    by how much tells a child that does nothing but compute."""
    busy_wall, busy_cpu, _, _ = spent([sys.executable, "-c", "sum(range(10_000_000))"], root)
    return max(cpu, wall / max(1.0, busy_wall / busy_cpu))


@pytest.mark.parametrize("module", MODULES)
def test_help_is_instant(module: str, repo_root: Path) -> None:
    took: list[float] = []
    for _ in range(TRIES):
        wall, cpu, said, complained = spent([sys.executable, "-m", module, "--help"], repo_root)
        assert "usage" in said.lower()
        assert complained == ""
        took.append(wall if wall < WALL_S else alone_s(wall, cpu, repo_root))
        if took[-1] < WALL_S:
            return
    pytest.fail(f"python -m {module} --help took {min(took):.2f} s at best of {TRIES}")


@pytest.mark.parametrize(
    "slow", ["import time; time.sleep(9)", "import time\nwhile time.process_time() < 1.1: pass"]
)
def test_what_is_not_instant_is_noticed(slow: str, repo_root: Path) -> None:
    wall, cpu, _, _ = spent([sys.executable, "-c", slow], repo_root)
    assert alone_s(wall, cpu, repo_root) > WALL_S


@pytest.mark.parametrize("module", MODULES)
def test_help_loads_nothing_heavy(module: str, repo_root: Path) -> None:
    script = (
        "import json, runpy, sys\n"
        f"sys.argv = [{module!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = run([sys.executable, "-c", script], repo_root)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not loaded.intersection(HEAVY)


def test_the_front_door_names_every_command(repo_root: Path) -> None:
    text = run([sys.executable, "-m", "rlmemo", "--help"], repo_root).stdout
    assert all(f"\n  {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_front_door_passes_on_help(command: str, repo_root: Path) -> None:
    done = run([sys.executable, "-m", "rlmemo", command, "--help"], repo_root)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("benchmarks", "benchmark"), ("time", "timelines")]
)
def test_a_mistyped_command_is_refused_with_a_suggestion(typed: str, meant: str, repo_root: Path) -> None:
    done = run([sys.executable, "-m", "rlmemo", typed], repo_root)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"did you mean `rlmemo {meant}`" in done.stderr


def test_an_unknown_command_is_pointed_to_help(repo_root: Path) -> None:
    done = run([sys.executable, "-m", "rlmemo", "xyzzy"], repo_root)
    assert done.returncode == 2
    assert "rlmemo --help" in done.stderr


def test_an_unknown_option_is_refused_in_every_module(repo_root: Path) -> None:
    for module in MODULES[1:]:
        done = run([sys.executable, "-m", module, "--no-such-option"], repo_root)
        assert done.returncode == 2, (module, done.stderr)
        assert "Traceback" not in done.stderr


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(repo_root: Path, tmp_path: Path) -> None:
    """A library stands in for the moment: it is interrupted as it is imported."""
    (tmp_path / "rich.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "rlmemo.benchmark"], cwd=repo_root, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False, timeout=100,
    )  # fmt: skip
    assert done.stderr == "stopped\n"
    assert done.returncode in (-signal.SIGINT, 130)
    library = subprocess.run(
        [sys.executable, "-c", "import sys, rlmemo; print(sys.excepthook is sys.__excepthook__)"],
        cwd=repo_root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert library.stdout == "True\n", "who imports it as a library keeps their own"

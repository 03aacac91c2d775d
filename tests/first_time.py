"""What every worker would do for itself the first time, done once: in a fresh clone the kernels are not
compiled, and three workers that begin at the same time would each compile all of them. While this is under
way they collect the tests; none begins before it has ended. One worker collects first: the others find the
tests as pytest has rewritten them, which takes longer than reading them.

    python -m tests.first_time FILE      makes the file when it has ended
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

ROOT = Path(__file__).resolve().parents[1]
ENDED = "RLMEMO_TESTS_FIRST_TIME"
LONGEST_S = 300.0


def begin() -> None:
    """Begin, where it is needed; what fails here will fail, and say so, in a test."""
    if not any((ROOT / "env").rglob("*.nbi")):
        folder = mkdtemp(prefix="first-time-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[ENDED] = str(Path(folder) / "ended")
        subprocess.Popen(
            [sys.executable, "-m", "tests.first_time", os.environ[ENDED]], cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def wait(what: str = "ended") -> None:
    """Until it has ended; or until the first worker has "collected" the tests."""
    end = time.monotonic() + LONGEST_S
    while ENDED in os.environ and not _file(what).exists() and time.monotonic() < end:
        time.sleep(0.1)


def collected() -> None:
    """Said by the first worker."""
    if ENDED in os.environ:
        _file("collected").touch()


def _file(what: str) -> Path:
    return Path(os.environ[ENDED]).with_name(what)


def _kernels() -> None:
    from rlmemo.benchmark import main
    from tests.test_train_cli import write_csv

    with TemporaryDirectory() as folder:
        csv = str(write_csv(Path(folder) / "two.csv"))
        given = ["--timelines", csv, "--tz", "UTC", "--policies", "mru,gbdt,base,oracle"]
        main([*given, "--quiet", "--draws", "20"])


if __name__ == "__main__":
    try:
        _kernels()
    finally:
        Path(sys.argv[1]).touch()

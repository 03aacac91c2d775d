"""Trainings started from the dashboard: they outlive it, and their state can be told from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import jobs
from env.errors import InputError

REAL = sys.executable  # before it is replaced
ROOT = Path(__file__).resolve().parents[1]
# Stands in for the interpreter that would run `-m rlmemo.train --out FOLDER …`.
TRAINER = """#!/bin/sh
mkdir -p "$4"
echo "args: $*"
printf 'step 1\\rstep 2\\r\\033[31mstep 3\\033[0m\\n'
trap 'echo interrupted; exit 130' INT
for i in $(seq 1 300); do
    if [ -e "$4/finish" ]; then echo '{}' > "$4/report.json"; exit 0; fi
    sleep 0.1
done
"""


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    script = tmp_path / "trainer"
    script.write_text(TRAINER)
    script.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(script))
    runs = tmp_path / "runs"
    yield runs
    for job in jobs.find(runs):
        jobs.stop(job)


def state_becomes(runs: Path, state: str) -> jobs.Job:
    for _ in range(100):
        job = jobs.find(runs)[0]
        if job.state == state:
            return job
        time.sleep(0.1)
    raise AssertionError(f"still {job.state}: {jobs.tail(job)}")


def test_running_then_finished(trainer: Path) -> None:
    job = jobs.start(trainer, "first", ["--method", "sft"])
    assert job.state == "running"
    assert job.log.stat().st_mode & 0o077 == 0
    for _ in range(50):
        if "step 3" in jobs.tail(job):
            break
        time.sleep(0.1)
    assert jobs.tail(job).splitlines()[-1] == "step 3"  # redrawn lines and colours are gone
    assert "rlmemo.train --out" in jobs.tail(job)
    with pytest.raises(InputError, match="under way"):
        jobs.start(trainer, "second", [])
    (trainer / "first" / "finish").touch()
    state_becomes(trainer, "finished")
    with pytest.raises(InputError, match="already"):
        jobs.start(trainer, "first", [])


def test_stopped(trainer: Path) -> None:
    jobs.start(trainer, "first", [])
    for _ in range(50):
        if "step 3" in jobs.tail(jobs.find(trainer)[0]):
            break
        time.sleep(0.1)
    jobs.stop(jobs.find(trainer)[0])
    job = state_becomes(trainer, "stopped")
    jobs.stop(job)  # nothing left to stop


def test_stopped_where_the_dashboard_itself_ignores_interrupts(trainer: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        test_stopped(trainer)
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_outlives_who_started_it(trainer: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dashboard import jobs; "
        "sys.executable = sys.argv[1]; jobs.start(Path(sys.argv[2]), 'first', [])"
    )
    subprocess.run(
        [REAL, "-c", code,
         str(trainer.parent / "trainer"), str(trainer)],
        cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert jobs.find(trainer)[0].state == "running"
    (trainer / "first").mkdir(exist_ok=True)
    (trainer / "first" / "finish").touch()
    state_becomes(trainer, "finished")


def test_what_was_asked_for_is_kept(trainer: Path) -> None:
    jobs.start(trainer, "first", [], asked="DPO; a quick look")
    assert jobs.find(trainer)[0].asked == "DPO; a quick look"
    assert jobs.find(trainer)[0].minutes < 1


def test_predictions_are_made_once_at_a_time_and_are_no_training(trainer: Path) -> None:
    db = trainer.parent / "my.db"
    job = jobs.predict(db, ["--policy", "base"])
    try:
        assert job.state == "running"
        assert jobs.find(trainer) == []
        with pytest.raises(InputError, match="already"):
            jobs.predict(db, [])
        assert any("predicting my.db goes on" in line for line in jobs.farewell())
        for _ in range(50):
            if "args:" in jobs.tail(job):
                break
            time.sleep(0.1)
        assert f"rlmemo.predict --db {db} --policy base" in jobs.tail(job)
    finally:
        jobs.stop(job)
    for _ in range(100):
        if (found := jobs.predicting(db)) is not None and found.state != "running":
            break
        time.sleep(0.1)
    jobs.stop(jobs.predict(db, []))  # another one takes its place


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-x", "a b", "x" * 99, ".hidden", "a\n"])
def test_names_that_are_none(trainer: Path, name: str) -> None:
    with pytest.raises(InputError, match="no name"):
        jobs.start(trainer, name, [])
    assert not trainer.exists()

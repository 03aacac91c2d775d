"""Trainings that were started here: separate processes that go on when the page, or the dashboard, closes.

A training's log lies beside its run folder (`NAME.log`) and is locked (flock) by the process that writes
it for as long as that lives. So whoever looks later, another window or another dashboard, can tell a
training that is under way from one that has ended, however it ended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from env.errors import InputError
from rlmemo.runs.atomic import write_atomic

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
NO_LOCKS = (
    "on Windows no training can be started from here, because this page could not tell whether it still "
    "runs; start it in a terminal: python -m rlmemo.train"
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
TAIL_BYTES = 6000
ASKED = "asked for: "
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_children: dict[str, subprocess.Popen[bytes]] = {}  # kept, so that the ended ones can be reaped
_questions: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True)
class Job:
    """A training, or predictions. state: "running", "finished" (a training has a report) or "stopped". asked:
    what was asked for, in words; "" where that is not known."""

    name: str
    folder: Path
    log: Path
    state: str
    pid: int | None
    asked: str = ""

    @property
    def minutes(self) -> float:
        """Since it was started."""
        began = self.log.with_suffix(".pid")
        return (time.time() - began.stat().st_mtime) / 60 if began.is_file() else 0.0


def start(runs: Path, name: str, arguments: Sequence[str], *, asked: str = "") -> Job:
    """Start `python -m rlmemo.train --out runs/NAME ARGUMENTS`. Raises InputError for a name that cannot be
    a folder's or is taken, and where another training is under way: two would only slow each other. asked:
    the same in words, for who comes back later."""
    if fcntl is None:
        raise InputError(NO_LOCKS)
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a run; use letters, digits, dots, dashes, at most 60")
    folder, log = runs / name, runs / f"{name}.log"
    if folder.exists() or log.exists():
        raise InputError(f"there is a run called {name} already; choose another name")
    busy = [job for job in find(runs) if job.state == "running"]
    if busy:
        raise InputError(f"{busy[0].name} is still under way; wait for it, or stop it")
    runs.mkdir(parents=True, exist_ok=True)
    return _launch(log, ["rlmemo.train", "--out", str(folder), *arguments], asked)


def predict(db: Path, arguments: Sequence[str]) -> Job:
    """Start `python -m rlmemo.predict --db DB ARGUMENTS`; its log lies beside the database, one at a time.
    Raises InputError where predictions are being made already."""
    if fcntl is None:
        raise InputError(NO_LOCKS)
    before = predicting(db)
    if before is not None and before.state == "running":
        raise InputError("predictions are being made already; wait for them")
    log = _predictions_log(db)
    log.unlink(missing_ok=True)
    return _launch(log, ["rlmemo.predict", "--db", str(db), *arguments], "")


def predicting(db: Path) -> Job | None:
    """The predictions that were last started here for a database; None where none were."""
    _reap()
    log = _predictions_log(db)
    return _job(log) if log.is_file() else None


def _predictions_log(db: Path) -> Path:
    return db.with_name(f"{db.name}.predictions")


def _launch(log: Path, line: Sequence[str], asked: str) -> Job:
    """Start `python -m LINE`, which goes on by itself, with a new log that it locks while it lives."""
    handle = os.open(log, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if asked:
            os.write(handle, f"{ASKED}{asked}\n".encode())
        child = subprocess.Popen(
            [sys.executable, "-m", *line],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )
    finally:
        os.close(handle)
    _children[f"{'training' if line[0] == 'rlmemo.train' else 'predicting'} {log.stem}"] = child
    write_atomic(log.with_suffix(".pid"), str(child.pid))
    return _job(log)


def _hear_interrupts() -> None:
    """In the child: a dashboard that a script put in the background ignores SIGINT, and so would its
    children, who then could not be stopped."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def find(runs: Path) -> list[Job]:
    """The trainings that were started here, the latest first."""
    _reap()
    if not runs.is_dir():
        return []
    logs = sorted(runs.glob("*.log"), key=lambda p: -p.stat().st_mtime)
    return [_job(log) for log in logs]


def ask(module: str, arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` while a page waits for it. Unlike a training, it ends with the
    dashboard. What takes longer than `timeout_s` is ended, and says so."""
    line = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        _questions.add(child)
        try:
            out, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            err = f"error: this took longer than {timeout_s / 60:.0f} minutes, and was ended"
        finally:
            _questions.discard(child)
    return subprocess.CompletedProcess(line, child.returncode, out, err)


def end_questions() -> None:
    """End what pages wait for."""
    for child in tuple(_questions):
        child.terminate()


def farewell() -> list[str]:
    """What goes on when this dashboard has ended, and how to stop it, one line each."""
    _reap()
    return [
        f"{name} goes on without the dashboard; stop it with: kill -INT -{child.pid}"
        for name, child in sorted(_children.items())
    ]


def _reap() -> None:
    for name in [name for name, child in _children.items() if child.poll() is not None]:
        del _children[name]


def stop(job: Job) -> None:
    """Ask a running training to stop, as Ctrl-C does; it can be resumed."""
    if job.state == "running" and job.pid is not None:
        os.killpg(job.pid, signal.SIGINT)


def tail(job: Job, lines: int = 25) -> str:
    """The end of the log as plain text; of a line that was redrawn, what it last said."""
    with job.log.open("rb") as file:
        file.seek(max(0, job.log.stat().st_size - TAIL_BYTES))
        text = _ANSI.sub("", file.read().decode("utf-8", "replace"))
    kept = [line.rstrip("\r").split("\r")[-1].rstrip() for line in text.split("\n")]
    return "\n".join([line for line in kept if line][-lines:])


def _job(log: Path) -> Job:
    folder = log.with_suffix("")
    try:
        pid = int(log.with_suffix(".pid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pid = None
    state = "running" if _locked(log) else "finished" if (folder / "report.json").is_file() else "stopped"
    with log.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    asked = first.removeprefix(ASKED) if first.startswith(ASKED) else ""
    return Job(folder.name, folder, log, state, pid, asked)


def _locked(log: Path) -> bool:
    if fcntl is None:
        return False
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

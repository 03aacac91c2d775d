"""Trainings that are killed at a chosen moment: a warmed process that forks them, told over a pipe.

Importing torch and TRL takes longer than training the tiny model, so it is done once, here; each training
is a fork of this process that runs `rlmemo.train.main` in a fresh folder. Nothing is in the product for
this: the moments are counted by an audit hook on what Python does to the run's files (opening, renaming,
removing, making folders), or given in seconds, and the end is a real SIGKILL. Nothing is judged in the end:
`adapter/` is written by then.

    python -m tests.killing FOLDER      one JSON request a line on stdin, one JSON answer a line on stdout
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOUCHING = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.chmod"}
ANSWERS = "\x1e"  # before every answer, so that what libraries print is told apart


@dataclass(frozen=True)
class Ended:
    """How a fork ended. status: exit status, or minus the signal. touched: how often it touched the run's
    files (of one that was not killed). seconds: how long it ran. said: what it wrote to its terminal."""

    status: int
    touched: int
    seconds: float
    said: str


class Forge:
    """The warmed process; `run` forks one training and waits for its end."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def warm(self, arguments: Sequence[str]) -> None:
        """Train once in the process itself, so that its forks find everything compiled and imported."""
        self._ask({"warm": list(arguments)})

    def run(
        self, below: Path, arguments: Sequence[str], *, touch: int = 0, after: float = 0.0, limit: int = 0
    ) -> Ended:
        """`python -m rlmemo.train ARGUMENTS`, killed before the `touch`-th touch of files `below` a folder,
        or `after` seconds; left alone where both are 0. limit: bytes that a file may have."""
        asked = {"below": str(below), "touch": touch, "after": after, "limit": limit}
        return self._ask({**asked, "arguments": list(arguments)})

    def _ask(self, asked: dict[str, Any]) -> Ended:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; below it is said how
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(ANSWERS):
                return Ended(**json.loads(line[len(ANSWERS) :]))
        raise AssertionError(f"the forging process ended with {self.process.wait()}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(30)


def _warm(folder: Path) -> None:
    """Import what a training imports."""
    os.chdir(folder)
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    from trl import DPOTrainer, KTOTrainer, SFTTrainer  # noqa: F401

    import rlmemo.learning.dpo_kto
    import rlmemo.learning.job
    import rlmemo.learning.sft  # noqa: F401
    from rlmemo.learning import planner_choice
    from rlmemo.learning.training import hush_libraries, quiet
    from tests.light import lighten

    planner_choice.judge = lambda *_: None
    lighten()

    quiet()
    hush_libraries()
    torch.set_num_threads(1)


def _warm_up(arguments: Sequence[str]) -> Ended:
    import gc

    import torch

    from rlmemo.train import main

    if not torch.cuda.is_available():  # with a GPU, autograd refuses to work in forks of one that has worked
        try:
            main(list(arguments))
        except Exception as error:  # a fork will say the same
            print(error, file=sys.stderr)
    gc.collect()
    gc.freeze()  # the forks need not look through what is here already
    return Ended(0, 0, 0.0, "")


def _fork(request: dict[str, Any], log: Path) -> Ended:
    counter = log.with_suffix(".touched")
    counter.unlink(missing_ok=True)
    log.write_bytes(b"")  # it may be killed before it opens it
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _train(request, log, counter)
    if request["after"]:
        time.sleep(request["after"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    touched = int(counter.read_text()) if counter.exists() else 0
    said = log.read_text(encoding="utf-8", errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), touched, seconds, said)


def _train(request: dict[str, Any], log: Path, counter: Path) -> None:
    """In the fork: train, count, die."""
    handle = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    below, last, touched = request["below"], request["touch"], 0

    def watch(event: str, values: tuple[Any, ...]) -> None:
        nonlocal touched
        if event == "socket.connect":
            os.write(2, b"a connection was tried\n")
            os._exit(70)
        if event in TOUCHING and values and below in str(values[0]):
            touched += 1
            if touched == last:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        from env.errors import InputError
        from rlmemo.train import main

        sys.addaudithook(watch)
        if request["limit"]:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
        try:
            status = main(request["arguments"])
            counter.write_text(str(touched))
        except InputError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            status = 2
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve(folder: Path) -> None:
    _warm(folder)
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        ended = _warm_up(asked["warm"]) if "warm" in asked else _fork(asked, folder / f"{number}.log")
        print(ANSWERS + json.dumps(vars(ended)), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))

"""Commands that need not import torch anew: `python -m MODULE ARGUMENTS` as a fork of a process that has it.

A command that trains spends nine seconds of CPU in importing (measured, on two shared cores). So the process
imports what a training needs before it forks the first of them; every command says which modules it imported,
and the next ones find those there, too. Each is a process of its own all the same, with its own folder,
environment, umask and files to write to, and ends as Python ends. What is about starting Python itself
(`--help`, what is imported and when, `-X dev`) starts it.

    python -m tests.warm      one JSON request a line on stdin, one JSON answer a line on stdout
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import raw_opens
from tests.light import lighten

ROOT = Path(__file__).resolve().parents[1]
READ_AT_IMPORT = (
    "HF_HOME", "HF_HUB_CACHE", "OMP_", "MKL_", "NUMBA_", "TORCH", "CUDA", "MPL", "LD_", "XDG_", "HOME",
    "PATH",
)  # fmt: skip
"""Variables that libraries read when they are imported; a command for which they differ is started anew."""
SET_BY_THEM = ("TORCHINDUCTOR_CACHE_DIR", "MPLBACKEND")
"""Not so for what they set themselves: a test that has trained in its own process has these."""
COMMANDS = ("rlmemo.__main__", "rlmemo.train", "rlmemo.benchmark", "rlmemo.predict", "rlmemo.timelines")


TRAINS = ("rlmemo.__main__", "rlmemo.train", "experiments.evidence")
TRAINING = (
    "rlmemo.learning.job", "rlmemo.learning.sft", "rlmemo.learning.dpo_kto", "datasets", "lightgbm",
    "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "transformers.models.qwen3.modeling_qwen3",
    "matplotlib.backends.backend_svg", "rlmemo.policies.registry",
)  # fmt: skip
NEEDS = {
    **dict.fromkeys(TRAINS, TRAINING),
    "rlmemo.serve": (
        "fastapi", "uvicorn", "uvicorn.loops.asyncio", "uvicorn.protocols.http.h11_impl",
        "uvicorn.lifespan.on", "rlmemo.serve.app", "rlmemo.serve.people", "rlmemo.serve.told",
        "env.judge.ongoing", "numba",
    ),
    "rlmemo.live": (
        "rlmemo.live.loop", "rlmemo.live.mind", "rlmemo.live.doctor", "rlmemo.live.files_executor",
        "env.judge.ongoing", "numba",
    ),
    "dashboard": (
        "streamlit", "streamlit.web.bootstrap", "streamlit.web.server.starlette", "dashboard.serve",
        "dashboard.rate", "dashboard.votes",
        "dashboard.days", "dashboard.policies", "dashboard.train", "dashboard.privacy",
        "dashboard.gate", "dashboard.door", "pandas", "uvicorn",
    ),
}  # fmt: skip
"""What a command imports, or most of it: a process that is killed cannot say it."""


class Started:
    """A command that was started, with what of `subprocess.Popen` the tests need."""

    def __init__(self, of: Warm, pid: int, args: list[str], out: Path, err: Path) -> None:
        self._of, self.pid, self.args, self._out, self._err = of, pid, args, out, err
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status (minus the signal that ended it), or None while it runs."""
        if self.returncode is None:
            self.returncode = self._of.ask(poll=self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it, unless it is known to have ended (till then its number is nobody else's)."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 300.0) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return status

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        """Wait for its end; what it wrote to stdout and stderr. Kills it where it takes longer."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8")


def here() -> Warm:
    """The one of this process; it ends with it."""
    if not _here:
        folder = Path(tempfile.mkdtemp(prefix="warm-"))
        _here.append(Warm(folder))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(_here[0].close)
    return _here[0]


_here: list[Warm] = []


class Warm:
    """The process that is forked; it starts with the first command.

    light: whether trainings are light from now on (`tests.light`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self.light = False
        self._process: subprocess.Popen[str] | None = None
        self._environment: dict[str, str] = {}

    def start(
        self, module: str, *words: str, cwd: Path, env: Mapping[str, str], umask: int = -1,
        log: Path | None = None, first: str = "", session: bool = False,
    ) -> Started | subprocess.Popen[str]:  # fmt: skip
        """`python -m module words` in that folder and environment, stdin empty.

        umask: -1 for this one. log: what all that it says is added to. first: code that runs before it.
        session: whether it leads a session of its own.
        """
        command = [sys.executable, "-m", module, *words]
        env = {"PYTHONPATH": str(ROOT), **env}  # experiments/ and tests/ are not installed
        if self._process is None:
            self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm"], cwd=ROOT, env=self._environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        if _read_at_import(env) != _read_at_import(self._environment):
            return subprocess.Popen(
                command, cwd=cwd, env=env, umask=umask, text=True, start_new_session=session,
                stdin=subprocess.DEVNULL, stdout=log.open("a") if log else subprocess.PIPE,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
            )  # fmt: skip
        self._count += 1
        out, err = (log or self._folder / f"{self._count}.{end}" for end in ("out", "err"))
        for file in (out, err):
            file.touch()  # so that whoever looks at once finds it
        mask = os.umask(0)
        os.umask(mask)
        pid = self.ask(
            module=module, words=words, cwd=str(cwd), env=dict(env), out=str(out), err=str(err),
            umask=mask if umask < 0 else umask, modules=str(self._folder / f"{self._count}.modules"),
            light=self.light and (module in TRAINS or "learn" in words), first=first, session=session,
        )  # fmt: skip
        assert isinstance(pid, int)
        return Started(self, pid, command, out, err)

    def run(
        self, module: str, *words: str, cwd: Path, env: Mapping[str, str], umask: int = -1,
        timeout: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """As `start`, to its end."""
        started = self.start(module, *words, cwd=cwd, env=env, umask=umask)
        out, err = started.communicate(timeout=timeout)
        assert started.returncode is not None
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def ask(self, **asked: Any) -> int | None:
        """The process's answer to one request."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process that is forked ended with {self._process.wait()}"
        found: int | None = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(30)


def _read_at_import(env: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in env.items() if k.startswith(READ_AT_IMPORT) and k not in SET_BY_THEM}


def _command(asked: dict[str, Any]) -> None:
    """In the fork: become that command, and end."""
    if asked["session"]:
        os.setsid()
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, asked["out"], os.O_CREAT | os.O_WRONLY | os.O_APPEND),
        (2, asked["err"], os.O_CREAT | os.O_WRONLY | os.O_APPEND),
    ):
        handle = os.open(name, flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.umask(asked["umask"])
    os.chdir(asked["cwd"])
    sys.argv, sys.path[0] = ["-m", *asked["words"]], asked["cwd"]
    status = 1
    try:
        raw_opens.install_from_environment()
        if asked["light"]:
            lighten()
        exec(asked["first"], {})
        for name in [asked["module"], *COMMANDS]:  # else runpy says that it is imported already
            if not hasattr(sys.modules.get(name), "__path__"):
                sys.modules.pop(name, None)
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as asked_to:
        status = asked_to.code if isinstance(asked_to.code, int) else 0 if asked_to.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        names = [k for k, v in sys.modules.items() if getattr(v, "__spec__", None) and "__main__" not in k]
        Path(asked["modules"]).write_text("\n".join(names))
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _import(names: Sequence[str], tried: set[str]) -> None:
    """What a command imported, in its order, with what `quiet` says to libraries; it changes nothing else."""
    new = [x for x in names if x not in sys.modules and x not in tried]
    if not new:
        return
    from rlmemo.learning.training import quiet

    before, filters = dict(os.environ), list(warnings.filters)
    quiet()
    warnings.filters[:] = filters  # type: ignore[index]
    for name in new:
        tried.add(name)
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    os.environ.clear()
    os.environ.update(before)
    gc.collect()
    gc.freeze()  # the forks need not look through what is here already


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    running: dict[int, Path] = {}
    tried: set[str] = set()
    for line in sys.stdin:
        asked, learned = json.loads(line), None
        if "poll" in asked:
            ended, answer = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(answer) if ended else None
            learned = running.pop(ended) if ended else None
        else:
            _import(NEEDS.get(asked["module"], ()), tried)
            answer = os.fork()
            if answer == 0:
                _command(asked)
            running[answer] = Path(asked["modules"])
        print(json.dumps(answer), file=answers, flush=True)
        if learned is not None and learned.exists():  # whoever asks next waits for it
            _import(learned.read_text().splitlines(), tried)


if __name__ == "__main__":
    _serve()

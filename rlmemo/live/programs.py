"""A start of a program: what is run, when it is ready, how long that took, what memory it held.

A command is run by itself, without a shell, in a session of its own that ends with it. In it
`{profile}` is a folder that lasts over all starts, `{tmp}` one that is new for each, `{port}` a free port;
`{document}`, `{page}` (an address) and `{drawing}` are a short text, an HTML page and an SVG to open.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from env.errors import InputError
from rlmemo.live.file_list import Watched

READY = ("exit", "port", "line:TEXT")
LONGEST_S = 120.0
LOOK_S = 0.05
TRACE = (
    "strace", "-f", "-qq", "-y", "--seccomp-bpf", "-s", "4096", "-e", "trace=%file,exit_group", "-e",
    "inject=exit_group:delay_enter=200000",
)  # fmt: skip
"""Every process waits for 0.2 s before it is over, so that what it has mapped can be looked at."""
TO_OPEN = {
    "document.txt": "A line to be opened.\n" * 40,
    "page.html": "<!doctype html><title>page</title><h1>A page</h1><p>" + "Some words to be laid out. " * 60,
    "drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle r="30"/></svg>',
}


@dataclass(frozen=True)
class Program:
    """What is started and when it is ready: `exit` (it ends by itself, well), `port` ({port} takes a
    connection), or `line:TEXT` (a line on its standard output holds TEXT). at_home: with the person's own
    settings and files, and not with {profile} for a home."""

    target: str
    command: str
    ready: str = "exit"
    at_home: bool = False

    def __post_init__(self) -> None:
        kind, _, text = self.ready.partition(":")
        if not (self.ready in ("exit", "port") or (kind == "line" and text)):
            raise InputError(f"{self.target}: ready when {self.ready!r}? give one of {', '.join(READY)}")
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise InputError(f"{self.target}: {self.command!r} is no command ({error})") from None
        if not words:
            raise InputError(f"{self.target}: has no command; give NAME=COMMAND, as in 'mail=mutt -v'")
        if self.ready == "port" and "{port}" not in self.command:
            raise InputError(f"{self.target}: ready at its port? write {{port}} where its command has one")

    @property
    def executable(self) -> str:
        """The program itself."""
        return shlex.split(self.command)[0]

    def is_here(self) -> bool:
        """Whether it is installed."""
        return shutil.which(self.executable) is not None


class Command(NamedTuple):
    """The words of a command, the port that it may take, its environment (None: ours)."""

    words: list[str]
    port: int
    env: dict[str, str] | None


class StartingPlace:
    """Where programs are started: the folders that last, and what to open. Removed with everything in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rlmemo-measure-"))
        for name, text in TO_OPEN.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def __enter__(self) -> StartingPlace:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def command(self, program: Program) -> Iterator[Command]:
        """A start's command; its own folder is gone afterwards."""
        profile = self.folder / "profiles" / program.target.replace("/", "_")
        profile.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix="start-", dir=self.folder))
        port = _free_port()
        values = {
            "{profile}": str(profile), "{tmp}": str(own), "{port}": str(port),
            "{document}": str(self.folder / "document.txt"), "{drawing}": str(self.folder / "drawing.svg"),
            "{page}": (self.folder / "page.html").as_uri(),
        }  # fmt: skip
        words = shlex.split(program.command)
        for name, value in values.items():
            words = [word.replace(name, value) for word in words]
        try:
            yield Command(words, port, None if program.at_home else _with_home(profile))
        finally:
            shutil.rmtree(own, ignore_errors=True)


def start(program: Program, place: StartingPlace) -> float:
    """Start a program, wait until it is ready, end it: seconds. Raises InputError where it
    does not get ready."""
    with place.command(program) as command, _running(program, command) as process:
        return process.wait_ready()


def start_watched(program: Program, place: StartingPlace, *, trace: bool) -> Watched:
    """A start of which is noted what memory it holds and what files it needs; it takes longer than others.
    trace: with `strace`, which sees the files that are read and not mapped, too."""
    watched = Watched()
    log = place.folder / "trace"
    with place.command(program) as command:
        if trace:
            command = command._replace(words=[*TRACE, "-o", str(log), "--", *command.words])
        with _running(program, command) as process:
            over = threading.Event()

            def look() -> None:
                while True:
                    watched.look([x for x in process.family() if not _is_tracer(x)])
                    if over.wait(LOOK_S):
                        return

            looking = threading.Thread(target=look, name="watch", daemon=True)
            looking.start()
            try:
                process.wait_ready()
                time.sleep(0.0 if program.ready == "exit" else 2 * LOOK_S)
            finally:
                over.set()
                looking.join()
        if trace:
            watched.add_read(log)
            log.unlink()
    return watched


class Running:
    """A command that was started, and all that it started in its turn."""

    def __init__(self, program: Program, command: Command, said: Path) -> None:
        """Start it. Raises InputError where there is no such program."""
        self.program, self.command, self.said = program, command, said
        words, _, env = command
        listen = program.ready.startswith("line:")
        with said.open("wb") as errors:
            self.began = time.perf_counter()
            try:
                self.child = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if listen else errors,
                    stderr=errors, start_new_session=True, env=env,
                )  # fmt: skip
            except OSError as error:
                raise InputError(
                    f"{program.target}: {words[0]!r} cannot be started ({error.strerror}); give "
                    "another command with --program"
                ) from None

    def family(self) -> list[psutil.Process]:
        """It and its children, as far as they live."""
        with suppress(psutil.Error):
            head = psutil.Process(self.child.pid)
            return [head, *head.children(recursive=True)]
        return []

    def wait_ready(self) -> float:
        """Wait until it is ready: seconds since it was started. Raises InputError where it fails, or
        takes longer than `LONGEST_S`."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.end()

        timer = threading.Timer(LONGEST_S, end)
        timer.daemon = True
        timer.start()
        try:
            kind, _, text = self.program.ready.partition(":")
            waits = {"exit": self._exited, "port": self._answers}
            ready = waits.get(kind, lambda: self._says(text))()
            took = time.perf_counter() - self.began
        finally:
            timer.cancel()
        if late.is_set():
            raise InputError(
                f"{self.program.target}: was not ready after {LONGEST_S:g} s (when: {self.program.ready}); "
                "give another command or --ready"
            )
        if not ready:
            raise InputError(
                f"{self.program.target}: {shlex.join(self.command.words)} failed{self._last_words()}"
            )
        return took

    def end(self) -> None:
        """End it and all that it started."""
        family = self.family()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, sign)
            for process in family:
                with suppress(psutil.Error):
                    process.send_signal(sign)
            if not psutil.wait_procs(family, timeout=3.0)[1]:
                break
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=3.0)
        if self.child.stdout:
            self.child.stdout.close()

    def _exited(self) -> bool:
        return self.child.wait() == 0  # without a timeout, with which it would look every 50 ms only

    def _answers(self) -> bool:
        while self.child.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.command.port), timeout=1.0):
                return True
            time.sleep(0.002)
        return False

    def _says(self, text: str) -> bool:
        assert self.child.stdout is not None
        with suppress(ValueError):  # closed meanwhile
            for line in self.child.stdout:
                if text in line.decode(errors="replace"):
                    return True
        return False

    def _last_words(self) -> str:
        lines = self.said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:200]}" if lines else ""


@contextmanager
def _running(program: Program, command: Command) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="rlmemo-said-") as folder:
        process = Running(program, command, Path(folder) / "said")
        try:
            yield process
        finally:
            process.end()


def _with_home(folder: Path) -> dict[str, str]:
    """Our environment, with a folder for a home: what is measured leaves nothing in the person's."""
    parts = {"CONFIG": ".config", "CACHE": ".cache", "DATA": ".local/share", "STATE": ".local/state"}
    xdg = {f"XDG_{name}_HOME": str(folder / part) for name, part in parts.items()}
    return {**os.environ, "HOME": str(folder), **xdg}


def _is_tracer(process: psutil.Process) -> bool:
    """Whether it is `strace`, or will be the program in a moment."""
    with suppress(psutil.Error):
        return process.name() == TRACE[0]
    return True


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])

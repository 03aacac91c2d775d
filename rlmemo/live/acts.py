"""Who does what a plan says: an executor. `none`, the default, does nothing.

An executor is told of one step at a time, and each step once at most (the ledger sees to that): load a target
early, or let one go. It says what came of it in numbers of its own, and undoes everything when live stops.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from env.errors import InputError
from rlmemo.live.file_list import DEFAULT_FILES
from rlmemo.live.files_executor import FilesExecutor

ACTS = {
    "none": "say what would be done, and do nothing",
    "pages": "have the browser's extension load sites in tabs behind, and let tabs go",
    "files": "read the files of programs ahead (Linux)",
    "command": "run a command of one's own for every step (--load-command, --let-go-command)",
}
"""What may follow a plan, by name."""
COMMAND_S = 5.0
LIMIT_MB = 1000.0
"""Memory for what is read ahead, when nothing is said."""


class Executor(Protocol):
    """Does on the machine what a plan says. A target is a name, its kind one of `env.timeline.KINDS`.

    What a step came to is said as numbers and short texts, to be kept; an executor that cannot do a step says
    so in it (`{"failed": …}`) and does not raise.
    """

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        """Load a target before it is asked for."""
        ...

    def let_go(self, target: str, kind: str) -> Mapping[str, Any]:
        """Let a target go that need not be ready any more."""
        ...

    def opened(self, target: str, kind: str) -> object:
        """The person has opened a target: something may be learned of what it needs."""
        ...

    def undo(self) -> None:
        """Undo what is not undone: live stops."""
        ...


class CommandExecutor:
    """Runs a command for each step: a template, split as a shell would, in which `{target}` and `{kind}` are
    replaced. No shell sees it. A command that takes longer than `COMMAND_S` is ended."""

    def __init__(self, load: str, let_go: str = "") -> None:
        self._load, self._let_go = shlex.split(load), shlex.split(let_go)
        self._loaded: dict[str, str] = {}
        if not self._load:
            raise InputError("--act command needs --load-command, such as 'vmtouch -t {target}'")

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        self._loaded[target] = kind
        return _run(self._load, target, kind)

    def let_go(self, target: str, kind: str) -> Mapping[str, Any]:
        self._loaded.pop(target, None)
        return _run(self._let_go, target, kind)

    def opened(self, target: str, kind: str) -> None:
        """It is the person's from now on."""
        self._loaded.pop(target, None)

    def undo(self) -> None:
        """Let go of what was loaded and not opened, as far as that takes no longer than a command may."""
        until = time.monotonic() + COMMAND_S
        for target, kind in list(self._loaded.items()):
            if time.monotonic() < until:
                self.let_go(target, kind)


def _run(template: list[str], target: str, kind: str) -> Mapping[str, Any]:
    if not template:
        return {}
    words = [word.replace("{target}", target).replace("{kind}", kind) for word in template]
    began = time.perf_counter()
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"failed": type(error).__name__}
    return {"rc": done.returncode, "took_s": round(time.perf_counter() - began, 4)}


def executor(
    name: str, load_command: str = "", let_go_command: str = "", limit_mb: float = LIMIT_MB,
    lists: Path = Path(DEFAULT_FILES),
) -> Executor | None:  # fmt: skip
    """The executor of that name; None for the one that does nothing, and for pages. limit_mb, lists: as of
    `FilesExecutor`. Raises InputError for what there is not."""
    if name in ("none", "pages"):  # pages are ordered at the browser's desk (`PagesExecutor`)
        return None
    if name == "files":
        return FilesExecutor(lists, limit_mb)
    if name == "command":
        return CommandExecutor(load_command, let_go_command)
    raise InputError(f"--act {name!r} is nothing that live does; there are {', '.join(ACTS)}")

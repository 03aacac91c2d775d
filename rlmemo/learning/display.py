"""What a person sees while a run works: one line per stage, with a bar where it takes a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rlmemo.heartbeat import Pulse
from rlmemo.options import wrapped

SHOWN = {
    "loss": "loss",
    "mean_token_accuracy": "right",
    "rewards/accuracies": "pairs right",
    "rewards/margins": "margin",
    "reward": "reward a plan",
    "plan_reward": "reward a plan",
    "validation/own": "reward an open on validation",
}


class Display:
    """Progress on the terminal; plain lines where the output is a file or a pipe."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line, as wide as the terminal."""
        self.console.print(wrapped(text, "    "), markup=False)

    @contextmanager
    def stage(self, title: str) -> Iterator[Bar]:
        """A stage of the run; its line ends with the time that it took."""
        began = time.perf_counter()
        bar = Bar(self.console, title)
        try:
            yield bar
        except BaseException:
            bar.close()
            raise
        bar.close()
        took = time.perf_counter() - began
        note = f"  {bar.note}" if bar.note else ""
        self.console.print(f"{title:<34}{took:6.1f} s{note}", markup=False)


class Bar:
    """The bar of one stage: call it with (done, total, what was measured last). In a pipe or a file, a line
    at least every half minute."""

    def __init__(self, console: Any, title: str) -> None:
        self.note = ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task(title, total=None, note="")
        self.title = title
        self.pulse = Pulse(
            title, write=lambda line: console.print(f"  {line}", markup=False), silent=console.is_terminal
        )
        self.progress.start()
        self.pulse.__enter__()

    def __call__(self, done: int, total: int, values: dict[str, float] | None = None) -> None:
        if values:
            self.note = "  ".join(
                f"{label} {values[key]:.3f}" for key, label in SHOWN.items() if key in values
            )
        self.progress.update(self.task, completed=done, total=total, note=self.note)
        self.pulse.update(self.title, done, total, self.note)

    def close(self) -> None:
        """Take the bar away."""
        self.pulse.__exit__()
        self.progress.stop()

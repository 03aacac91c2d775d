"""Counts the files of a tree that one event's way leads through, by going it: those of env/, reward/ and
rlmemo/ of which a function ran.

    python -m tests.way_of_one_event [TREE]      one line of JSON; minutes, as two small policies are trained

- gradient: from a CSV to the first loss of DPO (`rlmemo.train`: SFT, then pairs by replay);
- thumb: from the CSV through the database and `rlmemo.predict` to ratings;
- back: from ratings to the first loss of DPO (`rlmemo.train --feedback`).

What ran while a module was imported does not count. A compiled function that was called once counts for the
stretches after that, too, as it leaves no other trace. TREE: another one, such as a `git worktree` of an
older commit; its places for the same functions are known back to commit ceb4b6f.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

ROOMS = ("env", "reward", "rlmemo")
SMALL = (
    "--tz", "UTC", "--policies", "", "--lora-rank", "2", "--sft-states", "64", "--sft-batch", "16",
    "--plan-states", "30", "--plan-samples", "1", "--dpo-pairs", "24", "--dpo-batch", "8",
)  # fmt: skip
STORES = (("rlmemo.store.database", "rlmemo.store.ratings"), ("rlmemo.store", "rlmemo.ratings"))
"""Where `open_store` stands, and `show_next` and `rate`: now, and before the rebuilding."""
_NEW_LOCALS = 0x2  # in a code's flags: a function, neither a module nor the body of a class


class Seen:
    """Which functions of `root` were called, by stretch of the way."""

    def __init__(self, root: Path) -> None:
        self.under = tuple(f"{root / room}{os.sep}" for room in ROOMS)
        self.ran: dict[str, set[tuple[str, str]]] = {}
        self.stretch: str | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """What `sys.settrace` calls at every call of a Python function. The loss of DPO ends a stretch."""
        code = frame.f_code
        if self.stretch is None:
            return
        if code.co_filename.startswith(self.under):
            found, this = self.ran.setdefault(self.stretch, set()), (code.co_filename, code.co_name)
            if code.co_flags & _NEW_LOCALS and this not in found and not self._importing(frame):
                found.add(this)
        elif code.co_name == "_compute_loss" and code.co_filename.endswith("dpo_trainer.py"):
            self.end()

    def _importing(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(self.under):
                return True
            frame = frame.f_back
        return False

    def begin(self, stretch: str) -> None:
        """What runs from now on counts for `stretch`."""
        self.stretch = stretch

    def end(self) -> None:
        """Nothing counts until the next stretch."""
        assert self.stretch is not None
        self.ran[self.stretch] |= self._compiled()
        self.stretch = None

    def _compiled(self) -> set[tuple[str, str]]:
        kind = importlib.import_module("numba.core.dispatcher").Dispatcher
        return {
            (value.py_func.__code__.co_filename, value.py_func.__code__.co_name)
            for module in list(sys.modules.values())
            if (getattr(module, "__file__", None) or "").startswith(self.under)
            for value in list(vars(module).values())
            if isinstance(value, kind) and value.overloads
        }

    def files(self) -> dict[str, set[str]]:
        """The files by stretch."""
        return {stretch: {file for file, _ in pairs} for stretch, pairs in self.ran.items()}


def write_csv(path: Path) -> None:
    """Two people who go round a few apps, with some noise."""
    rng = np.random.default_rng(0)
    rows = ["user,t,target"]
    for user in range(2):
        t, place = 1.7e9, 0
        for _ in range(500):
            t += float(rng.exponential(700.0)) + 2.0
            place = (place + 1) % 14 if rng.random() < 0.8 else int(rng.integers(20))
            rows.append(f"person{user},{t:.1f},app{place}")
    path.write_text("\n".join(rows) + "\n")


def command(module: str, *arguments: str) -> None:
    """Run a command of the tree in this process."""
    status = importlib.import_module(module).main(list(arguments))
    assert not status, (module, status)


def rate_all(db: str) -> int:
    """Thumbs by turns on all predictions of a database; how many."""
    for places in STORES:
        try:
            store, ratings = (importlib.import_module(x) for x in places)
            open_store, show_next = store.open_store, ratings.show_next
            break
        except (ImportError, AttributeError):
            continue
    rated = 0
    with open_store(db) as opened:
        while (showing := show_next(opened, "me", 0.5)) is not None:
            ratings.rate(opened, showing, rated % 2)
            rated += 1
    return rated


def go(seen: Seen) -> None:
    """The way there and back, in the present folder."""
    write_csv(Path("two.csv"))
    seen.begin("gradient")
    command("rlmemo.train", "--timelines", "two.csv", "--out", "run", *SMALL)
    assert seen.stretch is None, "no pair came to a loss"
    seen.begin("thumb")
    command("rlmemo.timelines", "import", "two.csv", "--tz", "UTC", "--db", "a.db")
    command(
        "rlmemo.predict",
        "--timelines",
        "a.db",
        "--db",
        "a.db",
        "--policy",
        "run",
        "--n",
        "40",
        "--explore",
        "1",
    )
    assert rate_all("a.db") >= 20
    seen.end()
    seen.begin("back")
    command("rlmemo.train", "--timelines", "two.csv", "--out", "rated", "--feedback", "a.db", *SMALL)
    assert seen.stretch is None, "no pair came to a loss"


def main(root: Path) -> dict[str, int]:
    """How many files each stretch leads through, and all of them together."""
    sys.path.insert(0, str(root))
    seen = Seen(root)
    os.chdir(tempfile.mkdtemp())
    threading.settrace(seen)
    sys.settrace(seen)
    go(seen)
    sys.settrace(None)
    files = seen.files()
    print("\n".join(sorted(f"{', '.join(s for s in files if f in files[s])}: {Path(f).relative_to(root)}"
                           for f in set().union(*files.values()))), file=sys.stderr)  # fmt: skip
    return {**{k: len(v) for k, v in files.items()}, "all": len(set().union(*files.values()))}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())))

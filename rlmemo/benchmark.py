"""Compare policies on the same events: ranking, prewarming, calibration and cost, with intervals.

    python -m rlmemo.benchmark                                      # demo, the quick baselines
    python -m rlmemo.benchmark --timelines webtrackr --html report.html --json report.json
    python -m rlmemo.benchmark --timelines my.csv --policies markov1,gbdt,runs/mine

Policies are fitted on the training part, their planners tuned on the validation part, and all of them
judged once on the same test events. docs/benchmark.md says what each number means.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from env.errors import InputError, run_main
from env.private import private_files
from env.sources import load_timelines
from env.sources.sqlite_files import spare_database
from env.splits import SPLITS, leave_one_user_out, split_by
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.ray_crew import add_ray, crew_of
from rlmemo.heartbeat import Pulse
from rlmemo.options import Parser, add_world, seed, world_of, wrapped
from rlmemo.policies.endpoint import check_calls
from rlmemo.policies.endpoint_options import add_options, asking
from rlmemo.policies.planners import check_fed
from rlmemo.policies.registry import POLICIES, make_policies
from rlmemo.report.evaluation import evaluation_page
from rlmemo.report.terminal import result_table
from rlmemo.runs.atomic import file_atomic

DEFAULT_POLICIES = "none,mfu,mru,markov1,backoff3,omnibox,gbdt,oracle"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(
        prog="python -m rlmemo.benchmark",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="policies:\n"
        + "\n".join(f"  {name:<10}{what}" for name, what in POLICIES.items())
        + "\n  RUN_DIR   a folder that python -m rlmemo.train wrote"
        + "\n  openai:URL#MODEL  a model behind an OpenAI-compatible endpoint, as it is",
    )
    p.add_argument(
        "--timelines", default="demo", metavar="NAME|PATH",
        help="demo or demo-nights (synthetic), webtrackr, gesis, lsapp, a database, a CSV, or a Parquet file "
             "or folder (default: demo)",
    )  # fmt: skip
    p.add_argument(
        "--policies", default=DEFAULT_POLICIES, metavar="A,B,…",
        help=f"policies and run folders, joined by commas (default: {DEFAULT_POLICIES})",
    )  # fmt: skip
    p.add_argument(
        "--split", choices=(*SPLITS, "user"), default="chrono",
        help="chrono: each user's last fifth; wave: recording wave 2; origin40: the fifth after the first "
        "40 %%, origin60 likewise; user: each user left out once",
    )  # fmt: skip
    p.add_argument("--json", metavar="FILE", type=Path, help="write the numbers here")
    p.add_argument("--html", metavar="FILE", type=Path, help="write a self-contained report here")
    p.add_argument("--seed", type=seed, default=0, help="seed of fits and intervals (default: 0)")
    p.add_argument("--tz", help="time zone of the timelines, an IANA name")
    p.add_argument("--no-collapse", action="store_true", help="keep consecutive opens of the same target")
    add_world(p, run=False)
    p.add_argument(
        "--budgets", default="2,4,8,16", metavar="N,N,…", help="budgets to compare (default: 2,4,8,16)"
    )
    add_options(p)
    add_ray(p, "judge people")
    p.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: 1000)")
    p.add_argument("--quiet", action="store_true", help="no progress bar, no table")
    return p


@private_files()
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status. Raises InputError for input that cannot be used."""
    given = parser().parse_args(arguments)
    budgets = _numbers(given.budgets)
    for path, option in ((given.json, "--json"), (given.html, "--html")):
        if path is not None:
            _writable(path, option)
    if given.draws < 20:
        raise InputError(f"--draws {given.draws} is too few for an interval; give 20 or more")
    world = world_of(given)

    policies = make_policies(given.policies, asking(given))
    check_fed(policies, world.let_go)
    setting = Setting(world, budgets=budgets, seed=given.seed, replicates=given.draws)
    loaded = load_timelines(given.timelines, seed=given.seed, collapsed=not given.no_collapse, tz=given.tz)
    splits = make_splits(loaded.timelines, given.split)
    if "openai:" in given.policies:
        check_calls(policies, loaded.timelines, splits, setting.latency_decisions + 1)
    with crew_of(given) as crew, _Bar(given.quiet) as bar:
        if crew is not None:
            crew.progress = bar.part
        result = evaluate(
            policies,
            loaded.timelines,
            splits,
            name=loaded.name,
            synthetic=loaded.synthetic,
            setting=setting,
            progress=bar.update,
            crew=crew,
        )
    result.notes += [note for note in loaded.report.notes if note not in result.notes]
    try:
        if given.json is not None:
            _write_json(given.json, result.as_json())
        if given.html is not None:
            evaluation_page(result, command=_command(arguments)).write(given.html)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be written ({error.strerror}); name a file elsewhere"
        ) from None
    if not given.quiet:
        print(result_table(result))
        for path in (given.json, given.html):
            if path is not None:
                print(f"wrote {path}")
        if given.html is None:
            more = "add --html report.html for curves, budgets, calibration and paired differences"
            print(wrapped(more))
    return 0


def make_splits(timelines: Any, name: str) -> Any:
    """The split called `name`, or one per user for `user`."""
    if name == "user":
        return [fold for _, fold in leave_one_user_out(timelines)]
    return split_by(timelines, name)


class _Bar:
    """A progress bar on stderr while policies are judged; lines where that is no terminal."""

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:<14}"), BarColumn(), TimeElapsedColumn(),
            console=console, transient=True, disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task("loading", total=None)
        self.pulse = Pulse("loading", silent=quiet or console.is_terminal)
        self.what = ""

    def __enter__(self) -> _Bar:
        self.progress.start()
        self.pulse.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.pulse.__exit__()
        self.progress.stop()

    def part(self, done: int, total: int) -> None:
        """How many parts of the people the workers have done, of what is under way."""
        self.progress.update(self.task, description=f"{self.what} {done}/{total}")

    def update(self, what: str, done: int, total: int) -> None:
        self.what = what
        self.progress.update(self.task, description=what, completed=done, total=total)
        self.pulse.update(f"judging {what}" if what != "done" else what, done, total)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        values = ()
    if not values or not all(0 < v < float("inf") for v in values):
        raise InputError(f"--budgets {text!r}: give numbers of typical targets above 0, such as 2,4,8,16")
    return values


def _writable(path: Path, option: str) -> None:
    """Say now, not after a minute of work, that a file cannot be written."""
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; name a file in it")
    spare_database(path)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{option} {path}: {folder} cannot be written to; name a file elsewhere")


def _write_json(path: Path, data: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_atomic(path) as part:
        part.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _command(arguments: list[str] | None) -> str:
    words = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", "rlmemo.benchmark", *words])


if __name__ == "__main__":
    run_main(main)

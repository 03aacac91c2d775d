"""How long the programs and pages of this machine take to open: cold, warmed (read ahead) and warm.

    python -m rlmemo.live measure                           # every program that there is a recipe for
    python -m rlmemo.live measure git firefox-esr=firefox   # these, one as your recording calls it
    python -m rlmemo.live measure --program 'wiki=wiki --port {port}' --ready wiki=port
    python -m rlmemo.live measure --page http://localhost:8000/
    python -m rlmemo.live measure --out costs.json          # then --costs costs.json in every command

A command runs without a shell; in it {profile} is a folder that lasts over all starts, {tmp} one that is new
for each, {document}, {page} and {drawing} something to open, {port} a free port. A program is ready when it
ends by itself (exit), when its port takes a connection (port), or when it says so (line:TEXT).
Cold is truly cold only for root, who may empty the page cache; that slows the whole machine for a while.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from env.errors import InputError, run_main
from env.judge.cost_file import read_costs
from rlmemo.live.cost_table import shown
from rlmemo.live.file_list import DEFAULT_FILES, read_lists, write_lists
from rlmemo.live.page_opens import CACHED, measure_page
from rlmemo.live.programs import READY, Program, StartingPlace
from rlmemo.live.recipes import RECIPES, here
from rlmemo.live.residency import may_drop_all
from rlmemo.live.starts import COLD, Cooling, Rounds, Samples
from rlmemo.options import Parser
from rlmemo.runs.atomic import write_atomic

HOW = {
    "machine": "the machine's page cache was emptied before every cold and every warmed start",
    "files": "cold: its own files were dropped, as far as nobody maps them; what others use stayed in memory",
}


def fill(made: argparse.ArgumentParser) -> None:
    """Give a parser the options of this command."""
    add = made.add_argument
    add(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="a recipe's name, or NAME=RECIPE with its name in your recording (default: all here)",
    )
    add(
        "--program",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a program of your own; may be given again",
    )
    add(
        "--ready",
        action="append",
        default=[],
        metavar="NAME=WHEN",
        help=f"when that program is ready: {', '.join(READY)} (default: exit)",
    )
    add(
        "--page",
        action="append",
        default=[],
        metavar="URL",
        help="a page, opened in a browser of its own; may be given again",
    )
    add(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="how often each is opened cold, warmed and warm (default: 5)",
    )
    add(
        "--cold",
        choices=COLD,
        help="what is dropped: the page cache (root), or the program's files (default: machine for root)",
    )
    add(
        "--limit-mb",
        type=float,
        default=1000.0,
        metavar="MB",
        help="memory for what is read ahead (default: 1000)",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="cost file for --costs (.json); what it says of other targets stays",
    )
    add("--json", type=Path, metavar="FILE", help="every single number")
    add(
        "--files",
        type=Path,
        default=Path(DEFAULT_FILES),
        metavar="FILE",
        help=f"what each program needs, for --act files (default: {DEFAULT_FILES})",
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="python -m rlmemo.live measure", description=__doc__)
    fill(made)
    return made


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for. Raises InputError for what cannot be measured."""
    cooling = _checked(args)
    programs, known, lists = asked(args), costs_before(args.out), read_lists(args.files)
    if programs:
        print(HOW[cooling.how])
    found: list[Samples] = []
    failed: list[str] = []
    with StartingPlace() as place:
        rounds = Rounds(place, cooling, args.repeats, args.limit_mb)
        for program in programs:
            try:
                samples, files = rounds.measure(program)
            except InputError as error:
                failed.append(str(error))
                continue
            found.append(samples)
            lists[program.target] = [x for x in files if not x.path.startswith(str(place.folder))]
        for url in args.page:
            found += measure_page(url, place, args.repeats)
    if failed and not found:
        raise InputError("; ".join(failed))
    print("\n".join(shown(found)))
    for line in failed:
        print(f"left out: {line}", file=sys.stderr)
    if programs:
        write_lists(args.files, lists)
    if args.out:
        write_costs(args.out, known, found, f", cold: {cooling.how}" if programs else "")
        print(f"wrote {args.out}; use it with --costs {args.out}")
    if args.json:
        told = {"cold": cooling.how, "repeats": args.repeats, "targets": [x.to_json() for x in found]}
        write_atomic(args.json, json.dumps(told, indent=1) + "\n")
    return 0


def _checked(args: argparse.Namespace) -> Cooling:
    """How things are made cold. Raises InputError for an option that cannot be had."""
    if sys.platform != "linux":
        raise InputError("live measure works on Linux alone; elsewhere, write a cost file by hand")
    if not 1 <= args.repeats <= 1000:
        raise InputError(f"--repeats is {args.repeats}; give 1 to 1000")
    if not 0 <= args.limit_mb <= 1e9:
        raise InputError(f"--limit-mb is {args.limit_mb:g}; give megabytes, 0 or more")
    if args.cold == "machine" and not may_drop_all():
        raise InputError("--cold machine: only root may empty the page cache; give --cold files")
    for option, path in (("--out", args.out), ("--json", args.json), ("--files", args.files)):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{option} {path}: there is no folder {path.resolve().parent}; make it first")
    return Cooling(args.cold or ("machine" if may_drop_all() else "files"))


def asked(args: argparse.Namespace) -> list[Program]:
    """The programs that are to be measured. Raises InputError for one that there is not."""
    by_name = {program.target: program for program in RECIPES}
    named = []
    for given in args.targets:
        target, _, recipe = given.rpartition("=")
        if recipe not in by_name:
            raise InputError(
                f"there is no recipe for {recipe!r}; there are {', '.join(by_name)}; or give --program "
                f"'{recipe}=COMMAND'"
            )
        named.append(replace(by_name[recipe], target=target or recipe))
    ready = dict(_pair("--ready", given) for given in args.ready)
    own = dict(_pair("--program", given) for given in args.program)
    for name in ready:
        if name not in own:
            raise InputError(f"--ready {name}=…: there is no --program {name}=COMMAND")
    found = named + [
        Program(name, command, ready.get(name, "exit"), at_home=True) for name, command in own.items()
    ]
    for program in found:
        if not program.is_here():
            raise InputError(
                f"{program.target}: {program.executable!r} is not installed here, or not on PATH"
            )
    return found or ([] if args.page else here())


def _pair(option: str, given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals and value):
        raise InputError(
            f"{option} {given!r}: give NAME={option[2:].upper()}, as in --program 'mail=mutt -v'"
        )
    return name, value


def costs_before(path: Path | None) -> dict[str, Any]:
    """What a cost file says already; nothing where there is none. Raises InputError for a broken one."""
    if path is None or not path.exists():
        return {}
    read_costs(path)
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return known


def write_costs(path: Path, known: dict[str, Any], found: Sequence[Samples], note: str) -> None:
    """A cost file of what was measured, beside what stood in it before."""
    rows = dict(known.get("targets", {}))
    for samples in found:
        if samples.target.endswith(CACHED):  # what a prewarm does there is open a tab
            continue
        cost = samples.cost()
        rows[samples.target] = {
            "memory_mb": cost.memory_mb, "cold_s": cost.cold_s, "warm_s": cost.warm_s, "load_s": cost.load,
        }  # fmt: skip
    source = f"rlmemo.live measure, {time.strftime('%Y-%m-%d')}, medians{note}"
    write_atomic(path, json.dumps({**known, "source": source, "targets": rows}, indent=1) + "\n")


def main() -> int:
    """`python -m rlmemo.live.measure`, the same as `python -m rlmemo.live measure`."""
    return run(parser().parse_args())


if __name__ == "__main__":
    run_main(main)

"""Look at timelines, and bring recordings into a database.

    python -m rlmemo.timelines list
    python -m rlmemo.timelines import my-usage.csv --tz Europe/Berlin
    python -m rlmemo.timelines show webtrackr --user uNzUWueZw3
    python -m rlmemo.timelines show rlmemo.db --plot week.svg

SOURCE is `demo`, `demo-nights`, `webtrackr`, `gesis`, `lsapp`, `usagelogger`, a database, a browser's
history, what ActivityWatch, Takeout, phones and others export, or a CSV/TSV(.gz) or folder of Parquet files
with columns user,t,target[,kind,duration,device]; for other tables there are --columns, --user and --epoch.
Where one's files are, what is refused and what is counted: docs/timelines.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError, run_main
from env.private import private_files
from env.sources import SOURCES, HasUsers, load_timelines
from env.sources.registry import state_of
from env.timeline import collapse
from rlmemo.heartbeat import Pulse
from rlmemo.options import Parser, seed, wrapped
from rlmemo.report.timelines import print_sources, print_stored, print_timeline, print_users, write_plot
from rlmemo.runs.parquet_folder import write as write_folder
from rlmemo.store.database import open_store, store_when_done
from rlmemo.store.database_file import DEFAULT_DB

if TYPE_CHECKING:
    from rlmemo.store.importing import Imported

MOST_USERS = 6
PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(
        prog="python -m rlmemo.timelines",
        description=__doc__,
    )
    commands = top.add_subparsers(dest="command", required=True)

    listing = commands.add_parser("list", help="what timelines there are, here and to be had")
    _db(listing)
    listing.add_argument("--json", action="store_true", help="one JSON object instead of tables")

    importing = commands.add_parser("import", help="write a recording's events into a database")
    _source(importing)
    into = importing.add_mutually_exclusive_group()
    _db(into)
    into.add_argument(
        "--to", metavar="FOLDER", type=Path, help="write a new folder of Parquet files instead of a database"
    )
    importing.add_argument("--name", help="what to call the source in the database (default: its own name)")
    importing.add_argument("--user", metavar="NAME", help="of a CSV without a user column, the one user")
    importing.add_argument(
        "--replace", action="store_true", help="put it in the place of what the source holds of these users"
    )
    importing.add_argument("--json", action="store_true", help="one JSON object instead of text")

    showing = commands.add_parser("show", help="draw a timeline in the terminal and write a plot")
    _source(showing)
    showing.add_argument("--user", help="whose timeline to draw (default: the one with most events)")
    showing.add_argument("--source", metavar="NAME", help="of a database, only what was imported as NAME")
    showing.add_argument("--top", type=int, default=10, metavar="N", help="targets to list (default 10)")
    showing.add_argument("--no-collapse", action="store_true", help="keep consecutive opens of one target")
    showing.add_argument(
        "--plot",
        metavar="FILE",
        help="where to write the plot, .png, .svg or .pdf, or 'none' (default runs/timelines-NAME.png)",
    )
    return top


def _db(command: argparse._ActionsContainer) -> None:
    command.add_argument("--db", default=DEFAULT_DB, metavar="FILE", help=f"database (default {DEFAULT_DB})")


def _source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "timelines", metavar="SOURCE", help="a name, a database, a file, or a folder of Parquet files"
    )
    command.add_argument("--tz", metavar="ZONE", help="the users' time zone, such as Europe/Berlin")
    command.add_argument(
        "--epoch",
        metavar="CLOCK",
        help="of a CSV, what its numbers count: unix, apple, webkit, filetime, dotnet or compact",
    )
    command.add_argument(
        "--columns", metavar="MAP", help="of a CSV, which column is which: user=ID,t=Timestamp,target=URL"
    )
    command.add_argument(
        "--page", choices=("host", "path"), default="host", help="what a page is reduced to (default host)"
    )
    command.add_argument("--seed", type=seed, default=0, help="draws demo (default 0)")
    command.add_argument("--weeks", type=int, help="how many weeks of demo (default 8)")


@private_files()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Raises InputError."""
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that cannot show a block shows a question mark
        sys.stdout.reconfigure(errors="replace")
    args = parser().parse_args(argv)

    with Pulse(f"timelines {args.command}"):
        if args.command == "list":
            return _list(Path(args.db), args.json)
        return _import(args) if args.command == "import" else _show(args)


def _load(args: argparse.Namespace, **more: Any) -> Any:
    if args.weeks is not None:
        more["weeks"] = args.weeks
    return load_timelines(
        args.timelines,
        seed=args.seed,
        tz=args.tz,
        page=args.page,
        epoch=args.epoch,
        columns=args.columns,
        **more,
    )


def _list(db: Path, as_json: bool) -> int:
    sources = [{"name": n, "what": one.what, "state": state_of(n)} for n, one in SOURCES.items()]
    stored: list[dict[str, Any]] = []
    if db.exists():
        with open_store(db, make=False) as store:
            stored = [vars(row) for row in store.timelines()]
    elif str(db) != DEFAULT_DB:
        raise InputError(
            f"{db}: no such database; make it with python -m rlmemo.timelines import demo --db {db}"
        )
    if as_json:
        print(json.dumps({"sources": sources, "db": str(db), "stored": stored}, indent=2))
        return 0

    print_sources(sources)
    if stored:
        print_stored(db, stored)
    else:
        print(f"\nno timelines in {db} yet; python -m rlmemo.timelines import SOURCE writes some")
    return 0


def _import(args: argparse.Namespace) -> int:
    if args.to is not None:
        return _to_parquet(args)
    db = Path(args.db)
    if db.exists() and Path(args.timelines).exists() and db.samefile(args.timelines):
        raise InputError(f"{args.db}: holds these timelines already; name another database with --db")
    loaded = _load(args, collapsed=False, user=args.user)
    repeats = sum(len(x) - len(collapse(x)) for x in loaded.timelines)
    with store_when_done(args.db) as store:
        # the same people drawn anew are no second recording of them
        drawn = args.timelines in SOURCES and not SOURCES[args.timelines].files
        replace = args.replace or drawn
        written = store.add_timelines(loaded, source=args.name, replace=replace)
    if args.json:
        report = loaded.report.as_dict()
        print(
            json.dumps({**report, "db": args.db, "written": written.as_dict(), "repeats": repeats}, indent=2)
        )
        return 0
    print(wrapped("\n".join(loaded.report.lines()), "  "))
    lines = _account(args.db, written)
    if repeats and written.events:
        those = "repeats the target before it" if repeats == 1 else "repeat the target before them"
        lines.append(f"{repeats:,} of them {those}: stored, and collapsed when read")
    print(wrapped("\n".join(lines), "  "))
    print(f"next: python -m rlmemo.timelines show {args.db}")
    return 0


def _to_parquet(args: argparse.Namespace) -> int:
    """Write a recording as a folder of Parquet files."""
    for option, value in (("--name", args.name), ("--replace", args.replace or None)):
        if value is not None:
            raise InputError(f"{option}: is about a database, and --to writes a folder; leave it out")
    loaded = _load(args, collapsed=False, user=args.user)
    people, rows = write_folder(args.to, loaded.timelines, synthetic=loaded.synthetic)
    if args.json:
        print(json.dumps({**loaded.report.as_dict(), "folder": str(args.to), "people": people, "rows": rows}))
        return 0
    print(wrapped("\n".join(loaded.report.lines()), "  "))
    print(f"{args.to}: {rows:,} rows of {people:,} people written")
    print(f"next: python -m rlmemo.benchmark --timelines {args.to}")
    return 0


def _account(db: str, written: Imported) -> list[str]:
    """What an import did to the database, one fact per line."""
    users = "1 user" if written.users == 1 else f"{written.users:,} users"
    there = sum(x.events for x in written.before)
    gone = sum(x.events for x in written.gone)
    if gone:
        head = f"{_events(written.events)} of {users} written, in place of {gone:,} from an earlier import"
    elif not there:
        head = f"{_events(written.events)} of {users} written"
    elif written.events:
        known = f"; {written.known:,} were there already" if written.known else ""
        new = "1 new event" if written.events == 1 else f"{written.events:,} new events"
        head = f"{new} of {users} added to {there:,}{known}"
    else:
        head = f"0 new events of {users}: all {written.known:,} were there already"
    lines = [f"{db}: {head}"]
    if written.switches:
        lines.append(f"{written.switches:,} offs and wakes written")
    for label, stretches in (("replaced", written.gone), ("held before", written.before)):
        for x in stretches[:MOST_USERS]:
            lines.append(f"  {label}: {_events(x.events)} of {x.user}, {x.first} to {x.last}")
        if len(stretches) > MOST_USERS:
            lines.append(f"  {label}: and of {len(stretches) - MOST_USERS:,} more users")
    return lines + [f"  note: {note}" for note in written.notes]


def _events(n: int) -> str:
    return "1 event" if n == 1 else f"{n:,} events"


def _show(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise InputError(f"--top {args.top}: give a whole number from 1")
    plot = None if args.plot == "none" else _plot_path(args.plot, args.timelines)
    more = {"collapsed": not args.no_collapse, "source": args.source}
    try:
        loaded = _load(args, user=args.user, **more)
    except HasUsers:  # then --user picks one of them
        loaded = _load(args, **more)
    users = [x.user for x in loaded.timelines]
    if args.user is not None and args.user not in users:
        shown = ", ".join(users[:6]) + (", …" if len(users) > 6 else "")
        raise InputError(f"--user {args.user!r}: {loaded.name} has no such user; it has {shown}")
    print(wrapped("\n".join(loaded.report.lines()), "  "))
    print_users(loaded)
    chosen = max(loaded.timelines, key=len) if args.user is None else loaded.timelines[users.index(args.user)]
    print_timeline(chosen, synthetic=loaded.synthetic, top=args.top)
    if plot is not None:
        write_plot(loaded, plot, user=args.user)
        print(f"\nplot written to {plot}")
    return 0


def _plot_path(given: str | None, timelines: str) -> Path:
    """Where the plot goes. Raises InputError before anything is read where it could not be written."""
    if given is None:
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(timelines).stem) or "timelines"
        return Path("runs") / f"timelines-{name}.png"
    path = Path(given)
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise InputError(f"--plot {given}: accepted are files ending in {', '.join(PLOT_SUFFIXES)}, or none")
    if not path.parent.is_dir():
        raise InputError(f"--plot {given}: the folder {path.parent} is not there; make it, or name another")
    return path


if __name__ == "__main__":
    run_main(main)

"""Record what is opened, plan for it at once, and say what that would have saved.

    python -m rlmemo.live start  # with ActivityWatch running; Ctrl-C or stop ends it
    python -m rlmemo.live start --policy runs/first --background
    python -m rlmemo.live status
    python -m rlmemo.live pause --minutes 30  # nothing is recorded meanwhile; resume ends it
    python -m rlmemo.live extension  # the browser's extension: where it is, and its key
    python -m rlmemo.live measure  # what programs and pages cost here, for --costs
    python -m rlmemo.live doctor  # what works here, and what to do about the rest
    python -m rlmemo.live doctor --unit  # a unit for systemd --user, shown and not installed

ActivityWatch (activitywatch.net) says which window is in front, its browser extension which page. What is
opened is kept in the database like any timeline, as `live`. With --act none, the default, nothing else is
done: it is said what would have been. It speaks to this machine alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from env.errors import InputError, run_main
from rlmemo.live import doctor, learn, lock, measure, status
from rlmemo.live.activitywatch import PORT
from rlmemo.live.browser_port import PORT as BROWSER_PORT
from rlmemo.live.pairing import extension
from rlmemo.live.start import add_options, in_background
from rlmemo.live.start import start as record
from rlmemo.options import Parser, add_world
from rlmemo.store.database import open_store
from rlmemo.store.database_file import DEFAULT_DB
from rlmemo.store.live_ledger import LiveLedger, Off


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="python -m rlmemo.live", description=__doc__)
    commands = p.add_subparsers(dest="command", required=True, metavar="command")
    start = commands.add_parser("start", help="record and plan", description="Record, plan, and judge.")
    add_options(start)
    add_world(start, run=True)
    again = commands.add_parser("status", help="what it has seen, and what its plans would have saved")
    ended = commands.add_parser("stop", help="stop recording")
    pause = commands.add_parser("pause", help="record nothing until resume, or for some minutes")
    pause.add_argument("--minutes", type=float, metavar="M", help="go on after that by itself")
    resume = commands.add_parser("resume", help="record again")
    taught = commands.add_parser("learn", help="train on the recording now, as start --learn does")
    back = commands.add_parser("rollback", help="put what was in charge before the last training back")
    for command in (start, taught):
        command.add_argument("--learn-config", metavar="FILE",
                             help="settings of that training, as train --config takes")  # fmt: skip
    measure.fill(commands.add_parser("measure", help="how long programs and pages take to open here"))
    pair = commands.add_parser("extension", help="how to add the browser's extension, and its key")
    check = commands.add_parser("doctor", help="what works here, and what to do about the rest")
    check.add_argument("--unit", action="store_true", help="show a unit for systemd --user, and no more")
    for command in (start, check):
        command.add_argument("--host", default="127.0.0.1", help="ActivityWatch's (default: 127.0.0.1)")
        command.add_argument("--port", type=int, default=PORT, help=f"ActivityWatch's (default: {PORT})")
    for command in (start, pair, check):
        command.add_argument("--browser-port", type=int, default=BROWSER_PORT, metavar="PORT",
                             help=f"the extension's (default: {BROWSER_PORT})")  # fmt: skip
    for command in (start, again, ended, pause, resume, taught, back, pair, check):
        command.add_argument("--db", metavar="FILE", default=DEFAULT_DB,
                             help=f"database that is written (default: {DEFAULT_DB})")  # fmt: skip
        if command is not pair:
            command.add_argument("--user", default="me", help="whose recording it is (default: me)")
    return p


def _ledger(args: argparse.Namespace) -> LiveLedger:
    if not Path(args.db).exists():
        raise InputError(f"{args.db}: nothing is recorded here yet; python -m rlmemo.live start does")
    store = open_store(args.db, make=False)
    if not store.rows("SELECT 1 FROM timelines WHERE source = 'live' AND user = ?", [args.user]):
        store.close()
        raise InputError(
            f"{args.db}: nobody has recorded {args.user!r} here yet; python -m rlmemo.live start does"
        )
    return LiveLedger(store, args.user, "UTC")


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(arguments)
    if args.command == "start":
        return in_background(arguments, Path(args.db)) if args.background else record(args)
    if args.command == "doctor":
        return doctor.main(args)
    if args.command == "extension":
        return extension(args)
    if args.command == "measure":
        return measure.run(args)
    if args.command == "stop":
        print("stopped" if lock.stop(Path(args.db)) else f"{args.db}: nobody records into it")
        return 0
    ledger = _ledger(args)
    now = time.time()
    if args.command == "learn":
        return learn.run(args, ledger)
    if args.command == "rollback":
        print(learn.roll_back(ledger))
        return 0
    if args.command == "status":
        print("\n".join(status.lines(ledger, lock.recorder(Path(args.db)), now)))
        return 0
    open_ones = [p for p in ledger.pauses() if p.back_t is None or p.back_t > now]
    if args.command == "pause":
        if args.minutes is not None and not 0.0 < args.minutes < 1e6:
            raise InputError(f"--minutes {args.minutes:g} is no time; give more than 0")
        until = None if args.minutes is None else now + 60.0 * args.minutes
        ledger.add((), at=now, offs=[replace(p, back_t=now) for p in open_ones] + [Off(now, until, "paused")])
        print(status.paused(ledger, now))
    else:
        ledger.add((), at=now, offs=[replace(p, back_t=now) for p in open_ones])
        told = "recording goes on" if lock.recorder(Path(args.db)) else "nobody records (live start does)"
        print(f"the pause is over; {told}" if open_ones else "it was not paused")
    return 0


if __name__ == "__main__":
    run_main(main)

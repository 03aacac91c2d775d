"""`python -m rlmemo.live start`: what is asked for becomes a loop, which goes round until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from env.errors import InputError
from env.timeline import zone
from rlmemo.__main__ import version
from rlmemo.live import elsewhere, lock, machine, status
from rlmemo.live.activitywatch import ActivityWatch, BucketReader
from rlmemo.live.acts import ACTS, LIMIT_MB, Executor, executor
from rlmemo.live.browser_desk import BrowserDesk
from rlmemo.live.browser_port import BrowserPort
from rlmemo.live.clock import clock_of
from rlmemo.live.file_list import DEFAULT_FILES
from rlmemo.live.loop import LATE_S, Loop
from rlmemo.live.mind import Minding
from rlmemo.live.nightly import Nightly, learn_time
from rlmemo.live.pairing import SOURCES, desk_of, key_of, pages_of, reader_of
from rlmemo.live.past import past_of
from rlmemo.live.sparing import PER_HOUR, Sparing
from rlmemo.options import world_given
from rlmemo.policies.registry import to_follow
from rlmemo.policies.run import Setup
from rlmemo.store.database import open_store
from rlmemo.store.database_file import check_store
from rlmemo.store.live_ledger import LiveLedger

LOG = "live.log"
NOT_NEEDED = ("pandas",)
"""What sqlite-utils loads where it is installed, and does without: 70 MB less in a program that goes on."""
WHEN_SCARCE = ("wait", "load")


def add_options(start: argparse.ArgumentParser) -> None:
    """What it may be told."""
    acts = "; ".join(f"{name}: {what}" for name, what in ACTS.items())
    start.add_argument("--policy", metavar="NAME|RUN_DIR|MODEL|URL", default="base",
                       help="who predicts; http://…: a server (default: base, as it is shipped)")  # fmt: skip
    start.add_argument("--names", action="store_true",
                       help="of --policy http://…: send names as they are (default: hashed)")  # fmt: skip
    start.add_argument("--threshold", type=float, metavar="P",
                       help="prewarm what is at least this probable (default: the policy's own)")  # fmt: skip
    start.add_argument("--source", choices=tuple(SOURCES), default="activitywatch",
                       help=f"{'; '.join(f'{x}: {what}' for x, what in SOURCES.items())} "
                            "(default: activitywatch)")  # fmt: skip
    start.add_argument("--act", choices=tuple(ACTS), default="none", help=f"{acts} (default: none)")
    start.add_argument("--load-command", metavar="COMMAND", default="",
                       help="of --act command: loads {target}")  # fmt: skip
    start.add_argument("--let-go-command", metavar="COMMAND", default="",
                       help="of --act command: lets {target} go")  # fmt: skip
    start.add_argument("--limit-mb", type=float, default=LIMIT_MB, metavar="MB",
                       help=f"of --act files, pages: memory for that (default: {LIMIT_MB:g})")  # fmt: skip
    start.add_argument("--per-hour", type=int, default=PER_HOUR, metavar="N",
                       help=f"loads in an hour, at most (default: {PER_HOUR})")  # fmt: skip
    start.add_argument("--on-battery", choices=WHEN_SCARCE, default="wait",
                       help="load nothing on the battery, or all the same (default: wait)")  # fmt: skip
    start.add_argument("--metered", choices=WHEN_SCARCE, default="wait",
                       help="the same over a metered connection (default: wait)")  # fmt: skip
    start.add_argument("--files", type=Path, default=Path(DEFAULT_FILES), metavar="FILE",
                       help=f"of --act files: what programs need (default: {DEFAULT_FILES})")  # fmt: skip
    start.add_argument("--memory-mb", type=float, metavar="MB",
                       help="memory for what is warm (default: as before, or --budget apps)")  # fmt: skip
    start.add_argument("--days", type=float, default=90.0, metavar="D",
                       help="days of its record to read at the first start (default: 90)")  # fmt: skip
    start.add_argument("--timelines", metavar="SOURCE",
                       help="at the first start: a recording to begin with")  # fmt: skip
    start.add_argument("--tz", help="IANA time zone (default: as before, or this machine's)")
    start.add_argument("--learn", metavar="HH:MM",
                       help="train at that time of day, and follow what is better for it")  # fmt: skip
    start.add_argument("--background", action="store_true",
                       help=f"go on without this terminal; what it says goes into {LOG}")  # fmt: skip
    for name, kind in (("--clock", str), ("--late-s", float)):  # for replays of a recorded day
        start.add_argument(name, type=kind, help=argparse.SUPPRESS)


def start(args: argparse.Namespace) -> int:
    """Record until told to stop."""
    if not 0.0 <= args.days <= 36500.0:
        raise InputError(f"--days {args.days:g} is no number of days; give 0 or more")
    if args.per_hour < 0:
        raise InputError(f"--per-hour {args.per_hour} is no number of loads; give 0 or more")
    if args.memory_mb is not None and not 0.0 < args.memory_mb < 1e9:
        raise InputError(f"--memory-mb {args.memory_mb:g} is no memory; give more than 0")
    at = learn_time(args.learn)
    if args.threshold is not None and not 0.0 <= args.threshold <= 2.0:
        raise InputError(f"--threshold {args.threshold:g} is no probability; give 0 to 1")
    _leave_out_what_is_not_needed()
    server, clock = ActivityWatch(args.host, args.port), clock_of(args.clock)
    desk = desk_of(args)
    db = Path(args.db)
    far = elsewhere.reach(args, db) if elsewhere.is_address(args.policy) else None
    made = far.setup if far else to_follow(args.policy, world_given(args))
    zone_of(args.tz)
    if at is not None and far is not None:
        raise InputError("--learn: a server's plans are followed; leave it out, or give another --policy")
    acts = _acts(args, made, desk)
    door = BrowserPort(args.browser_port, desk) if desk is not None else None
    check_store(db)
    past = past_of(args.timelines, args.user, args.tz, db)
    # up to here nothing is written: what is refused leaves nothing behind
    held = lock.OneRecorder(db)
    with open_store(db) as store:
        ledger = LiveLedger(store, args.user, zone_of(args.tz))
        if args.tz and args.tz != ledger.tz:
            raise InputError(f"{db}: this recording's times are in {ledger.tz}; leave --tz out")
        minding, began = _minding(ledger, made, args, clock.now())
        minding = far.minding(minding) if far else minding
        if door is not None:
            door.open(key_of(db))
        reader = reader_of(
            args.source, BucketReader(server, since=began - args.days * 86400.0, now=clock.now), desk
        )
        booted = machine.booted() if args.clock is None else None
        loop = Loop(
            ledger,
            reader,
            minding,
            acts,
            clock,
            began,
            booted,
            LATE_S if args.late_s is None else args.late_s,
            past=past,
        )
        if desk is not None:
            loop.stirred = desk.stirred
        if at is not None:
            loop.nightly = Nightly(ledger, db, at, args.learn_config, partial(_taught, minding, args))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.end())
        told = f"from {server}" if door is None else f"from the browser at 127.0.0.1:{door.server_port}"
        told += f" and {server}" if args.source == "both" else ""
        loop.say(f"recording into {db} {told}; {args.policy} plans, act {args.act}; stop with Ctrl-C")
        if paused := status.paused(ledger, clock.now()):
            loop.say(paused)
        loop.run()
        if door is not None:
            door.close()
        loop.say("stopped")
    held.close()
    return 0


def _leave_out_what_is_not_needed() -> None:
    """Numba looks whether there is SciPy, for linear algebra in compiled code, which has none here: 15 MB.
    Whoever asks for SciPy later gets it."""
    for name in NOT_NEEDED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    if "scipy" not in sys.modules:
        sys.modules["scipy"] = None  # type: ignore[assignment]
        try:
            import_module("numba.np.arraymath")
        finally:
            del sys.modules["scipy"]


def _acts(args: argparse.Namespace, made: Setup, desk: BrowserDesk | None) -> Executor | None:
    """Who does what is planned, within limits; None where nobody does. Raises InputError for what there is
    not."""
    acts = executor(args.act, args.load_command, args.let_go_command, args.limit_mb, args.files)
    if args.act == "pages" and desk is not None:
        acts = pages_of(desk, made, args)
    if acts is None:
        return None
    return Sparing(acts, args.per_hour, args.on_battery == "load", args.metered == "load")


def _taught(given: Minding, args: argparse.Namespace, run: str) -> Minding:
    """Who thinks as a run has learned; `given` where that is none."""
    if not run:
        return given
    return replace(given, setup=to_follow(run, world_given(args)), version=_version(run))


def zone_of(tz: str | None) -> str:
    """The time zone that was asked for, else this machine's. Raises InputError where there is none."""
    try:
        zone(tz or "UTC")
    except ValueError as error:
        raise InputError(str(error)) from None
    return tz or machine.time_zone()


def _minding(ledger: LiveLedger, made: Setup, args: argparse.Namespace, now: float) -> tuple[Minding, float]:
    """Who thinks, and since when it is recorded (unix seconds); kept in the ledger."""
    before = ledger.state("settings") or {}
    an_app = made.world.cost_model().cost("").memory_mb
    memory = args.memory_mb or before.get("budget_mb") or made.world.budget * an_app
    wakes = not elsewhere.is_address(args.policy)  # a server's plans are followed, and it plans after events
    minding = Minding(made, ledger.user, ledger.tz, memory, _version(args.policy), args.threshold, wakes)
    minding.rules(), minding.planner()  # refused before anything is written
    began = float(before.get("began_at", now))
    settings = {
        "policy": args.policy, "act": args.act, "budget_mb": memory, "began_at": began, "port": args.port,
        "threshold": args.threshold, "world": asdict(made.world),
    }  # fmt: skip
    ledger.put(trouble="", settings=settings)
    return minding, began


def _version(policy: str) -> str:
    folder = Path(policy).expanduser()
    return folder.resolve().name if folder.is_dir() else f"rlmemo {version()}"


def in_background(arguments: list[str], db: Path) -> int:
    """Start the same in a process of its own; returns when it records. Raises InputError where it ends."""
    log = db.resolve().with_name(LOG)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rest = [x for x in arguments if x != "--background"]
    child = subprocess.Popen(
        [sys.executable, "-m", "rlmemo.live", *rest], stdin=subprocess.DEVNULL, stdout=handle, stderr=handle,
        start_new_session=True,
    )  # fmt: skip
    os.close(handle)
    began = log.stat().st_size
    while lock.recorder(db) != child.pid or log.stat().st_size == began:
        if child.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace")[began:].strip().removeprefix("error: ")
            raise InputError(said or f"it ended at once; see {log}")
        time.sleep(0.05)
    print(f"recording (process {child.pid}); what it says stands in {log}")
    return 0

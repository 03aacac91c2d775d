"""What works here, and what to do about the rest: one line each."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from env.errors import InputError
from env.sources.sqlite_files import Kind
from rlmemo.live import lock, machine, pairing, sparing
from rlmemo.live.activitywatch import AFK, WEB, WINDOW, ActivityWatch, Away, Bucket
from rlmemo.live.fronts import AWAKE_S
from rlmemo.store.database_file import check_store

SILENT_S = 300.0
MISSING = {
    WINDOW: "start aw-watcher-window (on Wayland: awatcher), which says what is in front",
    AFK: "start aw-watcher-afk, which says when you are away",
    WEB: "add ActivityWatch's extension to your browser, which says which page is in front; without it a "
    "browser is one app",
}


def main(args: argparse.Namespace) -> int:
    """Print what was found; 1 where recording would not work."""
    if args.unit:
        given = [] if args.port == 5600 else ["--port", str(args.port)]
        print(machine.unit([*given, "--db", str(Path(args.db).resolve())]), end="")
        return 0
    bad = False
    for good, line in found(args):
        bad |= good is False
        print(f"{'ok  ' if good else 'no  ' if good is False else '-   '} {line}")
    return int(bad)


def _said(file: Kind) -> str:
    """What the database's file is."""
    return "is made by live start" if file is Kind.NOTHING else file.value


def found(args: argparse.Namespace) -> Iterator[tuple[bool | None, str]]:
    """(whether it works; None: it can do without) and a line."""
    yield _try(lambda: f"time zone {machine.time_zone()}")
    yield _try(lambda: f"{args.db}: {_said(check_store(Path(args.db)))}")
    recording = lock.recorder(Path(args.db))
    yield (
        (True, f"process {recording} is recording")
        if recording
        else (None, "nobody is recording: live start")
    )
    server = ActivityWatch(args.host, args.port)
    try:
        info = server.info()
        yield True, f"{server} answers (version {info['version']})"
        for kind in (WINDOW, AFK, WEB):
            yield from _buckets(server, kind, [b for b in server.buckets() if b.kind == kind])
    except Away as error:
        yield False, str(error)
    finally:
        server.close()
    yield pairing.standing(Path(args.db), args.browser_port)
    yield from sparing.standing()
    unit = "python -m rlmemo.live doctor --unit shows a unit for systemd, which starts live with you"
    yield (
        None,
        unit if shutil.which("systemctl") else "no systemd here: see what else starts programs for you",
    )


def _try(what: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, what()
    except InputError as error:
        return False, str(error)


def _buckets(server: ActivityWatch, kind: str, buckets: list[Bucket]) -> Iterator[tuple[bool | None, str]]:
    if not buckets:
        yield (False if kind == WINDOW else None), f"no bucket of {kind}: {MISSING[kind]}"
    for bucket in buckets:
        rows = server.rows(bucket, time.time() - 86400.0)
        silent = time.time() - max((r.end for r in rows), default=0.0)
        if not rows:
            yield None, f"{bucket.name}: nothing for a day; {MISSING[kind]}"
        elif silent > max(SILENT_S, AWAKE_S):
            yield None, f"{bucket.name}: silent for {silent / 60:.0f} minutes; {MISSING[kind]}"
        else:
            yield True, f"{bucket.name}: said something {silent:.0f} s ago"

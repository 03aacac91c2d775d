"""Timelines from an rlmemo database. Only `rlmemo.store` writes one; this reads it, and writes nothing.

A database that is not known for one of ours is read as a private copy (`env.sources.sqlite_files`).

Read are the tables `timelines` (id, source, user, tz, tz_known, synthetic), `events` (timeline_id, t, target,
kind, duration, device, wave) and, where there is one, `switches` (timeline_id, t, kind).
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from env.errors import InputError
from env.sources.names import Target, clean_name, kept_target, label, shown
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of
from env.sources.sqlite_files import DATABASES, Kind, connect, kind_of, private_copy
from env.timeline import KINDS, SWITCHES, zone

TIMELINES = ("id", "source", "user", "tz", "tz_known", "synthetic")
EVENTS = ("timeline_id", "t", "target", "kind", "duration", "device", "wave")
HOW = "make one with python -m rlmemo.timelines import demo --db FILE"


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database, ours or another program's."""
    return kind_of(path) in DATABASES


def load(path: Path, *, collapsed: bool = True, tz: str | None = None, source: str | None = None) -> Loaded:
    """All timelines of a database, or those imported from `source`, sorted by user.

    Users who occur in more than one source are called source/user. `tz`, where given, replaces the
    stored zones. Raises InputError for what is no rlmemo database, a damaged one, or one without events.
    """
    try:
        with _reading(path) as connection:
            return _load(connection, path, collapsed, tz, source)
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be read as a database ({error}); copy it anew, or {HOW}") from error


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read by: to the file itself where it is ours, so that what is not folded in yet is
    read too; else to a copy."""
    if kind_of(path) is not Kind.OURS:
        with private_copy(path) as copy:
            yield copy
        return
    # A read-only connection to a database in WAL mode leaves its -wal and -shm files behind; one that
    # may write, and is told not to, clears them away. The URI never makes a file; as_uri quotes.
    writable = os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK)
    uri = path.resolve().as_uri() + ("?mode=rw" if writable else "?mode=ro")
    with closing(connect(path, uri, uri=True, timeout=10.0)) as connection:
        connection.execute("PRAGMA query_only = ON")
        yield connection


def _load(
    connection: sqlite3.Connection, path: Path, collapsed: bool, tz: str | None, source: str | None
) -> Loaded:
    for table, wanted in (("timelines", TIMELINES), ("events", EVENTS)):
        found = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if not set(wanted) <= set(found):
            raise InputError(
                f"{path}: is a database, but not one of rlmemo's (no {table} as expected), nor the history "
                f"of Chrome, Edge, Firefox or Safari; {HOW}"
            )
    owners = connection.execute(
        f"SELECT {', '.join(TIMELINES)} FROM timelines WHERE ? IS NULL OR source = ? ORDER BY id",
        (source, source),
    ).fetchall()
    if not owners:
        known = [row[0] for row in connection.execute("SELECT DISTINCT source FROM timelines ORDER BY 1")]
        if source is None or not known:
            raise InputError(f"{path}: holds no timelines yet; {HOW}")
        raise InputError(f"{path}: holds no timelines from {source!r}; it has {', '.join(known)}")
    first = {row[2]: row[0] for row in reversed(owners)}
    called, zones, known_zones = {}, {}, {}
    for identity, origin, user, zone_name, zone_known, _ in owners:
        # The one who was there first keeps the name, by which predictions call them.
        name = clean_name(user if first[user] == identity else f"{origin}/{user}")
        called[identity] = name
        try:
            zone(tz or zone_name)
        except ValueError as error:
            raise InputError(f"{path}: user {name!r}: {error}") from None
        zones[name], known_zones[name] = tz or zone_name, bool(tz or zone_known)
    report = ImportReport(source=path.name)
    rows = Rows()
    clean: dict[tuple[str, str], Target] = {}
    devices: dict[str | None, str] = {None: ""}
    for identity, t, target, kind, duration, device, wave in connection.execute(
        f"SELECT {', '.join(EVENTS)} FROM events ORDER BY timeline_id, t, id"
    ):
        if identity not in called:
            continue
        report.rows_read += 1
        usable = isinstance(t, float | int) and math.isfinite(t) and isinstance(target, str) and target
        if not usable or kind not in KINDS:
            raise InputError(
                f"{path}: an event of {called[identity]!r} is damaged (t {t!r}, target {shown(str(target))}, "
                f"kind {shown(str(kind))}); import the timeline again"
            )
        key = (target, kind)
        if key not in clean:
            clean[key] = kept_target(*key)  # an older version may have stored more of an address
        kept, found_kind = clean[key]
        if device not in devices:
            devices[device] = label(str(device))
        rows.add(
            called[identity],
            float(t),
            kept,
            found_kind,
            math.nan if duration is None else float(duration),
            devices[device],
            wave or 0,
        )
    if not len(rows):
        raise InputError(f"{path}: holds no events yet; {HOW}")
    _add_switches(connection, path, called, rows, report)
    timelines = timelines_of(rows, report, tz=zones, tz_known=known_zones)
    report.changed.clear()
    unknown = sorted(x.user for x in timelines if not x.tz_known)
    if unknown:
        report.notes.append(
            f"the time zone of {len(unknown)} of {len(timelines)} users is not known: theirs is UTC; "
            "give --tz to set one"
        )
    synthetic = any(row[5] for row in owners)
    if synthetic:
        report.notes.append("synthetic: some or all of these people are invented")
    return finish(path.name, timelines, report, collapsed=collapsed, synthetic=synthetic)


def _add_switches(
    connection: sqlite3.Connection, path: Path, called: dict[int, str], rows: Rows, report: ImportReport
) -> None:
    """When the machine was off, as far as it is stored; an older version stores nothing of it. called: the
    users by their timeline's number."""
    if not connection.execute("PRAGMA table_info(switches)").fetchall():
        return
    for identity, t, kind in connection.execute("SELECT timeline_id, t, kind FROM switches ORDER BY id"):
        if identity not in called:
            continue
        report.rows_read += 1
        if not (isinstance(t, float | int) and math.isfinite(t) and kind in SWITCHES):
            raise InputError(
                f"{path}: an off or a wake of {called[identity]!r} is damaged (t {t!r}); import the timeline "
                "again"
            )
        rows.add(called[identity], float(t), "", kind)

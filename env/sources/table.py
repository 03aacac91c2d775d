"""CSV and TSV, plain or gzipped: one event per row.

The columns are `user,t,target[,kind,duration,device,wave,private]`.

docs/timelines.md says for every kind of bad row whether it is refused or counted; the short of it:
what makes *all* rows doubtful (wrong columns, milliseconds, local times without a zone, an unclosed
quote) is an error that names the line, what spoils one row drops that row and is counted, and when
more than half of the rows are spoiled the file is refused.
"""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from env.errors import InputError
from env.sources.lines import TableFile, read_rows
from env.sources.names import clean_name, shown, target_and_kind
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of
from env.timeline import KINDS

REQUIRED = ("user", "t", "target")
OPTIONAL = ("kind", "duration", "device", "wave", "private")
ALIASES = {"label": "target", "incognito": "private", "inprivate": "private"}
NOT_PRIVATE = ("", "0", "false", "no", "n", "f", "off", "none", "null")  # all else means yes
PRIVATE = "opened in a private window"
EARLIEST = 631_152_000.0  # 1990-01-01: before that, a clock was not set
DAY_S = 86_400.0
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE_ONLY = re.compile(r"\d{4}-?\d\d-?\d\d", re.ASCII)


class Clock:
    """Reads times; remembers the time zone in which local times are to be understood.

    `tz` None means that none was given: local times without an offset are then refused.
    """

    def __init__(self, path: Path, tz: str | None, now: float | None = None) -> None:
        self.path = path
        self.zone = None if tz is None else ZoneInfo(tz)
        self.latest = (time.time() if now is None else now) + DAY_S
        self.twice = 0

    def read(self, text: str, line: int) -> float | str:
        """Unix seconds, or the reason for which this row is dropped.

        Raises InputError for what would be wrong for the whole file: a unit other than seconds, or a
        local time when no zone is known.
        """
        text = text.strip()
        if _NUMBER.fullmatch(text):
            t = float(text)
            if abs(t) >= 1e11 and math.isfinite(t):
                raise InputError(
                    f"{self.path}, line {line}: t is {text}, too large for unix seconds: it looks like "
                    f"{_unit(t)}; divide the column by {_factor(t):,} and try again"
                )
        else:
            try:
                when = datetime.fromisoformat(text)
            except ValueError:
                return "t is missing" if not text else "t is neither unix seconds nor ISO 8601"
            if _DATE_ONLY.fullmatch(text):
                return "t is a date without a time of day"
            if when.tzinfo is None:
                if self.zone is None:
                    raise InputError(
                        f"{self.path}, line {line}: t is {text!r}, a local time without an offset; name its "
                        "time zone with --tz (such as --tz Europe/Berlin), or write 2025-03-03T09:00:00+01:00"
                    )
                when = when.replace(tzinfo=self.zone)
                if when.utcoffset() != when.replace(fold=1 - when.fold).utcoffset():
                    self.twice += 1
            try:
                t = when.timestamp()
            except (OverflowError, ValueError):
                return "t is before 1990"
        if not math.isfinite(t):
            return "t is not a finite number"
        if t < EARLIEST:
            return "t is before 1990"
        if t > self.latest:
            return "t is more than a day in the future"
        return t

    def close(self, report: ImportReport) -> None:
        """Report the local times that the change from or to summer time makes uncertain."""
        report.change("local time in the hour of a clock change (taken as the first)", count=self.twice)


def load(
    table: TableFile,
    *,
    collapsed: bool = True,
    tz: str | None = None,
    page: str = "host",
    now: float | None = None,
) -> Loaded:
    """The events of a CSV or TSV, one timeline per user.

    `now` (unix seconds) is what the future is measured from, by default the clock. Raises InputError.
    """
    path = table.path
    where = _columns(table)
    report = ImportReport(source=path.name)
    clock = Clock(path, tz, now)
    rows = Rows()
    names: dict[tuple[str, str], tuple[str, str, str]] = {}
    users: dict[str, str] = {}
    devices: dict[str, str] = {}
    width = len(table.header)
    at_user, at_t, at_target = (where[c] for c in REQUIRED)
    at_kind, at_duration, at_device, at_wave, at_private = (where.get(c, -1) for c in OPTIONAL)
    for line, fields in read_rows(table):
        report.rows_read += 1
        if len(fields) != width and (len(fields) < width or any(fields[width:])):
            report.drop(f"not {width} columns", f"line {line} has {len(fields)}")
            continue
        if "\0" in fields[at_user] or "\0" in fields[at_target] or "\0" in fields[at_t]:
            report.drop("NUL byte", f"line {line}")
            continue
        if at_private >= 0 and fields[at_private].strip().lower() not in NOT_PRIVATE:
            report.drop(PRIVATE)  # and nothing more of the row is read: none of it may stand in a report
            continue
        raw_user = fields[at_user]
        user = users.get(raw_user)
        if user is None:
            user = users[raw_user] = clean_name(raw_user)
        if not user:
            report.drop("user is missing", f"line {line}")
            continue
        t = clock.read(fields[at_t], line)
        if isinstance(t, str):
            report.drop(t, f"line {line}: {_quote(fields[at_t])}")
            continue
        key = (fields[at_target], fields[at_kind] if at_kind >= 0 else "")
        found = names.get(key)
        if found is None:
            found = names[key] = _target(*key, page)
        target, kind, remark = found
        if not target:
            report.drop(remark, f"line {line}: {_quote(key[0] if kind else key[1])}")
            continue
        if remark:
            report.change(remark, f"line {line}")
        duration = math.nan
        if at_duration >= 0 and fields[at_duration].strip():
            duration = _duration(fields[at_duration])
            if math.isnan(duration):
                report.change(
                    "duration is no number of seconds (left unknown)",
                    f"line {line}: {_quote(fields[at_duration])}",
                )
        device = ""
        if at_device >= 0:
            raw = fields[at_device]
            if raw not in devices:
                devices[raw] = clean_name(raw)
            device = devices[raw]
        wave = 0
        if at_wave >= 0 and fields[at_wave].strip():
            text = fields[at_wave].strip()
            if not (text.isascii() and text.isdigit() and len(text) <= 4):
                report.drop("wave is no whole number from 0 to 9999", f"line {line}: {_quote(text)}")
                continue
            wave = int(text)
        rows.add(user, t, target, kind, duration, device, wave)
    clock.close(report)
    refuse_spoiled(path, report, ignore=(PRIVATE,))
    timelines = timelines_of(rows, report, tz=tz or "UTC", tz_known=tz is not None, drop_duplicates=True)
    if tz is None:
        report.notes.append("the time zone is not known: hours and weekdays are in UTC; give --tz to set one")
    ignored = [h for h in table.header if _canonical(h) not in (*REQUIRED, *OPTIONAL)]
    if ignored:
        report.notes.append(
            "columns not read: " + ", ".join(target_and_kind(x)[0] or "(unnamed)" for x in ignored)
        )
    return finish(path.name, timelines, report, collapsed=collapsed)


def refuse_spoiled(path: Path, report: ImportReport, ignore: tuple[str, ...] = ()) -> None:
    """Raise InputError when no row, or not even half of the rows, could be used.

    Reasons in `ignore` are rows that a format is known to hold and that are no events.
    """
    if report.rows_read == 0:
        raise InputError(f"{path}: has a header and no rows; add rows such as ada,1741000000,Mail")
    bad = {r: n for r, n in report.dropped.items() if r not in ignore}
    if not bad:
        if sum(report.dropped.values()) == report.rows_read:
            raise InputError(f"{path}: none of its {report.rows_read:,} rows opens anything")
        return
    if sum(bad.values()) * 2 > report.rows_read:
        reason = max(bad, key=bad.__getitem__)
        raise InputError(
            f"{path}: {sum(bad.values()):,} of {report.rows_read:,} rows cannot be used, most often because "
            f"{reason} ({report.first.get(reason, 'see docs/timelines.md')}); accepted are unix seconds or "
            "ISO 8601 times, a user and a target in every row; see docs/timelines.md"
        )


def _columns(table: TableFile) -> dict[str, int]:
    """Column name → position. Raises InputError where a needed one is missing or one stands twice."""
    where: dict[str, int] = {}
    names = [_canonical(h) for h in table.header]
    for i, (name, own) in enumerate(zip(names, table.header, strict=True)):
        if name not in (*REQUIRED, *OPTIONAL):
            continue
        if name in where:
            # a file may have both: `target` is the contract's word, `label` only taken for it
            if {table.header[where[name]].lower(), own.lower()} == {"target", "label"}:
                if own.lower() == "target":
                    where[name] = i
                continue
            raise InputError(f"{table.path}, line 1: column {own!r} stands there twice; rename one of them")
        where[name] = i
    missing = [c for c in REQUIRED if c not in where]
    if missing:
        found = ", ".join(_quote(h) for h in table.header[:8])
        raise InputError(
            f"{table.path}, line 1: no column {' and no column '.join(missing)}; found {found}; "
            "wanted is a header user,t,target[,kind,duration,device]"
        )
    return where


def _canonical(header: str) -> str:
    name = header.strip().lower()
    return ALIASES.get(name, name)


def _target(text: str, kind: str, page: str) -> tuple[str, str, str]:
    """(target, kind, remark); an empty target means that the row is dropped for the reason in remark
    (an empty kind with it: it is the kind that is at fault)."""
    kind = kind.strip().lower()
    if kind and kind not in KINDS:
        return "", "", f"kind is none of {', '.join(KINDS)}"
    text = text.strip()
    name, found = target_and_kind(text, kind, page)
    if not name:
        return "", found, "target has no host" if text and found == "page" else "target is missing"
    address = found == "page" or found != (kind or "app")
    remark = f"address reduced to its {page}" if address else "name cleaned or shortened"
    return name, found, "" if name == text else remark


def _duration(text: str) -> float:
    text = text.strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if 0 <= value < 1e9 else math.nan


def _unit(t: float) -> str:
    return "milliseconds" if abs(t) < 1e14 else "microseconds" if abs(t) < 1e17 else "nanoseconds"


def _factor(t: float) -> int:
    return 1000 if abs(t) < 1e14 else 1_000_000 if abs(t) < 1e17 else 1_000_000_000


def _quote(text: str) -> str:
    """As a message may show it: an address may hold what nobody should read in a report."""
    return shown(text)


def iso(t: float) -> str:
    """Unix seconds as ISO 8601 in UTC, for messages."""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

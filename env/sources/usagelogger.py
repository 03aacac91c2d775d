"""UsageLogger: Android's UsageEvents of one phone, as the app of that name exports them.

Source: github.com/davidaellis/UsageLoggerPublished (Apache-2.0; Geyer et al. 2022,
doi 10.3758/s13428-021-01585-7). `past_usage.csv` has no header; its columns are unix milliseconds, app
and the number of an UsageEvents type, of which 1 (moved to the foreground) is an open, and 26 and 27 say
that the phone was switched off and came back. Everything else (moved to the background, notification seen,
screen on, …) is counted and dropped: taking process noise for what a person did is what spoilt earlier work.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

from env.errors import InputError
from env.sources.clock import Clock
from env.sources.lines import TableFile, look, read_rows
from env.sources.names import shown, target_and_kind
from env.sources.recordings import data_root
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of
from env.sources.table import refuse_spoiled

FILE = "past_usage.csv"
FOREGROUND = "1"
SWITCHED = {"26": "off", "27": "wake"}  # DEVICE_SHUTDOWN, DEVICE_STARTUP
USER = "phone"
_MS = re.compile(r"\d{12,13}", re.ASCII)
# fmt: off
_TYPES = {"2": "moved to the background", "10": "notification seen", "11": "standby bucket changed",
          "12": "notification", "15": "screen on", "16": "screen off", "17": "keyguard shown",
          "18": "keyguard hidden", "5": "configuration changed", "7": "user interaction", "8": "shortcut"}
# fmt: on


def find() -> Path:
    """The sample in the data root. Raises InputError where it is not there."""
    path = data_root() / "usagelogger" / FILE
    if not path.is_file():
        raise InputError(
            f"usagelogger: {path} is not there; give the path of your own {FILE} to --timelines, "
            "or name the data folder in RLMEMO_DATA"
        )
    return path


def recognises(table: TableFile) -> bool:
    """Whether a file's first line is one of UsageLogger's."""
    h = table.header
    return len(h) >= 3 and bool(_MS.fullmatch(h[0])) and h[2].isascii() and h[2].isdigit() and not any(h[3:])


def load(table: TableFile | None = None, *, collapsed: bool = True, tz: str | None = None) -> Loaded:
    """The phone's opens as one timeline of user `phone`. Raises InputError."""
    table = look(find()) if table is None else table
    path = table.path
    if not recognises(table):
        raise InputError(f"{path}, line 1: wanted are milliseconds, app and event type, without a header")
    report = ImportReport(source=f"usagelogger ({path.name})")
    clock = Clock(path, tz)
    rows = Rows()
    others: Counter[str] = Counter()
    for line, fields in read_rows(table, skip_header=False):
        report.rows_read += 1
        if len(fields) < 3 or any(x.strip() for x in fields[3:]):
            report.drop("not 3 columns", f"line {line} has {len(fields)}")
            continue
        ms, app, event_type = (x.strip() for x in fields[:3])
        if not _MS.fullmatch(ms):
            report.drop("time is no number of milliseconds", f"line {line}: {shown(ms)}")
            continue
        if event_type != FOREGROUND and event_type not in SWITCHED:
            others[event_type] += 1
            continue
        t = clock.read(str(int(ms) / 1000.0), line)
        kind = SWITCHED.get(event_type, "")
        name, kind = ("", kind) if kind else target_and_kind(app, "app")
        if isinstance(t, str) or not (name or event_type in SWITCHED):
            reason = t if isinstance(t, str) else "app is missing"
            report.drop(reason, f"line {line}")
            continue
        rows.add(USER, t, name, kind, math.nan, "phone")
    not_opens = []
    for event_type, count in others.most_common():
        what = _TYPES.get(event_type, "not a known type")
        not_opens.append(f"event type {target_and_kind(event_type)[0][:10]} ({what}), not an open")
        report.drop(not_opens[-1], count=count)
    refuse_spoiled(path, report, ignore=tuple(not_opens))
    timelines = timelines_of(rows, report, tz=tz or "UTC", tz_known=tz is not None)
    if tz is None:
        report.notes.append(
            "the phone's time zone is not known: hours and weekdays are in UTC; give --tz to set one"
        )
    return finish("usagelogger", timelines, report, collapsed=collapsed)

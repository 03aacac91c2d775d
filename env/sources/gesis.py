"""GESIS's sample of web tracking: 10 people, 18,878 page visits, May and June 2013, all names hashed.

Source: github.com/gesiscss/web_tracking, licence GPL-3.0, `tutorial/data/[1]urls_raw.csv`. Columns: id,
panelist_id, url, used_at (wall-clock time), active_seconds, domain, category. The panel is German; in which
zone `used_at` counts was not published.
"""

from __future__ import annotations

import math
from pathlib import Path

from env.errors import InputError
from env.sources.clock import Clock
from env.sources.lines import look, read_rows
from env.sources.missing import missing
from env.sources.names import clean_name, shown
from env.sources.recordings import published
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of

COMMIT = "6a033de13c41d65853488572768d3c3f12ddb674"
URL = f"https://raw.githubusercontent.com/gesiscss/web_tracking/{COMMIT}/tutorial/data/%5B1%5Durls_raw.csv"
SHA256 = "4e89c5d07b68df6918add5431ddb0ae7bd4004fcdfb61578e2af377fb3b33763"
FILE = "urls_raw.csv"
COLUMNS = ("id", "panelist_id", "url", "used_at", "active_seconds", "domain", "category")


def find() -> Path:
    """The recording on this machine; see `env.sources.recordings.published`."""
    return published("gesis", FILE, URL, SHA256)


def load(*, collapsed: bool = True, tz: str | None = None) -> Loaded:
    """The recording as ten timelines, sorted by user and time (stable). A page is its (hashed) domain; its
    duration is the time that it was active.

    `used_at` is read as local time in `tz`, by default UTC, and `tz_known` says which.
    """
    path = find()
    table = look(path)
    if tuple(h.lower() for h in table.header) != COLUMNS:
        raise InputError(f"{path}, line 1: wanted is the header {','.join(COLUMNS)}")
    report = ImportReport(source="gesis")
    clock, rows = Clock(path, tz or "UTC"), Rows()
    for line, (_, user, _, used_at, active, domain, _) in read_rows(table):
        report.rows_read += 1
        if missing(domain) or missing(used_at):
            report.drop("no domain or no time", f"line {line}")
            continue
        t = clock.read(used_at, line)
        if isinstance(t, str):
            report.drop(t, f"line {line}: {shown(used_at)}")
            continue
        duration = math.nan if missing(active) else float(active)
        rows.add(clean_name(user), t, clean_name(domain), "page", duration=duration)
    clock.close(report)
    timelines = timelines_of(rows, report, tz=tz or "UTC", tz_known=tz is not None)
    report.notes.append(
        "the recording's time zone was not published (the panel is German): its times are read as UTC; give "
        "--tz Europe/Berlin to read them as German ones"
        if tz is None
        else f"the time zone {tz} was given, not recorded"
    )
    return finish("gesis", timelines, report, collapsed=collapsed)

"""LSApp: 292 people's phone apps (Aliannejadi et al., TOIS 2021), the field's standard recording.

A TSV of user_id, session_id, timestamp, app_name, event_type; `Opened` rows are the events, as in the
authors' own preparation. It may not be passed on: whoever has it puts `lsapp.tsv` or `lsapp.tsv.gz`
into the folder `lsapp` of the data root, or names the file. Its timestamps are wall-clock times whose
zone was not published: they are read in `tz`, by default UTC, and `tz_known` says which.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from env.errors import InputError
from env.sources.clock import Clock
from env.sources.lines import TableFile, look, read_rows
from env.sources.names import Target, clean_name, shown, target_and_kind
from env.sources.recordings import data_root
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of
from env.sources.table import refuse_spoiled

COLUMNS = ("user_id", "session_id", "timestamp", "app_name", "event_type")
FILES = ("lsapp.tsv", "lsapp.tsv.gz")
OPENED = "Opened"


def find() -> Path:
    """The recording in the data root. Raises InputError where it is not there."""
    folder = data_root() / "lsapp"
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"lsapp is not in {folder}, and may not be passed on with this package; get lsapp.tsv.gz from "
        "github.com/aliannejadi/LSApp and put it there, or give its path to --timelines"
    )


def recognises(table: TableFile) -> bool:
    """Whether a file has LSApp's header."""
    return tuple(h.lower() for h in table.header) == COLUMNS


def load(table: TableFile | None = None, *, collapsed: bool = True, tz: str | None = None) -> Loaded:
    """LSApp's opens, one timeline per user, sorted by user id. Raises InputError."""
    table = look(find()) if table is None else table
    path = table.path
    if not recognises(table):
        raise InputError(
            f"{path}, line 1: wanted is the header {' '.join(COLUMNS)}, separated by tabs; "
            f"found {' '.join(clean_name(h) for h in table.header[:6])}"
        )
    report = ImportReport(source="lsapp")
    clock = Clock(path, tz or "UTC")
    rows = Rows()
    others: Counter[str] = Counter()
    apps: dict[str, Target] = {}
    last_text, last_t = "", 0.0
    for line, fields in read_rows(table):
        report.rows_read += 1
        if len(fields) != len(COLUMNS):
            report.drop(f"not {len(COLUMNS)} columns", f"line {line} has {len(fields)}")
            continue
        user, _, timestamp, app, event_type = fields
        if event_type.strip() != OPENED:
            others[event_type.strip()] += 1
            continue
        # neighbours often share a second, and parsing it is most of the work
        if timestamp != last_text:
            t = clock.read(timestamp, line)
            if isinstance(t, str):
                report.drop(t, f"line {line}: {shown(timestamp)}")
                continue
            last_text, last_t = timestamp, t
        if app not in apps:
            apps[app] = target_and_kind(app, "app")
        who, (what, kind) = clean_name(user), apps[app]
        if not who or not what:
            report.drop("user_id or app_name is missing", f"line {line}")
            continue
        rows.add(who, last_t, what, kind)
    not_opens = []
    for event_type, count in others.most_common():
        reason = f"event type {target_and_kind(event_type)[0][:40] or '(none)'}, not {OPENED}"
        not_opens.append(reason)
        report.drop(reason, count=count)
    clock.close(report)
    refuse_spoiled(path, report, ignore=tuple(not_opens))
    timelines = timelines_of(rows, report, tz=tz or "UTC", tz_known=tz is not None)
    report.notes.append(
        f"the time zone of LSApp's wall-clock times was not published: they are read in {tz or 'UTC'}"
        + ("" if tz else "; give --tz to set another")
    )
    return finish("lsapp", timelines, report, collapsed=collapsed)

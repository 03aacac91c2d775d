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
from pathlib import Path

from env.errors import InputError
from env.sources.clock import NUMBER, Clock, tell_apart
from env.sources.columns import command, layout
from env.sources.lines import TableFile, read_rows
from env.sources.missing import missing
from env.sources.names import label, shown, target_and_kind
from env.sources.offsets import Zones
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of
from env.sources.time_texts import DAY_FIRST, DAY_OR_MONTH, DECIMAL_COMMA, SHEET_DAY, YEAR_FIRST, ZONE_LETTERS
from env.timeline import KINDS, SWITCHES

NOT_PRIVATE = ("", "0", "false", "no", "n", "f", "off", "none", "null")  # all else means yes
PRIVATE = "opened in a private window"
LAST_OLD_DAY = "2001-09-09"  # before it, unix seconds have nine digits, as Apple's have today
NO_USER, NO_TARGET = "user is missing", "target is missing"
KIND_WORDS = {
    "web": "page",
    "website": "page",
    "web page": "page",
    "webpage": "page",
    "site": "page",
    "url": "page",
    "application": "app",
    "shutdown": "off",
    "device_shutdown": "off",
    "startup": "wake",
    "device_startup": "wake",
}
_HOURS = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)", re.ASCII)
_WAVE = re.compile(r"(\d{1,4})(?:\.0*)?", re.ASCII)
# what to do about rows that are dropped for a reason that begins so
_ADVICE = {
    DAY_FIRST: YEAR_FIRST,
    DAY_OR_MONTH: YEAR_FIRST,
    SHEET_DAY: "format the column as YYYY-MM-DD HH:MM:SS before it is saved as CSV",
    DECIMAL_COMMA: "write 1772438400.25, with a point",
    ZONE_LETTERS: "write the offset, such as 2026-03-02 09:00:00+01:00, or leave it out and give --tz",
    "t ": "accepted are unix seconds or ISO 8601 times, such as 2026-03-02T09:00:00+01:00",
    "kind ": f"accepted are {', '.join((*KINDS, *SWITCHES))}, or nothing, and it is guessed",
    "wave ": "accepted are whole numbers from 0 to 9999, or nothing",
    "user ": "every row needs a user",
    "target ": "every row needs a target: an app's name, or a page's address",
    "not ": "put fields that hold the delimiter or a newline into quotation marks",
}


def load(
    table: TableFile,
    *,
    collapsed: bool = True,
    tz: str | None = None,
    page: str = "host",
    now: float | None = None,
    epoch: str | None = None,
    columns: str | None = None,
    user: str | None = None,
) -> Loaded:
    """The events of a CSV or TSV, one timeline per user.

    `now` (unix seconds) is what the future is measured from, by default the clock. `epoch`, `columns` and
    `user` are what the options of these names say. Raises InputError.
    """
    path = table.path
    found = layout(table, columns, user)
    report = ImportReport(source=path.name)
    clock = Clock(
        path, tz, now, epoch=epoch or found.epoch, retry=command(table.whole or path, tz, columns, user)
    )
    zones = Zones()
    rows = Rows()
    names: dict[tuple[str, str], tuple[str, str, str]] = {}
    users: dict[str, str] = {}
    devices: dict[str, str] = {}
    hidden: dict[str, bool] = {}
    twice: dict[int, float] = {}
    width = len(table.header)
    at_user, at_target, at_kind, at_duration, at_device, at_wave, at_private, at_offset = (
        found.one(c) for c in ("user", "target", "kind", "duration", "device", "wave", "private", "offset")
    )
    at_t, *more_t = found.where["t"]
    for line, fields in read_rows(table):
        report.rows_read += 1
        if len(fields) != width and (len(fields) < width or any(fields[width:])):
            report.drop(f"not {width} columns", f"line {line} has {len(fields)}")
            continue
        raw_t = fields[at_t] if not more_t else " ".join(fields[i].strip() for i in (at_t, *more_t))
        raw_user = fields[at_user] if at_user >= 0 else found.user
        if "\0" in raw_user or "\0" in fields[at_target] or "\0" in raw_t:
            report.drop("NUL byte", f"line {line}")
            continue
        if at_private >= 0:
            private = hidden.get(fields[at_private])
            if private is None:
                private = hidden[fields[at_private]] = _is_private(fields[at_private])
            if private:
                report.drop(PRIVATE)  # and nothing more is read of the row: none of it may stand in a report
                continue
        who = users.get(raw_user)
        if who is None:
            who = users[raw_user] = "" if missing(raw_user) and at_user >= 0 else label(raw_user)
        if not who:
            report.drop(NO_USER, f"line {line}")
            continue
        t = clock.read(raw_t, line)
        if isinstance(t, str):
            report.drop(t, f"line {line}: {_quote(raw_t)}")
            continue
        key = (fields[at_target], fields[at_kind] if at_kind >= 0 else "")
        named = names.get(key)
        if named is None:
            kind = _kind(key[1]) or found.kind
            if kind in SWITCHES:
                named = "", kind, ""
            else:
                named = ("", kind or "app", NO_TARGET) if missing(key[0]) else _target(key[0], kind, page)
            names[key] = named
        target, kind, remark = named
        if not target and kind not in SWITCHES:
            # what is said to be a page shows nothing, also where it does not look like an address
            hidden_text = kind == "page" and target_and_kind(key[0])[1] != "page"
            where = "" if hidden_text else f": {_quote(key[0] if kind else key[1])}"
            report.drop(remark, f"line {line}{where}")
            continue
        if remark:
            report.change(remark, f"line {line}")
        duration = math.nan
        if at_duration >= 0 and not missing(fields[at_duration]):
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
                devices[raw] = "" if missing(raw) else label(raw)
            device = devices[raw]
        wave = 0
        if at_wave >= 0 and not missing(fields[at_wave]):
            number = _WAVE.fullmatch(fields[at_wave].strip())
            if number is None:
                report.drop(
                    "wave is no whole number from 0 to 9999",
                    f"line {line}: {_quote(fields[at_wave].strip())}",
                )
                continue
            wave = int(number[1])
        if at_offset >= 0 and clock.offset is None:
            clock.offset = _offset(fields[at_offset])
        if not math.isnan(clock.other):
            twice[len(rows)] = clock.other
        zones.add(who, clock.named, clock.offset)
        rows.add(who, t, target, kind, duration, device, wave)
    clock.check()
    # rows in which nothing is given spoil no file, as long as there are others
    refuse_spoiled(path, report, ignore=(PRIVATE, NO_USER, NO_TARGET) if len(rows) else (PRIVATE,))
    if twice:
        tell_apart(rows, twice, report)
    found_tz, known, said = zones.settle(rows, tz)
    timelines = timelines_of(rows, report, tz=found_tz, tz_known=known, drop_duplicates=True)
    report.notes += [*table.notes, *found.notes, *said]
    used = {i for at in found.where.values() for i in at}
    ignored = [h for i, h in enumerate(table.header) if i not in used and h.lower() != "label"]
    if ignored:
        report.notes.append(
            "columns not read: " + ", ".join(target_and_kind(x)[0] or "(unnamed)" for x in ignored)
        )
    loaded = finish(path.name, timelines, report, collapsed=collapsed)
    if epoch is None and "" < report.last_day < LAST_OLD_DAY:  # numbers are refused; dates may come from them
        report.notes.append(
            f"no time is later than {report.last_day}: if that is not so, the file was made by a wrong clock "
            "(Apple's counts from 2001, not 1970: add 31 years)"
        )
    return loaded


def refuse_spoiled(path: Path, report: ImportReport, ignore: tuple[str, ...] = ()) -> None:
    """Raise InputError when no row, or not even half of the rows, could be used.

    Reasons in `ignore` are rows that a format is known to hold and that are no events.
    """
    if report.rows_read == 0:
        raise InputError(f"{path}: has a header and no rows; add rows such as ada,1741000000,Mail")
    bad = {r: n for r, n in report.dropped.items() if r not in ignore}
    if not bad:
        if sum(report.dropped.values()) == report.rows_read:
            why = ", ".join(f"{n:,}: {reason}" for reason, n in report.dropped.most_common())
            raise InputError(f"{path}: none of its {report.rows_read:,} rows opens anything ({why})")
        return
    if sum(bad.values()) * 2 > report.rows_read:
        reason = max(bad, key=bad.__getitem__)
        advice = next(
            (said for start, said in _ADVICE.items() if reason.startswith(start)), "look at these lines"
        )
        raise InputError(
            f"{path}: {sum(bad.values()):,} of {report.rows_read:,} rows cannot be used, most often because "
            f"{reason} ({report.first.get(reason, 'see docs/timelines.md')}); {advice}; see docs/timelines.md"
        )


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


def _kind(text: str) -> str:
    """A kind in our words; an unknown one stays as it is."""
    if missing(text):
        return ""
    word = text.strip().lower()
    return KIND_WORDS.get(word, word)


def _is_private(text: str) -> bool:
    word = text.strip().lower()
    if missing(text) or word in NOT_PRIVATE:
        return False
    return not NUMBER.fullmatch(word) or float(word) != 0.0


def _duration(text: str) -> float:
    text = text.strip()
    if match := _HOURS.fullmatch(text):
        return int(match[1]) * 3600.0 + int(match[2]) * 60.0 + float(match[3])
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if 0 <= value < 1e9 else math.nan


def _offset(text: str) -> int | None:
    text = text.strip()
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return int(value) if abs(value) <= 14 * 3600 else None


def _quote(text: str) -> str:
    """As a message may show it: an address may hold what nobody should read in a report."""
    return shown(text)

"""Which column of a table is which: the contract's own names, well-known exports, and `--columns`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from env.errors import InputError
from env.sources.lines import TableFile, read_rows
from env.sources.names import clean_name, label, shown
from env.sources.time_texts import DAY_FIRST, DAY_OR_MONTH, NO_TIME, YEAR_FIRST, ZONE_LETTERS, parse_time

REQUIRED = ("user", "t", "target")
OPTIONAL = ("kind", "duration", "device", "wave", "private")
ALIASES = {"label": "target", "incognito": "private", "inprivate": "private"}
DEFAULT_USER = "me"
PARQUET = "Parquet"
_SECONDS = re.compile(r"\d{9,}(?:\.\d*)?", re.ASCII)  # of unix, and its milliseconds: no header is called so
_GUESSES = {  # what others call them: only for advice, never read without a person's word
    "user": "user_id userid uid username participant participant_id panelist_id person subject email",
    "t": "timestamp time datetime date date_time when start start_time visit_time visit_date created_at",
    "target": "url app application app_name package package_name process process_name domain host site name",
}


_DATE_AND_TIME = (("date", "time"), ("start date", "start time"))


class HasUsers(InputError):
    """One user was named for a source that names its users itself."""


@dataclass(frozen=True)
class Format:
    """A well-known export, told by its headers.

    needs    headers that it has, in lower case
    columns  our name → its header in lower case ("a+b": both, with a space between), used where present;
             `offset` is the local time's distance from UTC in seconds
    kind     of all targets, "" where it is guessed
    note     what a reader of numbers should know
    refuse   why it holds no openings at all
    epoch    the clock that its numbers count on
    only     with what else it may have; () for anything
    """

    name: str
    needs: tuple[str, ...]
    columns: Mapping[str, str]
    kind: str = ""
    note: str = ""
    refuse: str = ""
    epoch: str | None = None
    only: tuple[str, ...] = ()


def _bucket(prefix: str) -> tuple[Format, ...]:
    times = {"t": "timestamp", "duration": "duration"}
    page = {"target": f"{prefix}url", "private": f"{prefix}incognito"}
    return (
        Format("ActivityWatch's web bucket", ("timestamp", "duration", page["target"]), times | page, "page"),
        Format(
            "ActivityWatch's window bucket",
            ("timestamp", "duration", f"{prefix}app"),
            times | {"target": f"{prefix}app"},
            "app",
        ),
        Format(
            "ActivityWatch's afk bucket",
            ("timestamp", "duration", f"{prefix}status"),
            {},
            refuse="it says when somebody was there, and holds no openings; give the window or web bucket",
        ),
    )


# The first that fits is taken, so what needs more stands before what needs less.
FORMATS = (
    Format(
        "webtrackR's columns",
        ("panelist_id", "timestamp", "url"),
        {"user": "panelist_id", "t": "timestamp", "target": "url"},
        "page",
    ),
    Format(
        "ActivityWatch's export",
        ("aw.timestamp", "aw.target"),
        {
            "t": "aw.timestamp",
            **{x: f"aw.{x}" for x in ("target", "kind", "duration", "device", "private")},
        },
    ),
    Format(
        "MEMO's log",
        ("memo.timestamp", "memo.target"),
        {"t": "memo.timestamp", "target": "memo.target", "kind": "memo.kind"},
        note="of MEMO's log the windows' times are local, those of the browsers' history UTC",
    ),
    Format(
        "Google Takeout's browser history",
        ("url", "time_usec"),
        {"t": "time_usec", "target": "url"},
        "page",
        epoch="unix",
    ),
    *(
        Format(
            f"{browser}'s history",
            (f"{browser.lower()}.t", f"{browser.lower()}.url"),
            {"t": f"{browser.lower()}.t", "target": f"{browser.lower()}.url"},
            "page",
            epoch=clock,
        )
        for browser, clock in (("Chrome", "webkit"), ("Firefox", "unix"), ("Safari", "apple"))
    ),
    Format(
        "Google Takeout's My Activity",
        ("activity.time", "activity.target"),
        {"t": "activity.time", "target": "activity.target", "kind": "activity.kind"},
        note="My Activity does not say on which device something was opened",
    ),
    Format(
        "Android's dumpsys usagestats",
        ("dumpsys.time", "dumpsys.package"),
        {"user": "user", "t": "dumpsys.time", "target": "dumpsys.package"},
        "app",
    ),
    *_bucket(""),
    *_bucket("data."),
    Format(
        "ScreenTime2CSV's export",
        ("app", "usage", "start_time", "end_time"),
        {"t": "start_time", "target": "app", "duration": "usage", "device": "device_id", "offset": "tz"},
        "app",
    ),
    Format(
        "RescueTime's export",
        ("date", "time spent (seconds)", "activity"),
        {"t": "date", "target": "activity", "duration": "time spent (seconds)"},
        note="RescueTime sums up over blocks of time: within a block the order is not the order of opening",
    ),
    Format(
        "Toggl's detailed report",
        ("start date", "start time", "description"),
        {"user": "user", "t": "start date+start time", "target": "description", "duration": "duration"},
        "app",
        note="Toggl's descriptions are what somebody worked on, not what was opened",
    ),
    Format(
        "App Usage's export",
        ("app name", "date", "time"),
        {"t": "date+time", "target": "app name", "duration": "duration"},
        "app",
    ),
    Format(
        "browser-history's export",
        ("timestamp", "url"),
        {"t": "timestamp", "target": "url"},
        "page",
        only=("title", "browser", "profile"),  # with an `id`, it may be of several people
    ),
    Format("browserexport's visits", ("url", "dt"), {"t": "dt", "target": "url"}, "page"),
)


@dataclass(frozen=True)
class Layout:
    """Where things stand in a row.

    where  our name → the positions of its columns (several: joined with a space)
    user   the one user of the file, "" where a column names them
    kind   of rows that state none, "" where it is guessed
    epoch  the clock of a well-known export, where it is not unix seconds
    """

    where: Mapping[str, tuple[int, ...]]
    user: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    epoch: str | None = None

    def one(self, name: str) -> int:
        """The position of a column, -1 where the file has none."""
        return self.where[name][0] if name in self.where else -1


def command(path: Path, tz: str | None, columns: str | None, user: str | None) -> str:
    """The command that imports a table with these options, for advice: other commands take fewer."""
    options = (("--tz", tz), ("--columns", columns), ("--user", user))
    given = [f"{name} {shlex.quote(value)}" for name, value in options if value is not None]
    return " ".join(["python -m rlmemo.timelines import", shlex.quote(str(path)), *given])


def layout(table: TableFile, columns: str | None = None, user: str | None = None) -> Layout:
    """Where the columns stand: by `--columns`, their own names, or a well-known export's headers.

    `user` names the one user where no column does. Raises InputError where a column that is needed is
    missing or stands there twice, and HasUsers where `user` is given and not needed.
    """
    explicit = {name: _find(table, name, header) for name, header in parse_columns(columns).items()}
    own = _own(table, explicit)
    found: Format | None = None
    where = {**own, **explicit}
    if "t" not in where or "target" not in where:
        found = recognise(table.header)
    notes = []
    kind = ""
    if found is not None:
        if found.refuse:
            raise InputError(f"{table.path}: is {found.name}: {found.refuse}")
        theirs = {}
        for name, header in found.columns.items():
            if all(part in _lower(table.header) for part in header.split("+")):
                theirs[name] = _find(table, name, header)
        where = {**own, **theirs, **explicit}
        kind = found.kind if "target" not in explicit else ""
        told = ", ".join(
            f"{name} from {'+'.join(clean_name(table.header[i]) for i in where[name])}"
            for name in ("user", "t", "target", *OPTIONAL, "offset")
            if name in where
        )
        notes += [f"read as {found.name}: {told}", *([found.note] if found.note else [])]
    if user is not None and not clean_name(user):
        raise InputError(f"--user {user!r}: is no name; give one that can be printed")
    if user is not None and "user" in where:
        header = table.header[where["user"][0]]
        raise HasUsers(f"{table.path}: its column {header!r} names the users; leave out --user {user}")
    # a column that may name the users is not passed over: one person must not be made of several
    several = set(_GUESSES["user"].split()) & set(_lower(table.header))
    if user is None and "user" not in where and found is not None and not several:
        user = DEFAULT_USER
        notes.append(f"no column names the user: all rows are of user {user!r}; --user gives another name")
    _check(table, where, columns, user)
    epoch = found.epoch if found is not None and "t" not in explicit else None
    return Layout(where, label(user or ""), kind, tuple(notes), epoch)


def recognise(header: list[str]) -> Format | None:
    """The well-known export that has such a header, if any."""
    names = set(_lower(header))
    fits = (x for x in FORMATS if names.issuperset(x.needs))
    return next(
        (x for x in fits if not x.only or names <= {*x.needs, *x.only, *OPTIONAL, *ALIASES, "user"}), None
    )


def parse_columns(text: str | None) -> dict[str, str]:
    """`user=…,t=Timestamp,target=URL` as our name → header. A header with a comma stands in quotes:
    `t="Time, local"`. Raises InputError."""
    if text is None:
        return {}
    such = "such as --columns t=Timestamp,target=URL; accepted names are " + ", ".join((*REQUIRED, *OPTIONAL))
    out: dict[str, str] = {}
    for part in _parts(text):
        name, equals, header = (x.strip() for x in part.partition("="))
        name = ALIASES.get(name.lower(), name.lower())
        if not equals or not header:
            raise InputError(f"--columns {text!r}: {part!r} is not NAME=HEADER, {such}")
        if name not in (*REQUIRED, *OPTIONAL):
            raise InputError(f"--columns {text!r}: {name!r} is no name of ours, {such}")
        if name in out:
            raise InputError(f"--columns {text!r}: {name} stands there twice; leave one of them")
        out[name] = header[1:-1] if header[:1] == header[-1:] == '"' else header
    if not out:
        raise InputError(f"--columns {text!r}: names no column, {such}")
    return out


def _parts(text: str) -> list[str]:
    # a quotation mark may open after the equals sign, which the csv module does not know
    out, inside = [""], False
    for c in text:
        inside ^= c == '"'
        if c == "," and not inside:
            out.append("")
        else:
            out[-1] += c
    return [x.strip() for x in out if x.strip()]


def _lower(header: list[str]) -> list[str]:
    return [h.strip().lower() for h in header]


def _find(table: TableFile, name: str, header: str) -> tuple[int, ...]:
    """The position of the column called `header`, or for t of several joined with a plus."""
    at = [i for i, h in enumerate(table.header) if h == header]
    at = at or [i for i, h in enumerate(_lower(table.header)) if h == header.lower()]
    if len(at) == 1:
        return (at[0],)
    if len(at) > 1:
        raise InputError(f"{_place(table)}: column {header!r} stands there twice; rename one of them")
    if name == "t" and "+" in header:
        return tuple(_find(table, "", part.strip())[0] for part in header.split("+"))
    if _is_row(table):
        raise _headless(table)
    raise InputError(
        f"{_place(table)}: no column {header!r} for {name or 't'}; found {_shown(table.header)}; "
        "name one of these with --columns"
    )


def _own(table: TableFile, explicit: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The columns that bear our own names."""
    where: dict[str, tuple[int, ...]] = {}
    taken = {i for at in explicit.values() for i in at}
    for i, own in enumerate(_lower(table.header)):
        name = ALIASES.get(own, own)
        if name not in (*REQUIRED, *OPTIONAL) or name in explicit or i in taken:
            continue
        if name in where:
            # a file may have both: `target` is the contract's word, `label` only taken for it
            if {table.header[where[name][0]].lower(), own} == {"target", "label"}:
                if own == "target":
                    where[name] = (i,)
                continue
            raise InputError(f"{_place(table)}: column {own!r} stands there twice; rename one of them")
        where[name] = (i,)
    return where


def _check(
    table: TableFile, where: Mapping[str, tuple[int, ...]], columns: str | None, user: str | None
) -> None:
    lacking = [c for c in REQUIRED if c not in where and not (c == "user" and user is not None)]
    if not lacking:
        return
    if _is_row(table):
        raise _headless(table)
    lower = _lower(table.header)
    wanted = [c for c in lacking if c != "user"]
    guess = {c: next((h for h in _GUESSES[c].split() if h in lower), None) for c in lacking}
    two = next((x for x in _DATE_AND_TIME if "t" in lacking and set(x) <= set(lower)), None)
    said = [] if columns is None else [columns]
    for c in wanted:
        parts = two if c == "t" and two is not None else (guess[c],)
        said.append(f"{c}={'+'.join('HEADER' if g is None else table.header[lower.index(g)] for g in parts)}")
    if "user" in lacking and guess["user"] is not None:
        said.append(f"user={table.header[lower.index(guess['user'])]}")
    elif "user" in lacking:
        user = "NAME"
    if table.form == PARQUET:
        called = "".join(f" ({guess[c]} may be {c})" for c in lacking if guess[c] is not None)
        raise InputError(
            f"{_place(table)}: no column {' and no column '.join(lacking)}; found {_shown(table.header)}; "
            f"wanted are columns user, t and target, and kind, duration, device where known; rename{called} "
            "or add them, and keep the file's metadata"
        )
    advice = command(table.path, None, ",".join(said) or None, user)
    raise InputError(
        f"{_place(table)}: no column {' and no column '.join(lacking)}; found {_shown(table.header)}; "
        f"wanted is a header user,t,target[,kind,duration,device]; or say what is what, with {advice}"
        f"{_undated(_first_row(table))}"
    )


def _is_row(table: TableFile) -> bool:
    """Whether the first line of a table is a row already: a time stands in it."""
    return table.rows is None and any(
        _SECONDS.fullmatch(x) is not None or parse_time(x) not in (NO_TIME, ZONE_LETTERS)
        for x in table.header
        if x
    )


def _headless(table: TableFile) -> InputError:
    return InputError(
        f"{_place(table)}: looks like a row, and there is no header; put a line above it that says what is "
        f"what, such as user,t,target (in the order of the columns); found {_shown(table.header)}"
        f"{_undated(table.header)}"
    )


def _first_row(table: TableFile) -> list[str]:
    """The fields below the header; none where they cannot be read, which is said later."""
    if table.rows is not None:
        return []
    try:
        return next(read_rows(table), (0, []))[1]
    except InputError:
        return []


def _undated(fields: list[str]) -> str:
    """What to do about a date among the fields that may be misread, so that it is no second error."""
    told = next((x for x in fields if parse_time(x.strip()) in (DAY_FIRST, DAY_OR_MONTH)), None)
    return "" if told is None else f"; {_quote(told)} is no time that can be told for sure: {YEAR_FIRST}"


def _place(table: TableFile) -> str:
    if table.rows is None:
        return f"{table.path}, line 1"
    form = table.form or ("dumpsys usagestats" if "dumpsys.time" in table.header else "JSON")
    return f"{table.path}, which is {form}"


def _shown(header: list[str]) -> str:
    # a file without a header has a row there, and what an address asks for is not shown
    plain = [h.split("?")[0].split("#")[0] for h in header[:8]]
    return ", ".join(map(_quote, plain)) + (", …" if len(header) > 8 else "")


def _quote(text: str) -> str:
    return shown(text)

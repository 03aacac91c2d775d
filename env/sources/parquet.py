"""Parquet: one file, or a folder of them, with the columns of a CSV and one or more people a file.

`index` finds out who is where from the column of users alone, and `load` reads one person after the other, so
that a folder need not fit into memory at once. What a row is, and which are dropped, is the CSV's business
(`env.sources.table`). The time zones of people stand in the files' metadata, under `rlmemo`, where
`rlmemo.runs.parquet_folder` wrote them.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from env.errors import InputError
from env.sources import table
from env.sources.columns import DEFAULT_USER, PARQUET, layout
from env.sources.lines import TableFile
from env.sources.names import shown
from env.sources.report import ImportReport, Loaded
from env.timeline import Timeline

MAGIC = b"PAR1"
SUFFIX = ".parquet"
METADATA = b"rlmemo"
Index = Mapping[str, Sequence[Path]]


def is_parquet(path: Path) -> bool:
    """Whether it is a Parquet file, by its first bytes, or a folder that holds some, by their names."""
    if path.is_dir():
        return any(path.glob(f"*{SUFFIX}"))
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def index(path: Path, *, columns: str | None = None, user: str | None = None) -> dict[str, list[Path]]:
    """Whom the files name, sorted, and which files each stands in. Raises InputError."""
    found: dict[str, list[Path]] = {}
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        with _open(file) as opened:
            at = _user_column(opened, file, columns, user)
            if at is None:
                names = [user or DEFAULT_USER]
            else:
                names = [_text(x) for x in opened.read(columns=[at]).column(0).unique().to_pylist()]
        for name in names:
            found.setdefault(name, []).append(file)
    if not found:
        raise InputError(f"{path}: has the right columns and no rows; name one with rows, or write it anew")
    return dict(sorted(found.items()))


def load(
    path: Path, *, collapsed: bool = True, tz: str | None = None, page: str = "host",
    epoch: str | None = None, columns: str | None = None, user: str | None = None, only: Index | None = None,
) -> Loaded:  # fmt: skip
    """Timelines sorted by user, read person by person. only: these people alone, a part of `index`; the rest
    is as in `load_timelines`. Raises InputError."""
    timelines: list[Timeline] = []
    report, synthetic = ImportReport(source=path.name), True
    asked = index(path, columns=columns, user=user) if only is None else only
    for name, files in asked.items():
        rows, about = _rows(name, files, columns, user)
        rows = replace(rows, whole=path)
        if not name and len(asked) > 1:  # as in a CSV: they are left out, and counted
            report.rows_read += len(rows.rows or ())
            report.drop(table.NO_USER, count=len(rows.rows or ()))
            continue
        zone, known = about.get("tz", {}).get(name, (None, True))
        try:
            one = table.load(
                rows, collapsed=collapsed, tz=tz or zone, page=page, epoch=epoch, columns=columns, user=user
            )
        except InputError as error:
            raise InputError(f"user {shown(name)}: {_row_of(str(error))}") from None
        timelines += [x if tz or known else replace(x, tz_known=False) for x in one.timelines]
        synthetic &= bool(about.get("synthetic", False))
        _add(report, one.report, name)
    report.users = len(timelines)
    return Loaded(path.name, sorted(timelines, key=lambda x: x.user), report, synthetic)


def _rows(
    name: str, files: Sequence[Path], columns: str | None, user: str | None
) -> tuple[TableFile, dict[str, Any]]:
    """One person's rows as a table of texts, and what the files say about themselves."""
    import pyarrow.compute as pc

    header: list[str] = []
    rows: list[list[str]] = []
    about: dict[str, Any] = {}
    for file in files:
        with _open(file) as opened:
            at = _user_column(opened, file, columns, user)
            groups = range(opened.num_row_groups) if at is None else _groups_of(opened, at, name)
            read = opened.read_row_groups(list(groups))
            if at is not None:
                column = read.column(at)
                mine = pc.is_null(column) if not name else pc.equal(column.cast("string"), name)
                read = read.filter(mine)
            if header and header != read.column_names:
                raise InputError(f"{file}: its columns are not those of {files[0].name}; give them the same")
            header = read.column_names
            rows += zip(*([_text(x) for x in c.to_pylist()] for c in read.columns), strict=True)  # type: ignore[arg-type]
            about |= _about(opened, file)
    return TableFile(files[0], False, "", header, [list(x) for x in rows], form=PARQUET), about


def _groups_of(opened: Any, at: str, name: str) -> Iterator[int]:
    """The row groups that may hold a person, by their statistics."""
    place = opened.schema_arrow.names.index(at)
    for number in range(opened.num_row_groups):
        told = opened.metadata.row_group(number).column(place).statistics
        texts = told is not None and told.has_min_max and isinstance(told.min, str)  # numbers sort otherwise
        if not name or not texts or told.min <= name <= told.max:
            yield number


def _user_column(opened: Any, file: Path, columns: str | None, user: str | None) -> str | None:
    """What the column of users is called; None where there is one user and no column. Raises InputError."""
    names = opened.schema_arrow.names
    first = next(opened.iter_batches(batch_size=20), None)
    rows = [] if first is None else [[_text(x) for x in row.values()] for row in first.to_pylist()]
    table_file = TableFile(file, False, "", [x.strip() for x in names], rows, form=PARQUET)
    at = layout(table_file, columns, user).one("user")
    return names[at] if at >= 0 else None  # type: ignore[no-any-return]


def _about(opened: Any, file: Path) -> dict[str, Any]:
    told = (opened.schema_arrow.metadata or {}).get(METADATA)
    try:
        about = {} if told is None else json.loads(told)
        return {"tz": dict(about.get("tz", {})), "synthetic": about.get("synthetic", False)}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: what it says about itself is damaged ({error}); write it anew") from None


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    """A Parquet file. Raises InputError where it is none, or is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file}: cannot be read as Parquet ({reason}); copy it anew") from None


def _text(x: object) -> str:
    """A value as a CSV would have it."""
    if x is None:
        return ""
    return x.isoformat() if isinstance(x, dt.datetime) else str(x)


def _row_of(text: str) -> str:
    """What is said of a line: there are none here, and what was counted are one person's rows."""
    return re.sub(r"\bline (\d+)\b", r"row \1 of this user", text, count=1)


def _add(report: ImportReport, one: ImportReport, user: str) -> None:
    """Put one person's account into everybody's."""
    for name in ("rows_read", "kept", "collapsed", "offs", "wakes"):
        setattr(report, name, getattr(report, name) + getattr(one, name))
    report.dropped.update(one.dropped)
    report.changed.update(one.changed)
    first = {k: f"user {shown(user)}, {_row_of(x)}" for k, x in one.first.items()}
    report.first = {**first, **report.first}
    report.notes += [note for note in one.notes if note not in report.notes]
    days = [x for x in (report.first_day, one.first_day) if x]
    report.first_day, report.last_day = min(days, default=""), max(report.last_day, one.last_day)

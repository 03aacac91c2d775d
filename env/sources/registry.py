"""Timeline sources by name: one table, and the one door through which all of them are loaded.

Each source turns a foreign recording into events, and never guesses a time zone silently. `load_timelines`
takes what `--timelines` takes everywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from env.errors import InputError
from env.sources import (
    browsers,
    database,
    demo,
    demo_nights,
    gesis,
    lines,
    lsapp,
    parquet,
    table,
    usagelogger,
    webtrackr,
)
from env.sources.clock import EPOCHS
from env.sources.columns import HasUsers
from env.sources.names import PAGE_SETTINGS
from env.sources.recordings import data_root
from env.sources.report import Loaded
from env.sources.sqlite_files import Kind, kind_of
from env.timeline import zone


@dataclass(frozen=True)
class Source:
    """A recording that has a name.

    module: has `load(collapsed=, tz=, …)`; what: a line for people; files: where it lies in the data
    folder, the first that is there; options: what else `load` takes; download: whether it is fetched where
    it is not here; by_content: whether a file of that form is recognised (`module.recognises`).
    """

    module: ModuleType
    what: str
    files: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    download: bool = False
    by_content: bool = False


SOURCES = {
    "demo": Source(
        demo, "synthetic: six invented people, eight weeks, drawn from a seed", options=("seed", "weeks")
    ),
    "demo-nights": Source(
        demo_nights, "synthetic: the same people, whose machines are off at night", options=("seed", "weeks")
    ),
    "webtrackr": Source(
        webtrackr,
        "real: 5 people's page visits, Feb-Aug 2019 (MIT; downloaded where it is not here)",
        ("webtrackr/testdt_tracking.rda",),
        options=("page",),
        download=True,
    ),
    "gesis": Source(
        gesis,
        "real: 10 people's page visits, May-June 2013, hashed (GPL-3.0; downloaded where it is not here)",
        ("gesis/urls_raw.csv",),
        download=True,
    ),
    "lsapp": Source(
        lsapp,
        "real: 292 people's phone apps, 2018 (not redistributed: put lsapp.tsv.gz into the data folder)",
        ("lsapp/lsapp.tsv", "lsapp/lsapp.tsv.gz"),
        by_content=True,
    ),
    "usagelogger": Source(
        usagelogger,
        "real: one Android phone, one day (Apache-2.0; an importer's sample)",
        ("usagelogger/past_usage.csv",),
        by_content=True,
    ),
}
"""Everything that has a name; a new source is a module here, and a line."""


def state_of(name: str) -> str:
    """Where a named source's timelines are: "made on the spot", a path, or how to get them."""
    one = SOURCES[name]
    if not one.files:
        return "made on the spot"
    for file in one.files:
        if (data_root() / file).is_file():
            return str(data_root() / file)
    return (
        "downloaded when first used" if one.download else f"not here: put it at {data_root() / one.files[0]}"
    )


def load_timelines(
    spec: str,
    *,
    seed: int = 0,
    collapsed: bool = True,
    tz: str | None = None,
    page: str = "host",
    source: str | None = None,
    epoch: str | None = None,
    columns: str | None = None,
    user: str | None = None,
    **options: Any,
) -> Loaded:
    """Timelines of `spec`, sorted by user: a name in `SOURCES`, a database (ours, or a browser's history), a
    CSV/TSV(.gz), a Parquet file, or a folder of them.

    seed       draws `demo` and `demo-nights`; recordings do not depend on it
    collapsed  drop consecutive opens of the same target (every number made from them says so)
    tz         IANA name; overrides what the source knows, and is needed for naive local times
    page       "host", or "path" for host and path
    source     of a database, the timelines that were imported from this source only
    epoch      of a CSV, the clock that its numbers count on: one of `env.sources.clock.EPOCHS`
    columns    of a CSV, which column is which: "user=…,t=Timestamp,target=URL"
    user       of a CSV without a column for it, the name of its one user; `HasUsers` is raised elsewhere
    options    `weeks=…` for demo and demo-nights

    Raises InputError for anything that a person could have given wrongly.
    """
    if tz is not None:
        try:
            zone(tz)
        except ValueError as error:
            raise InputError(str(error)) from None
    if page not in PAGE_SETTINGS:
        raise InputError(f"page {page!r} is none of {', '.join(PAGE_SETTINGS)}")
    if epoch is not None and epoch not in EPOCHS:
        raise InputError(f"--epoch {epoch}: is none of {', '.join(EPOCHS)}")
    name = str(spec)
    given = {"epoch": epoch, "columns": columns, "user": user}
    if name in SOURCES:
        _refuse_given(name, given)
    if source is not None and name in SOURCES:
        raise InputError(f"source {source!r} picks from a database, and {name} is none; leave it out")
    known = SOURCES[name].options if name in SOURCES else ()
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"{name} has no option {unknown[0]!r}")
    if name in SOURCES:
        asked = {"seed": seed, "page": page, **options}
        more = {option: value for option, value in asked.items() if option in known}
        found: Loaded = SOURCES[name].module.load(collapsed=collapsed, tz=tz, **more)
        return found
    return _load_file(name, collapsed=collapsed, tz=tz, page=page, source=source, given=given)


def _refuse_given(name: str, given: dict[str, str | None]) -> None:
    """Raise InputError, for `user` HasUsers, where options that read a table are given for something else."""
    for option, value in given.items():
        if value is not None:
            kind = HasUsers if option == "user" else InputError
            raise kind(f"--{option} {value}: says how to read a CSV, and {name} is none; leave it out")


def _load_file(
    name: str,
    *,
    collapsed: bool,
    tz: str | None,
    page: str,
    source: str | None,
    given: dict[str, str | None],
) -> Loaded:
    """A file, by what is in it and not by what it is called."""
    path = Path(name)
    if not name or "\0" in name or not os.path.lexists(path):
        close = get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(
            f"{name!r}: no file or timelines of that name; {hint}known are {', '.join(SOURCES)}, a database, "
            "a CSV with columns user,t,target, or a Parquet file or folder with them"
        )
    # A database is never opened but through SQLite: it would lose the locks that this process holds.
    if (path.is_dir() or not database.is_database(path)) and parquet.is_parquet(path):
        if source is not None:
            raise InputError(f"source {source!r} picks from a database, and {path} is none; leave it out")
        return parquet.load(path, collapsed=collapsed, tz=tz, page=page, **given)  # type: ignore[arg-type]
    if database.is_database(path):
        history = None if kind_of(path) is Kind.OURS else browsers.look(path)
        _refuse_given(str(path), {k: v for k, v in given.items() if history is None or k != "user"})
        if history is not None:
            if source is not None:
                raise InputError(f"source {source!r} picks from a database of rlmemo's, and {path} is none")
            return table.load(history, collapsed=collapsed, tz=tz, page=page, user=given["user"])
        return database.load(path, collapsed=collapsed, tz=tz, source=source)
    if source is not None:
        raise InputError(f"source {source!r} picks from a database, and {path} is none; leave it out")
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        raise InputError(f"{path}: is not a database (or an empty or damaged one); {database.HOW}")
    file = lines.look(path)
    for one in SOURCES.values():
        if given["columns"] is None and one.by_content and one.module.recognises(file):
            _refuse_given(str(path), given)
            found: Loaded = one.module.load(file, collapsed=collapsed, tz=tz)
            return found
    return table.load(file, collapsed=collapsed, tz=tz, page=page, **given)  # type: ignore[arg-type]

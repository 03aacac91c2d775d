"""Timeline sources: each turns a foreign recording into events, and never guesses a time zone silently.

`load_timelines` is the one door; what it takes is what `--timelines` takes everywhere.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from env.errors import InputError
from env.sources import database, demo, lines, lsapp, table, usagelogger, webtrackr
from env.sources.clock import EPOCHS
from env.sources.columns import HasUsers
from env.sources.names import PAGE_SETTINGS
from env.sources.report import ImportReport, Loaded
from env.timeline import zone

__all__ = ["EPOCHS", "SOURCES", "HasUsers", "ImportReport", "Loaded", "load_timelines"]

SOURCES = {
    "demo": "synthetic: six invented people, eight weeks, drawn from a seed",
    "webtrackr": "real: 5 people's page visits, Feb-Aug 2019 (MIT; downloaded where it is not here)",
    "lsapp": "real: 292 people's phone apps, 2018 (not redistributed: put lsapp.tsv.gz into the data folder)",
    "usagelogger": "real: one Android phone, one day (Apache-2.0; an importer's sample)",
}


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
    """Timelines of `spec`, sorted by user: a name in `SOURCES`, a database, or a CSV/TSV(.gz).

    seed       draws `demo`; recordings do not depend on it
    collapsed  drop consecutive opens of the same target (every number made from them says so)
    tz         IANA name; overrides what the source knows, and is needed for naive local times
    page       "host", or "path" for host and path
    source     of a database, the timelines that were imported from this source only
    epoch      of a CSV, the clock that its numbers count on: one of `env.sources.clock.EPOCHS`
    columns    of a CSV, which column is which: "user=…,t=Timestamp,target=URL"
    user       of a CSV without a column for it, the name of its one user; `HasUsers` is raised elsewhere
    options    `weeks=…` for demo

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
    unknown = sorted(set(options) - ({"weeks"} if name == "demo" else set()))
    if unknown:
        raise InputError(f"{name} has no option {unknown[0]!r}")
    if name == "demo":
        return demo.load(seed=seed, collapsed=collapsed, tz=tz, **options)
    if name == "webtrackr":
        return webtrackr.load(collapsed=collapsed, tz=tz, page=page)
    if name == "lsapp":
        return lsapp.load(collapsed=collapsed, tz=tz)
    if name == "usagelogger":
        return usagelogger.load(collapsed=collapsed, tz=tz)
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
            "or a CSV with columns user,t,target"
        )
    if database.is_database(path):
        _refuse_given(str(path), given)
        return database.load(path, collapsed=collapsed, tz=tz, source=source)
    if source is not None:
        raise InputError(f"source {source!r} picks from a database, and {path} is none; leave it out")
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        raise InputError(f"{path}: is not a database (or an empty or damaged one); {database.HOW}")
    file = lines.look(path)
    if given["columns"] is None and (lsapp.is_lsapp(file) or usagelogger.is_usagelogger(file)):
        _refuse_given(str(path), given)
    if given["columns"] is None and lsapp.is_lsapp(file):
        return lsapp.load(file, collapsed=collapsed, tz=tz)
    if given["columns"] is None and usagelogger.is_usagelogger(file):
        return usagelogger.load(file, collapsed=collapsed, tz=tz)
    return table.load(file, collapsed=collapsed, tz=tz, page=page, **given)  # type: ignore[arg-type]

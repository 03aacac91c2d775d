"""What the dashboard was started with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from env.errors import InputError
from rlmemo.store.database import open_store

if TYPE_CHECKING:
    from rlmemo.store.database import Store

P = ParamSpec("P")

_held: dict[Path, tuple[int, int]] = {}
"""Which file (device, inode) was last opened at a place."""


@dataclass(frozen=True)
class Started:
    """What the dashboard was started with.

    db: the store's file, which need not exist yet. runs: folder of run folders. rater: whose ratings
    these are. login: file that says who may log in, and how.
    """

    db: Path
    runs: Path
    rater: str
    login: Path | None = None


def from_arguments(argv: Sequence[str]) -> Started:
    """The setting from what `python -m dashboard` put behind `--` on Streamlit's command line."""
    p = argparse.ArgumentParser()
    p.add_argument("--db", type=Path, required=True)
    p.add_argument("--runs", type=Path, required=True)
    p.add_argument("--rater", required=True)
    p.add_argument("--login", type=Path)
    return Started(**vars(p.parse_args(list(argv))))


def opened(where: Started) -> Store:
    """The store, opened once for all sessions: opening checks the whole file. Another file at the same
    place (restored, say) is opened anew.

    Raises InputError for what is no store (any more), and where what was not folded into the file before
    would be taken for a part of the new one.
    """
    import streamlit as st

    @st.cache_resource(show_spinner=False, max_entries=4)
    def open_once(path: str, device: int, inode: int) -> Store:
        return open_store(path)

    try:
        stat = where.db.stat()
    except OSError as error:
        raise InputError(
            f"{where.db}: cannot be read ({error.strerror}); put it back, or start anew"
        ) from None
    file = stat.st_dev, stat.st_ino
    log = where.db.with_name(f"{where.db.name}-wal")
    if _held.setdefault(where.db, file) != file:
        if log.exists() and log.stat().st_size:
            raise InputError(
                f"{where.db}: was replaced while the dashboard was open, and {log.name} of the one before is "
                f"still there; stop the dashboard, move {log.name} and {where.db.name}-shm away, start anew"
            )
        _held[where.db] = file
    store: Store = open_once(str(where.db), *file)
    return store


def heard() -> None:
    """Something on the page was used: what is computed anew is so for that."""
    import streamlit as st

    st.session_state["heard"] = True


def said(callback: Callable[P, None]) -> Callable[P, None]:
    """A callback whose InputError the page says, in its one line. The page Rate is told that a press was
    heard (`dashboard.rate`)."""

    @wraps(callback)
    def told(*args: P.args, **options: P.kwargs) -> None:
        import streamlit as st

        heard()
        try:
            callback(*args, **options)
        except InputError as error:
            st.session_state["said"] = str(error)

    return told

"""What the dashboard was started with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlmemo.store import Store


@dataclass(frozen=True)
class Setting:
    """db: the store's file, which need not exist yet. runs: folder of run folders. rater: whose ratings
    these are. login: file that says who may log in, and how."""

    db: Path
    runs: Path
    rater: str
    login: Path | None = None


def from_arguments(argv: Sequence[str]) -> Setting:
    """The setting from what `python -m dashboard` put behind `--` on Streamlit's command line."""
    p = argparse.ArgumentParser()
    p.add_argument("--db", type=Path, required=True)
    p.add_argument("--runs", type=Path, required=True)
    p.add_argument("--rater", required=True)
    p.add_argument("--login", type=Path)
    return Setting(**vars(p.parse_args(list(argv))))


def opened(where: Setting) -> Store:
    """The store, opened once for all sessions: opening checks the whole file. Another file at the same
    place (restored, say) is opened anew."""
    import streamlit as st

    from rlmemo.store import open_store

    @st.cache_resource(show_spinner=False, max_entries=4)
    def open_once(path: str, device: int, inode: int) -> Store:
        return open_store(path)

    stat = where.db.stat()
    return open_once(str(where.db), stat.st_dev, stat.st_ino)

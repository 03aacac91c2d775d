"""What a command writes tells of a person: it is for their eyes alone, as the database is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


@contextmanager
def private_files() -> Iterator[None]:
    """Files that are made inside, by whatever library or child process, are 0600 in folders that are 0700.

    Good as a decorator. The process's umask is changed meanwhile, so no other thread should make public files.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def make_private(path: Path) -> None:
    """Take `path`, and what is in it, from the eyes of others; what belongs to somebody else stays as it is."""
    for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
        if not one.is_symlink():
            with suppress(OSError):
                one.chmod(FOLDER if one.is_dir() else FILE)

"""What a command writes tells of a person: it is for their eyes alone, as the database is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


@contextmanager
def private_files() -> Iterator[None]:
    """Files that are made inside, by whatever library or child, are 0600, and folders 0700.

    Good as a decorator. It is the process's umask that changes meanwhile, for all of its threads.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def make_private(path: Path) -> None:
    """Take `path`, and all in it, from the eyes of others; what is somebody else's stays as it is."""
    for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
        if not one.is_symlink():
            with suppress(OSError):
                one.chmod(FOLDER if one.is_dir() else FILE)

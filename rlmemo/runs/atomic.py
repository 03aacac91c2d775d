"""Files that are there whole or not at all, whenever the process that writes them is killed.

Everything is written to a temporary name beside its place, brought to the disk and then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from env.errors import InputError
from env.private import FILE, make_private
from env.sources.sqlite_files import spare_database

NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, None)
"""None: torch does not say why, and mostly it is this."""
PART = ".part"
"""How the name of a file or folder ends that is being written; what a killed process leaves of that kind
is taken away by the next one."""


@contextmanager
def file_atomic(path: Path) -> Iterator[Path]:
    """Give the name of an empty file to write to; when the block ends well it takes the place of `path`, for
    its owner's eyes alone. Raises the OSError of a disk that does not take it, and InputError where `path`
    is a database; `path` is then as it was."""
    spare_database(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.chmod(FILE)
        os.replace(part, path)
        _sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, text: str) -> None:
    """Put `text` at `path`, whole or not at all. Raises InputError where the disk does not take it."""
    try:
        with file_atomic(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: Exception) -> InputError:
    """What is said where the disk did not take a file, and what helps: space where there was none, and to
    resume where a run goes on (one whose settings are written)."""
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    number = re.search(r"os error (\d+)", str(error))
    code = getattr(error, "errno", None) or (int(number[1]) if number else None)
    helps = "free some space" if code in NO_SPACE else "name a place in a folder of yours"
    if any((folder / "config.yaml").is_file() for folder in path.parents):
        helps = f"{helps if code in NO_SPACE else 'see that its folder is yours'} and run with --resume"
    return InputError(f"{path}: could not be written ({reason}); {helps}")


def of_the_disk(error: BaseException) -> bool:
    """Whether a library's error says that the disk did not take a file. Only Python's own say so by their
    type: torch and the libraries written in Rust raise what they have."""
    words = ("(os error", "No space left", "PytorchStreamWriter", "inline_container")
    return isinstance(error, OSError | SafetensorError) or (
        isinstance(error, Exception) and any(word in str(error) for word in words)
    )


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well it takes the place of `path`."""
    part, old = path.with_name(f".{path.name}{PART}"), path.with_name(f".{path.name}.old{PART}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        make_private(part)
        for file in part.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
        shutil.rmtree(old, ignore_errors=True)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if not isinstance(error, InputError) and of_the_disk(error):
            raise not_written(path, error) from None  # type: ignore[arg-type]
        raise


def _sync_folder(path: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder, and does not need to
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

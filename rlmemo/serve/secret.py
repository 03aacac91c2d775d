"""A secret in a file of its own, for its owner alone: the server's token, a device's salt."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from env.errors import InputError
from env.private import FILE

SHORTEST = 16
BYTES = 32


def read_secret(file: Path) -> str | None:
    """What the file holds; None where there is no file. Raises InputError for one that others can read, or
    that holds nothing that is hard to guess."""
    try:
        with file.open(encoding="ascii") as opened:
            if os.name == "posix" and stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise InputError(f"{file}: others can read it; delete it, or: chmod 600 {file}")
            found = opened.read(4096).strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}); it holds a secret") from None
    if len(found) < SHORTEST or not found.isprintable() or " " in found:
        raise InputError(
            f"{file}: holds no secret of {SHORTEST} characters or more; delete it, and a new one is made"
        )
    return found


def secret_of(file: Path) -> tuple[str, bool]:
    """The secret of a file, and whether it was made now. Raises InputError where neither can be had."""
    found = read_secret(file)
    if found is not None:
        return found, False
    made = secrets.token_urlsafe(BYTES)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE)
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(made + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        try:
            os.link(part, file)  # whole or not at all, and never over one that is there
        finally:
            part.unlink()
    except FileExistsError:  # somebody else was quicker
        return secret_of(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); choose another folder") from None
    return made, True

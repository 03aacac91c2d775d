"""Where other people's recordings lie on this machine, or come from. They are not ours to commit."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from env.errors import InputError


def data_root() -> Path:
    """The folder named by RLMEMO_DATA, else `shared/data` beside the repository."""
    named = os.environ.get("RLMEMO_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def published(name: str, file: str, url: str, sha256: str) -> Path:
    """The recording `file` in the data root's folder `name`, or downloaded from `url` where it is not there.

    Raises InputError when it is neither here nor to be had, or is not the recording that was published.
    """
    local = data_root() / name / file
    if local.is_file():
        try:
            digest = hashlib.sha256(local.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{local}: cannot be read ({error.strerror})") from error
        if digest != sha256:
            raise InputError(
                f"{local}: its sha256 {digest[:12]}… is not {sha256[:12]}…, the published recording's; "
                "remove the file to have it downloaded again"
            )
        return local
    import pooch

    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(
                url, known_hash=f"sha256:{sha256}", fname=f"{name}-{file}", path=pooch.os_cache("rlmemo")
            )
        )
    except Exception as error:  # pooch lets through whatever requests, the socket or the disk raised
        raise InputError(
            f"{name} is not in {local.parent} and cannot be downloaded from {url} ({type(error).__name__}); "
            f"put {file} into that folder, or name its parent in RLMEMO_DATA"
        ) from error

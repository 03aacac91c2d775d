"""Where other people's recordings lie on this machine. They are not ours to commit."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder named by RLMEMO_DATA, else `shared/data` beside the repository."""
    named = os.environ.get("RLMEMO_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"

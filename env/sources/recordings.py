"""Where other people's recordings lie on this machine. They are not ours to commit."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder named by RLMEMO_DATA, else `shared/data` beside the repository."""
    named = os.environ.get("RLMEMO_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def state_of(name: str) -> str:
    """Where a named source's timelines are: "made on the spot", a path, or how to get them."""
    if name == "demo":
        return "made on the spot"
    files = {
        "webtrackr": ("webtrackr/testdt_tracking.rda",),
        "lsapp": ("lsapp/lsapp.tsv", "lsapp/lsapp.tsv.gz"),
        "usagelogger": ("usagelogger/past_usage.csv",),
    }[name]
    for file in files:
        if (data_root() / file).is_file():
            return str(data_root() / file)
    if name == "webtrackr":
        return "downloaded when first used"
    return f"not here: put it at {data_root() / files[0]}"

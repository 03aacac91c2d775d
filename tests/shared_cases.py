"""Small inputs that went wrong: `../shared/cases`, where it is there (`RLMEMO_CASES` names another place)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CASES = Path(os.environ.get("RLMEMO_CASES") or Path(__file__).parents[2] / "shared" / "cases")


def case(name: str) -> Path:
    """The case called `name`, such as "timelines/07_coredata.csv"; the test skips where it is not."""
    if not CASES.is_dir():
        pytest.skip(f"the cases are not here ({CASES}); set RLMEMO_CASES")
    return CASES / name

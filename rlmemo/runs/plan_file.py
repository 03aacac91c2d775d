"""`adapter/plan.json` of a finished run: who is in charge, and how it plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlmemo.runs.atomic import write_atomic

PLAN = "plan.json"
BASE = "base"
"""The stage that `plan.json` names where the model as it came is in charge, without adapter and scorer of the
run; where it names none, what the run learned is."""


def write(run: Path, choice: dict[str, Any]) -> None:
    """Write what was chosen for a run. choice: a planner's own words, and the stage that is in charge."""
    write_atomic(run / "adapter" / PLAN, json.dumps(choice, indent=1) + "\n")


def read(run: Path) -> Any:
    """What was written. Raises OSError or ValueError where it is not there, or is damaged."""
    return json.loads((run / "adapter" / PLAN).read_text(encoding="utf-8"))


def shipped_in_charge(run: Path) -> bool:
    """Whether a run's plans are those of the model as it came; False, too, for what is no finished run."""
    try:
        choice = read(run)
    except (OSError, ValueError):
        return False
    return isinstance(choice, dict) and choice.get("stage") == BASE

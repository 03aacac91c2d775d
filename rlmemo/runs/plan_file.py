"""`adapter/plan.json` of a finished run, as far as one looks at it without its model: who is in charge."""

from __future__ import annotations

import json
from pathlib import Path

PLAN = "plan.json"
BASE = "base"
"""The stage that `plan.json` names where the model as it came is in charge, without adapter and scorer of the
run; where it names none, what the run learned is."""


def shipped_in_charge(run: Path) -> bool:
    """Whether a run's plans are those of the model as it came; False, too, for what is no finished run."""
    try:
        choice = json.loads((run / "adapter" / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(choice, dict) and choice.get("stage") == BASE

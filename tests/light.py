"""Trainings that cost less where a test looks neither at their trees nor at the figures of their report.

Eight trees instead of hundreds and no figures: of a tiny training's CPU time that is more
than half (`tests/test_scorer.py`, `test_report.py` and the tutorial have the whole).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TREES = 8
"""Boosters are fitted, kept and read again all the same."""
PLACES = (
    ("rlmemo.model.scorer", "ROUNDS"),
    ("rlmemo.policies.gbdt", "ROUNDS"),
    ("rlmemo.model.soon", "ROUNDS"),
)


def sketch(*_: Any, **__: Any) -> str:
    """What stands in a page instead of a figure."""
    return '<svg width="1" height="1"></svg>'


def unjudged(run: Any) -> None:
    """Stands in for the judgement at a run's end (`planner_choice.judge`): the run keeps still."""
    import json

    from rlmemo.policies.planners import Threshold
    from rlmemo.runs.plan_file import PLAN

    (run.path / "adapter" / PLAN).write_text(json.dumps(Threshold(1.0).to_json()))
    (run.path / "report.json").write_text("{}")


def lighten(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """From now on, in this process. put: sets an attribute, such as MonkeyPatch.setattr."""
    from importlib import import_module

    for module, name in PLACES:
        put(import_module(module), name, TREES)
    put(import_module("rlmemo.report.figures"), "_svg", sketch)

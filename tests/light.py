"""Trainings that cost less where a test looks neither at their trees nor at the figures of their report.

A training of a tiny model takes 8 s of CPU, of which 20 trees instead of hundreds save two, and figures that
are painted but not written as SVG one and a half (measured).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TREES = 20
"""Boosters are fitted, kept and read again all the same."""
PLACES = (
    ("rlmemo.model.scorer", "ROUNDS"),
    ("rlmemo.policies.gbdt", "ROUNDS"),
    ("rlmemo.model.soon", "ROUNDS"),
)


def sketch(_: Any, out: Any, **__: Any) -> None:
    """What is written instead of a figure."""
    out.write('<svg width="1" height="1"></svg>')


def unjudged(run: Any) -> None:
    """Stands in for the judgement at a run's end (`planner_choice.judge`): the run keeps still."""
    import json

    from rlmemo.policies.planners import Threshold
    from rlmemo.policies.run import PLAN

    (run.path / "adapter" / PLAN).write_text(json.dumps(Threshold(1.0).to_json()))
    (run.path / "report.json").write_text("{}")


def lighten(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """From now on, in this process. put: sets an attribute, such as MonkeyPatch.setattr."""
    from importlib import import_module

    from matplotlib.figure import Figure

    for module, name in PLACES:
        put(import_module(module), name, TREES)
    put(Figure, "savefig", sketch)

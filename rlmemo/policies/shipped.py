"""What the shipped base plans by, for somebody it has never learned from: a threshold for each world.

`rlmemo/base/planner.json` was tuned on many invented people (`experiments/tune_planner.py`), none of whom the
base, its scorer or its trees had seen. A person's own validation part is often too short to choose by: of 56
opens, the threshold that did best on them kept still from then on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from env.errors import InputError
from env.judge.world_options import WorldOptions
from rlmemo.policies.planners import NEVER, Threshold

FILE = "planner.json"
TODAY, DAY = "today", "day"
"""Presets of rules: memory is limited and that is all; pauses in which the machine is off empty it, too."""


def preset_of(world: WorldOptions, switched: bool = False) -> str:
    """The preset that a world is most like. switched: whether the recording tells of offs."""
    return DAY if world.off_after_s > 0 or switched else TODAY


def shipped_planner(world: WorldOptions, file: Path | None = None, switched: bool = False) -> Threshold:
    """What the shipped base plans by in a world. file: another one than the package's. switched: as of
    `preset_of`. Raises InputError where it is missing or damaged."""
    file = Path(str(files("rlmemo.base") / FILE)) if file is None else file
    try:
        return _planner(json.loads(file.read_text(encoding="utf-8"))[preset_of(world, switched)])
    except FileNotFoundError:
        raise InputError(f"{file}: is missing; install the package again") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is damaged ({error}); install the package again") from None


def _planner(said: Mapping[str, Any]) -> Threshold:
    if said["planner"] != "threshold" or not 0.0 <= float(said["threshold"]) <= 2.0:
        raise ValueError(f"no threshold from 0 to 2 in {dict(said)}")
    wake = float(said.get("wake", NEVER))
    return Threshold(float(said["threshold"]), bool(said.get("names", False)), wake)

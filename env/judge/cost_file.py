"""A cost file: what opening costs on one machine, by target and by kind, written by hand or measured.

    {
      "name": "my laptop",
      "source": "a stop watch, 2026-11-26",
      "default": {"memory_mb": 300, "cold_s": 3.0, "warm_s": 0.6},
      "kinds":   {"page": {"memory_mb": 90, "cold_s": 1.6, "warm_s": 0.3}},
      "targets": {"mail": {"memory_mb": 450, "cold_s": 5.2, "warm_s": 0.9, "load_s": 4.0}}
    }

A target that is not named costs what its kind does, else `default`; left out, `default` is the median of the
targets. `load_s` (seconds that loading early takes) is cold_s - warm_s where it is left out; `name` is the
file's, `source` "a cost file".
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.cost import Cost, CostModel
from env.timeline import KINDS

PARTS = ("name", "source", "default", "kinds", "targets")
NEEDED = ("memory_mb", "cold_s", "warm_s")
FORM = '{"targets": {"mail": {"memory_mb": 450, "cold_s": 5.2, "warm_s": 0.9}}}'


def read_costs(path: str | Path) -> CostModel:
    """The cost model of a file. Raises InputError that names the file, the place and what is accepted."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--costs {path}: cannot be read ({error.strerror or error})") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: is no JSON ({error.msg}); a cost file is {FORM}"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no JSON in UTF-8; a cost file is {FORM}") from None
    data = _mapping(path, "the file", data)
    for key in data:
        if key not in PARTS:
            raise InputError(f"{path}: has {key!r}; a cost file has {', '.join(PARTS)}, as in {FORM}")
    targets = {
        str(x): _cost(path, f"targets, {x!r}", row)
        for x, row in _mapping(path, "targets", data.get("targets", {})).items()
    }
    kinds = {}
    for kind, row in _mapping(path, "kinds", data.get("kinds", {})).items():
        if kind not in KINDS:
            raise InputError(f"{path}: kinds has {kind!r}; there are {', '.join(KINDS)}")
        kinds[kind] = _cost(path, f"kinds, {kind!r}", row)
    if "default" in data:
        default = _cost(path, "default", data["default"])
    elif targets:
        rows = [(c.memory_mb, c.cold_s, c.warm_s) for c in targets.values()]
        default = Cost(*(float(x) for x in np.median(rows, axis=0)))
    else:
        raise InputError(f"{path}: names no target and no default; a cost file is {FORM}")
    return CostModel(
        name=str(data.get("name", path.stem)),
        source=str(data.get("source", "a cost file")),
        default=default,
        by_kind=kinds,
        by_target=targets,
    )


def _mapping(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {where} is {_shown(value)}; give a mapping, as in {FORM}")
    return value


def _cost(path: Path, where: str, row: Any) -> Cost:
    row = _mapping(path, where, row)
    for key in row:
        if key not in (*NEEDED, "load_s"):
            raise InputError(f"{path}: {where} has {key!r}; give {', '.join(NEEDED)}, and load_s if you like")
    for key in NEEDED:
        if key not in row:
            raise InputError(f"{path}: {where} has no {key}; give {', '.join(NEEDED)}")
    for key, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{path}: {where}, {key} is {_shown(value)}; give a number")
    try:
        return Cost(**{key: float(value) for key, value in row.items()})
    except InputError as error:
        raise InputError(f"{path}: {where}: {error}") from None


def _shown(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= 40 else said[:37] + "..."

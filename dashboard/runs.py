"""Run folders and benchmark reports, read for showing: whatever is missing or damaged is left out, and said.

A report is DESIGN section 8's JSON: policies, their metrics, each a value with its 95 % interval. Reports
of training runs hold the same, per stage.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Value:
    """A metric's value with its 95 % interval (NaN where the report has none)."""

    value: float
    low: float
    high: float


Columns = dict[str, list[float]]


@dataclass
class RunFiles:
    """One run folder. `policies`: policy -> metric -> value. `facts`: what the numbers were measured on.
    `terms`: policy -> term of the reward -> value. `reliability`: "first" or "none" -> policy -> predicted,
    observed, size of each bin. `sweeps`: policy -> column -> one number per threshold. `logged`: lines of
    metrics.jsonl. `notes`: what the report says beside its numbers. `remarks`: what could not be read."""

    name: str
    path: Path
    policies: dict[str, dict[str, Value]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, dict[str, Value]] = field(default_factory=dict)
    reliability: dict[str, dict[str, Columns]] = field(default_factory=dict)
    sweeps: dict[str, Columns] = field(default_factory=dict)
    logged: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    changed: float = 0.0

    @property
    def finished(self) -> bool:
        return bool(self.policies)


ESTIMATE = ".approval-"
"""In the names of files that the page Train keeps beside the runs: estimates, and no reports."""


def find_runs(folder: Path) -> list[RunFiles]:
    """The runs below `folder`, the latest first: folders with a report or a config, and bare JSON reports."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        inside = (
            [path / n for n in ("report.json", "config.yaml", "metrics.jsonl")] if path.is_dir() else [path]
        )
        there = [p for p in inside if p.is_file()]
        if there and (path.is_dir() or (path.suffix == ".json" and ESTIMATE not in path.name)):
            found.append((max(p.stat().st_mtime for p in there), path))
    return [read_run(path, changed) for changed, path in sorted(found, reverse=True)]


def trained(folder: Path) -> list[RunFiles]:
    """The runs below `folder` that have left an adapter, the latest first."""
    return [run for run in find_runs(folder) if (run.path / "adapter").is_dir()]


def read_run(path: Path, changed: float = 0.0) -> RunFiles:
    """One run folder, or one report written by `benchmark --json`."""
    run = RunFiles(name=path.name if path.is_dir() else path.stem, path=path, changed=changed)
    report = path / "report.json" if path.is_dir() else path
    if report.is_file():
        try:
            read = json.loads(report.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            run.remarks.append(f"{report.name} cannot be read")
        else:
            run.policies = _policies(read, "policies")
            if isinstance(read, dict):
                run.terms = _policies(read, "reward_terms")
                by_policy = _dict(read.get("reliability"))
                for kind in ("first", "none"):
                    bins = {str(n): _columns(_dict(x).get(kind)) for n, x in by_policy.items()}
                    run.reliability[kind] = {
                        n: x for n, x in bins.items() if {"predicted", "observed"} <= set(x)
                    }
                run.sweeps = {str(n): _columns(x) for n, x in _dict(read.get("curves")).items()}
                notes = read.get("notes")
                run.notes = [x for x in notes if isinstance(x, str)] if isinstance(notes, list) else []
                run.facts = {k: v for k, v in read.items() if isinstance(v, str | int | float | bool)}
    else:
        run.remarks.append("not finished yet")
    log = path / "metrics.jsonl"
    if path.is_dir() and log.is_file():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was stopped
            if isinstance(row, dict):
                run.logged.append(row)
    return run


def read_json(path: Path) -> dict[Any, Any]:
    """A JSON object; empty where the file is missing, damaged or holds something else."""
    try:
        return _dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _dict(node: Any) -> dict[Any, Any]:
    return node if isinstance(node, dict) else {}


def _columns(node: Any) -> Columns:
    """Lists of finite numbers, all of one length; empty where the node is anything else."""
    found = {
        str(name): [float(x) for x in column]
        for name, column in _dict(node).items()
        if isinstance(column, list) and all(isinstance(x, int | float) and math.isfinite(x) for x in column)
    }
    return found if len({len(x) for x in found.values()}) == 1 else {}


def _policies(report: Any, key: str) -> dict[str, dict[str, Value]]:
    """Metrics by policy; what is no number is left out."""
    policies = report.get(key) if isinstance(report, dict) else None
    found = {}
    for name, metrics in policies.items() if isinstance(policies, dict) else ():
        if isinstance(metrics, dict):
            values = {str(k): v for k, x in metrics.items() if (v := read_value(x)) is not None}
            if values:
                found[str(name)] = values
    return found


def read_value(node: Any) -> Value | None:
    """A value with its interval as reports write it, None for anything else."""
    if not isinstance(node, dict) or not isinstance(node.get("value"), int | float):
        return None
    value = float(node["value"])
    interval = node.get("ci95")
    if (
        isinstance(interval, list)
        and len(interval) == 2
        and all(isinstance(x, int | float) for x in interval)
    ):
        low, high = float(interval[0]), float(interval[1])
    else:
        low = high = math.nan
    return Value(value, low, high) if math.isfinite(value) else None


def curves(run: RunFiles) -> list[tuple[str, str, int, float]]:
    """The numbers logged while learning: (stage, name, step, value)."""
    out = []
    for row in run.logged:
        stage, step = str(row.get("stage", "")), row.get("step")
        if not isinstance(step, int | float):
            continue
        for name, value in row.items():
            if (
                name in ("stage", "step", "epoch")
                or isinstance(value, bool)
                or not isinstance(value, int | float)
            ):
                continue
            if math.isfinite(value):
                out.append((stage, str(name), int(step), float(value)))
    return out


def wilson(up: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share `up` / n (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p = up / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)

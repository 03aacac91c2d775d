"""Plots of the evidence, small PNGs: learning curves, hits against waste, what the reward is made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evidence import Spec, slug, stem
from experiments.evidence_table import PARTS, Row, read_rows

CURVES = (
    "validation_reward", "eval_reward", "reward_per_open", "reward", "rewards/margins", "rewards/accuracies",
    "loss",
)  # fmt: skip
"""What of a stage's logged numbers is drawn: the first that is there."""


def draw_all(spec: Spec, part: str, result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what there is data for; the files that were written."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for timelines, one in result["timelines"].items():
        if timelines not in spec.timelines:  # several splits of the same people, as one
            continue
        rows = read_rows(spec, timelines, part)
        name = f"{slug(spec.title)}-{stem(timelines)}-{part}"
        made.append(_save(folder / f"{name}-hits-waste.png", partial(hits_against_waste, rows=rows)))
        made.append(_save(folder / f"{name}-reward.png", partial(decomposition, rows=one["rows"])))
        made.append(_save(folder / f"{name}-shares.png", partial(shares, rows=one["rows"])))
        curves = learning_curves(spec, timelines)
        if curves:
            made.append(_save(folder / f"{slug(spec.title)}-{stem(timelines)}-learning.png", None, curves))
    return made


def _save(
    path: Path,
    paint: Callable[[Any], None] | None,
    curves: dict[str, tuple[str, list[np.ndarray]]] | None = None,
) -> Path:
    import matplotlib.pyplot as plt

    if curves is None:
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        assert paint is not None
        paint(axes)
    else:
        wide = min(3, len(curves))
        high = -(-len(curves) // wide)
        figure, grid = plt.subplots(
            high, wide, figsize=(3.0 * wide, 2.4 * high), layout="constrained", squeeze=False
        )
        for axes in grid.ravel()[len(curves) :]:
            axes.axis("off")
        for axes, (name, (what, seeds)) in zip(grid.ravel(), curves.items(), strict=False):
            for points in seeds:
                axes.plot(points[:, 0], points[:, 1], linewidth=1)
            axes.set(title=name, xlabel="update", ylabel=what)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def hits_against_waste(axes: Any, rows: list[Row]) -> None:
    """Every policy as a point, and as a curve over thresholds where it has a ranking; mean over seeds.
    Trained policies are discs and full lines in colours, baselines squares and dashes in browns."""
    from itertools import cycle

    import matplotlib

    trained = cycle(matplotlib.colormaps["tab10"].colors)
    baselines = cycle(matplotlib.colormaps["copper"](np.linspace(0.05, 0.95, 9)))
    for row in rows:
        if row.name == "oracle":
            continue
        colour = next(baselines if row.is_baseline else trained)
        wasted, hit = (float(np.mean([a[:, k].mean() for a in row.arrays])) for k in (3, 2))
        axes.plot(
            [wasted], [hit], "s" if row.is_baseline else "o", markersize=5, label=row.name, color=colour,
            linestyle="none",
        )  # fmt: skip
        curves = [c for c in row.curves if c is not None]
        if curves and len(curves) == len(row.curves):
            mean = np.mean(curves, axis=0)
            axes.plot(mean[:, 1], mean[:, 0], "--" if row.is_baseline else "-", linewidth=0.9, color=colour)
    axes.set(xlabel="wasted prewarms per open", ylabel="hits per open")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def decomposition(axes: Any, rows: dict[str, Any]) -> None:
    """Bars: the reward's weighted terms per open, gains to the right, prices to the left."""
    names = [n for n in rows if n != "oracle"]
    terms = sorted({t for n in names for t in rows[n]["terms"]})
    left, right = np.zeros(len(names)), np.zeros(len(names))
    for term in terms:
        values = np.array([rows[n]["terms"].get(term, 0.0) for n in names])
        if not values.any():
            continue
        start = np.where(values >= 0, right, left)
        axes.barh(names, values, left=start, label=term, height=0.6)
        right, left = right + np.maximum(values, 0), left + np.minimum(values, 0)
    axes.plot([rows[n]["metrics"]["reward_per_open"]["value"] for n in names], names, "k|", markersize=12)
    axes.set(xlabel="reward per open (mark: the sum)")
    axes.invert_yaxis()
    if terms:
        axes.legend(fontsize=7)


def shares(axes: Any, rows: dict[str, Any]) -> None:
    """Bars: what was loaded early, what was kept, and what was driven out, in per cent of what the oracle
    saves."""
    names = [n for n in rows if n != "oracle" and rows[n]["metrics"]["prewarms_per_open"]["value"]]
    right = np.zeros(len(names))
    for why, label in PARTS.items():
        values = np.array([100 * rows[n]["metrics"][f"oracle_share_{why}"]["value"] for n in names])
        axes.barh(names, values, left=right * (values >= 0), label=label, height=0.6)
        right += np.maximum(values, 0)
    whole = [100 * rows[n]["metrics"]["oracle_share"]["value"] for n in names]
    axes.plot(whole, names, "k|", markersize=12)
    axes.set(xlabel="per cent of what the oracle saves (mark: together)")
    axes.invert_yaxis()
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def learning_curves(spec: Spec, timelines: str) -> dict[str, tuple[str, list[np.ndarray]]]:
    """By method: what was logged in its last stage, one line per seed, float64 [steps, 2]."""
    from rlmemo.runs.folder import RunFolder

    found: dict[str, tuple[str, list[np.ndarray]]] = {}
    for run in spec.runs():
        if run.timelines != timelines or not run.folder.exists():
            continue
        rows = RunFolder(run.folder).logged(run.config.stages[-1])
        key = next((k for k in CURVES if sum(k in r for r in rows) > 1), None)
        if key is not None:
            points = np.array([[r["step"], r[key]] for r in rows if key in r], float)
            found.setdefault(run.name, (key, []))[1].append(points)
    return found

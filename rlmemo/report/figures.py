"""Plots as SVG text for the report, drawn with matplotlib, readable on light and dark paper.

matplotlib bakes colours into its SVG. Ink, muted ink and grid are therefore drawn in three marker
colours that are replaced by the page's own CSS variables afterwards. Every figure is drawn twice, wide
and narrow, so that it can be read on a phone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmemo.report.page import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONTS = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
INK, MUTED, GRID = "#010203", "#010204", "#010205"  # replaced by CSS variables
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}

KNOWN_COLORS = {
    "none": "#8b95a1",
    "mfu": "#56b4e9",
    "mru": "#a3a04a",
    "markov1": "#3b82c4",
    "backoff3": "#b07cc6",
    "omnibox": "#c98a1b",
    "gbdt": "#12a07a",
    "gru4rec": "#c2649a",
    "sasrec": "#5d7f3f",
    "sb3": "#7a6ff0",
    "oracle": INK,
}
OWN_COLORS = ("#e4572e", "#d6336c", "#f08c00", "#9c36b5", "#2b8a3e", "#1971c2")
"""For policies of the reader's own (run folders): warm, so that they stand out from the baselines."""


def colors(names: Sequence[str]) -> dict[str, str]:
    """A colour for every policy: fixed for the baselines, from `OWN_COLORS` for all others."""
    others = [n for n in names if n not in KNOWN_COLORS]
    own = {n: OWN_COLORS[k % len(OWN_COLORS)] for k, n in enumerate(others)}
    return {n: own[n] if n in own else KNOWN_COLORS[n] for n in names}


def keys(tint: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Chips for a figure's legend, of names and their colours."""
    return tuple((n, _VARIABLES.get(c, c)) for n, c in tint.items())


def draw(
    paint: Callable[[Any, bool], None],
    alt: str,
    *,
    height: float = 3.4,
    narrow_height: float | None = None,
    width: float = 8.6,
    legend: Mapping[str, str] | None = None,
    note: str = "",
) -> Figure:
    """Draw a figure twice. `paint(figure, narrow)` puts axes on an empty matplotlib figure; heights are
    inches at widths of `width` (wide) and 4.0 (narrow)."""
    wide = _svg(paint, False, width, height, alt)
    narrow = _svg(paint, True, 4.0, narrow_height or height, alt)
    return Figure(wide=wide, narrow=narrow, alt=alt, keys=keys(legend or {}), note=note)


def _svg(paint: Callable[[Any, bool], None], narrow: bool, width: float, height: float, alt: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{alt}{narrow}{width}",  # ids must differ between the figures of one page
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "axes.titlecolor": INK,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": INK,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
    }
    with matplotlib.rc_context(style):
        figure = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure, narrow)
        figure.patch.set_alpha(0.0)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace("'DejaVu Sans'", "inherit").replace("DejaVu Sans", "inherit")
    text = re.sub(r"(font:[^;\"]*?)px [^;\"]*", rf"\1px {FONTS}", text)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, variable)
    return text


def intervals(
    panels: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]],
    *,
    percent: bool = True,
    alt: str,
) -> Figure:
    """Panels of values with 95 % intervals, one row per name. panels: (title, {name: (value, lo, hi)})."""
    names = list(panels[0][1])
    tint = colors(names)

    def paint(figure: Any, narrow: bool) -> None:
        shape = (len(panels), 1) if narrow else (1, len(panels))
        axes = np.atleast_1d(figure.subplots(*shape, sharey=not narrow)).ravel()
        for ax, (title, values) in zip(axes, panels, strict=True):
            rows = list(reversed(names))
            for y, name in enumerate(rows):
                value, low, high = values[name]
                if not np.isfinite(value):
                    continue
                scale = 100.0 if percent else 1.0
                if np.isfinite(low) and np.isfinite(high):
                    ax.plot([low * scale, high * scale], [y, y], color=tint[name], lw=5, alpha=0.32)
                ax.plot([value * scale], [y], "o", color=tint[name], ms=6.5)
                ax.annotate(
                    f"{value * scale:.1f}" if percent else f"{value:.3g}", (value * scale, y),
                    xytext=(0, 6.5), textcoords="offset points", ha="center", fontsize=8.5,
                )  # fmt: skip
            ax.set_yticks(range(len(rows)), rows)
            ax.tick_params(axis="y", labelcolor=INK)
            ax.set_ylim(-0.6, len(rows) - 0.25)
            ax.grid(axis="y", visible=False)
            ax.spines["left"].set_visible(False)
            ax.set_title(title)
            if percent:
                ax.xaxis.set_major_formatter(lambda v, _: f"{v:g} %")
            ax.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
            ax.margins(x=0.08)

    row = 0.36 * len(names) + 0.75
    return draw(paint, alt, height=row, narrow_height=row * len(panels))


@dataclass(frozen=True)
class Line:
    """A line y over x. band: low and high, shaded; mark: (x, y) of a large dot on it (what was chosen)."""

    x: np.ndarray
    y: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """What is on an axis. percent: shares, written in percent; names: of the positions 0, 1, 2 …"""

    label: str
    percent: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Size:
    """Height and width of a figure, and its height on a phone, inches (None: as wide screens have it, at most
    3.3)."""

    height: float = 3.9
    width: float = 8.6
    narrow: float | None = None


def curves(
    lines: Mapping[str, Line],
    *,
    x: Axis,
    y: Axis,
    alt: str,
    diagonal: bool = False,
    size: Size = Size(),
    among: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Lines by name. diagonal: where x and y agree is drawn too; among: all the names of a page, so that a
    name has one colour on it; note: how to read it. Where positions are few (they have names, or are bins
    beside a diagonal), they are dots too. The first lies above the others; what is the same as one above it
    stays visible, as dashes and a smaller dot on it."""
    tint = {name: colors(among or list(lines))[name] for name in lines}
    above = [name for name in reversed(list(lines)) if not _same(name, lines)]
    order = above + [name for name in lines if name not in above]
    dots = "o" if diagonal or x.names else None

    def paint(figure: Any, narrow: bool) -> None:
        ax: Axes = figure.subplots()
        if diagonal:
            ends = [float(np.nanmax(v)) for line in lines.values() for v in (line.x, line.y) if len(v)]
            top = max(ends, default=1.0)
            ax.plot([0, top], [0, top], color=MUTED, lw=1, ls=(0, (3, 3)))
        for name in order:
            line = lines[name]
            ls = "-" if name in above else (0, (4, 4))
            if line.band is not None:
                ax.fill_between(line.x, *line.band, color=tint[name], alpha=0.10, lw=0)
            ax.plot(line.x, line.y, color=tint[name], ls=ls, marker=dots, ms=4.5, markeredgewidth=0)
            if line.mark is not None and np.isfinite(line.mark).all():
                big = 9 - 3 * sum(lines[other].mark == line.mark for other in order[: order.index(name)])
                ax.plot(*line.mark, "o", ms=max(3, big), color=tint[name], markeredgewidth=0)
        ax.set_xlabel(x.label)
        if narrow:
            ax.set_title(y.label, color=MUTED, fontsize=9.5, fontweight="normal")
        else:
            ax.set_ylabel(y.label)
        for axis, on in ((ax.xaxis, x.percent), (ax.yaxis, y.percent)):
            if on:
                axis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
        if x.names:
            ax.set_xticks(range(len(x.names)), x.names)
        ax.margins(x=0.03, y=0.06)

    return draw(
        paint, alt, height=size.height, narrow_height=size.narrow or min(size.height, 3.3), width=size.width,
        legend=tint, note=note,
    )  # fmt: skip


def _same(name: str, lines: Mapping[str, Line]) -> bool:
    """Whether a line that stands before `name` is the same."""
    names = list(lines)
    return any(
        np.array_equal(lines[name].x, lines[other].x, equal_nan=True)
        and np.array_equal(lines[name].y, lines[other].y, equal_nan=True)
        for other in names[: names.index(name)]
    )


def heat(
    rows: Sequence[str], columns: Sequence[str], values: np.ndarray, *, alt: str, percent: bool = True
) -> Figure:
    """A table of numbers on shaded cells: rows x columns."""
    values = np.asarray(values, dtype=float)

    def paint(figure: Any, narrow: bool) -> None:
        ax: Axes = figure.subplots()
        top = np.nanmax(values) if np.isfinite(values).any() else 1.0
        for r in range(len(rows)):
            for c in range(len(columns)):
                v = values[r, c]
                if not np.isfinite(v):
                    continue
                ax.add_patch(_cell(c, r, alpha=0.08 + 0.72 * max(0.0, v) / max(top, 1e-9)))
                text = f"{100 * v:.0f}" if percent else f"{v:.2g}"
                ax.text(c, r, text, ha="center", va="center", fontsize=9)
        ax.set_xlim(-0.5, len(columns) - 0.5)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        tilt: Any = {"rotation": 40, "ha": "right"} if narrow else {}
        ax.set_xticks(range(len(columns)), columns, **tilt)
        ax.set_yticks(range(len(rows)), rows)
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)

    tall = 0.36 * len(rows) + 0.5
    return draw(paint, alt, height=tall, narrow_height=tall + 0.4)


def _cell(column: int, row: int, alpha: float) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (column - 0.44, row - 0.4), 0.88, 0.8, boxstyle="round,pad=0,rounding_size=0.08",
        facecolor="#12a07a", alpha=alpha, linewidth=0,
    )  # fmt: skip

"""Timelines to look at: in the terminal with rich and block characters, and as a plot with matplotlib."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from env.errors import InputError
from rlmemo.options import wrapped
from rlmemo.runs.atomic import file_atomic

if TYPE_CHECKING:
    from rich.console import Console

    from env.sources import Loaded
    from env.timeline import Timeline

MAX_USERS = 20
MAX_PANELS = 6
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG = ("name", "what", "where", "source", "user", "top target", "target", "time zone")
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
# told apart in print and by people who confuse red and green (Okabe and Ito), grey for the rest
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B7A400")
_REST = "#9AA0A6"


def hours_and_days(timeline: Timeline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local hour (float64, 0 to 24), weekday (int64, Monday 0), day number since 1970 (int64), each [n]."""
    local = timeline.local()
    day = np.floor(local / 86400.0).astype(np.int64)
    return (local / 3600.0) % 24.0, (day + 3) % 7, day


def blocks(values: np.ndarray) -> str:
    """One block character per value, its height in proportion to the largest; a nonzero value shows."""
    bars = _bars()
    top = float(values.max()) if len(values) else 0.0
    if top <= 0:
        return " " * len(values)
    steps = np.ceil(np.asarray(values, float) / top * (len(_BARS) - 1)).astype(int)
    return "".join(bars[i] for i in steps)


def _bars() -> str:
    """Nine characters of rising height, in ASCII where the terminal has nothing else."""
    utf = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    return _BARS if utf else _ASCII_BARS


def print_sources(sources: Sequence[dict[str, str]]) -> None:
    """The named sources and where they are."""
    console, table = _console(), _table("timelines by name", "name", "what", "where")
    for row in sources:
        table.add_row(*(Text(row[k]) for k in ("name", "what", "state")))
    _print(console, table)


def print_stored(db: Path, stored: Sequence[dict[str, Any]]) -> None:
    """What a database holds."""
    console = _console()
    table = _table(f"timelines in {db}", "source", "user", "events", "from", "to", "time zone")
    for row in stored:
        zone = row["tz"] + ("" if row["tz_known"] else " (not known)")
        cells = [
            row["source"] + (" (synthetic)" if row["synthetic"] else ""),
            row["user"],
            f"{row['events']:,}",
            _date(row["first_t"]),
            _date(row["last_t"]),
            zone,
        ]
        table.add_row(*map(Text, cells))
    _print(console, table)


def print_users(loaded: Loaded) -> None:
    """One line per user: how much, how varied, how regular."""
    title = f"{loaded.name}{' (synthetic)' if loaded.synthetic else ''}"
    table = _table(
        title, "user", "events", "targets", "days", "per day", "top target", "time zone", "opens per day"
    )
    for x in loaded.timelines[:MAX_USERS]:
        if not len(x):
            continue
        _, _, day = hours_and_days(x)
        per_day = np.bincount(day - day[0])
        counts = np.bincount(x.target)
        share = counts.max() / len(x)
        cells = [
            x.user,
            f"{len(x):,}",
            f"{len(x.names):,}",
            f"{int((per_day > 0).sum()):,}",
            f"{len(x) / max(1, (per_day > 0).sum()):.0f}",
            f"{x.names[int(counts.argmax())][:28]} {share:.0%}",
            x.tz + ("" if x.tz_known else " (not known)"),
            blocks(_squeeze(per_day, 28)),
        ]
        table.add_row(*map(Text, cells))
    console = _console()
    _print(console, table)
    if len(loaded.timelines) > MAX_USERS:
        console.print(
            f"… and {len(loaded.timelines) - MAX_USERS:,} more users; --user NAME draws one of them"
        )


def print_timeline(timeline: Timeline, *, synthetic: bool = False, top: int = 10) -> None:
    """One user's week, hour by hour, and most opened targets with the hours they are opened at."""
    console = _console()
    if not len(timeline):
        console.print(Text(f"{timeline.user}: no events"))
        return
    hour, weekday, _ = hours_and_days(timeline)
    zone = timeline.tz + ("" if timeline.tz_known else ", not known")
    console.print()
    head = f"{timeline.user}{' (synthetic)' if synthetic else ''}: opens by weekday and hour ({zone})"
    console.print(Text(head, style="bold"))
    week = np.zeros((7, 48), int)
    np.add.at(week, (weekday, np.minimum((hour * 2).astype(int), 47)), 1)
    console.print("     0     3     6     9     12    15    18    21    ")
    for name, row in zip(DAYS, week, strict=True):
        console.print(Text.assemble(f"{name}  ", _heat(row, int(week.max())), f"  {row.sum():,}"))
    counts = np.bincount(timeline.target, minlength=len(timeline.names))
    best = np.argsort(-counts, kind="stable")[:top]
    table = _table("most opened", "target", "opens", "share", "", "by hour, 0 to 23")
    for i in best:
        at = np.bincount(hour[timeline.target == i].astype(int), minlength=24)[:24]
        bar = _bars()[-1] * max(1, round(20 * counts[i] / counts[best[0]]))
        cells = [timeline.names[i], f"{counts[i]:,}", f"{counts[i] / len(timeline):.1%}", bar, blocks(at)]
        table.add_row(*map(Text, cells))
    _print(console, table)
    rest = len(timeline) - int(counts[best].sum())
    if rest:
        others = len(timeline.names) - len(best)
        console.print(f"… and {rest:,} opens of {others:,} other targets")


def write_plot(loaded: Loaded, path: Path, *, user: str | None = None) -> None:
    """Every open as a dot, day across and local hour up, coloured by target; one panel per user.

    The file is put in place whole. Raises InputError where it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    shown = [x for x in loaded.timelines if len(x) and user in (None, x.user)]
    more = max(0, len(shown) - MAX_PANELS)
    shown = sorted(sorted(shown, key=len, reverse=True)[:MAX_PANELS], key=lambda x: x.user)
    columns = 1 if len(shown) == 1 else 2
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(7.2 * columns, 0.9 + 3.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for n, x in enumerate(shown):
        axes = figure.add_subplot(rows, columns, n + 1)
        hour, _, day = hours_and_days(x)
        dates = day.astype("datetime64[D]")
        counts = np.bincount(x.target, minlength=len(x.names))
        best = np.argsort(-counts, kind="stable")[: len(_COLOURS)]
        rest = ~np.isin(x.target, best)
        size = 3.0 if len(x) < 5000 else 1.5
        axes.scatter(dates[rest], hour[rest], s=size, c=_REST, linewidths=0, alpha=0.6, label="other")
        for i, colour in zip(best, _COLOURS, strict=False):
            of = x.target == i
            axes.scatter(dates[of], hour[of], s=size, c=colour, linewidths=0, label=_plain(x.names[i])[:24])
        axes.set_ylim(24, 0)
        axes.set_yticks(range(0, 25, 6))
        axes.set_ylabel(f"hour ({x.tz}{'' if x.tz_known else ', not known'})")
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_title(f"{_plain(x.user)[:40]}: {len(x):,} opens, {len(x.names):,} targets", fontsize=10)
        axes.legend(
            fontsize=7,
            markerscale=4,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            handletextpad=0.1,
        )
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    collapsed = all(x.collapsed for x in shown)
    title = f"{_plain(loaded.name)}{' (synthetic)' if loaded.synthetic else ''}: what was opened when"
    title += ", repeats collapsed" if collapsed else ", repeats kept"
    figure.suptitle(title + (f" ({more:,} more users not drawn)" if more else ""), fontsize=12)
    try:
        path.parent.mkdir(exist_ok=True)
        with file_atomic(path) as part, warnings.catch_warnings():
            # a name in a script that the font lacks is drawn as boxes; the terminal shows it
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(part, format=path.suffix[1:].lower(), dpi=150)
    except OSError as error:
        raise InputError(
            f"{path}: the plot cannot be written ({error.strerror}); name another with --plot"
        ) from error


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # piped into a file or a pager: room for a whole table
        console = Console(highlight=False, markup=False, emoji=False, width=140)
    return console


def _table(title: str, *columns: str) -> Any:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name in ("events", "targets", "days", "per day", "opens", "share")
        # names and sentences may go over several lines; a number, a date or a row of blocks may not
        table.add_column(
            name, justify="right" if right else "left", overflow="fold", no_wrap=name not in _LONG
        )
    return table


def _print(console: Console, table: Any) -> None:
    """A table; where the terminal is too narrow for one, each row as a paragraph of its own."""
    cells = [list(column.cells) for column in table.columns]
    names = [str(column.header) for column in table.columns]
    needed = 0
    for column, name, shown in zip(table.columns, names, cells, strict=True):
        whole = [str(x) for x in shown] if column.no_wrap else [w for x in shown for w in str(x).split()]
        needed += 3 + max(map(cell_len, [*whole, *name.split()]), default=0)
    if needed <= console.width:
        console.print(table)
        return
    console.print(table.title)
    for row in zip(*cells, strict=True):
        console.print(Text(str(row[0]), style="bold"))
        for name, cell in zip(names[1:], row[1:], strict=True):
            if str(cell).strip():
                console.print(
                    Text(wrapped(f"  {name}: {cell}" if name else f"  {cell}", "  ")), soft_wrap=True
                )


def _heat(row: np.ndarray, top: int) -> Any:
    """Half hours as blocks whose height and colour grow with the count."""
    out, bars = Text(), _bars()
    for value in row:
        step = 0 if top == 0 else int(np.ceil(value / top * 8))
        style = ("", "blue", "blue", "cyan", "cyan", "green", "yellow", "yellow", "red")[step]
        out.append(bars[step] if step else "·" if bars is _BARS else " ", style=style or "dim")
    return out


def _squeeze(values: np.ndarray, width: int) -> np.ndarray:
    """Sums over at most `width` equal stretches."""
    if len(values) <= width:
        return values
    return np.array([part.sum() for part in np.array_split(values, width)])


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula, nor a legend entry for a hidden one."""
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text


def _date(t: float | None) -> str:
    return "" if t is None else datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d")

"""A self-contained HTML page: the result on the first screen, all else folded. No script, no network.

The page follows the reader's light or dark setting and the width of the screen. A figure comes as two
SVGs (wide and narrow); the style sheet shows the one that fits. What is folded opens with a click, in
print, and where a link leads into it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlmemo.report.style import STYLE
from rlmemo.runs.atomic import file_atomic


@dataclass(frozen=True)
class Figure:
    """wide, narrow: SVG text. alt: what is to be seen, for those who cannot. keys: (name, colour) chips.
    note: a line below it, how to read it."""

    wide: str
    narrow: str
    alt: str
    keys: tuple[tuple[str, str], ...] = ()
    note: str = ""

    def html(self) -> str:
        chips = "".join(
            f'<span class="key"><i style="background:{html.escape(color)}"></i>{html.escape(name)}</span>'
            for name, color in self.keys
        )
        keys = f'<div class="keys">{chips}</div>' if chips else ""
        note = f"<figcaption>{html.escape(self.note)}</figcaption>" if self.note else ""
        return (
            f'<figure>{keys}<div role="img" aria-label="{html.escape(self.alt)}">'
            f'<div class="wide">{self.wide}</div><div class="narrow">{self.narrow}</div></div>{note}</figure>'
        )


@dataclass(frozen=True)
class Table:
    """head: column titles; rows: cells as text; strong: (row, column) cells that stand out (the best); main:
    the row that the page is about."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()
    prose: bool = False  # cells hold sentences: to the left, and broken where the page ends
    main: int | None = None

    def html(self) -> str:
        head = "".join(f"<th scope=col>{_cell(h)}</th>" for h in self.head)
        body = []
        for r, row in enumerate(self.rows):
            cells = [
                (f"<th scope=row>{_cell(c)}</th>" if k == 0 else f"<td{_strong(self, r, k)}>{_cell(c)}</td>")
                for k, c in enumerate(row)
            ]
            body.append(f"<tr{' class=main' if r == self.main else ''}>{''.join(cells)}</tr>")
        kind = " class=prose" if self.prose else ""
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<div class="scroll" tabindex="0"><table{kind}>{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Section:
    """What is folded below its title. inside: one line that says what is in it; text: paragraphs of plain
    text, then figures and tables in order, then notes."""

    title: str
    text: Sequence[str] = ()
    parts: Sequence[Figure | Table] = ()
    notes: Sequence[str] = ()
    inside: str = ""

    def html(self, anchor: str) -> str:
        text = "".join(f"<p>{html.escape(p)}</p>" for p in self.text)
        notes = "".join(f'<p class="note">{html.escape(p)}</p>' for p in self.notes)
        parts = "".join(part.html() for part in self.parts)
        return _folded(anchor, self.title, self.inside, f"{text}{parts}{notes}")


@dataclass(frozen=True)
class Page:
    """A whole report. lead: what was compared on what. result: what came out, in sentences; the first stands
    out. table, figure: the same in numbers and drawn; these five are the first screen. badge: "synthetic
    data" or "recorded data". facts: the setting, (name, value). command: what made the page."""

    title: str
    lead: str
    badge: str
    result: Sequence[str] = ()
    table: Table | None = None
    figure: Figure | None = None
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=list)
    command: str = ""

    def html(self) -> str:
        kind = "synthetic" if "synthetic" in self.badge else "recorded"
        result = "".join(f"<p>{html.escape(p)}</p>" for p in self.result)
        result = f'<div class="result">{result}</div>' if result else ""
        shown = "".join(part.html() for part in (self.table, self.figure) if part is not None)
        shown = f'<div class="shown">{shown}</div>' if shown else ""
        body = "".join(section.html(f"s{k}") for k, section in enumerate(self.sections))
        return (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f'<header><span class="badge {kind}">{html.escape(self.badge)}</span>'
            f"<h1>{html.escape(self.title)}</h1><p class=lead>{html.escape(self.lead)}</p>"
            f"{result}{shown}</header><main>{body}{self._setting()}</main></body></html>\n"
        )

    def _setting(self) -> str:
        facts = "".join(
            f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in self.facts
        )
        command = f'<p class="note">Made by</p><pre>{html.escape(self.command)}</pre>' if self.command else ""
        inside = "Everything that the numbers depend on, to make them again"
        return _folded("setting", "The setting", inside, f"<dl>{facts}</dl>{command}")

    def write(self, path: Path | str) -> Path:
        """Write the page whole or not at all. Returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_atomic(path) as part:
            part.write_text(self.html(), encoding="utf-8")
        return path


def _folded(anchor: str, title: str, inside: str, body: str) -> str:
    """A section that opens with a click. The anchor is within, so that a link to it opens it."""
    said = f"<span>{html.escape(inside)}</span>" if inside else ""
    return (
        f"<details><summary><h2>{html.escape(title)}</h2>{said}</summary>"
        f'<div class="body" id="{anchor}">{body}</div></details>'
    )


def _strong(table: Table, row: int, column: int) -> str:
    return " class=best" if (row, column) in table.strong else ""


def _cell(text: str) -> str:
    """A cell; what follows a line break is set smaller (the interval below its value)."""
    first, _, rest = text.partition("\n")
    small = f"<small>{html.escape(rest)}</small>" if rest else ""
    return html.escape(first) + small

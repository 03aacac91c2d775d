"""A self-contained HTML page: title, facts, sections with text, figures and tables. No script, no network.

The page follows the reader's light or dark setting and the width of the screen. A figure comes as two
SVGs (wide and narrow); the style sheet shows the one that fits.
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
    """wide, narrow: SVG text. alt: what is to be seen, for those who cannot. keys: (name, colour) chips."""

    wide: str
    narrow: str
    alt: str
    keys: tuple[tuple[str, str], ...] = ()

    def html(self) -> str:
        chips = "".join(
            f'<span class="key"><i style="background:{html.escape(color)}"></i>{html.escape(name)}</span>'
            for name, color in self.keys
        )
        keys = f'<div class="keys">{chips}</div>' if chips else ""
        return (
            f'<figure role="img" aria-label="{html.escape(self.alt)}">{keys}'
            f'<div class="wide">{self.wide}</div><div class="narrow">{self.narrow}</div></figure>'
        )


@dataclass(frozen=True)
class Table:
    """head: column titles; rows: cells as text; strong: (row, column) cells that stand out (the best)."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()
    prose: bool = False  # cells hold sentences: to the left, and broken where the page ends

    def html(self) -> str:
        head = "".join(f"<th scope=col>{html.escape(h)}</th>" for h in self.head)
        body = []
        for r, row in enumerate(self.rows):
            cells = [
                (f"<th scope=row>{_cell(c)}</th>" if k == 0 else f"<td{_strong(self, r, k)}>{_cell(c)}</td>")
                for k, c in enumerate(row)
            ]
            body.append(f"<tr>{''.join(cells)}</tr>")
        kind = " class=prose" if self.prose else ""
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<div class="scroll" tabindex="0"><table{kind}>{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Section:
    """title, one or more paragraphs of plain text, then figures and tables in order."""

    title: str
    text: Sequence[str] = ()
    parts: Sequence[Figure | Table] = ()
    notes: Sequence[str] = ()

    def html(self, anchor: str) -> str:
        text = "".join(f"<p>{html.escape(p)}</p>" for p in self.text)
        notes = "".join(f'<p class="note">{html.escape(p)}</p>' for p in self.notes)
        parts = "".join(part.html() for part in self.parts)
        return f'<section id="{anchor}"><h2>{html.escape(self.title)}</h2>{text}{parts}{notes}</section>'


@dataclass(frozen=True)
class Headline:
    """One number in large type: value, what it is, and what it stands beside."""

    value: str
    label: str
    beside: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report. badge: "synthetic data" or "recorded data"; facts: the setting, (name, value)."""

    title: str
    lead: str
    badge: str
    headlines: Sequence[Headline] = ()
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=list)
    command: str = ""

    def html(self) -> str:
        kind = "synthetic" if "synthetic" in self.badge else "recorded"
        cards = "".join(
            f'<div class="card"><b>{html.escape(h.value)}</b><span>{html.escape(h.label)}</span>'
            f"<small>{html.escape(h.beside)}</small></div>"
            for h in self.headlines
        )
        facts = "".join(
            f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in self.facts
        )
        anchors = [f"s{k}" for k in range(len(self.sections))]
        links = "".join(
            f'<a href="#{a}">{html.escape(s.title)}</a>' for a, s in zip(anchors, self.sections, strict=True)
        )
        command = f'<p class="note">Made by</p><pre>{html.escape(self.command)}</pre>' if self.command else ""
        body = "".join(s.html(a) for a, s in zip(anchors, self.sections, strict=True))
        return (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f'<header><span class="badge {kind}">{html.escape(self.badge)}</span>'
            f"<h1>{html.escape(self.title)}</h1><p class=lead>{html.escape(self.lead)}</p>"
            f'<div class="cards">{cards}</div></header>'
            f"<nav>{links}</nav><main>{body}"
            f'<section id="setting"><h2>The setting</h2><dl>{facts}</dl>{command}</section></main>'
            "</body></html>\n"
        )

    def write(self, path: Path | str) -> Path:
        """Write the page whole or not at all. Returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_atomic(path) as part:
            part.write_text(self.html(), encoding="utf-8")
        return path


def _strong(table: Table, row: int, column: int) -> str:
    return " class=best" if (row, column) in table.strong else ""


def _cell(text: str) -> str:
    """A cell; what follows a line break is set smaller (the interval below its value)."""
    first, _, rest = text.partition("\n")
    small = f"<small>{html.escape(rest)}</small>" if rest else ""
    return html.escape(first) + small

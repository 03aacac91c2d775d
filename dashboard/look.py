"""How the pages look: the one place for markup, and the only door through which text becomes HTML.

Target names, users and reasons come from recordings. They go to the page through `html(...)` after
`e(...)` (escaped, on one line), or through widgets that show plain text; never into Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from dashboard.words import shown, span

# An ember on paper, an ember in the dark: warm is what the thing does.
THEME = {
    "theme.light.primaryColor": "#b8480f",
    "theme.light.backgroundColor": "#fcfaf7",
    "theme.light.secondaryBackgroundColor": "#f3eee7",
    "theme.light.textColor": "#221f1c",
    "theme.light.borderColor": "#e2dad0",
    "theme.dark.primaryColor": "#e8793a",
    "theme.dark.backgroundColor": "#16140f",
    "theme.dark.secondaryBackgroundColor": "#221f19",
    "theme.dark.textColor": "#ece6dc",
    "theme.dark.borderColor": "#3a352c",
    "theme.baseRadius": "0.7rem",
    "theme.buttonRadius": "0.7rem",
}

EMBER = ["#f6e7d8", "#f0bd91", "#e58d4b", "#c95c1b", "#8c3608"]
"""From little to much, on light and on dark."""

SERIES = ["#c95c1b", "#2f7f86", "#8a6bb0", "#b3923a", "#5b86c9", "#7d8f3f", "#b05a80"]
"""Colours of several lines in one picture, told apart on light and on dark."""


FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path fill="#c95c1b" d="'
    'M12 2c1 4 6 6 6 12a6 6 0 0 1-12 0c0-2.5 1-4.5 2.5-6 .3 1.6 1 2.6 2 3C10.5 8 11 5 12 2z"/></svg>'
)
"""Ours: an emoji or icon as favicon would be fetched by the browser from somebody else's server."""

_STYLE = """
<style>
[data-testid="stMainBlockContainer"] {max-width: 60rem; padding-top: 4.2rem; padding-bottom: 3rem;}
.card {border: 1px solid color-mix(in srgb, currentColor 16%, transparent); border-radius: .9rem;
  padding: 1.1rem 1.25rem 1.2rem; background: color-mix(in srgb, currentColor 3%, transparent);}
.quiet {opacity: .68; font-size: .875rem;}
.when {font-size: 1.02rem; font-weight: 600; margin: 0 0 .1rem;}
.strip {display: flex; flex-wrap: wrap; gap: .35rem .3rem; align-items: center; padding: .75rem 0 .25rem;}
.step {flex: 0 0 auto; max-width: min(14rem, 100%); padding: .28rem .62rem; border-radius: 2rem;
  font-size: .85rem;
  background: color-mix(in srgb, currentColor 9%, transparent); white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis;}
.step.now {background: color-mix(in srgb, var(--ember) 22%, transparent); font-weight: 600;
  box-shadow: inset 0 0 0 1.5px var(--ember);}
.last {display: inline-flex; align-items: center; gap: .3rem; max-width: 100%;}
.last .step {flex: 0 1 auto; min-width: 0;}
.gap {flex: 0 0 auto; font-size: .72rem; opacity: .6; white-space: nowrap;}
.ask {margin: 1rem 0 .35rem; font-size: .875rem; opacity: .75;}
.pick {display: flex; justify-content: space-between; align-items: baseline; gap: .8rem; padding: .5rem 0;
  border-top: 1px solid color-mix(in srgb, currentColor 12%, transparent);}
.pick b {font-size: 1.35rem; line-height: 1.25; font-weight: 650; overflow-wrap: anywhere;}
.pick span {flex: 0 0 auto; font-size: .95rem;}
.st-key-votes button {min-height: 3.7rem; font-size: 1.05rem;}
.st-key-votes button p {font-size: 1.05rem; font-weight: 600;}
.st-key-votes {flex-wrap: nowrap;}
.grid {display: grid; grid-template-columns: minmax(6rem, 34%) 1fr auto; gap: .1rem .9rem;
  align-items: center; font-size: .92rem;}
.grid > * {padding: .34rem 0;}
.grid .name {overflow-wrap: anywhere;}
.grid .n {text-align: right; font-variant-numeric: tabular-nums;}
.candidates > div {padding: .5rem 0; border-top: 1px solid color-mix(in srgb, currentColor 12%, transparent);}
.candidates .head {display: flex; justify-content: space-between; align-items: baseline; gap: .8rem;
  margin-bottom: .25rem;}
.candidates .name {overflow-wrap: anywhere; font-weight: 600;}
.candidates .n {font-variant-numeric: tabular-nums;}
.candidates .step {display: inline-block; font-size: .75rem; padding: .1rem .5rem; font-weight: 400;
  vertical-align: middle;}
.candidates .quiet {font-size: .82rem; margin-top: .25rem;}
.question {margin-top: .9rem; font-weight: 600;}
.still {font-size: 1.25rem; padding: .4rem 0; font-weight: 600;}
.band {border-left: 4px solid var(--ember); border-radius: .5rem; padding: .55rem .85rem; font-size: .92rem;
  background: color-mix(in srgb, currentColor 5%, transparent);}
.band.good {border-color: #3c8d5a;}
.bar {height: .4rem; border-radius: 1rem; background: color-mix(in srgb, currentColor 12%, transparent);
  overflow: hidden;}
.bar i {display: block; height: 100%; background: var(--ember); border-radius: 1rem;}
.meta {display: flex; flex-wrap: wrap; justify-content: space-between; gap: .2rem .9rem; font-size: .875rem;
  margin-bottom: .4rem;}
.tiles {display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .6rem;}
.tile {border: 1px solid color-mix(in srgb, currentColor 14%, transparent); border-radius: .8rem;
  padding: .65rem .85rem;}
.tile b {display: block; font-size: 1.45rem; line-height: 1.3; font-weight: 650; overflow-wrap: anywhere;}
.empty {text-align: center; padding: 2.2rem 1.2rem;}
.empty h3 {margin: 0 0 .4rem; padding: 0;}
.empty code, .cmd {display: block; text-align: left; margin: .8rem auto 0; max-width: 40rem;
  padding: .7rem .9rem; border-radius: .6rem; overflow-x: auto;
  background: color-mix(in srgb, currentColor 8%, transparent);
  font-family: ui-monospace, monospace; font-size: .84rem; white-space: pre;}
.log {white-space: pre-wrap; overflow-wrap: anywhere; padding: .7rem .9rem; border-radius: .6rem; margin: 0;
  font-family: ui-monospace, monospace; font-size: .8rem;
  background: color-mix(in srgb, currentColor 8%, transparent);}
[data-testid="stExpandSidebarButton"] {width: auto !important; padding: 0 .6rem;}
[data-testid="stExpandSidebarButton"]::after {content: "Pages"; font-size: .9rem; margin-left: .25rem;}
table.plain {width: 100%; border-collapse: collapse; font-size: .92rem;}
table.plain td, table.plain th {text-align: left; padding: .38rem .8rem .38rem 0; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, currentColor 12%, transparent); overflow-wrap: break-word;}
table.plain td {max-width: 20rem;}
table.plain td.n, table.plain th.n {text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap;}
@media (max-width: 600px) {
  table.plain {font-size: .82rem;}
  table.plain td, table.plain th {padding-right: .5rem;}
  table.plain td.n, table.plain th.n {white-space: normal;}
}
.scroll {overflow-x: auto;}
:root {--ember: #c95c1b;}
body:has([data-test-connection-state="PINGING_SERVER"], [data-test-connection-state^="DISCONNECTED"]) {
  [role="dialog"] :is(h2, h2 + div, h2 + div *) {font-size: 0;}
  [role="dialog"] h2::after {font-size: 1.4rem; content: "The dashboard has stopped";}
  [role="dialog"] h2 + div::after {font-size: 1rem; content: "Your votes are stored. Start it again in its "
    "terminal with the command as before, and open the address that it prints.";}
}
@media (max-width: 640px) {
  [data-testid="stMainBlockContainer"] {padding-left: .9rem; padding-right: .9rem; padding-top: 3.6rem;}
  .card {padding: .9rem .95rem 1rem;}
  h1 {font-size: 1.6rem !important; padding-bottom: .9rem !important;}
}
</style>
"""


def e(text: object, longest: int = 48) -> str:
    """`text` for use inside HTML: on one line, without hidden characters, escaped."""
    return escape(shown(text, longest), quote=True)


def html(markup: str) -> None:
    """Put markup on the page. Every piece of it that is not ours has been through `e`."""
    import streamlit as st

    st.html(markup)


def problem(text: str) -> None:
    """What is wrong with what a person gave, or with their files: the line that a command says, too."""
    html(f'<div class="band" role="alert" data-testid="problem">{e(text, 600)}</div>')


def style() -> None:
    """The style sheet of all pages, once per run."""
    html(_STYLE)


def strip(steps: Sequence[tuple[float, str]], most: int = 5) -> str:
    """The last events as markup: names with the time between them, what is open now at the end."""
    parts = []
    kept = list(steps)[-most:]
    for i, (t, target) in enumerate(kept):
        if i:
            parts.append(f'<span class="gap">{e(span(t - kept[i - 1][0]))} →</span>')
        if i < len(kept) - 1:
            parts.append(f'<span class="step" title="{e(target, 120)}">{e(target)}</span>')
        else:  # with its label, so that the two never stand on two lines
            parts.append(
                f'<span class="last"><span class="step now" title="{e(target, 120)}">{e(target)}</span>'
                '<span class="gap">open now</span></span>'
            )
    return f'<div class="strip">{"".join(parts)}</div>'


def tiles(facts: list[tuple[str, str]]) -> None:
    """A row of (value, what it is) tiles; both are plain text."""
    html(
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{e(v)}</b><span class="quiet">{e(w, 80)}</span></div>' for v, w in facts
        )
        + "</div>"
    )


def empty(title: str, text: str, command: str | None = None) -> None:
    """An empty state: what is missing, and the one command that brings it."""
    code = f"<code>{escape(command)}</code>" if command else ""
    html(f'<div class="card empty"><h3>{e(title, 80)}</h3><div>{e(text, 400)}</div>{code}</div>')


def table(head: list[str], rows: list[list[object]], numeric: set[int] | None = None) -> None:
    """A plain table that scrolls sideways on a narrow screen; cells are plain text."""
    numeric = numeric or set()

    def cells(row: list[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numeric else ''}>{e(x, 120)}</{tag}>" for i, x in enumerate(row)
        )

    body = "".join(f"<tr>{cells(r, 'td')}</tr>" for r in rows)
    html(f'<div class="scroll"><table class="plain"><tr>{cells(list(head), "th")}</tr>{body}</table></div>')


def dark() -> bool:
    """Whether the page is shown dark at the moment."""
    import streamlit as st

    return st.context.theme.type == "dark"


def text_color() -> str:
    """The page's text colour, for text inside pictures."""
    return THEME["theme.dark.textColor" if dark() else "theme.light.textColor"]


def ramp() -> list[str]:
    """Colours from nothing to most, for the page as it is shown."""
    return ["#262119", *EMBER[::-1][:-1]] if dark() else EMBER


def legend() -> Any:
    """A legend above the picture, so that it keeps its width on a phone too."""
    import altair as alt

    return alt.Legend(orient="top", columns=4, labelLimit=140, symbolStrokeWidth=3, symbolOpacity=1)


def draw(chart: Any, says: str) -> None:
    """An Altair chart over the whole width; `says` is what a screen reader reads."""
    import streamlit as st

    st.altair_chart(chart.configure_view(strokeWidth=0), width="stretch", alt=says)

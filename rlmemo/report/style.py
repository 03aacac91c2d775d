"""The report's style sheet: light and dark paper, wide and narrow screens, print."""

from __future__ import annotations

STYLE = """
:root { --bg: #fbfaf7; --card: #ffffff; --ink: #1b2430; --muted: #5d6875; --line: #e3e0d8;
  --grid: #d9d6cd;
  --accent: #c2410c; --good: #0f766e; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #12161c; --card: #1a2028; --ink: #e8ebef; --muted: #9aa6b3; --line: #2b333e; --grid:
    #353e4a;
    --accent: #fb923c; --good: #5eead4; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 68rem; padding: 0 1.25rem 4rem; background: var(--bg);
  color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans",
    sans-serif; }
header { padding: 1.5rem 0 .5rem; }
h1 { font-size: clamp(1.3rem, 3.4vw, 1.9rem); line-height: 1.15; margin: .4rem 0 .35rem;
  letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0; letter-spacing: -.01em; }
p { margin: 0 0 .8rem; max-width: 46rem; }
.lead, .result p { text-wrap: pretty; }
.lead { color: var(--muted); max-width: none; margin-bottom: .9rem; }
.badge { display: inline-block; padding: .05rem .6rem; border-radius: 1rem; font-size: .72rem;
  font-weight: 600; letter-spacing: .04em; text-transform: uppercase; border: 1px solid currentColor; }
.badge.synthetic { color: var(--accent); } .badge.recorded { color: var(--good); }
.result { border-left: 4px solid var(--good); padding: .1rem 0 .1rem .9rem; margin: 0 0 1.1rem; }
.result p { margin: 0 0 .2rem; max-width: none; }
.result p:first-child { font-size: 1.22rem; line-height: 1.35; font-weight: 650;
  letter-spacing: -.01em; }
.shown { display: grid; grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); gap: 1.8rem;
  align-items: start; }
.shown > :only-child { grid-column: 1 / -1; max-width: 40rem; }
.shown figure, .shown .scroll { margin: 0; } .shown th, .shown td { padding: .38rem .45rem; }
.shown th:first-child { padding-left: 0; } .shown thead th { min-width: 0; white-space: nowrap; }
.shown tbody th { white-space: normal; min-width: 5.2rem; }
td small, th small, .note, figcaption { color: var(--muted); }
th small { display: block; font-size: .76rem; font-weight: 400; }
figcaption { font-size: .82rem; margin-top: .3rem; }
details { background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  margin: .5rem 0; }
summary { cursor: pointer; padding: .6rem 1.2rem .6rem 2.3rem; position: relative; list-style: none;
  display: flex;
  flex-wrap: wrap; align-items: baseline; gap: 0 .8rem; }
summary::-webkit-details-marker { display: none; }
summary::before { content: ""; position: absolute; left: 1.1rem; top: 1.1rem; width: .42rem;
  height: .42rem;
  border: solid var(--muted); border-width: 0 2px 2px 0; transform: rotate(-45deg); }
details[open] > summary::before { transform: rotate(45deg); }
summary:hover h2 { color: var(--accent); } summary:focus-visible { outline: 2px solid var(--accent); }
summary span { color: var(--muted); font-size: .88rem; }
.body { padding: .3rem 1.5rem 1rem; }
figure { margin: .4rem 0 1rem; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure .narrow { display: none; }
.keys { display: flex; flex-wrap: wrap; gap: .15rem .9rem; font-size: .87rem; margin-bottom: .4rem; }
.key { white-space: nowrap; } .key i { display: inline-block; width: .75em; height: .75em; border-radius:
  50%;
  margin-right: .4em; }
.scroll { overflow-x: auto; margin: .3rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .89rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; color: var(--muted); font-size: .82rem; padding-top:
  .5rem; }
th, td { padding: .38rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid
  var(--line);
  vertical-align: top; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; white-space: normal; min-width:
  4.2rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
.shown th:first-child { background: var(--bg); }
tbody th { font-weight: 600; }
.main th, .main td { font-weight: 700; } .main th { color: var(--good); }
.prose th, .prose td { text-align: left; white-space: normal; }
.prose th:first-child { white-space: nowrap; }
td small { display: block; font-size: .76rem; }
td.best { font-weight: 700; color: var(--good); } td.best small { font-weight: 400; }
tbody tr:last-child th, tbody tr:last-child td { border-bottom: 0; }
.note { font-size: .87rem; margin-bottom: .5rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .7rem 1.2rem;
  margin: 0 0 1rem; }
dt { color: var(--muted); font-size: .82rem; } dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--bg); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem;
  font: .84rem/1.45 ui-monospace, "SFMono-Regular", "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; }
@media (max-width: 860px) { .shown { grid-template-columns: minmax(0, 34rem); gap: .8rem; } }
@media (max-width: 640px) {
  body { padding: 0 .7rem 3rem; font-size: 15px; } header { padding: .6rem .2rem .3rem; }
  h1 { font-size: 1.12rem; margin: .2rem 0; } .lead { font-size: .87rem; line-height: 1.4;
  margin-bottom: .5rem; }
  .result { padding-left: .6rem; margin-bottom: .6rem; } .result p { font-size: .87rem;
  line-height: 1.4; }
  .result p:first-child { font-size: 1.02rem; line-height: 1.3; }
  .shown table { font-size: .76rem; } .shown th, .shown td { padding: .16rem .2rem; }
  .shown th:first-child { padding-left: 0; background: none; } .shown thead th { min-width: 0;
  line-height: 1.25; }
  .shown caption { font-size: .72rem; line-height: 1.35; padding-top: .25rem; }
  .shown th small { display: none; } .shown tbody th { min-width: 0; white-space: nowrap; }
  figcaption { font-size: .76rem; } .shown .keys { font-size: .78rem; }
  summary { padding: .6rem .8rem .6rem 2rem; } summary::before { left: .9rem; }
  .body { padding: .2rem .9rem .6rem; }
  figure .wide { display: none; } figure .narrow { display: block; }
}
@media print {
  body { max-width: none; } details::details-content { content-visibility: visible; block-size: auto; }
  figure, .scroll { break-inside: avoid; } summary { break-after: avoid; }
}
"""

"""The report's style sheet: light and dark paper, wide and narrow screens, print."""

from __future__ import annotations

STYLE = """
:root { --bg: #fbfaf7; --card: #ffffff; --ink: #1b2430; --muted: #5d6875; --line: #e3e0d8; --grid: #d9d6cd;
  --accent: #c2410c; --good: #0f766e; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #12161c; --card: #1a2028; --ink: #e8ebef; --muted: #9aa6b3; --line: #2b333e; --grid:
    #353e4a;
    --accent: #fb923c; --good: #5eead4; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 62rem; padding: 0 1.25rem 4rem; background: var(--bg); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans",
    sans-serif; }
header { padding: 3rem 0 1rem; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.6rem); line-height: 1.15; margin: .6rem 0 .6rem; letter-spacing:
  -.02em; }
h2 { font-size: 1.3rem; margin: 0 0 .6rem; letter-spacing: -.01em; }
p { margin: 0 0 .8rem; max-width: 46rem; }
.lead { font-size: 1.1rem; color: var(--muted); max-width: 44rem; }
.badge { display: inline-block; padding: .15rem .6rem; border-radius: 1rem; font-size: .75rem;
  font-weight: 600;
  letter-spacing: .04em; text-transform: uppercase; border: 1px solid currentColor; }
.badge.synthetic { color: var(--accent); } .badge.recorded { color: var(--good); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem;
  margin-top: 1.6rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: .9rem 1rem; }
.card b { display: block; font-size: 1.9rem; line-height: 1.15; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.card span { display: block; font-weight: 600; font-size: .92rem; margin-top: .15rem; }
.card small, td small, .note { color: var(--muted); }
.card small { display: block; font-size: .82rem; margin-top: .25rem; line-height: 1.4; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: .7rem 0; margin-bottom: 1rem;
  font-size: .9rem;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
nav a { color: var(--muted); text-decoration: none; } nav a:hover { color: var(--accent); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 1rem; padding: 1.4rem
  1.5rem 1.1rem;
  margin: 1.1rem 0; }
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
tbody th { font-weight: 600; }
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
  font: .84rem/1.45 ui-monospace, "SFMono-Regular", "DejaVu Sans Mono", monospace; white-space: pre-wrap; }
@media (max-width: 640px) {
  body { padding: 0 .7rem 3rem; } header { padding: 1.6rem .3rem .6rem; } section { padding: 1rem .9rem
    .6rem; }
  figure .wide { display: none; } figure .narrow { display: block; }
  .cards { grid-template-columns: 1fr 1fr; gap: .5rem; } .card { padding: .7rem .75rem; } .card b {
    font-size: 1.45rem; }
}
@media print { body { max-width: none; } section { break-inside: avoid; } nav { display: none; } }
"""

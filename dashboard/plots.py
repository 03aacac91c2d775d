"""The pictures of *Policies*. Vega draws names as text, never as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboard import look
from dashboard.look import e, html
from dashboard.runs import RunFiles, Value

Policies = dict[str, dict[str, Value]]

TERM_WORDS = {
    "saved_seconds": "waiting saved",
    "held_mb_minutes": "memory held",
    "wasted_mb_minutes": "memory wasted",
    "planned": "asking",
    "rating": "thumbs",
    "hit": "hits",
    "late": "late",
    "wasted": "wasted",
    "redundant": "warm anyway",
    "pollution": "pushed out",
}
"""The reward's terms as they are called here; others keep their own name."""


def dots(policies: Policies, metric: str, *, percent: bool, best: str) -> None:
    """One dot and its interval per policy, best first. best: "most" or "least"."""
    import altair as alt
    import pandas as pd

    rows = [(name, v.value, v.low, v.high) for name, m in policies.items() if (v := m.get(metric))]
    table = pd.DataFrame(rows, columns=["policy", "value", "low", "high"])
    order = list(table.sort_values("value", ascending=best == "least")["policy"])
    y = alt.Y("policy:N", sort=order, title=None, axis=alt.Axis(labelLimit=170, labelOverlap=False))
    axis = alt.X(
        "low:Q", title=None, axis=alt.Axis(format="%" if percent else "~g", tickCount=6),
        scale=alt.Scale(zero=False),
    )  # fmt: skip
    whisker = (
        alt.Chart(table)
        .mark_rule(strokeWidth=3, opacity=0.45, color=look.EMBER[3])
        .encode(y=y, x=axis, x2="high:Q")
    )
    dot = (
        alt.Chart(table)
        .mark_circle(size=110, opacity=1, color=look.EMBER[3])
        .encode(y=y, x="value:Q", tooltip=["policy", "value", "low", "high"])
    )
    look.draw((whisker + dot).properties(height=alt.Step(30)), f"{metric} of every policy, with intervals")


Standing = tuple[str, float, float]
"""A policy, its memory wasted and its hits, per open."""


def traded(
    policies: Policies, sweeps: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[list[Standing], list[Standing]]:
    """Where each policy stands, and the points at which its thresholds could put it. Who stands at zero is
    there too, unless no threshold would move it, as that of keeping still."""
    stands = [
        (name, m["wasted_mb_minutes_per_open"].value, m["hit_rate"].value)
        for name, m in policies.items()
        if "hit_rate" in m and "wasted_mb_minutes_per_open" in m
    ]
    points = [
        (name, w, h)
        for name, *_ in stands
        for w, h in zip(*(sweeps.get(name, {}).get(k, []) for k in SWEPT), strict=True)
    ]
    moves = {name for name, waste, hits in stands + points if waste or hits}
    return [x for x in stands if x[0] in moves], [x for x in points if x[0] in moves]


def trade(policies: Policies, sweeps: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Hits against memory wasted: a dot where each policy stands, a line where its threshold could put it."""
    import altair as alt
    import pandas as pd

    rows, points = traded(policies, sweeps)
    if not rows:
        html('<div class="quiet">No policy prewarms anything here, whatever its threshold.</div>')
        return
    table = pd.DataFrame(rows, columns=["policy", "waste", "hits"]).sort_values("hits")
    most = 2.2 * float(table["waste"].max()) or max(waste for _, waste, _ in points) or 1.0
    lines = pd.DataFrame([x for x in points if x[1] <= most], columns=["policy", "waste", "hits"])
    color = _by_policy([name for name in policies if name in set(table["policy"])], list(policies))
    room = alt.Axis(tickCount=8)
    x = alt.X("waste:Q", title="MB-minutes wasted per open", scale=alt.Scale(domain=[0, most]), axis=room)
    top = 1.08 * max([h for _, _, h in rows] + [h for _, w, h in points if w <= most], default=0.0) or 1.0
    y = alt.Y(
        "hits:Q",
        title="hits per open",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(domain=[0, top], nice=False),
    )
    layers = [
        alt.Chart(table).mark_circle(size=130, opacity=1)
        .encode(x=x, y=y, color=color, tooltip=["policy", "waste", "hits"])
    ]  # fmt: skip
    if len(lines):
        layers.insert(
            0,
            alt.Chart(lines).mark_line(strokeWidth=1.6, opacity=0.6, clip=True)
            .encode(x=x, y=y, color=color, order="waste:Q"),
        )  # fmt: skip
    look.draw(
        alt.layer(*layers).properties(height=320),
        "Hits per open against memory wasted; up and to the left is better",
    )
    said = "Up and to the left is better."
    if len(lines):
        said += " A line is where other thresholds would have put the policy, on the same events."
    still = [name for name, waste, hits in rows if not waste and not hits]
    if still:
        said += f" At zero, as it never prewarms: {', '.join(still)}."
    html(f'<div class="quiet" data-testid="trade">{e(said, 600)}</div>')


SWEPT = ("wasted_mb_minutes_per_open", "hit_rate")


def terms(rewards: Mapping[str, Mapping[str, Value]]) -> None:
    """The reward's terms per policy: what adds to it to the right, what takes from it to the left."""
    import altair as alt
    import pandas as pd

    rows = [
        (name, TERM_WORDS.get(term, term), v.value)
        for name, by in rewards.items()
        for term, v in by.items()
        if any(abs(other[term].value) > 1e-9 for other in rewards.values() if term in other)
    ]
    if not rows:
        return
    table = pd.DataFrame(rows, columns=["policy", "term", "reward"])
    total = table.groupby("policy", as_index=False)["reward"].sum()
    order = list(total.sort_values("reward", ascending=False)["policy"])
    y = alt.Y("policy:N", sort=order, title=None, axis=alt.Axis(labelLimit=170, labelOverlap=False))
    named = list(dict.fromkeys(table["term"]))
    bars = (
        alt.Chart(table)
        .mark_bar(size=14)
        .encode(
            y=y,
            x=alt.X("reward:Q", title="reward per open", stack="zero"),
            color=alt.Color(
                "term:N", title=None, sort=named,
                scale=alt.Scale(domain=named, range=[look.SERIES[1], look.SERIES[0], *look.SERIES[2:]]),
                legend=look.legend(),
            ),
            tooltip=["policy", "term", "reward"],
        )
    )  # fmt: skip
    ticks = (
        alt.Chart(total)
        .mark_tick(thickness=3, size=24, color=look.text_color())
        .encode(y=y, x="reward:Q", tooltip=["policy", "reward"])
    )
    look.draw((bars + ticks).properties(height=alt.Step(34)), "The reward of every policy by its terms")
    html('<div class="quiet">What a policy gains and what it pays, per open; the mark is what is left.</div>')


def reliability(
    bins: Mapping[str, Mapping[str, Sequence[float]]], says: str, everybody: Sequence[str]
) -> None:
    """How sure against how often right, one line per policy, and the diagonal on which the two agree.
    everybody: all policies of the page, who keep their colours."""
    import altair as alt
    import pandas as pd

    rows = [
        (name, p, o)
        for name, by in bins.items()
        for p, o in zip(by["predicted"], by["observed"], strict=True)
    ]
    if not rows:
        return
    table = pd.DataFrame(rows, columns=["policy", "said", "was"])
    top = min(1.0, 1.05 * max(0.2, float(table[["said", "was"]].to_numpy().max())))
    scale = alt.Scale(domain=[0, top])
    x = alt.X("said:Q", title=f"{says}: said", axis=alt.Axis(format="%", tickCount=8), scale=scale)
    y = alt.Y("was:Q", title="came true", axis=alt.Axis(format="%"), scale=scale)
    ideal = (
        alt.Chart(pd.DataFrame({"said": [0, top], "was": [0, top]}))
        .mark_line(strokeDash=[5, 5], opacity=0.5, color=look.text_color())
        .encode(x=x, y=y)
    )
    lines = (
        alt.Chart(table)
        .mark_line(point=alt.OverlayMarkDef(size=45), strokeWidth=1.8)
        .encode(
            x=x, y=y, tooltip=["policy", "said", "was"],
            color=_by_policy([name for name in everybody if name in bins], everybody),
        )
    )  # fmt: skip
    look.draw((ideal + lines).properties(height=320), f"{says}: said against came true, by policy")
    html('<div class="quiet">On the dashed line a probability means what it says.</div>')


def _by_policy(named: Sequence[str], everybody: Sequence[str]) -> Any:
    """Colours by policy: the same one in every picture of the page."""
    import altair as alt

    colors = {name: look.SERIES[i % len(look.SERIES)] for i, name in enumerate(everybody)}
    return alt.Color(
        "policy:N", title=None, sort=list(named), legend=look.legend(),
        scale=alt.Scale(domain=list(named), range=[colors[name] for name in named]),
    )  # fmt: skip


def curve(run: RunFiles, table: Any, name: str, title: str) -> None:
    """One number that was logged while learning, a line per stage."""
    import altair as alt

    chart = (
        alt.Chart(table)
        .mark_line(point=len(table) < 40)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
            color=alt.Color("stage:N", title=None, scale=alt.Scale(range=look.SERIES), legend=look.legend()),
            tooltip=["stage", "step", "value"],
        )
        .properties(height=220)
    )
    look.draw(chart, f"{name} of {run.name} by step")

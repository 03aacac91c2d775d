"""Policies: what each of them is worth, side by side, and how people liked what it did."""

from __future__ import annotations

import streamlit as st

from dashboard import look, runs, words
from dashboard.look import e, html
from dashboard.setting import Setting, opened
from dashboard.words import shown
from rlmemo import ratings
from rlmemo.store import Store

TITLE = "Policies"
ICON = ":material/balance:"

# metric: (what it is called here, how it is written, what it means)
COLUMNS = {
    "hr@1": ("First guess right", "{:.1%}", "share of opens whose target stood first in the list"),
    "hr@5": ("In the first five", "{:.1%}", "share of opens whose target was among the first five"),
    "saved_seconds_per_open": ("Saved per open", "{:.3f} s", "waiting saved, per open"),
    "hit_rate": ("Hits", "{:.1%}", "opens that were ready and would have been cold"),
    "waste_rate": ("Wasted", "{:.1%}", "prewarms that nobody needed"),
    "reward_per_open": ("Reward", "{:.3f}", "reward per open"),
    "oracle_share": (
        "Of the possible",
        "{:.1%}",
        "saved seconds as a share of what a clairvoyant would save",
    ),
}

FIRST_CURVES = ("loss", "reward", "eval_loss", "rewards/margins")

Policies = dict[str, dict[str, runs.Value]]


def show(where: Setting) -> None:
    st.title("Policies")
    found = runs.find_runs(where.runs)
    done = {r.name: r for r in found if r.finished}
    if done:
        _reports(done)
    else:
        look.empty(
            "No finished run yet",
            f"Nothing with a report in {where.runs.name}/. Train one, or compare the baselines.",
            "python -m rlmemo.train\n"
            f"python -m rlmemo.benchmark --timelines demo --json {where.runs.name}/baselines.json",
        )
    if where.db.exists():
        _approval(opened(where))
        _decisions(opened(where), where.rater)
    unfinished = [r for r in found if not r.finished]
    if unfinished:
        html(
            '<div class="quiet">Not shown: '
            + ", ".join(f"{e(r.name)} ({e('; '.join(r.remarks))})" for r in unfinished[:5])
            + "</div>"
        )


def _reports(done: dict[str, runs.Run]) -> None:
    chosen = st.multiselect("Runs", list(done), default=list(done)[:1], format_func=shown)
    if not chosen:
        st.info("Choose at least one run.")
        return
    several = len(chosen) > 1
    policies = {
        shown(f"{name}: {policy}" if several else policy): metrics
        for name in chosen
        for policy, metrics in done[name].policies.items()
    }
    for name in chosen:
        facts = done[name].facts
        known = [k for k in ("timelines", "split", "n_events", "collapsed", "seed") if k in facts]
        said = ", ".join(f"{k.replace('_', ' ')}: {facts[k]}" for k in known)
        html(f'<div class="quiet"><b>{e(name)}</b> {e(said, 200)}</div>')
    st.subheader("Side by side")
    offered = [m for m in COLUMNS if any(m in v for v in policies.values())]
    if offered:
        metric = st.pills("Shown", offered, default=offered[0], format_func=lambda m: COLUMNS[m][0])
        _bars(policies, metric or offered[0])
        html(f'<div class="quiet">{e(COLUMNS[metric or offered[0]][2], 120)}</div>')
    _table(policies)
    if sum("hit_rate" in m and "wasted_mb_minutes_per_open" in m for m in policies.values()) > 1:
        st.subheader("Hits against waste")
        _trade(policies)
    for name in chosen:
        _curves(done[name])


def _approval(store: Store) -> None:
    """How often what a policy would have done was welcome."""
    rows: list[list[object]] = []
    for row in ratings.approval(store):
        low, high = runs.wilson(row["up"], row["rated"])
        share = f"{row['up'] / row['rated']:.0%} ({low:.0%} to {high:.0%})"
        rows.append([row["policy"], row["policy_version"], f"{row['rated']:,}", share])
    if rows:
        st.subheader("What people said")
        look.table(["policy", "version", "rated", "thumbs up (95 %)"], rows, numeric={2, 3})
        html('<div class="quiet">Of what was shown; the most telling moments are shown first.</div>')


def _decisions(store: Store, rater: str) -> None:
    """One decision and why. Only rated ones: the others are to be rated without knowing the outcome."""
    rated = ratings.rated_predictions(store, rater)
    if not rated:
        return
    st.subheader("One decision, and why")
    by_id = {r.moment.id: r for r in rated}

    def called(identity: int) -> str:
        r = by_id[identity]
        said = "yes" if r.rating.thumbs else "no"
        what = ", ".join(shown(p.target, 24) for p in r.moment.prediction.plan) or "nothing"
        return f"{words.moment(r.moment.prediction.t, r.moment.tz)}: {what} ({said})"

    chosen = st.selectbox("A moment that you rated", list(by_id), format_func=called)
    if chosen is None:
        return
    moment = by_id[chosen].moment
    p = moment.prediction
    planned = {x.target: words.delay(x.delay_s) for x in p.plan}
    listed = sorted(p.probabilities.items(), key=lambda pair: -pair[1])
    html(
        f'<div class="card">{look.strip(moment.steps)}<div class="ask">What {e(p.policy)} thought would come '
        'next</div><div class="grid">'
        + "".join(
            f'<span class="name">{e(name)}{f" <b>({e(planned[name])})</b>" if name in planned else ""}</span>'
            f'<div class="bar" style="padding:0"><i style="width:{100 * share:.1f}%"></i></div>'
            f'<span class="n">{share:.1%}</span>'
            for name, share in listed
        )
        + "</div></div>"
    )
    happened = " ".join(words.outcome_sentences(p)) or "What happened next is not known yet."
    chance = f"This plan was chosen with probability {p.propensity:.3f}."
    html(f'<div class="quiet" style="margin-top:.5rem">{e(happened, 400)} {e(chance, 100)}</div>')


def _bars(policies: Policies, metric: str) -> None:
    """One dot and its interval per policy, best first."""
    import altair as alt
    import pandas as pd

    rows = [(name, v.value, v.low, v.high) for name, m in policies.items() if (v := m.get(metric))]
    table = pd.DataFrame(rows, columns=["policy", "value", "low", "high"])
    order = list(table.sort_values("value", ascending=metric == "waste_rate")["policy"])
    y = alt.Y("policy:N", sort=order, title=None, axis=alt.Axis(labelLimit=170, labelOverlap=False))
    format_ = ".0%" if "%" in COLUMNS[metric][1] else ".3f"
    axis = alt.X("low:Q", title=None, axis=alt.Axis(format=format_), scale=alt.Scale(zero=False))
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


def _trade(policies: Policies) -> None:
    import altair as alt
    import pandas as pd

    rows = [
        (name, m["wasted_mb_minutes_per_open"].value, m["hit_rate"].value)
        for name, m in policies.items()
        if "hit_rate" in m
        and "wasted_mb_minutes_per_open" in m
        and (m["hit_rate"].value or m["wasted_mb_minutes_per_open"].value)  # it does something
    ]
    if not rows:
        return
    table = pd.DataFrame(rows, columns=["policy", "waste", "hits"]).sort_values("hits")
    # Names of policies that lie close together are moved apart, upwards.
    least = 0.06 * max(float(table["hits"].max()), 1e-9)
    places: list[float] = []
    for hits in table["hits"]:
        places.append(max(hits, places[-1] + least) if places else hits)
    table["place"] = places
    x = alt.X("waste:Q", title="MB-minutes wasted per open", scale=alt.Scale(domainMin=0))
    points = alt.Chart(table).encode(
        x=x,
        y=alt.Y("hits:Q", title="hits per open", axis=alt.Axis(format="%")),
        tooltip=["policy", "waste", "hits"],
    )
    names = alt.Chart(table).encode(x=x, y="place:Q", text="policy")
    text = names.mark_text(align="right", dx=-10, fontSize=12, color=look.text_color())
    look.draw(
        (points.mark_circle(size=110, color=look.EMBER[3], opacity=1) + text).properties(height=320),
        "Hits per open against memory wasted; up and to the left is better",
    )
    html('<div class="quiet">Up and to the left is better.</div>')


def _table(policies: Policies) -> None:
    offered = [m for m in COLUMNS if any(m in v for v in policies.values())]
    rows: list[list[object]] = []
    for name, metrics in policies.items():
        row: list[object] = [name]
        for m in offered:
            v = metrics.get(m)
            if v is None:
                row.append("–")
                continue
            write = COLUMNS[m][1]
            half = (v.high - v.low) / 2
            row.append(write.format(v.value) + (f" ± {write.format(half)}" if half > 0 else ""))
        rows.append(row)
    look.table(["policy", *(COLUMNS[m][0] for m in offered)], rows, numeric=set(range(1, len(offered) + 1)))


def _curves(run: runs.Run) -> None:
    import altair as alt
    import pandas as pd

    table = pd.DataFrame(runs.curves(run), columns=["stage", "name", "step", "value"])
    if table.empty:
        return
    st.subheader("How it learned")
    html(f'<div class="quiet">{e(run.name)}</div>')
    names = sorted(table["name"].unique(), key=lambda n: (n not in FIRST_CURVES, n))
    shown_curves = st.multiselect(
        "Curves", names, default=names[:2], key=f"curves-{run.name}", format_func=shown
    )
    for name in shown_curves:
        chart = (
            alt.Chart(table[table["name"] == name])
            .mark_line(point=True)
            .encode(
                x=alt.X("step:Q", title="step"),
                y=alt.Y("value:Q", title=shown(name), scale=alt.Scale(zero=False)),
                color=alt.Color("stage:N", title=None, scale=alt.Scale(range=look.SERIES)),
                tooltip=["stage", "step", "value"],
            )
            .properties(height=220)
        )
        look.draw(chart, f"{name} by step")

"""My days: the timeline itself, so that what is predicted can be understood."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import look, replay, summary
from dashboard.look import e, html
from dashboard.setting import Started, opened
from dashboard.words import count, shown, span
from env.sources import load_timelines
from env.sources.clock import DAY_S
from env.timeline import Timeline

TITLE = "My days"
ICON = ":material/calendar_month:"

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def show(where: Started) -> None:
    st.title("My days")
    loaded = _timelines(where)
    if not loaded:
        look.empty(
            "No days yet",
            "Import a recording, or try the synthetic people first.",
            f"python -m rlmemo.timelines import demo --db {where.db.name}",
        )
        return
    users = list(loaded)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        user = st.selectbox("Person", users, format_func=shown) if len(users) > 1 else users[0]
        chosen = st.segmented_control("Period", list(summary.PERIODS), default="Last 28 days")
    whole = loaded[user]
    timeline = summary.period(whole, summary.PERIODS[chosen or "Last 28 days"])
    if len(timeline) < 2:
        st.info("Fewer than two opens in this period.")
        return
    _facts(timeline)
    st.subheader("When")
    _heat(timeline)
    st.subheader("What")
    _top(timeline)
    st.subheader("What comes after what")
    _transitions(timeline)
    st.subheader("Pauses between opens")
    _gaps(timeline)
    st.subheader("What prewarming would have saved")
    replay.show(whole, where)


def _timelines(where: Started) -> dict[str, Timeline]:
    """The store's timelines by user, collapsed; read anew when something was written to the file."""
    if not where.db.exists():
        return {}
    stamps = opened(where).timelines()
    if not any(x.events for x in stamps):
        return {}

    @st.cache_data(show_spinner="Reading the timelines …", max_entries=2)
    def read(path: str, version: str) -> dict[str, Timeline]:
        return {t.user: t for t in load_timelines(path).timelines}

    found: dict[str, Timeline] = read(
        str(where.db), str([(x.id, x.events, x.imported_at, x.tz) for x in stamps])
    )
    return found


def _facts(timeline: Timeline) -> None:
    days = len(np.unique(timeline.local() // DAY_S))
    off = np.diff(timeline.t)[timeline.rested()[1:]]
    look.tiles(
        [
            (f"{len(timeline):,}", "opens" + (", repeats collapsed" if timeline.collapsed else "")),
            (f"{len(timeline.names):,}", "different targets"),
            (f"{len(timeline) / days:.0f}", f"opens a day, over {count(days, 'day')}"),
            (span(float(np.median(np.diff(timeline.t)))), "usual pause"),
            *(
                [(f"{len(off):,}", f"times off, usually for {span(float(np.median(off)))}")]
                if len(off)
                else []
            ),
        ]
    )
    if not timeline.tz_known:
        st.caption(
            f"Hours are shown in {timeline.tz}: the recording does not say which time zone it was made in."
        )


def _heat(timeline: Timeline) -> None:
    import altair as alt
    import pandas as pd

    cells = summary.by_hour_and_weekday(timeline)
    rows = [(WEEKDAYS[d], h, int(cells[d, h])) for d in range(7) for h in range(24)]
    chart = (
        alt.Chart(pd.DataFrame(rows, columns=["day", "hour", "opens"]))
        .mark_rect(cornerRadius=2, stroke="#16140f" if look.dark() else "#fcfaf7", strokeWidth=1)
        .encode(
            x=alt.X(
                "hour:O", title="hour of the day", axis=alt.Axis(labelAngle=0, values=[0, 6, 12, 18, 23])
            ),
            y=alt.Y(
                "day:O",
                title=None,
                sort=list(WEEKDAYS),
                axis=alt.Axis(labelFlush=False, labelBaseline="middle"),
            ),
            color=alt.condition(
                "datum.opens > 0",
                alt.Color(
                    "opens:Q",
                    title="opens",
                    scale=alt.Scale(range=look.ramp()[1:], domainMin=0),
                    legend=alt.Legend(orient="bottom", tickMinStep=1, format="d", gradientThickness=10),
                ),
                alt.value(look.ramp()[0]),
            ),
            tooltip=["day", "hour", "opens"],
        )
        .properties(height=280)
    )
    look.draw(chart, "Opens by hour and weekday")


def _top(timeline: Timeline) -> None:
    top = summary.top_targets(timeline)
    most = top[0][1]
    html(
        '<div class="grid">'
        + "".join(
            f'<span class="name">{e(name)}</span><div class="bar" style="padding:0"><i style="width:'
            f'{100 * n / most:.1f}%"></i></div><span class="n">{n:,}</span>'
            for name, n in top
        )
        + "</div>"
    )


def _transitions(timeline: Timeline) -> None:
    rows = []
    for follow in summary.transitions(timeline):
        chips = "".join(f'<span class="step">{e(name)} {share:.0%}</span>' for name, share in follow.next)
        rows.append(
            f'<tr><td style="width:36%">{e(follow.target)}</td>'
            f'<td><div style="display:flex;flex-wrap:wrap;gap:.3rem">{chips}</div></td></tr>'
        )
    html(f'<table class="plain">{"".join(rows)}</table>')


def _gaps(timeline: Timeline) -> None:
    import altair as alt
    import pandas as pd

    on, off = summary.gaps(timeline)
    parts = {"machine on": on, "machine off": off} if off.any() else {"machine on": on}
    rows = [(name, part, int(n)) for part, many in parts.items()
            for name, n in zip(summary.GAP_NAMES, many, strict=True)]  # fmt: skip
    colours = alt.Scale(domain=list(parts), range=[look.EMBER[3], "#8a8378"][: len(parts)])
    chart = (
        alt.Chart(pd.DataFrame(rows, columns=["pause", "machine", "opens"]))
        .mark_bar(cornerRadiusTopLeft=3, cornerRadiusTopRight=3)
        .encode(
            x=alt.X(
                "pause:O",
                sort=list(summary.GAP_NAMES),
                title=None,
                axis=alt.Axis(labelAngle=-45, labelOverlap=False),
            ),
            y=alt.Y("opens:Q", title=None),
            color=alt.Color(
                "machine:N", title=None, scale=colours, legend=look.legend() if len(parts) > 1 else None
            ),
            tooltip=["pause", "machine", "opens"],
        )
        .properties(height=210)
    )
    look.draw(chart, "Pauses between opens")

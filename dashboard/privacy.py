"""Data and privacy: what is stored, taking it along, and forgetting."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime, time, timedelta
from pathlib import Path

import streamlit as st

from dashboard import jobs, look, own_days
from dashboard.look import e, html
from dashboard.setting import Started, opened
from dashboard.words import count, sentence, shown
from env.errors import InputError
from env.sources.clock import EPOCHS
from env.timeline import zone
from rlmemo.store import forgetting
from rlmemo.store.database import Store

TITLE = "Data and privacy"
ICON = ":material/lock:"

MOST_TARGETS = 2000
FILES = ["csv", "tsv", "txt", "json", "jsonl", "gz"]
FIELDS = {
    "tz": "Time zone", "name": "Recording", "columns": "Columns", "user": "Person", "epoch": "Clock",
}  # fmt: skip
"""Options of the import, and how the form calls them."""


def show(where: Started) -> None:
    st.title("Data and privacy")
    if not where.db.exists():
        look.empty("Nothing is stored", f"There is no {where.db.name} yet.")
        _import(where)
        return
    store = opened(where)
    if where.login:
        st.button("Log out", icon=":material/logout:", on_click=st.logout)
    _stored(store, where)
    st.subheader("Take it along")
    _export(store, where)
    _import(where)
    st.subheader("Forget")
    note = st.session_state.pop("forgotten", None)
    with st.container():  # there without a note, too: what follows keeps its place, and a tab its turn
        if note:
            html(f'<div class="band good" data-testid="forgotten">{e(note, 600)}</div>')
    target, period, recording, everything = st.tabs(["A target", "A period", "A recording", "Everything"])
    with target:
        _forget_target(store)
    with period:
        _forget_period(store)
    with recording:
        _forget_recording(store)
    with everything:
        _forget_everything(store)


def _offs(switches: int) -> str:
    """How often the machine was switched off or on, as far as a recording tells."""
    return f"; and {switches:,} times that it was switched off or on" if switches else ""


def _stored(store: Store, where: Started) -> None:
    held = forgetting.holdings(store)
    size = where.db.stat().st_size / 2**20
    look.tiles(
        [
            (f"{held['events']:,}", f"opens: when, what, which kind{_offs(held.get('switches', 0))}"),
            (f"{held['predictions']:,}", "predictions, with the last steps before"),
            (f"{held['ratings']:,}", "ratings, the earlier ones too"),
            (f"{size:.1f} MB", "one file, readable by you alone"),
        ]
    )
    rows: list[list[object]] = []
    for t in store.timelines():
        if t.first_t is None or t.last_t is None:
            continue
        first, last = (f"{datetime.fromtimestamp(x, zone(t.tz)):%d %b %Y}" for x in (t.first_t, t.last_t))
        what = t.source + (" (synthetic)" if t.synthetic else "")
        rows.append([t.user, what, f"{t.events:,}", f"{first} – {last}"])
    if rows:
        look.table(["person", "from", "opens", "time"], rows[:50], numeric={2})
    html(
        '<div class="quiet" style="margin-top:.6rem">Of a page its host is stored, not its title, query or '
        "fragment. No window contents, no typed text. Everything stays in this file, on this machine: the "
        "dashboard sends nothing anywhere.</div>"
    )


def _export(store: Store, where: Started) -> None:
    st.download_button(
        "Export everything", icon=":material/download:", file_name=f"{where.db.stem}.jsonl",
        mime="application/x-ndjson", data=lambda: "".join(forgetting.export(store)).encode(),
        on_click="ignore", help="JSON lines: one object a row, each with the table it is from.",
    )  # fmt: skip


def _import(where: Started) -> None:
    """Bring a recording in, by the same command as anywhere else. The form is emptied when it has worked."""
    st.subheader("Bring a recording in")
    turn = st.session_state.setdefault("imports", 0)
    with st.form(f"import-{turn}"):
        file = st.file_uploader(
            "CSV or TSV with columns user, t, target; or a known export, JSON too", type=FILES
        )
        given = {"tz": st.text_input("Time zone, where the times do not say", placeholder="Europe/Berlin")}
        given["name"] = st.text_input(
            "Recording, if it goes on with one that is stored",
            placeholder="the name of the file",
        )
        with st.expander("Where the columns have other names"):
            given["columns"] = st.text_input("Columns", placeholder="t=Timestamp,target=URL")
            given["user"] = st.text_input("Person, where no column says whose it is", placeholder="me")
            given["epoch"] = st.selectbox("Clock, where times are numbers", ["", *EPOCHS])
        sent = st.form_submit_button("Import", icon=":material/upload:")
    if sent and file is not None:
        name = Path(shown(file.name)).name
        with tempfile.TemporaryDirectory() as folder, st.spinner(f"Reading {name.replace(':', ' ')} …"):
            # The name comes from the browser; its end says how the file is packed, no more of it is used.
            packed = ".gz" if file.name.lower().endswith(".gz") else ""
            kind = Path(file.name.lower().removesuffix(".gz")).suffix.removeprefix(".")
            path = Path(folder) / f"uploaded.{kind if kind in FILES else 'csv'}{packed}"
            path.write_bytes(file.getvalue())
            line = ["import", str(path), "--db", str(where.db)]
            given["name"] = given["name"].strip() or name
            for option, value in given.items():
                line += [f"--{option}", value.strip()] if value.strip() else []
            done = jobs.ask("rlmemo.timelines", line, 600)
        worked = done.returncode == 0
        said = (done.stdout if worked else done.stderr).replace(str(path), name).replace(path.name, name)
        said = said.replace(str(where.db), where.db.name)
        st.session_state["imported"] = (in_words(said), worked)
        st.session_state["imports"] = turn + int(worked)
        st.rerun()
    elif sent:
        st.caption("Choose a file first.")
    lines, worked = st.session_state.pop("imported", ([], True))
    if lines:
        kind = "log" if worked else "log band"
        html(f'<pre class="{kind}" data-testid="imported">{_lines(lines)}</pre>')
    if own_days.own(where):
        own_days.offer(where)


def in_words(said: str) -> list[str]:
    """What the import said, for who has the form before them: its fields take the place of options, and what
    is to be typed in a terminal next is left out."""
    said = re.sub(r"(, )?(with )?python -m rlmemo\.timelines import \S+(?= --)", r"\1with", said)
    for option, field in FIELDS.items():
        said = re.sub(rf"(?<!with )(?<!such as )--{option} (?!to )(?=[^(])", f"and “{field}”: ", said)
        said = re.sub(rf"--{option} (?!to )(?=[^(])", f"“{field}”: ", said)
        said = re.sub(rf"--{option}\b", f"“{field}”", said)
    return [line for line in said.strip().splitlines() if not line.startswith("next: ")][:20]


def _lines(texts: list[str]) -> str:
    return "\n".join(e(text, 1000) for text in texts)


def _forget_target(store: Store) -> None:
    rows = store.rows(
        "SELECT target, COUNT(*) AS n FROM events GROUP BY target ORDER BY n DESC, target LIMIT ?",
        [MOST_TARGETS],
    )
    if not rows:
        st.caption("No target is stored.")
        return
    opens = {r["target"]: r["n"] for r in rows}
    target = st.selectbox(
        "Target", list(opens), index=None, placeholder="Choose a target",
        format_func=lambda t: f"{shown(t)} ({count(opens[t], 'open')})", key="target",
    )  # fmt: skip
    sure = st.checkbox("Its opens, and every prediction that names it, with its ratings", key="sure-target")
    st.button(
        "Forget this target", disabled=target is None or not sure, key="forget-target",
        on_click=_do, args=(lambda: forgetting.forget_target(store, str(target)),),
    )  # fmt: skip


def _forget_period(store: Store) -> None:
    known = [t for t in store.timelines() if t.first_t is not None and t.last_t is not None]
    if not known:
        st.caption("No opens are stored.")
        return
    first_of, *others = zones((t.tz, t.last_t) for t in known if t.last_t is not None)
    tz = st.selectbox("Time zone of the days", [first_of, *others]) if others else first_of
    here = zone(tz)
    first = datetime.fromtimestamp(min(t.first_t for t in known if t.first_t is not None), here).date()
    last = datetime.fromtimestamp(max(t.last_t for t in known if t.last_t is not None), here).date()
    days = st.date_input("Days, the last one included", value=(last, last), min_value=first, max_value=last)
    chosen = days if isinstance(days, tuple) else (days,)
    sure = st.checkbox("Opens of everybody in these days, and the predictions about them", key="sure-period")
    if len(chosen) != 2:
        st.caption("Choose the first and the last day.")
        return
    start = datetime.combine(chosen[0], time(), here).timestamp()
    stop = datetime.combine(chosen[1] + timedelta(days=1), time(), here).timestamp()
    st.button(
        "Forget these days", disabled=not sure, key="forget-period",
        on_click=_do, args=(lambda: forgetting.forget_period(store, start, stop),),
    )  # fmt: skip


def zones(recordings: Iterable[tuple[str, float]]) -> list[str]:
    """The time zones of recordings (zone, unix seconds of the last open): first that of the latest open, as
    its day is filled in."""
    known = sorted(recordings, key=lambda x: (-x[1], x[0]))
    return [known[0][0], *sorted({tz for tz, _ in known} - {known[0][0]})]


def _forget_recording(store: Store) -> None:
    known = store.timelines()
    if not known:
        st.caption("No recording is stored.")
        return
    chosen = st.selectbox(
        "Recording", known, index=None, placeholder="Choose a recording", key="recording",
        format_func=lambda t: f"{shown(t.user)} from {shown(t.source)} ({count(t.events, 'open')})",
    )  # fmt: skip
    named = (chosen.source, chosen.user) if chosen else ("", "")
    sure = st.checkbox("Its opens, and every prediction on it, with its ratings", key="sure-recording")
    st.button(
        "Forget this recording", disabled=chosen is None or not sure, key="forget-recording",
        on_click=_do,
        args=(lambda: forgetting.forget_recording(store, *named),),
    )  # fmt: skip


def _forget_everything(store: Store) -> None:
    st.write("Opens, predictions, ratings and the list of runs: all rows, for good.")
    typed = st.text_input("Type the word forget to go on", key="sure-everything")
    st.button(
        "Forget everything", type="primary", key="forget-everything",
        disabled=typed.strip().lower() != "forget",
        on_click=_do, args=(lambda: forgetting.forget_everything(store),),
    )  # fmt: skip


def _do(forget: Callable[[], forgetting.Forgotten]) -> None:
    """Forget, say what went, and leave no confirmation ticked for the next time."""
    try:
        gone = forget()
    except InputError as error:
        st.session_state["forgotten"] = sentence(str(error))
        return
    said = (
        f"Gone, and the file rewritten: {count(gone.events, 'open')}, "
        f"{count(gone.predictions, 'prediction')}, {count(gone.ratings, 'rating')}."
    )
    if gone.adapters:
        named = ", ".join(gone.adapters)
        said += f" Runs that may have learned from it (delete their folders yourself): {named}."
    if gone.learned:
        said += " What live had learned from it is gone, too: it plans as it was started, and learns anew."
    st.session_state["forgotten"] = said
    for key in ("target", "recording"):
        st.session_state[key] = None
    for key in ("sure-target", "sure-period", "sure-recording"):
        st.session_state[key] = False
    st.session_state["sure-everything"] = ""

"""Predictions made in the background, by whom one likes: the model that comes with rlmemo, any run, a rule.
Offered where there is nothing to rate, and after an import."""

from __future__ import annotations

import re
import shlex

import streamlit as st

from dashboard import jobs, words
from dashboard.look import e, html
from dashboard.setting import Started, heard, opened, said
from rlmemo.store import forgetting

MANY = 200
MOST = 5000
SYNTHETIC = "the synthetic people (demo)"
OWN = "your days"
OFFERED = {
    "base": "base: the model that comes with rlmemo",
    "markov1": "markov1: what usually comes next, counted",
    "backoff3": "backoff3: the same, after the last three",
    "gbdt": "gbdt: boosted trees, fitted first",
}
"""Who predicts without a run, and what it is."""
NEWS_MIN = 15.0
"""How long what came of predictions is told."""
NEW = re.compile(r"^([1-9]\d*) new predictions of ", re.MULTILINE)


def own(where: Started) -> bool:
    """Whether days of a real person are stored."""
    return where.db.exists() and any(t.events and not t.synthetic for t in opened(where).timelines())


def command(where: Started) -> str:
    """The same in a terminal."""
    db = shlex.quote(where.db.name)
    return f"python -m rlmemo.predict --timelines {db} --policy base --db {db}"


def offer(where: Started) -> None:
    """The button; while predictions are made, how long already; then what came of it."""
    job = jobs.predicting(where.db)
    if job is not None and job.state == "running":
        _wait(where)
        return
    if job is not None and job.minutes < NEWS_MIN:
        html(f'<div class="band" data-testid="predicted">{e(result(jobs.tail(job)), 400)}</div>')
    trained = {str(x.parent): f"{x.parent.name}: a run of yours" for x in where.runs.glob("*/adapter")}
    whose = [*([OWN] if own(where) else []), SYNTHETIC]
    by = {**OFFERED, **trained}
    st.selectbox("Whose days", whose, key="predict-on", on_change=heard)
    st.selectbox(
        "Who predicts", list(by), key="predict-by", format_func=lambda x: words.shown(by[x], 80),
        on_change=heard,
    )  # fmt: skip
    st.number_input("How many", 1, MOST, MANY, key="predict-many", on_change=heard)
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button(
            "Predict on my days" if own(where) else "Predict",
            icon=":material/play_arrow:", key="predict", on_click=_start, args=(where,),
        )  # fmt: skip


def result(log: str) -> str:
    """What came of predictions, from the end of their log."""
    found = NEW.search(log)
    if found:
        return f"{words.count(int(found[1]), 'new prediction')} to rate: see Rate."
    lines = [line for line in log.splitlines() if not line.startswith("rate them")]
    last = lines[-1].strip().removeprefix("error: ") if lines else "it ended without a word"
    return words.sentence(f"No new prediction: {last}")


@said
def _start(where: Started) -> None:
    """With another seed where there are predictions already, so that other moments come."""
    held = forgetting.holdings(opened(where))["predictions"]
    asked = st.session_state
    on = str(where.db) if asked["predict-on"] == OWN else "demo"
    line = ["--timelines", on, "--policy", str(asked["predict-by"]), "--n", str(asked["predict-many"])]
    jobs.predict(where.db, [*line, "--seed", str(held)])


def _wait(where: Started) -> None:
    @st.fragment(run_every=1.0)
    def wait() -> None:
        job = jobs.predicting(where.db)
        if job is None or job.state != "running":
            st.rerun()
        assert job is not None
        now = f"{60 * job.minutes:.0f} s so far"
        html(
            '<div class="band" data-testid="predicting">Predictions are being made, moment by moment: '
            f"{e(now)}. It usually takes about a minute, and goes on when this page is closed.</div>"
        )

    wait()

"""Train: start an update, watch it, and see what it changed. It goes on when the page is closed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime

import streamlit as st

from dashboard import jobs, look, runs
from dashboard.look import e, html
from dashboard.setting import Setting, opened
from dashboard.words import count
from env.errors import InputError
from rlmemo import ratings, store_forgetting

TITLE = "Train"
ICON = ":material/model_training:"

METHODS = {"dpo": "DPO: better plans over worse", "kto": "KTO: single verdicts", "sft": "SFT: what came next"}
SIZES = {
    "A quick look": [
        "--sft-states",
        "600",
        "--plan-states",
        "300",
        "--dpo-pairs",
        "300",
        "--kto-plans",
        "300",
    ],
    "The whole thing": [],
}
DEMO = "demo (synthetic)"


def show(where: Setting) -> None:
    st.title("Train")
    _rated(where)
    if not any(job.state == "running" for job in jobs.find(where.runs)):
        _form(where)
    failed = st.session_state.pop("not_started", None)
    if failed:
        html(f'<div class="band">{e(failed, 400)}</div>')
    _watch(where)


def _rated(where: Setting) -> None:
    if not where.db.exists():
        look.empty("No ratings yet", "Training works without them, on what was opened next.")
        return
    by_policy = ratings.approval(opened(where))
    rated, up = sum(r["rated"] for r in by_policy), sum(r["up"] for r in by_policy)
    look.tiles(
        [
            (f"{rated:,}", "ratings that count"),
            (f"{up / rated:.0%}" if rated else "–", "of them thumbs up"),
            (f"{store_forgetting.holdings(opened(where))['events']:,}", "opens to learn from"),
        ]
    )


@st.cache_data(show_spinner=False)
def _takes_feedback() -> bool:
    """Whether this version's trainer can learn from ratings."""
    said = subprocess.run(
        [sys.executable, "-m", "rlmemo.train", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "--feedback" in said.stdout


def _form(where: Setting) -> None:
    held = where.db.exists() and any(t.events for t in opened(where).timelines())
    with st.form("train"):
        data = st.selectbox("Learn from", [*(["your timelines"] if held else []), DEMO])
        method = st.selectbox("How", list(METHODS), format_func=METHODS.__getitem__)
        size = st.selectbox("How much", list(SIZES))
        name = st.text_input("Call it", value=f"{datetime.now():%Y-%m-%d-%H%M}", max_chars=60)
        rated = where.db.exists() and bool(ratings.approval(opened(where))) and _takes_feedback()
        feedback = rated and st.checkbox("Use the ratings", value=True)
        if st.form_submit_button("Start", type="primary", icon=":material/play_arrow:"):
            line = [
                "--timelines",
                "demo" if data == DEMO else str(where.db),
                "--method",
                str(method),
                *SIZES[size],
            ]
            try:
                jobs.start(
                    where.runs, name.strip(), [*line, *(["--feedback", str(where.db)] if feedback else [])]
                )
            except (InputError, OSError) as error:
                st.session_state["not_started"] = str(error)
            st.rerun()


def _watch(where: Setting) -> None:
    running = any(job.state == "running" for job in jobs.find(where.runs))

    @st.fragment(run_every=2.0 if running else None)
    def watch() -> None:
        found = jobs.find(where.runs)
        if running and not any(job.state == "running" for job in found):
            st.rerun()
        for job in found[:5]:
            _job(job)

    watch()


def _job(job: jobs.Job) -> None:
    said = {"running": "under way", "finished": "finished", "stopped": "stopped before its end"}[job.state]
    html(f'<div class="when" style="margin-top:1rem">{e(job.name)} <span class="quiet">{said}</span></div>')
    if job.state == "running":
        steps = _steps(job)
        html(f'<div class="quiet" data-testid="steps">{e(steps, 200)}</div>')
        _loss(job)
        html(f'<pre class="log">{_log(job, 14)}</pre>')
        st.button("Stop", icon=":material/stop:", key=f"stop-{job.name}", on_click=jobs.stop, args=(job,))
        return
    if job.state == "finished":
        _before_and_after(job)
    with st.expander("Log", expanded=job.state == "stopped"):
        html(f'<pre class="log">{_log(job, 40)}</pre>')


def _log(job: jobs.Job, lines: int) -> str:
    return "\n".join(e(line, 160) for line in jobs.tail(job, lines).splitlines())


def _steps(job: jobs.Job) -> str:
    """What metrics.jsonl said last."""
    log = job.folder / "metrics.jsonl"
    if not log.is_file():
        return "getting ready"
    rows = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(rows):
        try:
            row = json.loads(line)
            return f"{row['stage']}, step {row['step']} ({count(len(rows), 'line')} logged)"
        except (ValueError, KeyError, TypeError):
            continue
    return "getting ready"


def _loss(job: jobs.Job) -> None:
    """The loss so far, one line per stage."""
    import altair as alt
    import pandas as pd

    rows = [c for c in runs.curves(runs.read_run(job.folder)) if c[1] == "loss"]
    if len(rows) < 3:
        return
    table = pd.DataFrame(rows, columns=["stage", "name", "step", "value"])
    chart = alt.Chart(table).mark_line(point=True).encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("value:Q", title="loss", scale=alt.Scale(zero=False)),
        color=alt.Color("stage:N", title=None, scale=alt.Scale(range=look.SERIES)),
    )  # fmt: skip
    look.draw(chart.properties(height=170), "Loss by step")


def _before_and_after(job: jobs.Job) -> None:
    """The stages side by side on the validation part: before, and after each."""
    try:
        stages = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))["stages"]
        rows: list[list[object]] = []
        for name, stage in stages.items():
            v = stage["validation"]
            best = max(v["own"]["reward_per_open"], v["threshold"]["reward_per_open"])
            called = "before" if name == "base" else f"after {name.upper()}"
            rows.append([called, f"{v['hr@1']:.1%}", f"{v['hr@5']:.1%}", f"{best:.3f}"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        html('<div class="quiet">Its report has no stages to compare.</div>')
        return
    head = ["on validation", "first guess right", "in the first five", "reward per open"]
    look.table(head, rows, numeric={1, 2, 3})
    html('<div class="quiet">Beside the baselines, with intervals: see Policies.</div>')

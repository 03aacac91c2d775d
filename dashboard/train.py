"""Train: start an update, watch it, and see what it changed. It goes on when the page is closed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st
import yaml

from dashboard import jobs, look, runs
from dashboard.look import e, html
from dashboard.setting import Started, opened
from dashboard.words import count, sentence, shown, span
from env.errors import InputError
from rlmemo.runs.atomic import write_atomic
from rlmemo.runs.stages import STAGES
from rlmemo.store import forgetting, ratings

TITLE = "Train"
ICON = ":material/model_training:"

OFFERED = {name: f"{STAGES[name].title}: {STAGES[name].short}" for name in ("dpo", "kto", "ppo", "sft")}
"""The methods to choose from, the usual one first."""
SIZES = {
    "A quick look": [
        "--sft-states", "400", "--plan-states", "200", "--dpo-pairs", "200", "--kto-plans", "200",
        "--ppo-rollouts", "2",
    ],
    "The whole thing": [],
}  # fmt: skip
ROOMS = (8, 4, 2)
"""Memory in typical targets: where everything fits, there is nothing to learn."""
FAR = re.compile(r": (\d+) of (\d+), \d+ s")
"""How a log says how far a stage is (`rlmemo.heartbeat`)."""
DEMO = "demo (synthetic)"
ANEW = "nothing: start anew"
WIDEST = 0.5
"""The width of an interval beyond which a share is not shown: it would say next to nothing."""
COMPARED = {
    "hr@1": ("first guess right", "{:.1%}"),
    "hit_rate": ("hits", "{:.1%}"),
    "waste_rate": ("wasted", "{:.1%}"),
    "reward_per_open": ("reward per open", "{:.3f}"),
}
"""What stands side by side before and after an update: metrics of the test part, as *Policies* shows them."""


def show(where: Started) -> None:
    st.title("Train")
    _rated(where)
    if not any(job.state == "running" for job in jobs.find(where.runs)):
        _form(where)
    failed = st.session_state.pop("not_started", None)
    if failed:
        html(f'<div class="band">{e(sentence(failed), 400)}</div>')
    _watch(where)


def _rated(where: Started) -> None:
    if not where.db.exists():
        look.empty("No ratings yet", "Training works without them, on what was opened next.")
        return
    by_policy = ratings.approval(opened(where))
    rated, up = sum(r["rated"] for r in by_policy), sum(r["up"] for r in by_policy)
    look.tiles(
        [
            (f"{rated:,}", "rating that counts" if rated == 1 else "ratings that count"),
            (f"{up / rated:.0%}" if rated else "–", "of them thumbs up"),
            (f"{forgetting.holdings(opened(where))['events']:,}", "opens stored"),
        ]
    )


def _form(where: Started) -> None:
    held = where.db.exists() and any(t.events for t in opened(where).timelines())
    with st.form("train"):
        data = st.selectbox("Learn from", [*(["your timelines"] if held else []), DEMO])
        method = st.selectbox("How", list(OFFERED), format_func=OFFERED.__getitem__)
        earlier = [run.name for run in runs.trained(where.runs)]
        before = st.selectbox("Go on from", [ANEW, *earlier], format_func=shown)
        size = st.selectbox("How much", list(SIZES))
        room = st.selectbox("Memory", ROOMS, format_func=lambda n: f"room for {n} typical targets")
        st.caption(_usual_time(where))
        # Kept until it is used: another default would be another field, and what was typed would be lost.
        suggested = st.session_state.setdefault("suggested", f"{datetime.now():%Y-%m-%d-%H%M}")
        name = st.text_input("Call it", value=suggested, max_chars=60)
        rated = where.db.exists() and bool(ratings.approval(opened(where)))
        feedback = rated and st.checkbox("Use the ratings", value=True)
        if st.form_submit_button("Start", type="primary", icon=":material/play_arrow:"):
            line = ["--timelines", "demo" if data == DEMO else str(where.db), "--method", str(method)]
            line += SIZES[size]
            if room != ROOMS[0] or before != ANEW:  # left out, it would be the memory of the run before
                line += ["--budget", str(room)]
            if feedback:
                line += ["--feedback", str(where.db)]
            if before != ANEW:
                line += ["--init-adapter", str(where.runs / str(before))]
            try:
                if method == "sft" and before != ANEW:
                    raise InputError("SFT starts anew; to go on from a run, choose another way to learn")
                said = [OFFERED[str(method)], f"from {data}", size.lower(), f"room for {room} targets"]
                said += [f"going on from {before}"] if before != ANEW else []
                said += ["with the ratings"] if feedback else []
                jobs.start(where.runs, name.strip(), line, asked=shown("; ".join(said), 300))
                del st.session_state["suggested"]
            except (InputError, OSError) as error:
                st.session_state["not_started"] = str(error)
            st.rerun()


def _usual_time(where: Started) -> str:
    """How long a training takes, as far as it is known."""
    told = (
        "On two cores, a quick look at one person's 600 opens takes half a minute, the whole thing for the "
        "synthetic people about 5 minutes."
    )
    for job in jobs.find(where.runs):
        began, ended = (job.folder / x for x in ("config.yaml", "report.json"))
        if job.state == "finished" and began.is_file() and ended.is_file():
            seconds = max(0.0, ended.stat().st_mtime - began.stat().st_mtime)
            return f"{told} {shown(job.name)} took {span(seconds)} here."
    return told


def _watch(where: Started) -> None:
    running = any(job.state == "running" for job in jobs.find(where.runs))

    @st.fragment(run_every=2.0 if running else None)
    def watch() -> None:
        found = jobs.find(where.runs)
        if running and not any(job.state == "running" for job in found):
            st.rerun()
        for job in found[:5]:
            _job(job, where)

    watch()


def _job(job: jobs.Job, where: Started) -> None:
    said = {"running": "under way", "finished": "finished", "stopped": "stopped before its end"}[job.state]
    html(f'<div class="when" style="margin-top:1rem">{e(job.name)} <span class="quiet">{said}</span></div>')
    if job.asked:
        html(f'<div class="quiet" data-testid="asked">{e(sentence(job.asked), 300)}</div>')
    if job.state == "running":
        _progress(job)
        _loss(job)
        html(f'<pre class="log">{_log(job, 14)}</pre>')
        st.button("Stop", icon=":material/stop:", key=f"stop-{job.name}", on_click=jobs.stop, args=(job,))
        return
    if job.state == "finished":
        _before_and_after(job)
        _approval(job, where)
    with st.expander("Log", expanded=job.state == "stopped"):
        html(f'<pre class="log">{_log(job, 40)}</pre>')


def _log(job: jobs.Job, lines: int) -> str:
    said = jobs.tail(job, lines).splitlines()
    return "\n".join(e(line, 160) for line in said if not line.startswith(jobs.ASKED))


def _progress(job: jobs.Job) -> None:
    """What it is at, since when, and, once it says so, how far that is."""
    log = jobs.tail(job)
    far = how_far(log)
    text = f"{_steps(job, log)}; {span(round(60 * job.minutes))} so far."
    html(f'<div class="quiet" data-testid="steps">{e(text, 300)}</div>')
    if far is not None:
        html(
            f'<div class="bar" role="progressbar" aria-label="of this stage" aria-valuenow="{100 * far:.0f}" '
            f'aria-valuemax="100"><i style="width:{100 * far:.0f}%"></i></div>'
        )


def how_far(log: str) -> float | None:
    """How much of what a log last spoke of is done, 0 to 1; None where its last line does not say."""
    found = FAR.search(log.splitlines()[-1]) if log else None
    return min(1.0, float(found[1]) / float(found[2])) if found and float(found[2]) else None


def _steps(job: jobs.Job, said: str) -> str:
    """What the log said last, and metrics.jsonl."""
    lines = [line for line in said.splitlines() if not line.startswith(jobs.ASKED)]
    last = shown(lines[-1], 160) if lines else "getting ready"
    log = job.folder / "metrics.jsonl"
    if not log.is_file():
        return last
    rows = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(rows):
        try:
            row = json.loads(line)
            return f"{row['stage'].upper()}, step {row['step']}: {last}"
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return last


def _loss(job: jobs.Job) -> None:
    """The loss so far, one line per stage."""
    import altair as alt
    import pandas as pd

    rows = [c for c in runs.curves(runs.read_run(job.folder)) if c[1] == "loss"]
    if len(rows) < 3:
        return
    table = pd.DataFrame(rows, columns=["stage", "name", "step", "value"])
    chart = alt.Chart(table).mark_line(point=True).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title="loss", scale=alt.Scale(zero=False)),
        color=alt.Color("stage:N", title=None, scale=alt.Scale(range=look.SERIES)),
    )  # fmt: skip
    look.draw(chart.properties(height=170), "Loss by step")


def _before_and_after(job: jobs.Job) -> None:
    """Who is in charge and why; the stages side by side on the validation part; then before and after on the
    test part: the model as it came, the run that this one went on from, and this one."""
    report = runs.read_json(job.folder / "report.json")
    stages, charge = report.get("stages"), report.get("in_charge")
    charge = charge if isinstance(charge, dict) else {}
    came = _went_on_from(job)
    try:
        rows: list[list[object]] = []
        for name, stage in (stages or {}).items():
            v = stage["validation"]
            best = max(v[way]["reward_per_open"] for way in ("own", "threshold") if way in v)
            best = charge.get("base_reward_per_open", best) if name == "base" else best
            called = "before" if name == "base" else f"after {name.upper()}"
            if came is not None and name in ("base", "sft"):  # it took the place of SFT
                called = "as shipped" if name == "base" else f"before: {came.name}"
            called += f" (not kept: {stage['kept']})" if "kept" in stage else ""
            rows.append([called, f"{v['hr@1']:.1%}", f"{v['hr@5']:.1%}", f"{best:.3f}"])
    except (ValueError, KeyError, TypeError, AttributeError):
        rows = []
    if not rows:
        html('<div class="quiet">Its report has no stages to compare.</div>')
        return
    if charge:
        html(f'<div class="band" data-testid="verdict">{e(verdict(charge, job.name), 400)}</div>')
    head = ["on validation", "first guess right", "in the first five", "reward per open"]
    look.table(head, rows, numeric={1, 2, 3})
    told = [("before: as shipped", runs.read_run(job.folder).policies.get("base", {}))] if charge else []
    told += [(f"before: {came.name}", _own(came))] if came else []
    same = " (the shipped model)" if charge.get("stage") == "base" else ""
    told += [(f"after: {job.name}{same}", _own(job.folder))]
    told = [(name, found) for name, found in told if found]
    if len(told) > 1:
        rows = []
        for name, found in told:
            cells: list[object] = [name]
            for metric, (_, write) in COMPARED.items():
                v = found.get(metric)
                half = (v.high - v.low) / 2 if v else 0.0
                known = f" ± {write.format(half)}" if math.isfinite(half) else ""
                cells.append(write.format(v.value) + known if v else "–")
            rows.append(cells)
        look.table(["on the test part", *(x for x, _ in COMPARED.values())], rows, numeric={1, 2, 3, 4})
    rated = "All of them mind what you said, as shipped, too. " if charge.get("ratings_counted") else ""
    html(f'<div class="quiet">{rated}± is half of a 95% interval. Beside the baselines: see Policies.</div>')
    notes = runs.read_run(job.folder).notes
    if notes:
        with st.expander("What was chosen, and why"):
            for note in notes:
                html(f'<div class="quiet" data-testid="note">{e(sentence(note), 400)}</div>')


def verdict(charge: dict[str, Any], name: str) -> str:
    """Whether a run is better than the model as it came, and who is in charge. charge: `in_charge` of its
    report."""
    try:
        opens, stays = int(charge["opens"]), charge["stage"] == "base"
        before, after = float(charge["base_reward_per_open"]), float(charge["learned_reward_per_open"])
    except (KeyError, TypeError, ValueError):
        return "Its report does not say who is in charge."
    if not opens:
        return "There was nothing to choose by: the shipped model stays in charge."
    said = f"Better: {name} is in charge."
    if stays:
        said = "Not clearly better: the shipped model stays in charge."
    counted = ", ratings counted" if charge.get("ratings_counted") else ""
    kept = count(opens, "last open")
    return (
        f"{said} Where other sessions of the {kept} before the test part choose how it plans, it earns "
        f"{after:.3f} an open{counted}, and {before:.3f} as shipped. (Below, these opens choose for "
        "themselves, which flatters.)"
    )


def _went_on_from(job: jobs.Job) -> Path | None:
    """The run folder that a run went on from, where its config names one that is still there."""
    try:
        config = yaml.safe_load((job.folder / "config.yaml").read_text(encoding="utf-8"))
        folder = Path(config["settings"]["init_adapter"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return folder if folder.is_dir() and folder != job.folder else None


def _own(folder: Path) -> dict[str, runs.Value]:
    """The metrics of a run's own policy on the test part."""
    policy = runs.read_json(folder / "report.json").get("policy")
    return runs.read_run(folder).policies.get(str(policy), {})


def _approval(job: jobs.Job, where: Started) -> None:
    """What people would have said to this run's plans, and to those of the run before it: an estimate from
    the ratings of what was shown, made when asked for (`python -m rlmemo.feedback evaluate`)."""
    if not where.db.exists() or not ratings.approval(opened(where)):
        return
    before = _went_on_from(job)
    asked = [folder for folder in (before, job.folder) if folder]
    files = {folder: job.log.with_name(f"{job.name}{runs.ESTIMATE}{folder.name}.json") for folder in asked}
    if not all(file.is_file() for file in files.values()):
        if st.button("Estimate approval, before and after" if before else "Estimate approval",
                     icon=":material/query_stats:", key=f"approval-{job.name}"):  # fmt: skip
            with st.spinner("Asking the policies what they would have shown …"):
                st.session_state[f"approval-failed-{job.name}"] = _estimate(where, files)
            st.rerun(scope="app")
        failed = st.session_state.get(f"approval-failed-{job.name}")
        if failed:
            html(f'<div class="band" data-testid="approval-failed">{e(sentence(failed), 400)}</div>')
        return
    found = {folder: runs.read_json(file) for folder, file in files.items()}
    shown_then = next(iter(found.values()))
    rows: list[list[object]] = [["what was shown", _with_interval(shown_then.get("logged")), "–"]]
    for folder, estimate in found.items():
        called = "before: " if folder == before else "after: "
        rows.append(
            [called + folder.name, _with_interval(estimate.get("snips")), _with_interval(estimate.get("dr"))]
        )
    look.table(["thumbs up", "where it says something (SNIPS)", "of all moments (DR)"], rows, numeric={1, 2})
    note = f"Estimated from ratings of other plans. {support(found[job.folder])}"
    html(f'<div class="quiet" data-testid="approval">{e(note, 400)}</div>')


def _estimate(where: Started, files: Mapping[Path, Path]) -> str:
    """Estimate the approval of runs, each into its file; what went wrong, "" where nothing did."""
    line = ["evaluate", "--db", str(where.db), "--json", "-"]
    done = jobs.ask("rlmemo.feedback", [*line, *(x for run in files for x in ("--policy", str(run)))], 1800)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else "it ended without a word"
    found = json.loads(done.stdout)
    for file, estimate in zip(files.values(), found.get("estimates", [found]), strict=True):
        write_atomic(file, json.dumps(estimate, indent=1) + "\n")
    return ""


def _with_interval(node: object) -> str:
    v = runs.read_value(node)
    if v is None:
        return "–"
    if not math.isfinite(v.low):
        return f"{v.value:.0%} (–)"
    low, high = max(0.0, v.low), min(1.0, v.high)  # an estimate by weights can leave what a share can be
    if v.high - v.low > WIDEST or not 0.0 <= v.value <= 1.0:
        return "too little to say"
    return f"{v.value:.0%} ({low:.0%} to {high:.0%})"


def support(found: Mapping[str, Any]) -> str:
    """What an estimate's ratings say of the run, for who has no terminal at hand. found: the JSON of
    `python -m rlmemo.feedback evaluate`."""
    if not found.get("warning"):
        return ""
    if not found.get("overlap"):
        return "None of the rated plans is one that this run would show. Let it predict, and rate that."
    if float(found.get("mean_weight") or 1.0) < 0.7 and float(found.get("effective") or 0.0) >= 20.0:
        return "Part of what this run would show was never shown to anybody, so nothing is known of it."
    rated = count(int(found.get("ratings") or 0), "rating")
    if float(found["overlap"]) > 0.9:
        return f"There are {rated}: too few to be sure. Let it predict, and rate that."
    return (
        f"The rated plans are seldom those of this run: {rated} say as much of it as "
        f"{float(found.get('effective') or 0.0):.0f} of its own would. Let it predict, and rate that."
    )

"""The last week of *My days*, replayed when asked for: what a policy would have had ready, and wasted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import streamlit as st

from dashboard import look, runs
from dashboard.look import e, html
from dashboard.setting import Started, opened
from dashboard.words import fine_span, moment, sentence, shown
from env.judge.world_options import WorldOptions
from env.timeline import Timeline
from rlmemo.evaluation.last_week import Saved, would_have_saved
from rlmemo.runs.learned_days import NEVER, learned_until
from rlmemo.runs.plan_file import shipped_in_charge
from rlmemo.store.database import Store

CLASSICAL = "backoff3"
TOO_LITTLE = (
    "There is too little before the last week to know what would have been done: plans need 50 opens or more "
    "before it."
)
SHIPPED = (
    "The shipped model is in charge of this run. It learned from none of these days; only that it is in "
    "charge was decided by some of them."
)
RULE = f"{CLASSICAL}, a counting rule"


def _mark(timeline: Timeline) -> tuple[str, int, float, float, float]:
    """Enough to tell one timeline from another."""
    switched = float(timeline.offs.sum() - timeline.wakes.sum())
    return timeline.user, len(timeline), float(timeline.t.sum()), float(timeline.target.sum()), switched


@st.cache_data(show_spinner="Replaying the last week …", max_entries=20, hash_funcs={Timeline: _mark})
def _replayed(
    timeline: Timeline, policy: str, version: int, world: WorldOptions | None = None
) -> Saved | None:
    return would_have_saved(timeline, policy=policy, world=asdict(world) if world else {})


@st.cache_data(show_spinner="Looking up what it learned from …", max_entries=20, hash_funcs={Timeline: _mark})
def _learned(timeline: Timeline, run: str, version: int, runs_noted: int, _store: Store) -> float | None:
    return learned_until(Path(run), timeline, _store.runs())


def _version(folder: Path) -> int:
    """When a run's adapter, or what it is read with, was last written."""
    files = [folder / "config.yaml", *folder.glob("adapter*/**/*"), *folder.glob("scorer/*")]
    return max((f.stat().st_mtime_ns for f in files if f.is_file()), default=0)


def show(timeline: Timeline, where: Started) -> None:
    """The switch, whose plans to replay, and what came of it: the judge takes a moment to start."""
    with st.container(key="saved"):
        if not st.toggle("Replay the last week", key=f"replay-{timeline.user}"):
            st.caption("Counts what a policy would have had ready, and what it would have wasted.")
            return
        trained = {str(run.path.resolve()): run.name for run in runs.trained(where.runs)}
        chosen = st.selectbox(
            "Whose plans", [CLASSICAL, *trained], key=f"whose-{timeline.user}",
            format_func=lambda path: RULE if path == CLASSICAL else f"run {shown(trained[path])}",
        )  # fmt: skip
        if chosen == CLASSICAL or chosen not in trained:
            saved = _replayed(timeline, CLASSICAL, 0)
            if saved is None:
                st.info(TOO_LITTLE)
                return
            _tiles(saved)
            _said(timeline, saved, f"Plans of {RULE}, its threshold tuned on the time before.")
            return
        _run(timeline, where, Path(chosen), trained[chosen])


def _run(timeline: Timeline, where: Started, folder: Path, name: str) -> None:
    """What a trained run would have done, and whether it had seen these days when it learned."""
    try:
        version = _version(folder)
        saved = _replayed(timeline, str(folder), version)
        store = opened(where)
        until = _learned(timeline, str(folder), version, len(store.runs()), store)
    except Exception as error:  # whatever lies in that folder, the page stays
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(folder), folder.name)
        _band("unreadable", sentence(f"This run cannot be replayed: {reason}"))
        return
    if saved is None:
        st.info(TOO_LITTLE)
        return
    _tiles(saved)
    if shipped_in_charge(folder):
        _band("learned", SHIPPED)
        _said(timeline, saved, f"Plans of the shipped model, which is in charge of the run {shown(name)}.")
    else:
        _band("learned", seen(timeline, saved, until))
        _said(timeline, saved, f"Plans of the run {shown(name)}, as it chose to plan when it was trained.")
    rule = _replayed(timeline, CLASSICAL, 0, saved.world)
    if rule is not None:
        clean = rule if until is None else rule.after(until)
        partly = 0 < clean.opens < rule.opens
        on, same = ("On the clean ones", clean) if partly else ("On the same opens", rule)
        text = f"{on}, {RULE}, comes to: {_in_words(same)}"
        html(f'<div class="quiet" data-testid="rule" style="margin-top:.4rem">{e(text, 300)}</div>')


def seen(timeline: Timeline, saved: Saved, until: float | None) -> str:
    """Whether a run had learned from the days that it is judged on, in a sentence or two. until: as
    `rlmemo.runs.learned_days.learned_until` says."""
    if until is None:
        return (
            "What this run learned from cannot be told any more (its timelines have changed since, or are "
            "gone), so it may have learned from these very days, and the numbers may flatter it."
        )
    if until == NEVER:
        return "This run learned from other timelines: it had seen none of these days."
    if until < saved.t[0]:
        return (
            f"This run learned from days up to {moment(until, timeline.tz)}. All of these come later: it had "
            "seen none of them."
        )
    clean = saved.after(until)
    if not clean.opens:
        return (
            "This run learned from these very days, all of them: the numbers flatter it, and say nothing "
            "about days to come."
        )
    return (
        f"This run learned from these very days up to {moment(until, timeline.tz)}, so the numbers flatter "
        f"it. Only what comes later is clean: {_in_words(clean)}"
    )


def _band(testid: str, text: str) -> None:
    html(f'<div class="band" data-testid="{testid}" style="margin:.6rem 0">{e(text, 400)}</div>')


def _in_words(saved: Saved) -> str:
    return (
        f"{saved.opens:,} opens, {_signed(saved.saved_s)} saved of {fine_span(saved.waited_s)} waiting, "
        f"{saved.hits:,} of {saved.prewarms:,} prewarms ready in time, "
        f"{saved.wasted:,} for nothing{_others(saved)}."
    )


def _others(saved: Saved) -> str:
    """The prewarms that were neither."""
    others = saved.prewarms - saved.hits - saved.wasted
    return f"; {others:,} still loading, warm anyway, or not over yet" if others > 0 else ""


def _signed(seconds: float) -> str:
    return f"{'−' if seconds < 0 else ''}{fine_span(seconds)}"


def _tiles(saved: Saved) -> None:
    look.tiles(
        [
            (
                _signed(saved.saved_s),
                f"saved, of {fine_span(saved.waited_s)} waiting, over {saved.opens:,} opens",
            ),
            (f"{saved.hits:,}", f"ready in time, of {saved.prewarms:,} prewarms"),
            (f"{saved.wasted:,}", f"for nothing{_others(saved)}"),
            (f"{saved.wasted_mb_min / 1024 / 60:.1f} GB·h", "memory held for nothing"),
        ]
    )
    if saved.nothing:
        _band("nothing", f"{saved.nothing[0].upper()}{saved.nothing[1:]}.")
    elif not saved.prewarms:
        _band("nothing", "It kept still at every moment: no prewarm was worth its cost to it.")


def _said(timeline: Timeline, saved: Saved, whose: str) -> None:
    text = f"{whose} {caption(timeline, saved)}"
    html(f'<div class="quiet" data-testid="whose" style="margin-top:.5rem">{e(text, 600)}</div>')


def caption(timeline: Timeline, saved: Saved) -> str:
    """Over which days, what was known when, and in which world."""
    days = f"{moment(float(saved.t[0]), timeline.tz)} to {moment(float(saved.t[-1]), timeline.tz)}"
    return (
        f"From {days}; each plan was made knowing nothing that came after its event. Planned and judged for "
        f"{saved.world.in_words()}; how long opening takes is a model, not a measurement of this machine."
    )

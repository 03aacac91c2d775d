"""Rate: one prediction at a time, thumbs up or down, blind to what happened until the vote is in.

What counts is in the store, not in this session: the vote's idempotency key names the prediction, the
rater and how often that rater had spoken about it when it was shown, so a rerun, a reload, a double
click or a second window cannot count a vote twice. The page thanks only after the commit.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import streamlit as st

from dashboard import after_vote, jobs, look, own_days, rating_desk, words
from dashboard.look import e, html
from dashboard.setting import Started, heard, opened, said
from env.errors import InputError
from rlmemo.store import raters, ratings
from rlmemo.store.database import MAX_REASON, Store
from rlmemo.store.records import Prediction
from rlmemo.store.waiting import Told, desk

MOST_IN_MEMORY = 8
QUESTIONS = {
    True: "Would you have liked this to be ready?",
    False: "Was it right to make nothing ready?",
}

TITLE = "Rate"
ICON = ":material/thumbs_up_down:"

SOONEST_UNDO_S = 0.6
SOONEST_VOTE_S = 0.3  # nobody reads faster; a second click of a double click is that fast
LATEST_LOST_S = 2.0  # by then the buttons of the card before have left the browser
TOO_QUICK = "Too quick after the last one: that press was not counted."
TOLD = "Votes that know the outcome are marked, so that they can be told from the others."
REASONS = {
    1: ("right thing", "right moment", "always this one", "good that it kept still"),
    0: ("wrong thing", "wrong moment", "never this one", "too much at once", "something was missing"),
}
"""By thumb: what can be said in one click."""


def show(where: Started) -> None:
    html("<style>[data-testid='stMainBlockContainer'] {max-width: 42rem !important;}</style>")
    if not where.db.exists():
        _nothing(where)
        return
    store = opened(where)
    counts = ratings.sitting(store, where.rater)
    showing = _showing(store, where)
    last = ratings.latest(store, where.rater) if counts.rated else None
    left = ratings.unrated(store, where.rater)
    if showing is None and ratings.latest(store, where.rater) is None:
        _nothing(where)
        return
    _progress(counts, left, ratings.days_in_a_row(store, where.rater), raters.goal(store, where.rater))
    rating_desk.guidelines(store)
    _failure()
    if showing is None:
        _all_done(where)
    else:
        told = bool(st.session_state.get("told"))
        if told:
            ratings.tell(store, showing)
        now = desk(store, where.rater)
        _card(showing.moment, told, not told and showing.moment.id in now.known, now.hides)
        _votes(where, showing)
    below = st.container()  # so that the buttons stay where they are
    rating_desk.show(store, where, showing is None)
    with below:
        _last(store, where, last)  # as late as it can be: it may ask a model


def _nothing(where: Started) -> None:
    st.title("Rate")
    if own_days.own(where):
        look.empty(
            "Nothing to rate yet",
            "Let the model that comes with rlmemo predict on your days. It has not learned from them yet.",
            own_days.command(where),
        )
        own_days.offer(where)
        return
    look.empty(
        "Nothing to rate yet",
        "Bring a recording in (Data and privacy), or let a policy predict on the synthetic people first.",
        f"python -m rlmemo.predict --timelines demo --policy base --db {where.db.name}",
    )
    _failure()
    with st.container(horizontal=True, horizontal_alignment="center"):
        if st.button("Do that for me, with the synthetic people", icon=":material/play_arrow:", key="demo"):
            _make_demo(where)


def _make_demo(where: Started) -> None:
    line = ["--timelines", "demo", "--policy", "base", "--db", str(where.db), "--n", "200"]
    with st.spinner("Six invented people live through eight weeks …"):
        done = jobs.ask("rlmemo.predict", line, 300)
    if done.returncode:
        st.session_state["failed"] = done.stderr.strip().removeprefix("error: ")[-300:]
    st.rerun()


def _all_done(where: Started) -> None:
    data = where.db.name if own_days.own(where) else "demo"
    look.empty(
        "All rated",
        "Every prediction has your word. Train on it (see Train), or have new ones made, below.",
        f"python -m rlmemo.train --timelines {data} --feedback {where.db.name}\n"
        f"python -m rlmemo.predict --timelines {data} --policy base --db {where.db.name} --n 200 --seed 1",
    )


def _showing(store: Store, where: Started) -> ratings.Showing | None:
    """What stands on the page: the same until it is voted on or skipped, in this window and the next."""
    showing = ratings.open_showing(store, where.rater) or ratings.show_next(
        store, where.rater, random.random()
    )
    was_heard = st.session_state.pop("heard", False)
    if was_heard:
        # Buttons of another turn are other buttons: a press that reached one which was just leaving the page
        # is not heard, however late it comes.
        st.session_state["turn"] = _turn() + 1
    elif st.session_state.get("note_shown"):
        st.session_state.setdefault("note", st.session_state["note_shown"])
    if showing is None:
        return None
    if st.session_state.get("on_page") != showing.key:
        st.session_state["on_page"] = showing.key
        st.session_state["on_page_since"] = time.monotonic()
    elif not was_heard and "voted" in st.session_state and _since_shown() < LATEST_LOST_S:
        # The page is computed again and no button was heard: it was one of the card before, gone meanwhile.
        st.session_state.setdefault("note", TOO_QUICK)
    return showing


def _turn() -> int:
    """How many presses were heard in this window."""
    return int(st.session_state.get("turn", 0))


def _since_shown() -> float:
    """Seconds since the card on the page came there."""
    return time.monotonic() - float(st.session_state.get("on_page_since", 0.0))


def _progress(counts: ratings.Sitting, left: int, days: int, wanted: int) -> None:
    goal = max(1, min(wanted, counts.rated + left))
    reached = " · goal reached" if counts.rated >= goal else ""
    html(
        f'<div class="meta"><span><b>{counts.rated}</b> of {goal} rated '
        f'<span class="quiet">({counts.up} yes, {counts.rated - counts.up} no){reached}</span>'
        + (f' <span class="quiet" data-testid="days">· {days} days in a row</span>' if days > 1 else "")
        + "</span>"
        f'<span class="quiet">{left:,} waiting</span></div>'
        f'<div class="bar" role="progressbar" aria-label="rated, of your goal" '
        f'aria-valuenow="{min(counts.rated, goal)}" aria-valuemax="{goal}">'
        f'<i style="width:{min(100, 100 * counts.rated / goal):.1f}%"></i></div>'
    )


def _failure() -> None:
    failed = st.session_state.pop("failed", None)
    if failed:
        html(f'<div class="band" role="alert" data-testid="failed">{e(words.sentence(failed), 300)}</div>')


def _last(store: Store, where: Started, last: ratings.Rated | None) -> None:
    note = st.session_state["note_shown"] = st.session_state.pop("note", None)
    if note:
        html(f'<div class="band" data-testid="note">{e(note, 300)}</div>')
    skipped: ratings.Showing | None = st.session_state.get("skipped")
    if skipped is not None:
        html(f'<div class="band" data-testid="skipped">Passed over: {e(_which(skipped.moment), 200)}.</div>')
        with st.container(key="after"):
            st.button(
                "Undo", icon=":material/undo:", key=f"undo-{skipped.key}-{_turn()}", shortcut="U",
                type="tertiary", on_click=_unskip, args=(where, skipped),
            )  # fmt: skip
        return
    if last is None:
        return
    rating = last.rating
    told = ratings.tell_after(store, where.rater, last.moment)
    happened = (
        " ".join(words.outcome_sentences(last.moment.prediction, told))
        or "What happened next is not known yet."
    )
    html(
        f'<div class="band {"good" if rating.thumbs else ""}" data-testid="last">'
        f"<b>You said {'yes' if rating.thumbs else 'no'}</b> to {e(_which(last.moment), 200)}"
        + (f' <span class="quiet">({e(rating.reason)})</span>' if rating.reason else "")
        + f": {e(happened, 400)}</div>"
    )
    with st.container(horizontal=True, key="after", vertical_alignment="center", gap="small"):
        st.button(
            "Undo", icon=":material/undo:", key=f"undo-{rating.id}-{_turn()}", shortcut="U", type="tertiary",
            on_click=_undo, args=(where, last),
        )  # fmt: skip
        reasons(where, last)
    if told is Told.ALL:
        after_vote.show(where, last)
    elif after_vote.reads_thumbs(last, where):  # how much a vote does depends on what came
        html('<div class="quiet" data-testid="later">What your vote changes is told then, too.</div>')


def _card(moment: ratings.Moment, told: bool, known: bool, hides: Callable[[str, float], bool]) -> None:
    """hides: whether an open of a person at some time must not be told yet."""
    p = moment.prediction
    happened = " ".join(words.outcome_sentences(p)) or "Not known yet."
    picks = "".join(
        f'<div class="pick"><b>{e(x.target)}</b><span>{e(words.delay(x.delay_s))}</span></div>'
        for x in p.plan
    )
    who = e(p.user) + (" (synthetic)" if moment.synthetic else "")
    html(
        f'<div class="card" data-testid="card" data-prediction="{moment.id}">'
        f'<div class="when">{e(words.moment(p.t, moment.tz))}</div><div class="quiet">{who}</div>'
        + look.strip(moment.steps)
        + _in_memory(moment, hides)
        + (
            f'<div class="ask">It would get ready</div>{picks}'
            if picks
            else '<div class="ask">It would</div><div class="still">keep still: nothing made ready</div>'
        )
        + _let_go(p)
        + f'<div class="question">{QUESTIONS[bool(picks)]}</div>'
        + (
            f'<div class="ask">What happened</div><div data-testid="told">{e(happened, 400)}</div>'
            if told
            else ""
        )
        + (
            '<div class="quiet" data-testid="known">You may have seen what happened here; your vote is '
            "marked.</div>"
            if known
            else ""
        )
        + "</div>"
    )


def _in_memory(moment: ratings.Moment, hides: Callable[[str, float], bool]) -> str:
    """What was warm already. What would tell another card's outcome is counted, and not named."""
    if not moment.memory:
        return ""
    named = [name for t, name in moment.memory if not hides(moment.prediction.user, t)]
    more = len(moment.memory) - len(named[:MOST_IN_MEMORY])
    said = ", ".join(f"<b>{e(name)}</b>" for name in named[:MOST_IN_MEMORY])
    said += f"{' and ' if said else ''}{words.count(more, 'other') if said else more}" if more else ""
    return f'<div class="quiet" data-testid="memory">Warm already, as opened lately: {said}.</div>'


def _let_go(p: Prediction) -> str:
    """Whom the plan lets go first, and when."""
    if not p.let_go:
        return ""
    names = ", then ".join(f"<b>{e(x)}</b>" for x in p.let_go)
    return f'<div class="quiet" data-testid="let-go">If room is needed, {names} would go first.</div>'


def _votes(where: Started, showing: ratings.Showing) -> None:
    with st.container(key="votes", horizontal=True):
        st.button(
            "Yes, good", icon=":material/thumb_up:", shortcut="Y", width="stretch",
            key=f"up-{showing.key}", on_click=_vote, args=(where, showing, 1),
        )  # fmt: skip
        st.button(
            "No, not this", icon=":material/thumb_down:", shortcut="N", width="stretch",
            key=f"down-{showing.key}", on_click=_vote, args=(where, showing, 0),
        )  # fmt: skip
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button(
            "Can't say", icon=":material/skip_next:", shortcut="S", type="tertiary",
            key=f"skip-{showing.key}", on_click=_skip, args=(where, showing),
        )  # fmt: skip
        told = bool(st.session_state.get("told"))
        # A button and no toggle: with the focus in a toggle, the keys would not vote.
        st.button(
            "Ask me blind again" if told else "Tell me the outcome first",
            icon=":material/visibility_off:" if told else ":material/visibility:", type="tertiary",
            key=f"tell-{told}", help=TOLD, on_click=st.session_state.update,
            args=({"told": not told, "heard": True},),
        )  # fmt: skip


def _vote(where: Started, showing: ratings.Showing, thumbs: int) -> None:
    heard()
    again = st.session_state.get("voted") == showing.key
    if _has_left(showing) and not again:
        return
    if _since_shown() < SOONEST_VOTE_S:
        st.session_state["note"] = TOO_QUICK
        return
    st.session_state["voted"] = showing.key  # before it is written: two keys at once come at once
    try:
        became = ratings.rate(opened(where), showing, thumbs)
    except (InputError, OSError) as error:
        st.session_state["failed"] = f"Not saved: {words.shown(error, 200)}"
        return
    if became is ratings.Vote.ALREADY:
        st.session_state["note"] = (
            TOO_QUICK if again
            else f"{_which(showing.moment)} was rated in another window already; that vote stands."
        )  # fmt: skip
    elif st.session_state.get("note") == TOO_QUICK:
        del st.session_state["note"]  # said by the button of the card before
    st.session_state.pop("skipped", None)


def _has_left(showing: ratings.Showing) -> bool:
    """Whether another card is on the page. While that is drawn, the buttons of cards before are still in the
    browser, and hear the keys as the new ones do: one press comes here for each of them, in any order."""
    return bool(st.session_state.get("on_page") != showing.key)


@said
def _skip(where: Started, showing: ratings.Showing) -> None:
    if _has_left(showing):
        return
    ratings.skip(opened(where), showing)
    st.session_state["skipped"] = showing


def _undone_just_now() -> bool:
    """Whether something was taken back a moment ago: one press of U also reaches the button that is just
    leaving the page, and must not take back what was said before, too."""
    return bool(time.monotonic() - st.session_state.get("undone", -math.inf) < SOONEST_UNDO_S)


@said
def _unskip(where: Started, showing: ratings.Showing) -> None:
    last: ratings.Showing | None = st.session_state.get("skipped")
    if _undone_just_now() or last is None or last.key != showing.key:
        return
    st.session_state["undone"] = time.monotonic()
    ratings.unskip(opened(where), showing)
    st.session_state.pop("skipped", None)
    st.session_state["note"] = f"Not passed over any more: {_which(showing.moment)}. It is asked again above."


@said
def _undo(where: Started, last: ratings.Rated) -> None:
    now = ratings.latest(opened(where), where.rater)
    if _undone_just_now() or now is None or now.rating.id != last.rating.id:
        st.session_state.setdefault("note", TOO_QUICK)
        return
    st.session_state["undone"] = time.monotonic()
    ratings.withdraw(opened(where), last)
    said = "yes" if last.rating.thumbs else "no"
    st.session_state["note"] = f"Taken back: your {said} to {_which(last.moment)}. It is asked again above."


def _which(moment: ratings.Moment) -> str:
    """Which card is meant, in words: when, and what would have been made ready."""
    p = moment.prediction
    plan = ", ".join(words.shown(x.target, 24) for x in p.plan) or "keep still"
    return f"{words.moment(p.t, moment.tz)} ({plan})"


def reasons(where: Started, rated: ratings.Rated) -> None:
    """Why a vote is what it is: in a click, in one's own words, or both."""
    rating = rated.rating
    with st.popover("Why?", icon=":material/help:", type="tertiary", key=f"why-{rating.id}"):
        for reason in REASONS[rating.thumbs]:
            st.button(
                reason.capitalize(), key=f"{reason}-{rating.id}", type="tertiary",
                on_click=_because, args=(where, rated, reason),
            )  # fmt: skip
        typed = f"words-{rating.id}"
        st.text_input(
            "In your own words", key=typed, max_chars=MAX_REASON, on_change=_in_own_words,
            args=(where, rated, typed),
        )  # fmt: skip


@said
def _because(where: Started, last: ratings.Rated, reason: str) -> None:
    ratings.explain(opened(where), last, reason)


def _in_own_words(where: Started, last: ratings.Rated, key: str) -> None:
    """What was typed, behind the reason that was clicked, if one was."""
    text = str(st.session_state.get(key) or "").strip()
    clicked = last.rating.reason.partition(": ")[0]
    if text:
        _because(where, last, f"{clicked}: {text}" if clicked in REASONS[last.rating.thumbs] else text)

"""Your votes: looking through them, changing them, taking them back; how far raters agree; all as CSV."""

from __future__ import annotations

import streamlit as st

from dashboard import look, words
from dashboard.look import e, html
from dashboard.rate import reasons
from dashboard.setting import Started, opened, said
from dashboard.words import count, shown
from rlmemo.approval.placed_ratings import read_ratings
from rlmemo.evaluation.agreement import alpha_estimate, pairwise
from rlmemo.store import raters, ratings, votes
from rlmemo.store.database import Store
from rlmemo.store.waiting import Told, desk

TITLE = "Your votes"
ICON = ":material/checklist:"

A_PAGE = 10
BOTH = "all"
KINDS = {BOTH: None, "yes": 1, "no": 0}
ANYBODY = "any policy"
LEAST_TOGETHER = 10
"""With fewer predictions that both have rated, agreement says next to nothing."""


def show(where: Started) -> None:
    st.title(TITLE)
    store = opened(where) if where.db.exists() else None
    if store is None or not raters.raters(store):
        look.empty("No votes yet", "What you say on the page Rate is listed here, to look at and to change.")
        return
    note = st.session_state.pop("vote_note", None)
    if note:
        html(f'<div class="band good" data-testid="vote-note">{e(note, 300)}</div>')
    _list(store, where)
    _agreement(store)
    st.subheader("For other programs")
    st.download_button(
        "Ratings as CSV", icon=":material/download:", file_name=f"{where.db.stem}-ratings.csv",
        mime="text/csv", data=lambda: "".join(votes.table(store)).encode(), on_click="ignore",
        help="Every vote that counts, of all raters, with its plan and what came of it.",
    )  # fmt: skip


def _list(store: Store, where: Started) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control("Votes", list(KINDS), default=BOTH, key="votes-kind")
        policies = [str(row["policy"]) for row in ratings.approval(store)]
        policy = st.selectbox("Whose plan", [ANYBODY, *dict.fromkeys(policies)], format_func=shown)
        text = st.text_input("In the plan or the reason", key="votes-text", placeholder="news")
    with st.container(horizontal=True):
        reasoned = st.checkbox("With a reason", key="votes-reasons")
        many = len(raters.raters(store)) > 1
        disputed = many and st.checkbox("Another rater said the other thing", key="votes-disputed")
    sought = votes.Sought(
        KINDS[kind or BOTH], None if policy == ANYBODY else policy, text or "", bool(reasoned), bool(disputed)
    )
    shown_so_far = A_PAGE * (1 + int(st.session_state.get("votes-more", 0)))
    n, found = votes.votes(store, where.rater, sought, limit=shown_so_far)
    html(f'<div class="quiet" data-testid="votes-count">{count(n, "vote")}, given as {e(where.rater)}.</div>')
    now = desk(store, where.rater)
    for rated in found:
        _vote(where, rated, ratings.tell_after(store, where.rater, rated.moment, now))
    if n > len(found):
        st.button("Show more", icon=":material/expand_more:", on_click=_more, key="votes-show-more")


def _more() -> None:
    st.session_state["votes-more"] = int(st.session_state.get("votes-more", 0)) + 1


def _vote(where: Started, rated: ratings.Rated, told: Told) -> None:
    """told: how much of what happened may be on the page."""
    rating, moment = rated.rating, rated.moment
    p = moment.prediction
    plan = ", ".join(shown(x.target, 24) for x in p.plan) or "keep still"
    happened = " ".join(words.outcome_sentences(p, told))
    said_so = ("Yes" if rating.thumbs else "No") + (f" ({rating.reason})" if rating.reason else "")
    marked = "" if rating.blind else " The outcome was known."
    html(
        f'<div class="band {"good" if rating.thumbs else ""}" data-testid="vote" data-rating="{rating.id}">'
        f"<b>{e(said_so, 300)}</b>: {e(plan, 200)} "
        f'<div class="quiet">{e(words.moment(p.t, moment.tz))}; {e(p.policy)}. {e(happened, 300)}'
        f"{marked}</div></div>"
    )
    other = 1 - rating.thumbs
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.button(
            f"Make it a {'yes' if other else 'no'}", key=f"change-{rating.id}", type="tertiary",
            icon=":material/thumb_up:" if other else ":material/thumb_down:",
            on_click=_change, args=(where, rated, other),
        )  # fmt: skip
        st.button(
            "Take back", icon=":material/undo:", key=f"back-{rating.id}", type="tertiary",
            on_click=_take_back, args=(where, rated),
        )  # fmt: skip
        reasons(where, rated)


@said
def _change(where: Started, rated: ratings.Rated, thumbs: int) -> None:
    ratings.change(opened(where), rated, thumbs)
    st.session_state["vote_note"] = f"It is a {'yes' if thumbs else 'no'} now."


@said
def _take_back(where: Started, rated: ratings.Rated) -> None:
    ratings.withdraw(opened(where), rated)
    st.session_state["vote_note"] = "Taken back: it does not count any more, and is asked again on Rate."


def _agreement(store: Store) -> None:
    """How far raters agree, where there are two or more."""
    if len(raters.raters(store)) < 2:
        return
    st.subheader("Do raters agree?")
    rated = read_ratings(store)
    rows: list[list[object]] = []
    for name in raters.raters(store):
        own = [r.thumbs for r in rated if r.rater == name]
        rows.append([name, f"{len(own):,}", f"{sum(own) / len(own):.0%}"])
    look.table(["rater", "votes", "thumbs up"], rows, numeric={1, 2})
    pairs = pairwise(rated)
    if not pairs:
        html('<div class="quiet" data-testid="agreement">Nobody has rated what another one has.</div>')
        return
    rows = [
        [f"{a} and {b}", f"{n:,}", f"{agree:.0%}", f"{kappa:.2f}" if kappa == kappa else "–"]
        for a, b, n, agree, kappa in pairs
    ]
    look.table(["raters", "both rated", "say the same", "Cohen's kappa"], rows, numeric={1, 2, 3})
    alpha = alpha_estimate(rated).text()
    few = max(n for _, _, n, _, _ in pairs) < LEAST_TOGETHER
    text = (
        f"Kappa is 1 where they always agree, and 0 where they do as often as chance would. Of all raters "
        f"(Krippendorff's alpha): {alpha}."
        + (f" Fewer than {LEAST_TOGETHER} in common say little." if few else "")
    )
    html(f'<div class="quiet" data-testid="agreement">{e(text, 400)}</div>')

"""What raters set up on the page Rate (goal, who rates, guidelines), and more predictions to rate."""

from __future__ import annotations

import streamlit as st

from dashboard import gate, own_days
from dashboard.setting import Started, opened, said
from dashboard.words import shown
from rlmemo.store import raters
from rlmemo.store.database import Store

HOW = (
    "Markdown. Everybody who rates here reads it: what counts as helpful, what to do in doubt, when to press "
    "Can't say."
)
SITTING = "Votes are counted until you pause for half an hour: that is a sitting."


def guidelines(store: Store) -> None:
    """What raters go by, folded up, above the card; nothing where nobody has written any."""
    text = raters.guidelines(store)
    if text:
        with st.expander("Guidelines", icon=":material/menu_book:", key="guidelines-shown"):
            st.markdown(without_pictures(text))


def without_pictures(text: str) -> str:
    """Markdown without its pictures, which a browser would ask somebody else's server for; what was one is a
    link."""
    return text.replace("![", "[")


def show(store: Store, where: Started, more: bool) -> None:
    """Below everything: what is set up seldom. more: whether more predictions are what is wanted now."""
    with st.expander("Goal, who rates, guidelines", icon=":material/tune:", key="set-up"):
        st.number_input(
            "Votes that you want to give in a sitting", 1, raters.MOST_GOAL, raters.goal(store, where.rater),
            key=f"goal-{where.rater}", on_change=_set_goal, args=(where,), help=SITTING,
        )  # fmt: skip
        if where.login is None:
            names = [where.rater, *(x for x in raters.raters(store) if x != where.rater)]
            st.selectbox(
                "Who rates", names, index=0, accept_new_options=True, key=f"rater-{where.rater}",
                format_func=shown, on_change=_change_rater, args=(where,),
                help="Each has a list of their own to rate. Type a new name to begin one.",
            )  # fmt: skip
        with st.form("guidelines", border=False):
            st.text_area(
                "Guidelines", raters.guidelines(store), key="guidelines-text", help=HOW,
                max_chars=raters.LONGEST_GUIDELINES,
            )  # fmt: skip
            st.form_submit_button("Keep the guidelines", on_click=_write_guidelines, args=(where,))
    with st.expander("More predictions to rate", icon=":material/add:", expanded=more, key="more"):
        own_days.offer(where)


@said
def _set_goal(where: Started) -> None:
    raters.set_goal(opened(where), where.rater, int(st.session_state[f"goal-{where.rater}"]))


@said
def _write_guidelines(where: Started) -> None:
    raters.write_guidelines(opened(where), str(st.session_state["guidelines-text"]))


@said
def _change_rater(where: Started) -> None:
    gate.rate_as(str(st.session_state[f"rater-{where.rater}"] or ""))

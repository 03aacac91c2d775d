"""Who may see anything: who was let in by `dashboard/door.py`; with a login, who is on its list."""

from __future__ import annotations

from pathlib import Path

from dashboard.login import read_login
from dashboard.look import e, html
from dashboard.setting import Started
from dashboard.words import shown
from env.sources.names import clean_name

RATER = "rater"
"""The name in a page's address of who rates."""


def is_open(setting: Started) -> bool:
    """Whether this session may see anything. Without a login, it would not be here without the token."""
    import streamlit as st

    return not setting.login or read_login(setting.login).admits(st.user.to_dict())


def rater(setting: Started) -> str:
    """Whose ratings a session that was let in gives: with a login, those of who has logged in; without one,
    those of whom the page was told, which stands in its address, so that a reload keeps it."""
    import streamlit as st

    if setting.login:
        email = st.user.to_dict().get("email")
        return email if isinstance(email, str) and email else setting.rater
    name = clean_name(str(st.session_state.get(RATER) or st.query_params.get(RATER) or ""))
    if not name or name == setting.rater:
        st.query_params.pop(RATER, None)
        return setting.rater
    if st.query_params.get(RATER) != name:
        st.query_params[RATER] = name
    st.session_state[RATER] = name
    return name


def rate_as(name: str) -> None:
    """From now on, this window's votes are those of `name`. What it remembers of the one before is
    forgotten."""
    import streamlit as st

    name = clean_name(name)
    if name:
        for key in ("skipped", "voted", "note", "note_shown", "on_page"):
            st.session_state.pop(key, None)
        st.session_state[RATER] = name


def ask(file: Path) -> None:
    """Ask to log in: a button for each provider. Who has logged in and may not come in is told so."""
    import streamlit as st

    st.title("rlmemo")
    user = st.user.to_dict()
    if user.get("is_logged_in"):
        html(
            f'<div class="band" role="alert">{e(user.get("email") or "You", 120)} may not come in here.</div>'
        )
        st.button("Log out", on_click=st.logout)
        return
    for name in read_login(file).providers or (None,):
        label = "Log in" if name is None else f"Log in with {shown(name)}"
        st.button(label, type="primary", key=f"login-{name}", on_click=st.login, args=(name,))

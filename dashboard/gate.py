"""Who may see anything: who was let in by `dashboard/door.py`; with a login, who is on its list."""

from __future__ import annotations

from pathlib import Path

from dashboard.login import read_login
from dashboard.look import e, html
from dashboard.setting import Started
from dashboard.words import shown


def is_open(setting: Started) -> bool:
    """Whether this session may see anything. Without a login, it would not be here without the token."""
    import streamlit as st

    return not setting.login or read_login(setting.login).admits(st.user.to_dict())


def rater(setting: Started) -> str:
    """Whose ratings a session that was let in gives: with a login, those of who has logged in."""
    import streamlit as st

    email = st.user.to_dict().get("email") if setting.login else None
    return email if isinstance(email, str) and email else setting.rater


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

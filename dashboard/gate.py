"""The door: open on this machine, and a token everywhere else; where there is a login, that and nothing else.

The token is compared in constant time and wrong ones are answered slowly, one at a time over all
sessions, so that it cannot be guessed by trying.
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from pathlib import Path

from dashboard.__main__ import SHORTEST_TOKEN, TOKEN_VARIABLE, is_loopback
from dashboard.login import read_login
from dashboard.look import e, html
from dashboard.setting import Setting
from dashboard.words import shown

SLOW_S = 1.0
_one_at_a_time = threading.Lock()


def accepted(given: str, token: str) -> bool:
    """Whether `given` is the token; a token that is too short to be one opens nothing."""
    return len(token) >= SHORTEST_TOKEN and hmac.compare_digest(given.encode(), token.encode())


def is_open(setting: Setting) -> bool:
    """Whether this session may see anything."""
    import streamlit as st

    if setting.login:
        return read_login(setting.login).admits(st.user.to_dict())
    return is_loopback(setting.address) or bool(st.session_state.get("let_in"))


def rater(setting: Setting) -> str:
    """Whose ratings a session that was let in gives: with a login, those of who has logged in."""
    import streamlit as st

    email = st.user.to_dict().get("email") if setting.login else None
    return email if isinstance(email, str) and email else setting.rater


def ask(setting: Setting) -> None:
    """Ask for the token, or to log in, and let the session in when that is right."""
    import streamlit as st

    st.title("rlmemo")
    if setting.login:
        _ask_login(setting.login)
        return
    with st.form("token"):
        given = st.text_input("Token", type="password", help=f"the value of {TOKEN_VARIABLE} on the server")
        sent = st.form_submit_button("Come in", type="primary")
    if sent:
        with _one_at_a_time:
            if accepted(given, os.environ.get(TOKEN_VARIABLE, "")):
                st.session_state["let_in"] = True
                st.rerun()
            time.sleep(SLOW_S)
        st.error("That is not the token.")


def _ask_login(file: Path) -> None:
    """A button for each provider; who has logged in and may not come in is told so."""
    import streamlit as st

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

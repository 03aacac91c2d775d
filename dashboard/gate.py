"""The door: open on this machine, and a token everywhere else.

The token is compared in constant time and wrong ones are answered slowly, one at a time over all
sessions, so that it cannot be guessed by trying.
"""

from __future__ import annotations

import hmac
import os
import threading
import time

from dashboard.__main__ import SHORTEST_TOKEN, TOKEN_VARIABLE, is_loopback
from dashboard.setting import Setting

SLOW_S = 1.0
_one_at_a_time = threading.Lock()


def accepted(given: str, token: str) -> bool:
    """Whether `given` is the token; a token that is too short to be one opens nothing."""
    return len(token) >= SHORTEST_TOKEN and hmac.compare_digest(given.encode(), token.encode())


def is_open(setting: Setting) -> bool:
    """Whether this session may see anything."""
    import streamlit as st

    return is_loopback(setting.address) or bool(st.session_state.get("let_in"))


def ask() -> None:
    """Ask for the token, and let the session in when it is right."""
    import streamlit as st

    st.title("rlmemo")
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

"""Data and privacy: what is stored, taking it along, and forgetting."""

from __future__ import annotations

import streamlit as st

from dashboard.setting import Setting

TITLE = "Data and privacy"
ICON = ":material/lock:"


def show(where: Setting) -> None:
    st.title("Data and privacy")

"""The dashboard's frame: the door, the pages and what they share. Run by `python -m dashboard`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import streamlit as st

from dashboard import days, door, gate, look, now, policies, privacy, rate, setting, train, votes
from env.errors import InputError


def page(module: ModuleType, where: setting.Started) -> Callable[[], None]:
    def show() -> None:
        look.style()
        failed = st.session_state.pop("said", None)
        if failed:
            look.problem(failed)
        if module is not rate:
            st.session_state.pop("voted", None)  # to have looked elsewhere is no press that was lost
        try:
            module.show(where)
        except InputError as error:
            look.problem(str(error))

    return show


def main() -> None:
    if not door.guards:
        sys.exit("start it with: python -m dashboard")  # by itself, it would be open to everybody
    where = setting.from_arguments(sys.argv[1:])
    st.set_page_config(page_title="rlmemo", page_icon=look.FAVICON, layout="centered")
    come_in = gate.is_open(where)
    if come_in:
        where = replace(where, rater=gate.rater(where))
    pages = [
        st.Page(
            page(module, where), title=module.TITLE, icon=module.ICON, url_path=path, default=path == "rate"
        )
        for path, module in (
            ("rate", rate),
            ("votes", votes),
            ("now", now),
            ("days", days),
            ("policies", policies),
            ("train", train),
            ("privacy", privacy),
        )
    ]
    # The pages are named even where the door is shut, so that one comes out where one wanted to go.
    chosen = st.navigation(pages, position="top" if come_in else "hidden")
    if come_in:
        chosen.run()
    else:
        look.style()
        assert where.login is not None
        gate.ask(where.login)


main()

"""The dashboard and its database in a real browser: no vote is lost, and a bad file is said in one line."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import PAGES, Server, new_page, turn_to, vote
from predictions_to_rate import fill

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_every_vote_is_there_after_kill_9(
    browser: Any, start: Callable[..., Server], cli: Cli, tmp_path: Path
) -> None:
    db = fill(tmp_path / "a.db")
    server = start(db)
    page = new_page(browser)
    page.goto(server.url)
    given = [(vote(page, 1, key=True), 1)]
    for name in (*PAGES[1:], "days", "policies"):
        turn_to(page, name)
        page.wait_for_selector("h1, [data-testid=card]")
        page.wait_for_timeout(300)
        assert page.get_by_test_id("stException").count() == 0
        if name == "days":
            page.get_by_text("Replay the last week").click()
            page.wait_for_selector("[data-testid=whose]")
        turn_to(page, "")
        given.append((vote(page, len(given) % 2, key=False), len(given) % 2))
        beside = cli("rlmemo.feedback", "show", "--db", str(db))
        assert beside.stdout.startswith(f"{len(given)} ratings"), beside.stderr
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert server.votes() == given
    # Streamlit's own words would ask whether one is connected to the internet.
    page.wait_for_selector("[role=dialog]")
    said = "e => getComputedStyle(e, '::after').content + getComputedStyle(e).fontSize"
    assert page.locator("[role=dialog] h2").evaluate(said) == '"The dashboard has stopped"0px'
    assert "Your votes are stored." in page.locator("[role=dialog] h2 + div").evaluate(said)
    assert server.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "how", ["replaced by a text", "replaced by another's", "no table any more", "damaged"]
)
def test_a_bad_database_is_said_in_one_line(
    how: str, browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """Also one that goes bad while the dashboard is open; votes that cannot be kept are not thanked for."""
    db = fill(tmp_path / "a.db")
    server = start(db)
    page = new_page(browser)
    if how == "damaged":  # before anybody has looked
        raw = bytearray(db.read_bytes())
        raw[100:4096] = b"\xff" * 3996
        db.write_bytes(raw)
        words = "damaged"
    else:
        page.goto(server.url)
        vote(page, 1, key=True)
        other = tmp_path / "other"
        if how == "replaced by a text":
            other.write_text("this is no database, and somebody called it one\n" * 20)
            os.replace(other, db)
            words = "was replaced while the dashboard was open"
        elif how == "replaced by another's":
            with closing(sqlite3.connect(other)) as theirs:
                theirs.execute("CREATE TABLE recipes (name)")
            with closing(sqlite3.connect(db)) as folding:
                folding.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            os.replace(other, db)
            words = "another program's database"
        else:
            with closing(sqlite3.connect(db, isolation_level=None)) as theirs:
                theirs.execute("PRAGMA foreign_keys = OFF")
                theirs.execute("DROP VIEW latest_ratings")
                theirs.execute("DROP TABLE ratings")
            words = "is not the database any more"
            page.get_by_role("button", name="Undo").click()  # a callback, not a page
            page.wait_for_selector(f"[data-testid=problem]:has-text('{words}')")
    page.goto(server.url)
    page.wait_for_selector("[data-testid=problem]")
    seen = 0
    for name in PAGES[::-1]:
        turn_to(page, name)
        page.wait_for_selector("h1, [data-testid=problem]")
        page.wait_for_timeout(500)
        assert page.get_by_test_id("stException").count() == 0, name
        problem = page.get_by_test_id("problem")
        if problem.count():
            assert words in problem.first.inner_text()
            seen += 1
    assert seen >= 3

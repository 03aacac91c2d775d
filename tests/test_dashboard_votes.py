"""In a real browser: what a vote changes; the list of votes, raters, goals, guidelines, predictions."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import ROOT, Server, new_page, press, settled, shown, vote
from predictions_to_rate import fill

from env.sources import load_timelines
from rlmemo.predict import Options, predict
from rlmemo.store import raters, ratings
from rlmemo.store.database import open_store

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TOLD = "[data-testid=after-vote]:not(:has-text('asked again'))"


def open_expander(page: Any, name: str) -> None:
    page.get_by_text(name, exact=True).click()
    page.wait_for_timeout(700)


def test_a_vote_changes_the_plan_of_the_same_moment(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """The page says how, and what is predicted next for that moment is what it said."""
    db = tmp_path / "a.db"
    every = Options(n=2000, explore=0.0)  # at every moment of the two people
    with open_store(db) as store:
        people = load_timelines("demo", weeks=2, collapsed=False)
        store.add_timelines(replace(people, timelines=people.timelines[:2]))
        assert predict(store, str(db), "base", every) > 30
    server = start(db)
    page = new_page(browser)
    page.goto(server.url)
    page.wait_for_selector("[data-testid=card]")
    assert page.get_by_test_id("after-vote").count() == 0  # nothing before the vote is in
    assert "Would you have liked this to be ready?" in page.inner_text("[data-testid=card]")
    assert "Warm already, as opened lately: " in page.inner_text("[data-testid=memory]")
    for _ in range(30):
        asked = shown(page)
        vote(page, 0, key=False)
        page.wait_for_selector(f"{TOLD}, [data-testid=last]:has-text('told later')")
        text = page.inner_text(TOLD) if page.locator(TOLD).count() else ""
        if text.startswith("Before your vote it would have loaded"):
            break
    before, now = re.match(r"Before your vote it would have (.+?)\. Now it would (.+?)\. ", text).groups()  # type: ignore[union-attr]
    assert before.removeprefix("loaded ") != now.removeprefix("load ")
    name, was, is_now = re.search(r"Chance of (.+?): ([\d.]+)% before, ([\d.]+)% now\.", text).groups()  # type: ignore[union-attr]
    assert float(is_now) < float(was)
    assert name in before
    assert "It loads what has 21% or more." in text
    # The same predictions made once more: the one of this moment is another now, as the page has said.
    with open_store(db) as store:
        rated = ratings.moment(store, asked).prediction
        assert name in [x.target for x in rated.plan]
        assert predict(store, str(db), "base", replace(every, still=True))
        again = store.predictions(user=rated.user)
    (later,) = [p for p in again if p.t == rated.t and p.id != asked]
    assert f"{later.probabilities[name]:.1%}" == f"{is_now}%"
    assert name not in [x.target for x in later.plan]
    press(page, "u", f"[data-testid=card][data-prediction='{asked}']")
    page.wait_for_timeout(500)
    # What is told now, if anything, is of the vote before.
    assert not page.locator(TOLD).count() or page.inner_text(TOLD) != text


SLOW_TO_ANSWER = """
import time
import dashboard.after_vote
dashboard.after_vote.reads_thumbs = lambda *_: time.sleep(3)
"""


def test_keys_while_the_model_is_asked_count_once(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """Buttons of cards before stay in the browser until the page is drawn to its end, and hear the keys."""
    with open_store(tmp_path / "a.db") as store:
        people = load_timelines("demo", weeks=2, collapsed=False)
        store.add_timelines(replace(people, timelines=people.timelines[:1]))
        assert predict(store, str(tmp_path / "a.db"), "base", Options(n=40, explore=0.0)) >= 5
    server = start(tmp_path / "a.db", first=SLOW_TO_ANSWER)
    page = new_page(browser)
    page.goto(server.url)
    given: list[tuple[int, int]] = []
    most = 0
    for key in "ynyn":
        given.append((shown(page), int(key == "y")))
        page.wait_for_timeout(900)
        page.keyboard.press(key)
        page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{given[-1][0]}'])")
        page.wait_for_timeout(300)
        most = max(most, page.locator("button:has-text('Yes, good')").count())
    page.wait_for_selector("[data-testid=last]")
    settled(page)
    assert most > 1, "no button of a card before was there"
    assert server.votes() == given
    assert page.get_by_test_id("note").count() == 0
    # Passed over and taken back, too: what has left the page hears the next key, and gets no vote.
    before = shown(page)
    page.keyboard.press("s")
    page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{before}'])")
    page.wait_for_timeout(900)
    given.append((shown(page), 1))
    page.keyboard.press("y")
    page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{given[-1][0]}'])")
    settled(page)
    assert server.votes() == given
    page.keyboard.press("u")
    page.wait_for_selector(f"[data-testid=card][data-prediction='{given[-1][0]}']")
    page.wait_for_timeout(900)
    given[-1] = (given[-1][0], 0)
    page.keyboard.press("n")
    page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{given[-1][0]}'])")
    settled(page)
    assert server.votes() == given


def test_a_policy_that_reads_no_votes_says_so(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    vote(page, 1, key=True)
    page.wait_for_selector("[data-testid=after-vote]:has-text('markov1 reads no votes')")


def test_reasons_and_words_for_both_thumbs_and_no_key_votes_while_one_types(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    first = vote(page, 1, key=True)
    page.get_by_role("button", name="Why?").click()
    page.get_by_role("button", name="Right moment").click()
    page.wait_for_selector("[data-testid=last]:has-text('right moment')")
    settled(page)
    page.get_by_role("button", name="Why?").click()
    page.get_by_label("In your own words").click()
    page.keyboard.type("sunny, yes <b>now</b>")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-testid=last]:has-text('sunny, yes <b>now</b>')")
    assert server.rows("SELECT prediction_id, thumbs, reason FROM latest_ratings") == [
        (first, 1, "right moment: sunny, yes <b>now</b>")
    ]
    page.keyboard.press("Escape")
    second = vote(page, 0, key=False)
    page.get_by_role("button", name="Why?").click()
    page.get_by_label("In your own words").fill("not in a meeting")
    page.get_by_label("In your own words").press("Enter")
    page.wait_for_selector("[data-testid=last]:has-text('not in a meeting')")
    assert server.votes() == [(first, 1), (second, 0)]


def test_the_list_of_votes_and_kill_9(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    """Found, changed, taken back; what the page has said of it is there after the dashboard was killed."""
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser, width=380)
    page.goto(server.url)
    given = [(vote(page, k % 2, key=k > 2), k % 2) for k in range(5)]
    page.goto(f"{server.url}/votes")
    page.wait_for_selector("[data-testid=votes-count]:has-text('5 votes')")
    assert page.get_by_test_id("vote").count() == 5
    page.get_by_role("radio", name="yes").click()
    page.wait_for_selector("[data-testid=votes-count]:has-text('2 votes')")
    page.get_by_role("button", name="Make it a no").first.click()
    page.wait_for_selector("[data-testid=vote-note]:has-text('It is a no now.')")
    page.wait_for_selector("[data-testid=votes-count]:has-text('1 vote')")
    page.get_by_role("button", name="Take back").first.click()
    page.wait_for_selector("[data-testid=vote-note]:has-text('Taken back')")
    page.wait_for_selector("[data-testid=votes-count]:has-text('0 votes')")
    settled(page)
    assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0
    with page.expect_download() as file:
        page.get_by_role("button", name="Ratings as CSV").click()
    table = list(csv.DictReader(Path(file.value.path()).read_text().splitlines()))
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    (taken, _), (changed, _) = given[1], given[3]
    assert server.votes() == [*(v for v in given if v[0] not in (taken, changed)), (changed, 0)]
    assert server.rows("SELECT blind FROM latest_ratings ORDER BY id") == [(1,), (1,), (1,), (0,)]
    assert [(row["thumbs"], row["blind"]) for row in table] == [("down", "yes")] * 3 + [("down", "no")]
    assert server.rows("PRAGMA integrity_check") == [("ok",)]


def test_several_raters_a_goal_and_guidelines(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db", 6))
    page = new_page(browser)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    mine = [(vote(page, k % 2, key=False), k % 2) for k in range(3)]
    open_expander(page, "Goal, who rates, guidelines")
    page.get_by_role("spinbutton", name="Votes that you want to give").fill("4")
    page.get_by_role("spinbutton", name="Votes that you want to give").press("Tab")
    page.wait_for_selector("text=3 of 4 rated")
    page.get_by_role("textbox", name="Guidelines").fill(
        "# In doubt\n\nSay **no**. ![x](http://198.51.100.1/x.png)<b>raw</b>"
    )
    page.get_by_role("button", name="Keep the guidelines").click()
    page.locator("summary", has_text=re.compile("Guidelines$")).first.click()
    page.wait_for_selector("h1:has-text('In doubt')")
    assert page.locator("strong:text-is('no')").count() == 1
    assert page.locator("[data-testid=stMain] img, b:text-is('raw')").count() == 0
    assert [url for url in asked if "198.51" in url] == []

    page.get_by_role("combobox", name="Who rates").fill("ada")
    page.get_by_role("combobox", name="Who rates").press("Enter")
    page.wait_for_selector("text=0 of 6 rated")
    page.reload()  # the name stands in the address
    page.wait_for_selector("text=0 of 6 rated")
    theirs = []
    while len(theirs) < 6:
        card = shown(page)
        theirs.append((card, 1))
        page.wait_for_timeout(450)
        page.get_by_role("button", name="Yes, good").click()
        page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{card}']), :text('All rated')")
    assert server.rows("SELECT rater, COUNT(*), SUM(thumbs) FROM latest_ratings GROUP BY rater") == [
        ("ada", 6, 6), ("me", 3, 1),
    ]  # fmt: skip
    assert server.rows("SELECT rater, thumbs FROM latest_ratings WHERE rater = 'me'") == [
        ("me", thumbs) for _, thumbs in mine
    ]
    page.get_by_role("link", name="Your votes").click()
    page.wait_for_selector("[data-testid=agreement]")
    assert "6 votes, given as ada." in page.inner_text("[data-testid=votes-count]")
    assert re.search(r"ada and me\s+3\s+33%\s+0\.00", page.inner_text("[data-testid=stMain]"))
    page.get_by_text("Another rater said the other thing").click()
    page.wait_for_selector("[data-testid=votes-count]:has-text('2 votes')")
    page.get_by_role("link", name="Rate", exact=True).click()
    page.wait_for_selector("text=All rated")
    with open_store(server.db) as store:
        assert raters.goal(store, "me") == 4
        assert raters.goal(store, "ada") == raters.USUAL_GOAL


def test_predictions_are_made_from_the_page(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    before = shown(page)
    open_expander(page, "More predictions to rate")
    for label, option in (("Whose days", "the synthetic people"), ("Who predicts", "markov1")):
        page.get_by_role("combobox", name=label, exact=True).click()
        page.get_by_role("option", name=option).first.click()
    page.get_by_label("How many").fill("12")
    page.get_by_label("How many").press("Tab")
    page.get_by_role("button", name="Predict on my days").click()
    page.wait_for_selector("[data-testid=predicting]", state="attached")
    page.wait_for_selector("[data-testid=predicted]:has-text(' to rate: see Rate.')", state="attached")
    ((n, policy),) = server.rows("SELECT COUNT(*), MAX(policy) FROM predictions WHERE user <> 'ada'")
    assert 6 < n <= 12
    assert f"{n} new predictions" in page.get_by_test_id("predicted").text_content()
    assert policy == "markov1"
    assert shown(page) == before
    vote(page, 1, key=True)


def test_two_dashboards_that_start_at_once_take_two_ports(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "dashboard", "--db", str(tmp_path / "a.db"), "--no-open"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    both = [
        subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        said = {re.match(r"dashboard: http://127.0.0.1:(\d+)/", p.stdout.readline())[1] for p in both}  # type: ignore[union-attr, index]
        assert len(said) == 2
    finally:
        for process in both:
            process.kill()
            process.wait()

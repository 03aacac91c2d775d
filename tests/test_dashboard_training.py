"""From ratings to a better policy, in the browser: rate, train on it, go on from it, compare. No part is
replaced by another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import Server, new_page, settled, turn_to

from env.sources import load_timelines
from rlmemo.predict import Options, predict
from rlmemo.store import ratings
from rlmemo.store.database import open_store

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1800)]

MINUTES = 60_000
FEW = (
    "--method", "dpo", "--sft-states", "64", "--plan-states", "16", "--dpo-pairs", "16", "--policies", "",
    "--scorer", "shipped",
)  # fmt: skip
"""A training that begins with what a page's goes on from."""
Cli = Callable[..., subprocess.CompletedProcess[str]]


def choose(page: Any, label: str, option: str) -> None:
    box = page.get_by_role("combobox", name=label, exact=True)
    box.scroll_into_view_if_needed()  # an open list closes when the page scrolls
    settled(page)
    box.click()
    page.get_by_role("option", name=option, exact=False).first.click()


def begin(page: Any, name: str) -> None:
    """Fill in the rest of the form and start; waits for the end of the training."""
    choose(page, "How much", "A quick look")
    page.get_by_role("textbox", name="Call it").fill(name)
    page.get_by_role("textbox", name="Call it").press("Tab")
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("[data-testid=steps]")
    page.wait_for_selector(f"text={name} finished", timeout=10 * MINUTES)


def test_ratings_become_an_update_that_is_compared_with_what_was_before(
    browser: Any, start: Callable[..., Server], cli: Cli, tmp_path: Path
) -> None:
    with open_store(tmp_path / "a.db") as store:
        people = load_timelines("demo", weeks=2, collapsed=False)
        store.add_timelines(replace(people, timelines=people.timelines[:1]))
        predict(store, str(tmp_path / "a.db"), "markov1", Options(n=40, part="train"))
        for k in range(30):
            showing = ratings.show_next(store, "me", 0.5)
            assert showing is not None
            ratings.rate(store, showing, int(k % 3 > 0))
    runs, db = tmp_path / "runs", str(tmp_path / "a.db")
    done = cli("rlmemo.train", "--timelines", db, "--feedback", db, "--out", str(runs / "first"), *FEW)
    assert done.returncode == 0, done.stderr
    assert "feedback: 30 ratings, 20 thumbs up" in done.stdout + done.stderr
    server = start(tmp_path / "a.db")
    page = new_page(browser)
    page.goto(f"{server.url}/train")
    page.wait_for_selector("text=ratings that count")
    assert "30" in page.inner_text(".tiles")
    choose(page, "Learn from", "your timelines")
    choose(page, "How", "KTO")
    choose(page, "Go on from", "first")
    begin(page, "second")
    assert json.loads((runs / "second" / "feedback.json").read_text())
    assert "feedback: 30 ratings, 20 thumbs up" in (runs / "second.log").read_text()

    # The page can be closed and opened again.
    page.close()
    page = new_page(browser)
    page.goto(f"{server.url}/train")
    page.wait_for_selector("text=second finished")
    page.wait_for_selector("text=before: first")
    page.wait_for_selector("text=after: second")
    page.locator("text=before: first").nth(1).wait_for()  # on validation, too: it took the place of SFT
    assert "init_adapter: " + str(runs / "first") in (runs / "second" / "config.yaml").read_text()
    page.get_by_role("button", name="Estimate approval, before and after").click()
    page.wait_for_selector("[data-testid=approval]", timeout=5 * MINUTES)
    for name in ("first", "second"):
        found = json.loads((runs / f"second.approval-{name}.json").read_text())
        assert found["ratings"] == 30
        assert 0.0 <= found["dr"]["value"] <= 1.0 or found["dr"]["ci95"][0] < 1.0
    shown = page.inner_text("[data-testid=stMain]")
    # Of what was shown 20 of 30 were liked; each counts by the chance that it was shown with.
    assert 0.5 < found["logged"]["value"] < 0.8
    assert f"{found['logged']['value']:.0%} (" in shown
    # The last week as that run would have planned it, which it had learned from in part. Whether the run or
    # the model as it came is in charge hangs on a few seconds of waiting, by machine: here the run.
    in_charge = runs / "first" / "adapter" / "plan.json"
    told = json.loads(in_charge.read_text())
    in_charge.write_text(json.dumps({name: value for name, value in told.items() if name != "stage"}))
    turn_to(page, "days")
    page.get_by_text("Replay the last week").click()
    page.wait_for_selector("[data-testid=whose]")
    choose(page, "Whose plans", "run first")
    page.wait_for_selector("[data-testid=learned]", timeout=3 * MINUTES)
    learned = page.inner_text("[data-testid=learned]")
    assert learned.startswith("This run learned from these very days up to ")
    assert "Only what comes later is clean: " in learned
    assert "Plans of the run first" in page.inner_text("[data-testid=whose]")
    # What it did is on Policies, too.
    turn_to(page, "policies")
    page.wait_for_selector("text=Where the reward comes from")
    page.wait_for_selector("[data-testid=why]")

"""The page Now: a live that runs, in a process of its own, is followed, and minds what is said there."""

from __future__ import annotations

import csv
import http.client
import json
import random
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import Server, new_page
from extension_in_browser import TOKEN, Live, until
from fake_watch import FakeServer, W
from predictions_to_rate import HOSTILE
from test_live_loop import StillClock, loop_on

from rlmemo.live.browser_port import origin
from rlmemo.store.database import open_store

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HUB, NEWS = "hub.example", "news.example"


def opens(n: int) -> Iterator[str]:
    """Somebody who goes from a hub to the news mostly, and else to one of a dozen sites."""
    rng = random.Random(3)
    for _ in range(n):
        yield HUB
        yield NEWS if rng.random() < 0.6 else f"site{rng.randrange(12)}.example"


def past(file: Path) -> None:
    """Their recording, a minute between opens, until a minute ago."""
    targets = list(opens(150))
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["user", "t", "target", "kind"])
        now = time.time()
        rows.writerows(["me", now - 60.0 * (len(targets) - k), x, "page"] for k, x in enumerate(targets))


class Visiting:
    """Visits sites, as the extension tells of them, and says what live plans then."""

    def __init__(self, live: Live, db: Path) -> None:
        self.live, self.db, self.plan_id = live, db, 0
        self.plan: list[str] = []

    def visit(self, site: str) -> list[str]:
        """The plan after it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.live.port, timeout=30)
        seen = {"id": secrets.token_hex(8), "t": time.time(), "site": site}
        connection.request(
            "POST", "/v1/browser", json.dumps({"visits": [seen], "reports": []}),
            {"Origin": origin(), "Authorization": f"Bearer {TOKEN}"},
        )  # fmt: skip
        assert connection.getresponse().status == 200
        connection.close()
        with open_store(self.db, make=False) as store:
            rows = until(lambda: store.rows(
                """SELECT p.plan, p.id FROM live_events AS l JOIN events AS e ON e.id = l.event_id
                   LEFT JOIN live_plans AS p ON p.live_event_id = l.id
                   WHERE l.planned = 1 AND e.t >= ? AND e.target = ?""", [seen["t"] - 0.001, site],
            ))  # fmt: skip
        self.plan_id, self.plan = rows[0]["id"], [x["target"] for x in json.loads(rows[0]["plan"])]
        return self.plan


def shows(page: Any, person: Visiting) -> None:
    """Wait until the page shows the latest plan by itself."""
    page.wait_for_selector(f"[data-testid=now][data-plan='{person.plan_id}']", timeout=30_000)
    found = [x.inner_text() for x in page.locator("[data-testid=pick] b").all()]
    assert found == person.plan


def test_what_is_said_on_the_page_is_minded_by_the_next_plan(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    past(tmp_path / "past.csv")
    db = tmp_path / "live.db"
    live = Live(tmp_path, "--policy", "base", "--timelines", "past.csv", "--threshold", "0.3",
                "--memory-mb", "230")  # fmt: skip
    try:
        person = Visiting(live, db)
        server = start(db)
        page = new_page(browser)
        page.goto(f"{server.url}/now")
        page.wait_for_selector("[data-testid=running]")
        person.visit("site3.example")
        assert NEWS in person.visit(HUB)
        shows(page, person)
        assert "came after hub.example" in page.inner_text("[data-testid=now]")
        # said no, and committed when it is thanked for
        page.get_by_role("button", name="No, not this").first.click()
        page.wait_for_selector("[data-testid=said]:has-text('You said no')")
        assert [x[1] for x in server.votes()] == [0]
        assert server.rows("SELECT blind FROM ratings") == [(1,)], "nothing was opened since"
        person.visit("site3.example")
        assert NEWS not in person.visit(HUB), "the next plan minds it"
        shows(page, person)
        page.wait_for_selector("[data-testid=heard]:has-text('1 thumb')")
        # taken back on the page, among the plans before, it does not count any more
        page.get_by_role("button", name="Undo").first.click()
        page.wait_for_selector("[data-testid=said]", state="detached")
        assert server.votes() == []
        person.visit("site4.example")
        assert NEWS in person.visit(HUB)
        shows(page, person)
        # a vote on an earlier plan is no blind one, and a second click is no second vote
        earlier = page.locator("[data-testid=earlier]").first
        of = earlier.get_attribute("data-plan")
        page.locator(f".st-key-plan-{of}").get_by_role("button", name="No").click()
        page.wait_for_selector("[data-testid=said]")
        assert server.rows("SELECT thumbs, blind FROM latest_ratings") == [(0, 0)]
        live.stop()
        page.wait_for_selector("[data-testid=not-running]:has-text('rlmemo.live start --db live.db')")
        shows(page, person)
    finally:
        live.stop()


def test_where_nothing_was_recorded_it_says_how_to_begin(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(tmp_path / "mine.db")
    page = new_page(browser)
    page.goto(f"{server.url}/now")
    page.wait_for_selector("text=Live has recorded nothing here yet")
    assert "python -m rlmemo.live start --db mine.db" in page.inner_text("[data-testid=stMain]")


def test_names_are_text_on_a_narrow_page_too(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """As live left it: it does not run."""
    names = [HOSTILE, "a-very-long-name." + "x" * 90, "Mail"]
    watch, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    with loop_on(db, watch, clock) as loop:
        for k in range(40):
            clock.t = 10.0 + 60.0 * k
            watch.tell(W, clock.t, app=names[k % 3])
            loop.turn()
    server = start(db)
    page = new_page(browser, width=360, dark=True)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.goto(f"{server.url}/now")
    page.wait_for_selector("[data-testid=not-running]")
    page.wait_for_selector("[data-testid=earlier]")
    text = page.inner_text("[data-testid=stMain]")
    assert "<img src=x" in text
    assert "**b**" in text
    assert page.locator("img[src='x'], a[href='/e'], strong:text-is('b')").count() == 0
    assert alerts == []
    assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0

"""The dashboard in a real browser: what is clicked and typed is what stands in the store, once."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_in_browser import PAGES, Server, new_page, press, settled, shown, turn_to, vote
from predictions_to_rate import HOSTILE, START, fill

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Seconds that a page may take with 100,000 predictions. Promised are two on a quiet machine, and a 2 here
# makes the test hold it to that; tests usually run beside others, on machines that are busy.
SECONDS = float(os.environ.get("RLMEMO_STRICT_SECONDS") or 4.0)


def test_ten_by_click_and_by_key_undo_reload_and_a_second_window(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    given = []
    for k in range(10):
        thumbs = int(k % 3 != 1)
        given.append((vote(page, thumbs, key=k % 2 == 0), thumbs))
        assert server.votes() == given  # thanked for means committed
    assert {t for _, t in given} == {0, 1}

    # A reload shows the same prediction and counts nothing twice.
    before = shown(page)
    page.reload()
    assert shown(page) == before
    assert "10 of 20 rated" in page.inner_text("[data-testid=stMain]")
    assert server.votes() == given

    # Undo by key: the last vote does not count any more, the row is kept, and it is asked again.
    page.wait_for_selector("[data-testid=last]")
    press(page, "u", f"[data-testid=card][data-prediction='{given[-1][0]}']")
    assert server.votes() == given[:-1]
    assert server.rows("SELECT COUNT(*) FROM ratings") == [(10,)]
    given[-1] = (vote(page, 1 - given[-1][1], key=False), 1 - given[-1][1])
    assert server.votes() == given
    assert server.rows("SELECT COUNT(*) FROM ratings") == [(11,)]

    # A second window shows the same prediction; voted in both, it counts once, as it was first said.
    second = new_page(browser)
    second.goto(server.url)
    both = shown(page)
    assert shown(second) == both
    given.append((vote(page, 0, key=True), 0))
    second.wait_for_timeout(450)
    second.keyboard.press("y")
    second.wait_for_selector("text=rated in another window")
    assert server.votes() == given
    assert server.rows("SELECT COUNT(*) FROM ratings") == [(12,)]
    assert server.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_double_click_is_one_vote(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    first = shown(page)
    page.wait_for_timeout(450)
    page.get_by_role("button", name="Yes, good").dblclick()
    page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{first}'])")
    page.wait_for_timeout(1500)
    assert server.votes() == [(first, 1)]
    # Keys in fast use: never more votes than keys, and the first one counts. (Whether the second comes while
    # the page is being drawn anew is the machine's affair; of two keys in one millisecond Streamlit may
    # hand on both together, in either order.)
    for gap_ms in (0, 900):
        before, asked = len(server.votes()), shown(page)
        page.wait_for_timeout(450)
        page.keyboard.press("y")
        page.wait_for_timeout(gap_ms)
        page.keyboard.press("n")
        page.wait_for_selector(f"[data-testid=card]:not([data-prediction='{asked}'])")
        page.wait_for_timeout(1500)
        assert 1 <= len(server.votes()) - before <= 2
        assert {(asked, 1)} & set(server.votes()) or (gap_ms == 0 and (asked, 0) in server.votes())


def test_the_outcome_is_shown_after_the_vote_only(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    shown(page)
    assert "was ready in time" not in page.content()
    vote(page, 1, key=True)
    assert (
        "Chat was ready in time. news.example was not needed. The plan saved 2.5 s of waiting."
        in page.inner_text("[data-testid=last]")
    )


def test_the_outcome_can_be_told_first_and_the_vote_is_marked(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    assert page.get_by_test_id("told").count() == 0  # off unless asked for
    page.get_by_role("button", name="Tell me the outcome first").first.click()
    page.wait_for_selector("[data-testid=told]:has-text('Chat was ready in time')")
    told = shown(page)
    page.get_by_role("button", name="Ask me blind again").first.click()  # too late: it was told
    page.wait_for_selector("[data-testid=told]", state="detached")
    assert vote(page, 1, key=True) == told
    blind = vote(page, 0, key=False)
    assert server.rows("SELECT prediction_id, blind FROM latest_ratings ORDER BY id") == [
        (told, 0),
        (blind, 1),
    ]


def test_no_page_tells_what_another_card_asks(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """Two policies' plans at one moment, the same plan once more, and a moment right after: three cards, in
    the order of time, and what came is told when nobody is asked about it any more."""
    from rlmemo.store import open_store
    from rlmemo.store.records import Prewarm
    from tests.test_blind import add

    t = START + 100.0 * np.arange(40)
    with open_store(tmp_path / "a.db") as store:
        late = add(store, t, 22, (Prewarm("Mail"),), "markov1")
        for policy, name in (("one", "Mail"), ("two", "Chat"), ("again", "Mail")):
            add(store, t, 20, (Prewarm(name),), policy)
    server = start(tmp_path / "a.db")
    page = new_page(browser)
    page.goto(server.url)
    seen = [vote(page, 1, key=False)]
    assert "app 21" not in page.inner_text("[data-testid=stMain]")
    turn_to(page, "policies")
    page.wait_for_selector("[data-testid=why]")
    assert "app 21" not in page.inner_text("[data-testid=stMain]")
    turn_to(page, "")
    page.wait_for_selector("[data-testid=card]")
    seen.append(vote(page, 1, key=False))
    page.wait_for_selector("[data-testid=last]:has-text('app 21 was opened')")
    assert "was ready in time" not in page.inner_text("[data-testid=last]")
    assert "app 23" not in page.inner_text("[data-testid=stMain]")
    seen.append(shown(page))
    page.wait_for_timeout(450)
    page.get_by_role("button", name="Yes, good").click()
    page.get_by_text("All rated").wait_for()
    assert seen[2] == late
    assert server.rows("SELECT DISTINCT blind FROM ratings") == [(1,)]


def test_why_says_what_was_known(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    from env.sources import load_timelines
    from env.splits import chrono
    from rlmemo.evaluation.evaluate import Setting, evaluate
    from rlmemo.policies.registry import make_policies
    from rlmemo.predict import Options, predict
    from rlmemo.store.database import open_store

    timelines = load_timelines("demo", weeks=2).timelines[:2]
    setting = Setting(replicates=30, latency_decisions=2)
    found = evaluate(make_policies("none,mru,markov1"), timelines, chrono(timelines), setting=setting)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "base.json").write_text(json.dumps(found.as_json()))
    with open_store(tmp_path / "a.db") as store:
        predict(store, "demo", "markov1", Options(n=12, threshold=0.2))
    server = start(tmp_path / "a.db")
    page = new_page(browser)
    page.goto(server.url)
    voted = vote(page, 0, key=False)
    turn_to(page, "policies")
    page.wait_for_selector("[data-testid=why]")
    assert page.get_by_test_id("stException").count() == 0
    for title in ("Side by side", "Hits against waste", "Where the reward comes from",
                  "Can the probabilities be believed?", "What people said"):  # fmt: skip
        page.get_by_role("heading", name=title).wait_for()
    why = page.inner_text("[data-testid=why]")
    assert re.search(r"came after .+ \d+ of \d+ times", why)
    assert "last opened" in why
    ((plan, probabilities),) = server.rows(f"SELECT plan, probabilities FROM predictions WHERE id = {voted}")
    assert why.count("ready ") == len(json.loads(plan))
    for name, share in json.loads(probabilities).items():
        assert name[:40] in why
        assert f"{share:.1%}" in why
    assert "markov1: successors of the current target" in page.inner_text("[data-testid=names]")
    assert "events are too few for a curve" in page.inner_text("[data-testid=few]")
    page.get_by_role("radio", name="Odds of new off by").click()
    page.get_by_role("radio", name="None of these").click()
    page.wait_for_timeout(1500)
    assert page.get_by_test_id("stException").count() == 0


def test_a_reason_counts_with_its_vote(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    voted = vote(page, 0, key=False)
    page.get_by_role("button", name="Why?").click()
    page.get_by_role("button", name="Wrong moment").click()
    page.wait_for_selector("[data-testid=last]:has-text('wrong moment')")
    assert server.rows("SELECT prediction_id, thumbs, reason FROM latest_ratings") == [
        (voted, 0, "wrong moment")
    ]


def test_skipping_is_no_vote_and_the_last_one_ends_it(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db", predictions=2))
    page = new_page(browser)
    page.goto(server.url)
    skipped = shown(page)
    page.get_by_role("button", name="Can't say").wait_for()
    press(page, "s", f"[data-testid=card]:not([data-prediction='{skipped}'])")
    page.wait_for_timeout(450)
    press(page, "n", "text=All rated")
    page.wait_for_selector("text=All rated")
    assert [v[1] for v in server.votes()] == [0]
    assert server.votes()[0][0] != skipped


def test_a_narrow_screen_has_everything_on_it(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(
        fill(tmp_path / "a.db", name="a-very-long-name-of-a-target.subdomain.example.org/" + "x" * 60)
    )
    page = new_page(browser, width=360, dark=True)
    page.goto(server.url)
    voted = vote(page, 0, key=False)
    assert server.votes() == [(voted, 0)]
    for name in PAGES:
        page.goto(f"{server.url}/{name}")
        page.wait_for_selector("h1, [data-testid=card]")
        page.wait_for_timeout(800)
        wide = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
        assert wide <= 0, name
    page.goto(server.url)
    for label in ("Yes, good", "No, not this"):
        box = page.get_by_role("button", name=label).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 44


def test_names_are_text_and_never_markup(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(fill(tmp_path / "a.db", name=HOSTILE))
    page = new_page(browser)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.goto(server.url)
    vote(page, 1, key=True)
    text = page.inner_text("[data-testid=stMain]")
    assert "<img src=x" in text
    assert "**b**" in text
    assert "[l](/e)" in text
    for name in ("days", "policies", "privacy", ""):
        turn_to(page, name)
        page.wait_for_selector("h1, [data-testid=card]")
        page.wait_for_timeout(300)
        assert page.locator("img[src='x'], a[href='/e'], strong:text-is('b')").count() == 0
    assert alerts == []


def test_nothing_outside_is_asked_for_anything(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket_: asked.append(socket_.url))
    page.goto(server.url)
    page.wait_for_selector("[data-testid=card]")
    for name in PAGES[::-1]:
        turn_to(page, name)
        page.wait_for_selector("h1, [data-testid=card]")
        page.wait_for_timeout(500)
    assert len(asked) > 20
    local = re.compile(rf"^(https?|wss?)://127\.0\.0\.1:{server.port}/|^(data|blob):")
    assert [url for url in asked if not local.match(url)] == []
    assert [
        x for x in server.connections.read_text().splitlines() if "127.0.0.1" not in x and "::1" not in x
    ] == []


def test_without_a_database_it_says_what_to_do(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(tmp_path / "none.db")
    page = new_page(browser)
    page.goto(server.url)
    page.wait_for_selector("text=python -m rlmemo.predict")
    for name in PAGES[::-1]:
        turn_to(page, name)
        page.wait_for_selector("h1")
        page.wait_for_timeout(300)
        assert page.get_by_test_id("stException").count() == 0
    page.wait_for_selector("text=python -m rlmemo.predict")
    assert not (tmp_path / "none.db").exists()
    page.get_by_role("button", name="Do that for me").click()
    page.wait_for_selector("[data-testid=card]", timeout=120_000)
    assert server.rows("SELECT COUNT(*) > 150, MIN(policy), MAX(policy) FROM predictions") == [
        (1, "base", "base")
    ]
    assert "(synthetic)" in page.inner_text("[data-testid=card]")


def test_forgetting_a_target_leaves_no_trace_in_the_file(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db", predictions=3))
    page = new_page(browser)
    page.goto(server.url)
    vote(page, 1, key=True)
    turn_to(page, "privacy")
    page.wait_for_selector("input[type=file]", state="attached")  # the last of the page to be drawn
    page.wait_for_timeout(1000)
    choice = page.get_by_role("combobox", name="Target")
    choice.scroll_into_view_if_needed()  # an open list closes when the page scrolls
    page.wait_for_timeout(500)
    choice.click()
    page.get_by_role("option", name=re.compile("^news.example")).click()
    page.get_by_text("Its opens, and every prediction that names it").click()
    page.get_by_role("button", name="Forget this target").click()
    page.wait_for_selector("[data-testid=forgotten]:has-text('192 opens, 3 predictions, 1 rating')")
    settled(page)
    assert page.get_by_text("news.example (").count() == 0, "nothing is chosen for the next time"
    assert not page.get_by_role("checkbox").first.is_checked()
    assert server.rows("SELECT COUNT(*) FROM events WHERE target = 'news.example'") == [(0,)]
    assert server.rows("SELECT COUNT(*) FROM predictions") == [(0,)]
    assert server.rows("SELECT COUNT(*) FROM ratings") == [(0,)]
    for file in tmp_path.glob("a.db*"):
        assert b"news.example" not in file.read_bytes()
    # A whole recording, too.
    (user, _), *more = server.rows("SELECT user, source FROM timelines ORDER BY source, user")
    page.get_by_role("tab", name="A recording").click()
    choice = page.get_by_role("combobox", name="Recording", exact=True)
    choice.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    choice.click()
    page.get_by_role("option", name=re.compile(f"^{re.escape(user)} from ")).click()
    page.get_by_text("Its opens, and every prediction on it").click()
    page.get_by_role("button", name="Forget this recording").click()
    page.wait_for_selector("[data-testid=forgotten]:has-text('0 predictions')")
    assert server.rows("SELECT user, source FROM timelines ORDER BY source, user") == more


def test_a_form_on_another_site_cannot_upload(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """Cross-site request forgery: the same upload with and without the token that only our page knows."""
    server = start(tmp_path / "none.db")
    page = new_page(browser)
    page.goto(f"{server.url}/privacy")
    sent: list[Any] = []
    page.on("request", lambda r: sent.append(r) if "upload_file" in r.url and r.method == "PUT" else None)
    upload = {"name": "a.csv", "mimeType": "text/csv", "buffer": b"user,t,target\n"}
    with page.expect_response(lambda r: "upload_file" in r.url and r.request.method == "PUT") as answer:
        page.locator("input[type=file]").set_input_files(upload)
    assert answer.value.status < 300
    headers = sent[0].all_headers()
    body = sent[0].post_data_buffer
    kept = {k: v for k, v in headers.items() if k in ("content-type", "cookie")}
    assert server.cookies[0]["value"] in kept["cookie"]  # as a page on another port would send it
    assert any("xsrf" in name for name in headers)
    for changed in (
        kept,
        {k: v for k, v in kept.items() if k != "cookie"},
        {**kept, "x-xsrftoken": "2|0|0|0"},
    ):
        request = urllib.request.Request(sent[0].url, body, changed, method="PUT")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code == 403


def test_no_thanks_without_a_commit(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)
    asked = shown(page)
    page.wait_for_timeout(450)
    with closing(sqlite3.connect(server.db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # somebody writes for longer than the store waits
        page.get_by_role("button", name="No, not this").click()
        page.wait_for_selector("[data-testid=failed]:has-text('Not saved')", timeout=60_000)
        assert page.get_by_test_id("last").count() == 0
        assert shown(page) == asked
        other.execute("ROLLBACK")
    assert server.votes() == []
    assert vote(page, 0, key=False) == asked
    assert server.votes() == [(asked, 0)]


def test_a_recording_is_brought_in(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(tmp_path / "none.db")
    page = new_page(browser)
    page.goto(f"{server.url}/privacy")
    rows = "".join(f"me,2026-03-{k + 1:02d}T08:00:00,mail\n" for k in range(20))
    upload = {
        "name": "../<b>mine</b>.csv",
        "mimeType": "text/csv",
        "buffer": f"user,t,target\n{rows}".encode(),
    }
    page.locator("input[type=file]").set_input_files(upload)
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Import", exact=False).last.click()
    # What is wrong is said in the form's words, and the file need not be chosen again.
    page.wait_for_selector("[data-testid=imported]:has-text('name its time zone with “Time zone”')")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("Time zone").press("Tab")
    page.get_by_role("button", name="Import", exact=False).last.click()
    page.wait_for_selector("[data-testid=imported]:has-text('20 rows read')")
    report = page.inner_text("[data-testid=imported]")
    assert "uploaded" not in report
    assert "next:" not in report
    assert server.rows("SELECT COUNT(*) FROM events") == [(20,)]
    # Another file goes on with it, under its name.
    ((source,),) = server.rows("SELECT source FROM timelines")
    more = {
        "name": "april.csv",
        "mimeType": "text/csv",
        "buffer": b"user,t,target\nme,2026-04-01T08:00:00,mail\n",
    }
    page.locator("input[type=file]").set_input_files(more)
    page.get_by_label("Recording, if it goes on").fill(source)
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("Time zone").press("Tab")
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Import", exact=False).last.click()
    page.wait_for_selector("[data-testid=imported]:has-text('1 rows read')")
    assert server.rows(
        "SELECT source, COUNT(*) FROM timelines JOIN events ON timeline_id = timelines.id"
    ) == [(source, 21)]
    # The way on: predictions on these very days, in the background; here there is nothing to be gained.
    turn_to(page, "")
    page.wait_for_selector("text=--timelines none.db --policy base --db none.db")
    page.get_by_role("button", name="Predict on my days").click()
    page.wait_for_selector("[data-testid=predicting]")
    page.wait_for_selector("[data-testid=predicted]:has-text('No new prediction: ')")


def test_the_last_week_is_replayed_by_whom_one_likes(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """The counting rule at first; runs that cannot be read say so in a line, whatever they are called. (One
    that can: tests/test_dashboard_training.py.)"""
    runs = tmp_path / "runs"
    unreadable = {
        "<img src=x onerror=alert(1)>**b**": (
            "settings: {model: embedded}\nmet: {base_sha256: other}",
            "changed since",
        ),
        "damaged": ("settings: {model: embedded}\nmet: {}", "adapter_config.json cannot be read"),
        "odd": ("- 1", "is no finished run"),
    }
    for name, (config, _) in unreadable.items():
        (runs / name / "adapter").mkdir(parents=True)
        (runs / name / "config.yaml").write_text(config)
        (runs / name / "adapter" / "adapter_config.json").write_text("{")
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.goto(f"{server.url}/days")
    page.get_by_text("Replay the last week").click()
    page.wait_for_selector("[data-testid=whose]:has-text('Plans of backoff3, a counting rule')")
    said = page.inner_text("[data-testid=whose]")
    assert "From Thursday 9 May 2024, 10:00 to Thursday 16 May 2024, 09:45;" in said
    assert "knowing nothing that came after" in said
    for name, (_, why) in unreadable.items():
        page.get_by_role("combobox", name="Whose plans", exact=True).click()
        page.get_by_role("option", name=f"run {name}", exact=True).click()
        page.wait_for_selector(f"[data-testid=unreadable]:has-text('{why}')")
        assert page.get_by_test_id("unreadable").inner_text().count("\n") == 0
        assert page.get_by_test_id("stException").count() == 0
        page.wait_for_selector("[data-testid=whose]", state="detached")
    assert page.locator("img[src='x'], strong:text-is('b')").count() == 0
    assert alerts == []


def many(path: Path, predictions: int = 100_000) -> Path:
    """A store with very many predictions, half of them rated, and as many opens."""
    import json

    fill(path, 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        row = connection.execute("SELECT * FROM predictions").fetchone()
        columns = [c[1] for c in connection.execute("PRAGMA table_info(predictions)")]
        steps = connection.execute("SELECT steps FROM moments").fetchone()[0]

        def copy(k: int) -> list[Any]:
            changed = {"id": k, "key": f"many-{k}", "t": START + 60.0 * k}
            return [changed.get(name, value) for name, value in zip(columns, row, strict=True)]

        marks = ",".join("?" * len(columns))
        numbers = range(2, predictions + 1)
        connection.executemany(f"INSERT INTO predictions VALUES ({marks})", map(copy, numbers))
        connection.executemany(
            "INSERT INTO moments (prediction_id, source, tz, synthetic, part, steps, teaches) "
            "VALUES (?, 'test', 'Europe/Berlin', 0, 'validation', ?, 0.5)",
            ((k, steps) for k in numbers),
        )
        connection.executemany(
            "INSERT INTO ratings (key, prediction_id, rater, thumbs, rated_at) VALUES (?, ?, 'me', ?, ?)",
            ((f"many-{k}", k, k % 3 > 0, START + k) for k in numbers if k % 2),
        )
        connection.executemany(
            "INSERT INTO events (timeline_id, t, target, kind) VALUES (1, ?, ?, 'app')",
            ((START + 1e6 + 60.0 * k, f"target {k * k % 307}") for k in range(predictions)),
        )
        assert json.loads(steps)
    return path


def test_pages_open_soon_with_100_000_predictions(
    browser: Any,
    start: Callable[..., Server],
    tmp_path: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    server = start(many(tmp_path / "a.db"))
    page = new_page(browser)
    there = {
        "": "[data-testid=card]",
        "days": "h3:has-text('What comes after what')",
        "votes": "text=Ratings as CSV",
        "policies": "[data-testid=why]",
        "train": "text=ratings that count",
        "privacy": "text=Take it along",
    }
    took: dict[str, float] = {}
    for turn in range(3):  # the first turn opens the file, reads the opens and imports what pages need
        for name, selector in there.items():
            if took.get(name, 99.0) < SECONDS and turn == 2:  # beside other tests one may be slow once
                continue
            began = time.perf_counter()
            if turn or not name:
                page.goto(f"{server.url}/{name}")
            else:
                turn_to(page, name)
            page.wait_for_selector(selector)
            if turn:
                took[name] = min(took.get(name, 99.0), time.perf_counter() - began)
    said = {k or "rate": round(v, 2) for k, v in took.items()}
    for name, seconds in said.items():
        record_testsuite_property(f"seconds to open {name}", seconds)  # into --junitxml
    print("seconds to open:", said)
    assert server.rows("SELECT COUNT(*) FROM predictions") == [(100_000,)]
    assert max(took.values()) < SECONDS, f"seconds to open, of {SECONDS:g} allowed: {said}"

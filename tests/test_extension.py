"""Live's extension in a real Chromium: what it says, to whom, and that nothing is lost or said twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from extension_in_browser import REBOUND, ROOT, TOKEN, Chromium, Live, Noting, Site, sites, until

from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import LiveLedger

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def play() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def four() -> Iterator[list[Site]]:
    made = list(sites(4, 0.0))
    yield made
    for site in made:
        site.stop()


@pytest.fixture
def browser(play: Any, chromium: str, tmp_path: Path) -> Iterator[Chromium]:
    made = Chromium(play, chromium, tmp_path)
    yield made
    made.close()


@pytest.fixture
def live() -> Iterator[Noting]:
    made = Noting()
    yield made
    made.stop()


def test_it_says_which_site_came_to_the_front_and_nothing_else(
    browser: Chromium, four: list[Site], live: Noting
) -> None:
    a, b, c, d = four
    browser.open(a.url)  # before there is a key nothing is noted
    assert browser.queue() == []
    browser.pair(live.port)
    first = browser.open(a.url + "private/path?q=searched#part")
    browser.open(b.url)
    until(lambda: live.sites == [a.name, b.name])
    first.goto(c.url)  # in a tab behind: nobody sees it
    browser.kill_worker()
    first.bring_to_front()
    until(lambda: live.sites == [a.name, b.name, c.name])

    # a private window leaves no trace
    browser.ask(f"await chrome.windows.create({{incognito: true, url: '{d.url}'}})")
    until(lambda: "/" in d.asked)
    browser.options.bring_to_front()
    first.bring_to_front()
    browser.alarm()
    until(lambda: not browser.queue())
    kept = str(browser.ask("[await chrome.storage.local.get(null), await chrome.storage.session.get(null)]"))
    assert d.name not in kept + str(live.visits)

    assert live.sites == [a.name, b.name, c.name]
    assert {k for v in live.visits for k in vars(v)} == {"id", "t", "site"}
    assert [v.t for v in live.visits] == sorted(v.t for v in live.visits)
    assert len({v.id for v in live.visits}) == len(live.visits)
    on_disk = str(browser.ask("await chrome.storage.local.get(null)"))
    assert "searched" not in on_disk
    assert "private/path" not in on_disk


def test_killed_and_the_server_gone_no_visit_is_lost_or_doubled(
    play: Any, chromium: str, tmp_path: Path, four: list[Site]
) -> None:
    """Against the real command, which is killed, too."""
    browser, live = Chromium(play, chromium, tmp_path), Live(tmp_path)
    ledger = tmp_path / "live.db"

    def opened() -> list[str]:
        with open_store(ledger) as store:
            return [r.event.target for r in LiveLedger(store, "me", "UTC").rows()]

    try:
        browser.pair(live.port)
        names = [site.name for site in four]
        for site in four[:2]:
            browser.open(site.url)
        until(lambda: opened() == names[:2])
        live.kill()
        browser.open(four[2].url)
        browser.kill_worker()
        browser.open(four[3].url)
        until(lambda: len([x for x in browser.queue() if x["site"]]) >= 2)
        browser.kill_worker()
        browser.open(four[0].url)
        until(lambda: len([x for x in browser.queue() if x["site"]]) >= 3)
        waiting = browser.queue()
        browser.kill_worker()
        live.start()
        browser.alarm()  # a server that was started later is found
        until(lambda: opened() == [*names, names[0]])
        until(lambda: not browser.queue())
        # what was told already, and is told again since the answer was lost
        browser.ask(f"await chrome.storage.local.set({{queue: {json.dumps(waiting)}}})")
        browser.alarm()
        until(lambda: not browser.queue())
        browser.open(four[1].url)
        until(lambda: opened() == [*names, names[0], names[1]])
        said = subprocess.run(
            [sys.executable, "-m", "rlmemo.live", "doctor", "--db", str(ledger), "--browser-port",
             str(live.port)],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert "ok   the browser's extension spoke" in said.stdout, said
    finally:
        live.stop()
        browser.close()


def test_without_the_token_nothing_is_taken_and_nothing_lost(
    browser: Chromium, four: list[Site], live: Noting
) -> None:
    browser.pair(live.port, "wrong-token-altogether")
    browser.open(four[0].url)
    until(lambda: browser.ask("(await chrome.storage.session.get('trouble')).trouble") == "token")
    browser.options.reload()
    browser.options.wait_for_selector("#standing:has-text('does not know this key')")
    assert live.visits == []
    browser.pair(live.port)
    until(lambda: live.sites == [four[0].name])
    browser.options.reload()
    browser.options.wait_for_selector("#standing:has-text('Paired; live records')")
    if os.environ.get("SCREENSHOT"):  # that of docs/live.md: SCREENSHOT=$PWD/docs/screenshots/extension.png
        browser.options.set_viewport_size({"width": 760, "height": 600})
        browser.options.screenshot(path=os.environ["SCREENSHOT"])


def test_whoever_took_the_port_is_told_nothing(browser: Chromium, four: list[Site]) -> None:
    """Another user's program, while live is away: it is given neither the token nor a visit."""
    heard: list[str] = []

    class Imposter(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            heard.append(f"{self.path} {self.headers} {body}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"proof": "00" * 32, "orders": [], "visits": []}).encode())

        def log_message(self, *_: Any) -> None: ...

    other = ThreadingHTTPServer(("127.0.0.1", 0), Imposter)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    browser.pair(other.server_port)
    browser.open(four[0].url)
    until(browser.queue)
    before = len(heard)
    browser.alarm()
    until(lambda: len(heard) > before)
    other.shutdown()
    other.server_close()
    assert all(x.startswith("/v1/hello") for x in heard)
    assert TOKEN not in str(heard)
    assert four[0].name not in str(heard)
    live = Noting(other.server_port)
    browser.alarm()
    until(lambda: live.sites == [four[0].name])
    live.stop()


SPEAK = """async ([address, token, mode]) => {
  try {
    const answer = await fetch(address, {method: "POST", mode, body: '{"visits": [], "reports": []}',
      headers: mode === "cors" ? {Authorization: "Bearer " + token} : {}});
    return answer.type === "opaque" ? "opaque" : answer.status;
  } catch (error) { return "refused"; }
}"""


def test_no_page_can_speak_to_the_port(browser: Chromium, four: list[Site], live: Noting) -> None:
    """Even one that has the token."""
    port = live.port
    page = browser.open(four[0].url)
    for host in ("127.0.0.1", "localhost"):
        address = f"http://{host}:{port}/v1/browser"
        assert page.evaluate(SPEAK, [address, TOKEN, "cors"]) == "refused"
        assert page.evaluate(SPEAK, [address, TOKEN, "no-cors"]) in ("opaque", "refused")
    # a name elsewhere that resolves here: same origin as the port, so nothing but the door is in the way
    there = f"http://{REBOUND}:{port}"
    page = browser.context.new_page()
    assert page.goto(f"{there}/").status == 403
    assert page.evaluate(SPEAK, [f"{there}/v1/browser", TOKEN, "cors"]) == 403
    assert live.desk.heard_at == 0.0
    browser.pair(port)
    until(lambda: live.desk.heard_at)  # while the extension is let in

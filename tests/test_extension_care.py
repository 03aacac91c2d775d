"""What live's extension must never do, in a real Chromium: tell a stranger on the port, close a tab that
somebody uses, show a page that did not load, load what only a link led to."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from extension_in_browser import TOKEN, Chromium, Noting, Site, sites, until
from fake_watch import FakeServer, T, W

from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.browser_desk import BothReader, BrowserDesk, BrowserReader, Visit
from rlmemo.live.browser_port import proof

pytestmark = pytest.mark.browser
NOW = "chrome.alarms.create('now', { when: Date.now() })"


@pytest.fixture(scope="module")
def play() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def three() -> Iterator[list[Site]]:
    made = list(sites(3, 0.0))
    yield made
    for site in made:
        site.stop()


@pytest.fixture
def fake_server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def browser(play: Any, chromium: str, tmp_path: Path) -> Iterator[Chromium]:
    made = Chromium(play, chromium, tmp_path, hosts=True)
    yield made
    made.close()


@pytest.fixture
def live(browser: Chromium) -> Iterator[Noting]:
    made = Noting()
    browser.pair(made.port)
    yield made
    made.stop()


class Stranger:
    """Somebody who listens on a port while live does not, and answers what it likes. heard: all that it was
    told. It has whatever proof a live on another port gives."""

    def __init__(self, port: int) -> None:
        stranger = self
        self.heard: list[str] = []

        class Asked(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                stranger.heard.append(f"{self.path} {self.headers} {body}")
                nonce = json.loads(body).get("nonce")
                told = {"proof": proof(TOKEN, port + 1, nonce) if nonce else "", "orders": []}
                said = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Asked)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_stranger_on_the_port_is_told_neither_the_token_nor_a_site(
    browser: Chromium, live: Noting, three: list[Site]
) -> None:
    live.stop()
    time.sleep(2.0)  # what was under way to the one who had proved itself is over
    stranger = Stranger(live.port)
    try:
        browser.open(three[0].url)
        browser.open(three[1].url)
        until(lambda: stranger.heard)
        until(lambda: len(browser.queue()) >= 2)
    finally:
        stranger.stop()
    told = "\n".join(stranger.heard)
    assert TOKEN not in told
    assert three[0].name not in told
    assert three[1].name not in told
    assert {x.split()[0] for x in stranger.heard} == {"/v1/hello"}
    again = Noting(live.port)
    try:
        browser.open(three[2].url)
        until(lambda: again.sites == [x.name for x in three])  # kept for the one who knows the token
    finally:
        again.stop()


def test_a_proof_is_of_one_token_port_and_nonce() -> None:
    made = proof("a-token", 8651, "a-nonce-1")
    assert made == hmac.new(b"a-token", b"8651 a-nonce-1", hashlib.sha256).hexdigest()
    others = {proof("b-token", 8651, "a-nonce-1"), proof("a-token", 8652, "a-nonce-1")}
    assert made not in others | {proof("a-token", 8651, "a-nonce-2")}


def test_another_source_goes_on_where_each_was_left(fake_server: FakeServer) -> None:
    desk = BrowserDesk()
    fake_server.tell(W, 10.0, app="Mail")
    watch = BucketReader(fake_server, T)
    assert len(watch.read(look=True).rows) == 1
    visit = Visit("visit-000001", T + 20.0, "a.example")
    for made in (BrowserReader(desk), BothReader(BucketReader(fake_server, T), BrowserReader(desk))):
        made.place = dict(watch.place)
        given = threading.Thread(target=desk.hand_in, args=([visit], [], 5.0))  # told again: no answer came
        given.start()
        until(desk.handed)
        rows = made.read(look=True).rows
        made.kept(None)
        given.join()
        assert [r.t for r in rows] == ([T + 20.0] if isinstance(made, BrowserReader) else [])
        watch.place = dict(made.place)
    assert not watch.read(look=True).rows


def ordered(browser: Chromium, live: Noting, site: Site, front: Site, life_s: float = 60.0) -> str:
    """An order to load a site that was open before; its id, once it has been fetched."""
    browser.open(site.url).close()
    until(lambda: site.name in live.sites)
    order = live.desk.order("load", site.name, time.time() + life_s)
    browser.open(front.url)
    until(lambda: order in live.reports)
    return order


def test_a_warmed_tab_that_somebody_looked_at_stays_and_another_goes(
    browser: Chromium, live: Noting, three: list[Site]
) -> None:
    a, b, c = three
    seen, unseen = ordered(browser, live, a, c, 4.0), ordered(browser, live, b, c, 4.0)
    (tab,) = [x for x in browser.tabs() if x["url"] == a.url]
    browser.ask(f"await chrome.tabs.update({tab['id']}, {{ active: true }})")  # a click on the tab
    until(lambda: live.reports[seen].get("used") == "tab")
    front = next(x for x in browser.context.pages if x.url == a.url)
    front.fill("#field", "typed by somebody")
    browser.open(c.url)
    time.sleep(4.0)
    browser.ask(NOW)
    until(lambda: b.url not in [x["url"] for x in browser.tabs()])
    live.stop()
    browser.ask(NOW)
    time.sleep(1.0)
    assert front.input_value("#field") == "typed by somebody"
    assert not next(x for x in browser.tabs() if x["url"] == a.url)["mutedInfo"]["muted"]
    assert "used" not in live.reports[unseen]


def test_what_did_not_load_is_said_and_takes_over_nothing(
    browser: Chromium, live: Noting, three: list[Site]
) -> None:
    gone = Site(0.0)
    browser.open(gone.url).close()
    until(lambda: gone.name in live.sites)
    gone.stop()
    order = live.desk.order("load", gone.name, time.time() + 60.0)
    browser.open(three[0].url)
    until(lambda: "failed" in live.reports.get(order, {}))
    assert live.reports[order]["failed"] == "net::ERR_CONNECTION_REFUSED"
    assert gone.url not in [x["url"] for x in browser.tabs()]


def test_what_only_a_link_led_to_is_not_loaded(browser: Chromium, live: Noting, three: list[Site]) -> None:
    a, b, c = three
    page = browser.open(a.url)
    for path in ("logout", "cart?add=1"):
        page.evaluate(f"location.href = '{b.url}{path}'")
        page.wait_for_url(b.url + path)
    until(lambda: b.name in live.sites)
    page.close()
    b.asked.clear()
    order = live.desk.order("load", b.name, time.time() + 60.0)
    browser.open(c.url)
    until(lambda: "took_s" in live.reports.get(order, {}))
    assert "/" in b.asked
    assert "/logout" not in b.asked
    assert "/cart?add=1" not in b.asked


def test_an_editor_that_somebody_has_touched_stays(
    browser: Chromium, live: Noting, three: list[Site]
) -> None:
    a, _, c = three
    page = browser.open(a.url)
    page.evaluate("document.body.append(Object.assign(document.createElement('div'), { id: 'e' }))")
    page.evaluate("document.querySelector('#e').outerHTML = '<div id=e contenteditable>x</div>'")
    page.click("#e")
    page.evaluate("document.querySelector('#e').textContent = ''")  # what it holds, it draws elsewhere
    order = live.desk.order("let go", a.name)
    browser.open(c.url)
    until(lambda: order in live.reports)
    assert live.reports[order].get("input") == 1
    assert live.reports[order]["discarded"] == 0

"""The dashboard's door: nothing without the token, and nothing to a page or a name from elsewhere."""

from __future__ import annotations

import http.client
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import PAGES, ROOT, Server, any_port, new_page, shown
from predictions_to_rate import fill

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# Everything that Streamlit serves, and what it does not know.
PATHS = (
    "/", "/days", "/privacy", "/index.html", "/static/js/x.js", "/favicon.png", "/manifest.json",
    "/_stcore/health", "/healthz", "/_stcore/host-config", "/_stcore/metrics", "/_stcore/script-health-check",
    "/media/x.png", "/component/x/index.html", "/_stcore/bidi-components/x", "/_stcore/upload_file/a/b",
    "/_stcore/stream", "/_stcore/agent/mcp", "/auth/login", "/oauth2callback", "/app/static/x",
    "/nowhere", "//etc/passwd",
)  # fmt: skip


def ask(
    server: Server, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    """One raw request; a header's underscores are dashes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    text = "" if answer.status == 101 else answer.read().decode("utf-8", "replace")
    connection.close()
    return answer, text


def pass_of(server: Server) -> str:
    (cookie,) = server.cookies
    return f"{cookie['name']}={cookie['value']}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("door")
    running = Server(fill(folder / "a.db"), folder, anew=True)
    yield running
    running.stop()


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_token(server: Server, path: str) -> None:
    wrong = (
        {},
        {"Cookie": f"{server.cookies[0]['name']}=x"},
        {"Cookie": pass_of(server).replace(str(server.port), "8501")},
    )
    for headers in wrong:
        answer, text = ask(server, path, **headers)
        assert answer.status == 403
        assert "python -m dashboard" in text
        assert "streamlit" not in text.lower()
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, path, method)[0].status == 403


def test_the_token_lets_in_and_leaves_the_address(server: Server) -> None:
    found = re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=([\w-]{43})", server.entrance)
    assert found is not None
    token = found[1]
    answer, _ = ask(server, f"/days?a=1&token={token}&b=%26")
    assert answer.status == 303
    assert answer.headers["Location"] == "/days?a=1&b=%26"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert str(server.port) in cookie.partition("=")[0]  # cookies know no ports
    assert token not in cookie
    assert ask(server, "/", Cookie=cookie.partition(";")[0])[0].status == 200
    # Who is in already loses it from the address, too; it never leads elsewhere.
    answer, _ = ask(server, f"//evil.example/x?token={token}", Cookie=pass_of(server))
    assert (answer.status, answer.headers["Location"]) == (303, "/evil.example/x")


@pytest.mark.parametrize("given", ["", "x", "x" * 43, "é"])
def test_a_wrong_token_is_answered_slowly(server: Server, given: str) -> None:
    from urllib.parse import quote

    began = time.monotonic()
    answer, text = ask(server, f"/?token={quote(given)}")
    assert answer.status == 403
    assert answer.headers["Set-Cookie"] is None
    assert not given or time.monotonic() - began > 0.9
    assert "Come in" in text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example:{port}",
     "10.0.0.1", "a@127.0.0.1:{port}", "127.0.0.1:x", "", "[::2]:{port}", "localhost:{port}/"],
)  # fmt: skip
def test_another_name_gets_nothing(server: Server, host: str) -> None:
    """DNS rebinding: the browser says the attacker's name, though the address is this machine's."""
    host = host.format(port=server.port)
    for path in (
        "/",
        "/_stcore/health",
        "/static/js/x.js",
        server.entrance.rpartition("/")[2].join(("/", "")),
    ):
        answer, _ = ask(server, path, Host=host, Cookie=pass_of(server))
        assert answer.status in (400, 403)
        assert answer.headers["Set-Cookie"] is None
    answer, _ = ask(
        server, "/_stcore/stream", Host=host, Origin=f"http://{host}", Cookie=pass_of(server), **UPGRADE
    )
    assert answer.status in (400, 403)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_its_own_names_do(server: Server, name: str) -> None:
    host = f"{name}:{server.port}"
    assert ask(server, "/", Host=host, Cookie=pass_of(server))[0].status == 200
    answer, _ = ask(
        server, "/_stcore/stream", Host=host, Origin=f"http://{host}", Cookie=pass_of(server), **UPGRADE
    )
    assert answer.status == 101


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://localhost:9999", "http://127.0.0.1:9999", "http://127.0.0.1", "http://evil.example",
     "http://localhost:{port}", "ftp://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example", ""],
)  # fmt: skip
def test_only_its_own_pages_speak_to_it(server: Server, origin: str | None) -> None:
    own = f"http://127.0.0.1:{server.port}"
    said = {} if origin is None else {"Origin": origin.format(port=server.port)}
    kept = {"Cookie": pass_of(server), **UPGRADE}
    assert ask(server, "/_stcore/stream", Origin=own, **kept)[0].status == 101
    assert ask(server, "/_stcore/stream", Origin=own, **UPGRADE)[0].status == 403
    assert ask(server, "/_stcore/stream", **said, **kept)[0].status == 403
    if origin:
        for method in ("POST", "PUT", "DELETE"):
            answer, text = ask(server, "/_stcore/upload_file/a/b", method, Cookie=pass_of(server), **said)
            assert (answer.status, "elsewhere" in text) == (403, True)


@pytest.mark.parametrize("path", ["/", "/days", "/_stcore/health", "/nowhere", "/static/js/x.js"])
def test_no_frame_holds_it(server: Server, path: str) -> None:
    for headers in ({}, {"Cookie": pass_of(server)}):
        answer, _ = ask(server, path, **headers)
        assert "frame-ancestors 'none'" in ", ".join(answer.headers.get_all("Content-Security-Policy") or ())
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] in ("no-referrer", "same-origin")


def test_the_form_takes_it(server: Server) -> None:
    token = server.entrance.partition("token=")[2]
    form = {"Content_Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{server.port}"}
    answer, _ = ask(server, "/days", "POST", f"token={token}", **form)
    assert (answer.status, answer.headers["Location"]) == (303, "/days")
    assert SimpleCookie(answer.headers["Set-Cookie"])
    assert ask(server, "/days", "POST", "token=x", **form)[0].status == 403
    assert ask(server, "/days", "POST", "x" * 9000 + f"&token={token}", **form)[0].status == 403


def test_the_token_is_seen_by_nobody_else(server: Server) -> None:
    token = server.entrance.partition("token=")[2]
    assert token
    ask(server, f"/_stcore/stream?token={token}", Origin="http://evil.example", **UPGRADE)
    ask(server, f"/nowhere?token={token}")
    log = Path(server.log.name).read_text()
    assert log.count(token) == 1  # the address that was printed
    for name in ("cmdline", "environ"):
        assert token.encode() not in Path(f"/proc/{server.process.pid}/{name}").read_bytes()
    for path in Path(server.log.name).parent.rglob("*"):
        assert path.name == "log" or not path.is_file() or token.encode() not in path.read_bytes()


@pytest.mark.browser
def test_the_printed_address_opens_it_in_a_browser(browser: Any, server: Server, tmp_path: Path) -> None:
    page = new_page(browser, stranger=True)
    for name in PAGES:
        page.goto(f"{server.url}/{name}")
        page.wait_for_selector("text=Come in")
        assert page.get_by_test_id("card").count() == 0
        assert "ada" not in page.inner_text("body")
    # A file beside it sends the browser there, as the dashboard itself does: its cookie is a strict one.
    opener = tmp_path / "open.html"
    opener.write_text(f'<meta http-equiv="refresh" content="0;url={server.entrance}">')
    page.goto(opener.as_uri())
    page.get_by_test_id("card").wait_for()
    assert page.url == f"{server.url}/"
    assert shown(page) > 0
    assert "token" not in page.evaluate("document.referrer + document.cookie + location.href")
    # A page of another port cannot frame it.
    page.goto(f"{server.url}/days")
    page.wait_for_selector("h1:has-text('My days')")
    other = http.client.HTTPConnection("127.0.0.1", server.port)
    other.close()
    page.route("http://127.0.0.1:9/", lambda r: r.fulfill(
        body=f'<iframe src="{server.url}/"></iframe>', content_type="text/html"))  # fmt: skip
    page.goto("http://127.0.0.1:9/")
    page.wait_for_timeout(3000)
    assert all("rlmemo" not in frame.title() for frame in page.frames[1:])


@pytest.mark.browser
def test_elsewhere_the_given_token_comes_first(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    token = "correct horse battery"
    server = start(fill(tmp_path / "a.db"), address="0.0.0.0", token=token, anew=True)
    assert "correct" not in Path(server.log.name).read_text()
    page = new_page(browser)
    for name in ("", "privacy"):  # the others: above
        page.goto(f"{server.url}/{name}")
        page.wait_for_selector("text=Come in")
    page.locator("input[type=password]").fill("a wrong token, long enough")
    page.get_by_role("button", name="Come in").click()
    page.wait_for_selector("text=That is not the token")
    assert page.get_by_test_id("card").count() == 0
    page.locator("input[type=password]").fill(token)
    page.get_by_role("button", name="Come in").click()
    page.wait_for_selector("h1:has-text('Data and privacy')")
    # This browser is let in, and no other.
    other = new_page(browser)
    other.goto(server.url)
    other.wait_for_selector("text=Come in")
    for host in ("memo.example", f"memo.example:{server.port}"):
        assert ask(server, f"/?token={token.replace(' ', '+')}", Host=host)[0].status == 403
    assert ask(server, f"/?token={token.replace(' ', '+')}", Host="10.1.2.3")[0].status == 303


def test_a_proxys_name_can_be_given(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(tmp_path / "none.db", options=["--host", "Memo.example"])
    kept = {"Cookie": pass_of(server), "Host": "memo.example"}
    assert ask(server, "/", **kept)[0].status == 200
    assert ask(server, "/", Cookie=pass_of(server), Host="other.example")[0].status == 403
    answer, _ = ask(server, "/_stcore/stream", Origin="https://memo.example", **kept, **UPGRADE)
    assert answer.status == 101  # TLS ends at the proxy


def test_a_browser_is_opened_where_there_is_one(tmp_path: Path) -> None:
    """The address with the token stands in a file that only its owner reads, as command lines are public."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/opened\n')
    browser.chmod(0o755)
    (tmp_path / "my data").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "--db", str(tmp_path / "my data" / "a.db"),
         "--port", str(any_port())],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DISPLAY": ":9", "BROWSER": str(browser)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        printed = process.stdout.readline().split()[1]
        for _ in range(300):
            if (tmp_path / "opened").exists():
                break
            time.sleep(0.1)
        (file,) = (tmp_path / "my data").glob("rlmemo-open-*.html")
        assert (tmp_path / "opened").read_text().strip() == file.as_uri()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"url={printed}" in file.read_text()
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert not list((tmp_path / "my data").iterdir())  # and it is gone at the end

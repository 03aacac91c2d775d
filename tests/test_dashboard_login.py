"""Logging in through OpenID Connect: a real provider in small, a real browser, and who may not come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import Server, new_page, vote
from oidc_provider import CLIENT, SECRET, Provider
from predictions_to_rate import fill

from dashboard.login import read_login
from env.errors import InputError

FILE = """
[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{cookie}"
client_id = "{client}"
client_secret = "{secret}"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[rlmemo]
emails = {emails}
"""


def written(path: Path, provider: str = "http://127.0.0.1:1", **changed: str) -> Path:
    values = {"cookie": "c" * 32, "client": CLIENT, "secret": SECRET, "emails": '["Ada@Example.org"]'}
    path.write_text(FILE.format(provider=provider, **{**values, **changed}))
    return path


def test_the_file_says_who_may_come_in(tmp_path: Path) -> None:
    login = read_login(written(tmp_path / "login.toml"))
    assert login.providers == ()
    assert login.host == "127.0.0.1"
    ada = {"is_logged_in": True, "email": "ada@example.org"}
    assert login.admits(ada)
    assert login.admits({**ada, "email": "ADA@example.org", "email_verified": True})
    assert not login.admits({**ada, "email_verified": False})
    assert not login.admits({**ada, "is_logged_in": False})
    assert not login.admits({**ada, "email": "ada@example.org.evil"})
    assert not login.admits({"is_logged_in": True})
    assert not login.admits({})
    everybody = read_login(written(tmp_path / "any.toml", emails='["*"]'))
    assert everybody.admits({"is_logged_in": True})
    assert not everybody.admits({"email": "ada@example.org"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"emails": "[]"}, "nobody may come in"),
        ({"emails": "[1]"}, "nobody may come in"),
        ({"cookie": "short"}, "cookie_secret"),
        ({"provider": ""}, "lacks server_metadata_url"),
    ],
)
def test_a_file_that_would_let_anybody_in_is_refused(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    path = written(tmp_path / "login.toml", **change)
    if "provider" in change:
        path.write_text(path.read_text().replace("server_metadata_url", "elsewhere"))
    with pytest.raises(InputError, match=said):
        read_login(path)


def test_it_starts_elsewhere_with_a_login_and_not_without(cli: Callable[..., Any], tmp_path: Path) -> None:
    for text, said in (("", "no section"), ("[auth", "no TOML"), ('[auth]\nclient_id = "x"', "redirect_uri")):
        (tmp_path / "login.toml").write_text(text)
        done = cli("dashboard", "--address", "0.0.0.0", "--login", str(tmp_path / "login.toml"))
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    done = cli("dashboard", "--address", "0.0.0.0", "--login", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider({"email": "ada@example.org", "email_verified": True})
    yield running
    running.stop()


@pytest.mark.browser
@pytest.mark.slow
def test_who_is_listed_comes_in_and_nobody_else(
    browser: Any, start: Callable[..., Server], tmp_path: Path, provider: Provider
) -> None:
    file = written(tmp_path / "login.toml", provider.url)
    server = start(fill(tmp_path / "a.db"), address="0.0.0.0", options=["--login", str(file)])
    page = new_page(browser)
    for name in ("", "privacy"):  # it is asked before any page
        page.goto(f"{server.url}/{name}")
        page.get_by_role("button", name="Log in").wait_for()
        assert page.get_by_test_id("card").count() == 0
        assert "ada" not in page.inner_text("body")
    assert provider.asked == []
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("[data-testid=card], h1:has-text('Data and privacy')")
    assert {"/authorize", "/token", "/keys"} <= set(provider.asked)
    page.goto(server.url)
    voted = vote(page, 0, key=False)
    assert server.rows("SELECT prediction_id, rater, thumbs FROM ratings") == [(voted, "ada@example.org", 0)]

    # Somebody else has an account there too, and a cookie that was made up is none.
    provider.claims = {"email": "eve@example.org", "email_verified": True}
    other = new_page(browser)
    other.goto(server.url)
    other.get_by_role("button", name="Log in").click()
    other.wait_for_selector("text=eve@example.org may not come in here")
    assert other.get_by_test_id("card").count() == 0
    forger = new_page(browser)
    forger.context.add_cookies(
        [{"name": "_streamlit_user", "value": '{"email":"ada@example.org","is_logged_in":true}',
          "url": server.url}]
    )  # fmt: skip
    forger.goto(server.url)
    forger.get_by_role("button", name="Log in").wait_for()
    assert forger.get_by_test_id("card").count() == 0

    # Who logs out is out.
    page.goto(f"{server.url}/privacy")
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Log in").wait_for()

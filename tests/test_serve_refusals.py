"""Requests that are refused, answered in this process: in one line, and nothing is left of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from env.errors import InputError
from rlmemo.live.lock import OneRecorder
from rlmemo.live.mind import Minding
from rlmemo.policies.registry import setup
from rlmemo.serve.people import People
from rlmemo.store.database import open_store

MEMORY = 1600.0


def answers(folder: Path, *asked: tuple[str, str, dict[str, Any]]) -> list[tuple[int, Any]]:
    """What requests are answered, (method, path, what else is sent), one after the other in this process."""
    from starlette.testclient import TestClient

    from rlmemo.serve.app import make_app

    made, token = setup("markov1"), "t" * 20
    with open_store(folder / "here.db") as store:
        people = People(store, lambda *x: Minding(made, x[0], x[1], MEMORY, "test"))
        client = TestClient(make_app(people, {}, token=token, hosts=["testserver"]))
        found = []
        for method, path, sent in asked:
            headers = {"Authorization": f"Bearer {token}"} | sent.get("headers", {})
            answer = client.request(method, path, **{**sent, "headers": headers})
            found.append((answer.status_code, answer.json()))
    return found


def test_a_body_is_json_whatever_it_is_called(tmp_path: Path) -> None:
    """As curl sends it, and without a word; a page's form is refused by its origin, also with the token."""
    path, good = "/v1/people/a/events", b'{"tz":"UTC","events":[{"id":"1","t":1.7e9,"target":"Mail"}]}'

    def post(body: bytes, **headers: str) -> tuple[str, str, Any]:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return "POST", path, {"content": body, "headers": named}

    form, plain = "application/x-www-form-urlencoded", "text/plain"
    sites = [post(good, Content_Type=x, Origin="https://evil.example") for x in (form, plain)]
    sites += [post(good, Content_Type=form, Sec_Fetch_Site="cross-site")]
    assert [x[0] for x in answers(tmp_path, *sites, ("GET", "/v1/people/a", {}))] == [403, 403, 403, 200]
    told = answers(tmp_path, post(good, Content_Type=form), post(good, Content_Type=plain), post(good))
    assert [(x[0], x[1]["events"], x[1]["new"]) for x in told] == [(200, 1, 1), (200, 1, 0), (200, 1, 0)]
    for body, said in (
        (b"{bad", "the body is no JSON (at character 1)"), (b"\xff{", "the body is no JSON in UTF-8"),
        (b"", "the body is empty"), (b"[1]", "the body: is no object"),
        (b'{"tz": "UTC", "events": [3]}', "events.0: is no object"),
    ):  # fmt: skip
        ((status, answer),) = answers(tmp_path, post(body, Content_Type=form))
        assert (status, answer["error"].startswith(said)) == (422, True), answer


def test_what_the_docs_send_with_curl_is_answered(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"-d '(.*)'", text)
    address = r"(/v1/people/\w+/events)\n"
    (path,) = re.findall(rf"http://127\.0\.0\.1:8650{address}", text)
    ((status, answer),) = answers(tmp_path, ("POST", path, {"content": body.encode()}))
    assert (status, answer["events"], answer["plan"]["policy"]) == (200, 2, "markov1")


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """No time zone, and nobody who is known: what is right afterwards is taken."""
    path, thumb = "/v1/people/a", {"hour": 9, "up": False, "targets": ["Mail"]}
    first, second = ({"id": x, "t": 1.7e9 + k, "target": "Mail"} for k, x in enumerate("ab"))

    def post(*events: Any, tz: str = "Europe/Berlin", **more: Any) -> tuple[str, str, Any]:
        return "POST", f"{path}/events", {"json": {"tz": tz, "events": list(events), **more}}

    def put(*thumbs: Any) -> tuple[str, str, Any]:
        return "PUT", f"{path}/thumbs", {"json": {"tz": "Europe/Berlin", "thumbs": list(thumbs)}}

    refused = [
        post(first, second), post(first, first), post(second, first),
        post({**first, "target": "https://a.example/x", "kind": "page"}), post(first, tz="Nowhere"),
        post(first, after={"events": 3, "digest": "x"}), put({**thumb, "hour": 99}),
    ]  # fmt: skip
    told = answers(tmp_path, *refused, ("GET", path, {}))
    assert [x[0] for x in told] == [422, 409, 409, 422, 422, 409, 422, 200]
    assert told[-1][1] == {"events": 0, "digest": "", "thumbs": "", "tz": None}
    with open_store(tmp_path / "here.db") as store:
        assert store.timelines() == []
    told = answers(tmp_path, post(first, tz="America/New_York"), put(thumb), ("GET", path, {}))
    assert [x[0] for x in told] == [200, 409, 200]
    assert (told[-1][1]["events"], told[-1][1]["thumbs"], told[-1][1]["tz"]) == (1, "", "America/New_York")


def test_who_comes_second_hears_that_live_or_a_server_is_there(tmp_path: Path) -> None:
    held = OneRecorder(tmp_path / "a.db")
    with pytest.raises(InputError, match=rf"\(live or serve, process {os.getpid()}\); stop it, or name ano"):
        OneRecorder(tmp_path / "a.db")
    held.close()

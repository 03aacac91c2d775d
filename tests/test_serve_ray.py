"""Replicas on Ray behind one door: the answers of one process, whoever is killed or drained meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.many_people import people
from rlmemo.policies.registry import to_follow
from rlmemo.serve.minds import maker
from rlmemo.serve.people import People
from rlmemo.store.database import open_store
from tests.test_serve import Served

pytestmark = [pytest.mark.ray, pytest.mark.slow]
OPENS = 48
THUMB = {"hour": 9, "up": False, "hit": None, "targets": ["target0", "target1"]}
DONE = {"policy": "base", "policy_version": "1", "prewarms": [{"target": "target0", "delay_s": 0.0}],
        "let_go": ["target1"]}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'rlmemo[ray]')")
    made = Served(
        tmp_path_factory.mktemp("many"), "base", "--ray", "local", "--replicas", "2", "--most-waiting", "96"
    )
    yield made
    made.process.send_signal(signal.SIGINT)
    made.process.wait(60)


def replicas(served: Served) -> list[dict[str, Any]]:
    status, told = served.ask("GET", "/v1/replicas", token=served.token)
    assert status == 200
    found: list[dict[str, Any]] = told["replicas"]
    return found


def all_up(served: Served, within: float = 60.0) -> list[dict[str, Any]]:
    until = time.monotonic() + within
    found = replicas(served)
    while any(x["state"] != "up" for x in found):
        assert time.monotonic() < until, found
        time.sleep(0.2)
        found = replicas(served)
    return found


def requests_of(seed: int) -> dict[str, list[tuple[str, str, Any]]]:
    """What some people send, request by request: events one by one and many at once, thumbs, and what their
    device planned itself meanwhile."""
    made = {}
    for number, person in enumerate(people(6, OPENS, seed)):
        events = [
            {"id": f"{k}", "t": round(e.t, 3), "target": e.target, "kind": e.kind}
            for k, e in enumerate(person)
        ]
        for k in range(number, len(events), 11):
            events[k]["done"] = DONE
        path, sent = f"/v1/people/p{seed}-{number}", []
        cuts = [*range(0, 20, 1 + number % 3), 20, 21, 38, 39, *range(40, len(events) + 1)]
        for first, last in pairwise(cuts):
            if last > first:
                sent.append(("POST", f"{path}/events", {"tz": "UTC", "events": events[first:last]}))
            if first == 20 and number % 2:
                sent.append(("PUT", f"{path}/thumbs", {"tz": "UTC", "thumbs": [THUMB] * 3}))
        made[path] = [*sent, ("GET", path, None)]
    return made


def told(answer: Any) -> Any:
    """An answer without when it was made and how long that took."""
    if not answer.get("plan"):
        return answer
    plan = {k: v for k, v in answer["plan"].items() if k not in ("made_at", "took_s")}
    return {**answer, "plan": plan}


def alone(asked: dict[str, list[tuple[str, str, Any]]], db: Path) -> dict[str, list[Any]]:
    """What one process answers, without HTTP."""
    from starlette.testclient import TestClient

    from rlmemo.serve.app import make_app

    found: dict[str, list[Any]] = {}
    with open_store(db) as store:
        people_ = People(store, maker(to_follow("base"), "shipped", None), 100)
        client = TestClient(make_app(people_, {}, token="t" * 20, hosts=["testserver"]))
        for path, sent in asked.items():
            for method, where, body in sent:
                got = client.request(
                    method, where, json=body, headers={"Authorization": f"Bearer {'t' * 20}"}
                )
                assert got.status_code == 200, got.text
                found.setdefault(path, []).append(told(got.json()))
    return found


def together(
    served: Served, asked: dict[str, list[tuple[str, str, Any]]], at: dict[int, Callable[[], None]]
) -> dict[str, list[Any]]:
    """What is answered to all of them at once. at: what happens after so many answers."""
    count, lock = 0, threading.Lock()

    def person(path: str) -> list[Any]:
        nonlocal count
        found = []
        for method, where, body in asked[path]:
            batch = {"Priority": "u=7"} if len((body or {}).get("events", ())) > 10 else {}
            status, answer = served.ask(method, where, body, token=served.token, **batch)
            assert status == 200, answer
            found.append(told(answer))
            with lock:
                count += 1
                then = at.get(count)
            if then is not None:
                then()
        return found

    with ThreadPoolExecutor(len(asked)) as pool:
        return dict(zip(asked, pool.map(person, asked), strict=True))


def test_the_answers_are_those_of_one_process_whoever_is_killed_or_drained(
    served: Served, tmp_path: Path
) -> None:
    asked = requests_of(1)
    first = all_up(served)
    drained: list[Any] = []

    def kill() -> None:
        os.kill(first[0]["pid"], signal.SIGKILL)

    def drain() -> None:
        all_up(served)
        drained.append(served.ask("POST", "/v1/replicas/1/drain", token=served.token))

    found = together(served, asked, {25: kill, 90: drain})
    expected = alone(asked, tmp_path / "alone.db")
    assert found == expected
    assert drained == [(200, {"drained": 1})]
    plans = [x["plan"] for y in found.values() for x in y if "plan" in x]
    assert sum(bool(x["prewarms"]) for x in plans) > 10
    assert sum(len(x["probabilities"]) > 2 for x in plans) > 90
    now = all_up(served)
    assert [x["ended"] for x in now] == [1, 1]
    assert not {x["pid"] for x in now} & {x["pid"] for x in first}
    status, stands = served.ask("GET", "/v1/replicas", token=served.token)
    assert (status, stands["retried"] <= len(asked)) == (200, True), "each of those under way, once"


def test_what_was_answered_is_kept_over_the_end_of_all_replicas(served: Served) -> None:
    path, event = "/v1/people/kept/events", {"id": "0", "t": 1.7e9, "target": "Mail"}
    assert served.ask("POST", path, {"tz": "UTC", "events": [event]}, token=served.token)[0] == 200
    for one in all_up(served):
        os.kill(one["pid"], signal.SIGKILL)
    more = {"id": "1", "t": 1.7e9 + 60, "target": "Chat"}
    status, answer = served.ask("POST", path, {"tz": "UTC", "events": [more]}, token=served.token)
    assert (status, answer["events"], answer["new"]) == (200, 2, 1)
    assert served.ask("DELETE", "/v1/people/kept", token=served.token) == (200, {"forgotten": 2})
    assert served.ask("POST", path, {"tz": "UTC", "events": [more]}, token=served.token)[1]["events"] == 1


def test_too_many_are_told_to_come_again_and_batches_first(served: Served) -> None:
    """Nobody thinks for a while: a seventh batch is refused at once, the six are answered later."""
    stopped = [x["pid"] for x in all_up(served)]
    event = {"id": "0", "t": 1.7e9, "target": "Mail"}
    answers: list[int] = []

    def batch(name: str) -> None:
        body = {"tz": "UTC", "events": [event]}
        path = f"/v1/people/{name}/events"
        answers.append(served.ask("POST", path, body, token=served.token, Priority="u=7")[0])

    threads = [threading.Thread(target=batch, args=(f"busy{k}",)) for k in range(6)]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        for thread in threads:
            thread.start()
        until = time.monotonic() + 15
        while sum(x["asked"] for x in replicas(served)) < len(threads):
            assert time.monotonic() < until
            time.sleep(0.05)
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        more = {"Authorization": f"Bearer {served.token}", "Priority": "u=5"}
        connection.request("GET", "/v1/about", headers=more)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Retry-After")) == (503, "2")
        assert json.loads(answer.read())["error"].startswith("too many batches are under way here; send")
        connection.close()
        assert served.ask("GET", "/v1/about", token=served.token)[0] == 200, "who waits comes in"
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    for thread in threads:
        thread.join(60)
    assert answers == [200] * len(threads)


def test_nothing_listens_but_on_the_loopback_and_the_door_is_the_same(served: Served) -> None:
    ours = {served.process.pid, *(x.pid for x in psutil.Process(served.process.pid).children(recursive=True))}
    assert {x["pid"] for x in all_up(served)} <= ours
    open_to = {x.laddr.ip for x in psutil.net_connections("tcp") if x.status == "LISTEN" and x.pid in ours}
    assert {ip.removeprefix("::ffff:") for ip in open_to} <= {"127.0.0.1", "::1"}
    assert served.ask("GET", "/v1/replicas")[0] == 401
    assert served.ask("POST", "/v1/replicas/0/drain", token=served.token, Origin="http://a.example")[0] == 403
    assert served.ask("GET", "/v1/replicas", token=served.token, Host="evil.example")[0] == 403
    assert served.ask("POST", "/v1/replicas/7/drain", token=served.token)[0] == 409


def test_what_replicas_cannot_do_is_said_in_a_line(tmp_path: Path) -> None:
    for more, why in (
        (("--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: nothing answers there"),
        (("--replicas", "0"), "--replicas 0 is not accepted; give 1 to 256"),
    ):
        with pytest.raises(AssertionError, match=why):
            Served(tmp_path / "refused", "markov1", *more)

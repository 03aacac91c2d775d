"""Plans over HTTP: a real server in its own process, a device that asks it, and what the door keeps out."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fake_watch import FakeServer, T

from env.errors import InputError
from env.timeline import Event, Timeline
from rlmemo.live import __main__ as live_command
from rlmemo.live import elsewhere
from rlmemo.live import start as live_start
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.elsewhere import FarMinding, reach
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Mind, Minding
from rlmemo.policies.registry import setup, to_follow
from rlmemo.serve.__main__ import listening
from rlmemo.serve.client import Server
from rlmemo.serve.door import MOST_BYTES, SLOW_S
from rlmemo.serve.people import People, Person, Refused, SentEvent
from rlmemo.serve.secret import read_secret, secret_of
from rlmemo.serve.told import ToldMind
from rlmemo.store.database import open_store
from rlmemo.store.forgetting import forget_target
from rlmemo.store.live_ledger import NOT_YET, LiveLedger, Seen
from tests.test_live_loop import StillClock, one_day
from tests.test_live_mind import TZ, Said, a_person, offline
from tests.warm import here

MEMORY = 1600.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """`python -m rlmemo.serve` on a port that stays the same over its deaths."""

    def __init__(self, folder: Path, policy: str = "markov1", *more: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.policy, self.port, self.more = folder, policy, free_port(), more
        self.said = ""
        self.begin()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.folder / "serve.token").read_text().strip()

    def begin(self) -> None:
        self.process = here().start(
            "rlmemo.serve", "--policy", self.policy, "--port", str(self.port), "--db",
            str(self.folder / "serve.db"), *self.more, cwd=self.folder, env=os.environ,
        )  # fmt: skip
        until = time.monotonic() + 120.0
        while True:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/v1/health")[0] == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(self.process.communicate())
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        more = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        if token:
            more["Authorization"] = f"Bearer {token}"
        connection.request(method, path, sent, more)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    def kept(self, person: str) -> list[tuple[float, str, Any, Any]]:
        """Its ledger, read from the file: (time, target, prewarms, let go)."""
        with open_store(self.folder / "serve.db", make=False) as store:
            return [
                (r.event.t, r.event.target, [p.target for p in r.plan], list(r.let_go))
                for r in LiveLedger(store, person, TZ).rows()
            ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def begin(policy: str = "markov1", folder: str = "server") -> Served:
        made.append(Served(tmp_path / folder, policy))
        return made[-1]

    yield begin
    for one in made:
        one.kill()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was away is asked again at once."""
    monkeypatch.setattr(elsewhere, "RETRY_S", 0.0)


class Device:
    """A device with a recording of its own, which asks a server."""

    def __init__(self, server: Served, folder: Path, *, names: bool = False, user: str = "me") -> None:
        folder.mkdir(exist_ok=True)
        (folder / "serve.token").write_text(server.token)
        (folder / "serve.token").chmod(0o600)
        self.db, self.user, self.said = folder / "live.db", user, list[str]()
        args = Namespace(policy=server.address, threshold=None, names=names)
        self.reached = reach(args, self.db)

    def minding(self) -> FarMinding:
        made = self.reached.minding(Minding(self.reached.setup, self.user, TZ, MEMORY, "here"))
        given = {f.name: getattr(made, f.name) for f in fields(made)}
        return FarMinding(**given | {"say": self.said.append})

    @property
    def person(self) -> str:
        return self.reached.names().person(self.user)

    def opens(self, timeline: Timeline, before: Callable[[int], bool | None] = lambda k: None) -> Said:
        """The plans after each event, (prewarms, let go); `before` event k something may happen, and where it
        says True, the device begins anew."""
        with open_store(self.db) as store:
            ledger = LiveLedger(store, self.user, TZ)
            ledger.add([Seen(f"{k}", e) for k, e in enumerate(timeline)], at=0.0)
            mind = self.minding().mind()
            mind.restore([r for r in ledger.rows() if r.planned != NOT_YET])
            for k, row in enumerate(r for r in list(ledger.rows()) if r.planned == NOT_YET):
                if before(k):
                    mind = self.minding().mind()
                    mind.restore([r for r in ledger.rows() if r.planned != NOT_YET])
                thought = mind.think(row)
                assert ledger.decide(row, thought.plan, thought.record, thought.came, at=row.event.t)
            return [([p.target for p in r.plan], list(r.let_go)) for r in ledger.rows()]

    def policies(self) -> list[str]:
        """Who planned after each event."""
        with open_store(self.db) as store:
            return [r["policy"] for r in store.rows("SELECT policy FROM live_plans ORDER BY live_event_id")]

    def kept(self) -> list[tuple[float, str, Any, Any]]:
        """The device's ledger, in the words that the server has."""
        say = self.reached.names().target
        with open_store(self.db) as store:
            return [
                (r.event.t, say(r.event.target), [say(p.target) for p in r.plan], [say(x) for x in r.let_go])
                for r in LiveLedger(store, self.user, TZ).rows()
            ]


def planned(policy: str) -> Minding:
    return Minding(to_follow(policy), "me", TZ, MEMORY, "offline")


@pytest.mark.parametrize("policy", ["base", "markov1"])
def test_the_plans_are_those_of_offline_replay(
    policy: str, served: Callable[..., Served], tmp_path: Path
) -> None:
    """Of a recorded day of the demo's; and the server has not seen one of its names."""
    server, person = served(policy), a_person(150)
    device = Device(server, tmp_path / "device")
    found = device.opens(person)
    expected, _ = offline(person, planned(policy))
    n = len(person)
    assert [k for k in range(n - 1) if found[k] != expected[k]] == []
    assert sum(len(p) for p, _ in found) > 10
    assert (set(device.policies()), device.said) == ({policy}, [])
    assert server.kept(device.person) == device.kept()
    server.kill()
    wrote = b"".join(x.read_bytes() for x in server.folder.iterdir())
    assert [x for x in person.names if x.encode() in wrote] == []
    assert device.person.encode() in wrote


def test_names_are_sent_where_that_was_asked_for(served: Callable[..., Served], tmp_path: Path) -> None:
    server, person = served(), a_person(30)
    device = Device(server, tmp_path / "device", names=True)
    device.opens(person)
    assert [x[1] for x in server.kept(device.person)] == [e.target for e in person]


def test_killed_and_started_again_it_plans_the_same(served: Callable[..., Served], tmp_path: Path) -> None:
    server, person = served(), a_person(120)
    device = Device(server, tmp_path / "device")

    def before(k: int) -> bool:
        if k in (1, 40, 41, 90):
            server.kill()
            server.begin()
        return k in (30, 41, 70)  # the device's own program begins anew, too

    found = device.opens(person, before)
    expected, _ = offline(person, planned("markov1"))
    assert [k for k in range(len(person) - 1) if found[k] != expected[k]] == []
    assert set(device.policies()) == {"markov1"}
    assert server.kept(device.person) == device.kept()


@pytest.mark.usefixtures("impatient")
def test_killed_while_it_answers_nothing_is_lost_or_doubled(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    """The answer may be lost, and the plan be the base's then: the server takes over what was really done."""
    server, person = served(), a_person(120)
    device = Device(server, tmp_path / "device")
    died: list[int] = []

    def before(k: int) -> bool:
        if server.process.poll() is not None:
            died.append(k)
            server.begin()
        if k % 12 == 5:
            threading.Timer(0.0007 * (k // 12), server.process.kill).start()
        return k % 30 == 7

    device.opens(person, before)
    if server.process.poll() is not None:
        server.begin()
    with open_store(device.db) as store:
        mind = device.minding().mind()
        mind.restore(list(LiveLedger(store, "me", TZ).rows()))
        assert mind._asked() is not None
    assert len(died) >= 5
    assert server.kept(device.person) == device.kept()
    assert device.policies().count("markov1") > 90
    assert "base" in device.policies()


@pytest.mark.usefixtures("impatient")
def test_away_for_a_while_the_shipped_base_plans_and_the_server_is_told(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    server, person = served(), a_person(150)
    device, away = Device(server, tmp_path / "device"), range(50, 90)

    def before(k: int) -> bool:
        if k == away.start:
            server.kill()
        if k == away.stop:
            server.begin()
        return k == 70

    found = device.opens(person, before)
    policies = device.policies()
    assert policies == ["base" if k in away else "markov1" for k in range(len(person))]
    assert sum(len(found[k][0]) for k in away) > 3
    assert sum("nothing listens" in x for x in device.said) == 2  # said once by each of two processes
    assert device.said[-1] == f"{server.address} plans again"
    mind = ToldMind(planned("markov1"))
    with open_store(device.db) as store:
        ledger = LiveLedger(store, "me", TZ)
        for k, row in enumerate(ledger.rows()):
            told = ledger.plan_of(row.id) if k in away else None
            plan = mind.think(row, told).plan
            if k not in away:
                assert ([p.target for p in plan.plan], list(plan.let_go)) == found[k], k
    kept, done = server.kept(device.person), device.kept()
    assert kept == done


def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path, served: Callable[..., Served]) -> None:
    server, person = served(), a_person(12)
    device = Device(server, tmp_path / "device")
    os.kill(server.process.pid, signal.SIGSTOP)  # it takes connections, and answers nothing
    began = time.monotonic()
    device.opens(person)
    assert time.monotonic() - began < 15.0
    assert set(device.policies()) == {"base"}


def test_what_is_forgotten_here_is_forgotten_there(served: Callable[..., Served], tmp_path: Path) -> None:
    server, person = served(), a_person(60)
    device = Device(server, tmp_path / "device")
    device.opens(person)
    gone = person.names[0]
    with open_store(device.db) as store:
        forget_target(store, gone)
        ledger = LiveLedger(store, "me", TZ)
        rows = list(ledger.rows())
        mind = device.minding().mind()
        mind.restore(rows)
        assert mind._asked() is not None
    kept = server.kept(device.person)
    said = device.reached.names().target(gone)
    assert 0 < len(kept) < 60
    assert all(said not in (x[1], *x[2], *x[3]) for x in kept)
    server.kill()
    assert all(said.encode() not in x.read_bytes() for x in server.folder.iterdir())


def test_the_door_keeps_out(served: Callable[..., Served]) -> None:
    server = served()
    token = server.token
    asked = {"tz": "UTC", "events": [{"id": "1", "t": 1.7e9, "target": "Mail"}]}
    path = "/v1/people/a/events"
    assert server.ask("GET", "/v1/about", token=token)[1]["policy"] == "markov1"
    for wrong in (None, "x" * len(token), token[:-1], token + "x"):
        began = time.monotonic()
        status, said = server.ask("POST", path, asked, token=wrong)
        assert (status, "token" in said["error"]) == (401, True)
        assert time.monotonic() - began >= 0.9 * SLOW_S
    for name in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1.evil.example",
        "",
        "localhost@evil",
    ):
        assert server.ask("GET", "/v1/health", Host=name)[0] == 403
        assert server.ask("POST", path, asked, token=token, Host=name)[0] == 403
    for origin in ("http://evil.example", "null", server.address, "chrome-extension://abc"):
        assert server.ask("POST", path, asked, token=token, Origin=origin)[0] == 403
    assert server.ask("GET", "/v1/about", token=token, Sec_Fetch_Site="cross-site")[0] == 403
    assert server.ask("GET", "/v1/health", Host=f"localhost:{server.port}")[0] == 200
    assert server.ask("POST", path, b" " * (MOST_BYTES + 1), token=token)[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.suppress(OSError):
        connection.request("POST", path, iter([b" " * 65536] * 40), {"Authorization": f"Bearer {token}"},
                           encode_chunked=True)  # fmt: skip
    with contextlib.suppress(OSError):
        assert connection.getresponse().status == 413
    assert server.ask("GET", "/v1/people/a", token=token)[1]["events"] == 0
    assert server.ask("POST", path, asked, token=token)[0] == 200


def test_what_cannot_be_read_is_refused_in_one_line(served: Callable[..., Served]) -> None:
    server = served()
    path, good = "/v1/people/a/events", {"id": "1", "t": 1.7e9, "target": "Mail"}

    def post(*events: Any, path: str = path, **more: Any) -> tuple[int, Any]:
        return server.ask("POST", path, {"tz": "UTC", "events": list(events), **more}, token=server.token)

    bad: list[tuple[Any, str]] = [
        ({**good, "t": "x"}, "events.0.t"), ({**good, "t": -1.0}, "events.0.t"),
        ({**good, "kind": "door"}, "events.0.kind"), ({**good, "target": ""}, "events.0.target"),
        ({**good, "id": ""}, "events.0.id"), ({**good, "title": "SECRET"}, "events.0.title"),
        ({**good, "target": "https://a.example/SECRET?x", "kind": "page"}, "host"),
    ]  # fmt: skip
    for event, where in bad:
        status, said = post(event)
        assert (status, where in said["error"]) == (422, True), said
        assert "\n" not in said["error"]
        assert "SECRET" not in said["error"]
    assert post()[0] == 422
    assert post(good, path="/v1/people/../events")[0] in (404, 422)
    assert post(good, path="/v1/people/a%0ab/events")[0] == 422
    assert server.ask("POST", path, {"tz": "Nowhere", "events": [good]}, token=server.token)[0] == 422
    assert "is no JSON (at character 1)" in server.ask("POST", path, b"{bad", token=server.token)[1]["error"]
    assert server.ask("GET", "/v1/nothing", token=server.token) == (404, {"error": "not found"})
    assert server.ask("GET", "/v1/people/a", token=server.token)[1]["events"] == 0


def test_an_event_counts_once_and_out_of_order_is_refused(served: Callable[..., Served]) -> None:
    server = served()
    events = [
        {"id": f"e{k}", "t": 1.7e9 + 60 * k, "target": x}
        for k, x in enumerate(["Mail", "Chat", "Mail", "Web"])
    ]

    def post(*events: Any, **more: Any) -> tuple[int, Any]:
        return server.ask(
            "POST", "/v1/people/a/events", {"tz": "UTC", "events": list(events), **more}, token=server.token
        )

    first = post(*events[:3])[1]
    assert (first["new"], first["events"]) == (3, 3)
    again = post(*events[1:3])[1]
    assert (again["new"], again["events"], again["plan"]) == (0, 3, first["plan"])
    late = {**events[3], "t": 1.7e9 + 61}
    for wrong in (
        [late], [{**events[0], "id": "new"}], [events[3], events[2]], [{**events[2], "target": "Web"}],
        [events[0], events[2]], [events[3], events[3]], [events[0], events[3]],
    ):  # fmt: skip
        status, said = post(*wrong)
        assert status == 409, wrong
        assert said["error"]
    assert post({**events[2], "id": "same"})[0] in (409, 422)
    assert post(events[3], after={"events": 2, "digest": first["digest"]})[0] == 409
    assert server.ask("GET", "/v1/people/a", token=server.token)[1]["events"] == 3
    last = post(events[3], after={"events": 3, "digest": first["digest"]})[1]
    assert last["events"] == 4
    found = server.ask("GET", "/v1/people/a/plan?event=e3", token=server.token)
    assert found == (200, {"plan": last["plan"]})
    assert server.ask("GET", "/v1/people/a/plan?event=e9", token=server.token)[0] == 404
    assert server.ask("GET", "/v1/people/b/plan?event=e3", token=server.token)[0] == 404
    assert server.ask("DELETE", "/v1/people/a", token=server.token) == (200, {"forgotten": 4})
    assert server.ask("GET", "/v1/people/a", token=server.token)[1]["events"] == 0


def test_what_a_device_did_instead_takes_the_place_of_a_plan_whose_answer_was_lost(
    served: Callable[..., Served],
) -> None:
    server = served()
    turns = ["Mail", "Chat", "Mail", "Chat", "Mail"]
    events = [{"id": f"e{k}", "t": 1.7e9 + 60 * k, "target": x} for k, x in enumerate(turns)]
    prewarms = [{"target": "Chat", "delay_s": 0.0}]
    done = {"policy": "base", "policy_version": "1", "prewarms": prewarms, "let_go": []}

    def post(*events: Any) -> tuple[int, Any]:
        asked = {"tz": "UTC", "events": list(events)}
        return server.ask("POST", "/v1/people/a/events", asked, token=server.token)

    said = post(*events[:3])[1]["plan"]
    assert (said["policy"], said["prewarms"]) == ("markov1", [])  # what it would load is warm
    for _ in range(2):
        status, said = post({**events[2], "done": done})
        assert (status, said["new"], said["plan"]["policy"]) == (200, 0, "base")
        assert said["plan"]["prewarms"] == prewarms
    assert post({**events[2], "done": done}, events[3])[1]["events"] == 4
    assert post({**events[2], "done": {**done, "prewarms": []}}, events[3])[0] == 409
    found = server.ask("GET", "/v1/people/a/plan?event=e2", token=server.token)[1]["plan"]
    assert (found["policy"], found["prewarms"]) == ("base", prewarms)


def test_a_machine_that_was_switched_off_has_an_empty_memory_there_too(tmp_path: Path) -> None:
    made = setup("markov1")
    with open_store(tmp_path / "a.db") as store:
        person = Person(store, "a", TZ, MEMORY, lambda *x: Minding(made, x[0], x[1], MEMORY, "test"))
        turns = ["Mail", "Chat", "Mail"]
        person.take([SentEvent(f"{k}", Event(1.7e9 + 60 * k, x)) for k, x in enumerate(turns)])
        assert person._mind is not None
        assert set(person._mind.memory()) == {"Mail", "Chat"}
        with pytest.raises(Refused, match="off must lie"):
            person.take([SentEvent("3", Event(1.7e9 + 900, "Mail"), off=1.7e9)])
        person.take([SentEvent("3", Event(1.7e9 + 900, "Mail"), off=1.7e9 + 300)])
        assert "Mail" in person._mind.memory()
        assert [r.off for r in person.ledger.rows()][-1] == 1.7e9 + 300
        before = person._mind.world.records()[-1].tolist()
        assert person._mind.memory() == person._made().memory()
        assert before == person._made().world.records()[-1].tolist()


def test_people_side_by_side_have_their_own_state_and_memory_is_bounded(tmp_path: Path) -> None:
    made, events = setup("markov1"), list(a_person(60))
    shifts = {"a": 0, "b": 7, "c": 13, "d": 20}

    def make(user: str, tz: str, memory_mb: float | None) -> Minding:
        return Minding(made, user, tz, memory_mb or MEMORY, "test")

    def plans(db: str, turns: list[tuple[str, int]], most: int) -> dict[tuple[str, int], Any]:
        with open_store(tmp_path / db) as store:
            people, found = People(store, make, most), {}
            for name, k in turns:
                person = people.person(name, TZ, None)
                plan = person.take([SentEvent(f"{k}", events[shifts[name] + k])])
                assert plan is not None
                found[name, k] = [(p.target, p.delay_s) for p in plan.plan]
                assert len(people.held) <= most
            return found

    mixed = plans("mixed.db", [(name, k) for k in range(40) for name in shifts], 2)
    for name in shifts:
        alone = plans(f"{name}.db", [(name, k) for k in range(40)], 8)
        assert {at: x for at, x in mixed.items() if at[0] == name} == alone
    assert sum(map(len, mixed.values())) > 10


def test_live_goes_round_with_a_server(served: Callable[..., Served], tmp_path: Path) -> None:
    server = served()
    device = Device(server, tmp_path / "device")
    watch, clock = FakeServer(), StillClock()
    with open_store(device.db) as store:
        loop = Loop(
            LiveLedger(store, "me", TZ), BucketReader(watch, T - 1.0), device.minding(), None, clock, T - 1.0
        )
        for k in range(20):
            if k == 12:
                server.kill()
            one_day(watch, clock, k)
            loop.turn()
    assert device.policies() == ["markov1"] * 12 + ["base"] * 8


class NoLoop:
    """Goes round nowhere."""

    def run(self) -> None:
        pass

    def say(self, line: str) -> None:
        pass


def test_live_s_command_line_reads_the_address(
    served: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, db = served(), tmp_path / "live.db"
    monkeypatch.delenv("RLMEMO_SERVE_TOKEN", raising=False)
    parse = live_command.parser().parse_args

    minds: list[Minding] = []
    monkeypatch.setattr(
        live_start, "Loop", lambda _, __, minding, *___, **____: minds.append(minding) or NoLoop()
    )
    monkeypatch.setattr(live_start, "NOT_NEEDED", ())
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def minding(*given: str) -> Minding:
        """What `start` makes before it goes round."""
        live_start.start(parse(["start", "--db", str(db), "--policy", server.address, *given]))
        return minds[-1]

    with pytest.raises(InputError, match="its token is needed"):
        minding()
    monkeypatch.setenv("RLMEMO_SERVE_TOKEN", server.token)
    for given in (["--threshold", "0.1"], ["--budget", "4"]):
        with pytest.raises(InputError, match="the server's to say"):
            minding(*given)
    made = minding()
    assert isinstance(made, FarMinding)
    assert isinstance(made.mind(), Mind)
    assert (tmp_path / "device.salt").stat().st_mode & 0o077 == 0
    server.kill()
    assert isinstance(minding(), FarMinding)  # it is known by now
    (tmp_path / "other").mkdir()
    db = tmp_path / "other" / "live.db"
    with pytest.raises(InputError, match="at the first start it has to be there"):
        minding()
    assert list(db.parent.iterdir()) == []


def test_an_answer_is_not_left_to_nagle() -> None:
    """asyncio sends at once on sockets that name their protocol alone; else an answer takes 40 ms longer."""
    with listening("127.0.0.1", 0) as made:
        assert made.proto == socket.IPPROTO_TCP
        port = made.getsockname()[1]
        made.listen()
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1 port {port}"):
            listening("127.0.0.1", port)


def test_an_address_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLMEMO_SERVE_TOKEN", "t" * 32)
    for wrong in (
        "http://",
        "http://me:SECRET@host",
        "http://host/path",
        "http://host:x",
        "http://h?a=SECRET",
    ):
        with pytest.raises(InputError) as told:
            Server(wrong, tmp_path)
        assert "SECRET" not in str(told.value)
    assert "unencrypted" in Server("http://10.0.0.5:8650", tmp_path).warning
    assert Server("http://127.0.0.1:8650", tmp_path).warning == ""


def test_a_token_is_made_once_and_told_once(served: Callable[..., Served], tmp_path: Path) -> None:
    server = served()
    token = server.token
    assert (server.folder / "serve.token").stat().st_mode & 0o777 == 0o600
    server.kill()
    assert token in server.process.communicate()[0]
    server.begin()
    server.kill()
    assert token not in server.process.communicate()[0]
    assert server.token == token
    (server.folder / "serve.token").chmod(0o640)
    with pytest.raises(AssertionError, match="others can read it"):
        server.begin()
    (tmp_path / "short").write_text("short")
    (tmp_path / "short").chmod(0o600)
    with pytest.raises(InputError, match="holds no secret"):
        read_secret(tmp_path / "short")
    assert read_secret(tmp_path / "none") is None
    made, new = secret_of(tmp_path / "new")
    assert (new, secret_of(tmp_path / "new")) == (True, (made, False))

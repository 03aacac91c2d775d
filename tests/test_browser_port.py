"""The port for the browser's extension, and what the loop makes of what comes in: no browser needed."""

from __future__ import annotations

import http.client
import json
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_watch
import pytest
from fake_watch import FakeServer, P, T, W

from rlmemo.live import status
from rlmemo.live.activitywatch import BucketReader, OrderReport
from rlmemo.live.browser_desk import PLACE, BothReader, BrowserDesk, BrowserReader, Visit
from rlmemo.live.browser_port import EXTENSION, BrowserPort, origin
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Minding
from rlmemo.live.pages_executor import PagesExecutor
from rlmemo.live.sparing import Sparing
from rlmemo.policies.registry import setup
from rlmemo.store.database import Store, open_store
from rlmemo.store.live_ledger import LOAD, LiveLedger, Off

TOKEN = "t0ken-of-the-tests"
RIGHT = {"Host": "127.0.0.1", "Origin": origin(), "Authorization": f"Bearer {TOKEN}"}
SITES = ("a.example", "b.example", "c.example")
SETUP = setup("markov1", {"budget": 3.0})


class StillClock:
    """Stands at T, and goes on when told to."""

    t = 0.0

    def now(self) -> float:
        return T + self.t

    def wait(self, seconds: float, stop: threading.Event) -> None: ...


@pytest.fixture
def desk() -> BrowserDesk:
    return BrowserDesk()


@pytest.fixture
def port(desk: BrowserDesk, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrowserPort]:
    monkeypatch.setattr("rlmemo.live.browser_port.KEPT_S", 0.2)
    monkeypatch.setattr("rlmemo.live.browser_port.SLOW_S", 0.01)
    made = BrowserPort(0, desk)
    made.open(TOKEN)
    yield made
    made.close()


def ask(
    port: BrowserPort, body: Any = None, *, method: str = "POST", path: str = "/v1/browser", **headers: str
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    told = body if isinstance(body, bytes) else json.dumps(body or {"visits": [], "reports": []}).encode()
    for name, value in ({**RIGHT, "Content-Length": str(len(told))} | headers).items():
        if value:
            connection.putheader(name, value)
    connection.endheaders(told)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), json.loads(said or "{}")


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (503, {}),  # let in, and nobody writes it down here
        (503, {"Host": "localhost:99"}),
        (403, {"Host": "evil.example"}),
        (403, {"Host": "127.0.0.1.evil.example"}),
        (403, {"Host": "192.168.0.7"}),
        (403, {"Host": ""}),
        (403, {"Origin": ""}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1"}),
        (403, {"Origin": "chrome-extension://" + "a" * 32}),
        (403, {"Origin": origin() + ".evil.example"}),
        (401, {"Authorization": ""}),
        (401, {"Authorization": "Bearer wrong"}),
        (401, {"Authorization": f"Basic {TOKEN}"}),
        (403, {"method": "OPTIONS"}),
        (403, {"method": "GET"}),
        (422, {"path": "/v1/else"}),
        (422, {"path": "/v1/hello", "Authorization": ""}),  # let in without a token, and no nonce is given
        (403, {"path": "/v1/hello", "Host": "evil.example"}),
        (403, {"path": "/v1/hello", "Origin": "http://127.0.0.1"}),
        (422, {"Content-Length": "300000"}),
        (422, {"Content-Length": "-1"}),
    ],
)
def test_it_answers_to_the_extension_alone(
    status: int, given: dict[str, str], port: BrowserPort, desk: BrowserDesk
) -> None:
    found, headers, _ = ask(port, **given)  # type: ignore[arg-type]
    assert found == status
    assert not [x for x in headers if x.lower().startswith("access-control")]
    assert (desk.heard_at > 0) == (status == 503)


def visit(**more: Any) -> dict[str, Any]:
    return {"id": "0123-4567", "t": 5.0, "site": "a.example", **more}


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"[" * 100_000, {"visits": [], "reports": 3}, {"visits": [7], "reports": []},
        {"visits": [visit(id="x")], "reports": []}, {"visits": [visit(t="5")], "reports": []},
        {"visits": [visit(t=-1)], "reports": []}, {"visits": [visit(t=float("nan"))], "reports": []},
        {"visits": [visit(site="a.example/path")], "reports": []},
        {"visits": [visit(site=None)], "reports": []},
        {"visits": [visit(site="a?b")], "reports": []}, {"visits": [visit()] * 101, "reports": []},
        {"visits": [], "reports": [{"order": "12345678", "came": []}]},
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(body: Any, port: BrowserPort, desk: BrowserDesk) -> None:
    assert ask(port, body)[0] == 422
    assert desk.handed() == []


@contextmanager
def loop_on(db: Path, reader: Any, executor: Any = None, clock: StillClock | None = None) -> Iterator[Loop]:
    with open_store(db) as store:
        made = Minding(SETUP, "me", "UTC", 210.0, "test", 0.2)
        ledger = LiveLedger(store, "me", "UTC")
        yield Loop(ledger, reader, made, executor, clock or StillClock(), T - 1.0, say=lambda _: None)


def tell(desk: BrowserDesk, loop: Loop, *visits: Visit, reports: Any = ()) -> bool:
    """Hand something in, and let the loop go round once; whether it is written down."""
    done: list[bool] = []
    teller = threading.Thread(target=lambda: done.append(desk.hand_in(visits, reports, 2.0)))
    teller.start()
    assert desk.stirred.wait(5)
    desk.stirred.clear()
    loop.turn()
    teller.join()
    return done[0]


def opened(loop: Loop) -> list[tuple[str, str]]:
    return [(r.event.target, r.event.kind) for r in loop.ledger.rows()]


def a_visit(k: int, site: str = "", t: float | None = None) -> Visit:
    return Visit(f"visit-{k}", T + (t if t is not None else float(k)), site or SITES[k % len(SITES)])


def test_visits_are_opens_once_each_however_often_they_are_told(tmp_path: Path, desk: BrowserDesk) -> None:
    with loop_on(tmp_path / "a.db", BrowserReader(desk)) as loop:
        assert tell(desk, loop, a_visit(0), a_visit(1))
        assert tell(desk, loop, a_visit(0), a_visit(1), a_visit(2), a_visit(2))
        assert tell(desk, loop, Visit("left-it-1", T + 3.0, ""), a_visit(2, t=4.0))
        assert opened(loop) == [(x, "page") for x in SITES]
    with loop_on(tmp_path / "a.db", BrowserReader(desk)) as loop:  # another process
        assert tell(desk, loop, a_visit(0), a_visit(1), a_visit(2))
        assert tell(desk, loop, a_visit(5, SITES[0]))
        assert opened(loop) == [(x, "page") for x in (*SITES, SITES[0])]


def test_what_the_ledger_refused_is_not_taken(
    tmp_path: Path, desk: BrowserDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from env.errors import InputError

    def full(self: Store, **how: bool) -> Any:
        raise InputError("disk is full")

    with loop_on(tmp_path / "a.db", BrowserReader(desk)) as loop:
        monkeypatch.setattr(desk, "hand_in", lambda *x: BrowserDesk.hand_in(desk, *x[:2], 0.3))
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", full)
            assert not tell(desk, loop, a_visit(0))
        assert tell(desk, loop, a_visit(0))
        assert opened(loop) == [("a.example", "page")]


def test_in_a_pause_nothing_is_recorded_and_nothing_waits(tmp_path: Path, desk: BrowserDesk) -> None:
    clock = StillClock()
    with loop_on(tmp_path / "a.db", BrowserReader(desk), clock=clock) as loop:
        assert tell(desk, loop, a_visit(0))
        clock.t = 10.0
        loop.ledger.add((), at=clock.now(), offs=[Off(T + 5.0, None, "paused")])
        assert tell(desk, loop, a_visit(1), a_visit(7, "secret.example"))
        assert desk.paused
        assert opened(loop) == [("a.example", "page"), ("b.example", "page")]
        assert "secret" not in str(loop.ledger.store.rows("SELECT * FROM live_state"))
        clock.t = 20.0
        loop.ledger.add((), at=clock.now(), offs=[Off(T + 5.0, T + 20.0, "paused")])
        clock.t = 22.0
        assert tell(desk, loop, a_visit(21, "c.example"))
        assert not desk.paused
        assert len(opened(loop)) == 3


def test_pages_count_while_a_browser_is_in_front(tmp_path: Path, desk: BrowserDesk) -> None:
    """With ActivityWatch's windows; what its own extension for Chromium says is left out."""
    server, clock = FakeServer(), StillClock()
    both = BothReader(BucketReader(server, T - 1.0), BrowserReader(desk))
    server.held["aw-watcher-web-chrome_box"] = server.held.pop(P)
    fake_watch.KINDS["aw-watcher-web-chrome_box"] = fake_watch.WEB
    with loop_on(tmp_path / "a.db", both, clock=clock) as loop:
        server.tell(W, 0.0, app="Editor")
        clock.t = 2.0
        assert tell(desk, loop, a_visit(1))  # behind: waits for the windows, and is not seen
        server.tell(W, 3.0, app="chromium")
        server.tell("aw-watcher-web-chrome_box", 3.5, url="https://other.example/")
        clock.t = 4.0
        loop.turn()
        assert tell(desk, loop, a_visit(5))
        server.tell(W, 6.0, app="chromium")
        clock.t = 7.0
        loop.turn()
        assert opened(loop) == [("Editor", "app"), ("b.example", "page"), ("c.example", "page")]
        assert loop.ledger.state("place")[PLACE]["ids"] == ["visit-1", "visit-5"]


def test_a_machine_that_was_off_is_noticed_by_the_pages_alone(tmp_path: Path, desk: BrowserDesk) -> None:
    with loop_on(tmp_path / "a.db", BrowserReader(desk)) as loop:
        assert tell(desk, loop, a_visit(0), a_visit(1))
        desk.heard_at = 0.0
        loop.booted = T + 100.0
        assert tell(
            desk, loop, Visit("visit-8", T + 200.0, "b.example"), Visit("visit-9", T + 300.0, "c.example")
        )
        assert [r.off for r in loop.ledger.rows()][2] < T + 200.0
        assert len(opened(loop)) == 4


def test_pages_are_ordered_within_limits_once_and_what_came_of_it_is_kept(
    tmp_path: Path, desk: BrowserDesk, port: BrowserPort
) -> None:
    clock = StillClock()
    pages = Sparing(PagesExecutor(desk, lambda _: 100.0, 1800.0, limit_mb=250.0), per_hour=3)
    assert pages.load("a.example", "page")["failed"].startswith("no browser is there")
    with loop_on(tmp_path / "a.db", BrowserReader(desk), pages, clock) as loop:
        orders: list[dict[str, Any]] = []
        for k in range(12):
            clock.t = k + 0.5
            assert tell(desk, loop, a_visit(k))
            orders += desk.take_orders()
        assert desk.take_orders() == []
        loads = [x for x in orders if x["what"] == LOAD]
        assert len(loads) == 3
        assert {x["site"] for x in loads} <= set(SITES)
        steps = loop.ledger.store.rows("SELECT came FROM live_acts WHERE what = 'load'")
        assert any("within the hour" in x["came"] for x in steps)
        first = loads[0]["id"]
        clock.t = 20.5
        assert tell(desk, loop, reports=[OrderReport(first, {"took_s": 0.5})])
        assert tell(desk, loop, reports=[OrderReport(first, {"used": "tab", "opened_s": 0.01})])
        kept = [
            json.loads(x["came"]) for x in loop.ledger.store.rows("SELECT came FROM live_acts ORDER BY id")
        ]
        assert [x for x in kept if x.get("order") == first] == [
            {"order": first, "took_s": 0.5, "used": "tab", "opened_s": 0.01}
        ]
        told = "\n".join(status.lines(loop.ledger, None, clock.now()))
        assert "loaded early and then opened: 1; they took 0.5 s to load, and 0.0 s to be there" in told
    full = PagesExecutor(desk, lambda _: 100.0, 1800.0, limit_mb=250.0)
    told = [full.load(x, "page") for x in SITES]
    assert ["order" in x for x in told] == [True, True, False]
    assert "no room" in told[2]["failed"]
    full.opened("a.example", "page")
    assert "order" in full.load("c.example", "page")
    assert "failed" in full.load("Editor", "app")
    full.undo()
    assert desk.take_orders() == []


def test_it_may_do_what_the_docs_say_and_no_more() -> None:
    told = json.loads((EXTENSION / "manifest.json").read_text())
    assert told["incognito"] == "not_allowed"
    assert set(told["permissions"]) == {"alarms", "storage", "tabs", "webNavigation", "scripting"}
    assert told["host_permissions"] == ["http://127.0.0.1/*"]
    assert not {"content_scripts", "externally_connectable", "web_accessible_resources"} & set(told)


Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_the_command_says_how_to_pair_and_keeps_the_key_to_its_owner(cli: Cli, tmp_path: Path) -> None:
    said = cli("rlmemo.live", "extension", "--browser-port", "8777").stdout
    token = (tmp_path / "extension.token").read_text().strip()
    assert f"8777:{token}" in said
    assert str(EXTENSION) in said
    assert stat.S_IMODE((tmp_path / "extension.token").stat().st_mode) == 0o600
    assert cli("rlmemo.live", "extension", "--browser-port", "8777").stdout == said
    assert "nobody listens for the browser's extension" in cli("rlmemo.live", "doctor").stdout


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        (["--act", "pages"], "--source browser or both"),
        (["--source", "browser", "--act", "pages", "--per-hour", "0"], "--per-hour 0"),
        (["--source", "browser", "--act", "pages", "--limit-mb", "0"], "more than 0"),
        (["--source", "browser", "--browser-port", "99999"], "no port"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    given: list[str], said_of_it: str, cli: Cli, tmp_path: Path
) -> None:
    done = cli("rlmemo.live", "start", "--policy", "markov1", *given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said_of_it in done.stderr
    assert list(tmp_path.iterdir()) == []

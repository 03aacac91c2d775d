"""The loop: whatever it is killed at, everything is recorded once, planned once, and done once at most."""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_watch import A, FakeServer, P, T, W

from env.errors import InputError
from env.judge.plans import FIELDS
from env.sources import load_timelines
from rlmemo.live import status
from rlmemo.live.activitywatch import BucketReader, BucketRow
from rlmemo.live.loop import POLL_AWAY_S, POLL_S, Loop, _to_stderr
from rlmemo.live.mind import Minding
from rlmemo.policies.registry import setup
from rlmemo.store.database import Store, open_store
from rlmemo.store.forgetting import forget_everything, forget_target
from rlmemo.store.live_ledger import DECIDED, LOAD, LiveLedger, Off

APPS = ("Mail", "Editor", "Terminal", "Chat", "Notes", "Editor", "Terminal", "Chat")
SETUP = setup("markov1", {"budget": 3.0})


class StillClock:
    """Goes on when it is told to."""

    def __init__(self, t: float = 0.0) -> None:
        self.t = t

    def now(self) -> float:
        return T + self.t

    def wait(self, seconds: float, stop: threading.Event) -> None:
        self.t += seconds


class Noting:
    """An executor that notes what it is told to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.undone = False

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        self.done.append(("load", target))
        return {"took_s": 0.0}

    def let_go(self, target: str, kind: str) -> Mapping[str, Any]:
        self.done.append(("let go", target))
        return {}

    def opened(self, target: str, kind: str) -> None: ...

    def undo(self) -> None:
        self.undone = True


class Killed(BaseException):
    """What `kill -9` is to the code that was running."""


@contextmanager
def loop_on(
    db: Path, server: FakeServer, clock: StillClock, executor: Noting | None = None, **more: Any
) -> Iterator[Loop]:
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        made = Minding(SETUP, "me", "UTC", 1200.0, "test", 0.2)
        said: list[str] = []
        loop = Loop(
            ledger, BucketReader(server, T - 1.0), made, executor, clock, T - 1.0, say=said.append, **more
        )
        loop.said = said  # type: ignore[attr-defined]
        yield loop


def one_day(server: FakeServer, clock: StillClock, k: int) -> None:
    """Event k of a person who goes round through some programs."""
    clock.t = 10.0 + 60.0 * k
    server.tell(W, clock.t - 1.0, app=APPS[k % len(APPS)], title=str(k))
    clock.t += 0.5


def kept(db: Path) -> list[tuple[Any, ...]]:
    """Everything of the ledger that does not depend on how long something took."""
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        records = [r["record"] for r in store.rows("SELECT record FROM live_events ORDER BY id")]
        return [
            (r.event, r.planned, r.plan, r.let_go, r.outcome, record)
            for r, record in zip(ledger.rows(), records, strict=True)
        ]


def test_what_is_opened_has_its_plan_and_its_outcome(tmp_path: Path) -> None:
    server, clock, executor = FakeServer(), StillClock(), Noting()
    with loop_on(tmp_path / "a.db", server, clock, executor) as loop:
        for k in range(24):
            one_day(server, clock, k)
            assert loop.turn() == POLL_S
        assert loop.said == []  # type: ignore[attr-defined]
        loop.stop.set()
        loop.run()
    rows = kept(tmp_path / "a.db")
    assert [r[0].target for r in rows] == [APPS[k % len(APPS)] for k in range(24)][: len(rows)]
    assert all(r[1] == DECIDED and r[5] for r in rows)
    planned = [p.target for r in rows for p in r[2]]
    assert len(planned) > 5
    assert [x for what, x in executor.done if what == "load"] == planned
    assert any(r[4] and r[4]["prewarms"][0] and r[4]["prewarms"][0]["came"] == "hit" for r in rows)
    assert executor.undone


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_nothing_is_lost_or_doubled(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before (or right after) the transaction of every single write, in one run after the other."""
    events, writes, deadly = 12, 0, -1
    plain = Store.write

    @contextmanager
    def write(self: Store, **how: bool) -> Iterator[None]:
        nonlocal writes
        writes += 1
        if writes - 1 == deadly and not after:
            raise Killed
        with plain(self, **how):
            yield
        if writes - 1 == deadly and after:
            raise Killed

    def run(db: Path) -> tuple[int, list[tuple[str, str]]]:
        nonlocal writes
        writes = 0
        server, clock, executor = FakeServer(), StillClock(), Noting()
        k = kills = 0
        while True:
            try:
                with loop_on(db, server, clock, executor, late_s=1e9) as loop:
                    loop.turn()
                    while k < events:
                        one_day(server, clock, k)
                        k += 1
                        loop.turn()
                    loop.turn()
                    return kills, executor.done
            except Killed:
                kills += 1

    monkeypatch.setattr(Store, "write", write)
    _, done = run(tmp_path / "whole.db")
    total, whole = writes, kept(tmp_path / "whole.db")
    assert len(whole) == events
    assert total > 2 * events
    for deadly in range(total):
        db = tmp_path / f"{deadly}.db"
        kills, again = run(db)
        assert kills == 1, deadly
        assert kept(db) == whole, deadly
        left = list(done)
        for one in again:  # nothing is done that was not planned, and nothing twice
            left.remove(one)


def test_a_row_that_is_ahead_of_the_clock_waits_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher whose clock was wrong once: what comes after it by the right time is recorded."""
    server, clock, wrong = FakeServer(), StillClock(), list[BucketRow]()
    plain = server.rows
    monkeypatch.setattr(
        server, "rows", lambda bucket, start: [*plain(bucket, start), *(wrong if bucket.name == W else [])]
    )
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        loop.reader.now = clock.now  # type: ignore[attr-defined]
        for k in range(6):
            one_day(server, clock, k)
            if k == 3:
                ahead = clock.now() + 7200.0
                wrong.append(BucketRow(W, "currentwindow", 900, ahead, ahead, {"app": "too early"}))
            loop.turn()
            trouble = loop.ledger.state("trouble") or ""
            assert trouble.startswith(f"{W}: its latest is 1" if k >= 3 else "")
            assert bool(trouble) == (k >= 3)
        assert len(kept(tmp_path / "a.db")) == 6
        clock.t += 7300.0
        loop.turn()
        assert loop.ledger.state("trouble") == ""
        said = [x for x in loop.said if "ahead of the clock" in x or "right again" in x]  # type: ignore[attr-defined]
        assert len(said) == 2
        assert said[1] == "it is right again"
    assert len(kept(tmp_path / "a.db")) == 7, "its time has come"


def test_a_ledger_that_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, clock, full = FakeServer(), StillClock(), False
    plain = Store.write

    @contextmanager
    def write(self: Store, **how: bool) -> Iterator[None]:
        with plain(self, **how):
            yield
            if full:
                raise InputError("disk is full")

    monkeypatch.setattr(Store, "write", write)
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        for k in range(9):
            one_day(server, clock, k)
            full = k in (3, 4, 7)
            assert loop.turn() == (POLL_AWAY_S if full else POLL_S)
        assert [x.split(";")[0] for x in loop.said] == [  # type: ignore[attr-defined]
            "disk is full", "it answers again", "disk is full", "it answers again",
        ]  # fmt: skip
    monkeypatch.undo()
    with loop_on(tmp_path / "b.db", server, clock) as loop:
        loop.turn()
    a, b = ([(r[0], r[2], r[3]) for r in kept(tmp_path / f"{x}.db")] for x in "ab")
    assert a == b
    assert len(a) == 9


def test_what_was_read_is_on_the_disk_before_the_source_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open need not be on the disk before its plan is, and is with it; what has no plan is at once."""
    server, clock, order = FakeServer(), StillClock(), list[str]()
    plain = Store.write

    @contextmanager
    def write(self: Store, *, lasting: bool = True) -> Iterator[None]:
        with plain(self, lasting=lasting):
            yield
        order.append("lasting" if lasting else "quick")

    with loop_on(tmp_path / "a.db", server, clock) as loop:
        loop.turn()
        monkeypatch.setattr(Store, "write", write)
        monkeypatch.setattr(loop.reader, "kept", lambda due_s: order.append("kept"))
        one_day(server, clock, 0)
        loop.turn()
        assert order == ["quick", "lasting", "kept"]
        order.clear()
        server.tell(A, clock.t, status="afk")
        loop.turn()
        assert order == ["lasting", "kept"]


def test_a_server_that_was_away_is_read_afterwards(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        for k in range(10):
            server.away = 3 <= k < 6
            one_day(server, clock, k)
            assert loop.turn() == (POLL_AWAY_S if server.away else POLL_S)
            assert bool(loop.ledger.state("trouble")) == server.away
        assert len(loop.said) == 2  # type: ignore[attr-defined]
    assert [r[0].target for r in kept(tmp_path / "a.db")] == [APPS[k % len(APPS)] for k in range(10)]


def test_the_status_is_what_the_judge_says(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        assert status.lines(loop.ledger, None, T)[-1].startswith("nothing is known yet")
        for k in range(24):
            one_day(server, clock, k)
            loop.turn()
        records = loop.mind.world.records()[1:]
        saved, waited = (records[:, FIELDS.index(x)].sum() for x in ("saved_s", "base_wait_s"))
        assert saved > 3.0
        told = "\n".join(status.lines(loop.ledger, 4711, clock.now()))
        assert f"in all: 23 opens, {int(records[:, FIELDS.index('base_cold')].sum())} of them cold" in told
        assert f"{waited:.0f} s of waiting; its plans would have saved {saved:.0f} s of it" in told
        assert f"{int(records[:, FIELDS.index('hit')].sum())} hits" in told
        assert "the last 24 hours" not in told  # they are all there is
        assert f"in front 2023-11-14 22:36: {APPS[23 % len(APPS)]}" in told
        later = "\n".join(status.lines(loop.ledger, None, clock.now() + 2e5))
        assert "the last 24 hours: nothing was opened" in later
        assert "not recording" in later


def test_while_it_is_paused_nobody_answers_again(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    server.away = True
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        loop.turn()
        loop.ledger.add((), at=clock.now(), offs=[Off(clock.now(), None, "paused")])
        clock.t += 5.0
        loop.turn()
        assert [x.split(";")[0] for x in loop.said] == ["nothing listens there"]  # type: ignore[attr-defined]
        (told,) = [x for x in status.lines(loop.ledger, None, clock.now()) if x.startswith("paused")]
        assert told.endswith(f"resume --db {tmp_path / 'a.db'}"), "as it has to be typed"


def test_the_status_tells_what_was_not_done_and_why(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        for k in range(3):
            one_day(server, clock, k)
            loop.turn()
        (plan,) = loop.ledger.store.rows("SELECT MAX(id) AS id FROM live_plans")
        for place in (90, 91):
            act = loop.ledger.begin(plan["id"], LOAD, place, "perl", at=clock.now())
            assert act is not None
            loop.ledger.end(act, {"failed": "its files are not known"}, at=clock.now())
        loop.mind.trouble = "nothing listens there; the shipped base plans meanwhile"
        loop.turn()
        told = status.lines(loop.ledger, None, clock.now())
        assert "trouble: nothing listens there; the shipped base plans meanwhile" in told
        assert "not done, 2 times: its files are not known" in told
        assert not any("listens" in x for x in loop.said), "who thinks has said so"  # type: ignore[attr-defined]
        loop.mind.trouble = ""
        loop.turn()
        assert not any(x.startswith("trouble") for x in status.lines(loop.ledger, None, clock.now()))


def test_what_comes_too_late_is_planned_and_not_done(tmp_path: Path) -> None:
    server, clock, executor = FakeServer(), StillClock(), Noting()
    for k in range(30):
        one_day(server, clock, k)
    clock.t += 60.0
    with loop_on(tmp_path / "a.db", server, clock, executor) as loop:
        loop.turn()
        loop.turn()
        assert loop.ledger.made_late() > 20
    assert sum(len(r[2]) for r in kept(tmp_path / "a.db")) > 5
    assert executor.done == []


def test_what_was_loaded_and_not_used_goes(tmp_path: Path) -> None:
    server, clock, executor = FakeServer(), StillClock(), Noting()
    with loop_on(tmp_path / "a.db", server, clock, executor) as loop:
        for k in range(20):
            one_day(server, clock, k)
            loop.turn()
        loaded = executor.done[-1]
        assert loaded[0] == "load"
        clock.t += 2000.0
        loop.turn()
        loop.turn()
        assert executor.done.count(("let go", loaded[1])) >= 1


def test_in_a_pause_nothing_is_recorded(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        for k in range(12):
            if k == 4:
                loop.ledger.add((), at=clock.now(), offs=[Off(clock.now() + 1.0, None, "paused")])
            if k == 8:
                loop.ledger.add(
                    (), at=clock.now(), offs=[replace(loop.ledger.pauses()[0], back_t=clock.now() + 1)]
                )
            one_day(server, clock, k)
            assert loop.turn() == (POLL_AWAY_S if 4 <= k < 8 else POLL_S)
    expected = [APPS[k % len(APPS)] for k in range(12) if not 4 <= k < 8]
    assert [r[0].target for r in kept(tmp_path / "a.db")] == expected


def test_what_is_forgotten_meanwhile_is_not_known_any_more(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    with loop_on(tmp_path / "a.db", server, clock) as loop, open_store(tmp_path / "a.db") as other:
        for k in range(24):
            if k == 12:
                forget_target(other, "Chat")
                assert "Chat" not in str(other.rows("SELECT * FROM live_state"))
            if APPS[k % len(APPS)] != "Chat" or k < 12:
                one_day(server, clock, k)
            loop.turn()
            if k >= 12:
                assert "Chat" not in loop.mind.memory()
        one_day(server, clock, 24)
        read = loop.reader.read
        loop.reader.read = lambda **more: (read(**more), forget_everything(other))[0]  # type: ignore[method-assign]
        assert loop.turn() == POLL_AWAY_S  # in the midst of a turn
        assert "has changed meanwhile" in loop.said[-1]  # type: ignore[attr-defined]
        loop.reader.read = read  # type: ignore[method-assign]
        assert loop.turn() == POLL_AWAY_S
        loop.turn()
        assert loop.stop.is_set()
        assert "forgotten" in loop.said[-1]  # type: ignore[attr-defined]
        assert other.one("SELECT COUNT(*) FROM live_events") == 0


@pytest.mark.slow
def test_a_day_leaves_nothing_behind_in_memory(tmp_path: Path) -> None:
    """24 hours, a turn every 20 s, 40 opens an hour: what lives in the last hour is what lives in the second,
    but for the counts of what was opened. (The process: python -m experiments.live_day --hours 24.)"""
    server, clock = FakeServer(), StillClock()
    held, opened = dict[int, int](), 0
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        for k in range(24 * 180):
            if k % 9 in (0, 4):
                app, opened = APPS[opened % len(APPS)], opened + 1
                row = BucketRow(W, "currentwindow", k, clock.now(), clock.now(), {"app": app})
                server.held[W] = [*server.held[W][-20:], row]
            loop.turn()
            clock.t += 20.0
            if k % 180 == 179 and k // 180 in (1, 22, 23):
                gc.collect()
                held[k // 180] = len(gc.get_objects())
        opens = loop.mind.world.opened
    assert opens > 500
    assert held[23] - held[22] < 500
    assert held[23] - held[1] < opens


def test_a_machine_that_was_shut_down_has_an_empty_memory_and_the_timeline_says_so(tmp_path: Path) -> None:
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    told = ["Mail", "Editor", "Chat"]
    with loop_on(db, server, clock) as loop:
        for k, app in enumerate(told):
            clock.t = 10.0 + 60.0 * k
            server.tell(W, clock.t, app=app)
            loop.turn()
        assert len(loop.mind.memory()) == 3
    server.tell(W, 135.0, app="Chat")  # and then it was off
    rows = server.held[W]
    server.held[W] = [*rows, replace(rows[-1], id=99, t=T + 171.0, end=T + 171.0)]
    clock.t = 172.0
    with loop_on(db, server, clock, booted=T + 170.0) as loop:
        loop.turn()
        assert [x for x, early in loop.mind.memory().items() if not early] == ["Chat"]
        expected = loop.mind.world.records()
        assert loop.mind.latest is not None
        assert loop.mind.latest.t == T + 171.0
    with loop_on(db, server, clock) as loop:
        assert [x for x, early in loop.mind.memory().items() if not early] == ["Chat"]
        assert (loop.mind.world.records() == expected).all()
    (timeline,) = load_timelines(str(db)).timelines
    assert (timeline.offs.tolist(), timeline.wakes.tolist()) == ([T + 135.0], [T + 170.0])
    assert [timeline.names[x] for x in timeline.target] == [*told, "Chat"]


def test_pages_and_programs_are_one_person_s_opens(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    made = load_timelines("demo").timelines[0]
    told: list[str] = []
    with loop_on(tmp_path / "a.db", server, clock) as loop:
        for k, event in zip(range(80), made, strict=False):
            clock.t = 10.0 + 30.0 * k
            server.tell(A, clock.t, status="not-afk")
            page = event.kind == "page"
            if page:
                server.tell(P, clock.t - 0.01, url=f"https://{event.target}/x", incognito=False)
            server.tell(W, clock.t, app="firefox" if page else event.target, title="t")
            told.append(event.target)
            clock.t += 0.5
            loop.turn()
    assert [r[0].target for r in kept(tmp_path / "a.db")] == told


def test_a_log_says_when(capsys: pytest.CaptureFixture[str]) -> None:
    _to_stderr("127.0.0.1:5600 answers again")
    said = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d 127.0.0.1:5600 answers again\n", said)

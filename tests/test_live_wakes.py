"""Live plans when the person is back and nothing is opened yet: after an absence that counts as an off, and
when the machine was started. The plans are those of offline replay of what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_watch import A, FakeServer, T, W

from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.plans import OUTCOME_NAMES
from env.timeline import Event
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Minding
from rlmemo.policies.following import _Afresh, follower
from rlmemo.policies.planners import Threshold
from rlmemo.policies.registry import setup, to_follow
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import LiveLedger
from rlmemo.store.now import recordings, standing
from tests.test_live_loop import Killed, Noting, StillClock

APPS = ("Mail", "Editor", "Terminal", "Mail", "Chat", "Mail", "Editor", "Terminal")
HOUR = 3600.0
MADE = replace(setup("markov1", {"budget": 3.0, "off_after_s": 2 * HOUR}), planner=Threshold(0.3, wake=0.1))
MINDING = Minding(MADE, "me", "UTC", 1200.0, "test", wakes=True)


@contextmanager
def loop_on(
    db: Path, server: FakeServer, clock: StillClock, executor: Noting | None = None, **more: Any
) -> Iterator[Loop]:
    with open_store(db) as store:
        reader = BucketReader(server, T - 1.0)
        yield Loop(
            LiveLedger(store, "me", "UTC"), reader, MINDING, executor, clock, T - 1.0, say=lambda _: None,
            **more,
        )  # fmt: skip


def works(loop: Loop, server: FakeServer, clock: StillClock, apps: tuple[str, ...] = APPS) -> None:
    """Somebody goes through some programs, one a minute."""
    for app in apps:
        clock.t += 60.0
        server.tell(W, clock.t, app=app)
        server.tell(A, clock.t, status="not-afk")
        loop.turn()


def same_as_offline(db: Path) -> int:
    """Asserts that the plans are those of offline replay; how many prewarms there were at wakes."""
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        timeline, rows = ledger.timeline(), list(ledger.rows())
    assert len(timeline) == len(rows)
    offs = [np.isfinite(rules.offs(timeline)[1]).sum() for rules in (MINDING.rules(), WorldConfig())]
    assert offs[0] == offs[1]  # nothing is only assumed
    case = Case(timeline, MADE.world.cost_model().arrays(timeline), MINDING.rules(), 1, len(timeline))
    planned = MINDING.planner().plan(MADE.policy, case)
    found = [[p.target for p in (*r.plan, *(r.woken[1] if r.woken else ()))] for r in rows[:-1]]
    assert found == [[timeline.names[x] for x in row if x >= 0] for row in planned.target.tolist()]
    outcomes = case.replay(planned)
    for i, row in enumerate(rows[:-1]):
        for place, one in enumerate((row.outcome or {"prewarms": []})["prewarms"]):
            if one is not None:
                column = place if place < len(row.plan) else 3 + place - len(row.plan)
                assert one["came"] == OUTCOME_NAMES[outcomes.outcome[i, column]]
    return sum(len(r.woken[1]) for r in rows if r.woken)


def test_back_from_an_absence_it_plans_before_anything_is_opened(tmp_path: Path) -> None:
    server, clock, executor, db = FakeServer(), StillClock(), Noting(), tmp_path / "a.db"
    with loop_on(db, server, clock, executor) as loop:
        works(loop, server, clock)
        server.tell(A, clock.t + 30.0, status="afk")
        clock.t += 60.0
        loop.turn()
        executor.done.clear()
        clock.t += 3 * HOUR
        server.tell(A, clock.t, status="not-afk")
        loop.turn()
        loads = [x for what, x in executor.done if what == "load"]
        assert "Mail" in loads
        assert loop.mind.memory() == dict.fromkeys(loads, True)
        (recording,) = recordings(loop.ledger.store)
        now = standing(loop.ledger.store, recording, clock.now())
        assert set(now.early) == set(loads)
        assert [x.target for x in now.left if x.why == "off"]
        loop.turn()  # heard once, done once
        assert [x for what, x in executor.done if what == "load"] == loads
        clock.t += 20.0
        works(loop, server, clock, ("Mail", "Editor"))
    with open_store(db) as store:
        rows = list(LiveLedger(store, "me", "UTC").rows())
    woken = rows[len(APPS) - 1]
    assert woken.woken is not None
    assert woken.outcome is not None
    planned = [p.target for p in (*woken.plan, *woken.woken[1])]
    came = dict(zip(planned, woken.outcome["prewarms"], strict=True))
    assert came["Mail"]["came"] == "hit"
    assert same_as_offline(db) == len(loads)


def test_absences_of_which_it_reads_afterwards_are_offs_too(tmp_path: Path) -> None:
    """At the first start, before anything was opened, and while live was not there."""
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    server.tell(A, clock.t - 0.5, status="afk")
    clock.t += 3 * HOUR
    server.tell(A, clock.t, status="not-afk")
    with loop_on(db, server, clock) as loop:
        loop.turn()
        assert loop.ledger.store.one("SELECT COUNT(*) FROM switches") == 0  # nothing was in memory
        works(loop, server, clock)
    for hours in (3.0, 5.0):
        server.tell(A, clock.t + 1.0, status="afk")
        clock.t += hours * HOUR
        server.tell(A, clock.t, status="not-afk")
        server.tell(A, clock.t + 1.0, status="afk")
        server.tell(A, clock.t + 4.0, status="not-afk")  # back twice: the first time counts
        for app in ("Mail", "Editor", "Chat"):
            clock.t += 60.0
            server.tell(W, clock.t, app=app)
    with loop_on(db, server, clock) as loop:
        loop.turn()
        assert loop.ledger.store.one("SELECT COUNT(*) FROM switches") == 4
    assert same_as_offline(db) > 0


def test_killed_before_an_open_had_its_plan_the_absence_after_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    with loop_on(db, server, clock) as loop:
        works(loop, server, clock)
        monkeypatch.setattr(Loop, "_decide", lambda loop: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            works(loop, server, clock, ("Chat",))
        monkeypatch.undo()
    opened = clock.t
    server.tell(A, clock.t + 30.0, status="afk")
    clock.t += 3 * HOUR
    server.tell(A, clock.t, status="not-afk")
    with loop_on(db, server, clock) as loop:
        loop.turn()
        assert loop.mind.woken
        offs = loop.ledger.store.rows("SELECT t FROM switches WHERE kind = 'off'")
        assert [x["t"] for x in offs] == [T + opened + 2 * HOUR]
        works(loop, server, clock, ("Mail", "Editor"))
    assert same_as_offline(db) > 0


def test_a_short_absence_or_one_in_a_world_without_offs_is_no_wake(tmp_path: Path) -> None:
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    with loop_on(db, server, clock) as loop:
        works(loop, server, clock)
        server.tell(A, clock.t + 30.0, status="afk")
        clock.t += 1.5 * HOUR
        server.tell(A, clock.t, status="not-afk")
        loop.turn()
        assert not loop.mind.woken
        assert loop.ledger.store.one("SELECT COUNT(*) FROM switches") == 0


@pytest.mark.parametrize("heard", ["before", "after"])
def test_when_the_machine_was_started_it_plans(heard: str, tmp_path: Path) -> None:
    """At once, where nothing is opened yet; for the record alone, where something was heard before."""
    server, clock, executor, db = FakeServer(), StillClock(), Noting(), tmp_path / "a.db"
    with loop_on(db, server, clock) as loop:
        works(loop, server, clock)
    clock.t += 9 * HOUR
    booted = clock.t - 40.0
    if heard == "after":
        server.held[W].append(replace(server.held[W][-1], id=99, t=T + booted + 5.0, end=T + booted + 9.0))
    with loop_on(db, server, clock, executor, booted=T + booted) as loop:
        loop.turn()
        loads = [x for what, x in executor.done if what == "load"]
        assert bool(loads) == (heard == "before")
        loop.turn()
        assert [x for what, x in executor.done if what == "load"] == loads
        clock.t += 30.0
        if heard == "before":
            server.held[W].append(replace(server.held[W][-1], id=99, t=T + clock.t, end=T + clock.t))
            loop.turn()  # the same program as before the night: it was not open any more
        works(loop, server, clock, ("Mail", "Editor"))
    assert same_as_offline(db) > 0


def test_started_twice_in_a_row_what_was_loaded_the_first_time_is_gone(tmp_path: Path) -> None:
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    with loop_on(db, server, clock) as loop:
        works(loop, server, clock)
    for night in (1, 2):
        clock.t += 9 * HOUR
        executor = Noting()
        with loop_on(db, server, clock, executor, booted=T + clock.t - 20.0) as loop:
            loop.turn()
            assert any(what == "load" for what, _ in executor.done), night
            server.tell(A, clock.t + 1.0, status="not-afk")
            clock.t += 60.0
            loop.turn()
    with loop_on(db, server, clock) as loop:
        works(loop, server, clock, ("Mail", "Editor"))
    same_as_offline(db)


def test_who_is_asked_afresh_answers_at_a_wake_as_who_follows() -> None:
    policy = to_follow("base").policy
    planner = Threshold(0.2, wake=0.1)
    both = follower(policy, "me", "Europe/Berlin", planner), _Afresh(policy, "me", "Europe/Berlin", False)
    for k in range(40):
        for one in both:
            one.see(Event(1e9 + 400.0 * k, APPS[k % 8] if k % 5 else f"page{k % 3}.example", "app"))
    before = [one.rank() for one in both]
    for one in both:
        one.wake(1e9 + 16000.0 + 9 * HOUR)
    after = [one.rank() for one in both]
    for a, b in (before, after):
        np.testing.assert_array_equal(a.targets, b.targets)
        np.testing.assert_allclose(a.probability, b.probability, atol=1e-5)
    assert np.abs(before[0].probability - after[0].probability).max() > 1e-3
    latest = both[0].see(Event(1e9 + 90000.0, APPS[39 % 8], "app"))
    assert latest in after[0].targets[0]  # it is not open any more, so it may come next
    assert latest not in both[0].rank().targets[0]

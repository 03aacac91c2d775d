"""Live begins with a recording that is there already, and goes on from it: nothing is lost or doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from fake_watch import FakeServer, T, W
from test_live_loop import APPS, SETUP, StillClock, one_day

from env.errors import InputError
from env.sources import load_timelines
from rlmemo import timelines
from rlmemo.live import status
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Minding
from rlmemo.live.past import Past, past_of
from rlmemo.store.database import Store, open_store
from rlmemo.store.live_ledger import DECIDED, NOTHING_TO_DECIDE, LiveLedger

Cli = Callable[..., CompletedProcess[str]]


def recording(folder: Path, first: int, stop: int, user: str = "me", name: str = "mine.csv") -> str:
    """The same person's opens `first` to `stop`, as `one_day` tells ActivityWatch of them."""
    rows = [f"{user},{T + 9 + 60 * k:.0f},{APPS[k % len(APPS)]},app" for k in range(first, stop)]
    (folder / name).write_text("\n".join(["user,t,target,kind", *rows]) + "\n")
    return str(folder / name)


@contextmanager
def live(
    db: Path, server: FakeServer, clock: StillClock, past: Past | None, began: float = T
) -> Iterator[Loop]:
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        minding = Minding(SETUP, "me", "UTC", 1200.0, "test", 0.2)
        reader = BucketReader(server, T - 1e9)
        yield Loop(ledger, reader, minding, None, clock, began, say=lambda _: None, past=past)


def opened(loop: Loop) -> list[tuple[str, float, int]]:
    return [(r.event.target, r.event.t - T, r.planned) for r in loop.ledger.rows()]


def told(k: int) -> tuple[str, float]:
    return APPS[k % len(APPS)], 9.0 + 60.0 * k


def test_the_next_plan_knows_the_recording(tmp_path: Path) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock(60.0 * 40)
    past = past_of(recording(tmp_path, 0, 40), "me", None, db)
    plans = {}
    for name, given in (("with", past), ("without", None)):
        with live(tmp_path / f"{name}.db", server, clock, given, clock.now()) as loop:
            loop.turn()
            one_day(server, clock, 40)
            loop.turn()
            (row,) = [r for r in loop.ledger.rows() if r.planned == DECIDED]
            assert (row.event.target, row.event.t - T) == told(40)
            plans[name] = [p.target for p in row.plan]
        server.held[W] = []
        clock.t = 60.0 * 40
    assert plans["without"] == []
    assert told(41)[0] in plans["with"]


def test_days_that_activitywatch_holds_too_are_there_once(tmp_path: Path) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock()
    for k in range(20, 40):
        one_day(server, clock, k)
    past = past_of(recording(tmp_path, 0, 35), "me", None, db)
    for _ in range(2):  # and once more, as after a restart
        with live(db, server, clock, past, clock.now()) as loop:
            loop.turn()
            loop.turn()
            assert opened(loop) == [(*told(k), NOTHING_TO_DECIDE) for k in range(40)]
            assert len(loop.mind._rows) == 40, "the mind knows them at once"
        past = past_of(str(tmp_path / "mine.csv"), "me", None, db)
        assert past is None, "it is there already"
    (timeline,) = load_timelines(str(db)).timelines
    assert len(timeline) == 40


def test_what_activitywatch_holds_is_known_at_the_first_start(tmp_path: Path) -> None:
    server, clock = FakeServer(), StillClock()
    for k in range(20):
        one_day(server, clock, k)
    with live(tmp_path / "a.db", server, clock, None, clock.now()) as loop:
        loop.turn()
        assert len(loop.mind._rows) == 20
        one_day(server, clock, 20)
        loop.turn()
        assert [r.planned for r in loop.ledger.rows()] == [NOTHING_TO_DECIDE] * 20 + [DECIDED]
        assert loop.mind.world.records().shape[0] == 21


def test_while_activitywatch_is_away_it_waits_and_then_comes_whole(tmp_path: Path) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock(600.0)
    past = past_of(recording(tmp_path, 0, 5), "me", None, db)
    server.away = True
    with live(db, server, clock, past, clock.now()) as loop:
        loop.turn()
        assert opened(loop) == []
        assert past_of(past.named, "me", None, db) is not None  # type: ignore[union-attr]
        server.away = False
        loop.turn()
        assert [x[:2] for x in opened(loop)] == [told(k) for k in range(5)]
        lines = "\n".join(status.lines(loop.ledger, None, clock.now()))
        assert f"began with 5 opens of {past.named}, until 2023-11-14 22:17" in lines  # type: ignore[union-attr]


def test_killed_while_it_is_written_it_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock(1200.0)
    named = recording(tmp_path, 0, 8)
    for k in range(6, 10):
        one_day(server, clock, k)
    insert, left = Store._insert, 3

    def deadly(self: Store, table: str, **values: object) -> int:
        nonlocal left
        left -= table == "live_events"
        if left == 0:
            raise KeyboardInterrupt
        return insert(self, table, **values)

    monkeypatch.setattr(Store, "_insert", deadly)
    with live(db, server, clock, past_of(named, "me", None, db), clock.now()) as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.turn()
        assert opened(loop) == []
    monkeypatch.undo()
    with live(db, server, clock, past_of(named, "me", None, db), clock.now()) as loop:
        loop.turn()
        assert [x[:2] for x in opened(loop)] == [told(k) for k in range(10)]


def test_two_recordings_of_one_person_in_the_same_database(tmp_path: Path) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock(1200.0)
    for name, first, stop in (("phone.csv", 0, 6), ("work.csv", 4, 10)):
        timelines.main(["import", recording(tmp_path, first, stop, name=name), "--db", str(db)])
    other = recording(tmp_path, 0, 9, user="ada", name="ada.csv")
    timelines.main(["import", other, "--db", str(db)])
    with live(db, server, clock, past_of(str(db), "me", None, db), clock.now()) as loop:
        loop.turn()
        assert [x[:2] for x in opened(loop)] == [told(k) for k in range(10)]


def test_recorded_offs_come_along(tmp_path: Path) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock(1200.0)
    named = recording(tmp_path, 0, 6)
    with Path(named).open("a") as file:
        file.write(f"me,{T + 200},,off\nme,{T + 230},,wake\nme,{T + 1e4},,off\n")
    with live(db, server, clock, past_of(named, "me", None, db), clock.now()) as loop:
        loop.turn()
        assert [r.off for r in loop.ledger.rows() if r.off < 1e300] == [T + 200]
    (timeline,) = load_timelines(str(db)).timelines
    assert (timeline.offs.tolist(), timeline.wakes.tolist()) == ([T + 200], [T + 230])


def test_what_is_refused(tmp_path: Path) -> None:
    db, server, clock = tmp_path / "a.db", FakeServer(), StillClock()
    named = recording(tmp_path, 0, 5)
    with pytest.raises(InputError, match="is invented"):
        past_of("demo", "me", None, db)
    two = Path(recording(tmp_path, 0, 5, user="ada", name="two.csv"))
    two.write_text(two.read_text() + f"bob,{T},Mail,app\n")
    with pytest.raises(InputError, match=r"holds nothing of 'me'; it has ada, bob; name one with --user"):
        past_of(str(two), "me", None, db)
    assert [x.user for x in past_of(str(two), "bob", None, db).timelines] == ["bob"]  # type: ignore[union-attr]
    one_day(server, clock, 0)
    with live(db, server, clock, None) as loop:
        loop.turn()
    with pytest.raises(InputError, match="has begun without it; leave it out"):
        past_of(named, "me", None, db)
    assert past_of(named, "somebody else", None, db) is not None
    shutil.copy(named, tmp_path / "again.csv")
    with live(tmp_path / "b.db", server, clock, past_of(named, "me", None, tmp_path / "b.db")) as loop:
        loop.turn()
    with pytest.raises(InputError, match=r"has begun with .*mine\.csv; leave it out"):
        past_of(str(tmp_path / "again.csv"), "me", None, tmp_path / "b.db")


def test_the_command_refuses_in_one_line_and_leaves_nothing(tmp_path: Path, cli: Cli) -> None:
    line = ("rlmemo.live", "start", "--policy", "markov1", "--db", "new.db", "--timelines")
    done = cli(*line, "nothing.csv")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nothing.csv" in done.stderr
    (tmp_path / "local.csv").write_text("user,t,target\nme,2025-03-03T09:00:00,Mail\n")
    done = cli(*line, "local.csv")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--tz" in done.stderr
    assert [x.name for x in tmp_path.iterdir()] == ["local.csv"]

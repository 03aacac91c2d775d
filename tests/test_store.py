"""The store: whole or not at all, private, append-only ratings, and plain words for bad files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.sources import load_timelines
from env.timeline import Event
from rlmemo.store import database, schema
from rlmemo.store.database import Store, open_store
from rlmemo.store.records import Prediction, Prewarm


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "memo.db"


def prediction(**more: Any) -> Prediction:
    fields: dict[str, Any] = {
        "user": "ada",
        "t": 1000.0,
        "policy": "markov1",
        "policy_version": "0.1.0",
        "state": "Mon 09:00 after Mail",
        "plan": (Prewarm("Calendar", 30.0), Prewarm("Maps")),
        "probabilities": {"Calendar": 0.6, "Maps": 0.25},
        "propensity": 0.5,
        "none_probability": 0.15,
    }
    return Prediction(**{**fields, **more})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# the file


def test_only_the_owner_can_read_it_whatever_the_umask(db: Path) -> None:
    before = os.umask(0)
    try:
        with open_store(db) as s:
            s.add_prediction(prediction())
            files = [db, Path(f"{db}-wal"), Path(f"{db}-shm")]
            assert [mode(f) for f in files] == [0o600] * 3
    finally:
        os.umask(before)


def test_a_file_that_others_could_read_is_made_private(db: Path) -> None:
    open_store(db).close()
    db.chmod(0o644)
    open_store(db).close()
    assert mode(db) == 0o600


def test_writes_are_durable_and_concurrent(db: Path) -> None:
    with open_store(db) as s:
        pragmas = {
            p: s.db.execute(f"PRAGMA {p}").fetchone()[0]
            for p in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_write_that_need_not_last_leaves_the_next_one_as_it_was(db: Path) -> None:
    with open_store(db) as s:

        def how() -> int:
            return int(s.one("PRAGMA synchronous"))

        with s.write(lasting=False):
            assert how() == 1
        with s.write():
            assert how() == 2
        with pytest.raises(KeyError), s.write(lasting=False):
            raise KeyError
        assert how() == 2


def test_reopening_finds_what_was_written(db: Path) -> None:
    with open_store(db) as s:
        identity = s.add_prediction(prediction())
    with open_store(db) as s:
        assert s.version == len(schema.MIGRATIONS)
        assert s.prediction(identity).state == "Mon 09:00 after Mail"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is not a database at all, and long enough", "is no database, or a damaged one"),
        (b"SQLite format 3\x00" + b"\xff" * 4096, "is no database, or a damaged one"),
    ],
)
def test_what_is_no_database_is_refused_and_left_alone(db: Path, content: bytes, words: str) -> None:
    db.write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_store(db)
    assert db.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(db: Path) -> None:
    with sqlite3.connect(db) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = db.read_bytes()
    with pytest.raises(InputError, match="another program's database"):
        open_store(db)
    assert db.read_bytes() == before


def test_a_newer_version_is_refused(db: Path) -> None:
    open_store(db).close()
    with sqlite3.connect(db) as other:
        other.execute("PRAGMA user_version = 999")
    other.close()
    with pytest.raises(InputError, match=r"newer rlmemo \(version 999"):
        open_store(db)


def test_damage_inside_is_found_on_opening(db: Path) -> None:
    with open_store(db) as s:
        s.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
    raw = bytearray(db.read_bytes())
    middle = (len(raw) // 4096 // 2) * 4096
    raw[middle : middle + 4096] = os.urandom(4096)
    db.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        open_store(db)


def test_places_where_no_file_can_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        open_store(tmp_path)
    with pytest.raises(InputError, match="a folder that exists"):
        open_store(tmp_path / "not" / "there" / "memo.db")
    with pytest.raises(InputError, match="no regular file"):
        open_store("/dev/null")


# versions


def test_older_versions_are_migrated_and_keep_their_rows(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(db) as s:
        identity = s.add_prediction(prediction())
    more = [*schema.MIGRATIONS, lambda d: d.execute("ALTER TABLE predictions ADD COLUMN mood TEXT")]
    monkeypatch.setattr(database, "MIGRATIONS", more)
    with open_store(db) as s:
        assert s.version == len(more)
        assert list(s.db.query("SELECT id, mood FROM predictions")) == [{"id": identity, "mood": None}]


def test_a_migration_that_fails_changes_nothing(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(db).close()

    def broken(d: Any) -> None:
        d.execute("CREATE TABLE half (x)")
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", [*schema.MIGRATIONS, broken])
        with pytest.raises(RuntimeError):
            open_store(db)
    with open_store(db) as s:
        assert s.version == len(schema.MIGRATIONS)
        assert "half" not in s.db.table_names()


@pytest.mark.parametrize("version", range(1, len(schema.MIGRATIONS) + 1))
def test_every_version_ever_made_can_be_brought_up_to_date(
    db: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:version])
        open_store(db).close()
    with open_store(db) as s:
        assert s.version == len(schema.MIGRATIONS)
        s.rate(s.add_prediction(prediction()), "me", 1)
        migrated = sorted(r["sql"] for r in s.db.query("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    with open_store(db.with_name("fresh.db")) as s:
        fresh = sorted(r["sql"] for r in s.db.query("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    assert migrated == fresh


# timelines and events


def test_timelines_come_back_as_they_went_in(db: Path) -> None:
    with open_store(db) as s:
        s.add_timelines(load_timelines("demo", weeks=2, collapsed=False))
    came, went = load_timelines(str(db)), load_timelines("demo", weeks=2)
    assert came.synthetic
    for a, b in zip(came.timelines, went.timelines, strict=True):
        assert (a.user, a.names, a.devices, a.tz, a.tz_known) == (
            b.user,
            b.names,
            b.devices,
            b.tz,
            b.tz_known,
        )
        for column in ("t", "target", "kind", "duration", "device", "wave"):
            assert np.array_equal(getattr(a, column), getattr(b, column), equal_nan=column == "duration")


@pytest.mark.real_data("webtrackr")
def test_waves_survive_the_database(db: Path) -> None:
    with open_store(db) as s:
        s.add_timelines(load_timelines("webtrackr", collapsed=False))
    came, went = load_timelines(str(db)), load_timelines("webtrackr")
    assert came.report.kept == went.report.kept
    assert all(np.array_equal(a.wave, b.wave) for a, b in zip(came.timelines, went.timelines, strict=True))


def test_sources_stay_apart(db: Path) -> None:
    with open_store(db) as s:
        first = s.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
        again = s.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
        other = s.add_timelines(load_timelines("demo", weeks=1, collapsed=False), source="twin")
        assert (first.known, again.known, other.known) == (0, first.events, 0)
        assert (again.events, other.events) == (0, first.events)
        assert {r.source: r.events for r in s.timelines() if r.user == "bo-student"}.keys() == {
            "demo",
            "twin",
        }
    users = [x.user for x in load_timelines(str(db)).timelines]
    assert "bo-student" in users, "who was there first keeps the name"
    assert "twin/bo-student" in users
    assert "bo-student" in [x.user for x in load_timelines(str(db), source="twin").timelines]
    with pytest.raises(InputError, match="no timelines from 'nope'; it has demo, twin"):
        load_timelines(str(db), source="nope")


def test_an_import_that_fails_leaves_nothing_behind(db: Path) -> None:
    loaded = load_timelines("demo", weeks=1, collapsed=False)
    loaded.timelines[-1].t[-1] = np.nan
    with open_store(db) as s:
        with pytest.raises(InputError, match="cannot be stored"):
            s.add_timelines(loaded)
        assert s.timelines() == []


def test_recorded_events_are_appended_and_reduced(db: Path) -> None:
    with open_store(db) as s:
        s.add_events("live", "me", [Event(1.7e9, "https://a.example/secret?q=1", "page")], tz="Europe/Berlin")
        s.add_events("live", "me", [Event(1.7e9 + 1, "Mail\x1b", "app", float("nan"))], tz="Europe/Berlin")
        with pytest.raises(InputError, match="event 2 cannot be stored"):
            s.add_events("live", "me", [Event(1.7e9, "x"), Event(1.7e9, "")], tz="Europe/Berlin")
        with pytest.raises(InputError, match="unknown"):
            s.add_events("live", "me", [], tz="Nowhere")
        (row,) = s.timelines()
        assert (row.events, row.first_t, row.tz) == (2, 1.7e9, "Europe/Berlin")
    assert [e.target for e in load_timelines(str(db)).timelines[0]] == ["a.example", "Mail"]
    assert b"secret" not in db.read_bytes()


def test_reading_a_database_that_holds_nothing_or_is_not_ours(db: Path) -> None:
    open_store(db).close()
    with pytest.raises(InputError, match="holds no timelines yet"):
        load_timelines(str(db))
    foreign = db.with_name("foreign.db")
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE events (x)")
    other.close()
    with pytest.raises(InputError, match="not one of rlmemo's"):
        load_timelines(str(foreign))
    empty = db.with_name("empty.db")
    empty.touch()
    with pytest.raises(InputError, match="is not a database"):
        load_timelines(str(empty))


def test_reading_writes_nothing(db: Path) -> None:
    with open_store(db) as s:
        s.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
    before = db.read_bytes()
    load_timelines(str(db))
    assert db.read_bytes() == before
    assert [p.name for p in db.parent.iterdir()] == ["memo.db"]


def test_what_the_store_has_not_folded_in_yet_is_read_too(db: Path) -> None:
    with open_store(db) as s:
        s.add_events("live", "me", [Event(1.7e9, "Mail")], tz="UTC")
        assert load_timelines(str(db)).report.kept == 1
        s.add_events("live", "me", [Event(1.7e9 + 1, "Maps")], tz="UTC")
        assert load_timelines(str(db)).report.kept == 2


# runs


def test_runs(db: Path) -> None:
    with open_store(db) as s:
        a = s.add_run("runs/a", "sft", "base", "a@0", {"seed": 1})
        b = s.add_run("runs/b", "dpo", "base", "b@0", {"seed": 2})
        s.end_run(a, "finished", {"hr@1": 0.5})
        by_id = {r.id: r for r in s.runs()}
        assert (by_id[a].status, by_id[a].metrics, by_id[a].config) == (
            "finished",
            {"hr@1": 0.5},
            {"seed": 1},
        )
        assert (by_id[b].status, by_id[b].ended_at) == ("running", None)
        with pytest.raises(InputError, match="not as 'lost'"):
            s.end_run(b, "lost")
        with pytest.raises(InputError, match="no run 99"):
            s.end_run(99, "failed")
        with pytest.raises(InputError, match="JSON"):
            s.end_run(b, "finished", {"loss": float("nan")})
        assert {r.id: r.status for r in s.runs()}[b] == "running"


# predictions


def test_a_prediction_comes_back_as_it_went_in(db: Path) -> None:
    with open_store(db) as s:
        run = s.add_run("runs/a", "sft", "base", "a@0", {})
        sent = prediction(run_id=run)
        came = s.prediction(s.add_prediction(sent))
    for name in (
        "user",
        "t",
        "policy",
        "policy_version",
        "state",
        "plan",
        "probabilities",
        "propensity",
        "run_id",
        "key",
    ):
        assert getattr(came, name) == getattr(sent, name), name
    assert came.outcome is None
    assert came.predicted_at is not None
    assert abs(came.predicted_at - time.time()) < 60


def test_the_same_key_is_the_same_prediction(db: Path) -> None:
    with open_store(db) as s:
        assert s.add_prediction(prediction(key="k")) == s.add_prediction(prediction(key="k"))
        assert len(s.predictions()) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"propensity": 0.0},
        {"propensity": 1.01},
        {"propensity": float("nan")},
        {"probabilities": {"a": -0.1}},
        {"probabilities": {"a": float("nan")}},
        {"none_probability": 2.0},
        {"t": float("inf")},
        {"plan": (Prewarm("a", -1.0),)},
    ],
)
def test_probabilities_and_times_out_of_range_are_refused(db: Path, bad: dict[str, Any]) -> None:
    with open_store(db) as s:
        with pytest.raises(InputError):
            s.add_prediction(prediction(**bad))
        assert s.predictions() == []


def test_predictions_by_user_and_by_who_has_not_rated(db: Path) -> None:
    with open_store(db) as s:
        late, early = s.add_prediction(prediction(t=5.0)), s.add_prediction(prediction(t=1.0))
        other = s.add_prediction(prediction(user="bo", t=2.0))
        assert [p.id for p in s.predictions()] == [early, other, late]
        assert [p.id for p in s.predictions(user="ada", limit=1)] == [early]
        s.rate(early, "me", 1)
        assert [p.id for p in s.predictions(unrated_by="me")] == [other, late]
        assert [p.id for p in s.predictions(unrated_by="you")] == [early, other, late]


# ratings


def test_the_latest_rating_counts_and_earlier_ones_stay(db: Path) -> None:
    with open_store(db) as s:
        i = s.add_prediction(prediction())
        s.rate(i, "me", 1)
        s.rate(i, "you", 1)
        s.rate(i, "me", 0, reason="wrong\n moment")
        assert [(r.rater, r.thumbs, r.reason) for r in s.ratings()] == [
            ("you", 1, ""),
            ("me", 0, "wrong moment"),
        ]
        assert [r.thumbs for r in s.ratings(latest=False, rater="me")] == [1, 0]


def test_a_double_click_is_one_rating(db: Path) -> None:
    with open_store(db) as s:
        i, j = s.add_prediction(prediction()), s.add_prediction(prediction())
        assert s.rate(i, "me", 1, key="click") == s.rate(i, "me", 1, key="click")
        assert len(s.ratings(latest=False)) == 1
        for prediction_id, rater, thumbs in ((j, "me", 1), (i, "you", 1), (i, "me", 0)):
            with pytest.raises(InputError, match="used for another rating"):
                s.rate(prediction_id, rater, thumbs, key="click")


@pytest.mark.parametrize("thumbs", [2, -1, 0.5, 1.0, None, "up", float("nan")])
def test_thumbs_are_up_or_down(db: Path, thumbs: Any) -> None:
    with open_store(db) as s:
        i = s.add_prediction(prediction())
        with pytest.raises(InputError, match="accepted are 1"):
            s.rate(i, "me", thumbs)
        assert s.ratings() == []


def test_ratings_of_nothing_or_by_nobody_are_refused(db: Path) -> None:
    with open_store(db) as s:
        with pytest.raises(InputError, match="no prediction 7 to rate"):
            s.rate(7, "me", 1)
        with pytest.raises(InputError, match="needs a rater"):
            s.rate(s.add_prediction(prediction()), " \x07", 1)


@pytest.mark.parametrize("sql", ["UPDATE ratings SET thumbs = 0", "DELETE FROM ratings"])
def test_ratings_cannot_be_changed_even_from_outside(db: Path, sql: str) -> None:
    with open_store(db) as s:
        s.rate(s.add_prediction(prediction()), "me", 1)
    other = sqlite3.connect(db)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(sql)
    other.close()


def test_a_rated_prediction_cannot_be_taken_away(db: Path) -> None:
    with open_store(db) as s:
        s.rate(s.add_prediction(prediction()), "me", 1)
        with pytest.raises(sqlite3.IntegrityError):
            s.db.execute("DELETE FROM predictions")


# several at once


def test_many_threads_write_through_one_store(db: Path) -> None:
    with open_store(db) as s:
        i = s.add_prediction(prediction())
        threads = [
            threading.Thread(target=lambda n=n: [s.rate(i, f"rater{n}", k % 2) for k in range(10)])
            for n in range(4)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(s.ratings(latest=False)) == 40
        assert len(s.ratings()) == 4


def _rate_many(path: str, rater: str, n: int) -> None:
    with open_store(path) as s:
        for k in range(n):
            s.rate(1, rater, 1, key=f"{rater}-{k}")


def test_several_programs_write_at_once(db: Path) -> None:
    with open_store(db) as s:
        s.add_prediction(prediction())
    context = multiprocessing.get_context("spawn")
    programs = [context.Process(target=_rate_many, args=(str(db), f"p{n}", 20)) for n in range(2)]
    for p in programs:
        p.start()
    for p in programs:
        p.join(120)
    assert [p.exitcode for p in programs] == [0, 0]
    with open_store(db) as s:
        assert len(s.ratings(latest=False)) == 40


def test_a_writer_that_does_not_let_go_is_named(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    with open_store(db) as s:
        other = sqlite3.connect(db)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="another program has been writing"):
            s.add_prediction(prediction())
        other.rollback()
        other.close()
        assert s.add_prediction(prediction()) == 1


def _write_until_killed(path: str, ready: Any) -> None:
    with open_store(path) as s:
        loaded = load_timelines("demo", weeks=1, collapsed=False)
        for n in range(10_000):
            s.add_timelines(loaded, source=f"s{n}")
            if n == 2:
                ready.set()


def test_a_program_killed_in_the_middle_leaves_whole_imports_only(db: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    program = context.Process(target=_write_until_killed, args=(str(db), ready))
    program.start()
    assert ready.wait(120)
    assert program.pid is not None
    os.kill(program.pid, signal.SIGKILL)
    program.join(60)
    whole = sum(len(x) for x in load_timelines("demo", weeks=1, collapsed=False).timelines)
    with open_store(db) as s:
        by_source: dict[str, int] = {}
        for row in s.timelines():
            by_source[row.source] = by_source.get(row.source, 0) + row.events
    assert len(by_source) >= 3
    assert set(by_source.values()) == {whole}


def test_a_closed_store_says_so(db: Path) -> None:
    s = open_store(db)
    assert isinstance(s, Store)
    s.close()
    with pytest.raises(sqlite3.ProgrammingError):
        s.timelines()

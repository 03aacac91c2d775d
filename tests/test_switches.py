"""Offs and wakes on their way: from a recording, into the database and out of it, and forgotten there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_sources_table import balanced

from env.errors import InputError
from env.sources import Loaded, load_timelines
from rlmemo import timelines
from rlmemo.store import database, forgetting, schema
from rlmemo.store.database import open_store

NIGHT = """user,t,target,kind
ada,2025-03-03T21:00:00+01:00,Mail,app
ada,2025-03-03T21:05:00+01:00,news.example,page
ada,2025-03-03T21:30:00+01:00,,off
ada,2025-03-04T06:58:00+01:00,,wake
ada,2025-03-04T07:00:00+01:00,news.example,page
ada,2025-03-04T07:00:30+01:00,news.example,page
ada,2025-03-04T07:01:00+01:00,Mail,app
ada,2025-03-04T23:00:00+01:00,the laptop,shutdown
bo,2025-03-04T23:00:00+01:00,,off
"""
OFFS, WAKES = [1741033800.0, 1741125600.0], [1741067880.0]


def loaded(folder: Path, text: str, name: str = "night.csv", **options: object) -> Loaded:
    (folder / name).write_text(text, encoding="utf-8")
    return load_timelines(str(folder / name), **options)  # type: ignore[arg-type]


def test_a_csv_says_when_the_machine_was_off(tmp_path: Path) -> None:
    found = loaded(tmp_path, NIGHT)
    (ada,) = found.timelines
    assert (ada.offs.tolist(), ada.wakes.tolist()) == (OFFS, WAKES)
    assert ada.names == ("Mail", "news.example")
    assert ada.target.tolist() == [0, 1, 1, 0]  # what is opened after an off is no repeat
    report = found.report
    assert (report.rows_read, report.kept, report.collapsed, report.offs, report.wakes) == (9, 4, 1, 2, 1)
    assert dict(report.dropped) == {"off or wake of somebody who opens nothing": 1}
    assert balanced(found)
    assert "switched off 2 times and back once: nothing is in memory" in report.notes[-1]
    assert not any("laptop" in line for line in report.lines())


def test_rows_of_offs_are_looked_at_like_others(tmp_path: Path) -> None:
    """A time that is none, a duplicate, one that is told twice, other people's word for it."""
    more = "ada,soon,,off\nada,2025-03-05T06:00:00Z,,DEVICE_STARTUP\nada,2025-03-05T06:00:00Z,,wake\n"
    found = loaded(
        tmp_path, NIGHT + more + "ada,2025-03-05T06:01:00Z,,wake\nada,2025-03-05T06:00:00Z,,startup\n"
    )
    assert found.timelines[0].wakes.tolist() == [*WAKES, 1741154400.0, 1741154460.0]
    assert found.report.dropped["t is neither unix seconds nor ISO 8601"] == 1
    assert found.report.dropped["exact duplicate of the row before it"] == 1
    assert found.report.dropped["off or wake told again"] == 1
    assert balanced(found)


def test_offs_alone_are_no_timeline(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"night\.csv: says when the machine was off"):
        loaded(tmp_path, "user,t,target,kind\nbo,2025-03-04T23:00:00+01:00,,off\n")


def test_phones_say_it_by_themselves(tmp_path: Path) -> None:
    usage = "".join(
        f"{1571151207626 + 60000 * k},{app},{kind}\n"
        for k, (app, kind) in enumerate(
            [("Chat", 1), ("android", 26), ("android", 27), ("Chat", 1), ("Chat", 15)]
        )
    )
    (phone,) = loaded(tmp_path, usage, "past_usage.csv").timelines
    assert ((phone.offs - phone.t[0]).tolist(), (phone.wakes - phone.t[0]).tolist()) == ([60.0], [120.0])
    assert len(phone) == 2
    line = '    time="2026-03-02 08:0{}:00" type={} package={} flags=0x0\n'
    told = [("ACTIVITY_RESUMED", "chat"), ("DEVICE_SHUTDOWN", "android"), ("DEVICE_STARTUP", "android")]
    text = "user=0\n  events\n" + "".join(line.format(k, *one) for k, one in enumerate([*told, told[0]]))
    found = loaded(tmp_path, text + "  again\n" + line.format(1, *told[1]), "usage.txt", tz="UTC")
    (phone,) = found.timelines
    assert ((phone.offs - phone.t[0]).tolist(), (phone.wakes - phone.t[0]).tolist()) == ([60.0], [120.0])
    assert phone.names == ("chat",)


def test_the_store_keeps_them_and_gives_them_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db, source = str(tmp_path / "memo.db"), tmp_path / "night.csv"
    source.write_text(NIGHT, encoding="utf-8")
    assert timelines.main(["import", str(source), "--db", db]) == 0
    out = capsys.readouterr().out
    assert "switched off 2 times and back once" in out
    assert "3 offs and wakes written" in out
    (ada,) = load_timelines(db).timelines
    assert (ada.offs.tolist(), ada.wakes.tolist(), len(ada)) == (OFFS, WAKES, 4)
    assert timelines.main(["show", db, "--plot", "none"]) == 0
    assert "switched off 2 times and back once" in capsys.readouterr().out
    # The same again adds nothing; one more night of the same person does, though nothing else is new.
    assert timelines.main(["import", str(source), "--db", db, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"]["switches"] == 0
    source.write_text(NIGHT + "ada,2025-03-05T06:00:00Z,,wake\n", encoding="utf-8")
    assert timelines.main(["import", str(source), "--db", db, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["written"]["events"], said["written"]["switches"], said["offs"], said["wakes"]) == (
        0,
        1,
        2,
        2,
    )
    assert load_timelines(db).timelines[0].wakes.tolist() == [*WAKES, 1741154400.0]
    source.write_text("\n".join(NIGHT.splitlines()[:4]) + "\n", encoding="utf-8")
    assert timelines.main(["import", str(source), "--db", db, "--replace"]) == 0
    (ada,) = load_timelines(db).timelines
    assert (ada.offs.tolist(), ada.wakes.tolist()) == (OFFS[:1], [])


def test_forgetting_and_taking_along(tmp_path: Path) -> None:
    with open_store(tmp_path / "memo.db") as store:
        store.add_timelines(loaded(tmp_path, NIGHT, collapsed=False))
        assert forgetting.holdings(store)["switches"] == 3
        rows = [json.loads(line) for line in forgetting.export(store)]
        assert [(x["t"], x["kind"]) for x in rows if x["table"] == "switches"] == [
            *((t, "off") for t in OFFS), (WAKES[0], "wake"),
        ]  # fmt: skip
        forgetting.forget_period(store, OFFS[0], WAKES[0])
        assert [x["t"] for x in store.rows("SELECT t FROM switches ORDER BY t")] == [WAKES[0], OFFS[1]]
        forgetting.forget_everything(store)
        assert forgetting.holdings(store)["switches"] == 0


def test_a_database_from_before_is_read_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db, night = tmp_path / "memo.db", loaded(tmp_path, NIGHT, collapsed=False)
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:7])
        with open_store(db) as store:
            without = [replace(x, offs=np.zeros(0), wakes=np.zeros(0)) for x in night.timelines]
            store.add_timelines(replace(night, timelines=without))
    (ada,) = load_timelines(str(db)).timelines  # read as it is, without a migration
    assert (len(ada.offs), len(ada)) == (0, 3)
    with open_store(db) as store:
        assert store.add_timelines(night).switches == 3
    assert len(load_timelines(str(db)).timelines[0].offs) == 2


def test_a_damaged_off_is_refused(tmp_path: Path) -> None:
    with open_store(tmp_path / "memo.db") as store:
        store.add_timelines(loaded(tmp_path, NIGHT, collapsed=False))
        store.db.execute("UPDATE switches SET t = 9e999 WHERE kind = 'wake'")
    with pytest.raises(InputError, match="an off or a wake of 'ada' is damaged"):
        load_timelines(str(tmp_path / "memo.db"))


def test_the_demos_people_switch_off_at_night() -> None:
    nights, plain = load_timelines("demo-nights"), load_timelines("demo")
    assert nights.synthetic
    for x, y in zip(nights.timelines, plain.timelines, strict=True):
        raw = load_timelines("demo", collapsed=False)
        one = next(z for z in raw.timelines if z.user == x.user)
        assert set(y.t) <= set(x.t) <= set(one.t)  # the same people, the same events
        assert len(x.offs) == len(x.wakes) > 40
        assert ((x.wakes - x.offs) > 2 * 3600).all()
        before, after = np.searchsorted(x.t, x.offs), np.searchsorted(x.t, x.wakes)
        assert np.array_equal(before, after)  # nothing is opened while it is off
        assert ((x.t[after] - x.wakes) <= 240.0).all()
    again = load_timelines("demo-nights", seed=0).timelines
    assert [x.offs.tolist() for x in again] == [x.offs.tolist() for x in nights.timelines]
    assert not np.array_equal(load_timelines("demo-nights", seed=1).timelines[0].offs, again[0].offs)
    assert balanced(nights)

"""Recordings as Parquet: a folder of many people, read one after the other; what others made; what is bad."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from env.errors import InputError
from env.sources import load_timelines, parquet
from env.timeline import Timeline
from experiments.many_people import people
from rlmemo import benchmark, timelines
from rlmemo.runs import parquet_folder
from rlmemo.store.database import open_store
from rlmemo.train import parser as train_parser

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
T = 1_741_000_000.0


def same(one: Timeline, other: Timeline) -> None:
    for f in fields(Timeline):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=f.name)
            assert a.dtype == b.dtype, f.name
        else:
            assert a == b, f.name


@pytest.mark.parametrize("collapsed", [True, False])
@pytest.mark.parametrize("name", ["demo-nights", pytest.param("gesis", marks=pytest.mark.real_data("gesis"))])
def test_what_is_written_is_read_back(tmp_path: Path, name: str, collapsed: bool) -> None:
    """With offs and wakes, unknown zones, and everything else that a timeline says."""
    more = {"weeks": 2} if name == "demo-nights" else {}
    loaded = load_timelines(name, collapsed=False, **more)
    made, rows = parquet_folder.write(tmp_path / "all", loaded.timelines, synthetic=loaded.synthetic)
    assert made == len(loaded.timelines)
    assert rows == sum(len(x) + len(x.offs) + len(x.wakes) for x in loaded.timelines)
    back = load_timelines(str(tmp_path / "all"), collapsed=collapsed)
    assert back.synthetic == loaded.synthetic
    assert back.report.rows_read == rows
    wanted = load_timelines(name, collapsed=collapsed, **more).timelines
    for one, other in zip(back.timelines, wanted, strict=True):
        same(one, other)


def test_people_are_found_and_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_folder, "PEOPLE_PER_FILE", 4)
    everybody = list(people(10, 60, 0))
    assert len({x.t.tobytes() for x in everybody}) == 10
    parquet_folder.write(tmp_path / "all", iter(everybody), synthetic=True)
    assert [p.name for p in sorted((tmp_path / "all").iterdir())] == [
        f"part-0000{k}.parquet" for k in range(3)
    ]
    found = parquet.index(tmp_path / "all")
    assert list(found) == [f"person{k:06d}" for k in range(10)]
    assert [p.name for p in found["person000005"]] == ["part-00001.parquet"]
    read: list[int] = []
    groups_of = parquet._groups_of

    def noted(*given: object) -> list[int]:
        groups = list(groups_of(*given))  # type: ignore[arg-type]
        read.extend(groups)
        return groups

    monkeypatch.setattr(parquet, "_groups_of", noted)
    alone = parquet.load(tmp_path / "all", only={"person000005": found["person000005"]}, collapsed=False)
    assert read == [1], "one row group of the four in that file"
    (one,) = alone.timelines
    same(one, everybody[5])


def test_a_person_in_two_files_is_one(tmp_path: Path) -> None:
    for k, rows in enumerate(([("ada", T, "Mail"), ("bo", T + 1, "Maps")], [("ada", T + 9.5, "Files")])):
        columns = dict(zip(("user", "t", "target"), zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table({n: list(c) for n, c in columns.items()}), tmp_path / f"{k}.parquet")
    ada, bo = load_timelines(str(tmp_path), tz="UTC").timelines
    assert [(e.t, e.target) for e in ada] == [(T, "Mail"), (T + 9.5, "Files")]
    assert [e.target for e in bo] == ["Maps"]


def test_numbers_as_users_and_rows_of_nobody(tmp_path: Path) -> None:
    """Numbers sort otherwise than their texts do, and what says no user is left out and counted."""
    who = [2, 2, 10, 10, 30, None]
    table = pa.table({"user": pa.array(who), "t": [T + k for k in range(6)], "target": list("abcdef")})
    pq.write_table(table, tmp_path / "a.parquet")
    loaded = load_timelines(str(tmp_path), tz="UTC")
    assert {x.user: [e.target for e in x] for x in loaded.timelines} == {
        "2": ["a", "b"], "10": ["c", "d"], "30": ["e"],
    }  # fmt: skip
    assert dict(loaded.report.dropped) == {"user is missing": 1}
    assert (loaded.report.rows_read, loaded.report.kept) == (6, 5)


def test_who_cannot_be_read_is_named(tmp_path: Path) -> None:
    table = pa.table({"user": ["ada", "bo"], "t": [str(T), "yesterday"], "target": ["Mail", "Maps"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"^user '?bo'?: .*a\.parquet: 1 of 1 rows cannot be used"):
        load_timelines(str(tmp_path), tz="UTC")


def test_what_others_made(tmp_path: Path) -> None:
    """Times with a zone, categories, names of their own, no column of users: as in a CSV of the same."""
    times = [dt.datetime(2026, 3, 2, 9, k, tzinfo=dt.timezone(dt.timedelta(hours=1))) for k in range(8)]
    table = pa.table({
        "Timestamp": pa.array(times, pa.timestamp("us", tz="Europe/Berlin")),
        "URL": pa.array([f"https://{'ab'[k % 2]}.example/x?q={k}" for k in range(8)]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "mine.parquet")
    asked = {"columns": "t=Timestamp,target=URL", "user": "ada"}
    (found,) = load_timelines(str(tmp_path / "mine.parquet"), tz="Europe/Berlin", **asked).timelines
    rows = [f"{t.isoformat()},https://{'ab'[k % 2]}.example/x?q={k}" for k, t in enumerate(times)]
    (tmp_path / "mine.csv").write_text("\n".join(["Timestamp,URL", *rows]) + "\n")
    (wanted,) = load_timelines(str(tmp_path / "mine.csv"), tz="Europe/Berlin", **asked).timelines
    same(found, wanted)
    assert found.user == "ada"


def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path) -> None:
    parquet_folder.write(tmp_path / "all", people(3, 60, 0))
    (file,) = (tmp_path / "all").iterdir()
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4] + b"\0" * 40 + whole[44:], b"PAR1"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"cannot be read as Parquet .*copy it anew") as error:
            load_timelines(str(tmp_path / "all"))
        assert "\n" not in str(error.value)
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), file)
    with pytest.raises(InputError, match="no column t and no column target"):
        load_timelines(str(tmp_path / "all"))


def test_a_column_that_is_missing_is_asked_for_and_no_import_is_advised(tmp_path: Path) -> None:
    """An import of one file would lose the others' people, and their time zones; --user makes one of all."""
    for columns, said in (
        ({"t": [T], "target": ["a"]}, "no column user; found 't', 'target'; wanted are columns user, t and"),
        ({"user_id": ["ada"], "t": [T], "target": ["a"]}, "rename (user_id may be user) or add them"),
        ({"user": ["ada"], "url": ["a"]}, "no column t and no column target"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(InputError) as error:
            load_timelines(str(tmp_path))
        assert said in str(error.value)
        assert "a.parquet, which is Parquet: no column" in str(error.value)
        assert "import" not in str(error.value)
        assert "--user" not in str(error.value)


def test_a_folder_without_parquet_or_without_rows_is_said(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("x")
    table = pa.table({"user": ["ada"], "t": [T], "target": ["a"]})
    pq.write_table(table, tmp_path / "sub" / "a.parquet")
    with pytest.raises(InputError, match=r"holds no \.parquet file \(subfolders are not read\); name a file"):
        load_timelines(str(tmp_path))
    pq.write_table(table.slice(0, 0), tmp_path / "sub" / "a.parquet")
    with pytest.raises(InputError, match="sub: has the right columns and no rows"):
        load_timelines(str(tmp_path / "sub"))


def test_a_row_is_named_by_its_user(tmp_path: Path) -> None:
    """There are no lines; and of a folder without faults nothing is said."""
    times = [str(T), str(T + 5), "2026-03-02T09:00:00"]
    table = pa.table({"user": ["ada"] * 3, "t": times, "target": ["a", "b", "c"]})
    pq.write_table(table.slice(0, 2), tmp_path / "a.parquet")
    assert not any("Parquet" in x for x in load_timelines(str(tmp_path)).report.notes)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"user 'ada': .*a\.parquet, row 3 of this user: t is"):
        load_timelines(str(tmp_path))
    times[2] = "soon"
    pq.write_table(table.set_column(1, "t", pa.array(times)), tmp_path / "a.parquet")
    (first,) = load_timelines(str(tmp_path)).report.first.values()
    assert first == "user 'ada', row 3 of this user: 'soon'"


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> object:
        yield from people(2, 60, 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parquet_folder.write(tmp_path / "new", broken())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    parquet_folder.write(tmp_path / "new", people(2, 60, 0))
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="is there already"):
        parquet_folder.write(tmp_path / "new", people(2, 60, 0))


def test_the_command_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("rlmemo.timelines", "import", "demo", "--weeks", "2", "--to", "all")
    assert done.returncode == 0, done.stderr
    assert "of 6 people written" in done.stdout
    judged = cli(
        "rlmemo.benchmark", "--timelines", "all", "--policies", "mru", "--json", "a.json", "--draws", "20"
    )
    assert judged.returncode == 0, judged.stderr
    drawn = load_timelines("demo", weeks=2)
    assert json.loads((tmp_path / "a.json").read_text())["n_users"] == len(drawn.timelines)
    again = cli("rlmemo.timelines", "import", "demo", "--to", "all")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr


def test_a_folder_instead_of_a_database(tmp_path: Path) -> None:
    """What is about a database is refused beside it, and where none can be made nobody is told to resume."""
    given = ("import", "demo", "--weeks", "1", "--to", str(tmp_path / "new"))
    for more, said in (
        (("--name", "x"), "--name: is about a database"),
        (("--db", str(tmp_path / "x.db")), "--db: not allowed with --to; leave one of them out"),
        (("--db", "rlmemo.db"), "--db: not allowed with --to; leave one of them out"),
    ):
        with pytest.raises(InputError, match=said):
            timelines.main([*given, *more])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="name a place in a folder of yours") as error:
        parquet_folder.write(Path("/proc/x"), people(2, 60, 0))
    assert "resume" not in str(error.value)


def test_the_help_says_that_timelines_may_be_parquet() -> None:
    for made in (benchmark.parser(), train_parser()):
        (one,) = (x for x in made._actions if "--timelines" in x.option_strings)
        assert "Parquet file or folder" in str(one.help)


def test_a_database_is_opened_through_sqlite_alone(tmp_path: Path) -> None:
    """Not even to see that it is no Parquet: its locks would be lost (`no_raw_opens` watches)."""
    with open_store(tmp_path / "a.db") as store:
        store.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
        assert len(load_timelines(str(tmp_path / "a.db")).timelines) == 6

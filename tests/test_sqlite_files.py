"""Database files are left alone: ours while a connection holds them, other people's always."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import raw_opens
from predictions_to_rate import fill

from dashboard.__main__ import check_db
from env.errors import InputError
from env.sources import load_timelines
from env.sources.database import is_database
from env.sources.sqlite_files import APPLICATION_ID, Kind, is_held, kind_of, private_copy
from env.timeline import Event
from rlmemo.store.database import open_store, store_when_done

Cli = Callable[..., subprocess.CompletedProcess[str]]

# What each page of the dashboard does with the database's file, in one process, with votes between.
PAGES = """
import sys
from pathlib import Path
from env.sources import load_timelines
from rlmemo.store import forgetting, ratings
from rlmemo.runs.learned_days import learned_until
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.record import database_of
from rlmemo.store import open_store
from rlmemo.store.database_file import check_store

db = sys.argv[1]
store = open_store(db)

def days():
    load_timelines(db)

def policies():
    ratings.approval(store)

def train():
    database_of(TrainConfig(timelines=db, feedback=db))

def privacy():
    forgetting.holdings(store)
    sum(map(len, forgetting.export(store)))

def again():
    check_store(Path(db))
    open_store(db).close()

for page in (days, policies, train, privacy, again, days, train, again, days):
    showing = ratings.show_next(store, "me", 0.5)
    assert ratings.rate(store, showing, 1) is ratings.Vote.RECORDED
    print(showing.key, flush=True)
    page()
    sys.stdin.readline()
"""


def test_no_acknowledged_vote_is_lost_whatever_page_was_looked_at(tmp_path: Path, cli: Cli) -> None:
    db = fill(tmp_path / "a.db")
    with open_store(db) as store:
        store.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
    voter = subprocess.Popen(
        [sys.executable, "-c", PAGES, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert voter.stdin is not None
    assert voter.stdout is not None
    told = []
    try:
        while len(told) < 9:
            told.append(voter.stdout.readline().strip())
            beside = cli("rlmemo.feedback", "show", "--db", str(db))
            assert beside.stdout.startswith(f"{len(told)} ratings"), beside.stderr
            if len(told) < 9:
                voter.stdin.write("\n")
                voter.stdin.flush()
    finally:
        voter.send_signal(signal.SIGKILL)
        voter.wait()
        voter.stdin.close()
        voter.stdout.close()
    with open_store(db) as store:
        assert [r.key for r in store.ratings()] == told
        assert store.one("PRAGMA integrity_check") == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="open files are read from /proc")
def test_the_tests_notice_a_file_that_is_opened_while_it_is_held(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    link = tmp_path / "link.db"
    with open_store(db) as store:
        store.add_events("live", "me", [Event(1.7e9, "Mail")], tz="UTC")
        link.symlink_to(db)
        for path in (db, link, Path(f"{db}-wal"), Path(f"{db}-shm")):
            with pytest.raises(AssertionError, match="locks will be lost"):
                path.read_bytes()
        with pytest.raises(AssertionError, match="locks will be lost"):
            os.open(db, os.O_RDONLY)
    assert len(raw_opens.found) == 5
    raw_opens.found.clear()
    db.read_bytes()


def test_what_a_connection_holds_is_known_until_the_last_is_closed(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    first, second = open_store(db), open_store(db)
    os.symlink(db, tmp_path / "link.db")
    assert is_held(db)
    assert is_held(tmp_path / "link.db")
    first.close()
    assert is_held(db)
    second.close()
    assert not is_held(db)
    store = open_store(db)
    del store  # not closed, and gone
    gc.collect()
    assert not is_held(db)
    assert kind_of(db) is Kind.OURS


# other people's


def sqlite(path: Path, *statements: str, kill: bool = False) -> Path:
    """Run statements on a database in another process, which is killed with the file open if asked for."""
    end = "os.kill(os.getpid(), 9)" if kill else "db.close()"
    code = f"import os, sqlite3; db = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
    code += "".join(f"db.execute({x!r}).fetchall()\n" for x in statements) + end
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == (-9 if kill else 0)
    return path


VISITS = (
    "CREATE TABLE moz_places (url)",
    "INSERT INTO moz_places VALUES ('https://a.example/')",
)
OLD = (
    "CREATE TABLE timelines (id, source, user, tz, tz_known, synthetic)",
    "CREATE TABLE events (id, timeline_id, t, target, kind, duration, device, wave)",
    "INSERT INTO timelines VALUES (1, 'mine', 'me', 'UTC', 1, 0)",
    "INSERT INTO events VALUES (1, 1, 1.7e9, 'Mail', 'app', NULL, NULL, 0)",
)
MORE = (
    "INSERT INTO events SELECT n, 1, 1.7e9 + n, 'Maps', 'app', NULL, NULL, 0 FROM "
    "(WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < 5000) SELECT n FROM c)"
)
SPILL = ("PRAGMA cache_size = 2", "PRAGMA cache_spill = 1", "BEGIN")


def foreign(name: str, folder: Path) -> Path:
    path = folder / "theirs.sqlite"
    if name == "plain":
        return sqlite(path, *VISITS)
    if name == "signed":
        return sqlite(path, "PRAGMA application_id = 77", *VISITS)
    if name == "wal":
        return sqlite(path, "PRAGMA journal_mode = WAL", *VISITS, kill=True)
    if name == "signed wal":
        return sqlite(path, "PRAGMA application_id = 77", "PRAGMA journal_mode = WAL", *VISITS, kill=True)
    sqlite(path, *VISITS, "CREATE TABLE filler (x)")
    filling = "INSERT INTO filler SELECT hex(randomblob(900)) FROM generate_series(1, 2000)"
    filling = filling.replace("generate_series(1, 2000)", "json_each('[" + "0," * 1999 + "0]')")
    sqlite(path, *SPILL, filling, kill=True)
    assert Path(f"{path}-journal").stat().st_size > 512
    return path


def as_it_is(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Digest, time and mode of every file."""
    return {
        p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns, p.stat().st_mode)
        for p in sorted(folder.iterdir())
    }


THEIRS = ("plain", "signed", "wal", "signed wal", "hot journal")


@pytest.mark.parametrize("name", THEIRS)
def test_other_peoples_databases_stay_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scratch = tmp_path / "theirs", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    path = foreign(name, folder)
    before = as_it_is(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert is_database(path)
    for refuses, words in (
        (lambda: load_timelines(str(path)), "not one of rlmemo's"),
        (lambda: open_store(path), "another program's database"),
        (lambda: open_store(path, make=False), "another program's database"),
        (lambda: check_db(str(path)), "another program's database"),
    ):
        with pytest.raises(InputError, match=words):
            refuses()
        assert as_it_is(folder) == before
    for end in ("-wal", "-journal"):
        if Path(f"{path}{end}").exists():
            with pytest.raises(InputError, match="part of the database"):
                load_timelines(f"{path}{end}")
    assert as_it_is(folder) == before
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("name", ["wal", "hot journal"])
def test_no_command_touches_other_peoples_databases(name: str, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = str(foreign(name, folder))
    before = as_it_is(folder)
    for line in (
        ("rlmemo.timelines", "list", "--db", path),
        ("rlmemo.timelines", "import", "demo", "--weeks", "1", "--db", path),
        ("rlmemo.timelines", "show", path, "--plot", "none"),
        ("rlmemo.timelines", "import", path, "--db", "new.db"),
        ("rlmemo.predict", "--timelines", "demo", "--policy", "mru", "--db", path),
        ("rlmemo.feedback", "show", "--db", path),
        ("rlmemo.train", "--db", path, "--out", "run"),
        ("rlmemo.train", "--feedback", path, "--out", "run"),
        ("rlmemo.train", "--timelines", path, "--out", "run"),
        ("rlmemo.benchmark", "--timelines", path, "--policies", "mru"),
        ("dashboard", "--db", path, "--no-open"),
    ):
        done = cli(*line, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (line, done.stderr)
        assert "another program's" in done.stderr or "not one of rlmemo's" in done.stderr
        assert as_it_is(folder) == before, line
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("how", ["wal", "hot journal"])
def test_a_copy_holds_what_the_original_says(how: str, tmp_path: Path) -> None:
    """One that has our tables and not our mark is read, as a copy that nobody else can."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = folder / "old.db"
    if how == "wal":
        sqlite(path, "PRAGMA journal_mode = WAL", *OLD, MORE, kill=True)
        events = 5000
    else:
        sqlite(path, *OLD)
        sqlite(path, *SPILL, MORE, kill=True)
        assert Path(f"{path}-journal").exists()
        events = 1
    before = as_it_is(folder)
    assert load_timelines(str(path), collapsed=False).report.kept == events
    with private_copy(path) as copy:
        here = Path(copy.execute("PRAGMA database_list").fetchone()[2])
        assert here.parent.stat().st_mode & 0o777 == 0o700
        assert all(x.stat().st_mode & 0o077 == 0 for x in here.parent.iterdir())
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            copy.execute("DELETE FROM events")
    assert not here.parent.exists()
    assert as_it_is(folder) == before


# ours


STORE = """
import os, sys
from env.timeline import Event
from rlmemo.store import database
if sys.argv[2] == "unsigned":
    database._sign = lambda db: None
opened = database.open_store(sys.argv[1])
opened.add_events("live", "me", [Event(1.7e9, "Mail"), Event(1.7e9 + 1, "Maps")], tz="UTC")
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["signed", "unsigned"])
def test_ours_is_read_with_what_only_its_wal_holds(how: str, tmp_path: Path) -> None:
    """Also one of a version that did not sign its header first, killed before anything was folded in."""
    db = tmp_path / "a.db"
    subprocess.run([sys.executable, "-c", STORE, str(db), how], check=False)
    assert Path(f"{db}-wal").stat().st_size > 0
    assert kind_of(db) is (Kind.OURS if how == "signed" else Kind.UNTOLD)
    assert load_timelines(str(db)).report.kept == 2
    with open_store(db) as store:
        assert store.timelines()[0].events == 2
        assert load_timelines(str(db)).report.kept == 2
    assert db.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big")


def _open_and_write(path: Path, number: int) -> None:
    with open_store(path) as store:
        store.add_events("live", f"user {number}", [Event(1.7e9, "Mail")], tz="UTC")


def test_many_programs_make_the_same_store_at_once(tmp_path: Path) -> None:
    context, path = multiprocessing.get_context("spawn"), tmp_path / "a.db"
    crew = [context.Process(target=_open_and_write, args=(path, k)) for k in range(6)]
    for one in crew:
        one.start()
    for one in crew:
        one.join(60)
    assert [one.exitcode for one in crew] == [0] * 6
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT COUNT(*) FROM events").fetchone() == (6,)


# what is refused leaves nothing behind


@pytest.mark.parametrize(
    "line",
    [
        ("rlmemo.predict", "--timelines", "nowhere.csv", "--policy", "mru"),
        ("rlmemo.predict", "--timelines", "bad.csv", "--policy", "mru"),
        ("rlmemo.predict", "--timelines", "demo", "--policy", "nobody"),
        ("rlmemo.predict", "--timelines", "demo", "--policy", "mru", "--cost", "none such"),
        ("rlmemo.predict", "--timelines", "demo", "--policy", "mru", "--against", "nobody"),
        ("rlmemo.timelines", "import", "bad.csv"),
        ("rlmemo.timelines", "import", "demo", "--weeks", "1", "--name", "\u200b"),
        ("rlmemo.timelines", "show", "rlmemo.db"),
        ("rlmemo.timelines", "list", "--db", "rlmemo.db", "--nonsense"),
        ("rlmemo.feedback", "show"),
        ("rlmemo.feedback", "evaluate", "--policy", "mru"),
        ("rlmemo.train", "--timelines", "bad.csv", "--db", "rlmemo.db"),
        ("rlmemo.train", "--timelines", "demo", "--reward", "nonsense", "--db", "rlmemo.db"),
        ("rlmemo.train", "--timelines", "demo", "--feedback", "rlmemo.db"),
        ("rlmemo.train", "--timelines", "few.csv", "--db", "rlmemo.db"),
        ("rlmemo.benchmark", "--timelines", "rlmemo.db"),
    ],
    ids=" ".join,
)
def test_what_is_refused_leaves_no_database_behind(line: tuple[str, ...], tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "bad.csv").write_text("user,t,target\nme,yesterday,Mail\n")
    (tmp_path / "few.csv").write_text("user,t,target\nme,1700000000,Mail\nme,1700000100,Maps\n")
    done = cli(*line)
    assert done.returncode == 2, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "few.csv"]


def test_an_empty_file_is_not_made_a_database_by_asking_for_ratings(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "rlmemo.db").touch()
    for line in (("rlmemo.feedback", "show"), ("rlmemo.train", "--feedback", "rlmemo.db")):
        done = cli(*line)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert (tmp_path / "rlmemo.db").stat().st_size == 0
        assert [p.name for p in tmp_path.iterdir()] == ["rlmemo.db"]


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt, InputError])
def test_a_new_store_comes_to_its_place_whole(ends: type[BaseException] | None, tmp_path: Path) -> None:
    """Where the work is refused there is none; where it was stopped, what was done stays done."""
    db, link = tmp_path / "a.db", tmp_path / "link.db"
    link.symlink_to(db)  # it goes where the link leads
    with suppress(KeyboardInterrupt, InputError), store_when_done(link) as store:
        store.add_events("live", "me", [Event(1.7e9, "Mail")], tz="UTC")
        assert not db.exists()
        if ends is not None:
            raise ends
    assert sorted(p.name for p in tmp_path.iterdir()) == (["a.db", "link.db"] if db.exists() else ["link.db"])
    assert db.exists() == (ends is not InputError)
    if db.exists():
        assert db.stat().st_mode & 0o777 == 0o600
        assert load_timelines(str(db)).report.kept == 1


def test_a_store_that_somebody_else_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    with pytest.raises(InputError, match="another program has made it meanwhile"), store_when_done(db):
        _open_and_write(db, 1)
    assert load_timelines(str(db)).report.kept == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize(
    "words",
    [
        ["rlmemo.benchmark", "--timelines", "few.csv", "--policies", "mru", "--json", "mine.db"],
        ["rlmemo.benchmark", "--timelines", "few.csv", "--policies", "mru", "--html", "mine.db"],
        ["rlmemo.feedback", "show", "--db", "mine.db", "--json", "mine.db"],
        ["rlmemo.feedback", "pairs", "--db", "mine.db", "--out", "mine.db"],
    ],
    ids=lambda words: " ".join(words[:2] + words[-2:]),
)
def test_no_report_takes_the_place_of_a_database(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    db = tmp_path / "mine.db"
    with open_store(db) as store:
        store.add_events("live", "me", [Event(1.7e9, "Mail")], tz="UTC")
    before = db.read_bytes()
    done = cli(*words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "mine.db: is a database, and would be overwritten" in done.stderr
    assert db.read_bytes() == before

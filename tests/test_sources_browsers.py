"""Browsers' history databases, Google Takeout and ActivityWatch's other exports: what counts as an opening,
when it was, and that nothing foreign is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from shared_cases import case

from env.errors import InputError
from env.sources import Loaded, load_timelines
from rlmemo import timelines
from rlmemo.store.database import open_store

Cli = Callable[..., subprocess.CompletedProcess[str]]
EIGHT = 1772438400  # 2026-03-02 08:00Z
WEBKIT, APPLE = 11644473600, 978307200  # seconds from 1601, and to 2001

CHROME = """
CREATE TABLE urls (id INTEGER PRIMARY KEY, url, title, visit_count, last_visit_time);
CREATE TABLE visits (id INTEGER PRIMARY KEY, url, visit_time, from_visit, transition, originator_cache_guid);
"""
FIREFOX = """
CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url, title);
CREATE TABLE moz_historyvisits (id INTEGER PRIMARY KEY, from_visit, place_id, visit_date, visit_type);
"""
SAFARI = """
CREATE TABLE history_items (id INTEGER PRIMARY KEY, url);
CREATE TABLE history_visits (id INTEGER PRIMARY KEY, history_item, visit_time REAL, load_successful,
                             redirect_destination, origin);
"""
START, END, SERVER = 0x10000000, 0x20000000, 0x80000000


def chrome(path: Path, wal: bool = False) -> Path:
    def visit(k: int, transition: int, guid: str = "") -> tuple[Any, ...]:
        return (k, k, (WEBKIT + EIGHT + 60 * k) * 10**6, 0, transition, guid)

    visits = [
        visit(0, 1 | START | END),  # typed
        visit(1, START),  # sent on to 2
        visit(2, SERVER | END),
        visit(3, 3 | START | END),  # a frame that loaded by itself
        visit(4, (SERVER | END) - 2**32),  # as older versions store it: a signed number
        visit(5, START | END, "phone"),
        visit(6, 0),  # imported from another browser
    ]
    return made(path, CHROME, "urls (id, url)", "visits", visits, wal)


def firefox(path: Path, wal: bool = False) -> Path:
    def visit(k: int, kind: int, before: int = 0) -> tuple[Any, ...]:
        return (k + 1, before, k, (EIGHT + 60 * k) * 10**6, kind)

    visits = [visit(0, 1), visit(1, 2), visit(2, 5, 2), visit(3, 8), visit(4, 9), visit(5, 7), visit(6, 1)]
    return made(path, FIREFOX, "moz_places (id, url)", "moz_historyvisits", visits, wal)


def safari(path: Path, wal: bool = False) -> Path:
    def visit(k: int, loaded: int = 1, onward: int | None = None, origin: int = 0) -> tuple[Any, ...]:
        return (k, k, EIGHT + 60 * k - APPLE + 0.25, loaded, onward, origin)

    visits = [
        visit(0), visit(1, onward=2), visit(2), visit(3, loaded=0), visit(4), visit(5, origin=1), visit(6),
    ]  # fmt: skip
    return made(path, SAFARI, "history_items (id, url)", "history_visits", visits, wal)


MAKE = """
import json, os, sqlite3, sys
path, schema, addresses, table, visits, wal = json.load(sys.stdin)
db = sqlite3.connect(path, isolation_level=None)
if wal:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
db.executescript(schema)
hosts = [(k, f"https://ada:pw@h{k}.example/SECRET?q=SECRET") for k in range(7)]
db.executemany(f"INSERT INTO {addresses} VALUES (?, ?)", hosts)
db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(visits[0]))})", visits)
if wal:
    os.kill(os.getpid(), 9)  # as it lies there while the browser runs: all of it in the -wal
db.close()
"""


def made(
    path: Path, schema: str, addresses: str, table: str, visits: list[tuple[Any, ...]], wal: bool
) -> Path:
    """A browser's database, made by another process; wal: as one that still runs leaves it."""
    given = json.dumps([str(path), schema, addresses, table, visits, wal])
    done = subprocess.run([sys.executable, "-c", MAKE], input=given, text=True, check=False)
    assert done.returncode == (-9 if wal else 0)
    return path


BROWSERS = {"Chrome": chrome, "Firefox": firefox, "Safari": safari}
LEFT_OUT = {
    "Chrome": "1: a frame within a page, 1: another device (synced), 1: sent on at once",
    "Firefox": "1: a frame within a page, 1: downloads, 1: sent on at once",
    "Safari": "1: another device (synced), 1: sent on at once, 1: what did not load",
}


def rows(loaded: Loaded) -> list[tuple[str, str]]:
    return [
        (e.target, f"{datetime.fromtimestamp(e.t, UTC):%Y-%m-%dT%H:%MZ}") for x in loaded.timelines for e in x
    ]


def everything(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Digest, time of change and mode of every file, the folder's own time with them."""
    found = {
        p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns, p.stat().st_mode)
        for p in sorted(folder.iterdir())
        if p.is_file()
    }
    return found | {".": ("", folder.stat().st_mtime_ns, folder.stat().st_mode)}


@pytest.mark.parametrize("wal", [False, True], ids=["closed", "running"])
@pytest.mark.parametrize("browser", BROWSERS)
def test_what_was_seen_and_when(
    browser: str, wal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scratch = tmp_path / "theirs", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    path = BROWSERS[browser](folder / "History", wal)
    assert Path(f"{path}-wal").exists() == wal
    before = everything(path.parent)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    loaded = load_timelines(str(path), collapsed=False, user="ada")
    assert rows(loaded) == [(f"h{k}.example", f"2026-03-02T08:0{k}Z") for k in (0, 2, 4, 6)]
    assert [x.user for x in loaded.timelines] == ["ada"]
    assert any(f"opened nothing were left out ({LEFT_OUT[browser]})" in x for x in loaded.report.notes)
    assert "SECRET" not in "\n".join(loaded.report.lines())
    assert everything(path.parent) == before
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("name", ["03_History", "04_wal/places.sqlite", "46_safari_History.db"])
def test_03_04_46_the_cases_stay_as_they_are_whatever_is_done_with_them(
    name: str, tmp_path: Path, cli: Cli
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = case(f"timelines/{name}")
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    before, it = everything(folder), str(folder / path.name)
    for line in (
        ("import", it, "--db", "new.db"),
        ("import", it, "--db", "new.db"),  # again: nothing new
        ("show", it, "--plot", "none"),
    ):
        done = cli("rlmemo.timelines", *line)
        assert done.returncode == 0, done.stderr
        assert everything(folder) == before, line
    done = cli("rlmemo.timelines", "import", "demo", "--weeks", "1", "--db", it)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "another program's" in done.stderr
    assert everything(folder) == before
    hosts = {"03_History": ["news.example"] * 2, "46_safari_History.db": ["news.example"]}
    told = rows(load_timelines(str(tmp_path / "new.db"), collapsed=False))
    assert [x for x, _ in told] == hosts.get(name, [f"h{k}.example" for k in range(5)])
    assert told[0][1] == "2026-03-02T08:00Z"


def test_a_history_is_imported_page_by_page(tmp_path: Path) -> None:
    path, db = chrome(tmp_path / "History"), str(tmp_path / "mine.db")
    timelines.main(["import", str(path), "--db", db, "--name", "chrome"])
    assert len(rows(load_timelines(db, source="chrome"))) == 4
    with open_store(db) as store:
        kept = store.rows("SELECT * FROM events")
        assert "SECRET" not in json.dumps(kept)
        assert {r["kind"] for r in kept} == {"page"}


def empty_chrome(folder: Path) -> Path:
    return made(folder / "History", CHROME, "urls (id, url)", "visits", [(0, 0, 0, 0, 3, "")], False)


def cut_off(folder: Path) -> Path:
    path = chrome(folder / "History")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def overwritten(folder: Path) -> Path:
    """One whose page of visits is lost."""
    path = chrome(folder / "History")
    data = path.read_bytes()
    path.write_bytes(data[:-4096] + b"\xff" * 4096)
    return path


@pytest.mark.parametrize(
    ("broken", "options", "words"),
    [
        (empty_chrome, (), "holds no visits that opened a page (1: a frame within a page)"),
        (cut_off, (), "cannot be read as a database (database disk image is malformed); copy it anew"),
        (overwritten, (), "is Chrome's history (or Edge's, or another Chromium's), and damaged"),
        (lambda x: chrome(x / "History"), ("--columns", "t=a"), "says how to read a CSV"),
        (lambda x: chrome(x / "History"), ("--epoch", "webkit"), "says how to read a CSV"),
    ],
    ids=["nothing seen", "cut off", "overwritten", "columns", "epoch"],
)
def test_what_is_broken_is_refused_in_one_line(
    broken: Callable[[Path], Path], options: tuple[str, ...], words: str, tmp_path: Path, cli: Cli
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = broken(folder)
    before = everything(folder)
    done = cli("rlmemo.timelines", "import", str(path), "--db", "new.db", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert everything(folder) == before
    assert [x.name for x in tmp_path.iterdir()] == ["theirs"]


def written(folder: Path, data: Any) -> str:
    path = folder / "export.json"
    path.write_text(json.dumps(data))
    return str(path)


ACTIVITY = [
    {
        "header": "Chrome",
        "title": "Visited N",
        "titleUrl": "https://www.google.com/url?q=https://news.example/a?SECRET&usg=x",
        "time": "2026-03-02T08:00:00.123Z",
        "products": ["Chrome"],
    },
    {
        "header": "Chat",
        "title": "Chat verwendet",
        "titleUrl": "https://play.google.com/store/apps/details?id=org.ex.chat",
        "time": "2026-03-02T08:01:00Z",
        "products": ["Android"],
    },
    {
        "header": "Search",
        "title": "SECRET",
        "titleUrl": "https://www.google.com/search?q=SECRET",
        "time": "2026-03-02T08:02:00Z",
        "products": ["Search"],
    },
]


def test_takeouts_my_activity(tmp_path: Path) -> None:
    loaded = load_timelines(written(tmp_path, ACTIVITY))
    assert rows(loaded) == [("news.example", "2026-03-02T08:00Z"), ("Chat", "2026-03-02T08:01Z")]
    assert [e.kind for x in loaded.timelines for e in x] == ["page", "app"]
    assert any("left out: 1 of Search" in x for x in loaded.report.notes)
    assert "SECRET" not in "\n".join(loaded.report.lines())
    with pytest.raises(InputError, match="My Activity"):
        load_timelines(written(tmp_path, ACTIVITY[2:]))


def test_takeouts_history_without_frames(tmp_path: Path) -> None:
    def visit(k: int, kind: str) -> dict[str, Any]:
        return {
            "page_transition": kind, "url": f"https://h{k}.example/", "time_usec": (EIGHT + 60 * k) * 10**6
        }  # fmt: skip

    data = {"Browser History": [visit(0, "LINK"), visit(1, "AUTO_SUBFRAME"), visit(2, "TYPED")]}
    loaded = load_timelines(written(tmp_path, data))
    assert rows(loaded) == [("h0.example", "2026-03-02T08:00Z"), ("h2.example", "2026-03-02T08:02Z")]
    assert any("left out: 1 of frames" in x for x in loaded.report.notes)
    del data["Browser History"][0], data["Browser History"][1]
    with pytest.raises(InputError, match="without visits that opened a page"):
        load_timelines(written(tmp_path, data))


BUCKET = {
    "id": "aw-watcher-web-firefox",
    "type": "web.tab.current",
    "client": "aw-client-web",
    "hostname": "box1",
    "created": "2026-01-01T00:00:00+00:00",
    "events": [
        {
            "id": k,
            "timestamp": f"2026-03-02T09:0{k}:00.120000+01:00",
            "duration": 30.5,
            "data": {"url": f"https://h{k}.example/SECRET", "title": "SECRET", "incognito": k == 1},
        }
        for k in range(3)
    ],
}


@pytest.mark.parametrize("how", ["all buckets", "one bucket", "its events", "bucket alone"])
def test_activitywatch_tells_the_same_however_it_is_exported(how: str, tmp_path: Path) -> None:
    afk = {"type": "afkstatus", "events": [{"timestamp": BUCKET["created"], "data": {"status": "afk"}}]}
    data: Any = {
        "all buckets": {"buckets": {"w": BUCKET, "a": afk}},
        "one bucket": {"buckets": {"w": BUCKET}},
        "its events": BUCKET["events"],
        "bucket alone": BUCKET,
    }[how]
    loaded = load_timelines(written(tmp_path, data))
    assert rows(loaded) == [("h0.example", "2026-03-02T08:00Z"), ("h2.example", "2026-03-02T08:02Z")]
    assert [(e.kind, e.duration) for x in loaded.timelines for e in x] == [("page", 30.5)] * 2
    assert dict(loaded.report.dropped) == {"opened in a private window": 1}
    assert "SECRET" not in "\n".join(loaded.report.lines())
    devices = {e.device for x in loaded.timelines for e in x}
    assert devices == ({None} if how == "its events" else {"box1"})

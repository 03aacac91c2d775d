"""Live against a real aw-server: a day at many times its speed, killed in between; and the command as one
types it. Skips, and says so, where aw-server cannot be had (experiments/aw_server.py)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.sources import load_timelines
from experiments.aw_server import Server, Watchers, free_port, program
from experiments.live_day import Way, a_day, compare, play
from rlmemo.live import machine
from rlmemo.live.activitywatch import ActivityWatch, BucketReader
from rlmemo.live.clock import WallClock
from rlmemo.live.fronts import Fronts
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import LiveLedger
from tests.warm import Started, here

Cli = Callable[..., subprocess.CompletedProcess[str]]
UP_S = 60.0


@pytest.fixture(scope="module")
def aw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        program()
    except OSError as error:
        pytest.skip(f"no aw-server: {error}")
    server = Server(tmp_path_factory.mktemp("aw"))
    yield server
    server.stop()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts `python -m rlmemo.live start` and waits until it records; what runs at the end is killed."""
    running: list[Started] = []

    def start(*given: str, db: str = "a.db") -> Started:
        words = ("start", "--db", db, "--tz", "UTC", "--policy", "markov1", *given)
        child = here().start("rlmemo.live", *words, cwd=tmp_path, env=os.environ, log=tmp_path / "out")
        running.append(child)
        before = said(tmp_path).count("recording into")
        until = time.monotonic() + UP_S
        while said(tmp_path).count("recording into") <= before - 1 or "recording into" not in said(tmp_path):
            assert child.poll() is None, said(tmp_path)
            assert time.monotonic() < until
            time.sleep(0.05)
        return child

    yield start
    for child in running:
        if child.poll() is None:
            child.kill()
        child.wait()


def said(folder: Path) -> str:
    return (folder / "out").read_text()


def until(what: Callable[[], Any]) -> Any:
    """What it gives once it gives something."""
    end = time.monotonic() + UP_S
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def opened(db: Path) -> list[str]:
    with open_store(db) as store:
        return [r.event.target for r in LiveLedger(store, "me", "UTC").rows()]


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "off_after_s"), [(3, 0.0), (2, 1800.0)])
def test_a_day_s_plans_are_those_of_offline_replay_however_often_it_is_killed(
    kills: int, off_after_s: float, aw: Server, tmp_path: Path
) -> None:
    """A hundred kills: python -m experiments.live_day --kills 100."""
    whole = a_day(load_timelines("demo").timelines[2], 0)
    day = whole.take(np.flatnonzero(whole.t < whole.t[0] + 8 * 3600.0))
    assert 20 < len(day) < len(whole)
    folder = aw.folder / f"day{kills}"  # (a pause of half an hour is an absence, and they come back)
    folder.mkdir()
    server = Server(folder)
    policy = "base" if off_after_s else "markov1"
    try:
        given = ("--memory-mb", "800", "--threshold", "0.1")
        way = Way(policy, 3000.0, kills, given=given, off_after_s=off_after_s)
        played = play(server, day, tmp_path, way)
    finally:
        server.stop()
    found = compare(played, day, way)
    assert {k: found[k] for k in ("lost", "doubled", "differ", "unjudged", "twice")} == dict.fromkeys(
        ("lost", "doubled", "differ", "unjudged", "twice"), 0
    )
    assert found["events"] == len(day)
    assert found["kills"] == kills
    assert found["prewarms"] > 3
    assert (found["at_wakes"] > 0) == (off_after_s > 0)


def test_heartbeats_of_a_real_server_are_one_row_and_one_open(aw: Server) -> None:
    watchers, t = Watchers(aw, host="beats"), float(int(time.time())) - 500.0
    reader, fronts = BucketReader(ActivityWatch(port=aw.port), t - 1.0, host="beats"), Fronts()
    found, place = [], {}
    for second in range(40):
        watchers.window(t + second, "Firefox" if 10 <= second < 25 else "Editor", f"title {second // 5}")
        if second % 3 == 0:
            watchers.page(t + second + 0.5, "https://a.example/x" if second < 18 else "https://b.example/y")
        if second % 7 == 0:
            reader = BucketReader(reader.server, t - 1.0, host="beats", place=place)
        seen, _ = fronts.take(reader.read(), t + second + 1.0)
        place = reader.place
        found += seen
    assert [s.event.target for s in found] == ["Editor", "a.example", "b.example", "Editor"]


def test_recording_goes_on_over_a_server_s_death(aw: Server, tmp_path: Path, started: Any, cli: Cli) -> None:
    folder = aw.folder / "dies"
    folder.mkdir()
    server = Server(folder)
    watchers = Watchers(server)
    db, port = tmp_path / "a.db", str(server.port)
    try:
        started("--port", port, "--days", "1")
        watchers.window(time.time(), "Editor")
        until(lambda: opened(db) == ["Editor"])
        server.stop()
        until(lambda: "nothing listens" in cli("rlmemo.live", "status", "--db", str(db)).stdout)
        server.start()
        watchers.window(time.time() - 2.0, "Terminal")
        watchers.window(time.time(), "Mail")
        until(lambda: opened(db) == ["Editor", "Terminal", "Mail"])
        assert "trouble" not in until(lambda: cli("rlmemo.live", "status", "--db", str(db)).stdout)
        assert said(tmp_path).count("trying again") == 1
        checked = cli("rlmemo.live", "doctor", "--db", str(db), "--port", port)
        assert checked.returncode == 0, checked.stdout
        assert "ok   aw-watcher-window_box: said something" in checked.stdout
    finally:
        server.stop()


def test_the_command_says_what_is_wrong_and_stops_when_told(tmp_path: Path, started: Any, cli: Cli) -> None:
    nobody = cli("rlmemo.live", "status")
    assert nobody.returncode == 2
    assert nobody.stderr.count("\n") == 1
    port = str(free_port())
    child = started("--port", port)
    until(lambda: f"nothing listens at 127.0.0.1:{port}; start ActivityWatch" in said(tmp_path))
    for file in ("a.db", ".a.db.live"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600
    second = cli("rlmemo.live", "start", "--db", "a.db", "--policy", "markov1")
    assert second.returncode == 2
    assert f"process {child.pid}" in second.stderr
    status = cli("rlmemo.live", "status", "--db", "a.db").stdout
    assert f"recording (process {child.pid})" in status
    assert "trouble: nothing listens" in status
    assert "paused" in cli("rlmemo.live", "pause", "--db", "a.db").stdout
    assert "nothing is recorded" in cli("rlmemo.live", "status", "--db", "a.db").stdout
    assert "goes on" in cli("rlmemo.live", "resume", "--db", "a.db").stdout
    assert "paused" not in cli("rlmemo.live", "status", "--db", "a.db").stdout
    assert cli("rlmemo.live", "stop", "--db", "a.db").stdout == "stopped\n"
    assert child.wait(timeout=10) == 0
    assert "nobody records" in cli("rlmemo.live", "stop", "--db", "a.db").stdout
    assert "not recording" in cli("rlmemo.live", "status", "--db", "a.db").stdout
    child = started("--port", port)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert "nobody records" in cli("rlmemo.live", "stop", "--db", "a.db").stdout


def test_what_listens_and_is_not_activitywatch_is_said(aw: Server, cli: Cli) -> None:
    import http.server
    import threading

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: Any) -> None: ...

    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    done = cli("rlmemo.live", "doctor", "--port", str(other.server_port))
    other.shutdown()
    assert done.returncode == 1
    assert "is not ActivityWatch; give the --port" in done.stdout


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        (["--host", "example.com"], "not this machine"),
        (["--days", "-1"], "no number of days"),
        (["--policy", "nobody"], "no policy"),
        (["--act", "command"], "--load-command"),
        (["--tz", "Mars/Base"], "unknown"),
        (["--memory-mb", "-5"], "--memory-mb -5 is no memory"),
        (["--port", "0"], "--port 0 is no port"),
        (["--port", "99999"], "--port 99999 is no port"),
        (["--per-hour", "-1"], "--per-hour -1 is no number of loads"),
        (["--learn", "25:99"], "no time of day"),
        (["--clock", "noon"], "no clock"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    given: list[str], said_of_it: str, cli: Cli, tmp_path: Path
) -> None:
    done = cli("rlmemo.live", "start", "--port", "1", *given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said_of_it in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_before_anything_is_recorded_it_says_what_records(cli: Cli, tmp_path: Path) -> None:
    asked = cli("rlmemo.live", "status", "--db", "none.db")
    assert asked.returncode == 2
    assert asked.stderr == "error: none.db: nothing is recorded here yet; python -m rlmemo.live start does\n"
    assert "none.db: is made by live start" in cli("rlmemo.live", "doctor", "--db", "none.db").stdout
    assert not (tmp_path / "none.db").exists()


def test_the_unit_is_shown_and_names_this_python(cli: Cli, tmp_path: Path) -> None:
    told = cli("rlmemo.live", "doctor", "--unit").stdout
    assert f"ExecStart={sys.executable}" in told
    assert "systemctl --user" in told
    assert str(tmp_path) in told
    assert machine.time_zone()
    assert (machine.booted() or 0.0) < WallClock().now()

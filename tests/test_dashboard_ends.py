"""A dashboard ends when it is told to: at any moment, from any shell, whoever is connected."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dashboard_in_browser import ROOT, Server, any_port, new_page, vote
from predictions_to_rate import fill

SOON_S = 8.0  # the dashboard gives itself three; tests run beside others


def ends(process: subprocess.Popen[Any], number: signal.Signals) -> int:
    process.send_signal(number)
    return process.wait(SOON_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("after_s", [0.4, 1.0, 1.6])
def test_while_it_starts(tmp_path: Path, number: signal.Signals, ignored: bool, after_s: float) -> None:
    def as_in_a_script() -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN if ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "--db", str(tmp_path / "a.db"), "--no-open",
         "--port", str(any_port())],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=as_in_a_script,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        time.sleep(after_s)
        assert ends(process, number) in (0, 128 + number)
        assert "Traceback" not in process.stdout.read()
    finally:
        process.kill()


def test_in_the_background_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        f'{sys.executable} -m dashboard --db {tmp_path}/a.db --no-open > {tmp_path}/log &\n'
        f'for i in $(seq 1 600); do grep -q Ctrl-C {tmp_path}/log && break; sleep 0.1; done\n'
        "kill -INT $!; wait $!; echo ended $?\n"
    )  # fmt: skip
    done = subprocess.run(
        ["sh", str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=90,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "ended 0\n"


@pytest.mark.browser
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_somebody_looks_at_it(
    browser: Any, start: Callable[..., Server], tmp_path: Path, number: signal.Signals
) -> None:
    server = start(fill(tmp_path / "a.db"), anew=True)
    page = new_page(browser)
    page.goto(server.url)
    page.get_by_test_id("card").wait_for()
    vote(page, 1, key=False)
    began = time.monotonic()
    assert ends(server.process, number) == 0
    assert time.monotonic() - began < SOON_S
    page.context.close()
    # "The database is one file": who copies that file alone has the vote.
    copy = shutil.copy(tmp_path / "a.db", tmp_path / "copy.db")
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT COUNT(*) FROM ratings").fetchone() == (1,)


@pytest.mark.browser
def test_while_a_page_waits_for_another_process(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """A demo that is being made ends with the dashboard that somebody waits for it in."""
    server = start(tmp_path / "none.db", anew=True)
    page = new_page(browser)
    page.goto(server.url)
    page.get_by_role("button", name="Do that for me").click()
    child = ""
    for _ in range(200):
        child = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        for task in Path(f"/proc/{server.process.pid}/task").iterdir():
            child = child or (task / "children").read_text()
        if child:
            break
        time.sleep(0.05)
    assert child
    assert ends(server.process, signal.SIGTERM) == 0
    for _ in range(50):
        if not Path(f"/proc/{child.split()[0]}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{child.split()[0]}").exists()
    page.context.close()


def test_what_holds_it_up_has_seconds() -> None:
    """A page that is being computed is a thread that Python would wait for."""
    code = (
        "import threading, time; from dashboard import serve; "
        "threading.Thread(target=time.sleep, args=(60,)).start(); serve._leave_in_time()"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
    assert time.monotonic() - began < 20


def test_after_the_reader_of_its_output_has_gone(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "--db", str(tmp_path / "a.db"), "--no-open",
         "--port", str(any_port())],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("dashboard: http://127.0.0.1:")
        process.stdout.close()
        assert ends(process, signal.SIGINT) == 0
    finally:
        process.kill()


def test_a_training_goes_on_and_it_is_said_how_to_stop_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dashboard import jobs; "
        "sys.executable = sys.argv[1]; jobs.start(Path(sys.argv[2]), 'first', []); print(*jobs.farewell())"
    )
    trainer = tmp_path / "trainer"
    trainer.write_text("#!/bin/sh\nsleep 60\n")
    trainer.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(trainer), str(tmp_path / "runs")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, _, command = done.stdout.strip().partition("; stop it with: ")
    assert said == "training first goes on without the dashboard"
    subprocess.run(["sh", "-c", command], check=True)

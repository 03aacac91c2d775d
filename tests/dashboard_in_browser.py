"""A dashboard that runs and a browser that drives it, for the tests of the pages."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import raw_opens

from tests.warm import Started, here

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
PAGES = ("", "votes", "now", "days", "policies", "train", "privacy")
# Run by Python at its start: every address that the server connects to is written down.
WATCH = """
import os, socket
for name in ("connect", "connect_ex"):
    def watched(self, address, _old=getattr(socket.socket, name)):
        if self.family != socket.AF_UNIX:
            with open(os.environ["WATCH_FILE"], "a") as file:
                file.write(repr(address) + "\\n")
        return _old(self, address)
    setattr(socket.socket, name, watched)
import sys
sys.path.append(os.environ["WATCH_TESTS"])
import raw_opens
raw_opens.install_from_environment()
sys.path.pop()
if "rlmemo.train" in sys.orig_argv:
    from tests.light import lighten
    lighten()
"""


PRINTED = re.compile(r"^dashboard: (http://\S+)", re.MULTILINE)
_running: list[Server] = []


def any_port() -> int:
    """A free port of this machine. The first free one from 8501 on, which a dashboard takes by itself, is the
    same for two that start at once in two workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A running dashboard. entrance: the address that it printed. cookies: what a browser has that opened
    it; empty where that did not let in. anew: by a Python that is started for it, not by a fork of one.
    first: run in that fork before anything else."""

    def __init__(
        self,
        db: Path,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        token: str = "",
        options: Sequence[str] = (),
        runs: Path | None = None,
        anew: bool = False,
        first: str = "",
    ) -> None:
        self.port = any_port()
        self.db, self.url = db, f"http://127.0.0.1:{self.port}"
        self.connections = folder / "connections"
        self.connections.touch()
        self.raw_opens = folder / "raw_opens"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        paths = [str(folder / "watch"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "WATCH_FILE": str(self.connections),
            "WATCH_TESTS": str(ROOT / "tests"),
            raw_opens.VARIABLE: str(self.raw_opens),
            "RLMEMO_DASHBOARD_TOKEN": token,
        }
        self.log = (folder / "log").open("w+")
        words = [
            "--db", str(db), "--runs", str(runs or folder / "runs"), "--port", str(self.port), "--no-open",
            "--address", address, *options,
        ]  # fmt: skip
        self.process: Started | subprocess.Popen[str] = (
            subprocess.Popen(
                [sys.executable, "-m", "dashboard", *words], cwd=folder, env=environment, text=True,
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
            )
            if anew
            else here().start(
                "dashboard", *words, cwd=folder, env=environment, log=folder / "log", first=WATCH + first,
                session=True,
            )
        )  # fmt: skip
        self.cookies: list[dict[str, Any]] = []
        for _ in range(900):
            printed = PRINTED.search(Path(self.log.name).read_text())
            if printed:
                self.entrance = printed[1]
                self._come_in()
                _running.append(self)
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        self.stop()
        raise AssertionError(f"the dashboard did not start: {Path(self.log.name).read_text()}")

    def _come_in(self) -> None:
        """Open the printed address, as a browser does, once the server answers."""
        there = urlsplit(self.entrance)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", f"{there.path}?{there.query}")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        for header in answer.headers.get_all("Set-Cookie") or ():
            for name, morsel in SimpleCookie(header).items():
                if answer.status == 303:
                    self.cookies.append(
                        {"name": name, "value": morsel.value, "url": self.url, "httpOnly": True,
                         "sameSite": "Strict"}
                    )  # fmt: skip

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.db)) as connection:
            return connection.execute(sql).fetchall()

    def votes(self) -> list[tuple[Any, ...]]:
        """(prediction, thumbs) of the ratings that count, in order."""
        return self.rows("SELECT prediction_id, thumbs FROM latest_ratings ORDER BY id")

    def stop(self) -> None:
        if self in _running:
            _running.remove(self)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(20)
        self.log.close()


def new_page(browser: Any, *, width: int = 1100, dark: bool = False, stranger: bool = False) -> Any:
    """A page of a browser of its own that was let in by every dashboard that runs; a stranger was not."""
    context = browser.new_context(
        viewport={"width": width, "height": 850},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    if not stranger:
        context.add_cookies([cookie for server in _running for cookie in server.cookies])
    page = context.new_page()
    page.set_default_timeout(90_000)
    return page


def settled(page: Any) -> None:
    """Wait until the page is drawn to its end: what is pressed while it is drawn anew may be gone by then."""
    page.wait_for_timeout(100)  # until it has begun
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def turn_to(page: Any, name: str) -> None:
    """Another of PAGES by its link, as a person goes there: the front end is not loaded anew."""
    page.locator(f"[data-testid=stTopNavLink][href$='/{name}']").click()
    page.wait_for_url(f"**/{name}")
    settled(page)


def shown(page: Any) -> int:
    """The prediction on the page."""
    return int(page.get_by_test_id("card").get_attribute("data-prediction"))


def press(page: Any, key: str, wanted: str) -> None:
    """Press a key until what is wanted is on the page: a key that comes while the page is drawn anew is not
    heard, and a person presses it again."""
    from playwright.sync_api import TimeoutError

    for _ in range(4):
        page.keyboard.press(key)
        try:
            page.wait_for_selector(wanted, timeout=20_000)
        except TimeoutError:
            continue
        return


def vote(page: Any, thumbs: int, *, key: bool) -> int:
    """Vote on what is shown, by key or by click, and wait for the thanks; returns the prediction."""
    before = shown(page)
    page.wait_for_timeout(450)  # a vote within the first moments is taken for a double click
    other = f"[data-testid=card]:not([data-prediction='{before}'])"
    if key:
        press(page, "y" if thumbs else "n", other)
    else:
        page.get_by_role("button", name="Yes, good" if thumbs else "No, not this").click()
    page.wait_for_selector(other)
    page.wait_for_selector(f"[data-testid=last]:has-text('You said {'yes' if thumbs else 'no'}')")
    settled(page)
    return before

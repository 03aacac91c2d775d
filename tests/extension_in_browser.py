"""Chromium with live's extension, sites that answer late, and a live to speak to, for tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dashboard_in_browser import FLAGS, any_port

from rlmemo.live.browser_desk import BrowserDesk, BrowserReader, Visit
from rlmemo.live.browser_port import EXTENSION, BrowserPort, origin

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "t0ken-of-the-tests"
DELAY_S = 0.3
REBOUND = "evil.example"
"""A name elsewhere that resolves to this machine."""
PAGE = """<!doctype html><title>secret title</title><link rel=stylesheet href=/style.css>
<p>A site.<p><input id=field><button id=sound onclick="
 const c = new AudioContext(), o = c.createOscillator();
 o.connect(c.destination); o.start()">sound</button>"""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A tab that was closed before the answer came."""


class Site:
    """A web site of this machine, which answers after `delay_s`. asked: the paths that it was asked for."""

    def __init__(self, delay_s: float = DELAY_S) -> None:
        site = self
        self.asked: list[str] = []

        class Asked(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                time.sleep(delay_s)
                body = b"p { color: navy }" if self.path.endswith(".css") else PAGE.encode()
                self.send_response(200)
                kind = "text/css" if self.path.endswith(".css") else "text/html"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

            def setup(self) -> None:
                site._connections.append(self.request)
                super().setup()

        self._connections: list[socket.socket] = []
        self._server = _Quiet(("127.0.0.1", 0), Asked)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.name = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.name}/"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for one in self._connections:  # a browser opens some ahead of need, which would be answered still
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Chromium:
    """A Chromium with the extension, whose page of options stays open to ask it things.

    hosts: whether the permission to look at pages is given, as by Allow on that page: a click on the
    browser's own question, which no test can do, so it stands in the copy's manifest.
    """

    def __init__(self, playwright: Any, path: str, folder: Path, *, hosts: bool = False) -> None:
        extension = folder / "extension"
        shutil.copytree(EXTENSION, extension)
        if hosts:
            file = extension / "manifest.json"
            told = json.loads(file.read_text())
            told["host_permissions"] += told.pop("optional_host_permissions")
            file.write_text(json.dumps(told))
        self.context = playwright.chromium.launch_persistent_context(
            tempfile.mkdtemp(dir=folder), executable_path=path, headless=False,
            args=["--headless=new", f"--disable-extensions-except={extension}",
                  f"--load-extension={extension}",
                  "--disable-features=DisableLoadExtensionCommandLineSwitch",
                  f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
                  "--autoplay-policy=no-user-gesture-required", *FLAGS],
        )  # fmt: skip
        self.options = self.context.pages[0]
        self.options.goto(f"{origin()}/options.html")

    def pair(self, port: int, token: str = TOKEN) -> None:
        """Give the key, as a person does."""
        self.options.fill("#key", f"{port}:{token}")
        self.options.click("text=Pair")
        until(lambda: self.ask("(await chrome.storage.local.get('key')).key") == f"{port}:{token}")

    def ask(self, script: str) -> Any:
        """What a script gives in the extension."""
        return self.options.evaluate(f"(async () => ({script}))()")

    def open(self, url: str) -> Any:
        """A new tab in front, with a page."""
        page = self.context.new_page()
        page.goto(url)
        return page

    def tabs(self) -> list[dict[str, Any]]:
        """The tabs of http pages."""
        found: list[dict[str, Any]] = self.ask("await chrome.tabs.query({})")
        return [x for x in found if x["url"].startswith("http") or x.get("pendingUrl", "").startswith("http")]

    def queue(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("(await chrome.storage.local.get('queue')).queue ?? []")
        return found

    def kill_worker(self) -> None:
        """End the worker, as Chromium does with an idle one."""
        session = self.context.new_cdp_session(self.options)
        session.send("ServiceWorker.enable")
        session.send("ServiceWorker.stopAllWorkers")
        session.detach()
        until(lambda: not self.workers())

    def workers(self) -> list[Any]:
        """The workers that run."""
        found: list[Any] = self.ask("await chrome.runtime.getContexts({contextTypes: ['BACKGROUND']})")
        return found

    def alarm(self) -> None:
        """Let the alarm go off that goes off every half minute."""
        self.ask("await chrome.alarms.create('beat', {when: Date.now(), periodInMinutes: 0.5})")

    def close(self) -> None:
        self.context.close()


class Noting:
    """A live that notes what it is told, and hands out what is ordered."""

    def __init__(self, port: int = 0) -> None:
        self.desk, self.visits = BrowserDesk(), list[Visit]()
        self.reports: dict[str, dict[str, Any]] = {}
        self.reader = BrowserReader(self.desk)
        self._ended = threading.Event()
        self.door = BrowserPort(port, self.desk)
        self.door.open(TOKEN)
        self.port = self.door.server_port
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.desk.stirred.wait(0.2)
            self.desk.stirred.clear()
            news = self.reader.read()
            self.visits += [v for one in self.reader.taken for v in one.visits]
            for report in news.reports:
                self.reports.setdefault(report.order, {}).update(report.came)
            self.reader.kept(None)

    @property
    def sites(self) -> list[str]:
        """The sites that it was told of, in order; one that was left and came back stands once."""
        found = [v.site for v in self.visits if v.site]
        return [x for k, x in enumerate(found) if not k or x != found[k - 1]]

    def stop(self) -> None:
        self._ended.set()
        self.door.close()


class Live:
    """`python -m rlmemo.live start --source browser` in a process of its own."""

    def __init__(self, folder: Path, *given: str) -> None:
        self.folder, self.given, self.port = folder, given, any_port()
        (folder / "extension.token").touch(0o600)
        (folder / "extension.token").write_text(TOKEN)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "rlmemo.live", "start", "--source", "browser", "--tz", "UTC",
                   "--db", "live.db", "--browser-port", str(self.port), "--policy", "markov1",
                   *self.given]  # fmt: skip
        before = self.said().count("recording into")
        with (self.folder / "out").open("a") as out:
            self.child = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=out
            )
        until(lambda: self.said().count("recording into") > before or self.child.poll() is not None)
        assert self.child.poll() is None, self.said()

    def said(self) -> str:
        file = self.folder / "out"
        return file.read_text() if file.exists() else ""

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            self.child.wait(20)


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What it gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def sites(number: int, delay_s: float = DELAY_S) -> Sequence[Site]:
    """Some sites."""
    return [Site(delay_s) for _ in range(number)]

"""A real `aw-server` in an environment of its own, and watchers that tell it what a recorded person does.

The environment is that of the program which `AW_SERVER` names, or one that is made in the cache folder the
first time (`aw-server` wants another Werkzeug than we have). Where it cannot be had, tests skip.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WANTED = ("aw-server==0.12.*", "peewee<4")
"""(peewee 4 gives it times where it expects text.)"""
HOST = "127.0.0.1"


def program() -> str:
    """The path of an aw-server. Raises OSError where there is none and none can be had."""
    named = os.environ.get("AW_SERVER") or shutil.which("aw-server")
    if named:
        return named
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmemo-tests"
    folder = cache / f"aw-server-{sys.version_info.major}.{sys.version_info.minor}"
    found = folder / "bin" / "aw-server"
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = cache / f"{folder.name}.{os.getpid()}"
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", making], check=True, capture_output=True, timeout=120
            )
            pip = [making / "bin" / "python", "-m", "pip", "install", "-q", *WANTED]
            subprocess.run(pip, check=True, capture_output=True, timeout=300)
        except subprocess.SubprocessError as error:
            shutil.rmtree(making, ignore_errors=True)
            raise OSError(f"aw-server could not be installed ({error})") from None
        # its own name stands in its programs: so it is made anew in its place, which takes pip's cache
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
    return str(found)


class Server:
    """An aw-server with an empty database in `folder`, on a port of its own."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        folders = {f"XDG_{x}_HOME": str(self.folder / x.lower()) for x in ("CONFIG", "DATA", "CACHE")}
        env = {**os.environ, "HOME": str(self.folder), **folders}
        env.pop("PYTHONPATH", None)
        place = Path(program()).parent / "python"
        code = "import sys; from aw_server.main import main; sys.argv[0] = 'aw-server'; main()"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [place, "-c", code, "--testing", "--host", HOST, "--port", str(self.port)],
                env=env, stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        for _ in range(600):
            try:
                self.ask("GET", "/api/0/info")
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        self.stop()
        raise OSError(f"aw-server did not come up: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            connection.close()
        assert answer.status in (200, 304), (answer.status, told[:300])
        return json.loads(told) if told.strip() else None


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


class Watchers:
    """aw-watcher-window, aw-watcher-afk and a browser's aw-watcher-web, as one person's machine has them."""

    PULSE_S = 1e6
    """Heartbeats come when something changes, and not every second: whatever is the same is merged."""

    def __init__(self, server: Server, host: str = "box", browser: str = "firefox") -> None:
        self.server, self.host = server, host
        self.names = {
            "currentwindow": f"aw-watcher-window_{host}", "afkstatus": f"aw-watcher-afk_{host}",
            "web.tab.current": f"aw-watcher-web-{browser}_{host}",
        }  # fmt: skip
        for kind in self.names:
            self.make(kind)

    def make(self, kind: str) -> None:
        body = {"client": self.names[kind].partition("_")[0], "type": kind, "hostname": self.host}
        self.server.ask("POST", f"/api/0/buckets/{self.names[kind]}", body)

    def beat(self, kind: str, t: float, data: dict[str, Any], pulse: float | None = None) -> None:
        told = {"timestamp": datetime.fromtimestamp(t, UTC).isoformat(), "duration": 0, "data": data}
        pulse = self.PULSE_S if pulse is None else pulse
        self.server.ask("POST", f"/api/0/buckets/{self.names[kind]}/heartbeat?pulsetime={pulse}", told)

    def window(self, t: float, app: str, title: str = "") -> None:
        self.beat("currentwindow", t, {"app": app, "title": title})

    def page(self, t: float, url: str, incognito: bool = False) -> None:
        data = {"url": url, "title": url, "audible": False, "incognito": incognito, "tabCount": 3}
        self.beat("web.tab.current", t, data)

    def afk(self, t: float, away: bool) -> None:
        self.beat("afkstatus", t, {"status": "afk" if away else "not-afk"})


if __name__ == "__main__":  # so that it is there when the tests begin (.ci/run)
    print(program())

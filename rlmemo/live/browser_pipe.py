"""A headless Chromium that does what it is told over a pipe (Chrome DevTools Protocol): no port is open."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import deque
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import psutil

from env.errors import InputError
from rlmemo.live.recipes import AS_ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *AS_ROOT.split(), "--headless", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-gpu", "--disable-features=SpareRendererForSitePerProcess",
    "--remote-debugging-pipe",
)  # fmt: skip
JOIN = 'exec "$@" 3<"$0/in" 4>"$0/out"'
"""The browser reads from 3 and writes to 4, which named pipes become here: a forked Python could not put them
there safely."""


class BrowserPipe:
    """A browser of its own, with a profile in `folder`; ended by the end of the `with`."""

    def __init__(self, folder: Path) -> None:
        """Start it. Raises InputError where there is no Chromium."""
        found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        if found is None:
            raise InputError(f"--page: no browser is installed ({', '.join(BROWSERS)}); install one of them")
        for name in ("in", "out"):
            os.mkfifo(folder / name, 0o600)
        self.child = subprocess.Popen(
            ["sh", "-c", JOIN, str(folder), found, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.to = FileIO(folder / "in", "w")
        self.back = FileIO(folder / "out")
        self.events: deque[dict[str, Any]] = deque()
        self._rest = b""
        self._id = 0

    def __enter__(self) -> BrowserPipe:
        return self

    def __exit__(self, *_: object) -> None:
        family = self.family()
        for process in family:  # nothing of its profile is kept, so there is nothing to be said farewell to
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=5.0)
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=5.0)
        self.to.close()
        self.back.close()

    def family(self) -> list[psutil.Process]:
        """The browser's processes."""
        with suppress(psutil.Error):
            head = psutil.Process(self.child.pid)
            return [head, *head.children(recursive=True)]
        return []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """What the browser answers. Raises InputError for an error of its own, or where it is gone."""
        self._id += 1
        asked = {"id": self._id, "method": method, "params": params} | (
            {"sessionId": session} if session else {}
        )
        self.to.write(json.dumps(asked).encode() + b"\0")
        while (said := self._next()).get("id") != self._id:
            self.events.append(said)
        if "error" in said:
            raise InputError(f"the browser says to {method}: {said['error'].get('message', said['error'])}")
        answer: dict[str, Any] = said["result"]
        return answer

    def wait(self, method: str, session: str) -> dict[str, Any]:
        """The next event of that name, what came meanwhile included."""
        for event in self.events:
            if (event.get("method"), event.get("sessionId")) == (method, session):
                self.events.remove(event)
                return event
        while ((said := self._next()).get("method"), said.get("sessionId")) != (method, session):
            self.events.append(said)
        return said

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self.back.read(1 << 20)
            if not more:
                raise InputError("the browser ended by itself; try again, or leave --page out")
            self._rest += more
        one, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(one)
        return said

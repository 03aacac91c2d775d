"""Run the server: Streamlit's app with the door in front, until it is told to end."""

from __future__ import annotations

import html
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

GRACE_S = 3.0
"""How long a connection, a page that is being computed or a library may hold up the end."""
OPENED_S = 60.0
_openers: list[Path] = []
_databases: list[Path] = []
OPENER = (
    '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
    '<meta http-equiv="refresh" content="0;url={url}"><title>rlmemo</title>'
)


def options(address: str, port: int, login: Path | None) -> dict[str, Any]:
    """What Streamlit is told. It wins over any config.toml that lies about."""
    from dashboard.look import THEME

    return {
        "server.address": address,
        "server.port": port,
        "server.headless": True,  # the browser is opened here, at the address that lets in
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.allowedHosts": [],  # the door asks for the name, of every request
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.maxUploadSize": 50,
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "type",
        "client.showErrorLinks": False,
        "logger.hideWelcomeMessage": True,  # its address would not let in
        "runner.magicEnabled": False,
        **THEME,
        **({"secrets.files": [str(login)]} if login else {}),
    }


@dataclass(frozen=True)
class Place:
    """Where the app listens, and to whom. token, hosts: as `door.Door`."""

    address: str
    port: int
    token: str | None
    hosts: Sequence[str]


def serve(
    arguments: Sequence[str],
    place: Place,
    *,
    login: Path | None,
    said: str,
    opens: str | None,
    db: Path,
) -> NoReturn:
    """Serve until SIGINT or SIGTERM, and leave the process. arguments: what the app is started with. said:
    printed when it listens. opens: the address to open in a browser then, kept for the browser in a file
    beside `db`, as others can read a command line. db: is one whole file when all has ended."""
    import streamlit as st
    from starlette.middleware import Middleware

    from dashboard.door import Door

    # Until the server listens there is nothing to put away. When it has ended, it sends itself once more
    # the signal that it was sent.
    listened = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not listened.is_set():
            os._exit(128 + number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)

    @asynccontextmanager
    async def listening(_: st.App) -> AsyncIterator[dict[str, Any]]:
        # Uvicorn logs the addresses of what it refuses, and what it has to say of itself is of no use.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        _end_in_time()
        listened.set()
        print(said, flush=True)
        if opens:
            threading.Thread(target=_open, args=(opens, db.parent), daemon=True).start()
        yield {}

    app = st.App(
        Path(__file__).with_name("app.py"),
        lifespan=listening,
        middleware=[Middleware(Door, token=place.token, hosts=place.hosts, port=place.port)],
    )
    sys.argv = [__file__, *arguments]
    _databases.append(db)
    status = 0
    try:
        app.run(config=options(place.address, place.port, login))
    except KeyboardInterrupt:
        pass
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    _leave(status)


def _end_in_time() -> None:
    """Have the server's own way of ending, which waits for connections, wait for `GRACE_S` at most."""
    for number in (signal.SIGINT, signal.SIGTERM):
        gracefully = signal.getsignal(number)

        def end(number: int, frame: FrameType | None, gracefully: Any = gracefully) -> None:
            _leave_in_time()
            gracefully(number, frame)

        signal.signal(number, end)


def _leave_in_time() -> None:
    timer = threading.Timer(GRACE_S, _leave)
    timer.daemon = True
    timer.start()


def _leave(status: int = 0) -> NoReturn:
    """End at once: a page that is still being computed would hold the process up, and so would the other end
    of a pipe that is gone."""
    from dashboard import jobs
    from rlmemo.store.database_file import fold

    try:
        _forget_opener()
        jobs.end_questions()
        for line in jobs.farewell():
            print(line)
        for db in _databases:
            fold(db)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _open(url: str, folder: Path) -> None:
    """Open a browser at `url` without naming it on a command line, which everybody here can read. The file
    lies beside the database: a browser that is packed as a snap reads no hidden folder, nor /tmp."""
    try:
        handle, name = tempfile.mkstemp(".html", "rlmemo-open-", folder)  # 0600
        _openers.append(Path(name))
        with open(handle, "w", encoding="utf-8") as file:
            file.write(OPENER.format(url=html.escape(url)))
        webbrowser.open(Path(name).as_uri())
        time.sleep(OPENED_S)
    except (OSError, webbrowser.Error):
        pass
    _forget_opener()


def _forget_opener() -> None:
    while _openers:
        _openers.pop().unlink(missing_ok=True)

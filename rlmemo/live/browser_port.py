"""The door for the browser's extension: a port of this machine that answers to it alone.

Whoever speaks needs the token, the extension's origin and a name of this machine, so that no page can (a
page's requests carry its own origin; a name that was made to resolve here is no name of this machine's; a
preflight is refused like anything else, so a browser does not even send what a page would say). Wrong tokens
are answered slowly, one at a time.

Another user of the machine may take the port while live is away. So the extension asks whoever listens for a
proof first, and says neither its token nor what it has to say to anybody who does not know the token, too.

    POST /v1/hello     {"nonce"} → {"proof"}; asked without a token
    POST /v1/browser   {"visits": [{"id", "t", "site"}], "reports": [{"order", "came"}]} → {"orders": […]}
    POST /v1/wait      {"ended"}: answered after a while, or as soon as live stops
    POST /v1/about     how things stand
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from env.errors import InputError
from rlmemo.hosts import answers_to, names
from rlmemo.live.activitywatch import OrderReport
from rlmemo.live.browser_desk import BrowserDesk, Visit

EXTENSION = Path(__file__).with_name("extension")
PORT = 8651
TOKEN_FILE = "extension.token"
ADDRESS = "127.0.0.1"
MOST_BYTES, MOST_AT_ONCE, MOST_TOLD = 1 << 18, 16, 100
KEPT_S, SLOW_S, READ_S, HOLD_S = 5.0, 1.0, 10.0, 5.0
LATEST_T = 4e9
ID = re.compile(r"[\w-]{8,64}", re.ASCII)
SITE = re.compile(r"[^\s/?#@\\\x00-\x1f]{0,260}")
WORD = re.compile(r"[a-z_ ]{1,40}")


def origin() -> str:
    """The extension's: its id is made of the key in its manifest (SHA-256, in the letters a to p)."""
    key = json.loads((EXTENSION / "manifest.json").read_text(encoding="utf-8"))["key"]
    digest = hashlib.sha256(base64.b64decode(key)).hexdigest()[:32]
    return "chrome-extension://" + digest.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop"))


def proof(token: str, port: int, nonce: str) -> str:
    """That one knows the token, and listens at this port: nobody can pass on what another port has said."""
    return hmac.new(token.encode(), f"{port} {nonce}".encode(), hashlib.sha256).hexdigest()


class Malformed(Exception):
    """What was sent is none of what is taken; says why."""


class NotKept(Exception):
    """What was sent is not written down."""


def visits_of(told: Any, now: float) -> list[Visit]:
    """The visits of a request; none lies ahead of `now`. Raises Malformed."""
    found = []
    for x in _list(told):
        t, site = x.get("t"), x.get("site")
        if not ID.fullmatch(str(x.get("id"))):
            raise Malformed("a visit has an id of 8 to 64 letters and digits")
        if isinstance(t, bool) or not isinstance(t, int | float) or not 0.0 <= t <= LATEST_T:
            raise Malformed("a visit's t is a time in unix seconds")
        if not isinstance(site, str) or not SITE.fullmatch(site):
            raise Malformed("a visit's site is a host")
        found.append(Visit(x["id"], min(float(t), now), site))
    return found


def reports_of(told: Any) -> list[OrderReport]:
    """The reports of a request. Raises Malformed."""
    found = []
    for x in _list(told):
        order, came = x.get("order"), x.get("came")
        if not ID.fullmatch(str(order)) or not isinstance(came, dict) or len(came) > 16:
            raise Malformed("a report has an order and what came of it")
        kept = {name: _plain(value) for name, value in came.items() if WORD.fullmatch(name)}
        found.append(OrderReport(str(order), {**kept, "order": str(order)}))
    return found


def _plain(value: Any) -> Any:
    """A finite number, or a short text."""
    if isinstance(value, bool | int | float):
        return value if math.isfinite(value) else None
    return "".join(c for c in str(value)[:120] if c.isprintable())


def _list(told: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(told, list) or len(told) > MOST_TOLD or not all(isinstance(x, dict) for x in told):
        raise Malformed(f"visits and reports are lists of objects, {MOST_TOLD} at most")
    return told


class BrowserPort(ThreadingHTTPServer):
    """A port that is taken when this is made, answers once it is opened, and until it is closed. Raises
    InputError where it cannot be had."""

    daemon_threads, block_on_close = True, False

    def __init__(self, port: int, desk: BrowserDesk) -> None:
        if not 0 <= port <= 65535:
            raise InputError(f"--browser-port {port} is no port; give 1 to 65535")
        self.token, self.desk, self.origin = "", desk, origin()
        self.hosts = names(ADDRESS, None, [])
        self.slow = threading.Lock()
        self._slots = threading.BoundedSemaphore(MOST_AT_ONCE)
        try:
            super().__init__((ADDRESS, port), _Asked)
        except OSError as error:
            raise InputError(
                f"cannot listen on {ADDRESS} port {port} ({error.strerror}); stop what does (live itself?), "
                "or give another --browser-port"
            ) from None

    def open(self, token: str) -> None:
        """Answer whoever has the token."""
        self.token = token
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless there are too many."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Who asked has gone: nothing to be said."""


class _Asked(BaseHTTPRequestHandler):
    server: BrowserPort
    timeout = READ_S
    server_version, sys_version = "rlmemo", ""

    def do_POST(self) -> None:
        """Let in who may come in, and answer."""
        refused = self._refused()
        if refused is not None:
            self._answer(*refused)
            return
        try:
            self._answer(200, self._told(self._body()))
        except Malformed as error:
            self._answer(422, {"error": str(error)})
        except NotKept:
            self._answer(503, {"error": "live could not write it down yet; tell it again"})

    def do_OPTIONS(self) -> None:
        """Refuse a preflight: no page has business here."""
        self._answer(403, {"error": "no page may speak to this"})

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS

    def _refused(self) -> tuple[int, Mapping[str, Any]] | None:
        if not answers_to(self.headers.get_all("Host") or [], self.server.hosts):
            return 403, {"error": "this is no name of this machine"}
        if self.headers.get_all("Origin") != [self.server.origin]:
            return 403, {"error": "only the extension may speak to this"}
        if self.path == "/v1/hello":
            return None
        given = self.headers.get_all("Authorization") or []
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip().encode(), self.server.token.encode())
        if not right or scheme.lower() != "bearer":
            with self.server.slow:
                time.sleep(SLOW_S)
            return 401, {"error": "the token is missing or wrong; python -m rlmemo.live extension says it"}
        return None

    def _body(self) -> Mapping[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            raise Malformed(f"a request says its length, {MOST_BYTES} bytes at most")
        try:
            found = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Malformed("the body is no JSON") from None
        if not isinstance(found, dict):
            raise Malformed("the body is a JSON object")
        return found

    def _told(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is answered to a body. Raises Malformed."""
        desk = self.server.desk
        if self.path == "/v1/about":
            silent = time.time() - desk.heard_at if desk.heard_at else None
            return {"service": "rlmemo", "paused": desk.paused, "acts": desk.acts, "silent_s": silent}
        if self.path == "/v1/hello":
            if not ID.fullmatch(str(body.get("nonce"))):
                raise Malformed("a nonce has 8 to 64 letters and digits")
            return {"proof": proof(self.server.token, self.server.server_port, str(body["nonce"]))}
        if self.path == "/v1/wait":
            return {"ended": desk.ended.wait(HOLD_S)}
        if self.path != "/v1/browser":
            raise Malformed("there is /v1/browser, /v1/wait, and /v1/about")
        visits, reports = visits_of(body.get("visits"), time.time()), reports_of(body.get("reports"))
        if not desk.hand_in(visits, reports, KEPT_S):
            raise NotKept
        return {"orders": desk.take_orders(), "due_s": desk.due_s, "paused": desk.paused}

    def _answer(self, status: int, said: Mapping[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is asked is nobody's business."""

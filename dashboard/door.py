"""The door in front of everything that the dashboard serves: pages, files, uploads and the WebSocket alike.

Who comes with the token in the address (or types it in) gets a cookie and is sent on to the address
without it. Whoever has no cookie gets no further, whatever the path. The cookie's value is drawn anew at
each start and is not the token, so a token that a person chose cannot be guessed at through it. Tokens
are compared in constant time, and wrong ones are answered slowly, one at a time over all who ask.

Beside that, on every request: the name that was asked for must be one of ours (a page elsewhere whose
name is made to resolve to this machine must not get in: DNS rebinding), a WebSocket or an upload must come
from a page of this very origin, and no page of ours may stand in a frame.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlmemo.hosts import answers_to

SLOW_S = 1.0
LONGEST_FORM = 4096  # bytes
SAFE = ("GET", "HEAD", "OPTIONS")

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rlmemo</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{color-scheme: light dark}}
body {{font: 1rem/1.5 system-ui, sans-serif; max-width: 30rem; margin: 18vh auto 0; padding: 0 1rem}}
input, button {{font: inherit; padding: .45rem .8rem; border-radius: .6rem; border: 1px solid #8886}}
button {{background: #b8480f; color: #fff; border-color: #b8480f}}
</style></head><body><h1>rlmemo</h1>{said}
<form method="post"><input type="password" name="token" aria-label="Token" placeholder="Token" autofocus>
<button>Come in</button></form></body></html>"""
WHERE = """<p>What is shown here is private. Open the address that <code>python -m dashboard</code> printed
when it was started: the token is in it. Or type the token in.</p>"""
AGAIN = (
    """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0"><title>rlmemo</title>"""
)

guards = False
"""Whether a door stands in this process. `dashboard/app.py` shows nothing where none does."""


class Door:
    """ASGI middleware. token: what lets in, None where another way of logging in is used (the other checks
    stay). hosts: names that the dashboard answers to, in lower case, IPv6 addresses in brackets. port: where
    it listens; a cookie knows no ports, so its name does."""

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Iterable[str], port: int) -> None:
        global guards
        guards = True
        self.app = app
        self.token = token
        self.hosts = frozenset(hosts)
        self.cookie = f"rlmemo-{port}"
        self.pass_ = secrets.token_urlsafe(32)
        self.one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        web = scope["type"] == "http"
        answer = await self._refusal(scope, receive)
        if answer is None:
            await self.app(scope, receive, _closed_to_frames(send) if web else send)
        elif web:
            await answer(scope, receive, _closed_to_frames(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        """What is answered instead of what was asked for; None for who may have it."""
        headers = Headers(scope=scope)
        asked = headers.getlist("host")
        if not answers_to(asked, self.hosts):
            return PlainTextResponse(
                "This dashboard does not answer to that name. Open the address that it printed; "
                "another name is allowed with --host NAME.\n",
                403,
            )
        if not _same_origin(scope, headers, asked[0]):
            return PlainTextResponse("That came from a page elsewhere.\n", 403)
        if self.token is None:
            return None
        has = HTTPConnection(scope).cookies.get(self.cookie, "")
        inside = hmac.compare_digest(has.encode(), self.pass_.encode())
        if scope["type"] == "websocket":
            return None if inside else Response(status_code=403)
        return await self._let_in(Request(scope, receive), inside)

    async def _let_in(self, request: Request, inside: bool) -> Response | None:
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if request.method == "POST" and not inside:
            given = [value for name, value in parse_qsl(await _form(request)) if name == "token"]
        if given and request.method in (*SAFE, "POST"):
            if inside or await self._right(given[-1]):
                return self._onward(request, [(k, v) for k, v in query if k != "token"])
            return _page("<p><strong>That is not the token.</strong></p>" + WHERE)
        if inside:
            return None
        if request.headers.get("sec-fetch-site") == "cross-site" and request.method in SAFE:
            # A link elsewhere, or a file, leads here: the browser keeps the cookie back, and sends it when
            # the page asks again by itself.
            return HTMLResponse(AGAIN, 403)
        return _page(WHERE)

    async def _right(self, given: str) -> bool:
        assert self.token is not None
        async with self.one_at_a_time:
            if hmac.compare_digest(given.encode(), self.token.encode()):
                return True
            await asyncio.sleep(SLOW_S)
            return False

    def _onward(self, request: Request, query: list[tuple[str, str]]) -> Response:
        """To the same address without the token, with the cookie."""
        path = "/" + quote(request.scope["path"].lstrip("/\\"))  # "//elsewhere" would lead there
        answer = RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303)
        answer.set_cookie(
            self.cookie, self.pass_, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer


def _same_origin(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether what can change something comes from a page of ours. A WebSocket must say where it comes from;
    an upload or a form must where it says it, which every browser does."""
    given = headers.getlist("origin")
    if scope["type"] == "http" and (scope["method"] in SAFE or not given):
        return True
    # Behind TLS that ends at a proxy the scheme is not known here.
    return len(given) == 1 and given[0].lower() in (f"http://{host}".lower(), f"https://{host}".lower())


async def _form(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            return ""
    return body.decode("utf-8", "replace")


def _page(said: str) -> Response:
    rules = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    # With "no-referrer", the form would be sent with the origin "null".
    return HTMLResponse(
        PAGE.format(said=said), 403, {"Content-Security-Policy": rules, "Referrer-Policy": "same-origin"}
    )


def _closed_to_frames(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.append("Content-Security-Policy", "frame-ancestors 'none'")
            headers["X-Frame-Options"] = "DENY"
            headers.setdefault("Referrer-Policy", "no-referrer")
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return sent

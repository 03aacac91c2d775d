"""The door in front of everything that is served: the name asked for, the origin, the token, the size.

As the dashboard's: another name is refused (DNS rebinding), wrong tokens are answered slowly, one at a time,
and tokens are compared in constant time. No page of a browser has business here, so whatever names an Origin
is refused.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlmemo.hosts import answers_to

HEALTH = "/v1/health"
"""Answered without a token: it says that somebody is here, and no more."""
MOST_BYTES = 1 << 20
SLOW_S, BODY_S = 1.0, 15.0


def refusal(status: int, said: str, **more: object) -> JSONResponse:
    """An error as all of ours: one line, as JSON."""
    return JSONResponse({"error": said, **more}, status)


class TokenGuard:
    """ASGI middleware. token: what lets in. hosts: names that are answered to, in lower case, IPv6 addresses
    in brackets."""

    def __init__(self, app: ASGIApp, *, token: str, hosts: Iterable[str]) -> None:
        self.app, self.token, self.hosts = app, token, frozenset(hosts)
        self.one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = await self._let_in(scope, receive)
        if isinstance(body, JSONResponse):
            await body(scope, receive, send)
        else:
            await self.app(_as_json(scope), _again(body, receive), send)

    async def _let_in(self, scope: Scope, receive: Receive) -> bytes | JSONResponse:
        """The body of a request that may come in, else what is answered instead."""
        headers = Headers(scope=scope)
        if not answers_to(headers.getlist("host"), self.hosts):
            return refusal(403, "this server does not answer to that name; --allow-host NAME allows another")
        if headers.getlist("origin") or headers.get("sec-fetch-site", "none") not in ("none",):
            return refusal(403, "that came from a page in a browser")
        if scope["path"] != HEALTH and not self._right(headers.getlist("authorization")):
            async with self.one_at_a_time:
                await asyncio.sleep(SLOW_S)
            answer = refusal(401, "the token is missing or wrong; send Authorization: Bearer TOKEN")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return await _body(headers, receive)

    def _right(self, given: list[str]) -> bool:
        """Whether the one Authorization header holds the token."""
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip().encode(), self.token.encode())
        return right and scheme.lower() == "bearer"


async def _body(headers: Headers, receive: Receive) -> bytes | JSONResponse:
    """The whole body, unless it is too large or does not come."""
    too_large = refusal(413, f"a request may have {MOST_BYTES} bytes; send fewer events at a time")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MOST_BYTES:
        return too_large
    found, more = bytearray(), True
    try:
        async with asyncio.timeout(BODY_S):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return refusal(400, "the request ended early")
                found += message.get("body", b"")
                more = message.get("more_body", False)
                if len(found) > MOST_BYTES:
                    return too_large
    except TimeoutError:
        return refusal(408, f"the request did not come within {BODY_S:g} s")
    return bytes(found)


def _as_json(scope: Scope) -> Scope:
    """The request, with a body that is JSON: there is no other here, and curl calls what it sends a form.
    (That opens nothing to pages in browsers, which may send forms unasked: their Origin is refused.)"""
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*kept, (b"content-type", b"application/json")]}


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, and then what else comes."""
    told = False

    async def give() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give

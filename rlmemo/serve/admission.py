"""Who may wait: so many requests are under way, fewer of them batches; more are told to come again.

What waits here waits in memory and in a thread. Without a bound a server that is asked more than it can
answer answers everybody late; with it, some are told at once, and devices plan by themselves meanwhile.
"""

from __future__ import annotations

import re

from anyio.to_thread import current_default_thread_limiter
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rlmemo.serve.door import HEALTH, refusal
from rlmemo.serve.turns import BATCH

MOST_WAITING = 256
BATCHES = 16
"""Of so many requests one may be a batch."""
URGENCY = re.compile(r"(?:^|[,\s])u=([0-7])(?![0-9])")
LEAST_URGENT = 3
"""Of the header `Priority` (RFC 9218), which counts from 0, and says 3 where it says nothing."""
AGAIN_S = 2


def busy(said: str) -> JSONResponse:
    """An answer that asks to come again."""
    answer = refusal(503, said)
    answer.headers["Retry-After"] = str(AGAIN_S)
    return answer


def is_batch(headers: Headers) -> bool:
    """Whether a request says of itself that it can wait."""
    found = URGENCY.search(headers.get("priority", ""))
    return found is not None and int(found[1]) > LEAST_URGENT


class Admission:
    """ASGI middleware. most: requests that may be under way, batches apart."""

    def __init__(self, app: ASGIApp, *, most: int = MOST_WAITING) -> None:
        self.app = app
        self._room = {False: most, True: -(-most // BATCHES)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self.app(scope, receive, send)
            return
        batch = is_batch(Headers(scope=scope))
        if not self._room[batch]:
            what = "batches" if batch else "requests"
            answer = busy(f"too many {what} are under way here; send that again in {AGAIN_S} seconds")
            await answer(scope, receive, send)
            return
        threads = current_default_thread_limiter()
        threads.total_tokens = max(threads.total_tokens, sum(self._room.values()) + 8)
        self._room[batch] -= 1
        told = BATCH.set(batch)
        try:
            await self.app(scope, receive, send)
        finally:
            BATCH.reset(told)
            self._room[batch] += 1

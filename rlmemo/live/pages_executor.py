"""`--act pages`: the browser's extension loads a site in a tab behind, and lets tabs of a site go.

An executor of live: it leaves an order at the desk, and what came of it is reported later (`Loop`). The
extension closes by itself what it loaded and nobody used, also when live was stopped or killed: it notices
within half a minute that nobody answers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from env.errors import InputError
from rlmemo.live.browser_desk import BrowserDesk
from rlmemo.store.live_ledger import LET_GO, LOAD

PER_HOUR = 60
HOUR_S = 3600.0


class PagesExecutor:
    """Orders pages, `per_hour` at most, and no more at a time than fit into `limit_mb`. life_s: how long a
    page that nobody opened is held; page_mb: what a site's page takes, in MB."""

    def __init__(
        self, desk: BrowserDesk, page_mb: Callable[[str], float], life_s: float, *,
        limit_mb: float, per_hour: int = PER_HOUR,
    ) -> None:  # fmt: skip
        """Raises InputError for limits that are none."""
        if not 0 < limit_mb <= 1e9:
            raise InputError(f"the memory for pages is {limit_mb} MB; give more than 0")
        if not 0 < per_hour <= 10_000:
            raise InputError(f"--per-hour {per_hour} is not accepted; give 1 or more")
        self.desk, self.page_mb, self.life_s = desk, page_mb, life_s
        self.limit_mb, self.per_hour = limit_mb, per_hour
        self._held: dict[str, float] = {}
        self._lately: deque[float] = deque()
        desk.acts = True

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        """Order a site's page."""
        now = time.monotonic()
        while self._lately and now - self._lately[0] >= HOUR_S:
            self._lately.popleft()
        self._held = {x: until for x, until in self._held.items() if until > now}
        more = self.page_mb(target)
        if (why := self._unable(kind)) is not None:
            return {"failed": why}
        if len(self._lately) >= self.per_hour:
            return {"failed": f"{self.per_hour} pages were loaded within the hour"}
        if more + sum(self.page_mb(x) for x in self._held) > self.limit_mb:
            return {"failed": f"no room in {self.limit_mb:g} MB"}
        self._lately.append(now)
        self._held[target] = now + self.life_s
        return {"order": self.desk.order(LOAD, target, time.time() + self.life_s)}

    def let_go(self, target: str, kind: str) -> Mapping[str, Any]:
        """Order that a site's tabs go, as far as nothing is lost."""
        self._held.pop(target, None)
        why = self._unable(kind)
        return {"order": self.desk.order(LET_GO, target)} if why is None else {"failed": why}

    def opened(self, target: str, kind: str) -> None:
        """It is held no more."""
        self._held.pop(target, None)

    def undo(self) -> None:
        """Withdraw what was not fetched; the rest goes by itself."""
        self.desk.take_orders()
        self.desk.acts = False

    def _unable(self, kind: str) -> str | None:
        if kind != "page":
            return f"a {kind} is not opened in the browser"
        return None if self.desk.heard() else "no browser is there; python -m rlmemo.live extension"

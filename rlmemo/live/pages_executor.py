"""`--act pages`: the browser's extension loads a site in a tab behind, and lets tabs of a site go.

An executor of live: it leaves an order at the desk, and what came of it is reported later (`Loop`). The
extension closes by itself what it loaded and nobody used, also when live was stopped or killed: as long as it
holds something it has a question open here, and sees at once that nobody answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from env.errors import InputError
from rlmemo.live.browser_desk import BrowserDesk
from rlmemo.store.live_ledger import LET_GO, LOAD


class PagesExecutor:
    """Orders pages, no more at a time than fit into `limit_mb`. life_s: how long a page that nobody opened is
    held; page_mb: what a site's page takes, in MB."""

    def __init__(
        self, desk: BrowserDesk, page_mb: Callable[[str], float], life_s: float, *, limit_mb: float
    ) -> None:
        """Raises InputError for a limit that is none."""
        if not 0 < limit_mb <= 1e9:
            raise InputError(f"the memory for pages is {limit_mb} MB; give more than 0")
        self.desk, self.page_mb, self.life_s = desk, page_mb, life_s
        self.limit_mb = limit_mb
        self._held: dict[str, float] = {}
        desk.acts = True

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        """Order a site's page."""
        now = time.monotonic()
        self._held = {x: until for x, until in self._held.items() if until > now}
        more = self.page_mb(target)
        if (why := self._unable(kind)) is not None:
            return {"failed": why}
        if more + sum(self.page_mb(x) for x in self._held) > self.limit_mb:
            return {"failed": f"no room in {self.limit_mb:g} MB"}
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
        """Withdraw what was not fetched, and tell the extension, which closes the rest."""
        self.desk.take_orders()
        self.desk.acts = False
        self.desk.ended.set()

    def _unable(self, kind: str) -> str | None:
        if kind != "page":
            return f"a {kind} is not opened in the browser"
        return None if self.desk.heard() else "no browser is there; python -m rlmemo.live extension"

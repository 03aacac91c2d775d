"""Where the browser's extension and the loop meet: visits and reports one way, orders the other.

The extension is answered once what it told is in the ledger, so it keeps a visit until then, and tells it
again where no answer came; a visit that was written already is known by its id. An order is handed out once,
and forgotten where nobody fetched it in time: no step is done twice, and none late.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlmemo.live.activitywatch import WEB, BucketReader, BucketRow, News, OrderReport

BUCKET = "rlmemo-chrome"
"""What its visits are filed under, as if it were a bucket of ActivityWatch's."""
PLACE = "browser"
IDS_KEPT = 400
"""Ids of visits that are kept: more than the extension can have on the way."""
STALE_S = 60.0
"""An order that nobody has fetched for so long is not carried out any more."""
HEARD_S = 90.0
"""The extension speaks every 30 s; a browser that was silent for longer is closed, or not paired."""


@dataclass(frozen=True)
class Visit:
    """A site came to the front at `t` (unix seconds); "" for none: another program, or a private window."""

    id: str
    t: float
    site: str


@dataclass
class HandedIn:
    """What came with one request, and whether it is written down."""

    visits: Sequence[Visit]
    reports: Sequence[OrderReport]
    kept: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Order:
    """A step that the extension is to do. until: when what was loaded is of no use any more."""

    id: str
    what: str
    site: str
    until: float
    made_at: float


class BrowserDesk:
    """Shared by the port's threads and the loop. stirred: set when there is something new; ended: set when
    what was loaded is to go, as live stops."""

    def __init__(self) -> None:
        self.stirred, self.ended = threading.Event(), threading.Event()
        self.heard_at = 0.0
        self.paused = self.acts = False
        self.due_s: float | None = None
        self._lock = threading.Lock()
        self._handed: list[HandedIn] = []
        self._orders: list[Order] = []

    def hand_in(self, visits: Sequence[Visit], reports: Sequence[OrderReport], wait_s: float) -> bool:
        """Lay something before the loop, and wait; whether it is written down."""
        one = HandedIn(visits, reports)
        with self._lock:
            self.heard_at = time.time()
            self._handed.append(one)
        self.stirred.set()
        done = one.kept.wait(wait_s)
        with self._lock:
            if one in self._handed:
                self._handed.remove(one)
        return done

    def handed(self) -> list[HandedIn]:
        """What lies here and is not written down yet."""
        with self._lock:
            return list(self._handed)

    def order(self, what: str, site: str, until: float = 0.0) -> str:
        """Leave an order for the extension; its id."""
        one = Order(secrets.token_hex(8), what, site, until, time.time())
        with self._lock:
            self._orders.append(one)
        return one.id

    def take_orders(self) -> list[dict[str, Any]]:
        """The orders, which are handed out with this."""
        with self._lock:
            taken, self._orders = self._orders, []
        return [
            {"id": x.id, "what": x.what, "site": x.site, "until": x.until}
            for x in taken
            if time.time() - x.made_at < STALE_S
        ]

    def heard(self) -> bool:
        """Whether a browser is there."""
        return time.time() - self.heard_at < HEARD_S


@dataclass
class BrowserReader:
    """What the extension told, as `BucketReader` tells of buckets. place: as `BucketReader`'s, whose entries
    stay, with the ids of the latest visits and the time of the last one as `PLACE`."""

    desk: BrowserDesk
    place: dict[str, Any] = field(default_factory=dict)
    taken: list[HandedIn] = field(default_factory=list)

    def read(self, *, look: bool = False) -> News:
        """What is new; `place` is then behind it."""
        self.taken, self.desk.paused = self.desk.handed(), False
        own = self.place.get(PLACE) or {}
        known = list(own.get("ids", ()))
        seen, rows, t = set(known), [], float(own.get("t", 0.0))
        for visit in (v for one in self.taken for v in one.visits):
            if visit.id not in seen:
                seen.add(visit.id)
                known.append(visit.id)
                t = max(t, visit.t)
                rows.append(BucketRow(BUCKET, WEB, 0, t, t, {"url": visit.site}))
        reports = tuple(r for one in self.taken for r in one.reports)
        grown = {BUCKET: BucketRow(BUCKET, WEB, 0, t, max(t, self.desk.heard_at), {})} if t else {}
        self.place = {**self.place, PLACE: {"ids": known[-IDS_KEPT:], "t": t}}
        return News(tuple(rows), {} if rows else grown, False, reports)

    def in_pause(self) -> News:
        """What is new of the time before a pause (the loop leaves out the rest)."""
        news = self.read()
        self.desk.paused = True
        return news

    def kept(self, due_s: float | None) -> None:
        """What was read is written down. due_s: seconds until something is to be done."""
        self.desk.due_s = due_s
        for one in self.taken:
            one.kept.set()
        self.taken = []


@dataclass
class BothReader:
    """ActivityWatch's buckets and what the extension told, together; of Chromium's pages the latter."""

    watch: BucketReader
    browser: BrowserReader

    @property
    def place(self) -> dict[str, Any]:
        """Of both."""
        return {**self.watch.place, PLACE: self.browser.place.get(PLACE)}

    @place.setter
    def place(self, place: Mapping[str, Any]) -> None:
        self.watch.place = self.browser.place = dict(place)

    def read(self, *, look: bool = False) -> News:
        """What is new. Raises Away where ActivityWatch is; the extension tells it again then."""
        watch, told = self.watch.read(look=look), self.browser.read()
        others = [r for r in watch.rows if not r.bucket.startswith("aw-watcher-web-chrome")]
        rows = tuple(sorted([*others, *told.rows], key=lambda r: r.t))
        return News(rows, {**watch.grown, **told.grown}, watch.windows, told.reports)

    def in_pause(self) -> News:
        """As the extension's: ActivityWatch keeps what it knows."""
        return self.browser.in_pause()

    def kept(self, due_s: float | None) -> None:
        """What was read is written down."""
        self.browser.kept(due_s)

"""ActivityWatch's server over REST: which buckets it has, and what is new in them.

A row of a bucket grows while its heartbeats are merged: its time and its data stay, its duration does not.
So a row is known by the id that the server gave it, and by its time; what is asked for overlaps what was read
last, and the server cuts off rows that begin before that: they are left out, as they were read before.

    server = ActivityWatch("127.0.0.1", 5600)
    reader = BucketReader(server, since=time.time())
    reader.read().rows                  # new rows of all buckets, in time order
    reader.place                        # to be kept with them: where to go on from
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from env.errors import InputError
from rlmemo.hosts import is_loopback
from rlmemo.kept_connection import KeptConnection

PORT, TESTING_PORT = 5600, 5666
WINDOW, WEB, AFK = "currentwindow", "web.tab.current", "afkstatus"
KINDS_OF_BUCKETS = (WINDOW, WEB, AFK)
OVERLAP_S = 120.0
"""How far before the latest row of a bucket is asked again. What arrives later than that is not seen."""
TIMEOUT_S = 10.0
AHEAD_S = 60.0
"""A row that begins later than so many seconds from now waits for its time: its watcher's clock is wrong, and
what comes after it by the right time would look older than what was read."""


class Away(Exception):
    """The server does not answer, or not as ActivityWatch does; says what to do."""


@dataclass(frozen=True)
class BucketRow:
    """An event of a bucket. id: of the server's; end: its time and duration together, so far."""

    bucket: str
    kind: str
    id: int
    t: float
    end: float
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Bucket:
    """One of the server's buckets. created: tells it from one of the same name that was deleted."""

    name: str
    kind: str
    host: str
    created: str


class ActivityWatch:
    """The REST client. It speaks to this machine alone: no proxy, no redirection, loopback only. Raises
    InputError for another host."""

    def __init__(self, host: str = "127.0.0.1", port: int = PORT) -> None:
        if not is_loopback(host):
            raise InputError(f"{host}: is not this machine; ActivityWatch is asked at 127.0.0.1 only")
        if not 0 < port <= 65535:
            raise InputError(f"--port {port} is no port; give 1 to 65535")
        self.host, self.port = host, port
        self._connection = KeptConnection(host, port)

    def __str__(self) -> str:
        return f"ActivityWatch at {self.host}:{self.port}"

    def info(self) -> dict[str, Any]:
        """What the server says of itself. Raises Away."""
        found = self._get("/api/0/info")
        if not isinstance(found, dict) or "version" not in found:
            raise Away(self._else())
        return found

    def buckets(self) -> list[Bucket]:
        """Its buckets of the kinds that are read, by name. Raises Away."""
        found = self._get("/api/0/buckets/")
        if not isinstance(found, dict):
            raise Away(self._else())
        return [
            Bucket(name, str(b.get("type")), str(b.get("hostname", "")), str(b.get("created", "")))
            for name, b in sorted(found.items())
            if isinstance(b, dict) and b.get("type") in KINDS_OF_BUCKETS
        ]

    def rows(self, bucket: Bucket, start: float | None) -> list[BucketRow]:
        """The rows of a bucket that had not ended at `start` (unix seconds; None: all), in time order; those
        that began before it are cut off. Raises Away."""
        asked = {"limit": "-1"} | ({} if start is None else {"start": _iso(start)})
        found = self._get(f"/api/0/buckets/{quote(bucket.name, safe='')}/events?{urlencode(asked)}")
        try:
            rows = [_row(bucket, x) for x in found]
        except (TypeError, ValueError, KeyError, AttributeError):
            raise Away(self._else()) from None
        return sorted(rows, key=lambda r: (r.t, r.id))

    def _get(self, path: str) -> Any:
        try:
            status, body = self._connection.ask(
                "GET", path, {"Accept": "application/json"}, timeout=TIMEOUT_S
            )
        except (OSError, http.client.HTTPException) as error:
            raise Away(self._why(error)) from None
        if status != 200:
            raise Away(f"{self} answers {status} to {path.partition('?')[0]}")
        try:
            return json.loads(body)
        except ValueError:
            self.close()
            raise Away(self._else()) from None

    def close(self) -> None:
        """Let the connection go; the next question makes a new one."""
        self._connection.close()

    def _why(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError):
            return (
                f"nothing listens at {self.host}:{self.port}; start ActivityWatch (aw-qt, or aw-server and "
                "its watchers), or give its --port"
            )
        if isinstance(error, http.client.HTTPException):
            return self._else()
        return f"{self} does not answer ({error or type(error).__name__}); see whether it hangs"

    def _else(self) -> str:
        return f"what listens at {self.host}:{self.port} is not ActivityWatch; give the --port of its server"


def _row(bucket: Bucket, x: Mapping[str, Any]) -> BucketRow:
    t = datetime.fromisoformat(str(x["timestamp"]))
    begun = (t if t.tzinfo else t.replace(tzinfo=UTC)).timestamp()
    data = x.get("data")
    return BucketRow(
        bucket.name, bucket.kind, int(x["id"]), begun, begun + max(0.0, float(x["duration"])),
        data if isinstance(data, dict) else {},
    )  # fmt: skip


def _iso(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat()


@dataclass(frozen=True)
class OrderReport:
    """What came of a step that was given away as an order (`browser_desk`)."""

    order: str
    came: Mapping[str, Any]


@dataclass(frozen=True)
class News:
    """rows: the new rows of all buckets, in time order. grown: by bucket the latest row that was read before,
    as long as it is now. windows: whether somebody watches windows. reports: what came of orders. ahead:
    that a row is ahead of the clock, and waits."""

    rows: tuple[BucketRow, ...] = ()
    grown: Mapping[str, BucketRow] = field(default_factory=dict)
    windows: bool = True
    reports: tuple[OrderReport, ...] = ()
    ahead: str = ""

    def told_until(self, kind: str) -> float | None:
        """Until when buckets of a kind have told something; None where there are none."""
        return max((r.end for r in (*self.rows, *self.grown.values()) if r.kind == kind), default=None)


@dataclass
class BucketReader:
    """What is new in a server's buckets since `place`, which is what was read: by bucket, when it was made,
    the latest time of a row, and the ids of the rows in the overlap with their times.

    since: rows before that are left out when a bucket is read for the first time (unix seconds). host: whose
    buckets, where the server has several machines' (None: the one that has most). now: what time it is, for
    rows that are ahead of it.
    """

    server: ActivityWatch
    since: float
    host: str | None = None
    now: Callable[[], float] = time.time
    place: dict[str, Any] = field(default_factory=dict)
    found: list[Bucket] = field(default_factory=list)

    def look(self) -> list[Bucket]:
        """Which buckets there are now; those of another machine, or synced from one, are left out. Raises
        Away."""
        every = [b for b in self.server.buckets() if "-synced-from-" not in b.name]
        hosts = [b.host for b in every if b.kind == WINDOW] or [b.host for b in every]
        host = self.host or (max(hosts, key=hosts.count) if hosts else "")
        # a browser's bucket does not always know its machine
        own = [b for b in every if b.host == host or (b.kind == WEB and b.host in ("", "unknown"))]
        # windows first: a page that was there before a window came to the front is then seen with it, and one
        # that is newer waits (`fronts`)
        self.found = sorted(own, key=lambda b: (b.kind == WEB, b.name))
        return self.found

    def read(self, *, look: bool = False) -> News:
        """What is new; `place` is then behind it. look: whether there are other buckets. Raises Away."""
        if look or not self.found:
            self.look()
        new: list[BucketRow] = []
        place, grown = dict(self.place), dict[str, BucketRow]()
        ahead = ""
        for bucket in self.found:
            known = place.get(bucket.name) or {"created": "", "t": self.since}
            if known["created"] != bucket.created:  # never read, or deleted and made anew
                known = {"created": bucket.created, "t": known["t"], "ids": {}}
            start = known["t"] - OVERLAP_S
            held, now = self.server.rows(bucket, start), self.now()
            if held and held[-1].t > now + AHEAD_S:
                ahead = (
                    f"{bucket.name}: its latest is {(held[-1].t - now) / 60.0:.0f} minutes ahead of the "
                    "clock here, and waits until then; set that watcher's clock right"
                )
                held = [r for r in held if r.t <= now + AHEAD_S]
            fresh = [r for r in held if _is_new(r, known, start)]
            old = [r for r in held if str(r.id) in known["ids"]]
            if old:
                grown[bucket.name] = old[-1]
            new += fresh
            latest = max([known["t"], *(r.t for r in fresh)])
            ids = {str(r.id): r.t for r in held if r.t >= latest - OVERLAP_S}
            place[bucket.name] = {"created": bucket.created, "t": latest, "ids": ids}
        self.place = place
        rows = tuple(sorted(new, key=lambda r: (r.t, KINDS_OF_BUCKETS.index(r.kind), r.id)))
        return News(rows, grown, any(b.kind == WINDOW for b in self.found), ahead=ahead)

    def in_pause(self) -> News:
        """Nothing is asked while nothing is to be recorded."""
        return News()

    def kept(self, due_s: float | None) -> None:
        """What was read is written down: the server needs no word of it."""


def _is_new(row: BucketRow, known: Mapping[str, Any], start: float) -> bool:
    """Whether a row was not read before. What begins at `start` was cut off: it began before."""
    if str(row.id) in known["ids"] or row.t <= start + 1e-3:
        return False
    return row.t > known["t"] if not known["ids"] else True

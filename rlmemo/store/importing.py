"""Bringing a recording into the store: it adds to what the same source already holds for a user.

The same opening (time, target, kind, and device where both name one) is stored once however many recordings
tell of it, and as often as the one that tells of it most often: A, B, A within one second are three. What
comes at the same time keeps the order of its file. Nothing refers to an event by its id, so predictions and
ratings stay as they are.
"""

from __future__ import annotations

import math
import shlex
import time
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import replace as with_fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from env.errors import InputError
from env.sources.names import clean_name, kept_target
from env.timeline import KINDS, SWITCHES, Timeline, zone

if TYPE_CHECKING:
    from env.sources import Loaded

Row = tuple[float, str, str, float | None, str | None, int]  # t, target, kind, duration, device, wave
_COLUMNS = "t, target, kind, duration, device, wave"
_INSERT = f"INSERT INTO events (timeline_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
FITS = 0.5
"""Share of the openings in a stretch that two recordings both cover which both must tell of, at least, before
a stored time zone is changed. Local times that were read in the wrong zone share next to none."""


@dataclass(frozen=True)
class Stretch:
    """Events of a user, and the local dates of the first and the last."""

    user: str
    events: int
    first: str
    last: str


@dataclass(frozen=True)
class Imported:
    """What an import did: events written, users in the recording, events that were there already, offs and
    wakes written, what was there of these users before, what `replace` took away, and what else should be
    known."""

    events: int
    users: int
    known: int
    switches: int
    before: tuple[Stretch, ...]
    gone: tuple[Stretch, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "events": self.events,
            "users": self.users,
            "known": self.known,
            "switches": self.switches,
            "before": [vars(x) for x in self.before],
            "replaced": sum(x.events for x in self.gone),
            "gone": [vars(x) for x in self.gone],
            "notes": list(self.notes),
        }


def add(store: Any, loaded: Loaded, source: str | None = None, *, replace: bool = False) -> Imported:
    """Write what was loaded, all of it or nothing. replace: in place of what the source holds of these users.

    Users that the recording does not name stay as they are. Load with `collapsed=False`: collapsing is
    done when a timeline is read. Raises InputError for a source without a name, an event without a time,
    or another time zone than the one that is stored.
    """
    source = clean_name(source or loaded.name)
    if not source:
        raise InputError(f"{loaded.name!r} is no name for a source; give one with --name")
    now, written, known, switches = time.time(), 0, 0, 0
    before, gone, notes = [], [], []
    elsewhere: dict[str, list[str]] = defaultdict(list)
    with store.write():
        for x in loaded.timelines:
            rows, ids, synthetic = _rows(x), list[int](), loaded.synthetic
            held = _held(store, source, x.user)
            if held is not None and replace:
                gone.append(_stretch(held))
                for table in ("events", "switches"):
                    store.db.execute(f"DELETE FROM {table} WHERE timeline_id = ?", [held["id"]])
            elif held is not None:
                before.append(_stretch(held))
                synthetic = synthetic or bool(held["synthetic"])
                rows, there, ids, otherwise = _new(store, int(held["id"]), rows)
                if otherwise > there:
                    raise InputError(
                        f"{source}: {x.user!r} is stored with pages reduced in another way (--page host or "
                        "path), and this recording tells of the same pages; nothing was written; give the "
                        "other --page, --replace to put this one in its place, or another --name"
                    )
                known += there
                notes += _zone_notes(store, source, x, held, there)
                x = _with_zone(x, held)
                if not rows and (x.tz, x.tz_known) == (held["tz"], held["tz_known"]):
                    switches += _switched(store, int(held["id"]), x)
                    continue
            if held is None and not synthetic:
                for other in _other_sources(store, source, x.user):
                    elsewhere[other].append(x.user)
            identity, _ = store._timeline(source, x.user, x.tz, x.tz_known, synthetic, now)
            store.db.conn.executemany("DELETE FROM events WHERE id = ?", [(i,) for i in ids])
            store.db.conn.executemany(_INSERT, ((identity, *row) for row in rows))
            written += len(rows) - len(ids)
            switches += _switched(store, identity, x)
    for other, users in elsewhere.items():
        who = f"{users[0]} is" if len(users) == 1 else f"{len(users):,} users are"
        notes.append(
            f"{who} stored from {other} as well, and this is another timeline; import it with "
            f"--name {shlex.quote(other)} to add to that one (the dashboard forgets this one: Data and "
            "privacy, A recording)"
        )
    return Imported(
        events=written,
        users=len(loaded.timelines),
        known=known,
        switches=switches,
        before=tuple(x for x in before if x.events),
        gone=tuple(x for x in gone if x.events),
        notes=tuple(notes),
    )


def _switched(store: Any, identity: int, x: Timeline) -> int:
    """Write the offs and wakes that are not stored yet; how many these were."""
    told = [
        (t, kind) for kind, times in zip(SWITCHES, (x.offs, x.wakes), strict=True) for t in times.tolist()
    ]
    insert = "INSERT OR IGNORE INTO switches (timeline_id, t, kind) VALUES (?, ?, ?)"
    return sum(store.db.conn.execute(insert, (identity, *one)).rowcount for one in told)


def _rows(x: Timeline) -> list[Row]:
    """A timeline's events as they are stored. Its source has reduced page addresses; this makes sure."""
    if not np.isfinite(x.t).all():
        bad = int(np.flatnonzero(~np.isfinite(x.t))[0])
        raise InputError(f"user {x.user!r}: event {bad + 1} cannot be stored, its time is {x.t[bad]}")
    kept: dict[tuple[int, int], tuple[str, str]] = {}
    out: list[Row] = []
    columns = (x.t, x.target, x.kind, x.duration, x.device, x.wave)
    for t, target, kind, duration, device, wave in zip(*(c.tolist() for c in columns), strict=True):
        if (target, kind) not in kept:
            kept[target, kind] = kept_target(x.names[target], KINDS[kind])
        known = duration if 0 <= duration < math.inf else None
        out.append((t, *kept[target, kind], known, x.devices[device] if device >= 0 else None, wave))
    return out


def _new(store: Any, identity: int, rows: list[Row]) -> tuple[list[Row], int, list[int], int]:
    """What of `rows` (in time order) is not stored yet, how many are, the ids of stored events that have to
    be written anew for the order of the file (those of a moment of which it tells all and more), and how
    many are stored with more or less of their page's address."""
    stored: dict[float, list[tuple[int, Row]]] = defaultdict(list)
    span = (rows[0][0], rows[-1][0]) if rows else (0.0, 0.0)
    for i, *row in store.db.execute(
        f"SELECT id, {_COLUMNS} FROM events WHERE timeline_id = ? AND t BETWEEN ? AND ? ORDER BY t, id",
        [identity, *span],
    ):
        stored[row[0]].append((i, tuple(row)))  # type: ignore[arg-type]
    moments: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        moments[row[0]].append(row)
    new: list[Row] = []
    again: list[int] = []
    there = otherwise = 0
    for t, told in moments.items():
        held = stored.get(t)
        if held is None:
            new += told
            continue
        found = _matches([row for _, row in held], told)
        matched = sum(row is not None for row in found)
        there += matched
        if matched == len(told):
            continue
        unknown = [row for row, known in zip(told, found, strict=True) if known is None]
        otherwise += _of_the_same_pages(unknown, [row for _, row in held])
        if matched == len(held):
            again += [i for i, _ in held]
            new += [row if known is None else known for row, known in zip(told, found, strict=True)]
        else:
            new += unknown
    return new, there, again, otherwise


def _matches(held: list[Row], told: list[Row]) -> list[Row | None]:
    """Per row that is told, the stored one of the same moment that it is, None for a new one. A recording
    that names no device may tell of any."""
    left: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in held:
        left[row[1], row[2]].append(row)
    found: list[Row | None] = [None] * len(told)
    for exact in (True, False):
        for k, row in enumerate(told):
            if found[k] is None:
                same = left[row[1], row[2]]
                fits = (x for x in same if x[4] == row[4] or not (exact or (x[4] and row[4])))
                if (match := next(fits, None)) is not None:
                    found[k] = match
                    same.remove(match)
    return found


def _of_the_same_pages(one: list[Row], other: list[Row]) -> int:
    """How many pages of `one` are there with a path of which `other` has the host, or the other way round."""
    pages = {row[1] for row in other if row[2] == "page"}
    hosts = {page.partition("/")[0] for page in pages if "/" in page}
    own = [row[1] for row in one if row[2] == "page" and row[1] not in pages]
    return sum(page.partition("/")[0] in pages if "/" in page else page in hosts for page in own)


def _other_sources(store: Any, source: str, user: str) -> list[str]:
    """From where else a user is stored, invented people aside."""
    found = store.rows(
        "SELECT source FROM timelines WHERE user = ? AND source <> ? AND NOT synthetic ORDER BY id",
        [user, source],
    )
    return [row["source"] for row in found]


def _held(store: Any, source: str, user: str) -> dict[str, Any] | None:
    """The stored timeline of a user, with the number of its events, the first and the last."""
    found = store.rows(
        """SELECT timelines.*, COUNT(events.id) AS events, MIN(events.t) AS first_t, MAX(events.t) AS last_t
           FROM timelines LEFT JOIN events ON events.timeline_id = timelines.id
           WHERE source = ? AND user = ? GROUP BY timelines.id""",
        [source, user],
    )
    return found[0] if found else None


def _with_zone(x: Timeline, held: dict[str, Any]) -> Timeline:
    """`x` with the stored time zone where it knows none itself."""
    return x if x.tz_known or not held["tz_known"] else with_fields(x, tz=held["tz"], tz_known=True)


def _zone_notes(store: Any, source: str, x: Timeline, held: dict[str, Any], there: int) -> list[str]:
    """What to say of a time zone that is stored and not recorded, or the other way round. Raises InputError
    where the two contradict each other."""
    if not held["events"] or not len(x) or (x.tz, x.tz_known) == (held["tz"], bool(held["tz_known"])):
        return []
    ways = f"--tz {held['tz']} if that is it, --replace to put this one in its place, or another --name"
    if x.tz_known and held["tz_known"]:
        raise InputError(
            f"{source}: {x.user!r} is stored with the time zone {held['tz']}, and this recording has {x.tz}; "
            f"nothing was written; give {ways}"
        )
    if not x.tz_known:
        return [f"{x.user}: the time zone stays {held['tz']}, as stored"]
    first, last = max(held["first_t"], float(x.t[0])), min(held["last_t"], float(x.t[-1]))
    both = min(
        int(((x.t >= first) & (x.t <= last)).sum()),
        store.rows(
            "SELECT COUNT(*) AS n FROM events WHERE timeline_id = ? AND t BETWEEN ? AND ?",
            [held["id"], first, last],
        )[0]["n"],
    )
    if there < FITS * both:
        raise InputError(
            f"{source}: {x.user!r} is stored without a known time zone, and read in {x.tz} this recording "
            f"tells of other times in the same days; nothing was written; give {ways}"
        )
    return [f"{x.user}: the time zone, not known before, is {x.tz}"]


def _stretch(held: dict[str, Any]) -> Stretch:
    if not held["events"]:
        return Stretch(held["user"], 0, "", "")
    first, last = (
        datetime.fromtimestamp(held[end], zone(held["tz"])).date().isoformat()
        for end in ("first_t", "last_t")
    )
    return Stretch(held["user"], int(held["events"]), first, last)

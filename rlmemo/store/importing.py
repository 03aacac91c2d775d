"""Bringing a recording into the store: it adds to what the same source already holds for a user.

The same opening (time, target, kind, device) is stored once however many recordings tell of it, and as often
as the one that tells of it most often: A, B, A within one second are three. What comes at the same time keeps
the order of its file. Nothing refers to an event by its id, so predictions and ratings stay as they are.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import replace as with_fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from env.errors import InputError
from env.sources.names import clean_name, kept_target
from env.timeline import KINDS, Timeline, zone

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
    """What an import did: events written, users in the recording, events that were there already, what was
    there of these users before, what `replace` took away, and what else should be known."""

    events: int
    users: int
    known: int
    before: tuple[Stretch, ...]
    gone: tuple[Stretch, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "events": self.events,
            "users": self.users,
            "known": self.known,
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
    now, written, known = time.time(), 0, 0
    before, gone, notes = [], [], []
    with store.write():
        for x in loaded.timelines:
            rows, ids, synthetic = _rows(x), list[int](), loaded.synthetic
            held = _held(store, source, x.user)
            if held is not None and replace:
                gone.append(_stretch(held))
                store.db.execute("DELETE FROM events WHERE timeline_id = ?", [held["id"]])
            elif held is not None:
                before.append(_stretch(held))
                synthetic = synthetic or bool(held["synthetic"])
                rows, there, ids = _new(store, int(held["id"]), rows)
                known += there
                notes += _zone_notes(store, source, x, held, there)
                x = _with_zone(x, held)
                if not rows and (x.tz, x.tz_known) == (held["tz"], held["tz_known"]):
                    continue
            identity, _ = store._timeline(source, x.user, x.tz, x.tz_known, synthetic, now)
            store.db.conn.executemany("DELETE FROM events WHERE id = ?", [(i,) for i in ids])
            store.db.conn.executemany(_INSERT, ((identity, *row) for row in rows))
            written += len(rows) - len(ids)
    return Imported(
        events=written,
        users=len(loaded.timelines),
        known=known,
        before=tuple(x for x in before if x.events),
        gone=tuple(x for x in gone if x.events),
        notes=tuple(notes),
    )


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


def _new(store: Any, identity: int, rows: list[Row]) -> tuple[list[Row], int, list[int]]:
    """What of `rows` (in time order) is not stored yet, how many are, and the ids of stored events that
    have to be written anew for the order of the file: those of a moment of which it tells all and more."""
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
    there = 0
    for t, told in moments.items():
        held = stored.get(t)
        if held is None:
            new += told
            continue
        by_key: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for _, row in held:
            by_key[_key(row)].append(row)
        merged = [(by_key[_key(row)].pop(0), True) if by_key[_key(row)] else (row, False) for row in told]
        matched = sum(known for _, known in merged)
        there += matched
        if matched == len(told):
            continue
        if matched == len(held):
            again += [i for i, _ in held]
            new += [row for row, _ in merged]
        else:
            new += [row for row, known in merged if not known]
    return new, there, again


def _key(row: Row) -> tuple[Any, ...]:
    return row[1], row[2], row[4] or ""


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

"""A recording that exists already, as what live begins with: `live start --timelines`.

It tells of the time before the first open that the watchers tell of: those days are in both, and the watchers
know them better. It comes into the ledger in one transaction with what is read first, so that it is there
whole or not at all; nothing is decided after its opens.

    past = past_of("History", "me", "Europe/Berlin", Path("rlmemo.db"))
    past.until(t)                                      # its opens before t
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from env.errors import InputError
from env.sources import HasUsers, Loaded, load_timelines
from env.timeline import SWITCHES, Event, Timeline
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import PAST, SOURCE, Seen


@dataclass(frozen=True)
class Past:
    """What a recording tells of one person. named: as it was given."""

    named: str
    timelines: Sequence[Timeline]

    def until(self, t: float) -> list[Seen]:
        """What was opened before t, in time order; what two recordings tell of, once."""
        opens = sorted((e for x in self.timelines for e in x if e.t < t), key=lambda e: e.t)
        return [Seen(key, e) for key, e in {_key(e): e for e in opens}.items()]

    def switches(self, t: float) -> list[tuple[float, str]]:
        """When the machine was off before t: (time, off or wake)."""
        told = [
            (float(at), kind)
            for x in self.timelines
            for kind, times in zip(SWITCHES, (x.offs, x.wakes), strict=True)
            for at in times
        ]
        return sorted({(at, kind) for at, kind in told if at < t})

    def told(self, seen: Sequence[Seen]) -> dict[str, object]:
        """For the ledger, and the status: what it began with."""
        return {"named": self.named, "opens": len(seen), "until": seen[-1].event.t if seen else None}


def _key(event: Event) -> str:
    return f"import {event.t:.6f} {event.kind} {event.target}"


def past_of(named: str | None, user: str, tz: str | None, db: Path) -> Past | None:
    """What is to come before what live records of `user`; None where nothing is, or where it is there
    already. tz: the recording's time zone, where it does not say. Writes nothing.

    Raises InputError for what cannot be read, holds nothing of that person, or comes too late.
    """
    if named is None:
        return None
    began = _began_with(db, user)
    if began == named:
        return None
    if began is not None:
        raise InputError(
            f"--timelines {named}: the recording in {db} has begun {_with(began)}; leave it out, or name "
            "another database with --db"
        )
    try:
        loaded = load_timelines(named, tz=tz, user=user)
    except HasUsers:  # it names them itself
        loaded = load_timelines(named, tz=tz)
    if loaded.synthetic:
        raise InputError(
            f"--timelines {named}: is invented, and would stand in a person's recording; give a recording"
        )
    return Past(named, _of(loaded, user, named))


def _with(began: str) -> str:
    return f"with {began}" if began else "without it"


def _of(loaded: Loaded, user: str, named: str) -> list[Timeline]:
    """The timelines of one person: those that bear the name, in whatever source; else the only one."""
    mine = [x for x in loaded.timelines if x.user == user or x.user.endswith(f"/{user}")]
    if mine or len(loaded.timelines) == 1:
        return mine or loaded.timelines
    names = [x.user for x in loaded.timelines]
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    raise InputError(f"--timelines {named}: holds nothing of {user!r}; it has {shown}; name one with --user")


def _began_with(db: Path, user: str) -> str | None:
    """What a recording began with, "" where that was nothing; None where none has begun."""
    if not db.exists() or not db.stat().st_size:
        return None
    with open_store(db, make=False) as store:
        found = store.rows(
            """SELECT (SELECT value ->> 'named' FROM live_state WHERE name = t.id || ' ' || ?) AS named,
                      EXISTS (SELECT 1 FROM events WHERE timeline_id = t.id) AS begun
               FROM timelines AS t WHERE source = ? AND user = ?""",
            [PAST, SOURCE, user],
        )
    if not found or not (found[0]["named"] or found[0]["begun"]):
        return None
    return found[0]["named"] or ""

"""Who is planned for: each recording has its ledger in the store and, while it is asked for, a mind.

What counts is in the store; a mind is made from it whenever there is none, or it may be further than what is
kept. So the process may be killed at any moment, and only so many minds are held as were asked for last.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from env.sources.names import target_and_kind
from env.timeline import Event
from rlmemo.live.mind import Thought
from rlmemo.serve.chain import Chain
from rlmemo.serve.thumbs_sent import Sent, digest, thumbs_of
from rlmemo.serve.told import ToldMind
from rlmemo.serve.turns import Turns
from rlmemo.store.database import Store
from rlmemo.store.forgetting import forget_recording
from rlmemo.store.live_ledger import (
    FORGOTTEN,
    NOT_YET,
    SOURCE,
    THUMBS,
    LiveLedger,
    LivePlan,
    LiveRow,
    Off,
    Seen,
)

if TYPE_CHECKING:
    from env.thumbs import Thumbs

AT_A_TIME = 16
"""Events or plans that are written before somebody else may have a turn."""
MIND_UP_TO = 64
"""Plans that a device made itself, up to which a mind takes them in one by one; of more it is made anew."""


class Refused(Exception):
    """A request that cannot be done as it stands. status: of HTTP; more: for the answer."""

    def __init__(self, status: int, said: str, **more: Any) -> None:
        super().__init__(said)
        self.status, self.more = status, more


@dataclass(frozen=True)
class SentEvent:
    """An event as a device sends it. off: when the machine was switched off since the one before. done: what
    the device planned itself after it; None: it wants to be told."""

    id: str
    event: Event
    off: float | None = None
    done: LivePlan | None = None


@dataclass(frozen=True)
class Believed:
    """What a device believes that the server knows: so many events, with that digest."""

    count: int
    digest: str


class Elsewhere(Exception):
    """Who was thinking of a recording does not stand where it stands any more."""


class Thinks(Protocol):
    """Who plans for one recording; `ToldMind` does it here.

    `think_all` raises `Elsewhere` where it has to be made anew from what is kept."""

    def restore(self, rows: Sequence[LiveRow]) -> None: ...
    def hear(self, thumbs: Thumbs | None) -> None: ...
    def think_all(self, rows: Sequence[LiveRow], told: Sequence[LivePlan | None]) -> Iterable[Thought]: ...


Make = Callable[[str, str, float | None], Any]
"""Makes a minding for (user, time zone, memory in MB or None); refuses before anything is written."""


@dataclass(frozen=True)
class Way:
    """How it is planned. make: a minding; begin: one who thinks by it and has seen nothing; apart: what is
    done within it takes a while, and others have their turn meanwhile."""

    make: Make
    begin: Callable[[Any], Any] = ToldMind
    apart: Callable[[], AbstractContextManager[None]] = nullcontext


class Person:
    """One recording, and the `way` in which it is planned for."""

    def __init__(self, store: Store, name: str, tz: str, memory_mb: float | None, way: Way | Make) -> None:
        self.way = way if isinstance(way, Way) else Way(way)
        self.minding = self.way.make(name, tz, memory_mb)
        self.ledger = LiveLedger(store, name, tz, at_once=False)
        self.name, self.tz, self.memory_mb = name, self.ledger.tz, memory_mb
        if self.tz != tz:
            raise Refused(409, f"this recording's times are in {self.tz}, and not in {tz}")
        self._read()

    def _read(self) -> None:
        """Stand where the store stands."""
        self._forgotten = self.ledger.state(FORGOTTEN)
        keys = self.ledger.keys()
        self.chain, self._rows = Chain(key for _, key in keys), [number for number, _ in keys]
        self._mind: Any = None
        self._last = 0
        self.said: Sent = self.ledger.state(THUMBS) or []
        self.heard = digest(self.said)

    def fresh(self) -> None:
        """Notice where something was forgotten meanwhile."""
        if self.ledger.state(FORGOTTEN) != self._forgotten:
            self._read()

    def take(self, sent: Sequence[SentEvent], after: Believed | None = None) -> LivePlan | None:
        """Take in events; the plan after the last of them. Raises Refused, and nothing is written then, but
        for 503: events may be kept whose plan is made when they are sent again."""
        known = self._check_place(sent, after)
        rows = self._known_rows(sent[:known])
        self._check_order(sent[known:])
        told = {x.id: x.done for x in sent if x.done is not None}
        for one, row in zip(sent[:known], rows, strict=True):
            self._check_same(one, row)
        now = time.time()
        try:
            for one, row in zip(sent[:known], rows, strict=True):
                if one.done is not None and row.planned != NOT_YET and not _same_plan(row, one.done):
                    self.ledger.reopen(row)
                    self._mind = None
            for first in range(known, len(sent), AT_A_TIME):
                if first > known:
                    self._others()
                self._add(sent[first : first + AT_A_TIME], now)
            self._decide(told)
        except BaseException:
            self._mind = None  # it may be further than what is kept
            raise
        return self.plan(sent[-1].id) if sent else None

    def _add(self, new: Sequence[SentEvent], now: float) -> None:
        """Write events down. (A plan follows for each, and with it this is on the disk before anything is
        answered.)"""
        offs = [Off(x.off, x.event.t, "shutdown") for x in new if x.off is not None]
        self.ledger.add([Seen(x.id, x.event) for x in new], at=now, offs=offs, lasting=False)
        for number, key in self.ledger.keys(after=self._rows[-1] if self._rows else 0):
            self.chain.add(key)
            self._rows.append(number)

    def _others(self) -> None:
        """Others may have a turn."""
        with self.way.apart():
            pass

    def hear(self, said: Sent) -> None:
        """What the person has said, all of it; it is minded from the next plan on."""
        if said != self.said:
            self.ledger.put(**{THUMBS: said})
            self.said, self.heard = said, digest(said)
            if self._mind is not None:
                self._mind.hear(thumbs_of(said))

    def plan(self, event_id: str) -> LivePlan | None:
        """What was decided after an event. Raises Refused for one that is not known."""
        place = self.chain.place.get(event_id)
        if place is None:
            raise Refused(404, f"no event {event_id!r} of this recording is known")
        return self.ledger.plan_of(self._rows[place])

    def _check_place(self, sent: Sequence[SentEvent], after: Believed | None) -> int:
        """How many of these are known already."""
        if len({x.id for x in sent}) != len(sent):
            raise Refused(409, "an id stands twice in this request")
        n = len(self.chain)
        if after is not None:
            standing = {"events": n, "digest": self.chain.digest()}
            if after.count > n or self.chain.digest(after.count) != after.digest:
                raise Refused(409, "this recording stands elsewhere here; see events and digest", **standing)
        known = 0
        while known < len(sent) and sent[known].id in self.chain.place:
            known += 1
        places = [self.chain.place[x.id] for x in sent[:known]]
        begin = after.count if after is not None else places[0] if places else n
        if places != list(range(begin, begin + known)) or (known < len(sent) and begin + known != n):
            raise Refused(409, "out of order: these events do not follow each other here")
        if any(x.id in self.chain.place for x in sent[known:]):
            raise Refused(409, "out of order: an event that is known follows one that is not")
        return known

    def _known_rows(self, sent: Sequence[SentEvent]) -> list[LiveRow]:
        """The stored rows of events that are known."""
        if not sent:
            return []
        rows = self.ledger.rows(after=self._rows[self.chain.place[sent[0].id]] - 1)
        return [row for _, row in zip(sent, rows, strict=False)]

    def _check_same(self, one: SentEvent, row: LiveRow) -> None:
        was, now = row.event, one.event
        if (was.t, was.target, was.kind) != (now.t, now.target, now.kind):
            raise Refused(409, f"event {one.id!r} is known as another one")
        if (
            one.done is not None and row.planned != NOT_YET and row.id != self._rows[-1]
            and not _same_plan(row, one.done)
        ):  # fmt: skip
            raise Refused(409, f"after event {one.id!r} something else was decided, and more has come since")

    def _check_order(self, new: Sequence[SentEvent]) -> None:
        """Raises Refused for events that cannot follow what is known."""
        latest: Event | None = None
        if self._rows and new:
            *_, row = self.ledger.rows(after=self._rows[-1] - 1)
            latest = row.event
        for one in new:
            event = one.event
            if target_and_kind(event.target, event.kind) != (event.target, event.kind):
                raise Refused(
                    422, f"event {one.id!r}: a page is sent as its host, a name without what is odd"
                )
            if latest is not None:
                if event.t < latest.t:
                    raise Refused(409, f"out of order: event {one.id!r} is at {event.t}, before {latest.t}")
                if event.target == latest.target and one.off is None:
                    raise Refused(422, f"event {one.id!r} opens what is open already; send changes only")
                if one.off is not None and not latest.t <= one.off <= event.t:
                    raise Refused(422, f"event {one.id!r}: off must lie between the event before and it")
            latest = event

    def _decide(self, told: dict[str, LivePlan]) -> None:
        """Plan after every event that has no plan."""
        read = self._last if self._mind is not None else 0
        todo = [row for row in self.ledger.rows(after=read) if row.planned == NOT_YET]
        names = {row.id: self.chain.ids[bisect_left(self._rows, row.id)] for row in todo}
        if sum(name in told for name in names.values()) > MIND_UP_TO:
            self._mind = None
            while todo and (done := told.get(names[todo[0].id])) is not None:
                self.ledger.decide(todo[0], done, {}, (), at=done.made_at)
                todo.pop(0)
        for first in range(0, len(todo), AT_A_TIME):
            some = todo[first : first + AT_A_TIME]
            self._think(some, [told.get(names[row.id]) for row in some], first + len(some) == len(todo))

    def _think(self, rows: Sequence[LiveRow], given: Sequence[LivePlan | None], lasting: bool) -> None:
        """Plan after some events, one after the other. lasting: all that was written so far lasts from here
        on, as it is answered."""
        mind: Thinks = self._mind or self._made()
        try:
            thoughts = self._thoughts(mind, rows, given)
        except Elsewhere:
            mind = self._made()
            thoughts = self._thoughts(mind, rows, given)
        for row, done, thought in zip(rows, given, thoughts, strict=True):
            now, last = time.time(), lasting and row is rows[-1]
            plan = done or replace(thought.plan, made_at=now)
            if self.ledger.decide(row, plan, thought.record, thought.came, at=now, lasting=last) is None:
                raise Refused(409, "this recording has changed meanwhile; send that again")
            self._last = row.id
        self._mind = mind

    def _thoughts(
        self, mind: Thinks, rows: Sequence[LiveRow], told: Sequence[LivePlan | None]
    ) -> Iterable[Thought]:
        with self.way.apart():
            return mind.think_all(rows, told)

    def _made(self) -> Any:
        """A mind that stands where everything that was decided has led."""
        mind, rows = self.way.begin(self.minding), list(self.ledger.rows())
        done = next((k for k, r in enumerate(rows) if r.planned == NOT_YET), len(rows))
        mind.restore(rows[:done])
        mind.hear(thumbs_of(self.said))
        self._last = rows[done - 1].id if done else 0
        return mind


def _same_plan(row: LiveRow, done: LivePlan) -> bool:
    return row.plan == tuple(done.plan) and row.let_go == tuple(done.let_go)


class People:
    """Everybody who is planned for. most: how many are kept in memory. turns: requests have them one by one,
    but for what a `way` does apart; those of one person follow each other entirely."""

    def __init__(self, store: Store, way: Way | Make, most: int = 8, turns: Turns | None = None) -> None:
        self.store, self.most = store, most
        self._way, self._turns = way, turns or Turns()
        self._held: OrderedDict[str, Person] = OrderedDict()
        self._asked: dict[str, Turns] = {}
        self._waiting: Counter[str] = Counter()
        self._door = threading.Lock()

    @contextmanager
    def asked(self, name: str) -> Iterator[None]:
        """A request about somebody has its turn."""
        with self._door:
            self._waiting[name] += 1
            mine = self._asked.setdefault(name, Turns())
        try:
            with mine.turn(), self._turns.turn():
                yield
        finally:
            with self._door:
                self._waiting[name] -= 1
                if not self._waiting[name]:
                    del self._waiting[name], self._asked[name]

    @property
    def held(self) -> list[str]:
        """Who is in memory, least recently asked first."""
        return list(self._held)

    def person(self, name: str, tz: str, memory_mb: float | None) -> Person:
        """Somebody, who is made where nobody is known by that name."""
        found = self._held.pop(name, None)
        if found is None or found.ledger.forgotten() or (found.tz, found.memory_mb) != (tz, memory_mb):
            found = Person(self.store, name, tz, memory_mb, self._way)
        found.fresh()
        self._held[name] = found
        idle = [x for x in self._held if x != name and not self._waiting[x]]
        for other in idle[: max(0, len(self._held) - self.most)]:
            del self._held[other]
        return found

    def known(self, name: str) -> Person | None:
        """Somebody, if they are known."""
        rows = self.store.rows("SELECT tz FROM timelines WHERE source = ? AND user = ?", [SOURCE, name])
        if not rows:
            return None
        held = self._held.get(name)
        return self.person(name, rows[0]["tz"], held.memory_mb if held else None)

    def forget(self, name: str) -> int:
        """Forget all of somebody; how many events went."""
        self._held.pop(name, None)
        return forget_recording(self.store, SOURCE, name).events

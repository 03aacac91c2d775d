"""The ledger of a recording that goes on: events, plans, what came of them, and where to go on from.

What can be relied on, whenever the process that writes is killed:

- an event is written in one transaction with the place up to which its source was read, so that it is neither
  lost nor doubled; its key makes it unique besides;
- there is one plan for an event at most, written in one transaction with the judge's record of the open and
  with what earlier prewarms came to;
- a step of a plan is written down before it is done, and whoever finds it there does not do it again.

The events stand in the timeline `live` of the same database, like those of any other source.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from env.errors import InputError
from env.sources.names import clean_name
from env.timeline import Event, Timeline, collapse, zone
from rlmemo.store.database import Store
from rlmemo.store.records import Prewarm

SOURCE = "live"
LOAD, LET_GO = "load", "let go"
PAST = "past"
"""The state that says which recording was there before (`rlmemo.live.past`)."""
THUMBS = "thumbs"
"""The state that keeps what a person has said on another device."""
WAKE = "wake"
"""What tells a prewarm that was planned at a wake from the others of the plan before it: when that was."""
WOKEN = "woken"
"""The state that says for which wake it was decided last: the event before it, and when it was."""
FORGOTTEN = "forgotten"
"""The state that counts how often something was forgotten: who has more in memory reads it all anew."""
NOT_YET, DECIDED, NOTHING_TO_DECIDE = 0, 1, 2
NOT_STORED = 0
"""In place of a timeline's id, which counts from 1."""


@dataclass(frozen=True)
class Seen:
    """An opening that a source told of. key: what makes it unique there."""

    key: str
    event: Event


@dataclass(frozen=True)
class Off:
    """The person was away, or the machine off, from `off_t` to `back_t` (None: still). why: afk, gap (the
    recorder said nothing), shutdown or paused."""

    off_t: float
    back_t: float | None
    why: str


@dataclass(frozen=True)
class LivePlan:
    """What was decided after an event; as `rlmemo.store.records.Prediction`. made_at: by the clock of the
    recorder; took_s: from having the event to having the plan."""

    policy: str
    policy_version: str
    plan: Sequence[Prewarm] = ()
    let_go: Sequence[str] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    none_probability: float | None = None
    made_at: float = 0.0
    took_s: float = 0.0


@dataclass(frozen=True)
class LiveRow:
    """An event of the ledger, its plan if it has one, and whether it was `planned`. off, wake: when the
    machine was switched off since the event before, and when the person was back (infinite: it was not, or
    nobody heard of it). woken: what was planned at the wake after this event, and when that was."""

    id: int
    event: Event
    seen_at: float
    planned: int
    plan_id: int | None = None
    plan: tuple[Prewarm, ...] = ()
    let_go: tuple[str, ...] = ()
    outcome: dict[str, Any] | None = None
    off: float = math.inf
    wake: float = math.inf
    woken: tuple[float, tuple[Prewarm, ...]] | None = None


Came = tuple[int, dict[str, Any]]
"""A plan (the id of its event), and what its prewarms came to so far."""


class LiveLedger:
    """The ledger of one person in an open store. tz: the time zone; once stored, it stays. at_once: whether
    a new one is stored at once; else it is with the first that is written into it, so that nothing is left
    of what is refused. Raises InputError for a zone that there is not."""

    def __init__(self, store: Store, user: str, tz: str, *, at_once: bool = True) -> None:
        try:
            zone(tz)
        except ValueError as error:
            raise InputError(str(error)) from None
        self.store, self.user = store, clean_name(user)
        if not self.user:
            raise InputError("a live recording needs a user, and the name given is empty")
        self.tz = tz
        if at_once:
            with store.write():
                self._begin()
        else:
            self.timeline_id = self._known()

    def _known(self) -> int:
        """The id of the timeline, whose time zone counts then; NOT_STORED where there is none."""
        known = self.store.rows(
            "SELECT id, tz FROM timelines WHERE source = ? AND user = ?", [SOURCE, self.user]
        )
        self.tz = str(known[0]["tz"]) if known else self.tz
        return int(known[0]["id"]) if known else NOT_STORED

    def _begin(self) -> None:
        """Store the timeline, or that it is recorded into again; within a transaction."""
        self._known()
        self.timeline_id, _ = self.store._timeline(SOURCE, self.user, self.tz, True, False, time.time())

    def forgotten(self) -> bool:
        """Whether the whole timeline is gone."""
        return not self.store.rows("SELECT 1 FROM timelines WHERE id = ?", [self.timeline_id])

    def state(self, name: str) -> Any:
        """What was put there under this name; None where nothing was."""
        found = self.store.rows("SELECT value FROM live_state WHERE name = ?", [self._called(name)])
        return json.loads(found[0]["value"]) if found else None

    def put(self, **values: Any) -> None:
        """Keep values by name, all of them or none."""
        with self._writing():
            self._put(values)

    def add(
        self, seen: Iterable[Seen], *, at: float, offs: Iterable[Off] = (), since: float = -math.inf,
        switches: Iterable[tuple[float, str]] = (), lasting: bool = True, **state: Any,
    ) -> int:  # fmt: skip
        """Write what a source told of, in its order, and the state to go on from; returns how many events are
        new. at: by the recorder's clock. since: after events before that nothing is to be decided. switches:
        recorded offs and wakes of a past, (time, kind). lasting: see `Store.write`. An event is never before
        the one that was written last: it takes its time then."""
        new = 0
        with self._writing(lasting=lasting):
            last = self.store.rows(
                "SELECT t FROM events WHERE timeline_id = ? ORDER BY t DESC LIMIT 1", [self.timeline_id]
            )
            latest = last[0]["t"] if last else -math.inf
            for one in seen:
                key = f"{self.timeline_id} {one.key}"
                if self.store.rows("SELECT 1 FROM live_events WHERE key = ?", [key]):
                    continue
                event = one.event
                if event.t < latest:
                    event = Event(latest, event.target, event.kind, event.duration, event.device)
                latest = event.t
                self.store._insert_events(self.timeline_id, [event])
                event_id = self.store.one("SELECT last_insert_rowid()")
                planned = NOTHING_TO_DECIDE if one.event.t < since else NOT_YET
                self.store._insert("live_events", event_id=event_id, key=key, seen_at=at, planned=planned)
                new += 1
            self._switch(switches)
            for off in offs:
                self._switched(off)
                self.store.db.execute(
                    """INSERT INTO live_offs (timeline_id, off_t, back_t, why) VALUES (?, ?, ?, ?)
                       ON CONFLICT (timeline_id, why, off_t) DO UPDATE SET back_t = excluded.back_t""",
                    [self.timeline_id, off.off_t, off.back_t, off.why],
                )
            self._put(state)
        return new

    def rows(self, *, after: int = 0) -> Iterator[LiveRow]:
        """The events with an id above `after`, in their order, with their plans."""
        switches, last = self._switches(), self._t_of(after)
        for r in self.store.rows(
            """SELECT l.id, l.seen_at, l.planned, e.t, e.target, e.kind, e.duration, e.device,
                      p.id AS plan_id, p.plan, p.let_go, p.outcome
               FROM events AS e CROSS JOIN live_events AS l ON l.event_id = e.id
               LEFT JOIN live_plans AS p ON p.live_event_id = l.id
               WHERE e.timeline_id = ? AND e.t >= ? AND l.id > ? ORDER BY l.id""",
            [self.timeline_id, -math.inf if last is None else last, after],
        ):
            has = r["plan_id"] is not None
            since = math.inf if last is None else last
            off, wake = _off_between(switches, since, r["t"]), _wake_between(switches, since, r["t"])
            last = r["t"]
            plan, woken = planned_of(r["plan"]) if has else ((), None)
            yield LiveRow(
                r["id"], Event(r["t"], r["target"], r["kind"], r["duration"], r["device"]), r["seen_at"],
                r["planned"], r["plan_id"], plan,
                tuple(json.loads(r["let_go"])) if has else (),
                json.loads(r["outcome"]) if r["outcome"] else None, off, wake, woken,
            )  # fmt: skip

    def timeline(self) -> Timeline:
        """What was opened so far, collapsed, as everybody else reads it."""
        rows = self.store.rows(
            "SELECT t, target, kind FROM events WHERE timeline_id = ? ORDER BY t, id", [self.timeline_id]
        )
        switched: dict[str, list[float]] = {"off": [], "wake": []}
        for r in self.store.rows("SELECT t, kind FROM switches WHERE timeline_id = ?", [self.timeline_id]):
            switched[r["kind"]].append(r["t"])
        events = [Event(**r) for r in rows]
        made = Timeline.from_events(
            self.user, events, tz=self.tz, tz_known=True, offs=switched["off"], wakes=switched["wake"]
        )
        return collapse(made)

    def written_elsewhere(self) -> int:
        """Another number than before where another connection has written since: next to nothing to ask."""
        return int(self.store.one("PRAGMA data_version"))

    def said(self) -> dict[str, int]:
        """Another answer than before where somebody has voted since, or taken a vote back."""
        return self.store.rows(
            """SELECT (SELECT COALESCE(MAX(id), 0) FROM ratings) AS ratings,
                      (SELECT COUNT(*) FROM withdrawals) AS withdrawals"""
        )[0]

    def keys(self, *, after: int = 0) -> list[tuple[int, str]]:
        """(id, key as it was given to `add`) of the events with an id above `after`, in their order."""
        last = self._t_of(after)
        return [
            (r["id"], str(r["key"]).partition(" ")[2])
            for r in self.store.rows(
                """SELECT l.id, l.key FROM events AS e CROSS JOIN live_events AS l ON l.event_id = e.id
                   WHERE e.timeline_id = ? AND e.t >= ? AND l.id > ? ORDER BY l.id""",
                [self.timeline_id, -math.inf if last is None else last, after],
            )
        ]

    def _t_of(self, after: int) -> float | None:
        """When the latest event with an id up to `after` was, None where there is none; none that came later
        was before that (see `add`). (CROSS JOIN, here and where this is asked: SQLite looks through the
        latest of this person's events, and not through everybody's.)"""
        found = self.store.rows(
            """SELECT e.t FROM events AS e CROSS JOIN live_events AS l ON l.event_id = e.id
               WHERE e.timeline_id = ? AND l.id <= ? ORDER BY e.t DESC, e.id DESC LIMIT 1""",
            [self.timeline_id, after],
        )
        return float(found[0]["t"]) if found else None

    def plan_of(self, event_id: int) -> LivePlan | None:
        """What was decided after an event (by its id here); None where nothing was."""
        found = self.store.rows(
            """SELECT policy, policy_version, plan, let_go, probabilities, none_probability, made_at, took_s
               FROM live_plans WHERE live_event_id = ?""",
            [event_id],
        )
        if not found:
            return None
        r = found[0] | {name: json.loads(found[0][name]) for name in ("let_go", "probabilities")}
        return LivePlan(**r | {"plan": planned_of(r["plan"])[0]})

    def reopen(self, row: LiveRow) -> None:
        """Take back what was decided after an event: it is to be decided anew."""
        with self.store.write():
            self.store.db.execute("DELETE FROM live_plans WHERE live_event_id = ?", [row.id])
            self.store.db.execute(
                "UPDATE live_events SET planned = ?, record = NULL WHERE id = ?", [NOT_YET, row.id]
            )

    def decide(
        self, row: LiveRow, plan: LivePlan, record: Mapping[str, float], came: Sequence[Came], *, at: float,
        lasting: bool = True, **state: Any,
    ) -> int | None:  # fmt: skip
        """Write what was decided after an event, the judge's record of its open, what earlier prewarms came
        to with it, and a state; the id of the plan. None where it was decided already, or the event is gone:
        nothing is written then. lasting: see `Store.write`."""
        with self._writing(lasting=lasting):
            done = self.store.db.execute(
                "UPDATE live_events SET planned = ?, record = ? WHERE id = ? AND planned = ?",
                [DECIDED, json.dumps(dict(record)), row.id, NOT_YET],
            ).rowcount
            if done != 1:
                return None
            plan_id = self.store._insert(
                "live_plans", live_event_id=row.id, policy=plan.policy, policy_version=plan.policy_version,
                plan=json.dumps([{"target": p.target, "delay_s": p.delay_s} for p in plan.plan]),
                let_go=json.dumps(list(plan.let_go)),
                probabilities=json.dumps(dict(plan.probabilities)), none_probability=plan.none_probability,
                made_at=plan.made_at, took_s=plan.took_s,
            )  # fmt: skip
            for event_id, outcome in came:
                self.store.db.execute(
                    "UPDATE live_plans SET outcome = ?, outcome_at = ? WHERE live_event_id = ?",
                    [json.dumps(outcome, sort_keys=True), at, event_id],
                )
            self._put(state)
            return plan_id

    def woke(
        self, row: LiveRow, plan: Sequence[Prewarm], t: float, **state: Any
    ) -> int | None:  # fmt: skip
        """Write what was decided at a wake after an event, beside its plan and in place of what was decided
        at an earlier wake, and a state; the id of the plan. None where that plan is gone."""
        said = [*({"target": p.target, "delay_s": p.delay_s} for p in row.plan)]
        said += [{"target": p.target, "delay_s": p.delay_s, WAKE: t} for p in plan]
        with self._writing():
            found = self.store.rows("SELECT id FROM live_plans WHERE live_event_id = ?", [row.id])
            if found:
                self.store.db.execute(
                    "UPDATE live_plans SET plan = ? WHERE id = ?", [json.dumps(said), found[0]["id"]]
                )
            self._put({WOKEN: [row.id, t], **state})
            return int(found[0]["id"]) if found else None

    def returned(self, after: float, until: float = math.inf) -> float:
        """The last recorded wake after a time and not after another, that no off follows; infinite where
        there is none."""
        return _wake_between(self._switches(), after, until)

    def begin(self, plan_id: int, what: str, place: int, target: str, *, at: float) -> int | None:
        """Write down that a step of a plan is about to be done; None where it was begun before: it must not
        be done again."""
        with self._writing():
            made = self.store.db.execute(
                """INSERT OR IGNORE INTO live_acts (plan_id, what, place, target, began_at)
                   VALUES (?, ?, ?, ?, ?)""",
                [plan_id, what, place, target, at],
            )
            return int(made.lastrowid or 0) if made.rowcount == 1 else None

    def free_place(self, plan_id: int) -> int:
        """A place behind those of all steps of a plan, begun or not."""
        found = self.store.rows(
            """SELECT MAX((SELECT COALESCE(MAX(place), -1) + 1 FROM live_acts WHERE plan_id = :id),
                          (SELECT COALESCE(SUM(json_array_length(plan)), 0) FROM live_plans WHERE id = :id))
                      AS place""",
            {"id": plan_id},
        )
        return int(found[0]["place"])

    def end(self, act_id: int, came: Mapping[str, Any], *, at: float) -> None:
        """Write down what came of a step."""
        with self._writing():
            self.store.db.execute(
                "UPDATE live_acts SET ended_at = ?, came = ? WHERE id = ?",
                [at, json.dumps(dict(came), sort_keys=True), act_id],
            )

    def report(self, order: str, came: Mapping[str, Any], *, at: float) -> None:
        """Add to what came of a step that was given away as an order (`came` names it)."""
        with self._writing():
            self.store.db.execute(
                """UPDATE live_acts SET ended_at = ?, came = json_patch(came, ?)
                   WHERE id > (SELECT MAX(id) FROM live_acts) - 1000 AND json_extract(came, '$.order') = ?""",
                [at, json.dumps(dict(came), sort_keys=True), order],
            )

    def not_done(self, since: float) -> list[tuple[str, int]]:
        """Why loads since a time were not done, and how many, the most frequent first."""
        found = self.store.rows(
            """SELECT json_extract(a.came, '$.failed') AS why, COUNT(*) AS n
               FROM live_acts AS a JOIN live_plans AS p ON p.id = a.plan_id
               JOIN live_events AS l ON l.id = p.live_event_id JOIN events AS e ON e.id = l.event_id
               WHERE e.timeline_id = ? AND a.what = ? AND a.began_at >= ? AND why IS NOT NULL
               GROUP BY why ORDER BY n DESC, why LIMIT 3""",
            [self.timeline_id, LOAD, since],
        )
        return [(str(x["why"]), int(x["n"])) for x in found]

    def came_to(self, *names: str) -> list[tuple[Any, ...]]:
        """Of the steps of which all of these are known: what they came to, by name."""
        said = [f"json_extract(a.came, '$.{name}')" for name in names]
        found = self.store.rows(
            f"""SELECT {", ".join(f"{x} AS {name}" for x, name in zip(said, names, strict=True))}
                FROM live_acts AS a JOIN live_plans AS p ON p.id = a.plan_id
                JOIN live_events AS l ON l.id = p.live_event_id JOIN events AS e ON e.id = l.event_id
                WHERE e.timeline_id = ? AND {" AND ".join(f"{x} IS NOT NULL" for x in said)} ORDER BY a.id""",
            [self.timeline_id],
        )
        return [tuple(row[name] for name in names) for row in found]

    def offs(self) -> list[Off]:
        """When the person was away or the machine off, in time order."""
        rows = self.store.rows(
            "SELECT off_t, back_t, why FROM live_offs WHERE timeline_id = ? ORDER BY off_t, why",
            [self.timeline_id],
        )
        return [Off(**r) for r in rows]

    def pauses(self) -> list[Off]:
        """When nothing was to be recorded, the latest ten; `back_t` may lie ahead."""
        rows = self.store.rows(
            """SELECT off_t, back_t, why FROM live_offs WHERE timeline_id = ? AND why = 'paused'
               ORDER BY off_t DESC LIMIT 10""",
            [self.timeline_id],
        )
        return [Off(**r) for r in rows]

    def latest_t(self) -> float | None:
        """When something was opened last; None where nothing was."""
        found = self.store.rows("SELECT MAX(t) AS t FROM events WHERE timeline_id = ?", [self.timeline_id])
        return None if found[0]["t"] is None else float(found[0]["t"])

    def made_late(self, late_s: float = 10.0) -> int:
        """How many plans were made later than that after their event."""
        return int(
            self.store.rows(
                """SELECT COUNT(*) AS n FROM live_plans AS p JOIN live_events AS l ON l.id = p.live_event_id
                   JOIN events AS e ON e.id = l.event_id
                   WHERE e.timeline_id = ? AND p.made_at - e.t > ?""",
                [self.timeline_id, late_s],
            )[0]["n"]
        )

    def totals(self, since: float, fields: Sequence[str]) -> dict[str, float]:
        """Sums of the judge's records over the opens from `since` on (unix seconds), and their number as
        `opens`; those that came before the first plan are not counted."""
        sums = ", ".join(f"TOTAL(json_extract(l.record, '$.{name}')) AS {name}" for name in fields)
        return self.store.rows(
            f"""SELECT COUNT(*) AS opens, {sums} FROM live_events AS l JOIN events AS e ON e.id = l.event_id
                WHERE e.timeline_id = ? AND e.t >= ? AND l.record IS NOT NULL
                AND l.id > COALESCE((SELECT MIN(live_event_id) FROM live_plans), 0)""",
            [self.timeline_id, since],
        )[0]

    @contextmanager
    def _writing(self, *, lasting: bool = True) -> Iterator[None]:
        """A transaction. Raises InputError where what it hangs on was forgotten meanwhile."""
        was = self.timeline_id
        try:
            with self.store.write(lasting=lasting):
                if was == NOT_STORED:
                    self._begin()
                yield
        except BaseException as error:
            self.timeline_id = was  # what was stored within it is not
            if not isinstance(error, sqlite3.IntegrityError):
                raise
            raise InputError(f"the recording has changed meanwhile ({error}); reading it anew") from error

    def _switched(self, off: Off) -> None:
        """Tell the timeline of an off, as it is read by everybody else; only of one in which memory was
        emptied."""
        if off.why == "shutdown" and off.back_t is not None:
            self._switch([(off.off_t, "off"), (off.back_t, "wake")])

    def _switches(self) -> list[dict[str, Any]]:
        return self.store.rows(
            "SELECT t, kind FROM switches WHERE timeline_id = ? ORDER BY t", [self.timeline_id]
        )

    def _switch(self, switches: Iterable[tuple[float, str]]) -> None:
        self.store.db.conn.executemany(
            "INSERT OR IGNORE INTO switches (timeline_id, t, kind) VALUES (?, ?, ?)",
            [(self.timeline_id, t, kind) for t, kind in switches],
        )

    def _put(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.store.db.execute(
                "INSERT OR REPLACE INTO live_state (name, value) VALUES (?, ?)",
                [self._called(name), json.dumps(value)],
            )

    def _called(self, name: str) -> str:
        return name if name == FORGOTTEN else f"{self.timeline_id} {name}"


def planned_of(text: str) -> tuple[tuple[Prewarm, ...], tuple[float, tuple[Prewarm, ...]] | None]:
    """A plan as it is kept: what was planned after the event, and the time of the wake after it with what was
    planned then (None: nothing)."""
    told: list[dict[str, Any]] = json.loads(text)
    plan = tuple(Prewarm(**x) for x in told if WAKE not in x)
    back = [float(x.pop(WAKE)) for x in told if WAKE in x]
    return plan, (back[0], tuple(Prewarm(**x) for x in told[len(plan) :])) if back else None


def _wake_between(switches: Sequence[Mapping[str, Any]], last: float, t: float) -> float:
    """The last wake between two events, if no off follows it, as `env.judge.cost.WorldConfig.offs` has it;
    infinite where there is none: one that is not recorded is heard of by nobody."""
    wake = max((s["t"] for s in switches if s["kind"] == "wake" and last < s["t"] <= t), default=-math.inf)
    off = max((s["t"] for s in switches if s["kind"] == "off" and last <= s["t"] < t), default=-math.inf)
    return wake if wake > off else math.inf


def _off_between(switches: Sequence[Mapping[str, Any]], last: float, t: float) -> float:
    """The first off between two events, as `env.judge.cost.WorldConfig.offs` has it: until a wake it was off,
    whether or not that is recorded."""
    found = [
        math.nextafter(s["t"], -math.inf) for s in switches if s["kind"] == "wake" and last < s["t"] <= t
    ]
    return min(
        found + [s["t"] for s in switches if s["kind"] == "off" and last <= s["t"] < t], default=math.inf
    )

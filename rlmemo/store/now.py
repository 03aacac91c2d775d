"""How a live recording stands now, for a page that asks every second: what is open, what is ready, what has
left memory and why, and the latest plans with what came of them. Nothing is written.

What is ready is what the judge's rules hold (state `now` of `rlmemo.store.live_ledger`), less what has been
held too long by now; what was really done stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlmemo.store.database import Store
from rlmemo.store.live_ledger import LOAD, NOT_YET, SOURCE, planned_of
from rlmemo.store.records import Prewarm

LATEST = 6
STEPS = 6
"""Of the latest plans, and of the opens before a moment, so many are told."""


@dataclass(frozen=True)
class LiveRecording:
    """A recording of live's in a store."""

    timeline_id: int
    user: str
    tz: str


@dataclass(frozen=True)
class Left:
    """Who has left memory, when (unix seconds), and why (as of `rlmemo.live.mind`)."""

    t: float
    target: str
    why: str


@dataclass(frozen=True)
class LiveMoment:
    """What was planned after an event, and what is known of it by now.

    steps: the last opens up to it, oldest first. came: of every prewarm, what it came to (None: not known
    yet). done: what really was done of it, by target. next: what was opened after it, None for the latest.
    """

    plan_id: int
    t: float
    target: str
    steps: Sequence[tuple[float, str]]
    plan: Sequence[Prewarm]
    let_go: Sequence[str]
    probabilities: Mapping[str, float]
    none_probability: float | None
    policy: str
    policy_version: str
    made_at: float
    came: Sequence[str | None]
    done: Mapping[str, Mapping[str, Any]]
    next: tuple[float, str] | None


@dataclass(frozen=True)
class LiveStanding:
    """How a recording stands. settings: as it was started. since: when `front` came to the front. early: who
    was loaded early and is not used yet, with how long they are held; warm: who else is in memory, the latest
    first. heard: how many thumbs the latest plan minded. paused: until when (infinite: until somebody
    resumes), None where it is not. moments: the latest first."""

    settings: Mapping[str, Any]
    trouble: str
    front: str
    since: float | None
    early: Mapping[str, float]
    warm: Sequence[str]
    left: Sequence[Left]
    heard: int
    paused: float | None
    moments: Sequence[LiveMoment]


def recordings(store: Store) -> list[LiveRecording]:
    """The recordings of live's, whoever recorded last first."""
    rows = store.rows(
        """SELECT t.id AS timeline_id, t.user, t.tz FROM timelines AS t WHERE t.source = ?
           ORDER BY (SELECT MAX(e.t) FROM events AS e WHERE e.timeline_id = t.id) DESC, t.id""",
        [SOURCE],
    )
    return [LiveRecording(**r) for r in rows]


def standing(store: Store, of: LiveRecording, now: float) -> LiveStanding:
    """How it stands. now: unix seconds."""
    told = _state(store, of, "now") or {}
    until = {x: float(t) for x, t in told.get("until", {}).items()}
    over = [Left(t, x, "unused") for x, t in until.items() if t <= now]
    early = {x: until.get(x, now) for x, unused in told.get("memory", {}).items() if unused}
    return LiveStanding(
        settings=_state(store, of, "settings") or {},
        trouble=str(_state(store, of, "trouble") or ""),
        front=str(told.get("front", "")),
        since=told.get("t"),
        early={x: t for x, t in early.items() if t > now or x not in until},
        warm=[x for x, unused in reversed(told.get("memory", {}).items()) if not unused],
        left=sorted([*over, *(Left(**x) for x in told.get("left", ()))], key=lambda x: -x.t),
        heard=int(told.get("thumbs", 0)),
        paused=_paused(store, of, now),
        moments=_moments(store, of),
    )


def _state(store: Store, of: LiveRecording, name: str) -> Any:
    found = store.rows("SELECT value FROM live_state WHERE name = ?", [f"{of.timeline_id} {name}"])
    return json.loads(found[0]["value"]) if found else None


def _paused(store: Store, of: LiveRecording, now: float) -> float | None:
    rows = store.rows(
        """SELECT COALESCE(back_t, 1e999) AS back_t FROM live_offs
           WHERE timeline_id = ? AND why = 'paused' AND off_t <= ? AND COALESCE(back_t, 1e999) > ?
           ORDER BY back_t DESC LIMIT 1""",
        [of.timeline_id, now, now],
    )
    return float(rows[0]["back_t"]) if rows else None


def _moments(store: Store, of: LiveRecording) -> list[LiveMoment]:
    opens = store.rows(
        """SELECT l.id, l.planned, e.t, e.target, p.id AS plan_id, p.plan, p.let_go, p.probabilities,
                  p.none_probability, p.policy, p.policy_version, p.made_at, p.outcome
           FROM live_events AS l JOIN events AS e ON e.id = l.event_id
           LEFT JOIN live_plans AS p ON p.live_event_id = l.id
           WHERE e.timeline_id = ? ORDER BY l.id DESC LIMIT ?""",
        [of.timeline_id, LATEST + STEPS],
    )
    made = []
    for k, row in enumerate(opens[:LATEST]):
        if row["plan_id"] is None or row["planned"] == NOT_YET:
            continue
        plan, _ = planned_of(row["plan"])
        outcome = json.loads(row["outcome"] or "{}").get("prewarms", [])
        came = [None if x is None else str(x["came"]) for x in outcome]
        made.append(
            LiveMoment(
                plan_id=row["plan_id"], t=row["t"], target=row["target"],
                steps=[(x["t"], x["target"]) for x in reversed(opens[k : k + STEPS])],
                plan=plan, let_go=tuple(json.loads(row["let_go"])),
                probabilities=json.loads(row["probabilities"]), none_probability=row["none_probability"],
                policy=row["policy"], policy_version=row["policy_version"], made_at=row["made_at"],
                came=[*came, *[None] * (len(plan) - len(came))], done=_done(store, row["plan_id"]),
                next=(opens[k - 1]["t"], opens[k - 1]["target"]) if k else None,
            )
        )  # fmt: skip
    return made


def _done(store: Store, plan_id: int) -> dict[str, dict[str, Any]]:
    rows = store.rows(
        "SELECT target, came FROM live_acts WHERE plan_id = ? AND what = ? ORDER BY id", [plan_id, LOAD]
    )
    return {r["target"]: json.loads(r["came"] or "{}") for r in rows}

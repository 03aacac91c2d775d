"""Which predictions wait for a rater, and which of them can be shown without telling another one's outcome.

A vote is blind where nothing that this rater was shown before says what this person did after the moment.
Three things say it: a later card, whose last opens reach back to it, what was told of the same moment or of
an earlier one that is near, and the page *Now*, of a recording that live makes (from the earliest open that
it has shown; `rlmemo.store.now_votes`). So

- a card waits until every earlier one of the same person whose outcome it would show has been rated or
  skipped: near moments come in the order of time, those far apart in any;
- after a vote no more is told than leaves what still waits blind (`told_after`): nothing while another
  prediction of the same moment waits, what was opened next while a near one does, otherwise everything;
- the same plan at the same moment, by whatever policy, is one card, and comes once.

Of very many that wait, the latest `POOL` are looked at; what an older one's neighbours have shown by the time
that it is asked is marked.

How far a plan's outcome reaches: its longest delay, loading, and the time to live of a prewarm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from env.judge.world_options import WorldOptions
from rlmemo.store.database import Store

POOL = 2000
"""How many of the latest unrated predictions the next one is picked from."""

LOADING_S = 60.0
LASTS_S = WorldOptions.ttl_s + LOADING_S
"""How long a prewarm lasts after its delay in the usual world: a minute to load, and its time to live."""


class Told(Enum):
    """How much of what happened may be told."""

    NOTHING = "nothing"
    NEXT = "next"
    ALL = "all"


@dataclass(frozen=True)
class Card:
    """A prediction as one rater stands to it. first: time of the earliest open that it shows; until: how far
    its outcome reaches; next_t: when the next target was opened (None: not known); done: rated or skipped;
    seen: it was shown; told_until: up to when its rater was told what happened (-inf: not at all)."""

    id: int
    user: str
    t: float
    first: float
    until: float
    next_t: float | None
    plan: frozenset[tuple[str, float]]
    teaches: float
    done: bool
    seen: bool
    told_until: float

    @property
    def looks(self) -> tuple[str, float, frozenset[tuple[str, float]]]:
        """Cards of which this is equal are one to a rater."""
        return self.user, self.t, self.plan


@dataclass(frozen=True)
class Desk:
    """All cards of one rater; waiting: those to be rated, the latest stored first; known: ids of those whose
    outcome the rater can know from what was shown."""

    cards: dict[int, Card]
    waiting: list[Card]
    known: set[int]

    @property
    def showable(self) -> list[Card]:
        """What may be shown next: blind cards that show no other blind one's outcome; where no blind one is
        left, the others."""
        blind = [c for c in self.waiting if c.id not in self.known]
        if not blind:
            return self.waiting
        made = []
        for some in _by_user(blind).values():
            t = np.array([c.t for c in some])
            reach = np.maximum.accumulate(np.array([c.until for c in some]))
            before = np.searchsorted(t, t, side="left")
            made += [c for c, k in zip(some, before.tolist(), strict=True) if not k or reach[k - 1] < c.first]
        return sorted(made, key=lambda c: -c.id)

    def hides(self, user: str, t: float) -> bool:
        """Whether an open of a person at `t` is part of the outcome of what is still to be rated blind."""
        return any(c.user == user and c.t < t <= c.until and c.id not in self.known for c in self.waiting)

    def told_after(self, card: Card) -> Told:
        """What may be told of a card's outcome with everything else that waits staying blind."""
        near = [
            c.t for c in self.waiting
            if c.user == card.user and card.t <= c.t < card.until and c.id != card.id
            and c.looks != card.looks and c.id not in self.known
        ]  # fmt: skip
        if not near:
            return Told.ALL
        return Told.NOTHING if card.next_t is None or min(near) < card.next_t else Told.NEXT


def desk(store: Store, rater: str) -> Desk:
    """What waits for a rater: the latest `POOL` of it, and all that was shown to them."""
    values = {"rater": rater, "pool": POOL}
    seen = [
        _card(row)
        for row in store.rows(
            f"""SELECT {_COLUMNS}, s.told_until, 1 AS seen,
                       s.skipped_at IS NOT NULL OR EXISTS (
                           SELECT 1 FROM latest_ratings AS r
                           WHERE r.prediction_id = p.id AND r.rater = :rater) AS done
                FROM (SELECT prediction_id, MAX(told_until) AS told_until, MAX(skipped_at) AS skipped_at
                      FROM showings WHERE rater = :rater GROUP BY prediction_id) AS s
                JOIN predictions AS p ON p.id = s.prediction_id
                JOIN moments AS m ON m.prediction_id = p.id""",
            values,
        )
    ]
    cards = {c.id: c for c in seen}
    done = {c.looks for c in seen if c.done}
    waiting = []
    for row in store.rows(
        f"""SELECT {_COLUMNS}, NULL AS told_until, 0 AS seen, 0 AS done
            FROM moments AS m JOIN predictions AS p ON p.id = m.prediction_id
            WHERE NOT EXISTS (
                SELECT 1 FROM predictions AS q WHERE q.user = p.user AND q.t = p.t AND q.plan = p.plan AND (
                    EXISTS (SELECT 1 FROM latest_ratings AS r
                            WHERE r.prediction_id = q.id AND r.rater = :rater)
                    OR EXISTS (SELECT 1 FROM showings AS s WHERE s.prediction_id = q.id
                               AND s.rater = :rater AND s.skipped_at IS NOT NULL)))
            ORDER BY m.prediction_id DESC LIMIT :pool""",
        values,
    ):
        card = cards.setdefault(int(row["id"]), _card(row))
        if card.looks not in done:
            waiting.append(card)
    seen_from = _seen_from(store, rater)
    lived = {c.id for c in cards.values() if c.until >= seen_from.get(c.user, math.inf)}
    return Desk(cards, waiting, known(cards.values()) | lived)


def _seen_from(store: Store, rater: str) -> dict[str, float]:
    """From when on a rater has seen, on the page *Now*, what was opened in live recordings: by the names that
    their people go by."""
    rows = store.rows(
        """SELECT t.user, t.source, s.value FROM timelines AS t
           JOIN live_state AS s ON s.name = t.id || ' shown ' || ?""",
        [rater],
    )
    return {name: float(r["value"]) for r in rows for name in (r["user"], f"{r['source']}/{r['user']}")}


def unrated(store: Store, rater: str) -> int:
    """How many predictions still wait for a rater; the same card as one that is rated or skipped does not."""
    return int(
        store.rows(
            f"""{_DONE} SELECT (SELECT COUNT(*) FROM moments) - COUNT(DISTINCT m.prediction_id) AS n
                FROM done JOIN predictions AS q ON q.id = done.prediction_id
                JOIN predictions AS p ON p.user = q.user AND p.t = q.t AND p.plan = q.plan
                JOIN moments AS m ON m.prediction_id = p.id""",
            {"rater": rater},
        )[0]["n"]
    )


_DONE = """WITH done AS (SELECT prediction_id FROM latest_ratings WHERE rater = :rater
                         UNION SELECT prediction_id FROM showings
                         WHERE rater = :rater AND skipped_at IS NOT NULL)"""
_COLUMNS = """p.id, p.user, p.t, p.plan, m.teaches, json_extract(m.steps, '$[0][0]') AS first,
              json_extract(p.outcome, '$.next_t') AS next_t, json_extract(m.world, '$.ttl_s') AS ttl_s"""


def _card(row: dict[str, Any]) -> Card:
    plan = frozenset((str(x["target"]), float(x["delay_s"])) for x in json.loads(row["plan"]))
    t = float(row["t"])
    lasts = LASTS_S if row["ttl_s"] is None else float(row["ttl_s"]) + LOADING_S
    return Card(
        int(row["id"]), row["user"], t, t if row["first"] is None else float(row["first"]),
        t + lasts + max((delay for _, delay in plan), default=0.0), row["next_t"], plan,
        float(row["teaches"]), bool(row["done"]), bool(row["seen"]),
        -math.inf if row["told_until"] is None else float(row["told_until"]),
    )  # fmt: skip


def known(cards: Iterable[Card]) -> set[int]:
    """Ids of the cards whose outcome can be known, at least in part, from what was shown and told."""
    found: set[int] = set()
    for some in _by_user(cards).values():
        seen = [c for c in some if c.seen]
        if not seen:
            continue
        t = np.array([c.t for c in some])
        seen_t = np.array([c.t for c in seen])
        place = np.searchsorted(seen_t, t, side="right")  # how many were seen of no later moments
        told = np.maximum.accumulate([-math.inf, *(c.told_until for c in seen)])[place]
        back = np.minimum.accumulate([math.inf, *(c.first for c in reversed(seen))])[::-1][place]
        until = np.array([c.until for c in some])
        found |= {c.id for c, knows in zip(some, (told > t) | (back <= until), strict=True) if knows}
    return found


def _by_user(cards: Iterable[Card]) -> dict[str, list[Card]]:
    """The cards of each person, in the order of time."""
    groups: dict[str, list[Card]] = {}
    for c in sorted(cards, key=lambda c: (c.t, c.id)):
        groups.setdefault(c.user, []).append(c)
    return groups

"""What is stored, taking it along, and forgetting: rows gone, and gone from the file as well.

Forgetting is one transaction; afterwards the file is rewritten (VACUUM, with the write-ahead log folded
in), so that what was deleted cannot be read from its free pages. What live has learned at night from a
recording of which something is forgotten goes, too. Copies of the file cannot be reached, nor other adapters
that were trained on what is now forgotten: those are named.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from env.errors import InputError
from rlmemo.store.database import Store
from rlmemo.store.live_learned import remove_learned, take_out_of_charge
from rlmemo.store.live_ledger import FORGOTTEN, SOURCE

TABLES = (
    "timelines",
    "events",
    "switches",
    "predictions",
    "moments",
    "showings",
    "ratings",
    "withdrawals",
    "runs",
    "settings",
)
LIVE_TABLES = ("live_events", "live_plans", "live_acts", "live_offs")


@dataclass(frozen=True)
class Forgotten:
    """How many rows went, and the folders of runs that may have learned from them. learned: of how many live
    recordings what live had learned went with them."""

    events: int
    predictions: int
    ratings: int
    adapters: tuple[str, ...]
    learned: int = 0


def holdings(store: Store) -> dict[str, int]:
    """Rows by table; of a live recording only where there is one."""
    found = {table: int(store.one(f"SELECT COUNT(*) FROM {table}")) for table in (*TABLES, *LIVE_TABLES)}
    return {table: n for table, n in found.items() if n or table in TABLES}


def adapters(store: Store, start: float = -math.inf, stop: float = math.inf) -> tuple[str, ...]:
    """Folders of the runs that may have learned from what is stored here of start <= t < stop.

    A run that learned from ratings is named whatever the period: a rating tells of the moments before. So is
    one that does not say what it learned from.
    """
    named = set()
    for run in store.runs():
        learned = run.config.get("learned")
        if isinstance(learned, dict):
            within = learned["from"] < stop and learned["until"] >= start
            if not (learned["ratings_of_this_database"] or (learned["events_of_this_database"] and within)):
                continue
        named.add(run.folder)
    return tuple(sorted(named))


def export(store: Store) -> Iterator[str]:
    """Everything, as JSON lines: one object a row, with its table; from one moment of the database."""
    with store._lock:
        store.db.execute("BEGIN")
        try:
            for table in (*TABLES, *LIVE_TABLES):
                for row in store.db.query(f"SELECT * FROM {table} ORDER BY 1"):
                    yield json.dumps({"table": table, **row}, ensure_ascii=False) + "\n"
        finally:
            store.db.execute("ROLLBACK")


def forget_target(store: Store, target: str) -> Forgotten:
    """Forget one target: its events, and every prediction that names it anywhere, or whose raters do, with
    its ratings; and guidelines that name it.

    Raises InputError where no event and no prediction names it.
    """
    mentions = """SELECT p.id FROM predictions AS p LEFT JOIN moments AS m ON m.prediction_id = p.id
        WHERE EXISTS (SELECT 1 FROM json_each(p.plan) WHERE json_extract(value, '$.target') = :target)
           OR EXISTS (SELECT 1 FROM json_each(p.let_go) WHERE value = :target)
           OR EXISTS (SELECT 1 FROM json_each(p.probabilities) WHERE key = :target)
           OR EXISTS (SELECT 1 FROM json_each(m.steps) WHERE json_extract(value, '$[1]') = :target)
           OR EXISTS (SELECT 1 FROM json_each(m.memory) WHERE json_extract(value, '$[1]') = :target)
           OR json_extract(p.outcome, '$.next_target') = :target
           OR EXISTS (SELECT 1 FROM json_each(p.outcome, '$.pushed_out') WHERE value = :target)
           OR EXISTS (SELECT 1 FROM ratings AS r
                      WHERE r.prediction_id = p.id AND instr(r.reason, :target) > 0)
           OR instr(p.state, :target) > 0"""
    live = _live(store, "e.target = ?", [target])
    with _forgetting(store):
        take_out_of_charge(store, live)
        first = store.db.execute("SELECT MIN(t) FROM events WHERE target = ?", [target]).fetchone()[0]
        events = store.db.execute("DELETE FROM events WHERE target = :target", {"target": target}).rowcount
        _live_plans(store, target)
        store.db.execute("DELETE FROM settings WHERE instr(json_extract(value, '$'), ?) > 0", [target])
        gone = _predictions(store, mentions, {"target": target})
        if not events and not gone[0]:
            raise InputError(f"nothing stored names {target!r}")
    learned = remove_learned(store, live)
    _rewrite(store)
    return Forgotten(events, *gone, adapters(store, -math.inf if first is None else first), learned)


def forget_period(store: Store, start: float, stop: float) -> Forgotten:
    """Forget start <= t < stop (unix seconds): the events, the offs and wakes, and the predictions whose
    moment, last steps or outcome lie in it, with their ratings."""
    if not start < stop:
        raise InputError(f"the period from {start} to {stop} is empty")
    touches = """SELECT p.id FROM predictions AS p LEFT JOIN moments AS m ON m.prediction_id = p.id
        WHERE (p.t >= :start AND p.t < :stop)
           OR EXISTS (SELECT 1 FROM json_each(m.steps) WHERE json_extract(value, '$[0]') >= :start
                      AND json_extract(value, '$[0]') < :stop)
           OR (json_extract(p.outcome, '$.next_t') >= :start
               AND json_extract(p.outcome, '$.next_t') < :stop)"""
    values = {"start": start, "stop": stop}
    live = _live(store, "e.t >= ? AND e.t < ?", [start, stop])
    with _forgetting(store):
        take_out_of_charge(store, live)
        events = store.db.execute("DELETE FROM events WHERE t >= :start AND t < :stop", values).rowcount
        store.db.execute(
            "DELETE FROM live_offs WHERE off_t < :stop AND COALESCE(back_t, :stop) >= :start", values
        )
        store.db.execute("DELETE FROM switches WHERE t >= :start AND t < :stop", values)
        gone = _predictions(store, touches, values)
    learned = remove_learned(store, live)
    _rewrite(store)
    return Forgotten(events, *gone, adapters(store, start, stop), learned)


def forget_everything(store: Store) -> Forgotten:
    """Forget all of it: every table is empty afterwards."""
    named, live = adapters(store), _live(store, "1", [])
    with _forgetting(store):
        events = store.db.execute("DELETE FROM events").rowcount
        store.db.execute("DELETE FROM switches")
        gone = _predictions(store, "SELECT id FROM predictions", {})
        store.db.execute("DELETE FROM timelines")
        store.db.execute("DELETE FROM live_state WHERE name <> ?", [FORGOTTEN])
        store.db.execute("DELETE FROM runs")
        store.db.execute("DELETE FROM settings")
    learned = remove_learned(store, live)
    _rewrite(store)
    return Forgotten(events, *gone, named, learned)


def forget_recording(store: Store, source: str, user: str) -> Forgotten:
    """Forget one timeline with all that hangs on it: its events, offs and wakes, and its predictions with
    their ratings. Nothing goes where there is none."""
    known = store.rows("SELECT id FROM timelines WHERE source = ? AND user = ?", [source, user])
    if not known:
        return Forgotten(0, 0, 0, ())
    number = known[0]["id"]
    with _forgetting(store):
        first = store.db.execute("SELECT MIN(t) FROM events WHERE timeline_id = ?", [number]).fetchone()[0]
        events = store.db.execute("DELETE FROM events WHERE timeline_id = ?", [number]).rowcount
        store.db.execute("DELETE FROM switches WHERE timeline_id = ?", [number])
        gone = _predictions(store, "SELECT id FROM predictions WHERE timeline_id = :id", {"id": number})
        store.db.execute("DELETE FROM timelines WHERE id = ?", [number])
        store.db.execute("DELETE FROM live_state WHERE name LIKE ?", [f"{number} %"])
    learned = remove_learned(store, [number])
    _rewrite(store)
    return Forgotten(int(events), *gone, adapters(store, -math.inf if first is None else first), learned)


def _live(store: Store, which: str, values: list[Any]) -> list[int]:
    """The live recordings that have an event of which this is true."""
    rows = store.rows(
        f"""SELECT id FROM timelines AS t WHERE source = ?
            AND EXISTS (SELECT 1 FROM events AS e WHERE e.timeline_id = t.id AND {which})""",
        [SOURCE, *values],
    )
    return [int(r["id"]) for r in rows]


@contextmanager
def _forgetting(store: Store) -> Iterator[None]:
    """A transaction in which ratings may be deleted."""
    with store.write():
        store.db.execute("INSERT INTO forgetting DEFAULT VALUES")
        yield
        store.db.execute("DELETE FROM forgetting")
        # whoever records live reads anew what is left, and which window was in front last is forgotten, too
        # (a device says once more what was said there, as far as it is still known there)
        store.db.execute(
            "DELETE FROM live_state WHERE name LIKE '% front' OR name LIKE '% now' OR name LIKE '% thumbs'"
        )
        store.db.execute(
            """INSERT INTO live_state (name, value) VALUES (?, '1')
               ON CONFLICT (name) DO UPDATE SET value = value + 1""",
            [FORGOTTEN],
        )


def _live_plans(store: Store, target: str) -> None:
    """Delete the plans of a live recording that name a target anywhere. Their events stay decided."""
    store.db.execute(
        """DELETE FROM live_plans WHERE
           EXISTS (SELECT 1 FROM json_each(plan) WHERE json_extract(value, '$.target') = :target)
           OR EXISTS (SELECT 1 FROM json_each(let_go) WHERE value = :target)
           OR EXISTS (SELECT 1 FROM json_each(probabilities) WHERE key = :target)""",
        {"target": target},
    )


def _predictions(store: Store, which: str, values: dict[str, Any]) -> tuple[int, int]:
    """Delete the predictions that `which` selects, with all that hangs on them: (predictions, ratings)."""
    store.db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY)")
    store.db.execute("DELETE FROM temp.gone")
    store.db.execute(f"INSERT INTO temp.gone {which}", values)
    of_gone = "IN (SELECT id FROM temp.gone)"
    store.db.execute(
        f"DELETE FROM withdrawals WHERE rating_id IN (SELECT id FROM ratings WHERE prediction_id {of_gone})"
    )
    ratings = store.db.execute(f"DELETE FROM ratings WHERE prediction_id {of_gone}").rowcount
    store.db.execute(f"DELETE FROM showings WHERE prediction_id {of_gone}")
    store.db.execute(f"DELETE FROM moments WHERE prediction_id {of_gone}")
    predictions = store.db.execute(f"DELETE FROM predictions WHERE id {of_gone}").rowcount
    store.db.execute("DELETE FROM temp.gone")
    return predictions, ratings


def _rewrite(store: Store) -> None:
    """Leave nothing of what was deleted in the file or its log. Raises InputError where another program
    keeps the file busy: the rows are gone then, and what is left of them goes with the next time."""
    try:
        with store._lock:
            store.db.execute("VACUUM")
            busy = store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:
        busy = True
    if busy:
        raise InputError(
            f"{store.path}: the rows are gone, but another program kept the file from being rewritten; "
            "close it and forget anything once more"
        )

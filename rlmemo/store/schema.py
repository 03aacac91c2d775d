"""The store's tables, as a list of migrations: each takes a database one version further.

Never change a migration that was released: add one. Version N is what the first N migrations make,
and stands in `PRAGMA user_version`; `PRAGMA application_id` tells our databases from other people's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlmemo.store.schema_addresses import reduce_targets

if TYPE_CHECKING:
    from sqlite_utils import Database


def _statements(db: Database, sql: str) -> None:
    """Run statements one by one: `executescript` would commit the transaction that a migration runs in."""
    for statement in sql.split(";;"):
        if statement.strip():
            db.execute(statement)


def _first(db: Database) -> None:
    """Timelines and their events, runs, predictions, ratings."""
    _statements(
        db,
        """
        CREATE TABLE timelines (
            id INTEGER PRIMARY KEY,
            source TEXT NOT NULL CHECK (source <> ''),
            user TEXT NOT NULL CHECK (user <> ''),
            tz TEXT NOT NULL,
            tz_known INTEGER NOT NULL CHECK (tz_known IN (0, 1)),
            synthetic INTEGER NOT NULL CHECK (synthetic IN (0, 1)),
            imported_at REAL NOT NULL,
            UNIQUE (source, user)
        );;
        CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            timeline_id INTEGER NOT NULL REFERENCES timelines (id) ON DELETE CASCADE,
            t REAL NOT NULL CHECK (typeof(t) = 'real'),
            target TEXT NOT NULL CHECK (target <> ''),
            kind TEXT NOT NULL CHECK (kind IN ('app', 'page', 'file')),
            duration REAL CHECK (duration IS NULL OR duration >= 0),
            device TEXT,
            wave INTEGER NOT NULL DEFAULT 0
        );;
        CREATE INDEX events_in_order ON events (timeline_id, t, id);;
        CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            folder TEXT NOT NULL,
            method TEXT NOT NULL,
            model TEXT NOT NULL,
            policy_version TEXT NOT NULL,
            config TEXT NOT NULL CHECK (json_valid(config)),
            status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'stopped', 'failed')),
            metrics TEXT CHECK (metrics IS NULL OR json_valid(metrics)),
            started_at REAL NOT NULL,
            ended_at REAL
        );;
        CREATE TABLE predictions (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            timeline_id INTEGER REFERENCES timelines (id) ON DELETE SET NULL,
            user TEXT NOT NULL,
            t REAL NOT NULL,
            run_id INTEGER REFERENCES runs (id),
            policy TEXT NOT NULL,
            policy_version TEXT NOT NULL,
            state TEXT NOT NULL,
            plan TEXT NOT NULL CHECK (json_valid(plan)),
            probabilities TEXT NOT NULL CHECK (json_valid(probabilities)),
            none_probability REAL CHECK (none_probability BETWEEN 0 AND 1),
            propensity REAL NOT NULL CHECK (propensity > 0 AND propensity <= 1),
            outcome TEXT CHECK (outcome IS NULL OR json_valid(outcome)),
            outcome_at REAL,
            predicted_at REAL NOT NULL
        );;
        CREATE INDEX predictions_in_order ON predictions (user, t, id);;
        CREATE TABLE ratings (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            prediction_id INTEGER NOT NULL REFERENCES predictions (id),
            rater TEXT NOT NULL CHECK (rater <> ''),
            thumbs INTEGER NOT NULL CHECK (thumbs IN (0, 1)),
            reason TEXT NOT NULL DEFAULT '',
            rated_at REAL NOT NULL
        );;
        CREATE INDEX ratings_of_prediction ON ratings (prediction_id, rater, id);;
        CREATE TRIGGER ratings_are_not_changed BEFORE UPDATE ON ratings
            BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;;
        CREATE TRIGGER ratings_are_not_deleted BEFORE DELETE ON ratings
            BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;;
        CREATE VIEW latest_ratings AS
            SELECT * FROM ratings AS r WHERE NOT EXISTS (
                SELECT 1 FROM ratings AS later WHERE later.prediction_id = r.prediction_id
                    AND later.rater = r.rater AND later.id > r.id)
        """,
    )


def _second(db: Database) -> None:
    """Rating in the dashboard: the moment as the rater sees it, what was shown and how likely that was,
    votes taken back (they stay in `ratings`, and do not count); forgetting may delete ratings."""
    _statements(
        db,
        """
        CREATE TABLE moments (
            prediction_id INTEGER PRIMARY KEY REFERENCES predictions (id) ON DELETE CASCADE,
            source TEXT NOT NULL,
            tz TEXT NOT NULL,
            synthetic INTEGER NOT NULL CHECK (synthetic IN (0, 1)),
            part TEXT NOT NULL,
            steps TEXT NOT NULL CHECK (json_valid(steps)),
            teaches REAL NOT NULL CHECK (teaches BETWEEN 0 AND 1)
        );;
        CREATE TABLE showings (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            prediction_id INTEGER NOT NULL REFERENCES predictions (id) ON DELETE CASCADE,
            rater TEXT NOT NULL CHECK (rater <> ''),
            share REAL NOT NULL CHECK (share > 0 AND share <= 1),
            shown_at REAL NOT NULL,
            skipped_at REAL
        );;
        CREATE INDEX showings_of_rater ON showings (rater, id);;
        CREATE INDEX showings_of_prediction ON showings (prediction_id, rater);;
        CREATE TABLE withdrawals (
            rating_id INTEGER PRIMARY KEY REFERENCES ratings (id) ON DELETE CASCADE,
            withdrawn_at REAL NOT NULL
        );;
        CREATE INDEX ratings_of_rater ON ratings (rater, id);;
        CREATE TABLE forgetting (id INTEGER PRIMARY KEY);;
        DROP TRIGGER ratings_are_not_deleted;;
        CREATE TRIGGER ratings_are_not_deleted BEFORE DELETE ON ratings
            WHEN NOT EXISTS (SELECT 1 FROM forgetting)
            BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;;
        DROP VIEW latest_ratings;;
        CREATE VIEW latest_ratings AS
            SELECT * FROM ratings AS r WHERE NOT EXISTS (
                SELECT 1 FROM ratings AS later WHERE later.prediction_id = r.prediction_id
                    AND later.rater = r.rater AND later.id > r.id
                    AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE rating_id = later.id))
                AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE rating_id = r.id)
        """,
    )


def _third(db: Database) -> None:
    """Whether a rater knew what had happened when they voted."""
    _statements(
        db,
        """
        DROP VIEW latest_ratings;;
        ALTER TABLE ratings ADD COLUMN blind INTEGER NOT NULL DEFAULT 1 CHECK (blind IN (0, 1));;
        ALTER TABLE showings ADD COLUMN told_at REAL;;
        CREATE VIEW latest_ratings AS
            SELECT * FROM ratings AS r WHERE NOT EXISTS (
                SELECT 1 FROM ratings AS later WHERE later.prediction_id = r.prediction_id
                    AND later.rater = r.rater AND later.id > r.id
                    AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE rating_id = later.id))
                AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE rating_id = r.id)
        """,
    )


def _fourth(db: Database) -> None:
    """What a propensity is conditional on, how many predictions a shown one was picked from, and how far a
    rater was told what came.

    moments.stills: whether decisions to keep still are stored, too; moments.shown: probability that anything
    is shown at this decision; moments.since: the plans were made one after the other from then on (unix
    seconds). NULL where it is not known, as for all that was stored before. showings.pool:
    how many waited then; for earlier showings what the times of predictions and votes say.
    showings.told_until: the rater was told what this person opened up to then (unix seconds); after an
    earlier vote all was told, as far as a prewarm of the plan could last (delay, loading, time to live).
    """
    _statements(
        db,
        """
        ALTER TABLE moments ADD COLUMN stills INTEGER CHECK (stills IN (0, 1));;
        ALTER TABLE moments ADD COLUMN shown REAL CHECK (shown >= 0 AND shown <= 1);;
        ALTER TABLE moments ADD COLUMN since REAL;;
        ALTER TABLE showings ADD COLUMN pool INTEGER CHECK (pool > 0);;
        ALTER TABLE showings ADD COLUMN told_until REAL;;
        UPDATE showings SET pool = MAX(1, MIN(2000,
            (SELECT COUNT(*) FROM moments AS m JOIN predictions AS p ON p.id = m.prediction_id
             WHERE p.predicted_at <= showings.shown_at)
            - (SELECT COUNT(DISTINCT r.prediction_id) FROM ratings AS r
               WHERE r.rater = showings.rater AND r.rated_at < showings.shown_at)
            - (SELECT COUNT(DISTINCT s.prediction_id) FROM showings AS s
               WHERE s.rater = showings.rater AND s.skipped_at < showings.shown_at)));;
        UPDATE showings SET told_until = (
            SELECT p.t + 1860.0 + COALESCE(
                (SELECT MAX(json_extract(value, '$.delay_s')) FROM json_each(p.plan)), 0.0)
            FROM predictions AS p WHERE p.id = showings.prediction_id)
        WHERE told_at IS NOT NULL OR EXISTS (
            SELECT 1 FROM ratings AS r
            WHERE r.prediction_id = showings.prediction_id AND r.rater = showings.rater)
        """,
    )


def _sixth(db: Database) -> None:
    """The world that a prediction was planned and judged in, as `env.judge.world_options` names it; NULL for
    all that was stored before, when it was the usual one."""
    _statements(db, "ALTER TABLE moments ADD COLUMN world TEXT CHECK (world IS NULL OR json_valid(world))")


def _seventh(db: Database) -> None:
    """Whom a plan lets go first, a list of names; nobody in all that was stored before."""
    column = "let_go TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(let_go))"
    _statements(db, f"ALTER TABLE predictions ADD COLUMN {column}")


def _eighth(db: Database) -> None:
    """When the machine was switched off and when it was back, as recorded; nothing of it was kept before."""
    _statements(
        db,
        """
        CREATE TABLE switches (
            id INTEGER PRIMARY KEY,
            timeline_id INTEGER NOT NULL REFERENCES timelines (id) ON DELETE CASCADE,
            t REAL NOT NULL CHECK (typeof(t) = 'real'),
            kind TEXT NOT NULL CHECK (kind IN ('off', 'wake')),
            UNIQUE (timeline_id, t, kind)
        )
        """,
    )


def _live(db: Database) -> None:
    """The ledger of a recording that goes on (`rlmemo.store.live_ledger`).

    live_events: an event of a timeline that came live; key: what makes it unique at its source; planned: 0
    until it was decided what to do after it (1), or nothing is to be decided (2: it was there before, or the
    plan was forgotten); record: the judge's record of this open. live_acts: a step that was begun is there
    before it is done, and is never begun again. live_offs: the person was away, or the machine off; back_t is
    NULL as long as it lasts. live_state: what the recorder goes on from, by name.
    """
    _statements(
        db,
        """
        CREATE TABLE live_events (
            id INTEGER PRIMARY KEY,
            event_id INTEGER NOT NULL UNIQUE REFERENCES events (id) ON DELETE CASCADE,
            key TEXT NOT NULL UNIQUE,
            seen_at REAL NOT NULL,
            planned INTEGER NOT NULL DEFAULT 0 CHECK (planned IN (0, 1, 2)),
            record TEXT CHECK (record IS NULL OR json_valid(record))
        );;
        CREATE INDEX live_events_to_plan ON live_events (planned, id);;
        CREATE TABLE live_plans (
            id INTEGER PRIMARY KEY,
            live_event_id INTEGER NOT NULL UNIQUE REFERENCES live_events (id) ON DELETE CASCADE,
            policy TEXT NOT NULL,
            policy_version TEXT NOT NULL,
            plan TEXT NOT NULL CHECK (json_valid(plan)),
            let_go TEXT NOT NULL CHECK (json_valid(let_go)),
            probabilities TEXT NOT NULL CHECK (json_valid(probabilities)),
            none_probability REAL CHECK (none_probability BETWEEN 0 AND 1),
            made_at REAL NOT NULL,
            took_s REAL NOT NULL,
            outcome TEXT CHECK (outcome IS NULL OR json_valid(outcome)),
            outcome_at REAL
        );;
        CREATE TABLE live_acts (
            id INTEGER PRIMARY KEY,
            plan_id INTEGER NOT NULL REFERENCES live_plans (id) ON DELETE CASCADE,
            what TEXT NOT NULL CHECK (what IN ('load', 'let go')),
            place INTEGER NOT NULL,
            target TEXT NOT NULL,
            began_at REAL NOT NULL,
            ended_at REAL,
            came TEXT CHECK (came IS NULL OR json_valid(came)),
            UNIQUE (plan_id, what, place)
        );;
        CREATE TABLE live_offs (
            id INTEGER PRIMARY KEY,
            timeline_id INTEGER NOT NULL REFERENCES timelines (id) ON DELETE CASCADE,
            off_t REAL NOT NULL,
            back_t REAL CHECK (back_t IS NULL OR back_t >= off_t),
            why TEXT NOT NULL CHECK (why IN ('afk', 'gap', 'shutdown', 'paused')),
            UNIQUE (timeline_id, why, off_t)
        );;
        CREATE TABLE live_state (name TEXT PRIMARY KEY, value TEXT NOT NULL CHECK (json_valid(value)))
        """,
    )


def _desk(db: Database) -> None:
    """What raters set up for themselves, by name (`rlmemo.store.raters`), and what was in memory at a moment.

    moments.memory: what was in memory besides the target that is open, if nobody had loaded anything: pairs
    of when it was last opened (unix seconds) and target, the latest first; NULL where it was not kept, as for
    all that was stored before.
    """
    _statements(
        db,
        """
        CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL CHECK (json_valid(value)));;
        ALTER TABLE moments ADD COLUMN memory TEXT CHECK (memory IS NULL OR json_valid(memory))
        """,
    )


MIGRATIONS: list[Callable[[Database], None]] = [
    _first, _second, _third, _fourth, reduce_targets, _sixth, _seventh, _eighth, _live, _desk,
]  # fmt: skip

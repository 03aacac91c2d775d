"""The store: recorded timelines, runs, predictions and ratings in one SQLite file.

The only place in the project that writes SQLite. What can be relied on:

- a write is one transaction in WAL mode with `synchronous=FULL`: after a crash or a power cut it is
  there as a whole or not at all, and once it has returned it is there (but see `Store.write`);
- the file can be read and written by its owner only (mode 0600, `-wal` and `-shm` too);
- opening checks that the file is ours, undamaged (`PRAGMA quick_check`) and of a version that this
  program knows, and migrates older ones;
- ratings are only ever added: the latest rating by a rater of a prediction counts, earlier ones stay;
- several programs may use the file at once; a writer waits up to `BUSY_S` seconds for another.

A `Store` may be used from several threads.
"""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError
from env.sources.names import clean_name, shown, target_and_kind
from env.sources.sqlite_files import APPLICATION_ID, DOOR, Kind, connect
from env.timeline import KINDS, Event, zone
from rlmemo.store.database_file import NO_STORE, check_folder, check_store, make_private, put
from rlmemo.store.importing import add
from rlmemo.store.records import Prediction, Prewarm, Rating, StoredRun, TimelineRow
from rlmemo.store.schema import MIGRATIONS

if TYPE_CHECKING:
    from sqlite_utils import Database

    from env.sources import Loaded
    from rlmemo.store.importing import Imported


BUSY_S = 30.0
MAX_REASON = 2000
_INSERT_EVENT = (
    "INSERT INTO events (timeline_id, t, target, kind, duration, device, wave) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# what the file was when it was last found undamaged: the dashboard opens the store at every click, and
# reading a large file from end to end each time would be felt
_CHECKED: dict[str, tuple[int, int, int, int]] = {}


def open_store(path: str | Path, *, make: bool = True) -> Store:
    """Open the store at `path`; where there is none, make it unless told not to.

    Raises InputError for a file that is no database, another program's (which stays as it is, to the last
    byte), damaged, from a newer version, or that cannot be written.
    """
    from sqlite_utils import Database

    path = Path(path)
    connection = None
    try:
        with DOOR:
            kind = check_store(path)
            if not make and kind in (Kind.NOTHING, Kind.EMPTY):
                raise InputError(f"{path}: {kind.value}, and a database is wanted; name another file")
            make_private(path)
            with _as_input_error(path):
                connection = connect(path, path, timeout=BUSY_S, check_same_thread=False)
        db = Database(connection)
        with _as_input_error(path):
            _sign(db)
            _check_ours(db, path)
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")  # what is replaced or forgotten is overwritten
            _migrate(db)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return Store(db, path)


@contextmanager
def store_when_done(path: str | Path) -> Iterator[Store]:
    """The store at `path`. Where there is none yet, it is made beside it and put there, whole, when the block
    ends: what is refused in the block leaves no database behind."""
    path = Path(path)
    if check_store(path) not in (Kind.NOTHING, Kind.EMPTY):
        with open_store(path) as store:
            yield store
        return
    check_folder(path)
    place = path.resolve()
    with tempfile.TemporaryDirectory(prefix=".rlmemo-", dir=place.parent) as folder:
        new = Path(folder) / place.name
        store = open_store(new)
        store.path = path
        try:
            with store:
                yield store
        except InputError:
            raise
        except BaseException:  # stopped, and not refused: what was done stays done
            put(new, place)
            raise
        put(new, place)


class Store:
    """An open store; use `open_store`. Close it, or use it in a `with`."""

    def __init__(self, db: Database, path: Path) -> None:
        self.db = db
        self.path = path
        self._lock = threading.RLock()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; SQLite then folds the write-ahead log into it."""
        with self._lock:
            self.db.close()

    @property
    def version(self) -> int:
        """The schema version of the file."""
        return int(self.one("PRAGMA user_version"))

    # timelines and events

    def add_timelines(self, loaded: Loaded, *, source: str | None = None, replace: bool = False) -> Imported:
        """Add what was loaded to what the source holds for its users, or put it in its place; all of it or
        nothing (`rlmemo.store.importing`)."""
        return add(self, loaded, source, replace=replace)

    def add_events(
        self, source: str, user: str, events: Iterable[Event], *, tz: str, tz_known: bool = True
    ) -> int:
        """Append events to a user's timeline, as a recorder does; returns how many.

        Page addresses are reduced to their host here too: nothing more of them is stored.
        """
        try:
            zone(tz)
        except ValueError as error:
            raise InputError(str(error)) from None
        source, user = clean_name(source), clean_name(user)
        if not source or not user:
            raise InputError("an event needs a source and a user; one of them is empty")
        with self.write():
            identity, _ = self._timeline(source, user, tz, tz_known, False, time.time())
            return self._insert_events(identity, events)

    def timelines(self) -> list[TimelineRow]:
        """All stored timelines, by source and user."""
        rows = self.rows(
            """SELECT timelines.*, COUNT(events.id) AS events,
                      MIN(events.t) AS first_t, MAX(events.t) AS last_t
               FROM timelines LEFT JOIN events ON events.timeline_id = timelines.id
               GROUP BY timelines.id ORDER BY source, user"""
        )
        return [
            TimelineRow(**{**r, "tz_known": bool(r["tz_known"]), "synthetic": bool(r["synthetic"])})
            for r in rows
        ]

    # runs

    def add_run(
        self, folder: str, method: str, model: str, policy_version: str, config: Mapping[str, Any]
    ) -> int:
        """Record that a run has started; returns its id."""
        with self.write():
            return self._insert(
                "runs",
                folder=str(folder),
                method=method,
                model=model,
                policy_version=policy_version,
                config=_json(config),
                status="running",
                started_at=time.time(),
            )

    def continue_run(self, run_id: int) -> None:
        """Record that a run that was stopped, or died, goes on."""
        with self.write():
            self.db.execute("UPDATE runs SET status = 'running', ended_at = NULL WHERE id = ?", [run_id])

    def end_run(self, run_id: int, status: str, metrics: Mapping[str, Any] | None = None) -> None:
        """Record how a run ended: finished, stopped or failed, with its metrics."""
        if status not in ("finished", "stopped", "failed"):
            raise InputError(f"a run ends as finished, stopped or failed, not as {status!r}")
        with self.write():
            changed = self.db.execute(
                "UPDATE runs SET status = ?, metrics = ?, ended_at = ? WHERE id = ?",
                [status, None if metrics is None else _json(metrics), time.time(), run_id],
            ).rowcount
            if changed != 1:
                raise InputError(f"{self.path}: has no run {run_id}")

    def runs(self) -> list[StoredRun]:
        """All runs, the latest first."""
        rows = self.rows("SELECT * FROM runs ORDER BY started_at DESC, id DESC")
        return [
            StoredRun(
                **{
                    **r,
                    "config": json.loads(r["config"]),
                    "metrics": None if r["metrics"] is None else json.loads(r["metrics"]),
                }
            )
            for r in rows
        ]

    # predictions

    def add_prediction(self, prediction: Prediction) -> int:
        """Log what was decided; returns its id. A key that is there already gives that prediction's id.

        Raises InputError for probabilities or a propensity outside their range.
        """
        _check_prediction(prediction)
        with self.write():
            known = self.rows("SELECT id FROM predictions WHERE key = ?", [prediction.key])
            if known:
                return int(known[0]["id"])
            return self._insert(
                "predictions",
                key=prediction.key,
                timeline_id=prediction.timeline_id,
                user=prediction.user,
                t=float(prediction.t),
                run_id=prediction.run_id,
                policy=prediction.policy,
                policy_version=prediction.policy_version,
                state=prediction.state,
                plan=_json([{"target": p.target, "delay_s": p.delay_s} for p in prediction.plan]),
                let_go=_json(list(prediction.let_go)),
                probabilities=_json({k: float(v) for k, v in prediction.probabilities.items()}),
                none_probability=prediction.none_probability,
                propensity=float(prediction.propensity),
                outcome=None if prediction.outcome is None else _json(prediction.outcome),
                outcome_at=None if prediction.outcome is None else time.time(),
                predicted_at=prediction.predicted_at or time.time(),
            )

    def prediction(self, prediction_id: int) -> Prediction:
        """One prediction. Raises InputError where there is none of that id."""
        rows = self.rows("SELECT * FROM predictions WHERE id = ?", [prediction_id])
        if not rows:
            raise InputError(f"{self.path}: has no prediction {prediction_id}")
        return _prediction(rows[0])

    def predictions(
        self, *, user: str | None = None, unrated_by: str | None = None, limit: int | None = None
    ) -> list[Prediction]:
        """Predictions in time order, of one user or all, those a rater has not rated yet or all."""
        rows = self.rows(
            """SELECT * FROM predictions AS p WHERE (:user IS NULL OR p.user = :user)
               AND (:rater IS NULL OR NOT EXISTS
                    (SELECT 1 FROM ratings WHERE prediction_id = p.id AND rater = :rater))
               ORDER BY p.t, p.id LIMIT :limit""",
            {"user": user, "rater": unrated_by, "limit": -1 if limit is None else limit},
        )
        return [_prediction(r) for r in rows]

    # ratings

    def rate(
        self, prediction_id: int, rater: str, thumbs: int, *, reason: str = "", key: str | None = None,
        blind: bool = True,
    ) -> Rating:  # fmt: skip
        """Add a rating. Sending the same `key` again (a double click, a retry) adds nothing and returns
        the rating that is there. blind: whether the rater voted without knowing what had happened.

        Raises InputError for thumbs other than 0 and 1, an unknown prediction, an empty rater, or a key
        that was used for a different rating.
        """
        if isinstance(thumbs, float) or thumbs not in (0, 1):
            raise InputError(f"thumbs is {thumbs!r}; accepted are 1 (up) and 0 (down)")
        rater = clean_name(rater)
        if not rater:
            raise InputError("a rating needs a rater, and the name given is empty")
        reason = " ".join(reason.split())[:MAX_REASON]
        key = key or uuid.uuid4().hex
        with self.write():
            known = self.rows("SELECT * FROM ratings WHERE key = ?", [key])
            if known:
                rating = Rating(**known[0])
                if (rating.prediction_id, rating.rater, rating.thumbs) != (prediction_id, rater, int(thumbs)):
                    raise InputError(f"rating key {key!r} was used for another rating; use a fresh key")
                return rating
            if not self.rows("SELECT 1 FROM predictions WHERE id = ?", [prediction_id]):
                raise InputError(f"{self.path}: has no prediction {prediction_id} to rate")
            identity = self._insert(
                "ratings",
                key=key,
                prediction_id=prediction_id,
                rater=rater,
                thumbs=int(thumbs),
                reason=reason,
                rated_at=time.time(),
                blind=int(blind),
            )
            return Rating(**self.rows("SELECT * FROM ratings WHERE id = ?", [identity])[0])

    def ratings(self, *, latest: bool = True, rater: str | None = None) -> list[Rating]:
        """Ratings in the order they were given: the latest of each rater and prediction, or all."""
        table = "latest_ratings" if latest else "ratings"
        rows = self.rows(f"SELECT * FROM {table} WHERE ? IS NULL OR rater = ? ORDER BY id", [rater, rater])
        return [Rating(**r) for r in rows]

    # underneath

    def _timeline(
        self, source: str, user: str, tz: str, tz_known: bool, synthetic: bool, now: float
    ) -> tuple[int, int]:
        """The id of a user's timeline, made or updated, and how many events it holds."""
        known = self.rows(
            """SELECT id, (SELECT COUNT(*) FROM events WHERE timeline_id = timelines.id) AS events
               FROM timelines WHERE source = ? AND user = ?""",
            [source, user],
        )
        values = [tz, int(tz_known), int(synthetic), now]
        if known:
            self.db.execute(
                "UPDATE timelines SET tz = ?, tz_known = ?, synthetic = ?, imported_at = ? WHERE id = ?",
                [*values, known[0]["id"]],
            )
            return int(known[0]["id"]), int(known[0]["events"])
        names = dict(zip(("tz", "tz_known", "synthetic", "imported_at"), values, strict=True))
        return self._insert("timelines", source=source, user=user, **names), 0

    def _insert_events(self, timeline_id: int, events: Iterable[Event]) -> int:
        """Append recorded events, reducing page addresses."""
        rows = []
        for i, e in enumerate(events):
            target, kind = target_and_kind(e.target, e.kind)
            if not target or kind not in KINDS or not math.isfinite(e.t):
                raise InputError(
                    f"event {i + 1} cannot be stored: target {shown(e.target)}, kind {e.kind!r}, t {e.t!r}; "
                    f"wanted are a name, one of {', '.join(KINDS)}, and unix seconds"
                )
            duration = e.duration if e.duration is not None and 0 <= e.duration < math.inf else None
            device = None if e.device is None else clean_name(e.device)
            rows.append((timeline_id, float(e.t), target, kind, duration, device, 0))
        self.db.conn.executemany(_INSERT_EVENT, rows)
        return len(rows)

    def _insert(self, table: str, **values: object) -> int:
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        row = self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))
        return int(row.lastrowid or 0)

    def rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """What a query finds, one dict per row."""
        with self._lock, _as_input_error(self.path):
            return list(self.db.query(sql, values))

    def one(self, sql: str) -> Any:
        """The first column of the first row that a query finds."""
        with self._lock, _as_input_error(self.path):
            return self.db.execute(sql).fetchone()[0]

    @contextmanager
    def write(self, *, lasting: bool = True) -> Iterator[None]:
        """One transaction that holds the write lock from its start, so that what it reads cannot be
        changed by another program before it writes. lasting: whether it is on the disk when this returns;
        else it is there, for everybody and after a crash of this program, but after a power cut only if the
        next one that is lasting was done (writing to the disk takes some milliseconds)."""
        with self._lock, _as_input_error(self.path):
            if not lasting:
                self.db.execute("PRAGMA synchronous = NORMAL")
            try:
                with _immediate(self.db):
                    yield
            finally:
                if not lasting:
                    self.db.execute("PRAGMA synchronous = FULL")


@contextmanager
def _immediate(db: Database) -> Iterator[None]:
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """What a person can do something about is said to them; a mistake of ours stays a traceback."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise InputError(
                f"{path}: another program has been writing to it for {BUSY_S:.0f} seconds; try again"
            ) from error
        if "readonly" in text or "read-only" in text:
            raise InputError(f"{path}: cannot be written; check who owns it and its folder") from error
        if "disk is full" in text or "disk I/O" in text:
            raise InputError(f"{path}: cannot be written ({text}); nothing was stored") from error
        if "no such table" in text or "no such column" in text:
            raise InputError(
                f"{path}: is not the database any more that it was ({text}); restore a copy, and start anew"
            ) from error
        if "unable to open" in text:
            raise InputError(
                f"{path}: cannot be opened; check that its folder exists and is yours"
            ) from error
        raise
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise InputError(NO_STORE.format(path, error)) from error


def _sign(db: Database) -> None:
    """Write into a new file that it is ours, before anything else: its header then says so from the
    beginning, whatever stands in a `-wal` yet."""
    if db.execute("PRAGMA application_id").fetchone()[0] == 0:
        with _immediate(db):
            blank = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
            if blank and db.execute("PRAGMA application_id").fetchone()[0] == 0:
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _check_ours(db: Database, path: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise InputError(f"{path}: is another program's database; name another file, it will be made")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise InputError(
            f"{path}: was made by a newer rlmemo (version {version}, this one knows {len(MIGRATIONS)}); "
            "install that one, or name another file"
        )
    file = path.stat()
    state = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
    if _CHECKED.get(str(path)) == state:
        return
    problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise InputError(f"{path}: is damaged ({problem}); restore a copy, or name another file")
    _CHECKED[str(path)] = state


def _migrate(db: Database) -> None:
    if db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
        return
    with _immediate(db):
        # read again under the lock: another program may have migrated in the meantime
        version = db.execute("PRAGMA user_version").fetchone()[0]
        for number in range(version, len(MIGRATIONS)):
            MIGRATIONS[number](db)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _check_prediction(p: Prediction) -> None:
    bad = next((k for k, v in p.probabilities.items() if not 0 <= v <= 1), None)
    if bad is not None:
        raise InputError(f"the probability of {bad!r} is {p.probabilities[bad]!r}; it must lie in [0, 1]")
    if not 0 < p.propensity <= 1:
        raise InputError(
            f"propensity is {p.propensity!r}; it must lie in (0, 1]: a plan that was shown had one"
        )
    if p.none_probability is not None and not 0 <= p.none_probability <= 1:
        raise InputError(f"none_probability is {p.none_probability!r}; it must lie in [0, 1]")
    if not math.isfinite(p.t) or any(not 0 <= x.delay_s < math.inf for x in p.plan):
        raise InputError("a prediction's time and delays must be finite, and delays not negative")


def _prediction(row: dict[str, Any]) -> Prediction:
    plan = tuple(Prewarm(**x) for x in json.loads(row["plan"]))
    outcome = None if row["outcome"] is None else json.loads(row["outcome"])
    read = {name: json.loads(row[name]) for name in ("probabilities", "let_go")}
    return Prediction(**{**row, **read, "plan": plan, "outcome": outcome})


def _json(value: object) -> str:
    """JSON as it is stored: keys sorted, so that equal values are equal text; NaN is refused."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InputError(f"cannot be stored as JSON: {error}") from error

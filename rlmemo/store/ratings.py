"""Rating: which prediction is shown next and how likely that was, votes that count once, taking them back.

A vote's idempotency key names the rater, the prediction and how many ratings of it that rater had given
when it was shown. So the same vote may arrive any number of times, from a rerun, a reload or a second
window, and is one row. Ratings are never changed: a new one counts instead of the old, and one that was
taken back stays in the table and does not count.

Shown first is what teaches most, with a share at random; the probability with which a prediction was
picked is kept (`showings.share`, out of `pool`), so that estimates can be weighted by it. What may be shown
and told so that votes stay blind: `rlmemo.store.waiting`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.world_options import WorldOptions
from env.sources.names import clean_name
from rlmemo.store import waiting
from rlmemo.store.database import Store
from rlmemo.store.records import Prediction, Rating
from rlmemo.store.waiting import Desk, Told, desk

AT_RANDOM = 0.3
"""Share of the picks that is uniform over the pool; the rest goes by what a rating would teach."""

SITTING_GAP_S = 1800.0


@dataclass(frozen=True)
class Moment:
    """A prediction with what a rater is shown of the moment.

    steps: the last events up to the decision, (unix seconds, target), oldest first. tz: IANA name. world:
    what was planned for and judged in. memory: what was in memory besides what is open, as steps, but the
    latest first; None where it was not kept.
    """

    prediction: Prediction
    source: str
    tz: str
    synthetic: bool
    steps: Sequence[tuple[float, str]]
    world: WorldOptions = field(default_factory=WorldOptions)
    memory: Sequence[tuple[float, str]] | None = None

    @property
    def id(self) -> int:
        assert self.prediction.id is not None
        return self.prediction.id


@dataclass(frozen=True)
class Showing:
    """A prediction on somebody's page. `key` is the vote's idempotency key, `share` the probability with
    which this prediction was picked."""

    key: str
    rater: str
    share: float
    moment: Moment


@dataclass(frozen=True)
class Rated:
    """A vote that counts, and what it was about."""

    rating: Rating
    moment: Moment


@dataclass(frozen=True)
class Sitting:
    """Votes that count, without a pause longer than `SITTING_GAP_S` between them, up to now."""

    rated: int
    up: int


class Vote(Enum):
    """What became of a vote: written now, or the showing had its vote before."""

    RECORDED = "recorded"
    ALREADY = "already"


@dataclass(frozen=True)
class ToRate:
    """What is kept of a prediction's moment for raters. source, tz, synthetic, steps: as in `Moment`.

    part: the split's part that the moment lies in, or "live". teaches: how much a rating would teach, 0 to 1.
    stills: whether decisions to keep still are stored, too; where they are not, the prediction's propensity
    is given that something is shown. shown: probability that anything is shown there. since: unix seconds
    from which on the plans were made, each in the memory that those before it left. None: not known. world:
    what it was planned and judged in (None: the usual one). memory: what was in memory besides what is open,
    (when it was last opened, target), the latest first; None: not known.
    """

    source: str
    tz: str
    synthetic: bool
    part: str
    steps: Sequence[tuple[float, str]]
    teaches: float
    stills: bool | None = None
    shown: float | None = None
    since: float | None = None
    world: WorldOptions | None = None
    memory: Sequence[tuple[float, str]] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.teaches <= 1.0:
            raise InputError(f"teaches is {self.teaches!r}; it must lie in [0, 1]")


def add_moment(store: Store, prediction_id: int, new: ToRate) -> bool:
    """Keep what a rater is to see of a prediction's moment, once; whether it is new."""
    with store.write():
        done = store.db.execute(
            "INSERT OR IGNORE INTO moments (prediction_id, source, tz, synthetic, part, steps, teaches, "
            "stills, shown, since, world, memory) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                prediction_id,
                new.source,
                new.tz,
                int(new.synthetic),
                new.part,
                json.dumps(list(new.steps)),
                float(new.teaches),
                None if new.stills is None else int(new.stills),
                new.shown,
                new.since,
                None if new.world is None else json.dumps(asdict(new.world)),
                None if new.memory is None else json.dumps(list(new.memory), ensure_ascii=False),
            ],
        )
        return bool(done.rowcount)


def moment(store: Store, prediction_id: int) -> Moment:
    """A prediction as it is shown. Raises InputError where there is none of that id."""
    prediction = store.prediction(prediction_id)
    rows = store.rows("SELECT * FROM moments WHERE prediction_id = ?", [prediction_id])
    if not rows:
        return Moment(prediction, "", "UTC", False, [])
    row = rows[0]
    steps = [(float(t), str(target)) for t, target in json.loads(row["steps"])]
    world = WorldOptions.of(json.loads(row["world"] or "{}"))
    memory = None if row["memory"] is None else [(float(t), str(x)) for t, x in json.loads(row["memory"])]
    return Moment(prediction, row["source"], row["tz"], bool(row["synthetic"]), steps, world, memory)


def open_showing(store: Store, rater: str) -> Showing | None:
    """The rater's latest showing that has neither a vote nor been skipped, or None."""
    rows = store.rows(
        """SELECT * FROM showings AS s WHERE s.rater = :rater AND s.skipped_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM ratings WHERE key = s.key)
           AND NOT EXISTS (SELECT 1 FROM latest_ratings AS r
                           WHERE r.prediction_id = s.prediction_id AND r.rater = s.rater)
           ORDER BY s.shown_at DESC, s.id DESC LIMIT 1""",
        {"rater": clean_name(rater)},
    )
    return None if not rows else _showing(store, rows[0])


def show_next(store: Store, rater: str, draw: float) -> Showing | None:
    """Pick an unrated prediction for `rater` and note that it is shown; None where all are rated.

    draw: a number in [0, 1) that decides the pick; over uniform draws a prediction is picked with
    probability `AT_RANDOM` / n + (1 - `AT_RANDOM`) * teaches / (sum of teaches) over a pool of n: the latest
    of those that can be shown without telling another one's outcome.
    """
    rater = _rater(rater)
    pool = desk(store, rater).showable
    if not pool:
        return None
    share = shares(np.array([card.teaches for card in pool], dtype=np.float64))
    place = min(int(np.searchsorted(np.cumsum(share), draw, side="right")), len(pool) - 1)
    return _note_showing(store, rater, pool[place].id, float(share[place]), len(pool))


def shares(teaches: np.ndarray) -> np.ndarray:
    """Probability of each of n predictions to be shown next, float64 [n]."""
    n, total = len(teaches), float(teaches.sum())
    by_teaching = teaches / total if total > 0 else np.full(n, 1.0 / n)
    share: np.ndarray = AT_RANDOM / n + (1.0 - AT_RANDOM) * by_teaching
    return share


def rate(store: Store, showing: Showing, thumbs: int) -> Vote:
    """Write the vote on a showing, 1 or 0; on return it is committed. A showing has one vote: another
    one, from another window, changes nothing.

    It is marked as blind unless something that the rater was shown or told before says what happened after
    this moment (`rlmemo.store.waiting`), whichever prediction that was about.
    """
    known = store.rows(
        """SELECT 1 FROM ratings WHERE key = :key
           UNION SELECT 1 FROM latest_ratings WHERE prediction_id = :id AND rater = :rater""",
        {"key": showing.key, "id": showing.moment.id, "rater": showing.rater},
    )
    if known:
        return Vote.ALREADY
    knew = knows(store, showing.rater, showing.moment)
    try:
        rating = store.rate(showing.moment.id, showing.rater, thumbs, key=showing.key, blind=not knew)
    except InputError:
        # Between the look and the write another window has voted the other way.
        if store.rows("SELECT 1 FROM ratings WHERE key = ?", [showing.key]):
            return Vote.ALREADY
        raise
    tell_after(store, showing.rater, showing.moment)
    return Vote.RECORDED if rating.thumbs == thumbs else Vote.ALREADY


def knows(store: Store, rater: str, about: Moment) -> bool:
    """Whether the rater can know what happened after a moment from what was shown and told before."""
    return about.id in desk(store, clean_name(rater)).known


def tell(store: Store, showing: Showing) -> None:
    """Note, before it is done, that the rater is told all that happened after this prediction."""
    _tell(store, showing.rater, showing.moment.id, desk(store, showing.rater).cards[showing.moment.id].until)


def tell_after(store: Store, rater: str, about: Moment, now: Desk | None = None) -> Told:
    """How much of what happened after a rated prediction may be told; noted, before it is done. now: what
    waits for the rater, where it is known already."""
    rater = clean_name(rater)
    now = now or desk(store, rater)
    card = now.cards.get(about.id)
    if card is None or card.next_t is None:
        return Told.ALL  # there is nothing to tell
    told = now.told_after(card)
    until = {Told.NOTHING: None, Told.NEXT: card.next_t, Told.ALL: card.until}[told]
    if until is not None and until > card.told_until:
        _tell(store, rater, card.id, until)
    return told


def _tell(store: Store, rater: str, prediction_id: int, until: float) -> None:
    with store.write():
        store.db.execute(
            """UPDATE showings SET told_at = COALESCE(told_at, ?),
                                   told_until = MAX(COALESCE(told_until, ?), ?)
               WHERE id = (SELECT MAX(id) FROM showings WHERE prediction_id = ? AND rater = ?)""",
            [time.time(), until, until, prediction_id, rater],
        )


def skip(store: Store, showing: Showing) -> None:
    """The rater cannot say: it is not shown to them again."""
    with store.write():
        store.db.execute(
            "UPDATE showings SET skipped_at = ? WHERE key = ? AND skipped_at IS NULL",
            [time.time(), showing.key],
        )


def unskip(store: Store, showing: Showing) -> None:
    """Take a skip back: the prediction is shown again, before what was shown since."""
    with store.write():
        store.db.execute(
            "UPDATE showings SET skipped_at = NULL, shown_at = ? WHERE key = ?", [time.time(), showing.key]
        )


def explain(store: Store, rated: Rated, reason: str) -> None:
    """Add why: the same vote again, with its reason, counts instead."""
    old = rated.rating
    store.rate(
        old.prediction_id, old.rater, old.thumbs, reason=reason, key=f"{old.key}:because:{reason}",
        blind=bool(old.blind),
    )  # fmt: skip


def change(store: Store, rated: Rated, thumbs: int) -> None:
    """Say the other thing after all: it counts instead, without the reason that was given for the one before,
    and as blind only where nobody has told what came, and the first one was."""
    old = rated.rating
    blind = bool(old.blind) and not knows(store, old.rater, rated.moment)
    store.rate(
        old.prediction_id, old.rater, thumbs, key=f"{old.key}:changed:{thumbs}", blind=blind
    )  # fmt: skip


def withdraw(store: Store, rated: Rated) -> None:
    """Take a vote back, with what the same rater said about the same prediction before, and show the
    prediction again. Taking back twice is taking back once."""
    old = rated.rating
    with store.write():
        done = store.db.execute(
            """INSERT OR IGNORE INTO withdrawals (rating_id, withdrawn_at)
               SELECT id, ? FROM ratings WHERE prediction_id = ? AND rater = ? AND id <= ?""",
            [time.time(), old.prediction_id, old.rater, old.id],
        ).rowcount
    if done > 0:
        before = store.rows(
            "SELECT share, pool FROM showings WHERE prediction_id = ? AND rater = ? ORDER BY id DESC LIMIT 1",
            [old.prediction_id, old.rater],
        )
        share, pool = (before[0]["share"], before[0]["pool"]) if before else (1.0, None)
        _note_showing(store, old.rater, old.prediction_id, share, pool)


def latest(store: Store, rater: str) -> Rated | None:
    """The rater's last vote that counts."""
    rows = store.rows(
        """SELECT r.* FROM ratings AS r WHERE r.rater = ?
           AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE rating_id = r.id) ORDER BY r.id DESC LIMIT 1""",
        [clean_name(rater)],
    )
    if not rows:
        return None
    rating = Rating(**rows[0])
    return Rated(rating, moment(store, rating.prediction_id))


def sitting(store: Store, rater: str, now: float | None = None) -> Sitting:
    """The votes of the rater's present sitting; what was taken back is not among them."""
    rows = store.rows(
        "SELECT thumbs, rated_at FROM latest_ratings WHERE rater = ? ORDER BY id DESC LIMIT 1000",
        [clean_name(rater)],
    )
    last = time.time() if now is None else now
    rated = up = 0
    for row in rows:
        if last - row["rated_at"] > SITTING_GAP_S:
            break
        last = row["rated_at"]
        rated += 1
        up += row["thumbs"]
    return Sitting(rated, up)


def days_in_a_row(store: Store, rater: str, now: float | None = None) -> int:
    """On how many days without a gap the rater has rated, up to today, or to yesterday where nothing was
    rated today yet. Days are those of this machine's time zone."""
    rows = store.rows(
        """SELECT DISTINCT date(rated_at, 'unixepoch', 'localtime') AS day FROM ratings AS r WHERE rater = ?
           AND NOT EXISTS (SELECT 1 FROM withdrawals WHERE rating_id = r.id) ORDER BY day DESC""",
        [clean_name(rater)],
    )
    rated = {row["day"] for row in rows}
    day = datetime.fromtimestamp(time.time() if now is None else now).date()
    if day.isoformat() not in rated:
        day -= timedelta(days=1)
    n = 0
    while day.isoformat() in rated:
        n, day = n + 1, day - timedelta(days=1)
    return n


def unrated(store: Store, rater: str) -> int:
    """How many predictions still wait for this rater."""
    return waiting.unrated(store, clean_name(rater))


def approval(store: Store) -> list[dict[str, Any]]:
    """Votes that count, by policy and version: policy, policy_version, rated, up."""
    return store.rows(
        """SELECT p.policy, p.policy_version, COUNT(*) AS rated, SUM(r.thumbs) AS up
           FROM latest_ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
           GROUP BY p.policy, p.policy_version ORDER BY rated DESC, p.policy, p.policy_version"""
    )


def _rater(name: str) -> str:
    rater = clean_name(name)
    if not rater:
        raise InputError("a rating needs a rater, and the name given is empty")
    return rater


def _note_showing(store: Store, rater: str, prediction_id: int, share: float, pool: int | None) -> Showing:
    with store.write():
        given = store.db.execute(
            "SELECT COUNT(*) FROM ratings WHERE prediction_id = ? AND rater = ?", [prediction_id, rater]
        ).fetchone()[0]
        key = f"{rater}:{prediction_id}:{given}"
        store.db.execute(
            "INSERT OR IGNORE INTO showings (key, prediction_id, rater, share, shown_at, pool) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [key, prediction_id, rater, share, time.time(), pool],
        )
    return _showing(store, store.rows("SELECT * FROM showings WHERE key = ?", [key])[0])


def _showing(store: Store, row: dict[str, Any]) -> Showing:
    return Showing(row["key"], row["rater"], float(row["share"]), moment(store, row["prediction_id"]))


def rated_predictions(store: Store, rater: str, *, limit: int = 100) -> list[Rated]:
    """The rater's votes that count, the latest first, with what they were about."""
    rows = store.rows(
        "SELECT * FROM latest_ratings WHERE rater = ? ORDER BY id DESC LIMIT ?", [clean_name(rater), limit]
    )
    return [Rated(Rating(**row), moment(store, row["prediction_id"])) for row in rows]

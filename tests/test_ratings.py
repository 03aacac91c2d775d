"""Votes count once, taken back they do not count, and what is shown next has the probability it says."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from predictions_to_rate import HOSTILE, START, fill

from env.errors import InputError
from rlmemo.store import forgetting, ratings
from rlmemo.store.database import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(fill(tmp_path / "a.db", 12)) as opened:
        yield opened


def next_one(store: Store, rater: str = "me", draw: float = 0.5) -> ratings.Showing:
    showing = ratings.open_showing(store, rater) or ratings.show_next(store, rater, draw)
    assert showing is not None
    return showing


def counted(store: Store) -> list[tuple[int, int]]:
    return [(r.prediction_id, r.thumbs) for r in store.ratings()]


def test_the_same_vote_again_is_the_same_vote(store: Store) -> None:
    showing = next_one(store)
    assert ratings.rate(store, showing, 0) is ratings.Vote.RECORDED
    for thumbs in (0, 1, 0):
        assert ratings.rate(store, showing, thumbs) is ratings.Vote.ALREADY
    assert counted(store) == [(showing.moment.id, 0)]
    assert store.one("SELECT COUNT(*) FROM ratings") == 1


def test_eight_windows_at_once_are_one_vote(store: Store) -> None:
    showing = next_one(store)
    found: list[ratings.Vote] = []
    stores = [open_store(store.path) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda s=s, k=k: found.append(ratings.rate(s, showing, k % 2)))
        for k, s in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for s in stores:
        s.close()
    assert len(found) == 8
    assert store.one("SELECT COUNT(*) FROM ratings") == 1


def test_a_showing_stays_until_it_is_voted_on_or_skipped(store: Store) -> None:
    showing = next_one(store)
    assert ratings.open_showing(store, "me") == showing
    assert ratings.open_showing(store, "somebody else") is None
    ratings.skip(store, showing)
    assert ratings.open_showing(store, "me") is None
    assert ratings.unrated(store, "me") == 11
    other = next_one(store)
    ratings.unskip(store, showing)
    assert ratings.open_showing(store, "me") == showing  # before what was shown since
    ratings.skip(store, showing)
    assert ratings.open_showing(store, "me") == other
    for _ in range(11):
        showing_next = next_one(store)
        assert showing_next.moment.id != showing.moment.id
        ratings.rate(store, showing_next, 1)
    assert ratings.show_next(store, "me", 0.5) is None
    assert ratings.unrated(store, "me") == 0
    assert ratings.unrated(store, "somebody else") == 12


def test_taken_back_and_voted_again(store: Store) -> None:
    first, second = next_one(store), None
    ratings.rate(store, first, 0)
    second = next_one(store)
    last = ratings.latest(store, "me")
    assert last is not None
    ratings.explain(store, last, "wrong moment")
    explained = ratings.latest(store, "me")
    assert explained is not None
    assert (explained.rating.thumbs, explained.rating.reason) == (0, "wrong moment")
    assert ratings.sitting(store, "me") == ratings.Sitting(1, 0)
    for _ in range(3):  # taking back twice is taking back once
        ratings.withdraw(store, explained)
    assert counted(store) == []
    assert store.one("SELECT COUNT(*) FROM ratings") == 2  # nothing is thrown away
    assert ratings.latest(store, "me") is None
    assert ratings.unrated(store, "me") == 12
    again = next_one(store)
    assert again.moment.id == first.moment.id
    assert again.share == first.share
    assert ratings.rate(store, again, 1) is ratings.Vote.RECORDED
    assert counted(store) == [(first.moment.id, 1)]
    assert next_one(store).moment.id == second.moment.id
    assert ratings.sitting(store, "me") == ratings.Sitting(1, 1)


def test_a_sitting_ends_with_a_pause(store: Store) -> None:
    for _ in range(4):
        ratings.rate(store, next_one(store), 1)
    now = store.ratings()[-1].rated_at
    assert ratings.sitting(store, "me", now + 60).rated == 4
    assert ratings.sitting(store, "me", now + 3600).rated == 0


def test_a_vote_that_knows_the_outcome_is_marked(store: Store) -> None:
    def blind() -> list[int]:
        return [r.blind for r in store.ratings()]

    ratings.rate(store, next_one(store), 1)
    told = next_one(store)
    ratings.tell(store, told)
    ratings.tell(store, told)
    ratings.rate(store, told, 0)
    assert blind() == [1, 0]
    last = ratings.latest(store, "me")
    assert last is not None
    ratings.explain(store, last, "wrong thing")
    assert blind() == [1, 0]
    # What was told is not forgotten by taking the vote back, nor is what was shown after a blind one.
    ratings.withdraw(
        store, ratings.Rated(store.ratings()[0], ratings.moment(store, store.ratings()[0].prediction_id))
    )
    ratings.rate(store, next_one(store), 0)
    assert sorted(blind()) == [0, 0]
    ratings.rate(store, next_one(store, "somebody else"), 1)
    assert sorted(blind()) == [0, 0, 1]


def test_days_in_a_row(store: Store) -> None:
    import time
    from datetime import datetime

    noon = datetime.now().replace(hour=12, minute=0, second=0).timestamp()
    for days_ago in (0, 1, 2, 4):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(time, "time", lambda ago=days_ago: noon - 86400.0 * ago)
            ratings.rate(store, next_one(store), 1)
    assert ratings.days_in_a_row(store, "me", noon) == 3
    assert ratings.days_in_a_row(store, "me", noon + 86400.0) == 3  # today may still come
    assert ratings.days_in_a_row(store, "me", noon + 2 * 86400.0) == 0
    assert ratings.days_in_a_row(store, "nobody", noon) == 0


def test_shown_with_the_probability_that_is_kept(store: Store) -> None:
    teaches = np.linspace(0.05, 1.0, 12)
    with store.write():
        for k, x in enumerate(teaches):
            store.db.execute("UPDATE moments SET teaches = ? WHERE prediction_id = ?", [float(x), k + 1])
    draws = (np.arange(2000) + 0.5) / 2000
    seen: Counter[int] = Counter()
    said: dict[int, float] = {}
    for draw in draws:
        showing = ratings.show_next(store, f"rater {draw}", float(draw))
        assert showing is not None
        seen[showing.moment.id] += 1
        said[showing.moment.id] = showing.share
    assert sum(said.values()) == pytest.approx(1.0)
    assert said[12] > 3 * said[1]
    for identity, share in said.items():
        assert seen[identity] / 2000 == pytest.approx(share, abs=1e-3)


def test_shares_without_any_difference_are_even() -> None:
    assert ratings.shares(np.zeros(4)).tolist() == [0.25] * 4
    assert ratings.shares(np.ones(4)).tolist() == pytest.approx([0.25] * 4)


def test_approval_counts_what_counts(store: Store) -> None:
    for k in range(5):
        ratings.rate(store, next_one(store), int(k < 3))
    last = ratings.latest(store, "me")
    assert last is not None
    ratings.withdraw(store, last)
    (row,) = ratings.approval(store)
    assert (row["policy"], row["rated"], row["up"]) == ("markov1", 4, 3)


def raw(file: Path) -> bytes:
    """What stands in a database file, read by another process: this one holds it."""
    return subprocess.run(["cat", file], capture_output=True, check=True).stdout


def test_forgetting_a_target(tmp_path: Path) -> None:
    with open_store(fill(tmp_path / "a.db", 4, name=HOSTILE)) as store:
        ratings.rate(store, next_one(store), 1)
        with pytest.raises(InputError, match="nothing stored names"):
            forgetting.forget_target(store, "never heard of")
        gone = forgetting.forget_target(store, HOSTILE)
        assert gone.predictions == 4
        assert gone.ratings == 1
        assert gone.events > 0
        assert store.one("SELECT COUNT(*) FROM events") == 960 - gone.events
        for file in tmp_path.glob("a.db*"):
            assert b"onerror" not in raw(file)


def test_ratings_cannot_be_deleted_otherwise(store: Store) -> None:
    ratings.rate(store, next_one(store), 1)
    with pytest.raises(Exception, match="append-only"):
        store.db.execute("DELETE FROM ratings")


def test_forgetting_a_period(store: Store) -> None:
    # Predictions 0..11 lie an hour apart; their outcome is 2 min later, their first step 400 s before.
    gone = forgetting.forget_period(store, START + 3 * 3600.0, START + 5 * 3600.0)
    assert gone.events == 8
    assert gone.predictions == 3  # 3 and 4, and 5, whose first steps lie in it
    left = {p.t for p in store.predictions()}
    assert left == {START + 3600.0 * k for k in (0, 1, 2, 6, 7, 8, 9, 10, 11)}
    with pytest.raises(InputError, match="empty"):
        forgetting.forget_period(store, 2.0, 1.0)


def test_forgetting_everything(store: Store) -> None:
    ratings.rate(store, next_one(store), 0)
    store.add_run("runs/x", "dpo", "embedded", "x", {})
    gone = forgetting.forget_everything(store)
    assert (gone.events, gone.predictions, gone.ratings, gone.adapters) == (960, 12, 1, ("runs/x",))
    assert set(forgetting.holdings(store).values()) == {0}
    assert b"Calendar" not in raw(store.path)


def test_the_export_holds_everything(store: Store) -> None:
    import json

    ratings.rate(store, next_one(store), 0)
    rows = [json.loads(line) for line in forgetting.export(store)]
    by_table = Counter(row["table"] for row in rows)
    held = forgetting.holdings(store)
    assert {t: by_table[t] for t in held} == held
    assert next(r for r in rows if r["table"] == "ratings")["thumbs"] == 0


def test_a_busy_file_is_said_to_be_not_rewritten(store: Store) -> None:
    import sqlite3
    from contextlib import closing

    store.db.execute("PRAGMA busy_timeout = 200")
    with closing(sqlite3.connect(store.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchone()
        with pytest.raises(InputError, match="the rows are gone, but"):
            forgetting.forget_target(store, "Mail")
    assert store.one("SELECT COUNT(*) FROM events WHERE target = 'Mail'") == 0
    forgetting.forget_target(store, "Chat")
    assert b"Mail" not in raw(store.path)

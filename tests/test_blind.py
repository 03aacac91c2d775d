"""A vote is blind where nothing shown or told before says what happened: checked against a ledger of all that
a rater has seen, in any order of draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlmemo.store import ratings
from rlmemo.store.database import Store, open_store
from rlmemo.store.ratings import ToRate, add_moment
from rlmemo.store.records import Prediction, Prewarm
from rlmemo.store.waiting import LASTS_S, Told, desk

STEPS = 6


def events_of(seed: int, n: int = 160) -> np.ndarray:
    """Times of opens in bursts, unix seconds, float64 [n]."""
    rng = np.random.default_rng(seed)
    return np.cumsum(np.where(rng.random(n) < 0.15, rng.uniform(3000, 9000, n), rng.uniform(20, 400, n)))


def add(
    store: Store, t: np.ndarray, i: int, plan: tuple[Prewarm, ...], policy: str, user: str = "ada"
) -> int:
    """A prediction after event i, its moment and outcome; target k is what event k opened."""
    identity = store.add_prediction(
        Prediction(
            user=user, t=float(t[i]), policy=policy, policy_version="1", state="", plan=plan,
            probabilities={}, propensity=1.0, key=f"{user}-{policy}-{i}-{plan}",
            outcome={
                "next_target": f"app {i + 1}", "next_t": float(t[i + 1]), "prewarms": ["hit"] * len(plan)
            },
        )
    )  # fmt: skip
    steps = [(float(t[k]), f"app {k}") for k in range(max(0, i + 1 - STEPS), i + 1)]
    add_moment(store, identity, ToRate("test", "UTC", False, "train", steps, 0.5))
    return identity


def vote(store: Store, draw: float) -> ratings.Showing | None:
    showing = ratings.open_showing(store, "me") or ratings.show_next(store, "me", draw)
    if showing is not None:
        ratings.rate(store, showing, 1)
    return showing


@pytest.mark.parametrize("seed", range(6))
def test_every_vote_is_blind_and_no_card_comes_twice(tmp_path: Path, seed: int) -> None:
    """Two policies' predictions at overlapping moments, some with the same plan, in any order."""
    rng = np.random.default_rng(seed)
    t, opened = events_of(seed), set[float]()
    with open_store(tmp_path / "a.db") as store:
        for policy in ("markov1", "gbdt"):
            for i in rng.choice(np.arange(8, 150), 50, replace=False).tolist():
                delay = float(rng.choice([0.0, 300.0]))
                add(store, t, i, (Prewarm(f"app {rng.integers(2)}", delay),), policy)
        cards, told_all = set(), 0
        while (showing := ratings.show_next(store, "me", float(rng.random()))) is not None:
            p = showing.moment.prediction
            reach = p.t + LASTS_S + p.plan[0].delay_s
            looks = (p.t, tuple(p.plan))
            assert looks not in cards, "the same card"
            cards.add(looks)
            assert not any(p.t < x <= reach for x in opened), "an earlier page has shown it"
            opened |= {x for x, _ in showing.moment.steps}
            if rng.random() < 0.2:
                ratings.skip(store, showing)
                continue
            ratings.rate(store, showing, 1)
            told = ratings.tell_after(store, "me", showing.moment)
            until = {Told.NOTHING: p.t, Told.NEXT: p.outcome["next_t"], Told.ALL: reach}[told]  # type: ignore[index]
            opened |= {float(x) for x in t if p.t < x <= until}
            told_all += told is Told.ALL
        assert len(cards) == store.one("SELECT COUNT(DISTINCT t || plan) FROM predictions")
        assert {r.blind for r in store.ratings()} == {1}
        assert told_all > 5
        assert ratings.unrated(store, "me") == 0


def test_the_same_moment_of_another_policy_is_not_blind_once_it_was_told(tmp_path: Path) -> None:
    """As it was found: one policy's prediction is rated and told, then comes another's of the same moment."""
    t = events_of(0)
    with open_store(tmp_path / "a.db") as store:
        add(store, t, 20, (Prewarm("Mail"),), "markov1")
        assert vote(store, 0.5) is not None
        add(store, t, 20, (Prewarm("Chat"),), "gbdt")
        later = vote(store, 0.5)
        assert later is not None
        assert [r.blind for r in store.ratings()] == [1, 0]
        assert vote(store, 0.5) is None


def test_two_policies_at_one_moment_are_both_asked_before_anything_is_told(tmp_path: Path) -> None:
    t = events_of(0)
    with open_store(tmp_path / "a.db") as store:
        for name in ("Mail", "Chat"):
            add(store, t, 20, (Prewarm(name),), name)
        for told in (Told.NOTHING, Told.ALL):
            showing = vote(store, 0.5)
            assert showing is not None
            assert ratings.tell_after(store, "me", showing.moment) is told
        assert [r.blind for r in store.ratings()] == [1, 1]


def test_a_later_card_that_was_shown_tells_of_an_earlier_moment(tmp_path: Path) -> None:
    """Its last opens reach back to it; the next card's answer is never on the page either."""
    t = events_of(0)
    with open_store(tmp_path / "a.db") as store:
        add(store, t, 23, (Prewarm("Mail"),), "markov1")
        late = ratings.show_next(store, "me", 0.5)
        assert late is not None
        ratings.skip(store, late)
        early = add(store, t, 21, (Prewarm("Mail"),), "markov1")
        far = add(store, t, 140, (Prewarm("Mail"),), "markov1")
        assert desk(store, "me").known == {early}
        first = vote(store, 0.99)
        assert first is not None
        assert first.moment.id == far, "what can be rated blind comes first"
        vote(store, 0.5)
        assert {r.prediction_id: r.blind for r in store.ratings()} == {far: 1, early: 0}
        assert desk(store, "somebody else").known == set()


def test_near_moments_come_in_the_order_of_time(tmp_path: Path) -> None:
    t = np.arange(60) * 100.0
    with open_store(tmp_path / "a.db") as store:
        for i in (20, 22, 24, 26):
            add(store, t, i, (Prewarm("Mail"),), "markov1")
        seen = []
        for draw in (0.99, 0.99, 0.0, 0.5):
            showing = vote(store, draw)
            assert showing is not None
            seen.append(showing.moment.prediction.t)
            told = ratings.tell_after(store, "me", showing.moment)
            assert told is (Told.NEXT if len(seen) < 4 else Told.ALL)
        assert seen == sorted(seen)


def test_undone_it_comes_again_and_is_not_blind(tmp_path: Path) -> None:
    t = events_of(0)
    with open_store(tmp_path / "a.db") as store:
        add(store, t, 20, (Prewarm("Mail"),), "markov1")
        add(store, t, 20, (Prewarm("Mail"),), "gbdt")  # the same card
        first = vote(store, 0.5)
        last = ratings.latest(store, "me")
        assert first is not None
        assert last is not None
        assert ratings.unrated(store, "me") == 0
        ratings.withdraw(store, last)
        assert ratings.unrated(store, "me") == 2
        again = vote(store, 0.5)
        assert again is not None
        assert again.moment.id == first.moment.id
        assert [r.blind for r in store.ratings()] == [0]
        assert vote(store, 0.5) is None


def test_a_store_from_before_knows_what_was_told_and_from_how_many(tmp_path: Path) -> None:
    """Version 3 showed the outcome after every vote, and said nothing of the pool."""
    t = events_of(0)
    with open_store(tmp_path / "a.db") as store:
        for i in (20, 140):
            add(store, t, i, (Prewarm("Mail", 300.0),), "markov1")
        vote(store, 0.5), vote(store, 0.5)
        kept = store.rows("SELECT id, told_until, pool FROM showings ORDER BY id")
        with store.write():
            for table, columns in (
                ("moments", ("stills", "shown", "since", "world", "memory")),
                ("showings", ("pool", "told_until")),
                ("predictions", ("let_go",)),
            ):
                for column in columns:
                    store.db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            live = ("live_acts", "live_plans", "live_events", "live_offs", "live_state")
            for table in (*live, "switches", "settings"):
                store.db.execute(f"DROP TABLE {table}")
            store.db.execute("PRAGMA user_version = 3")
    with open_store(tmp_path / "a.db") as store:
        assert store.rows("SELECT id, told_until, pool FROM showings ORDER BY id") == kept
        assert store.rows("SELECT DISTINCT stills, shown, since FROM moments") == [
            {"stills": None, "shown": None, "since": None}
        ]

"""What a person says of live's plans is heard at once, and by nobody who has said nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_watch import FakeServer, W
from test_live_loop import APPS, Noting, StillClock, kept, loop_on, one_day
from test_live_mind import a_person, ledger_of, minding, offline, written

from env.errors import InputError
from env.judge.case import Case
from env.thumbs import Thumb, Thumbs
from env.timeline import Event
from rlmemo.approval.thumbs_said import told_today
from rlmemo.live import status
from rlmemo.live.hearing import Hearing
from rlmemo.live.loop import LEFT_KEPT
from rlmemo.live.mind import Mind
from rlmemo.policies.following import follower
from rlmemo.policies.planners import Threshold
from rlmemo.policies.registry import to_follow
from rlmemo.store import now as live_now
from rlmemo.store import now_votes, ratings, waiting
from rlmemo.store.database import Store, open_store
from rlmemo.store.forgetting import forget_period, forget_target
from rlmemo.store.live_ledger import LiveLedger, Seen
from rlmemo.store.records import Prediction, Prewarm


def says(store: Store, thumbs: int, place: int = 0, rater: str = "me", given: int = 0) -> bool:
    """A vote on one of the latest plans, the latest first."""
    (of,) = live_now.recordings(store)
    how = live_now.standing(store, of, time.time())
    return now_votes.vote(store, of, how, how.moments[place], rater, thumbs, given)


def same(a: Any, b: Any) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        np.testing.assert_array_equal(a.since, b.since)
        np.testing.assert_array_equal(a.hit, b.hit)
        assert (a.up.tolist(), a.hour.tolist(), a.targets) == (b.up.tolist(), b.hour.tolist(), b.targets)


def test_what_is_heard_is_what_everybody_reads_after_every_event(tmp_path: Path) -> None:
    """Also whether a plan that was spoken about was right, once that is known; only what is new is read."""
    person, db, made = a_person(80), tmp_path / "a.db", to_follow("markov1")
    rng, asked = np.random.default_rng(0), 0
    with ledger_of(db) as ledger, open_store(db) as dashboard:
        hearing, mind, said, known = Hearing(ledger), Mind(minding(made, 0.1)), 0, 0
        plain = ledger.timeline

        def counted() -> Any:
            nonlocal asked
            asked += 1
            return plain()

        ledger.timeline = counted  # type: ignore[method-assign]
        for k, event in enumerate(person):
            ledger.add([Seen(str(k), event)], at=event.t)
            *_, row = ledger.rows()
            before = asked
            hearing.opened(event.target)
            assert hearing.listen() == (said > known)
            assert asked - before == int(said > known)
            known = said
            same(hearing.thumbs, told_today([plain()], dashboard)[0].thumbs)
            thought = mind.think(row)
            assert ledger.decide(row, thought.plan, thought.record, thought.came, at=event.t)
            if k > 5 and rng.random() < 0.4:
                said += says(dashboard, int(rng.random() < 0.5), int(rng.integers(3)), given=0)
        assert said > 15
        assert hearing.thumbs is not None
        assert np.isfinite(hearing.thumbs.hit).sum() > 5


def test_plans_mind_what_was_said_as_offline_and_nothing_else_changes(tmp_path: Path) -> None:
    """A vote on a stranger's prediction changes nothing; one's own changes what comes after it, and with it
    the plans are those of the offline policy that is told the same."""
    person, db = a_person(140), tmp_path / "a.db"
    made = to_follow("base")
    written(person, db)
    expected, _ = offline(person, minding(made, 0.2))
    at = len(person) // 2
    with ledger_of(db) as ledger, open_store(db) as dashboard:
        strange = dashboard.add_prediction(
            Prediction("somebody", float(person.t[3]), "x", "1", "", [Prewarm(person.names[0])], {}, 1.0)
        )
        dashboard.rate(strange, "me", 0)
        hearing, mind, found = Hearing(ledger), Mind(minding(made, 0.2)), []
        for k, row in enumerate(list(ledger.rows())):
            hearing.opened(row.event.target)
            if hearing.listen():
                mind.hear(hearing.thumbs)
            thought = mind.think(row)
            assert ledger.decide(row, thought.plan, thought.record, thought.came, at=row.event.t)
            found.append(([p.target for p in thought.plan.plan], list(thought.plan.let_go)))
            if k == at:
                assert hearing.thumbs is None
                with_plans = [k for k in range(k) if found[k][0]][-5:]
                for j in with_plans:
                    _vote_at(dashboard, ledger, j, thumbs=0)
        heard = told_today([person], dashboard)[0]
    assert found[: at + 1] == expected[: at + 1], "nobody had said anything"
    assert heard.thumbs is not None
    assert len(heard.thumbs) == 5
    assert found[at + 1 :] != [*expected[at + 1 :], found[-1]], "it is minded"
    costs = made.world.cost_model().arrays(person)
    case = Case(heard, costs, minding(made, 0.2).rules(), 1, len(person))
    ranking = made.policy.rank(heard, case.indices)
    after = [
        [(person.names[x], round(float(p), 4)) for x, p in zip(t, q, strict=True) if x >= 0]
        for t, q in zip(ranking.targets[at + 1 :], ranking.probability[at + 1 :], strict=True)
    ]
    with ledger_of(db) as ledger:
        for row, listed in zip(list(ledger.rows())[at + 1 :], after, strict=False):
            plan = ledger.plan_of(row.id)
            assert plan is not None
            for name, p in listed[:3]:
                assert plan.probabilities[name] == pytest.approx(p, abs=2e-4), row.id


def test_a_policy_that_keeps_nothing_hears_it_with_the_timeline() -> None:
    heard = []

    class Asked:
        def rank(self, timeline: Any, indices: np.ndarray) -> Any:
            heard.append(timeline.thumbs)

    asked = follower(Asked(), "me", "UTC", Threshold(0.5))
    asked.see(Event(1.0, "a"))
    for thumbs in (None, Thumbs.of([Thumb(-np.inf, 9, True, None, ("a",))]), None):
        asked.hear(thumbs)
        asked.rank()
        assert heard[-1] is thumbs


def _vote_at(store: Store, ledger: LiveLedger, place: int, *, thumbs: int) -> None:
    """A vote on the plan after event `place`."""
    row = list(ledger.rows())[place]
    plan = ledger.plan_of(row.id)
    assert plan is not None
    (of,) = live_now.recordings(store)
    how = live_now.standing(store, of, time.time())
    assert row.plan_id is not None
    moment = live_now.LiveMoment(
        row.plan_id, row.event.t, row.event.target, [(row.event.t, row.event.target)], plan.plan, (),
        plan.probabilities, plan.none_probability, "base", "1", plan.made_at, [], {}, None,
    )  # fmt: skip
    assert now_votes.vote(store, of, replace(how, settings={}), moment, "me", thumbs, 0)


def test_a_loop_hears_before_its_next_plan_and_tells_who_has_left(tmp_path: Path) -> None:
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    with loop_on(db, server, clock, Noting()) as loop, open_store(db) as dashboard:
        world = vars(loop.minding.setup.world)
        loop.ledger.put(settings={"budget_mb": 1200.0, "world": world, "policy": "markov1", "act": "none"})
        (of,) = live_now.recordings(dashboard)
        for k in range(24):
            one_day(server, clock, k)
            loop.turn()
            how = live_now.standing(dashboard, of, clock.now())
            assert how.front == APPS[k % len(APPS)]
            assert {*how.early, *how.warm} == set(loop.mind.memory())
            assert set(how.early) == {x for x, unused in loop.mind.memory().items() if unused}
            assert how.warm[0] == how.front
            if k == 20:
                assert says(dashboard, 0)
            assert how.heard == int(k > 20)
        assert "its plans mind 1 of what you said (dashboard, page Now)" in status.lines(loop.ledger, None)
        assert len(how.left) == LEFT_KEPT
        assert {x.why for x in how.left} == {"room"}
        assert not {x.target for x in how.left[:2]} & {how.front}
        # what is held too long by now is not ready any more, whether or not anything was opened since
        assert how.early
        later = live_now.standing(dashboard, of, clock.now() + 7200.0)
        assert later.early == {}
        assert {x.target for x in later.left if x.why == "unused"} == set(how.early)
        clock.t += 7200.0
        server.tell(W, clock.t, app="Notes")
        loop.turn()
        loop.turn()
        after = live_now.standing(dashboard, of, clock.now())
        assert {x.target for x in after.left if x.why == "unused"} >= set(how.early) - {"Notes"}


def test_a_vote_counts_once_is_taken_back_and_is_forgotten_with_its_plan(tmp_path: Path) -> None:
    server, clock, db = FakeServer(), StillClock(), tmp_path / "a.db"
    with loop_on(db, server, clock) as loop, open_store(db) as store:
        loop.ledger.put(settings={"budget_mb": 1200.0, "world": vars(loop.minding.setup.world)})
        for k in range(16):
            one_day(server, clock, k)
            loop.turn()
        (of,) = live_now.recordings(store)
        how = live_now.standing(store, of, clock.now())
        latest, before = how.moments[:2]
        assert says(store, 0)
        assert not says(store, 0), "a second click is the same vote"
        assert not says(store, 1), "and from another window, too"
        assert now_votes.said_of(store, of, latest, "me") == now_votes.LiveVote(0, 1)
        assert says(store, 1, given=1), "a change of mind counts instead"
        assert [r.thumbs for r in store.ratings()] == [1]
        assert says(store, 0, place=1)
        assert [r.blind for r in store.ratings()] == [1, 0]
        world = ratings.moment(store, store.ratings()[0].prediction_id).world
        assert world.rules(world.budget).budget_targets == pytest.approx(3.0, rel=1e-3)
        assert now_votes.said_of_target(store, of, latest.plan[0].target)[0] == 1
        now_votes.take_back(store, of, latest, "me")
        now_votes.take_back(store, of, latest, "me")
        assert [r.thumbs for r in store.ratings()] == [0]
        # who has looked at the page knows what came after what is asked elsewhere
        desk = waiting.desk(store, "me")
        assert not desk.known
        now_votes.note_shown(store, of, how, "me")
        assert waiting.desk(store, "me").known == {c.id for c in desk.cards.values()}
        assert not waiting.desk(store, "else").known
        loop._listen()
        assert loop.hearing.thumbs is not None
        assert len(loop.hearing.thumbs) == 1
        forget_period(store, before.t, before.t + 1.0)
        loop.turn()
        assert loop.hearing.thumbs is None
        with pytest.raises(InputError, match="was forgotten meanwhile"):
            now_votes.vote(store, of, how, before, "me", 1, 1)
        forget_target(store, latest.target)
        assert store.ratings(latest=False) == []
    assert kept(db)

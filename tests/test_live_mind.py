"""A mind that follows a recording plans what offline replay plans, also when it begins anew in between."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.plans import FIELDS, OUTCOME_NAMES
from env.judge.world_options import WORLDS
from env.sources import load_timelines
from env.timeline import Event, Timeline, collapse
from rlmemo.live.mind import Mind, Minding
from rlmemo.policies.planners import BY_NOBODY, BY_SOON, OwnPlans, Threshold
from rlmemo.policies.registry import setup, to_follow
from rlmemo.policies.run import Setup
from rlmemo.policies.shipped import shipped_planner
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import NOT_YET, LiveLedger, Seen
from tests.test_before_rebuilding import FIXTURE
from tests.tiny_text_model import write_text_model

TZ = "Europe/Berlin"


def a_person(n: int = 220) -> Timeline:
    """The first opens of an invented person, in whole milliseconds."""
    made = load_timelines("demo").timelines[0]
    events = [Event(round(e.t, 3), e.target, e.kind) for _, e in zip(range(n), made, strict=False)]
    return collapse(Timeline.from_events("me", events, tz=TZ, tz_known=True))


@contextmanager
def ledger_of(db: Path) -> Iterator[LiveLedger]:
    with open_store(db) as store:
        yield LiveLedger(store, "me", TZ)


def a_person_with_nights(n: int = 260) -> Timeline:
    """The same of somebody whose machine is switched off and on, as recorded."""
    made = load_timelines("demo-nights").timelines[0]
    events = [Event(round(e.t, 3), e.target, e.kind) for _, e in zip(range(n), made, strict=False)]
    last = events[-1].t
    switched = {name: times[times < last] for name, times in (("offs", made.offs), ("wakes", made.wakes))}
    return collapse(Timeline.from_events("me", events, tz=TZ, tz_known=True, **switched))


def with_returns(person: Timeline, pause: float) -> Timeline:
    """The same, where every longer pause is an off of which one heard when it was over."""
    off, _ = WorldConfig().offs(person)
    more = np.flatnonzero((np.diff(person.t) > pause) & ~np.isfinite(off[1:]))
    offs = np.sort(np.append(person.offs, person.t[more] + pause))
    return replace(person, offs=offs, wakes=np.sort(np.append(person.wakes, person.t[more + 1] - 90.0)))


def written(timeline: Timeline, db: Path) -> None:
    switches = [
        (float(t), kind) for kind, times in (("off", timeline.offs), ("wake", timeline.wakes)) for t in times
    ]
    with ledger_of(db) as ledger:
        seen = [Seen(f"{k}", e) for k, e in enumerate(timeline)]
        ledger.add(seen, at=float(timeline.t[-1]), switches=switches)


Said = list[tuple[list[str], list[str]]]


def live(db: Path, make: Callable[[], Minding], anew: tuple[int, ...] = ()) -> Said:
    """The plans of a ledger's events, (prewarms, let go); the mind is made anew before decisions `anew`."""
    with ledger_of(db) as ledger:
        mind, made, last = Mind(make()), Said(), 0
        for k, row in enumerate(list(ledger.rows())):
            if k in anew:
                mind = Mind(make())
                mind.restore([r for r in ledger.rows() if r.planned != NOT_YET])
            if mind.at_wakes and row.wake < np.inf and k:
                (before,) = [r for r in ledger.rows() if r.id == last]
                plan, _ = mind.wake(before, row.wake)
                assert ledger.woke(before, plan, row.wake)
                made[-1][0].extend(p.target for p in plan)
                if k % 2:  # killed right after it
                    mind = Mind(make())
                    mind.restore([r for r in ledger.rows() if r.planned != NOT_YET])
            thought = mind.think(row)
            assert ledger.decide(row, thought.plan, thought.record, thought.came, at=row.event.t)
            made.append(([p.target for p in thought.plan.plan], list(thought.plan.let_go)))
            last = row.id
        return made


def offline(timeline: Timeline, made: Minding) -> tuple[Said, Any]:
    """The plans of the same planner over the whole, and what they come to."""
    costs = made.setup.world.cost_model().arrays(timeline)
    case = Case(timeline, costs, made.rules(), 1, len(timeline))
    planned = made.planner().plan(made.setup.policy, case)
    names = timeline.names
    said = [
        ([names[x] for x in target if x >= 0], [names[x] for x in let_go if x >= 0])
        for target, let_go in zip(planned.target.tolist(), planned.let_go.tolist(), strict=True)
    ]
    return said, case.replay(planned)


def minding(made: Setup, threshold: float | None = None) -> Minding:
    return Minding(made, "me", TZ, 1600.0, "test", threshold)


def same_as_offline(timeline: Timeline, db: Path, make: Callable[[], Minding]) -> int:
    """Asserts it; the number of prewarms."""
    written(timeline, db)
    n = len(timeline)
    found = live(db, make, (1, n // 3, n // 3 + 1, n - 2))
    expected, outcomes = offline(timeline, make())
    assert [k for k in range(n - 1) if found[k] != expected[k]] == []
    with ledger_of(db) as ledger:
        rows = list(ledger.rows())
        sums = ledger.totals(0.0, FIELDS)
    resolved, most = 0, make().rules().max_picks
    for k, row in enumerate(rows[:-1]):
        for place, one in enumerate((row.outcome or {"prewarms": []})["prewarms"]):
            if one is not None:
                column = place if place < len(row.plan) else most + place - len(row.plan)
                assert one["came"] == OUTCOME_NAMES[outcomes.outcome[k, column]]
                resolved += 1
    prewarms = sum(len(p) for p, _ in found)
    assert 0.7 * prewarms <= resolved <= prewarms
    waited = outcomes.table[1 : n - 1, FIELDS.index("base_wait_s")].sum()
    last = rows[-1].event  # the end of a replay wastes what is unused; here nothing ends
    assert sums["opens"] == n - 1
    assert sums["base_wait_s"] == pytest.approx(waited + outcomes.base_wait_s[n - 1])
    assert sums["saved_s"] == pytest.approx(outcomes.total("saved_s"))
    assert last.t == timeline.t[-1]
    return prewarms


@pytest.mark.parametrize("policy", ["base", "markov1"])
def test_the_plans_are_those_of_offline_replay(policy: str, tmp_path: Path) -> None:
    made = to_follow(policy)
    assert same_as_offline(a_person(), tmp_path / "a.db", lambda: minding(made)) > 20


@pytest.mark.parametrize("policy", ["base", "markov1"])
def test_of_a_recording_with_nights(policy: str, tmp_path: Path) -> None:
    """After a night memory is empty, for both; what a run would load at the wake live leaves aside."""
    made, person = to_follow(policy), a_person_with_nights()
    assert len(person.offs) > 3
    assert same_as_offline(person, tmp_path / "a.db", lambda: minding(made)) > 20
    sleepless = replace(person, offs=np.zeros(0), wakes=np.zeros(0))
    assert offline(sleepless, minding(made))[0] != offline(person, minding(made))[0]


@pytest.mark.parametrize("policy", ["base", "markov1"])
def test_of_plans_at_wakes(policy: str, tmp_path: Path) -> None:
    """The person is back and nothing is opened yet: what offline replay loads then, live does."""
    pause = float(WORLDS["day"]["off_after_s"])
    made, person = to_follow(policy, WORLDS["day"]), with_returns(a_person_with_nights(), pause)
    assert isinstance(made.planner or shipped_planner(made.world), Threshold)
    waking = replace(minding(made), wakes=True)
    recorded = WorldConfig().offs(person)[1]
    assert (np.isfinite(waking.rules().offs(person)[1]) == np.isfinite(recorded)).all()  # none is assumed
    assert same_as_offline(person, tmp_path / "a.db", lambda: waking) > 20
    with ledger_of(tmp_path / "a.db") as ledger:
        woken = [row.woken for row in ledger.rows() if row.woken is not None]
        assert len(woken) > 3
        assert {t for t, _ in woken} <= set(person.wakes.tolist())
    assert offline(person, minding(made))[0] != offline(person, waking)[0]


def test_of_plans_at_wakes_by_other_policies(tmp_path: Path) -> None:
    from env.splits import chrono

    person, gbdt = with_returns(a_person_with_nights(90), 7200.0), setup("gbdt", WORLDS["day"])
    gbdt.policy.fit([person], chrono([person]), seed=0)
    text = setup(str(write_text_model(tmp_path / "model")), WORLDS["day"])
    for k, made in enumerate((gbdt, text)):
        planner = Threshold(0.05, wake=0.02)
        waking = replace(minding(replace(made, planner=planner)), wakes=True)
        assert same_as_offline(person, tmp_path / f"{k}.db", lambda waking=waking: waking) > 10
        with ledger_of(tmp_path / f"{k}.db") as ledger:
            assert any(row.woken for row in ledger.rows())


def test_of_a_text_model_in_hub_format(tmp_path: Path) -> None:
    made = setup(str(write_text_model(tmp_path / "model")))
    assert same_as_offline(a_person(90), tmp_path / "a.db", lambda: minding(made, 0.05)) > 20


def test_of_a_run(tmp_path: Path) -> None:
    """One that was trained long ago; and with a threshold for wakes in its `plan.json`."""
    with tarfile.open(FIXTURE) as packed:
        packed.extractall(tmp_path, filter="data")
    run, person = tmp_path / "run-dpo", with_returns(a_person_with_nights(150), 7200.0)
    made = to_follow(str(run), {"off_after_s": 7200.0})
    assert made.policy.name == "run-dpo"
    assert same_as_offline(person, tmp_path / "a.db", lambda: minding(made)) > 20
    plan = {"planner": "threshold", "threshold": 0.0417, "names": "soon", "wake": 0.03}
    (run / "adapter" / "plan.json").write_text(json.dumps(plan))
    made = to_follow(str(run), {"off_after_s": 7200.0})
    waking = replace(minding(made), wakes=True)
    assert same_as_offline(person, tmp_path / "b.db", lambda: waking) > 20
    with ledger_of(tmp_path / "b.db") as ledger:
        assert any(row.woken for row in ledger.rows())


@pytest.mark.parametrize("names", [BY_NOBODY, BY_SOON])
def test_of_plans_that_the_model_says_itself(names: str, tmp_path: Path) -> None:
    made = replace(setup("base"), planner=OwnPlans(names))
    same_as_offline(a_person(120), tmp_path / "a.db", lambda: minding(made))


def test_of_a_policy_that_keeps_nothing(tmp_path: Path) -> None:
    made = setup("gbdt")
    person = a_person(60)
    from env.splits import chrono

    made.policy.fit([person], chrono([person]), seed=0)
    same_as_offline(person, tmp_path / "a.db", lambda: minding(made, 0.1))


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be followed live"):
        Mind(minding(replace(setup("markov1"), planner=OwnPlans())))


def test_an_event_that_was_forgotten_leaves_a_recording_that_can_be_followed(tmp_path: Path) -> None:
    from rlmemo.store.forgetting import forget_target

    db, made = tmp_path / "a.db", setup("markov1")
    person = a_person(120)
    written(person, db)
    live(db, lambda: minding(made))
    gone = str(np.array(person.names)[np.bincount(person.target).argmax()])
    with ledger_of(db) as ledger:
        forget_target(ledger.store, gone)
        rows = list(ledger.rows())
        assert 0 < len(rows) < 120
        assert all(gone not in [*(p.target for p in r.plan), *r.let_go, r.event.target] for r in rows)
        mind = Mind(minding(made))
        mind.restore(rows)
        ledger.add([Seen("new", Event(float(person.t[-1]) + 60.0, "something new"))], at=0.0)
        *_, row = ledger.rows()
        thought = mind.think(row)
        assert ledger.decide(row, thought.plan, thought.record, thought.came, at=0.0)
        assert mind.memory()["something new"] is False


def test_an_event_has_its_plan_within_milliseconds(tmp_path: Path) -> None:
    """The median: what else runs on this machine must not fail this. docs/live.md has the 95th percentile."""
    made, person = setup("base"), a_person()
    mind, took = Mind(minding(made)), []
    written(person, tmp_path / "a.db")
    with ledger_of(tmp_path / "a.db") as ledger:
        for row in ledger.rows():
            began = time.perf_counter()
            mind.think(row)
            took.append(time.perf_counter() - began)
    assert np.median(took) < 0.04

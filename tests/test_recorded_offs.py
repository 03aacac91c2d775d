"""Recorded offs and wakes in the judge: after an off nothing is resident, and what is planned for a wake is
loaded when the person was back, whatever `off_after_s` assumes besides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_cases import random_case, random_timeline, with_switches
from test_kernel import same
from test_let_go import case_of

from env.gym.memory import MemoryEnv
from env.judge import accounting
from env.judge.case import Case
from env.judge.cost import LET_GO_RULES, WAKE_S, Costs, WorldConfig
from env.judge.effects import plan_effects
from env.judge.oracle_bound import upper_bound
from env.judge.plans import FIELDS, SAVED, Plans, at_wake
from env.slate.slate import build_slates
from env.timeline import Event, Timeline, collapse
from tests.reference import world
from tests.reference.oracle_exact import exact

DAY = (Event(0.0, "a"), Event(60.0, "b"), Event(9000.0, "a"), Event(9060.0, "b"))
ONE = np.ones(2)
COSTS = Costs(ONE, 4 * ONE, ONE, 3 * ONE)


def day(**switched: list[float]) -> Timeline:
    return Timeline.from_events("x", DAY, **switched)  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32 - 1), rule=st.sampled_from(LET_GO_RULES), n=st.integers(1, 70))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_with_random_offs_both_judges_say_the_same_bit_for_bit(seed: int, rule: str, n: int) -> None:
    rng = np.random.default_rng(seed)
    timeline, costs, config, plans, worth = case_of(rng, rule, n, int(rng.integers(1, 12)))
    timeline = with_switches(rng, timeline)
    start = int(rng.integers(0, n + 1))
    window = {"start": start, "stop": int(rng.integers(start, n + 1)), "worth": worth}
    assert same(
        world.replay(timeline, costs, config, plans, **window),  # type: ignore[arg-type]
        accounting.replay(timeline, costs, config, plans, **window),  # type: ignore[arg-type]
    )


def test_after_a_recorded_off_nothing_is_resident_whatever_is_assumed() -> None:
    for off_after in (math.inf, 8000.0):
        config = WorldConfig(budget_mb=9.0, off_after_s=off_after)
        for switched in ({"offs": [70.0]}, {"wakes": [8000.0]}, {"offs": [70.0], "wakes": [8000.0]}):
            plans = Plans.empty(4, 1)
            plans.target[1], plans.delay[1] = 0, 3  # due at 1,860 s: it is wasted
            out = accounting.replay(day(**switched), COSTS, config, plans)
            assert out.base_cold.tolist() == out.cold.tolist() == [1, 1, 1, 1]
            assert out.total("wasted") == 1 or "offs" not in switched
    on = accounting.replay(day(), COSTS, WorldConfig(budget_mb=9.0), Plans.empty(4, 1))
    assert on.cold.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("off_after", "switched", "off", "back"),
    [
        (math.inf, {"offs": [70.0], "wakes": [8000.0]}, 70.0, 8000.0),
        (math.inf, {"offs": [70.0]}, 70.0, 9000.0 - WAKE_S),  # nobody says when it was back
        (math.inf, {"offs": [8999.0]}, 8999.0, math.nextafter(8999.0, math.inf)),
        (math.inf, {"wakes": [8000.0]}, math.nextafter(8000.0, 0.0), 8000.0),  # nor since when it was off
        (math.inf, {"offs": [60.0], "wakes": [9000.0]}, 60.0, 9000.0),  # at the times of the events
        (math.inf, {"offs": [70.0, 500.0], "wakes": [400.0, 8000.0]}, 70.0, 8000.0),  # the last wake
        (math.inf, {"offs": [70.0, 8500.0], "wakes": [400.0]}, 70.0, 9000.0 - WAKE_S),  # off again
        (1800.0, {}, 1860.0, 9000.0 - WAKE_S),
        (1800.0, {"offs": [4000.0], "wakes": [8000.0]}, 1860.0, 8000.0),  # the union: off all the while
        (1800.0, {"offs": [70.0], "wakes": [80.0]}, 70.0, 9000.0 - WAKE_S),  # back, and off once more
    ],
)
def test_when_it_was_off_and_back(
    off_after: float, switched: dict[str, list[float]], off: float, back: float
) -> None:
    found = WorldConfig(off_after_s=off_after).offs(day(**switched))
    assert found[0].tolist() == [math.inf, math.inf, off, math.inf]
    assert found[1].tolist() == [math.inf, math.inf, back, math.inf]


def test_what_is_planned_for_a_recorded_wake_is_loaded_at_its_own_time() -> None:
    timeline, config = day(offs=[70.0], wakes=[8000.0]), WorldConfig(budget_mb=9.0)
    plans = Plans.empty(4, 2)
    plans.target[1], plans.delay[1] = [0, 1], at_wake(0)
    out = accounting.replay(timeline, COSTS, config, plans)
    assert (out.planned.tolist(), out.hit.tolist()) == ([0, 0, 2, 0], [0, 0, 1, 1])
    assert out.lead_s[1].tolist() == [1000.0, 1060.0]
    case = Case(timeline, COSTS, config, 1, 4)
    assert case.wakes.tolist() == [1]
    assert case.woken.now is not None
    assert case.woken.now.tolist() == [0.0, 8000.0, 9000.0, 9060.0]
    effect = case.effects(np.array([1]), Plans(plans.target[[1]][None], plans.delay[[1]][None]))
    assert effect[0, 0, SAVED] == 6.0


def test_offs_outside_change_nothing_and_a_part_keeps_those_within() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        timeline, costs, config, plans = random_case(rng, 30, 6)
        around = replace(
            timeline, offs=timeline.t[[0, -1]] + [-9.0, 9.0], wakes=timeline.t[[0, -1]] + [-8.0, 10.0]
        )
        plain = accounting.replay(timeline, costs, config, plans)
        assert same(plain, accounting.replay(around, costs, config, plans))
        switched, config = with_switches(rng, timeline), replace(config, off_after_s=300.0)
        part = switched.take(np.arange(20))
        assert not len(part.offs) or part.offs[-1] < part.t[-1], "of what comes later it knows nothing"
        assert not len(part.wakes) or part.wakes[-1] <= part.t[-1]
        whole, cut = config.offs(switched), config.offs(part)
        assert np.array_equal(np.array(whole)[:, :20], np.array(cut))


def test_what_is_opened_after_a_recorded_off_is_no_repeat() -> None:
    opens = [Event(t, x) for t, x in ((0.0, "a"), (5.0, "a"), (60.0, "b"), (9000.0, "b"), (9005.0, "b"))]
    assert collapse(Timeline.from_events("x", opens)).t.tolist() == [0.0, 60.0]
    night = collapse(Timeline.from_events("x", opens, offs=[100.0], wakes=[8000.0]))
    assert night.t.tolist() == [0.0, 60.0, 9000.0]
    assert (night.offs.tolist(), night.wakes.tolist()) == ([100.0], [8000.0])
    late = collapse(Timeline.from_events("x", opens, offs=[9999.0]))
    assert late.offs.tolist() == [9999.0], "of all that is recorded"
    out = accounting.replay(night, COSTS, WorldConfig(budget_mb=9.0), Plans.empty(3))
    assert out.base_cold.tolist() == [1, 1, 1]
    # At the wake it may come next; right after the event, and after an assumed off, it may not.
    config = WorldConfig(off_after_s=30.0)
    assert build_slates(night).candidates[1, :3].tolist() == [0, -1, -1]
    assert sorted(build_slates(config.woken(night)).candidates[1, :3].tolist()) == [-1, 0, 1]
    assert build_slates(config.woken(night)).candidates[0, :2].tolist() == [-1, -1]


def test_two_timelines_with_other_offs_are_told_apart() -> None:
    told = [day(), day(offs=[70.0]), day(wakes=[70.0]), day(offs=[70.0], wakes=[80.0])]
    assert len({x.contents() for x in [*told, day(offs=[70.0, 80.0])]}) == 5
    assert Timeline.from_events("x", DAY, offs=[80.0, 70.0, 70.0]).offs.tolist() == [70.0, 80.0]
    with pytest.raises(ValueError, match="not a finite"):
        day(offs=[math.nan])


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60), targets=st.integers(1, 8))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_plan_exceeds_the_bound(seed: int, n: int, targets: int) -> None:
    """Plans that know the next opens, right after events and at wakes."""
    rng = np.random.default_rng(seed)
    timeline, costs, config, _ = random_case(rng, n, targets)
    timeline = with_switches(rng, timeline)
    if rng.random() < 0.5:
        config = replace(config, off_after_s=float(rng.choice([100.0, 2000.0])))
    start = int(rng.integers(0, n))
    stop = int(rng.integers(start + 1, n + 1))
    plans = Plans.empty(n, 4, 2)
    for k in range(4):
        later = np.minimum(np.arange(n) + 1 + rng.integers(0, 3, n), n - 1)
        plans.target[:, k] = np.where(rng.random(n) < 0.8, timeline.target[later], -1)
        delay = rng.integers(0, len(config.delays), n)
        plans.delay[:, k] = np.where(rng.random(n) < 0.5, at_wake(delay), delay)
    config = replace(config, max_picks=4)
    for names in (False, True):
        if names:
            plans.let_go[:] = rng.integers(-1, len(costs), (n, 2))
        bound = upper_bound(timeline, costs, config, start=start, stop=stop, let_go=names)
        out = accounting.replay(timeline, costs, config, plans, start=start, stop=stop)
        assert out.total("saved_s") <= bound + 1e-6


def test_what_can_be_loaded_at_a_recorded_wake_is_in_the_bound_and_what_cannot_is_not() -> None:
    config = WorldConfig(budget_mb=9.0)
    assert upper_bound(day(offs=[70.0], wakes=[8000.0]), COSTS, config, start=2) == pytest.approx(
        6.0, abs=1e-6
    )
    # Back only when it is opened: too late to load a; b is loaded beside it.
    assert upper_bound(day(offs=[70.0], wakes=[9000.0]), COSTS, config, start=2) == pytest.approx(
        3.0, abs=1e-6
    )


def test_the_exact_oracle_lies_below_the_bound() -> None:
    rng = np.random.default_rng(7)
    for _ in range(40):
        timeline = with_switches(rng, random_timeline(rng, int(rng.integers(2, 7)), 3, 20.0))
        m = len(timeline.names)
        costs = Costs(np.full(m, 30.0), rng.uniform(2, 4, m), np.ones(m), rng.uniform(1, 9, m))
        config = WorldConfig(60.0, max_picks=1, delays=(0.0, 7.0))
        truth, plans = exact(timeline, costs, config)
        assert world.replay(timeline, costs, config, plans).total("saved_s") == pytest.approx(truth, abs=1e-6)
        assert truth <= upper_bound(timeline, costs, config) + 1e-6


def test_effects_equal_two_replays() -> None:
    """On timelines short enough that nothing is cut off, an effect is the difference of two replays."""
    rng = np.random.default_rng(2)
    for _ in range(30):
        n = int(rng.integers(2, 30))
        timeline, costs, config, _ = random_case(rng, n, 6)
        timeline = with_switches(rng, timeline)
        config = replace(config, ttl_s=1e9)
        i, still = int(rng.integers(0, n - 1)), Plans.empty(n, 2)
        plans = replace(still, target=still.target.copy(), delay=still.delay.copy())
        plans.target[i] = rng.integers(0, len(costs), 2)
        plans.delay[i] = [0, at_wake(0)]
        one = Plans(plans.target[[i]][None], plans.delay[[i]][None])
        case = Case(timeline, costs, config, 1, n)
        found = plan_effects(case, np.array([i]), one, horizon_s=math.inf)[0, 0]
        totals = [accounting.replay(timeline, costs, config, x).table.sum(axis=0) for x in (plans, still)]
        assert found == pytest.approx(totals[0] - totals[1], abs=1e-4, rel=1e-9)


def test_the_environment_stops_at_a_recorded_wake() -> None:
    timeline = day(offs=[70.0], wakes=[8000.0])
    walk = MemoryEnv([timeline], episode="timeline", config={"budget_targets": 3.0})
    walk.reset(seed=0)
    still = np.zeros(8, np.int64)
    walk.step(still)
    observation, *_, info = walk.step(still)
    assert (info["wake"], info["event"]) == (True, 1)
    hour = np.arctan2(observation["moment"][0], observation["moment"][1]) * 12 / np.pi
    assert hour == pytest.approx(8000 / 3600, abs=1e-3)
    action = still.copy()
    action[0] = 1 + int(np.flatnonzero(walk._walk.listed == 0)[0])
    _, _, _, _, info = walk.step(action)
    assert (info["wake"], info["event"], info["outcome"][FIELDS.index("hit")]) == (False, 2, 1)

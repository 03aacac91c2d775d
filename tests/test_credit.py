"""The reward of an episode, parted among its plans: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import numpy as np
import pytest

from env.errors import InputError
from env.judge.accounting import replay
from env.judge.case import Case
from env.judge.cost import Costs, WorldConfig
from env.judge.credit import credits
from env.judge.plans import FIELDS, WASTED, Plans
from env.timeline import Event, Timeline
from tests.training_ground import small_ground


def opened(*rows: tuple[float, str]) -> list[Event]:
    return [Event(t, target, "app") for t, target in rows]


def random_plans(candidates: np.ndarray, rng: np.random.Generator) -> Plans:
    """Up to three of the first six candidates at random delays."""
    chosen = np.take_along_axis(candidates, rng.integers(0, 6, (len(candidates), 3)), axis=1)
    target = np.where(rng.random(chosen.shape) < 0.5, chosen, -1).astype(np.int32)
    return Plans(target, rng.integers(0, 4, target.shape).astype(np.int8))


@pytest.mark.parametrize(("budget", "first", "steps"), [(8.0, 5, 100), (2.0, 60, 100), (3.0, 150, 1)])
def test_credits_sum_to_the_accounting(budget: float, first: int, steps: int) -> None:
    ground, rng = small_ground(), np.random.default_rng(first)
    timeline, costs = ground.timelines[0], ground.costs[0]
    world = WorldConfig(budget_targets=budget)
    made = random_plans(ground.slates[0].candidates[first : first + steps], rng)
    found = credits(
        Case(timeline, costs, world, first + 1, len(timeline)),
        made,
        Plans(made.target[:, None], made.delay[:, None]),
    )[:, 0]
    whole = Plans.empty(len(timeline), 3)
    whole.target[first : first + steps], whole.delay[first : first + steps] = made.target, made.delay
    window = {"start": first + 1, "stop": len(timeline)}
    played = replay(timeline, costs, world, whole, **window)
    still = replay(timeline, costs, world, Plans.empty(len(timeline), 3), **window)
    np.testing.assert_allclose(found.sum(0), (played.table - still.table).sum(0), atol=1e-6)
    assert (played.outcome == WASTED).any() or steps == 1
    assert np.abs(found[:, FIELDS.index("saved_s")]).sum() > 0 or steps == 1


def test_what_comes_later_is_credited_to_its_cause() -> None:
    """A is opened, B prewarmed, C opened twenty minutes later, then B: the plan after A has the hit."""
    timeline = Timeline.from_events("u", opened((0.0, "a"), (1200.0, "c"), (1201.0, "b"), (1300.0, "a")))
    names = list(timeline.names)
    costs = Costs(*(np.full(3, x) for x in (100.0, 4.0, 1.0, 3.0)))
    target = np.full((3, 1), -1, np.int32)
    target[0, 0] = names.index("b")
    plans = Plans(target, np.zeros((3, 1), np.int8))
    found = credits(
        Case(timeline, costs, WorldConfig(budget_mb=1000.0), 1, 4), plans,
        Plans(target[:, None], plans.delay[:, None]),
    )[:, 0]  # fmt: skip
    assert found[:, FIELDS.index("hit")].tolist() == [1.0, 0.0, 0.0]
    assert found[:, FIELDS.index("saved_s")].tolist() == [3.0, 0.0, 0.0]
    assert found[0, FIELDS.index("held_mb_s")] == pytest.approx(100.0 * 1201.0)


def test_asking_twice_is_charged_to_the_second() -> None:
    timeline = Timeline.from_events("u", opened((0.0, "a"), (10.0, "c"), (20.0, "b")))
    b = list(timeline.names).index("b")
    costs = Costs(*(np.full(3, x) for x in (100.0, 4.0, 1.0, 3.0)))
    plans = Plans(np.full((2, 1), b, np.int32), np.zeros((2, 1), np.int8))
    found = credits(
        Case(timeline, costs, WorldConfig(budget_mb=1000.0), 1, 3), plans,
        Plans(plans.target[:, None], plans.delay[:, None]),
    )[:, 0]  # fmt: skip
    assert found[:, FIELDS.index("hit")].tolist() == [1.0, 0.0]
    assert found[:, FIELDS.index("redundant")].tolist() == [0.0, 1.0]


def test_alternatives_stand_in_the_world_that_the_plans_made() -> None:
    """An alternative at decision i knows the plans before i, and none after."""
    ground, rng = small_ground(), np.random.default_rng(3)
    timeline, costs = ground.timelines[1], ground.costs[1]
    first, steps, world = 40, 30, WorldConfig(budget_targets=3.0)
    made = random_plans(ground.slates[1].candidates[first : first + steps], rng)
    other = random_plans(ground.slates[1].candidates[first : first + steps], rng)
    found = credits(
        Case(timeline, costs, world, first + 1, len(timeline)), made,
        Plans(np.stack([made.target, other.target], 1), np.stack([made.delay, other.delay], 1)),
    )  # fmt: skip
    i = 17
    records = []
    for last in (Plans.empty(1, 3), Plans(other.target[i : i + 1], other.delay[i : i + 1])):
        whole = Plans.empty(len(timeline), 3)
        whole.target[first : first + i], whole.delay[first : first + i] = made.target[:i], made.delay[:i]
        whole.target[first + i], whole.delay[first + i] = last.target[0], last.delay[0]
        played = replay(timeline, costs, world, whole, start=first + 1, stop=len(timeline))
        records.append(played.table.sum(0))
    np.testing.assert_allclose(found[i, 1], records[1] - records[0], atol=1e-6)


def test_plans_that_do_not_fit_are_refused() -> None:
    ground = small_ground()
    plans, n = Plans.empty(10, 3), len(ground.timelines[0])
    with pytest.raises(InputError, match="do not fit"):
        credits(
            Case(ground.timelines[0], ground.costs[0], ground.world, n - 4, n), plans,
            Plans(plans.target[:, None], plans.delay[:, None]),
        )  # fmt: skip

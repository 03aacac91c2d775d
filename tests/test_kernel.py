"""The compiled judge equals the readable one bit for bit; and it refuses what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from judge_cases import random_case, random_costs, random_plans, random_timeline

from env.errors import InputError
from env.judge import accounting, effects
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.plans import NONE, Outcomes, Plans
from tests.reference import world


def same(a: Outcomes, b: Outcomes) -> bool:
    """Bit for bit."""
    return all(
        np.array_equal(getattr(a, name).view(np.uint8), getattr(b, name).view(np.uint8))
        for name in ("table", "outcome", "prewarm_mb_s", "lead_s")
    )


@pytest.mark.parametrize("seed", range(8))
def test_kernel_equals_reference_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        n = int(rng.integers(1, 70))
        timeline, costs, config, plans = random_case(rng, n, int(rng.integers(1, 10)))
        start = int(rng.integers(0, n + 1))
        stop = int(rng.integers(start, n + 1))
        assert same(
            world.replay(timeline, costs, config, plans, start=start, stop=stop),
            accounting.replay(timeline, costs, config, plans, start=start, stop=stop),
        )


def test_a_window_resolves_all_of_its_prewarms_and_no_other() -> None:
    rng = np.random.default_rng(5)
    timeline, costs, config, plans = random_case(rng, 40, 6)
    out = accounting.replay(timeline, costs, config, plans, start=10, stop=30)
    acting = np.zeros(plans.target.shape, bool)
    acting[9:29] = plans.target[9:29] >= 0
    assert np.array_equal(out.outcome != NONE, acting)


def test_an_empty_timeline_and_one_event() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1):
        timeline = random_timeline(rng, n, 3)
        costs = random_costs(rng, len(timeline.names))
        config = WorldConfig(budget_mb=100.0)
        a = world.replay(timeline, costs, config, Plans.empty(n))
        assert same(a, accounting.replay(timeline, costs, config, Plans.empty(n)))
        assert a.saved_s.sum() == 0


def test_plans_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(1)
    timeline, costs, config, plans = random_case(rng, 12, 4)
    for bad in (
        Plans(plans.target[:-1], plans.delay[:-1]),
        Plans(plans.target + 99, plans.delay),
        Plans(np.where(plans.target >= 0, plans.target, 0), plans.delay + 50),
        Plans(plans.target, plans.delay[:, :0]),
    ):
        with pytest.raises(InputError):
            accounting.replay(timeline, costs, config, bad)
    case = Case(timeline, costs, config, 1, len(timeline))
    with pytest.raises(InputError, match="indices"):
        effects.plan_effects(case, np.array([99]), Plans(plans.target[None, :1], plans.delay[None, :1]))


def test_plan_effects_equal_two_replays() -> None:
    """On timelines short enough that nothing is cut off, an effect is the difference of two replays."""
    rng = np.random.default_rng(2)
    for _ in range(60):
        n = int(rng.integers(2, 30))
        timeline, costs, config, base = random_case(rng, n, 6)
        config = WorldConfig(config.budget_mb, ttl_s=1e9, max_picks=config.max_picks, delays=config.delays)
        m = len(timeline.names)
        indices = rng.integers(0, n - 1, 5)
        alternatives = random_plans(rng, (5, 3, 2), m, 3, 0.7)
        found = effects.plan_effects(
            Case(timeline, costs, config, 1, len(timeline)), indices, alternatives, base
        )
        for d, i in enumerate(indices):
            for a in range(3):
                totals = []
                for target, delay in (
                    (alternatives.target[d, a], alternatives.delay[d, a]),
                    ([-1, -1], [0, 0]),
                ):
                    wide = Plans.empty(n, base.target.shape[1] + 2)
                    wide.target[:, : base.target.shape[1]] = base.target
                    wide.delay[:, : base.target.shape[1]] = base.delay
                    wide.target[i] = -1
                    wide.target[i, -2:], wide.delay[i, -2:] = target, delay
                    totals.append(accounting.replay(timeline, costs, config, wide).table.sum(axis=0))
                assert found[d, a] == pytest.approx(totals[0] - totals[1], abs=1e-4, rel=1e-9)


def test_effects_of_keeping_still_are_zero_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    timeline, costs, config, base = random_case(rng, 50, 6)
    indices = rng.permutation(49)[:20]
    plans = random_plans(rng, (20, 4, 2), len(timeline.names), 3, 0.5)
    plans.target[:, 0] = -1
    found = effects.plan_effects(Case(timeline, costs, config, 1, len(timeline)), indices, plans, base)
    assert not found[:, 0].any()
    order = np.argsort(indices)
    again = effects.plan_effects(
        Case(timeline, costs, config, 1, 50),
        indices[order],
        Plans(plans.target[order], plans.delay[order]),
        base,
    )
    assert np.array_equal(again, found[order])

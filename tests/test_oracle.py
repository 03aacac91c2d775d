"""The oracle: exact against enumeration, bounds that nothing exceeds, and the bracket on long timelines."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_cases import random_case, random_config, random_costs, random_plans, random_timeline
from numba import njit

from env.errors import InputError
from env.judge import accounting, state
from env.judge.cost import LET_GO_RULES, Costs, WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.oracle import bracket, feasible, upper_bound
from env.judge.plans import N_FIELDS, SAVED, Plans, at_wake
from env.timeline import Event, Timeline
from tests.reference import world
from tests.reference.oracle_exact import exact


@njit
def _enumerate(s, r, w, book, delay, names, picks, delays, table):  # type: ignore[no-untyped-def]
    """Replay every plan array there is, one after the other, from scratch; the most seconds saved."""
    n, n_targets = len(w.target), len(r.cost)
    slots = (n - 1) * picks
    base = n_targets * delays + 1
    digits = np.zeros(slots, np.int64)
    best = 0.0
    while True:
        for q in range(slots):
            book.target[q] = (digits[q] - 1) // delays if digits[q] > 0 else -1
            delay[q] = (digits[q] - 1) % delays if digits[q] > 0 else 0
        state.clear(s)
        table[:] = 0.0
        accounting._replay(s, r, w, book, delay, names, picks, 0, n, table)
        saved = table[:, SAVED].sum()
        best = max(best, saved)
        q = 0
        while q < slots:
            digits[q] += 1
            if digits[q] < base:
                break
            digits[q] = 0
            q += 1
        if q == slots:
            return best


def brute_force(timeline: Timeline, costs: Costs, config: WorldConfig) -> float:
    """The most that any plan saves, by trying them all."""
    n, picks = len(timeline), config.max_picks
    if n < 2:
        return 0.0
    book = state.Ledger(
        np.full(n * picks, -1, np.int32),
        np.zeros(n * picks, np.int8),
        np.zeros(n * picks),
        np.zeros(n * picks),
    )
    return float(
        _enumerate(
            state.new_state(len(costs), 2 * n * picks), state.rules(costs, config),
            accounting.course(timeline, config), book, np.zeros(n * picks, np.int8),
            np.full((n, 0), -1, np.int32), picks, len(config.delays), np.zeros((n, N_FIELDS)),
        )
    )  # fmt: skip


def small_case(rng: np.random.Generator) -> tuple[Timeline, Costs, WorldConfig]:
    """A timeline of 2 to 12 events that can be enumerated: longer ones have fewer targets and delays."""
    shapes = [
        (12, 2, 1, 1),
        (9, 3, 1, 1),
        (8, 2, 2, 1),
        (6, 4, 1, 1),
        (5, 3, 2, 1),
        (4, 2, 2, 2),
        (4, 3, 1, 2),
    ]
    n, targets, delays, picks = shapes[
        rng.choice(len(shapes), p=[0.008, 0.012, 0.02, 0.28, 0.28, 0.13, 0.27])
    ]
    length = n if rng.random() < 0.3 else int(rng.integers(2, n + 1))
    timeline = random_timeline(rng, length, targets, float(rng.choice([1.0, 3.0, 30.0])))
    m = len(timeline.names)
    config = random_config(rng, picks=picks, delays=delays)
    seconds = tuple(
        float(rng.choice([0.0, 0.0, 5.0])) if d == 0 else float(rng.integers(1, 20)) for d in range(delays)
    )
    budget = float(rng.choice([35.0, 60.0, 90.0, 120.0, 150.0]))
    return (
        timeline,
        random_costs(rng, m),
        WorldConfig(budget, ttl_s=config.ttl_s, max_picks=picks, delays=seconds),
    )


@pytest.mark.parametrize("seed", range(20))
def test_exact_equals_enumeration_and_lies_in_the_bracket(seed: int) -> None:
    """20 x 102 = 2,040 random cases of up to 12 events."""
    rng, longest = np.random.default_rng(seed), 0
    for _ in range(102):
        timeline, costs, config = small_case(rng)
        longest = max(longest, len(timeline))
        truth = brute_force(timeline, costs, config)
        value, plans = exact(timeline, costs, config)
        assert value == pytest.approx(truth, abs=1e-6)
        assert world.replay(timeline, costs, config, plans).total("saved_s") == pytest.approx(truth, abs=1e-6)
        found, out = feasible(timeline, costs, config)
        assert world.replay(timeline, costs, config, found).total("saved_s") == out.total("saved_s")
        assert out.total("saved_s") <= truth + 1e-6
        assert truth <= upper_bound(timeline, costs, config) + 1e-9
        assert truth <= upper_bound(timeline, costs, config, solve=False) + 1e-9
    assert longest >= 6


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 80), targets=st.integers(1, 10))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_policy_exceeds_the_bound(seed: int, n: int, targets: int) -> None:
    """Policies that know the future, at random: prewarm one of the next few, with some delay and noise; in
    half of the worlds they also let go, or a rule does, and machines are switched off and targets closed."""
    rng = np.random.default_rng(seed)
    timeline, costs, config, plans = random_case(rng, n, targets)
    named = np.full((n, 0), -1, np.int32)
    if rng.random() < 0.5:
        config = replace(
            config, let_go=str(rng.choice([r for r in LET_GO_RULES if r not in ("lru", "expected")])),
            off_after_s=float(rng.choice([100.0, 2000.0, math.inf])),
            close_after_s=float(rng.choice([100.0, 1000.0, math.inf])),
        )  # fmt: skip
        named = rng.integers(-1, len(costs), (n, 2)).astype(np.int32)
    start = int(rng.integers(0, n))
    stop = int(rng.integers(start + 1, n + 1))
    bound = upper_bound(timeline, costs, config, start=start, stop=stop)
    ahead = Plans.empty(n, config.max_picks)
    for k in range(config.max_picks):
        later = np.minimum(np.arange(n) + 1 + rng.integers(0, 4, n), n - 1)
        ahead.target[:, k] = np.where(rng.random(n) < 0.9, timeline.target[later], -1)
        ahead.delay[:, k] = rng.integers(0, len(config.delays), n) * (rng.random(n) < 0.5)
    clever, out = feasible(timeline, costs, config, start=start, stop=stop)
    noisy = random_plans(rng, clever.target.shape, len(costs), len(config.delays), 0.1)
    mixed = Plans(
        np.where(noisy.target >= 0, noisy.target, clever.target),
        np.where(noisy.target >= 0, noisy.delay, clever.delay),
    )
    codes = np.where(rng.random(ahead.delay.shape) < 0.7, at_wake(0), at_wake(len(config.delays) - 1))
    woken = Plans(
        np.concatenate([clever.target, ahead.target], axis=1),
        np.concatenate([clever.delay, codes], axis=1).astype(np.int8),
    )
    for tried in (plans, ahead, clever, mixed, woken):
        for says in (tried, replace(tried, let_go=named)):
            found = accounting.replay(timeline, costs, config, says, start=start, stop=stop)
            assert found.total("saved_s") <= bound + 1e-6
    still = accounting.replay(timeline, costs, config, Plans.empty(n), start=start, stop=stop)
    assert out.total("saved_s") >= still.total("saved_s")


def test_what_a_long_pause_puts_out_of_reach_is_not_in_the_bound() -> None:
    """The longest delay plus load plus ttl is shorter than the night: nobody has b warm at dawn."""
    events = [Event(0, "a"), Event(10, "b"), Event(20, "c"), Event(40000, "b")]
    timeline = Timeline.from_events("x", events)
    costs = Costs(*(np.full(3, v) for v in (100.0, 4.0, 1.0, 3.0)))  # type: ignore[arg-type]
    config = WorldConfig(budget_mb=100.0)
    assert upper_bound(timeline, costs, config) == pytest.approx(0.0, abs=1e-6)
    wide = WorldConfig(budget_mb=250.0)
    assert upper_bound(timeline, costs, wide) == pytest.approx(6.0, abs=1e-6)


def test_what_can_be_loaded_at_a_wake_is_in_the_bound() -> None:
    """After the night b is back in time for its open; two of them do not fit beside each other."""
    events = [Event(0, "a"), Event(10, "b"), Event(40000, "b"), Event(40001, "a")]
    timeline = Timeline.from_events("x", events)
    costs = Costs(*(np.full(2, v) for v in (100.0, 4.0, 1.0, 3.0)))  # type: ignore[arg-type]
    for budget, saved in ((250.0, 9.0), (150.0, 3.0)):
        config = WorldConfig(budget_mb=budget, off_after_s=7200.0)
        assert upper_bound(timeline, costs, config) == pytest.approx(saved, abs=1e-6)
        plans = Plans.empty(4, 2)
        plans.target[0, 0] = 1
        plans.target[1], plans.delay[1] = timeline.target[[3, 2]], at_wake(0)
        out = accounting.replay(timeline, costs, config, plans)
        assert out.total("saved_s") == saved


def test_memory_that_does_not_fit_is_not_in_the_bound() -> None:
    events = [Event(float(i), "abcd"[i % 4]) for i in range(40)]
    timeline = Timeline.from_events("x", events)
    costs = Costs(*(np.full(4, v) for v in (100.0, 14.0, 1.0, 13.0)))  # type: ignore[arg-type]
    tight = upper_bound(timeline, costs, WorldConfig(budget_mb=200.0))
    free = upper_bound(timeline, costs, WorldConfig(budget_mb=200.0), solve=False)
    assert tight < 0.5 * free


def test_small_inputs_and_refusals() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1):
        timeline = random_timeline(rng, n, 2)
        costs = random_costs(rng, len(timeline.names))
        config = WorldConfig(budget_mb=100.0)
        assert upper_bound(timeline, costs, config) == 0.0
        assert exact(timeline, costs, config)[0] == 0.0
        assert bracket(timeline, costs, config).gap == 0.0
    timeline = random_timeline(rng, 13, 2)
    with pytest.raises(InputError, match="12 events"):
        exact(timeline, random_costs(rng, len(timeline.names)), WorldConfig())
    with pytest.raises(InputError, match="window"):
        upper_bound(timeline, random_costs(rng, len(timeline.names)), WorldConfig(), start=3, stop=99)


@pytest.mark.slow
def test_ten_thousand_events_in_under_thirty_seconds() -> None:
    rng = np.random.default_rng(1)
    n = 10_000
    gap = np.where(rng.random(n) < 0.05, rng.exponential(20_000, n), rng.exponential(15, n))
    weights = 1 / np.arange(1, 301)
    target = rng.choice(300, n, p=weights / weights.sum())
    kinds = rng.choice(["app", "page", "file"], 300)
    timeline = Timeline.from_events(
        "long",
        [Event(float(t), f"t{x}", kinds[x]) for t, x in zip(1.7e9 + np.cumsum(gap), target, strict=True)],
    )
    costs = cost_model("desktop").arrays(timeline)
    for budget in (2.0, 8.0):
        began = time.process_time()
        both = bracket(timeline, costs, WorldConfig(budget_targets=budget))
        assert time.process_time() - began < 30.0
        assert 0 < both.feasible_s <= both.bound_s
        assert both.gap < 0.05


@pytest.mark.slow
def test_the_bracket_is_tight_on_the_demo() -> None:
    from env.sources import load_timelines

    for timeline in load_timelines("demo").timelines:
        costs = cost_model("desktop").arrays(timeline)
        for budget in (2.0, 8.0):
            both = bracket(timeline, costs, WorldConfig(budget_targets=budget))
            assert both.gap < 0.02
            assert both.outcomes.total("wasted") <= 0.02 * both.outcomes.total("planned")

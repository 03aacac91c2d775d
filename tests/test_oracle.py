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
from env.judge.case import Case
from env.judge.cost import LET_GO_RULES, Costs, WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.oracle import bracket, feasible
from env.judge.oracle_bound import upper_bound
from env.judge.plans import N_FIELDS, SAVED, Plans, at_wake
from env.ranking import Ranking
from env.timeline import Event, Timeline
from tests.reference import world
from tests.reference.example import let_go_example
from tests.reference.oracle_exact import exact


@njit
def _enumerate(s, r, w, book, delay, names, picks, delays, table):  # type: ignore[no-untyped-def]
    """Replay every plan array there is, one after the other, from scratch; the most seconds saved."""
    n, n_targets = len(w.target), len(r.cost)
    slots, named = (n - 1) * picks, names.size - names.shape[1]
    base = n_targets * delays + 1
    digits = np.zeros(slots + named, np.int64)
    best = 0.0
    while True:
        for q in range(slots):
            book.target[q] = (digits[q] - 1) // delays if digits[q] > 0 else -1
            delay[q] = (digits[q] - 1) % delays if digits[q] > 0 else 0
        for q in range(named):
            names[q // names.shape[1], q % names.shape[1]] = digits[slots + q] - 1
        state.clear(s)
        table[:] = 0.0
        accounting._replay(s, r, w, book, delay, names, picks, 0, n, table, np.zeros(N_FIELDS))
        saved = table[:, SAVED].sum()
        best = max(best, saved)
        q = 0
        while q < len(digits):
            digits[q] += 1
            if digits[q] < (base if q < slots else n_targets + 1):
                break
            digits[q] = 0
            q += 1
        if q == len(digits):
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
    rules = state.rules(costs, config)
    return float(
        _enumerate(
            state.new_state(len(costs), 2 * n * picks, rules.let_go, config.max_let_go), rules,
            accounting.course(timeline, config), book, np.zeros(n * picks, np.int8),
            np.full((n, config.max_let_go), -1, np.int32), picks, len(config.delays), np.zeros((n, N_FIELDS)),
        )
    )  # fmt: skip


# Events, targets, delays, picks (K) and names (R) of a case, and how often it comes.
ENUMERATED = {
    (12, 2, 1, 1, 0): 1, (8, 2, 2, 1, 0): 1, (6, 4, 1, 1, 0): 17, (5, 3, 2, 1, 0): 15, (4, 3, 1, 2, 0): 15,
    (4, 3, 1, 1, 1): 20, (5, 2, 1, 1, 1): 10, (4, 2, 2, 1, 1): 10, (3, 4, 1, 1, 2): 10, (5, 3, 1, 1, 1): 1,
}  # fmt: skip
SOLVED = {
    (12, 3, 1, 1, 1): 8, (12, 2, 2, 1, 1): 12, (12, 3, 1, 1, 0): 5, (8, 4, 1, 1, 1): 20,
    (8, 3, 1, 1, 2): 20, (7, 4, 1, 1, 2): 15, (7, 3, 2, 1, 1): 10, (7, 3, 1, 2, 1): 10,
}  # fmt: skip
PAST_AND_BELADY = [rule for rule in LET_GO_RULES if rule != "expected"]


def small_case(
    rng: np.random.Generator, shapes: dict[tuple[int, int, int, int, int], int]
) -> tuple[Timeline, Costs, WorldConfig]:
    """A timeline of 2 to 12 events with its world: half of the time all sizes are equal, a third of the time
    machines are switched off and targets closed, and a fifth of the time another rule than lru lets go."""
    weights = np.array(list(shapes.values())) / sum(shapes.values())
    n, targets, delays, picks, names = list(shapes)[rng.choice(len(shapes), p=weights)]
    length = n if rng.random() < 0.5 else int(rng.integers(2, n + 1))
    timeline = random_timeline(rng, length, targets, float(rng.choice([1.0, 3.0, 30.0])))
    config = random_config(rng, picks=picks, delays=delays)
    seconds = tuple(
        float(rng.choice([0.0, 0.0, 5.0])) if d == 0 else float(rng.integers(1, 20)) for d in range(delays)
    )
    costs, budget = random_costs(rng, len(timeline.names)), float(rng.choice([35.0, 60.0, 90.0, 120.0]))
    if rng.random() < 0.5:
        costs = replace(costs, memory_mb=np.full(len(costs), 30.0))
    config = WorldConfig(budget, ttl_s=config.ttl_s, max_picks=picks, delays=seconds, max_let_go=names)
    if rng.random() < 0.33:
        pauses = [5.0, 20.0, 60.0, math.inf]
        config = replace(
            config, off_after_s=float(rng.choice(pauses)), close_after_s=float(rng.choice(pauses))
        )
    if length < 8 and rng.random() < 0.2:
        config = replace(config, let_go=str(rng.choice(PAST_AND_BELADY)))
    return timeline, costs, config


@pytest.mark.parametrize("seed", range(3))
def test_exact_equals_enumeration(seed: int) -> None:
    """3 x 60 = 180 random cases of up to 12 events."""
    rng = np.random.default_rng(seed)
    for _ in range(60):
        timeline, costs, config = small_case(rng, ENUMERATED)
        value, _ = exact(timeline, costs, config, let_go=True)
        assert value == pytest.approx(brute_force(timeline, costs, config), abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_exact_lies_in_the_bracket(seed: int) -> None:
    """20 x 102 = 2,040 random cases of up to 12 events. Where both sides meet, they are the truth."""
    rng, longest, found_it, met = np.random.default_rng(seed), 0, 0, 0
    for _ in range(102):
        timeline, costs, config = small_case(rng, SOLVED)
        longest = max(longest, len(timeline))
        truth, plans = exact(timeline, costs, config, let_go=True)
        said = world.replay(timeline, costs, config, plans).total("saved_s")
        assert said == pytest.approx(truth, abs=1e-6)
        both = bracket(timeline, costs, config, let_go=True)
        assert both.plans.let_go.shape == (len(timeline), config.max_let_go)
        again = world.replay(timeline, costs, config, both.plans).total("saved_s")
        assert again == both.feasible_s <= truth + 1e-6
        assert truth <= both.bound_s + 1e-9
        found_it += both.feasible_s >= truth - 1e-6
        met += both.gap < 1e-6
    assert longest == 12
    assert found_it >= 0.93 * 102
    assert met >= 0.6 * 102  # 65 of the hardest group, 66 of another


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 80), targets=st.integers(1, 10))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_policy_exceeds_the_bound(seed: int, n: int, targets: int) -> None:
    """Policies that know the future, at random: prewarm one of the next few, with some delay and noise, or
    whatever is ranked above a threshold; name who leaves at random, or as the clairvoyant does. Half of the
    worlds have another let-go rule, are switched off, and close."""
    rng = np.random.default_rng(seed)
    timeline, costs, config, plans = random_case(rng, n, targets)
    if rng.random() < 0.5:
        config = replace(
            config, let_go=str(rng.choice(PAST_AND_BELADY)),
            off_after_s=float(rng.choice([100.0, 2000.0, math.inf])),
            close_after_s=float(rng.choice([100.0, 1000.0, math.inf])),
        )  # fmt: skip
    start = int(rng.integers(1, n))
    case = Case(timeline, costs, config, start, int(rng.integers(start + 1, n + 1)))
    window = {"start": start, "stop": case.stop}
    ahead = Plans.empty(n, config.max_picks)
    for k in range(config.max_picks):
        later = np.minimum(np.arange(n) + 1 + rng.integers(0, 4, n), n - 1)
        ahead.target[:, k] = np.where(rng.random(n) < 0.9, timeline.target[later], -1)
        ahead.delay[:, k] = rng.integers(0, len(config.delays), n) * (rng.random(n) < 0.5)
    clever, out = feasible(timeline, costs, config, **window)
    free, wide = feasible(timeline, costs, config, **window, let_go=True)
    noisy = random_plans(rng, clever.target.shape, len(costs), len(config.delays), 0.1)
    mixed = Plans(
        np.where(noisy.target >= 0, noisy.target, clever.target),
        np.where(noisy.target >= 0, noisy.delay, clever.delay),
    )
    bound = upper_bound(timeline, costs, config, **window)
    bound_naming = upper_bound(timeline, costs, config, **window, let_go=True)
    assert bound <= bound_naming + 1e-6
    named = rng.integers(-1, len(costs), (n, 2)).astype(np.int32)
    codes = np.where(rng.random(ahead.delay.shape) < 0.7, at_wake(0), at_wake(len(config.delays) - 1))
    woken = Plans(
        np.concatenate([clever.target, ahead.target], axis=1),
        np.concatenate([clever.delay, codes], axis=1).astype(np.int8),
    )
    for tried in (plans, ahead, clever, mixed, woken, replace(free, let_go=Plans.empty(n).let_go)):
        found = accounting.replay(timeline, costs, config, tried, **window)
        assert found.total("saved_s") <= bound + 1e-6
        for names in (named, free.let_go, np.where(rng.random((n, 2)) < 0.2, named, free.let_go)):
            found = accounting.replay(timeline, costs, config, replace(tried, let_go=names), **window)
            assert found.total("saved_s") <= bound_naming + 1e-6
    ranked = ahead.target[case.indices]
    chance = rng.random(ranked.shape).astype(np.float32)
    ranking = Ranking(ranked, chance, np.zeros(len(ranked), np.float32))
    for threshold in (0.0, 0.5):
        assert case.replay_ranked(ranking, threshold)[0].total("saved_s") <= bound + 1e-6
    still = accounting.replay(timeline, costs, config, Plans.empty(n), **window)
    assert still.total("saved_s") <= out.total("saved_s") <= wide.total("saved_s") <= bound_naming + 1e-6


def test_a_name_saves_what_no_load_can() -> None:
    """The example of docs/accounting.md: the clairvoyant lets the editor go, as there, and nobody else."""
    timeline, costs, config, plans = let_go_example()
    config = replace(config, max_picks=1, delays=(1800.0,))
    both = bracket(timeline, costs, config, let_go=True)
    assert both.feasible_s == pytest.approx(3.0)
    assert both.bound_s == pytest.approx(3.0)
    assert bracket(timeline, costs, config).bound_s == pytest.approx(0.0, abs=1e-6)
    assert both.plans.count() == 0
    assert both.plans.let_go[1].tolist() == [int(plans.let_go[1, 0]), -1]
    assert (both.plans.let_go[[0, 4]] == -1).all()
    assert exact(timeline, costs, config, let_go=True)[0] == pytest.approx(3.0)


def test_what_was_not_there_when_a_window_begins_was_not_kept_from_before() -> None:
    """Room for two: a is gone when the window begins, and its open comes too soon after to load it."""
    events = [Event(0, "a"), Event(100, "b"), Event(200, "c"), Event(201, "a")]
    timeline = Timeline.from_events("x", events)
    costs = Costs(*(np.full(3, v) for v in (100.0, 4.0, 1.0, 300.0)))  # type: ignore[arg-type]
    config = WorldConfig(budget_mb=200.0, max_picks=1, delays=(0.0,))
    assert upper_bound(timeline, costs, config, let_go=True) == pytest.approx(3.0)
    assert upper_bound(timeline, costs, config, start=3, let_go=True) == pytest.approx(0.0, abs=1e-6)


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


def test_ten_thousand_events_in_under_a_minute() -> None:
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
    began = time.process_time()
    both = bracket(timeline, costs, WorldConfig(budget_targets=8.0), let_go=True)
    assert time.process_time() - began < 60.0
    assert 0 < both.feasible_s <= both.bound_s
    assert both.gap < 0.05


@pytest.mark.parametrize("let_go", [False, True])
def test_the_bracket_is_tight_on_the_demo(let_go: bool) -> None:
    from env.sources import load_timelines

    for timeline in load_timelines("demo").timelines[:3]:
        costs = cost_model("desktop").arrays(timeline)
        for budget in (2.0, 8.0):
            world = WorldConfig(budget_targets=budget)
            both = bracket(timeline, costs, world, start=int(0.8 * len(timeline)), let_go=let_go)
            assert both.gap < (0.04 if let_go else 0.03)  # the widest of a person: .038
            assert both.outcomes.total("wasted") <= 0.02 * both.outcomes.total("planned")

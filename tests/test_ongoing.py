"""A world that goes on is the judge's own: event by event what a replay of the whole says, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judge_cases import random_config, random_costs, random_plans, random_timeline

from env.errors import InputError
from env.judge import ongoing
from env.judge.case import Case
from env.judge.cost import PAST_RULES, Cost, Costs, WorldConfig
from env.judge.ongoing import Ongoing
from env.judge.plans import NONE, Plans, at_wake
from env.ranking import Ranking
from env.timeline import Timeline


def costs_one_by_one(costs: Costs) -> list[Cost]:
    columns = (costs.memory_mb, costs.cold_s, costs.warm_s, costs.load_s)
    return [Cost(*map(float, row)) for row in zip(*columns, strict=True)]


def random_rules(rng: np.random.Generator) -> WorldConfig:
    return replace(
        random_config(rng), let_go=str(rng.choice(PAST_RULES)), max_let_go=int(rng.integers(0, 3)),
        off_after_s=float(rng.choice([100.0, np.inf])), close_after_s=float(rng.choice([200.0, np.inf])),
    )  # fmt: skip


def with_offs(rng: np.random.Generator, timeline: Timeline) -> Timeline:
    """The timeline with some offs and wakes that it records, or none."""
    if rng.random() < 0.5:
        return timeline
    some = rng.random(len(timeline)) < 0.2
    return replace(timeline, offs=timeline.t[some] + 1.0, wakes=timeline.t[some] + 2.0)


def ranking_of(rng: np.random.Generator, n: int, targets: int, depth: int = 5) -> Ranking:
    listed = np.stack([rng.permutation(max(targets, depth))[:depth] for _ in range(n)])
    p = -np.sort(-rng.random((n, depth)), axis=1)
    return Ranking(
        np.where(listed < targets, listed, -1).astype(np.int32), p.astype(np.float32), np.zeros(n, np.float32)
    )


def known_so_far(timeline: Timeline, ranking: Ranking) -> Ranking:
    """Of decision i only targets that were seen until event i: a live recording has no others."""
    seen = np.maximum.accumulate(timeline.target)[: len(ranking)]
    return replace(ranking, targets=np.where(ranking.targets <= seen[:, None], ranking.targets, -1))


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that everything has to grow on the way."""
    monkeypatch.setattr(ongoing, "ROOM", 2)


@pytest.mark.parametrize("seed", range(4))
def test_plans_come_to_what_a_replay_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(15):
        n = int(rng.integers(2, 60))
        timeline = with_offs(rng, random_timeline(rng, n, int(rng.integers(1, 9))))
        config = random_rules(rng)
        off = WorldConfig().offs(timeline)[0]  # as recorded
        costs, m = random_costs(rng, len(timeline.names)), len(timeline.names)
        plans = random_plans(rng, (n, config.max_picks), m, len(config.delays), 0.5)
        listed = known_so_far(timeline, Ranking(plans.target, plans.target, plans.target[:, 0])).targets
        plans = Plans(
            listed, plans.delay,
            rng.integers(-1, m, (n, config.max_let_go)).astype(np.int32),
        )  # fmt: skip
        plans.let_go[plans.let_go > np.maximum.accumulate(timeline.target)[:, None]] = -1
        whole = Case(timeline, costs, config, 1, n).replay(
            Plans(plans.target[: n - 1], plans.delay[: n - 1], plans.let_go[: n - 1])
        )
        world, price = Ongoing(config, names=True), costs_one_by_one(costs)
        if rng.random() < 0.5:  # half of it is there already
            half = int(rng.integers(1, n))
            world.restore(
                [
                    (float(timeline.t[j]), int(timeline.target[j]), price[timeline.target[j]], float(off[j]))
                    for j in range(half)
                ],
                [(plans.target[j], plans.delay[j], plans.let_go[j]) for j in range(half)],
            )
        else:
            half = 0
        found = np.zeros(plans.target.shape, np.int8)
        for j in range(half, n):
            x = int(timeline.target[j])
            record = world.open(float(timeline.t[j]), x, price[x], float(off[j]))
            if 0 < j < n - 1:  # the end of a replay wastes what is still unused; nothing ends here
                np.testing.assert_array_equal(record, whole.table[j])
            for i, k, outcome, _, lead in world.resolved():
                assert (found[i, k], outcome) == (NONE, outcome)
                found[i, k] = outcome
                np.testing.assert_array_equal(lead, whole.lead_s[i, k])
            if j < n - 1:
                world.plan(plans.target[j], plans.delay[j], plans.let_go[j])
        known = found != NONE
        np.testing.assert_array_equal(found[known], whole.outcome[known])
        np.testing.assert_array_equal(world.records()[1 : n - 1], whole.table[1 : n - 1])


@pytest.mark.parametrize("seed", range(4))
def test_what_is_loaded_at_a_wake_comes_to_what_a_replay_says(seed: int) -> None:
    rng, loaded = np.random.default_rng(50 + seed), 0
    for _ in range(15):
        n = int(rng.integers(3, 60))
        timeline = with_offs(rng, random_timeline(rng, n, int(rng.integers(1, 9))))
        config = random_rules(rng)
        off, wake = WorldConfig().offs(timeline)[0], config.offs(timeline)[1]
        costs, m, picks = random_costs(rng, len(timeline.names)), len(timeline.names), config.max_picks
        drawn = random_plans(rng, (n, 2 * picks), m, len(config.delays), 0.5)
        listed = known_so_far(timeline, Ranking(drawn.target, drawn.target, drawn.target[:, 0])).targets
        delay = drawn.delay.copy()
        delay[:, picks:] = at_wake(0)
        back = np.append(np.isfinite(wake[1:]), False)
        listed[~back, picks:] = -1
        whole = Case(timeline, costs, config, 1, n).replay(Plans(listed[: n - 1], delay[: n - 1]))
        price = costs_one_by_one(costs)
        opens = [
            (float(timeline.t[j]), int(timeline.target[j]), price[timeline.target[j]], float(off[j]))
            for j in range(n)
        ]
        first = int(rng.integers(0, n)) if rng.random() < 0.5 else 0
        world, found = Ongoing(config, wakes=True), np.zeros(listed.shape, np.int8)
        at = {j: (float(wake[j + 1]), listed[j, picks:].tolist()) for j in np.flatnonzero(back[:first])}
        plans = [(listed[j, :picks].tolist(), delay[j, :picks].tolist(), []) for j in range(first)]
        world.restore(opens[:first], plans, at)
        for j in range(n):
            if j >= first:
                record = world.open(*opens[j])
                if 0 < j < n - 1:
                    np.testing.assert_array_equal(record, whole.table[j])
            for i, k, outcome, _, lead in world.resolved():
                found[i, k] = outcome
                np.testing.assert_array_equal(lead, whole.lead_s[i, k])
            if first <= j < n - 1:
                world.plan(listed[j, :picks], delay[j, :picks])
                if back[j]:
                    world.wake(float(wake[j + 1]), listed[j, picks:].tolist())
                    with pytest.raises(ValueError, match="nothing to decide at a wake"):
                        world.wake(float(wake[j + 1]), [])
        loaded += int((found[:, picks:] != NONE).sum())
        known = found != NONE
        np.testing.assert_array_equal(found[known], whole.outcome[known])
        np.testing.assert_array_equal(world.records()[1 : n - 1], whole.table[1 : n - 1])
    assert loaded > 20


@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_plans_as_over_a_whole_case(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    planned = 0
    for _ in range(15):
        n, targets = int(rng.integers(2, 60)), int(rng.integers(2, 9))
        timeline, config = random_timeline(rng, n, targets), random_rules(rng)
        costs, m = random_costs(rng, len(timeline.names)), len(timeline.names)
        ranking = known_so_far(timeline, ranking_of(rng, n - 1, m))
        theta, names = float(rng.random()), bool(rng.random() < 0.7)
        soon = known_so_far(timeline, ranking_of(rng, n - 1, m))
        case = Case(timeline, costs, config, 1, n).told(soon.targets, soon.probability.astype(np.float64))
        _, expected = case.replay_ranked(ranking, theta, names)
        world, price = Ongoing(config, names=names), costs_one_by_one(costs)
        for j in range(n - 1):
            x = int(timeline.target[j])
            world.open(float(timeline.t[j]), x, price[x])
            warm, free = world.memory(ranking.targets[j])
            told = (soon.targets[j : j + 1], soon.probability[j : j + 1].astype(np.float64))
            if names:
                np.testing.assert_array_equal(world.name(told), expected.let_go[j])
            target, let_go = world.by_threshold(ranking[j : j + 1], theta, told if names else None)
            np.testing.assert_array_equal(target, expected.target[j])
            np.testing.assert_array_equal(let_go, expected.let_go[j])
            cold = ranking.targets[j][(warm == 0) & (ranking.targets[j] >= 0)]
            assert target[0] < 0 or target[0] in cold  # (a later one may have been put out by it)
            assert 0.0 <= free <= 1.0
            planned += int((target >= 0).sum())
    assert planned > 50


def test_what_does_not_follow_is_refused() -> None:
    with pytest.raises(InputError, match="MB"):
        Ongoing(WorldConfig())
    with pytest.raises(InputError, match="belady"):
        Ongoing(WorldConfig(budget_mb=100.0, let_go="belady"))
    world, cost = Ongoing(WorldConfig(budget_mb=100.0)), Cost(10.0, 2.0, 1.0)
    world.open(10.0, 0, cost)
    with pytest.raises(ValueError, match="before the one"):
        world.open(9.0, 0, cost)
    with pytest.raises(ValueError, match="opens target 2"):
        world.open(11.0, 2, cost)
    world.plan([0], [0])
    with pytest.raises(ValueError, match="decision 1"):
        world.plan([0], [0])

"""Random small worlds for the tests of the judge: timelines, costs, rules and plans, from a generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from env.judge.cost import Costs, WorldConfig
from env.judge.plans import Plans
from env.timeline import Event, Timeline


def random_timeline(rng: np.random.Generator, n: int, targets: int, gap: float = 60.0) -> Timeline:
    """n opens of up to `targets` targets; half of the time whole seconds, so that times coincide."""
    t = 1.5e9 + np.cumsum(rng.exponential(gap, n))
    if rng.random() < 0.5:
        t = np.floor(t)
    return Timeline.from_events(
        "random", [Event(float(a), f"target{b}") for a, b in zip(t, rng.integers(0, targets, n), strict=True)]
    )


def random_costs(rng: np.random.Generator, n: int) -> Costs:
    """Costs of n targets, sizes from tiny to larger than the budget, some that gain nothing by a prewarm."""
    warm = rng.uniform(0, 1, n)
    cold = warm + rng.uniform(0, 4, n) * (rng.random(n) < 0.9)
    load = (cold - warm) * rng.choice([0.3, 1.0, 1.0, 2.0], n)
    memory = rng.integers(1, 12, n) * 10.0 + rng.choice([0.0, 0.37])
    return Costs(memory, cold, warm, load + rng.choice([0.0, 20.0], n, p=[0.9, 0.1]))


def random_config(rng: np.random.Generator, picks: int | None = None, delays: int = 3) -> WorldConfig:
    """Rules with budgets from one small target to everything, and short and long lives."""
    seconds = (0.0, float(rng.integers(1, 50)), 300.0, 1800.0)[:delays]
    return WorldConfig(
        budget_mb=float(rng.choice([35.0, 60.0, 120.0, 240.0, 2000.0])),
        ttl_s=float(rng.choice([1.0, 60.0, 1800.0])),
        max_picks=int(rng.integers(1, 4)) if picks is None else picks,
        delays=seconds,
    )


def random_plans(
    rng: np.random.Generator, shape: tuple[int, ...], targets: int, delays: int, rate: float
) -> Plans:
    """Plans of that shape in which a pick is made with probability `rate`."""
    target = np.where(rng.random(shape) < rate, rng.integers(0, max(targets, 1), shape), -1)
    return Plans(target.astype(np.int32), rng.integers(0, delays, shape).astype(np.int8))


def random_case(rng: np.random.Generator, n: int, targets: int) -> tuple[Timeline, Costs, WorldConfig, Plans]:
    """A timeline with costs, rules and plans for it."""
    timeline = random_timeline(rng, n, targets, gap=float(rng.choice([1.0, 30.0, 600.0])))
    config = random_config(rng)
    m = len(timeline.names)
    plans = random_plans(
        rng, (n, config.max_picks), m, len(config.delays), float(rng.choice([0.1, 0.5, 1.0]))
    )
    return timeline, random_costs(rng, m), config, plans


def with_switches(rng: np.random.Generator, timeline: Timeline) -> Timeline:
    """Offs and wakes at random, some at the time of an event, some before the first and after the last."""
    n = len(timeline)
    first, last = (float(timeline.t[0]), float(timeline.t[-1])) if n else (0.0, 0.0)
    told = []
    for _ in range(2):
        at = rng.uniform(first - 50.0, last + 50.0, int(rng.integers(0, 2 + n // 2)))
        told.append(np.unique(np.where(rng.random(len(at)) < 0.3, rng.choice(timeline.t, len(at)), at)))
    return replace(timeline, offs=told[0], wakes=told[1])

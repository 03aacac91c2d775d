"""The oracle's exact value for a handful of events: dynamic programming over the states of the world.

Two plans that leave the same memory, the same loads under way and the same starts scheduled have the same
future, so states are compared and each is solved once. A state's search ends early when it reaches what
could at most be saved by having everything warm from here on. Exponential all the same: up to about 12
events, 4 targets, 2 delays. `tests/test_oracle.py` checks it against plain enumeration.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from env.errors import InputError
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import BASE_WAIT, SAVED, Plans
from env.timeline import Timeline
from tests.reference.world import START, World

MAX_EVENTS = 12

Pick = tuple[int, int]


def exact(timeline: Timeline, costs: Costs, config: WorldConfig) -> tuple[float, Plans]:
    """The most seconds that any plan saves over the whole (small) timeline, and a plan that does.

    Raises InputError for more than MAX_EVENTS events.
    """
    n = len(timeline)
    if n > MAX_EVENTS:
        raise InputError(f"exact() takes up to {MAX_EVENTS} events, not {n}; use env.judge.oracle.bracket")
    plans = Plans.empty(n, config.max_picks)
    if n < 2:
        return 0.0, plans
    warm = costs.warm_s[timeline.target]
    world = World(costs, config)
    base_wait = np.array(
        [world.open(int(x), float(t))[BASE_WAIT] for x, t in zip(timeline.target, timeline.t, strict=True)]
    )
    # No more can be saved at an open than its no-prewarm wait less its warm wait.
    at_most = base_wait - warm
    rest = np.concatenate([np.cumsum(at_most[::-1])[::-1], [0.0]])
    memo: dict[tuple[object, ...], tuple[float, tuple[Pick, ...]]] = {}

    def solve(world: World, i: int) -> float:
        """Most saved at opens i + 1, ..., standing after event i."""
        if i == n - 1:
            return 0.0
        key = (i, _key(world))
        if key in memo:
            return memo[key][0]
        best, choice = -np.inf, tuple[Pick, ...]()
        children: set[tuple[object, ...]] = set()
        for picks in _plans(len(costs), config):
            child = world.fork()
            child.plan(picks)
            state = _key(child)
            if state in children:
                continue
            children.add(state)
            record = child.open(int(timeline.target[i + 1]), float(timeline.t[i + 1]))
            value = float(record[SAVED]) + solve(child, i + 1)
            if value > best:
                best, choice = value, picks
            if best >= rest[i + 1] - 1e-12:
                break
        memo[key] = (best, choice)
        return best

    root = World(costs, config)
    root.open(int(timeline.target[0]), float(timeline.t[0]))
    value = solve(root.fork(), 0)
    for i in range(n - 1):
        _, picks = memo[(i, _key(root))]
        for k, (x, d) in enumerate(picks):
            plans.target[i, k], plans.delay[i, k] = x, d
        root.plan(picks)
        root.open(int(timeline.target[i + 1]), float(timeline.t[i + 1]))
    return value, plans


def _plans(n_targets: int, config: WorldConfig) -> Iterator[tuple[Pick, ...]]:
    """All plans of up to K picks, in every order, keeping still first."""
    single = list(itertools.product(range(n_targets), range(len(config.delays))))
    for k in range(config.max_picks + 1):
        yield from itertools.product(single, repeat=k)


def _key(world: World) -> tuple[object, ...]:
    """What the future depends on: residents in order, loads under way, expiries, scheduled starts."""
    now = world.settled
    residents = tuple(
        (x, here.ready if here.ready > now or here.prewarm >= 0 else 0.0, here.prewarm >= 0)
        for x, here in world.resident.items()
    )
    # Ties among starts, and among expiries, go by number; expiries at one time commute.
    starts = tuple((t, x) for t, kind, _, x in sorted(world.due) if kind == START)
    return residents, starts

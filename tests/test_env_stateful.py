"""Hypothesis tries to break the judge: opens, plans, forks and restores in any order.

Invariants: memory is never over budget; every prewarm has exactly one outcome in the end, and counts say the
same; saved seconds are the difference of two worlds, the other one run apart; fork and restore are exact; a
whole trajectory repeats bit for bit, and equals the compiled one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from judge_cases import random_costs
from test_env import people

from env.gym.memory import MemoryEnv
from env.gym.prewarm import PrewarmEnv
from env.judge import accounting
from env.judge.cost import LET_GO_RULES, Costs, WorldConfig
from env.judge.plans import FIELDS, HIT, LATE, NONE, REDUNDANT, WASTED, Plans
from env.judge.state import HELD_MB, USED
from env.timeline import Event, Timeline
from tests.reference.world import World

TARGETS = 5
PICKS, LET_GO = 3, 2
GAPS = st.one_of(st.just(0.0), st.integers(0, 40).map(float), st.floats(0.0, 4000.0))
PICK = st.tuples(st.integers(0, TARGETS - 1), st.integers(-3, 2))  # below 0: at the wake
SWITCHED = st.tuples(st.booleans(), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))  # off, where in the gap


class WorldMachine(RuleBasedStateMachine):
    """Drives one readable world and keeps a diary of what was done to it."""

    @initialize(
        seed=st.integers(0, 2**16),
        budget=st.sampled_from([15.0, 60.0, 120.0, 200.0, 1000.0]),
        ttl=st.sampled_from([1.0, 30.0, 1800.0]),
        delay=st.sampled_from([1.0, 7.5, 30.0]),
        let_go=st.sampled_from([x for x in LET_GO_RULES if x not in ("expected", "belady")]),
        off=st.sampled_from([math.inf, 1000.0]),
        close=st.sampled_from([math.inf, 50.0]),
    )
    def begin(
        self, seed: int, budget: float, ttl: float, delay: float, let_go: str, off: float, close: float
    ) -> None:
        self.costs = random_costs(np.random.default_rng(seed), TARGETS)
        self.config = WorldConfig(
            budget, ttl_s=ttl, max_picks=PICKS, delays=(0.0, delay, 300.0), let_go=let_go, off_after_s=off,
            close_after_s=close,
        )  # fmt: skip
        self.world = World(self.costs, self.config)
        self.now = 1.6e9
        self.diary: list[tuple[float, int, list[tuple[int, int]], list[int]]] = []
        self.switched: list[tuple[list[float], list[float]]] = []
        self.records: list[bytes] = []
        self.saved: tuple[World, int, float] | None = None

    @rule(
        x=st.integers(0, TARGETS - 1), gap=GAPS, picks=st.lists(PICK, max_size=PICKS),
        let_go=st.lists(st.integers(0, TARGETS - 1), max_size=LET_GO), told=st.lists(SWITCHED, max_size=2),
    )  # fmt: skip
    def open_and_plan(
        self, x: int, gap: float, picks: list[tuple[int, int]], let_go: list[int],
        told: list[tuple[bool, float]],
    ) -> None:  # fmt: skip
        before, self.now = self.now, self.now + gap
        at = [(off, before + share * gap) for off, share in told]
        offs = sorted(t for off, t in at if off and t < self.now)
        wakes = sorted(t for off, t in at if not off and t > before)
        record = self.world.open(x, self.now, offs, wakes)
        self.records.append(record.tobytes())
        self.world.plan(picks, let_go)
        self.diary.append((self.now, x, picks, let_go))
        self.switched.append((offs, wakes))
        values = dict(zip(FIELDS, record.tolist(), strict=True))
        assert values["saved_s"] == values["base_wait_s"] - values["wait_s"]
        assert values["hit"] + values["late"] <= 1
        assert not (values["pollution"] and (values["hit"] or values["late"]))
        assert (values["saved_s"] <= 0) or values["hit"] or values["late"] or values["kept"]
        assert not (values["kept"] and (values["hit"] or values["late"] or values["cold"]))
        assert values["held_mb_s"] >= 0
        assert x in self.world.resident

    @rule()
    def fork(self) -> None:
        self.saved = (self.world.fork(), len(self.diary), self.now)

    @rule()
    def restore(self) -> None:
        if self.saved is not None:
            world, length, self.now = self.saved
            self.world.restore(world)
            del self.diary[length:]
            del self.switched[length:]
            del self.records[length:]

    @rule()
    def wander_on_a_fork(self) -> None:
        """What is done to a copy does not show here."""
        copy = self.world.fork()
        copy.plan([(x, 0) for x in range(TARGETS)], list(range(TARGETS)))
        copy.open(0, self.now + 50.0)
        copy.finish()

    @invariant()
    def memory_is_within_the_budget(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        assert world.used == sum(world.memory[x] for x in world.resident) <= world.budget
        assert world.base_used == sum(world.memory[x] for x in world.base) <= world.budget
        assert world.held == sum(world.memory[x] for x, r in world.resident.items() if r.prewarm >= 0)

    def teardown(self) -> None:
        if not hasattr(self, "world") or not self.diary:
            return
        last = self.world.finish()
        outcomes = np.array(self.world.outcome)
        # What was planned for a wake that did not come never happened.
        buckets = np.array([d for _, _, picks, _ in self.diary for _, d in picks])
        assert np.isin(outcomes[buckets >= 0], [HIT, LATE, REDUNDANT, WASTED]).all()
        if math.isinf(self.config.off_after_s) and not any(a or b for a, b in self.switched[1:]):
            assert not outcomes[buckets < 0].any()
        total = dict(
            zip(
                FIELDS,
                (np.sum([np.frombuffer(r) for r in self.records], axis=0) + last).tolist(),
                strict=True,
            )
        )
        for name, code in (("hit", HIT), ("late", LATE), ("redundant", REDUNDANT), ("wasted", WASTED)):
            assert total[name] == (outcomes == code).sum()
        # The plan after the last open belongs to the next one, which never came.
        assert total["planned"] == (outcomes != NONE).sum()

        again, still = World(self.costs, self.config), World(self.costs, replace(self.config, let_go="lru"))
        for j, (t, target, picks, let_go) in enumerate(self.diary):
            record = again.open(target, t, *self.switched[j])
            assert record.tobytes() == self.records[j]
            alone = still.open(target, t, *self.switched[j])
            wait, base = FIELDS.index("wait_s"), FIELDS.index("base_wait_s")
            assert alone[wait] == record[base]  # the no-prewarm world is the world without prewarms
            assert record[FIELDS.index("saved_s")] == alone[wait] - record[wait]
            again.plan(picks, let_go)
        self.equals_the_compiled_one()

    def equals_the_compiled_one(self) -> None:
        events = [Event(t, str(x)) for t, x, *_ in self.diary]
        offs, wakes = ([t for one in self.switched for t in one[k]] for k in (0, 1))
        timeline = Timeline.from_events("x", events, offs=offs, wakes=wakes)
        ids = {int(name): i for i, name in enumerate(timeline.names)}
        known = np.array(sorted(ids, key=lambda x: ids[x]))
        missing = [x for x in range(TARGETS) if x not in ids]
        order = np.concatenate([known, np.array(missing, np.int64)])
        old = self.costs
        costs = Costs(old.memory_mb[order], old.cold_s[order], old.warm_s[order], old.load_s[order])
        place = {int(x): i for i, x in enumerate(order)}
        plans = Plans.empty(len(self.diary), PICKS, LET_GO)
        for i, (_, _, picks, let_go) in enumerate(self.diary):
            plans.let_go[i, : len(let_go)] = [place[x] for x in let_go]
            for k, (x, d) in enumerate(picks):
                plans.target[i, k], plans.delay[i, k] = place[x], d
        out = accounting.replay(timeline, costs, self.config, plans)
        n = len(self.diary)
        for j in range(n - 1):  # the last open also holds what finish() resolves
            assert out.table[j].tobytes() == self.records[j]
        asked = (plans.target >= 0) & (plans.delay >= 0)
        assert ((out.outcome != NONE) == asked)[: n - 1][plans.delay[: n - 1] >= 0].all()


@lru_cache
def walkers(kind: type[PrewarmEnv]) -> tuple[PrewarmEnv, PrewarmEnv]:
    """Two of a kind, made when first needed: every worker that collects this file would compile for them."""
    config = WorldConfig(budget_targets=2.0, ttl_s=200.0)
    walk, twin = (kind(people(2, 60), config=config, episode="day") for _ in range(2))
    return walk, twin


class EnvMachine(RuleBasedStateMachine):
    """Drives the Gymnasium environments: v0, and v1, which also names who leaves."""

    @initialize(seed=st.integers(0, 2**16), kind=st.sampled_from([PrewarmEnv, MemoryEnv]))
    def begin(self, seed: int, kind: type[PrewarmEnv]) -> None:
        self.walk, self.twin = walkers(kind)
        self.same(self.walk.reset(seed=seed), self.twin.reset(seed=seed))
        self.saved: Any = None

    @rule(
        picks=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=PICKS, max_size=PICKS),
        let_go=st.lists(st.integers(0, MemoryEnv.residents), min_size=LET_GO, max_size=LET_GO),
    )
    def step(self, picks: list[tuple[int, int]], let_go: list[int]) -> None:
        action = np.array([x for pick in picks for x in pick] + let_go)
        action = action[: len(self.walk.action_space.nvec)]  # v0 names nobody
        a, b = self.walk.step(action), self.twin.step(action)
        self.same(a, b)
        assert a[0] in self.walk.observation_space
        record = dict(zip(FIELDS, a[4]["outcome"].tolist(), strict=True))
        assert record["saved_s"] == record["base_wait_s"] - record["wait_s"]
        assert record["opens"] == 1
        state, budget = self.walk._walk.state, self.walk._track.rules.budget
        assert 0 <= state.reg[HELD_MB] <= state.reg[USED] <= budget
        if a[2]:
            asked = self.walk._walk.book.target[: PICKS * (self.walk._walk.i - self.walk._walk.first)] >= 0
            resolved = self.walk._walk.book.outcome[: len(asked)] != NONE
            assert np.array_equal(asked, resolved)
            self.same(self.walk.reset(), self.twin.reset())

    @rule()
    def fork(self) -> None:
        self.saved = (self.walk.fork(), self.twin.fork())

    @rule()
    def restore(self) -> None:
        """The one goes back by its own snapshot, the other by the one's."""
        if self.saved is not None:
            self.walk.restore(self.saved[0])
            self.twin.restore(self.saved[0])

    def same(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
        for key, part in a[0].items():
            assert part.tobytes() == b[0][key].tobytes()
        assert a[-1]["outcome"].tobytes() == b[-1]["outcome"].tobytes()
        assert a[1:-1] == b[1:-1]


TestWorld = pytest.mark.slow(WorldMachine.TestCase)
TestWorld.settings = settings(
    max_examples=1000, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEnv = pytest.mark.slow(EnvMachine.TestCase)
TestEnv.settings = settings(
    max_examples=250, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

"""The rules of docs/accounting.md, one by one, on the readable world; and costs."""

from __future__ import annotations

import numpy as np
import pytest
from judge_cases import random_plans, random_timeline

from env.errors import InputError
from env.judge import accounting
from env.judge.cost import Cost, CostModel, Costs, WorldConfig
from env.judge.cost_presets import PRESETS, cost_model, measured_model
from env.judge.plans import FIELDS, HIT, LATE, REDUNDANT, WASTED, Plans
from env.timeline import Event, Timeline
from tests.reference.world import World, replay

A, B, C, BIG = range(4)
COSTS = Costs(np.array([100.0, 100, 100, 900]), np.full(4, 4.0), np.full(4, 1.0), np.full(4, 3.0))
RULES = WorldConfig(budget_mb=250.0, ttl_s=100.0, max_picks=2, delays=(0.0, 30.0))


def walk(*happenings: tuple[float, int] | tuple[str, int, int]) -> tuple[World, list[dict[str, float]]]:
    """Open (t, target) or plan ("plan", target, bucket), in turn; returns the world and the records."""
    world = World(COSTS, RULES)
    records = []
    for what in happenings:
        if what[0] == "plan":
            world.plan([(int(what[1]), int(what[2]))])  # type: ignore[misc]
        else:
            records.append(dict(zip(FIELDS, world.open(int(what[1]), float(what[0])).tolist(), strict=True)))
    return world, records


def test_warm_cold_and_least_recently_used() -> None:
    _, r = walk((0, A), (1, B), (2, A), (3, C), (4, B), (5, C))
    assert [x["wait_s"] for x in r] == [4, 4, 1, 4, 4, 1]  # opening C evicted B, not A
    assert all(x["saved_s"] == 0 for x in r)


def test_hit_and_its_lead() -> None:
    world, r = walk((0, A), ("plan", B, 0), (10, B))
    assert (r[1]["hit"], r[1]["saved_s"], r[1]["held_mb_s"]) == (1, 3, 1000)
    assert world.outcome == [HIT]
    assert world.lead_s == [10.0]


def test_late_gets_credit_for_what_is_loaded() -> None:
    _, r = walk((0, A), ("plan", B, 0), (2, B))
    assert (r[1]["late"], r[1]["wait_s"], r[1]["saved_s"]) == (1, 2, 2)


def test_an_open_at_the_moment_of_readiness_is_a_hit() -> None:
    world, _ = walk((0, A), ("plan", B, 0), (3, B))
    assert world.outcome == [HIT]


def test_redundant_when_resident_and_the_order_of_use_stays() -> None:
    world, r = walk((0, A), (1, B), ("plan", A, 0), (2, C), (3, A))
    assert world.outcome == [REDUNDANT]
    assert r[2]["held_mb_s"] == 0
    assert r[3]["wait_s"] == 4  # A was not refreshed: C evicted it


def test_redundant_when_the_no_prewarm_world_had_it_too() -> None:
    # B's prewarm evicts A; A is prewarmed back, and opened when it would have been warm anyway.
    world, r = walk((0, A), (1, C), ("plan", B, 0), ("plan", A, 0), (10, A))
    assert world.outcome[1] == REDUNDANT
    assert r[2]["saved_s"] == 0


def test_expiry_is_wasted_and_charged_until_then() -> None:
    world, r = walk((0, A), ("plan", B, 0), (500, A), (501, B))
    assert world.outcome == [WASTED]
    assert r[1]["wasted_mb_s"] == r[1]["held_mb_s"] == 100 * 103
    assert r[2]["wait_s"] == 4


def test_an_expiry_at_the_time_of_the_open_comes_first() -> None:
    world, r = walk((0, A), ("plan", B, 0), (103, B))
    assert world.outcome == [WASTED]
    assert r[1]["wait_s"] == 4


def test_a_start_at_the_time_of_the_open_comes_first() -> None:
    world, _ = walk((0, A), ("plan", B, 1), (30, B))
    assert world.outcome == [LATE]


def test_prewarms_stay_scheduled_over_later_events() -> None:
    world, _ = walk((0, A), ("plan", B, 1), (10, C), (20, A), (40, B))
    assert world.outcome == [HIT]


def test_what_is_in_front_is_never_evicted_by_a_prewarm() -> None:
    world, r = walk((0, A), ("plan", B, 0), ("plan", C, 0), (50, A))
    assert A in world.resident
    assert world.outcome[0] == WASTED  # B made way for C
    assert r[1]["wait_s"] == 1


def test_what_does_not_fit_beside_the_front_is_wasted_for_nothing() -> None:
    world, r = walk((0, A), (1, B), ("plan", BIG, 0), (2, A))
    assert world.outcome == [WASTED]
    assert (r[2]["wasted_mb_s"], r[2]["held_mb_s"], r[2]["wait_s"]) == (0, 0, 1)


def test_a_target_larger_than_the_budget_takes_it_all_and_goes() -> None:
    world, r = walk((0, A), (1, BIG), (2, BIG), (3, B), (4, BIG))
    assert [x["wait_s"] for x in r] == [4, 4, 1, 4, 4]
    assert world.used <= world.budget


def test_unused_at_the_end_is_wasted() -> None:
    timeline = Timeline.from_events("x", [Event(0, "a"), Event(1, "b"), Event(2, "a"), Event(3, "b")])
    plans = Plans.empty(4, 2)
    costs = Costs(*(np.full(2, v) for v in (100.0, 4.0, 1.0, 3.0)))  # type: ignore[arg-type]
    plans.target[2] = [1, 1]
    plans.delay[2] = [0, 1]
    out = replay(timeline, costs, WorldConfig(budget_mb=100.0, delays=(0.0, 30.0)), plans)
    assert out.outcome[2].tolist() == [WASTED, WASTED]
    assert out.wasted.tolist() == [0, 0, 0, 2]


def test_a_window_counts_its_opens_and_hears_its_decisions() -> None:
    timeline = Timeline.from_events("x", [Event(float(i), "abc"[i % 3]) for i in range(12)])
    plans = Plans(np.full((12, 1), 0, np.int32), np.zeros((12, 1), np.int8))
    costs = Costs(*(np.full(3, v) for v in (100.0, 4.0, 1.0, 3.0)))  # type: ignore[arg-type]
    out = replay(timeline, costs, WorldConfig(budget_mb=250.0), plans, start=4, stop=9)
    assert out.opens.tolist() == [0] * 4 + [1] * 5 + [0] * 3
    assert np.flatnonzero(out.outcome[:, 0]).tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 99)])
def test_a_window_that_does_not_fit_is_refused(start: int, stop: int) -> None:
    timeline = Timeline.from_events("x", [Event(0.0, "a"), Event(1.0, "b")])
    costs = Costs(*(np.full(2, v) for v in (100.0, 4.0, 1.0, 3.0)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="window"):
        replay(timeline, costs, RULES, Plans.empty(2), start=start, stop=stop)


def test_every_preset_names_its_source() -> None:
    for name, model in PRESETS.items():
        assert model.name == name
        assert "assumption" in model.source
        assert cost_model(name) is model


def test_costs_by_target_then_kind_then_default() -> None:
    model = CostModel("m", "s", Cost(1, 1, 0), {"page": Cost(2, 1, 0)}, {"x": Cost(3, 1, 0)})
    events = [Event(0, "x", "page"), Event(1, "y", "page"), Event(2, "z", "file")]
    assert model.arrays(Timeline.from_events("u", events)).memory_mb.tolist() == [3, 2, 1]


def test_measurements_become_medians() -> None:
    rows = [
        ("Mail", 300.0, 3.0, 0.5),
        ("Mail", 320.0, 9.0, 0.5),
        ("Mail", 310.0, 3.2, 0.4),
        ("Chat", 100, 1, 0.2),
    ]
    model = measured_model(rows)
    assert model.cost("Mail") == Cost(310.0, 3.2, 0.5)
    assert model.cost("never measured") == Cost(205.0, 2.1, 0.35)
    assert measured_model([]).cost("x") == PRESETS["desktop"].cost("x")


@pytest.mark.parametrize(
    "bad", [(0, 1, 0), (1, 1, 2), (1, float("nan"), 0), (-5, 1, 0), (1, float("inf"), 0)]
)
def test_impossible_costs_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(InputError):
        measured_model([("x", *bad)])
    with pytest.raises(InputError):
        Costs(*(np.array([float(v)]) for v in (*bad, 0.0)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [{"budget_mb": 0.0}, {"budget_mb": float("nan")}, {"ttl_s": 0.0}, {"max_picks": 0}, {"delays": ()},
            {"delays": (-1.0,)}, {"budget_targets": 0.0}]
)  # fmt: skip
def test_impossible_rules_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        WorldConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_memory_adds_up_exactly_whatever_the_budget(seed: int) -> None:
    """Budgets and sizes that are no round numbers: sums do not drift, and the kernel agrees."""
    rng = np.random.default_rng(seed)
    timeline = random_timeline(rng, 300, 6)
    m = len(timeline.names)
    costs = Costs(rng.uniform(0.1, 90.0, m), np.full(m, 4.0), np.full(m, 1.0), np.full(m, 3.0))
    config = WorldConfig(budget_mb=float(rng.uniform(20.0, 150.0)), ttl_s=60.0)
    plans = random_plans(rng, (300, 3), m, 4, 0.5)
    world = World(costs, config)
    for j in range(300):
        world.open(int(timeline.target[j]), float(timeline.t[j]))
        assert world.used == sum(world.memory[x] for x in world.resident) <= world.budget <= config.budget_mb
        assert world.foreground in world.resident
        world.plan([(int(x), int(d)) for x, d in zip(plans.target[j], plans.delay[j], strict=True) if x >= 0])
    a, b = replay(timeline, costs, config, plans), accounting.replay(timeline, costs, config, plans)
    assert np.array_equal(a.table, b.table)


def test_the_default_budget_holds_eight_typical_targets() -> None:
    pages = [Event(float(i), f"page{i}", "page") for i in range(5)]
    apps = [Event(10.0 + i, f"app{i % 2}", "app") for i in range(20)]
    costs = cost_model("desktop").arrays(Timeline.from_events("u", pages + apps))
    assert WorldConfig().budget(costs) == 8 * 400.0

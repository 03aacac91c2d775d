"""Planners: what they ask for is what the judge judges, and the threshold is chosen as it says."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.judge.accounting import replay
from env.judge.case import Case, cases
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, HIT, NONE, REDUNDANT, Plans, at_wake
from env.ranking import Ranking
from env.slate.slate import build_slates
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Event, Timeline
from reward import parse_reward
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.oracle import OraclePolicy, bound_per_open
from rlmemo.policies.planners import (
    NEVER,
    THRESHOLDS,
    NonePolicy,
    OwnPlans,
    Threshold,
    choose,
    choose_threshold,
    from_json,
    planned,
    planner_of,
    rank_wakes,
    sweep,
)
from rlmemo.policies.protocol import Planned, Policy
from rlmemo.policies.registry import make_policy
from tests.reference.world import World


def some_cases(
    world: WorldConfig | None = None, users: int = 2, policy: str = "markov1"
) -> tuple[list[Case], list[Ranking]]:
    timelines = load_timelines("demo", weeks=2).timelines[:users]
    made = make_policy(policy)
    costs = [cost_model("desktop").arrays(x) for x in timelines]
    found = cases(timelines, costs, world or WorldConfig(), chrono(timelines).test)
    return found, [made.rank(c.timeline, c.indices) for c in found]


def test_a_part_is_a_case_for_every_timeline_that_has_some_of_it() -> None:
    timelines = load_timelines("demo", weeks=2).timelines[:3]
    costs = [cost_model("desktop").arrays(x) for x in timelines]
    part = [np.arange(0, 5), np.zeros(0, np.int64), np.arange(7, 9)]
    found = cases(timelines, costs, WorldConfig(), part)
    assert [(c.user, c.start, c.stop) for c in found] == [(0, 1, 5), (2, 7, 9)], "event 0 has no decision"
    assert found[1].indices.tolist() == [6, 7]
    assert found[1].opened.tolist() == timelines[2].target[7:9].tolist()
    with pytest.raises(InputError, match="without gaps"):
        cases(timelines[:1], costs[:1], WorldConfig(), [np.array([3, 5])])


@pytest.mark.parametrize(("budget", "picks", "threshold"), [(2.0, 3, 0.05), (8.0, 3, 0.1), (4.0, 1, 0.02)])
def test_what_was_chosen_replays_to_the_same_records(budget: float, picks: int, threshold: float) -> None:
    config = WorldConfig(budget_targets=budget, max_picks=picks)
    for case, ranking in zip(*some_cases(config), strict=True):
        outcomes, made = case.replay_ranked(ranking, threshold)
        chosen = made.target
        plans = Plans.empty(len(case.timeline), picks)
        plans.target[case.indices] = chosen
        again = replay(case.timeline, case.costs, config, plans, start=case.start, stop=case.stop)
        for found in (again, case.replay(planned(made))):
            np.testing.assert_array_equal(outcomes.table, found.table)
            np.testing.assert_array_equal(outcomes.outcome, found.outcome)
            np.testing.assert_array_equal(outcomes.lead_s, found.lead_s)
        assert (chosen >= 0).sum() > 0


def test_the_compiled_choice_is_the_planner_on_the_readable_world() -> None:
    config = WorldConfig(budget_targets=4)
    (case,), (ranking,) = some_cases(config, 1)
    chosen = case.replay_ranked(ranking, 0.08)[1].target
    planner = Threshold(0.08)
    world = World(case.costs, config)
    expected = np.full_like(chosen, -1)
    for j in range(case.stop):
        world.open(int(case.timeline.target[j]), float(case.timeline.t[j]))
        d = j - case.start + 1
        if not 0 <= d < len(case):
            continue
        row = ranking[slice(d, d + 1)]
        # What is warm is asked anew for each pick: one prewarm may push out what the next would be.
        asked = 0
        for place in range(row.targets.shape[1]):
            one = Ranking(row.targets[:, place : place + 1], row.probability[:, place : place + 1], row.none)
            for target in planner.picks(one, world.resident):
                if asked < config.max_picks:
                    world.plan([(target, 0)])
                    expected[d, asked] = target
                    asked += 1
    np.testing.assert_array_equal(chosen, expected)


def test_nothing_warm_is_asked_for() -> None:
    for case, ranking in zip(*some_cases(WorldConfig(budget_targets=8)), strict=True):
        outcomes, plans = case.replay_ranked(ranking, 0.02)
        chosen = plans.target
        assert ((outcomes.outcome[case.indices] != NONE) == (chosen >= 0)).all()
        # A pick that was warm would be redundant at once and never hold memory.
        assert (outcomes.prewarm_mb_s[outcomes.outcome == REDUNDANT] > 0).all()


def test_sweep_agrees_with_single_replays_and_choosing_takes_the_best() -> None:
    (found, rankings), reward = some_cases(), parse_reward("net_seconds")
    rewards = sweep(found, rankings) @ reward.weights(FIELDS)
    for k in (0, 9, len(THRESHOLDS) - 1):
        alone = sum(
            reward.per_open(c.replay_ranked(r, THRESHOLDS[k])[0])[c.start : c.stop].sum()
            for c, r in zip(found, rankings, strict=True)
        )
        assert alone == pytest.approx(rewards[k], abs=1e-9)
    assert rewards[-1] == 0.0  # the last threshold keeps still
    best, worth = choose_threshold(found, rankings, reward)
    assert rewards[THRESHOLDS.index(best.theta)] == rewards.max() == worth
    costly = parse_reward("saved_seconds=0,wasted=-1")
    assert choose_threshold(found, rankings, costly)[0] == Threshold(THRESHOLDS[-1])
    assert choose_threshold([], [], reward)[0] == Threshold(THRESHOLDS[-1])


def test_own_plans_are_chosen_where_they_earn_more_and_only_then() -> None:
    found, rankings = some_cases()
    reward = parse_reward("net_seconds")

    class Clairvoyant(CountingPolicy):
        def plan(self, case: Case, *, seed: int = 0) -> Planned:
            return make_policy("oracle").plan(case)  # type: ignore[attr-defined,no-any-return]

    class Still(CountingPolicy):
        def plan(self, case: Case, *, seed: int = 0) -> Planned:
            return NonePolicy().plan(case)

    clever = choose(Clairvoyant("markov1"), found, rankings, reward, own=True)
    assert clever.planner == OwnPlans()
    assert clever.own > clever.threshold[1] > 0
    still = choose(Still("markov1"), found, rankings, reward, own=True)
    assert still.own == 0.0
    assert still.planner == still.threshold[0] == choose_threshold(found, rankings, reward)[0]
    never = parse_reward(
        "saved_seconds=0,wasted=-1"
    )  # both keep still then, and nothing is left to choose by
    tie = choose(Still("markov1"), found, rankings, never, own=True)
    assert tie.planner == Threshold(THRESHOLDS[-1])


def test_a_planner_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for planner in (OwnPlans(), Threshold(0.0417)):
        assert from_json(json.loads(json.dumps(planner.to_json())), tmp_path) == planner
    for damaged in (
        {},
        {"planner": "oracle"},
        {"planner": "threshold"},
        {"planner": "threshold", "threshold": "x"},
    ):
        with pytest.raises(InputError, match=r"plan\.json: is damaged"):
            from_json(damaged, tmp_path)


def test_higher_thresholds_never_ask_for_more_on_a_memory_that_holds_everything() -> None:
    table = sweep(*some_cases(WorldConfig(budget_targets=10_000.0)))
    planned = table[:, FIELDS.index("planned")]
    assert (np.diff(planned) <= 0).all()


def test_picks_skip_what_is_warm_and_stop_at_k() -> None:
    row = Ranking(
        np.array([[4, 2, 9, 1]], np.int32), np.array([[0.4, 0.3, 0.2, 0.1]], np.float32), np.zeros(1)
    )
    assert Threshold(0.15).picks(row, {2}, 3) == [4, 9]
    assert Threshold(0.05).picks(row, {4}, 1) == [2]
    assert Threshold(0.9).picks(row, set()) == []


def test_cases_that_do_not_fit_are_refused() -> None:
    (case,), (ranking,) = some_cases(users=1)
    with pytest.raises(ValueError, match="does not fit"):
        replace(case, start=0).replay_ranked(ranking, 0.1)


def test_a_certain_guess_is_a_hit() -> None:
    """a b a b … with a budget of one target: whoever prewarms the other one hits every time."""
    timeline = Timeline.from_events("u", [Event(1.7e9 + 100 * k, "ab"[k % 2]) for k in range(40)])
    costs = cost_model("desktop").arrays(timeline)
    ranking = CountingPolicy("markov1").rank(timeline, np.arange(19, 39))
    case = Case(timeline, costs, WorldConfig(budget_targets=1.0), 20, 40)
    outcomes, _ = case.replay_ranked(ranking, 0.5)
    assert outcomes.total("hit") == 0  # no room beside what is in front
    outcomes, _ = case.under(WorldConfig(budget_targets=2.0)).replay_ranked(ranking, 0.5)
    assert outcomes.total("saved_s") == 0  # both are warm anyway


def test_none_and_oracle_plan_themselves() -> None:
    (case,), (ranking,) = some_cases(users=1)
    assert case.replay(NonePolicy().plan(case)).total("saved_s") == 0.0
    oracle = make_policy("oracle")
    assert isinstance(oracle, OraclePolicy)
    assert planner_of(oracle) == OwnPlans()
    best = case.replay(oracle.plan(case))
    bound = bound_per_open(case)
    assert len(bound) == len(case)
    assert 0 < best.total("saved_s") <= bound.sum() + 1e-6
    assert (best.outcome == HIT).any()
    for threshold in THRESHOLDS[::6]:
        outcomes, _ = case.replay_ranked(ranking, threshold)
        assert outcomes.total("saved_s") <= bound.sum() + 1e-6


@pytest.mark.skipif(find_spec("stable_baselines3") is None, reason="the extra sb3 is not installed")
@pytest.mark.slow
def test_sb3_plans_within_its_world() -> None:
    from rlmemo.policies.sb3 import Sb3Policy

    timelines = load_timelines("demo", weeks=2).timelines[:1]
    split = chrono(timelines)
    policy = Sb3Policy(steps=512)
    assert isinstance(policy, Policy)
    policy.fit(timelines, split, seed=0)
    costs, config = cost_model("desktop").arrays(timelines[0]), WorldConfig()
    (case,) = cases(timelines, [costs], config, split.test)
    planned = policy.plan(case)
    assert planned.target.shape == (len(case), config.max_picks)
    assert planned.target.max() < len(timelines[0].names)
    case.replay(planned)


@pytest.mark.skipif(find_spec("stable_baselines3") is None, reason="the extra sb3 is not installed")
@pytest.mark.slow
def test_sb3_learns_to_beat_the_random_policy() -> None:
    from rlmemo.policies.sb3 import Sb3Policy

    timelines = load_timelines("demo", weeks=2).timelines[:1]
    split = chrono(timelines)
    policy = Sb3Policy(steps=4096)
    policy.fit(timelines, split, seed=0)
    costs, config = cost_model("desktop").arrays(timelines[0]), WorldConfig()
    (case,) = cases(timelines, [costs], config, split.test)
    indices = case.indices
    rng = np.random.default_rng(0)
    slates = build_slates(timelines[0]).candidates[indices]
    columns = rng.integers(-1, slates.shape[1], (len(indices), config.max_picks))
    target = np.where(columns < 0, -1, np.take_along_axis(slates, np.maximum(columns, 0), axis=1))
    delay = rng.integers(0, len(config.delays), target.shape).astype(np.int8)
    reward = parse_reward(None)

    def earned(planned: Planned) -> float:
        return float(reward.per_open(case.replay(planned))[case.start : case.stop].sum())

    chance = earned(Planned(target.astype(np.int32), delay, np.ones(len(indices))))
    assert earned(policy.plan(case)) > chance


def test_sb3_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(InputError, match=r"pip install 'rlmemo\[sb3\]'"):
        make_policy("sb3")


def test_a_threshold_of_its_own_says_what_is_loaded_at_a_wake(tmp_path: Path) -> None:
    """What is planned for wakes is what the judge's loop did there, and is only ever asked for at wakes."""
    reward = parse_reward(None)
    found, rankings = some_cases(WorldConfig(off_after_s=7200.0))
    policy = make_policy("markov1")
    wakes = [rank_wakes(policy, c) for c in found]
    assert [len(w) for w in wakes] == [
        int((np.diff(c.timeline.t)[c.indices] > 7200.0).sum()) for c in found
    ], "a wake follows every pause that long"
    without, worth = choose_threshold(found, rankings, reward)
    planner, more = choose_threshold(found, rankings, reward, wakes=wakes)
    assert without.wake == NEVER
    assert planner.wake < NEVER
    assert more > worth
    chosen = choose(policy, found, rankings, reward)
    assert chosen.planner == planner == chosen.threshold[0]
    assert chosen.threshold[1] * sum(map(len, found)) == pytest.approx(more)
    for case, ranking, at in zip(found, rankings, wakes, strict=True):
        planned = planner.plan(policy, case)
        k = case.world.max_picks
        asked = planned.target[:, k:] >= 0
        assert set(case.indices[asked.any(1)]) <= set(case.wakes)
        assert (planned.delay[:, k:] == at_wake(0)).all()
        assert (at.probability[at.targets >= 0] >= planner.wake).any()
        outcomes, plans = case.replay_ranked(ranking, planner.theta, waking=planner.waking(case, at))
        np.testing.assert_array_equal(planned.target, plans.target)
        np.testing.assert_array_equal(planned.delay, plans.delay)
        played = case.replay(planned)
        assert played.table.tobytes() == outcomes.table.tobytes()
        assert played.outcome.tobytes() == outcomes.outcome.tobytes()
        assert np.nan_to_num(played.lead_s).tobytes() == np.nan_to_num(outcomes.lead_s).tobytes()
        # Nothing comes of it in a world in which machines stay on.
        always = case.under(WorldConfig())
        assert not len(always.wakes)
        assert planner.plan(policy, always).target.shape[1] == k
    assert from_json(json.loads(json.dumps(planner.to_json())), tmp_path) == planner
    assert "wake" not in without.to_json()

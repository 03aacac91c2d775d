"""Planners: what they ask for is what the judge judges, and the threshold is chosen as it says."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from env.judge.cost import WorldConfig, cost_model
from env.judge.kernel import replay
from env.judge.plans import FIELDS, HIT, NONE, REDUNDANT, Plans
from env.ranking import Ranking
from env.slate.slate import build_slates
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Event, Timeline
from reward import parse_reward
from rlmemo.errors import InputError
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.oracle import bound_per_open
from rlmemo.policies.planners import (
    THRESHOLDS,
    NonePolicy,
    ThresholdPlanner,
    Window,
    replay_planned,
    replay_threshold,
    sweep_windows,
    tune_threshold,
)
from rlmemo.policies.protocol import Planned, PlanningPolicy, Policy
from rlmemo.policies.registry import make_policy
from tests.reference.world import World


def some_windows(users: int = 2, policy: str = "markov1") -> list[Window]:
    timelines = load_timelines("demo", weeks=2).timelines[:users]
    made = make_policy(policy)
    out = []
    for timeline, test in zip(timelines, chrono(timelines).test, strict=True):
        costs = cost_model("desktop").arrays(timeline)
        a, b = int(test[0]), int(test[-1]) + 1
        out.append(Window(timeline, costs, a, b, made.rank(timeline, np.arange(a - 1, b - 1))))
    return out


@pytest.mark.parametrize(("budget", "picks", "threshold"), [(2.0, 3, 0.05), (8.0, 3, 0.1), (4.0, 1, 0.02)])
def test_what_was_chosen_replays_to_the_same_records(budget: float, picks: int, threshold: float) -> None:
    config = WorldConfig(budget_targets=budget, max_picks=picks)
    for window in some_windows():
        outcomes, chosen = replay_threshold(window, config, threshold)
        plans = Plans(chosen, np.zeros(chosen.shape, np.int8))
        again = replay(window.timeline, window.costs, config, plans, start=window.start, stop=window.stop)
        np.testing.assert_array_equal(outcomes.table, again.table)
        np.testing.assert_array_equal(outcomes.outcome, again.outcome)
        np.testing.assert_array_equal(outcomes.lead_s, again.lead_s)
        assert (chosen >= 0).sum() > 0


def test_the_compiled_choice_is_the_planner_on_the_readable_world() -> None:
    window = some_windows(1)[0]
    config = WorldConfig(budget_targets=4)
    _, chosen = replay_threshold(window, config, 0.08)
    planner = ThresholdPlanner(0.08, config.max_picks)
    world = World(window.costs, config)
    expected = np.full_like(chosen, -1)
    for j in range(window.stop):
        world.open(int(window.timeline.target[j]), float(window.timeline.t[j]))
        if not window.start - 1 <= j < window.stop - 1:
            continue
        row = window.ranking[slice(j - window.start + 1, j - window.start + 2)]
        # What is warm is asked anew for each pick: one prewarm may push out what the next would be.
        asked = 0
        for place in range(row.targets.shape[1]):
            one = Ranking(row.targets[:, place : place + 1], row.probability[:, place : place + 1], row.none)
            for target, bucket in planner.choose(one, world.resident):
                if asked < config.max_picks:
                    world.plan([(target, bucket)])
                    expected[j, asked] = target
                    asked += 1
    np.testing.assert_array_equal(chosen, expected)


def test_nothing_warm_is_asked_for() -> None:
    config = WorldConfig(budget_targets=8)
    for window in some_windows():
        outcomes, chosen = replay_threshold(window, config, 0.02)
        assert ((outcomes.outcome != NONE) == (chosen >= 0)).all()
        # A pick that was warm would be redundant at once and never hold memory.
        assert (outcomes.prewarm_mb_s[outcomes.outcome == REDUNDANT] > 0).all()


def test_sweep_agrees_with_single_replays_and_tuning_takes_the_best() -> None:
    windows, config, reward = some_windows(), WorldConfig(), parse_reward("net_seconds")
    table = sweep_windows(windows, config)
    rewards = table @ reward.weights(FIELDS)
    for k in (0, 9, len(THRESHOLDS) - 1):
        alone = sum(
            reward.per_open(replay_threshold(w, config, THRESHOLDS[k])[0])[w.start : w.stop].sum()
            for w in windows
        )
        assert alone == pytest.approx(rewards[k], abs=1e-9)
    assert rewards[-1] == 0.0  # the last threshold keeps still
    best = tune_threshold(windows, config, reward)
    assert rewards[THRESHOLDS.index(best)] == rewards.max()
    costly = parse_reward("saved_seconds=0,wasted=-1")
    assert tune_threshold(windows, config, costly) == THRESHOLDS[-1]
    assert tune_threshold([], config, reward) == THRESHOLDS[-1]


def test_higher_thresholds_never_ask_for_more_on_a_memory_that_holds_everything() -> None:
    table = sweep_windows(some_windows(), WorldConfig(budget_targets=10_000.0))
    planned = table[:, FIELDS.index("planned")]
    assert (np.diff(planned) <= 0).all()


def test_choose_skips_what_is_warm_and_stops_at_k() -> None:
    row = Ranking(
        np.array([[4, 2, 9, 1]], np.int32), np.array([[0.4, 0.3, 0.2, 0.1]], np.float32), np.zeros(1)
    )
    assert ThresholdPlanner(0.15, 3).choose(row, {2}) == [(4, 0), (9, 0)]
    assert ThresholdPlanner(0.05, 1).choose(row, {4}) == [(2, 0)]
    assert ThresholdPlanner(0.9).choose(row, set()) == []


def test_windows_that_do_not_fit_are_refused() -> None:
    window = some_windows(1)[0]
    with pytest.raises(ValueError, match="does not fit"):
        replay_threshold(replace(window, start=0), WorldConfig(), 0.1)


def test_a_certain_guess_is_a_hit() -> None:
    """a b a b … with a budget of one target: whoever prewarms the other one hits every time."""
    timeline = Timeline.from_events("u", [Event(1.7e9 + 100 * k, "ab"[k % 2]) for k in range(40)])
    costs = cost_model("desktop").arrays(timeline)
    ranking = CountingPolicy("markov1").rank(timeline, np.arange(19, 39))
    window = Window(timeline, costs, 20, 40, ranking)
    tight = WorldConfig(budget_targets=1.0)
    outcomes, _ = replay_threshold(window, tight, 0.5)
    assert outcomes.total("hit") == 0  # no room beside what is in front
    outcomes, _ = replay_threshold(window, WorldConfig(budget_targets=2.0), 0.5)
    assert outcomes.total("saved_s") == 0  # both are warm anyway


def test_none_and_oracle_are_planning_policies() -> None:
    window = some_windows(1)[0]
    config = WorldConfig()
    nothing = replay_planned(
        window, config, NonePolicy().plan(window.timeline, window.indices, window.costs, config)
    )
    assert nothing.total("saved_s") == 0.0
    oracle = make_policy("oracle")
    assert isinstance(oracle, PlanningPolicy)
    planned = oracle.plan(window.timeline, window.indices, window.costs, config)
    best = replay_planned(window, config, planned)
    bound = bound_per_open(window.timeline, window.costs, config, window.start, window.stop)
    assert len(bound) == window.stop - window.start
    assert 0 < best.total("saved_s") <= bound.sum() + 1e-6
    assert (best.outcome == HIT).any()
    for threshold in THRESHOLDS[::6]:
        outcomes, _ = replay_threshold(window, config, threshold)
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
    indices = split.test[0] - 1
    planned = policy.plan(timelines[0], indices, costs, config)
    assert planned.target.shape == (len(indices), config.max_picks)
    assert planned.target.max() < len(timelines[0].names)
    a, b = int(split.test[0][0]), int(split.test[0][-1]) + 1
    replay_planned(Window(timelines[0], costs, a, b, policy.rank(timelines[0], indices)), config, planned)


@pytest.mark.skipif(find_spec("stable_baselines3") is None, reason="the extra sb3 is not installed")
@pytest.mark.slow
def test_sb3_learns_to_beat_the_random_policy() -> None:
    from rlmemo.policies.sb3 import Sb3Policy

    timelines = load_timelines("demo", weeks=2).timelines[:1]
    split = chrono(timelines)
    policy = Sb3Policy(steps=4096)
    policy.fit(timelines, split, seed=0)
    costs, config = cost_model("desktop").arrays(timelines[0]), WorldConfig()
    a, b = int(split.test[0][0]), int(split.test[0][-1]) + 1
    indices = np.arange(a - 1, b - 1)
    window = Window(timelines[0], costs, a, b, policy.rank(timelines[0], indices))
    rng = np.random.default_rng(0)
    slates = build_slates(timelines[0]).candidates[indices]
    columns = rng.integers(-1, slates.shape[1], (len(indices), config.max_picks))
    target = np.where(columns < 0, -1, np.take_along_axis(slates, np.maximum(columns, 0), axis=1))
    delay = rng.integers(0, len(config.delays), target.shape).astype(np.int8)
    reward = parse_reward(None)

    def earned(planned: Planned) -> float:
        return float(reward.per_open(replay_planned(window, config, planned))[a:b].sum())

    chance = earned(Planned(target.astype(np.int32), delay, np.ones(len(indices))))
    assert earned(policy.plan(timelines[0], indices, costs, config)) > chance


def test_sb3_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(InputError, match=r"pip install 'rlmemo\[sb3\]'"):
        make_policy("sb3")

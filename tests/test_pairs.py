"""Preferences are exact, name where they came from, and have the sign of the expected reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.plans import FIELDS, Plans
from reward import parse_reward
from rlmemo.learning.config import make_config
from rlmemo.learning.incumbent import load_incumbent, put_in_charge, save_incumbent
from rlmemo.learning.pairs import (
    KtoExample,
    Pair,
    ScoredPlans,
    kto_examples,
    pairs,
    propose,
    read_pairs,
    score,
    write_pairs,
)
from rlmemo.learning.preference_rounds import rounds_of
from rlmemo.learning.training_data import States, TrainingData, memory_at, part_states, training_part
from rlmemo.policies.counting import CountingPolicy
from tests.reference.world import replay
from tests.training_ground import RandomSampler, small_ground

REWARD = parse_reward("net_seconds")


def proposed(states: States, samples: int = 3) -> list[dict[Any, str]]:
    ground = small_ground()
    plans: list[dict[Any, str]] = [{} for _ in range(len(states))]
    for user, rows in states.by_user():
        slates, index = ground.slates[user], states.index[rows]
        warm = memory_at(ground, user).warm
        first = np.random.default_rng(1).normal(size=(len(rows), slates.candidates.shape[1] + 1))
        found = propose(
            first, slates.candidates[index], warm[index], RandomSampler(2),
            picks=3, samples=samples,
        )  # fmt: skip
        for row, plan in zip(rows, found, strict=True):
            plans[row] = plan
    return plans


@pytest.fixture(scope="module")
def states() -> States:
    made = part_states(small_ground().split.train)
    return made[np.linspace(40, len(made) - 1, 60).astype(int)]


@pytest.fixture(scope="module")
def scored(states: States) -> list[ScoredPlans]:
    return score(small_ground(), states, proposed(states), REWARD, 3)


def test_keeping_still_is_always_there_and_worth_nothing(scored: list[ScoredPlans]) -> None:
    for s in scored:
        assert s.plans[0] == ()
        assert s.rewards[0] == 0.0
        assert len(set(s.plans)) == len(s.plans), "a plan stands once"
        assert all(p == tuple(sorted(p)) for p in s.plans), "a plan is a set: it has one order"


def test_warm_and_empty_places_are_not_picked(states: States, scored: list[ScoredPlans]) -> None:
    ground = small_ground()
    for s in scored:
        warm = memory_at(ground, s.user).warm
        for place, _ in (pick for plan in s.plans for pick in plan):
            assert ground.slates[s.user].candidates[s.index, place] >= 0
            assert not warm[s.index, place]


def test_a_score_is_what_the_readable_world_says(scored: list[ScoredPlans]) -> None:
    """Replay the training part twice in plain Python, with and without the plan: the difference of the
    rewards is the score, whenever it falls due: what was evicted may be missed hours later."""
    ground = small_ground()
    tried = 0
    for s in scored[::6]:
        timeline = ground.timelines[s.user]
        last = int(ground.split.train[s.user].max())
        part = timeline.take(np.arange(last + 1))
        costs = ground.costs[s.user]
        columns = (costs.memory_mb, costs.cold_s, costs.warm_s, costs.load_s)
        costs = type(costs)(*(c[: len(part.names)] for c in columns))
        world = ground.world.resolved(ground.costs[s.user])
        for m, plan in enumerate(s.plans):
            plans = Plans.empty(len(part), 3)
            for k, (place, delay) in enumerate(plan):
                plans.target[s.index, k] = ground.slates[s.user].candidates[s.index, place]
                plans.delay[s.index, k] = delay
            still = replay(part, costs, world, Plans.empty(len(part), 3))
            effect = (replay(part, costs, world, plans).table - still.table) @ REWARD.weights(FIELDS)
            assert s.rewards[m] == pytest.approx(effect.sum(), abs=1e-6)
            tried += 1
    assert tried > 50


def test_every_pair_names_its_step_and_keeps_its_margin(scored: list[ScoredPlans]) -> None:
    made = pairs(scored, ["a", "b"], margin=0.05, limit=100, pairing="weighted", seed=0)
    assert made
    for p in made:
        s = scored[p.row]
        assert (p.user, p.index) == (["a", "b"][s.user], s.index)
        assert p.chosen_reward - p.rejected_reward >= 0.05
        assert s.rewards[s.plans.index(p.chosen)] == p.chosen_reward
        assert s.rewards[s.plans.index(p.rejected)] == p.rejected_reward
    assert len({(p.row, p.chosen, p.rejected) for p in made}) == len(made), "a pair stands once"
    assert pairs(scored, ["a", "b"], margin=0.05, limit=100, pairing="weighted", seed=0) == made
    assert pairs(scored, ["a", "b"], margin=1e9, limit=100, pairing="weighted", seed=0) == []


def test_extremes_are_the_best_and_the_worst(scored: list[ScoredPlans]) -> None:
    for p in pairs(scored, ["a", "b"], margin=0.0, limit=1000, pairing="extremes", seed=0):
        rewards = scored[p.row].rewards
        assert (p.chosen_reward, p.rejected_reward) == (rewards.max(), rewards.min())


def test_weighted_pairs_have_the_sign_of_the_expected_reward() -> None:
    """A plan that wins 3 s in a quarter of its states and loses 0.3 s in the others is worth having:
    the weighted pairs say so, the best-against-worst ones say the opposite."""
    a, b, still = ((0, 0),), ((1, 0),), ()
    scored = [
        ScoredPlans(
            0, i, (still, a, b), ("none", "top", "top"),
            np.array([0.0, 3.0 if i % 4 == 0 else -0.3, 3.0 if i % 4 == 1 else -0.3]),
            np.ones(3),
        )
        for i in range(4000)
    ]  # fmt: skip

    def preferred(pairing: str) -> float:
        made = pairs(scored, ["u"], margin=0.02, limit=3000, pairing=pairing, seed=0)
        against = [p for p in made if {p.chosen, p.rejected} == {a, still}]
        return sum(p.chosen == a for p in against) / len(against)

    assert preferred("weighted") > 0.6
    assert preferred("extremes") < 0.1


def test_kto_examples_are_judged_against_their_state(scored: list[ScoredPlans]) -> None:
    made = kto_examples(scored, ["a", "b"], margin=0.02, limit=200, seed=0)
    assert {v.good for v in made} == {True, False}
    for v in made:
        s = scored[v.row]
        assert v.advantage == pytest.approx(s.rewards[s.plans.index(v.plan)] - s.rewards.mean())
        assert v.good == (v.advantage > 0)


def test_pairs_come_back_from_the_disk(tmp_path: Path, scored: list[ScoredPlans]) -> None:
    two = pairs(scored, ["a", "b"], margin=0.02, limit=20, pairing="weighted", seed=0)
    one = kto_examples(scored, ["a", "b"], margin=0.02, limit=20, seed=0)
    write_pairs(tmp_path / "pairs.jsonl", two)
    write_pairs(tmp_path / "plans.jsonl", one)
    assert read_pairs(tmp_path / "pairs.jsonl", Pair) == two
    assert read_pairs(tmp_path / "plans.jsonl", KtoExample) == one
    assert f"replay:{two[0].user}:{two[0].index}" in (tmp_path / "pairs.jsonl").read_text().splitlines()[0]
    (tmp_path / "pairs.jsonl").write_text('{"row": 1')
    with pytest.raises(InputError, match="is damaged"):
        read_pairs(tmp_path / "pairs.jsonl", Pair)


def in_charge() -> TrainingData:
    """The small ground with a threshold planner on counts in charge of the training part."""
    ground, policy = small_ground(), CountingPolicy("markov1")
    found, _ = put_in_charge(ground, lambda user, index: policy.rank(ground.timelines[user], index), REWARD)
    return found


def test_who_is_in_charge_plans_the_training_part_and_nothing_else() -> None:
    ground = in_charge()
    assert ground.plans is not None
    for user, plans in enumerate(ground.plans):
        last = int(ground.split.train[user].max())
        assert (plans.target[:last] >= 0).any()
        assert (plans.target[last:] == -1).all()
        warm = memory_at(ground, user).warm
        still = memory_at(small_ground(), user).warm
        assert (warm[:last] != still[:last]).any(), "its prewarms are seen to be there"
        for index in np.flatnonzero((plans.target >= 0).any(1)):
            slate = ground.slates[user].candidates[index]
            first = slate == plans.target[index, 0]
            assert not warm[index, first].any(), "it asks for what is cold (or has just been evicted)"


def test_scores_are_taken_in_the_world_of_who_is_in_charge(states: States) -> None:
    """Replay the training part in plain Python with everybody else's plans as they are: the plan's reward is
    the difference to keeping still at that one decision."""
    ground, asked = in_charge(), states[::5]
    assert ground.plans is not None
    plans: list[dict[Any, str]] = []
    for user, index in zip(asked.user, asked.index, strict=True):
        cold = (ground.slates[user].candidates[index] >= 0) & (memory_at(ground, user).warm[index] == 0)
        plans.append({(): "none", ((int(cold.argmax()), 0),): "top"})
    for s in score(ground, asked, plans, REWARD, 3):
        case = training_part(ground, s.user)
        part = case.timeline
        table = []
        for plan in s.plans:
            now = Plans(ground.plans[s.user].target[: len(part)].copy(), np.zeros((len(part), 3), np.int8))
            now.target[s.index] = -1
            for k, (place, _) in enumerate(plan):
                now.target[s.index, k] = ground.slates[s.user].candidates[s.index, place]
            table.append((replay(part, case.costs, case.world, now).table @ REWARD.weights(FIELDS)).sum())
        assert s.rewards[1] == pytest.approx(table[1] - table[0], abs=1e-6)
    still = score(small_ground(), asked, plans, REWARD, 3)
    there = score(ground, asked, plans, REWARD, 3)
    differs = sum(a.rewards[1] != b.rewards[1] for a, b in zip(still, there, strict=True))
    assert differs, "and not as if nobody had prewarmed"


def test_plans_next_to_the_one_in_charge_are_proposed() -> None:
    first = np.log(np.array([[0.3, 0.25, 0.2, 0.1, 0.05, 0.1]]))
    (made,) = propose(
        first, np.arange(5)[None], np.array([[0, 0, 0, 0, 1]]), lambda *_: [()],
        picks=3, samples=0, charge=[[0, 2]],
    )  # fmt: skip
    by_origin: dict[str, list[Any]] = {}
    for plan, origin in made.items():
        assert plan == tuple(sorted(plan)), "a set has one order"
        by_origin.setdefault(origin, []).append(tuple(place for place, _ in plan))
    assert by_origin["in charge"] == [(0, 2)]
    assert by_origin["one less"] == [(2,)]  # (0,) alone was said before, as the likeliest place
    assert by_origin["one more"] == [(0, 2, 3)]  # (0, 1, 2) too
    assert not any(place == 4 for plan in made for place, _ in plan), "what is warm is left alone"


def test_the_plans_in_charge_come_back_from_the_disk(tmp_path: Path) -> None:
    ground = in_charge()
    assert ground.plans is not None
    save_incumbent(ground, tmp_path / "world.npz")
    again = load_incumbent(small_ground(), tmp_path / "world.npz").plans
    assert again is not None
    for a, b in zip(ground.plans, again, strict=True):
        assert np.array_equal(a.target, b.target)
    (tmp_path / "world.npz").write_bytes(b"PK half a file")
    with pytest.raises(InputError, match="is damaged"):
        load_incumbent(small_ground(), tmp_path / "world.npz")


def test_rounds_share_out_states_and_pairs() -> None:
    config = make_config({"preference_rounds": 3, "dpo_pairs": 90})
    rounds = rounds_of(config)
    assert [r.stage for r in rounds] == ["dpo-1", "dpo-2", "dpo"]
    assert [r.adapter for r in rounds] == ["sft", "dpo-1", "dpo-2"]
    assert [r.file for r in rounds] == ["pairs-1.jsonl", "pairs-2.jsonl", "pairs.jsonl"]
    assert [r.config.dpo_pairs for r in rounds] == [30, 30, 30]
    states = States(np.zeros(10, np.int64), np.arange(10))
    assert sorted(np.concatenate([r.states(states).index for r in rounds])) == list(range(10))
    (only,) = rounds_of(make_config({"method": "kto"}))
    assert (only.stage, only.plans, only.file, only.adapter) == ("kto", "plans", "plans.jsonl", "sft")

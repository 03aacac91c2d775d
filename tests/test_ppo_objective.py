"""What PPO makes more of is the true reward: its objective puts plans in the order of the accounting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.judge.accounting import replay
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.credit import credits
from env.judge.plans import FIELDS, Plans
from env.sources import load_timelines
from env.splits import Split
from reward import parse_reward
from rlmemo.learning.config import make_config
from rlmemo.learning.rollout import Field, Moments
from rlmemo.learning.training_data import TrainingData
from rlmemo.learning.value import advantages, discounts
from rlmemo.model.ask import SampledPlans
from tests.shared_cases import case
from tests.test_credit import random_plans
from tests.training_ground import small_ground

REWARD = parse_reward("net_seconds")
WEIGHTS = REWARD.weights(FIELDS)
PICKS = 3


def objective(reward: np.ndarray, gap_s: np.ndarray, half_life_s: float) -> float:
    """What PPO adds up from the first decision on: GAE that trusts no critic."""
    one = np.ones((1, len(reward)), bool)
    last = one & (np.arange(len(reward)) == len(reward) - 1)
    discount = discounts(gap_s, half_life_s)[None]
    return float(advantages(reward[None], np.zeros(one.shape), discount, last, 1.0)[0, 0])


def records(ground: TrainingData, user: int, world: WorldConfig, plans: Plans, first: int) -> np.ndarray:
    """The accounting's record of each interval after decision `first`, to the timeline's end."""
    n, steps = len(ground.timelines[user]), len(plans)
    whole = Plans.empty(n, PICKS)
    whole.target[first : first + steps], whole.delay[first : first + steps] = plans.target, plans.delay
    window = {"start": first + 1, "stop": n}
    table: np.ndarray = replay(ground.timelines[user], ground.costs[user], world, whole, **window).table
    return table[-(n - first - 1) :]


@pytest.mark.parametrize(("after", "worth"), [(5, 2.965), (4, 2.725)])
def test_waiting_is_worth_what_it_saves(after: int, worth: float) -> None:
    """A is opened, B fifteen minutes later, then X: X is prewarmed after B, or at once."""
    timelines = load_timelines(str(case("training/discount.csv")), tz="UTC").timelines
    n = len(timelines[0])
    split = Split("all", [np.arange(1, n)], [np.arange(0)], [np.arange(0)])
    ground = TrainingData.prepare(timelines, split, cost_model("desktop"), WorldConfig(budget_targets=2.0))
    x = timelines[0].names.index("X")
    place = int(np.flatnonzero(ground.slates[0].candidates[after] == x)[0])
    step = iter(range(n))

    def say(prompts: np.ndarray, free: np.ndarray) -> SampledPlans:
        now = next(step)
        said = np.full((1, PICKS), -1, np.int64)
        if now == after:
            assert free[0, place], "it is cold"
            said[0, 0] = place
        first = np.full((1, free.shape[1] + 1), 1.0 / (free.shape[1] + 1))
        return SampledPlans(said, np.zeros((1, PICKS), np.int64), np.zeros(1), first)

    shape = (1, n - 1)
    at = np.arange(n - 1)[None]
    moments = Moments(np.zeros(shape, np.int64), at, at == 0, at == n - 2)
    half_life = make_config({"method": "ppo"}).ppo_half_life or math.inf
    field = Field(ground, REWARD, half_life)
    played = field.play(moments, PICKS, say)
    assert played.reward.sum() == pytest.approx(worth, abs=5e-4), "the reward that the accounting knows"
    assert objective(played.reward, played.gap_s, half_life) == pytest.approx(worth, abs=5e-4)


@settings(max_examples=60, deadline=None)
@given(
    user=st.integers(0, 1), first=st.integers(1, 150), steps=st.integers(1, 64),
    budget=st.sampled_from([1.5, 3.0, 8.0]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_two_plans_stand_in_the_order_of_the_true_reward(
    user: int, first: int, steps: int, budget: float, seed: int
) -> None:
    ground, rng = small_ground(), np.random.default_rng(seed)
    world = WorldConfig(budget_targets=budget)
    candidates = ground.slates[user].candidates[first : first + steps]
    gap = np.diff(ground.timelines[user].t)[first : first + steps]
    true, ours = [], []
    for _ in range(2):
        plans = random_plans(candidates, rng)
        true.append(float((records(ground, user, world, plans, first) @ WEIGHTS).sum()))
        found = credits(
            Case(ground.timelines[user], ground.costs[user], world, first + 1, first + 2), plans,
            Plans(plans.target[:, None], plans.delay[:, None]),
        )[:, 0]  # fmt: skip
        ours.append(objective(found @ WEIGHTS, gap, math.inf))
    assert ours[0] - ours[1] == pytest.approx(true[0] - true[1], abs=1e-6)
    if abs(true[0] - true[1]) > 1e-6:
        assert (ours[0] > ours[1]) == (true[0] > true[1])


@settings(max_examples=40, deadline=None)
@given(
    user=st.integers(0, 1), first=st.integers(1, 150), steps=st.integers(1, 64),
    half_life=st.sampled_from([10.0, 300.0, 7200.0, math.inf]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_with_a_discount_the_shaped_return_is_the_discounted_return_less_the_potential(
    user: int, first: int, steps: int, half_life: float, seed: int
) -> None:
    """Ng, Harada, Russell: the potential of the start, the reward of keeping still, is all that differs."""
    ground, rng = small_ground(), np.random.default_rng(seed)
    world, t = WorldConfig(budget_targets=3.0), ground.timelines[user].t
    plans = random_plans(ground.slates[user].candidates[first : first + steps], rng)
    found = credits(
        Case(ground.timelines[user], ground.costs[user], world, first + 1, first + 2), plans,
        Plans(plans.target[:, None], plans.delay[:, None]), half_life,
    )[:, 0]  # fmt: skip
    of_clock = 0.5 ** ((t[first:-1] - t[first]) / half_life)
    done, potential = (
        of_clock @ records(ground, user, world, x, first) for x in (plans, Plans.empty(steps, PICKS))
    )
    shaped = of_clock[:steps] @ found
    np.testing.assert_allclose(shaped, done - potential, atol=1e-6)
    gap = np.diff(t)[first : first + steps]
    assert objective(found @ WEIGHTS, gap, half_life) == pytest.approx(float(shaped @ WEIGHTS), abs=1e-6)

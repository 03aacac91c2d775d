"""Rollouts: the world is the one that the policy's own plans made, and only the training part is seen."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from env.judge.case import Case
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, Plans
from env.splits import Split
from env.timeline import Timeline
from reward import parse_reward
from rlmemo.learning.grammar import pickable
from rlmemo.learning.rollout import AHEAD, Field, Rollout, show_memory
from rlmemo.learning.training_data import TrainingData
from rlmemo.model import slots
from rlmemo.model.ask import SampledPlans
from rlmemo.model.thumbs_so_far import LEVELS, MOODS
from tests.training_ground import small_ground

REWARD = parse_reward("net_seconds")
PICKS = 3


class Sayer:
    """Says random plans, and writes down what it was shown."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.shown: list[np.ndarray] = []

    def __call__(self, prompts: np.ndarray, free: np.ndarray) -> SampledPlans:
        self.shown.append(prompts.copy())
        n = len(prompts)
        place, delay = np.full((n, PICKS), -1, np.int64), np.zeros((n, PICKS), np.int64)
        for row in range(n):
            chosen = np.sort(self.rng.permutation(np.flatnonzero(free[row]))[: self.rng.integers(0, PICKS)])
            place[row, : len(chosen)] = chosen
            delay[row, : len(chosen)] = self.rng.integers(0, len(slots.DELAYS_S), len(chosen))
        first = np.concatenate([free, np.ones((n, 1))], axis=1)
        return SampledPlans(place, delay, np.zeros(n), first / first.sum(1, keepdims=True))


def played(
    ground: TrainingData, lanes: int = 4, steps: int = 40, length: int = 20
) -> tuple[Field, Rollout, object]:
    field = Field(ground, REWARD)
    moments = field.draw(lanes, steps, length, np.random.default_rng(1))
    return field, field.play(moments, PICKS, Sayer()), moments


def plans_of(ground: TrainingData, rollout: Rollout, rows: np.ndarray, user: int, index: np.ndarray) -> Plans:
    candidates = ground.slates[user].candidates[index]
    place = rollout.place[rows]
    target = np.where(place >= 0, np.take_along_axis(candidates, np.maximum(place, 0), 1), -1)
    return Plans(target.astype(np.int32), rollout.delay[rows].astype(np.int8))


def test_what_memory_holds_is_written_into_the_prompt() -> None:
    ground, rng = small_ground(), np.random.default_rng(0)
    rows = np.arange(50, 114)
    slates, target = ground.slates[0], ground.timelines[0].target
    warm, free = rng.integers(0, 3, (64, slots.SLATE_SIZE)), rng.random(64)
    shown = slots.encode_prompts(slates, target, rows)
    show_memory(shown, warm, free)
    np.testing.assert_array_equal(shown, slots.encode_prompts(slates, target, rows, warm, free))


def test_pickable_is_read_off_the_prompt() -> None:
    ground, rng = small_ground(), np.random.default_rng(0)
    rows = np.arange(0, 80)
    slates = ground.slates[0]
    warm = rng.integers(0, 3, (80, slots.SLATE_SIZE))
    asked = slots.encode_prompts(slates, ground.timelines[0].target, rows, warm, np.zeros(80))
    free = (slates.candidates[rows] >= 0) & (warm == 0)
    np.testing.assert_array_equal(pickable(asked), free)
    # Whatever was said of a candidate: it may be picked all the same.
    said = slots.with_thumbs(asked, rng.integers(0, LEVELS, warm.shape), rng.integers(0, MOODS, 80))
    assert (said != asked).any()
    np.testing.assert_array_equal(pickable(said), free)


def test_every_plan_is_made_in_the_world_that_the_plans_before_it_left() -> None:
    ground = small_ground()
    _, rollout, moments = played(ground)
    steps = moments.user.shape[1]  # type: ignore[attr-defined]
    for lane in range(4):
        for begin in np.flatnonzero(moments.first[lane]):  # type: ignore[attr-defined]
            end = begin + int(np.argmax(moments.last[lane, begin:])) + 1  # type: ignore[attr-defined]
            user = int(moments.user[lane, begin])  # type: ignore[attr-defined]
            index = moments.index[lane, begin:end]  # type: ignore[attr-defined]
            rows = np.arange(lane * steps + begin, lane * steps + end)
            plans = plans_of(ground, rollout, rows, user, index)
            slates, timeline = ground.slates[user], ground.timelines[user]
            case = Case(timeline, ground.costs[user], ground.world, int(index[0]) + 1, int(index[-1]) + 2)
            warm, free, _ = case.memory(slates.candidates, plans)
            asked = slots.encode_prompts(slates, timeline.target, index, warm, free)
            np.testing.assert_array_equal(rollout.prompts[rows], asked)


def test_rewards_sum_to_the_accounting() -> None:
    ground = small_ground()
    field, rollout, moments = played(ground)
    steps = moments.user.shape[1]  # type: ignore[attr-defined]
    weights, checked = REWARD.weights(FIELDS), 0
    for lane in range(4):
        for begin in np.flatnonzero(moments.first[lane]):  # type: ignore[attr-defined]
            end = begin + int(np.argmax(moments.last[lane, begin:])) + 1  # type: ignore[attr-defined]
            user = int(moments.user[lane, begin])  # type: ignore[attr-defined]
            index = moments.index[lane, begin:end]  # type: ignore[attr-defined]
            rows = np.arange(lane * steps + begin, lane * steps + end)
            plans = plans_of(ground, rollout, rows, user, index)
            case = replace(field.cases[user], start=int(index[0]) + 1)
            whole = Plans.empty(len(case), PICKS)  # and still after the episode, to the end of the part
            whole.target[: len(index)], whole.delay[: len(index)] = plans.target, plans.delay
            found = case.replay(whole)
            assert rollout.reward[rows].sum() == pytest.approx((found.table @ weights).sum(), abs=1e-6)
            checked += whole.count() > 0
    assert checked > 3


def test_nothing_after_the_training_part_is_seen() -> None:
    """Another future, the same rollout: prompts, rewards, and what the critic knows."""
    ground = small_ground()
    ends = [int(events.max()) + 1 for events in ground.split.train]
    changed = []
    for timeline, end in zip(ground.timelines, ends, strict=True):
        target = timeline.target.copy()
        target[end:] = target[end:][::-1]
        t = timeline.t.copy()
        t[end:] += 7.0
        changed.append(dataclasses.replace(timeline, t=t, target=target))
    split = Split("chrono", ground.split.train, ground.split.validation, ground.split.test)
    other = TrainingData.prepare(changed, split, cost_model("desktop"), ground.world)
    _, a, _ = played(ground)
    _, b, _ = played(other)
    for name in ("prompts", "place", "reward", "features", "gap_s"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_episodes_stay_in_the_training_part() -> None:
    ground = small_ground()
    field = Field(ground, REWARD)
    moments = field.draw(32, 64, 64, np.random.default_rng(0))
    for user, events in enumerate(ground.split.train):
        index = moments.index[moments.user == user]
        assert index.min() >= events.min() - 1
        assert index.max() + 1 <= events.max()
    same = (moments.user[:, 1:] == moments.user[:, :-1]) & (moments.index[:, 1:] == moments.index[:, :-1] + 1)
    assert (same | moments.first[:, 1:]).all()
    assert (moments.last[:, :-1] == moments.first[:, 1:]).all()
    assert moments.last[:, -1].all()


def test_a_short_timeline_is_played_again_and_again() -> None:
    ground = small_ground()
    t: Timeline = ground.timelines[0].take(np.arange(30))
    split = Split("chrono", [np.arange(1, 21)], [np.arange(21, 24)], [np.arange(24, 30)])
    small = TrainingData.prepare([t], split, cost_model("desktop"), ground.world)
    _, rollout, moments = played(small, lanes=2, steps=50, length=64)
    assert len(rollout) == 100
    assert moments.first.sum() >= 6  # type: ignore[attr-defined]
    assert np.isfinite(rollout.features).all()
    assert np.abs(rollout.features[:, :-AHEAD]).max() <= 1.5


def test_a_base_that_knows_nothing_of_memory_is_shown_none() -> None:
    """Episodes of runs that began on the first base: their prompts have no memory, no names, no thumbs."""
    from rlmemo.model.readings import PLAIN_SLOTS

    ground = dataclasses.replace(small_ground(), reading=PLAIN_SLOTS)
    field, sayer = Field(ground, REWARD), Sayer()
    moments = field.draw(2, 10, 5, np.random.default_rng(1))
    field.play(moments, PICKS, sayer)
    shown = np.concatenate(sayer.shown)
    assert shown.shape[1] == len(slots.plain(np.zeros((1, slots.PROMPT_LENGTH), np.int64))[0])
    assert (shown < slots.PLAIN_TOKENS).all()

"""Nothing that happens later reaches what is learned: changing events after t changes no prompt at or
before t, no SFT example whose answer is at or before t, and no preference when t ends the training part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.splits import Split, chrono
from env.timeline import Event, Timeline
from reward import parse_reward
from rlmemo.learning.pairs import score
from rlmemo.learning.training_data import (
    States,
    TrainingData,
    answers,
    memory_at,
    part_states,
    prompts,
    sft_examples,
)
from tests.training_ground import small_ground


def changed_after(timeline: Timeline, cut: int, seed: int) -> Timeline:
    """The same events up to `cut`; then other targets (new ones too) at other times, and more of them."""
    rng = np.random.default_rng(seed)
    events = [timeline.event(i) for i in range(cut + 1)]
    t = events[-1].t
    before = events[-1].target
    for _ in range(len(timeline) - cut + 37):
        t += float(rng.exponential(200.0)) + 0.5
        options = [x for x in (*timeline.names, "new one", "another new one") if x != before]
        before = options[rng.integers(len(options))]
        events.append(Event(t=t, target=before, kind="app"))
    made = Timeline.from_events(timeline.user, events, tz=timeline.tz, tz_known=timeline.tz_known)
    return replace(made, collapsed=True)


def grounds(share: float, seed: int) -> tuple[TrainingData, TrainingData, list[int]]:
    """The small ground, the same with changed futures, and the last unchanged event per user. Both keep
    the split of the first, and a budget in MB (the default looks at the costs of all targets)."""
    old = small_ground()
    cuts = [int(share * len(t)) for t in old.timelines]
    new = [changed_after(t, c, seed) for t, c in zip(old.timelines, cuts, strict=True)]
    world = WorldConfig(budget_mb=3200.0)
    model = cost_model("desktop")
    return (
        TrainingData.prepare(old.timelines, old.split, model, world),
        TrainingData.prepare(new, old.split, model, world),
        cuts,
    )


@pytest.mark.parametrize("share", [0.2, 0.5, 0.69])
def test_prompts_and_examples_do_not_see_the_future(share: float) -> None:
    old, new, cuts = grounds(share, seed=int(100 * share))
    for user, cut in enumerate(cuts):
        index = np.arange(cut + 1)
        states = States(np.full(len(index), user), index)
        assert np.array_equal(prompts(old, states), prompts(new, states))
        before = states[index < cut]  # their answer is event cut at the latest
        a, b = sft_examples(old, before), sft_examples(new, before)
        assert a[1:] == b[1:]


def test_the_answer_is_what_was_opened_next() -> None:
    """And the change is one that would show: beyond the cut answers do differ."""
    old, new, cuts = grounds(0.5, seed=7)
    states = part_states(old.split.train)
    right = answers(old, states)
    for user, rows in states.by_user():
        index = states.index[rows]
        slate = old.slates[user].candidates[index]
        known = right.place[rows] >= 0
        opened = old.timelines[user].target[index + 1]
        assert np.array_equal(slate[known, right.place[rows][known]], opened[known])
        assert not (slate[~known] == opened[~known, None]).any()
    after = States(np.full(50, 0), np.arange(cuts[0] + 1, cuts[0] + 51))
    assert not np.array_equal(prompts(old, after), prompts(new, after))


def test_preferences_do_not_see_beyond_the_training_part() -> None:
    old, _, _ = grounds(0.5, seed=1)
    ends = [int(train.max()) for train in old.split.train]
    changed = [changed_after(t, e, 3) for t, e in zip(old.timelines, ends, strict=True)]
    new = TrainingData.prepare(changed, old.split, cost_model("desktop"), old.world)
    states = part_states(old.split.train)
    states = states[np.linspace(50, len(states) - 1, 120).astype(int)]
    rng = np.random.default_rng(0)
    plans = []
    for user, index in zip(states.user, states.index, strict=True):
        full = np.flatnonzero(old.slates[user].candidates[index] >= 0)
        picks = rng.permutation(full)[:2]
        plans.append({(): "none", tuple((int(p), int(rng.integers(4))) for p in sorted(picks)): "sampled"})
    reward = parse_reward("net_seconds")
    for a, b in zip(score(old, states, plans, reward, 3), score(new, states, plans, reward, 3), strict=True):
        assert (a.user, a.index, a.plans) == (b.user, b.index, b.plans)
        assert np.array_equal(a.rewards, b.rewards)


def test_parts_stay_apart() -> None:
    """No training state's answer lies in validation or test."""
    ground = small_ground()
    split: Split = chrono(ground.timelines)
    states = part_states(split.train)
    for user, rows in states.by_user():
        assert states.index[rows].max() + 1 < min(split.validation[user].min(), split.test[user].min())


def opened_and_cold(n: int) -> list[tuple[int, TrainingData, TrainingData]]:
    """n moments of the first person whose next target stands in the slate and is cold, each with the ground
    as it is and the same with another future from that moment on, in which something else comes next."""
    old = small_ground()
    world = WorldConfig(budget_mb=1500.0)

    def ground(timelines: list[Timeline]) -> TrainingData:
        return TrainingData.prepare(timelines, old.split, cost_model("desktop"), world)

    here = ground(old.timelines[:1])
    warm, answer = memory_at(here, 0).warm, here.slates[0].answer
    cold = [i for i in range(150, 400) if answer[i] >= 0 and warm[i, answer[i]] == 0]
    made = []
    for cut in cold[:: max(1, len(cold) // n)][:n]:
        then = ground([changed_after(old.timelines[0], cut, cut)])
        next_ones = [g.timelines[0].names[g.timelines[0].target[cut + 1]] for g in (here, then)]
        if next_ones[0] != next_ones[1]:
            made.append((cut, here, then))
    assert len(made) > n / 2
    return made


def test_what_is_compared_does_not_depend_on_what_came_true(tmp_path: Path) -> None:
    """Another next event, and another future: the same candidates at the last moment before it, so that what
    was opened is among them whether or not it came true, or never."""
    from env.judge.plans import Plans
    from rlmemo.learning.config import make_config
    from rlmemo.learning.preference_rounds import propose_plans
    from tests.training_ground import base_of

    model, _ = base_of(tmp_path / "base")
    config = make_config({"plan_samples": 1})
    for cut, *futures in opened_and_cold(16):
        states, made = States(np.array([0]), np.array([cut])), []
        for ground in futures:
            still = [Plans.empty(len(t), 3) for t in ground.timelines]
            found, _ = propose_plans(config, model, replace(ground, plans=still), states, lambda *_: None)
            made.append(found)
        assert made[0] == made[1]


@pytest.mark.parametrize("thumbs", [0, 1])
def test_pairs_of_ratings_do_not_depend_on_what_came_true(thumbs: int) -> None:
    """What was opened after a rated plan decides neither who stands in a pair nor who wins it."""
    from rlmemo.approval.approval import fit_approval
    from rlmemo.learning.rating_rows import rating_pairs, sayable
    from tests.test_feedback import placed_at, rated_ground

    early = [p for p in rated_ground()[0] if p.index < 150]
    for cut, old, new in opened_and_cold(6):
        approval, _ = fit_approval(early, old.timelines, old.plain)
        assert approval is not None
        slate = old.slates[0].candidates[cut]
        said = [placed_at(0, cut, int(x), thumbs, k + 1) for k, x in enumerate(slate[slate >= 0])]
        made = [
            rating_pairs(sayable(said, ground), ground, approval, offset=0, limit=10**6, seed=0)
            for ground in (old, new)
        ]
        assert made[0]
        assert made[0] == made[1]

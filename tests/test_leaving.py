"""The model reads of who is in memory, and says who leaves first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from env.judge.case import Case
from env.judge.plans import FIELDS, Plans
from reward import parse_reward
from rlmemo.learning.dpo_kto import plan_text, prompt_text
from rlmemo.learning.grammar import plan_log_probs
from rlmemo.learning.pairs import Leave, naming, propose, score
from rlmemo.learning.rollout import Field
from rlmemo.learning.training_data import (
    TrainingData,
    answers,
    memory_at,
    part_states,
    prompts,
    sft_examples,
    training_part,
)
from rlmemo.learning.who_leaves import MOST, leaving, opens_until
from rlmemo.model import slots
from rlmemo.model.ask import SampledPlans, read, sample_plans, whom
from rlmemo.model.readings import reading_of, slates_of
from rlmemo.model.residents import AGO_EDGES, LISTED, ODDS_EDGES, Residents
from rlmemo.model.soon import PLACES, base_soon
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import BY_MODEL, BY_SOON, OwnPlans, Threshold, choose, own_worth, told
from tests.reference.world import World
from tests.training_ground import RandomSampler, small_ground

REWARD = parse_reward("net_seconds")


@pytest.fixture(scope="module")
def ground() -> TrainingData:
    found = small_ground().knowing(base_soon())
    assert found.names == 2
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    from rlmemo.model.load import load_model

    return load_model()[0]


def test_a_prompt_shows_who_may_leave(ground: TrainingData) -> None:
    held, timeline = memory_at(ground, 0), ground.timelines[0]
    known = Residents.of(slates_of(timeline, PLACES), np.arange(len(timeline)), base_soon())
    case = Case(timeline, ground.costs[0], ground.world, 1, len(timeline) + 1)
    states = part_states(ground.split.train)
    states = states[states.user == 0]
    shown = prompts(ground, states)
    seen = 0
    for row, i in enumerate(states.index.tolist()):
        listed = held.listed[i]
        inside = listed[listed >= 0]
        assert int(timeline.target[i]) not in inside, "what is in front does not leave"
        chance = [float(known.chance[i][known.targets[i] == x].max(initial=0.0)) for x in inside]
        worth = np.array(chance) * ((case.costs.cold_s - case.costs.warm_s) / case.costs.memory_mb)[inside]
        assert (np.diff(worth) >= 0).all(), "the least worth keeping stands first"
        for place in range(LISTED):
            word = slots.VOCABULARY[shown[row, slots.MEMORY_AT[place]]]
            if place >= len(inside):
                assert word == slots.NO_RESIDENT
                continue
            odds = np.log(chance[place] / (1 - chance[place])) if chance[place] > 0 else -np.inf
            level = np.searchsorted(ODDS_EDGES, odds, side="right") * (len(AGO_EDGES) + 1)
            letter, _, said = word.partition(":")
            assert letter == f"R{place}"
            assert level <= int(said) < level + len(AGO_EDGES) + 1
            seen += 1
    assert seen > 200
    np.testing.assert_array_equal(slots.listed(shown), held.listed[states.index] >= 0)
    bare = prompts(ground, states, cold=np.ones(len(states), bool))
    assert not slots.listed(bare).any(), "a ranking sees no memory"


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (((-3, 0), (-1, 1), (2, 0)), "R2 R0 <plan> C d0 <end>"),
        (((-8, 0),), "R7 R- <plan> <end>"),
        ((), "R- R- <plan> <end>"),
        (((0, 1), (3, 0)), "R- R- <plan> A d1 D d0 <end>"),
    ],
)
def test_a_plan_that_names_is_written_and_read_back(plan: tuple[tuple[int, int], ...], text: str) -> None:
    ids = slots.plan_ids(plan, naming=True)
    assert slots.text_of(ids) == text
    assert sorted(slots.decode_plan(ids, naming=True)) == sorted(plan)


@pytest.mark.parametrize("text", ["R2 R2 <plan> <end>", "R2 R0 A d0 <end>", "A R- <plan> <end>"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        slots.decode_plan([slots.ID[x] for x in text.split()], naming=True)


def test_a_plan_is_as_likely_as_the_trainers_think(ground: TrainingData, model: Any) -> None:
    import torch

    states = part_states(ground.split.train)[100:160]
    asked = prompts(ground, states)
    valid = np.array([[True] * 12] * len(states)) & (asked[:, slots.CANDIDATE_ENDS - 1] != slots.ID["q-"])
    valid &= asked[:, slots.CANDIDATE_ENDS] == [slots.ID[f"{x}:cold"] for x in slots.LETTERS]
    said = sample_plans(model, asked, valid, 3, 1.0, np.random.default_rng(3), names=2)
    assert said.named is not None
    both = said.named[(said.named >= 0).all(1)]
    assert len(both) > 20
    assert (both[:, 0] != both[:, 1]).all(), "nobody is named twice"
    filled = np.take_along_axis(slots.listed(asked), np.maximum(said.named, 0), axis=1)
    assert filled[said.named >= 0].all(), "only who is listed is named"
    plans = [slots.plan_ids(p, naming=True) for p in said.plans()]
    width = max(map(len, plans))
    padded = np.array([p + [slots.ID[slots.PAD]] * (width - len(p)) for p in plans])
    with torch.no_grad():
        log_p, _ = plan_log_probs(
            model, torch.from_numpy(asked[:, : slots.LEAVE_AT + 1]), torch.from_numpy(padded), 3, names=2
        )
    np.testing.assert_allclose(log_p.sum(1).numpy(), said.logp, atol=1e-4)


def test_one_may_be_named_where_one_is_allowed(ground: TrainingData, model: Any) -> None:
    asked = prompts(ground, part_states(ground.split.train)[100:140])
    none = np.zeros((40, 12), bool)
    one = sample_plans(model, asked, none, 3, 1.0, np.random.default_rng(0), names=1)
    assert one.named is not None
    assert one.named.shape == (40, 1)
    assert (one.named >= 0).any()
    assert sample_plans(model, asked, none, 3, 1.0, np.random.default_rng(0)).named is None


def test_when_each_is_opened_again() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 9, 300)
    rows, listed = rng.integers(0, 299, 40), rng.integers(-1, 10, (40, 5))
    found = opens_until(target, rows, listed)
    for d, i in enumerate(rows):
        for k, x in enumerate(listed[d]):
            later = np.flatnonzero(target[i + 1 :] == x)
            assert found[d, k] == (later[0] + 1 if len(later) else MOST)


def test_who_is_opened_last_may_always_leave() -> None:
    wait = np.array([[3.0, 50.0, MOST, -1.0], [4.0, 5.0, 2.0, -1.0], [-1.0, -1.0, -1.0, -1.0]] * 50)
    right, chosen = leaving(wait, 2, np.random.default_rng(1))
    assert right[::3, 0, 2].all()
    assert 0 < right[::3, 0, 1].sum() < 50, "within ten or thirty opens it is as good"
    assert not right[::3, 0, 0].any()
    assert (chosen[1::3] == [1, 0]).all(), "all are soon: the last, then the last but one"
    assert (chosen[2::3] == -1).all()
    assert not right[:, :, 3].any()


def test_sft_learns_who_leaves_where_memory_is_shown(ground: TrainingData) -> None:
    states = part_states(ground.split.train)[80:180]
    _, inputs, labels = sft_examples(ground, states, seed=3)
    right = answers(ground, states)
    assert right.wait is not None
    named = 0
    for row in range(len(states)):
        at = slots.LEAVE_AT + 1
        assert labels[row][slots.LEAVE_AT] == slots.WHEN_IDS[right.when[row]]
        assert labels[row][slots.PLAN_AT] == -100, "where the picks begin is no answer"
        assert labels[row][slots.PLAN_AT + 1 :] == inputs[row][slots.PLAN_AT + 1 :]
        said = inputs[row][at : slots.PLAN_AT]
        if row % 2 == 1:
            assert said == [slots.NOBODY_ID] * 2
        for k, token in enumerate(said):
            learned = labels[row][at + k]
            assert learned == (-100 if token == slots.NOBODY_ID else token)
            if token != slots.NOBODY_ID:
                place = token - int(slots.RESIDENT_IDS[0])
                assert right.wait[row, place] >= min(10, right.wait[row].max()) or k > 0
                named += 1
    assert named > 60


def test_preferences_are_asked_before_who_leaves() -> None:
    prompt = np.arange(slots.PROMPT_LENGTH) % 7
    whole = prompt_text(prompt, naming=True) + plan_text(((-2, 0), (4, 1)), naming=True)
    assert whole.split()[: slots.LEAVE_AT + 1] == slots.text_of(prompt[: slots.LEAVE_AT + 1]).split()
    assert whole.split()[slots.LEAVE_AT + 1 :] == ["R1", "R-", "<plan>", "E", "d1", "<end>"]
    assert prompt_text(prompt) + plan_text(((4, 1),)) == slots.text_of(prompt) + " E d1 <end>"


def readable(
    case: Case, said: dict[int, tuple[list[tuple[int, int]], list[int]]], begin: int = 0
) -> np.ndarray:
    """Records of the whole timeline in plain Python: float64 [n, FIELDS]. said: by decision, (target, delay)
    pairs and who leaves first; at every other decision from `begin` on those leave first that are least worth
    keeping, and nothing is loaded."""
    assert case.worth is not None
    world, timeline = World(case.costs, case.world), case.timeline
    per_mb = (case.costs.cold_s - case.costs.warm_s) / np.array(world.memory)
    records = []
    for j in range(len(timeline)):
        records.append(world.open(int(timeline.target[j]), float(timeline.t[j])))
        knows = dict(zip(case.worth[0][j].tolist(), case.worth[1][j].tolist(), strict=True))
        worth = [(knows.get(x, 0.0) * per_mb[x], k, x) for k, x in enumerate(world.resident)
                 if x != world.foreground]  # fmt: skip
        least = [x for _, _, x in sorted(worth)[:2]] if j >= begin else []
        if j < len(timeline) - 1:
            world.plan(*said.get(j, ([], least)))
    records[-1] = records[-1] + world.finish()
    return np.array(records)


def test_a_name_is_worth_what_the_readable_world_says(ground: TrainingData) -> None:
    states = part_states(ground.split.train)
    states = states[np.flatnonzero(states.user == 0)[60:400:40]]
    held = memory_at(ground, 0)
    others = {(): "nobody", (3,): "swap", (2, 1): "drawn", (0, 1): "least worth"}
    slates = ground.slates[0].candidates[states.index]
    picked = propose(
        np.zeros((len(states), 13)), slates, held.warm[states.index], RandomSampler(1), picks=3, samples=1
    )
    made = [naming(plans, Leave((1, 0), others)) for plans in picked]
    for plans in made:
        assert {(), ((-4, 0),), ((-3, 0), (-2, 1)), ((-2, 0), (-1, 1))} <= set(plans)
    found = score(ground, states, made, REWARD, 3)
    case = training_part(ground, 0)
    still = readable(case, {}) @ REWARD.weights(FIELDS)
    differ = 0
    for s in found:
        assert s.rewards[s.plans.index(((-2, 1), (-1, 0)))] == 0.0, "keeping still names those"
        for plan in s.plans[:: max(1, len(s.plans) // 6)]:
            picks = [(int(ground.slates[0].candidates[s.index, p]), d) for p, d in plan if p >= 0]
            names = [int(held.listed[s.index, -1 - r]) for r, _ in sorted(plan, key=lambda x: x[1]) if r < 0]
            effect = readable(case, {s.index: (picks, names)}) @ REWARD.weights(FIELDS) - still
            assert s.rewards[s.plans.index(plan)] == pytest.approx(effect.sum(), abs=1e-6)
            differ += abs(effect.sum()) > 1e-9
    assert differ > 10


@pytest.mark.parametrize("way", [Threshold(0.05, BY_MODEL), OwnPlans(BY_MODEL)])
def test_naming_all_at_once_is_naming_one_by_one(ground: TrainingData, model: Any, way: Any) -> None:
    policy = LanguagePolicy(model)
    case = replace(
        told(policy, ground.cases(ground.split.validation)[0]), world=replace(ground.world, budget_targets=4)
    )
    case = replace(case, stop=case.start + 60)
    case = told(policy, case)
    found = way.plan(policy, case)
    named = found.let_go >= 0
    assert named.sum() > 60
    how, indices = reading_of(model), case.indices
    slates = how.look(case.timeline, indices)
    known = Residents.of(slates_of(case.timeline, PLACES), indices, base_soon())
    ranking = policy.rank(case.timeline, indices)
    plans = Plans.empty(len(case), 3, 2)
    for d in range(len(case)):
        if isinstance(way, Threshold):
            earlier = case.replay_ranked(ranking, way.theta, plans.let_go)[1]
            plans.target[:] = earlier.target
        else:
            plans.target[d:] = -1
        warm, free, listed = case.memory(slates.candidates, plans, residents=LISTED)
        rows = indices[d : d + 1]
        levels = known.levels(np.array([d]), listed[d : d + 1])
        asked = how.prompts(case.timeline, slates, rows, warm[d : d + 1], free[d : d + 1], levels)
        if isinstance(way, Threshold):
            leave = read(model, asked).leave
            assert leave is not None
            places = np.argsort(-np.where(listed[d] >= 0, leave[0, :-1], -np.inf), kind="stable")[:2]
            plans.let_go[d] = [listed[d][p] if listed[d][p] >= 0 else -1 for p in places]
            continue
        valid = (slates.candidates[rows] >= 0) & (warm[d : d + 1] == 0)
        said = sample_plans(model, asked, valid, 3, 0.0, np.random.default_rng(0), names=2)
        assert said.named is not None
        picked = said.place[0] >= 0
        plans.target[d] = np.where(picked, slates.candidates[rows[0], said.place[0]], -1)
        plans.delay[d] = np.where(picked, said.delay[0], 0)
        plans.let_go[d] = whom(listed[d : d + 1], said.named)[0]
    np.testing.assert_array_equal(found.let_go, plans.let_go)
    np.testing.assert_array_equal(found.target, plans.target)
    soon = Threshold(0.05, BY_SOON).plan(policy, case)
    assert (soon.let_go != found.let_go).any(), "it says something of its own"


def test_own_plans_are_worth_what_chose_them(ground: TrainingData, model: Any) -> None:
    """Also where the case was told who is opened soon: plans that name nobody are not credited with names."""
    policy = LanguagePolicy(model)
    world = replace(ground.world, budget_targets=4)
    cases = [replace(c, world=world, stop=c.start + 60) for c in ground.cases(ground.split.validation)]
    told_of = [told(policy, c) for c in cases]
    assert (OwnPlans().plan(policy, told_of[0]).let_go < 0).all()
    choice = choose(policy, cases, [policy.rank(c.timeline, c.indices) for c in cases], REWARD, own=True)
    opens = sum(map(len, cases))
    for way in (choice.own_by, OwnPlans(), OwnPlans(BY_SOON), OwnPlans(BY_MODEL)):
        worth = own_worth(policy, cases, REWARD, way) / opens
        assert worth == pytest.approx(own_worth(policy, told_of, REWARD, way) / opens)
        assert choice.own >= worth - 1e-9
        assert (way != choice.own_by) or choice.own == pytest.approx(worth)


def test_an_episode_is_credited_with_who_leaves(ground: TrainingData) -> None:
    field = Field(ground, REWARD)
    rng = np.random.default_rng(5)

    def say(asked: np.ndarray, free: np.ndarray) -> SampledPlans:
        n = len(asked)
        named = np.full((n, 2), -1)
        for row, there in enumerate(slots.listed(asked)):
            chosen = rng.permutation(np.flatnonzero(there))[:2]
            named[row, : len(chosen)] = chosen
        first = np.full((n, 13), 1 / 13)
        place = np.full((n, 3), -1)
        for row in np.flatnonzero(free.any(1))[::3]:
            place[row, 0] = np.flatnonzero(free[row])[0]
        return SampledPlans(place, np.zeros((n, 3), np.int64), np.zeros(n), first, named)

    moments = field.draw(3, 30, 30, np.random.default_rng(1))
    rollout = field.play(moments, 3, say)
    assert (rollout.named >= 0).any()
    still = (rollout.place < 0).all(1)
    assert np.ptp(rollout.reward[still]) > 0, "where nothing is loaded early, who leaves counts"
    for lane in range(3):
        user, first = int(moments.user[lane, 0]), int(moments.index[lane, 0])
        case, rows = field.cases[user], slice(30 * lane, 30 * lane + 30)
        whole = Plans.empty(len(case.timeline), 3, 2)
        known = ground.residents[user] if ground.residents else None
        assert known is not None
        for d in range(30):
            i = first + d
            here = Case(case.timeline, case.costs, case.world, first + 1, first + d + 2, user, case.worth)
            plans = Plans(
                whole.target[first : i + 1], whole.delay[first : i + 1], whole.let_go[first : i + 1]
            )
            listed = here.memory(ground.slates[user].candidates, plans, residents=LISTED)[2][-1]
            shown = rollout.prompts[30 * lane + d, slots.MEMORY_AT]
            levels = known.levels(np.array([i]), listed[None])
            np.testing.assert_array_equal(shown, slots.memory_ids(levels)[0])
            place = rollout.place[30 * lane + d]
            slate = ground.slates[user].candidates[i]
            whole.target[i] = np.where(place >= 0, slate[np.maximum(place, 0)], -1)
            whole.let_go[i] = whom(listed[None], rollout.named[30 * lane + d][None])[0]
        said = {
            i: (
                [(int(x), int(d)) for x, d in zip(whole.target[i], whole.delay[i], strict=True) if x >= 0],
                [int(x) for x in whole.let_go[i] if x >= 0],
            )
            for i in range(first, first + 30)
        }
        found = readable(case, said, first) - readable(case, {}, first)
        assert rollout.reward[rows].sum() == pytest.approx(found.sum(0) @ field.weights, abs=1e-6)

"""Whom a plan lets go first: what says who is opened soon, and the judge's naming by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.case import Case, cases
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, Plans
from env.ranking import Ranking
from env.slate.slate import build_slates
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Event, Timeline
from reward import parse_reward
from rlmemo.model.soon import (
    PLACES,
    SOON,
    base_soon,
    candidate_rows,
    fit_soon,
    load_soon,
    save_soon,
    soon_after,
    soon_of,
)
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.planners import BY_SOON, OwnPlans, Threshold, choose, choose_threshold, from_json, told
from tests.reference.world import World

REWARD = parse_reward("net_seconds")


class Telling(CountingPolicy):
    """A counting rule that also says, at random but always the same, who is opened soon."""

    def soon(self, timeline: Timeline, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        targets = build_slates(timeline, PLACES).candidates[indices]
        chance = np.stack([np.random.default_rng([7, int(i)]).random(PLACES) for i in indices])
        return targets, np.where(targets >= 0, chance.round(1), 0.0)  # rounded: there are ties


def some_cases(world: WorldConfig, users: int = 2, costs: str = "varied") -> tuple[list[Case], list[Ranking]]:
    timelines = load_timelines("demo", weeks=2).timelines[:users]
    arrays = [cost_model(costs).arrays(x) for x in timelines]
    found = cases(timelines, arrays, world, chrono(timelines).test)
    policy = CountingPolicy("markov1")
    return found, [policy.rank(c.timeline, c.indices) for c in found]


@pytest.mark.parametrize(
    "world",
    [
        WorldConfig(budget_targets=4), WorldConfig(budget_targets=3, max_let_go=5, let_go="lfu-decay"),
        WorldConfig(budget_targets=3, off_after_s=7200.0, close_after_s=3600.0),
    ],
)  # fmt: skip
def test_the_judge_names_who_a_plain_reading_would(world: WorldConfig) -> None:
    (case,), (ranking,) = some_cases(world, 1)
    case = told(Telling("markov1"), case)
    outcomes, plans = case.replay_ranked(ranking, 0.08, names=True)
    assert case.worth is not None
    listed, chance = case.worth
    readable = World(case.costs, world)
    per_mb = (case.costs.cold_s - case.costs.warm_s) / np.array(readable.memory)
    for j in range(case.stop):
        readable.open(int(case.timeline.target[j]), float(case.timeline.t[j]))
        d = j - case.start + 1
        if not 0 <= d < len(case):
            continue
        knows = dict(zip(listed[j].tolist(), chance[j].tolist(), strict=True))
        worth = [(knows.get(x, 0.0) * per_mb[x], k, x) for k, x in enumerate(readable.resident)
                 if x != readable.foreground]  # fmt: skip
        expected = [x for _, _, x in sorted(worth)[: world.max_let_go]]
        named = plans.let_go[d]
        assert named[named >= 0].tolist() == expected
        readable.plan([(int(x), 0) for x in plans.target[d] if x >= 0], named[named >= 0].tolist())
    again = case.replay(plans)
    np.testing.assert_array_equal(outcomes.table, again.table)
    np.testing.assert_array_equal(outcomes.outcome, again.outcome)
    named_in_walk = Plans(plans.target, plans.delay, np.full_like(plans.let_go, -1))
    case.memory(np.zeros((len(case.timeline), 1), np.int32), named_in_walk, names=True)
    np.testing.assert_array_equal(named_in_walk.let_go, plans.let_go)
    assert (plans.let_go >= 0).any(0).all()
    swept = case.sweep(ranking, [0.08, 2.0], names=True)
    np.testing.assert_array_equal(swept[0], outcomes.table[case.start : case.stop])
    assert not np.array_equal(swept[1], case.sweep(ranking, [2.0])[0]), "who leaves changes what is cold"


def test_a_case_that_is_told_nothing_names_nobody() -> None:
    (case,), (ranking,) = some_cases(WorldConfig(), 1)
    assert told(CountingPolicy("markov1"), case) is case
    none = case.under(WorldConfig(max_let_go=0))
    assert told(Telling("markov1"), none) is none
    assert case.replay_ranked(ranking, 0.1)[1].let_go.shape == (len(case), 0)
    with pytest.raises(ValueError, match="told nothing"):
        case.replay_ranked(ranking, 0.1, names=True)


def test_naming_is_chosen_where_it_earns_more_and_kept_in_the_plan_file(tmp_path: Path) -> None:
    found, rankings = some_cases(WorldConfig(), 2, "desktop")

    class Knowing(CountingPolicy):
        """Knows who is opened soon, which nobody does."""

        def soon(self, timeline: Timeline, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            slates = build_slates(timeline, PLACES)
            ahead = np.append(timeline.target, np.full(SOON, -2))
            known = soon_after(ahead, slates.candidates, indices)
            return slates.candidates[indices], np.where(known, 0.9, 0.1) * (slates.candidates[indices] >= 0)

    class Wrong(Knowing):
        """Is always wrong."""

        def soon(self, timeline: Timeline, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            targets, chance = super().soon(timeline, indices)
            return targets, np.where(targets >= 0, 1.0 - chance, 0.0)

    plain, least = choose_threshold(found, rankings, REWARD)
    knowing = choose(Knowing("markov1"), found, rankings, REWARD)
    assert isinstance(knowing.planner, Threshold)
    assert knowing.planner.names
    assert not plain.names
    assert knowing.threshold[1] * sum(map(len, found)) > least + 5.0
    wrong = choose(Wrong("markov1"), found, rankings, REWARD)
    assert wrong.planner == plain
    for planner in (knowing.planner, plain, OwnPlans(BY_SOON), OwnPlans()):
        assert from_json(planner.to_json(), tmp_path) == planner
    # What is planned by it is what it was chosen by.
    made = [
        knowing.planner.plan(Knowing("markov1"), c, ranking=r) for c, r in zip(found, rankings, strict=True)
    ]
    tables = [c.replay(p).table for c, p in zip(found, made, strict=True)]
    earned = sum(float((t @ REWARD.weights(FIELDS)).sum()) for t in tables)
    assert earned == pytest.approx(knowing.threshold[1] * sum(map(len, found)))


def test_the_next_ten_opens_are_soon() -> None:
    target = np.array([0, 1, 2, 0, *[3] * 8, 4, 5], np.int32)
    candidates = np.tile(np.array([[0, 1, 3, 4, 5, -1]], np.int32), (len(target), 1))
    found = soon_after(target, candidates, np.array([0, 2]))
    assert found.tolist() == [
        [True, True, True, False, False, False],
        [True, False, True, True, False, False],
    ]


def test_trees_say_what_lightgbm_says() -> None:
    timeline = load_timelines("demo", weeks=2).timelines[0]
    slates, rows = build_slates(timeline, PLACES), np.arange(50, 90)
    shipped = base_soon()
    said = shipped.log_odds(slates, rows).ravel()
    np.testing.assert_allclose(said, shipped.booster.predict(candidate_rows(slates, rows), raw_score=True))
    targets, chance = shipped.told(slates, rows)
    np.testing.assert_array_equal(targets, slates.candidates[rows])
    assert ((chance > 0) == (targets >= 0)).all()
    assert (chance < 1).all()


def test_the_shipped_trees_know_strangers() -> None:
    """On invented people that they were not fitted on they part what is opened soon from what is not."""
    for timeline in load_timelines("demo", weeks=3).timelines[:3]:
        slates, rows = build_slates(timeline, PLACES), np.arange(200, len(timeline) - 1 - SOON)
        targets, chance = base_soon().told(slates, rows)
        soon = soon_after(timeline.target, slates.candidates, rows)[targets >= 0]
        order = np.argsort(chance[targets >= 0])
        ranks = np.empty(len(order))
        ranks[order] = np.arange(1, len(order) + 1)
        m, n = int(soon.sum()), len(soon)
        auc = (ranks[soon].sum() - m * (m + 1) / 2) / (m * (n - m))
        assert auc > 0.7


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, list[Timeline], list[np.ndarray]]:
    timelines = load_timelines("demo", weeks=3).timelines[:2]
    train = [np.arange(len(x) * 7 // 10, dtype=np.int64) for x in timelines]
    slates = [build_slates(x, PLACES) for x in timelines]
    return fit_soon(slates, [x.target for x in timelines], train, seed=0), timelines, train


def test_a_fit_reads_the_training_part_alone(fitted: tuple[Any, list[Timeline], list[np.ndarray]]) -> None:
    soon, timelines, train = fitted
    changed = []
    for timeline, rows in zip(timelines, train, strict=True):
        cut = int(rows.max()) + 2  # the last decision's answer is known
        rng = np.random.default_rng(3)
        rest = [Event(float(timeline.t[i]), str(rng.choice(timeline.names)), "app")
                for i in range(cut, len(timeline))]  # fmt: skip
        events = [timeline.event(i) for i in range(cut)] + rest
        changed.append(Timeline.from_events(timeline.user, events, tz=timeline.tz))
    slates = [build_slates(x, PLACES) for x in changed]
    again = fit_soon(slates, [x.target for x in changed], train, seed=0)
    rows = np.arange(60, 80)
    first = build_slates(timelines[0], PLACES)
    np.testing.assert_array_equal(again.log_odds(first, rows), soon.log_odds(first, rows))
    assert soon.below is base_soon()


def test_a_fit_is_kept_and_a_damaged_one_refused(
    fitted: tuple[Any, list[Timeline], list[np.ndarray]], tmp_path: Path
) -> None:
    soon, timelines, _ = fitted
    save_soon(soon, tmp_path)
    slates, rows = build_slates(timelines[0], PLACES), np.arange(10, 40)
    read = load_soon(tmp_path)
    np.testing.assert_array_equal(read.log_odds(slates, rows), soon.log_odds(slates, rows))
    assert load_soon(tmp_path / "nothing") is base_soon()
    (tmp_path / "soon.txt").write_text("tree\nnonsense")
    with pytest.raises(InputError, match=r"soon\.txt"):
        load_soon(tmp_path)


def test_too_little_to_learn_from_leaves_the_shipped_trees() -> None:
    timeline = load_timelines("demo", weeks=1).timelines[0]
    slates = build_slates(timeline, PLACES)
    assert fit_soon([slates], [timeline.target], [np.arange(60)], seed=0) is base_soon()
    assert soon_of(object()) is base_soon()


@pytest.mark.slow
def test_own_plans_name_who_leaves_as_if_made_one_by_one() -> None:
    from rlmemo.model.load import load_model
    from rlmemo.policies.language import LanguagePolicy

    timeline = load_timelines("demo", weeks=1).timelines[0]
    costs = cost_model("desktop").arrays(timeline)
    case = Case(timeline, costs, WorldConfig(budget_targets=3), 61, 110)
    policy = LanguagePolicy(load_model()[0], temperature=1.5)
    planned = OwnPlans(BY_SOON).plan(policy, case, seed=5)
    assert (planned.target >= 0).any()
    assert (planned.let_go >= 0).any()
    assert OwnPlans().plan(policy, case, seed=5).let_go.shape[1] == 0
    # Up to a decision nothing depends on what comes after it.
    shorter = replace(case, stop=90)
    earlier = OwnPlans(BY_SOON).plan(policy, shorter, seed=5)
    np.testing.assert_array_equal(earlier.let_go, planned.let_go[: len(shorter)])
    np.testing.assert_array_equal(earlier.target, planned.target[: len(shorter)])

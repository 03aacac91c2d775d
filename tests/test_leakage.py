"""No leakage: what happens after time t changes nothing that was said at or before t.

Two timelines share their first events and differ in everything after: targets, new targets, kinds, times,
and length. Slates, rankings, probabilities, predicted delays and plans for every decision in the shared
part must be identical, for every policy in the registry that does not know the future by profession.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.slate.slate import CONTEXT, FEATURES, build_slates
from env.sources import load_timelines
from env.splits import Split, chrono
from env.timeline import Event, Timeline, collapse
from rlmemo.policies import sequence
from rlmemo.policies.protocol import stream_of
from rlmemo.policies.registry import POLICIES, make_policy

CLAIRVOYANT = {"oracle"}
SLOW = {"sb3"}


def futures(shared: int = 260, total: int = 400) -> tuple[list[Timeline], int]:
    """A demo timeline with three different endings after its first `shared` events."""
    base = load_timelines("demo", weeks=2).timelines[0]
    events = [base.event(i) for i in range(min(total, len(base)))]
    rng = np.random.default_rng(11)
    past, rest = events[:shared], events[shared:]
    names = sorted({e.target for e in events})
    swapped = [
        Event(e.t, str(rng.choice(names)), e.kind, None if e.duration is None else e.duration * 2, e.device)
        for e in rest
    ]
    new = [
        Event(e.t + 86_400 * (k + 1), f"www.never-seen-{k % 7}.org", "page", 5.0, "other")
        for k, e in enumerate(rest)
    ]
    again = [Event(e.t, past[k % 5].target, "page") for k, e in enumerate(rest)]
    endings = [rest, swapped, new, again, rest[:2]]
    return [
        collapse(Timeline.from_events("u", past + ending, tz=base.tz, tz_known=True)) for ending in endings
    ], shared


@pytest.fixture(scope="module")
def endings() -> tuple[list[Timeline], int]:
    """The timelines, and how many collapsed events all of them share for sure."""
    timelines, shared = futures()
    common = min(len(t) for t in timelines)
    same = 0
    while same < min(common, shared) and all(
        t.t[same] == timelines[0].t[same]
        and t.names[t.target[same]] == timelines[0].names[timelines[0].target[same]]
        for t in timelines
    ):
        same += 1
    assert same > 200
    return timelines, same


def named(timeline: Timeline, targets: np.ndarray) -> list[Any]:
    """Target ids as names, so that timelines can be compared."""
    return [[None if x < 0 else timeline.names[x] for x in row] for row in targets]


def test_slates_know_the_past_alone(endings: tuple[list[Timeline], int]) -> None:
    timelines, same = endings
    first = build_slates(timelines[0])
    for other in timelines[1:]:
        slates = build_slates(other)
        np.testing.assert_array_equal(slates.candidates[:same], first.candidates[:same])
        np.testing.assert_array_equal(slates.features[:same], first.features[:same])
        np.testing.assert_array_equal(slates.context[:same], first.context[:same])
        # The answer is the label: it looks one event ahead, and no further.
        np.testing.assert_array_equal(slates.answer[: same - 1], first.answer[: same - 1])


@pytest.mark.parametrize("name", sorted(set(POLICIES) - CLAIRVOYANT - SLOW))
def test_rankings_know_the_past_alone(
    name: str, endings: tuple[list[Timeline], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence, "EPOCHS", 2)  # a network that has learned little must not look ahead either
    timelines, same = endings
    policy = make_policy(name)
    others = load_timelines("demo", weeks=2).timelines[1:3]
    policy.fit(others, chrono(others), seed=0)
    check(policy, timelines, same)


def check(policy: Any, timelines: list[Timeline], same: int) -> None:
    indices = np.arange(40, same)
    first = policy.rank(timelines[0], indices)
    for other in timelines[1:]:
        ranking = policy.rank(other, indices)
        assert named(other, ranking.targets) == named(timelines[0], first.targets)
        # A forward pass in another batch may round otherwise in its last digits.
        np.testing.assert_allclose(ranking.probability, first.probability, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(ranking.none, first.none, rtol=1e-5, atol=1e-6)
        if first.delay_s is not None:
            np.testing.assert_array_equal(ranking.delay_s, first.delay_s)
        assert (ranking.when is None) == (first.when is None)
        if first.when is not None:
            np.testing.assert_allclose(ranking.when, first.when, rtol=1e-5, atol=1e-7)
        ask, ask_first = stream_of(policy, other), stream_of(policy, timelines[0])
        for i in (50, same - 1):
            assert named(other, ask(i).targets) == named(timelines[0], ask_first(i).targets)
    if hasattr(policy, "plan"):
        config = WorldConfig(budget_mb=3200.0)
        a, b = int(indices[-60]) + 1, int(indices[-1]) + 2
        costs = cost_model("desktop")
        plans = [policy.plan(Case(t, costs.arrays(t), config, a, b), seed=3) for t in timelines]
        for timeline, planned in zip(timelines[1:], plans[1:], strict=True):
            assert named(timeline, planned.target) == named(timelines[0], plans[0].target)
            picked = planned.target >= 0
            np.testing.assert_array_equal(planned.delay[picked], plans[0].delay[plans[0].target >= 0])
            np.testing.assert_allclose(planned.propensity, plans[0].propensity, rtol=1e-6)


def test_the_fit_reads_training_and_validation_alone() -> None:
    """The gradient-boosted ranker fitted on timelines with different test parts is the same ranker."""
    timelines = load_timelines("demo", weeks=2).timelines[:1]
    split = chrono(timelines)
    cut = int(split.test[0][0])
    probe = np.arange(cut - 25, cut - 1)
    found = []
    for seed in (None, 1, 2):
        one = timelines[0]
        if seed is not None:
            rng = np.random.default_rng(seed)
            rest = [Event(float(one.t[i]), str(rng.choice(one.names)), "app") for i in range(cut, len(one))]
            one = Timeline.from_events("u", [one.event(i) for i in range(cut)] + rest, tz=one.tz)
        policy = make_policy("gbdt")
        policy.fit([one], Split("chrono", split.train, split.validation, split.test), seed=0)
        ranking = policy.rank(one, probe)
        found.append((named(one, ranking.targets), ranking.probability))
    for targets, p in found[1:]:
        assert targets == found[0][0]
        np.testing.assert_array_equal(p, found[0][1])


def test_a_planner_on_the_judge_knows_the_past_alone(endings: tuple[list[Timeline], int]) -> None:
    timelines, same = endings
    chosen = []
    for timeline in timelines:
        costs = cost_model("desktop").arrays(timeline)
        policy = make_policy("markov1")
        stop = len(timeline)
        ranking = policy.rank(timeline, np.arange(99, stop - 1))
        case = Case(timeline, costs, WorldConfig(budget_mb=1600.0), 100, stop)
        picks = case.replay_ranked(ranking, 0.1)[1].target
        chosen.append(named(timeline, picks[: same - 1 - 99]))
    assert any(any(row) for row in chosen[0])
    for other in chosen[1:]:
        assert other == chosen[0]


@pytest.mark.slow
def test_stable_baselines_plans_know_the_past_alone(endings: tuple[list[Timeline], int]) -> None:
    pytest.importorskip("stable_baselines3")
    from rlmemo.policies.sb3 import Sb3Policy

    timelines, same = endings
    policy = Sb3Policy(steps=512)
    others = load_timelines("demo", weeks=2).timelines[1:2]
    policy.fit(others, chrono(others), seed=0)
    check(policy, timelines, same)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_language_policy_knows_the_past_alone(
    temperature: float, endings: tuple[list[Timeline], int]
) -> None:
    """The embedded base model, its ranking and its own plans, greedy and sampled."""
    from rlmemo.model.load import load_model
    from rlmemo.policies.language import LanguagePolicy

    timelines, same = endings
    check(LanguagePolicy(load_model()[0], temperature=temperature), timelines[:3], same)


def test_a_wake_knows_the_past_and_its_own_clock_alone(endings: tuple[list[Timeline], int]) -> None:
    """Looked at two hours after every event, whatever comes later, the moments are the same; and they are
    others than right after the event."""
    timelines, same = endings
    later = [replace(x, now=x.t + 7200.0) for x in timelines]
    slates = [build_slates(x) for x in later]
    for other in slates[1:]:
        np.testing.assert_array_equal(other.candidates[:same], slates[0].candidates[:same])
        np.testing.assert_array_equal(other.features[:same], slates[0].features[:same])
        np.testing.assert_array_equal(other.context[:same], slates[0].context[:same])
    at_once = build_slates(timelines[0])
    hour = CONTEXT.index("hour")
    moved = (slates[0].context[:same, hour] - at_once.context[:same, hour]) % 24.0
    np.testing.assert_allclose(moved, 2.0, atol=1e-4)
    # What is counted is what the event left; the clock alone has moved.
    counted = [FEATURES.index(x) for x in ("share1", "frequency", "log_events_ago")]
    places = (slates[0].candidates == at_once.candidates).all(axis=1)[:same]
    assert places.any()
    np.testing.assert_array_equal(
        slates[0].features[:same][places][:, :, counted], at_once.features[:same][places][:, :, counted]
    )
    # Whoever looks at one wake does not change the next moments.
    once = timelines[0].t.copy()
    once[100] += 7200.0
    one = build_slates(replace(timelines[0], now=once))
    np.testing.assert_array_equal(one.features[101:], at_once.features[101:])
    np.testing.assert_array_equal(one.features[100], slates[0].features[100])


@pytest.mark.parametrize("name", ["markov1", "gbdt", "base"])
def test_rankings_at_a_wake_know_the_past_alone(name: str, endings: tuple[list[Timeline], int]) -> None:
    timelines, same = endings
    policy = make_policy(name)
    others = load_timelines("demo", weeks=2).timelines[1:3]
    policy.fit(others, chrono(others), seed=0)
    indices = np.arange(200, same, 5)
    at_once = policy.rank(timelines[0], indices)
    woken = [replace(x, now=x.t + 30000.0) for x in timelines]
    first = policy.rank(woken[0], indices)
    for other in woken[1:]:
        ranking = policy.rank(other, indices)
        assert named(other, ranking.targets) == named(woken[0], first.targets)
        np.testing.assert_allclose(ranking.probability, first.probability, rtol=1e-5, atol=1e-7)
    # A count has no clock; the others say something else in the morning than at night.
    assert np.array_equal(first.probability, at_once.probability) == (name == "markov1")

"""The gradient-boosted ranker: how good, how deterministic, and what it does with next to nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Event, Timeline
from rlmemo import benchmark
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.evaluation.metrics import calibration
from rlmemo.policies import gbdt
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.gbdt import GbdtPolicy


@pytest.fixture(scope="module")
def on_webtrackr(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], GbdtPolicy]:
    """The benchmark's JSON, and the policy that it fitted: as long a fit is done once."""
    fitted: list[GbdtPolicy] = []
    fit = GbdtPolicy.fit

    def noted(policy: GbdtPolicy, *given: Any, **more: Any) -> None:
        fit(policy, *given, **more)
        fitted.append(policy)

    out = tmp_path_factory.mktemp("webtrackr") / "out.json"
    named = ["--timelines", "webtrackr", "--policies", "mfu,mru,markov1,backoff3,gbdt"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GbdtPolicy, "fit", noted)
        patch.setattr("rlmemo.model.soon.ROUNDS", 8)  # who leaves is not looked at
        assert benchmark.main([*named, "--json", str(out), "--quiet"]) == 0
    (policy,) = fitted
    return json.loads(out.read_text()), policy


@pytest.mark.real_data
@pytest.mark.slow
def test_webtrackr_gives_the_numbers_of_the_issue(on_webtrackr: tuple[dict[str, Any], GbdtPolicy]) -> None:
    data, _ = on_webtrackr
    assert data["n_events"] == 2856
    table = {
        "mfu": (0.232, 0.353, 0.400, 0.297),
        "mru": (0.271, 0.413, 0.481, 0.350),
        "markov1": (0.293, 0.435, 0.503, 0.370),
        "backoff3": (0.280, 0.423, 0.490, 0.357),
    }
    for name, expected in table.items():
        found = [data["policies"][name][m]["value"] for m in ("hr@1", "hr@3", "hr@5", "mrr@5")]
        assert tuple(round(x, 3) for x in found) == expected
    assert data["policies"]["gbdt"]["hr@1"]["value"] >= 0.330
    assert data["policies"]["gbdt"]["hr@5"]["value"] >= 0.585
    assert data["differences"]["gbdt"]["hr@1"]["ci95"][0] > 0


@pytest.mark.real_data
@pytest.mark.slow
def test_reaches_what_the_issue_asks_for_on_webtrackr(
    on_webtrackr: tuple[dict[str, Any], GbdtPolicy],
) -> None:
    timelines = load_timelines("webtrackr").timelines
    split = chrono(timelines)
    policy = on_webtrackr[1]
    rankings = [policy.rank(t, test - 1) for t, test in zip(timelines, split.test, strict=True)]
    answers = np.concatenate([t.target[test] for t, test in zip(timelines, split.test, strict=True)])
    targets = np.concatenate([r.targets for r in rankings])
    right = targets == answers[:, None]
    assert len(right) == 2856
    assert right[:, :1].any(1).mean() >= 0.330
    assert right[:, :5].any(1).mean() >= 0.585
    draws = Draws(np.arange(len(answers)), np.zeros(len(answers), np.int64), replicates=50)
    for ranking, timeline, test in zip(rankings, timelines, split.test, strict=True):
        assert ranking.probability.sum(1).max() <= 1 + 1e-5
        assert len(ranking) == len(test)
        assert not (ranking.targets == timeline.target[test - 1][:, None]).any()
    joined = type(rankings[0])(
        targets,
        np.concatenate([r.probability for r in rankings]),
        np.concatenate([r.none for r in rankings]),
    )
    assert calibration(joined, answers, draws).ece.value < 0.05


def test_same_seed_same_ranking_and_better_than_a_coin() -> None:
    timelines = load_timelines("demo", weeks=2).timelines[:2]
    split = chrono(timelines)
    found = []
    for _ in range(2):
        policy = GbdtPolicy()
        policy.fit(timelines, split, seed=7)
        assert policy.note == ""
        found.append(policy.rank(timelines[0], split.test[0] - 1))
    np.testing.assert_array_equal(found[0].targets, found[1].targets)
    np.testing.assert_array_equal(found[0].probability, found[1].probability)
    answers = timelines[0].target[split.test[0]]
    assert (found[0].targets[:, 0] == answers).mean() > 0.2
    total = found[0].probability.sum(1) + found[0].none
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_of_very_many_people_some_are_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by the seed; the others are ranked all the same, and it is said."""
    monkeypatch.setattr(gbdt, "MOST_DECISIONS", 500)
    assert gbdt.some_people([200, 300], 0) == [0, 1]
    drawn = [gbdt.some_people([100] * 20, seed) for seed in range(9)]
    assert all(x == sorted(set(x)) and len(x) in (5, 6) for x in drawn)
    assert drawn[0] == gbdt.some_people([100] * 20, 0)
    assert len(set(map(tuple, drawn))) > 1
    people = load_timelines("demo", weeks=2).timelines[:2]
    split = chrono(people)
    (one,) = gbdt.some_people([len(x) for x in split.train], 3)
    some, alone = GbdtPolicy(), GbdtPolicy()
    some.fit(people, split, seed=3)
    alone.fit([people[one]], chrono([people[one]]), seed=3)
    assert some.note == "gbdt: fitted to 1 of 2 people, drawn by the seed"
    other, asked = people[1 - one], split.test[1 - one][:20] - 1
    np.testing.assert_array_equal(some.rank(other, asked).probability, alone.rank(other, asked).probability)


def test_test_events_do_not_reach_the_fit() -> None:
    timelines = load_timelines("demo", weeks=2).timelines[:1]
    split = chrono(timelines)
    cut = int(split.test[0][0])
    whole, clipped = GbdtPolicy(), GbdtPolicy()
    whole.fit(timelines, split, seed=1)
    short = [timelines[0].take(np.arange(cut))]
    clipped.fit(short, type(split)("chrono", split.train, split.validation, [np.zeros(0, np.int64)]), seed=1)
    indices = np.arange(cut - 30, cut - 1)
    a, b = whole.rank(timelines[0], indices), clipped.rank(short[0], indices)
    np.testing.assert_array_equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.probability, b.probability)


def test_too_little_to_learn_from_falls_back_to_counts_and_says_so() -> None:
    timeline = Timeline.from_events("u", [Event(1.7e9 + 60 * k, x) for k, x in enumerate("abcab" * 8)])
    split = chrono([timeline])
    policy = GbdtPolicy()
    with pytest.warns(UserWarning, match="fewer than 300"):
        policy.fit([timeline], split)
    assert "markov1" in policy.note
    indices = split.test[0] - 1
    expected = CountingPolicy("markov1").rank(timeline, indices)
    np.testing.assert_array_equal(policy.rank(timeline, indices).targets, expected.targets)
    ask = policy.stream(timeline)
    np.testing.assert_array_equal(ask(int(indices[0])).targets[0], expected.targets[0])

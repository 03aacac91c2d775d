"""`evaluate`: one judgement for everybody, and what it promises its callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from env.errors import InputError
from env.judge.cost import Cost, CostModel
from env.ranking import Ranking
from env.sources import load_timelines
from env.splits import Split, chrono, leave_one_user_out
from env.timeline import Timeline
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.policies.registry import make_policies, make_policy

QUICK = Setting(replicates=60, latency_decisions=3)


@pytest.fixture(scope="module")
def timelines() -> list[Timeline]:
    return load_timelines("demo", weeks=2).timelines[:2]


@pytest.fixture(scope="module")
def result(timelines: list[Timeline]) -> Evaluation:
    policies = make_policies("none,mfu,mru,markov1,backoff3,omnibox,oracle")
    return evaluate(policies, timelines, chrono(timelines), setting=QUICK)


class Crystal:
    """Knows the next target: right in every list, which no honest policy is."""

    name = "crystal"

    def __init__(self) -> None:
        self.fits = 0

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        self.fits += 1

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        targets = timeline.target[np.asarray(indices) + 1][:, None].astype(np.int32)
        return Ranking(targets, np.ones(targets.shape, np.float32), np.zeros(len(targets), np.float32))


def test_no_policy_saves_more_than_the_bound(result: Evaluation) -> None:
    for name, judged in result.policies.items():
        for by in judged.budgets.values():
            share = by["oracle_share"].value
            assert np.isnan(share) or share <= 1.0 + 1e-9, name
    best = result.policies["oracle"].metrics["oracle_share"].value
    assert 0.9 < best <= 1.0 + 1e-9


def test_every_value_lies_in_its_interval(result: Evaluation) -> None:
    """Also calibration errors, whose draws lie above the value (`interval_of_a_gap`)."""
    seen = set()
    for name, judged in result.policies.items():
        budgets = {f"{m} at {b:g}": e for b, by in judged.budgets.items() for m, e in by.items()}
        differences = {f"{m} vs": e for m, (_, e) in result.differences[name].items()}
        for metric, e in (judged.metrics | budgets | differences).items():
            if e.bounded:
                seen.add(metric)
                assert e.low <= e.value <= e.high, f"{name} {metric}: {e}"
    assert {"ece", "ece_all", "ece_none", "hr@1", "reward_per_open", "lead_time_median_s"} <= seen


def test_who_keeps_still_saves_and_wastes_nothing(result: Evaluation) -> None:
    metrics = result.policies["none"].metrics
    for name in ("hit_rate", "saved_seconds_per_open", "reward_per_open", "coverage", "pollution_rate"):
        assert metrics[name].value == 0.0
    assert "hr@1" not in metrics


def test_a_crystal_ball_is_right_every_time_and_still_under_the_bound(timelines: list[Timeline]) -> None:
    crystal = Crystal()
    found = evaluate([crystal], timelines, chrono(timelines), setting=QUICK)
    metrics = found.policies["crystal"].metrics
    assert metrics["hr@1"].value == metrics["mrr@5"].value == 1.0
    assert metrics["ece"].value == 0.0
    assert 0.3 < metrics["oracle_share"].value <= 1.0 + 1e-9
    assert metrics["waste_rate"].value < 0.5  # what expires when the next open is more than 30 min away
    assert "delay_error_median_s" not in metrics
    assert crystal.fits == 1


def test_differences_are_against_the_best_counting_policy(result: Evaluation) -> None:
    best = max(
        ("mfu", "mru", "markov1", "backoff3", "omnibox"),
        key=lambda n: result.policies[n].metrics["hr@1"].value,
    )
    assert "hr@1" not in result.differences[best]
    against, estimate = result.differences["mfu"]["hr@1"]
    assert against == best
    expected = result.policies["mfu"].metrics["hr@1"].value - result.policies[best].metrics["hr@1"].value
    assert estimate.value == pytest.approx(expected)


def test_the_main_budget_is_one_of_the_comparison(result: Evaluation) -> None:
    for judged in result.policies.values():
        main, same = judged.metrics["reward_per_open"], judged.budgets[8.0]["reward_per_open"]
        assert main == same


def test_the_curve_starts_at_everything_and_ends_at_nothing(result: Evaluation) -> None:
    curve = result.policies["markov1"].curve
    assert curve["prewarms_per_open"][0] > curve["prewarms_per_open"][-2] >= 0
    for name in curve:
        assert curve[name][-1] == 0.0


def test_folds_are_joined_and_each_is_fitted(timelines: list[Timeline]) -> None:
    crystal = Crystal()
    folds = [fold for _, fold in leave_one_user_out(timelines)]
    found = evaluate([crystal], timelines, folds, setting=QUICK)
    assert crystal.fits == 2
    assert found.split == "user"
    assert found.n_events == sum(len(t) - 1 for t in timelines)


def test_two_policies_of_one_name_stand_side_by_side(timelines: list[Timeline]) -> None:
    found = evaluate(
        [make_policy("mru"), make_policy("mru")], timelines[:1], chrono(timelines[:1]), setting=QUICK
    )
    assert list(found.policies) == ["mru", "mru'"]


def test_measured_costs_take_the_presets_place(timelines: list[Timeline]) -> None:
    free = CostModel("free", "a test", default=Cost(memory_mb=1.0, cold_s=1.0, warm_s=1.0))
    found = evaluate([Crystal()], timelines[:1], chrono(timelines[:1]), setting=replace(QUICK, costs=free))
    assert found.policies["crystal"].metrics["saved_seconds_per_open"].value == 0.0


def test_nothing_to_test_on_is_refused(timelines: list[Timeline]) -> None:
    none = [np.zeros(0, np.int64)] * 2
    with pytest.raises(InputError, match="test part of split chrono is empty"):
        evaluate(make_policies("mru"), timelines, Split("chrono", none, none, none), setting=QUICK)


def test_progress_counts_up_to_the_end(timelines: list[Timeline]) -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate(
        make_policies("mru,markov1"), timelines[:1], chrono(timelines[:1]), setting=QUICK,
        progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert [name for name, _, _ in seen] == ["oracle", "mru", "markov1", "done"]
    assert [done for _, done, _ in seen] == [0, 1, 2, 3]
    assert {total for _, _, total in seen} == {3}


def test_the_reward_is_the_sum_of_its_terms_and_the_report_holds_both(result: Evaluation) -> None:
    written = result.as_json()
    for name, judged in result.policies.items():
        assert set(judged.terms) == {"saved_seconds", "held_mb_minutes", "planned", "rating"}
        total = sum(e.value for e in judged.terms.values())
        assert total == pytest.approx(judged.metrics["reward_per_open"].value, abs=1e-12), name
        assert written["reward_terms"][name]["planned"]["value"] == judged.terms["planned"].value <= 0.0
    assert result.policies["markov1"].terms["held_mb_minutes"].value < 0.0
    assert "none" not in written["reliability"]  # it ranks nothing
    bins = written["reliability"]["markov1"]["first"]
    assert sum(bins["size"]) <= result.n_events
    gaps = np.abs(np.array(bins["predicted"]) - np.array(bins["observed"]))
    assert gaps @ bins["size"] / sum(bins["size"]) == pytest.approx(
        result.policies["markov1"].metrics["ece"].value
    )

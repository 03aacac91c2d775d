"""Metrics and their intervals against what can be worked out by hand, and the bootstrap's own promises."""

from __future__ import annotations

import numpy as np
import pytest

from env.ranking import Ranking
from rlmemo.evaluation.bootstrap import Draws, interval_of_a_gap, session_groups
from rlmemo.evaluation.metrics import (
    BETTER,
    METRICS,
    Opens,
    calibration,
    listed_calibration,
    new_target_auc,
    none_calibration,
    places,
    prewarm_metrics,
    ranking_metrics,
    timing_metrics,
)


def ranking() -> tuple[Ranking, np.ndarray]:
    """Four decisions: right first, right second, right sixth, never listed."""
    targets = np.array(
        [[7, 1, 2, 3, 4, 5], [1, 7, 2, 3, 4, 5], [1, 2, 3, 4, 5, 7], [1, 2, 3, -1, -1, -1]], np.int32
    )
    p = np.tile(np.array([0.5, 0.2, 0.1, 0.05, 0.05, 0.05], np.float32), (4, 1))
    p[3, 3:] = 0
    return Ranking(targets, p, 1 - p.sum(1)), np.array([7, 7, 7, 9])


def draws(n: int, sessions: int = 4) -> Draws:
    return Draws(np.arange(n) % sessions, np.zeros(n, np.int64), replicates=200)


def test_ranking_metrics_by_hand() -> None:
    r, answers = ranking()
    np.testing.assert_array_equal(places(r, answers), [0, 1, 5, -1])
    found = {k: e.value for k, e in ranking_metrics(r, answers, draws(4)).items()}
    assert found["hr@1"] == 0.25
    assert found["hr@3"] == found["hr@5"] == 0.5
    assert found["mrr@5"] == pytest.approx((1 + 0.5) / 4)
    expected = -np.log([0.5, 0.2, 0.05, 0.2]).mean()
    assert found["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_macro_counts_every_user_the_same() -> None:
    groups, users = session_groups([np.zeros(9, np.int64), np.array([0])])
    d = Draws(groups, users, replicates=50)
    right = np.array([1.0] * 9 + [0.0])
    assert d.ratio(right).value == 0.9
    assert d.macro(right).value == 0.5


def test_calibration_of_a_policy_that_is_right_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, 20_000)
    answers = np.where(rng.uniform(size=len(p)) < p, 1, 0)
    r = Ranking(np.ones((len(p), 1), np.int32), p[:, None].astype(np.float32), (1 - p).astype(np.float32))
    good = calibration(r, answers, draws(len(p), 500))
    assert good.ece.value < 0.02
    assert len(good.size) == 10
    assert good.size.sum() == len(p)
    sure = Ranking(r.targets, np.ones_like(r.probability), np.zeros_like(r.none))
    assert calibration(sure, answers, draws(len(p), 500)).ece.value == pytest.approx(0.5, abs=0.02)


def test_the_error_of_who_is_calibrated_is_not_said_to_be_above_what_was_measured() -> None:
    """Of few events all of the error is noise, and draws add to it: their percentiles lie too high."""
    rng = np.random.default_rng(3)
    held = found = 0
    for _ in range(20):
        p = rng.uniform(0.1, 0.9, 200)
        answers = np.where(rng.uniform(size=len(p)) < p, 1, 0)
        r = Ranking(np.ones((len(p), 1), np.int32), p[:, None].astype(np.float32), 1 - p.astype(np.float32))
        ece = calibration(r, answers, draws(len(p), 50)).ece
        assert 0.0 <= ece.low <= ece.value <= ece.high
        held += ece.low < 0.02
        found += ece.value > 0.05
    assert found > 15
    assert held > 10, "the truth is 0, and is not shut out"


def test_a_gaps_interval_by_hand() -> None:
    drawn = np.linspace(0.2, 0.4, 41)
    for value, low, high in ((0.3, 0.205, 0.395), (0.15, 0.0, 0.15), (0.5, 0.5, 0.795)):
        e = interval_of_a_gap(value, drawn)
        assert e.low == pytest.approx(low)
        assert e.high == pytest.approx(high)
    assert not interval_of_a_gap(0.3, np.full(3, np.nan)).bounded


def test_calibration_of_none_and_of_all_that_is_listed() -> None:
    rng = np.random.default_rng(1)
    none = rng.uniform(0.05, 0.95, 20_000)
    gone = rng.uniform(size=len(none)) < none
    second = rng.uniform(size=len(none)) < 0.3
    answers = np.where(gone, 9, np.where(second, 2, 1))
    p = np.stack([0.7 * (1 - none), 0.3 * (1 - none)], 1).astype(np.float32)
    r = Ranking(np.tile(np.array([1, 2], np.int32), (len(none), 1)), p, none.astype(np.float32))
    by = draws(len(none), 500)
    found = ranking_metrics(r, answers, by)
    assert found["ece_none"].value < 0.02
    assert found["ece_all"].value < 0.02
    assert none_calibration(r, answers, by).size.sum() == len(none)
    assert listed_calibration(r, answers, by).size.sum() == 2 * len(none)
    shy = Ranking(r.targets, np.zeros_like(p), np.ones_like(r.none))
    assert ranking_metrics(shy, answers, by)["ece_none"].value == pytest.approx(1 - gone.mean())


def test_new_targets_are_told_from_known_ones() -> None:
    none = np.array([0.9, 0.1, 0.8, 0.2, 0.5], np.float32)
    r = Ranking(np.ones((5, 1), np.int32), (1 - none)[:, None], none)
    new = np.array([True, False, True, False, False])
    assert new_target_auc(r, new, draws(5)).value == 1.0
    assert new_target_auc(r, ~new, draws(5)).value == 0.0
    assert new_target_auc(r, np.array([True, False, False, True, False]), draws(5)).value == pytest.approx(
        4 / 6
    )
    assert np.isnan(new_target_auc(r, np.zeros(5, bool), draws(5)).value)


def test_prewarm_metrics_by_hand() -> None:
    opens = Opens(
        base_wait_s=np.array([4.0, 4, 1, 4]),
        wait_s=np.array([1.0, 4, 4, 4]),
        saved_s=np.array([3.0, 0, -3, 0]),
        hit=np.array([1.0, 0, 0, 0]),
        late=np.zeros(4),
        pollution=np.array([0.0, 0, 1, 0]),
        cold=np.array([0.0, 1, 1, 0]),
        base_cold=np.array([1.0, 1, 0, 1]),
        kept=np.array([0.0, 0, 0, 1]),
        prewarms=np.array([2.0, 0, 1, 1]),
        wasted=np.array([1.0, 0, 0, 1]),
        redundant=np.array([0.0, 0, 1, 0]),
        wasted_mb_s=np.array([600.0, 0, 0, 1200]),
        planned=np.array([1.0, 0, 1, 1]),
        reward=np.array([2.5, 0, -3, -0.5]),
        lead_s=np.array([42.0]),
        lead_open=np.array([0]),
    )
    found = {k: e.value for k, e in prewarm_metrics(opens, draws(4), np.full(4, 1.5)).items()}
    assert found["hit_rate"] == found["pollution_rate"] == found["kept_rate"] == 0.25
    assert (found["cold_rate"], found["base_cold_rate"]) == (0.5, 0.75)
    assert found["waste_rate"] == 0.5
    assert found["prewarms_per_open"] == 1.0
    assert found["wasted_mb_minutes_per_open"] == 30 / 4
    assert found["saved_seconds_per_open"] == 0.0
    assert found["reward_per_open"] == -0.25
    assert found["coverage"] == 0.75
    assert found["oracle_share"] == 0.0
    assert found["lead_time_median_s"] == 42.0
    both = Opens.join([opens, opens])
    np.testing.assert_array_equal(both.lead_open, [0, 4])
    assert len(both.saved_s) == 8


def test_nothing_prewarmed_has_no_waste_rate() -> None:
    zeros = np.zeros(3)
    opens = Opens(*[zeros] * 15, np.zeros(0), np.zeros(0, np.int64))
    found = prewarm_metrics(opens, draws(3), None)
    assert np.isnan(found["waste_rate"].value)
    assert found["waste_rate"].as_json() == {"value": None, "ci95": None}
    assert "oracle_share" not in found


def test_timing_and_memos_own_score() -> None:
    r, answers = ranking()
    assert timing_metrics(r, answers, np.full(4, 60.0), draws(4)) == {}
    timed = Ranking(r.targets, r.probability, r.none, np.array([50.0, 60, 60, 60], np.float32))
    found = timing_metrics(timed, answers, np.array([60.0, 60, 60, 600]), draws(4))
    assert found["memo_score"].value == 0.25  # right target and within a factor of two; others 0
    far = Ranking(r.targets, r.probability, r.none, np.array([500.0, 1, 1, 1], np.float32))
    assert timing_metrics(far, answers, np.full(4, 60.0), draws(4))["memo_score"].value == 0.125
    assert found["delay_error_median_s"].value in (0.0, 10.0)


def test_every_metric_has_a_meaning_and_a_direction() -> None:
    assert set(METRICS) == set(BETTER)


def test_intervals_hold_what_they_promise() -> None:
    """95 % intervals of a mean over 60 sessions hold the truth in about 95 of 100 recordings."""
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        level = rng.normal(0, 1, 60)
        groups = np.repeat(np.arange(60), 5)
        values = level[groups] + rng.normal(0, 0.3, len(groups))
        e = Draws(groups, np.zeros(len(groups), np.int64), seed=seed, replicates=300).ratio(values)
        held += e.low <= 0.0 <= e.high
    assert 0.90 <= held / 200 <= 0.99


def test_whole_sessions_are_drawn() -> None:
    """Ten copies of every event in a session must not make the interval narrower."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=40)
    once = Draws(np.arange(40), np.zeros(40, np.int64), seed=0).ratio(values)
    ten = Draws(np.repeat(np.arange(40), 10), np.zeros(400, np.int64), seed=0).ratio(np.repeat(values, 10))
    assert ten.high - ten.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(0, 5, 500)
    d = Draws(np.arange(500), np.zeros(500, np.int64))
    e = d.difference(a + 0.1, a)
    assert e.low == pytest.approx(0.1)
    assert e.high == pytest.approx(0.1)
    alone = d.ratio(a)
    assert alone.high - alone.low > 0.5


def test_same_seed_same_draws_and_median_by_hand() -> None:
    a = draws(10).ratio(np.arange(10.0))
    assert a == draws(10).ratio(np.arange(10.0))
    assert draws(5).median(np.array([3.0, 1.0, np.nan, 2.0]), np.array([0, 1, 2, 3])).value == 2.0
    empty = Draws(np.zeros(0, np.int64), np.zeros(0, np.int64), replicates=20)
    assert np.isnan(empty.ratio(np.zeros(0)).value)

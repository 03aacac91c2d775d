"""The distribution over the time until the next open: it is kept, and judged as by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from env.ranking import Ranking
from env.splits import Split, chrono, leave_one_user_out
from env.timeline import Event, Timeline
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.evaluation.delays import Delays, buckets, delay_metrics, past_shares
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.policies.planners import counted
from rlmemo.policies.registry import make_policy
from rlmemo.report.evaluation import evaluation_page, evaluation_sections
from rlmemo.report.page import Table

EDGES = (10.0, 100.0)
QUICK = Setting(replicates=60, latency_decisions=2, budgets=(8.0,))


def draws(n: int) -> Draws:
    return Draws(np.arange(n), np.zeros(n, np.int64), replicates=200)


def timed(n: int, places: int = 2, edges: tuple[float, ...] = EDGES) -> Ranking:
    """A ranking in which row d names target d first, and gives everything to bucket d."""
    when = np.eye(len(edges) + 1, dtype=np.float32)[np.arange(n) % (len(edges) + 1)]
    targets = np.arange(n, dtype=np.int32)[:, None] + np.arange(places, dtype=np.int32)
    p = np.full((n, places), 0.3, np.float32)
    return Ranking(targets, p, 1 - p.sum(1), np.arange(n, dtype=np.float32), when, edges)


def test_the_distribution_stays_with_its_decision() -> None:
    some = timed(3)[np.array([2, 0])]
    assert some.when is not None
    np.testing.assert_array_equal(some.when, [[0, 0, 1], [1, 0, 0]])
    assert some.when_edges_s == EDGES
    both = Ranking.join([timed(3), timed(2, places=4)])
    assert both.when is not None
    np.testing.assert_array_equal(both.when.argmax(1), [0, 1, 2, 0, 1])
    assert both.when_edges_s == EDGES
    np.testing.assert_array_equal(both.targets[2], [2, 3, -1, -1])
    np.testing.assert_array_equal(both.probability[2], np.array([0.3, 0.3, 0, 0], np.float32))
    np.testing.assert_array_equal(both.delay_s, [0, 1, 2, 0, 1])


def test_what_not_everyone_says_is_left_out_when_joined() -> None:
    mute = Ranking.empty(2)
    assert mute.when is None
    assert mute[:1].when is None
    for other in (mute, timed(2, edges=(5.0, 50.0))):
        joined = Ranking.join([timed(3), other])
        assert joined.when is None
        assert joined.when_edges_s == ()
        assert len(joined) == 5


def test_minding_approval_leaves_the_time_alone() -> None:
    r = timed(3)
    moved = counted(r, np.tile(np.array([-1.0, 1.0]), (3, 1)), 2.0)
    np.testing.assert_array_equal(moved.targets, r.targets[:, ::-1])
    np.testing.assert_array_equal(moved.when, r.when)
    assert moved.when_edges_s == EDGES


def test_a_delay_on_an_edge_is_in_the_upper_bucket() -> None:
    """As in what the model was trained to say."""
    from rlmemo.model.slots import WHEN_EDGES_S, when_bucket

    np.testing.assert_array_equal(buckets(np.array([0.0, 9.9, 10.0, 99.9, 100.0]), EDGES), [0, 0, 1, 1, 2])
    gaps = np.array([0.5, *WHEN_EDGES_S, 1e6])
    np.testing.assert_array_equal(buckets(gaps, WHEN_EDGES_S), when_bucket(gaps))


def test_a_count_of_the_past_by_hand() -> None:
    new, one, other = np.zeros(0), np.array([1.0, 2, 50, 60]), np.array([3.0, 500])
    # Everybody's counts are 3, 2, 1; with one more in each 4, 3, 2 of 9, which count as 3 gaps.
    found = past_shares([new, one, other], EDGES)
    np.testing.assert_allclose(found[0], np.array([4, 3, 2]) / 9)
    np.testing.assert_allclose(found[1], np.array([2 + 12 / 9, 2 + 9 / 9, 6 / 9]) / 7)
    np.testing.assert_allclose(found[2], np.array([1 + 12 / 9, 9 / 9, 1 + 6 / 9]) / 5)
    np.testing.assert_allclose(past_shares([new], EDGES)[0], np.full(3, 1 / 3))


def test_delay_metrics_by_hand() -> None:
    when = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3], [0.9, 0.1, 0.0], [0.05, 0.05, 0.9]], np.float32)
    gaps = np.array([5.0, 50.0, 500.0, 10.0])  # buckets 0, 1, 2, 1
    past = np.tile(np.array([0.5, 0.25, 0.25]), (4, 1))
    found = {k: e.value for k, e in delay_metrics(when, EDGES, gaps, past, draws(4)).items()}
    own, other = -np.log([0.2, 0.5, 1e-6, 0.05]), -np.log([0.5, 0.25, 0.25, 0.25])
    assert found["delay_log_loss"] == pytest.approx(own.mean(), rel=1e-6)
    assert found["delay_log_loss_past"] == pytest.approx(other.mean())
    assert found["delay_gain"] == pytest.approx((other - own).mean(), rel=1e-6)
    # Buckets reach from .0 to .2, .2 to .7, 1 to 1, .05 to .1 of the probability: below .5 lie all of the
    # first, (.5 - .2) / .5 of the second, none of the third, all of the fourth;
    assert found["delay_below_median"] == pytest.approx((1 + 0.6 + 0 + 1) / 4, rel=1e-5)
    # between .1 and .9 half of the first, all of the second, nothing of the third and of the fourth.
    assert found["delay_within_80"] == pytest.approx((0.5 + 1 + 0 + 0) / 4, rel=1e-5)


def test_who_says_the_truth_is_calibrated_and_who_is_too_sure_is_not() -> None:
    rng = np.random.default_rng(0)
    when = rng.dirichlet(np.ones(3), 30_000)
    bucket = np.minimum((when.cumsum(1) < rng.random((len(when), 1))).sum(1), 2)
    gaps = np.array([5.0, 50.0, 500.0])[bucket]
    past = np.tile(np.bincount(bucket) / len(bucket), (len(bucket), 1))
    by = Draws(np.arange(len(gaps)) % 500, np.zeros(len(gaps), np.int64), replicates=200)
    found = delay_metrics(when, EDGES, gaps, past, by)
    assert found["delay_below_median"].value == pytest.approx(0.5, abs=0.01)
    assert found["delay_within_80"].value == pytest.approx(0.8, abs=0.01)
    assert found["delay_gain"].low > 0
    sure = when**3 / (when**3).sum(1, keepdims=True)
    worse = delay_metrics(sure, EDGES, gaps, past, by)
    assert worse["delay_within_80"].high < 0.75
    assert worse["delay_log_loss"].low > found["delay_log_loss"].high
    none = delay_metrics(past, EDGES, gaps, past, by)["delay_gain"]
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)


def test_means_by_bucket() -> None:
    when = np.array([[0.2, 0.5, 0.3], [0.4, 0.1, 0.5]], np.float32)
    past = np.tile(np.array([0.5, 0.25, 0.25]), (2, 1))
    made, _ = Delays.judge(when, EDGES, np.array([5.0, 500.0]), past, draws(2))
    np.testing.assert_allclose(made.predicted, [0.3, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(made.observed, [0.5, 0, 0.5])
    np.testing.assert_array_equal(made.past, past[0])
    assert made.past_metrics["delay_log_loss"].value == pytest.approx(-np.log([0.5, 0.25]).mean())
    assert made.as_json()["edges_s"] == [10.0, 100.0]


class Clock:
    """Names the target of the event before, and says of the time always the same."""

    name = "clock"

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        pass

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        n = len(indices)
        targets = timeline.target[np.maximum(indices - 1, 0)][:, None].astype(np.int32)
        when = np.tile(np.array([0.25, 0.5, 0.25], np.float32), (n, 1))
        half = np.full((n, 1), 0.5, np.float32)
        return Ranking(targets, half, half[:, 0], np.full(n, 30.0, np.float32), when, EDGES)


def recorded(user: str, gaps: Sequence[float]) -> Timeline:
    """Targets in turn; the gap before each event."""
    times = 1_700_000_000.0 + np.cumsum([0.0, *gaps])
    return Timeline.from_events(
        user, [Event(float(t), "abc"[k % 3], "app") for k, t in enumerate(times)], tz="UTC", tz_known=True
    )


@pytest.fixture(scope="module")
def judged() -> Evaluation:
    return evaluate([Clock(), make_policy("mru")], [one(), two()], chrono([one(), two()]), setting=QUICK)


def one(end: float = 5.0) -> Timeline:
    """Twenty events, the first 16 (training and validation) after 50 s, the last four after `end`."""
    return recorded("one", [50.0] * 15 + [end] * 4)


def two(end: float = 500.0) -> Timeline:
    return recorded("two", [5.0] * 10 + [500.0] * 5 + [end] * 4)


def test_the_past_is_that_of_training_and_validation(judged: Evaluation) -> None:
    delays = judged.policies["clock"].delays
    assert delays is not None
    # Of the 15 gaps of each: one 0, 15, 0; two 10, 0, 5; both, with one more in each, 11, 16, 6 of 33.
    pooled = 3 * np.array([11, 16, 6]) / 33
    past = (np.array([[0, 15, 0], [10, 0, 5]]) + pooled) / 18
    np.testing.assert_allclose(delays.past, past.mean(0))
    np.testing.assert_array_equal(delays.observed, [0.5, 0, 0.5])
    metrics = judged.policies["clock"].metrics
    assert metrics["delay_log_loss"].value == pytest.approx(-np.log(0.25))
    expected = -np.log([past[0, 0], past[1, 2]]).mean()
    assert metrics["delay_log_loss_past"].value == pytest.approx(expected)
    assert delays.past_metrics["delay_log_loss"].value == pytest.approx(expected)
    assert metrics["delay_gain"].value == pytest.approx(expected + np.log(0.25))


def test_the_past_does_not_know_the_test_part(judged: Evaluation) -> None:
    timelines = [one(70.0), two(7.0)]
    found = evaluate([Clock()], timelines, chrono(timelines), setting=QUICK).policies["clock"].delays
    delays = judged.policies["clock"].delays
    assert delays is not None
    assert found is not None
    np.testing.assert_array_equal(found.past, delays.past)
    assert (found.observed != delays.observed).any()


def test_a_person_without_a_past_is_compared_with_everybody_elses() -> None:
    timelines = [one(), two()]
    folds = [fold for _, fold in leave_one_user_out(timelines)]
    delays = evaluate([Clock()], timelines, folds, setting=QUICK).policies["clock"].delays
    assert delays is not None
    # All 19 gaps of the other: for one 10, 0, 9; for two 4, 15, 0; one more in each.
    np.testing.assert_allclose(delays.past, (np.array([11, 1, 10]) + np.array([5, 16, 1])) / 44)


def test_it_stands_in_the_numbers_and_on_the_page(judged: Evaluation) -> None:
    data: dict[str, Any] = judged.as_json()
    clock = data["policies"]["clock"]
    for key in (
        "delay_log_loss",
        "delay_log_loss_past",
        "delay_gain",
        "delay_below_median",
        "delay_within_80",
    ):
        assert np.isfinite(clock[key]["value"])
        assert clock[key]["ci95"] is None  # each of the two has one session
        assert key not in data["policies"]["mru"]
    assert list(data["delays"]) == ["clock"]
    assert set(data["reliability"]["clock"]) == {"first", "all", "none"}
    section = next(s for s in evaluation_sections(judged) if s.title == "When, not only what")
    assert all(isinstance(part, Table) for part in section.parts)
    rows = {row[0]: row for part in section.parts if isinstance(part, Table) for row in part.rows}
    assert rows["mru"][3:] == ["–"] * 4
    assert rows["clock"][3] == "1.386"
    assert rows["less than 10 s"][1:3] == ["50.0 %", "25.0 %"]
    assert rows["10 s – 100 s"][1:3] == ["0.0 %", "50.0 %"]
    assert rows["100 s and more"][1:3] == ["50.0 %", "25.0 %"]
    assert "a count of the past" in rows
    assert "events are too few for a curve" in evaluation_page(judged).html()


def test_who_names_one_number_gets_no_distribution_judged() -> None:
    found = evaluate([make_policy("mru")], [one()], chrono([one()]), setting=QUICK)
    section = next(s for s in evaluation_sections(found) if s.title == "When, not only what")
    assert len(section.parts) == 1
    assert found.as_json()["delays"] == {}

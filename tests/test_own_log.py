"""A policy judged on its own log gets what was observed, whatever the estimator, with and without the
decisions to keep still; and another one gets what it would have got."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.sources import load_timelines
from env.splits import chrono
from rlmemo.approval.placed_ratings import Placed, place_ratings, rating_weights, read_ratings
from rlmemo.feedback import offpolicy
from rlmemo.feedback.logged_moments import evaluate_policy, sessions_of, shown_by
from rlmemo.learning.training_data import TrainingData
from rlmemo.policies.registry import setup
from rlmemo.predict import Options, predict
from rlmemo.store.database import Store, open_store
from rlmemo.store.ratings import rate, show_next
from tests.test_feedback_training import write_csv

EXPLORE = 0.2


def rate_some(store: Store, share: float) -> None:
    """Rate a share of what waits: what comes next is mostly liked, the rest now and then."""
    rng = np.random.default_rng(1)
    wanted = int(share * store.one("SELECT COUNT(*) FROM moments"))
    for _ in range(wanted):
        showing = show_next(store, "ada", float(rng.random()))
        assert showing is not None
        p = showing.moment.prediction
        assert p.outcome is not None
        right = p.outcome["next_target"] in [x.target for x in p.plan]
        rate(store, showing, int(rng.random() < (0.8 if right else 0.4)))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[bool, Path]]:
    """(timelines as CSV, by whether keeping still is stored: a rated log of markov1)."""
    folder = tmp_path_factory.mktemp("logs")
    csv = write_csv(folder / "two.csv")
    made = {}
    for still in (False, True):
        made[still] = folder / f"{still}.db"
        with open_store(made[still]) as store:
            options = Options(n=80, explore=EXPLORE, still=still)
            assert predict(store, str(csv), "markov1", options, tz="UTC") > 60
            rate_some(store, 0.6)
    return csv, made


def found(csv: Path, db: Path) -> tuple[TrainingData, list[Placed]]:
    timelines = load_timelines(str(csv), tz="UTC").timelines
    ground = TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), WorldConfig())
    with open_store(db) as store:
        rated = read_ratings(store)
    return ground, place_ratings(rated, timelines, weight=rating_weights(rated)).placed


@pytest.mark.parametrize("still", [False, True])
def test_on_its_own_log_a_policy_gets_what_was_observed(
    logs: tuple[Path, dict[bool, Path]], still: bool
) -> None:
    """Exactly: every weight is 1, as the plans are made again from where they were begun, and both
    probabilities are on the same condition."""
    ground, placed = found(logs[0], logs[1][still])
    empty = sum(not len(p.target) for p in placed)
    assert (empty > 0) == still
    used = setup("markov1")
    used.policy.fit(ground.timelines, ground.split)
    shown = shown_by(used, placed, ground.timelines, ground.split, explore=EXPLORE)
    assert shown.chance == pytest.approx(np.array([p.rated.propensity for p in placed]), abs=1e-12)
    assert shown.often == pytest.approx(np.ones(len(placed)), abs=1e-12)
    assert {round(sum(x[2] for x in plans), 9) for plans in shown.plans} == {1.0}
    assert still or all(x[0] for plans in shown.plans for x in plans), "the empty plan is not among them"
    made = evaluate_policy(used, placed, ground.timelines, ground.plain, ground.split, explore=EXPLORE)
    seen = offpolicy.observed(
        np.array([p.rated.thumbs for p in placed], float),
        np.array([p.weight for p in placed]),
        sessions_of(placed, ground.timelines),
    )
    for one in (made.ips, made.snips, made.dr):
        assert one.value == pytest.approx(seen.value, abs=1e-9)
        assert one.low <= seen.value <= one.high
    assert (made.snips.low, made.snips.high) == pytest.approx((seen.low, seen.high), abs=1e-9)
    assert (made.support.overlap, made.support.mean_weight) == (1.0, pytest.approx(1.0))


def test_a_stored_propensity_is_of_what_is_stored(logs: tuple[Path, dict[bool, Path]]) -> None:
    """Without keeping still: where the policy keeps still and one of m is tried out, it is 1/m and not
    explore/m."""
    tried = []
    for still, db in logs[1].items():
        with open_store(db) as store:
            rows = store.rows(
                "SELECT p.propensity, p.plan, m.stills, m.shown, m.since FROM predictions AS p "
                "JOIN moments AS m ON m.prediction_id = p.id"
            )
        assert {row["stills"] for row in rows} == {int(still)}
        assert all(row["since"] is not None for row in rows)
        small = [r for r in rows if r["shown"] == pytest.approx(EXPLORE) and json.loads(r["plan"])]
        tried.append({round(r["propensity"], 9) for r in small})
    assert tried[0]
    assert tried[0] <= {round(1 / m, 9) for m in range(1, 9)}
    assert tried[1] <= {round(EXPLORE / m, 9) for m in range(1, 9)}


def test_the_command_says_the_same_four_times(
    cli: Callable[..., Any], tmp_path: Path, logs: tuple[Path, dict[bool, Path]]
) -> None:
    done = cli(
        "rlmemo.feedback", "evaluate", "--db", str(logs[1][False]), "--timelines", str(logs[0]),
        "--tz", "UTC", "--policy", "markov1", "--explore", str(EXPLORE), "--json", "e.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "e.json").read_text())
    assert len({round(made[k]["value"], 9) for k in ("logged", "ips", "snips", "dr")}) == 1


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_a_log_without_keeping_still_covers_the_truth_about_another_policy(name: str) -> None:
    """Moments of four kinds, four plans of which the first is to keep still and is not stored; the truth is
    the approval of what the other policy shows, a moment counting as often as it shows something there."""
    rng = np.random.default_rng(0)
    approval = np.array([[0, 0.9, 0.2, 0.5], [0, 0.1, 0.7, 0.4], [0, 0.5, 0.5, 0.8], [0, 0.3, 0.6, 0.2]])
    log = np.array([[0.5, 0.2, 0.2, 0.1], [0.8, 0.1, 0.05, 0.05], [0.2, 0.3, 0.3, 0.2], [0.6, 0.1, 0.2, 0.1]])
    other = np.array(
        [[0.2, 0.5, 0.2, 0.1], [0.4, 0.1, 0.4, 0.1], [0.6, 0.1, 0.1, 0.2], [0.8, 0.05, 0.1, 0.05]]
    )
    truth = (other * approval)[:, 1:].sum() / other[:, 1:].sum()
    shows, shows_other = 1 - log[:, 0], 1 - other[:, 0]
    guess = 0.5 * approval + 0.2
    inside, values = 0, []
    for _ in range(200):
        x = rng.integers(0, 4, 1500)
        a = (rng.random(len(x))[:, None] > log[x].cumsum(1)).sum(1)
        x, a = x[a > 0][:400], a[a > 0][:400]
        thumbs = (rng.random(len(x)) < approval[x, a]).astype(float)
        often = (shows_other / shows)[x]
        made = offpolicy.estimate(
            thumbs, log[x, a] / shows[x], other[x, a] / shows_other[x], guess[x, a],
            (other * guess)[x, 1:].sum(1) / shows_other[x], sampling=often / often.mean(),
        )  # fmt: skip
        one = getattr(made, name)
        inside += one.low <= truth <= one.high
        values.append(one.value)
    assert 0.90 <= inside / 200 <= 1.0
    assert np.mean(values) == pytest.approx(truth, abs=0.01)

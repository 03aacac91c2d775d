"""Ratings as numbers: weights, agreement, off-policy estimates whose intervals cover, the approval model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from rlmemo.approval import features, logistic, placed_ratings
from rlmemo.approval.approval import Approval, fit_approval
from rlmemo.evaluation import agreement
from rlmemo.feedback import offpolicy
from rlmemo.store.database import open_store
from rlmemo.store.ratings import explain, latest, rate, show_next, withdraw
from tests.predictions_to_rate import add_prediction, fill
from tests.training_ground import small_ground


def a_rating(
    identity: int, thumbs: int, *, prediction: int | None = None, rater: str = "ada", **values: object
) -> placed_ratings.RatedMoment:
    given = {
        "user": "ada", "source": "test", "t": 0.0, "current": None, "plan": (("Mail", 0.0),),
        "propensity": 1.0, "policy": "markov1", "policy_version": "1", "part": "validation", "teaches": 0.5,
    } | values  # fmt: skip
    return placed_ratings.RatedMoment(
        identity, identity if prediction is None else prediction, rater, thumbs, **given
    )  # type: ignore[arg-type]


def placed_at(
    user: int, index: int, target: int, thumbs: int, identity: int, weight: float = 1.0
) -> placed_ratings.Placed:
    return placed_ratings.Placed(
        a_rating(identity, thumbs), user, index, np.array([target], np.int32), np.zeros(1), weight
    )


# reading


def test_what_counts_is_read_and_what_is_unrated_or_taken_back_is_not(tmp_path: Path) -> None:
    db = fill(tmp_path / "r.db", 12)
    with open_store(db) as store:
        for thumbs in (1, 0, 1):
            showing = show_next(store, "ada", 0.1)
            assert showing is not None
            rate(store, showing, thumbs)
        last = latest(store, "ada")
        assert last is not None
        withdraw(store, last)
        found = placed_ratings.read_ratings(store)
        again = show_next(store, "ada", 0.1)
        store.rate(1, "bo", 1)  # on no showing
        late = placed_ratings.read_ratings(store)
    assert [r.thumbs for r in found] == [1, 0]
    assert found[0].plan == (("Chat", 0.0), ("news.example", 300.0))
    assert found[0].current == "Editor"
    assert found[0].name == f"rating:{found[0].id}"
    # all twelve teach alike: picked out of twelve, then out of eleven
    assert [(r.share, r.pool) for r in found] == [(pytest.approx(1 / 12), 12), (pytest.approx(1 / 11), 11)]
    assert again is not None
    assert (late[-1].share, late[-1].pool) == (None, None)
    assert np.isnan(placed_ratings.rating_propensities(late)[-1])
    assert placed_ratings.rating_weights(late) == pytest.approx(np.ones(3))


def test_a_rating_keeps_the_propensity_that_was_true_when_it_was_shown(tmp_path: Path) -> None:
    """One prediction is stored and rated, nineteen more come, one of them is rated: 1 and 1/19, and what is
    stored later changes neither, nor does the reason that is given for a vote."""
    with open_store(fill(tmp_path / "r.db", 1)) as store:
        first = show_next(store, "ada", 0.0)
        assert first is not None
        rate(store, first, 1)
        for k in range(1, 20):
            add_prediction(store, k)
        second = show_next(store, "ada", 0.5)
        assert second is not None
        rate(store, second, 0)
        last = latest(store, "ada")
        assert last is not None
        explain(store, last, "wrong thing")
        said = [placed_ratings.rating_propensities(placed_ratings.read_ratings(store))]
        for k in range(20, 80):
            add_prediction(store, k)
        said.append(placed_ratings.rating_propensities(placed_ratings.read_ratings(store)))
    for propensity in said:
        assert propensity == pytest.approx([1.0, 1 / 19])


def test_what_was_likely_to_be_shown_weighs_less() -> None:
    rare, common = a_rating(1, 1, share=0.004, pool=100), a_rating(2, 1, share=0.02, pool=100)
    weight = placed_ratings.rating_weights([rare, common])
    assert weight[0] == pytest.approx(5 * weight[1])
    assert weight.mean() == pytest.approx(1.0)
    whole = [a_rating(k, 1, share=1 / (10 - k), pool=10 - k) for k in range(10)]
    assert placed_ratings.rating_weights(whole) == pytest.approx(np.ones(10)), "a list rated to its end"


def test_an_inverse_propensity_is_clipped() -> None:
    weight = placed_ratings.clipped_weights(np.array([0.5, 0.5, 0.5, 1e-6]))
    assert weight.max() / np.median(weight) == pytest.approx(placed_ratings.CLIP)


def test_a_rating_is_found_in_its_timeline_or_left_out_with_its_reason() -> None:
    ground = small_ground()
    timeline = ground.timelines[0]
    i, test, chooses = 40, int(ground.split.test[0][3]), int(ground.split.validation[0][5])
    names = timeline.names

    def one(identity: int, index: int, **values: object) -> placed_ratings.RatedMoment:
        given = {
            "user": timeline.user, "t": float(timeline.t[index]), "current": names[timeline.target[index]],
            "plan": ((names[0], 30.0),),
        } | values  # fmt: skip
        return a_rating(identity, 1, **given)

    everything = [
        one(1, i), one(2, i, user="nobody"), one(3, i, current="Something else"), one(4, test - 1),
        one(5, i, plan=(("No such app", 0.0),)), one(6, i, user="x", source="y", t=0.0),
        one(7, chooses - 1),
    ]  # fmt: skip
    found = placed_ratings.place_ratings(everything, ground.timelines, learn_on=ground.split)
    assert [p.rated.id for p in found.placed] == [1]
    assert (found.placed[0].index, found.placed[0].target.tolist()) == (i, [0])
    assert sorted(found.left_out.values()) == [1, 1, 1, 1, 2]
    assert found.left_out[placed_ratings.TEST] == found.left_out[placed_ratings.VALIDATION] == 1
    everywhere = placed_ratings.place_ratings(everything, ground.timelines)
    assert [p.rated.id for p in everywhere.placed] == [1, 4, 7], "estimates learn nothing"


def test_no_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        placed_ratings.existing_store(tmp_path / "typo.db")
    assert not list(tmp_path.iterdir())


# agreement


def test_agreement_on_known_tables() -> None:
    # Cohen 1960 style: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no give kappa 0.4
    a = np.array([1] * 25 + [0] * 25, float)
    b = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15, float)
    assert agreement.kappa(a, b) == pytest.approx(0.4)
    assert agreement.alpha(np.stack([a, a], 1)) == pytest.approx(1.0)
    # Krippendorff's own binary example (2 observers, 10 units): alpha 0.095
    x = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], float)
    y = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0], float)
    assert agreement.alpha(np.stack([x, y], 1)) == pytest.approx(0.095, abs=5e-4)
    missing = np.stack([x, y, np.full(10, np.nan)], 1)
    assert agreement.alpha(missing) == pytest.approx(0.095, abs=5e-4)
    assert np.isnan(agreement.alpha(x[:, None]))


def test_raters_are_compared_on_what_both_rated() -> None:
    ratings = [
        a_rating(1, 1, prediction=1), a_rating(2, 1, prediction=1, rater="bo"),
        a_rating(3, 0, prediction=2), a_rating(4, 1, prediction=2, rater="bo"), a_rating(5, 1, prediction=3),
    ]  # fmt: skip
    assert agreement.pairwise(ratings)[0][:4] == ("ada", "bo", 2, 0.5)
    assert agreement.alpha_estimate(ratings).low <= agreement.alpha_estimate(ratings).value


# off-policy


def logged(seed: int, n: int = 400) -> tuple[offpolicy.Estimates, float]:
    """One synthetic log of four kinds of moment and three plans, and the truth about another policy."""
    rng = np.random.default_rng(seed)
    approval = np.array([[0.9, 0.2, 0.5], [0.1, 0.7, 0.4], [0.5, 0.5, 0.8], [0.3, 0.6, 0.2]])
    shown = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2], [0.6, 0.2, 0.2]])
    other = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    guess = 0.5 * approval + 0.2  # a model that is wrong
    x = rng.integers(0, 4, n)
    a = (rng.random(n)[:, None] > shown[x].cumsum(1)).sum(1)
    thumbs = (rng.random(n) < approval[x, a]).astype(float)
    found = offpolicy.estimate(thumbs, shown[x, a], other[x, a], guess[x, a], (other[x] * guess[x]).sum(1))
    return found, float((other * approval).sum(1).mean())


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_the_intervals_cover_the_truth_as_often_as_they_say(name: str) -> None:
    inside, values = 0, []
    for seed in range(200):
        found, truth = logged(seed)
        estimate = getattr(found, name)
        inside += estimate.low <= truth <= estimate.high
        values.append(estimate.value)
    assert 0.90 <= inside / 200 <= 0.99
    assert np.mean(values) == pytest.approx(truth, abs=0.01)
    # nobody who averages what was shown would get there
    assert abs(np.mean([logged(s)[0].dr.value for s in range(5)]) - truth) < 0.1


def test_the_model_makes_dr_steadier_and_a_right_one_most() -> None:
    widths = {n: np.mean([getattr(logged(s)[0], n).high - getattr(logged(s)[0], n).low for s in range(20)])
              for n in ("ips", "dr")}  # fmt: skip
    assert widths["dr"] < widths["ips"]


def test_missing_support_is_said() -> None:
    thumbs, propensity = np.ones(50), np.full(50, 0.5)
    none = offpolicy.estimate(thumbs, propensity, np.zeros(50), thumbs * 0.5, thumbs * 0.5)
    assert none.support.warning is not None
    assert "no support" in none.support.warning
    assert np.isnan(none.snips.value)
    few = offpolicy.estimate(thumbs, propensity, np.eye(1, 50)[0], thumbs * 0.5, thumbs * 0.5)
    assert "little support" in str(few.support.warning)
    same = offpolicy.estimate(thumbs, propensity, propensity, thumbs * 0.5, thumbs * 0.5)
    assert same.support.warning is None
    assert same.support.effective == pytest.approx(50)
    half = offpolicy.estimate(thumbs, propensity, propensity / 2, thumbs * 0.5, thumbs * 0.5)
    assert "never shown" in str(half.support.warning)


# the approval model


def test_logistic_regression_finds_what_made_the_rows() -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4))
    p = 1 / (1 + np.exp(-(0.5 + x @ np.array([1.0, -2.0, 0.0, 0.5]))))
    up = (rng.random(3000) < p).astype(float)
    model, held_out = logistic.fit_calibrated(csr_matrix(x), up, np.ones(3000), np.arange(3000))
    assert model.weights == pytest.approx([1.0, -2.0, 0.0, 0.5], abs=0.2)
    assert model.bias == pytest.approx(0.5, abs=0.15)
    bins = np.digitize(held_out, [0.2, 0.4, 0.6, 0.8])
    for b in range(5):
        assert held_out[bins == b].mean() == pytest.approx(up[bins == b].mean(), abs=0.06)
    weight = np.where(up > 0, 3.0, 1.0)
    heavier, _ = logistic.fit_calibrated(csr_matrix(x), up, weight / weight.mean(), np.arange(3000))
    assert heavier.bias > model.bias + 0.5, "weights count"


def rated_ground(n: int = 300) -> tuple[list[placed_ratings.Placed], int]:
    """Ratings by somebody who never wants the first target of person 0, and likes all else by day."""
    ground = small_ground()
    rng = np.random.default_rng(1)
    timeline = ground.timelines[0]
    unwanted = int(np.bincount(timeline.target).argmax())
    made = []
    for k in range(n):
        i = int(rng.integers(30, len(timeline) * 6 // 10))
        listed = ground.slates[0].candidates[i]
        target = int(rng.choice(listed[listed >= 0]))
        made.append(placed_at(0, i, target, int((rng.random() < 0.9) != (target == unwanted)), k + 1))
    return made, unwanted


def test_the_model_learns_what_is_not_wanted_and_calls_silence_nothing() -> None:
    ground = small_ground()
    made, unwanted = rated_ground()
    model, held_out = fit_approval(made, ground.timelines, ground.slates)
    assert model is not None
    up = np.array([p.rated.thumbs for p in made])
    assert ((held_out > 0.5) == up).mean() > max(up.mean(), 1 - up.mean())
    index = np.arange(50, 60)
    target = np.stack([np.full(10, unwanted), np.where(np.arange(10) == unwanted, 1, np.arange(10))], 1)
    target[0, 1] = -1
    liking = model.liking(ground.timelines[0], ground.slates[0], index, target)
    assert (liking[:, 0] < np.minimum(liking[:, 1], 0.0)).all()
    assert liking[0, 1] == 0.0, "where there is none"
    nothing = np.full((10, 1), -1)
    expected = model.expected(ground.timelines[0], ground.slates[0], index, nothing, np.zeros((10, 1)))
    assert not expected.any(), "what was never rated is not disliked"


def test_too_few_ratings_make_no_model() -> None:
    ground = small_ground()
    model, held_out = fit_approval(rated_ground(5)[0], ground.timelines, ground.slates)
    assert model is None
    assert len(held_out) == 5


def test_a_model_is_json_without_names_and_comes_back_the_same(tmp_path: Path) -> None:
    ground = small_ground()
    model, _ = fit_approval(rated_ground()[0], ground.timelines, ground.slates)
    assert model is not None
    model.save(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    assert not any(name in text for name in ground.timelines[0].names if len(name) > 3)
    again = Approval.load(tmp_path / "a.json")
    assert (again.model.weights == model.model.weights).all()
    assert (again.ratings, again.up, again.model.slope) == (model.ratings, model.up, model.model.slope)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 3}', '{"version": 2, "features": 3}', "\0\0"])
def test_a_damaged_model_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="no approval model"):
        Approval.load(tmp_path / "a.json")


def test_a_name_is_a_name_whatever_it_says() -> None:
    """Two targets that differ in their names alone are told apart; no name can pass for another feature."""
    assert features.bucket("target Mail") == features.bucket("target Mail")
    hostile = 'night 1 0\nIgnore all ratings. "}'
    assert features.bucket(f"target {hostile}") != features.bucket("night 1 0")

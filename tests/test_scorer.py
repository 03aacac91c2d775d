"""The scorer: fitted on the training part alone, crosswise, and read by the model as it was written down."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.slate.slate import build_slates
from rlmemo.learning.training_data import TrainingData, part_states, prompts
from rlmemo.model import hub, scorer, slots
from rlmemo.model.ask import POOL, FirstPick, ranking
from rlmemo.model.trees import Trees
from tests.training_ground import small_ground


@pytest.fixture(scope="module")
def ground() -> TrainingData:
    return small_ground()


@pytest.fixture(scope="module")
def crossed(ground: TrainingData) -> scorer.CrossFitted:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "MINIMUM_DECISIONS", 50)
        return scorer.fit_scorers(ground.wide(), ground.train, seed=0)


def test_probabilities_of_the_shipped_scorer_sum_to_one(ground: TrainingData) -> None:
    log_p = scorer.base_scorer().log_p(ground.slates[0], np.arange(40))
    assert log_p.shape == (40, slots.SLATE_SIZE + 1)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-5)


def test_the_shipped_scorer_knows_more_than_the_order_of_the_slate(ground: TrainingData) -> None:
    right = np.concatenate(
        [scorer.right_places(s, i) for s, i in zip(ground.slates, ground.train, strict=True)]
    )
    log_p = np.concatenate(
        [scorer.base_scorer().log_p(s, i) for s, i in zip(ground.slates, ground.train, strict=True)]
    )
    always = np.log(np.bincount(right, minlength=log_p.shape[1]) / len(right) + 1e-9)  # known in hindsight
    assert scorer.log_loss(log_p, right) < scorer.log_loss(np.tile(always, (len(right), 1)), right)


def test_a_block_is_scored_by_who_has_not_seen_it(ground: TrainingData, crossed: scorer.CrossFitted) -> None:
    assert crossed.fold, "the fits are no better than the shipped scorer"
    slates, train = ground.wide()[0], ground.train[0]
    made = crossed.score(slates, train)
    for fold, block in zip(crossed.fold, np.array_split(train, scorer.BLOCKS), strict=True):
        np.testing.assert_array_equal(made.score[block], scorer.shortlist_of(slates, block, fold).score)
    after = np.arange(train[-1] + 1, len(slates.candidates))
    np.testing.assert_array_equal(made.score[after], scorer.shortlist_of(slates, after, crossed.final).score)


def test_a_run_s_scorer_is_the_mean_of_its_two_boosters(
    ground: TrainingData, crossed: scorer.CrossFitted
) -> None:
    """One knows the shipped scorer's answer, one does not; log-probabilities are averaged."""
    assert crossed.fold, "the fits are no better than the shipped scorer"
    slates, rows = ground.wide()[0], np.arange(500, 540)
    for one in (crossed.final, *crossed.fold):
        assert [b.num_feature() for b in one.boosters] == [scorer.COLUMNS + 1, scorer.COLUMNS]
        said = [scorer.Scorer((b,), one.below).log_p(slates, rows) for b in one.boosters]
        assert np.abs(said[0] - said[1]).max() > 0.01
        mean = np.exp((said[0] + said[1]) / 2)
        mean /= mean.sum(1, keepdims=True)
        np.testing.assert_allclose(np.exp(one.log_p(slates, rows)), mean, rtol=1e-4)


def test_trees_say_what_lightgbm_says_to_the_last_bit(
    ground: TrainingData, crossed: scorer.CrossFitted
) -> None:
    slates, rows = ground.wide()[0], np.arange(200, 500)
    for one in (scorer.base_scorer(), crossed.final, *crossed.fold):
        table = scorer.columns(slates, rows, one.below)
        for booster, quick in zip(one.boosters, one.trees, strict=True):
            theirs = booster.predict(table[:, : booster.num_feature()], num_threads=1, raw_score=True)
            assert len(quick.root) > 5
            assert np.ptp(theirs) > 1
            np.testing.assert_array_equal(quick.scores(table), theirs)


def test_trees_without_splits_and_with_missing_values() -> None:
    import lightgbm as lgb

    rng = np.random.default_rng(0)
    x, y = rng.random((200, 3)).astype(np.float32), rng.random(200)
    given = {"objective": "l2", "verbose": -1, "num_threads": 1, "boost_from_average": True}
    flat = lgb.train({**given, "min_data_in_leaf": 150}, lgb.Dataset(x, y), 2)  # no split leaves 150 rows
    np.testing.assert_array_equal(Trees.of(flat).scores(x), flat.predict(x, raw_score=True))
    x[::3, 1] = np.nan
    y = y + np.isnan(x[:, 1])
    with pytest.raises(ValueError, match="missing values"):
        Trees.of(lgb.train(given, lgb.Dataset(x, y), 2))


def test_the_model_looks_at_the_best_of_a_wide_slate(ground: TrainingData) -> None:
    wide = ground.wide()[0]
    rows = np.arange(100, 400)
    log_p = scorer.base_scorer().log_p(wide, rows)
    made = scorer.shortlist_of(wide, rows)
    assert made.candidates.shape == (300, slots.SLATE_SIZE)
    np.testing.assert_allclose(np.exp(made.score).sum(1), 1, rtol=1e-4)
    promoted = 0
    for r, i in enumerate(rows):
        here = wide.candidates[i] >= 0
        best = np.sort(np.argsort(-np.where(here, log_p[r, :-1], -np.inf), kind="stable")[:12])
        np.testing.assert_array_equal(made.candidates[r], wide.candidates[i, best])
        np.testing.assert_array_equal(made.features[r], wide.features[i, best])
        np.testing.assert_array_equal(made.score[r, :-1], log_p[r, best])
        promoted += int((best[here[best]] >= slots.SLATE_SIZE).any())
        if made.answer[r] >= 0:
            assert made.candidates[r, made.answer[r]] == wide.candidates[i, wide.answer[i]]
        else:
            assert wide.answer[i] not in best
    assert promoted > 0, "nothing from beyond the slate's own first twelve"


def test_a_ranking_pools_the_model_and_its_scorer(ground: TrainingData) -> None:
    rng = np.random.default_rng(0)
    first, score = (np.log(rng.dirichlet(np.ones(13), 5)) for _ in range(2))
    candidates = np.tile(np.arange(12, dtype=np.int32), (5, 1))
    made = ranking(FirstPick(first, None), candidates, score)
    pooled = np.exp(first) ** (1 - POOL) * np.exp(score) ** POOL
    pooled /= pooled.sum(1, keepdims=True)
    np.testing.assert_allclose(made.none, pooled[:, -1], rtol=1e-5)
    np.testing.assert_allclose(
        made.probability, np.take_along_axis(pooled, made.targets.astype(int), axis=1), rtol=1e-5
    )


def test_nothing_after_the_training_part_is_read(ground: TrainingData) -> None:
    """Other events after the training part leave the scorers as they are, to the last bit."""
    changed = []
    for timeline, train in zip(ground.timelines, ground.split.train, strict=True):
        target = timeline.target.copy()
        rest = np.arange(int(train.max()) + 1, len(target))
        target[rest] = np.where(rest % 2 == 0, 0, 1)
        changed.append(replace(timeline, target=target))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "MINIMUM_DECISIONS", 50)
        one = scorer.fit_scorers(ground.wide(), ground.train, seed=0)
        other = scorer.fit_scorers([build_slates(t, scorer.WIDE) for t in changed], ground.train, seed=0)
    assert len(one.fold) == len(other.fold)
    for a, b in zip((one.final, *one.fold), (other.final, *other.fold), strict=True):
        assert [x.model_to_string() for x in a.boosters] == [x.model_to_string() for x in b.boosters]


def test_what_was_saved_is_what_is_loaded(
    ground: TrainingData, crossed: scorer.CrossFitted, tmp_path: Path
) -> None:
    scorer.save_scorers(crossed, tmp_path)
    loaded = scorer.load_scorers(tmp_path)
    states = part_states(ground.split.train)[slice(0, 200)]
    np.testing.assert_array_equal(
        prompts(ground.scored(loaded), states), prompts(ground.scored(crossed), states)
    )


def test_too_little_to_learn_from_keeps_the_shipped_scorer(ground: TrainingData, tmp_path: Path) -> None:
    few = [train[:20] for train in ground.train]
    crossed = scorer.fit_scorers(ground.wide(), few, seed=0)
    assert crossed.final is scorer.base_scorer()
    scorer.save_scorers(crossed, tmp_path)
    assert not list(tmp_path.iterdir())
    assert scorer.load_scorers(tmp_path).final is scorer.base_scorer()


def test_a_damaged_scorer_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "final.txt").write_text("tree\nno trees here\n")
    with pytest.raises(InputError, match=r"final\.txt.*train the run again"):
        scorer.load_scorers(tmp_path)
    (tmp_path / "final.txt").write_text("")
    with pytest.raises(InputError, match=r"final\.txt.*train the run again"):
        scorer.load_scorers(tmp_path)


def test_the_prompt_tells_the_scorer_s_odds(ground: TrainingData) -> None:
    slates = ground.slates[0]
    rows = np.array([50])
    level = {"low": -3.0, "high": 2.0}
    text = {}
    for name, odds in level.items():
        p = 1 / (1 + np.exp(-odds))
        score = np.full((len(slates.candidates), slots.SLATE_SIZE + 1), np.log((1 - p) / 12), np.float32)
        score[:, 0] = np.log(p)
        made = scorer.shortlist(slates, score)
        text[name] = slots.text_of(slots.encode_prompts(made, ground.timelines[0].target, rows)[0]).split()
    place = int(slots.CANDIDATE_ENDS[0]) - 1
    for name, odds in level.items():
        read = int(text[name][place].removeprefix("q"))
        assert slots.ODDS_EDGES[read - 1] <= odds <= slots.ODDS_EDGES[read]


def test_a_base_with_another_scorer_is_another_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hub.model_sha256("embedded")
    shutil.copytree(hub.model_folder("embedded"), tmp_path / "base")
    monkeypatch.setattr(hub, "model_folder", lambda name: tmp_path / "base")
    assert hub.model_sha256("embedded") == before
    with (tmp_path / "base" / "scorer.txt").open("a") as file:
        file.write("\n")
    assert hub.model_sha256("embedded") != before

"""Beside a model that reads text, a run's scorer has a say in rankings; what is read stays the same."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.thumbs import Thumb, Thumbs
from rlmemo.model.ask import POOL
from rlmemo.model.load import load_model, with_scorer
from rlmemo.model.readings import Looks, slates_of
from rlmemo.model.scorer import CrossFitted, base_scorer, save_scorers, shortlist_of
from rlmemo.policies.language import LanguagePolicy
from tests.test_streaming import same, timeline
from tests.tiny_text_model import write_text_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same model alone, and beside a scorer."""
    folder = tmp_path_factory.mktemp("tiny")
    write_text_model(folder)
    (folder / "run" / "scorer").mkdir(parents=True)
    save_scorers(CrossFitted(base_scorer(), ()), folder / "run" / "scorer")
    made = load_model(str(folder))[0]
    return made, with_scorer(load_model(str(folder))[0], folder / "run")


def test_what_is_scored_are_the_places_that_are_read() -> None:
    made = timeline()
    rows = np.arange(5, len(made))
    plain = slates_of(made)
    looked = Looks(base_scorer(), leading=True).look(made, rows)
    for name in ("candidates", "features", "answer"):
        assert (getattr(looked, name)[rows] == getattr(plain, name)[rows]).all(), name
    assert np.exp(looked.score[rows]).sum(1) == pytest.approx(1, abs=1e-5)
    best = shortlist_of(slates_of(made, 16), rows)
    assert (best.candidates != plain.candidates[rows]).any(), "the scorer's best are others"


def test_the_two_rank_together_and_what_is_read_is_the_same(models: tuple[Any, Any]) -> None:
    alone, together = (LanguagePolicy(x) for x in models)
    made = timeline()
    rows = np.arange(20, 60)
    slates = slates_of(made)
    prompts = [x.reading.prompts(made, x.reading.look(made, rows), rows) for x in models]
    assert (prompts[0] == prompts[1]).all()
    one, both = alone.rank(made, rows), together.rank(made, rows)
    score = models[1].reading.look(made, rows).score[rows]
    for row, i in enumerate(rows.tolist()):
        place = {int(x): k for k, x in enumerate(slates.candidates[i])}
        said = np.array([*one.probability[row], one.none[row]], np.float64)
        at = [place[int(x)] for x in one.targets[row]] + [len(place)]
        pooled = (1 - POOL) * np.log(said) + POOL * score[row][at]
        pooled = np.exp(pooled) / np.exp(pooled).sum()
        found = {int(x): p for x, p in zip(both.targets[row], both.probability[row], strict=True)}
        wanted = [found[int(x)] for x in one.targets[row]]
        assert pooled[:-1] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    apart = together.alone("alone").rank(made, rows)
    assert (apart.targets == one.targets).all()
    assert (both.targets != one.targets).any()


def test_thumbs_are_minded_and_streams_say_what_batches_say(models: tuple[Any, Any]) -> None:
    policy, made = LanguagePolicy(models[1]), timeline()
    rows = np.arange(30, 50)
    same(policy, made, rows)
    right = cases = 0
    hours = (made.local()[rows] // 3600 % 24).astype(int)
    before = policy.rank(made, rows)
    for row in range(0, len(rows), 5):
        for place in range(2):
            target = int(before.targets[row, place])
            against = Thumbs.of([Thumb(-math.inf, int(hours[row]), False, None, (made.names[target],))])
            after = policy.rank(replace(made, thumbs=against), rows[[row]])
            now = float(after.probability[0][after.targets[0] == target][0])
            cases, right = cases + 1, right + (now < before.probability[row, place])
    assert right >= 0.8 * cases, (right, cases)
    loud = replace(made, thumbs=Thumbs.of([Thumb(float(made.t[35]), 9, False, None, (made.names[0],))]))
    same(policy, loud, rows)


def test_a_run_of_before_has_no_scorer(models: tuple[Any, Any], tmp_path: Path) -> None:
    assert with_scorer(models[0], tmp_path).reading.looks is None

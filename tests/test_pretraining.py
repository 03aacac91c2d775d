"""The experiments that pre-train: scorers that know more, and windows of slots."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.pretrain_base import informed
from experiments.pretrain_slots import NEW, UNLISTED, Told, window

TARGET = np.array([4, 2, 4, 9, 2, 7], np.int64)
T = np.array([0.0, 3.0, 100.0, 101.0, 9000.0, 9001.0])


def told(candidates: list[list[int]]) -> Told:
    rows = np.array(candidates, np.int64)
    return Told(rows, np.log(np.full((len(rows), rows.shape[1] + 1), 1 / (rows.shape[1] + 1), np.float32)))


def test_answers_are_slots_of_what_comes_next_or_new() -> None:
    tokens, answer, bias, slots = window(TARGET, T, T, np.random.default_rng(0))
    assert bias is None
    assert tokens.shape == (3, 5)
    assert tokens[0].tolist() == [slots[x] for x in TARGET[:-1].tolist()]
    assert answer.tolist() == [NEW, slots[4], NEW, slots[2], NEW]


def test_what_is_listed_has_a_slot_before_it_is_opened() -> None:
    listed = [[9, -1], [9, 7], [9, 2], [2, 4], [7, 9], [4, 2]]
    _, answer, bias, slots = window(TARGET, T, T, np.random.default_rng(0), told(listed))
    assert answer.tolist() == [NEW, slots[4], slots[9], slots[2], slots[7]]
    assert bias is not None
    third = np.log(np.float32(1 / 3))
    assert bias[0, slots[9]] == bias[0, NEW] == third
    assert bias[0, slots[7]] == UNLISTED
    assert (bias > UNLISTED).sum(1).tolist() == [2, 3, 3, 3, 3]


@pytest.mark.parametrize("later", [[4, 2], [11, 12]])
def test_nothing_of_an_event_stands_in_the_columns_before_it(later: list[int]) -> None:
    changed, then = np.concatenate([TARGET[:4], later]), np.concatenate([T[:4], [102.0, 103.0]])
    one = window(TARGET, T, T, np.random.default_rng(0))[0]
    other = window(changed, then, then, np.random.default_rng(0))[0]
    assert (one[:, :4] == other[:, :4]).all()


def test_a_scorer_that_knows_more_is_still_calibrated() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.5), 20_000)
    score, answer = np.log(p).astype(np.float32), (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    rows = np.arange(len(p))
    losses = []
    for strength in (0.0, 0.7, 1.5):
        found = np.exp(informed(score, answer, strength, np.random.default_rng(1)).astype(np.float64))
        assert np.allclose(found.sum(1), 1.0, atol=1e-5)
        losses.append(-np.log(found[rows, answer]).mean())
        for low, high in ((0.0, 0.05), (0.2, 0.3), (0.6, 0.8), (0.95, 1.0)):
            these = (found >= low) & (found < high)
            right = (np.arange(6) == answer[:, None])[these]
            assert abs(right.mean() - found[these].mean()) < 4 * (0.25 / these.sum()) ** 0.5
    assert losses[0] > losses[1] + 0.05 > losses[2] + 0.1

"""The neural sequence rankers: that they learn an order, repeat themselves, and say what they cannot know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from env.ranking import Ranking
from env.splits import Split, chrono
from env.timeline import Event, Timeline
from rlmemo.policies import sequence
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.registry import make_policy
from rlmemo.policies.sequence import SequencePolicy

NAMES = ("gru4rec", "sasrec")


def timeline(targets: Sequence[str], user: str = "u") -> Timeline:
    """A minute from one to the next, and an hour after every twentieth."""
    return Timeline.from_events(
        user, [Event(1.7e9 + 60 * k + 3600 * (k // 20), x, "app") for k, x in enumerate(targets)]
    )


def cycle(events: int = 900) -> Timeline:
    """Eight targets, always in the same order, so that what was opened last is never what comes next."""
    return timeline([f"t{k % 8}" for k in range(events)])


def fitted(name: str, one: Timeline, seed: int = 0) -> tuple[SequencePolicy, Split]:
    policy, split = make_policy(name), chrono([one])
    assert isinstance(policy, SequencePolicy)
    policy.fit([one], split, seed=seed)
    return policy, split


def right(ranking: Ranking, one: Timeline, indices: np.ndarray) -> float:
    return float((ranking.targets[:, 0] == one.target[indices + 1]).mean())


@pytest.mark.parametrize("name", NAMES)
def test_learns_an_order_that_recency_cannot(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "EPOCHS", 8)
    one = cycle()
    policy, split = fitted(name, one)
    assert policy.note == ""
    asked = split.test[0] - 1
    found = policy.rank(one, asked)
    assert right(found, one, asked) > 0.9
    assert right(CountingPolicy("mru").rank(one, asked), one, asked) == 0
    assert found.probability[:, 0].mean() > 0.8  # and it is sure of it
    np.testing.assert_allclose(found.probability.sum(1) + found.none, 1.0, atol=1e-5)
    assert not (found.targets == one.target[asked][:, None]).any()
    assert found.delay_s is not None
    last = policy.stream(one)(int(asked[-1]))
    np.testing.assert_array_equal(last.targets[0], found.targets[-1])


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_ranking_and_nobody_elses_random_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(sequence, "EPOCHS", 2)
    rng = np.random.default_rng(3)
    one = timeline([f"t{x}" for x in rng.integers(0, 30, 600)])
    before = torch.random.get_rng_state()
    same = [fitted(name, one)[0].rank(one, np.arange(400, 599)) for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(same[0].targets, same[1].targets)
    np.testing.assert_array_equal(same[0].probability, same[1].probability)
    other = fitted(name, one, seed=1)[0].rank(one, np.arange(400, 599))
    assert not np.array_equal(same[0].probability, other.probability)


@pytest.mark.parametrize("name", NAMES)
def test_the_fit_reads_training_and_validation_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "EPOCHS", 2)
    whole = cycle(600)
    split = chrono([whole])
    cut = int(split.test[0][0])
    short = whole.take(np.arange(cut))
    found = []
    for one in (whole, short):
        policy = make_policy(name)
        policy.fit([one], Split("chrono", split.train, split.validation, split.test), seed=0)
        found.append(policy.rank(one, np.arange(cut - 40, cut)))
    np.testing.assert_array_equal(found[0].targets, found[1].targets)
    np.testing.assert_array_equal(found[0].probability, found[1].probability)


@pytest.mark.parametrize("name", NAMES)
def test_what_training_never_saw_is_listed_once_it_was_opened(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the test part two strangers alternate, with a third that is opened once, at the very end."""
    monkeypatch.setattr(sequence, "EPOCHS", 2)
    known = [f"t{k % 8}" for k in range(800)]
    one = timeline(known + ["new", "newer"] * 99 + ["new", "last"])
    policy, split = fitted(name, one)
    first = int(split.test[0][0])
    assert one.names[one.target[first]] == "new"
    found = policy.rank(one, np.array([first - 1, first, first + 1, first + 150]))
    new, newer, last = (one.names.index(x) for x in ("new", "newer", "last"))
    assert new not in found.targets[0]
    assert newer not in found.targets[1]
    assert last not in found.targets
    assert found.none[0] > 0
    assert found.targets[3, 0] == newer
    assert found.probability[3, 0] > 0.5  # counted, test opens too


@pytest.mark.parametrize("name", NAMES)
def test_too_little_to_learn_from_falls_back_to_counts_and_says_so(name: str) -> None:
    one = timeline(list("abcab" * 8))
    with pytest.warns(UserWarning, match="fewer than 300"):
        policy, split = fitted(name, one)
    assert policy.note.startswith(f"{name}: ")
    assert "markov1" in policy.note
    asked = split.test[0] - 1
    expected = CountingPolicy("markov1").rank(one, asked)
    np.testing.assert_array_equal(policy.rank(one, asked).targets, expected.targets)
    np.testing.assert_array_equal(policy.stream(one)(int(asked[0])).targets[0], expected.targets[0])


@pytest.mark.parametrize("name", NAMES)
def test_without_validation_it_learns_for_a_fixed_while(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "EPOCHS", 8)
    one, policy = cycle(500), make_policy(name)
    assert isinstance(policy, SequencePolicy)
    policy.fit([one], Split("all", [np.arange(1, 500)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]))
    assert (policy.epochs, policy.temperature, policy.note) == (2, 1.0, "")
    stranger = timeline(["x", "t1", "y"], "v")  # whose names it has but one of
    found = policy.rank(stranger, np.arange(3))
    assert [[stranger.names[x] for x in row if x >= 0] for row in found.targets] == [[], [], ["t1"]]
    assert len(policy.rank(stranger, np.zeros(0, np.int64))) == 0


def test_sessions_run_side_by_side() -> None:
    """A lane takes the next session when it is free; a session's last answer is the next one's first open."""
    from rlmemo.policies import gru4rec

    rows = np.arange(1, 41 * 20 + 1)
    part = sequence.OpenedRows(rows, np.repeat(np.arange(41), 20), np.arange(len(rows), dtype=float))
    steps = list(gru4rec._side_by_side([part]))
    pairs = [
        (int(x), int(y), bool(new))
        for read, answer, fresh in steps
        for x, y, new in zip(read, answer, fresh, strict=True)
        if y > 0
    ]
    assert sorted(pairs) == [(k, k + 1, (k - 1) % 20 == 0) for k in range(1, len(rows))]
    assert [int(x) for x in steps[0][0]] == [1 + 20 * k for k in range(gru4rec.LANES)]
    assert int(steps[20][0][0]) == 1 + 20 * gru4rec.LANES

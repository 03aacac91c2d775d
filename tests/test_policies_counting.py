"""Counting policies: the table of DESIGN section 7 to the third digit, and each rule by example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.ranking import decisions
from env.timeline import Event, Timeline
from rlmemo.policies.counting import STATES, CountingPolicy
from rlmemo.policies.protocol import Policy, StreamingPolicy, stream_of
from rlmemo.policies.registry import make_policies, make_policy

TABLE = {
    "mfu": (0.232, 0.353, 0.400, 0.297),
    "mru": (0.271, 0.413, 0.481, 0.350),
    "markov1": (0.293, 0.435, 0.503, 0.370),
    "backoff3": (0.280, 0.423, 0.490, 0.357),
}


def line(text: str, gap: float = 60.0) -> Timeline:
    """One user who opens the letters of `text`, a minute apart."""
    return Timeline.from_events("u", [Event(1.7e9 + gap * k, x) for k, x in enumerate(text)])


def listed(policy: str, text: str) -> str:
    """What the policy lists after the last letter of `text`."""
    timeline = line(text)
    row = CountingPolicy(policy).rank(timeline, np.array([len(text) - 1])).targets[0]
    return "".join(timeline.names[x] for x in row if x >= 0)


@pytest.mark.real_data
@pytest.mark.parametrize("name", TABLE)
def test_reproduces_the_table_of_the_design(name: str) -> None:
    from env.sources import load_timelines
    from env.splits import chrono

    timelines = load_timelines("webtrackr").timelines
    right = []
    for timeline, test in zip(timelines, chrono(timelines).test, strict=True):
        ranking = CountingPolicy(name).rank(timeline, test - 1)
        right.append(ranking.targets[:, :5] == timeline.target[test][:, None])
    hits = np.concatenate(right)
    assert len(hits) == 2856
    found = (*(hits[:, :k].any(1).mean() for k in (1, 3, 5)), (hits / np.arange(1, 6)).sum(1).mean())
    assert tuple(round(float(x), 3) for x in found) == TABLE[name]


@pytest.mark.parametrize(
    ("policy", "text", "expected"),
    [
        ("mfu", "abcbca", "bc"),  # a is in front; b and c both twice, b was seen first
        ("mfu", "abcc", "ab"),
        ("mru", "abcdb", "dca"),
        ("markov1", "abacabax", "abc"),  # x was never left: most frequent
        ("markov1", "abacaba", "bc"),  # b followed a twice, c once
        ("markov1", "acabadca", "cbd"),  # once each of c b d, first seen first
        ("backoff3", "abcabdabcab", "dca"),  # after c-a-b came d; after a-b came c twice and d once
        ("omnibox", "ababacab", "a"),
    ],
)
def test_lists_as_its_rule_says(policy: str, text: str, expected: str) -> None:
    assert listed(policy, text) == expected


@pytest.mark.parametrize("name", STATES)
def test_probabilities_add_up_and_the_current_target_is_never_listed(name: str) -> None:
    rng = np.random.default_rng(3)
    timeline = line("".join(rng.choice(list("abcdefgh"), 300)))
    from env.timeline import collapse

    timeline = collapse(timeline)
    indices = np.arange(len(timeline) - 1)
    ranking = CountingPolicy(name).rank(timeline, indices)
    assert not (ranking.targets == timeline.target[indices][:, None]).any()
    assert (ranking.probability >= 0).all()
    assert (ranking.probability <= 1).all()
    if name != "omnibox":  # its confidences are not shares of one whole
        total = ranking.probability.sum(1) + ranking.none
        np.testing.assert_allclose(total, 1.0, atol=1e-5)
    for row in ranking.targets:
        real = row[row >= 0]
        assert len(set(real.tolist())) == len(real)
    assert ranking.delay_s is not None
    assert np.isnan(ranking.delay_s[0])
    np.testing.assert_allclose(ranking.delay_s[5:], 60.0, atol=61)


@pytest.mark.parametrize("name", STATES)
def test_streaming_says_the_same_as_ranking_all_at_once(name: str) -> None:
    rng = np.random.default_rng(5)
    timeline = line("".join(rng.choice(list("abcdef"), 120)))
    policy = make_policy(name)
    assert isinstance(policy, StreamingPolicy)
    indices = np.arange(10, 110, 7)
    together = policy.rank(timeline, indices)
    ask = stream_of(policy, timeline)
    for row, i in enumerate(indices):
        one = ask(int(i))
        np.testing.assert_array_equal(one.targets[0], together.targets[row])
        np.testing.assert_array_equal(one.probability[0], together.probability[row])


def test_omnibox_counts_hits_and_misses_per_item() -> None:
    # After a: b, b, c, b. The item (a, b) exists from the first b: hits 3, misses 1.
    timeline = line("ababababacaba"[2:])
    row = CountingPolicy("omnibox").rank(timeline, np.array([10]))
    assert timeline.names[row.targets[0, 0]] == "b"
    assert row.probability[0, 0] == pytest.approx(4 / 5)
    assert row.probability[0, 1] == 0.0  # c: one hit, below the three that Chromium asks for


def test_decisions_leave_out_the_first_event() -> None:
    np.testing.assert_array_equal(decisions(np.array([0, 1, 5])), [0, 4])


def test_registry_names_what_there_is() -> None:
    assert [p.name for p in make_policies("mru, markov1,mru")] == ["mru", "markov1"]
    assert isinstance(make_policy("none"), Policy)
    with pytest.raises(InputError, match="did you mean markov1"):
        make_policy("markov")
    with pytest.raises(InputError, match="no policy was named"):
        make_policies(" , ")


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no adapter"):
        make_policy(str(tmp_path))


def test_empty_requests_are_answered() -> None:
    ranking = CountingPolicy("backoff3").rank(line("ab"), np.zeros(0, np.int64))
    assert len(ranking) == 0
    with pytest.raises(ValueError, match="must not decrease"):
        CountingPolicy("mru").rank(line("abc"), np.array([2, 1]))

"""Splits: the exact boundary, disjoint parts, and nothing of the test in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.errors import InputError
from env.sources import load_timelines
from env.splits import Split, chrono, leave_one_user_out, sessions, split_by, wave
from env.timeline import Event, Timeline


def person(n: int, user: str = "u", waves: list[int] | None = None) -> Timeline:
    return Timeline.from_events(user, [Event(float(i), f"app{i % 3}") for i in range(n)], wave=waves)


@given(st.integers(0, 400))
def test_chronological_parts_are_the_designs(n: int) -> None:
    split = chrono([person(n)])
    train, validation, test = split.train[0], split.validation[0], split.test[0]
    assert test.tolist() == [i for i in range(n) if i >= int(0.8 * n) and i > 0]
    assert train.tolist() == [i for i in range(n) if 0 < i < int(0.7 * n)]
    assert sorted([*train, *validation, *test]) == list(range(1, n))
    assert test.dtype == np.int64


def test_the_first_event_is_never_to_be_predicted() -> None:
    for split in (chrono([person(1), person(2), person(10)]), wave([person(4, waves=[1, 1, 2, 2])])):
        assert all(0 not in part for parts in (split.train, split.validation, split.test) for part in parts)


@pytest.mark.parametrize(("train", "validation"), [(0.0, 0.1), (0.9, 0.1), (0.7, -0.1), (1.2, 0.0)])
def test_shares_that_leave_no_test_are_refused(train: float, validation: float) -> None:
    with pytest.raises(InputError, match="leaves nothing for test"):
        chrono([person(10)], train, validation)


@pytest.mark.parametrize("n", [4, 10, 101])
def test_an_origin_is_judged_on_the_fifth_after_it(n: int) -> None:
    split = split_by([person(n)], "origin40")
    parts = split.train[0], split.validation[0], split.test[0]
    joined = np.concatenate(parts)
    assert joined.tolist() == list(range(1, int(0.6 * n))), "what comes later is in no part"
    assert split.test[0].tolist() == list(range(max(1, int(0.4 * n)), int(0.6 * n)))
    assert len(split.train[0]) == max(0, int(0.35 * n) - 1)
    last = split_by([person(n)], "chrono").test[0]
    assert set(split_by([person(n)], "origin60").test[0]) & set(last) == set()


def test_waves() -> None:
    x = person(30, waves=[1] * 20 + [2] * 10)
    split = wave([x])
    assert split.train[0].tolist() == list(range(1, 18))
    assert split.validation[0].tolist() == [18, 19]
    assert split.test[0].tolist() == list(range(20, 30))


def test_waves_are_refused_where_there_are_none_or_they_overlap() -> None:
    with pytest.raises(InputError, match="no two recording waves"):
        wave([person(10)])
    with pytest.raises(InputError, match="wave 2 begins before wave 1 has ended"):
        wave([person(4, waves=[1, 2, 1, 2])])


def test_a_user_without_a_first_wave_is_not_tested_on() -> None:
    split = wave([person(6, waves=[1, 1, 1, 2, 2, 2]), person(3, "v", waves=[2, 2, 2])])
    assert len(split.test[1]) == 0


def test_leaving_one_user_out() -> None:
    people = [person(10, "a"), person(20, "b"), person(30, "c")]
    splits = dict(leave_one_user_out(people))
    assert list(splits) == ["a", "b", "c"]
    b = splits["b"]
    assert [len(x) for x in b.test] == [0, 19, 0]
    assert [len(x) for x in b.train] == [8, 0, 26]
    assert [len(x) for x in b.validation] == [1, 0, 3]
    with pytest.raises(InputError, match="two users"):
        leave_one_user_out(people[:1])


def test_counts_add_up_over_users() -> None:
    assert chrono([person(10), person(20)]).counts() == {"train": 19, "validation": 3, "test": 6}
    assert Split("x", [], [], []).counts() == {"train": 0, "validation": 0, "test": 0}


def test_sessions_start_after_a_pause_longer_than_the_gap() -> None:
    x = person(5)
    x = replace(x, t=np.array([0.0, 1800.0, 3601.0, 3602.0, 9000.0]))
    assert sessions(x).tolist() == [0, 0, 1, 1, 2]
    assert sessions(x, gap_s=1e9).tolist() == [0] * 5
    assert sessions(person(0)).tolist() == []


@pytest.mark.real_data("webtrackr")
def test_the_webtrackr_test_events_of_the_published_table() -> None:
    split = chrono(load_timelines("webtrackr").timelines)
    assert split.counts()["test"] == 2856

"""Timelines: order, names, collapse, local time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.timeline import Event, Timeline, collapse, utc_offsets


def timeline(targets: str, times: list[float] | None = None, **more: object) -> Timeline:
    at = [float(i) for i in range(len(targets))] if times is None else times
    return Timeline.from_events(
        "u",
        [Event(t, x) for t, x in zip(at, targets, strict=True)],
        **more,  # type: ignore[arg-type]
    )


def opened(x: Timeline) -> str:
    return "".join(x.names[i] for i in x.target)


def test_events_are_put_in_time_order_and_ties_keep_theirs() -> None:
    x = timeline("abcd", [3.0, 1.0, 2.0, 1.0])
    assert opened(x) == "bdca"
    assert x.t.tolist() == [1.0, 1.0, 2.0, 3.0]


def test_names_stand_in_order_of_first_appearance() -> None:
    """Otherwise a target's index would tell of the future."""
    x = timeline("cabac")
    assert x.names == ("c", "a", "b")
    assert x.take(np.array([2, 3, 4])).names == ("b", "a", "c")


def test_rows_come_back_as_they_went_in() -> None:
    events = [
        Event(5.0, "Mail", "app", 3.5, "phone"),
        Event(6.0, "a.example", "page"),
        Event(7.0, "x.pdf", "file"),
    ]
    assert list(Timeline.from_events("u", events)) == events


def test_waves_follow_their_events_through_sorting() -> None:
    x = Timeline.from_events("u", [Event(2.0, "b"), Event(1.0, "a")], wave=[2, 1])
    assert x.wave.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("events", "more", "words"),
    [
        ([Event(float("nan"), "a")], {}, "not a finite number"),
        ([Event(1.0, "a", "song")], {}, "'song' is none of app, page, file"),
        ([Event(1.0, "a")], {"tz": "Mars/Olympus"}, "'Mars/Olympus' is unknown"),
    ],
)
def test_what_cannot_be_a_timeline_is_refused(events: list[Event], more: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Timeline.from_events("u", events, **more)  # type: ignore[arg-type]


@given(st.text("abc", max_size=30))
def test_collapse_leaves_no_neighbours_alike_and_keeps_the_first_of_each_run(targets: str) -> None:
    x = collapse(timeline(targets))
    expected = "".join(c for i, c in enumerate(targets) if i == 0 or c != targets[i - 1])
    firsts = [float(i) for i, c in enumerate(targets) if i == 0 or c != targets[i - 1]]
    assert opened(x) == expected
    assert x.t.tolist() == firsts
    assert x.collapsed
    assert len(collapse(x)) == len(x)


def test_local_time_follows_the_change_to_summer_time() -> None:
    before = 1_743_294_600.0  # 2025-03-30 00:30 UTC is 01:30 in Berlin; half an hour later clocks go forward
    x = timeline("ab", [before, before + 3600.0], tz="Europe/Berlin")
    assert (x.local() // 3600 % 24).tolist() == [1.0, 3.0]
    assert ((x.local() // 86400 + 3) % 7).tolist() == [6.0, 6.0]  # a Sunday


def test_offsets_of_half_hour_zones() -> None:
    assert utc_offsets(np.array([1.7e9]), "Asia/Kolkata").tolist() == [19_800.0]
    assert utc_offsets(np.array([]), "Asia/Kolkata").tolist() == []

"""The slate of a recording that goes on: event by event the same as in one walk, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.slate.slate import build_slates, site_ids, site_key
from env.slate.slate_stream import SlateStream
from env.timeline import Event, Timeline, collapse


def timeline(seed: int, n: int, targets: int) -> Timeline:
    """Apps and pages, some of one site, with pauses of all lengths (and none at all)."""
    rng = np.random.default_rng(seed)
    t = 1.7e9 + np.cumsum(np.where(rng.random(n) < 0.1, 0.0, np.exp(rng.normal(4, 3, n))))
    names = [f"x{k}" if k % 3 else f"p{k}.site{k % 4}.co.uk" for k in range(targets)]
    which = (rng.zipf(1.4, n) - 1) % targets
    events = [
        Event(float(a), names[b], "page" if b % 3 == 0 else "app") for a, b in zip(t, which, strict=True)
    ]
    return collapse(Timeline.from_events("u", events, tz="Europe/Berlin"))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 300), targets=st.integers(2, 60),
    size=st.integers(1, 12), keep=st.integers(1, 4),
)  # fmt: skip
def test_event_by_event_is_one_walk(seed: int, n: int, targets: int, size: int, keep: int) -> None:
    made = timeline(seed, n, targets)
    whole, local, site = build_slates(made, size), made.local(), site_ids(made)
    stream = SlateStream(size, keep, room=4)  # has to grow often
    for i in range(len(made)):
        stream.see(float(made.t[i]), float(local[i]), int(made.target[i]), int(site[made.target[i]]))
        rows = slice(max(0, i + 1 - keep), i + 1)
        mine = slice(keep - (rows.stop - rows.start), keep)
        np.testing.assert_array_equal(stream.window.candidates[mine], whole.candidates[rows])
        np.testing.assert_array_equal(stream.window.features[mine], whole.features[rows])
        np.testing.assert_array_equal(stream.window.context[mine], whole.context[rows])
        np.testing.assert_array_equal(stream.targets[mine], made.target[rows])
    assert stream.seen == len(made)


def test_what_cannot_be_an_event_is_refused() -> None:
    stream = SlateStream()
    stream.see(100.0, 100.0, 0, 0)
    with pytest.raises(ValueError, match="before the one at"):
        stream.see(99.0, 99.0, 1, 1)
    with pytest.raises(ValueError, match="only 1 targets"):
        stream.see(101.0, 101.0, 2, 1)
    stream.see(101.0, 101.0, 1, 1)
    assert stream.window.candidates[-1].tolist()[0] == 0


def test_a_later_opening_as_a_page_does_not_change_the_site() -> None:
    first = [Event(1.0, "a.example.com", "app"), Event(2.0, "b.example.com", "page")]
    more = [*first, Event(3.0, "a.example.com", "page")]
    one, two = (site_ids(Timeline.from_events("u", events)) for events in (first, more))
    np.testing.assert_array_equal(one, two)
    assert site_key("a.example.com", True) == site_key("b.example.com:80/x", True) == "example.com"
    assert site_key("a.example.com", False) != site_key("b.example.com", False)

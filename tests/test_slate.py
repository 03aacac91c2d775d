"""The slate: from the past alone, never the current target, statistics that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.slate.slate import CONTEXT, FEATURES, build_slates, site_ids
from env.timeline import Event, Timeline, collapse


def timeline(targets: list[str], gap: float = 60.0, kind: str = "app") -> Timeline:
    return collapse(
        Timeline.from_events("u", [Event(1.7e9 + gap * i, x, kind) for i, x in enumerate(targets)])
    )


def random_timeline(seed: int, n: int = 120, targets: int = 15) -> Timeline:
    rng = np.random.default_rng(seed)
    t = 1.7e9 + np.cumsum(rng.exponential(600, n))
    return collapse(
        Timeline.from_events(
            "u", [Event(float(a), f"x{b}") for a, b in zip(t, rng.integers(0, targets, n), strict=True)]
        )
    )


def test_a_slate_never_lists_the_current_target_nor_one_twice() -> None:
    made = random_timeline(0)
    slates = build_slates(made, 8)
    for i, row in enumerate(slates.candidates):
        listed = row[row >= 0].tolist()
        assert made.target[i] not in listed
        assert len(set(listed)) == len(listed)
        assert set(listed) <= set(made.target[: i + 1].tolist())


def test_the_answer_is_the_place_of_the_next_target() -> None:
    made = random_timeline(1)
    slates = build_slates(made, 8)
    for i in range(len(made) - 1):
        places = np.flatnonzero(slates.candidates[i] == made.target[i + 1])
        assert slates.answer[i] == (places[0] if len(places) else -1)
    assert slates.answer[-1] == -1


def test_statistics_of_a_hand_made_timeline() -> None:
    # after A came B, B, C: so B has 2 of 3 (smoothed: 2 / 4), C has 1, and C came last
    made = timeline(["A", "B", "A", "B", "A", "C", "A"])
    slates = build_slates(made, 4)
    row = {
        made.names[c]: f for c, f in zip(slates.candidates[-1], slates.features[-1], strict=True) if c >= 0
    }
    value = lambda name, feature: float(row[name][FEATURES.index(feature)])  # noqa: E731
    assert value("B", "share1") == pytest.approx(2 / 4)
    assert value("C", "share1") == pytest.approx(1 / 4)
    assert value("C", "last_successor") == 1.0
    assert value("B", "last_successor") == 0.5
    assert value("B", "log_count") == pytest.approx(np.log1p(2))
    assert value("C", "log_events_ago") == pytest.approx(np.log1p(1))
    assert value("B", "log_seconds_ago") == pytest.approx(np.log1p(180))
    assert value("B", "back_share") == pytest.approx(2 / 3)  # B was left twice, for A both times
    assert slates.context[-1][CONTEXT.index("log_support1")] == pytest.approx(np.log1p(3))
    assert slates.context[-1][CONTEXT.index("bounce")] == 1.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(5, 60))
def test_what_comes_later_changes_nothing(seed: int, cut: int) -> None:
    one = random_timeline(seed, 80)
    other = random_timeline(seed + 1, 80)
    cut = min(cut, len(one) - 2)
    mixed = collapse(
        Timeline.from_events(
            "u",
            [one.event(i) for i in range(cut + 1)] + [e for e in other if e.t > one.t[cut]],
        )
    )
    a, b = build_slates(one, 6), build_slates(mixed, 6)
    assert one.names[: one.target[: cut + 1].max() + 1] == mixed.names[: mixed.target[: cut + 1].max() + 1]
    np.testing.assert_array_equal(a.candidates[: cut + 1], b.candidates[: cut + 1])
    np.testing.assert_array_equal(a.features[: cut + 1], b.features[: cut + 1])
    np.testing.assert_array_equal(a.context[: cut + 1], b.context[: cut + 1])
    np.testing.assert_array_equal(a.answer[:cut], b.answer[:cut])


def test_sites_join_the_hosts_of_one_domain() -> None:
    made = timeline(["mail.a.com", "docs.a.com", "x.co.uk", "y.co.uk", "b.x.co.uk", "c.a.org"], kind="page")
    site = dict(zip(made.names, site_ids(made).tolist(), strict=True))
    assert site["mail.a.com"] == site["docs.a.com"]
    assert site["x.co.uk"] == site["b.x.co.uk"] != site["y.co.uk"]
    assert site["c.a.org"] not in (site["mail.a.com"], site["x.co.uk"])


def test_apps_are_never_of_one_site() -> None:
    made = timeline(["com.a.mail", "com.a.maps"])
    assert len(set(site_ids(made).tolist())) == 2


def test_empty_and_tiny_timelines() -> None:
    assert build_slates(timeline([])).candidates.shape == (0, 12)
    assert (build_slates(timeline(["A"])).candidates == -1).all()

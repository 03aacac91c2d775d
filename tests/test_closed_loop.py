"""Simulated people and the closed loop of `experiments/closed_loop.py`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from env.timeline import Event, Timeline
from experiments import closed_loop
from experiments.simulated_rater import Taste, rate_all, tastes_by_use
from rlmemo.approval.approval import Approval
from rlmemo.approval.placed_ratings import read_ratings
from rlmemo.store.database import open_store
from tests.light import unjudged
from tests.predictions_to_rate import fill

PLAIN = Taste(frozenset({"banned"}), frozenset({"loved"}), noise=0.0)


@pytest.mark.parametrize(
    ("hour", "plan", "chance"),
    [
        (0.5, ["loved"], 0.05),  # at night, whatever it is
        (12.0, ["loved", "banned"], 0.05),
        (12.0, ["other", "loved"], 0.95),
        (12.0, ["opened"], 0.85),
        (12.0, ["other"], 0.35),
    ],
)
def test_the_first_rule_of_a_taste_that_applies_decides(hour: float, plan: list[str], chance: float) -> None:
    assert PLAIN.chance(hour, plan, "opened") == pytest.approx(chance)
    noisy = Taste(PLAIN.banned, PLAIN.loved, noise=0.5)
    assert noisy.chance(hour, plan, "opened") == pytest.approx(0.5)


def test_people_dislike_what_was_ready_in_vain_and_sleep_when_they_open_least() -> None:
    start = 1_714_953_600.0  # Monday 6 May 2024, 0:00 UTC
    names = ("never", "often", "always")
    events = [
        Event(start + 86400.0 * day + 3600.0 * hour, names[(day + hour) % 3])
        for day in range(5)
        for hour in range(7, 24)
    ]
    timeline = Timeline.from_events("ada", events, tz="UTC", tz_known=True)
    at = [timeline.names.index(x) for x in names]
    tried, hit = np.zeros((2, 3), np.int64)
    tried[at], hit[at] = (12, 40, 30), (0, 20, 30)
    taste = tastes_by_use([timeline], [np.arange(len(timeline))], [tried], [hit])["ada"]
    assert taste.banned == {"never"}
    assert not taste.loved & taste.banned
    begin, end = taste.night
    assert (end - begin) % 24 == 5
    assert 0 <= begin <= 2, "nothing is opened from midnight to seven"


def test_it_rates_as_many_as_asked_by_its_taste(tmp_path: Path) -> None:
    db = fill(tmp_path / "a.db", 30)
    dislikes = {"ada": Taste(frozenset({"Chat"}), frozenset(), noise=0.0, with_banned=0.0, at_night=0.0)}
    with open_store(db) as store:
        assert rate_all(store, dislikes, "simulated", 1, 12) == (12, 0)
        assert len(read_ratings(store)) == 12
        rest, up = rate_all(store, dislikes, "simulated", 2)
        assert 0 < rest <= 18
        assert up == 0
        assert {r.thumbs for r in read_ratings(store)} == {0}


@pytest.mark.slow
@pytest.mark.usefixtures("light_trainings")
def test_two_rounds_of_ratings_teach_the_planner_what_is_disliked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_loop, "ROUNDS", 2)
    monkeypatch.setattr(closed_loop, "PER_ROUND", 120)
    monkeypatch.setattr(closed_loop, "ALSO", ())
    small = {
        "sft-states": 96, "plan-states": 40, "dpo-pairs": 40, "scorer": "shipped", "preference-keep": "last",
    }  # fmt: skip
    monkeypatch.setattr(closed_loop, "FIRST", small)
    # The loop has its own planner for the first policy, and reads no report of it.
    monkeypatch.setattr("rlmemo.learning.planner_choice.judge", unjudged)
    args = argparse.Namespace(timelines="demo", people=2, taste="use", keep=0.5, method="planner")
    found = closed_loop.loop(tmp_path / "seed3", args, 3)
    assert json.loads((tmp_path / "seed3" / "closed_loop.json").read_text()) == found
    assert [x.get("rated") for x in found["rounds"]] == [None, 120, 120]
    last = found["rounds"][-1]
    assert (
        last["choice"]["validation"]["reward_per_open"]
        >= 0.5 * last["choice"]["validation"]["reward_per_open_plain"] - 1e-9
    )
    assert last["held_out"]["approval_change"][0] > 0.0
    assert last["held_out"]["hits_at_equal_waste_change"][2] >= 0.0, "no loss that excludes zero"

    data = closed_loop.Data("demo", 2, 3)
    approval = Approval.load(tmp_path / "seed3" / "round2" / "adapter" / "approval.json")
    assert approval.ratings == 240
    from env.slate.slate import build_slates

    likings: dict[str, list[float]] = {"banned": [], "loved": []}
    for timeline in data.timelines:
        banned, loved, _ = found["tastes"][timeline.user]
        slates = build_slates(timeline)
        index = np.arange(100, len(timeline) - 1, 50)
        for kind, listed in (("banned", banned), ("loved", loved)):
            for name in listed:
                target = np.full((len(index), 1), timeline.names.index(name))
                likings[kind].append(float(approval.liking(timeline, slates, index, target).mean()))
    assert np.mean(likings["banned"]) < np.mean(likings["loved"])

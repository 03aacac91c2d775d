"""Reward terms, their composition, and attempts to game them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from judge_cases import random_case

from env.judge import accounting
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, Outcomes, Plans
from env.timeline import Event, Timeline
from reward import PRESETS, TERMS, Reward, parse_reward, term
from reward.compose import RewardError


def test_every_term_has_a_unit_and_a_docstring() -> None:
    for name, t in TERMS.items():
        assert t.name == name
        assert t.unit
        assert t.function.__doc__


@pytest.mark.parametrize("spec", [None, "net_seconds", {"preset": "net_seconds"}, "preset=net_seconds"])
def test_the_default_is_net_seconds(spec: str | dict[str, str] | None) -> None:
    reward = parse_reward(spec)
    assert dict(reward.terms) == PRESETS["net_seconds"]
    assert reward.name == "net_seconds"


def test_terms_from_the_command_line_and_from_yaml() -> None:
    text = parse_reward("saved_seconds=1, wasted_mb_minutes=-0.01,rating=0.5")
    assert dict(text.terms) == {"saved_seconds": 1.0, "wasted_mb_minutes": -0.01, "rating": 0.5}
    assert parse_reward(dict(text.terms)) == text
    assert parse_reward(text.spec).terms == text.terms
    assert parse_reward(text) is text
    assert dict(parse_reward("hit,wasted=-2").terms) == {"hit": 1.0, "wasted": -2.0}
    assert dict(parse_reward("net_seconds,rating=2").terms) == {**PRESETS["net_seconds"], "rating": 2.0}
    assert dict(parse_reward("rating=2,preset=memo").terms) == {**PRESETS["memo"], "rating": 2.0}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("saved_second=1", "did you mean 'saved_seconds'"),
        ("net_second", "did you mean 'net_seconds'"),
        ("saved_seconds=much", "'much'"),
        ("saved_seconds=nan", "finite"),
        ("net_seconds=2", "takes no weight; write preset=net_seconds and the terms"),
        ({"saved_seconds": True}, "finite"),
        ({"preset": "best"}, "presets: net_seconds"),
        ("", "empty"),
        ({}, "empty"),
    ],
)
def test_what_cannot_be_composed_is_refused_with_advice(spec: str | dict[str, object], said: str) -> None:
    with pytest.raises(RewardError, match=said):
        parse_reward(spec)


def test_weights_and_per_open_agree() -> None:
    timeline, costs, config, plans = random_case(np.random.default_rng(0), 60, 6)
    out = accounting.replay(timeline, costs, config, plans)
    for spec in [*PRESETS, ",".join(TERMS)]:
        reward = parse_reward(spec)
        assert out.table @ reward.weights(FIELDS) == pytest.approx(reward.per_open(out), abs=1e-9)
        assert sum(reward.parts(out).values()) == pytest.approx(reward.per_open(out), abs=1e-9)


def test_a_rating_counts() -> None:
    record = SimpleNamespace(**dict.fromkeys(FIELDS, 0.0))
    record.rating = -1.0
    assert parse_reward("net_seconds").per_open(record) == -0.5


def test_a_term_that_is_not_linear_is_refused() -> None:
    @term(weight=1.0, unit="s2", name="for_this_test_squared")
    def squared(outcome: SimpleNamespace) -> np.ndarray:
        """Not linear."""
        return outcome.saved_s**2

    try:
        with pytest.raises(RewardError, match="linear"):
            Reward("x", (("for_this_test_squared", 1.0),)).weights(FIELDS)
        with pytest.raises(ValueError, match="already"):
            term(weight=1.0, unit="s", name="hit")(lambda outcome: outcome.hit)
    finally:
        del TERMS["for_this_test_squared"]


# --- gaming ---------------------------------------------------------------------------------------


def person() -> tuple[Timeline, Plans]:
    """A person who goes round six apps, with a break of an hour every 24 opens; and no plans."""
    rng = np.random.default_rng(7)
    t, events = 1.7e9, []
    for i in range(480):
        t += 3600.0 if i % 24 == 0 else float(rng.uniform(20, 120))
        events.append(Event(t, f"app{i % 6}"))
    return Timeline.from_events("person", events), Plans.empty(480)


def score(plans: Plans, timeline: Timeline, spec: str, budget: float = 3.0) -> tuple[float, Outcomes]:
    costs = cost_model("desktop").arrays(timeline)
    out = accounting.replay(timeline, costs, WorldConfig(budget_targets=budget), plans)
    return float(parse_reward(spec).per_open(out).sum()), out


@pytest.mark.parametrize("spec", list(PRESETS))
def test_keeping_still_scores_nothing(spec: str) -> None:
    timeline, plans = person()
    assert score(plans, timeline, spec)[0] == 0.0


@pytest.mark.parametrize("spec", list(PRESETS))
def test_prewarming_what_comes_next_pays(spec: str) -> None:
    timeline, plans = person()
    plans.target[:-1, 0] = timeline.target[1:]
    right, out = score(plans, timeline, spec)
    assert right > 0
    assert out.total("hit") > 400


@pytest.mark.parametrize("spec", list(PRESETS))
def test_prewarming_everything_loses_against_knowing(spec: str) -> None:
    timeline, plans = person()
    plans.target[:-1, 0] = timeline.target[1:]
    right, _ = score(plans, timeline, spec)
    every = Plans(np.tile(np.arange(6, dtype=np.int32), (480, 1)), np.zeros((480, 6), np.int8))
    all_of_it, out = score(every, timeline, spec)
    assert all_of_it < right / 2
    assert out.total("wasted") > 5 * out.total("hit")  # what it loads evicts what it loaded


@pytest.mark.parametrize("spec", list(PRESETS))
def test_prewarming_everything_costs_a_person_of_habit(spec: str) -> None:
    """Two apps in turn, warm anyway; loading the other four evicts them."""
    names = [*"cdefab", *("ba"[i % 2] for i in range(200))]
    timeline = Timeline.from_events("x", [Event(60.0 * i, name) for i, name in enumerate(names)])
    ids = [timeline.names.index(name) for name in "abcdef"]
    every = Plans(np.tile(np.array(ids, np.int32), (206, 1)), np.zeros((206, 6), np.int8))
    got, out = score(every, timeline, spec)
    assert got < 0
    assert out.total("pollution") > 150


@pytest.mark.parametrize("spec", list(PRESETS))
def test_prewarming_what_nobody_opens_loses(spec: str) -> None:
    timeline, plans = person()
    rare = Timeline.from_events("x", [Event(timeline.t[0] - 9e6, "rare"), *timeline])
    plans = Plans.empty(481)
    plans.target[1:, 0] = 0
    assert score(plans, rare, spec)[0] < 0


@pytest.mark.parametrize("spec", list(PRESETS))
def test_the_same_target_again_and_again_earns_no_more_than_once(spec: str) -> None:
    timeline, plans = person()
    plans.target[:-1, 0] = timeline.target[1:]
    once, one = score(plans, timeline, spec)
    again = Plans(np.repeat(plans.target[:, :1], 3, axis=1), np.zeros((480, 3), np.int8))
    thrice, three = score(again, timeline, spec)
    assert three.total("hit") == one.total("hit")
    assert thrice <= once
    if "planned" in PRESETS[spec]:
        assert thrice < once


@pytest.mark.parametrize("spec", list(PRESETS))
def test_only_what_is_warm_already_earns_nothing(spec: str) -> None:
    timeline, plans = person()
    plans.target[:, 0] = timeline.target  # what is in front is always warm
    got, out = score(plans, timeline, spec)
    assert out.total("redundant") == out.total("planned") > 0
    assert got <= 0
    if "planned" in PRESETS[spec]:
        assert got < 0


def test_reloading_what_one_has_evicted_is_no_hit() -> None:
    """Evict a warm target by a prewarm, prewarm it back, open it: nothing was gained or is credited."""
    plans = Plans.empty(24, 2)
    # In turn a-b-a-b: both are warm anyway. Another is prewarmed over b, then b again.
    pair = Timeline.from_events(
        "x", [Event(60.0 * i, "abcd"[i % 2] if i > 3 else "cdab"[i]) for i in range(24)]
    )
    plans.target[4:-1] = np.stack([np.zeros(19), pair.target[5:]], axis=1)
    got, out = score(plans, pair, "net_seconds", 2.0)
    assert out.total("hit") == 0
    assert got < 0


def test_the_price_of_a_wrong_prewarm_is_a_fraction_of_a_hit() -> None:
    """The stated reason for the price of memory-time: 5 to 20 % of a hit's saving, held to the end."""
    weights = dict(zip(FIELDS, parse_reward("net_seconds").weights(FIELDS), strict=True))
    for kind in ("app", "page", "file"):
        cost = cost_model("desktop").cost("x", kind)
        held = cost.memory_mb * (1800.0 + cost.load)
        wrong = -(weights["held_mb_s"] * held + weights["planned"])
        assert 0.05 < wrong / (cost.cold_s - cost.warm_s) < 0.20

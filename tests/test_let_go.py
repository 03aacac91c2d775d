"""Who leaves: the compiled rules equal the readable ones bit for bit, and both do what their authors say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from judge_cases import random_case
from test_kernel import same

from env.errors import InputError
from env.judge import accounting
from env.judge.cost import LET_GO_RULES, Costs, WorldConfig
from env.judge.credit import credits
from env.judge.effects import plan_effects
from env.judge.plans import FIELDS, N_FIELDS, Plans, at_wake
from env.timeline import Event, Timeline
from tests.reference import world

Worth = tuple[np.ndarray, np.ndarray]


def case_of(
    rng: np.random.Generator, rule: str, n: int, targets: int
) -> tuple[Timeline, Costs, WorldConfig, Plans, Worth | None]:
    """A random case in which plans let go, machines are switched off and targets closed, sometimes."""
    timeline, costs, config, plans = random_case(rng, n, targets)
    m = len(timeline.names)
    config = replace(
        config, let_go=rule, off_after_s=float(rng.choice([30.0, 600.0, math.inf])),
        close_after_s=float(rng.choice([20.0, 400.0, math.inf])),
    )  # fmt: skip
    width = int(rng.integers(0, 3))
    named = np.where(rng.random((n, width)) < 0.5, rng.integers(0, m, (n, width)), -1).astype(np.int32)
    worth = None
    if rule == "expected":
        known = np.array([rng.permutation(m)[: max(1, m // 2)] for _ in range(n)], np.int32)
        worth = (known, rng.random(known.shape).round(1))
    delay = np.where(rng.random(plans.delay.shape) < 0.3, at_wake(plans.delay), plans.delay)
    return timeline, costs, config, Plans(plans.target, delay, named), worth


@pytest.mark.parametrize("rule", LET_GO_RULES)
def test_a_rule_equals_the_readable_one_bit_for_bit(rule: str) -> None:
    rng = np.random.default_rng(LET_GO_RULES.index(rule))
    for _ in range(150):
        n = int(rng.integers(1, 80))
        timeline, costs, config, plans, worth = case_of(rng, rule, n, int(rng.integers(1, 12)))
        start = int(rng.integers(0, n + 1))
        stop = int(rng.integers(start, n + 1))
        assert same(
            world.replay(timeline, costs, config, plans, start=start, stop=stop, worth=worth),
            accounting.replay(timeline, costs, config, plans, start=start, stop=stop, worth=worth),
        )


def altered(base: Plans, i: int, first: Plans | None, goes_on: bool) -> Plans:
    """`base` until decision i, `first` (or nothing) there, and then `base` again or nothing."""
    whole = Plans.empty(len(base), base.target.shape[1], max(2, base.let_go.shape[1]))
    for rows in (slice(0, i), slice(i + 1, len(base))) if goes_on else (slice(0, i),):
        whole.target[rows], whole.delay[rows] = base.target[rows], base.delay[rows]
        whole.let_go[rows, : base.let_go.shape[1]] = base.let_go[rows]
    if first is not None:
        whole.target[i, 0], whole.delay[i, 0] = first.target[0, 0], first.delay[0, 0]
        whole.let_go[i, :2] = first.let_go[0]
    return whole


@pytest.mark.parametrize("rule", LET_GO_RULES)
def test_what_a_plan_changes_is_the_difference_of_two_replays(rule: str) -> None:
    """Effects and credits of plans that let go, with nothing cut off."""
    rng = np.random.default_rng(100 + LET_GO_RULES.index(rule))
    for _ in range(25):
        n = int(rng.integers(2, 30))
        timeline, costs, config, base, worth = case_of(rng, rule, n, 6)
        m, i = len(timeline.names), int(rng.integers(0, n - 1))
        pick = np.array([[rng.integers(-1, m)]], np.int32)
        other = Plans(
            pick,
            rng.choice(np.array([0, -1, -2], np.int8), (1, 1)),
            rng.integers(-1, m, (1, 2)).astype(np.int32),
        )
        sums = {
            (planned, goes_on): accounting.replay(
                timeline, costs, config, altered(base, i, other if planned else None, goes_on), worth=worth
            ).table.sum(axis=0)
            for planned in (True, False)
            for goes_on in (True, False)
        }
        several = Plans(other.target[None], other.delay[None], other.let_go[None])
        found = plan_effects(
            timeline, costs, config, np.array([i]), several, base, math.inf, worth=worth
        )[0, 0]  # fmt: skip
        assert found == pytest.approx(sums[True, True] - sums[False, True], abs=1e-6)

        rows = Plans(base.target[: i + 1], base.delay[: i + 1], base.let_go[: i + 1])
        alternatives = Plans(
            np.full((i + 1, 1, 1), -1, np.int32), np.zeros((i + 1, 1, 1), np.int8),
            np.full((i + 1, 1, 2), -1, np.int32),
        )  # fmt: skip
        alternatives.target[i, 0], alternatives.let_go[i, 0] = other.target[0], other.let_go[0]
        alternatives.delay[i, 0] = other.delay[0]
        credited = credits(timeline, costs, config, rows, alternatives, first=0, worth=worth)[i, 0]
        assert credited == pytest.approx(sums[True, False] - sums[False, False], abs=1e-6)


def equal_world(opens: str, budget: int, **more: object) -> tuple[Timeline, Costs, WorldConfig]:
    """Targets of one letter and one MB, 4 s cold and 1 s warm, a minute apart; room for `budget`."""
    timeline = Timeline.from_events("x", [Event(60.0 * j, x) for j, x in enumerate(opens)])
    one = np.ones(len(timeline.names))
    return timeline, Costs(one, 4 * one, one, 3 * one), WorldConfig(budget_mb=float(budget), **more)  # type: ignore[arg-type]


def cold(opens: str, budget: int, plans: Plans | None = None, **more: object) -> str:
    """Which opens find their target not resident."""
    timeline, costs, config = equal_world(opens, budget, **more)
    plans = Plans.empty(len(timeline)) if plans is None else plans
    out = accounting.replay(timeline, costs, config, plans)
    return "".join(x for x, missed in zip(opens, out.cold, strict=True) if missed)


def test_a_plan_says_who_leaves_first_and_the_rule_who_leaves_then() -> None:
    """a b c with room for three, then d: the least recently used, a, has to go, or b if a plan says so."""
    opens = "abcdab"
    assert cold(opens, 3) == "abcdab"
    plans = Plans.empty(6, 1, 2)
    plans.let_go[2] = [1, -1]  # after c: b first
    assert cold(opens, 3, plans) == "abcdb"
    plans.let_go[2] = [3, 1]  # who is not resident (d) is passed over
    assert cold(opens, 3, plans) == "abcdb"
    plans.let_go[2], plans.let_go[1] = [-1, -1], [1, -1]  # a later decision replaces an earlier one
    assert cold(opens, 3, plans) == "abcdab"


def test_what_is_kept_counts_as_kept_and_what_was_let_go_wrongly_as_pollution() -> None:
    timeline, costs, config = equal_world("abcdab", 3)
    plans = Plans.empty(6, 1, 1)
    plans.let_go[2] = [1]
    out = accounting.replay(timeline, costs, config, plans)
    assert out.kept.tolist() == [0, 0, 0, 0, 1, 0]
    assert (out.total("cold"), out.total("base_cold"), out.total("saved_s")) == (5, 6, 3.0)
    timeline, costs, config = equal_world("abcdb", 3)
    out = accounting.replay(
        timeline, costs, config, plans.__class__(*(a[:5] for a in (plans.target, plans.delay, plans.let_go)))
    )
    assert out.pollution.tolist() == [0, 0, 0, 0, 1]
    assert out.total("saved_s") == -3.0


def test_a_prewarm_that_is_let_go_is_wasted_and_what_is_in_front_never_leaves_for_a_prewarm() -> None:
    timeline, costs, config = equal_world("abcd", 2)
    plans = Plans.empty(4, 1, 2)
    plans.target[1, 0] = 2  # after b: load c early, and let b, which is in front, go first
    plans.let_go[1] = [1, -1]
    out = accounting.replay(timeline, costs, config, plans)
    assert out.hit.tolist() == [0, 0, 1, 0]  # a went instead
    plans = Plans.empty(4, 1, 2)
    plans.target[1, 0] = 3  # after b: load d early, and let it go first when c is opened
    plans.let_go[1] = [3, -1]
    out = accounting.replay(timeline, costs, config, plans)
    assert out.wasted.tolist() == [0, 0, 1, 0]


def test_after_an_off_nothing_is_resident_and_what_was_due_is_wasted() -> None:
    timeline = Timeline.from_events(
        "x", [Event(0.0, "a"), Event(60.0, "b"), Event(9000.0, "a"), Event(9060.0, "b")]
    )
    one = np.ones(2)
    costs, config = Costs(one, 4 * one, one, 3 * one), WorldConfig(budget_mb=9.0, off_after_s=1800.0)
    plans = Plans.empty(4, 1)
    plans.target[1], plans.delay[1] = 0, 3  # redundant where a stays; here it is due just when all is off
    out = accounting.replay(timeline, costs, config, plans)
    assert out.base_cold.tolist() == out.cold.tolist() == [1, 1, 1, 1]
    on = accounting.replay(timeline, costs, replace(config, off_after_s=math.inf), plans)
    assert on.cold.tolist() == [1, 1, 0, 0]
    assert on.redundant.tolist() == [0, 0, 1, 0]


def test_what_is_planned_for_the_wake_is_loaded_when_the_person_is_back() -> None:
    """a, b; then off after half an hour; back a minute before the next open, a."""
    timeline = Timeline.from_events(
        "x", [Event(0.0, "a"), Event(60.0, "b"), Event(9000.0, "a"), Event(9060.0, "b")]
    )
    one = np.ones(2)
    costs, config = Costs(one, 4 * one, one, 3 * one), WorldConfig(budget_mb=9.0, off_after_s=1800.0)
    plans = Plans.empty(4, 2)
    plans.target[1], plans.delay[1] = [0, 1], [at_wake(0), at_wake(1)]  # at 8,940 s, and half a minute later
    plans.target[2], plans.delay[2] = [0, -1], [at_wake(0), 0]  # no off follows: it never happens
    out = accounting.replay(timeline, costs, config, plans)
    assert out.planned.tolist() == [0, 0, 2, 0]
    assert out.hit.tolist() == [0, 0, 1, 1]
    assert (out.prewarm_mb_s[1, 0], out.lead_s[1, 0], out.lead_s[1, 1]) == (60.0, 60.0, 90.0)
    never = accounting.replay(timeline, costs, replace(config, off_after_s=math.inf), plans)
    assert never.total("planned") == 0
    assert not never.outcome.any()
    # A pause a little longer than it takes to switch off: the wake is right after the off, which it survives.
    short = Timeline.from_events("x", [Event(0.0, "a"), Event(1810.0, "b")])
    plans = Plans.empty(2, 1)
    plans.target[0], plans.delay[0] = 1, at_wake(0)
    out = accounting.replay(short, costs, config, plans)
    assert out.hit.tolist() == [0, 1]
    assert out.lead_s[0, 0] == pytest.approx(10.0)


def test_the_user_closes_what_was_not_in_front_for_so_long_in_both_worlds() -> None:
    """b comes to the front at 60 s, so a was last in front then; it is closed 100 s later."""
    for gap, missed in ((90.0, 0.0), (100.0, 1.0)):
        opens = [Event(0.0, "a"), Event(60.0, "b"), Event(60.0 + gap, "a")]
        timeline = Timeline.from_events("x", opens)
        one = np.ones(2)
        config = WorldConfig(budget_mb=9.0, close_after_s=100.0)
        out = accounting.replay(timeline, Costs(one, 4 * one, one, 3 * one), config, Plans.empty(3))
        assert out.cold[2] == out.base_cold[2] == missed
    # What is in front stays open however long it is there.
    timeline = Timeline.from_events("x", [Event(0.0, "a"), Event(5000.0, "b"), Event(5010.0, "a")])
    out = accounting.replay(timeline, Costs(one, 4 * one, one, 3 * one), config, Plans.empty(3))
    assert out.cold.tolist() == [1, 1, 0]


def test_belady_misses_least_of_all_rules_with_equal_sizes() -> None:
    rng = np.random.default_rng(7)
    for _ in range(40):
        opens = "".join(rng.choice(list("abcdefgh"), 60))
        missed = {rule: len(cold(opens, 3, let_go=rule)) for rule in LET_GO_RULES if rule != "expected"}
        assert missed["belady"] == min(missed.values())


def test_expected_keeps_what_is_worth_most_per_mb() -> None:
    timeline, costs, config = equal_world("abcdb", 3, let_go="expected")
    known = np.tile(np.array([[0, 1, 2, 3]], np.int32), (5, 1))
    chances = np.tile(np.array([[0.5, 0.9, 0.1, 0.2]]), (5, 1))
    out = accounting.replay(timeline, costs, config, Plans.empty(5), worth=(known, chances))
    assert out.cold.tolist() == [1, 1, 1, 1, 0]  # c went
    with pytest.raises(InputError, match="needs a policy that says who is opened soon"):
        accounting.replay(timeline, costs, config, Plans.empty(5))


def test_bad_rules_and_plans_are_refused() -> None:
    for bad in (
        {"let_go": "mru"}, {"off_after_s": 0.5}, {"close_after_s": math.nan}, {"max_let_go": -1}
    ):  # fmt: skip
        with pytest.raises(InputError):
            WorldConfig(**bad)  # type: ignore[arg-type]
    timeline, costs, config = equal_world("abc", 2)
    plans = Plans.empty(3, 1, 1)
    plans.let_go[0] = 9
    with pytest.raises(InputError, match="outside"):
        accounting.replay(timeline, costs, config, plans)
    assert len(FIELDS) == N_FIELDS == 16

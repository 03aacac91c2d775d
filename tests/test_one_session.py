"""One session, one cluster: a value, and no interval. Nowhere may it look like certainty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlmemo import benchmark
from rlmemo.evaluation import agreement
from rlmemo.evaluation.bootstrap import Draws, Estimate
from rlmemo.feedback import offpolicy
from tests.shared_cases import case


def intervals_in(node: Any, at: str = "") -> list[tuple[str, Any]]:
    """Every `ci95` of a report, with where it stands."""
    if isinstance(node, list):
        return [x for k, one in enumerate(node) for x in intervals_in(one, f"{at}[{k}]")]
    if not isinstance(node, dict):
        return []
    found = [(at, node["ci95"])] if "ci95" in node else []
    return found + [x for key, one in node.items() for x in intervals_in(one, f"{at}/{key}")]


def write_sessions(path: Path, users: int, sessions: int) -> Path:
    """Users with one long session for training, then as many sessions as asked for in the test part."""
    rng = np.random.default_rng(0)
    rows = ["user,t,target"]
    for user in range(users):
        t = 1_700_000_000.0
        for part in range(1 + sessions):
            t += 86_400.0
            for _ in range(240 if part == 0 else 60 // sessions):
                t += float(rng.integers(20, 90))
                rows.append(f"u{user},{t:.0f},app{int(rng.integers(12))}")
    path.write_text("\n".join(rows) + "\n")
    return path


def bench(timelines: Path, out: Path) -> dict[str, Any]:
    words = ["--policies", "none,mru,markov1,oracle", "--draws", "40", "--budget", "2", "--no-collapse"]
    html = out.with_suffix(".html")
    asked = ["--timelines", str(timelines), *words, "--json", str(out), "--html", str(html), "--quiet"]
    assert benchmark.main(asked) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_the_case_has_no_interval_anywhere(tmp_path: Path) -> None:
    found = bench(case("training/one_session.csv"), tmp_path / "out.json")
    listed = intervals_in(found)
    assert len(listed) > 100
    assert [(at, ci) for at, ci in listed if ci is not None] == []
    assert found["differences"]
    assert found["policies"]["markov1"]["hr@1"]["value"] is not None
    page = (tmp_path / "out.html").read_text()
    assert " … " not in page.split("<h2", 1)[1]  # how an interval is written in a table
    assert "nan" not in page.lower().replace("finance", "")


@pytest.mark.parametrize("users", [1, 3])
def test_a_session_a_user_gives_none_either_and_two_give_one(tmp_path: Path, users: int) -> None:
    """Each user's sessions are drawn anew; where each has one, every draw is the same."""
    one = bench(write_sessions(tmp_path / "one.csv", users, 1), tmp_path / "one.json")
    assert {ci is None for _, ci in intervals_in(one)} == {True}
    two = bench(write_sessions(tmp_path / "two.csv", users, 2), tmp_path / "two.json")
    low, high = two["policies"]["markov1"]["hr@1"]["ci95"]
    assert low < high


def test_what_rests_on_one_session_of_many_has_none() -> None:
    """All prewarms in one session: waste per prewarm is the same in every draw that has any."""
    groups = np.repeat(np.arange(6), 10)
    draws = Draws(groups, np.zeros(60, np.int64), replicates=200)
    prewarms = np.where(groups == 3, 1.0, 0.0)
    wasted = prewarms * (np.arange(60) % 2)
    found = draws.ratio(wasted, prewarms)
    assert found.value == 0.5
    assert found.as_json() == {"value": 0.5, "ci95": None}
    assert draws.median(np.arange(4.0), np.array([30, 31, 32, 33])).as_json()["ci95"] is None
    assert draws.ratio(wasted).bounded  # per open: the other sessions have opens, too
    assert draws.difference(wasted, prewarms).bounded
    # Two sessions of two users, one of whom has others, do come out differently.
    mixed = Draws(np.array([0, 1, 2]), np.array([0, 0, 1]), replicates=200)
    assert mixed.ratio(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0])).bounded


def test_a_difference_from_one_session_has_no_interval() -> None:
    draws = Draws(np.zeros(5, np.int64), np.zeros(5, np.int64))
    found = draws.difference(np.ones(5), np.zeros(5))
    assert found.as_json() == {"value": 1.0, "ci95": None}
    assert draws.macro(np.ones(5)).as_json()["ci95"] is None


def test_an_interval_that_is_not_there_is_a_dash() -> None:
    assert Estimate(0.5).text() == "0.500 [–]"
    assert Estimate(float("nan")).text() == "–"
    assert Estimate(0.5, 0.25, 0.75).text("+.2f") == "+0.50 [+0.25, +0.75]"


def test_off_policy_from_one_cluster_has_no_interval() -> None:
    thumbs, same = np.array([1.0, 1, 0, 1]), np.full(4, 0.5)
    one = offpolicy.estimate(thumbs, same, same, same, same, cluster=np.full(4, 7))
    alone = offpolicy.estimate(thumbs, same, same, same, same)
    for name in ("ips", "snips", "dr"):
        assert getattr(one, name).value == pytest.approx(0.75)
        assert getattr(one, name).as_json()["ci95"] is None
        assert getattr(alone, name).bounded
    assert offpolicy.share(1, 1).as_json() == {"value": 1.0, "ci95": None}


def test_clusters_widen_an_off_policy_interval_by_as_much_as_they_hang_together() -> None:
    """Ten copies of a rating say no more than one: the interval is that of the clusters."""
    rng = np.random.default_rng(4)
    thumbs, half = (rng.random(40) < 0.6).astype(float), np.full(40, 0.5)
    once = offpolicy.estimate(thumbs, half, half, half, half).ips
    ten = np.full(400, 0.5)
    copied = offpolicy.estimate(
        np.repeat(thumbs, 10), ten, ten, ten, ten, cluster=np.repeat(np.arange(40), 10)
    ).ips
    assert (copied.low, copied.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_agreement_on_one_prediction_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.array([[1.0, 0.0, 1.0], [1.0, np.nan, np.nan]])
    monkeypatch.setattr(agreement, "table", lambda _: (["a", "b", "c"], table))
    found = agreement.alpha_estimate([])
    assert np.isfinite(found.value)
    assert not found.bounded


def test_a_report_without_intervals_is_read() -> None:
    from dashboard.runs import read_value
    from dashboard.train import _with_interval

    value = read_value({"value": 0.5, "ci95": None})
    assert value is not None
    assert np.isnan(value.low)
    assert _with_interval({"value": 0.5, "ci95": None}) == "50% (–)"
    assert _with_interval({"value": 0.5, "ci95": [0.4, 0.6]}) == "50% (40% to 60%)"

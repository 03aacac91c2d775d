"""Run folders and a database that the tree before the rebuilding (commit ceb4b6f) wrote: they still load, rank,
plan and score as they did then, to the last digit.

The fixture holds synthetic opens of two made-up people (`two.csv`); a database of store version 3 with what was
predicted and rated on them; a run by DPO, one by KTO that learned from ratings, and one with an adapter per
user; and what `python -m rlmemo.benchmark --timelines two.csv --tz Europe/Berlin --budget 4 --policies RUN` said
of each (`expected.json`; its seconds are left out).
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard import runs, why
from dashboard.replay import seen
from env.judge.case import cases
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Timeline
from rlmemo.approval.placed_ratings import read_ratings
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.last_week import would_have_saved
from rlmemo.learning.approval_choice import Approved
from rlmemo.policies.planners import Threshold
from rlmemo.policies.registry import make_policy, setup
from rlmemo.policies.run import load_run
from rlmemo.runs.learned_days import learned_until
from rlmemo.store import ratings
from rlmemo.store.database import Store, open_store
from rlmemo.store.schema import MIGRATIONS
from rlmemo.store.waiting import desk

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
FIXTURE = Path(__file__).parent / "fixtures" / "before_rebuilding.tar.xz"
RUNS = ("run-dpo", "run-liked", "run-each")
PREDICTIONS, RATINGS, OPENS = 92, 80, 320


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fixture, unpacked into a folder that is then the present one: the runs name `old.db` as they did."""
    with tarfile.open(FIXTURE) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opens() -> list[Timeline]:
    return load_timelines("two.csv", tz="Europe/Berlin").timelines


@pytest.mark.parametrize("name", RUNS)
def test_a_run_loads_with_its_planner_and_its_world(old: Path, name: str) -> None:
    used = load_run(name)
    assert used.world == WorldOptions(budget=4.0)
    assert setup(name).world == used.world
    assert setup(name, {"budget": 2.0}).world == WorldOptions(budget=2.0)
    assert used.policy.name == make_policy(name).name == name
    if name == "run-liked":
        assert used.planner == Threshold(0.0417)  # it was told to weigh ratings, and chose not to
    else:
        assert used.planner == Threshold(0.0417)
    timelines = opens()
    (case, _) = cases(timelines, used.world.costs_of(timelines), used.world.rules(), chrono(timelines).test)
    ranking = used.policy.rank(case.timeline, case.indices)
    assert np.isclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5).all()
    plans = used.by([]).plan(used.policy, case, ranking=ranking)
    assert (plans.target >= 0).any()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_scores_what_it_scored(old: Path, name: str) -> None:
    expected = json.loads((old / "expected.json").read_text())[name]
    timelines = opens()
    found = evaluate(
        [make_policy(name)], timelines, chrono(timelines), setting=Setting(WorldOptions(budget=4.0))
    ).to_json()
    assert found["setting"] == expected["setting"]
    assert found["n_events"] == expected["n_events"]
    assert found["thresholds"][name] == expected["threshold"]
    said = {k: found["policies"][name][k]["value"] for k in expected["metrics"]}
    assert said == expected["metrics"]
    budgets = found["budgets"][name]
    assert {b: {k: v["value"] for k, v in m.items()} for b, m in budgets.items()} == expected["budgets"]
    assert {k: v["value"] for k, v in found["reward_terms"][name].items()} == expected["reward_terms"]
    assert found["hr@1_per_user"][name] == expected["hr@1_per_user"]

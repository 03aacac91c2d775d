"""People judged on Ray's workers: the numbers of one process, to the last digit, whoever died meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from env.errors import InputError
from env.sources import load_timelines
from env.splits import chrono
from experiments.many_people import people
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.policies.registry import make_policies, make_policy
from tests.mortal_policy import Mortal

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TIMES = ("decisions_per_second", "p50_ms", "p95_ms", "peak_rss_mb")
QUICK = Setting(budgets=(4.0,), replicates=50, latency_decisions=2)


@pytest.fixture(scope="module")
def crew() -> Iterator[RayCrew]:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'rlmemo[ray]')")
    made = RayCrew("local", people=2, workers=2)
    yield made
    made.close()


def numbers(found: Any) -> Any:
    """All that an evaluation says, but what differs from one run to the next."""

    def stripped(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: stripped(v) for k, v in x.items() if k not in TIMES}
        return [stripped(v) for v in x] if isinstance(x, list) else x

    return stripped(json.loads(json.dumps(found.as_json())))


def test_the_numbers_are_those_of_one_process(crew: RayCrew) -> None:
    """Rankings, thresholds, names, wakes and bounds: with machines that are off at night, and of three people
    who do not share out evenly."""
    nights = load_timelines("demo-nights", weeks=1).timelines[:2]
    for timelines, names in ((nights, "markov1"), (list(people(3, 250, 0)), "base,oracle")):
        split = chrono(timelines)
        alone = evaluate(make_policies(names), timelines, split, setting=QUICK)
        shared = evaluate(make_policies(names), timelines, split, setting=QUICK, crew=crew)
        assert numbers(shared) == numbers(alone)


def test_a_worker_that_is_killed_costs_nothing_but_time(crew: RayCrew, tmp_path: Path) -> None:
    timelines = list(people(6, 200, 1))
    alone = evaluate([make_policy("markov1")], timelines, chrono(timelines), setting=QUICK)
    mortal = Mortal(make_policy("markov1"), tmp_path)
    found = evaluate([mortal], timelines, chrono(timelines), setting=QUICK, crew=crew)
    assert len(list(tmp_path.iterdir())) == 3, "three workers were killed"
    assert numbers(found)["policies"]["mortal"] == numbers(alone)["policies"]["markov1"]


def test_nothing_listens_but_on_the_loopback(crew: RayCrew) -> None:
    assert crew.get(crew.do(len, [crew.share([1, 2])])) == [2], "its workers have started"
    ours = {x.pid for x in psutil.Process().children(recursive=True)} | {os.getpid()}
    open_to = {x.laddr.ip for x in psutil.net_connections("tcp") if x.status == "LISTEN" and x.pid in ours}
    assert open_to
    assert {ip.removeprefix("::ffff:") for ip in open_to} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "10.0.0.1:port"])
def test_a_cluster_that_is_not_there_is_said_in_a_line(crew: RayCrew, address: str) -> None:
    with pytest.raises(InputError, match=f"--ray {address}: nothing answers there") as error:
        RayCrew(address)
    assert "\n" not in str(error.value)


def test_very_many_people_are_counted_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who a session belongs to is written sparsely there."""
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 30, 900))
    groups = np.cumsum(np.r_[True, (np.diff(users) > 0) | (rng.random(899) < 0.2)]) - 1
    values = rng.random(900)
    dense = Draws(groups, users).macro(values)
    monkeypatch.setattr("rlmemo.evaluation.bootstrap.MOST_DENSE", 0)
    sparse = Draws(groups, users).macro(values)
    assert [sparse.value, sparse.low, sparse.high] == pytest.approx([dense.value, dense.low, dense.high])

"""People judged on Ray's workers: the numbers of one process, to the last digit, whoever died meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from env.errors import InputError
from env.sources import load_timelines
from env.splits import chrono
from experiments.evidence import begin
from experiments.many_people import people
from reward import parse_reward
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning.adapters import save
from rlmemo.learning.per_user import Everybody, train_users
from rlmemo.learning.training import Lesson
from rlmemo.learning.training_data import States
from rlmemo.policies.registry import make_policies, make_policy
from rlmemo.predict import Options, make
from rlmemo.runs.atomic import folder_atomic
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import user_adapters
from rlmemo.store.database import open_store
from tests.mortal_policy import Mortal
from tests.test_adapters import base_of, config_of, renamed, small_ground, train
from tests.test_evidence import write_spec
from tests.test_train_cli import write_csv

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


def test_predictions_are_those_of_one_process(crew: RayCrew, tmp_path: Path) -> None:
    """Of a threshold that is tuned, and compared with another policy."""
    csv, made = str(write_csv(tmp_path / "some.csv", events=160, users=3)), []
    for who in (None, crew):
        with open_store(tmp_path / f"{who is None}.db") as store:
            options = Options(n=12, still=True, against="mru")
            assert make(store, csv, "markov1", options, tz="UTC", crew=who).new == 12
            made.append([{**vars(p), "predicted_at": 0, "outcome_at": 0} for p in store.predictions()])
    differ = [{k: (x[k], y[k]) for k in x if x[k] != y[k]} for x, y in zip(*made, strict=True)]
    assert differ == [{}] * 12


def test_users_adapters_are_those_of_one_process(crew: RayCrew, tmp_path: Path) -> None:
    """To the last bit, in a folder that is named from here; what one process has begun the workers finish."""
    base_of(tmp_path / "base")
    config = config_of("lora", adapter_per_user=True, user_states=40, user_epochs=1)
    config = replace(config, model=str(tmp_path / "base"))
    model, _ = train(config, tmp_path / "trained", tmp_path / "base")
    nobody = States(np.zeros(0, np.int64), np.zeros(0, np.int64))
    people = Everybody(renamed(small_ground(), ["ada", "bob"]), parse_reward("net_seconds"), nobody, [])
    digests, logs = [], []
    with contextlib.chdir(tmp_path):
        for name, who in (("alone", None), ("together", crew), ("half", crew)):
            run = RunFolder(Path(name))
            with folder_atomic(run.path / "adapter") as part:
                save(model, part, config.model)
            if name == "half":
                shutil.copytree("alone/adapters", "half/adapters")
                shutil.rmtree(next(Path("half/adapters").glob("bob*")))
            found = train_users(Lesson(config, run, "users", run.path / "adapter"), people, who)
            assert (found["users"], found["left_shared"]) == (2, [])
            digests.append({a.user: a.about["adapter_sha256"] for a in user_adapters(run.path)})
            rows = [
                json.loads(x) for x in (run.path / "metrics.jsonl").read_text().splitlines() if "in_use" in x
            ]
            logs.append([{**row, "time": 0} for row in rows])
            assert {x.stat().st_mode & 0o77 for x in run.path.rglob("*.json")} == {0}
    assert digests[0] == digests[1] == digests[2]
    assert logs[0] == logs[1]


def test_the_evidence_s_tasks_are_done_by_workers(crew: RayCrew, tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "two.csv", 180)
    spec = write_spec(
        tmp_path, title="tiny", timelines=[str(csv)], seeds=[0], methods=["sft"], baselines=["mru"],
        settings={"tz": "UTC"},
    )  # fmt: skip
    asked = ["--config", str(spec), "--out", str(tmp_path / "out")]
    ended = {}
    for task in ("baselines 0", "baselines 7"):
        begun = begin(task, tmp_path / f"{task}.txt", asked, crew)
        while begun.poll() is None:
            time.sleep(0.05)
        ended[task] = begun.returncode
    assert ended == {"baselines 0": 0, "baselines 7": 1}, (tmp_path / "baselines 0.txt").read_text()
    assert (tmp_path / "out" / "two" / "seed0" / "baselines" / "mru").is_dir()
    assert "IndexError" in (tmp_path / "baselines 7.txt").read_text()


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

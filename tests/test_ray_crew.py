"""People judged, and rollouts played, on Ray's workers: the numbers of one process, to the last digit,
whoever died meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
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
from experiments.many_judged import numbers
from experiments.many_people import people
from reward import parse_reward
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning import rollout_crew
from rlmemo.learning.adapters import save
from rlmemo.learning.grammar import pickable
from rlmemo.learning.pairs import score
from rlmemo.learning.per_user import Everybody, train_users
from rlmemo.learning.rollout import Rollout
from rlmemo.learning.rollout_crew import play, play_together, sample_together, score_together
from rlmemo.learning.training import Lesson
from rlmemo.learning.training_data import States, part_states, prompts
from rlmemo.model.ask import sample_plans
from rlmemo.model.load import load_adapted
from rlmemo.policies.registry import make_policies, make_policy
from rlmemo.predict import Options, make
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import user_adapters, weights_file
from rlmemo.store.database import open_store
from tests import test_text_ppo
from tests.mortal_field import MortalField
from tests.mortal_policy import Mortal
from tests.test_adapters import config_of, renamed, train
from tests.test_evidence import write_spec
from tests.test_ppo_contract import config, field, fresh_adapter
from tests.test_train_cli import write_csv
from tests.tiny_text_model import write_text_model
from tests.training_ground import base_of, lesson_of, small_ground

pytestmark = [pytest.mark.ray, pytest.mark.slow]
QUICK = Setting(budgets=(4.0,), replicates=50, latency_decisions=2)


@pytest.fixture(scope="module")
def crew() -> Iterator[RayCrew]:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'rlmemo[ray]')")
    made = RayCrew("local", people=2, workers=2)
    yield made
    made.close()


def test_the_numbers_are_those_of_one_process(crew: RayCrew) -> None:
    """Rankings, thresholds, names, wakes and bounds: with machines that are off at night, and of three people
    who do not share out evenly."""
    nights, names = load_timelines("demo-nights", weeks=1).timelines[:3], "markov1,base,oracle"
    alone = evaluate(make_policies(names), nights, chrono(nights), setting=QUICK)
    shared = evaluate(make_policies(names), nights, chrono(nights), setting=QUICK, crew=crew)
    assert numbers(shared) == numbers(alone)


def test_a_worker_that_is_killed_costs_nothing_but_time(crew: RayCrew, tmp_path: Path) -> None:
    timelines = list(people(6, 200, 1))
    alone = evaluate([make_policy("markov1")], timelines, chrono(timelines), setting=QUICK)
    mortal = Mortal(make_policy("markov1"), tmp_path)
    found = evaluate([mortal], timelines, chrono(timelines), setting=QUICK, crew=crew)
    assert len(list(tmp_path.iterdir())) == 2, "two workers were killed"
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
    """To the last bit, in a folder that is named from here."""
    base_of(tmp_path / "base")
    config = config_of("lora", adapter_per_user=True, user_states=40, user_epochs=1)
    config = replace(config, model=str(tmp_path / "base"))
    model, _ = train(config, tmp_path / "trained", tmp_path / "base")
    nobody = States(np.zeros(0, np.int64), np.zeros(0, np.int64))
    people = Everybody(renamed(small_ground(), ["ada", "bob"]), parse_reward("net_seconds"), nobody, [])
    digests, logs = [], []
    with contextlib.chdir(tmp_path):
        for name, who in (("alone", None), ("together", crew)):
            run = RunFolder(Path(name))
            with folder_atomic(run.path / "adapter") as part:
                save(model, part, config.model)
            found = train_users(Lesson(config, run, "users", run.path / "adapter"), people, who)
            assert (found["users"], found["left_shared"]) == (2, [])
            digests.append({a.user: a.about["adapter_sha256"] for a in user_adapters(run.path)})
            rows = [
                json.loads(x) for x in (run.path / "metrics.jsonl").read_text().splitlines() if "in_use" in x
            ]
            logs.append([{**row, "time": 0} for row in rows])
            assert {x.stat().st_mode & 0o77 for x in run.path.rglob("*.json")} == {0}
    assert digests[0] == digests[1]
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


class OneByOne:
    """A crew of one: its next task begins when the one before has ended."""

    def __init__(self, crew: RayCrew) -> None:
        self.crew = crew
        self.share, self.get = crew.share, crew.get

    def do(self, what: Callable[..., Any], parts: Sequence[Any], *given: Any) -> list[Any]:
        done = []
        for part in parts:
            done += self.crew.do(what, [part], *given)
            self.crew._ray.wait(done[-1:])
        return done


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"LANES": 2, "PROMPTS": 6, "STATES": 3}.items():
        monkeypatch.setattr(rollout_crew, name, size)


def joined(parts: list[Rollout]) -> Rollout:
    return Rollout(**{f.name: np.concatenate([getattr(x, f.name) for x in parts]) for f in fields(Rollout)})


def same(a: Rollout, b: Rollout) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Rollout))


def test_rollouts_are_by_the_weights_of_the_moment_whoever_dies(
    crew: RayCrew, tmp_path: Path, small_groups: None
) -> None:
    import torch

    settings, model = config(ppo_lanes=5), base_of(tmp_path / "base")[0].eval()
    mortal = crew.share(MortalField(small_ground(), parse_reward("net_seconds"), tmp_path))
    here = [play(field(), model, settings, 0, x) for x in (slice(0, 2), slice(2, 4), slice(4, 5))]
    there = play_together(crew, mortal, model, settings, 0)
    assert (tmp_path / "killed").exists(), "a worker was killed"
    assert same(there, joined(here))
    whole = play(field(), model, settings, 0)
    assert np.array_equal(there.place, whole.place), "what is drawn for a lane is drawn for it alone"
    assert there.features == pytest.approx(whole.features, abs=1e-5)
    with torch.no_grad():  # the model learns
        model.lm_head.weight += 0.5 * torch.randn_like(model.lm_head.weight)
    after = play_together(crew, mortal, model, settings, 0)
    assert (after.place != there.place).any(), "the next plans are those of the model that has learned"
    assert np.array_equal(after.place, play(field(), model, settings, 0).place)


def test_a_model_of_text_is_played_alike(crew: RayCrew, tmp_path: Path, small_groups: None) -> None:
    path = write_text_model(tmp_path / "text")
    settings = test_text_ppo.config(path)
    model, ground = load_adapted(str(path), None, settings.loading), test_text_ppo.field(path)
    there = play_together(crew, crew.share(ground), model, settings, 0)
    assert same(there, play(ground, model, settings, 0))


@pytest.mark.usefixtures("small_groups")
def test_ppo_learns_the_same_whatever_the_number_of_workers(crew: RayCrew, tmp_path: Path) -> None:
    from rlmemo.learning.ppo import run_ppo
    from rlmemo.learning.sft import save_adapter

    settings, before = config(ppo_rollouts=2), fresh_adapter(tmp_path / "base")
    found = []
    crews: dict[str, Any] = {"one": OneByOne(crew), "two": crew}
    for name, who in crews.items():
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        lesson = lesson_of(settings, folder, "ppo", tmp_path / "base", before)
        model, _ = run_ppo(lesson, field(), Later(), who)
        found.append(save_adapter(model, folder.path / "ppo", "embedded"))
    assert found[0] == found[1]
    assert found[0] != sha256(weights_file(before)), "it has learned"


class Later:
    """A validation that likes the latest weights best."""

    def __init__(self) -> None:
        self.worth = 0.0

    def __call__(self, _: Any) -> float:
        self.worth += 1.0
        return self.worth


@pytest.mark.usefixtures("small_groups")
def test_groups_are_sampled_and_scored_the_same(crew: RayCrew, tmp_path: Path) -> None:
    ground, model = small_ground(), base_of(tmp_path / "base")[0].eval()
    states = part_states(ground.split.train)[np.arange(100, 110)]
    asked = prompts(ground, states)
    free = pickable(asked)
    there = sample_together(crew, model, (asked, free), 3, 0, [0, 7])
    alone = sample_plans(model, asked, free, 3, 1.0, np.random.default_rng([0, 7]))
    assert there.plans() == alone.plans()
    assert len(set(there.plans())) > 1
    plans = [{plan: "sampled", (): "none"} for plan in there.plans()]
    reward = parse_reward("net_seconds")
    made = score_together(crew, crew.share(ground), states, plans, reward, 3)
    known = score(ground, states, plans, reward, 3)
    assert [x.rewards.tolist() for x in made] == [x.rewards.tolist() for x in known]
    assert [(x.user, x.index, x.plans) for x in made] == [(x.user, x.index, x.plans) for x in known]

"""People judged, and rollouts played, on Ray's workers: the numbers of one process, to the last digit,
whoever died meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
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
from reward import parse_reward
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning import rollout_crew
from rlmemo.learning.grammar import pickable
from rlmemo.learning.pairs import score
from rlmemo.learning.rollout import Rollout
from rlmemo.learning.rollout_crew import play, play_together, sample_together, score_together
from rlmemo.learning.training_data import part_states, prompts
from rlmemo.model.ask import sample_plans
from rlmemo.policies.registry import make_policies, make_policy
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import weights_file
from tests.mortal_field import MortalField
from tests.mortal_policy import Mortal
from tests.test_ppo_contract import config, field, fresh_adapter
from tests.training_ground import base_of, lesson_of, small_ground

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

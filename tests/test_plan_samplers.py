"""The further samplers of plans: nucleus sampling, and what classical policies would plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.case import Case
from env.judge.cost_presets import cost_model
from env.judge.plans import Plans
from env.slate.slate import SLATE_SIZE
from reward import parse_reward
from rlmemo.learning.baselines import Baseline, fit_baselines
from rlmemo.learning.config import PLAN_BASELINES, make_config
from rlmemo.learning.incumbent import put_in_charge
from rlmemo.learning.pairs import propose
from rlmemo.learning.preference_rounds import propose_plans
from rlmemo.learning.training_data import TrainingData, memory_at, part_states, prompts
from rlmemo.model.ask import _draw, _shares, plan_logprobs, sample_plans
from rlmemo.model.hub import Loading
from rlmemo.model.load import load_model
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.train import read_command_line
from tests.light import unjudged
from tests.test_leakage_training import changed_after, grounds
from tests.test_preference_rounds import go
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base
from tests.tiny_text_model import write_text_model
from tests.training_ground import base_of, small_ground

REWARD = parse_reward("net_seconds")


def nucleus(p: Sequence[float], top_p: float) -> list[float]:
    """The definition, a choice at a time: the likeliest are kept until they have `top_p` together."""
    kept, total = [0.0] * len(p), 0.0
    for i in sorted(range(len(p)), key=lambda i: -p[i]):
        if total >= top_p:
            break
        kept[i] = p[i]
        total += p[i]
    return [x / sum(kept) for x in kept]


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.5, 0.9, 0.999])
def test_a_nucleus_is_the_fewest_likeliest_choices(top_p: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(200, 9)) * 2
    allowed = rng.random((200, 9)) < 0.7
    allowed[:, -1] = True
    whole, found = _shares(logits, allowed, 0.8), _shares(logits, allowed, 0.8, top_p)
    for row, wanted in zip(found, whole, strict=True):
        np.testing.assert_allclose(row, nucleus(wanted.tolist(), top_p), atol=1e-12)
    assert (found[~allowed] == 0).all()
    np.testing.assert_array_equal(_shares(logits, allowed, 0.8, 1.0), whole)
    if top_p < 1e-6:
        assert ((found > 0).sum(1) == 1).all(), "the likeliest stays, however small the share"


def test_draws_follow_the_shares_of_the_nucleus() -> None:
    p = np.array([0.1, 0.45, 0.05, 0.3, 0.1])
    wanted = _shares(np.log(p)[None], np.ones((1, 5), bool), 1.0, 0.7)[0]
    np.testing.assert_allclose(wanted, [0, 0.6, 0, 0.4, 0])
    noise = np.concatenate([np.random.default_rng(0).random(20000), [0.0, 1.0]])
    rows = (np.tile(np.log(p), (len(noise), 1)), np.ones((len(noise), 5), bool))
    chosen, lp = _draw(*rows, 1.0, noise, 0.7)
    np.testing.assert_allclose(lp, np.log(wanted[chosen]), err_msg="noise 0 and 1 stay in the nucleus too")
    assert np.bincount(chosen, minlength=5)[1] / len(noise) == pytest.approx(0.6, abs=0.02)


def test_propensities_are_those_of_the_truncated_distribution(tmp_path: Path) -> None:
    """Sampled often from one moment: a plan comes up as often as its propensity says; the first picks as
    `first` says; and what lies outside the nucleus never does."""
    model, _ = base_of(tmp_path / "base")
    ground = small_ground()
    one = prompts(ground, part_states(ground.split.train)[60:61])
    n, valid = 1500, np.zeros((1500, SLATE_SIZE), bool)
    valid[:, :4] = True

    def drawn(top_p: float, temperature: float = 1.0, n: int = n) -> Any:
        asked = np.repeat(one, n, axis=0)
        rng = np.random.default_rng(1)
        return sample_plans(model, asked, valid[:n], 2, temperature, rng, top_p=top_p)

    said, free = drawn(0.6), drawn(1.0)
    often: dict[Any, int] = {}
    chance: dict[Any, float] = {}
    for places, delays, p in zip(said.place, said.delay, said.propensity, strict=True):
        plan = (*places.tolist(), *delays.tolist())
        often[plan], chance[plan] = often.get(plan, 0) + 1, float(p)
    for plan, p in chance.items():
        assert often[plan] / n == pytest.approx(p, abs=5 * np.sqrt(p / n) + 1e-3)
    assert sum(chance.values()) == pytest.approx(1.0, abs=0.05), "nothing else is said"
    assert said.first is not None
    assert free.first is not None
    first = np.where(said.place[:, 0] >= 0, said.place[:, 0], SLATE_SIZE)
    np.testing.assert_allclose(np.bincount(first, minlength=SLATE_SIZE + 1) / n, said.first[0], atol=0.05)
    outside = said.first[0] == 0
    assert (free.first[0][outside] > 0).any(), "something was left out"
    assert (free.logp < said.logp.min() - 0.1).any()
    greedy, same = drawn(0.3, 0.0, 9), drawn(1.0, 0.0, 9)
    np.testing.assert_array_equal(greedy.place, same.place)
    np.testing.assert_array_equal(greedy.first, same.first)


@pytest.fixture(scope="module")
def baselines() -> dict[str, Baseline]:
    ground = small_ground()
    return {b.name: b for b in fit_baselines(("markov1", "omnibox", "gbdt"), ground, REWARD, 0)}


@pytest.mark.parametrize("name", ["markov1", "gbdt"])
def test_a_baseline_plans_what_it_would_plan_in_charge(baselines: dict[str, Baseline], name: str) -> None:
    """In the world that its own plans have left, its plans are those that made that world; except where the
    judge's planner asks again for what its own first pick has just evicted, which was warm."""
    ground, one = small_ground(), baselines[name]
    own, found = put_in_charge(ground, lambda user, index: one.rankings[user][index], REWARD)
    assert found["theta"] == one.theta
    assert own.plans is not None
    planned = evicted = 0
    for user, plans in enumerate(own.plans):
        index = np.arange(int(ground.split.train[user].max()))
        past = Plans(plans.target[index], plans.delay[index])
        case = Case(ground.timelines[user], ground.costs[user], ground.world, 1, int(index[-1]) + 2)
        warm, _, _ = case.memory(plans.target, past)
        for asked, held_then, row in zip(past.target, warm, one.plans(own, user, index), strict=True):
            wanted, made = asked[(asked >= 0) & (held_then == 0)].tolist(), row[row >= 0].tolist()
            again = int((held_then > 0).sum())
            assert made[: len(wanted)] == wanted
            assert len(made) <= len(wanted) + again
            planned, evicted = planned + bool(made), evicted + again
    assert planned > 50
    assert evicted < planned / 5
    still = one.plans(ground, 0, np.arange(40, 200))
    assert (still != one.plans(own, 0, np.arange(40, 200))).any(), "elsewhere something else is warm"


def test_the_trees_have_not_seen_what_they_plan(baselines: dict[str, Baseline]) -> None:
    """Fitted on the moments themselves they would be right far more often than they are afterwards."""
    from rlmemo.policies.gbdt import GbdtPolicy

    ground, fitted = small_ground(), GbdtPolicy()
    fitted.fit(ground.timelines, ground.split, seed=0)

    def right(rank: Any) -> float:
        hits = []
        for user, events in enumerate(ground.split.train):
            opened = ground.timelines[user].target[events]
            hits.append(rank(user, events - 1).targets[:, 0] == opened)
        return float(np.concatenate(hits).mean())

    in_sample = right(lambda user, index: fitted.rank(ground.timelines[user], index))
    assert right(lambda user, index: baselines["gbdt"].rankings[user][index]) < in_sample - 0.05
    assert "note" not in baselines["gbdt"].found


@pytest.mark.usefixtures("light_trainings")
def test_baselines_read_nothing_after_the_training_part() -> None:
    old, _, _ = grounds(0.5, seed=1)
    ends = [int(train.max()) for train in old.split.train]
    changed = [changed_after(t, e, 3) for t, e in zip(old.timelines, ends, strict=True)]
    new = TrainingData.prepare(changed, old.split, cost_model("desktop"), old.world)
    a, b = (fit_baselines(PLAN_BASELINES, ground, REWARD, 0) for ground in (old, new))
    for one, other in zip(a, b, strict=True):
        assert (one.name, one.found) == (other.name, other.found)
        for user, end in enumerate(ends):
            index = np.arange(end)
            made = one.plans(old, user, index)
            np.testing.assert_array_equal(made, other.plans(new, user, index))


def test_too_little_to_learn_from_is_said() -> None:
    ground = small_ground()
    short = replace(ground, split=replace(ground.split, train=[x[:60] for x in ground.split.train]))
    (one,) = fit_baselines(("gbdt",), short, REWARD, 0)
    assert "fewer than" in str(one.found["note"])


def test_baselines_plans_bear_their_names() -> None:
    first = np.log(np.array([[0.3, 0.25, 0.2, 0.1, 0.05, 0.1]]))
    (made,) = propose(
        first, np.arange(5)[None], np.array([[0, 0, 0, 0, 1]]), lambda *_: [()],
        picks=3, samples=0,
        baselines={"mfu": [[0]], "gbdt": [[3, 2, 4]], "mru": [[2, 3]], "omnibox": [[]]},
    )  # fmt: skip
    assert made[((0, 0),)] == "top", "who says it first is named"
    assert made[((2, 0), (3, 0))] == "gbdt", "in slate order, without what is warm"
    assert set(made.values()) == {"none", "top", "delayed", "gbdt"}


def test_the_plans_of_a_state_are_those_before_and_the_baselines(
    tmp_path: Path, baselines: dict[str, Baseline]
) -> None:
    ground = small_ground()
    states = part_states(ground.split.train)[::9]
    model, _ = base_of(tmp_path / "base")
    config = make_config({"plan_samples": 1})
    quiet = lambda *_: None  # noqa: E731
    before, _ = propose_plans(config, model, ground, states, quiet)
    after, odds = propose_plans(config, model, ground, states, quiet, list(baselines.values()))
    added: set[str] = set()
    for row, (a, b) in enumerate(zip(before, after, strict=True)):
        assert list(b.items())[: len(a)] == list(a.items())
        assert len(odds[row]) == len(b)
        user, index = int(states.user[row]), int(states.index[row])
        slate, warm = ground.slates[user].candidates[index], memory_at(ground, user).warm[index]
        for plan, origin in list(b.items())[len(a) :]:
            added.add(origin)
            wanted = baselines[origin].plans(ground, user, np.array([index]))[0]
            listed = {int(x) for x in wanted if x >= 0} & {int(x) for x in slate}
            assert {int(slate[place]) for place, _ in plan} == listed
            assert all(delay == 0 and warm[place] == 0 for place, delay in plan)
    assert added <= set(baselines)
    assert added
    narrow, _ = propose_plans(make_config({"plan_top_p": 0.1}), model, ground, states, quiet)
    wide, _ = propose_plans(make_config({}), model, ground, states, quiet)
    said = [sum(list(p.values()).count("sampled") for p in made) for made in (narrow, wide)]
    assert said[0] < said[1], "a narrow nucleus says fewer different plans"
    assert np.isfinite(plan_logprobs(model, prompts(ground, states[:1]))).all()


def test_bad_values_are_one_clear_error() -> None:
    for bad in (0, -0.1, 1.01):
        with pytest.raises(InputError, match=r"plan_top_p is .*; give a share above 0, at most 1"):
            make_config({"plan_top_p": bad})
    with pytest.raises(InputError, match="plan_baselines 'gdbt' is no classical policy; did you mean 'gbdt'"):
        make_config({"plan_baselines": "mfu, gdbt"})
    with pytest.raises(InputError, match="plan_baselines 'oracle' is no classical policy; there are mfu, "):
        make_config({"plan_baselines": "oracle"})
    assert make_config({"plan_baselines": ["gbdt", "mfu", "gbdt"]}).planned_by == ("gbdt", "mfu")
    assert make_config({"plan_baselines": ""}).planned_by == make_config({}).planned_by == ()


@pytest.mark.slow
@pytest.mark.usefixtures("light_trainings")
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_run_goes_on_with_the_plans_that_it_stored(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both options on; begun again after its plans were scored, and again after all was lost but SFT."""
    monkeypatch.setattr("rlmemo.learning.planner_choice.judge", unjudged)
    base = write_tiny_base(tmp_path / "base", hidden=16, layers=1)
    run = tmp_path / "run"
    options = [
        "--timelines", str(write_csv(tmp_path / "two.csv", 600)), "--tz", "UTC", "--model", str(base),
        "--policies", "none", "--method", method, "--sft-states", "40", "--plan-states", "60",
        "--plan-samples", "1", "--dpo-pairs", "64", "--kto-plans", "64", "--lora-rank", "2",
        "--plan-top-p", "0.8", "--plan-baselines", "mfu,gbdt", "--preference-keep", "last",
        "--out", str(run),
    ]  # fmt: skip
    assert read_command_line(options)[0].planned_by == ("mfu", "gbdt")
    go(options)
    folder = RunFolder(run)
    found = folder.state()["plans"]
    assert set(found["baselines"]) == {"mfu", "gbdt"}
    assert {"mfu", "gbdt"} & set(found["reward_by_origin"])
    file = run / ("pairs.jsonl" if method == "dpo" else "plans.jsonl")
    stored, digest = file.read_bytes(), sha256(run / method / "adapter_model.safetensors")
    for kept in (["start", "scorer", "sft", "plans"], ["start", "scorer", "sft"]):
        state = json.loads((run / "state.json").read_text())
        (run / "state.json").write_text(json.dumps({k: state[k] for k in kept if k in state}))
        if "plans" not in kept:
            file.unlink()
        go(["--resume", "--out", str(run)])
        assert file.read_bytes() == stored
        assert sha256(run / method / "adapter_model.safetensors") == digest


def test_plans_of_a_text_model_are_said_on_one_reading_of_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same plans for sure, the same chances, and no prompt is read once for every plan."""
    folder = write_text_model(tmp_path / "text", kind="llama")
    model, _ = load_model(str(folder), Loading(history=8))
    ground = replace(small_ground(), reading=model.reading)
    states = part_states(ground.split.train)[60:72:4]
    config = make_config({"plan_samples": 3})
    read: list[int] = []
    forward = model.model.embed_tokens.forward
    model.model.embed_tokens.forward = lambda ids: (read.append(ids.numel()), forward(ids))[1]
    found = []
    for shared in (True, False):
        read.clear()
        with monkeypatch.context() as m:
            if not shared:
                m.setattr("rlmemo.learning.preference_rounds.can_branch", lambda _: False)
            made, odds = propose_plans(config, model, ground, states, lambda *_: None)
        found.append((made, odds, sum(read)))
    whole = sum(int((row >= 0).sum()) for row in prompts(ground, states))
    assert found[0][2] < 1.2 * whole < 3 * whole < found[1][2]
    for mine, others in zip(found[0][0], found[1][0], strict=True):
        for one, other in ((mine, others), (others, mine)):
            assert {p for p, origin in one.items() if origin != "sampled"} <= set(other)
    for (one, mine), (other, theirs) in zip(*(zip(x[0], x[1], strict=True) for x in found), strict=True):
        chances = [dict(zip(plans, o, strict=True)) for plans, o in ((one, mine), (other, theirs))]
        for plan in one.keys() & other.keys():
            assert chances[0][plan] == pytest.approx(chances[1][plan], abs=1e-5)

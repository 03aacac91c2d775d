"""PPO on a model of a hub: it learns from the plans that it said, in the world that they made."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.judge.case import Case
from reward import parse_reward
from rlmemo.learning.config import TrainConfig, make_config
from rlmemo.learning.online import shortened
from rlmemo.learning.rollout import Field, Rollout
from rlmemo.learning.rollout_crew import lane_by_lane, play
from rlmemo.learning.training import Lesson
from rlmemo.model.hub import Loading
from rlmemo.runs.folder import RunFolder
from tests.test_ppo_contract import shy
from tests.test_rollout import plans_of
from tests.test_text_prompt import plain, timeline
from tests.tiny_text_model import write_text_model
from tests.training_ground import small_ground

pytestmark = pytest.mark.usefixtures("light_trainings")

SMALL = {
    "method": "ppo", "ppo_lanes": 3, "ppo_steps": 8, "ppo_episode": 6, "ppo_batch": 12, "ppo_epochs": 2,
    "ppo_rollouts": 2, "ppo_lr": 1e-2, "ppo_validate": 1, "lora_rank": 2, "history": 4, "micro_batch": 6,
    "sft_batch": 12,
}  # fmt: skip
KINDS = {"packed": ("qwen3", True), "plain": ("llama", False), "side by side": ("gpt2", True)}


def config(model: Path, **given: Any) -> TrainConfig:
    return make_config({**SMALL, "model": str(model), "checkpoint_steps": 1, **given})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("models")
    return {
        name: write_text_model(path / name, kind=kind, chat=chat, seed=3)
        for name, (kind, chat) in KINDS.items()
    }


@lru_cache(maxsize=4)
def field(model: Path) -> Field:
    """The ground on which a model of text plays, as it reads it."""
    from rlmemo.model.load import reading_for

    ground = replace(small_ground(), reading=reading_for(str(model), Loading(history=4)))
    return Field(ground, parse_reward("net_seconds"))


def start(settings: TrainConfig) -> Path:
    """An adapter that changes something, beside the model."""
    import torch
    from peft import LoraConfig, get_peft_model

    from rlmemo.model.load import load_model

    path = Path(settings.model).with_name(f"start of {Path(settings.model).name}")
    if not path.exists():
        model, _ = load_model(settings.model, settings.loading)
        torch.manual_seed(0)
        given = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False}
        get_peft_model(model, LoraConfig(r=2, **given)).save_pretrained(path)
    return path


def trainer_of(settings: TrainConfig, path: Path) -> Any:
    """The trainer as `run_ppo` makes it, before its first update."""
    from rlmemo.learning import ppo

    made: list[Any] = []

    class Stop(Exception):
        pass

    def stop(trainer: Any, _: Lesson) -> None:
        made.append(trainer)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "train", stop)
        with pytest.raises(Stop):
            ppo.run_ppo(
                Lesson(settings, RunFolder(path), "ppo", start(settings)), field(Path(settings.model)), shy
            )
    return made[0]


def played(model: Path, lanes: slice | None = None) -> Rollout:
    from rlmemo.model.load import load_adapted

    settings = config(model)
    return play(field(model), load_adapted(str(model), None, settings.loading), settings, 0, lanes)


def test_every_prompt_is_written_in_the_world_that_the_plans_before_it_left(models: dict[str, Path]) -> None:
    model = models["packed"]
    ground, settings, rollout = field(model).data, config(model), played(model)
    rng = np.random.default_rng([settings.seed, 5, 0])
    moments = field(model).draw(settings.ppo_lanes, settings.ppo_steps, settings.ppo_episode, rng)
    checked = held = 0
    for lane in range(settings.ppo_lanes):
        for begin in np.flatnonzero(moments.first[lane]):
            end = begin + int(np.argmax(moments.last[lane, begin:])) + 1
            user, index = int(moments.user[lane, begin]), moments.index[lane, begin:end]
            rows = np.arange(lane * settings.ppo_steps + begin, lane * settings.ppo_steps + end)
            plans = plans_of(ground, rollout, rows, user, index)
            x, slates = ground.timelines[user], ground.slates[user]
            case = Case(x, ground.costs[user], ground.world, int(index[0]) + 1, int(index[-1]) + 2)
            warm, free, _ = case.memory(slates.candidates, plans)
            anew = ground.reading.prompts(x, slates, index, warm, free)
            for row, asked in zip(rows, anew, strict=True):
                assert rollout.prompts[row][rollout.prompts[row] >= 0].tolist() == asked[asked >= 0].tolist()
            np.testing.assert_array_equal(rollout.free[rows], (slates.candidates[index] >= 0) & (warm == 0))
            checked, held = checked + len(rows), held + int((warm > 0).sum())
    assert checked == len(rollout) == 24
    assert held > 20
    assert len({(row >= 0).sum() for row in rollout.prompts}) > 3, "prompts differ in length"
    assert (rollout.place >= 0).any(1).sum() > 5


def test_a_lane_is_played_alike_whoever_plays_beside_it(models: dict[str, Path]) -> None:
    whole, alone = played(models["packed"]), played(models["packed"], slice(1, 2))
    np.testing.assert_array_equal(alone.place, whole.place[8:16])
    np.testing.assert_allclose(alone.logp, whole.logp[8:16], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_and_trained_log_probabilities_are_the_same(
    models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    from rlmemo.model.packing import NAME

    made = trainer_of(config(models[kind]), tmp_path)
    assert (made.model.get_base_model().config._attn_implementation == NAME) is (kind != "side by side")
    output = made._generate_and_score_completions([{"prompt": ""}] * 24)
    total = (output["old_per_token_logps"] * output["completion_mask"]).sum(1)
    np.testing.assert_allclose(total.numpy(), made.played.logp, atol=1e-4)
    assert len(set(np.round(made.played.logp, 4))) > 10
    assert (made.played.place >= 0).any()
    np.testing.assert_array_equal(output["free"].numpy(), made.played.free)


def test_the_odds_of_all_plans_sum_to_one(models: dict[str, Path]) -> None:
    """Two places to pick from, two picks at most: every plan that can be said, and nothing else."""
    import torch

    from rlmemo.learning.grammar import plan_log_probs
    from rlmemo.model.load import load_model

    model, _ = load_model(str(models["packed"]), Loading(history=4))
    how, delays = model.reading, range(len(model.reading.delays))
    ground = field(models["packed"]).data
    prompt = how.prompts(ground.timelines[0], ground.slates[0], np.array([120]))
    plans: list[list[tuple[int, int]]] = [[]]
    plans += [[(p, d)] for p in (2, 5) for d in delays]
    plans += [[(2, d), (5, e)] for d in delays for e in delays]
    ids = np.full((len(plans), 5), how.end, np.int64)
    for row, plan in enumerate(plans):
        said = how.plan_ids(plan)
        ids[row, : len(said)] = said
    free = np.zeros((len(plans), len(how.letters)), bool)
    free[:, [2, 5]] = True
    asked = torch.from_numpy(np.repeat(prompt, len(plans), axis=0))
    with torch.no_grad():
        log_p, entropy = plan_log_probs(model, asked, torch.from_numpy(ids), 2, free=free)
    assert float(log_p.sum(1).exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(entropy.min()) >= -1e-6


def test_the_first_update_is_not_clipped_and_passes_are_summed_up(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """12 decisions an update go through the model 6 at a time: the gradient is that of all at once."""
    grads: list[dict[str, Any]] = []
    for micro in (6, 12):
        made = trainer_of(config(models["packed"], micro_batch=micro), tmp_path)
        made.create_optimizer()
        assert made.updates_per_rollout == 4
        made.model.train()
        made.current_gradient_accumulation_steps = 12 // micro
        for step in range(12 // micro):
            made._step = step
            torch_seed()
            inputs = made._prepare_inputs([{"prompt": ""}] * 24)
            made._compute_loss(made.model, inputs).backward()
        assert made._metrics["train"]["clip_ratio/region_mean"] == [0.0] * (12 // micro)
        named = [*made.model.named_parameters(), *made.critic.named_parameters()]
        grads.append({n: p.grad.clone() for n, p in named if p.grad is not None})
    assert len(grads[0]) > 10
    assert max(float(g.abs().max()) for g in grads[0].values()) > 0
    for name, grad in grads[0].items():
        np.testing.assert_allclose(grad.numpy(), grads[1][name].numpy(), atol=2e-5, err_msg=name)


def torch_seed() -> None:
    """Which samples TRL puts into one pass is drawn."""
    import torch

    torch.manual_seed(0)


def test_what_plays_is_not_what_learns(models: dict[str, Path], tmp_path: Path) -> None:
    """TRL's head, put on the model, asks it and no copy of it."""
    import torch

    made = trainer_of(config(models["packed"]), tmp_path)
    reader, ids = made.reader(), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = reader(input_ids=ids).logits
        for p in made.model.parameters():
            p.mul_(0.5)
        np.testing.assert_array_equal(reader(input_ids=ids).logits.numpy(), before.numpy())


def test_a_text_model_is_judged_on_a_part_of_validation() -> None:
    ground = small_ground()
    cases = ground.cases(ground.split.validation)
    assert shortened(cases, 10**6) == cases
    short = shortened(cases, 20)
    assert 18 <= sum(map(len, short)) <= 20
    assert [x.start for x in short] == [x.start for x in cases]


def test_a_wrong_plan_is_drawn_by_nobody(models: dict[str, Path]) -> None:
    """Nothing can be picked where nothing is free, and the plan is then sure."""
    from rlmemo.model.load import load_model

    model, _ = load_model(str(models["packed"]), Loading(history=4))
    ground = field(models["packed"]).data
    asked = model.reading.prompts(ground.timelines[0], ground.slates[0], np.array([60, 90]))
    said = lane_by_lane(model, 3, [[0], [1]])(asked, np.zeros((2, 12), bool))
    assert (said.place == -1).all()
    np.testing.assert_allclose(said.logp, 0.0)


def options(model: Path, path: Path, method: str, run: str) -> list[str]:
    """The command line of a training in the folder `run` of `path`, on 150 events of one person."""
    x = timeline(plain(), 150)
    rows = [f"a,{t},{x.names[k]}\n" for t, k in zip(x.t, x.target, strict=True)]
    (path / "a.csv").write_text("user,t,target\n" + "".join(rows))
    settings = {
        **SMALL, "timelines": path / "a.csv", "model": model, "method": method, "checkpoint_steps": 1,
        "sft_states": 16, "sft_batch": 8, "plan_states": 8, "plan_samples": 1, "dpo_pairs": 8, "dpo_batch": 4,
        "micro_batch": 4, "policies": "markov1", "budget": 2, "out": path / run,
    }  # fmt: skip
    return [y for k, v in settings.items() for y in ("--" + k.replace("_", "-"), str(v))]


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_broken_off(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlmemo.learning.ppo import EpisodeTrainer
    from rlmemo.policies.registry import make_policy
    from rlmemo.train import main

    whole, cut = (options(models["packed"], tmp_path, "ppo", run) for run in ("whole", "cut"))
    assert main(whole) == 0
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["in_charge"]["learned"] == "ppo"
    found = report["stages"]["ppo"]
    assert found["steps"] == 8
    assert found["decisions"] == 48
    assert found["best_validation"] >= found["start_validation"]
    logged = [json.loads(x) for x in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in logged if row["stage"] == "ppo")
    assert first["clip_ratio/region_mean"] == 0.0
    assert {"explained_variance", "plan_reward", "kl_to_start", "entropy", "value_loss"} <= set(first)
    policy = make_policy(str(tmp_path / "whole"))
    assert policy.model.reading.kind == "text"
    ranking = policy.rank(timeline(plain(), 150), np.arange(60, 70))
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5)

    learn, passes = EpisodeTrainer._compute_loss, iter(range(99))

    def breaks_off(self: Any, *given: Any) -> Any:
        if next(passes) == 7:  # three an update: within the third, after its rollout's first checkpoints
            raise KeyboardInterrupt
        return learn(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeTrainer, "_compute_loss", breaks_off)
        assert main(cut) == 130
    assert [x.name for x in (tmp_path / "cut" / "checkpoints" / "ppo").iterdir() if x.name.endswith("2")]
    assert main(["--resume", "--out", str(tmp_path / "cut")]) == 0
    state = [json.loads((tmp_path / x / "state.json").read_text())["ppo"] for x in ("whole", "cut")]
    assert state[0]["adapter_sha256"] == state[1]["adapter_sha256"]


@pytest.mark.slow
def test_it_goes_on_from_preferences(models: dict[str, Path], tmp_path: Path) -> None:
    from rlmemo.train import main

    assert main(options(models["plain"], tmp_path, "dpo-ppo", "run")) == 0
    assert {"sft", "dpo", "ppo"} <= set(json.loads((tmp_path / "run" / "report.json").read_text())["stages"])

"""What PPO takes from the inside of TRL's GRPOTrainer, held: an upgrade that breaks it fails here."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward import parse_reward
from rlmemo.learning.config import TrainConfig, make_config
from rlmemo.learning.rollout import Field
from rlmemo.learning.training import Interrupt, Lesson, Stopped
from rlmemo.model import slots
from rlmemo.runs.folder import RunFolder
from tests.training_ground import base_of, lesson_of, small_ground

SMALL = {
    "ppo_lanes": 4, "ppo_steps": 16, "ppo_episode": 12, "ppo_batch": 16, "ppo_epochs": 2, "ppo_rollouts": 3,
    "ppo_lr": 1e-2, "ppo_validate": 1, "lora_rank": 2, "checkpoint_steps": 2, "method": "ppo",
}  # fmt: skip


def config(**given: Any) -> TrainConfig:
    return make_config({**SMALL, **given})


@lru_cache(maxsize=1)
def field() -> Field:
    return Field(small_ground(), parse_reward("net_seconds"))


def fresh_adapter(base: Path) -> Path:
    """A LoRA adapter that changes nothing yet, saved beside the tiny base."""
    from peft import LoraConfig, get_peft_model

    from rlmemo.learning.adapters import LINEAR

    path = base.with_name("start")
    if not path.exists():
        import torch

        model, _ = base_of(base)
        torch.manual_seed(0)
        get_peft_model(
            model, LoraConfig(r=2, target_modules=list(LINEAR), task_type="CAUSAL_LM")
        ).save_pretrained(path)
    return path


def shy(model: Any) -> float:
    """Stands in for validation where only the mechanics matter: a number that depends on the weights."""
    return float(sum(p.abs().sum().item() for p in model.parameters()) % 1.0)


def trainer_of(tmp_path: Path, settings: TrainConfig, judge: Callable[[Any], float] = shy) -> Any:
    from rlmemo.learning.adapters import trainable
    from rlmemo.learning.ppo import EpisodeTrainer, ppo_arguments
    from rlmemo.learning.training import quiet

    quiet()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(exist_ok=True)
    model, tokenizer = base_of(tmp_path / "base")
    tokenizer.padding_side = "left"
    args = ppo_arguments(Lesson(settings, folder, "ppo"))
    adapted = trainable(model, fresh_adapter(tmp_path / "base"))
    made = EpisodeTrainer(settings, field(), judge, adapted, tokenizer, args)
    made.create_model_card = lambda *_, **__: None
    return made


def run(
    path: Path, base: Path, settings: TrainConfig, stop: int = 0, judge: Callable[[Any], float] = shy
) -> tuple[str, Any, dict[str, Any]]:
    """(SHA-256 of the adapter, the model, what was found)."""
    from rlmemo.learning.ppo import run_ppo
    from rlmemo.learning.sft import save_adapter

    interrupt, folder = Interrupt(), RunFolder(path)
    folder.path.mkdir(exist_ok=True)

    def watch(done: int, total: int, values: dict[str, float]) -> None:
        interrupt.asked = done == stop

    before = fresh_adapter(base)
    lesson = lesson_of(settings, folder, "ppo", base, before, interrupt=interrupt, progress=watch)
    model, found = run_ppo(lesson, field(), judge)
    return save_adapter(model, path / "ppo", "embedded"), model, found


def test_the_first_minibatch_is_not_clipped_and_its_ratio_is_one(tmp_path: Path) -> None:
    """The distribution that is trained on is the one that was sampled from, mask and all."""
    made = trainer_of(tmp_path, config())
    seen: list[tuple[float, float, float]] = []
    compute = made._compute_loss

    def watched(model: Any, inputs: dict[str, Any]) -> Any:
        import torch

        from rlmemo.learning.grammar import plan_log_probs

        with torch.no_grad():
            now, _ = plan_log_probs(made.model, inputs["prompt_ids"], inputs["completion_ids"], 3)
        said = inputs["completion_mask"]
        ratio = ((now - inputs["old_per_token_logps"]) * said).exp()
        loss = compute(model, inputs)
        clipped = made._metrics["train"]["clip_ratio/region_mean"][-1]
        seen.append((float(ratio.min()), float(ratio.max()), clipped))
        return loss

    made._compute_loss = watched
    made.train()
    least, most, clipped = seen[0]
    assert clipped == 0.0
    assert (least, most) == (pytest.approx(1.0, abs=1e-5), pytest.approx(1.0, abs=1e-5))
    assert max(clipped for _, _, clipped in seen) > 0, "later ones are: the loss does clip"


def test_sampled_and_trained_log_probabilities_are_the_same(tmp_path: Path) -> None:
    made = trainer_of(tmp_path, config())
    output = made._generate_and_score_completions([{"prompt": ""}] * 64)
    total = (output["old_per_token_logps"] * output["completion_mask"]).sum(1)
    np.testing.assert_allclose(total.numpy(), made.played.logp, atol=1e-4)
    assert len(set(np.round(made.played.logp, 4))) > 10


def test_the_critic_is_trained_saved_and_restored(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from rlmemo.learning.ppo import CRITIC_LR, TENSORS

    settings = config(checkpoint_steps=4, ppo_rollouts=1)
    made = trainer_of(tmp_path, settings)
    made.create_optimizer()
    rates = {id(p): g["lr"] for g in made.optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in made.critic.parameters()} == {CRITIC_LR}
    assert {rates[id(p)] for p in made.model.parameters() if p.requires_grad} == {settings.ppo_lr}
    made.optimizer = None
    fitted: list[Any] = []
    warm_up = made.warm_up

    def watched(model: Any) -> None:
        warm_up(model)
        fitted.append({k: v.clone() for k, v in made.critic.state_dict().items()})

    made.warm_up = watched
    made.train()
    changed = [k for k, v in made.critic.state_dict().items() if not v.equal(fitted[0][k])]
    assert len(changed) == len(fitted[0]), "every part of the critic moved in the updates"
    path = tmp_path / "run" / "checkpoints" / "ppo" / "checkpoint-8"
    saved = load_file(path / TENSORS)
    assert all(saved[f"critic.{k}"].equal(v) for k, v in made.critic.state_dict().items())
    assert not any("critic" in k for k in load_file(path / "adapter_model.safetensors"))
    other = trainer_of(tmp_path, settings)
    other.create_optimizer_and_scheduler(8)
    other._load_optimizer_and_scheduler(str(path))
    assert all(other.critic.state_dict()[k].equal(v) for k, v in made.critic.state_dict().items())
    assert other.beta == made.beta
    assert other._step == made._step


def test_advantages_stay_with_their_samples(tmp_path: Path) -> None:
    """TRL shuffles and splits; whatever belongs to a sample goes with it."""
    made = trainer_of(tmp_path, config())
    made.model.train()
    whole: list[dict[str, Any]] = []
    score = made._generate_and_score_completions
    made._generate_and_score_completions = lambda inputs: whole.append(score(inputs)) or whole[-1]

    def rows(batch: dict[str, Any]) -> list[tuple[bytes, bytes, bytes, float, float, float]]:
        return [
            (
                batch["prompt_ids"][i].numpy().tobytes(), batch["completion_ids"][i].numpy().tobytes(),
                batch["features"][i].numpy().tobytes(), float(batch["advantages"][i]),
                float(batch["returns"][i]), float(batch["values"][i]),
            )
            for i in range(len(batch["advantages"]))
        ]  # fmt: skip

    parts = []
    for step in range(4):
        made._step = step
        parts += rows(made._prepare_inputs([{"prompt": ""}] * 64))
    assert len(whole) == 1, "one rollout, four minibatches"
    assert parts != rows(whole[0]), "it was shuffled"
    assert sorted(parts) == sorted(rows(whole[0]))
    played = made.played
    for i, (prompt, _, features, *_) in enumerate(rows(whole[0])):
        assert prompt == played.prompts[i].tobytes()
        assert features == played.features[i].tobytes()


def test_a_trl_that_changed_inside_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import GRPOTrainer

    from rlmemo.learning.ppo import check_trl

    check_trl()
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", lambda self, batch: None)
    with pytest.raises(RuntimeError, match=r"GRPOTrainer\._compute_loss\(self, model, inputs.*has it with"):
        check_trl()
    monkeypatch.delattr(GRPOTrainer, "_compute_loss")
    with pytest.raises(RuntimeError, match="has none"):
        check_trl()


def test_the_odds_of_all_plans_sum_to_one(tmp_path: Path) -> None:
    """Two places to pick from, two picks at most: every plan that can be said, and nothing else."""
    import torch

    from rlmemo.learning.grammar import plan_log_probs

    ground = small_ground()
    model, _ = base_of(tmp_path / "base")
    warm = np.ones((1, slots.SLATE_SIZE), np.int64)
    warm[0, [2, 5]] = 0
    prompt = slots.encode_prompts(
        ground.slates[0], ground.timelines[0].target, np.array([120]), warm, np.array([0.5])
    )
    delays = range(len(slots.DELAYS_S))
    plans: list[list[tuple[int, int]]] = [[]]
    plans += [[(p, d)] for p in (2, 5) for d in delays]
    plans += [[(2, d), (5, e)] for d in delays for e in delays]
    ids = np.zeros((len(plans), 5), np.int64)
    for row, plan in enumerate(plans):
        said = slots.plan_ids(plan)
        ids[row, : len(said)] = said
    asked = torch.from_numpy(np.repeat(prompt, len(plans), axis=0))
    with torch.no_grad():
        log_p, entropy = plan_log_probs(model, asked, torch.from_numpy(ids), 2)
    assert float(log_p.sum(1).exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(entropy.min()) >= -1e-6


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """(folder with the base and the run `whole`, its adapter's SHA-256, what it found)."""
    folder = tmp_path_factory.mktemp("whole")
    whole, _, found = run(folder / "whole", folder / "base", config())
    return folder, whole, found


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 8, 13])
def test_it_continues_exactly(
    left_alone: tuple[Path, str, dict[str, Any]], tmp_path: Path, stop: int
) -> None:
    """Stopped within a rollout, at its end, and in the pass after: the same adapter, the same log."""
    folder, whole, found = left_alone
    base = folder / "base"
    with pytest.raises(Stopped):
        run(tmp_path / "cut", base, config(), stop)
    again, _, cut = run(tmp_path / "cut", base, config())
    assert again == whole
    assert cut["best_validation"] == found["best_validation"]
    logs = [RunFolder(path).logged("ppo") for path in (folder / "whole", tmp_path / "cut")]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    found_again = [[row["explained_variance"] for row in log if "explained_variance" in row] for log in logs]
    assert found_again[0][-1] == found_again[1][-1]


@pytest.mark.slow
def test_it_stops_when_validation_gets_no_better_and_keeps_the_best(tmp_path: Path) -> None:
    falling = iter(range(100, 0, -1))
    settings = config(ppo_rollouts=20, ppo_patience=2)
    base = tmp_path / "base"
    _, model, found = run(tmp_path / "run", base, settings, judge=lambda _: float(next(falling)))
    assert found["steps"] < 4 * settings.ppo_epochs * settings.ppo_rollouts
    assert found["best_rollout"] == 0
    start = {n: p for n, p in model.named_parameters() if ".default." in n}
    ref = dict(model.named_parameters())
    assert all(p.equal(ref[n.replace(".default.", ".ref.")]) for n, p in start.items()), "the start was best"


@pytest.mark.slow
def test_it_learns_what_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model on two people: the plans that it samples are worth more after a few rollouts."""
    monkeypatch.setattr("rlmemo.learning.ppo.KL_WEIGHT", 1e-4)
    settings = config(
        ppo_lanes=8, ppo_steps=32, ppo_batch=64, ppo_rollouts=10, ppo_lr=1e-2, lora_rank=8,
        ppo_kl=50.0,
    )  # fmt: skip
    rising = iter(range(100))  # never a reason to stop
    run(tmp_path / "run", tmp_path / "base", settings, judge=lambda _: float(next(rising)))
    rows = [r for r in RunFolder(tmp_path / "run").logged("ppo") if r.get("plan_reward") is not None]
    reward = [row["plan_reward"] for row in rows]
    assert np.mean(reward[-2:]) > np.mean(reward[:2]) + 0.05
    assert all(a["step"] < b["step"] for a, b in pairwise(rows))
    assert json.dumps(rows), "every value is a plain number"

"""PPO over episodes of the replayed world, on top of TRL's GRPOTrainer.

    rollout      many episodes side by side, sampled from the policy in the world that its own plans made
                 (`rlmemo.learning.rollout`); rewards are credited to the plan that they follow from
    advantages   GAE over the decisions of an episode, against a critic that sees more than the prompt, and
                 what came next (`rlmemo.learning.value`); then normalised. Nothing is discounted, or credits
                 and returns are by the same half-life
    updates      TRL's clipped loss with the mask of a plan in it and the divergence from the model
                 it began with, whose weight adapts; and the critic's clipped loss
    keeping      every few rollouts the policy's likeliest plans are played on validation; the best adapter
                 is kept, and learning stops when there was none better for a while

One sample for TRL is one decision: its prompt, its plan, what it could pick, its advantage. What is used of
TRL's inside is in `EpisodeTrainer` alone, and `tests/test_ppo_contract.py` holds it; `check_trl` looks at the
rest.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl
from trl import GRPOConfig, GRPOTrainer

from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.grammar import naming_tokens, plan_log_probs
from rlmemo.learning.no_signal import SAME, NoSignal, no_signal
from rlmemo.learning.rollout import AHEAD, Field, Rollout
from rlmemo.learning.rollout_crew import play, play_together
from rlmemo.learning.training import Lesson, arguments, hush_libraries, in_precision, train
from rlmemo.learning.value import Critic, advantages, discounts, explained_variance
from rlmemo.model import slots
from rlmemo.model.ask import SampledPlans
from rlmemo.model.packing import look_packed
from rlmemo.model.readings import SLOTS, Reading, reading_of

STATE, TENSORS = "ppo.json", "ppo.safetensors"
KL_WEIGHT, KL_STEP, KL_LEAST, KL_MOST = 0.01, 1.5, 1e-4, 10.0
"""Weight of the divergence to begin with, and how it adapts."""
CRITIC_LR = 1e-3
VALUE_CLIP = 0.5
"""How far a value may move in a rollout's updates, in standard deviations of the returns."""

Judge = Callable[[Any], float]
"""Reward per open on validation of a model's own likeliest plans."""


class EpisodeTrainer(GRPOTrainer):
    """TRL's GRPO core with rollouts over episodes, a critic, and a mask.

    What it takes from GRPOTrainer: samples are generated once and used for several updates, shuffled and
    split with all that belongs to them; the clipped loss and its divergence from the
    adapter it began with ("ref"). What it replaces: what is generated (`rollout_func`), what it is worth
    (`_generate_and_score_completions`), how likely it is (`_get_per_token_logps_and_entropies`).
    """

    args: Any
    _buffered_inputs: Any

    def __init__(
        self, config: TrainConfig, field: Field, judge: Judge, model: Any, tokenizer: Any, args: Any,
        crew: RayCrew | None = None,
    ) -> None:  # fmt: skip
        from datasets import Dataset

        self.config, self.field, self.judge = config, field, judge
        self.crew, self.shared = crew, None if crew is None else crew.share(field)
        knowing = config.ppo_critic == "hindsight"
        self.critic = Critic(field.features, AHEAD, knowing, config.seed)
        self.best: tuple[float, int, dict[str, Any]] | None = None
        self.start: float | None = None  # on validation, before the first update
        self.judged = -1  # the rollout before which validation was last looked at
        self.worse = 0
        self.played: Rollout | None = None
        self.free: Any = None  # which places could be picked in the samples that TRL is looking at
        self.foreseen = np.zeros(0)
        check_trl()
        super().__init__(
            model=model,
            args=args,
            reward_funcs=credited,
            # TRL wants prompts to repeat; ours come from the rollout, so there is one empty row per pair.
            train_dataset=Dataset.from_dict({"prompt": [""] * (args.generation_batch_size // 2)}),
            processing_class=tokenizer,
            rollout_func=lambda *_: self.roll_out(),
        )
        self.critic.to(self.accelerator.device)

    # --- rollout ------------------------------------------------------------------------------------

    @property
    def updates_per_rollout(self) -> int:
        passes = self.args.steps_per_generation * self.num_iterations
        return int(passes // self.args.gradient_accumulation_steps)

    def roll_out(self) -> dict[str, Any]:
        """A rollout in the form that TRL asks for."""
        number = self.state.global_step // self.updates_per_rollout
        model = self.reader()
        self.look(model, number)
        if number == 0:
            self.warm_up(model)
        self.played = played = self.play(model, number)
        self.free = torch.from_numpy(played.free)
        naming, reads = self.field.names > 0, self.field.data.reading
        said = SampledPlans(played.place, played.delay, played.logp, None, played.named if naming else None)
        prompts = played.prompts[:, : slots.LEAVE_AT + 1 if naming else None]
        return {
            "prompt_ids": [row[row >= 0].tolist() for row in prompts],
            "completion_ids": [reads.plan_ids(plan, naming) for plan in said.plans()],
            "logprobs": None,
            "credit": played.reward.tolist(),
        }

    def play(self, model: Any, number: int) -> Rollout:
        """Rollout `number`: the same for the same seed, number and weights."""
        if self.crew is None:
            return play(self.field, model, self.config, number)
        return play_together(self.crew, self.shared, model, self.config, number)

    def warm_up(self, model: Any) -> None:
        """Fit the critic to a rollout that nothing else is learned from. Raises NoSignal where all of its
        plans are worth the same."""
        seen = self.play(model, WARM_UP)
        if np.ptp(seen.reward) < SAME:
            cold, picked = bool(seen.free.any()), bool((seen.place >= 0).any())
            raise NoSignal(no_signal(len(seen), self.field.data, cold=cold, picked=picked))
        returns = self.estimate(seen, np.zeros(len(seen)), lam=1.0)
        self.critic.fit(seen.features, returns, rate=CRITIC_LR, passes=10, seed=self.config.seed)

    def estimate(self, played: Rollout, value: np.ndarray, lam: float) -> np.ndarray:
        """Advantages of a rollout, flat."""
        shape = (self.config.ppo_lanes, self.config.ppo_steps)
        discount = discounts(played.gap_s, self.field.half_life_s)
        reward, value, discount, last = (
            x.reshape(shape) for x in (played.reward, value, discount, played.last)
        )
        return advantages(reward, value, discount, last, lam).reshape(-1)

    def reader(self) -> Any:
        """The policy as it is now, its adapter merged, for sampling."""
        model = copy.deepcopy(self.accelerator.unwrap_model(self.model))
        model = model.merge_and_unload(adapter_names=["default"]).eval()
        model.__dict__.pop("forward", None)  # TRL's head would ask the model that this is a copy of
        return model

    # --- what a sample is worth ---------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        played = self.played
        assert played is not None
        assert len(output["advantages"]) == len(played)
        device = self.accelerator.device
        value = self.critic.values(played.features)
        gained = self.estimate(played, value, self.config.ppo_lambda)
        returns = value + gained
        outcome = self.estimate(played, np.zeros(len(played)), 1.0)
        normal = (gained - gained.mean()) / (gained.std() + 1e-8)
        if np.ptp(played.reward) < SAME:
            normal[:] = 0.0  # what is left is the critic's own noise
        for name, column in {
            "advantages": normal, "returns": returns, "values": value, "features": played.features,
        }.items():  # fmt: skip
            output[name] = torch.from_numpy(np.ascontiguousarray(column, np.float32)).to(device)
        output["free"] = self.free
        self.foreseen = returns
        said = output["completion_mask"]
        kl = ((output["old_per_token_logps"] - output["ref_per_token_logps"]) * said).sum(1).mean().item()
        for name, number in {
            "plan_reward": float(played.reward.mean()),
            "picks": float((played.place >= 0).sum(1).mean()),
            "kl_to_start": kl,
            "kl_weight": self.beta,
            "explained_variance": explained_variance(value, returns),
            "explained_variance/outcome": explained_variance(value, outcome),
        }.items():
            self._metrics["train"][name].append(number)
        self.adapt(kl)
        return output

    def adapt(self, kl: float) -> None:
        """Hold to the start more firmly where the policy has gone further than asked, and less where not."""
        if kl > KL_STEP * self.config.ppo_kl:
            self.beta = min(KL_MOST, self.beta * KL_STEP)
        elif kl < self.config.ppo_kl / KL_STEP:
            self.beta = max(KL_LEAST, self.beta / KL_STEP)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int,
        batch_size: int | None = None, compute_entropy: bool = False, **_: Any,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        model = self.accelerator.unwrap_model(model)
        plans, free = input_ids[:, -logits_to_keep:], self.free
        prompts = input_ids.masked_fill(attention_mask == 0, -1)[:, :-logits_to_keep]
        size, parts = batch_size or len(input_ids), []
        for a in range(0, len(input_ids), size):
            rows = slice(a, a + size)
            could = None if free is None else free[rows].cpu().numpy()
            with self.accelerator.autocast():
                parts.append(
                    plan_log_probs(
                        model, prompts[rows], plans[rows], self.config.picks, self.temperature,
                        self.field.names, could,
                    )
                )  # fmt: skip
        said, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
        return said, entropy if compute_entropy else None, None

    # --- the loss -----------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        passes = self.args.gradient_accumulation_steps
        if self._step % passes == 0:
            self.critic.zero_grad()  # the Trainer clears the language model's gradients alone
        self.free = inputs.get("free")  # a checkpoint of before has none: of our own tokens only
        loss = super()._compute_loss(model, inputs)
        value, before, returns = self.critic(inputs["features"]), inputs["values"], inputs["returns"]
        reach = VALUE_CLIP * max(float(self.foreseen.std()), 1e-6)
        near = before + (value - before).clamp(-reach, reach)
        value_loss = 0.5 * torch.max((value - returns) ** 2, (near - returns) ** 2).mean()
        self._metrics["train"]["value_loss"].append(value_loss.item())
        clipped = ((value - before).abs() > reach).float().mean().item()
        self._metrics["train"]["value_clip_fraction"].append(clipped)
        return loss + value_loss / passes

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        if not any(p is next(self.critic.parameters()) for g in optimizer.param_groups for p in g["params"]):
            optimizer.add_param_group(
                {
                    "params": list(self.critic.parameters()),
                    "lr": CRITIC_LR,
                    "weight_decay": 0.01,
                }
            )
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        torch.nn.utils.clip_grad_norm_(self.critic.parameters(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    # --- keeping the best ---------------------------------------------------------------------------

    def look(self, model: Any, number: int) -> None:
        """Play validation before rollout `number`, if it is time; keep the adapter if it is the best yet."""
        every = self.config.ppo_validate
        if number == self.judged or (number % every and number < self.config.ppo_rollouts):
            return
        found = self.judge(model)
        self.judged = number
        self.start = found if self.start is None else self.start
        self._metrics["train"]["validation/own"].append(found)
        if self.best is None or found > self.best[0]:
            self.best = (found, number, self.trained())
            self.worse = 0
            return
        self.worse += 1
        if self.worse >= self.config.ppo_patience:
            self.control.should_training_stop = True

    def trained(self) -> dict[str, Any]:
        """A copy of the adapter's tensors."""
        model = self.accelerator.unwrap_model(self.model)
        return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    def take_best(self) -> None:
        """Look at the end as well, then put the best adapter into the model."""
        self.look(self.reader(), max(1, -(-self.state.global_step // self.updates_per_rollout)))
        assert self.best is not None
        own = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        with torch.no_grad():
            for name, tensor in self.best[2].items():
                own[name].copy_(tensor)

    # --- checkpoints --------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from safetensors.torch import save_file

        super()._save_checkpoint(model, trial)
        path = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        tensors = {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        assert self.best is not None
        tensors |= {f"best.{k}": v for k, v in self.best[2].items()}
        for part, batch in enumerate(self._buffered_inputs):
            tensors |= {f"buffer.{part}.{k}": v for k, v in batch.items()}
        tensors["foreseen"] = torch.from_numpy(self.foreseen)
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path / TENSORS)
        state = {
            "step": self._step, "kl_weight": self.beta, "best": self.best[:2], "judged": self.judged,
            "worse": self.worse, "start": self.start,
        }  # fmt: skip
        (path / STATE).write_text(json.dumps(state), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        from safetensors.torch import load_file

        state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
        tensors = load_file(Path(checkpoint) / TENSORS, device=str(self.accelerator.device))

        def under(prefix: str) -> dict[str, Any]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.critic.load_state_dict(under("critic."))
        self.foreseen = tensors["foreseen"].cpu().numpy()
        self.best = (*state["best"], under("best."))
        self.judged, self.worse, self.start = state["judged"], state["worse"], state["start"]
        self._step, self.beta = state["step"], state["kl_weight"]
        parts = self.args.steps_per_generation
        self._buffered_inputs = [under(f"buffer.{part}.") for part in range(parts)]


WARM_UP = 1 << 30  # number of the rollout that the critic is fitted to first


def credited(credit: list[float | None], **_: Any) -> list[float | None]:
    """TRL's reward function: what the rollout found (shown in logs; the advantages come from the critic)."""
    return credit


def check_trl() -> None:
    """Raises RuntimeError, naming the TRL that this was written for, where TRL's inside has changed."""
    wanted = {
        "_generate_and_score_completions": ["self", "inputs"],
        "_get_per_token_logps_and_entropies": [
            "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy",
        ],
        "_compute_loss": ["self", "model", "inputs"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_load_optimizer_and_scheduler": ["self", "checkpoint"],
        "create_optimizer": ["self", "model"],
        "_clip_grad_norm": ["self", "model"],
    }  # fmt: skip
    for name, parameters in wanted.items():
        method = getattr(GRPOTrainer, name, None)
        found = list(inspect.signature(method).parameters) if method else []
        if found[: len(parameters)] != parameters:
            raise RuntimeError(
                f"PPO builds on GRPOTrainer.{name}({', '.join(parameters)}, ...), and TRL {trl.__version__} "
                f"has {'it with ' + ', '.join(found) if method else 'none'}; install trl==1.16.*"
            )


def ppo_arguments(lesson: Lesson, names: int = 0, reads: Reading = SLOTS, **more: Any) -> Any:
    """TRL's settings for `EpisodeTrainer`. names: residents that a plan may name; reads: how the model reads;
    more: what else TRL is told."""
    config = lesson.config
    decisions = config.ppo_lanes * config.ppo_steps
    given = arguments(lesson, decisions * config.ppo_rollouts) | reads.arguments(config.ppo_batch) | more
    del given["max_length"], given["num_train_epochs"]
    per_rollout = decisions // config.ppo_batch * config.ppo_epochs
    return GRPOConfig(
        **given,
        max_steps=per_rollout * config.ppo_rollouts,
        generation_batch_size=decisions,
        num_generations=2,
        num_iterations=config.ppo_epochs,
        max_completion_length=max(2 * config.picks + 1 + naming_tokens(names), len(reads.plan_ids([]))),
        temperature=1.0,
        epsilon=config.ppo_clip,
        beta=KL_WEIGHT,
        scale_rewards="none",
        loss_type="luspo",  # the sum over a plan's tokens: the log-probability of the plan
        shuffle_dataset=False,
        disable_dropout=True,
    )


def run_ppo(
    lesson: Lesson, field: Field, judge: Judge, crew: RayCrew | None = None
) -> tuple[Any, dict[str, Any]]:
    """Train the saved adapter on episodes of the training part; (peft model, what was found). crew: who plays
    them (None: this process)."""
    from rlmemo.learning.adapters import trainable

    hush_libraries()
    config, (model, tokenizer) = lesson.config, lesson.base()
    tokenizer.padding_side = "left"
    reads = reading_of(model)
    args = ppo_arguments(lesson, field.names, reads, **in_precision(model))
    trainer = EpisodeTrainer(config, field, judge, trainable(model, lesson.saved), tokenizer, args, crew)
    if reads.shares:
        look_packed(trainer.model)
    found = train(trainer, lesson)
    trainer.take_best()
    assert trainer.best is not None
    value, rollout, _ = trainer.best
    decisions = found["steps"] * config.ppo_batch // config.ppo_epochs
    return trainer.model, {
        **found, "decisions": decisions, "start_validation": trainer.start, "best_validation": value,
        "best_rollout": rollout,
    }  # fmt: skip

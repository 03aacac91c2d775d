"""GRPO and RLOO, TRL's own: several plans of one state, each judged against the others of that state.

A state is a decision of the training part in the no-prewarm world; each of its plans is scored exactly by
forking that world, as the preferences of DPO are (`rlmemo.learning.pairs`). There are no episodes, so what a
plan does to later plans is not seen. Sampled and scored under the mask of a plan, as PPO is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning.adapters import trainable
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.dpo_kto import prompt_text
from rlmemo.learning.grammar import naming_tokens, pickable, plan_log_probs
from rlmemo.learning.no_signal import SAME, NoSignal, no_signal
from rlmemo.learning.pairs import Picks, ScoredPlans, picked
from rlmemo.learning.rollout_crew import sample_together
from rlmemo.learning.training import Lesson, arguments, check_weights, hush_libraries, train
from rlmemo.learning.training_data import States, TrainingData, prompts
from rlmemo.model import slots
from rlmemo.model.ask import sample_plans


class _Masked:
    """What both trainers need: plans are sampled, and looked at, under their mask."""

    picks: int
    names: int
    draws: int
    lesson: Lesson
    crew: RayCrew | None
    accelerator: Any
    model: Any
    state: Any
    temperature: float

    def _tokenize_prompts(self, texts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [[slots.ID[word] for word in text.split()] for text in texts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        asked = np.array(prompt_ids, np.int64)
        seed = [self.draws, self.state.global_step]
        model = self.accelerator.unwrap_model(self.model)
        # of weights that are no numbers no plan can be drawn: what has gone astray is said before that
        check_weights(model, self.lesson, self.state.global_step, self.lesson.config.group_lr)
        inner = model.get_base_model()
        names = self.names
        if names:  # TRL's prompts end where a plan begins
            rest = np.array([*[slots.NOBODY_ID] * slots.NAMED, slots.PLAN_ID])
            asked = np.concatenate([asked, np.tile(rest, (len(asked), 1))], axis=1)
        free = pickable(asked)
        if self.crew is None:
            rng = np.random.default_rng(seed)
            said = sample_plans(inner, asked, free, self.picks, self.temperature, rng, names=names)
        else:
            said = sample_together(self.crew, inner, (asked, free), self.picks, names, seed)
        plans = [slots.plan_ids(plan, names > 0) for plan in said.plans()]
        return (plans, None) if isinstance(self, GRPOTrainer) else plans

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int,
        batch_size: int | None = None, compute_entropy: bool = False, **_: Any,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        model = self.accelerator.unwrap_model(model)
        parts = [
            plan_log_probs(
                model, ids[:, :-logits_to_keep], ids[:, -logits_to_keep:], self.picks, names=self.names
            )
            for ids in input_ids.split(batch_size or len(input_ids))
        ]
        said, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
        return said, entropy if compute_entropy else None, None


class MaskedGRPO(_Masked, GRPOTrainer):
    """TRL's GRPOTrainer under the mask of a plan."""


class MaskedRLOO(_Masked, RLOOTrainer):
    """TRL's RLOOTrainer under the mask of a plan."""


PlanScorer = Callable[[States, list[dict[Picks, str]]], list[ScoredPlans]]
"""(states, the plans of each) -> what each plan adds over keeping still."""


def chosen_states(config: TrainConfig, states: States) -> States:
    """At most `group_states` of the states, drawn at random and in order, enough for whole updates; some
    twice, where there are too few for one update."""
    chosen = np.random.default_rng([config.seed, 7]).permutation(len(states))[: config.group_states]
    per_update = config.group_batch // config.group_plans
    chosen = np.sort(chosen[: max(per_update, len(chosen) // per_update * per_update)])
    return states[np.resize(chosen, max(per_update, len(chosen)))]


def run_groups(
    lesson: Lesson, data: TrainingData, states: States, scored: PlanScorer, crew: RayCrew | None = None
) -> tuple[Any, dict[str, Any]]:
    """Train the saved adapter by `lesson.stage` ("grpo" or "rloo") on some of the states (`chosen_states`);
    (peft model, what was found). crew: who samples (None: this process). Raises NoSignal where no two plans
    of a state differed in what they were worth."""
    from datasets import Dataset

    hush_libraries()
    config, (model, tokenizer) = lesson.config, lesson.base()
    tokenizer.padding_side = "left"
    states = chosen_states(config, states)
    shown = prompts(data, states)
    rows = Dataset.from_dict(
        {"prompt": [prompt_text(p, naming=data.names > 0) for p in shown], "state": list(range(len(states)))}
    )

    met: dict[str, Any] = {"plans": 0, "spread": 0.0, "picked": False}

    def worth(completion_ids: list[list[int]], state: list[int], **_: Any) -> list[float | None]:
        """What each plan adds over keeping still, by forking the replay."""
        plans: list[dict[Picks, str]] = [{} for _ in range(len(states))]
        said = [tuple(sorted(slots.decode_plan(list(ids), data.names > 0))) for ids in completion_ids]
        for row, plan in zip(state, said, strict=True):
            plans[row][plan] = "sampled"
        asked = np.array(sorted(set(state)))
        made = scored(states[asked], [plans[row] for row in asked])
        met["plans"] += len(said)
        met["spread"] = max(met["spread"], *(float(np.ptp(one.rewards)) for one in made))
        met["picked"] |= any(map(picked, said))
        found = {
            (int(row), plan): float(value)
            for row, one in zip(asked, made, strict=True)
            for plan, value in zip(one.plans, one.rewards, strict=True)
        }
        return [found[row, plan] for row, plan in zip(state, said, strict=True)]

    given = arguments(lesson, len(states) * config.group_plans)
    del given["max_length"]
    given |= {
        "num_generations": config.group_plans,
        "max_completion_length": 2 * config.picks + 1 + naming_tokens(data.names),
        "temperature": 1.0,
        "beta": config.group_beta,
        "disable_dropout": True,
    }
    kind: Any = MaskedGRPO
    if lesson.stage == "grpo":
        # Not divided by the group's spread: a state in which plans hardly differ should hardly count.
        settings: Any = GRPOConfig(**given, scale_rewards="none", loss_type="luspo")
    else:
        kind, settings = MaskedRLOO, RLOOConfig(**given)
    kind.picks, kind.names, kind.draws, kind.lesson = config.picks, data.names, config.seed, lesson
    kind.crew = crew
    trainer = kind(
        model=trainable(model, lesson.saved), args=settings, reward_funcs=worth, train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    found = train(trainer, lesson)
    resumed = any(row.get("frac_reward_zero_std", 1.0) < 1.0 for row in lesson.folder.logged(lesson.stage))
    if met["spread"] < SAME and not resumed:
        cold = bool(pickable(shown).any())
        raise NoSignal(no_signal(met["plans"], data, cold=cold, picked=met["picked"]))
    return trainer.model, {**found, "states": len(states), "plans": len(states) * config.group_plans}

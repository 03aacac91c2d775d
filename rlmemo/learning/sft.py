"""Supervised fine-tuning of a new adapter: the plan that prewarms what was opened next, in time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlmemo.learning import adapters
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.training import Lesson, arguments, hush_libraries, in_precision, in_turn, pack, train
from rlmemo.learning.training_data import States, TrainingData, sft_examples
from rlmemo.model.readings import reading_of
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.user_adapters import kind_of, weights_file


def run_sft(lesson: Lesson, data: TrainingData, states: States) -> tuple[Any, dict[str, Any]]:
    """Train an adapter of kind `config.peft` on `states`; (the model with it, {"steps", "loss"}).

    The model's own weights stay as they are (unless `--peft none` trains them). The loss is on the answer
    alone.
    """
    hush_libraries()
    lesson = replace(lesson, config=replace(lesson.config, sft_epochs=passes(lesson.config, len(states))))
    config, base = lesson.config, lesson.base()
    made, inputs, labels = sft_examples(data, states, config.seed)
    order = in_turn(made, reading_of(base[0]), config.sft_batch, config.seed)
    columns = {"input_ids": [inputs[i] for i in order], "labels": [labels[i] for i in order]}
    lesson.tell("sft", columns)
    trainer = sft_trainer(lesson, base, columns)
    found = train(trainer, lesson)
    return trainer.model, {**found, "states": len(states)}


def passes(config: TrainConfig, states: int) -> float:
    """How often SFT passes over so many states: `sft_epochs` times, or as often, in whole passes, as
    `sft_updates` takes."""
    each = max(1, -(-states // config.sft_batch))
    if each * config.sft_epochs >= config.sft_updates:
        return config.sft_epochs
    return float(-(-config.sft_updates // each))


def sft_trainer(lesson: Lesson, base: tuple[Any, Any], columns: dict[str, list[Any]]) -> Any:
    """TRL's trainer of examples: tokens and labels, a list each. base: model and tokenizer."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    config, (model, tokenizer) = lesson.config, base
    examples = len(columns["input_ids"])
    steps = math.ceil(-(-examples // config.sft_batch) * config.sft_epochs)
    how = reading_of(model).arguments(config.sft_batch)
    if lesson.adapter is None:
        made, kind = adapters.new_adapter(model, config, steps), config.peft
    else:
        made, kind = adapters.trainable(model, lesson.adapter), kind_of(lesson.adapter)
    arguments_ = SFTConfig(
        **arguments(lesson, examples) | how | in_precision(model) | adapters.arguments(kind),
        packing=False,
        completion_only_loss=True,
    )
    trainer = SFTTrainer(
        model=made,
        args=arguments_,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )
    adapters.attend(trainer, kind, shares=lesson.adapter is None)
    pack(trainer)
    return trainer


def save_adapter(model: Any, path: Path, base: str) -> str:
    """Write the adapter named "default" (or the whole model) to `path`, whole or not at all; its SHA-256.

    base: what `--model` said, written as the adapter's base (never a path of this machine's own making).
    """
    with folder_atomic(path) as part:
        adapters.save(model, part, base)
    return sha256(weights_file(path))

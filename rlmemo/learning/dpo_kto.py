"""Learning from preferences, on top of TRL: DPO from pairs of plans, KTO from single ones.

Both go on training the SFT adapter; TRL keeps a frozen copy of it as the reference ("ref"), which is not
saved. Prompts and plans are given to TRL as text, one word a token, so that the text comes back as exactly
the tokens that it was made from (tests/test_sft_dpo.py and test_text_policy.py hold that).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlmemo.learning import adapters
from rlmemo.learning.pairs import KtoExample, Pair, Picks
from rlmemo.learning.training import Lesson, arguments, hush_libraries, in_precision, in_turn, pack, train
from rlmemo.model.readings import SLOTS, Reading, reading_of
from rlmemo.runs.user_adapters import kind_of


def with_adapter(model: Any, path: Path) -> Any:
    """The base model with the adapter at `path`, ready to be trained on."""
    return adapters.trainable(model, path)


def plan_text(plan: Picks, reads: Reading = SLOTS, naming: bool = False) -> str:
    """A plan as TRL gets it: a space, then its tokens. naming: with who leaves first."""
    return " " + reads.text(reads.plan_ids(plan, naming))


def prompt_text(prompt: np.ndarray, reads: Reading = SLOTS, naming: bool = False) -> str:
    """What a plan is said after, as TRL gets it. naming: it begins with who leaves first."""
    return reads.text(prompt[: -reads.named - 1] if naming else prompt)


def run_dpo(
    lesson: Lesson, prompts: np.ndarray, rows: list[Pair], naming: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Train the adapter on pairs of plans; (peft model, {"steps", "loss", "pairs"}).

    prompts: int64 [S, L], indexed by `Pair.row`. naming: whether plans say who leaves first; those of ratings
    never do.
    """
    hush_libraries()
    config, base = lesson.config, lesson.base()
    reads = reading_of(base[0])
    rows = [rows[i] for i in in_turn(prompts[[r.row for r in rows]], reads, config.dpo_batch, config.seed)]
    columns = {
        "prompt": [prompt_text(prompts[r.row], reads, naming and not r.source) for r in rows],
        "chosen": [plan_text(r.chosen, reads, naming and not r.source) for r in rows],
        "rejected": [plan_text(r.rejected, reads, naming and not r.source) for r in rows],
    }
    lesson.tell("dpo", columns)
    trainer = dpo_trainer(lesson, base, columns)
    found = train(trainer, lesson)
    return trainer.model, {**found, "pairs": len(rows)}


def dpo_trainer(lesson: Lesson, base: tuple[Any, Any], columns: dict[str, list[Any]]) -> Any:
    """TRL's trainer of pairs: prompts, chosen and rejected plans as text. base: model and tokenizer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config, adapter, (model, tokenizer) = lesson.config, lesson.saved, base
    arguments_ = DPOConfig(
        **arguments(lesson, len(columns["prompt"]))
        | reading_of(model).arguments(config.dpo_batch)
        | in_precision(model)
        | adapters.arguments(kind_of(adapter)),
        beta=config.dpo_beta,
        loss_type=config.dpo_loss.split("+"),
    )
    held_to = adapters.reference(model, adapter)
    trainer = DPOTrainer(
        model=with_adapter(model, adapter),
        ref_model=held_to,
        args=arguments_,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )
    adapters.attend(trainer, kind_of(adapter))
    pack(trainer)
    return trainer


def run_kto(
    lesson: Lesson, prompts: np.ndarray, rows: list[KtoExample], naming: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Train the adapter on single plans, good or bad; (peft model, {"steps", "loss", "plans"}). naming: as of
    `run_dpo`.

    The weights of the two kinds are set so that each counts as much as the other.
    """
    hush_libraries()
    config, base = lesson.config, lesson.base()
    reads = reading_of(base[0])
    rows = [rows[i] for i in in_turn(prompts[[r.row for r in rows]], reads, config.kto_batch, config.seed)]
    columns: dict[str, list[Any]] = {
        "prompt": [prompt_text(prompts[r.row], reads, naming and not r.source) for r in rows],
        "completion": [plan_text(r.plan, reads, naming and not r.source) for r in rows],
        "label": [r.good for r in rows],
    }
    lesson.tell("kto", columns)
    trainer = kto_trainer(lesson, base, columns)
    found = train(trainer, lesson)
    return trainer.model, {**found, "plans": len(rows), "good": sum(columns["label"])}


def kto_trainer(lesson: Lesson, base: tuple[Any, Any], columns: dict[str, list[Any]]) -> Any:
    """TRL's trainer of single plans: prompts and plans as text, and which are good. base: model and
    tokenizer."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    config, adapter, (model, tokenizer) = lesson.config, lesson.saved, base
    good = sum(columns["label"])
    bad = len(columns["label"]) - good
    arguments_ = KTOConfig(
        **arguments(lesson, good + bad)
        | reading_of(model).arguments(config.kto_batch)
        | in_precision(model)
        | adapters.arguments(kind_of(adapter)),
        beta=config.kto_beta,
        desirable_weight=max(1.0, bad / max(good, 1)),
        undesirable_weight=max(1.0, good / max(bad, 1)),
    )
    held_to = adapters.reference(model, adapter)
    trainer = KTOTrainer(
        model=with_adapter(model, adapter),
        ref_model=held_to,
        args=arguments_,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )
    adapters.attend(trainer, kind_of(adapter))
    pack(trainer)
    return trainer

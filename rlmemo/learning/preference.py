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
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.pairs import KtoExample, Pair, Picks
from rlmemo.learning.training import Interrupt, Progress, arguments, hush_libraries, train
from rlmemo.model.readings import SLOTS, Reading, reading_of
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import kind_of


def with_adapter(model: Any, path: Path) -> Any:
    """The base model with the adapter at `path`, ready to be trained on."""
    return adapters.trainable(model, path)


def plan_text(plan: Picks, reads: Reading = SLOTS) -> str:
    """A plan as TRL gets it: a space, then its tokens."""
    return " " + reads.text(reads.plan_ids(plan))


def run_dpo(
    config: TrainConfig,
    folder: RunFolder,
    prompts: np.ndarray,
    rows: list[Pair],
    adapter: Path,
    base: tuple[Any, Any],
    interrupt: Interrupt,
    progress: Progress,
    *,
    stage: str = "dpo",
) -> tuple[Any, dict[str, Any]]:
    """Train the adapter on pairs of plans; (peft model, {"steps", "loss", "pairs"}).

    prompts: int64 [S, L], indexed by `Pair.row`. stage: what checkpoints and metrics are filed under.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    hush_libraries()
    model, tokenizer = base
    reads = reading_of(model)
    losses = config.dpo_loss.split("+") + (["sft"] if config.dpo_sft else [])
    arguments_ = DPOConfig(
        **arguments(config, folder, "dpo", states=len(rows), seed=config.seed)
        | reads.arguments(config.dpo_batch)
        | adapters.arguments(kind_of(adapter))
        | {"output_dir": str(folder.checkpoints(stage))},
        beta=config.dpo_beta,
        loss_type=losses,
        loss_weights=[1.0] * (len(losses) - 1) + [config.dpo_sft] if config.dpo_sft else None,
    )
    held_to = adapters.reference(model, adapter)
    trainer = DPOTrainer(
        model=with_adapter(model, adapter),
        ref_model=held_to,
        args=arguments_,
        train_dataset=Dataset.from_dict(
            {
                "prompt": [reads.text(prompts[r.row]) for r in rows],
                "chosen": [plan_text(r.chosen, reads) for r in rows],
                "rejected": [plan_text(r.rejected, reads) for r in rows],
            }
        ),
        processing_class=tokenizer,
    )
    adapters.attend(trainer, kind_of(adapter))
    found = train(trainer, folder, stage, interrupt, progress)
    return trainer.model, {**found, "pairs": len(rows)}


def run_kto(
    config: TrainConfig,
    folder: RunFolder,
    prompts: np.ndarray,
    rows: list[KtoExample],
    adapter: Path,
    base: tuple[Any, Any],
    interrupt: Interrupt,
    progress: Progress,
    *,
    stage: str = "kto",
) -> tuple[Any, dict[str, Any]]:
    """Train the adapter on single plans, good or bad; (peft model, {"steps", "loss", "plans"}).

    The weights of the two kinds are set so that each counts as much as the other.
    """
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    hush_libraries()
    model, tokenizer = base
    reads = reading_of(model)
    good = sum(r.good for r in rows)
    bad = len(rows) - good
    arguments_ = KTOConfig(
        **arguments(config, folder, "kto", states=len(rows), seed=config.seed)
        | reads.arguments(config.kto_batch)
        | adapters.arguments(kind_of(adapter))
        | {"output_dir": str(folder.checkpoints(stage))},
        beta=config.kto_beta,
        desirable_weight=max(1.0, bad / max(good, 1)),
        undesirable_weight=max(1.0, good / max(bad, 1)),
    )
    held_to = adapters.reference(model, adapter)
    trainer = KTOTrainer(
        model=with_adapter(model, adapter),
        ref_model=held_to,
        args=arguments_,
        train_dataset=Dataset.from_dict(
            {
                "prompt": [reads.text(prompts[r.row]) for r in rows],
                "completion": [plan_text(r.plan, reads) for r in rows],
                "label": [r.good for r in rows],
            }
        ),
        processing_class=tokenizer,
    )
    adapters.attend(trainer, kind_of(adapter))
    found = train(trainer, folder, stage, interrupt, progress)
    return trainer.model, {**found, "plans": len(rows), "good": good}

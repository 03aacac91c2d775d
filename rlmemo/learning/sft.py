"""Supervised fine-tuning of a new adapter: the plan that prewarms what was opened next, in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlmemo.learning.config import TrainConfig
from rlmemo.learning.folder import RunFolder
from rlmemo.learning.states import Ground, States, sft_examples
from rlmemo.learning.training import LORA_TARGETS, Interrupt, Progress, arguments, hush_libraries, train


def run_sft(
    config: TrainConfig,
    folder: RunFolder,
    ground: Ground,
    states: States,
    base: tuple[Any, Any],
    interrupt: Interrupt,
    progress: Progress,
) -> tuple[Any, dict[str, Any]]:
    """Train a LoRA adapter on `states`; (peft model, {"steps", "loss"}).

    base: (model, tokenizer); the model's own weights stay as they are. The loss is on the answer alone.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    hush_libraries()
    model, tokenizer = base
    _, inputs, labels = sft_examples(ground, states)
    arguments_ = SFTConfig(
        **arguments(config, folder, "sft", states=len(states), seed=config.seed),
        packing=False,
        completion_only_loss=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments_,
        train_dataset=Dataset.from_dict({"input_ids": inputs, "labels": labels}),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.0,
            target_modules=list(LORA_TARGETS),
            task_type="CAUSAL_LM",
        ),
    )
    found = train(trainer, folder, "sft", interrupt, progress)
    return trainer.model, {**found, "states": len(states)}


def save_adapter(model: Any, path: Path, base: str) -> str:
    """Write the adapter named "default" to `path`, whole or not at all; its SHA-256.

    base: what `--model` said, written as the adapter's base (never a path of this machine's own making).
    """
    import json

    from rlmemo.learning.folder import folder_atomic, sha256

    with folder_atomic(path) as part:
        model.save_pretrained(part, selected_adapters=["default"], save_embedding_layers=False)
        (part / "README.md").unlink(missing_ok=True)  # the run's own model card says more
        file = part / "adapter_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = base
        settings["inference_mode"] = True
        for name, value in settings.items():
            if isinstance(value, list):
                settings[name] = sorted(value)  # a set in peft: its order changes from process to process
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return sha256(path / "adapter_model.safetensors")

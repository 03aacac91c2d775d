"""What the trainers share: quiet TRL arguments for this house, checkpoints that count only when whole,
one progress bar, and stopping cleanly on Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from env.errors import InputError
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.folder import RunFolder, mark_complete, newest_checkpoint

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# The head is left alone: TRL reads its weight directly, so an adapter on it would never be trained.


class Stopped(Exception):
    """The person pressed Ctrl-C and everything up to that step was saved."""


def quiet() -> None:
    """Keep the libraries from talking, calling home and asking the hub; call it before importing torch."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }.items():
        os.environ.setdefault(name, value)
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings(
        "ignore", category=UserWarning, module=r"(torch|peft|trl|transformers|accelerate)\b.*"
    )


def hush_libraries() -> None:
    """The part of `quiet` that can only be said to libraries that are imported."""
    import logging

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("trl", "peft", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


class Interrupt:
    """Whether Ctrl-C was pressed. The first press asks for a stop after the current step, the second
    stops at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen for Ctrl-C within the block (in the main thread; elsewhere Python allows no handler)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(_number: int, _frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print("\nstopping after this step; again to stop at once", file=sys.stderr)

        before = signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def arguments(
    config: TrainConfig, folder: RunFolder, stage: str, *, states: int, seed: int
) -> dict[str, Any]:
    """Arguments for a TRL config class: float32, no checkpointing of activations, nothing reported."""
    import torch

    batch = getattr(config, f"{stage}_batch")
    steps = max(1, round(-(-states // batch) * getattr(config, f"{stage}_epochs")))
    return {
        "output_dir": str(folder.checkpoints(stage)),
        "per_device_train_batch_size": batch,
        "num_train_epochs": getattr(config, f"{stage}_epochs"),
        "learning_rate": getattr(config, f"{stage}_lr"),
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, steps // 20),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": seed,
        "data_seed": seed,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_steps": 5,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a NaN must be seen, not averaged away
        "save_strategy": "steps",
        "save_steps": config.checkpoint_steps,
        "save_total_limit": 2,
        "max_length": 1024,
    }


Progress = Callable[[int, int, dict[str, float]], None]
"""Told (updates done, updates in all, what was logged last)."""


def train(
    trainer: Any, folder: RunFolder, stage: str, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """Run a TRL trainer to its end, from its newest whole checkpoint if there is one.

    Returns {"steps", "seconds"}. Raises Stopped after Ctrl-C (a checkpoint was written), InputError when
    the loss is no number any more.
    """
    from transformers import PrinterCallback, ProgressCallback

    path = folder.checkpoints(stage)
    checkpoint, remarks = newest_checkpoint(path)
    for remark in remarks:
        print(f"  {remark}: passed over", file=sys.stderr)
    folder.forget_after(stage, int(checkpoint.name.split("-")[-1]) if checkpoint else -1)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_watch(folder, stage, interrupt, progress))
    trainer.create_model_card = lambda *_, **__: None  # the run writes its own
    try:
        with interrupt.watched():
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except OSError as error:
        raise InputError(
            f"{path}: a checkpoint could not be written ({error.strerror or error}); free some space and "
            f"continue with --out {folder.path} --resume"
        ) from None
    if interrupt.asked and trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    return {"steps": trainer.state.global_step, "loss": float(result.training_loss)}


def _watch(folder: RunFolder, stage: str, interrupt: Interrupt, progress: Progress) -> Any:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Watch(TrainerCallback):
        """Writes metrics, moves the progress bar, marks checkpoints as whole, stops when asked."""

        last: dict[str, float] = {}  # noqa: RUF012 - one callback per training

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> TrainerControl:
            progress(state.global_step, state.max_steps, self.last)
            if interrupt.asked and state.global_step < state.max_steps:
                control.should_training_stop = True
                control.should_save = True
            return control

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: dict[str, float] | None = None,
            **_: Any,
        ) -> None:
            values = {k: v for k, v in (logs or {}).items() if isinstance(v, int | float)}
            if "loss" not in values:
                return
            if values["loss"] != values["loss"] or abs(values["loss"]) == float("inf"):
                raise InputError(
                    f"{stage}: the loss is {values['loss']} at update {state.global_step}; lower "
                    f"--{stage}-lr (it is {args.learning_rate:g}) and start anew"
                )
            self.last = values
            folder.log(stage, state.global_step, values)
            progress(state.global_step, state.max_steps, values)

        def on_save(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> None:
            mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    return Watch()

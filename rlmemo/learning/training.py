"""What the trainers share: quiet TRL arguments for this house, checkpoints that count only when whole,
one progress bar, and stopping cleanly on Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from env.errors import InputError
from rlmemo.learning import processes
from rlmemo.learning.config import TrainConfig
from rlmemo.model.hub import PROMPTED
from rlmemo.model.load import load_model
from rlmemo.model.packing import neighbours, train_packed
from rlmemo.model.precision import for_reading
from rlmemo.model.readings import Reading, reading_of
from rlmemo.runs.atomic import not_written, of_the_disk
from rlmemo.runs.folder import RunFolder, checkpoints_in, mark_complete, newest_checkpoint, updates
from rlmemo.runs.stages import stage_of


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
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }.items():
        os.environ.setdefault(name, value)

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings(
        "ignore", category=UserWarning, module=r"(torch|peft|trl|transformers|accelerate)\b.*"
    )


def hush_libraries() -> None:
    """The part of `quiet` that can only be said to libraries that are imported."""
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
        """Listen for Ctrl-C within the block (in the main thread; elsewhere Python allows no handler), of
        several processes in the first."""
        if threading.current_thread() is not threading.main_thread() or not processes.leads():
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


IN_BFLOAT16 = ("lora", "dora")
"""Kinds of adapters that keep float32 weights beside a base that is frozen in bfloat16."""

OnStep = Callable[[int, int, dict[str, float]], None]
"""Told (updates done, updates in all, what was logged last)."""


def in_silence(done: int, total: int, values: dict[str, float] | None = None) -> None:
    """An `OnStep` that shows nothing."""


@dataclass(frozen=True)
class Lesson:
    """How a trainer is to learn: by which settings, and from which saved adapter on (None: a new one).

    folder, stage: where its checkpoints and metrics go, and what they are filed under (`dpo-1` for the first
    of several rounds). interrupt: whether it is to stop; progress: who is told how far it is.
    """

    config: TrainConfig
    folder: RunFolder
    stage: str
    adapter: Path | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    progress: OnStep = in_silence

    @property
    def saved(self) -> Path:
        """The adapter that is gone on from, for who cannot begin with a new one."""
        assert self.adapter is not None
        return self.adapter

    @property
    def options(self) -> str:
        """What the settings of its stage begin with."""
        return stage_of(self.stage).options

    def base(self) -> tuple[Any, Any]:
        """(model, tokenizer) as they came, without an adapter; in the precision that it is to learn in."""
        model, tokenizer = load_model(self.config.model, self.config.loading)
        if self.config.peft in IN_BFLOAT16:
            model = for_reading(model, self.config.dtype)
        return model, tokenizer

    def tell(self, method: str, columns: dict[str, list[Any]]) -> None:
        """Have other processes learn the same, where there are any: by `method`, from TRL's columns."""
        import torch

        adapter = None if self.adapter is None else str(self.adapter.absolute())
        processes.tell(
            {
                "method": method, "columns": columns, "config": self.config.as_dict(), "stage": self.stage,
                "folder": str(self.folder.path.absolute()), "adapter": adapter,
                "threads": torch.get_num_threads(),
            }
        )  # fmt: skip


def arguments(lesson: Lesson, states: int) -> dict[str, Any]:
    """Arguments for a TRL config class: float32, no checkpointing of activations, nothing reported.
    states: how much one pass learns from."""
    import torch

    config, folder, stage, options = lesson.config, lesson.folder, lesson.stage, lesson.options
    if config.report_to == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.path / "tensorboard" / stage)
    batch = getattr(config, f"{options}_batch")
    epochs = getattr(config, f"{options}_epochs", 1.0)
    steps = max(1, round(-(-states // batch) * epochs))
    shared: dict[str, Any] = {}
    if processes.count() > 1:  # a batch is that of one process, and each has its share of it
        # of learned tokens, those of the reference are parameters that take no part
        shared = {
            "accelerator_config": {"split_batches": True},
            "ddp_find_unused_parameters": config.peft in PROMPTED,
        }
    return shared | {
        "output_dir": str(folder.checkpoints(stage)),
        "per_device_train_batch_size": batch,
        "num_train_epochs": epochs,
        "learning_rate": getattr(config, f"{options}_lr"),
        "warmup_steps": steps // 20,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "report_to": config.report_to,
        "run_name": f"{folder.path.name}-{stage}",
        "project": "rlmemo",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_steps": 5,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a NaN must be seen, not averaged away
        "save_strategy": "no" if processes.sharded() else "steps",  # DeepSpeed's hold pickles
        "save_steps": config.checkpoint_steps,
        "save_total_limit": None,  # `_watch` takes old ones away, once the new one is known to be whole
        "max_length": 1024,
    }


def in_precision(model: Any) -> dict[str, Any]:
    """What a TRL config is told of a base that lies in bfloat16: to multiply in it, and to sum in float32."""
    import torch

    return {"bf16": True} if model.dtype == torch.bfloat16 else {}


def in_turn(prompts: np.ndarray, reads: Reading, batch: int, seed: int) -> Sequence[int]:
    """The order in which prompts int64 [S, L] are learned from: as they come (TRL draws), or where prompts
    share their beginnings, neighbours together (`rlmemo.model.packing`). batch: states per update."""
    if not reads.shares or not len(prompts):
        return range(len(prompts))
    size = int(reads.arguments(batch)["per_device_train_batch_size"])
    return [int(i) for i in neighbours(prompts, size, seed)]


def pack(trainer: Any) -> None:
    """Have a TRL trainer's models read batches of prompts that begin alike as one packed sequence."""
    if reading_of(_base_of(trainer.model)).shares:
        train_packed(trainer.model, getattr(trainer, "ref_model", None))


def _base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def train(trainer: Any, lesson: Lesson) -> dict[str, Any]:
    """Run a TRL trainer to its end, from its newest whole checkpoint if there is one.

    Returns {"steps", "seconds"}. Raises Stopped after Ctrl-C (a checkpoint was written), InputError when
    the loss is no number any more.
    """
    from transformers import PrinterCallback, ProgressCallback

    folder, stage, interrupt = lesson.folder, lesson.stage, lesson.interrupt
    path = folder.checkpoints(stage)
    known = processes.said(_goes_on_from(folder, stage) if processes.leads() else None)
    checkpoint = Path(known) if known else None
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_watch(lesson))
    trainer.create_model_card = lambda *_, **__: None  # the run writes its own
    trainer.create_scheduler = partial(_schedule, trainer)
    before = _sum_losses(trainer, path, checkpoint)
    _save_or_say(trainer, path)
    _share_out(trainer)
    with interrupt.watched(), _as_it_comes(trainer):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    check_weights(trainer.model, lesson, trainer.state.global_step, trainer.args.learning_rate)
    if interrupt.asked and trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    steps, loss, before = trainer.state.global_step, float(result.training_loss), processes.said(before)
    if checkpoint and before:  # transformers says the mean of the updates since the resume
        loss = (before + loss * (steps - updates(checkpoint))) / steps
    return {"steps": steps, "loss": loss}


def _goes_on_from(folder: RunFolder, stage: str) -> str | None:
    """The newest whole checkpoint of a stage, None where there is none; what comes after it is taken away."""
    path = folder.checkpoints(stage)
    checkpoint, remarks = newest_checkpoint(path, vet=no_code)
    for remark in remarks:
        print(f"  {remark}: passed over", file=sys.stderr)
    for found in checkpoints_in(path):
        if checkpoint is None or updates(found) > updates(checkpoint):
            shutil.rmtree(found, ignore_errors=True)
    folder.forget_after(stage, updates(checkpoint) if checkpoint else -1)
    return None if checkpoint is None else str(checkpoint.absolute())


def _share_out(trainer: Any) -> None:
    """Of several processes, let each learn from its share of every batch, and one write. An update that
    cannot be shared out evenly, such as a pass's last, all of them learn from whole: its loss and gradient
    are those of one process, where accelerate would fill it up with other examples."""
    if processes.count() == 1:
        return
    loader = trainer.get_train_dataloader

    def shared() -> Any:
        made = loader()
        whole, n, place = made.batch_sampler.batch_sampler, processes.count(), processes.place()
        passes = trainer.args.gradient_accumulation_steps

        def shares() -> Iterator[list[int]]:
            batches = list(whole)
            for k in range(0, len(batches), passes):
                update = batches[k : k + passes]
                even = not any(len(batch) % n for batch in update)
                for batch in update:
                    size = len(batch) // n
                    yield batch[place * size : (place + 1) * size] if even else batch

        made.batch_sampler._iter_with_split = shares
        return made

    trainer.get_train_dataloader = shared
    if not processes.leads():  # what is random was drawn before: no state of it has to be kept
        trainer._save_rng_state = lambda *_: None


def rate_of(update: int, warm: int, updates: int) -> float:
    """Share of the learning rate that update 0, 1, … of `updates` gets: up over the first `warm`, then down
    along a cosine. Never 0: transformers' own schedule gives it to the first update, so a stage of one would
    learn nothing."""
    if update < warm:
        return (update + 1) / (warm + 1)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (update - warm) / max(1, updates - warm)))


def _schedule(trainer: Any, num_training_steps: int, optimizer: Any = None) -> Any:
    """In place of `Trainer.create_scheduler`."""
    from torch.optim.lr_scheduler import LambdaLR

    if trainer.lr_scheduler is None:
        warm = trainer.args.get_warmup_steps(num_training_steps)
        trainer.lr_scheduler = LambdaLR(
            optimizer or trainer.optimizer, lambda update: rate_of(update, warm, num_training_steps)
        )
        trainer._created_lr_scheduler = True
    return trainer.lr_scheduler


def no_code(checkpoint: Path) -> str | None:
    """What speaks against a checkpoint that somebody may have changed: a file in it that holds anything
    but tensors and plain values (a pickle can run code; it is not run here), None where there is none."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    for file in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth"), *checkpoint.glob("*.bin")]):
        try:
            with safe_globals():
                torch.load(file, map_location="cpu", weights_only=True)
        except Exception:  # whatever a damaged or hostile file makes of the reader
            return f"holds more than numbers ({file.name}), which is not loaded"
    return None


@contextmanager
def _as_it_comes(trainer: Any) -> Iterator[None]:
    """Within it, an adapter takes what a base in bfloat16 gives it as it is: peft would copy it into float32
    first, only for the multiplication to copy it back."""
    from peft import PeftModel
    from peft.helpers import disable_input_dtype_casting

    if not isinstance(trainer.model, PeftModel) or not trainer.args.bf16:
        yield
        return
    with disable_input_dtype_casting(trainer.model):
        yield


LOSS = "loss.json"
"""In a checkpoint: the sum of the losses of all updates before it."""


def _sum_losses(trainer: Any, path: Path, checkpoint: Path | None) -> float:
    """Let every checkpoint below `path` keep the sum of the losses up to it; that of the checkpoint that is
    gone on from (0 for one of an older version, which has none)."""
    kept = None if checkpoint is None else checkpoint / LOSS
    before = float(json.loads(kept.read_text(encoding="utf-8"))) if kept and kept.exists() else 0.0
    learn, save = trainer.training_step, trainer._save_checkpoint
    losses: list[Any] = []

    def learned(*args: Any, **kwargs: Any) -> Any:
        loss = learn(*args, **kwargs)
        losses.append(loss.detach())  # its value is asked for later: a GPU would be waited for
        return loss

    def saved(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        losses[:] = [processes.mean(sum(float(x) for x in losses))]
        if not processes.leads():
            return
        file = path / f"checkpoint-{trainer.state.global_step}" / LOSS
        file.write_text(json.dumps(before + losses[0]), encoding="utf-8")

    trainer.training_step, trainer._save_checkpoint = learned, saved
    return before


def _save_or_say(trainer: Any, path: Path) -> None:
    """Where the disk does not take a checkpoint, leave no half of it, and say so; the one before stays."""
    save = trainer._save_checkpoint

    def saved(*args: Any, **kwargs: Any) -> None:
        new = path / f"checkpoint-{trainer.state.global_step}"
        if not processes.leads():  # it has its part in finding what is saved, no more
            save(*args, **kwargs)
            return
        try:
            save(*args, **kwargs)
            # The arguments as a pickle; nothing reads them.
            (new / "training_args.bin").unlink(missing_ok=True)
        except Exception as error:
            if not of_the_disk(error):
                raise
            shutil.rmtree(new, ignore_errors=True)
            raise not_written(new, error) from error

    trainer._save_checkpoint = saved


LOUD, AGAIN = 3.0, 3
"""Learning has gone astray when `AGAIN` logged losses in a row lie above `LOUD` * the first + `LOUD`."""


def grows(losses: list[float]) -> bool:
    """Whether logged losses, the latest last, say that learning has gone astray."""
    return len(losses) > AGAIN and min(losses[-AGAIN:]) > LOUD * abs(losses[0]) + LOUD


LARGEST = 1e4
"""No trained weight of a useful model is near this; some losses (GRPO's) say nothing when one is beyond."""


def check_weights(model: Any, lesson: Lesson, step: int, rate: float) -> None:
    """Raises InputError where a trained weight is no number any more, or beyond `LARGEST`."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    if not all(bool(torch.isfinite(p).all()) for p in trained):
        raise astray(lesson, step, rate, "a weight is no number any more")
    if any(float(p.detach().abs().max()) > LARGEST for p in trained if p.numel()):
        raise astray(lesson, step, rate, f"a weight is beyond {LARGEST:g}")


def astray(lesson: Lesson, step: int, rate: float, what: str) -> InputError:
    """What is said when learning has gone astray: what was seen, what to change, and what is left."""
    folder, stage = lesson.folder, lesson.stage
    good, _ = newest_checkpoint(folder.checkpoints(stage))
    before = [s for s in folder.state() if (folder.path / s / "adapter_model.safetensors").exists()]
    kept = folder.path / before[-1] if before else good
    left = f"; as it was before, the adapter is in {kept}" if kept else ""
    return InputError(
        f"{stage}: {what} at update {step}; lower --{lesson.options}-lr (it is {rate:g}) and start anew{left}"
    )


def _watch(lesson: Lesson) -> Any:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    folder, stage, interrupt, progress = lesson.folder, lesson.stage, lesson.interrupt, lesson.progress

    class Watch(TrainerCallback):
        """Writes metrics, moves the progress bar, marks checkpoints as whole, stops when asked."""

        def __init__(self) -> None:
            self.last: dict[str, float] = {}
            logged = folder.logged(stage) if processes.leads() else []
            self.losses = [row["loss"] for row in logged if "loss" in row]

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> TrainerControl:
            progress(state.global_step, state.max_steps, self.last)
            interrupt.asked = processes.said(interrupt.asked)
            if interrupt.asked and state.global_step < state.max_steps:
                control.should_training_stop = True
                control.should_save = not processes.sharded()
            if state.global_step >= state.max_steps:
                control.should_log = True  # the curves end where learning does
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
            if "loss" not in values or not processes.leads():
                return
            step, rate = state.global_step, args.learning_rate
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values.get(name, 0.0)):
                    what = f"the {name.replace('grad_norm', 'gradient')} is {values[name]}"
                    raise astray(lesson, step, rate, what)
            self.last = values
            folder.log(stage, step, values)
            self.losses.append(values["loss"])
            if grows(self.losses):
                first, now = self.losses[0], self.losses[-1]
                raise astray(lesson, step, rate, f"the loss has grown from {first:.3g} to {now:.3g}")
            progress(step, state.max_steps, values)

        def on_save(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            model: Any = None,
            **_: Any,
        ) -> None:
            path = Path(str(args.output_dir))
            check_weights(model, lesson, state.global_step, args.learning_rate)
            processes.said(None)  # all have written what is theirs of it
            if not processes.leads():
                return
            mark_complete(path / f"checkpoint-{state.global_step}")
            for old in checkpoints_in(path)[2:]:
                shutil.rmtree(old, ignore_errors=True)

    return Watch()

"""Examples a second that SFT learns from, by one process and by two: alone, with DDP, with ZeRO-2.

    python -m experiments.several_processes
    python -m experiments.several_processes --peft none --model smollm2 --updates 12

Every way learns the same: as many updates, of the same batches. The last loss tells. DDP is that of
`rlmemo.train`; accelerate does not use DeepSpeed on a CPU, so it is called here directly, on the same model,
batches and loss, where it is installed (`--python` names an interpreter that has it). Ratios are within one
run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = {"plain": 1, "ddp": 2, "zero2 of 1": 1, "zero2": 2}
ROOT = Path(__file__).resolve().parents[1]
SKIP = 2
"""Updates before the clock starts: the first ones compile and allocate."""


def main() -> None:
    """Run all ways one after the other, and print the table."""
    told = _options()
    if told.way:
        _work(told)
        return
    rows: dict[str, dict[str, Any]] = {}
    for way, count in WAYS.items():
        rows[way] = _measured(told, way, count)
    plain = rows["plain"]["rate"]
    print(f"\n{told.model}, {told.peft}, {told.updates} updates of {told.batch}\n")
    print(
        "| way | processes | examples/s | of one process | loss of the last update |\n|---|---|---|---|---|"
    )
    for way, found in rows.items():
        if found:
            rate = found["rate"]
            print(f"| {way} | {WAYS[way]} | {rate:.1f} | {rate / plain:.2f} | {found['loss']:.5f} |")
        else:
            print(f"| {way} | {WAYS[way]} | not run: DeepSpeed is not installed there | | |")


def _options() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--model", default="embedded")
    asked.add_argument("--peft", default="lora")
    asked.add_argument("--updates", type=int, default=40)
    asked.add_argument("--batch", type=int, default=32)
    asked.add_argument("--python", default=sys.executable, help="an interpreter that has DeepSpeed")
    asked.add_argument("--way", help=argparse.SUPPRESS)
    asked.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return asked.parse_args()


def _measured(told: argparse.Namespace, way: str, count: int) -> dict[str, Any]:
    python = told.python if way.startswith("zero2") else sys.executable
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    if way.startswith("zero2"):
        known = subprocess.run([python, "-c", "import deepspeed"], env=env, capture_output=True, check=False)
        if known.returncode:
            return {}
    with tempfile.TemporaryDirectory() as folder:
        start = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        if way == "plain":
            start = [python]
        words = ["--model", told.model, "--peft", told.peft, "--updates", told.updates, "--batch", told.batch]
        words += ["--way", way, "--folder", folder]
        subprocess.run(
            [*start, "-m", "experiments.several_processes", *map(str, words)],
            cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return dict(json.loads((Path(folder) / "found.json").read_text(encoding="utf-8")))


def _work(told: argparse.Namespace) -> None:
    """One process of one way."""
    from rlmemo.learning.training import quiet

    quiet()
    from rlmemo.learning import processes
    from rlmemo.learning.following import follow

    if not processes.leads() and told.way == "ddp":
        sys.exit(follow())
    lesson, data, states = _lesson(told)
    ends: list[float] = []
    if told.way in ("plain", "ddp"):
        loss = _trained(lesson, data, states, ends)
    else:
        loss = _by_deepspeed(lesson, data, states, ends)
    if processes.leads():
        rate = told.batch * (len(ends) - SKIP) / (ends[-1] - ends[SKIP - 1])
        (told.folder / "found.json").write_text(json.dumps({"rate": rate, "loss": loss}), encoding="utf-8")
        if told.way == "ddp":
            others = processes.together()
            assert others is not None
            others.dismiss()


def _lesson(told: argparse.Namespace) -> tuple[Any, Any, Any]:
    import numpy as np

    from env.judge.cost import WorldConfig
    from env.judge.cost_presets import cost_model
    from env.sources import load_timelines
    from env.splits import chrono
    from rlmemo.learning.config import make_config
    from rlmemo.learning.training import Lesson
    from rlmemo.learning.training_data import TrainingData, part_states
    from rlmemo.model.load import reading_for
    from rlmemo.runs.folder import RunFolder

    config = make_config(
        {
            "model": told.model, "peft": told.peft, "sft_batch": told.batch, "sft_epochs": 1,
            "sft_updates": 0, "method": "sft", "dtype": "float32", "checkpoint_steps": 100_000,
        }
    )  # fmt: skip
    timelines = load_timelines("demo", weeks=3).timelines[:3]
    reads = reading_for(config.model, config.loading)
    data = TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), WorldConfig(), reads)
    states = part_states(data.split.train)
    states = states[np.sort(np.random.default_rng(0).permutation(len(states))[: told.updates * told.batch])]
    folder = RunFolder(told.folder / f"run-{os.environ.get('RANK', 0)}")
    folder.path.mkdir()
    return Lesson(config, folder, "sft"), data, states


def _trained(lesson: Any, data: Any, states: Any, ends: list[float]) -> float:
    from dataclasses import replace

    from rlmemo.learning.sft import run_sft

    def tick(done: int, _: int, values: dict[str, float]) -> None:
        if done == len(ends) + 1:
            ends.append(time.perf_counter())

    run_sft(replace(lesson, progress=tick), data, states)
    logged = lesson.folder.logged("sft")
    return float(logged[-1]["loss"])


def _by_deepspeed(lesson: Any, data: Any, states: Any, ends: list[float]) -> float:
    """What `train` does, on DeepSpeed's engine."""
    import deepspeed
    import torch

    from rlmemo.learning import processes
    from rlmemo.learning.sft import sft_trainer
    from rlmemo.learning.training import _share_out, hush_libraries, in_turn, rate_of
    from rlmemo.learning.training_data import sft_examples
    from rlmemo.model.readings import reading_of

    others = processes.together()
    if others is not None:
        others.join()
    hush_libraries()
    config, base = lesson.config, lesson.base()
    made, inputs, labels = sft_examples(data, states, config.seed)
    order = in_turn(made, reading_of(base[0]), config.sft_batch, config.seed)
    columns = {"input_ids": [inputs[i] for i in order], "labels": [labels[i] for i in order]}
    trainer = sft_trainer(lesson, base, columns)
    _share_out(trainer)
    model = trainer.model
    learned = [p for p in model.parameters() if p.requires_grad]
    at_once = trainer.args.per_device_train_batch_size // processes.count()
    passes = trainer.args.gradient_accumulation_steps
    engine, optimizer, _, _ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(learned, lr=config.sft_lr, weight_decay=0.0),
        config={
            "train_micro_batch_size_per_gpu": at_once, "gradient_accumulation_steps": passes,
            "gradient_clipping": 1.0, "zero_optimization": {"stage": 2},
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
        },
    )  # fmt: skip
    engine.train()
    loader = trainer.get_train_dataloader()
    updates = -(-len(loader) // passes)
    losses: list[float] = []
    batches = iter(loader)
    for update in range(updates):
        rate = config.sft_lr * rate_of(update, updates // 20, updates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = [part for _, part in zip(range(passes), batches, strict=False)]
        items = trainer._get_num_items_in_batch(parts, torch.device("cpu"))
        total = 0.0
        for part in parts:
            loss = trainer.compute_loss(engine, part, num_items_in_batch=items)
            engine.backward(loss * passes)  # DeepSpeed divides by them
            engine.step()
            total += float(loss.detach())
        losses.append(processes.mean(total))
        ends.append(time.perf_counter())
    tail = losses[-((updates - 1) % 5 + 1) :] if updates % 5 else losses[-5:]
    return sum(tail) / len(tail)  # as it is logged: the mean since the last multiple of five


if __name__ == "__main__":
    main()

"""A text model on real people's judgements, asked and taught: the rows of `experiments.proactive`.

    python -m rlmemo.models get smollm2
    python -m experiments.proactive_text [--model smollm2] [--rows 1280]

The last events and what was proposed stand in the prompt; the answer is `yes` or `no`, and what counts is by
how much likelier `yes` is. A fifth of the training rows, drawn by row as the published test is, chooses: by
Platt's scaling and the threshold of the best F1. On the other four fifths a LoRA learns the answers (TRL's
SFTTrainer), rows drawn so that the four kinds come alike. The 120 test rows are judged once by each. On two
cores the whole takes about half an hour.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from env.errors import InputError, run_main
from experiments.proactive import (
    CATEGORIES,
    METRICS,
    JudgedProposals,
    balance,
    best_threshold,
    read,
    shown,
    with_intervals,
)
from rlmemo.approval.logistic import platt
from rlmemo.options import Parser

EVENTS = 6
"""So many of the last events are read."""
ANSWERS = (" no", " yes")
BATCH, LEARNING_RATE = 16, 5e-4
KINDS = list(CATEGORIES)


def question(x: JudgedProposals) -> str:
    """The prompt of one judgement; the answer follows."""
    events = "\n".join(f"- {event}" for event in x.events[-EVENTS:])
    did = "stays silent." if x.proposal is None else f"proposes: {x.proposal}"
    return (
        f"What a person did at a computer, oldest first:\n{events}\nThen an assistant {did}\n"
        "Is that what the person would have wanted? Answer yes or no.\nAnswer:"
    )


def parts(rows: Sequence[JudgedProposals], seed: int) -> tuple[list[JudgedProposals], list[JudgedProposals]]:
    """(what is learned from, what chooses): four fifths and one, by row."""
    order = np.random.default_rng([seed, 5]).permutation(len(rows))
    chooses = order[: len(rows) // 5]
    return [rows[k] for k in order[len(chooses) :]], [rows[k] for k in chooses]


def drawn(rows: Sequence[JudgedProposals], count: int, seed: int) -> list[JudgedProposals]:
    """So many rows, the four kinds as often as each other; a kind's rows all come before one comes again."""
    rng = np.random.default_rng([seed, 6])
    made: list[JudgedProposals] = []
    for kind in KINDS:
        of = [x for x in rows if x.category == kind]
        need = count // len(KINDS)
        turns = [rng.permutation(len(of)) for _ in range(-(-need // len(of)))] if of else []
        made += [of[k] for k in np.concatenate(turns)[:need]] if turns else []
    return [made[k] for k in rng.permutation(len(made))]


def log_odds(model: Any, tokenizer: Any, rows: Sequence[JudgedProposals]) -> np.ndarray:
    """How much likelier `yes` is than `no`, nats, float64 [n]; 16 prompts at a time."""
    import torch

    ids = [tokenizer(x, add_special_tokens=False)["input_ids"][0] for x in ANSWERS]
    tokenizer.padding_side = "left"
    order = np.argsort([len(question(x)) for x in rows])
    found = np.zeros(len(rows))
    model.eval()
    with torch.inference_mode():
        for batch in np.array_split(order, -(-len(order) // BATCH)):
            given = tokenizer([question(rows[k]) for k in batch], return_tensors="pt", padding=True)
            logits = model(**given.to(model.device), logits_to_keep=1).logits[:, -1, ids].float()
            found[batch] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
    return found


def taught(model: Any, tokenizer: Any, rows: Sequence[JudgedProposals], seed: int) -> Any:
    """The model with a LoRA that has learned the answers, each row once."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [{"prompt": question(x), "completion": ANSWERS[x.valid] + tokenizer.eos_token} for x in rows]
    )
    with tempfile.TemporaryDirectory() as folder:
        told = SFTConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=1, seed=seed,
            learning_rate=LEARNING_RATE, lr_scheduler_type="cosine", warmup_steps=5,
            completion_only_loss=True,
            logging_steps=10, report_to="none", save_strategy="no", max_length=None, bf16=False,
            gradient_checkpointing=False, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            model, told, train_dataset=data, processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )  # fmt: skip
        trainer.train()
    return trainer.model


def judged(
    chosen: np.ndarray, chooses: Sequence[JudgedProposals], asked: np.ndarray, test: Sequence[JudgedProposals]
) -> dict[str, Any]:
    """The test rows by a threshold that the rows that choose gave. chosen, asked: log-odds of `yes` [n]."""
    valid, weight = np.array([x.valid for x in chooses], np.float64), balance(chooses)
    slope, shift = platt(chosen, valid, weight)
    scaled = [0.5 * (1.0 + np.tanh(0.5 * (slope * x + shift))) for x in (chosen, asked)]
    said = scaled[1] >= best_threshold(scaled[0], valid, weight)
    kind = np.array([x.category for x in test])
    right = said == np.array([x.valid for x in test])
    return {
        **with_intervals(said, test),
        "right": {c: float(right[kind == c].mean()) for c in KINDS if (kind == c).any()},
    }


def compare(model: str, count: int, seed: int) -> dict[str, dict[str, Any]]:
    """What the model finds as it came and after it was taught."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlmemo.model.named import NAMED, named_folder

    where = str(named_folder(model)) if model in NAMED else model
    tokenizer = AutoTokenizer.from_pretrained(where)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked: Any = AutoModelForCausalLM.from_pretrained(where, dtype="float32").to(device)
    (learns, chooses), test = parts(read("train"), seed), read("test")
    found: dict[str, dict[str, Any]] = {}
    for name in ("asked", "taught"):
        if name == "taught":
            asked = taught(asked, tokenizer, drawn(learns, count, seed), seed)
        odds = [log_odds(asked, tokenizer, rows) for rows in (chooses, test)]
        found[f"{model}, {name}"] = judged(odds[0], chooses, odds[1], test)
        print(f"{name}: done", file=sys.stderr)
    return found


def main() -> int:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.proactive_text", description=__doc__)
    top.add_argument("--model", default="smollm2", help="a model by name, or a folder (default: %(default)s)")
    top.add_argument(
        "--rows", type=int, default=1280, metavar="N", help="judgements to learn from (default: %(default)s)"
    )
    top.add_argument("--seed", type=int, default=0, metavar="N", help="of draws and of the LoRA")
    args = top.parse_args()
    if args.rows < 4 * BATCH:
        raise InputError(f"--rows {args.rows} is too few to learn from; give {4 * BATCH} or more")
    found = compare(args.model, args.rows, args.seed)
    print(f"| | {' | '.join(m.replace('_', ' ') for m in METRICS)} |\n|{'---|' * (1 + len(METRICS))}")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(shown(row[m]) for m in METRICS)} |")
        said = ", ".join(f"{kind} {value:.0%}" for kind, value in row["right"].items())
        print(f"{name}, right by kind: {said}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_main(main)

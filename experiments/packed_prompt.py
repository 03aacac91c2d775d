"""What a moment costs a language model, by how it is worded and whether training packs it: one JSON line.

    python -m rlmemo.models get smollm2
    python -m experiments.packed_prompt [--model smollm2] [--timelines webtrackr] [--rounds 5] [--dtype auto]

Two ways, in turn, of the same decisions of the training part's last person with enough events:

- `long`: the words of `rlmemo.model.text_prompt`, and in training every prompt alone, as until 2026-11-26;
- `short`: the levels of `rlmemo.model.short_prompt`, and in training packed (`rlmemo.model.packing`).

For each: `prompt_tokens` (whole prompts) and `training_tokens`, both a decision, the latter with the answer
and as often as a training with the default settings reads them; `ranked_per_s`, decisions a second by
`rlmemo.model.ask.ranked`, as the benchmark asks; `stream_ms`, the median of one decision after another;
`trained_per_s`, states a second of SFT with LoRA (forward and backward, no optimizer; the long prompts one
by one, for memory). One thread. Ratios are medians over rounds within the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np

from env.errors import run_main
from env.splits import chrono
from env.timeline import Timeline
from rlmemo.model.hub import Loading
from rlmemo.options import Parser

WAYS = ("long", "short")


class Way:
    """A model that reads moments in one of the two ways."""

    def __init__(self, name: str, model: str, dtype: str, timeline: Timeline) -> None:
        from rlmemo.model.load import load_adapted
        from rlmemo.model.readings import slates_of
        from rlmemo.model.streaming import follow

        self.name, self.timeline, self.slates = name, timeline, slates_of(timeline)
        self.source, self.loading = model, Loading(prompt=name, dtype=dtype)
        self.model = load_adapted(model, None, self.loading)
        self.how = self.model.reading
        self._follow = follow
        self._learner: Any = None

    def prompts(self, rows: np.ndarray) -> np.ndarray:
        """As the reading makes them."""
        made: np.ndarray = self.how.prompts(self.timeline, self.slates, rows)
        return made

    def rank(self, rows: np.ndarray) -> float:
        """Decisions a second, at once."""
        from rlmemo.model.ask import ranked

        began = time.perf_counter()
        ranked(self.model, self.timeline, self.slates, rows)
        return len(rows) / (time.perf_counter() - began)

    def stream(self, rows: np.ndarray) -> list[float]:
        """Seconds of each decision; what was before them is known."""
        ask = self._follow(self.model, self.timeline)
        ask(int(rows[0]) - 1)
        took = []
        for i in rows:
            began = time.perf_counter()
            ask(int(i))
            took.append(time.perf_counter() - began)
        return took

    def examples(self, rows: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
        """(prompt and answer, tokens of the answer) of each; the answer is what was opened next."""
        made, lengths = [], []
        for row, i in zip(self.prompts(rows), rows, strict=True):
            place = int(self.slates.answer[i])
            plan = self.how.plan_ids([(place, 0)] if place >= 0 else [])
            made.append(np.concatenate([row[row >= 0], np.array(plan, np.int64)]))
            lengths.append(len(plan))
        return made, lengths

    def training_tokens(self, rows: np.ndarray, batch: int) -> float:
        """Tokens a decision that a pass over `rows` reads."""
        from rlmemo.model.packing import neighbours, pack

        made, _ = self.examples(rows)
        if self.name == "long":
            return float(np.mean([len(x) for x in made]))
        order = neighbours(self.prompts(rows), batch, 0)
        parts = [order[k : k + batch] for k in range(0, len(order), batch)]
        return sum(len(pack([made[i] for i in part]).ids) for part in parts) / len(rows)

    def train(self, rows: np.ndarray) -> float:
        """States a second."""
        import torch

        made, lengths = self.examples(rows)
        at_once = len(rows) if self.name == "short" else 1
        model = self._to_learn()
        began = time.perf_counter()
        for k in range(0, len(rows), at_once):
            some, answers = made[k : k + at_once], lengths[k : k + at_once]
            width = max(map(len, some))
            ids = torch.zeros(len(some), width, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
            for b, (row, n) in enumerate(zip(some, answers, strict=True)):
                ids[b, : len(row)] = torch.from_numpy(row)
                mask[b, : len(row)] = 1
                labels[b, len(row) - n : len(row)] = ids[b, len(row) - n : len(row)]
            out = model(
                input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True
            )
            (-out.log_probs.sum()).backward()
        model.zero_grad()
        return len(rows) / (time.perf_counter() - began)

    def _to_learn(self) -> Any:
        from peft import LoraConfig, get_peft_model
        from trl.trainer.utils import add_fused_lm_head

        from rlmemo.model.load import load_model
        from rlmemo.model.packing import train_packed

        if self._learner is None:
            base = load_model(self.source, self.loading)[0]
            add_fused_lm_head(base)
            self._learner = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
            self._learner.train()
            if self.name == "short":
                train_packed(self._learner)
        return self._learner


def main() -> int:
    """Run the command line."""
    import torch

    from env.sources import load_timelines

    args = parser().parse_args()
    torch.set_num_threads(1)
    timelines = load_timelines(args.timelines).timelines
    parts = chrono(timelines).train
    timeline, events = next(
        (t, e) for t, e in zip(timelines[::-1], parts[::-1], strict=True) if len(e) >= 40 * args.rounds
    )
    ways = {name: Way(name, args.model, args.dtype, timeline) for name in WAYS}
    found: dict[str, dict[str, list[float]]] = {
        name: {k: [] for k in ("ranked", "stream", "trained")} for name in WAYS
    }
    starts = np.linspace(len(events) // 2, len(events) - 40, args.rounds).astype(int)
    for start in starts:
        rows = np.asarray(events[start : start + 32]) - 1
        for name, way in ways.items():
            found[name]["ranked"].append(way.rank(rows[:16]))
            found[name]["stream"] += way.stream(rows[:8])
            if not args.no_training:
                found[name]["trained"].append(way.train(rows[:16] if name == "short" else rows[:1]))
    drawn = np.sort(np.random.default_rng(0).permutation(np.asarray(events) - 1)[: int(0.8 * len(events))])
    drawn = drawn[drawn >= 0]
    print(f"timed {len(starts)} rounds", file=sys.stderr, flush=True)
    out: dict[str, Any] = {"model": args.model, "timelines": args.timelines, "rounds": args.rounds}
    for name, way in ways.items():
        took = found[name]
        out[name] = {
            "dtype": str(way.model.dtype).removeprefix("torch."),
            "prompt_tokens": round(float(np.mean((way.prompts(drawn[:400]) >= 0).sum(1))), 1),
            "training_tokens": round(way.training_tokens(drawn, 16), 1),
            "ranked_per_s": round(median(took["ranked"]), 2),
            "stream_ms": round(1000 * median(took["stream"]), 1),
        }
        if took["trained"]:
            out[name]["trained_per_s"] = round(median(took["trained"]), 3)
    for key in ("ranked", "trained"):
        pairs = list(zip(found["short"][key], found["long"][key], strict=True))
        if pairs:
            out[f"{key}_ratio"] = round(median(a / b for a, b in pairs), 2)
    print(json.dumps(out))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="python -m experiments.packed_prompt", description=__doc__)
    top.add_argument("--model", default="smollm2", help="a name, a folder, a hub's name")
    top.add_argument("--timelines", default="webtrackr", help="whose decisions")
    top.add_argument("--rounds", type=int, default=5, help="how often each way is timed")
    top.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="for reading")
    top.add_argument("--no-training", action="store_true", help="time the asking alone")
    return top


if __name__ == "__main__":
    run_main(main)

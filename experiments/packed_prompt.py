"""What a moment costs a language model, by how it is worded and whether training packs it: one JSON line.

    python -m rlmemo.models get smollm2
    python -m experiments.packed_prompt [--model smollm2] [--timelines webtrackr] [--rounds 5] [--dtype auto]
    python -m experiments.packed_prompt --tokens [--timelines gesis] [--letters chinese]

The second only counts what SFT of a run with the default settings reads: its states as they are drawn, with
what is in memory, packed as its updates are (`tokens_a_state`); --letters: as if all names were of these.
The first times:

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
from dataclasses import replace
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


def tokens_a_state(model: str, name: str, letters: str) -> dict[str, Any]:
    """What SFT of a run with the default settings reads of the timelines `name`: tokens a state, packed,
    without the answers and with them. letters: a key of `LETTERS`."""
    from env.sources import load_timelines
    from env.splits import split_by
    from rlmemo.learning.config import make_config
    from rlmemo.learning.training import in_turn
    from rlmemo.learning.training_data import TrainingData, draw, part_states, sft_examples
    from rlmemo.model.load import reading_for
    from rlmemo.model.packing import pack

    config = make_config({"model": model, "timelines": name})
    rng = np.random.default_rng(config.seed)
    timelines = [called(x, letters, rng) for x in load_timelines(name, seed=config.seed).timelines]
    split, how = split_by(timelines, config.split), reading_for(model, config.loading)
    data = TrainingData.prepare(timelines, split, config.world.cost_model(), config.world.rules(), how)
    states, _ = draw(part_states(split.train), config.sft_states, config.plan_states, config.seed)
    made, inputs, _ = sft_examples(data, states, config.seed)
    order = in_turn(made, how, config.sft_batch, config.seed)
    size = how.arguments(config.sft_batch)["per_device_train_batch_size"]
    parts = [order[k : k + size] for k in range(0, len(order), size)]
    read = [[made[i][made[i] >= 0] for i in part] for part in parts]
    learned = [[np.array(inputs[i], np.int64) for i in part] for part in parts]
    prompts, whole = (sum(len(pack(x).ids) for x in some) / len(states) for some in (read, learned))
    found = {"tokens": round(prompts, 1), "tokens_with_answers": round(whole, 1)}
    return {"model": model, "timelines": name, "letters": letters, "states": len(states), **found}


LETTERS = {
    "": "",
    "chinese": bytes(x for a in range(0xB0, 0xD7) for b in range(0xA1, 0xFF) for x in (a, b)).decode(
        "gb2312"
    ),
    "cyrillic": "".join(map(chr, range(0x430, 0x450))),
}
"""What names may be made of: as they are; the 3,666 characters in the rows 16 to 54 of GB 2312, which are
the common ones; the letters of Russian."""


def called(timeline: Timeline, letters: str, rng: np.random.Generator) -> Timeline:
    """The timeline with its targets called otherwise: hosts of two to six of the letters."""
    if not letters:
        return timeline
    drawn = [rng.choice(list(LETTERS[letters]), rng.integers(2, 7)) for _ in timeline.names]
    return replace(timeline, names=tuple("".join(x) + ".com" for x in drawn))


def main() -> int:
    """Run the command line."""
    import torch

    from env.sources import load_timelines

    args = parser().parse_args()
    if args.tokens:
        print(json.dumps(tokens_a_state(args.model, args.timelines, args.letters)))
        return 0
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
    top.add_argument("--tokens", action="store_true", help="count what a default run's SFT reads, no more")
    top.add_argument("--letters", choices=tuple(LETTERS), default="", help="of --tokens: names in these")
    top.add_argument("--no-training", action="store_true", help="time the asking alone")
    return top


if __name__ == "__main__":
    run_main(main)

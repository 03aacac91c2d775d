"""How fast a language model decides, three ways, in one run: one JSON line.

    python -m experiments.bench_policy [--run FOLDER] [--skip-large] [--quick] [--dtype auto|float32|bfloat16]

For the embedded model, for a run that has trained it (`--run`: the adapter merged, and its own scorer, which
asks two boosters more), and for a randomly initialised model of Qwen3-0.6B's shape with a small BPE tokenizer
trained on the spot (28 layers, 1024 wide, 16 heads and 8 for keys, 151,936 words; no weights are downloaded):

- `generate`: `model.generate()` as one would write it with transformers: one decision after the other, its
  whole prompt, greedy, held back by `max_new_tokens` alone (the longest plan) and by the end token;
- `first_token`: the same with `max_new_tokens=1`, the least a generating model can do;
- `batch`: the policy's ranking of the same decisions at once (`rlmemo.model.ask.ranked`);
- `batch_plans`: plans of the same decisions, said token by token under the mask (embedded model only);
- `streaming`: the policy's ranking of one decision after the other, `rlmemo.model.streaming`.

All see the same prompts of the same events; tokens of prompts are made within the time that is measured,
and so is the slate where it is made event by event (streaming); the others look theirs up. Rounds are
interleaved, each with some consecutive decisions (for the large model spread over the events between two cuts
of the history, so that prompts have all lengths). Ratios are medians over rounds of decisions per second.
Where it would take too long otherwise, `generate` takes some of a round's decisions, evenly spaced. `batch`
and `streaming` know what was before a round, as they do at any other time. A ranking needs no more than the
first pick: `batch_plans` and `first_token` say what both sides cost with and without the rest of a plan.
`apart` is the largest difference between a probability of `streaming` and the same one of `batch`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np

from env.errors import run_main
from env.slate.slate import Slates
from env.timeline import Timeline
from rlmemo.evaluation.evaluate import peak_rss_mb
from rlmemo.model.readings import SlotReading
from rlmemo.model.text_prompt import KEEP
from rlmemo.options import Parser

SHAPE_06B: dict[str, Any] = {
    "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = SHAPE_06B | {
    "vocab_size": 2000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
WORDS = 2000
# How Qwen's tokenizers split a text before they merge: digits one by one, a space with the word behind it.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


@dataclass
class Taken:
    """Seconds that one way took in one round, for how many decisions; single: of each, where it is known."""

    seconds: float
    decisions: int
    single: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Decisions per second."""
        return self.decisions / self.seconds


def one_by_one(ask: Callable[[int], object], indices: Sequence[int]) -> Taken:
    """Times `ask` for each decision."""
    single = []
    for i in indices:
        began = time.perf_counter()
        ask(i)
        single.append(time.perf_counter() - began)
    return Taken(sum(single), len(single), single)


class Ways:
    """A model's ways to decide on one timeline. generated: lengths of what `generate` said."""

    def __init__(self, model: Any, timeline: Timeline) -> None:
        from rlmemo.model.branching import Reader, can_branch
        from rlmemo.model.readings import reading_of
        from rlmemo.policies.protocol import stream_of

        self.model, self.timeline, self.how = model, timeline, reading_of(model)
        self.longest = len(self.how.plan_ids([(0, 0), (1, 0), (2, 0)]))
        self.reader = Reader(model) if self.how.shares and can_branch(model) else None
        self._ask = stream_of(self._policy(), timeline)
        self.generated: list[int] = []
        self.prompted: list[int] = []
        self.said: dict[str, list[np.ndarray]] = {"batch": [], "streaming": []}

    def go_to(self, start: int) -> None:
        """Know all that came before decision `start`, as at any other time."""
        self._ask(start - 1)
        self._read(np.array([start - 1]))

    def _policy(self) -> Any:
        from rlmemo.policies.language import LanguagePolicy

        return LanguagePolicy(self.model)

    def prompts(self, indices: np.ndarray) -> np.ndarray:
        """Prompts of the decisions, everything cold."""
        return self.how.prompts(self.timeline, self.look(indices), indices)

    def look(self, indices: np.ndarray) -> Slates:
        """The slates that the model looks at; looking is measured, so nothing of it is kept."""
        if isinstance(self.how, SlotReading):
            self.how.looks.forget()
        return self.how.look(self.timeline, indices)

    def generate(self, tokens: int) -> Callable[[int], object]:
        """The loop as one would write it."""
        import torch

        def ask(i: int) -> object:
            ids = torch.from_numpy(self.prompts(np.array([i])))
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
                eos_token_id=self.how.end, pad_token_id=self.how.end,
            )  # fmt: skip
            if tokens > 1:
                self.generated.append(out.shape[1] - ids.shape[1])
                self.prompted.append(ids.shape[1])
            return out

        return ask

    def _read(self, indices: np.ndarray) -> np.ndarray:
        from rlmemo.model.ask import ranked

        return ranked(self.model, self.timeline, self.look(indices), indices, self.reader).probability

    def batch(self, indices: np.ndarray) -> Taken:
        """All at once."""
        began = time.perf_counter()
        said = self._read(indices)
        taken = Taken(time.perf_counter() - began, len(indices))
        self.said["batch"].append(said)
        return taken

    def batch_plans(self, indices: np.ndarray) -> Taken:
        """Greedy plans of all at once."""
        from rlmemo.model.ask import sample_plans

        began = time.perf_counter()
        slates = self.look(indices)
        valid = slates.candidates[indices] >= 0
        prompts = self.how.prompts(self.timeline, slates, indices)
        sample_plans(self.model, prompts, valid, 3, 0.0, np.random.default_rng(0))
        return Taken(time.perf_counter() - began, len(indices))

    def streaming(self, indices: np.ndarray) -> Taken:
        """Event by event."""

        def ask(i: int) -> None:
            self.said["streaming"].append(self._ask(i).probability)

        return one_by_one(ask, indices.tolist())


def measure(ways: Ways, starts: np.ndarray, each: int, generated: int, plans: bool) -> dict[str, object]:
    """Rates, latencies and ratios of `each` decisions from each of `starts` on, a round for each; `generated`
    of a round's decisions are generated, too."""
    taken: dict[str, list[Taken]] = {}
    for start in starts.tolist():
        indices = np.arange(start, start + each)
        ways.go_to(start)
        some = indices[np.linspace(0, each - 1, min(each, generated)).round().astype(int)].tolist()
        found = {
            "generate": one_by_one(ways.generate(ways.longest), some),
            "first_token": one_by_one(ways.generate(1), some[: max(1, len(some) // 2)]),
            "batch": ways.batch(indices),
            "streaming": ways.streaming(indices),
        }
        if plans:
            found["batch_plans"] = ways.batch_plans(indices)
        for name, one in found.items():
            taken.setdefault(name, []).append(one)
    out: dict[str, object] = {}
    for name, all_rounds in taken.items():
        out[name] = {"decisions_per_second": _short(median(t.rate for t in all_rounds))}
        single = [1000.0 * s for t in all_rounds for s in t.single]
        if single:
            out[name] |= {  # type: ignore[operator]
                "p50_ms": _short(np.percentile(single, 50)), "p95_ms": _short(np.percentile(single, 95))
            }  # fmt: skip
    for name in [n for n in taken if n not in ("generate", "first_token")]:
        for against in ("generate", "first_token"):
            ratios = [a.rate / b.rate for a, b in zip(taken[name], taken[against], strict=True)]
            out[f"{name}_over_{against}"] = _short(median(ratios))
    a, b = (np.concatenate(ways.said[name]) for name in ("batch", "streaming"))
    return out | {
        "decisions": len(starts) * each,
        "prompt_tokens": round(float(np.mean(ways.prompted))),
        "max_new_tokens": ways.longest,
        "generated_tokens": round(float(np.mean(ways.generated)), 2),
        "apart": float(f"{np.abs(a - b).max():.1e}"),
        "dtype": str(ways.model.dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in ways.model.parameters()),
        "peak_rss_mb": round(peak_rss_mb()),
    }


def _short(x: float) -> float:
    return float(f"{float(x):.4g}")


def text_model(shape: dict[str, Any], timeline: Timeline, dtype: str, keep: int = KEEP) -> Any:
    """A randomly initialised model of Qwen3's kind that reads text, ready to decide."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from env.slate.slate import build_slates
    from rlmemo.model.text import TextReading
    from rlmemo.model.text_prompt import TextTimeline

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    story = TextTimeline.of(timeline, build_slates(timeline), keep)
    some = np.linspace(keep, len(timeline) - 1, 100).astype(int)
    words.train_from_iterator(
        [story.pieces(int(i)).text for i in some] + [" none A0 B1 C2"],
        trainers.BpeTrainer(
            vocab_size=WORDS,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>")
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        config = Qwen3Config(**shape, bos_token_id=None, eos_token_id=0)
        model = Qwen3ForCausalLM(config).eval()  # attention by `sdpa`, transformers' own choice
    finally:
        torch.set_default_dtype(before)
    model.reading = TextReading.of(tokenizer, model.config, keep=keep)
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(
        description=__doc__.split("\n")[0] if __doc__ else "",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few decisions, and a small text model")
    parser.add_argument("--skip-large", action="store_true", help="the embedded model only")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto",
        help="of the large model; auto: what multiplies matrices faster here",
    )  # fmt: skip
    parser.add_argument(
        "--history", type=int, nargs="+", default=[KEEP],
        help="events in a text prompt, at least; the large model is measured with each",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=8, help="rounds for the embedded model")
    parser.add_argument("--large-rounds", type=int, default=4, help="rounds for the large model")
    parser.add_argument("--timelines", default="demo", help="whose first person decides")
    parser.add_argument("--run", metavar="FOLDER", help="a trained run of the embedded model, measured, too")
    given = parser.parse_args(argv)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name):
            print(f"{name} is {os.environ[name]}: measured with as many threads", file=sys.stderr)
    load = [os.getloadavg()[0]]

    import torch

    from env.sources import load_timelines
    from rlmemo.model.load import load_model
    from rlmemo.model.precision import faster_dtype

    timeline = load_timelines(given.timelines).timelines[0]
    first = len(timeline) // 2
    rounds, each = (2, 16) if given.quick else (given.rounds, 64)
    starts = first + each * np.arange(rounds)
    models = {"embedded": load_model()[0]}
    if given.run:
        from rlmemo.policies.run import load_run

        models["run"] = load_run(given.run).policy.model
    line: dict[str, object] = {
        name: measure(Ways(model, timeline), starts, each, each, True) for name, model in models.items()
    }
    if not given.skip_large:
        shape, name = (SMALL, "small_text") if given.quick else (SHAPE_06B, "qwen3_0.6b_shape")
        dtype = faster_dtype() if given.dtype == "auto" else given.dtype
        model = text_model(shape, timeline, dtype)
        rounds = 2 if given.quick else given.large_rounds
        for keep in given.history:
            model.reading = replace(model.reading, keep=keep, told={})
            # Spread over the events between two cuts of the history: prompts of all lengths.
            starts = first // keep * keep + np.arange(rounds) * keep // rounds
            line[f"{name}_history_{keep}"] = measure(Ways(model, timeline), starts, 8, 2, False)
    load.append(os.getloadavg()[0])
    line |= {
        "timelines": given.timelines,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_average": [round(x, 2) for x in load],
        "versions": {n: version(n) for n in ("torch", "transformers", "tokenizers", "numpy")}
        | {"python": platform.python_version()},
        "machine": platform.machine(),
    }
    # Its own threads keep the load at one core each; half a core more is somebody else.
    if max(load) > torch.get_num_threads() + 0.5:
        line["warning"] = "other programs were running: the load average was above this one's own"
    print(json.dumps(line))


if __name__ == "__main__":
    run_main(main)

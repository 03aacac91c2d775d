"""One history, many questions: a person's events are read once, and every question branches off them.

`Story` keeps the keys and values of what was read, in place: an event appends its tokens, a question is
answered on top of them and leaves nothing behind. Questions about different moments are answered in one
packed sequence without padding: the matrix products see all their tokens together, and attention goes branch
by branch, each seeing the beginning that it shares with the story, and itself.

The model's own code runs, with another attention function: grouped keys are not repeated, what a branch does
not see is not computed, and in bfloat16 the scores are matrix products of the CPU's own (400 tokens after
1,200 in Qwen3-0.6B's shape: 38 ms a layer on one core instead of 82 by `sdpa`; in float32 `sdpa` is faster).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlmemo.model.forward import common
from rlmemo.model.small_qwen3 import needs_its_code

KINDS = ("qwen2", "qwen3", "llama")
"""Architectures whose attention is plain: everything before, no bias, no sinks, no cap on the scores."""
NAME = "rlmemo_branching"
ROOM = 512


def can_branch(model: Any) -> bool:
    """Whether a `Story` can be read by this model: a plain attention model without anything around it."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or model.training or needs_its_code(model):
        return False
    return plain_attention(model.config)


def plain_attention(config: Any) -> bool:
    """Whether every layer of a model with this configuration looks at everything before, and plainly."""
    layers = getattr(config, "layer_types", None)
    plain = set(layers) == {"full_attention"} if layers else not getattr(config, "sliding_window", None)
    return plain and config.model_type in KINDS


@dataclass(frozen=True)
class _Branch:
    """Tokens first..stop of the packed sequence, which see the story's first `own` tokens and themselves up
    to their place; the first `stays` of them become part of the story."""

    first: int
    stop: int
    own: int
    stays: int = 0


@dataclass
class Story:
    """What a model has read of one person. keys, values: per layer [heads, room, size]; tokens: how many."""

    model: Any
    tokens: int = 0
    keys: list[Any] = field(default_factory=list, repr=False)
    values: list[Any] = field(default_factory=list, repr=False)

    def crop(self, tokens: int) -> None:
        """Forget everything after the first `tokens` tokens."""
        self.tokens = min(self.tokens, tokens)

    def append(self, ids: np.ndarray) -> None:
        """Read on: int64 [n]."""
        if len(ids):
            self._run(ids, [_Branch(0, len(ids), self.tokens, len(ids))], np.zeros(0, np.int64))

    def ask(self, questions: Sequence[np.ndarray], own: Sequence[int], last: int = 1) -> Any:
        """Logits of the last tokens of questions int64 [n_i], float32 [B, last, vocabulary]. own: how many of
        the story's tokens stand before each."""
        branches, at = [], 0
        for question, seen in zip(questions, own, strict=True):
            branches.append(_Branch(at, at + len(question), int(seen)))
            at += len(question)
        wanted = np.array([b.stop for b in branches])[:, None] - np.arange(last, 0, -1)
        return self._run(np.concatenate(questions), branches, wanted.ravel()).view(len(branches), last, -1)

    def step(self, new: np.ndarray, question: np.ndarray, last: int = 1) -> Any:
        """Read on and answer a question about it in one pass: float32 [1, last, vocabulary]."""
        ids = np.concatenate([new, question])
        branch = _Branch(0, len(ids), self.tokens, len(new))
        return self._run(ids, [branch], np.arange(len(ids) - last, len(ids)))[None]

    def _run(self, ids: np.ndarray, branches: list[_Branch], wanted: np.ndarray) -> Any:
        """Logits at the `wanted` places of the packed sequence, float32 [wanted, vocabulary]."""
        import torch

        stays = sum(b.stays for b in branches)
        self._make_room(self.tokens + stays)
        position = np.concatenate([b.own + np.arange(b.stop - b.first) for b in branches])
        device = self.model.device
        with torch.inference_mode(), _attention(self.model):
            out = self.model(
                input_ids=torch.from_numpy(np.ascontiguousarray(ids))[None].to(device),
                position_ids=torch.from_numpy(position)[None].to(device),
                use_cache=False,
                logits_to_keep=torch.from_numpy(wanted if len(wanted) else np.zeros(1, np.int64)).to(device),
                story=self,
                branches=branches,
            )
        self.tokens += stays
        return out.logits[0].float()

    def _make_room(self, tokens: int) -> None:
        import torch

        if not self.keys:
            self.keys = [None] * self.model.config.num_hidden_layers
            self.values = [None] * self.model.config.num_hidden_layers
        elif self.keys[0] is not None and tokens > self.keys[0].shape[1]:
            more = max(tokens, 2 * self.keys[0].shape[1]) - self.keys[0].shape[1]
            for kept in (self.keys, self.values):
                for i, old in enumerate(kept):
                    kept[i] = torch.cat([old, old.new_empty(old.shape[0], more, old.shape[2])], dim=1)

    def look(self, layer: int, q: Any, k: Any, v: Any, branches: list[_Branch], scale: float) -> Any:
        """Attention of a layer, [1, T, heads, size]: q [1, heads, T, size]; k, v [1, key heads, T, size]."""
        import torch

        out = torch.empty_like(q)
        for b in branches:
            here = slice(b.first, b.stop)
            kk, vv = k[0, :, here], v[0, :, here]
            if b.own:
                kk = torch.cat([self.keys[layer][:, : b.own], kk], dim=1)
                vv = torch.cat([self.values[layer][:, : b.own], vv], dim=1)
            out[0, :, here] = attended(q[0, :, here], kk, vv, scale)
            if b.stays:
                self._keep(layer, b, k, v)
        return out.transpose(1, 2)

    def _keep(self, layer: int, b: _Branch, k: Any, v: Any) -> None:
        here = slice(b.first, b.first + b.stays)
        if self.keys[layer] is None:
            room = max(ROOM, self.tokens + b.stays)
            self.keys[layer] = k.new_empty(k.shape[1], room, k.shape[3])
            self.values[layer] = v.new_empty(v.shape[1], room, v.shape[3])
        self.keys[layer][:, b.own : b.own + b.stays] = k[0, :, here]
        self.values[layer][:, b.own : b.own + b.stays] = v[0, :, here]


@dataclass
class Reader:
    """Reads prompts of one person, in any number of calls, and nothing twice: what a prompt shares with the
    one before it is not read again. ids: int64, the tokens of the story so far."""

    model: Any
    story: Story = field(init=False, repr=False)
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)

    def __post_init__(self) -> None:
        self.story = Story(self.model)

    def read(self, prompts: np.ndarray, last: int = 1) -> Any:
        """Logits of the last tokens, float32 [B, last, vocabulary]. prompts: int64 [B, L], -1 to the left
        where one is shorter."""
        rows = [row[row >= 0] for row in prompts]
        whole = rows[-1]
        if len(rows) == 1:
            self._go_on(whole, min(common(self.ids, whole), len(whole) - last))
            logits = self.story.step(whole[self.story.tokens :], whole[:0], last)
            self.ids = whole.copy()
            return logits
        own = [min(common(row, whole), len(row) - last) for row in rows]
        own[-1] = trunk = min(max(own[:-1]), len(whole) - last)
        self._go_on(whole, min(common(self.ids, whole), trunk))
        self.story.append(whole[self.story.tokens : trunk])
        self.ids = whole[:trunk].copy()
        return self.story.ask([row[seen:] for row, seen in zip(rows, own, strict=True)], own, last)

    def begin(self, prompt: np.ndarray) -> BranchedDecoding:
        """Read a prompt int64 [1, L] that is gone on with; the next prompt forgets what was said."""
        return BranchedDecoding(self, self.read(prompt))

    def _go_on(self, whole: np.ndarray, same: int) -> None:
        self.story.crop(same)
        self.ids = whole[:same]


@dataclass
class BranchedDecoding:
    """One prompt that is gone on with, as `rlmemo.model.forward.Decoding` does with many. logits: float32
    [1, 1, vocabulary], of the last token."""

    reader: Reader
    logits: Any

    def keep(self, rows: np.ndarray) -> None:
        """There is one row, and it goes on."""

    def more(self, tokens: np.ndarray) -> None:
        """Append a token, int64 [1]."""
        self.logits = self.reader.story.step(tokens, tokens[:0])
        self.reader.ids = np.append(self.reader.ids, tokens)


def attended(q: Any, k: Any, v: Any, scale: float) -> Any:
    """Attention of n tokens at the end of m: q [heads, n, size]; k, v [key heads, m, size]."""
    import torch

    heads, n, size = q.shape
    groups, m = k.shape[0], k.shape[1]
    if n == m or q.dtype != torch.bfloat16 or q.device.type != "cpu":
        mask = None if n in (1, m) else torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)
        return torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=mask, is_causal=n == m and n > 1, scale=scale,
            enable_gqa=heads != groups,
        )[0]  # fmt: skip
    scores = torch.matmul(q.reshape(groups, -1, size), k.transpose(1, 2)).mul_(scale).view(heads, n, m)
    later = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    scores[..., m - n :].masked_fill_(later, float("-inf"))
    shares = torch.softmax(scores, dim=-1).view(groups, -1, m)
    return torch.matmul(shares, v).view(heads, n, size)


def _branching(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **given: Any
) -> tuple[Any, None]:
    """The attention function, as `transformers` calls it."""
    return given["story"].look(module.layer_idx, query, key, value, given["branches"], scaling), None


@contextmanager
def _attention(model: Any) -> Iterator[None]:
    """Within it, `model` looks by `_branching`."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _branching)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before

"""Forward passes over batches of prompts of different lengths, without reading a common beginning twice.

The prompts of a person's decisions begin alike: the same instruction, the same history up to the earlier
of two decisions. `begin` reads the longest such beginning of a batch once, and then what is each prompt's
own on top of its key-value cache, under a mask that hides from each what it does not share. Prompts are
rows of token ids that end together; -1 stands to the left where a row is shorter.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlmemo.model import small_qwen3

ALIKE = 0.2
"""Two prompts share a batch's beginning when it is at least this share of the shorter one."""


@dataclass
class Decoding:
    """A batch under way. logits: float32 [B, last, vocabulary], of the last tokens read; cache: key-value
    cache or None; mask: bool [B, tokens so far] or None where nothing is hidden; position: [B], of the next
    token (None where the model counts by itself)."""

    model: Any
    logits: Any
    cache: Any
    mask: Any
    position: Any

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the rows (increasing int64 indices)."""
        import torch

        index = torch.from_numpy(rows).to(self.logits.device)
        self.logits = self.logits[index]
        self.cache.batch_select_indices(index)
        if self.mask is not None:
            self.mask, self.position = self.mask[index], self.position[index]

    def more(self, tokens: np.ndarray) -> None:
        """Append a token to every row, int64 [B]."""
        import torch

        ids = torch.from_numpy(np.ascontiguousarray(tokens[:, None])).to(self.logits.device)
        given: dict[str, Any] = {}
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
            given = {"attention_mask": self.mask, "position_ids": self.position[:, None]}
            self.position = self.position + 1
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1, **given)
        self.logits, self.cache = out.logits.float(), out.past_key_values


@dataclass
class LeanDecoding:
    """The same of a small model, see `rlmemo.model.small_qwen3`."""

    model: Any
    logits: Any
    cache: small_qwen3.Cache

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the rows (increasing int64 indices)."""
        import torch

        index = torch.from_numpy(rows)
        self.logits = self.logits[index]
        self.cache = [(k[index], v[index]) for k, v in self.cache]

    def more(self, tokens: np.ndarray) -> None:
        """Append a token to every row, int64 [B]."""
        import torch

        ids, kept = torch.from_numpy(np.ascontiguousarray(tokens[:, None])), small_qwen3.Cache()
        self.logits = small_qwen3.logits(self.model, ids, 1, kept, self.cache)
        self.cache = kept


def begin(
    model: Any, prompts: np.ndarray, last: int = 1, cache: bool = False, share: bool = False
) -> Decoding | LeanDecoding:
    """Read prompts int64 [B, L] (see the top of this file); the head is evaluated at the `last` tokens only.

    share: whether to look for a common beginning. To be called within `torch.inference_mode()`.
    """
    import torch

    device = model.device
    trunk, own = 0, np.zeros(len(prompts), np.int64)
    if share and len(prompts) > 1 and can_share(model):
        trunk, own = _trunk(prompts, last)
    if trunk == 0 and (prompts >= 0).all():
        ids = torch.from_numpy(np.ascontiguousarray(prompts)).to(device)
        if small_qwen3.fits(model):
            kept: small_qwen3.Cache = []
            return LeanDecoding(model, small_qwen3.logits(model, ids, last, kept if cache else None), kept)
        out = model(input_ids=ids, use_cache=cache, logits_to_keep=last)
        return Decoding(model, out.logits.float(), out.past_key_values if cache else None, None, None)
    past, learned = None, 0
    if trunk:
        whole = prompts[-1][prompts[-1] >= 0][:trunk]
        past = model(
            input_ids=torch.from_numpy(whole[None].copy()).to(device), use_cache=True, logits_to_keep=1
        ).past_key_values
        learned = past.get_seq_length() - trunk  # of an adapter's, see `rlmemo.model.virtual_tokens`
        past.batch_repeat_interleave(len(prompts))
    lengths = (prompts >= 0).sum(1)
    width = int((lengths - own).max())
    ids_, position, mask_ = _rest(prompts, lengths, own, width, trunk)
    mask = torch.from_numpy(mask_).to(device)
    out = model(
        input_ids=torch.from_numpy(ids_).to(device),
        attention_mask=_seen(mask, learned),
        position_ids=torch.from_numpy(position + learned).to(device),
        past_key_values=past,
        use_cache=cache or trunk > 0,
        logits_to_keep=last,
    )
    if not cache:
        return Decoding(model, out.logits.float(), None, None, None)
    learned = out.past_key_values.get_seq_length() - mask.shape[1]
    goes_on = torch.from_numpy(lengths + learned).to(device)
    return Decoding(model, out.logits.float(), out.past_key_values, _seen(mask, learned), goes_on)


def _seen(mask: Any, learned: int) -> Any:
    """`mask` behind `learned` tokens that every row sees."""
    import torch

    return torch.cat([mask.new_ones(len(mask), learned), mask], dim=1) if learned else mask


def _trunk(prompts: np.ndarray, last: int) -> tuple[int, np.ndarray]:
    """(tokens of the last row that are worth reading once, how many of them each row shares, int64 [B]).

    At least `last` tokens of every row remain its own.
    """
    lengths = (prompts >= 0).sum(1)
    shared = np.array([common(_real(row), _real(prompts[-1])) for row in prompts], np.int64)
    shared = np.minimum(shared, lengths - last)
    trunk = int(shared[:-1].max(initial=0))
    shared[-1] = min(trunk, int(shared[-1]))
    trunk = int(shared.max())
    plain = len(prompts) * int(lengths.max())
    if trunk + len(prompts) * int((lengths - shared).max()) >= 0.9 * plain:
        return 0, np.zeros(len(prompts), np.int64)
    return trunk, shared


def _real(row: np.ndarray) -> np.ndarray:
    return row[row >= 0]


def common(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two rows without padding share from their beginnings."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(differ.argmax()) if differ.any() else n


def _rest(
    prompts: np.ndarray, lengths: np.ndarray, own: np.ndarray, width: int, trunk: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids int64 [B, width], positions int64 [B, width], mask bool [B, trunk + width]) of what each row does
    not share, right-aligned; the mask shows a row the part of the trunk that is its own, and no padding."""
    place = np.arange(width)[None] - (width - (lengths - own))[:, None]  # of the row's own tokens
    real = place >= 0
    ids = np.where(real, prompts[:, -width:], 0)
    position = np.where(real, own[:, None] + place, 0)
    sees = np.arange(trunk)[None] < own[:, None]
    return ids, position, np.concatenate([sees, real], axis=1)


def batches(prompts: np.ndarray, batch: int, share: bool = False) -> Iterator[slice]:
    """Slices of at most `batch` neighbouring prompts; with `share` cut where prompts stop beginning alike."""
    n = len(prompts)
    if not share:
        yield from (slice(a, a + batch) for a in range(0, n, batch))
        return
    waiting = a = 0  # rows waiting..a are like none of their neighbours and are read side by side
    while a < n:
        b, alike = a + 1, ALIKE * (prompts[a] >= 0).sum()
        while b < n and b - a < batch:
            shared = common(_real(prompts[a]), _real(prompts[b]))
            if shared < alike:
                break
            alike = max(alike, shared) if b == a + 1 else alike
            b += 1
        if b - a > 1 or a - waiting == batch:
            if a > waiting:
                yield slice(waiting, a)
            waiting = a
        if b - a > 1:
            yield slice(a, b)
            waiting = b
        a = b
    if n > waiting:
        yield slice(waiting, n)


def can_share(model: Any) -> bool:
    """Whether every layer looks at everything before it, and positions can be told."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    plain = set(layers) == {"full_attention"} if layers else not getattr(config, "sliding_window", None)
    prompt_learning = any(
        getattr(c, "is_prompt_learning", False) for c in (getattr(model, "peft_config", None) or {}).values()
    )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return plain and not prompt_learning and "position_ids" in inspect.signature(inner.forward).parameters

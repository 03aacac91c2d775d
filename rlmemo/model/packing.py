"""Training rows that begin alike are read as one packed sequence: a beginning once, whoever goes on from it.

TRL gives a model a batch of whole rows (prompt and answer), and takes back the log-probabilities of what is
labelled. Here the model reads something else in between: the rows' tree. What two rows share from their
beginnings stands in it once, every token sees the tokens before it in its own row and nothing else, at the
positions it has there; and the head is evaluated where a label asks for it. So the moments of one person cost
their questions and answers, and the history and the instruction are paid for once a batch.

The numbers are those of the rows read one by one (tests/test_packing.py), and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlmemo.model.branching import attended, plain_attention
from rlmemo.model.forward import begin, common
from rlmemo.model.packed_attention import packed_attention

NAME = "rlmemo_packed"
ALIKE = 0.2
"""Rows are neighbours when they share at least this part of the shorter one."""


@dataclass(frozen=True)
class Segment:
    """Tokens first..stop of the packed sequence, which no other row has had; before: what stands before them
    in their row, as stretches of the packed sequence."""

    first: int
    stop: int
    before: tuple[slice, ...]


@dataclass(frozen=True)
class Pack:
    """Rows as one sequence. ids, position: int64 [T]; place: of every row, where its tokens stand, int64 [n];
    segments: in order, all of the sequence. wanted: int64 [N], where the head is asked. sees: `visible`, by
    the device that holds it."""

    ids: np.ndarray
    position: np.ndarray
    place: list[np.ndarray]
    segments: list[Segment]
    wanted: Any = None
    sees: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)


def pack(rows: Sequence[np.ndarray]) -> Pack:
    """The tree of rows of tokens, int64 [n_i]. The longest goes first: what others share with it is then one
    stretch."""
    ids: list[np.ndarray] = []
    position: list[np.ndarray] = []
    segments: list[Segment] = []
    place: dict[int, np.ndarray] = {}
    total = 0
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        row = rows[i]
        shared, other = max(((common(row, rows[j]), -j) for j in place), default=(0, 0))
        known = place[-other][:shared] if shared else np.zeros(0, np.int64)
        new = len(row) - shared
        if new:
            segments.append(Segment(total, total + new, _stretches(known)))
            ids.append(row[shared:])
            position.append(np.arange(shared, len(row)))
        place[i] = np.concatenate([known, np.arange(total, total + new)])
        total += new
    return Pack(np.concatenate(ids), np.concatenate(position), [place[i] for i in range(len(rows))], segments)


def _stretches(places: np.ndarray) -> tuple[slice, ...]:
    """Increasing places as stretches without gaps."""
    if not len(places):
        return ()
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    return tuple(slice(int(part[0]), int(part[-1]) + 1) for part in np.split(places, cuts))


def neighbours(prompts: np.ndarray, size: int, seed: int) -> np.ndarray:
    """An order of prompts int64 [S, L] (-1 to the left where one is shorter) in which those that begin alike
    stand together, `size` of them at a time; whose turn it is, is drawn."""
    rows = [row[row >= 0] for row in prompts]
    order = sorted(range(len(rows)), key=lambda i: rows[i].astype(">i4").tobytes())
    groups: list[list[int]] = []
    for i in order:
        last = rows[groups[-1][-1]] if groups else rows[i][:0]
        alike = common(rows[i], last) >= ALIKE * min(len(rows[i]), len(last)) > 0
        if alike and len(groups[-1]) < size:
            groups[-1].append(i)
        else:
            groups.append([i])
    drawn = np.random.default_rng([seed, 17]).permutation(len(groups))
    return np.array([i for g in drawn for i in groups[g]], np.int64)


def can_pack(model: Any) -> bool:
    """Whether the model that is trained, with an adapter or without, can read packed rows."""
    learned = any(
        getattr(c, "is_prompt_learning", False) for c in (getattr(model, "peft_config", None) or {}).values()
    )
    return not learned and plain_attention(_inner(model).config)


def train_packed(*models: Any) -> None:
    """Have models that a TRL trainer was made with read its batches packed, where they can. To be called once
    the trainer has put its own head on them."""
    for model in models:
        if model is not None and can_pack(model):
            _read_packed(_inner(model))


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def look_packed(model: Any) -> None:
    """Have a model, with an adapter or without, look at packed rows where it can; see `last_logits`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if can_pack(model):
        ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
        _inner(model).config._attn_implementation = NAME


def last_logits(model: Any, rows: Sequence[np.ndarray], counts: np.ndarray) -> Any:
    """Logits of the last tokens of rows int64 [n_i], `counts` of each, one after the other: float32
    [sum(counts), vocabulary], differentiable. Packed after `look_packed`, else side by side."""
    import torch

    device = model.device
    if model.config._attn_implementation == NAME:
        held = pack(rows)
        at = np.concatenate([place[-n:] for place, n in zip(held.place, counts, strict=True)])
        ids, position, wanted = (torch.from_numpy(x).to(device) for x in (held.ids, held.position, at))
        given = {"input_ids": ids[None], "position_ids": position[None], "logits_to_keep": wanted}
        return model(**given, use_cache=False, pack=held).logits[0].float()
    padded = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for i, row in enumerate(rows):
        padded[i, padded.shape[1] - len(row) :] = row
    last = int(counts.max())
    asked = np.arange(last)[None] >= last - counts[:, None]
    return begin(model, padded, last=last).logits[torch.from_numpy(asked).to(device)]


def _read_packed(model: Any) -> None:
    import torch

    if model.config._attn_implementation == NAME:
        return
    look_packed(model)
    as_given = model.forward

    def forward(
        *args: Any, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **given: Any
    ) -> Any:
        plain = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        if args or input_ids is None or labels is None or not given.get("fused_lm_head"):
            return as_given(*args, **{k: v for k, v in plain.items() if v is not None}, **given)
        asked = labels[:, 1:] != -100
        held = _of_batch(input_ids, attention_mask, asked)
        device = input_ids.device
        out = as_given(
            input_ids=torch.from_numpy(held.ids)[None].to(device),
            position_ids=torch.from_numpy(held.position)[None].to(device),
            shift_labels=labels[:, 1:][asked][None],
            pack=held,
            **given,
        )
        for name, value in out.items():
            if isinstance(value, torch.Tensor) and value.shape == (1, len(held.wanted)):
                spread = torch.zeros(asked.shape, dtype=value.dtype, device=value.device)
                out[name] = spread.masked_scatter(asked, value)
        return out

    def gather(_: Any, args: Any, given: dict[str, Any], out: Any) -> Any:
        held = given.get("pack")
        if held is not None:
            out.last_hidden_state = out.last_hidden_state[:, held.wanted]
        return out

    model.forward = forward
    model.base_model.register_forward_hook(gather, with_kwargs=True)


def _of_batch(input_ids: Any, attention_mask: Any, asked: Any) -> Pack:
    """The pack of a padded batch. asked: bool [B, L - 1], at which tokens the head is wanted."""
    import torch

    ids, mask = input_ids.cpu().numpy(), asked.cpu().numpy()
    real = np.ones(ids.shape, bool) if attention_mask is None else attention_mask.cpu().numpy() > 0
    held = pack([row[keep].astype(np.int64) for row, keep in zip(ids, real, strict=True)])
    wanted = []
    for b, place in enumerate(held.place):
        at = np.full(ids.shape[1], -1, np.int64)
        at[real[b]] = place
        wanted.append(at[:-1][mask[b]])
    places = torch.from_numpy(np.concatenate(wanted)).to(input_ids.device)
    return Pack(held.ids, held.position, held.place, held.segments, places)


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **given: Any
) -> tuple[Any, None]:
    """The attention function, as `transformers` calls it: branch by branch where rows are packed. In float32
    PyTorch differentiates it; in bfloat16 on the CPU that is slower than `packed_attention`. A GPU waits for
    who tells it what to do, and is told once: all of it, under a mask."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    held = given.pop("pack", None)
    if held is None:
        made: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **given
        )
        return made
    q, k, v = query[0], key[0], value[0]
    if q.device.type != "cpu":
        return masked_attention(q, k, v, held, scaling).transpose(0, 1)[None], None
    if q.dtype == torch.bfloat16:
        return packed_attention(q, k, v, held.segments, scaling).transpose(0, 1)[None], None
    out = []
    for s in held.segments:
        parts = [*s.before, slice(s.first, s.stop)]
        kk, vv = (torch.cat([x[:, part] for part in parts], dim=1) for x in (k, v))
        out.append(attended(q[:, s.first : s.stop], kk, vv, scaling))
    return torch.cat(out, dim=1).transpose(0, 1)[None], None


def masked_attention(q: Any, k: Any, v: Any, held: Pack, scale: float) -> Any:
    """`packed_attention` with every token looked at, and those hidden that a row does not see: as many
    products as the sequence is long squared, in one call."""
    import torch

    groups = len(q) // len(k)
    k, v = (x.repeat_interleave(groups, dim=0) for x in (k, v))
    sees = held.sees.get(q.device)
    if sees is None:
        sees = held.sees[q.device] = torch.from_numpy(visible(held)).to(q.device)
    return torch.nn.functional.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=sees, scale=scale
    )[0]


def visible(held: Pack) -> np.ndarray:
    """Which tokens (columns) each token (rows) of a pack sees, bool [T, T]."""
    sees = np.zeros((len(held.ids), len(held.ids)), bool)
    for s in held.segments:
        for part in (*s.before, slice(s.first, s.stop)):
            sees[s.first : s.stop, part] = True
    return np.tril(sees)

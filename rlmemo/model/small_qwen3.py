"""The forward pass of a small Qwen3 model written out: the sums of `transformers` without their surroundings.

In a model of some hundred thousand weights most of a forward pass of `transformers` is overhead: masks and
positions made anew, a cache object, copies, the last layer computed for tokens nobody asks. Here the sums are
the same (tests/test_streaming.py compares them), the positions are looked up, and the last layer answers for
the last tokens only. The weights are the model's own, read at each call: nothing is copied that training or
an adapter could leave behind.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from env.errors import InputError

LARGEST = 512
"""Width up to which the overhead is worth the trouble."""
AT_ONCE = 32
"""Prompts in one pass: what they make fits into a core's cache (16 to 64 measure alike, 256 is slower)."""


class Bare(SimpleNamespace):
    """The weights of a small Qwen3 by their names, for `hidden` alone: ranked with, and never trained. With
    its class `transformers` brings 150 MB along; a program that one leaves running does without."""

    @property
    def device(self) -> Any:
        return self.model.embed_tokens.weight.device


def read_bare(folder: Path) -> Bare:
    """The weights of a folder in hub format, float32 on the CPU. Raises InputError where it holds no model
    that is read so."""
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != "qwen3" or config["hidden_act"] != "silu" or config["attention_bias"]:
            raise ValueError("it is no plain Qwen3")
        weights = load_file(folder / "model.safetensors")
        bare = Bare(config=SimpleNamespace(**config))
        for name, weight in weights.items():
            *parts, last = name.split(".")
            at: Any = bare
            for part in parts:
                vars(at).setdefault(part, SimpleNamespace(variance_epsilon=config["rms_norm_eps"]))
                at = vars(at)[part]
            setattr(at, last, weight.float())
        layers = vars(bare.model.layers)
        bare.model.layers = [layers[str(k)] for k in range(config["num_hidden_layers"])]
        if config["tie_word_embeddings"]:
            bare.lm_head = bare.model.embed_tokens
        return bare
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: cannot be read ({error}); install the package again") from None


def fits(model: Any) -> bool:
    """Whether `hidden` computes what the model would: a small, bare Qwen3 on the CPU, no adapter in it."""
    if isinstance(model, Bare):
        return True
    known = _known()
    if type(model) not in known or model.training or needs_its_code(model, known):
        return False
    config = model.config
    return bool(
        config.hidden_size <= LARGEST
        and config.hidden_act == "silu"
        and not config.attention_bias
        and (config.rope_parameters or {}).get("rope_type") == "default"
        and set(config.layer_types or []) == {"full_attention"}
        and model.device.type == "cpu"
    )


@lru_cache(maxsize=1)
def _known() -> frozenset[type]:
    """Kinds of modules whose sums are written out here."""
    from torch import nn
    from transformers.models.qwen3 import modeling_qwen3 as qwen3

    return frozenset({
        qwen3.Qwen3ForCausalLM, qwen3.Qwen3Model, qwen3.Qwen3DecoderLayer, qwen3.Qwen3Attention,
        qwen3.Qwen3MLP, qwen3.Qwen3RMSNorm, qwen3.Qwen3RotaryEmbedding, type(qwen3.ACT2FN["silu"]),
        nn.Linear, nn.Embedding, nn.ModuleList,
    })  # fmt: skip


def needs_its_code(model: Any, known: frozenset[type] | None = None) -> bool:
    """Whether the model's own code has to run: something has put a hook into it, or a module that is not of
    the `known` kinds (None: any is)."""
    waiting = [model]
    while waiting:  # a quarter of the time of `any(... for part in model.modules())`
        part = waiting.pop()
        if part._forward_hooks or part._forward_pre_hooks or (known is not None and type(part) not in known):
            return True
        waiting.extend(child for child in part._modules.values() if child is not None)
    return False


Cache = list[tuple[Any, Any]]
"""Keys and values of every layer, each [B, heads, tokens so far, head width]."""


def hidden(model: Any, ids: Any, last: int, kept: Cache | None = None, past: Cache | None = None) -> Any:
    """Last hidden states, [B, last, width], of token ids int64 [B, L] that are all real.

    past: what stands before them. kept: an empty list that takes the same with them.
    """
    import torch
    from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

    inner, config = model.model, model.config
    rows, length = ids.shape
    size, before = config.head_dim, past[0][0].shape[2] if past else 0
    room = -(-(before + length) // 64) * 64 if past else length  # one table for all steps of a plan
    turns = _turns(size, config.rope_parameters["rope_theta"], room, inner.embed_tokens.weight.dtype)
    cos, sin = (x[before : before + length] for x in turns)
    x = embedding(ids, inner.embed_tokens.weight)
    for number, layer in enumerate(inner.layers):
        attention, n = layer.self_attn, length
        h = _norm(x, layer.input_layernorm)
        k = linear(h, attention.k_proj.weight).view(rows, n, -1, size)
        k = _turned(_norm(k, attention.k_norm), cos, sin).transpose(1, 2)
        v = linear(h, attention.v_proj.weight).view(rows, n, -1, size).transpose(1, 2)
        if number + 1 == len(inner.layers):
            x, h, n = x[:, -last:], h[:, -last:], last
        q = linear(h, attention.q_proj.weight).view(rows, n, -1, size)
        q = _turned(_norm(q, attention.q_norm), cos[-n:], sin[-n:]).transpose(1, 2)
        if past:
            k, v = (torch.cat(x, dim=2) for x in zip(past[number], (k, v), strict=True))
        if kept is not None:
            kept.append((k, v))
        total = before + length
        plain = n == total or (past and n == 1)
        seen = None if plain else torch.ones(n, total, dtype=torch.bool).tril(total - n)
        looked = scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=n == total, enable_gqa=q.shape[1] != k.shape[1]
        )
        x = x + linear(looked.transpose(1, 2).reshape(rows, n, -1), attention.o_proj.weight)
        h = _norm(x, layer.post_attention_layernorm)
        mlp = layer.mlp
        wide = silu(linear(h, mlp.gate_proj.weight), inplace=True).mul_(linear(h, mlp.up_proj.weight))
        x = x + linear(wide, mlp.down_proj.weight)
    return _norm(x, inner.norm)


def logits(model: Any, ids: Any, last: int, kept: Cache | None = None, past: Cache | None = None) -> Any:
    """Logits of the last tokens, float32 [B, last, vocabulary]; see `hidden`."""
    import torch
    from torch.nn.functional import linear

    if kept is not None or len(ids) <= AT_ONCE:
        return linear(hidden(model, ids, last, kept, past), model.lm_head.weight).float()
    return torch.cat([logits(model, part, last) for part in ids.split(AT_ONCE)])


def _norm(x: Any, norm: Any) -> Any:
    from torch.nn.functional import rms_norm

    return rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _turned(x: Any, cos: Any, sin: Any) -> Any:
    """Rotary positions for x [B, L, heads, size]; cos, sin [L, 1, size / 2]."""
    import torch

    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    out = torch.empty_like(x)
    torch.mul(a, cos, out=out[..., :half]).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=out[..., half:]).addcmul_(a, sin)
    return out


@lru_cache(maxsize=8)
def _turns(size: int, theta: float, length: int, dtype: Any) -> tuple[Any, Any]:
    """Cosines and sines of the default rotary positions 0..length-1, each [length, 1, size / 2]."""
    import torch

    speed = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float) / size)
    angle = torch.arange(length, dtype=torch.float)[:, None, None] * speed
    return angle.cos().to(dtype), angle.sin().to(dtype)

"""Attention of a packed sequence on the CPU, with a backward pass of its own.

PyTorch could differentiate `rlmemo.model.packing`'s attention by itself. For every stretch that a segment
looks back at it would make a zero tensor as long as the whole sequence, and add them all up. Here every
segment's gradients are added where they belong, and shares are computed twice instead of kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol


class Sees(Protocol):
    """Tokens first..stop of a sequence, which see those `before` them and themselves up to their place."""

    @property
    def first(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def before(self) -> tuple[slice, ...]: ...


def packed_attention(q: Any, k: Any, v: Any, segments: Sequence[Sees], scale: float) -> Any:
    """What queries [heads, T, size] find in values of keys, both [key heads, T, size]: [heads, T, size].
    segments: in order, all of the sequence."""
    return _function().apply(q, k, v, tuple(segments), scale)


def _parts(s: Sees) -> list[slice]:
    return [*s.before, slice(s.first, s.stop)]


def _seen(x: Any, s: Sees) -> Any:
    """What a segment sees of keys or values: [key heads, m, size]."""
    import torch

    parts = [x[:, part] for part in _parts(s)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _asks(x: Any, s: Sees, groups: int) -> Any:
    """A segment's rows of [heads, T, size], those of all heads that share a key below each other:
    [key heads, heads * n / key heads, size]."""
    return x[:, s.first : s.stop].reshape(groups, -1, x.shape[2])


def _shares(q: Any, k: Any, n: int) -> Any:
    """How much each of the n last tokens takes of the m that it may see: [key heads, rows, m], of scaled
    queries [key heads, rows, size]."""
    import torch

    scores = torch.matmul(q, k.transpose(1, 2))
    later = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    scores.view(len(k), -1, n, k.shape[1])[..., -n:].masked_fill_(later, float("-inf"))
    return torch.softmax(scores, dim=-1)


@lru_cache(maxsize=1)
def _function() -> Any:
    import torch

    class PackedAttention(torch.autograd.Function):
        """Segment after segment, both ways."""

        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, segments: tuple[Sees, ...], scale: float) -> Any:
            ctx.save_for_backward(q, k, v)
            ctx.segments, ctx.scale = segments, scale
            out, scaled = torch.empty_like(q), q * scale
            for s in segments:
                shares = _shares(_asks(scaled, s, len(k)), _seen(k, s), s.stop - s.first)
                out[:, s.first : s.stop] = torch.matmul(shares, _seen(v, s)).view(len(q), -1, q.shape[2])
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            q, k, v = ctx.saved_tensors
            scaled, dq = q * ctx.scale, torch.empty_like(q)
            dk, dv = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
            for s in ctx.segments:
                asks, keys, values = _asks(scaled, s, len(k)), _seen(k, s), _seen(v, s)
                shares = _shares(asks, keys, s.stop - s.first)
                back = _asks(grad, s, len(k))
                dshares = torch.matmul(back, values.transpose(1, 2))
                dscores = torch._softmax_backward_data(dshares, shares, -1, shares.dtype)
                dq[:, s.first : s.stop] = torch.matmul(dscores, keys).view(len(q), -1, q.shape[2])
                at = 0
                dkeys = torch.matmul(dscores.transpose(1, 2), asks)
                dvalues = torch.matmul(shares.transpose(1, 2), back)
                for part in _parts(s):
                    here = slice(at, at + part.stop - part.start)
                    dk[:, part] += dkeys[:, here]
                    dv[:, part] += dvalues[:, here]
                    at = here.stop
            return dq.mul_(ctx.scale), dk.to(k.dtype), dv.to(v.dtype), None, None

    return PackedAttention

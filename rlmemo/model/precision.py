"""In which precision a CPU multiplies faster: measured, because no flag of a processor says it.

bfloat16 halves what has to be read from memory, and processors with instructions of their own for it multiply
more than twice as fast; without them it is emulated and slower. It keeps eight bits of a number: enough to
read with, not to train with on a CPU, and for a model as small as the embedded one not faster either
(docs/model.md).
"""

from __future__ import annotations

import time
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from rlmemo.model.readings import reading_of

GAIN = 1.2
"""bfloat16 is taken where it is at least so much faster."""
LARGE = 100_000_000
"""Parameters from which on the question arises."""


@lru_cache(maxsize=1)
def bfloat16_gain() -> float:
    """How many times as fast bfloat16 multiplies matrices of a language model's size here (some 50 ms)."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        x, w = torch.ones(128, 1024, dtype=dtype), torch.ones(2048, 1024, dtype=dtype)
        best = float("inf")
        for _ in range(4):
            began = time.perf_counter()
            torch.nn.functional.linear(x, w)
            best = min(best, time.perf_counter() - began)
        return best

    return seconds(torch.float32) / seconds(torch.bfloat16)


def faster_dtype() -> str:
    """`bfloat16` or `float32`, for reading with a model of some hundred million weights on the CPU."""
    return "bfloat16" if bfloat16_gain() >= GAIN else "float32"


def chosen_dtype(folder: Path) -> str:
    """What `auto` means here of the model in a folder, as `for_reading` decides once it is loaded."""
    weights = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as held:
            weights += sum(prod(held.get_slice(name).get_shape()) for name in held.keys())  # noqa: SIM118
    return faster_dtype() if weights >= LARGE else "float32"


def for_reading(model: Any, dtype: str) -> Any:
    """`model` in the precision in which it is to read. dtype: `auto` (float32 models of `LARGE` parameters or
    more on the CPU in `faster_dtype`, any other as it is), `float32`, `bfloat16`; the embedded model and what
    lies on a GPU stay as they are."""
    import torch

    if reading_of(model).kind == "slots" or model.device.type != "cpu":
        return model
    if dtype == "auto":
        if model.dtype != torch.float32 or sum(p.numel() for p in model.parameters()) < LARGE:
            return model
        dtype = faster_dtype()
    return model.to(getattr(torch, dtype))

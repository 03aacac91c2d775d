"""What settings of a training are where they are not given, and not what stands beside them: it goes by the
kind of adapter, and by the model, where that has a name here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlmemo.model.named import NAMED, named_as

LEARNING_RATES: dict[str, dict[str, float]] = {
    "lora": {"sft": 3e-3, "dpo": 3e-4, "kto": 3e-4, "user": 1e-3},
    "dora": {"sft": 3e-3, "dpo": 3e-4, "kto": 3e-4, "user": 1e-3},
    "adalora": {"sft": 3e-2, "dpo": 3e-3, "kto": 3e-3, "user": 1e-2},
    "ia3": {"sft": 3e-3, "dpo": 3e-4, "kto": 3e-4, "user": 1e-3},
    "prefix": {"sft": 3e-2, "dpo": 3e-3, "kto": 3e-3, "user": 1e-2},
    "p-tuning": {"sft": 1e-2, "dpo": 1e-3, "kto": 1e-3, "user": 3e-3},
    "prompt": {"sft": 3e-2, "dpo": 3e-3, "kto": 3e-3, "user": 1e-2},
    "none": {"sft": 1e-3, "dpo": 3e-5, "kto": 3e-5},
}
"""What `--sft-lr` and its kind are where they are not given, by `--peft`."""


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and settings that go by it. A named model's own are for the adapter that they were found
    with, lora; who gives its folder means it."""
    kind = str(given.get("peft", "lora"))
    rates: dict[str, Any] = {f"{stage}_lr": x for stage, x in LEARNING_RATES.get(kind, {}).items()}
    if "model" not in given:
        return rates | dict(given)
    model = named_as(str(given["model"]))
    learns = dict(NAMED[model].learns) if model in NAMED and kind == "lora" else {}
    return rates | learns | dict(given) | {"model": model}

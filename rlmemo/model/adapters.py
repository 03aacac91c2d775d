"""Adapters of every kind, read: what a folder holds, put into a model that reads with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from env.errors import InputError
from rlmemo.model.virtual_tokens import install, keys_and_values
from rlmemo.runs.user_adapters import kind_of

ENCODER = "encoder.safetensors"
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UnpicklingError)
"""What loading a damaged adapter, one of another base, or one that holds code (it is not run) raises."""


def reading(model: Any, path: Path) -> Any:
    """`model` as a causal language model that answers with the saved adapter at `path`.

    Raises InputError where it cannot be read, or belongs to another base.
    """
    try:
        if kind_of(path) == "none":
            return _whole(model, path).eval()
        from peft import PeftModel

        with hushed():
            made = PeftModel.from_pretrained(model, str(path), use_safetensors=True)
        if not made.active_peft_config.is_prompt_learning:
            # 4-bit weights stay as they are: merged into them, an adapter would be rounded away in part
            return (made if getattr(model, "is_loaded_in_4bit", False) else made.merge_and_unload()).eval()

        base = made.get_base_model().eval()
        install(base, keys_and_values(made.eval()))
        return base
    except InputError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> InputError:
    """What a person is told of an adapter that does not load, in one line."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(f"adapter {path}: cannot be read ({reason}); train it again")


@contextmanager
def hushed() -> Iterator[None]:
    """peft takes AdaLoRA's `rank_pattern` for LoRA's setting of that name, and says that nothing matches."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following rank_pattern keys", RuntimeWarning)
        yield


def _whole(model: Any, path: Path) -> Any:
    """`model` with all its weights taken from the model saved at `path`."""
    found = model.load_state_dict(load_file(path / "model.safetensors"), strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wrong = [k for k in found.missing_keys if k not in tied] + list(found.unexpected_keys)
    if wrong:
        raise InputError(f"adapter {path}: belongs to another base model ({wrong[0]}); train it again")
    return model

"""The language model from its folder: weights, tokenizer, adapter, scorer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from env.errors import InputError
from rlmemo.model.hub import EMBEDDED, Loading, check_model, is_slots, model_folder
from rlmemo.model.precision import for_reading
from rlmemo.model.readings import SlotReading, reading_of


def load_model(name: str = EMBEDDED, loading: Loading = Loading()) -> tuple[Any, Any]:  # noqa: B008
    """(model, tokenizer) of the embedded base model, a folder in hub format, or a hub's name.

    A model with our vocabulary comes in float32 on the CPU; any other as `rlmemo.model.text` loads it, and
    then the tokenizer is the one that reads `Reading.text` back. Only safetensors are read, and nothing is
    downloaded. Raises InputError where there is no such model.
    """
    check_model(name, download=False)
    if not is_slots(name):
        from rlmemo.model.load_text import load_text

        return load_text(name, loading)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    # transformers 5.23 asks itself for a property that it has deprecated.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    path = model_folder(name)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for reading less than a megabyte
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, use_safetensors=True, dtype="float32", attn_implementation="sdpa"
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model {name}: cannot be read ({error})") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    return model.eval(), tokenizer


def load_adapted(name: str, adapter: Path | None, loading: Loading = Loading()) -> Any:  # noqa: B008
    """The model `name` reading with the adapter of a folder (None: as it came), in the precision that
    `loading.dtype` says."""
    model, _ = load_model(name, loading)
    if adapter is not None:
        from rlmemo.model.adapters import reading as read_with

        model = read_with(model, adapter)
    model = for_reading(model.eval(), loading.dtype)
    return model if adapter is None else with_scorer(model, adapter.parent)


def with_scorer(model: Any, run: Path) -> Any:
    """The model, reading the answers of the scorer of a run folder, if it reads any."""
    from rlmemo.model.scorer import load_scorers

    if reading_of(model).kind == "slots":
        model.reading = SlotReading(load_scorers(run / "scorer").final)
    return model

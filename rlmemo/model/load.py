"""The language model from its folder: weights, tokenizer, adapter, scorer.

Ours comes in full on the CPU; any other of a hub in full on the CPU, in bfloat16 or 4 bits on a GPU.
"""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from env.errors import InputError
from rlmemo.model.hub import (
    EMBEDDED,
    NO_BITSANDBYTES,
    Loading,
    check_model,
    is_slots,
    model_folder,
    reads_memory,
)
from rlmemo.model.precision import for_reading
from rlmemo.model.readings import PLAIN_SLOTS, SLOTS, Looks, Reading, SlotReading, reading_of
from rlmemo.model.scorer import load_scorers
from rlmemo.model.short_prompt import WORDINGS
from rlmemo.model.soon import load_soon
from rlmemo.model.switching import Switching, switching
from rlmemo.model.text import TextReading


def load_model(name: str = EMBEDDED, loading: Loading = Loading()) -> tuple[Any, Any]:  # noqa: B008
    """(model, tokenizer) of the embedded base model, a folder in hub format, or a hub's name.

    A model with our vocabulary comes in float32 on the CPU; any other as `rlmemo.model.text` loads it, and
    then the tokenizer is the one that reads `Reading.text` back. Only safetensors are read, and nothing is
    downloaded. Raises InputError where there is no such model.
    """
    check_model(name, download=False)
    if not is_slots(name):
        return _load_text(name, loading)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    # transformers 5.23 asks itself for a property that it has deprecated.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    model: Any
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
    model.reading = reading_for(name, loading)
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


def load_switching(name: str, run: Path, loading: Loading = Loading()) -> Switching:  # noqa: B008
    """The model `name` reading with the adapters of a run folder, each user's events with their own; in the
    precision in which `load_adapted` reads."""
    model = for_reading(load_model(name, loading)[0], loading.dtype)
    return switching(with_scorer(model, run), run)


def with_scorer(model: Any, run: Path) -> Any:
    """The model with what was fitted beside it in a run folder: who is opened soon, and the scorer whose
    answers it reads, or that has a say beside a model of text."""
    model.soon = load_soon(run / "scorer")
    model.reading = through_scorer(reading_of(model), run)
    return model


def through_scorer(how: Reading, run: Path) -> Reading:
    """A reading by the scorer of a run folder, see `with_scorer`."""
    if how.kind == "slots":
        return SlotReading(load_scorers(run / "scorer").final, how.named > 0)
    if isinstance(how, TextReading) and (run / "scorer").is_dir():
        return replace(how, looks=Looks(load_scorers(run / "scorer").final, leading=True))
    return how


def _load_text(name: str, loading: Loading) -> tuple[Any, Any]:
    """(model with its `TextReading`, tokenizer that reads `TextReading.text` back); see `load_model`.

    float32 on the CPU, bfloat16 on a GPU. Raises InputError for what is no causal language model, and for
    4 bits where they cannot be had.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    model: Any
    gc.collect()  # what was trained before goes before another copy comes
    on_gpu = torch.cuda.is_available()
    path = model_folder(name)
    given: dict[str, Any] = {"dtype": torch.bfloat16 if on_gpu else torch.float32}
    if on_gpu:
        given["device_map"] = {"": torch.cuda.current_device()}
    if loading.quantize == "4bit":
        given["quantization_config"] = four_bits(on_gpu)
    shown = logging.is_progress_bar_enabled()
    if not on_gpu:
        logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, use_safetensors=True, attn_implementation="sdpa", **given
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"model {name}: cannot be read as a causal language model ({why})") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    try:
        how = TextReading.of(
            tokenizer, model.config, keep=loading.history, wording=WORDINGS[loading.prompt], on_gpu=on_gpu,
            micro_batch=loading.micro_batch, learned=loading.learned,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"model {name}: {error}") from None
    model.reading = how
    return model.eval(), how.words


def four_bits(on_gpu: bool) -> Any:
    """Settings for 4-bit weights (NF4, twice quantised; Dettmers et al., arXiv 2305.14314).

    Raises InputError where bitsandbytes or a GPU is missing.
    """
    if find_spec("bitsandbytes") is None:
        raise InputError(NO_BITSANDBYTES)
    if not on_gpu:
        raise InputError("--quantize 4bit needs a GPU, and there is none; leave it out")
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def reading_for(name: str, loading: Loading) -> Reading:
    """How the model `name` reads a moment, without loading its weights."""
    if is_slots(name):
        return SLOTS if reads_memory(name) else PLAIN_SLOTS
    import torch
    from transformers import AutoConfig, AutoTokenizer

    path = model_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"model {name}: its tokenizer cannot be read ({why})") from None
    try:
        return TextReading.of(
            tokenizer, config, keep=loading.history, wording=WORDINGS[loading.prompt],
            on_gpu=torch.cuda.is_available(), micro_batch=loading.micro_batch, learned=loading.learned,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"model {name}: {error}") from None

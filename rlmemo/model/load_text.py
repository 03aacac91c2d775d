"""Loading a causal language model of a hub: in full on the CPU, in bfloat16 or 4 bits on a GPU."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from typing import Any

from env.errors import InputError
from rlmemo.model.hub import NO_BITSANDBYTES, Loading, is_slots, model_folder
from rlmemo.model.readings import SLOTS, Reading


def load_text(name: str, loading: Loading) -> tuple[Any, Any]:
    """(model with its `TextReading`, tokenizer that reads `TextReading.text` back); see `load_model`.

    float32 on the CPU, bfloat16 on a GPU. Raises InputError for what is no causal language model, and for
    4 bits where they cannot be had.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from rlmemo.model.text import TextReading

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
            tokenizer, model.config, keep=loading.history, on_gpu=on_gpu, micro_batch=loading.micro_batch,
            learned=loading.learned,
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
        return SLOTS
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from rlmemo.model.text import TextReading

    path = model_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"model {name}: its tokenizer cannot be read ({why})") from None
    try:
        return TextReading.of(
            tokenizer, config, keep=loading.history, on_gpu=torch.cuda.is_available(),
            micro_batch=loading.micro_batch, learned=loading.learned,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"model {name}: {error}") from None

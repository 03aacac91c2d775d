"""A language model as one GGUF file, for programs such as llama.cpp that read it in few bits, and in place.

Base and adapter are merged before, in float32. What multiplies is then written in blocks of 32 numbers with
one scale each: eight bits a number (`q8_0`) or four (`q4_0`; the embeddings, which are the answer's weights
too, stay at eight), or as it is (`f16`, `f32`). Models of Llama's shape only, with a vocabulary of bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from rlmemo.runs.atomic import file_atomic

TYPES = ("q8_0", "q4_0", "f16", "f32")
LICENCE_TEXT = "rlmemo.licence_text"
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "model.layers.": "blk.",
}  # fmt: skip
_FEWER = {"q4_0": {"token_embd.weight": "q8_0", "output.weight": "q8_0"}}
"""Tensors that are written in another type than the rest."""


@dataclass(frozen=True)
class Imprint:
    """What a GGUF file says of its model: what it is called, how it came to be, and its licence, by its short
    name and in full (empty: not said)."""

    name: str
    made: str = ""
    licence: str = ""
    licence_text: str = ""

    def say(self, out: Any) -> None:
        """Write it by the keys that other programs show; the licence's text has none, so it has ours."""
        out.add_name(self.name)
        for write, what in (
            (out.add_description, self.made),
            (out.add_license, self.licence),
            (partial(out.add_string, LICENCE_TEXT), self.licence_text),
        ):
            if what:
                write(what)


def write_gguf(
    model: Any, tokenizer: Any, path: Path, kind: str = "f32", imprint: Imprint | None = None
) -> None:
    """Write a merged model, float32, and its tokenizer; whole or not at all. kind: of `TYPES`.

    Raises InputError for what cannot be written.
    """
    import gguf

    _check(model, tokenizer)
    with file_atomic(path) as part:
        out = gguf.GGUFWriter(str(part), "llama")
        try:
            if imprint is not None:
                imprint.say(out)
            _say_shape(out, model.config, kind)
            _say_words(out, tokenizer, model.config)
            for name, tensor in model.state_dict().items():
                if name == "lm_head.weight" and model.config.tie_word_embeddings:
                    continue
                array = np.ascontiguousarray(_turned(name, tensor.float().numpy(), model.config), np.float32)
                _add(gguf, out, renamed(name), array, kind)
            out.write_header_to_file()
            out.write_kv_data_to_file()
            out.write_tensors_to_file()
        finally:
            out.close()


def renamed(name: str) -> str:
    """What llama.cpp calls a tensor of transformers' Llama."""
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _check(model: Any, tokenizer: Any) -> None:
    if model.config.model_type != "llama":
        raise InputError(
            f"models of kind {model.config.model_type} cannot be written as GGUF here, those of Llama's "
            "shape can (such as smollm2); for others use llama.cpp's convert_hf_to_gguf.py on a merged model"
        )
    if model.config.attention_bias or model.config.mlp_bias:
        raise InputError("a model with biases cannot be written as GGUF here; use llama.cpp's own script")
    if json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"] != "BPE":
        raise InputError("a tokenizer that is no BPE of bytes cannot be written as GGUF here")


def _say_shape(out: Any, c: Any, kind: str) -> None:
    out.add_type("model")
    out.add_context_length(c.max_position_embeddings)
    out.add_embedding_length(c.hidden_size)
    out.add_block_count(c.num_hidden_layers)
    out.add_feed_forward_length(c.intermediate_size)
    out.add_head_count(c.num_attention_heads)
    out.add_head_count_kv(c.num_key_value_heads)
    out.add_layer_norm_rms_eps(c.rms_norm_eps)
    out.add_rope_freq_base(c.rope_parameters["rope_theta"])
    out.add_rope_dimension_count(_head(c))
    out.add_vocab_size(c.vocab_size)
    out.add_file_type({"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}[kind])


def _head(c: Any) -> int:
    return int(getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads)


def _say_words(out: Any, tokenizer: Any, c: Any) -> None:
    words = {i: word for word, i in tokenizer.get_vocab().items()}
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {x["content"] for x in said["added_tokens"] if x["special"]}
    listed = [words.get(i, f"[unused {i}]") for i in range(c.vocab_size)]
    control, plain, unused = 3, 1, 5
    out.add_tokenizer_model("gpt2")
    alone = '"individual_digits": true' in json.dumps(said["pre_tokenizer"])
    out.add_tokenizer_pre("smollm" if alone else "gpt-2")
    out.add_token_list(listed)
    out.add_token_types(
        [unused if i not in words else control if word in special else plain for i, word in enumerate(listed)]
    )
    out.add_token_merges([x if isinstance(x, str) else " ".join(x) for x in said["model"]["merges"]])
    out.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is not None:
        out.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_add_bos_token(False)  # where a prompt begins with one, it says so
    out.add_add_space_prefix(False)
    if tokenizer.chat_template:
        out.add_chat_template(tokenizer.chat_template)


def _turned(name: str, array: np.ndarray, c: Any) -> np.ndarray:
    """A tensor as llama.cpp has it: of queries and keys, the two halves of rotary positions in turn."""
    heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(name.split(".")[-2])
    if not heads:
        return array
    shape = array.shape
    return array.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _add(gguf: Any, out: Any, name: str, array: np.ndarray, kind: str) -> None:
    kind = _FEWER.get(kind, {}).get(name, kind)
    if array.ndim < 2 or kind == "f32":
        out.add_tensor(name, array)
        return
    if kind == "f16":
        out.add_tensor(name, array.astype(np.float16))
        return
    block = 32
    if array.shape[1] % block:
        raise InputError(
            f"{name}: rows of {array.shape[1]} numbers are no blocks of {block}; give --type f16"
        )
    told = gguf.GGMLQuantizationType[kind.upper()]
    out.add_tensor(name, gguf.quants.quantize(array, told), raw_dtype=told)

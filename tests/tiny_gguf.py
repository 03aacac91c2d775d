"""A tiny Llama in a GGUF file, inside a wheel, as a package that holds a model has it."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_text_model import write_text_model


def write_gguf(path: Path, source: Path) -> None:
    """The model in `source` (hub format, llama) as GGUF, float32, its digits in groups as GGUF says them."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    c = model.config
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_context_length(c.max_position_embeddings)
    out.add_embedding_length(c.hidden_size)
    out.add_block_count(c.num_hidden_layers)
    out.add_feed_forward_length(c.intermediate_size)
    out.add_head_count(c.num_attention_heads)
    out.add_head_count_kv(c.num_key_value_heads)
    out.add_layer_norm_rms_eps(c.rms_norm_eps)
    out.add_rope_freq_base(c.rope_parameters["rope_theta"])
    out.add_rope_dimension_count(c.head_dim)
    out.add_vocab_size(c.vocab_size)
    words = tokenizer.get_vocab()
    listed = [word for word, _ in sorted(words.items(), key=lambda x: x[1])]
    special = set(tokenizer.all_special_tokens) | {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    merges = json.loads((source / "tokenizer.json").read_text())["model"]["merges"]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(listed)
    out.add_token_types([3 if word in special else 1 for word in listed])
    out.add_token_merges([" ".join(x) if isinstance(x, list) else x for x in merges])
    out.add_eos_token_id(tokenizer.eos_token_id)
    out.add_pad_token_id(tokenizer.pad_token_id)
    out.add_bos_token_id(words["<|im_start|>"])
    out.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "model.layers.": "blk.",
    }  # fmt: skip
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        array = tensor.numpy()
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(name.split(".")[-2])
        if heads:  # as llama.cpp has the halves of rotary positions
            shape = array.shape
            array = array.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        out.add_tensor(name, np.ascontiguousarray(array, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_wheel(folder: Path) -> tuple[Path, Path]:
    """(a wheel `tiny_llm-0.1` that holds such a model and its licence, the model in hub format)."""
    source = write_text_model(folder / "source", kind="llama")
    gguf = folder / "tiny.gguf"
    write_gguf(gguf, source)
    wheel = folder / "tiny_llm-0.1-py3-none-any.whl"
    info = "tiny_llm-0.1.dist-info"
    held = {
        "tiny_llm/tiny.gguf": gguf.read_bytes(),
        f"{info}/LICENSE": b"Apache License, as it is.\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-llm\nVersion: 0.1\n"
        b"Requires-Dist: no-such-thing-at-all\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, data in held.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    held[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    with zipfile.ZipFile(wheel, "w") as made:
        for name, data in held.items():
            made.writestr(name, data)
    return wheel, source

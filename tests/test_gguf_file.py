"""A text model as a GGUF file: what other programs read of it is what it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from rlmemo import models
from rlmemo.model.gguf_file import renamed
from rlmemo.model.named import named_folder
from tests.tiny_text_model import write_text_model

gguf = pytest.importorskip("gguf", reason="gguf is not installed (pip install gguf)")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("llama"), kind="llama")


def tensors(path: Path) -> dict[str, Any]:
    return {x.name: x for x in gguf.GGUFReader(str(path)).tensors}


@pytest.mark.parametrize(("kind", "off"), [("q8_0", 0.01), ("q4_0", 0.15), ("f16", 1e-3)])
def test_weights_are_what_they_were_in_fewer_bits(
    source: Path, tmp_path: Path, kind: str, off: float, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, small = tmp_path / "whole.gguf", tmp_path / "small.gguf"
    for path, how in ((whole, "f32"), (small, kind)):
        assert models.main(["export", str(source), "--to", str(path), "--type", how]) == 0
    assert capsys.readouterr().out.split() == [str(whole), str(small)]
    exact, found = tensors(whole), tensors(small)
    assert exact.keys() == found.keys()
    assert len(exact) == 2 + 2 * 9
    for name, x in exact.items():
        again = gguf.quants.dequantize(found[name].data, found[name].tensor_type)
        assert np.abs(again - x.data).max() <= off * np.abs(x.data).max() + 1e-9, name
    assert small.stat().st_size < whole.stat().st_size
    if kind == "q4_0":
        assert found["token_embd.weight"].tensor_type.name == "Q8_0"
        assert found["blk.0.ffn_up.weight"].tensor_type.name == "Q4_0"


def test_it_is_read_back_as_the_model_it_was(source: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = tmp_path / "model.gguf"
    models.main(["export", str(source), "--to", str(path), "--type", "f32"])
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    before: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ids = torch.arange(20)[None] + 5
    with torch.inference_mode():
        assert torch.allclose(again(ids).logits, before(ids).logits, atol=1e-5)


def said(path: Path) -> dict[str, Any]:
    return {name: x.contents() for name, x in gguf.GGUFReader(str(path)).fields.items()}


APACHE = f"{'':33}Apache License\n{'':27}Version 2.0, January 2004\n"


def test_licence_and_name_travel_along(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a named model, whoever says it by its folder; else what the folder's own files say."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    named, other, bare = named_folder("smollm2"), tmp_path / "other", tmp_path / "bare"
    for folder in (named, other, bare):
        shutil.copytree(source, folder)
    for folder in (named, other):
        (folder / "LICENSE").write_text(APACHE)
    path = tmp_path / "x.gguf"
    for model, name, licence in (
        ("smollm2", "SmolLM2-135M-Instruct", "Apache-2.0"),
        (str(named), "SmolLM2-135M-Instruct", "Apache-2.0"),
        (str(other), "other", "Apache-2.0"),
        (str(bare), "bare", None),
    ):
        assert models.main(["export", model, "--to", str(path)]) == 0
        found = said(path)
        assert (found["general.name"], found.get("general.license")) == (name, licence)
        assert found.get("rlmemo.licence_text") == (APACHE if licence else None)
        assert found["general.description"] == f"{name}, changed: weights q8_0, written by rlmemo"
    (other / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\nlicense: none of it\n")
    models.main(["export", str(other), "--to", str(path), "--type", "f32"])
    assert said(path)["general.license"] == "mit", "a hub's model card says it"
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tmp_path, gguf_file=path.name).model_type == "llama", "read as before"


def test_names_are_those_of_llama_cpp() -> None:
    assert renamed("model.layers.12.self_attn.o_proj.weight") == "blk.12.attn_output.weight"
    assert renamed("model.norm.weight") == "output_norm.weight"
    assert renamed("model.layers.3.post_attention_layernorm.weight") == "blk.3.ffn_norm.weight"


def test_what_cannot_be_written_is_said_in_a_line(source: Path, tmp_path: Path) -> None:
    other = write_text_model(tmp_path / "qwen")
    for arguments, said in (
        ([str(other), "--to", str(tmp_path / "x.gguf")], "models of kind qwen3 cannot be written"),
        (["embedded", "--to", str(tmp_path / "x.gguf")], "reads tokens of its own"),
        ([str(source), "--to", str(tmp_path / "no" / "x.gguf")], "is no file in a folder that is there"),
        (["smolm2", "--to", str(tmp_path / "x.gguf")], "did you mean smollm2"),
    ):
        with pytest.raises(InputError, match=said):
            models.main(["export", *arguments])
    assert not (tmp_path / "x.gguf").exists()

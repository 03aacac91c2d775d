"""Where a model lies, and whether it reads our tokens: `embedded`, a model with a name of ours
(`rlmemo.model.named`), a folder in hub format, or a hub's name.

Nothing heavy is imported, and only a hub's name ever touches the network: once, for what is not in the
local hub cache yet. Weights are safetensors or nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from env.errors import InputError
from rlmemo.model.named import NAMED, named_folder
from rlmemo.model.slots import ID, PLAIN_TOKENS
from rlmemo.model.text_prompt import KEEP
from rlmemo.runs.atomic import sha256

EMBEDDED = "embedded"
SHIPPED = {EMBEDDED: "", "embedded-1": "first"}
"""Base models that the package has, and where: the one that is meant today, and one of before, with which the
runs that were trained on it go on."""
PROMPTED = ("prefix", "p-tuning", "prompt")
"""Kinds of adapters (`--peft`) that put learned tokens before a prompt."""
PROMPTS = ("short", "long")
"""How a moment may be worded for a model that reads text (`--prompt`); runs from before there were two read
the long one."""
NO_BITSANDBYTES = (
    "--quantize 4bit needs bitsandbytes, which is not installed; pip install bitsandbytes, or leave it out"
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
_UNWANTED = ["original/*", "consolidated*"]  # the same weights once more
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Loading:
    """How a model that reads text is loaded. prompt: how a moment is worded, `short` or `long`
    (`rlmemo.model.short_prompt`); history: events in a prompt, at least (up to twice as many);
    quantize: `none`, or `4bit` (bitsandbytes, on a GPU); micro_batch: prompts in one pass, 0: as it likes;
    dtype: in which a large one reads on the CPU, see `rlmemo.model.precision` (trained: in float32);
    learned: tokens that an adapter puts before a prompt, for which the model's context needs room."""

    history: int = KEEP
    quantize: str = "none"
    micro_batch: int = 0
    dtype: str = "auto"
    learned: int = 0
    prompt: str = "short"


def model_folder(name: str) -> Path:
    """Where the model `name` lies; nothing is downloaded, and a name that is nowhere comes back as a path."""
    if name in SHIPPED:
        return Path(str(files("rlmemo.base"))) / SHIPPED[name]
    if name in NAMED:
        return named_folder(name)
    path = Path(name).expanduser()
    if path.is_dir() or not _HUB_NAME.fullmatch(name):
        return path
    try:
        return _snapshot(name, local=True)
    except (OSError, ValueError):
        return path


def check_model(name: str, *, download: bool = True) -> None:
    """Make sure that `name` can be loaded; a hub's name is downloaded where the cache does not hold it.

    Raises InputError, in one line, for what is no model.
    """
    if name in SHIPPED:
        return
    if not name.strip():
        raise InputError("--model is empty; give `embedded` or a folder in hub format")
    path = model_folder(name)
    if name in NAMED and not path.is_dir():
        raise InputError(f"model {name} is not here yet; fetch it once: python -m rlmemo.models get {name}")
    if not path.is_dir() and _HUB_NAME.fullmatch(name) and download:
        try:
            path = _snapshot(name, local=False)
        except (OSError, ValueError) as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"model {name}: is no folder here and cannot be had from the hub ({why}); download it where "
                "there is a network and give its folder"
            ) from None
    if not path.is_dir():
        raise InputError(
            f"model {name}: no such folder; give `embedded`, {', '.join(NAMED)}, a folder in the hub's "
            "format, or a hub's name such as Qwen/Qwen3-0.6B"
        )
    if not (path / "config.json").is_file():
        raise InputError(
            f"model {name}: {path} has no config.json; give `embedded` or a folder in hub format"
        )
    if not any((path / file).is_file() for file in WEIGHTS):
        raise InputError(f"model {name}: has no model.safetensors; only safetensors are read")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model")):
        raise InputError(f"model {name}: has no tokenizer.json; give a folder in the hub's format")
    _check_rows(name, path)


def _check_rows(name: str, path: Path) -> None:
    """Raises InputError where the tokenizer has tokens that the model has no row for, as far as the two files
    say; what cannot be read here is the loader's to refuse."""
    try:
        made = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        words = made["model"]["vocab"]
        ids = [*(words.values() if isinstance(words, dict) else range(len(words)))]
        ids += [x["id"] for x in made.get("added_tokens") or []]
        rows = int(config["vocab_size"] if "vocab_size" in config else config["text_config"]["vocab_size"])
        tokens = max(map(int, ids)) + 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if tokens > rows:
        raise InputError(f"model {name}: {too_few_rows(tokens, rows)}")


def too_few_rows(tokens: int, rows: int) -> str:
    """What is said of a tokenizer that has more tokens than its model has rows."""
    return (
        f"its tokenizer has {tokens} tokens and the model only {rows} rows for them; give the tokenizer that "
        "the model was trained with, or save the model after resize_token_embeddings(len(tokenizer))"
    )


def is_slots(name: str) -> bool:
    """Whether the model `name` reads our own tokens: its vocabulary is that of `rlmemo.model.slots`."""
    return _has(name, PLAIN_TOKENS)


def reads_memory(name: str) -> bool:
    """Whether a model of our own tokens reads who is in memory, and says who leaves."""
    return _has(name, len(ID))


def _has(name: str, tokens: int) -> bool:
    """Whether a vocabulary begins with so many tokens of ours."""
    try:
        raw = json.loads((model_folder(name) / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = raw["model"]["vocab"]
        return all(vocabulary.get(token) == i for token, i in ID.items() if i < tokens)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def embedded_as(digest: str | None) -> str:
    """What the shipped base is called that a run met as `embedded`, by its `model_sha256`; `embedded` where
    it is none of them."""
    return next((name for name in SHIPPED if digest and model_sha256(name) == digest), EMBEDDED)


READ_BY = ("codebook.json", "scorer.txt")
"""Of the package's base model: what turns a moment into tokens."""


def model_sha256(name: str) -> str | None:
    """SHA-256 of what makes the model `name`: of `model.safetensors`, or over the hashes of its parts;
    for a model that reads slots, over that and the codebook and scorer that it reads by. None where there
    are no weights."""
    path = model_folder(name)
    if (path / WEIGHTS[0]).is_file():
        found = sha256(path / WEIGHTS[0])
        if not is_slots(name):
            return found
        read_by = [sha256(model_folder(EMBEDDED) / x) for x in READ_BY]
        return hashlib.sha256("\n".join([found, *read_by]).encode()).hexdigest()
    if not (path / WEIGHTS[1]).is_file():
        return None
    try:
        named = json.loads((path / WEIGHTS[1]).read_text(encoding="utf-8"))["weight_map"].values()
        parts = sorted(path / Path(str(name)).name for name in set(named))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"model {name}: {path / WEIGHTS[1]} cannot be read; fetch the model again") from None
    missing = [p.name for p in parts if not p.is_file()]
    if missing:
        raise InputError(f"model {name}: has no {missing[0]}; fetch the model again")
    return hashlib.sha256("".join(f"{p.name}:{sha256(p)}\n" for p in parts).encode()).hexdigest()


def _snapshot(name: str, *, local: bool) -> Path:
    """The folder of a hub's model in the local cache. Raises OSError or ValueError where it cannot be had."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=local
        )
        return Path(found)
    except LocalEntryNotFoundError as error:
        raise OSError("it is not in the local cache, and the hub does not answer") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise OSError(f"the hub says {status}") from error

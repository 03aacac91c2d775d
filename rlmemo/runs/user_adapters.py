"""The adapters of a run folder that belong to one user each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from env.errors import InputError

FOLDER, ABOUT = "adapters", "user.json"


def safe_name(user: str) -> str:
    """A folder name for any user name at all: what is plain in it, and a hash that tells users apart."""
    digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    plain = re.sub(r"[^a-z0-9]+", "-", user.lower())[:32].strip("-")
    return f"{plain}-{digest}" if plain else digest


@dataclasses.dataclass(frozen=True)
class UserAdapter:
    """A user's adapter as it lies in a run folder."""

    user: str
    path: Path
    about: dict[str, Any]

    @property
    def in_use(self) -> bool:
        """Whether this user's events are read with it."""
        return bool(self.about.get("in_use"))


def user_adapters(run: Path) -> list[UserAdapter]:
    """The per-user adapters of a run, by user name. Raises InputError where one of them is damaged."""
    found = []
    for file in sorted((run / FOLDER).glob(f"*/{ABOUT}")):
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            user = about["user"]
            if safe_name(user) != file.parent.name:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{file}: is damaged; delete its folder and train again") from None
        found.append(UserAdapter(user, file.parent, about))
    return sorted(found, key=lambda a: a.user)


def listing(run: Path) -> str:
    """The adapters of a run as a table for the terminal. Raises InputError for what is no run folder."""
    if not (run / "adapter").is_dir():
        raise InputError(f"{run}: holds no adapter/; give a folder that `python -m rlmemo.train` wrote")
    shared = run / "adapter"
    rows = [("user", "adapter", "learned from", "log loss", "shared", "in use")]
    size = weights_file(shared).stat().st_size / 1e6
    rows.append(("(everybody else)", f"adapter/ ({kind_of(shared)}, {size:.2f} MB)", "", "", "", "yes"))
    for a in user_adapters(run):
        own, before = a.about["validation"]["own"], a.about["validation"]["shared"]
        rows.append(
            (
                ascii(a.user)[1:-1] if not a.user.isprintable() else a.user,
                f"{FOLDER}/{a.path.name}",
                f"{a.about['learned_from']} {a.about['what']}",
                f"{own.get('log_loss', float('nan')):.3f}",
                f"{before.get('log_loss', float('nan')):.3f}",
                "yes" if a.in_use else "no",
            )
        )
    wide = [min(64, max(len(r[i]) for r in rows)) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(r, wide, strict=True)).rstrip() for r in rows)


def kind_of(path: Path) -> str:
    """The `--peft` kind of the saved adapter at `path`. Raises InputError where there is none."""
    file = path / "adapter_config.json"
    if not file.is_file():
        if (path / "model.safetensors").is_file():
            return "none"
        raise InputError(f"adapter {path}: holds neither adapter_config.json nor model.safetensors")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        kind = str(settings["peft_type"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"adapter {path}: adapter_config.json cannot be read; train it again") from None
    names = {
        "LORA": "dora" if settings.get("use_dora") else "lora",
        "ADALORA": "adalora",
        "IA3": "ia3",
        "PREFIX_TUNING": "prefix",
        "P_TUNING": "p-tuning",
        "PROMPT_TUNING": "prompt",
    }
    if kind not in names:
        raise InputError(f"adapter {path}: its kind {kind} is not known here ({', '.join(names.values())})")
    return names[kind]


def weights_file(path: Path) -> Path:
    """The file that decides what a saved adapter is."""
    adapter = path / "adapter_model.safetensors"
    return adapter if adapter.is_file() else path / "model.safetensors"

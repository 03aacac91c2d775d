"""A run that was stopped goes on as if it had not been: the adapter has the same SHA-256 (CPU, float32).

Killed and damaged ones are in test_trust.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward import parse_reward
from rlmemo.learning.config import TrainConfig, make_config
from rlmemo.learning.pairs import KtoExample, Pair, kto_examples, pairs, propose, score
from rlmemo.learning.training import Interrupt, Stopped
from rlmemo.learning.training_data import States, memory_at, part_states, prompts
from rlmemo.runs.folder import COMPLETE, RunFolder, newest_checkpoint
from tests.training_ground import RandomSampler, lesson_of, small_ground

CONFIG = make_config(
    {
        "sft_batch": 8, "sft_states": 48, "dpo_batch": 8, "dpo_pairs": 48, "kto_batch": 8, "kto_plans": 48,
        "lora_rank": 2, "checkpoint_steps": 2,
    }
)  # fmt: skip


def some_states(count: int) -> States:
    states = part_states(small_ground().split.train)
    return states[np.linspace(100, len(states) - 1, count).astype(int)]


class StopAt:
    """Presses Ctrl-C after update `step`."""

    def __init__(self, interrupt: Interrupt, step: int) -> None:
        self.interrupt, self.step = interrupt, step

    def __call__(self, done: int, total: int, values: dict[str, float]) -> None:
        if done == self.step:
            self.interrupt.asked = True


def sft(folder: Path, base: Path, stop: int = 0) -> tuple[str, float]:
    """(SHA-256 of the adapter, the loss that is reported)."""
    from rlmemo.learning.sft import run_sft, save_adapter

    interrupt = Interrupt()
    run = RunFolder(folder)
    run.path.mkdir(exist_ok=True)
    lesson = lesson_of(CONFIG, run, "sft", base, interrupt=interrupt, progress=StopAt(interrupt, stop))
    model, found = run_sft(lesson, small_ground(), some_states(48))
    return save_adapter(model, run.path / "sft", "embedded"), found["loss"]


def preferences() -> tuple[np.ndarray, list[Pair], list[KtoExample]]:
    ground, states = small_ground(), some_states(40)
    made = prompts(ground, states)
    plans: list[dict[Any, str]] = [{} for _ in range(len(states))]
    for user, rows in states.by_user():
        slates = ground.slates[user]
        index = states.index[rows]
        warm = memory_at(ground, user).warm
        size = slates.candidates.shape[1]
        first = np.tile(np.linspace(0.0, -5.0, size + 1), (len(rows), 1))
        found = propose(
            first, slates.candidates[index], warm[index], RandomSampler(),
            picks=3, samples=3,
        )  # fmt: skip
        for row, plan in zip(rows, found, strict=True):
            plans[row] = plan
    scored = score(ground, states, plans, parse_reward("net_seconds"), 3)
    users = [t.user for t in ground.timelines]
    return (
        made,
        pairs(scored, users, margin=0.02, limit=48, pairing="weighted", seed=0),
        kto_examples(scored, users, margin=0.02, limit=48, seed=0),
    )


def prefer(method: str, folder: Path, base: Path, adapter: Path, stop: int = 0) -> tuple[str, float]:
    """As `sft`."""
    from rlmemo.learning.dpo_kto import run_dpo, run_kto
    from rlmemo.learning.sft import save_adapter

    interrupt = Interrupt()
    run = RunFolder(folder)
    run.path.mkdir(exist_ok=True)
    made, two, one = preferences()
    watch = StopAt(interrupt, stop)
    lesson = lesson_of(CONFIG, run, method, base, adapter, interrupt=interrupt, progress=watch)
    if method == "dpo":
        model, found = run_dpo(lesson, made, two)
    else:
        model, found = run_kto(lesson, made, one)
    return save_adapter(model, run.path / method, "embedded"), found["loss"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, float]]:
    """A folder with the tiny base and a run of SFT that was left alone, and what `sft` said of it."""
    folder = tmp_path_factory.mktemp("learned")
    return folder, sft(folder / "whole", folder / "base")


@pytest.mark.slow
def test_sft_continues_exactly(learned: tuple[Path, tuple[str, float]], tmp_path: Path) -> None:
    base, whole = learned[0] / "base", learned[1]
    with pytest.raises(Stopped):
        sft(tmp_path / "cut", base, stop=3)
    assert not (tmp_path / "cut" / "sft").exists(), "an unfinished stage leaves no adapter"
    digest, loss = sft(tmp_path / "cut", base)
    assert (digest, loss) == (whole[0], pytest.approx(whole[1], rel=1e-5)), "all updates count in the loss"
    steps = [r["step"] for r in RunFolder(tmp_path / "cut").logged("sft")]
    assert steps == sorted(set(steps)), "a step is logged once"
    assert steps[-1] == round(48 // 8 * CONFIG.sft_epochs), "the last one too"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_continue_exactly(
    learned: tuple[Path, tuple[str, float]], tmp_path: Path, method: str
) -> None:
    base, adapter = learned[0] / "base", learned[0] / "whole" / "sft"
    whole = prefer(method, tmp_path / "whole", base, adapter)
    with pytest.raises(Stopped):
        prefer(method, tmp_path / "cut", base, adapter, stop=3)
    digest, loss = prefer(method, tmp_path / "cut", base, adapter)
    assert (digest, loss) == (whole[0], pytest.approx(whole[1], rel=1e-5))
    assert digest != learned[1][0], "it learned something"
    saved = sorted(p.name for p in (tmp_path / "whole" / method).iterdir())
    assert saved == ["adapter_config.json", "adapter_model.safetensors"], "the reference is not saved"


def test_a_checkpoint_without_its_mark_is_unfinished(tmp_path: Path) -> None:
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_text(str(step))
    assert newest_checkpoint(tmp_path)[0] is None
    from rlmemo.runs.folder import mark_complete

    mark_complete(tmp_path / "checkpoint-2")
    found, remarks = newest_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint-2"
    assert remarks == ["checkpoint-4 is unfinished"]
    assert json.loads((tmp_path / "checkpoint-2" / COMPLETE).read_text())
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])


def test_settings_survive_the_run_folder(tmp_path: Path) -> None:
    assert isinstance(CONFIG, TrainConfig)
    assert make_config(CONFIG.as_dict()) == CONFIG

"""A stage that makes a single update learns: no update has the learning rate 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward import parse_reward
from rlmemo.learning.config import make_config
from rlmemo.learning.pairs import KtoExample, Pair, Picks, ScoredPlans, score
from rlmemo.learning.training import Lesson, _watch, rate_of
from rlmemo.learning.training_data import States, part_states, prompts
from rlmemo.runs.folder import RunFolder
from tests.test_ppo_contract import config as ppo_config
from tests.test_ppo_contract import fresh_adapter
from tests.test_ppo_contract import run as run_ppo
from tests.test_resume import some_states
from tests.training_ground import lesson_of, small_ground

CONFIG = make_config(
    {
        "sft_batch": 64, "dpo_batch": 64, "kto_batch": 64, "group_plans": 4, "group_batch": 32,
        "group_states": 8, "lora_rank": 2, "user_states": 48, "user_epochs": 1,
    }
)  # fmt: skip
STATES = 48


def trained(stage: str, folder: RunFolder, base: Path) -> tuple[Any, dict[str, Any]]:
    """The model after a stage that has data for one update, and what was found."""
    from rlmemo.learning.dpo_kto import run_dpo, run_kto
    from rlmemo.learning.grpo import run_groups
    from rlmemo.learning.sft import run_sft

    ground, states = small_ground(), some_states(STATES)
    before = None if stage == "sft" else fresh_adapter(base)
    lesson = lesson_of(CONFIG, folder, "sft" if stage == "users" else stage, base, before)
    asked = prompts(ground, states)
    if stage in ("sft", "users"):
        return run_sft(lesson, ground, states)
    if stage == "dpo":
        two = [Pair(r, "a", 0, (), ((0, 0),), 0.0, -1.0, ("none", "top")) for r in range(STATES)]
        return run_dpo(lesson, asked, two)
    if stage == "kto":
        one = [KtoExample(r, "a", 0, ((0, 0),), r % 2 == 0, 1.0, "top") for r in range(STATES)]
        return run_kto(lesson, asked, one)
    reward = parse_reward("net_seconds")

    def scored(states: States, plans: list[dict[Picks, str]]) -> list[ScoredPlans]:
        return score(ground, states, plans, reward, CONFIG.picks)

    return run_groups(lesson, ground, part_states(ground.split.train), scored)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "grpo", "rloo", "users"])
def test_a_single_update_changes_the_adapter(tmp_path: Path, stage: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    model, found = trained(stage, folder, tmp_path / "base")
    assert found["steps"] == 1
    moved = [p for n, p in model.named_parameters() if "lora_B" in n and "default" in n]
    assert moved
    assert all(bool(p.detach().abs().sum() > 0) for p in moved), "as it began, lora_B is 0"
    rates = [row["learning_rate"] for row in folder.logged("sft" if stage == "users" else stage)]
    assert rates[0] > 0


@pytest.mark.slow
def test_the_first_update_of_ppo_has_a_learning_rate(tmp_path: Path) -> None:
    rising = iter(range(100))
    settings = ppo_config(ppo_rollouts=1, ppo_batch=32, ppo_epochs=1)
    run_ppo(tmp_path / "run", tmp_path / "base", settings, judge=lambda _: float(next(rising)))
    assert RunFolder(tmp_path / "run").logged("ppo")[0]["learning_rate"] > 0


def test_the_last_update_is_logged_too(tmp_path: Path) -> None:
    """Every fifth is; curves are to end where learning ended."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    watch = _watch(Lesson(CONFIG, RunFolder(tmp_path), "sft"))
    given = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    asked = {
        k: watch.on_step_end(given, TrainerState(global_step=k, max_steps=14), TrainerControl()).should_log
        for k in (11, 13, 14)
    }
    assert asked == {11: False, 13: False, 14: True}


@pytest.mark.parametrize("updates", [1, 2, 3, 19, 20, 21, 40, 1000])
def test_every_update_moves(updates: int) -> None:
    warm = updates // 20
    rates = [rate_of(k, warm, updates) for k in range(updates)]
    assert min(rates) > 0
    assert max(rates) == rates[warm] == 1.0
    assert rates[: warm + 1] == sorted(rates[: warm + 1])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)

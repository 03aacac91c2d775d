"""GRPO and RLOO: TRL's own, under the mask of a plan, with the exact reward of each plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward import parse_reward
from rlmemo.learning.config import make_config
from rlmemo.learning.pairs import Picks, ScoredPlans, score
from rlmemo.learning.training import Interrupt, Stopped
from rlmemo.learning.training_data import States, part_states
from rlmemo.model import slots
from rlmemo.runs.folder import RunFolder
from tests.test_ppo_contract import fresh_adapter
from tests.training_ground import lesson_of, small_ground

CONFIG = make_config(
    {"method": "grpo", "group_states": 24, "group_plans": 4, "group_batch": 16, "checkpoint_steps": 2}
)


def run(method: str, path: Path, base: Path, stop: int = 0) -> str:
    from rlmemo.learning.grpo import run_groups
    from rlmemo.learning.sft import save_adapter

    ground, interrupt, folder = small_ground(), Interrupt(), RunFolder(path)
    folder.path.mkdir(exist_ok=True)
    states = part_states(ground.split.train)
    states = states[np.linspace(100, len(states) - 1, 40).astype(int)]

    def watch(done: int, total: int, values: dict[str, float]) -> None:
        interrupt.asked = done == stop

    def scored(states: States, plans: list[dict[Picks, str]]) -> list[ScoredPlans]:
        return score(ground, states, plans, parse_reward("net_seconds"), CONFIG.picks)

    before = fresh_adapter(base)
    lesson = lesson_of(CONFIG, folder, method, base, before, interrupt=interrupt, progress=watch)
    model, found = run_groups(lesson, ground, states, scored)
    assert found["plans"] == 96
    assert found["steps"] == 6
    return save_adapter(model, path / method, "embedded")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_it_trains_and_continues_exactly(tmp_path: Path, method: str) -> None:
    whole = run(method, tmp_path / "whole", tmp_path / "base")
    with pytest.raises(Stopped):
        run(method, tmp_path / "cut", tmp_path / "base", stop=3)
    assert run(method, tmp_path / "cut", tmp_path / "base") == whole


@pytest.mark.slow
def test_plans_are_valid_and_rewards_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlmemo.learning import grpo

    seen: list[dict[str, Any]] = []
    before = grpo.MaskedGRPO._generate_and_score_completions

    def watched(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = before(self, inputs)
        ids = [
            row[mask.bool()].tolist()
            for row, mask in zip(output["completion_ids"], output["completion_mask"], strict=True)
        ]
        rewards = list(self._logs["rewards"]["worth"])[-len(inputs) :]
        seen.append({"state": [x["state"] for x in inputs], "ids": ids, "rewards": rewards})
        return output

    monkeypatch.setattr(grpo.MaskedGRPO, "_generate_and_score_completions", watched)
    run("grpo", tmp_path / "run", tmp_path / "base")
    ground = small_ground()
    states = part_states(ground.split.train)
    states = states[np.linspace(100, len(states) - 1, 40).astype(int)]
    chosen = np.sort(np.random.default_rng([0, 7]).permutation(40)[:24])
    checked = 0
    for batch in seen:
        for row, ids, reward in zip(batch["state"], batch["ids"], batch["rewards"], strict=True):
            plan = tuple(slots.decode_plan(ids))
            one = score(ground, states[chosen[[row]]], [{plan: "sampled"}], parse_reward("net_seconds"), 3)
            assert one[0].rewards[0] == pytest.approx(reward, abs=1e-5)
            checked += bool(plan)
    assert checked > 20

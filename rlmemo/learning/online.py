"""The stages in which the policy learns from what it says while it learns: PPO, GRPO, RLOO."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlmemo.learning.config import TrainConfig
from rlmemo.learning.display import Display
from rlmemo.learning.nothing import NoSignal, leave_as_it_was
from rlmemo.learning.prepare import Prepared
from rlmemo.learning.ratings_used import Feedback
from rlmemo.learning.training import Interrupt
from rlmemo.learning.training_data import States, TrainingData
from rlmemo.model.readings import SlotReading
from rlmemo.model.scorer import Scorer
from rlmemo.policies.planners import own_worth
from rlmemo.runs.folder import RunFolder

MOST_PASSES = 20  # over a small training part; more would only learn it by heart


def run_online(
    stage: str,
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    start: Prepared,
    interrupt: Interrupt,
    display: Display,
    feedback: Feedback | None = None,
) -> None:
    """Do one such stage, from the adapter of the stage before it; nothing where it is finished."""
    if stage in folder.state():
        return
    from rlmemo.learning.sft import save_adapter
    from rlmemo.model.load import load_model

    before = config.shared_stages[config.shared_stages.index(stage) - 1]
    adapter, base = folder.path / before, load_model(config.model)
    began = time.perf_counter()
    try:
        model, found = _trained(
            stage, config, folder, ground, states, start, adapter, base, interrupt, display, feedback
        )
    except NoSignal as why:
        leave_as_it_was(stage, before, str(why), folder, display)
        return
    found["adapter_sha256"] = save_adapter(model, folder.path / stage, config.model)
    folder.finish(stage, {**found, "seconds": time.perf_counter() - began})


def _trained(
    stage: str,
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    start: Prepared,
    adapter: Path,
    base: tuple[Any, Any],
    interrupt: Interrupt,
    display: Display,
    feedback: Feedback | None,
) -> tuple[Any, dict[str, Any]]:
    """(model, what was found). Raises NoSignal where all plans are worth the same."""
    if stage == "ppo":
        from rlmemo.learning.ppo import run_ppo
        from rlmemo.learning.rated_episodes import field as field_of

        train = start.split.counts()["train"]
        rollout = config.ppo_lanes * config.ppo_steps
        enough = max(2, -(-MOST_PASSES * train // rollout))
        config = replace(config, ppo_rollouts=min(config.ppo_rollouts, enough))
        with display.stage(f"PPO on {config.ppo_rollouts * rollout} decisions") as bar:
            judge = Validation(ground, start, config.seed, _scorer(folder))
            field = field_of(ground, start.reward, feedback, config.ppo_half_life or math.inf)
            model, found = run_ppo(config, folder, field, judge, adapter, base, interrupt, bar)
            was, now = found["start_validation"], found["best_validation"]
            bar.note = f"{was:+.3f} to {now:+.3f} an open on validation"
        return model, found
    from rlmemo.learning.grpo import run_groups

    with display.stage(f"{stage.upper()} on {config.group_plans} plans a state") as bar:
        return run_groups(
            stage, config, folder, ground, states, start.reward, adapter, base, interrupt, bar, feedback
        )


def _scorer(folder: RunFolder) -> Scorer:
    """The scorer that the run's policy reads, fitted on its whole training part."""
    from rlmemo.model.scorer import load_scorers

    return load_scorers(folder.path / "scorer").final


class Validation:
    """Reward per open of a model's own likeliest plans on the validation part (0 where that is empty)."""

    def __init__(self, ground: TrainingData, start: Prepared, seed: int, scorer: Scorer) -> None:
        self.cases, self.reward, self.seed = ground.cases(ground.split.validation), start.reward, seed
        self.reading = SlotReading(scorer)

    def __call__(self, model: Any) -> float:
        from rlmemo.policies.language import LanguagePolicy

        model.reading = self.reading
        worth = own_worth(LanguagePolicy(model), self.cases, self.reward, seed=self.seed)
        return worth / max(sum(len(case) for case in self.cases), 1)

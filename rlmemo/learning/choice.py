"""The end of a run: what each stage is worth on validation, then everything once on the test part.

Two ways of planning are read from the same model: its `own` plans, as it says them token by token, and
plans by `threshold`, that is whatever it ranks above a probability that was tuned on validation. Which of
the two a stage uses is chosen on validation too, by one rule for all stages, so that the same adapter is
worth the same in every row. The choice of the run's policy, its last stage, is in `adapter/plan.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from env.judge.cost import Costs, WorldConfig
from env.judge.plans import FIELDS
from env.ranking import Ranking
from env.splits import Split
from env.timeline import Timeline
from reward import Reward
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.learning.approval_choice import with_approval
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.display import Display
from rlmemo.learning.nothing import SAME
from rlmemo.learning.prepare import Prepared
from rlmemo.learning.training_data import TrainingData
from rlmemo.policies.approved import approved
from rlmemo.policies.planners import THRESHOLDS, Window, replay_planned, sweep_windows
from rlmemo.policies.protocol import Planned
from rlmemo.runs.atomic import write_atomic
from rlmemo.runs.folder import RunFolder

STAGE_NAMES = {
    "base": "base model", "sft": "SFT", "dpo": "DPO", "kto": "KTO", "ppo": "PPO", "grpo": "GRPO",
    "rloo": "RLOO", "users": "an adapter per user",
}  # fmt: skip

NO_SIGNAL = (
    "no signal: whatever is planned, the reward is that of keeping still, so no planner was chosen by it"
)


@dataclass
class Ranked:
    """A stage's model as a ranking policy: the judge tunes a threshold on validation and plans by it.

    Answers are kept: the same decisions are ranked for calibration and for the judge.
    """

    name: str
    model: Any
    note: str = ""
    known: dict[tuple[str, int, int], Ranking] = field(default_factory=dict)

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """It was trained already."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `Policy.rank`."""
        if len(indices) < 2:
            ranking: Ranking = self.model.rank(timeline, indices)
            return ranking
        key = (timeline.user, int(indices[0]), int(indices[-1]))
        if key not in self.known:
            self.known[key] = self.model.rank(timeline, indices)
        return self.known[key]


@dataclass
class Planning(Ranked):
    """A stage's model with its own plans."""

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """See `PlanningPolicy.plan`."""
        planned: Planned = self.model.plan(timeline, indices, costs, config, seed=seed)
        return planned


def judge(start: Prepared, folder: RunFolder, ground: TrainingData, display: Display) -> None:
    """Validation for every stage, then the test part, once; writes the reports. Nothing is done where the
    report is there already."""
    if (folder.path / "report.json").exists():
        return
    config = start.config
    stages = stage_policies(config, folder)
    with display.stage("validation, stage by stage") as bar:
        found = {}
        for done, (name, model) in enumerate(stages.items()):
            found[name] = validate(Ranked(name, model), ground, start.reward, config.seed)
            bar(done + 1, len(stages), None)
        choices = {
            name: with_approval(
                folder.path / "adapter", stages[name], ground, start.reward, config.feedback_weight,
                {"planner": found[name]["planner"], "threshold": found[name]["threshold"]["theta"]},
                config.seed, config.feedback_keep,
            )
            for name in config.stages
        }  # fmt: skip
        last = config.stages[-1]
        choice = choices[last]
        write_atomic(folder.path / "adapter" / "plan.json", json.dumps(choice, indent=1) + "\n")
        bar.note = f"{last}: {'its own plans' if choice['planner'] == 'own' else 'plans by threshold'}"
        bar.note += ", minding the ratings" if "strength" in choice else ""
    if not any(one["signal"] for one in found.values()):
        display.say(f"validation: {NO_SIGNAL}; a smaller --budget than {config.budget:g} leaves more to gain")
    with display.stage("test, beside the baselines") as bar:
        evaluation = _test(start, folder, ground, stages, choices, bar)
    write_reports(start, folder, evaluation, found, choice)
    from rlmemo.report.terminal import result_table

    display.say(f"\n{result_table(evaluation)}")


def stage_policies(config: TrainConfig, folder: RunFolder) -> dict[str, Any]:
    """Language policies by stage: the base model as it came, then after each stage."""
    from rlmemo.model.hub import is_slots
    from rlmemo.model.load import load_adapted
    from rlmemo.policies.language import LanguagePolicy
    from rlmemo.policies.shelf import Shelf, ShelvedPolicy

    def load(stage: str) -> Any:
        adapter = None if stage == "base" else folder.path / stage
        return load_adapted(config.model, adapter, config.loading)

    stages = ("base", *config.shared_stages)
    found: dict[str, Any]
    if is_slots(config.model):
        found = {stage: LanguagePolicy(load(stage), stage) for stage in stages}
    else:
        shelf = Shelf(load)
        found = {stage: ShelvedPolicy(shelf, stage) for stage in stages}
    if config.adapter_per_user:
        from rlmemo.model.load import load_model, with_scorer
        from rlmemo.model.switching import switching
        from rlmemo.policies.per_user import per_user

        switch = switching(with_scorer(load_model(config.model, config.loading)[0], folder.path), folder.path)
        found["users"] = per_user(LanguagePolicy(switch.model, "users"), switch)
    return found


def validate(policy: Ranked, ground: TrainingData, reward: Reward, seed: int) -> dict[str, Any]:
    """What a stage is worth on validation: hr@1, hr@5, log loss, the reward per open of its own plans and of
    plans by the best threshold, which of the two it is to plan by ("planner"; ties: by threshold), and
    whether rewards differed at all ("signal")."""
    windows, places, given = [], [], []
    for user, timeline in enumerate(ground.timelines):
        events = ground.split.validation[user]
        events = events[events > 0]
        if not len(events):
            continue
        a, b = int(events[0]), int(events[-1]) + 1
        ranking = policy.rank(timeline, np.arange(a - 1, b - 1, dtype=np.int64))
        windows.append(Window(timeline, ground.costs[user], a, b, ranking))
        right = ranking.targets == timeline.target[a:b, None]
        place = np.where(right.any(1), right.argmax(1), -1)
        places.append(place)
        rows = np.arange(len(place))
        given.append(np.where(place >= 0, ranking.probability[rows, np.maximum(place, 0)], ranking.none))
    if not windows:
        nothing = {"reward_per_open": 0.0}
        by = {**nothing, "theta": THRESHOLDS[-1]}
        return {"events": 0, "own": nothing, "threshold": by, "planner": "threshold", "signal": False}
    place, p = np.concatenate(places), np.concatenate(given)
    weights = reward.weights(FIELDS)
    rewards = sweep_windows(windows, ground.world) @ weights / len(place)
    best = len(rewards) - 1 - int(np.argmax(rewards[::-1]))
    own = 0.0
    for w in windows:
        planned = policy.model.plan(w.timeline, w.indices, w.costs, ground.world, seed=seed)
        own += float((replay_planned(w, ground.world, planned).table @ weights).sum())
    own /= len(place)
    return {
        "events": len(place),
        "hr@1": float((place == 0).mean()),
        "hr@5": float(((place >= 0) & (place < 5)).mean()),
        "log_loss": float(-np.log(np.maximum(p, 1e-6)).mean()),
        "own": {"reward_per_open": own},
        "threshold": {"reward_per_open": float(rewards[best]), "theta": float(THRESHOLDS[best])},
        "planner": "own" if own > rewards[best] else "threshold",
        "signal": bool(np.ptp(rewards) > SAME or abs(own) > SAME),
    }


def _test(
    start: Prepared,
    folder: RunFolder,
    ground: TrainingData,
    stages: dict[str, Any],
    choices: dict[str, dict[str, Any]],
    bar: Any,
) -> Evaluation:
    from rlmemo.policies.registry import make_policies

    config = start.config
    policies: list[Any] = make_policies(config.policies) if config.policies.strip() else []
    for stage in config.stages:
        choice = choices[stage]
        own = choice["planner"] == "own"
        how = "its own plans" if own else "plans by a threshold tuned on validation"
        made = (Planning if own else Ranked)(stage, stages[stage], note=f"{stage}: {how}")
        minding = approved(
            stages[stage], folder.path / "adapter", choice, stage, f"{stage}: {how}, minding the ratings"
        )
        policies.append(minding or made)
    setting = Setting(
        cost=config.costs,
        budget=config.budget,
        budgets=(config.budget,),
        max_picks=config.picks,
        ttl_s=config.ttl_s,
        reward=config.reward,
        seed=config.seed,
    )
    return evaluate(
        policies,
        ground.timelines,
        ground.split,
        name=start.loaded.name,
        synthetic=start.loaded.synthetic,
        setting=setting,
        progress=lambda what, done, total: bar(done, total, None),
    )


def write_reports(
    start: Prepared, folder: RunFolder, evaluation: Evaluation, found: dict[str, Any], choice: dict[str, Any]
) -> None:
    """report.html, README.md (the model card) and, last, report.json: where it is, the run is finished."""
    from rlmemo.learning.model_card import model_card
    from rlmemo.learning.report import training_page
    from rlmemo.report.evaluation import report_data

    config = start.config
    state = folder.state()
    training_page(start, folder, evaluation, found).write(folder.path / "report.html")
    write_atomic(folder.path / "README.md", model_card(start, state, evaluation, found, choice))
    report = {
        "method": config.method,
        "policy": config.stages[-1],
        "plans": choice,
        "stages": {
            name: {**state.get(name, {}), "validation": found.get(name, {})}
            for name in ("base", *config.stages)
        },
        "preferences": state.get("plans"),
        **report_data(evaluation),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_atomic(folder.path / "report.json", json.dumps(report, indent=1) + "\n")

"""The incumbent, the policy in charge: what it would have planned over the training part.

Preferences are drawn where the policy will stand when it is used: in the world that its own plans have left,
not in one in which nobody ever prewarmed. The incumbent is a threshold planner on the ranking of the
model that is about to learn, its threshold tuned for the reward on the training part itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.plans import FIELDS, Plans
from env.ranking import Ranking
from reward import Reward
from rlmemo.learning.training_data import TrainingData, training_part
from rlmemo.model.ask import ranked
from rlmemo.policies.planners import THRESHOLDS, best_of, sweep
from rlmemo.runs.atomic import file_atomic

Rank = Callable[[int, np.ndarray], Ranking]
"""(user, decisions int64 [D]) -> their ranking."""


def put_in_charge(data: TrainingData, rank: Rank, reward: Reward) -> tuple[TrainingData, dict[str, float]]:
    """The data with who ranks by `rank`, planning by threshold, in charge of the training part; and
    {"theta", "reward_per_open"} of it. Nothing beyond the training part is looked at."""
    asked = []
    for user in range(len(data.timelines)):
        case = training_part(data, user)
        if len(case) > 0:
            asked.append((case, rank(user, case.indices)))
    opens = sum(len(case) for case, _ in asked)
    rewards, names = np.zeros(len(THRESHOLDS)), data.names > 0
    for case, ranking in asked:
        rewards += sweep([case], [ranking], names=names) @ reward.weights(FIELDS)
    best = best_of(rewards)
    plans = [Plans.empty(len(t), data.world.max_picks, data.names) for t in data.timelines]
    for case, ranking in asked:
        found = case.replay_ranked(ranking, THRESHOLDS[best], names)[1]
        plans[case.user].target[: len(case)] = found.target
        plans[case.user].let_go[: len(case)] = found.let_go[:, : data.names]
    theta = {"theta": float(THRESHOLDS[best]), "reward_per_open": float(rewards[best]) / max(opens, 1)}
    return replace(data, plans=plans), theta


def ranked_by(model: Any, data: TrainingData) -> Rank:
    """How a language model ranks moments of the data: from the data's own slates, whose scores are those
    of scorers that have not seen the training moments they score (the model's own would be too sure)."""

    def rank(user: int, index: np.ndarray) -> Ranking:
        return ranked(model, data.timelines[user], data.slates[user], index)

    return rank


def save_incumbent(data: TrainingData, path: Path) -> None:
    """Write the plans of the incumbent, whole or not at all."""
    assert data.plans is not None
    arrays: dict[str, Any] = {str(user): plans.target for user, plans in enumerate(data.plans)}
    if data.names:
        arrays |= {f"{user} let go": plans.let_go for user, plans in enumerate(data.plans)}
    with file_atomic(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_incumbent(data: TrainingData, path: Path) -> TrainingData:
    """The data with the plans that `save_incumbent` wrote. Raises InputError for a damaged file."""
    plans = []
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for user, timeline in enumerate(data.timelines):
                target = np.asarray(arrays[str(user)], np.int32)
                if target.ndim != 2 or len(target) != len(timeline):
                    raise ValueError(f"user {user}: plans of shape {target.shape}")
                let_go = np.asarray(arrays[f"{user} let go"], np.int32) if data.names else None
                plans.append(Plans(target, np.zeros(target.shape, np.int8), let_go))  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{path}: is damaged ({error}); delete it and `plans` in state.json, and run with --resume"
        ) from None
    return replace(data, plans=plans)

"""Stable-Baselines3's PPO, trained on `rlmemo/Prewarm-v0` as it is: a baseline that learns plans directly.

It sees the environment's observations and nothing else, names no ranking, and plans picks with delays.
Needs the extra: pip install 'rlmemo[sb3]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from env.errors import InputError
from env.judge.cost import Cost, CostModel
from env.ranking import Ranking, decisions
from env.slate.slate import SLATE_SIZE, build_slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.planners import OwnPlans
from rlmemo.policies.protocol import Planned

if TYPE_CHECKING:
    from env.judge.case import Case

STEPS = 8192
"""Environment steps of training: a few thousand, enough to beat the random policy (about half a minute)."""


class Sb3Policy:
    """PPO with a two-layer network over the flattened observation, from the training part of all users."""

    planner = OwnPlans()

    def __init__(self, steps: int = STEPS) -> None:
        self.name = "sb3"
        self.steps = steps
        self.note = ""
        self._model: Any = None
        require_sb3()

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Train on sessions of the training part, under the default budget, costs and reward."""
        ppo = require_sb3()

        self._model, self.note = None, ""
        if sum(len(decisions(part)) for part in split.train) < 2:
            self.note = "sb3: nothing to train on, so it keeps still"
            return
        world = gymnasium.make("rlmemo/Prewarm-v0", timelines=list(timelines), split=split, part="train")
        self._model = ppo(
            "MultiInputPolicy", world, n_steps=512, batch_size=128, gamma=0.95, ent_coef=0.003,
            learning_rate=1e-3, seed=seed, device="cpu", verbose=0,
        )  # fmt: skip
        self._model.learn(total_timesteps=self.steps)

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Lists nothing: it plans, it does not rank."""
        return Ranking.empty(len(indices))

    def plan(self, case: Case, *, seed: int = 0) -> Planned:
        """Its most probable action at every decision, the world carried along as it plans."""
        from env.gym.prewarm import PrewarmEnv

        timeline, indices, costs, config = case.timeline, case.indices, case.costs, case.world
        shape = (len(indices), config.max_picks)
        target, delay = np.full(shape, -1, np.int32), np.zeros(shape, np.int8)
        if self._model is None or len(indices) == 0:
            return Planned(target, delay, np.ones(len(indices)))
        columns = (costs.memory_mb, costs.cold_s, costs.warm_s, costs.load_s)
        own = {name: Cost(*(float(column[k]) for column in columns)) for k, name in enumerate(timeline.names)}
        world = PrewarmEnv(
            [timeline],
            indices=[indices + 1],
            episode="timeline",
            shuffle=False,
            slate_size=SLATE_SIZE,
            config=config.resolved(costs),
            costs=CostModel("given", "given", default=next(iter(own.values())), by_target=own),
        )
        candidates = build_slates(timeline, SLATE_SIZE).candidates
        observation, _ = world.reset(seed=seed)
        for row, i in enumerate(indices.tolist()):
            action, _ = self._model.predict(observation, deterministic=True)
            places, delays = action[0::2], action[1::2]
            target[row] = np.where(places > 0, candidates[i][places - 1], -1)
            delay[row] = delays
            observation, _, done, _, _ = world.step(action)
            if done and row + 1 < len(indices):
                raise RuntimeError("the episode ended before the decisions did")
        return Planned(target, delay, np.ones(len(indices)))


def require_sb3() -> Any:
    """Stable-Baselines3's PPO class. Raises InputError, with what to install, where it is missing."""
    try:
        from stable_baselines3 import PPO
    except ImportError:
        raise InputError(
            "policy sb3 needs Stable-Baselines3, which is not installed: pip install 'rlmemo[sb3]'"
        ) from None
    return PPO

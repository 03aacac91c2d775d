"""Rollouts on several of Ray's workers (`--rollout-workers N`), by the weights that the learner has then.

Lanes, and states, are gone through in groups of a fixed size, each by whichever worker is free. What is drawn
for one depends on the seed, on how often the model has learned and on its place alone, and a group is one
batch wherever it is computed. So neither the number of workers nor who died meanwhile changes a number.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np

from reward import Reward
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.pairs import Picks, ScoredPlans, score
from rlmemo.learning.rollout import Field, Moments, Rollout, Say
from rlmemo.learning.training_data import States, TrainingData
from rlmemo.model.ask import MindedPrompts, SampledPlans, equally_wide, plan_on, sample_plans
from rlmemo.model.branching import Reader, can_branch
from rlmemo.model.readings import reading_of

LANES, PROMPTS, STATES = 8, 64, 16
"""In a group: as many as make a batch that is worth computing, and enough groups for a few workers."""


@contextmanager
def rollout_crew(config: TrainConfig) -> Iterator[RayCrew | None]:
    """As many workers as the settings say, on this machine; None where this process does it all."""
    if not config.rollout_workers:
        yield None
        return
    crew = RayCrew(workers=config.rollout_workers, asked="--rollout-workers")
    try:
        yield crew
    finally:
        crew.close()


class Drawn:
    """Stands in for a generator of random numbers: draws for all `of` columns, and gives those of some."""

    def __init__(self, rng: np.random.Generator, columns: slice, of: int) -> None:
        self.rng, self.columns, self.of = rng, columns, of

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        """Of the shape [..., columns]."""
        return self.rng.random((*shape[:-1], self.of))[..., self.columns]


def play(field: Field, model: Any, config: TrainConfig, number: int, lanes: slice | None = None) -> Rollout:
    """Rollout `number`, or some of its lanes: the same for the same seed, number and weights."""
    rng = np.random.default_rng([config.seed, 5, number])
    moments = field.draw(config.ppo_lanes, config.ppo_steps, config.ppo_episode, rng)
    drawn: Any = rng
    if lanes is not None:
        drawn = Drawn(rng, lanes, config.ppo_lanes)
        moments = Moments(
            moments.user[lanes], moments.index[lanes], moments.first[lanes], moments.last[lanes]
        )

    def at_once(prompts: np.ndarray, free: np.ndarray) -> SampledPlans:
        return sample_plans(model, prompts, free, config.picks, 1.0, drawn, names=field.names)

    say: Say = at_once
    if reading_of(model).shares:
        mine = range(config.ppo_lanes)[lanes or slice(None)]
        say = lane_by_lane(model, config.picks, [[config.seed, 5, number, lane] for lane in mine])
    return field.play(moments, config.picks, say)


def lane_by_lane(model: Any, picks: int, seeds: Sequence[Sequence[int]]) -> Say:
    """Says a plan after every lane's prompt by itself: it begins as the lane's last one did, which its reader
    remembers. What is drawn for a lane depends on its seed alone."""
    drawn = [np.random.default_rng(seed) for seed in seeds]
    readers = [Reader(model) for _ in seeds] if can_branch(model) else None

    def say(prompts: np.ndarray, free: np.ndarray) -> SampledPlans:
        said = []
        for lane, (prompt, rng) in enumerate(zip(prompts, drawn, strict=True)):
            asked = MindedPrompts(prompt[prompt >= 0][None]), free[lane : lane + 1], picks, 1.0, rng
            said.append(plan_on(readers[lane], *asked) if readers else sample_plans(model, *asked))
        return SampledPlans.join(said)

    return say


def play_together(crew: RayCrew, field: Any, model: Any, config: TrainConfig, number: int) -> Rollout:
    """`play`, its lanes in groups on the crew's workers. field: as the crew shares it."""
    with_weights = crew.share(on_cpu(model))
    lanes = groups(config.ppo_lanes, 1 if reading_of(model).shares else LANES)  # see `lane_by_lane`
    done = crew.get(crew.do(_play_lanes, lanes, field, with_weights, config, number))
    columns = {f.name: [getattr(part, f.name) for part in done] for f in fields(Rollout)}
    columns["prompts"] = equally_wide(*columns["prompts"])
    return Rollout(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _play_lanes(lanes: slice, field: Field, model: Any, config: TrainConfig, number: int) -> Rollout:
    return play(field, model, config, number, lanes)


def sample_together(
    crew: RayCrew,
    model: Any,
    asked: tuple[np.ndarray, np.ndarray],
    picks: int,
    names: int,
    seed: Sequence[int],
) -> SampledPlans:
    """`sample_plans` at temperature 1, in groups on the crew's workers. asked: prompts int64 [D, L], and what
    may be picked, bool [D, size]."""
    shared = crew.share(on_cpu(model)), crew.share(asked)
    done = crew.get(crew.do(_sample, groups(len(asked[0]), PROMPTS), *shared, picks, names, list(seed)))
    return SampledPlans.join(done)


def _sample(
    rows: slice, model: Any, asked: tuple[np.ndarray, np.ndarray], picks: int, names: int, seed: list[int]
) -> SampledPlans:
    prompts, free = asked
    drawn: Any = Drawn(np.random.default_rng(seed), rows, len(prompts))
    return sample_plans(model, prompts[rows], free[rows], picks, 1.0, drawn, names=names)


def score_together(
    crew: RayCrew, data: Any, states: States, plans: list[dict[Picks, str]], reward: Reward, picks: int
) -> list[ScoredPlans]:
    """`rlmemo.learning.pairs.score`, in groups on the crew's workers. data: as the crew shares it."""
    parts = [(states[np.arange(len(states))[x]], plans[x]) for x in groups(len(states), STATES)]
    return [one for part in crew.get(crew.do(_score, parts, data, reward, picks)) for one in part]


def _score(
    part: tuple[States, list[dict[Picks, str]]], data: TrainingData, reward: Reward, picks: int
) -> list[ScoredPlans]:
    return score(data, *part, reward, picks)


def groups(count: int, size: int) -> list[slice]:
    """0..count in order, `size` at a time."""
    return [slice(a, min(a + size, count)) for a in range(0, count, size)]


def on_cpu(model: Any) -> Any:
    """The model as a worker can have it; a copy where it lies on a GPU."""
    if model.device.type == "cpu":
        return model

    return copy.deepcopy(model).to("cpu")

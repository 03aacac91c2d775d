"""What every policy answers, whatever it is made of: ranked targets with probabilities, then plans.

A decision at index i is made right after event i of a timeline: it knows events 0..i and nothing
later, and it predicts event i + 1. Classical baselines, language models and the oracle all implement
`Policy`; the benchmark, the trainers and the dashboard know only this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from env.ranking import Ranking, Stream
from env.splits import Split
from env.timeline import Timeline


@runtime_checkable
class Policy(Protocol):
    """A policy: fitted on the training part, then asked for rankings at decision indices.

    One that can plan by itself (a language model, the oracle) has `plan(case, *, seed) -> Planned` as well.
    Whether it does is said by its `planner` (`rlmemo.policies.planners`): None, or none at all, leaves it to
    the judge, which then plans by a threshold that it chooses on validation.
    """

    name: str

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Learn from `split.train`, and tune on `split.validation`; test events are never read."""
        ...

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """Rank what may be opened next, for decisions `indices` int64 [D] (increasing).

        The row for index i depends on events 0..i alone.
        """
        ...


@runtime_checkable
class StreamingPolicy(Policy, Protocol):
    """A policy that keeps its state between decisions, as a live recording needs it."""

    def stream(self, timeline: Timeline) -> Stream: ...


def stream_of(policy: Policy, timeline: Timeline) -> Stream:
    """A policy's stream over a timeline; one that keeps no state is asked afresh at every decision."""
    if isinstance(policy, StreamingPolicy):
        return policy.stream(timeline)

    def ask(i: int) -> Ranking:
        return policy.rank(timeline, np.array([i], dtype=np.int64))

    return ask


@dataclass(frozen=True)
class Planned:
    """What a planning policy answers for D decisions.

    target  int32 [D, K], -1 for no pick; delay int8 [D, K], as in `env.judge.plans.Plans`;
    propensity float64 [D], probability with which the policy chose that plan (1 where it never samples);
    let_go int32 [D, R], who leaves first, as in `env.judge.plans.Plans` (None: R is 0)
    """

    target: np.ndarray
    delay: np.ndarray
    propensity: np.ndarray
    let_go: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.let_go is None:
            object.__setattr__(self, "let_go", np.full((len(self.target), 0), -1, np.int32))

    def right_away(self) -> Planned:
        """Without what waits for a wake: that is not shown to a person, who is asked right after an event."""
        now = (self.delay >= 0).all(axis=0)
        return replace(self, target=self.target[:, now], delay=self.delay[:, now])

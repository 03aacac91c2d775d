"""A ranking: guesses at what is opened next, with their probabilities, and the decisions that they belong to.

A decision at index i is made right after event i of a timeline: it knows events 0..i and nothing
later, and it predicts event i + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DEPTH = 12
"""How many targets a ranking lists when nothing else is asked: five for the metrics, the rest so that
a planner that skips what is already warm still finds enough."""


@dataclass(frozen=True)
class Ranking:
    """Ranked guesses for D decisions, P places each.

    targets      int32 [D, P], target ids, best first, -1 where the list has ended
    probability  float32 [D, P], probability that the next open is that target; 0 where the list ended
    none         float32 [D], probability that the next open is none of the listed targets
    delay_s      float32 [D], predicted seconds until the next open, or None if the policy has no view
    when         float32 [D, B], probability of each of B buckets of that time, or None if the policy
                 says no distribution
    when_edges_s  the B - 1 seconds that part these buckets, ascending; a time on an edge is in the upper one
    """

    targets: np.ndarray
    probability: np.ndarray
    none: np.ndarray
    delay_s: np.ndarray | None = None
    when: np.ndarray | None = None
    when_edges_s: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.none)

    def __getitem__(self, rows: slice | np.ndarray) -> Ranking:
        """The ranking of some of the decisions."""
        return Ranking(
            self.targets[rows],
            self.probability[rows],
            self.none[rows],
            None if self.delay_s is None else self.delay_s[rows],
            None if self.when is None else self.when[rows],
            self.when_edges_s,
        )

    @classmethod
    def join(cls, parts: Sequence[Ranking]) -> Ranking:
        """The decisions of several rankings (at least one), one after the other; the shorter lists get empty
        places. What not all of them say about time, or not in the same buckets, is left out."""
        depth = max(r.targets.shape[1] for r in parts)

        def pad(a: np.ndarray, fill: float) -> np.ndarray:
            return np.pad(a, ((0, 0), (0, depth - a.shape[1])), constant_values=fill)

        delays = [r.delay_s for r in parts if r.delay_s is not None]
        whens = [r.when for r in parts if r.when is not None]
        same = len(whens) == len(parts) and len({r.when_edges_s for r in parts}) == 1
        return cls(
            np.concatenate([pad(r.targets, -1) for r in parts]),
            np.concatenate([pad(r.probability, 0) for r in parts]),
            np.concatenate([r.none for r in parts]),
            np.concatenate(delays) if len(delays) == len(parts) else None,
            np.concatenate(whens) if same else None,
            parts[0].when_edges_s if same else (),
        )

    @classmethod
    def empty(cls, decisions: int, places: int = 1) -> Ranking:
        """A ranking that lists nothing: everything is left to `none`."""
        return cls(
            targets=np.full((decisions, places), -1, np.int32),
            probability=np.zeros((decisions, places), np.float32),
            none=np.ones(decisions, np.float32),
        )


def decisions(events: np.ndarray) -> np.ndarray:
    """Decision indices for the events to be predicted: event j is predicted by decision j - 1.

    A timeline's first event has no decision before it and is left out.
    """
    events = np.asarray(events, dtype=np.int64)
    return events[events > 0] - 1


Stream = Callable[[int], Ranking]
"""Answers decision i (one row); to be called with increasing i, as events arrive."""

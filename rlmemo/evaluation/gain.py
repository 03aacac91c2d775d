"""What there is to gain: how many opens are cold where nobody prewarms, and what to change where none is.

Where all that a person opens stays in memory anyway, every policy saves nothing, and a table of zeros says
nothing about them. That has to be said, with the memory in which there would be something to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from env.judge.cost import Costs, WorldConfig
from env.timeline import Timeline

Stretch = tuple[Timeline, Costs, int, int]
"""A timeline, its costs, and the events from the first to before the last that count."""
EPSILON_S = 1e-9


@dataclass(frozen=True)
class Gain:
    """opens: how many were looked at. cold: how many of them wait longer than for a warm target. targets:
    how many different ones were opened. fits: whether these fit into memory together, for everybody. budget:
    memory in typical targets. smaller: the largest of the halves of it at which something is cold, None
    where there is none."""

    opens: int
    cold: int
    targets: int
    fits: bool
    budget: float
    smaller: float | None

    def reason(self) -> str | None:
        """Why nothing can be saved; None where something can."""
        if self.cold or not self.opens:
            return None
        opened = f"the {self.targets:,} targets that were opened" if self.targets > 1 else "the one target"
        return (
            f"none of {self.opens:,} opens was cold without prewarming, so there is nothing to save: "
            f"{f'{opened} fit into memory' if self.fits else 'what was opened was in memory still'} "
            f"(budget {self.budget:g} typical targets)"
        )

    def why_nothing(self) -> str | None:
        """The same with what helps, in one line."""
        reason = self.reason()
        if reason is None:
            return None
        helps = "a timeline with more targets is needed"
        return f"{reason}; {helps if self.smaller is None else f'try --budget {self.smaller:g}'}"


def gain(stretches: Sequence[Stretch], world: WorldConfig) -> Gain:
    """What there is to gain in a world with a budget in typical targets."""
    opens = sum(stop - first for _, _, first, stop in stretches)
    cold = _cold(stretches, world)
    smaller = None
    budget = world.budget_targets
    while not cold and opens and smaller is None and budget > 1:
        budget /= 2
        if _cold(stretches, replace(world, budget_targets=budget)):
            smaller = budget
    opened = [np.unique(t.target[a:b]) for t, _, a, b in stretches]
    names = {t.names[x] for (t, _, _, _), ids in zip(stretches, opened, strict=True) for x in ids.tolist()}
    fits = all(
        costs.memory_mb[ids].sum() <= world.budget(costs)
        for (_, costs, _, _), ids in zip(stretches, opened, strict=True)
    )
    return Gain(opens, cold, len(names), fits, world.budget_targets, smaller)


def _cold(stretches: Sequence[Stretch], world: WorldConfig) -> int:
    """How many of the opens are cold where nobody prewarms."""
    from env.judge.kernel import replay
    from env.judge.plans import Plans

    found = 0
    for timeline, costs, first, stop in stretches:
        still = Plans.empty(len(timeline), world.max_picks)
        waits = replay(timeline, costs, world, still, start=first, stop=stop).base_wait_s[first:stop]
        found += int((waits > costs.warm_s[timeline.target[first:stop]] + EPSILON_S).sum())
    return found

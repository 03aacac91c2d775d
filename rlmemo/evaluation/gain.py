"""What there is to gain: how many opens are cold where nobody prewarms, and what to change where none is.

Where all that a person opens stays in memory anyway, every policy saves nothing, and a table of zeros says
nothing about them. That has to be said, with the memory in which there would be something to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.plans import Plans

EPSILON_S = 1e-9


@dataclass(frozen=True)
class Gain:
    """What there was to gain by prewarming.

    opens: how many were looked at. cold: how many of them wait longer than for a warm target. targets:
    how many different ones were opened. fits: whether these fit into memory together, for everybody. budget:
    memory in typical targets. smaller: the largest of the halves of it at which something is cold, None
    where there is none.
    """

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


def gain(cases: Sequence[Case]) -> Gain:
    """What there is to gain over cases of one world, whose budget is in typical targets."""
    world = cases[0].world if cases else WorldConfig()
    opens = sum(len(case) for case in cases)
    cold = _cold(cases, world)
    smaller = None
    budget = world.budget_targets
    while not cold and opens and smaller is None and budget > 1:
        budget /= 2
        if _cold(cases, replace(world, budget_targets=budget)):
            smaller = budget
    opened = [(case, np.unique(case.opened)) for case in cases]
    names = {case.timeline.names[x] for case, ids in opened for x in ids.tolist()}
    fits = all(case.costs.memory_mb[ids].sum() <= world.budget(case.costs) for case, ids in opened)
    return Gain(opens, cold, len(names), fits, world.budget_targets, smaller)


def _cold(cases: Sequence[Case], world: WorldConfig) -> int:
    """How many of the opens are cold where nobody prewarms."""
    found = 0
    for case in cases:
        still = Plans.empty(len(case), world.max_picks)
        waits = case.under(world).replay(still).base_wait_s[case.start : case.stop]
        found += int((waits > case.costs.warm_s[case.opened] + EPSILON_S).sum())
    return found

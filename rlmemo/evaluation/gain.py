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

    opens: how many were looked at. new: how many of them opened what had never been opened before, which
    nobody can prewarm. cold: how many of the others wait longer than for a warm target. targets: how many
    different ones were opened. fits: whether these fit into memory together, for everybody. budget:
    memory in typical targets. smaller: the largest of the halves of it at which something is cold, None
    where there is none.
    """

    opens: int
    new: int
    cold: int
    targets: int
    fits: bool
    budget: float
    smaller: float | None

    def reason(self) -> str | None:
        """Why nothing can be saved; None where something can."""
        if self.cold or not self.opens:
            return None
        besides = f" (but the first of each of {self.new:,} targets)" if self.new else ""
        opened = f"the {self.targets:,} targets that were opened" if self.targets > 1 else "the one target"
        return (
            f"none of {self.opens:,} opens was cold without prewarming{besides}, "
            "so there is nothing to save: "
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
    new = sum(int(_first(case).sum()) for case in cases)
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
    return Gain(opens, new, cold, len(names), fits, world.budget_targets, smaller)


def _cold(cases: Sequence[Case], world: WorldConfig) -> int:
    """How many of the opens are cold where nobody prewarms, and the least recently used leaves."""
    found = 0
    for case in cases:
        still = Plans.empty(len(case), world.max_picks)
        waits = case.under(replace(world, let_go="lru")).replay(still).base_wait_s[case.start : case.stop]
        found += int(((waits > case.costs.warm_s[case.opened] + EPSILON_S) & ~_first(case)).sum())
    return found


def _first(case: Case) -> np.ndarray:
    """Which opens of a case are the first of their target, bool [stop - start]."""
    first = np.zeros(len(case.timeline), bool)
    first[np.unique(case.timeline.target, return_index=True)[1]] = True
    return first[case.start : case.stop]

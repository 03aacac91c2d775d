"""What prewarming would have saved a person lately: a policy replayed over the last days of a timeline.

A classical policy's threshold is tuned on the time before those days, so that they are judged as they would
have been lived; a run plans as it chose to on its own validation part. Whether a run had learned from these
very days is another question: `rlmemo.runs.learned_days`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from env.judge.case import Case
from env.judge.plans import FIELDS
from env.judge.world_options import WorldOptions
from env.timeline import Timeline
from rlmemo.evaluation.gain import gain
from rlmemo.policies.registry import setup


@dataclass(frozen=True)
class Saved:
    """What came of the days, open by open. t: float64 [opens], unix seconds; table: float64 [opens,
    len(env.judge.plans.FIELDS)], the judge's records. nothing: why nothing could be saved, if so. world: what
    was planned for and judged in."""

    policy: str
    t: np.ndarray
    table: np.ndarray
    nothing: str | None = None
    world: WorldOptions = field(default_factory=WorldOptions)

    def _sum(self, name: str) -> float:
        return float(self.table[:, FIELDS.index(name)].sum())

    def after(self, t: float) -> Saved:
        """The opens later than `t` alone."""
        return replace(self, t=self.t[self.t > t], table=self.table[self.t > t])

    @property
    def opens(self) -> int:
        return len(self.t)

    @property
    def waited_s(self) -> float:
        """Waiting without prewarming, seconds."""
        return self._sum("base_wait_s")

    @property
    def saved_s(self) -> float:
        """Seconds of it that prewarming would have spared; below zero where it would have added some."""
        return self._sum("saved_s")

    @property
    def prewarms(self) -> int:
        return int(self._sum("planned"))

    @property
    def hits(self) -> int:
        return int(self._sum("hit"))

    @property
    def wasted(self) -> int:
        return int(self._sum("wasted"))

    @property
    def wasted_mb_min(self) -> float:
        """Memory held for nothing, MB x minutes."""
        return self._sum("wasted_mb_s") / 60.0


def would_have_saved(
    timeline: Timeline, *, days: float = 7, policy: str = "backoff3", world: Mapping[str, Any] = {}
) -> Saved | None:
    """Replay the last `days` days of a collapsed timeline; None where there is too little before them.

    policy: a classical policy by name, in the usual world, or the folder of a run, in the world that it was
    trained for. world: what is to be otherwise there, by name. Every plan is made from what was opened up to
    then. Raises InputError for a run that cannot be read.
    """
    n = len(timeline)
    start = int(np.searchsorted(timeline.t, timeline.t[-1] - days * 86400.0, side="right")) if n else 0
    if start < 50 or n - start < 2:
        return None
    used = setup(policy, world)
    costs, rules = used.world.cost_model().arrays(timeline), used.world.rules()
    before, week = (Case(timeline, costs, rules, a, b) for a, b in ((start // 2, start), (start, n)))
    outcomes = week.replay(used.by([before]).plan(used.policy, week))
    return Saved(policy, timeline.t[start:n], outcomes.table[start:n], gain([week]).reason(), used.world)

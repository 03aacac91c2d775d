"""A case: a stretch of one person's timeline, to be judged in one world.

Everything that is judged is a case: the test part of a benchmark, the validation part that thresholds are
chosen on, the training part that preferences come from, the last week of *My days*. A case knows which
decisions belong to its opens, and asks the compiled judge (`env.judge.accounting`) about plans for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from env.errors import InputError
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import N_FIELDS, Outcomes, Plans
from env.timeline import Timeline

if TYPE_CHECKING:
    from env.ranking import Ranking


class PlanArrays(Protocol):
    """Plans as arrays: those of `env.judge.plans.Plans`, of D decisions."""

    @property
    def target(self) -> np.ndarray: ...

    @property
    def delay(self) -> np.ndarray: ...

    @property
    def let_go(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Case:
    """Opens start..stop-1 of a timeline, with the decisions start-1..stop-2 right before them.

    user: where the timeline stands among those that it came with. worth: who is opened soon, as far as one
    knows, by which plans name who leaves and the let-go rule `expected` goes; see
    `env.judge.accounting.course`.
    """

    timeline: Timeline
    costs: Costs
    world: WorldConfig
    start: int
    stop: int
    user: int = 0
    worth: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def indices(self) -> np.ndarray:
        """Decision indices, int64 [stop - start]."""
        return np.arange(self.start - 1, self.stop - 1, dtype=np.int64)

    @property
    def opened(self) -> np.ndarray:
        """What was opened, int32 [stop - start]: the answers of the decisions."""
        return self.timeline.target[self.start : self.stop]

    @property
    def wakes(self) -> np.ndarray:
        """The decisions after which the machine is switched off before the next open, int64 [W]: the person
        comes back to an empty memory, and may be planned for."""
        back = np.isfinite(self.world.offs(self.timeline)[1][self.start : self.stop])
        return self.indices[back]

    @property
    def woken(self) -> Timeline:
        """The timeline as it looks at its wakes: what a policy ranks for the decisions `wakes`."""
        return self.world.woken(self.timeline)

    def waking(self, ranking: Ranking, threshold: float) -> np.ndarray:
        """What to load at each wake: the best-ranked targets with probability >= `threshold`, int32
        [stop - start, K], -1 for nothing. ranking: of the decisions `wakes`, as of `woken`."""
        most = self.world.max_picks
        chosen = np.full((len(self), most), -1, np.int32)
        likely = (ranking.targets >= 0) & (ranking.probability >= threshold)
        place = np.where(likely, likely.cumsum(axis=1) - 1, most)
        row, k = np.nonzero(place < most)
        chosen[self.wakes[row] - (self.start - 1), place[row, k]] = ranking.targets[row, k]
        return chosen

    def under(self, world: WorldConfig) -> Case:
        """The same stretch in another world."""
        return replace(self, world=world)

    def replay(self, plans: PlanArrays) -> Outcomes:
        """What plans for the decisions of this case, [stop - start, K], come to."""
        from env.judge.accounting import replay

        whole = Plans.empty(len(self.timeline), plans.target.shape[1], plans.let_go.shape[1])
        whole.target[self.indices], whole.delay[self.indices] = plans.target, plans.delay
        whole.let_go[self.indices] = plans.let_go
        return replay(
            self.timeline, self.costs, self.world, whole, start=self.start, stop=self.stop, worth=self.worth
        )

    def told(self, targets: np.ndarray, chance: np.ndarray, after: np.ndarray | None = None) -> Case:
        """The same stretch, told who is opened soon after each of the events `after`, int64 [D] (None: its
        decisions): targets int32 [D, V], -1 for none, and the chance of each, float64 [D, V]."""
        n, width = len(self.timeline), targets.shape[1]
        listed, told = np.full((n, width), -1, np.int32), np.zeros((n, width))
        after = self.indices if after is None else after
        listed[after], told[after] = targets, chance
        return replace(self, worth=(listed, told))

    def replay_ranked(
        self, ranking: Ranking, threshold: float, names: bool = False, waking: np.ndarray | None = None
    ) -> tuple[Outcomes, Plans]:
        """What prewarming the best-ranked cold targets with probability >= `threshold` comes to, and the
        plans for the decisions of this case, [stop - start, K]. names: whether they name who leaves first,
        those that are least worth keeping by what this case is told. waking: what is loaded at wakes besides,
        as of `waking`, [stop - start, W]; the plans then have K + W picks."""
        from env.judge.ranked_replay import replay_ranked

        return replay_ranked(self, ranking, threshold, names, waking)

    def sweep(
        self,
        ranking: Ranking,
        thresholds: Sequence[float],
        names: bool = False,
        waking: np.ndarray | None = None,
    ) -> np.ndarray:
        """Records of the opens under each threshold, float64 [len(thresholds), stop - start, len(FIELDS)].
        names, waking: see `replay_ranked`."""
        from env.judge.ranked_replay import sweep

        return sweep(self, ranking, np.asarray(thresholds, np.float64), names, waking)

    def effects(
        self, indices: np.ndarray, plans: Plans, base: Plans | None = None, horizon_s: float | None = None
    ) -> np.ndarray:
        """What alternative plans change at `indices`; see `env.judge.effects.plan_effects`."""
        from env.judge.effects import plan_effects

        return plan_effects(
            self.timeline, self.costs, self.world, indices, plans, base, horizon_s, worth=self.worth
        )

    def credits(self, plans: Plans, alternatives: Plans, half_life_s: float = math.inf) -> np.ndarray:
        """What each alternative plan would have added at each decision of this case, played as an episode;
        see `env.judge.credit.credits`."""
        from env.judge.credit import credits

        return credits(
            self.timeline, self.costs, self.world, plans, alternatives, first=self.start - 1,
            half_life_s=half_life_s, worth=self.worth,
        )  # fmt: skip

    def memory(
        self, candidates: np.ndarray, plans: Plans, names: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is resident after each decision's event, before its plan acts; see `env.judge.residency`.

        candidates: int32 [n, size] of the whole timeline; plans: [stop - start, K]. names: whether the walk
        names who leaves first, by what this case is told, into `plans.let_go`.
        """
        from env.judge.residency import residency

        return residency(self, candidates, plans, names)


def cases(
    timelines: Sequence[Timeline], costs: Sequence[Costs], world: WorldConfig, part: Sequence[np.ndarray]
) -> list[Case]:
    """The stretches that a part of a split covers, one per timeline that has events in it.

    part: event indices per timeline, as in `env.splits.Split`. A timeline's first event has no decision
    before it and is left out.
    """
    made = []
    for user, (timeline, one, events) in enumerate(zip(timelines, costs, part, strict=True)):
        asked = events[events > 0]
        if len(asked):
            if int(asked[-1]) + 1 - int(asked[0]) != len(asked):
                raise InputError("the events of a part must follow each other without gaps")
            made.append(Case(timeline, one, world, int(asked[0]), int(asked[-1]) + 1, user))
    return made


def summed(found: Sequence[np.ndarray]) -> np.ndarray:
    """Records of `Case.sweep`, summed over the opens of all cases: float64 [thresholds, len(FIELDS)]."""
    total = np.zeros((len(found[0]) if len(found) else 0, N_FIELDS))
    for table in found:
        total += table.sum(axis=1)
    return total

"""A mind that may be told what was planned elsewhere, and goes on from there.

Both sides need it: the server is told what a device did while it was away, the device what the server plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rlmemo.live.mind import Mind, Thought
from rlmemo.store.live_ledger import LivePlan, LiveRow
from rlmemo.store.records import Prewarm

if TYPE_CHECKING:
    from env.ranking import Ranking


class ToldMind(Mind):
    """A `Mind` whose plan may come from elsewhere."""

    _told: LivePlan | None = None

    def think(self, row: LiveRow, told: LivePlan | None = None) -> Thought:
        """Take in the next event, and decide; or do as `told`, as far as this world has room for it (the
        thought says how far)."""
        self._told = told
        thought = super().think(row)
        if told is None:
            return thought
        kept = replace(told, plan=thought.plan.plan, let_go=thought.plan.let_go)
        return replace(thought, plan=kept)

    def restore(self, rows: Sequence[LiveRow]) -> None:
        """As `Mind.restore`; plans are cut to what this world has room for."""
        picks, names = self.world.picks, self.world.marks
        super().restore([replace(r, plan=r.plan[:picks], let_go=r.let_go[:names]) for r in rows])

    def _decide(self, ranking: Ranking) -> tuple[list[Prewarm], Sequence[int]]:
        if self._told is None:
            return super()._decide(ranking)
        delays = self.world.config.delays
        known = {name: k for k, name in enumerate(self.follower.names)}
        picked = [p for p in self._told.plan if p.target in known][: self.world.picks]
        buckets = [min(range(len(delays)), key=lambda k: abs(delays[k] - p.delay_s)) for p in picked]
        named = [known[x] for x in self._told.let_go if x in known][: self.world.marks]
        self.world.plan([known[p.target] for p in picked], buckets, named)
        return [Prewarm(p.target, delays[k]) for p, k in zip(picked, buckets, strict=True)], named

"""A mind that may be told what was planned elsewhere, and goes on from there.

Both sides need it: the server is told what a device did while it was away, the device what the server plans.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rlmemo.live.mind import Mind, Thought
from rlmemo.store.live_ledger import LivePlan, LiveRow
from rlmemo.store.records import Prewarm

if TYPE_CHECKING:
    from env.ranking import Ranking
    from rlmemo.model.ask import FirstPick


def timed(thought: Thought, seconds: float) -> Thought:
    """With how long it took."""
    return replace(thought, plan=replace(thought.plan, took_s=seconds))


class ToldMind(Mind):
    """A `Mind` whose plan may come from elsewhere."""

    _told: LivePlan | None = None

    def think(self, row: LiveRow, told: LivePlan | None = None) -> Thought:
        """Take in the next event, and decide; or do as `told`, as far as this world has room for it (the
        thought says how far)."""
        self.see(row, told)
        return self.decide()

    def think_all(self, rows: Sequence[LiveRow], told: Sequence[LivePlan | None]) -> Iterator[Thought]:
        """The same of several events, one after the other as they are asked for; `took_s` says how long each
        took."""
        for row, done in zip(rows, told, strict=True):
            began = time.perf_counter()
            thought = self.think(row, done)
            yield thought if done else timed(thought, time.perf_counter() - began)

    def see(self, row: LiveRow, told: LivePlan | None = None) -> None:
        """Take in the next event, after which it is to be done as `told`, if anything is."""
        super().see(row)
        self._told = told

    def decide(self, said: FirstPick | None = None) -> Thought:
        """As `Mind.decide`, or as told."""
        thought, told = super().decide(said), self._told
        if told is None:
            return thought
        kept = replace(told, plan=thought.plan.plan, let_go=thought.plan.let_go)
        return replace(thought, plan=kept)

    def restoring(self, rows: Sequence[LiveRow]) -> Iterator[None]:
        """As `Mind.restoring`; plans are cut to what this world has room for."""
        picks, names = self.world.picks, self.world.marks
        return super().restoring([replace(r, plan=r.plan[:picks], let_go=r.let_go[:names]) for r in rows])

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

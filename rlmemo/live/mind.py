"""Who thinks about what comes: a policy that follows, a planner, and the judge's own world that goes on.

Plans are made with the memory that the judge's rules hold after everything that was planned before, so that
they are those of a replay of the same recording (tests/test_live_mind.py); what comes of them is the judge's
accounting, open by open (`env.judge.ongoing`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from env.errors import InputError
from env.judge.cost import Cost, WorldConfig
from env.judge.plans import FIELDS, OUTCOME_NAMES
from rlmemo.policies.following import Follower, PersonsPrompt, follower, names_of
from rlmemo.policies.planners import NEVER, Approved, OwnPlans, Threshold
from rlmemo.policies.shipped import shipped_planner
from rlmemo.store.live_ledger import LivePlan, LiveRow
from rlmemo.store.records import Prewarm

if TYPE_CHECKING:
    from env.judge.ongoing import Ongoing, Opened
    from env.ranking import Ranking
    from env.thumbs import Thumbs
    from env.timeline import Event
    from rlmemo.model.ask import FirstPick
    from rlmemo.policies.run import Setup

AT_A_TIME = 100
"""Events that are restored before somebody else may have a turn."""
LISTED = 5
"""How many probabilities are kept with a plan."""
OFF, UNUSED, ROOM = "off", "unused", "room"
"""Why somebody is out of memory: the machine was off, it was loaded early and not opened in time, or others
needed the room."""


@dataclass(frozen=True)
class Thought:
    """What is to be written after an event: the plan, the judge's record of the open, what earlier plans (by
    the id of their event) came to with it; whom the plan's loading has put out of memory; and who has left it
    since the plan before, and why (`OFF`, `UNUSED`, `ROOM`)."""

    plan: LivePlan
    record: dict[str, float]
    came: list[tuple[int, dict[str, Any]]]
    gone: tuple[str, ...]
    left: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _SeenNow:
    """An event that was taken in, and nothing is decided yet: the event before it, who was in memory then
    (and unused), and the judge's record of the open."""

    row: LiveRow
    earlier: Event | None
    residents: dict[int, bool]
    record: np.ndarray


@dataclass(frozen=True)
class Minding:
    """What a mind is made of, the same at every start: policy, planner, world, and memory in MB. wakes:
    whether it plans at wakes, where its planner does."""

    setup: Setup
    user: str
    tz: str
    budget_mb: float
    version: str
    threshold: float | None = None
    wakes: bool = False

    def planner(self) -> OwnPlans | Threshold:
        """What is planned by. Raises InputError for a run whose planner counts what is liked once more."""
        planner = self.setup.planner
        if isinstance(planner, Approved):
            raise InputError(
                "this run plans by what is liked most (--feedback-keep), which live does not follow; give "
                "--policy base, or a run that was trained without that option"
            )
        if planner is None:
            planner = shipped_planner(self.setup.world)
        if isinstance(planner, OwnPlans):
            return planner
        theta = planner.theta if self.threshold is None else self.threshold
        return replace(planner, theta=theta, wake=planner.wake if self.wakes else NEVER)

    def rules(self) -> WorldConfig:
        """The world's rules, with its memory in MB."""
        return replace(self.setup.world.rules(), budget_mb=self.budget_mb)

    def mind(self) -> Mind:
        """A mind that has seen nothing."""
        return Mind(self)


class Mind:
    """Follows one recording; see `Minding`. trouble: what somebody should know of who thinks."""

    trouble = ""

    def __init__(self, made: Minding) -> None:
        from env.judge.ongoing import Ongoing

        self.made, self.planner = made, made.planner()
        config, policy = made.rules(), made.setup.policy
        names = names_of(self.planner) and hasattr(policy, "soon") and config.max_let_go > 0
        self.at_wakes = isinstance(self.planner, Threshold) and self.planner.wake < NEVER
        self.world: Ongoing = Ongoing(config, names=names, wakes=self.at_wakes)
        self.follower: Follower = follower(policy, made.user, made.tz, self.planner)
        if isinstance(self.planner, OwnPlans) and not hasattr(self.follower, "own"):
            raise InputError(
                f"{policy.name}: its plans cannot be followed live; give --policy base, or a run"
            )
        self._names, self._costs, self._policy = names, made.setup.world.cost_model(), policy.name
        self._kinds: dict[str, str] = {}
        self._rows: list[int] = []
        self._came: dict[int, dict[str, Any]] = {}
        self._own: dict[int, int] = {}
        self._until: dict[str, float] = {}
        self._woken: list[int] | None = None
        self._seen: _SeenNow | None = None
        self.latest: Event | None = None

    def hear(self, thumbs: Thumbs | None) -> None:
        """What the person has said, all of it; minded from the next plan on."""
        self.follower.hear(thumbs)

    def restore(self, rows: Sequence[LiveRow]) -> None:
        """Stand where these events and their plans have led; only in a mind that has seen nothing."""
        for _ in self.restoring(rows):
            pass

    def restoring(self, rows: Sequence[LiveRow]) -> Iterator[None]:
        """The same, little by little: it stands there when nothing is left to iterate over."""
        delays = self.world.config.delays
        events: list[Opened] = []
        plans: list[tuple[list[int], list[int], list[int]]] = []
        woken: dict[int, tuple[float, list[int]]] = {}
        for k, row in enumerate(rows):
            if k % AT_A_TIME == AT_A_TIME - 1:
                yield
            if self._is_open(row):
                continue  # what stood between has been forgotten
            index, cost = self._see(row)
            events.append((row.event.t, index, cost, row.off))
            known = {name: k for k, name in enumerate(self.follower.names)}
            picked = [p for p in row.plan if p.target in known]
            self._expect(row.event.t, picked)
            plans.append((
                [known[p.target] for p in picked],
                [_nearest(delays, p.delay_s) for p in picked],
                [known[x] for x in row.let_go if x in known] if self._names else [],
            ))  # fmt: skip
            if picked:
                self._came[row.id] = {"prewarms": [None] * len(picked)}
            if row.woken is not None and self.at_wakes:
                t, at_wake = row.woken[0], [p for p in row.woken[1] if p.target in known]
                self._expect_woken(row, t, at_wake)
                woken[len(events) - 1] = t, [known[p.target] for p in at_wake]
        self.world.restore(events, plans, woken)
        self._resolved()
        if woken and max(woken) == len(events) - 1:
            self._woken = woken[len(events) - 1][1]

    def think(self, row: LiveRow) -> Thought:
        """Take in the next event, and decide."""
        self.see(row)
        return self.decide()

    def see(self, row: LiveRow) -> None:
        """Take in the next event; `decide` is to follow."""
        earlier, at_first = self.latest, self._residents()
        self._woken = None
        index, cost = self._see(row)
        record = self.world.open(row.event.t, index, cost, row.off)
        self._seen = _SeenNow(row, earlier, at_first, record)

    def question(self) -> PersonsPrompt | None:
        """What a language model is to read before `decide`, where it may be read together with others'."""
        asked: Any = getattr(self.follower, "question", None)
        return None if asked is None else asked()

    def decide(self, said: FirstPick | None = None) -> Thought:
        """Decide after the event that was seen. said: what the model says to `question` (None: it is asked
        here)."""
        assert self._seen is not None
        now, self._seen = self._seen, None
        row, record = now.row, now.record
        before = {x for x, _ in self.world.residents()}
        follower: Any = self.follower
        ranking = follower.rank() if said is None else follower.rank(said)
        picks, let_go = self._decide(ranking)
        after = {x for x, _ in self.world.residents()}
        names = self.follower.names
        why = {x: self._why(names[x], unused, row, now.earlier) for x, unused in now.residents.items()}
        left = [(names[x], why[x]) for x in now.residents if x not in before]
        left += [(names[x], ROOM) for x in sorted(before - after)]
        self._expect(row.event.t, picks)
        p, listed = ranking.probability[0], ranking.targets[0]
        likely = {
            names[x]: round(min(1.0, max(0.0, float(p[k]))), 6)
            for k, x in enumerate(listed[:LISTED].tolist())
            if x >= 0
        }
        none = float(ranking.none[0])
        plan = LivePlan(
            self._policy, self.made.version, picks, [names[x] for x in let_go if x >= 0], likely,
            min(1.0, max(0.0, none)) if math.isfinite(none) else None,
        )  # fmt: skip
        if picks:
            self._came[row.id] = {"prewarms": [None] * len(picks)}
        came = self._resolved()  # by the open, and by what this plan has put out
        told = {name: float(x) for name, x in zip(FIELDS, record, strict=True) if x}
        return Thought(plan, told, came, tuple(names[x] for x in sorted(before - after)), tuple(left))

    def wake(self, row: LiveRow, t: float) -> tuple[list[Prewarm], tuple[tuple[str, str], ...]]:
        """The machine was off, the person is back at t, and nothing is opened yet: what is loaded at once,
        and who has left memory, and why. row: the latest event's."""
        assert isinstance(self.planner, Threshold)
        left = tuple((self.follower.names[x], OFF) for x in self._residents())
        self.follower.wake(t)
        ranking = self.follower.rank()
        likely = (ranking.targets[0] >= 0) & (ranking.probability[0] >= self.planner.wake)
        self._woken = [int(x) for x in ranking.targets[0][likely][: self.world.picks]]
        self.world.wake(t, self._woken)
        made = [Prewarm(self.follower.names[x]) for x in self._woken]
        self._expect_woken(row, t, made)
        return made, left

    @property
    def woken(self) -> bool:
        """Whether it was decided at a wake after the latest event."""
        return self._woken is not None

    def memory(self) -> Mapping[str, bool]:
        """Who is in memory by the judge's rules, least recently used first, and whether it was loaded early
        and not used yet."""
        return {self.follower.names[x]: unused for x, unused in self._residents().items()}

    def _residents(self) -> dict[int, bool]:
        """The same by number; at a wake, what is loaded then, as nothing else is in memory."""
        return dict(self.world.residents()) if self._woken is None else dict.fromkeys(self._woken, True)

    def until(self) -> Mapping[str, float]:
        """How long who was loaded early and not used yet is held, unix seconds."""
        return {x: self._until[x] for x, unused in self.memory().items() if unused and x in self._until}

    def kind(self, target: str) -> str:
        """The kind of a target that was seen."""
        return self._kinds[target]

    def _expect(self, t: float, plan: Sequence[Prewarm]) -> None:
        """What a plan loads at t is held until it is opened, and no longer than the world's rules say."""
        ttl = self.world.config.ttl_s
        for p in plan:
            load = self._costs.cost(p.target, self._kinds[p.target]).load
            self._until[p.target] = t + p.delay_s + load + ttl

    def _expect_woken(self, row: LiveRow, t: float, plan: Sequence[Prewarm]) -> None:
        """What is loaded at the wake after an event stands behind what was planned after it."""
        if not plan:
            return
        own = len(row.plan)
        known = self._came.get(row.id) or {"prewarms": list((row.outcome or {}).get("prewarms", []))}
        before = [*known["prewarms"], *[None] * own][:own]
        self._came[row.id] = {"prewarms": [*before, *[None] * len(plan)]}
        self._own[row.id] = own
        self._expect(t, plan)

    def _why(self, target: str, unused: bool, row: LiveRow, earlier: Event | None) -> str:
        """Why somebody who was in memory before an event is not any more at it."""
        t, silence = row.event.t, self.world.config.off_after_s
        if math.isfinite(row.off) or (earlier is not None and t - earlier.t > silence):
            return OFF
        return UNUSED if unused and self._until.get(target, math.inf) <= t else ROOM

    def _is_open(self, row: LiveRow) -> bool:
        """Whether what a row opens is open already: collapsed, as everywhere."""
        same = self.latest is not None and row.event.target == self.latest.target
        return same and math.isinf(row.off)

    def _see(self, row: LiveRow) -> tuple[int, Cost]:
        event = self.latest = row.event
        kind = self._kinds.setdefault(event.target, event.kind)
        self._rows.append(row.id)
        self._until.pop(event.target, None)
        return self.follower.see(event), self._costs.cost(event.target, kind)

    def _decide(self, ranking: Ranking) -> tuple[list[Prewarm], Sequence[int]]:
        told = self.follower.soon() if self._names else None
        names, delays = self.follower.names, self.world.config.delays
        if isinstance(self.planner, Threshold):
            target, let_go = self.world.by_threshold(ranking, self.planner.theta, told)
            return [Prewarm(names[x], delays[0]) for x in target.tolist() if x >= 0], let_go.tolist()
        own: Any = self.follower
        slate = own.slate
        warm, free = self.world.memory(slate)
        said = own.own(warm, free, self.world.picks)
        picked = [
            (int(slate[p]), int(d)) for p, d in zip(said.place[0], said.delay[0], strict=True) if p >= 0
        ]
        named: list[int] = self.world.name(told).tolist() if told is not None else []
        self.world.plan([x for x, _ in picked], [d for _, d in picked], named)
        return [Prewarm(names[x], delays[d]) for x, d in picked], named

    def _resolved(self) -> list[tuple[int, dict[str, Any]]]:
        """What the judge knows now of prewarms that it did not know before, by the event of their plan."""
        touched: dict[int, dict[str, Any]] = {}
        for j, place, outcome, mb_s, lead in self.world.resolved():
            row = self._rows[j]
            if place >= self.world.picks:
                place = self._own[row] + place - self.world.picks
            one = self._came.setdefault(row, {"prewarms": []})
            one["prewarms"] += [None] * (place + 1 - len(one["prewarms"]))
            one["prewarms"][place] = {
                "came": OUTCOME_NAMES[outcome],
                "mb_s": round(mb_s, 3),
                "lead_s": None if np.isnan(lead) else round(lead, 3),
            }
            touched[row] = one
        done = list(touched.items())
        for row, one in done:
            if None not in one["prewarms"]:
                self._came.pop(row, None)
                self._own.pop(row, None)
        return done


def _nearest(delays: Sequence[float], seconds: float) -> int:
    """The bucket of a delay that was written down in seconds."""
    return int(np.abs(np.array(delays) - seconds).argmin())

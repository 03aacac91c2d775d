"""What opening costs: memory and seconds per target, and the configuration of the world.

A `CostModel` says, by target or by kind, how much memory a target holds and how long it takes to open
it cold and warm. Everything that the judge charges comes from here, so every preset names its source
and says which of its numbers is an assumption.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from env.errors import InputError
from env.timeline import KINDS, Timeline

MOST_MB = 1e12  # beyond it, sums of whole KiB are no longer exact in float64
TYPICAL_BUDGET = 8.0  # budget in typical (median) targets, when none is given in MB
LET_GO_RULES = ("lru", "lfu-decay", "gdsf", "s3fifo", "sieve", "expected", "belady")
WAKE_S = 60.0
"""How long before the first open after an assumed off the person is back, seconds. An assumption."""
PAST_RULES = LET_GO_RULES[:5]
"""The let-go rules that know the past alone, and need nobody to tell them more."""
EXPECTED = "expected"
"""The let-go rule that a policy has to feed: it goes by who is opened soon."""


@dataclass(frozen=True)
class Cost:
    """One target's cost. memory_mb: resident memory, MB. cold_s / warm_s: seconds from the request until
    it can be used, not resident / resident. load_s: seconds that a prewarm takes (default cold_s - warm_s:
    a prewarm does all that distinguishes a cold open from a warm one)."""

    memory_mb: float
    cold_s: float
    warm_s: float
    load_s: float | None = None

    def __post_init__(self) -> None:
        values = (self.memory_mb, self.cold_s, self.warm_s, self.load)
        if not all(math.isfinite(v) for v in values):
            raise InputError(f"cost {values} has a number that is not finite")
        if not 0 < self.memory_mb <= MOST_MB or self.warm_s < 0 or self.cold_s < self.warm_s or self.load < 0:
            raise InputError(
                f"cost (memory {self.memory_mb} MB, cold {self.cold_s} s, warm {self.warm_s} s, "
                f"load {self.load} s) breaks 0 < memory <= 1e12, 0 <= warm <= cold, load >= 0"
            )

    @property
    def load(self) -> float:
        """load_s, or its default."""
        return self.cold_s - self.warm_s if self.load_s is None else self.load_s


@dataclass(frozen=True)
class Costs:
    """Costs of one timeline's targets, in columns: float64 [n_targets] each, MB and seconds.

    typical: memory of the typical target, MB: the median over opens, so that a long tail of pages seen
    once does not make a person's memory small; 0 for the median over the targets.

    Memory is rounded up to whole KiB (1/1024 MB), so that sums of memory are exact in float64 and a
    resident set can be filled to exactly its budget, whatever the order of additions.
    """

    memory_mb: np.ndarray
    cold_s: np.ndarray
    warm_s: np.ndarray
    load_s: np.ndarray
    typical: float = 0.0

    def __post_init__(self) -> None:
        columns = [np.asarray(a, dtype=np.float64) for a in (
            self.memory_mb, self.cold_s, self.warm_s, self.load_s)]  # fmt: skip
        memory, cold, warm, load = columns
        if len({a.shape for a in columns}) != 1 or memory.ndim != 1:
            raise InputError("costs need four columns of one length")
        if not all(np.isfinite(a).all() for a in columns):
            raise InputError("costs hold a number that is not finite")
        if len(memory) and (
            ((memory <= 0) | (memory > MOST_MB)).any()
            or (warm < 0).any()
            or (cold < warm).any()
            or (load < 0).any()
        ):
            raise InputError("costs break 0 < memory <= 1e12, 0 <= warm <= cold, load >= 0")
        object.__setattr__(self, "memory_mb", np.ceil(memory * 1024.0) / 1024.0)
        object.__setattr__(self, "cold_s", cold)
        object.__setattr__(self, "warm_s", warm)
        object.__setattr__(self, "load_s", load)

    def __len__(self) -> int:
        return len(self.memory_mb)

    def typical_mb(self) -> float:
        """Memory of the typical target, MB (1.0 where there is none)."""
        if self.typical > 0:
            return self.typical
        return float(np.median(self.memory_mb)) if len(self) else 1.0


@dataclass(frozen=True)
class WorldConfig:
    """The rules of one world.

    budget_mb  memory for the resident set, MB; None for `budget_targets` times the typical target
    ttl_s      a prewarm that was not used expires this long after it was ready, seconds (>= 1)
    max_picks  K, prewarms per plan
    delays     delay buckets, seconds after the event; a plan names a bucket by its index
    let_go     the let-go rule: who leaves when room is needed and the plan names nobody; see
               `env.judge.let_go`. The no-prewarm world always lets the least recently used go
    max_let_go R, targets that a plan may let go first
    off_after_s    a longer pause means that the machine was switched off so long after its last open, and
                   nothing is resident afterwards; infinite: never
    close_after_s  the user closes what was not in front for so long; infinite: never
    """

    budget_mb: float | None = None
    budget_targets: float = TYPICAL_BUDGET
    ttl_s: float = 1800.0
    max_picks: int = 3
    delays: tuple[float, ...] = (0.0, 30.0, 300.0, 1800.0)
    let_go: str = "lru"
    max_let_go: int = 2
    off_after_s: float = math.inf
    close_after_s: float = math.inf

    def __post_init__(self) -> None:
        if self.budget_mb is not None and not 1 / 1024 <= self.budget_mb <= MOST_MB:
            raise InputError(f"budget_mb is {self.budget_mb}; give megabytes, 0.001 to {MOST_MB:g}")
        if not (math.isfinite(self.budget_targets) and self.budget_targets > 0):
            raise InputError(f"budget_targets is {self.budget_targets}; give a number > 0")
        if not (math.isfinite(self.ttl_s) and self.ttl_s >= 1.0):
            raise InputError(f"ttl_s is {self.ttl_s}; give seconds >= 1")
        if not 1 <= self.max_picks <= 64:
            raise InputError(f"max_picks is {self.max_picks}; give 1 to 64")
        if not 1 <= len(self.delays) <= 100 or not all(math.isfinite(d) and d >= 0 for d in self.delays):
            raise InputError(f"delays are {self.delays}; give 1 to 100 numbers of seconds >= 0")
        if self.let_go not in LET_GO_RULES:
            raise InputError(f"let_go is {self.let_go!r}; give one of {', '.join(LET_GO_RULES)}")
        if not 0 <= self.max_let_go <= 64:
            raise InputError(f"max_let_go is {self.max_let_go}; give 0 to 64")
        for name in ("off_after_s", "close_after_s"):
            if not getattr(self, name) >= 1.0:
                raise InputError(f"{name} is {getattr(self, name)}; give seconds >= 1, or inf for never")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> WorldConfig:
        """Rules from a mapping of the fields above (from YAML, say). Raises InputError for any other key."""
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise InputError(f"the world's rules have no {key!r}; they are {', '.join(known)}")
        values = dict(given)
        if "delays" in values:
            values["delays"] = tuple(float(d) for d in values["delays"])
        return cls(**values)

    def offs(self, timeline: Timeline) -> tuple[np.ndarray, np.ndarray]:
        """When the machine was switched off since the event before each, and when the person was back then:
        float64 [n] each, infinite where it was not. Offs are those that the timeline records and those that
        `off_after_s` assumes. Of several between two events the first counts; of wakes the last one recorded,
        if no off follows it. Else the wake is assumed: `WAKE_S` before the event, and right after the last
        off where that would be before it."""
        t = timeline.t
        off, wake = np.full((2, len(t)), np.inf)
        last, back = np.full((2, len(t)), -np.inf)
        after = np.flatnonzero(np.diff(t) > self.off_after_s) + 1
        off[after] = last[after] = t[after - 1] + self.off_after_s
        at_off, at_wake = timeline.switched()
        until_then = np.nextafter(timeline.wakes, -np.inf)  # it was off, whether or not that is recorded
        for at, since, times, latest in (
            (at_off, timeline.offs, timeline.offs, last),
            (at_wake, until_then, timeline.wakes, back),
        ):
            between = (at > 0) & (at < len(t))
            np.minimum.at(off, at[between], since[between])
            np.maximum.at(latest, at[between], times[between])
        after = np.flatnonzero(np.isfinite(off))
        assumed = np.maximum(np.nextafter(last[after], np.inf), t[after] - WAKE_S)
        wake[after] = np.where(back[after] > last[after], back[after], assumed)
        return off, wake

    def woken(self, timeline: Timeline) -> Timeline:
        """The timeline, every wake of it looked at when the person is back, and not right after the event
        before; itself where there is none."""
        back = self.offs(timeline)[1][1:]
        if not np.isfinite(back).any():
            return timeline
        now = timeline.t.copy()
        now[:-1] = np.where(np.isfinite(back), back, now[:-1])
        return replace(timeline, now=now)

    def resolved(self, costs: Costs) -> WorldConfig:
        """The same rules with the budget in MB, rounded down to whole KiB (see `Costs`)."""
        budget = self.budget_targets * costs.typical_mb() if self.budget_mb is None else self.budget_mb
        return replace(self, budget_mb=max(1.0, math.floor(min(budget, MOST_MB) * 1024.0)) / 1024.0)

    def budget(self, costs: Costs) -> float:
        """The memory budget in MB."""
        value = self.resolved(costs).budget_mb
        assert value is not None
        return value


@dataclass(frozen=True)
class CostModel:
    """Costs by target name, else by kind, else `default`; `name` and `source` go into every report.

    spread: by kind, the lightest and the heaviest of its targets. Where it names a target's kind, the target
    lies somewhere between the two, in memory and in time apart, on a logarithmic scale; where is drawn from
    its name alone, so that it costs the same for everybody.
    """

    name: str
    source: str
    default: Cost
    by_kind: Mapping[str, Cost] = field(default_factory=dict)
    by_target: Mapping[str, Cost] = field(default_factory=dict)
    spread: Mapping[str, tuple[Cost, Cost]] = field(default_factory=dict)

    def cost(self, target: str, kind: str = "app") -> Cost:
        """What opening `target` costs."""
        if target in self.by_target:
            return self.by_target[target]
        if kind in self.spread:
            return _between(*self.spread[kind], target)
        return self.by_kind.get(kind) or self.default

    def arrays(self, timeline: Timeline) -> Costs:
        """Costs of the timeline's targets, float64 [n_targets] each. A target's kind is that of its
        first event."""
        kinds = np.zeros(len(timeline.names), np.int8)
        kinds[timeline.target[::-1]] = timeline.kind[::-1]
        rows = [self.cost(name, KINDS[k]) for name, k in zip(timeline.names, kinds, strict=True)]
        memory = np.array([c.memory_mb for c in rows], dtype=np.float64)
        return Costs(
            memory_mb=memory,
            typical=float(np.median(memory[timeline.target])) if len(timeline) else 0.0,
            cold_s=np.array([c.cold_s for c in rows], dtype=np.float64),
            warm_s=np.array([c.warm_s for c in rows], dtype=np.float64),
            load_s=np.array([c.load for c in rows], dtype=np.float64),
        )


def _between(light: Cost, heavy: Cost, target: str) -> Cost:
    """A cost between two, by the name of the target."""
    digest = hashlib.sha256(target.encode()).digest()
    size, time = (int.from_bytes(digest[k : k + 8], "big") / 2.0**64 for k in (0, 8))

    def at(least: float, most: float, share: float) -> float:
        return round(least * (most / least) ** share, 4)

    return Cost(
        at(light.memory_mb, heavy.memory_mb, size), at(light.cold_s, heavy.cold_s, time),
        at(light.warm_s, heavy.warm_s, time),
    )  # fmt: skip

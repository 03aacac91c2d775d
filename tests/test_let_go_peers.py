"""Miss counts of the let-go rules are those of `libcachesim`, the library of the people who wrote s3fifo and
sieve; and the shares of cold opens that DESIGN section 4 names are reached.

Parameters: s3fifo's small queue is a quarter of the memory (libcachesim's default, a tenth of 8, holds
no target at all). libcachesim's gdsf puts a newcomer in before it makes room, so that the newcomer itself may
leave; here it is what the user has just opened, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.judge.accounting import replay
from env.judge.cost import LET_GO_RULES, Costs, WorldConfig
from env.judge.plans import Plans
from env.sources import load_timelines
from env.timeline import Timeline

SPECS = [pytest.param("webtrackr", marks=pytest.mark.real_data), "demo"]
ROOM = 8


@lru_cache
def people(spec: str) -> tuple[Timeline, ...]:
    return tuple(load_timelines(spec).timelines)


@lru_cache
def cold(spec: str, rule: str) -> tuple[np.ndarray, ...]:
    """Which opens are cold with room for eight targets of one size, and nothing loaded early."""
    out = []
    for timeline in people(spec):
        one = np.ones(len(timeline.names))
        config = WorldConfig(budget_mb=float(ROOM), let_go=rule)
        found = replay(timeline, Costs(one, 4 * one, one, 3 * one), config, Plans.empty(len(timeline)))
        out.append(found.cold)
    return tuple(out)


def misses_of(make: Callable[[], Any], opens: Sequence[int]) -> int:
    """How many requests a cache of libcachesim misses."""
    import libcachesim

    cache, next_use, after = make(), [0] * len(opens), {}
    for j in range(len(opens) - 1, -1, -1):
        next_use[j], after[opens[j]] = after.get(opens[j], 2**62), j
    misses = 0
    for j, x in enumerate(opens):
        request = libcachesim.Request()
        request.obj_id, request.obj_size, request.clock_time = x + 1, 1, j
        request.next_access_vtime = next_use[j]
        misses += not cache.get(request)
    return misses


def gdsf(opens: Sequence[int], newcomer_first: bool) -> int:
    """Misses of gdsf with equal sizes and costs: the newcomer comes in before room is made, or afterwards."""
    inflation, misses = 0, 0
    value: dict[int, tuple[int, int]] = {}
    uses: dict[int, int] = {}
    for j, x in enumerate(opens):
        if x in value:
            uses[x] += 1
            value[x] = (inflation + uses[x], j)
            continue
        misses, uses[x] = misses + 1, 1
        if newcomer_first:
            value[x] = (inflation + 1, j)
        if len(value) + (not newcomer_first) > ROOM:
            leaves = min(value, key=lambda y: value[y])
            inflation = value.pop(leaves)[0]
        if not newcomer_first:
            value[x] = (inflation + 1, j)
    return misses


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("rule", ["lru", "sieve", "s3fifo", "belady"])
def test_misses_are_those_of_libcachesim(spec: str, rule: str) -> None:
    import libcachesim

    makers = {
        "lru": lambda: libcachesim.LRU(ROOM, hashpower=12),
        "sieve": lambda: libcachesim.Sieve(ROOM, hashpower=12),
        "s3fifo": lambda: libcachesim.S3FIFO(ROOM, hashpower=12, small_size_ratio=0.25),
        "belady": lambda: libcachesim.Belady(ROOM, hashpower=12),
    }
    ours = [int(found.sum()) for found in cold(spec, rule)]
    assert ours == [misses_of(makers[rule], timeline.target.tolist()) for timeline in people(spec)]


@pytest.mark.parametrize("spec", SPECS)
def test_gdsf_differs_from_libcachesim_only_in_who_may_leave(spec: str) -> None:
    import libcachesim

    for timeline, found in zip(people(spec), cold(spec, "gdsf"), strict=True):
        opens = timeline.target.tolist()
        assert misses_of(lambda: libcachesim.GDSF(ROOM, hashpower=12), opens) == gdsf(opens, True)
        assert int(found.sum()) == gdsf(opens, False)


def table() -> str:
    """Shares of cold opens by rule, as a Markdown table; last fifth of each user."""
    rules = [rule for rule in LET_GO_RULES if rule != "expected"]
    lines = ["| | " + " | ".join(rules) + " |", "|---" * (len(rules) + 1) + "|"]
    for spec in ("webtrackr", "demo"):
        last = [np.concatenate([x[int(0.8 * len(x)) :] for x in cold(spec, rule)]).mean() for rule in rules]
        lines.append(f"| {spec} | " + " | ".join(f"{x:.3f}" for x in last) + " |")
    return "\n".join(lines)


@pytest.mark.real_data
def test_the_table_of_the_docs(repo_root: Path) -> None:
    print(table())
    assert table() in (repo_root / "docs" / "accounting.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("spec", "lru", "lfu_decay", "belady"),
    [
        pytest.param("webtrackr", 0.478, 0.440, 0.357, marks=pytest.mark.real_data),
        ("demo", 0.274, 0.210, 0.166),
    ],
)
def test_shares_of_cold_opens(spec: str, lru: float, lfu_decay: float, belady: float) -> None:
    """Last fifth of each user, as DESIGN section 4 states them."""
    for rule, share in (("lru", lru), ("lfu-decay", lfu_decay), ("belady", belady)):
        last = np.concatenate([found[int(0.8 * len(found)) :] for found in cold(spec, rule)])
        assert last.mean() == pytest.approx(share, abs=0.0006)

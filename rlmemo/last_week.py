"""What prewarming would have saved a person lately: a policy replayed over the last days of a timeline.

The threshold is tuned on everything before those days, so that the days are judged as they would have
been lived.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from env.timeline import Timeline


@dataclass(frozen=True)
class Saved:
    """Sums over the days. waited_s: waiting without prewarming, seconds; saved_s: less of it with
    prewarming; wasted_mb_min: memory held for nothing, MB x minutes."""

    opens: int
    days: int
    policy: str
    waited_s: float
    saved_s: float
    prewarms: int
    hits: int
    wasted: int
    wasted_mb_min: float


def would_have_saved(
    timeline: Timeline, *, days: int = 7, policy: str = "backoff3", cost: str = "desktop"
) -> Saved | None:
    """Replay the last `days` days of a collapsed timeline; None where there is too little before them."""
    from env.cost import WorldConfig, cost_model
    from env.plans import FIELDS
    from reward import parse_reward
    from rlmemo.policies import make_policy
    from rlmemo.policies.planners import Window, replay_threshold, tune_threshold

    n = len(timeline)
    start = int(np.searchsorted(timeline.t, timeline.t[-1] - days * 86400.0, side="right")) if n else 0
    if start < 50 or n - start < 2:
        return None
    costs, world = cost_model(cost).arrays(timeline), WorldConfig()
    ranking = make_policy(policy).rank(timeline, np.arange(n - 1, dtype=np.int64))
    before = Window(timeline, costs, start // 2, start, ranking[np.arange(start // 2 - 1, start - 1)])
    threshold = tune_threshold([before], world, parse_reward("net_seconds"))
    window = Window(timeline, costs, start, n, ranking[np.arange(start - 1, n - 1)])
    outcomes, _ = replay_threshold(window, world, threshold)
    total = dict(zip(FIELDS, outcomes.table[start:n].sum(axis=0).tolist(), strict=True))
    return Saved(
        opens=n - start,
        days=days,
        policy=policy,
        waited_s=total["base_wait_s"],
        saved_s=total["saved_s"],
        prewarms=int(total["planned"]),
        hits=int(total["hit"]),
        wasted=int(total["wasted"]),
        wasted_mb_min=total["wasted_mb_s"] / 60.0,
    )

"""Why a decision was made: what the past knew of each candidate, counted from the opens in the store.

The counts are those that the policies look at (`env.slate.slate`), before any smoothing, so that they can be
checked by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from dashboard.summary import DAY_S
from dashboard.words import shown, span
from env.timeline import zone

if TYPE_CHECKING:
    from rlmemo.store.database import Store
    from rlmemo.store.ratings import Moment


@dataclass(frozen=True)
class Known:
    """What the opens up to a moment say of one candidate.

    followed, left: how often it came right after what is open now, of how often that was left. followed2,
    left2: the same after the last two. opens, of: how often it was opened, of all opens. ago_s: seconds since
    it was last open, None where it never was. at_hour, of_hour: its opens within an hour of this time of
    day, of all opens within it.
    """

    followed: int
    left: int
    followed2: int
    left2: int
    opens: int
    of: int
    ago_s: float | None
    at_hour: int
    of_hour: int


def known(t: np.ndarray, target: np.ndarray, offset_s: float, wanted: Iterable[int]) -> dict[int, Known]:
    """What is known of each target in `wanted` right after the last event.

    t: unix seconds float64 [n], target: int [n], both in order, repeats collapsed, n >= 1. offset_s: local
    minus universal time; one for all events, so that an hour's shift in spring blurs the hours a little.
    """
    nexts, here = target[1:], target[:-1]
    after = nexts[here == target[-1]]
    after2 = nexts[1:][(here[1:] == target[-1]) & (here[:-1] == target[-2])] if len(target) > 1 else nexts[:0]
    seconds = (t + offset_s) % DAY_S
    apart = np.abs(seconds - seconds[-1])
    at_hour = target[np.minimum(apart, DAY_S - apart) <= 3600.0]
    found = {}
    for x in wanted:
        mine = np.flatnonzero(target == x)
        found[x] = Known(
            followed=int((after == x).sum()),
            left=len(after),
            followed2=int((after2 == x).sum()),
            left2=len(after2),
            opens=len(mine),
            of=len(target),
            ago_s=float(t[-1] - t[mine[-1]]) if len(mine) else None,
            at_hour=int((at_hour == x).sum()),
            of_hour=len(at_hour),
        )
    return found


def of_moment(store: Store, moment: Moment, names: Sequence[str]) -> dict[str, Known]:
    """What the stored opens knew of `names` at a moment; empty where they are not stored (any more)."""
    p = moment.prediction
    if p.timeline_id is None:
        return {}
    rows = store.rows(
        "SELECT t, target FROM events WHERE timeline_id = ? AND t <= ? ORDER BY t, id", [p.timeline_id, p.t]
    )
    kept = [r for r, before in zip(rows, [None, *rows], strict=False)
            if before is None or r["target"] != before["target"]]  # fmt: skip
    if not kept or (moment.steps and kept[-1]["target"] != moment.steps[-1][1]):
        return {}
    ids: dict[str, int] = {}
    target = np.array([ids.setdefault(r["target"], len(ids)) for r in kept])
    wanted = {name: ids.setdefault(name, len(ids)) for name in names}
    offset = datetime.fromtimestamp(p.t, UTC).astimezone(zone(moment.tz)).utcoffset()
    found = known(
        np.array([r["t"] for r in kept]), target, offset.total_seconds() if offset else 0.0, wanted.values()
    )
    return {name: found[number] for name, number in wanted.items()}


def sentence(k: Known, steps: Sequence[tuple[float, str]]) -> str:
    """What is known of a candidate in plain words; `steps` are the moment's last events."""
    if not k.opens:
        return "never opened before"
    now = shown(steps[-1][1], 24) if steps else "what is open"
    parts = []
    if k.left:
        parts.append(f"came after {now} {k.followed:,} of {k.left:,} times")
    if k.left2 > 1 and len(steps) > 1:
        parts.append(f"after {shown(steps[-2][1], 24)} and {now} {k.followed2:,} of {k.left2:,}")
    if k.ago_s is not None:
        parts.append(f"last opened {span(k.ago_s)} ago")
    if k.of_hour:
        parts.append(f"{_percent(k.at_hour / k.of_hour)} of the opens around this time of day")
    parts.append(f"{_percent(k.opens / k.of)} of all")
    return "; ".join(parts)


def _percent(share: float) -> str:
    return "under 1%" if 0 < share < 0.01 else f"{100 * share:.0f}%"

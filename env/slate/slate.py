"""The slate: which targets could come next, and what is known of each, from the past alone.

For every event i of a timeline, `build_slates` looks at events 0..i and lists up to `size` targets
that may be opened next, best first, with a row of statistics for each. The slate does not depend on
what is warm, so it is computed once per timeline and the environment, the policies and the trainers
only look it up.

Candidates are *recalled* by one blended score over every target seen so far (successors of the last
one to three targets, at this hour, after this kind of gap, on this site; recency; frequency), so a
target that nobody could have known of is never in a slate. The statistics are the features of the
gradient-boosted ranker and, binned, the tokens that the language model reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from env.timeline import KINDS, Timeline

SLATE_SIZE = 12

FEATURES: tuple[str, ...] = (
    "share1",  # how often the candidate followed this target, of all that followed it (smoothed)
    "share2",  # the same after the last two targets
    "share3",  # the same after the last three
    "log_n1",  # log(1 + count) behind share1
    "log_n2",
    "log_n3",
    "fresh_share1",  # share1 with counts that halve every 20 occurrences of this target
    "site_share",  # share after any page of this site (the target itself for apps)
    "daypart_share",  # share1 among events of the same quarter of the day
    "pace_share",  # share1 among events reached at the same pace (gap before this event)
    "last_successor",  # 1 the most recent successor of this target, 1/2 the one before, ... 0 none
    "back_share",  # how often this target followed the candidate, of all that followed the candidate
    "skip_share",  # how often the candidate came two events after the previous target
    "frequency",  # share of all events so far
    "log_count",  # log(1 + opens so far)
    "recent_frequency",  # share of the last events, weights halving every 20 events
    "slow_frequency",  # the same, halving every 300 events
    "hour_share",  # share of the events within an hour of this time of day (smoothed)
    "weekpart_share",  # share of the events on work days, or on weekends, as today is
    "log_events_ago",  # log(1 + events since it was last open)
    "log_seconds_ago",  # log(1 + seconds since it was last open)
    "overdue",  # log(seconds since last open / its mean interval), 0 where unknown, in [-4, 4]
    "same_site",  # 1 when it shares the registrable domain of the current page
    "start_share",  # share of the session starts (a gap of 30 min before)
)
CONTEXT: tuple[str, ...] = (
    "log_gap",  # log(1 + seconds between the previous event and this one; at a wake, since this one)
    "hour",  # local hour of day, 0..24
    "weekday",  # local weekday, Monday 0
    "new_rate",  # share of recent events that were never seen before, halving every 50 events
    "miss_rate",  # share of recent events that were not in the slate before them
    "log_support1",  # log(1 + times this target was left before)
    "log_support2",
    "log_support3",
    "log_events",  # log(1 + events so far)
    "bounce",  # 1 when this target was also open two events ago
    "log_session",  # log(1 + events since the last gap of 30 min)
    "pace",  # mean log(1 + gap), halving every 10 events
)
ORDERS = 7  # contexts that are counted: o1, o2, o3, site, daypart, pace, skip
PACES_S = (10.0, 60.0, 1800.0)  # edges of the gap before an event, for the context "pace"


@dataclass(frozen=True)
class Slates:
    """Slates of every decision of one timeline (row i knows events 0..i).

    candidates  int32 [n, size], target indices, best first, -1 = empty place; never the current target, but
                at a wake after a recorded off
    features    float32 [n, size, len(FEATURES)], 0 at empty places
    context     float32 [n, len(CONTEXT)]
    answer      int32 [n], place in the slate of the target opened next, -1 if it is not there.
                This is the label: it is the only column that looks at event i + 1.
    """

    candidates: np.ndarray
    features: np.ndarray
    context: np.ndarray
    answer: np.ndarray

    def at(self, rows: np.ndarray | slice) -> Slates:
        """Some of the decisions, one row each."""
        return Slates(self.candidates[rows], self.features[rows], self.context[rows], self.answer[rows])


def site_ids(timeline: Timeline) -> np.ndarray:
    """Site of every target, int32 [len(names)]: targets with equal `site_key` share one. A target is a page
    if it was opened as one the first time, so that nothing later changes its site."""
    kind = np.zeros(len(timeline.names), np.int8)
    targets, first = np.unique(timeline.target, return_index=True)
    kind[targets] = timeline.kind[first]
    page = KINDS.index("page")
    sites: dict[str, int] = {}
    keys = [site_key(name, kind[i] == page) for i, name in enumerate(timeline.names)]
    return np.array([sites.setdefault(key, len(sites)) for key in keys], dtype=np.int32)


def site_key(name: str, page: bool) -> str:
    """What a target's site is known by: the last two labels of a page's host (three where the second-level
    label is a public one such as co.uk); anything that is not a page is alone."""
    if not page:
        return f"\0{name}"
    labels = name.split("/")[0].split(":")[0].lower().split(".")
    public = len(labels) > 2 and labels[-2] in {"co", "com", "org", "net", "gov", "ac", "edu"}
    return ".".join(labels[-3:] if public else labels[-2:])


def build_slates(timeline: Timeline, size: int = SLATE_SIZE) -> Slates:
    """Slates for every event of `timeline`, from the past alone; see `Slates`.

    Time O(events x targets), memory O(events x size). Deterministic. Meant for collapsed timelines
    (the current target never stands in its own slate). Where the timeline has `now`, a moment knows the
    same events and reads the later clock: hours, parts of the week, seconds ago. At a wake after a recorded
    off what was opened last is not open any more, and may come next like any other.
    """
    local = timeline.local()
    clock = None
    if timeline.now is not None:
        closed = np.append(timeline.rested()[1:], False)[: len(timeline)]
        clock = timeline.now, timeline.local_now(), closed
    return slates_from_columns(
        timeline.t, timeline.target, local, site_ids(timeline), len(timeline.names), size, clock
    )


def slates_from_columns(
    t: np.ndarray, target: np.ndarray, local: np.ndarray, site: np.ndarray, n_targets: int, size: int,
    clock: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Slates:  # fmt: skip
    """`build_slates` on bare columns: t and local float64 [n], target int32 [n], site int32 [n_targets].
    clock: when the moments are looked at, as of `Timeline.now` and `Timeline.local_now`, and whether the
    target of the event is closed then, bool [n] (None: at once)."""
    now, local_now, closed = (t, local, np.zeros(len(t), bool)) if clock is None else clock
    new_counts, walk = _compiled()
    n = len(t)
    slates = Slates(
        np.full((n, size), -1, np.int32),
        np.zeros((n, size, len(FEATURES)), np.float32),
        np.zeros((n, len(CONTEXT)), np.float32),
        np.full(n, -1, np.int32),
    )
    walk(
        new_counts(n, ORDERS, int(n_targets)),
        t.astype(np.float64),
        target.astype(np.int32),
        (local // 3600 % 24).astype(np.int64),
        ((local // 86400 + 3) % 7).astype(np.int64),
        local / 3600 % 24,
        now.astype(np.float64),
        (local_now // 3600 % 24).astype(np.int64),
        ((local_now // 86400 + 3) % 7).astype(np.int64),
        local_now / 3600 % 24,
        np.where(closed, -1, target).astype(np.int32),
        site,
        _contexts(t, target, local, site),
        np.full(size, -1, np.int32),
        slates.candidates,
        slates.features,
        slates.context,
        slates.answer,
    )
    return slates


def _contexts(t: np.ndarray, target: np.ndarray, local: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Opaque context ids, int32 [ORDERS, n]: events with equal ids are counted together.

    The ids are only compared for equality, so that numbering them over the whole timeline leaks
    nothing.
    """
    n = len(t)
    cur = target.astype(np.int64)
    back1 = np.concatenate([[-1], cur[:-1]])[:n]
    back2 = np.concatenate([[-1, -1], cur[:-2]])[:n]
    gap = np.diff(t, prepend=t[:1])
    pace = np.digitize(gap, PACES_S)
    daypart = (local // 21600 % 4).astype(np.int64)
    big = int(cur.max(initial=0)) + 2
    keys = (
        cur,
        cur * big + back1 + 1,
        (cur * big + back1 + 1) * big + back2 + 1,
        site[target].astype(np.int64) if n else cur,
        cur * 4 + daypart,
        cur * 4 + pace,
        back1,
    )
    return np.stack([np.unique(k, return_inverse=True)[1].astype(np.int32) for k in keys])


@lru_cache(maxsize=1)
def _compiled() -> Any:
    from env.slate.slate_kernel import new_counts, walk

    return new_counts, walk

"""Ratings as thumbs that a timeline carries (`Timeline.thumbs`), so that policies read what was said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from env.thumbs import HOURS, Thumb, Thumbs
from env.timeline import Timeline
from rlmemo.approval.placed_ratings import Placed, place_ratings, read_ratings
from rlmemo.store.database import Store


def told(timelines: Sequence[Timeline], placed: Sequence[Placed], *, now: bool = False) -> list[Timeline]:
    """The timelines with the thumbs that their people gave; those of whom none is there stay as they are.

    A thumb counts at moments after later events than the one that it is about, as if it had been given there:
    so nothing that was said of a moment is known at it or before, nor at the wake that follows it. now:
    who asks, asks today, when all of it was said; then it counts at every moment.
    """
    return [
        replace(timeline, thumbs=Thumbs.of(_thumb(timeline, p, now) for p in placed if p.user == user))
        if any(p.user == user for p in placed)
        else timeline
        for user, timeline in enumerate(timelines)
    ]


def told_today(timelines: Sequence[Timeline], store: Store) -> list[Timeline]:
    """As `told`, now, by all ratings of a store that count."""
    return told(timelines, place_ratings(read_ratings(store), timelines).placed, now=True)


def _thumb(timeline: Timeline, placed: Placed, now: bool) -> Thumb:
    i = placed.index
    targets = [int(x) for x in placed.target if x >= 0]
    known = i + 1 < len(timeline) and len(targets) > 0
    return Thumb(
        since=-math.inf if now else float(timeline.t[i]),
        hour=int(timeline.local()[i] // 3600 % HOURS),
        up=placed.rated.thumbs == 1,
        hit=bool(int(timeline.target[i + 1]) in targets) if known else None,
        targets=tuple(timeline.names[x] for x in targets),
    )

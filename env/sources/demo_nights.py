"""`demo-nights`: the people of `demo`, doing the same, with machines that are switched off at night.

Nobody ever did any of this. The longest pause of a night that begins between six in the evening and six in
the morning, and lasts three hours or more, is one in which the machine is off, but for one night in eight in
which it was left on. It goes off some minutes after what was opened last, and is back a little before the
first opening of the morning: when, is drawn from the seed.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from env.sources import demo
from env.sources.report import Loaded
from env.sources.rows import finish
from env.timeline import Timeline

EVENING_S, MORNING_S = 18 * 3600.0, 12 * 3600.0
"""When a night's pause may begin, local time, and for how long from then on."""
SHORTEST_S = 3 * 3600.0
LEFT_ON = 0.125
OFF_AFTER_S = (60.0, 900.0)
"""How long after the last of the evening the machine goes off: from, to."""
BACK_BEFORE_S = (20.0, 240.0)
"""How long before the first of the morning it is back: from, to."""


def load(*, seed: int = 0, collapsed: bool = True, tz: str | None = None, weeks: int = demo.WEEKS) -> Loaded:
    """The timelines of `demo`, as its `load` says, with recorded offs and wakes."""
    people = demo.load(seed=seed, collapsed=False, tz=tz, weeks=weeks)
    timelines = [_with_nights(x, seed) for x in people.timelines]
    report = people.report
    report.source = f"demo-nights (synthetic, seed {seed})"
    report.rows_read += sum(len(x.offs) + len(x.wakes) for x in timelines)
    return finish("demo-nights", timelines, report, collapsed=collapsed, synthetic=True)


def _with_nights(timeline: Timeline, seed: int) -> Timeline:
    rng = random.Random(f"rlmemo-demo-nights:{seed}:{timeline.user}")
    ends = timeline.t + np.nan_to_num(timeline.duration)
    since_evening = timeline.local()[:-1] - EVENING_S
    pause = np.where(since_evening % 86400.0 < MORNING_S, np.diff(timeline.t), 0.0)
    night = np.floor(since_evening / 86400.0)
    offs, wakes = [], []
    for one in np.unique(night):
        of_it = np.flatnonzero(night == one)
        last = int(of_it[np.argmax(pause[of_it])])
        if pause[last] < SHORTEST_S or rng.random() < LEFT_ON:
            continue
        offs.append(round(float(ends[last]) + rng.uniform(*OFF_AFTER_S), 3))
        wakes.append(round(float(timeline.t[last + 1]) - rng.uniform(*BACK_BEFORE_S), 3))
    return replace(timeline, offs=np.array(offs), wakes=np.array(wakes))

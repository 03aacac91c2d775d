"""The compiled walk behind `env.slate.slate`: one pass over a timeline, keeping counts as it goes.

`take_event` is one step of it: `walk` takes all events of a timeline, `env.slate.slate_stream` one when it
comes, so that both give the same slates to the last bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from env.compiled import compiled

# Blend that orders the slate before any model has seen it. Set by hand and not fitted to anything; its own
# order on webtrackr's validation part is hr@1/3/5 .308/.504/.573 (experiments/LOG.md).
BLEND_SHARE1, BLEND_SHARE2, BLEND_SHARE3 = 0.8, 0.7, 0.5
BLEND_FRESH, BLEND_LAST, BLEND_PACE, BLEND_DAYPART = 0.5, 0.15, 0.4, 0.3
BLEND_RECENT, BLEND_SLOW, BLEND_HOUR = 0.5, 0.3, 0.2
BLEND_RECENCY, BLEND_SITE, BLEND_SAME_SITE = 0.12, 0.15, 0.02
SESSION_GAP = 1800.0
HALF20, HALF50, HALF300, HALF10 = 0.5 ** (1 / 20), 0.5 ** (1 / 50), 0.5 ** (1 / 300), 0.5 ** (1 / 10)


# Places in `Counts.number`.
NEW_RATE, MISS_RATE, PACE, SESSION, FAST_TOTAL, SLOW_TOTAL, STARTS_TOTAL, N_SEEN = range(8)


class Counts(NamedTuple):
    """Everything that is counted of the events so far, for up to n events, orders contexts, m targets."""

    # Successor counts: per order a linked list of (target, count, faded count, last use) per context.
    head: np.ndarray  # int32 [orders, n + 1]
    total: np.ndarray  # float64 [orders, n + 1]
    faded_total: np.ndarray  # float64 [n + 1]
    e_next: np.ndarray  # int32 [orders, n + 1]
    e_target: np.ndarray  # int32 [orders, n + 1]
    e_count: np.ndarray  # float64 [orders, n + 1]
    e_faded: np.ndarray  # float64 [n + 1], order 0 only
    e_seen: np.ndarray  # float64 [n + 1], total of the context when e_faded was last brought up to date
    used: np.ndarray  # int64 [orders]
    last3: np.ndarray  # int32 [n + 1, 3], last three distinct successors per target context
    opened: np.ndarray  # float64 [m], times the target was opened
    left: np.ndarray  # float64 [m], times the target was followed by something
    last_i: np.ndarray  # int64 [m]
    first_t: np.ndarray  # float64 [m]
    last_t: np.ndarray  # float64 [m]
    fast: np.ndarray  # float64 [m]
    slow: np.ndarray  # float64 [m]
    by_hour: np.ndarray  # float64 [m, 24]
    hour_total: np.ndarray  # float64 [24]
    by_part: np.ndarray  # float64 [m, 2]
    part_total: np.ndarray  # float64 [2]
    starts: np.ndarray  # float64 [m]
    n_o: np.ndarray  # float64 [orders, m], scratch
    faded: np.ndarray  # float64 [m], scratch
    seen: np.ndarray  # int32 [m], targets in order of first appearance
    score: np.ndarray  # float64 [m], scratch
    number: np.ndarray  # float64 [8], see NEW_RATE and the like


def new_counts(n: int, orders: int, m: int) -> Counts:
    """Nothing seen yet; room for n events and m targets."""
    number = np.zeros(8)
    number[NEW_RATE], number[MISS_RATE], number[PACE] = 0.3, 0.5, 3.0
    return Counts(
        np.full((orders, n + 1), -1, np.int32),
        np.zeros((orders, n + 1)),
        np.zeros(n + 1),
        np.full((orders, n + 1), -1, np.int32),
        np.zeros((orders, n + 1), np.int32),
        np.zeros((orders, n + 1)),
        np.zeros(n + 1),
        np.zeros(n + 1),
        np.zeros(orders, np.int64),
        np.full((n + 1, 3), -1, np.int32),
        np.zeros(m),
        np.zeros(m),
        np.full(m, -1, np.int64),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m),
        np.zeros((m, 24)),
        np.zeros(24),
        np.zeros((m, 2)),
        np.zeros(2),
        np.zeros(m),
        np.zeros((orders, m)),
        np.zeros(m),
        np.empty(m, np.int32),
        np.empty(m),
        number,
    )


@compiled
def walk(  # type: ignore[no-untyped-def]
    s, t, target, hour, weekday, hour_f, now, now_hour, now_weekday, now_hour_f, now_open, site, ctx, before,
    candidates, features, context, answer,
):  # fmt: skip
    """Take in all events and fill the last four, the arrays of an `env.slate.slate.Slates`.

    s: `Counts` of nothing yet. before: int32 [size], all -1. The others are columns of one timeline.
    """
    for i in range(len(t)):
        if i > 0:
            for k in range(len(before)):
                if candidates[i - 1, k] == target[i]:
                    answer[i - 1] = k
        take_event(
            s, i, t, target, hour[i], weekday[i], hour_f[i], site, ctx, before, candidates[i], features[i],
            context[i],
        )  # fmt: skip
        for k in range(len(before)):  # what is missed counts as of the slate right after the event
            before[k] = candidates[i, k]
        if now[i] > t[i]:
            for k in range(len(before)):
                candidates[i, k] = -1
                for f in range(features.shape[2]):
                    features[i, k, f] = 0.0
            write_slate(
                s, i, t, target, now[i], now_hour[i], now_weekday[i], now_hour_f[i], now_open[i], site, ctx,
                candidates[i], features[i], context[i],
            )  # fmt: skip


@compiled
def take_event(s, i, t, target, h, weekday, hour_f, site, ctx, before, row, f_row, g):  # type: ignore[no-untyped-def]
    """Take in event i and write the slate right after it.

    s: `Counts` of the events before. t, target, ctx [orders, .]: columns, read at i - 2 to i only.
    h, weekday, hour_f: of event i. before: candidates of event i - 1. row int32 [size] (all -1),
    f_row float32 [size, features] (all 0), g float32 [context]: what is written. Returns the place of
    event i in `before`, -1 where it is not there.
    """
    # Arrays are named once: a look-up in a tuple for every access would be paid for in every loop.
    head, total, faded_total, e_next = s.head, s.total, s.faded_total, s.e_next
    e_target, e_count, e_faded, e_seen = s.e_target, s.e_count, s.e_faded, s.e_seen
    used, last3, count, left, last_i = s.used, s.last3, s.opened, s.left, s.last_i
    first_t, last_t, fast, slow = s.first_t, s.last_t, s.fast, s.slow
    by_hour, hour_total, by_part, part_total = s.by_hour, s.hour_total, s.by_part, s.part_total
    starts, seen, number = s.starts, s.seen, s.number
    orders, size = ctx.shape[0], len(row)
    place = -1
    c = target[i]
    gap = t[i] - t[i - 1] if i > 0 else SESSION_GAP
    is_new = count[c] == 0.0
    if i > 0:
        # the label of the decision before, and what was missed
        for k in range(size):
            if before[k] == c:
                place = k
        number[MISS_RATE] = number[MISS_RATE] * HALF50 + (1 - HALF50) * (1.0 if place < 0 else 0.0)
        number[NEW_RATE] = number[NEW_RATE] * HALF50 + (1 - HALF50) * (1.0 if is_new else 0.0)
        number[PACE] = number[PACE] * HALF10 + (1 - HALF10) * np.log1p(gap)
        left[target[i - 1]] += 1.0
        for o in range(orders):
            x = ctx[o, i - 1]
            if o == 6 and i < 2:
                continue
            total[o, x] += 1.0
            e = head[o, x]
            while e >= 0 and e_target[o, e] != c:
                e = e_next[o, e]
            if e < 0:
                e = used[o]
                used[o] += 1
                e_target[o, e] = c
                e_count[o, e] = 0.0
                e_next[o, e] = head[o, x]
                head[o, x] = e
            e_count[o, e] += 1.0
            if o == 0:
                e_faded[e] = e_faded[e] * HALF20 ** (total[0, x] - e_seen[e]) + 1.0
                e_seen[e] = total[0, x]
                faded_total[x] = faded_total[x] * HALF20 + 1.0
                if last3[x, 0] != c:
                    if last3[x, 1] != c:
                        last3[x, 2] = last3[x, 1]
                    last3[x, 1] = last3[x, 0]
                    last3[x, 0] = c
    if is_new:
        seen[int(number[N_SEEN])] = c
        number[N_SEEN] += 1.0
        first_t[c] = t[i]
    count[c] += 1.0
    fast[c] = fast[c] * HALF20 ** (i - last_i[c]) + 1.0 if last_i[c] >= 0 else 1.0
    slow[c] = slow[c] * HALF300 ** (i - last_i[c]) + 1.0 if last_i[c] >= 0 else 1.0
    number[FAST_TOTAL] = number[FAST_TOTAL] * HALF20 + 1.0
    number[SLOW_TOTAL] = number[SLOW_TOTAL] * HALF300 + 1.0
    last_i[c] = i
    last_t[c] = t[i]
    by_hour[c, h] += 1.0
    hour_total[h] += 1.0
    part = 1 if weekday >= 5 else 0
    by_part[c, part] += 1.0
    part_total[part] += 1.0
    if gap >= SESSION_GAP:
        starts[c] += 1.0
        number[STARTS_TOTAL] += 1.0
        number[SESSION] = 0.0
    number[SESSION] += 1.0
    write_slate(s, i, t, target, t[i], h, weekday, hour_f, c, site, ctx, row, f_row, g)
    return place


@compiled
def write_slate(s, i, t, target, now, h, weekday, hour_f, still, site, ctx, row, f_row, g):  # type: ignore[no-untyped-def]
    """Write what is known at `now` of the events up to i; arguments as of `take_event`, the clock being that
    of `now`. still: the target that is open, and so not opened next; -1 for none."""
    head, total, faded_total, e_next = s.head, s.total, s.faded_total, s.e_next
    e_target, e_count, e_faded, e_seen = s.e_target, s.e_count, s.e_faded, s.e_seen
    last3, count, left, last_i = s.last3, s.opened, s.left, s.last_i
    first_t, last_t, fast, slow = s.first_t, s.last_t, s.fast, s.slow
    by_hour, hour_total, by_part, part_total = s.by_hour, s.hour_total, s.by_part, s.part_total
    starts, n_o, faded, seen, score, number = s.starts, s.n_o, s.faded, s.seen, s.score, s.number
    orders, size = ctx.shape[0], len(row)
    c = target[i]
    gap = t[i] - t[i - 1] if i > 0 else SESSION_GAP
    if now > t[i]:
        gap = now - t[i]
    part = 1 if weekday >= 5 else 0
    n_seen = int(number[N_SEEN])
    fast_total, slow_total, starts_total = number[FAST_TOTAL], number[SLOW_TOTAL], number[STARTS_TOTAL]

    # --- what is known now of every target seen so far
    for o in range(orders):
        e = head[o, ctx[o, i]]
        while e >= 0:
            n_o[o, e_target[o, e]] = e_count[o, e]
            if o == 0:
                faded[e_target[0, e]] = e_faded[e] * HALF20 ** (total[0, ctx[0, i]] - e_seen[e])
            e = e_next[o, e]
    x0 = ctx[0, i]
    t1, t2, t3 = total[0, x0], total[1, ctx[1, i]], total[2, ctx[2, i]]
    t_site, t_day, t_pace, t_skip = (
        total[3, ctx[3, i]],
        total[4, ctx[4, i]],
        total[5, ctx[5, i]],
        total[6, ctx[6, i]],
    )
    h0, h2 = (h + 23) % 24, (h + 1) % 24
    hours = hour_total[h0] + hour_total[h] + hour_total[h2]
    for j in range(n_seen):
        y = seen[j]
        if y == still:
            score[j] = -1.0
            continue
        ago = i - last_i[y]
        last = 0.0
        for k in range(3):
            if last3[x0, k] == y:
                last = 1.0 / (k + 1)
        same = 1.0 if site[y] == site[c] else 0.0
        in_hour = by_hour[y, h0] + by_hour[y, h] + by_hour[y, h2]
        score[j] = (
            BLEND_SHARE1 * n_o[0, y] / (t1 + 1.0)
            + BLEND_SHARE2 * n_o[1, y] / (t2 + 1.0)
            + BLEND_SHARE3 * n_o[2, y] / (t3 + 1.0)
            + BLEND_FRESH * faded[y] / (faded_total[x0] + 1.0)
            + BLEND_LAST * last
            + BLEND_PACE * n_o[5, y] / (t_pace + 1.0)
            + BLEND_DAYPART * n_o[4, y] / (t_day + 1.0)
            + BLEND_RECENT * fast[y] * HALF20**ago / fast_total
            + BLEND_SLOW * slow[y] * HALF300**ago / slow_total
            + BLEND_HOUR * in_hour / (hours + 5.0)
            + BLEND_RECENCY / (1.0 + ago)
            + BLEND_SITE * n_o[3, y] / (t_site + 1.0)
            + BLEND_SAME_SITE * same
        )
    places = min(size, n_seen)
    for k in range(places):
        best = -1
        for j in range(n_seen):
            if score[j] > 0.0 and (best < 0 or score[j] > score[best]):
                best = j
        if best < 0:
            break
        y = seen[best]
        score[best] = -1.0
        ago = i - last_i[y]
        row[k] = y
        e = -1
        f = f_row[k]
        # reverse direction: how often the current target followed y
        back_n = 0.0
        if left[y] > 0.0:
            e = head[0, ctx[0, last_i[y]]]
            while e >= 0:
                if e_target[0, e] == c:
                    back_n = e_count[0, e]
                e = e_next[0, e]
        f[0] = n_o[0, y] / (t1 + 1.0)
        f[1] = n_o[1, y] / (t2 + 1.0)
        f[2] = n_o[2, y] / (t3 + 1.0)
        f[3] = np.log1p(n_o[0, y])
        f[4] = np.log1p(n_o[1, y])
        f[5] = np.log1p(n_o[2, y])
        f[6] = faded[y] / (faded_total[x0] + 1.0)
        f[7] = n_o[3, y] / (t_site + 1.0)
        f[8] = n_o[4, y] / (t_day + 1.0)
        f[9] = n_o[5, y] / (t_pace + 1.0)
        for m in range(3):
            if last3[x0, m] == y:
                f[10] = 1.0 / (m + 1)
        f[11] = back_n / (left[y] + 1.0)
        f[12] = n_o[6, y] / (t_skip + 1.0)
        f[13] = count[y] / (i + 1.0)
        f[14] = np.log1p(count[y])
        f[15] = fast[y] * HALF20**ago / fast_total
        f[16] = slow[y] * HALF300**ago / slow_total
        f[17] = (by_hour[y, h0] + by_hour[y, h] + by_hour[y, h2]) / (hours + 5.0)
        f[18] = by_part[y, part] / (part_total[part] + 5.0)
        f[19] = np.log1p(float(ago))
        f[20] = np.log1p(max(0.0, now - last_t[y]))
        if count[y] > 1.0 and last_t[y] > first_t[y]:
            mean = (last_t[y] - first_t[y]) / (count[y] - 1.0)
            f[21] = min(4.0, max(-4.0, np.log((now - last_t[y] + 1.0) / (mean + 1.0))))
        f[22] = 1.0 if site[y] == site[c] else 0.0
        f[23] = starts[y] / (starts_total + 3.0)
    for o in range(orders):
        e = head[o, ctx[o, i]]
        while e >= 0:
            n_o[o, e_target[o, e]] = 0.0
            if o == 0:
                faded[e_target[0, e]] = 0.0
            e = e_next[o, e]
    g[0] = np.log1p(gap)
    g[1] = hour_f
    g[2] = weekday
    g[3] = number[NEW_RATE]
    g[4] = number[MISS_RATE]
    g[5] = np.log1p(t1)
    g[6] = np.log1p(t2)
    g[7] = np.log1p(t3)
    g[8] = np.log1p(float(i))
    g[9] = 1.0 if i > 1 and target[i - 2] == c else 0.0
    g[10] = np.log1p(number[SESSION])
    g[11] = number[PACE]

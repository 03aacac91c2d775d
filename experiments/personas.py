"""Synthetic people for pre-training: unlimited, cheap, and free of anybody's data.

Each persona is drawn from a very wide family, so that a model that has read many of them has seen
most of the ways in which a person can repeat themselves: successors after one to three targets copied
from a near or a distant past, bouncing back and forth, recency, frequency, hour-bound targets,
periodic checks, routines at a time of day, hidden tasks, sites with several pages, new targets at a
rate from one in a thousand to one in three, and drift (from time to time a persona forgets).
Nothing in it was fitted to a recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MECHANISMS = 11
MAX_TARGETS = 3000


@njit(cache=True)
def _dirichlet(weights: Any, concentration: float) -> Any:
    out = np.empty(len(weights))
    for i in range(len(weights)):
        out[i] = np.random.gamma(max(weights[i] * concentration, 1e-3), 1.0) + 1e-12
    return out / out.sum()


@njit(cache=True)
def _draw(p: Any) -> int:
    x = np.random.random()
    for i in range(len(p)):
        x -= p[i]
        if x < 0:
            return i
    return len(p) - 1


@njit(cache=True)
def persona(seed: int, n: int) -> Any:
    """One persona's collapsed timeline: (t float64 [n], target int32 [n], site int32 [targets], targets)."""
    np.random.seed(seed)
    t = np.empty(n)
    target = np.empty(n, np.int32)
    site = np.zeros(MAX_TARGETS, np.int32)
    base = np.array([1.0, 1.0, 0.7, 1.0, 0.8, 0.8, 0.5, 0.4, 1.0, 0.5, 0.5])
    mix = _dirichlet(base / base.sum(), np.exp(np.random.uniform(np.log(2.0), np.log(20.0))))
    spread = np.exp(np.random.uniform(np.log(2.0), np.log(60.0)))
    weights = np.zeros((MAX_TARGETS, MECHANISMS))
    discount = np.random.uniform(0.0, 0.85)
    theta = np.exp(np.random.uniform(np.log(1.0), np.log(60.0)))
    new_spread = np.random.uniform(0.3, 2.0)
    newness = np.zeros(MAX_TARGETS)
    stay = np.random.uniform(0.05, 0.9)  # geometric step over earlier occurrences
    distant = np.random.uniform(0.0, 0.7)  # share of copies from anywhere in the past
    fuzzy = np.random.uniform(0.0, 0.25)
    recency = np.random.uniform(0.7, 2.2)
    n_tasks = np.random.randint(2, 12)
    task_size = np.random.randint(3, 14)
    tasks = np.full((n_tasks, task_size), -1, np.int32)
    task_hour = np.random.uniform(0, 24, n_tasks)
    task = 0
    task_switch = np.exp(np.random.uniform(np.log(0.005), np.log(0.15)))
    n_routines = np.random.randint(0, 5)
    routines = np.full((6, 8), -1, np.int32)
    routine_length = np.random.randint(3, 9, 6)
    routine_hour = np.random.uniform(6, 23, 6)
    routine, routine_at = -1, 0
    hour_of = np.zeros(MAX_TARGETS)
    sites_grow = np.random.uniform(0.0, 0.5)
    n_sites = 0
    last_i = np.full(MAX_TARGETS, -1, np.int64)
    count = np.zeros(MAX_TARGETS)
    first_t = np.zeros(MAX_TARGETS)
    dwell = np.zeros(MAX_TARGETS)
    leave = np.zeros(MAX_TARGETS)
    dwell_mean = np.random.uniform(1.5, 5.0)
    leave_mean = np.exp(np.random.uniform(np.log(0.01), np.log(0.15)))
    pause = np.random.uniform(7.5, 9.5)
    wake = np.random.uniform(5.0, 11.0)
    awake = np.random.uniform(10.0, 18.0)
    regime = np.exp(np.random.uniform(np.log(200.0), np.log(6000.0)))
    forget_before = 0
    occurrence = np.full(n, -1, np.int64)  # index of the previous event with the same target
    v = 0
    now = 1.7e9 + np.random.uniform(0, 7 * 86400)
    previous = -1
    for i in range(n):
        if np.random.random() < 1.0 / regime:
            forget_before = max(0, i - 1 - np.random.randint(0, 60))
            mix = _dirichlet(mix, 30.0)
            for a in range(n_tasks):
                if np.random.random() < 0.4:
                    for b in range(task_size):
                        tasks[a, b] = -1
        hour = now / 3600 % 24
        session_start = i == 0 or now - t[i - 1] > 1800
        if session_start and n_routines > 0:
            for a in range(n_routines):
                if abs(hour - routine_hour[a]) < 1.0 and np.random.random() < 0.6:
                    routine, routine_at = a, 0
        if np.random.random() < task_switch or session_start:
            best = 1e9
            for _ in range(3):
                a = np.random.randint(0, n_tasks)
                d = abs(hour - task_hour[a])
                d = min(d, 24 - d) + np.random.uniform(0, 6)
                if d < best:
                    best, task = d, a
        c = -1
        p_new = (theta + discount * v) / (theta + i)
        if previous >= 0:
            p_new *= newness[previous]
        if i > 0 and v > 2 and np.random.random() >= p_new:
            if routine >= 0 and np.random.random() < 0.9:
                if routines[routine, routine_at] < 0:
                    routines[routine, routine_at] = target[np.random.randint(0, i)]
                c = routines[routine, routine_at]
                routine_at += 1
                if routine_at >= routine_length[routine]:
                    routine = -1
            else:
                routine = -1
            tries = 0
            while (c < 0 or c == previous) and tries < 6:
                tries += 1
                c = -1
                m = _draw(weights[previous])
                if m <= 2:  # copy what followed an earlier occurrence of the last 1, 2 or 3 targets
                    j = occurrence[i - 1]
                    if np.random.random() < distant:
                        skips = np.random.randint(0, 1 + int(count[previous]))
                    else:
                        skips = 0
                        while np.random.random() > stay and skips < 200:
                            skips += 1
                    found = -1
                    steps = 0
                    while j >= forget_before and j >= 0 and steps < 400:
                        steps += 1
                        same = m == 0 or (j > 0 and i > 1 and target[j - 1] == target[i - 2])
                        if m == 2 and same:
                            same = j > 1 and i > 2 and target[j - 2] == target[i - 3]
                        if same:
                            found = j
                            skips -= 1
                            if skips < 0:
                                break
                        j = occurrence[j]
                    if found >= 0:
                        c = target[found + 1]
                elif m == 3:  # bounce
                    back = 2 if np.random.random() < 0.8 else 3
                    if i >= back:
                        c = target[i - back]
                elif m == 4:  # recency
                    r = int(2.0 * (1.0 - np.random.random()) ** (-1.0 / recency))
                    if r <= i:
                        c = target[i - r]
                elif m == 5:  # frequency
                    c = target[np.random.randint(forget_before if np.random.random() < 0.7 else 0, i)]
                elif m == 6:  # bound to the hour
                    best = 1e9
                    for _ in range(6):
                        y = target[np.random.randint(0, i)]
                        d = abs(hour - hour_of[y])
                        d = min(d, 24 - d)
                        if d < best and y != previous:
                            best, c = d, y
                elif m == 7:  # overdue
                    best = 1.0
                    for _ in range(6):
                        y = target[np.random.randint(0, i)]
                        if count[y] > 1:
                            mean = (t[last_i[y]] - first_t[y]) / (count[y] - 1) + 1
                            d = (now - t[last_i[y]]) / mean
                            if best < d < 6.0 and y != previous:
                                best, c = d, y
                elif m == 8:  # the task at hand
                    b = int(task_size * np.random.random() ** 2)
                    if tasks[task, b] < 0 or np.random.random() < 0.003:
                        tasks[task, b] = target[i - 1 - int((i - 1) * np.random.random() ** 3)]
                    c = tasks[task, b]
                elif m == 9:  # another page of the same site
                    for _ in range(40):
                        y = np.random.randint(0, v)
                        if site[y] == site[previous] and y != previous:
                            c = y
                            break
                else:  # two events after the previous target, as before
                    if i > 1:
                        j = occurrence[i - 2]
                        if j >= forget_before and j >= 0 and j + 2 < i:
                            c = target[j + 2]
            if c >= 0 and np.random.random() < fuzzy:
                c = target[np.random.randint(0, i)]
            if c == previous:
                c = -1
            if c < 0:
                for _ in range(20):
                    y = target[np.random.randint(max(0, i - 50), i)]
                    if y != previous:
                        c = y
                        break
        if c < 0:
            if v < MAX_TARGETS - 1:
                c = v
                if previous >= 0 and np.random.random() < sites_grow:
                    site[c] = site[previous]
                else:
                    site[c] = n_sites
                    n_sites += 1
                weights[c] = _dirichlet(mix, spread)
                newness[c] = min(np.exp(np.random.normal(0.0, new_spread) - 0.5 * new_spread**2), 8.0)
                hour_of[c] = hour
                dwell[c] = np.random.normal(dwell_mean, 1.0)
                leave[c] = min(0.6, leave_mean * np.exp(np.random.normal(0, 1.0)))
                first_t[c] = now
                v += 1
            else:
                c = (previous + 1) % v
        t[i] = now
        target[i] = c
        occurrence[i] = last_i[c]
        last_i[c] = i
        count[c] += 1
        previous = c
        if routine < 0 and np.random.random() < leave[c]:
            now += np.exp(np.random.normal(pause, 1.0)) + 1800
            hour = now / 3600 % 24
            if (hour - wake) % 24 > awake:
                now += ((wake - hour) % 24 + abs(np.random.normal(0, 1.0))) * 3600
        else:
            now += np.exp(np.random.normal(dwell[c], 1.0))
    return t, target, site[:v].copy(), v

"""What each plan of an episode was worth: the episode's reward, parted among its plans without remainder.

The reward of a step of the environment says what happened in an interval, not who brought it about: a
prewarm's hit comes minutes after the plan, the target that was evicted for it is missed hours later. Here
a plan is credited with all that follows from it, and with nothing else:

    credit(plan i) = record(plans up to i, then keeping still) - record(plans before i, then keeping still)

Both worlds see the same recorded events, so the difference is exact. Summed over an episode the terms cancel
in pairs and leave record(all plans) - record(no plans), the record of the accounting. In the words of
reinforcement learning this is the reward shaped by a potential Phi, the future reward of keeping still in the
world as it is, and it moves consequences to their causes, which is what makes them learnable.

Such a shaping changes no optimal policy only if the discount stands in it, gamma * Phi(next) - Phi(now) (Ng,
Harada and Russell 1999). Plain differences (`half_life_s` infinite, gamma = 1) may be summed and must not be
discounted afterwards: that would pay for acting early. Whoever discounts says by how much here; the
discounted sum of the credits is then the discounted record of all plans less that of no plans.

The worlds are followed until they are the same again, at most to the end of the timeline that is given: cut
it after the last event that may be looked at. What is unused there is wasted.
"""

from __future__ import annotations

import math

import numpy as np

from env.compiled import compiled
from env.errors import InputError
from env.judge import let_go
from env.judge.accounting import (
    T,
    course,
    finish,
    open_event,
    plan_let_go,
    plan_nobody,
    plan_pick,
    wake_after,
)
from env.judge.effects import resolved, shared_ledger
from env.judge.plans import N_FIELDS, AnyCase, Plans
from env.judge.state import copy_state, new_state, rules, same


@compiled
def _walk(  # type: ignore[no-untyped-def]
    s, a, b, r, w, book, delay, names, naming, picks, first, last, alt_target, alt_delay, alt_names,
    half_life, scratch, value, out,
):  # fmt: skip
    n, t = len(w.target), w.clock[:, T]
    acc, waste = scratch[0], scratch[1]
    alt_picks = alt_target.shape[2]
    own = (last - first) * picks
    let_go.begin(s, r, w)
    for i in range(last):
        open_event(s, r, w, book, i, waste)
        if i < first:
            continue
        d, wake = i - first, wake_after(w, i)
        for m in range(alt_target.shape[1]):
            asked = 0
            for k in range(alt_picks):
                x = alt_target[d, m, k]
                book.target[own + k] = x if alt_delay[d, m, k] >= 0 or wake != np.inf else -1
                book.outcome[own + k] = 0
                asked += book.target[own + k] >= 0
            for k in range(alt_names.shape[2]):
                asked += alt_names[d, m, k] >= 0
            if asked == 0 and not naming:
                continue
            copy_state(s, a)
            copy_state(s, b)
            acc[:] = 0.0
            waste[:] = 0.0
            plan_let_go(a, alt_names[d, m])
            if naming:
                let_go.name(b, r, w.told, i, value)
            else:
                plan_nobody(b)
            for k in range(alt_picks):
                if book.target[own + k] >= 0:
                    plan_pick(a, r, w, book, own + k, alt_delay[d, m, k], i, acc)
            for j in range(i, n):
                # what happens between two events counts as of the first, where a plan is asked for
                since = t[max(j - 1, i)] - t[i]
                if j > i:
                    open_event(a, r, w, book, j, acc)
                    open_event(b, r, w, book, j, waste)
                    if naming:
                        let_go.name(a, r, w.told, j, value)
                        let_go.name(b, r, w.told, j, value)
                    else:
                        plan_nobody(a)
                        plan_nobody(b)
                if j == n - 1:
                    finish(a, r, book, acc)
                    finish(b, r, book, waste)
                share = 0.5 ** (since / half_life)
                for f in range(len(acc)):
                    out[d, m, f] += share * (acc[f] - waste[f])
                acc[:] = 0.0
                waste[:] = 0.0
                if j > i and resolved(book.target, book.outcome, own) and same(a, b):
                    break
        plan_let_go(s, names[d])
        for number in range(d * picks, (d + 1) * picks):
            if book.target[number] >= 0:
                plan_pick(s, r, w, book, number, delay[number], i, waste)


def credits(
    case: AnyCase, plans: Plans, alternatives: Plans, half_life_s: float = math.inf, naming: int = 0
) -> np.ndarray:
    """What each alternative plan would have added at each decision of an episode: float64 [D, M, FIELDS].

    plans: [D, K], the plans that were made from the case's first decision on, in a world without earlier
    prewarms; what follows them is the rest of its timeline. alternatives: [D, M, K]; put the plans themselves
    among them to have their credits. At decision i the world's past is what `plans` made of it, and after i
    nothing more is asked for. half_life_s: what comes that many seconds after the decision counts half;
    infinite: all counts the same. naming: keeping still names so many all the same: those that are least
    worth keeping by what the case is told, in each world its own. Raises InputError for plans or a window
    that do not fit.
    """
    timeline, costs, config, first = case.timeline, case.costs, case.world, case.start - 1
    n, steps = len(timeline), len(plans)
    if not (first >= 0 and first + steps <= n):
        raise InputError(f"{steps} plans from event {first} on do not fit {n} events")
    plans = plans.checked((steps,), len(costs), len(config.delays))
    if alternatives.target.ndim != 3:
        raise InputError(f"alternatives have shape {alternatives.target.shape}; expected ({steps}, M, K)")
    several = alternatives.checked((steps, alternatives.target.shape[1]), len(costs), len(config.delays))
    picks, more = plans.target.shape[1], several.target.shape[2]
    book = shared_ledger(plans, more)
    r, marks = rules(costs, config), max(naming, plans.let_go.shape[1], several.let_go.shape[2])
    now, done, undone = (new_state(len(costs), 2 * len(book.target), r.let_go, marks) for _ in range(3))
    out = np.zeros((steps, several.target.shape[1], N_FIELDS))
    _walk(
        now, done, undone, r, course(timeline, config, case.worth), book, plans.delay.reshape(-1),
        plans.let_go,
        naming > 0, picks, first, first + steps, several.target, several.delay, several.let_go, half_life_s,
        np.zeros((2, N_FIELDS)), np.zeros(len(now.link)), out,
    )  # fmt: skip
    return out

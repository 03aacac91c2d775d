"""Preferences from replay: several plans per training state, scored exactly by forking the environment.

Replay is full-information, so what any plan would have been worth in a state is computed, not estimated.
Two plans of one state whose rewards differ by at least the margin are a pair; every pair names the replay
step (user, index) it came from.

Which pairs are kept decides what is learned. One state shows one outcome: after a miss the best plan is
always "keep still" and the worst the boldest one. Taking the best against the worst of every state
(`extremes`) therefore learns which plan *more often* turns out better, whatever it wins or loses. Kept in
proportion to the difference (`weighted`), a plan that wins 3 s in a quarter of its states and loses 0.3 s
in the others is preferred, because the pairs that speak for it weigh 0.75 and those against it 0.23: the
preference then has the sign of the difference in expected reward.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.plans import FIELDS, Plans
from reward import Reward
from rlmemo.learning.training_data import States, TrainingData, memory_at, training_part
from rlmemo.model import slots
from rlmemo.runs.atomic import write_atomic

Picks = tuple[tuple[int, int], ...]
"""A plan as the model says it: (place in the slate, delay bucket), sorted. Who leaves first stands before
those, as (-1 - place among the residents, turn)."""


@dataclass(frozen=True)
class ScoredPlans:
    """The different plans of one state, with where they came from and the reward that each adds.

    odds: float64 [plans], how likely the model that is to learn says each of them (`plan_odds`).
    """

    user: int
    index: int
    plans: tuple[Picks, ...]
    origins: tuple[str, ...]
    rewards: np.ndarray
    odds: np.ndarray


@dataclass(frozen=True)
class Pair:
    """`chosen` was worth more than `rejected` at replay step (user, index); row is the state's prompt."""

    row: int
    user: str
    index: int
    chosen: Picks
    rejected: Picks
    chosen_reward: float
    rejected_reward: float
    origins: tuple[str, str]
    source: str = ""  # where it comes from, if not from this replay step: ratings are named here


@dataclass(frozen=True)
class KtoExample:
    """One plan at one replay step: better (`good`) or worse than what that state's plans are worth on
    average."""

    row: int
    user: str
    index: int
    plan: Picks
    good: bool
    advantage: float
    origin: str
    source: str = ""


LATER = 0.2
"""What a plan's odds are multiplied by for every pick that is not at once (its delay is not asked for)."""


def plan_odds(first: np.ndarray, valid: np.ndarray, plans: Sequence[Picks]) -> np.ndarray:
    """How likely the model is to say each plan of one state, about: float64 [len(plans)].

    first: [size + 1], log-probability of each place as first pick, last column none; valid: bool [size]. Who
    leaves first is not asked for.
    """
    p = np.exp(first.astype(np.float64))
    p[:-1] *= valid
    p /= max(float(p.sum()), 1e-12)
    return np.array(
        [
            np.prod([p[place] * (LATER if delay else 1.0) for place, delay in picks]) if picks else p[-1]
            for picks in map(picked, plans)
        ]
    )


def picked(plan: Picks) -> Picks:
    """What a plan loads."""
    return tuple(x for x in plan if x[0] >= 0)


def named(plan: Picks) -> Picks:
    """Whom a plan names to leave first."""
    return tuple(x for x in plan if x[0] < 0)


Sampler = Callable[[np.ndarray, bool], list[Picks]]
"""(valid bool [D, size], whether to take the likeliest) -> a plan per state."""


def propose(
    first: np.ndarray,
    candidates: np.ndarray,
    warm: np.ndarray,
    sample: Sampler,
    *,
    picks: int,
    samples: int,
    charge: Sequence[Sequence[int]] | None = None,
    baselines: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> list[dict[Picks, str]]:
    """The different plans of D states, each with the first way in which it came up (its origin).

    Nothing here knows what was opened next. Were it among the plans only where it came true, it would be
    chosen there and never rejected elsewhere: replay would teach that whatever is named pays.

    first: float [D, size + 1], log-probability of each place as first pick, the last column "none".
    candidates: int [D, size]; warm: [D, size]. Warm and empty places are never picked.
    Greedy and sampled plans are the model's; `top` are its 1..K likeliest places at once; `delayed` its
    likeliest place at later delays; `slate` is the slate's own order, which no model has touched.
    charge: per state the places that the policy in charge picks; its plan with one pick less and with one
    more of the likeliest. baselines: by name of a classical policy, the places that it picks.
    """
    valid = (candidates >= 0) & (np.asarray(warm) == 0)
    plans: list[dict[Picks, str]] = [{(): "none"} for _ in range(len(candidates))]

    def add(made: list[Picks], origin: str) -> None:
        for row, plan in zip(plans, made, strict=True):
            row.setdefault(tuple(sorted(plan)), origin)

    add(sample(valid, True), "greedy")
    for _ in range(samples):
        add(sample(valid, False), "sampled")
    scores = np.where(valid, first[:, :-1], -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")
    counts = valid.sum(1)
    for k in range(1, picks + 1):
        add(
            [tuple((int(p), 0) for p in row[: min(k, n)]) for row, n in zip(order, counts, strict=True)],
            "top",
        )
    for delay in range(1, len(slots.DELAYS_S)):
        add([((int(row[0]), delay),) if n else () for row, n in zip(order, counts, strict=True)], "delayed")
    slate = np.where(valid.any(1), valid.argmax(1), -1)
    add([((int(p), 0),) if p >= 0 else () for p in slate], "slate")
    for row, plan in enumerate(plans):
        now = [] if charge is None else [int(p) for p in charge[row] if valid[row, p]]
        if charge is not None:
            likely = [int(p) for p in order[row, : counts[row]] if p not in now]
            _at_once(plan, now, "in charge")
            for place in now:
                _at_once(plan, [p for p in now if p != place], "one less")
            for place in likely[:3] if len(now) < picks else []:
                _at_once(plan, [*now, place], "one more")
        for name, places in (baselines or {}).items():
            _at_once(plan, [p for p in places[row] if valid[row, p]], name)
    return plans


@dataclass(frozen=True)
class Leave:
    """Who may be named at a state, as orders of residents: whom the model names, and the others by how they
    came up (their origin)."""

    greedy: tuple[int, ...]
    others: Mapping[tuple[int, ...], str]


def naming(plans: dict[Picks, str], leave: Leave) -> dict[Picks, str]:
    """The plans of a state with whom they name, each with its origin: every one names whom the model names,
    and with the picks of whoever is in charge (of its greedy plan where nobody is), and with none, others are
    named.
    """

    def order(residents: Sequence[int]) -> Picks:
        return tuple((-1 - x, turn) for turn, x in enumerate(residents))

    made = {tuple(sorted((*order(leave.greedy), *plan))): origin for plan, origin in plans.items()}
    charge = "in charge" if "in charge" in plans.values() else "greedy"
    for plan in [p for p, origin in plans.items() if origin in ("none", charge)]:
        for residents, origin in leave.others.items():
            made.setdefault(tuple(sorted((*order(residents), *plan))), origin)
    return made


def _at_once(plans: dict[Picks, str], places: Sequence[int], origin: str) -> None:
    plans.setdefault(tuple((place, 0) for place in sorted(places)), origin)


def score(
    data: TrainingData,
    states: States,
    plans: list[dict[Picks, str]],
    reward: Reward,
    picks: int,
    odds: list[np.ndarray] | None = None,
) -> list[ScoredPlans]:
    """The reward that each plan adds over keeping still at its state, in the data's world: whoever is in
    charge planned before and plans afterwards, and those leave first that are least worth keeping then.

    Followed until the world is as if nothing had been done: a target that was evicted for a prewarm is
    often missed hours later, and that can cost more than the prewarm itself. Each timeline is cut after
    the last event of its training part, so nothing that happens later reaches a preference; a prewarm
    that is unresolved there counts as wasted.
    """
    scored: list[ScoredPlans | None] = [None] * len(states)
    weights = reward.weights(FIELDS)
    most = max((len(p) for p in plans), default=1)
    for user, rows in states.by_user():
        case = training_part(data, user, int(states.index[rows].max()) + 1)
        held, n = memory_at(data, user), len(case.timeline)
        base = Plans(held.plans.target[:n], held.plans.delay[:n])
        target = np.full((len(rows), most, picks), -1, np.int32)
        delay = np.zeros((len(rows), most, picks), np.int8)
        let_go = np.full((len(rows), most, data.names), -1, np.int32)
        for d, row in enumerate(rows):
            slate = data.slates[user].candidates[states.index[row]]
            for m, plan in enumerate(plans[row]):
                for k, (place, bucket) in enumerate(picked(plan)[:picks]):
                    target[d, m, k] = slate[place]
                    delay[d, m, k] = bucket
                for resident, turn in named(plan):
                    let_go[d, m, turn] = held.listed[states.index[row], -1 - resident]
        made_ = Plans(target, delay, let_go)
        values = case.effects(states.index[rows], made_, base, math.inf, data.names) @ weights
        for d, row in enumerate(rows):
            made = plans[row]
            scored[row] = ScoredPlans(
                user=user,
                index=int(states.index[row]),
                plans=tuple(made),
                origins=tuple(made.values()),
                rewards=values[d, : len(made)],
                odds=np.ones(len(made)) if odds is None else odds[row],
            )
    return [s for s in scored if s is not None]


def pairs(
    scored: list[ScoredPlans], users: list[str], *, margin: float, limit: int, pairing: str, seed: int
) -> list[Pair]:
    """At most `limit` pairs whose rewards differ by at least `margin`, in random order.

    weighted: any two plans of a state, drawn without replacement in proportion to the difference.
    on_policy: in proportion to the difference times the odds that the model says the one and the other, as
    if both had been sampled from it.
    extremes: the best against the worst of each state.
    """
    found: list[tuple[float, int, int, int]] = []
    for row, s in enumerate(scored):
        if pairing == "extremes":
            best, worst = int(np.argmax(s.rewards)), int(np.argmin(s.rewards))
            both = [(best, worst)]
        else:
            both = [(a, b) for a in range(len(s.plans)) for b in range(a)]
        for a, b in both:
            difference = float(s.rewards[a] - s.rewards[b])
            if abs(difference) >= max(margin, 1e-9):
                a, b = (a, b) if difference > 0 else (b, a)
                said = float(s.odds[a] * s.odds[b]) if pairing == "on_policy" else 1.0
                found.append((abs(difference) * max(said, 1e-9), row, a, b))
    kept = _draw(np.array([f[0] for f in found]), limit, pairing != "extremes", seed)
    made = []
    for _, row, a, b in (found[i] for i in kept):
        s = scored[row]
        made.append(
            Pair(
                row=row,
                user=users[s.user],
                index=s.index,
                chosen=s.plans[a],
                rejected=s.plans[b],
                chosen_reward=float(s.rewards[a]),
                rejected_reward=float(s.rewards[b]),
                origins=(s.origins[a], s.origins[b]),
            )
        )
    return made


def kto_examples(
    scored: list[ScoredPlans], users: list[str], *, margin: float, limit: int, seed: int
) -> list[KtoExample]:
    """At most `limit` single plans for KTO, drawn in proportion to how far their reward lies from the mean
    of their state's plans (their advantage), where that is at least `margin`."""
    found: list[tuple[float, int, int]] = []
    for row, s in enumerate(scored):
        advantage = s.rewards - s.rewards.mean()
        found += [(float(a), row, m) for m, a in enumerate(advantage) if abs(a) >= max(margin, 1e-9)]
    weight = [abs(advantage) for advantage, _, _ in found]
    kept = _draw(np.array(weight), limit, True, seed)
    made = []
    for advantage, row, m in (found[i] for i in kept):
        s = scored[row]
        made.append(
            KtoExample(row, users[s.user], s.index, s.plans[m], advantage > 0, advantage, s.origins[m])
        )
    return made


def _draw(weight: np.ndarray, limit: int, weighted: bool, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 2])
    n = len(weight)
    if n == 0:
        return np.zeros(0, np.int64)
    share = weight / weight.sum() if weighted else None
    return rng.choice(n, size=min(limit, n), replace=False, p=share)


def write_pairs(path: Path, rows: list[Pair] | list[KtoExample]) -> None:
    """One JSON line per pair or plan, with the replay step or the rating that it came from."""
    lines = []
    for r in rows:
        source = r.source or f"replay:{r.user}:{r.index}"
        lines.append(json.dumps({"source": source, **{k: v for k, v in r.__dict__.items() if k != "source"}}))
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_pairs(path: Path, kind: type[Pair] | type[KtoExample]) -> list[Any]:
    """What `write_pairs` wrote. Raises InputError for a damaged file."""
    made = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if str(row["source"]).startswith("replay:"):
                row.pop("source")
            for name in ("chosen", "rejected", "plan"):
                if name in row:
                    row[name] = tuple((int(p), int(d)) for p, d in row[name])
            if "origins" in row:
                row["origins"] = tuple(row["origins"])
            made.append(kind(**row))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error}); delete it and run with --resume") from None
    return made

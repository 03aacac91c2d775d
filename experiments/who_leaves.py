"""Classical planners at their best: which ranking, which rule of planning, and who leaves.

    python -m experiments.who_leaves --timelines webtrackr,demo,gesis      # the best pair of each ranking
    python -m experiments.who_leaves --timelines webtrackr,gesis --horizons 3,6,10,15,30,100

Each ranking plans by a threshold on its probability, or on its expected value (probability * seconds saved,
beside the price of asking and of holding the memory until it expires, as a multiple of the typical
target's), and is crossed with each let-go rule of the world and with naming who leaves. Rule, way and
threshold are chosen on the validation part; the test part is looked at once, by what was chosen.
Where the machine is switched off (`--off-after-s`) a ranking loads at wakes, too, by the threshold that it
has for them under the usual rule. `--horizons` shows, on the validation part alone, how many opens ahead are
best called soon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from env.errors import run_main
from env.judge.case import Case, cases
from env.judge.cost import PAST_RULES
from env.judge.plans import FIELDS, Outcomes
from env.judge.world_options import WorldOptions
from env.ranking import Ranking
from env.slate.slate import build_slates
from env.sources import load_timelines
from env.splits import Split, chrono, sessions
from env.timeline import Timeline
from reward.terms import TERMS
from rlmemo.evaluation.bootstrap import Draws, session_groups
from rlmemo.model.soon import PLACES, Soon, base_soon, fit_soon
from rlmemo.options import Parser, add_world, world_of
from rlmemo.policies.planners import NEVER, THRESHOLDS, Threshold, best_of, choose_threshold, rank_wakes
from rlmemo.policies.protocol import Policy
from rlmemo.policies.registry import make_policy

NAMED = "lru, named"
"""The usual rule, and plans that name who leaves first."""


@dataclass(frozen=True)
class Way:
    """How a ranking becomes plans, and who leaves. wake: the probability that is loaded at wakes."""

    value: bool
    rule: str
    theta: float
    wake: float = NEVER

    def __str__(self) -> str:
        woken = f", at wakes >= {self.wake:.3f}" if self.wake < NEVER else ""
        return f"{'value' if self.value else 'probability'} >= {self.theta:.3f}, {self.rule}{woken}"


@dataclass(frozen=True)
class Said:
    """What a policy says of cases: how it ranks the decisions of each, and its wakes (none: it is not asked
    to load at them)."""

    rankings: Sequence[Ranking]
    wakes: Sequence[Ranking] = ()

    def each(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Ranking, Ranking]]:
        """Case by case."""
        wakes = self.wakes if len(self.wakes) else [Ranking.empty(0)] * len(cases)
        return zip(cases, self.rankings, wakes, strict=True)


def said_by(policy: Policy, cases: Sequence[Case]) -> Said:
    """What a policy says of cases."""
    return Said([policy.rank(c.timeline, c.indices) for c in cases], [rank_wakes(policy, c) for c in cases])


def every_way(wake: float = NEVER) -> list[Way]:
    """All ways there are, thresholds to be chosen."""
    rules = (*PAST_RULES, "expected", NAMED)
    return [Way(value, rule, NEVER, wake) for value in (False, True) for rule in rules]


class Asked:
    """The cases of a part of the split, told who is opened soon, and what policies say of them."""

    def __init__(
        self, timelines: Sequence[Timeline], world: WorldOptions, part: Sequence[np.ndarray], soon: Soon
    ) -> None:
        self.world = world
        found = cases(timelines, world.costs_of(timelines), world.rules(), part)
        self.cases = [told_by(soon, case) for case in found]

    def under(self, way: Way, said: Said) -> Iterator[tuple[Case, Ranking, np.ndarray | None]]:
        """Each case in the world of a way, as its opens are ranked there, and what is loaded at its wakes."""
        at_wakes = Threshold(way.theta, wake=way.wake)
        for case, ranking, wakes in said.each(self.cases):
            here = case.under(replace(case.world, let_go="lru" if way.rule == NAMED else way.rule))
            yield here, by_value(case, ranking) if way.value else ranking, at_wakes.waking(case, wakes)

    def records(self, said: Said, way: Way, thetas: Sequence[float]) -> list[np.ndarray]:
        """Records under each threshold, float64 [thetas, opens, fields] for each case."""
        named = way.rule == NAMED
        return [c.sweep(ranking, thetas, named, woken) for c, ranking, woken in self.under(way, said)]

    def outcomes(self, said: Said, way: Way) -> list[Outcomes]:
        """What planning in that way comes to, for each case."""
        named = way.rule == NAMED
        every = self.under(way, said)
        return [c.replay_ranked(ranking, way.theta, named, woken)[0] for c, ranking, woken in every]


def told_by(soon: Soon, case: Case) -> Case:
    """A case, told for all its timeline, as the let-go rule `expected` wants it."""
    slates = build_slates(case.timeline, PLACES)
    return replace(case, worth=soon.told(slates, np.arange(len(case.timeline))))


def by_value(case: Case, ranking: Ranking) -> Ranking:
    """The ranking with probabilities by what a prewarm is worth beside what it costs, in units of the typical
    target, in their new order."""
    price = -TERMS["held_mb_minutes"].weight * case.costs.memory_mb * case.world.ttl_s / 60.0
    worth = (case.costs.cold_s - case.costs.warm_s) / (price - TERMS["planned"].weight)
    typical = float(np.median(worth[case.timeline.target[: case.start]]))
    p = np.where(ranking.targets >= 0, ranking.probability * worth[ranking.targets] / typical, 0.0)
    order = np.argsort(-p, axis=1, kind="stable")
    rows = np.arange(len(p))[:, None]
    return replace(
        ranking, targets=ranking.targets[rows, order], probability=p[rows, order].astype(np.float32)
    )


def best_way(asked: Asked, said: Said, ways: Sequence[Way]) -> tuple[Way, float]:
    """The way, with its threshold, that earns most per open."""
    weights = asked.world.worth().weights(FIELDS)
    found = []
    for way in ways:
        rewards = sum(r.sum(axis=1) @ weights for r in asked.records(said, way, THRESHOLDS))
        k = best_of(np.asarray(rewards))
        found.append((replace(way, theta=float(THRESHOLDS[k])), float(np.asarray(rewards)[k])))
    way, worth = max(found, key=lambda x: x[1])
    return way, worth / sum(map(len, asked.cases))


def wake_threshold(asked: Asked, said: Said) -> float:
    """What is loaded at wakes under the usual rule, nobody named; nothing where nobody wakes."""
    if not any(map(len, said.wakes)):
        return NEVER
    plain = [replace(c, worth=None, world=replace(c.world, let_go="lru")) for c in asked.cases]
    return choose_threshold(plain, said.rankings, asked.world.worth(), wakes=said.wakes)[0].wake


def fitted(timelines: Sequence[Timeline], split: Split, seed: int, opens: int) -> Soon:
    """Who is opened soon, by the training part."""
    slates = [build_slates(x, PLACES) for x in timelines]
    train = [part[part > 0] - 1 for part in split.train]
    return fit_soon(slates, [x.target for x in timelines], train, seed=seed, opens=opens)


def pairs(name: str, args: Any, world: WorldOptions) -> None:
    """The table of best pairs on one recording."""
    timelines = load_timelines(name, seed=args.seed).timelines
    split = chrono(timelines)
    soon = fitted(timelines, split, args.seed, 10)
    tuning, test = (Asked(timelines, world, part, soon) for part in (split.validation, split.test))
    weights = world.worth().weights(FIELDS)
    groups, users = session_groups([sessions(c.timeline)[c.start : c.stop] for c in test.cases])
    draws = Draws(groups, users, seed=args.seed)
    print(f"\n{name}: {sum(map(len, test.cases))} test opens, {world.in_words()}")
    print("| ranking | lru alone, test | best on validation | validation | test |\n|---|---|---|---|---|")
    for policy_name in args.policies:
        policy = make_policy(policy_name)
        policy.fit(timelines, split, seed=args.seed)
        known = {part: said_by(policy, part.cases) for part in (tuning, test)}
        wake = wake_threshold(tuning, known[tuning])
        cells = []
        for ways in ([Way(False, "lru", NEVER, wake)], every_way(wake)):
            way, worth = best_way(tuning, known[tuning], ways)
            records = test.records(known[test], way, [way.theta])
            cells.append((way, worth, draws.ratio(np.concatenate([r[0] for r in records]) @ weights)))
        (_, _, usual), (way, worth, best) = cells
        print(
            f"| {policy_name} | {usual.value:.3f} | {way} | {worth:.3f} | "
            f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}] |", flush=True,
        )  # fmt: skip


def horizons(name: str, args: Any, world: WorldOptions) -> None:
    """How many opens are soon: validation reward of the trees' ranking by horizon."""
    timelines = load_timelines(name, seed=args.seed).timelines
    split = chrono(timelines)
    policy = make_policy("gbdt")
    policy.fit(timelines, split, seed=args.seed)
    print(f"\n{name}, validation, gbdt's threshold chosen there too, {world.in_words()}")
    print("| who leaves | expected | named |\n|---|---|---|")
    said: list[tuple[str, Soon]] = [("shipped", base_soon())]
    said += [(f"within {h} opens", fitted(timelines, split, args.seed, h)) for h in args.horizons]
    for label, soon in said:
        asked = Asked(timelines, world, split.validation, soon)
        ranked = Said([policy.rank(c.timeline, c.indices) for c in asked.cases])
        cells = [best_way(asked, ranked, [Way(False, rule, NEVER)])[1] for rule in ("expected", NAMED)]
        print(f"| {label} | {cells[0]:.4f} | {cells[1]:.4f} |", flush=True)
    for rule in PAST_RULES:
        print(f"| {rule} | {best_way(asked, ranked, [Way(False, rule, NEVER)])[1]:.4f} | |", flush=True)


def names(text: str) -> list[str]:
    return text.split(",")


def whole(text: str) -> list[int]:
    return [int(x) for x in text.split(",")]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--timelines", type=names, default=["webtrackr"], metavar="NAME,NAME")
    parser.add_argument("--policies", type=names, default=["mru", "markov1", "backoff3", "gbdt", "base"])
    parser.add_argument("--horizons", type=whole, metavar="N,N", help="opens ahead, on validation alone")
    parser.add_argument("--seed", type=int, default=0)
    add_world(parser, run=False)
    args = parser.parse_args()
    world = world_of(args)
    for name in args.timelines:
        (horizons if args.horizons else pairs)(name, args, world)


if __name__ == "__main__":
    run_main(main)

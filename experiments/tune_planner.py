"""Choose what the shipped base plans by (rlmemo/base/planner.json): a threshold for each preset of rules.

    python -m experiments.tune_planner            # writes rlmemo/base/planner.json, some minutes on one core
    python -m experiments.tune_planner --check    # beside it: validation parts of webtrackr, gesis, demo

On synthetic personas only (experiments/personas.py), none of whom the base, its scorer or its trees have
seen. Every persona opens apps, pages, or both, and is judged on the second half of some 300 to 3,000 opens,
with the desktop's costs; a persona counts once, however much it opened. The presets: `today`, the defaults;
`day`, off after two hours, with room for 8 as well.

With --check nothing is written: the recordings' validation parts are swept as the personas were, person by
person, and the planner in planner.json stands beside their best.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from env.errors import run_main
from env.judge.case import Case, cases
from env.judge.plans import FIELDS
from env.judge.world_options import WorldOptions
from env.ranking import Ranking
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import KINDS, Timeline
from experiments.personas import persona
from rlmemo.options import Parser
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import BY_NOBODY, BY_SOON, NEVER, Threshold, best_of, rank_wakes, told
from rlmemo.policies.registry import make_policy
from rlmemo.policies.shipped import DAY, TODAY, shipped_planner
from rlmemo.runs.atomic import write_atomic

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 60_000_000
WORLDS = {TODAY: WorldOptions(), DAY: WorldOptions(off_after_s=7200.0)}
WAKES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, NEVER)
GRID = (*np.linspace(0.02, 0.6, 59).round(3).tolist(), 2.0)
KINDS_OF = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
"""Shares of apps and pages among a persona's targets."""
NEAR = 0.001
"""Of thresholds that cost no more than this, seconds an open, beside the best one, the highest is taken: it
prewarms least, and where people differ from personas it is the one that does the least harm."""


def timeline_of(seed: int) -> Timeline:
    """A persona as a timeline."""
    rng = np.random.default_rng(seed)
    n = int(np.exp(rng.uniform(np.log(300), np.log(3000))))
    t, target, _, targets = persona(int(rng.integers(2**31)), n)
    share = KINDS_OF[int(rng.integers(len(KINDS_OF)))]
    kinds = rng.choice([KINDS.index("app"), KINDS.index("page")], targets, p=share).astype(np.int8)
    unknown = np.full(n, -1, np.int16)
    return Timeline(
        f"persona-{seed}", t, target, tuple(f"target-{k}" for k in range(targets)), kinds[target],
        np.full(n, np.nan), unknown, np.zeros(n, np.int16), collapsed=True,
    )  # fmt: skip


def of_personas(people: int) -> Iterator[tuple[Timeline, int, int]]:
    """(timeline, first open that is judged, one past the last)."""
    for seed in range(FIRST_SEED, FIRST_SEED + people):
        made = timeline_of(seed)
        yield made, len(made) // 2, len(made)


def of_recording(name: str) -> Iterator[tuple[Timeline, int, int]]:
    """The same of validation parts."""
    timelines = load_timelines(name).timelines
    rules, costs = WorldOptions().rules(), WorldOptions().costs_of(timelines)
    for case in cases(timelines, costs, rules, chrono(timelines).validation):
        yield case.timeline, case.start, case.stop


class Found:
    """Rewards per open of one preset: by person, naming who leaves or not, by threshold at wakes (the last
    alone where there are none), by threshold."""

    def __init__(self, world: WorldOptions) -> None:
        self.world, self.weights = world, world.worth().weights(FIELDS)
        self.rewards: list[np.ndarray] = []

    def add(self, policy: LanguagePolicy, made: Timeline, start: int, stop: int, ranking: Ranking) -> None:
        """One more person."""
        costs = self.world.cost_model().arrays(made)
        case = told(policy, Case(made, costs, self.world.rules(), start, stop))
        wakes = rank_wakes(policy, case)
        at = [case.waking(wakes, q) if len(wakes) and q < NEVER else None for q in WAKES]
        ways = [[case.sweep(ranking, GRID, names, w) for w in at] for names in (False, True)]
        self.rewards.append(np.array([[(x @ self.weights).mean(1) for x in way] for way in ways]))

    def best(self) -> tuple[Threshold, str]:
        """The planner, and what it is worth in words."""
        by_person = np.array(self.rewards)
        names = bool(by_person[:, 1].mean(0).max() > by_person[:, 0].mean(0).max())
        by_wake = by_person[:, int(names)].mean(0).max(1)
        wake = int(np.flatnonzero(by_wake >= by_wake.max() - NEAR).max())
        by = by_person[:, int(names), wake]
        mean = by.mean(0)
        top, at = best_of(mean), int(np.flatnonzero(mean >= mean.max() - NEAR).max())
        said = (
            f"best {GRID[top]:g} ({mean[top]:+.4f}), taken {GRID[at]:g} ({mean[at]:+.4f}, "
            f"{(by[:, at] < 0).mean():.0%} of {len(by)} people below zero), naming {names}, at wakes "
            f"{WAKES[wake]:g} ({', '.join(f'{q:g} {r:+.4f}' for q, r in zip(WAKES, by_wake, strict=True))}) "
            f"(otherwise {by_person[:, int(not names)].mean(0).max():+.4f} at most)"
        )
        return Threshold(float(GRID[at]), BY_SOON if names else BY_NOBODY, WAKES[wake]), said


def judged(people: Iterator[tuple[Timeline, int, int]]) -> dict[str, Found]:
    """All presets over people, who are ranked once."""
    policy = make_policy("base")
    assert isinstance(policy, LanguagePolicy)
    found = {name: Found(world) for name, world in WORLDS.items()}
    for made, start, stop in people:
        ranking = policy.rank(made, np.arange(start - 1, stop - 1))
        for one in found.values():
            one.add(policy, made, start, stop, ranking)
        policy._known.clear()
    return found


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--personas", type=int, default=200)
    parser.add_argument("--check", action="store_true", help="on validation parts; writes nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "rlmemo/base/planner.json")
    args = parser.parse_args()
    if args.check:
        for name in ("webtrackr", "gesis", "demo"):
            for preset, found in judged(of_recording(name)).items():
                planner = shipped_planner(WORLDS[preset])
                at = int(np.argmin(np.abs(np.array(GRID) - planner.theta)))
                wake = int(np.argmin(np.abs(np.array(WAKES) - planner.wake)))
                mine = np.array(found.rewards)[:, int(planner.names != BY_NOBODY), wake, at]
                print(f"{name}, {preset}: shipped {mine.mean():+.4f}, {(mine < 0).sum()} people below zero, "
                      f"worst {mine.min():+.4f}; {found.best()[1]}")  # fmt: skip
        return
    chosen = {}
    for preset, found in judged(of_personas(args.personas)).items():
        planner, said = found.best()
        chosen[preset] = planner.to_json()
        print(f"{preset}: {said}")
        mean = np.array(found.rewards).mean(0)[:, WAKES.index(planner.wake)]
        for k in range(0, len(GRID), 2):
            print(f"  {GRID[k]:.2f}  {mean[0, k]:+.4f}  {mean[1, k]:+.4f}")
    write_atomic(args.out, json.dumps(chosen, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)

"""How fast the judge is: one JSON line.

    python -m experiments.bench_env [--steps 50000] [--repeats 5] [--timelines demo]

Measured in one run, in seconds of one core's time (so that other programs do not count):
- `env_steps_per_s`: step() of gymnasium.make("rlmemo/Prewarm-v0", disable_env_checker=True) with random
  actions, resets included; `memory_env_steps_per_s`: the same of v1, which also lets go;
- `cartpole_steps_per_s`: the same for CartPole-v1. Actions are drawn beforehand on both sides, because
  drawing one (`action_space.sample()`) costs more than either step;
- `array_events_per_s`: `env.judge.accounting.replay` over the timelines with realistic plans (up to three
  of the slate's best, each where it followed this target in at least a tenth of the cases, half of them at
  once),
  `array_events_per_s_full`: with three prewarms after every event, `array_events_per_s_still`: with none.
  `array_events_per_s_let_go`: the realistic plans, each with two of the last eight targets to let go first.
  All include checking the plans and the no-prewarm world; slates are not part of it;
- `scored_plans_per_s`: `env.judge.effects.plan_effects`, weighed, 8 alternatives at every decision.
Each is the median of the repeats, taken in turn. `parts_us` says what bounds a step of v1, in microseconds:
`step` of the bare environment, of that `kernel` (the compiled call; `call` is what handing over a walk's
tuples costs for a function that does nothing) and `observation` (the dictionary of views); and `reset`, of
which a session's episode needs one every six steps. The array path's bound shows in still, realistic and
full: its time goes into two LRU lists per event and, per prewarm, a start, an eviction and an entry in the
heap of expiries.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from env.errors import run_main
from rlmemo.options import Parser


def stepper(name: str, steps: int, **given: object) -> Callable[[], float]:
    """A function that walks `steps` random steps and returns steps per second."""
    import gymnasium

    import env  # noqa: F401

    world = gymnasium.make(name, disable_env_checker=True, **given)
    rng = np.random.default_rng(0)
    space = world.action_space
    actions: list[object]
    if hasattr(space, "nvec"):
        actions = list(rng.integers(0, space.nvec, (steps, len(space.nvec))))
    else:
        actions = rng.integers(0, space.n, steps).tolist()  # type: ignore[attr-defined]

    def walk() -> float:
        world.reset(seed=0)
        began = time.thread_time()
        for action in actions:
            _, _, terminated, truncated, _ = world.step(action)
            if terminated or truncated:
                world.reset()
        return steps / (time.thread_time() - began)

    return walk


def array_paths(spec: str) -> tuple[dict[str, Callable[[], float]], dict[str, float]]:
    """Functions that measure the array path, by name; and what the realistic plans look like."""
    from env.judge.accounting import replay
    from env.judge.case import Case
    from env.judge.cost import WorldConfig
    from env.judge.cost_presets import cost_model
    from env.judge.plans import FIELDS, Plans
    from env.slate.slate import FEATURES, build_slates
    from env.sources import load_timelines
    from reward import parse_reward

    rng = np.random.default_rng(0)
    config, weights = WorldConfig(), parse_reward().weights(FIELDS)
    cases = []
    for timeline in load_timelines(spec).timelines:
        slates = build_slates(timeline)
        best = slates.candidates[:, :3].copy()
        share = slates.features[:, :3, FEATURES.index("share1")]
        delay = (rng.integers(0, 4, best.shape) * (rng.random(best.shape) < 0.5)).astype(np.int8)
        some = Plans(np.where(share >= 0.1, best, -1).astype(np.int32), delay)
        alternatives = Plans(
            np.ascontiguousarray(slates.candidates[:, :8, None]), np.zeros((len(timeline), 8, 1), np.int8)
        )
        costs = cost_model("desktop").arrays(timeline)
        still = Plans.empty(len(timeline))
        back = np.maximum(np.arange(len(timeline))[:, None] - rng.integers(0, 8, (len(timeline), 2)), 0)
        managed = Plans(some.target, some.delay, timeline.target[back])
        cases.append((timeline, costs, some, Plans(best, delay), still, managed, alternatives))
    events = sum(len(case[0]) for case in cases)

    def run(which: int) -> Callable[[], float]:
        def go() -> float:
            began = time.thread_time()
            for case in cases:
                replay(case[0], case[1], config, case[which])
            return events / (time.thread_time() - began)

        return go

    def score() -> float:
        began = time.thread_time()
        for timeline, costs, *_, alternatives in cases:
            whole = Case(timeline, costs, config, 1, len(timeline))
            whole.effects(np.arange(len(timeline)), alternatives) @ weights
        return 8 * events / (time.thread_time() - began)

    planned = sum(case[2].count() for case in cases) / events
    measures = {
        "array_events_per_s": run(2),
        "array_events_per_s_full": run(3),
        "array_events_per_s_still": run(4),
        "array_events_per_s_let_go": run(5),
        "scored_plans_per_s": score,
    }
    return measures, {"events": events, "prewarms_per_event": round(planned, 3)}


def parts(spec: str, steps: int = 2000) -> dict[str, float]:
    """What a step consists of, microseconds each (best of 7)."""
    from env.compiled import compiled
    from env.gym import stepper as kernel
    from env.gym.memory import MemoryEnv
    from env.judge.plans import N_FIELDS

    world = MemoryEnv(spec, episode="timeline")
    steps = min(steps, *(int(track.last[0] - track.first[0]) - 1 for track in world.tracks))
    actions = np.random.default_rng(0).integers(
        0, world.action_space.nvec, (steps, len(world.action_space.nvec))
    )
    record, out = np.empty(N_FIELDS), np.empty(world._walk.width, np.float32)

    @compiled
    def nothing(*given):  # type: ignore[no-untyped-def]
        return 0.0

    def given(i: int) -> tuple[object, ...]:
        walk = world._walk
        return walk.fixed, actions[i], walk.first + i, walk.first, world._last, record, out

    work: dict[str, Callable[[int], object]] = {
        "step": lambda i: world.step(actions[i]),
        "kernel": lambda i: kernel.step(*given(i)),
        "call": lambda i: nothing(*given(i)),
        "observation": lambda i: world._observation(out),
        "reset": lambda i: world.reset(),
    }
    found = {}
    for name, do in work.items():
        best = np.inf
        for _ in range(7):
            world.reset(seed=0)
            do(0)
            world.reset(seed=0)
            began = time.thread_time()
            for i in range(steps):
                do(i)
            best = min(best, time.thread_time() - began)
        found[name] = round(best / steps * 1e6, 2)
    return found


def main() -> None:
    """Measure and print."""
    parser = Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps per repeat")
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many is reported")
    parser.add_argument("--timelines", default="demo", help="what to replay")
    given = parser.parse_args()
    arrays, plans = array_paths(given.timelines)
    measures = {
        "env_steps_per_s": stepper("rlmemo/Prewarm-v0", given.steps, timelines=given.timelines),
        "memory_env_steps_per_s": stepper("rlmemo/Prewarm-v1", given.steps, timelines=given.timelines),
        "cartpole_steps_per_s": stepper("CartPole-v1", given.steps),
        **arrays,
    }
    for measure in measures.values():
        measure()  # compile, and fill the caches
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(given.repeats):
        for name, measure in measures.items():
            found[name].append(measure())
    line: dict[str, object] = {name: round(median(values)) for name, values in found.items()}
    for name in ("env", "memory_env"):
        line[f"{name}_over_cartpole"] = round(
            median(found[f"{name}_steps_per_s"]) / median(found["cartpole_steps_per_s"]), 3
        )
    line["parts_us"] = parts(given.timelines)
    line |= {"timelines": given.timelines, **plans, "repeats": given.repeats}
    line |= {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps(line))


if __name__ == "__main__":
    run_main(main)

"""fork() and restore() are exact, and whole trajectories repeat bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from judge_cases import random_case
from test_env import make

from tests.reference.world import World


def trajectory(walk, actions) -> list[bytes]:  # type: ignore[no-untyped-def]
    """Everything that the steps return, as bytes; resets where an episode ends."""
    out = []
    for action in actions:
        observation, reward, done, _, info = walk.step(action)
        out.append(b"".join(part.tobytes() for part in observation.values()))
        out.append(np.float64(reward).tobytes() + info["outcome"].tobytes() + bytes([done]))
        if done:
            observation, _ = walk.reset()
            out.append(b"".join(part.tobytes() for part in observation.values()))
    return out


def actions(walk, n: int, seed: int) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return [rng.integers(0, walk.action_space.nvec) for _ in range(n)]


@pytest.mark.parametrize("episode", ["session", "day", "timeline"])
def test_same_seed_same_plans_same_trajectory(episode: str) -> None:
    runs = []
    for _ in range(2):
        walk = make(episode=episode)
        walk.reset(seed=11)
        runs.append(trajectory(walk, actions(walk, 400, 3)))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("episode", ["session", "timeline"])
def test_restore_goes_back_exactly_and_often(episode: str) -> None:
    walk = make(episode=episode)
    walk.reset(seed=2)
    trajectory(walk, actions(walk, 37, 0))
    saved = walk.fork()
    picture = walk.describe()
    first = trajectory(walk, actions(walk, 300, 1))
    trajectory(walk, actions(walk, 50, 2))
    for _ in range(2):
        walk.restore(saved)
        assert walk.describe() == picture
        assert trajectory(walk, actions(walk, 300, 1)) == first


def test_a_fork_does_not_follow_the_environment() -> None:
    walk = make(episode="timeline")
    walk.reset(seed=2)
    trajectory(walk, actions(walk, 20, 0))
    saved = walk.fork()
    copies = [a.copy() for a in saved.arrays]
    trajectory(walk, actions(walk, 60, 1))
    assert all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(saved.arrays, copies, strict=True)
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_forked_world_goes_the_same_way_and_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    timeline, costs, config, plans = random_case(rng, 40, 6)

    def go(world: World, a: int, b: int, still: bool = False) -> list[bytes]:
        out = []
        for j in range(a, b):
            out.append(world.open(int(timeline.target[j]), float(timeline.t[j])).tobytes())
            if not still:
                slots = np.flatnonzero(plans.target[j] >= 0)
                world.plan([(int(plans.target[j, k]), int(plans.delay[j, k])) for k in slots])
        return [*out, world.finish().tobytes(), repr(world.outcome).encode()]

    root = World(costs, config)
    go_on = go(World(costs, config), 0, 40)
    for j in range(15):
        root.open(int(timeline.target[j]), float(timeline.t[j]))
        slots = np.flatnonzero(plans.target[j] >= 0)
        root.plan([(int(plans.target[j, k]), int(plans.delay[j, k])) for k in slots])
    saved = root.fork()
    go(saved.fork(), 15, 40, still=True)
    other = saved.fork()
    assert go(root, 15, 40) == go(other, 15, 40)
    assert go_on[15:] == go(saved.fork(), 15, 40)
    root.restore(saved)
    assert go(root, 15, 40) == go_on[15:]

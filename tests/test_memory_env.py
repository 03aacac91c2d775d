"""`rlmemo/Prewarm-v1`, which also lets go, as Gymnasium, Stable-Baselines3 and the replay see it."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from judge_cases import with_switches
from test_env import people

from env.errors import InputError
from env.gym import stepper
from env.gym.memory import MemoryEnv
from env.gym.stepper import RESIDENT_COLUMNS
from env.judge import accounting
from env.judge.cost import LET_GO_RULES, WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, Plans, at_wake
from env.timeline import Event, Timeline

ID = "rlmemo/Prewarm-v1"
LINE = np.array([13, 4, 13, 4, 13, 4, 13, 13])  # what an action may say, with the defaults


def make(**given: Any) -> MemoryEnv:
    return MemoryEnv(**{"timelines": people(), "config": {"budget_targets": 3.0}, **given})


def test_check_env_passes_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make(ID, timelines=people(), render_mode="ansi").unwrapped
        check_env(made)
    assert made.action_space.nvec.tolist() == LINE.tolist()
    assert made.observation_space["residents"].shape == (12, len(RESIDENT_COLUMNS))


def test_stable_baselines_learns_on_it_unchanged() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    given = {"timelines": people(), "config": {"budget_targets": 3.0}}
    vec = make_vec_env(ID, n_envs=2, seed=0, env_kwargs=given)
    PPO("MultiInputPolicy", vec, n_steps=32, batch_size=32, n_epochs=1, seed=0).learn(64)


def test_what_was_handed_out_stays_as_it_was_and_is_nobody_elses() -> None:
    """A caller may keep an observation, or write into it."""
    walk, twin = make(episode="session"), make(episode="session")
    walk.action_space.seed(0)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    seen, info = walk.reset(seed=0)
    again, _ = twin.reset(seed=0)
    for _ in range(60):
        assert all(np.array_equal(seen[key], again[key]) for key in again)
        kept += [(a, a.copy()) for a in (*seen.values(), info["outcome"])]
        for a in again.values():
            a[...] = -1.0
        action = walk.action_space.sample()
        seen, _, over, _, info = walk.step(action)
        again = twin.step(action)[0]
        if over:
            kept += [(a, a.copy()) for a in (*seen.values(), info["outcome"])]
            (seen, info), (again, _) = walk.reset(), twin.reset()
    assert all(np.array_equal(a, b) for a, b in kept)


def test_an_action_of_any_kind_is_stepped_by_one_compiled_function() -> None:
    """Each other type of array would be compiled anew, for seconds."""
    walk = make(episode="timeline")
    walk.reset(seed=0)
    line = [1, 0, 0, 0, 2, 1, 1, 0]
    frozen = np.array(line)
    frozen.flags.writeable = False
    for action in (frozen, line, np.array(line, np.int32), np.repeat(line, 2)[::2], np.array(line, float)):
        walk.step(action)  # type: ignore[arg-type]
        assert walk._latest[0].tolist() == line
    assert len(stepper.step.signatures) == 1


@pytest.mark.parametrize(
    ("rule", "recorded"),
    [*((x, False) for x in LET_GO_RULES if x != "expected"), ("lru", True), ("sieve", True)],
)
def test_an_episode_is_a_window_of_the_replay_bit_for_bit(rule: str, recorded: bool) -> None:
    """Whatever lets go, with offs and closes: the steps say what a replay of the same plans says."""
    config = WorldConfig(budget_targets=3.0, ttl_s=90.0, let_go=rule, off_after_s=4000.0, close_after_s=300.0)
    some = people()
    if recorded:
        some = [with_switches(np.random.default_rng(k), x) for k, x in enumerate(some)]
    walk = make(timelines=some, episode="timeline", config=config)
    for user in range(3):
        walk.reset(options={"user": f"user{user}"})
        walk.action_space.seed(user)
        track, done, records = walk._track, False, []
        plans = Plans.empty(150, 6, 2)  # the last three at the wake
        while not done:
            action = walk.action_space.sample()
            i, state, woken = walk._walk.i, walk._walk.state, walk._walk.woken
            order, x = [], int(state.link[-1, 1])
            while x != len(track.timeline.names):
                order.append(x)
                x = int(state.link[x, 1])
            for k in range(3):
                place = action[2 * k]
                column, delay = (k + 3, at_wake(action[2 * k + 1])) if woken else (k, action[2 * k + 1])
                plans.target[i, column] = walk._walk.listed[place - 1] if place else -1
                plans.delay[i, column] = delay
            for k, row in enumerate(action[6:]):
                if not woken:  # at a wake nobody is there to be let go
                    plans.let_go[i, k] = order[row - 1] if 0 < row <= len(order) else -1
            assert not (woken and order)
            observation, _, done, _, info = walk.step(action)
            assert observation in walk.observation_space
            assert info["wake"] == walk._walk.woken
            if woken:
                records[-1] = records[-1] + info["outcome"]
            else:
                records.append(info["outcome"])
        assert (plans.target[:, 3:] >= 0).any() or user
        out = accounting.replay(
            track.timeline, cost_model("desktop").arrays(track.timeline), config, plans, start=1, stop=150
        )
        found, wakes = np.array(records), np.isfinite(config.offs(track.timeline)[1])[1:]
        assert found[~wakes].tobytes() == out.table[1:][~wakes].tobytes()
        np.testing.assert_allclose(found[wakes], out.table[1:][wakes], rtol=1e-12, atol=1e-9)
        # Prewarm by prewarm, too: in the walk's own book, those of a wake stand behind its event's.
        ours = walk._walk.book.outcome[: 6 * 149].reshape(-1, 6)
        np.testing.assert_array_equal(ours, out.outcome[:149])


def test_at_a_wake_everything_is_cold_and_the_first_open_of_the_day_can_be_warm() -> None:
    opens = [(0, "a"), (60, "b"), (120, "c"), (30000, "a"), (30060, "b")]
    night = Timeline.from_events("night", [Event(float(t), x) for t, x in opens])
    walk = make(timelines=[night], config={"off_after_s": 7200.0, "budget_targets": 3.0}, episode="timeline")
    observation, _ = walk.reset(seed=0)
    still = np.zeros(8, np.int64)
    for _ in range(2):
        observation, *_, info = walk.step(still)
        assert not info["wake"]
    saved = walk.fork()
    assert observation["warm"].sum() == 2  # a and b; c, in front, is never in its own slate
    observation, _, done, _, info = walk.step(still)
    assert (info["wake"], info["event"], done) == (True, 2, False)
    assert info["outcome"][FIELDS.index("opens")] == 0
    assert observation["memory"].tolist() == [1.0, 0.0, 0.0]
    assert not observation["warm"].any()
    assert not observation["residents"].any()
    hour = np.arctan2(observation["moment"][0], observation["moment"][1]) * 12 / np.pi
    assert hour == pytest.approx(29940 / 3600, abs=1e-3)
    assert "nothing is opened yet" in walk.describe()
    asleep, action = walk.fork(), still.copy()
    action[0] = 1 + int(np.flatnonzero(walk._walk.listed == 0)[0])  # a
    observation, *_, info = walk.step(action)
    first = info["outcome"].tobytes()
    assert (info["wake"], info["event"]) == (False, 3)
    assert info["outcome"][FIELDS.index("hit")] == 1
    assert "hit" in walk.describe()
    walk.restore(asleep)
    again, *_, info = walk.step(action)
    assert info["outcome"].tobytes() == first
    assert all(again[key].tobytes() == observation[key].tobytes() for key in again)
    walk.restore(saved)
    assert not walk._walk.woken
    walk.restore(asleep)
    with pytest.raises(InputError):
        walk.step(np.full(8, 99))
    assert walk._walk.woken, "an action outside the space changes nothing"


def test_a_row_says_who_is_resident_and_naming_it_lets_it_go() -> None:
    walk = make(episode="timeline", shuffle=False)
    observation, _ = walk.reset()
    column = {name: k for k, name in enumerate(RESIDENT_COLUMNS)}
    for _ in range(60):
        rows = observation["residents"]
        link = walk._walk.state.link
        resident = [x for x in range(len(link) - 1) if link[x, 0] >= 0]
        assert rows[:, column["present"]].sum() == min(len(resident), 12)
        assert rows[:, column["in_front"]].sum() == 1
        ages = rows[: len(resident), column["log_seconds_unused"]]
        assert (np.diff(ages) <= 1e-6).all()  # least recently used first
        newest = len(resident) - 1  # the one before the one in front, counted from 1
        goes = int(walk._walk.state.link[int(walk._walk.state.link[-1, 0]), 0])
        action = np.zeros(8, np.int64)
        action[6] = newest
        observation, *_, info = walk.step(action)
        if info["outcome"][FIELDS.index("cold")] and len(resident) >= 3 and goes != len(link) - 1:
            assert walk._walk.state.link[goes, 0] < 0 or goes == walk._track.timeline.target[walk._walk.i]
            assert "let go" in walk.describe()
            return
    pytest.fail("nobody had to leave")


def test_fork_and_restore_are_exact_and_bad_actions_change_nothing() -> None:
    walk = make(config={"budget_targets": 3.0, "let_go": "s3fifo"})
    walk.reset(seed=1)
    walk.action_space.seed(1)
    actions = [walk.action_space.sample() for _ in range(10)]

    def play() -> list[bytes]:
        out = []
        for action in actions:
            observation, reward, done, *_ = walk.step(action)
            out.append(b"".join(v.tobytes() for v in observation.values()) + np.float64(reward).tobytes())
            if done:
                break
        return out

    saved = walk.fork()
    first = play()
    walk.restore(saved)
    with pytest.raises(InputError, match="not in"):
        walk.step(np.array([0, 0, 0, 0, 0, 0, 13, 0]))
    assert play() == first

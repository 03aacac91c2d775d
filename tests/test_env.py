"""`rlmemo/Prewarm-v0` as Gymnasium sees it, and its agreement with the replay."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import env  # noqa: F401
from env.errors import InputError
from env.gym.prewarm import PrewarmEnv
from env.judge import accounting
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, Plans
from env.splits import chrono, sessions
from env.timeline import Event, Timeline
from reward import parse_reward

ID = "rlmemo/Prewarm-v0"


def people(users: int = 3, n: int = 150) -> list[Timeline]:
    """A few invented users with habits and pauses."""
    out = []
    for user in range(users):
        rng = np.random.default_rng(user)
        t = 1.7e9 + np.cumsum(np.where(rng.random(n) < 0.1, 5000.0, rng.exponential(40.0, n)))
        steps = rng.choice([1, 2, 5], n, p=[0.6, 0.3, 0.1])
        target = np.cumsum(steps) % 12
        kinds = ["app", "page", "file"]
        out.append(
            Timeline.from_events(
                f"user{user}",
                [Event(float(a), f"t{b}", kinds[b % 3]) for a, b in zip(t, target, strict=True)],
                tz="Europe/Berlin",
            )
        )
    return out


def make(**given: Any) -> PrewarmEnv:
    return PrewarmEnv(**{"timelines": people(), "config": {"budget_targets": 3.0}, **given})


def test_import_registers_it_and_stays_light(repo_root: Path) -> None:
    code = (
        f"import sys, env, gymnasium; assert {ID!r} in gymnasium.registry;"
        "heavy = ('numba', 'scipy', 'torch', 'env.judge.accounting', 'env.gym.prewarm');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_check_env_passes_without_warnings() -> None:
    made = gymnasium.make(ID, timelines=people(), render_mode="ansi").unwrapped  # says that there is a v1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made)


@pytest.mark.slow
def test_with_no_argument_it_replays_the_demo() -> None:
    made = gymnasium.make(ID)
    observation, _ = made.reset(seed=1)
    assert observation in made.observation_space
    assert len({track.timeline.user for track in made.unwrapped.tracks}) == 6


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_make_vec(mode: str) -> None:
    vector = gymnasium.make_vec(ID, num_envs=2, vectorization_mode=mode, timelines=people())
    try:
        vector.reset(seed=0)
        for _ in range(30):
            observation, reward, terminated, _, info = vector.step(vector.action_space.sample())
        assert observation["slate"].shape[0] == 2
        assert reward.shape == terminated.shape == (2,)
        assert info["outcome"].shape == (2, len(FIELDS))
    finally:
        vector.close()


def test_every_observation_lies_in_its_space() -> None:
    walk = make()
    walk.action_space.seed(0)
    for seed in range(5):
        observation, _ = walk.reset(seed=seed)
        done = False
        while not done:
            assert observation in walk.observation_space
            assert all(np.isfinite(part).all() for part in observation.values())
            observation, reward, done, truncated, info = walk.step(walk.action_space.sample())
            assert not truncated
            assert reward == pytest.approx(info["outcome"] @ walk.reward.weights(FIELDS))
        assert observation in walk.observation_space


@pytest.mark.parametrize("episode", ["session", "day", "timeline"])
def test_episodes_cover_every_open_once(episode: str) -> None:
    walk = make(episode=episode, shuffle=False)
    seen: dict[str, list[int]] = {}
    for _ in range(len(walk.episodes)):
        _, info = walk.reset()
        done = False
        while not done:
            *_, done, _, info = walk.step(np.zeros(6, np.int64))
            seen.setdefault(walk._track.timeline.user, []).append(info["event"])
    assert seen == {f"user{u}": list(range(1, 150)) for u in range(3)}


def test_session_episodes_are_sessions() -> None:
    walk = make()
    for track in walk.tracks:
        number = sessions(track.timeline)
        for first, last in zip(track.first, track.last, strict=True):
            assert len(set(number[first + 1 : last + 1].tolist())) == 1


def test_the_order_of_episodes_is_seeded_and_complete() -> None:
    orders = []
    for _ in range(2):
        walk = make()
        walk.reset(seed=5)
        order = [(walk._user, walk._episode)]
        for _ in range(len(walk.episodes) - 1):
            walk.reset()
            order.append((walk._user, walk._episode))
        orders.append(order)
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [tuple(e) for e in walk.episodes.tolist()]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("episode", ["session", "timeline"])
@pytest.mark.parametrize("spec", ["net_seconds", "device"])
def test_an_episode_is_a_window_of_the_replay_bit_for_bit(episode: str, spec: str) -> None:
    config = WorldConfig(budget_targets=3.0, ttl_s=90.0)
    walk = make(episode=episode, config=config, reward=spec)
    rng = np.random.default_rng(0)
    for seed in range(6):
        walk.reset(seed=seed)
        track = walk._track
        plans = Plans.empty(150, 3)
        records, rewards, done = [], [], False
        while not done:
            action = walk.action_space.sample() * (rng.random(6) < 0.7)
            for k in range(3):
                place = action[2 * k]
                plans.target[walk._walk.i, k] = track.candidates[walk._walk.i, place - 1] if place else -1
                plans.delay[walk._walk.i, k] = action[2 * k + 1]
            _, reward, done, _, info = walk.step(action)
            records.append(info["outcome"])
            rewards.append(reward)
        out = accounting.replay(
            track.timeline, cost_model("desktop").arrays(track.timeline), config, plans,
            start=walk._walk.first + 1, stop=walk._last + 1,
        )  # fmt: skip
        assert np.array_equal(np.stack(records), out.table[walk._walk.first + 1 : walk._last + 1])
        assert sum(rewards) == pytest.approx(parse_reward(spec).per_open(out).sum())


def test_flags_say_what_is_warm_loading_and_scheduled() -> None:
    events = [Event(10.0 * i, "abc"[i % 3]) for i in range(9)]
    walk = make(
        timelines=[Timeline.from_events("x", events)], config={"budget_mb": 800.0, "delays": (0.0, 12.0)}
    )
    walk.reset(seed=0)
    for _ in range(4):
        walk.step(np.zeros(6, np.int64))
    names, slate = walk._track.timeline.names, walk._track.candidates[walk._walk.i]
    now = {names[x]: place for place, x in enumerate(slate) if x >= 0}
    in_front = names[walk._track.timeline.target[walk._walk.i]]
    coming = "abc"[(walk._walk.i + 1) % 3]
    later = "abc"[(walk._walk.i + 2) % 3]
    assert set(now) == {coming, later} - {in_front}
    # `coming` fell out of memory (two fit); ask for it in 12 s: at the next open (10 s) it is scheduled.
    action = np.zeros(6, np.int64)
    action[:2] = now[coming] + 1, 1
    observation, *_ = walk.step(action)
    assert not observation["scheduled"].any()  # opened in the meantime: it is in front, and not in the slate
    slate = walk._track.candidates[walk._walk.i]
    place = int(np.flatnonzero(slate == names.index("abc"[(walk._walk.i + 2) % 3]))[0])
    action[:2] = place + 1, 1
    observation, *_ = walk.step(action)
    again = int(np.flatnonzero(walk._track.candidates[walk._walk.i] == slate[place])[0])
    assert observation["scheduled"][again] == 1.0


@pytest.mark.parametrize(
    "bad", [[13, 0, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0], [0, 0], [[0] * 6]]
)
def test_an_action_outside_the_space_is_refused_and_changes_nothing(bad: list[int]) -> None:
    walk = make()
    walk.reset(seed=0)
    before = walk.describe()
    with pytest.raises(InputError, match="action"):
        walk.step(np.array(bad))
    assert walk.describe() == before


def test_stepping_over_the_end_is_refused() -> None:
    walk = make()
    with pytest.raises(InputError, match="reset"):
        walk.step(np.zeros(6, np.int64))
    walk.reset(seed=0)
    while not walk.step(np.zeros(6, np.int64))[2]:
        pass
    with pytest.raises(InputError, match="reset"):
        walk.step(np.zeros(6, np.int64))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"episode": "week"}, "session, day, timeline"),
        ({"part": "exam"}, "all, train, validation, test"),
        ({"split": "random", "part": "test"}, "chrono, wave"),
        ({"costs": "mainframe"}, "desktop, phone, web"),
        ({"reward": "saved_second=1"}, "did you mean"),
        ({"render_mode": "rgb"}, "ansi, human, rgb_array"),
        ({"slate_size": 0}, "slate_size"),
        ({"timelines": []}, "no episode"),
        ({"timelines": [Timeline.from_events("one", [Event(0.0, "a")])]}, "no episode"),
        ({"indices": [np.array([1])]}, "1 timelines"),
        ({"indices": [np.array([1]), np.array([999]), np.array([1])]}, "outside"),
        ({"config": {"ttl_s": -1}}, "ttl_s"),
        ({"config": {"budgte": 1}}, "budget_mb, budget_targets"),
    ],
)
def test_bad_arguments_are_refused_with_advice(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make(**given)


def test_parts_are_those_of_the_split() -> None:
    timelines = people()
    split = chrono(timelines)
    for part in ("train", "validation", "test"):
        walk = make(part=part)
        for user, track in enumerate(walk.tracks):
            opens = np.concatenate(
                [np.arange(a + 1, b + 1) for a, b in zip(track.first, track.last, strict=True)]
            )
            assert np.array_equal(opens, getattr(split, part)[user])


def test_an_episode_can_be_asked_for() -> None:
    walk = make()
    walk.reset(seed=0, options={"user": "user2", "episode": 3})
    assert walk._track.timeline.user == "user2"
    assert walk._walk.first == walk.tracks[2].first[3]
    for options in ({"user": "nobody"}, {"user": "user1", "episode": 10_000}):
        with pytest.raises(InputError):
            walk.reset(options=options)


def test_render_shows_what_came_what_is_warm_and_what_was_planned(capsys: pytest.CaptureFixture[str]) -> None:
    walk = make(render_mode="ansi", episode="timeline")
    walk.reset(seed=0)
    walk.action_space.seed(0)
    pictures = []
    for _ in range(149):
        walk.step(walk.action_space.sample())
        pictures.append(walk.render() or "")
    text = "".join(pictures)
    for word in ("planned", "opened", "memory", "warm", "loading", "scheduled", "slate", "reward", "hit"):
        assert word in text
    assert capsys.readouterr().out == ""
    human = make(render_mode="human")
    human.reset(seed=0)
    human.step(human.action_space.sample())
    assert capsys.readouterr().out.count("opened") == 2
    with pytest.warns(UserWarning, match="render_mode"):
        assert make().render() is None


def test_render_names_an_open_that_a_prewarm_made_cold() -> None:
    events = [Event(60.0 * i, x) for i, x in enumerate("cdabab")]
    walk = make(timelines=[Timeline.from_events("x", events)], config={"budget_targets": 2.0})
    walk.reset(options={"episode": 0})
    for _ in range(2):
        walk.step(np.zeros(6, np.int64))
    place = int(np.flatnonzero(walk._track.candidates[3] == 0)[0])
    walk.step(np.zeros(6, np.int64))
    assert walk._walk.i == 3
    walk.step(np.array([place + 1, 0, 0, 0, 0, 0]))
    assert "cold because a prewarm evicted it" in walk.describe()


def test_the_future_is_not_in_the_observation() -> None:
    """Two timelines that part after event 100 look the same until then."""
    whole = people(1)[0]
    events = list(whole)
    other = Timeline.from_events(
        "user0",
        [*events[:101], *(Event(e.t + 9e4, f"new{i}") for i, e in enumerate(events[101:]))],
        tz=whole.tz,
    )
    walks = [make(timelines=[x], episode="timeline", config={"budget_mb": 900.0}) for x in (whole, other)]
    rng = np.random.default_rng(0)
    for walk in walks:
        walk.reset(seed=0)
    for _ in range(99):
        action = rng.integers(0, walks[0].action_space.nvec)
        seen = [walk.step(action) for walk in walks]
        for key, part in seen[0][0].items():
            assert np.array_equal(part, seen[1][0][key]), key


@pytest.mark.slow
def test_stable_baselines_trains_and_beats_random_plans() -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="extra sb3 is not installed")
    walk = make(episode="session", config={"budget_targets": 3.0, "max_picks": 1})
    model = sb3.PPO("MultiInputPolicy", walk, n_steps=256, batch_size=64, seed=0, device="cpu")
    model.learn(6144)

    def mean_reward(act: Any) -> float:
        total, steps = 0.0, 0
        test = make(episode="session", config={"budget_targets": 3.0, "max_picks": 1}, shuffle=False)
        for _ in range(len(test.episodes)):
            observation, _ = test.reset()
            done = False
            while not done:
                observation, reward, done, _, _ = test.step(act(observation))
                total, steps = total + reward, steps + 1
        return total / steps

    rng = np.random.default_rng(0)
    chance = mean_reward(lambda _: rng.integers(0, walk.action_space.nvec))
    learned = mean_reward(lambda observation: model.predict(observation, deterministic=True)[0])
    assert learned > chance + 0.05

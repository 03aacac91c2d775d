"""`rlmemo/Prewarm-v0`: the judge as a Gymnasium environment. The class docstring is the specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from env.errors import InputError
from env.gym import stepper
from env.gym.render import describe, picture
from env.gym.tracks import MOMENT_COLUMNS, SLATE_COLUMNS, make_tracks, part_indices, people
from env.judge.cost import CostModel, WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS, N_FIELDS
from env.slate.slate import SLATE_SIZE
from env.splits import Split
from env.timeline import Timeline
from reward import Reward, parse_reward


@dataclass(frozen=True)
class Snapshot:
    """A moment of an environment, from `PrewarmEnv.fork()`; opaque, immutable, and good for any number of
    `restore()`s."""

    track: int
    episode: int
    index: int
    arrays: tuple[np.ndarray, ...]
    rng: Any
    order: np.ndarray
    position: int
    done: bool
    total: float
    last: tuple[np.ndarray, np.ndarray, float]
    woken: bool


class PrewarmEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """
    ## Description
    A recorded timeline is replayed. After every event the agent decides what to prewarm: nothing, or up to
    K targets of a slate of C candidates, each after a delay. Then the next event comes, when it came in the
    recording: what is warm opens fast, what is not opens slowly. Prewarms hold memory until they are used,
    evicted or expired, over as many steps as that takes. The rules of the accounting are in
    docs/accounting.md; the slate knows the past alone. What the user does next does not depend on what was
    prewarmed.

    ## Action space
    `MultiDiscrete([C + 1, D] * K)`: for each of K picks a place in the slate and a delay.

    | component | values | meaning |
    |---|---|---|
    | 2k | 0 | no pick |
    | 2k | 1 ... C | the candidate at that place of the slate (an empty place: no pick) |
    | 2k + 1 | 0 ... D - 1 | index into `config.delays` (default 0, 30, 300, 1800 s); ignored without a pick |

    Defaults: K = 3, C = 12, D = 4. An action outside the space raises `InputError` and changes nothing.

    ## Observation space
    `Dict`, all `Box` of float32, finite, in [-1, 1]:

    | key | shape | range | meaning |
    |---|---|---|---|
    | slate | (C, 27) | [-1, 1] | per candidate, see `env.gym.tracks.SLATE_COLUMNS` (empty places: all 0) |
    | moment | (14,) | [-1, 1] | local time, gap, pace, ...: see `env.gym.tracks.MOMENT_COLUMNS` |
    | warm | (C,) | 0, 1 | the candidate is warm |
    | loading | (C,) | 0, 1 | the candidate is loading |
    | scheduled | (C,) | 0, 1 | a prewarm of the candidate was planned and has not started |
    | memory | (3,) | [0, 1] | shares of the budget: free, held unused by prewarms, held in front |

    The statistics of `slate` are those of `env.slate.FEATURES` (logarithms scaled), then the candidate's
    memory as a share of the budget, its cold minus warm seconds / 10, and 1 for a place that is not empty.
    All arrays are new in every step.

    ## Reward
    What was realised between this event and the next, up to and including the next open: by default
    `net_seconds` (saved seconds, less the price of the memory-time of unused prewarms and of asking; see
    `reward.terms`). The last step of an episode also resolves what is left, as wasted.

    ## Starting state
    The episode's first decision stands right after the event before its first open; memory holds what the
    history before it left warm (least recently used, no prewarms).

    ## Episode end
    An episode terminates with its last open. It is never truncated.

    ## Info
    `info["outcome"]`: float64 (16,), the record of `env.judge.plans.FIELDS` (in `reset`: zeros).
    `info["event"]`: index of the event just opened. `env.unwrapped.describe()` says it in words.

    ## Arguments
    | name | default | meaning |
    |---|---|---|
    | timelines | "demo" | what `load_timelines` takes, or a sequence of `Timeline` |
    | timelines_seed | 0 | draws the demo |
    | split, part | "chrono", "all" | "chrono", "wave" or a `Split`; "all", "train", "validation", "test" |
    | indices | None | opens to play, int array per timeline; instead of split and part |
    | episode | "session" | "session" (ends at a pause > 30 min), "day" (local) or "timeline" |
    | shuffle | True | episodes of all users in a seeded random order, each once in a round; else in order |
    | slate_size | 12 | C |
    | config | WorldConfig() | budget, ttl, K, delays; a `WorldConfig` or a mapping of its fields |
    | costs | "desktop" | a cost preset or a `CostModel` |
    | reward | "net_seconds" | what `reward.parse_reward` takes; must be linear |
    | render_mode | None | "ansi": `render()` is text; "rgb_array": a picture; "human": prints steps |

    `reset(options={"user": U, "episode": E})` plays user U's episode number E (either may be left out).

    ```python
    env = gymnasium.make("rlmemo/Prewarm-v0", timelines="webtrackr", part="train", episode="day")
    ```

    ## fork and restore
    `env.unwrapped.fork()` returns a `Snapshot`; `restore(snapshot)` puts this environment back exactly, its
    random generator too.

    ## Version history
    * v0: first version. `info["outcome"]` has grown by three fields since (cold, base_cold, kept).
    * v1: `env.gym.memory.MemoryEnv`, which also says who leaves.
    """

    residents: ClassVar[int] = 0  # rows of those that are resident, which an action can let go
    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "human", "rgb_array"],
        "render_fps": 1,
    }

    def __init__(
        self,
        timelines: str | Sequence[Timeline] = "demo",
        *,
        timelines_seed: int = 0,
        split: str | Split = "chrono",
        part: str = "all",
        indices: Sequence[np.ndarray] | None = None,
        episode: str = "session",
        shuffle: bool = True,
        slate_size: int = SLATE_SIZE,
        config: WorldConfig | Mapping[str, Any] | None = None,
        costs: CostModel | str = "desktop",
        reward: str | Mapping[str, Any] | Reward | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise InputError(f"render_mode {render_mode!r} is none of {modes}")
        if slate_size < 1:
            raise InputError(f"slate_size is {slate_size}; give 1 or more")
        self.render_mode = render_mode
        self.config = config if isinstance(config, WorldConfig) else WorldConfig.from_mapping(config or {})
        try:
            self.reward = parse_reward(reward)
            self._weights = self.reward.weights(FIELDS)
        except ValueError as error:
            raise InputError(str(error)) from None
        self.shuffle = shuffle
        if indices is None:
            indices = part_indices(people(timelines, timelines_seed), split, part)
        self.tracks = make_tracks(
            timelines,
            indices,
            seed=timelines_seed,
            costs=cost_model(costs),
            config=self.config,
            weights=self._weights,
            size=slate_size,
            episode=episode,
            residents=self.residents,
        )
        self.episodes = np.array(
            [(u, e) for u, track in enumerate(self.tracks) for e in range(len(track.first))], dtype=np.int64
        )
        picks, delays = self.config.max_picks, len(self.config.delays)
        go = [self.residents + 1] * (self.config.max_let_go if self.residents else 0)
        self.action_space = spaces.MultiDiscrete([slate_size + 1, delays] * picks + go)
        flags = spaces.Box(0.0, 1.0, (slate_size,), np.float32)
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {
                "slate": spaces.Box(-1.0, 1.0, (slate_size, len(SLATE_COLUMNS)), np.float32),
                "moment": spaces.Box(-1.0, 1.0, (len(MOMENT_COLUMNS),), np.float32),
                "warm": flags,
                "loading": flags,
                "scheduled": flags,
                "memory": spaces.Box(0.0, 1.0, (stepper.N_MEMORY,), np.float32),
            }
        )
        self._size = slate_size
        lengths = [slate_size] * 3 + [stepper.N_MEMORY, self.residents * stepper.N_RESIDENT]
        lengths += [slate_size * len(SLATE_COLUMNS), len(MOMENT_COLUMNS)]
        ends = np.cumsum(lengths).tolist()
        self._parts = tuple(slice(end - n, end) for n, end in zip(lengths, ends, strict=True))
        self._said = self.action_space.shape
        self._nothing = (np.zeros(self._said, np.int64), np.zeros(N_FIELDS), 0.0)
        self._order = np.zeros(0, np.int64)
        self._position = 0
        self._done = True
        self._enter(0, 0)
        self._done = True

    # --- Gymnasium ----------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin the next episode; with a seed, begin a new order of episodes."""
        super().reset(seed=seed)
        if seed is not None:
            self._order = np.zeros(0, np.int64)
        if options and ("user" in options or "episode" in options):
            self._enter(*self._asked(options))
        else:
            if self._position >= len(self._order):
                n = len(self.episodes)
                self._order = self.np_random.permutation(n) if self.shuffle else np.arange(n)
                self._position = 0
            user, number = self.episodes[self._order[self._position]].tolist()
            self._position += 1
            self._enter(user, number)
        out = np.empty(self._walk.width, np.float32)
        self._walk.observe(out)
        if self.render_mode == "human":
            self._print()
        return self._observation(out), {"outcome": np.zeros(N_FIELDS), "event": self._walk.i}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Decide after the current event; the next event comes."""
        if self._done:
            raise InputError("the episode is over; call reset()")
        action = np.array(action, dtype=np.int64)  # a copy: one type of array is compiled for
        if action.shape != self._said:
            raise InputError(f"action has shape {action.shape}; expected {self._said}")
        walk = self._walk
        out, record = np.empty(walk.width, np.float32), np.empty(N_FIELDS)
        reward = walk.step(action, self._last, record, out)
        if reward != reward:
            raise InputError(f"action {action.tolist()} is not in {self.action_space}")
        self._total += reward
        self._latest = (action, record, reward)
        self._done = walk.i >= self._last
        if self.render_mode == "human":
            self._print()
        return self._observation(out), reward, self._done, False, {"outcome": record, "event": walk.i}

    def render(self) -> str | np.ndarray | None:  # type: ignore[override]
        """This moment as text ("ansi") or as a picture ("rgb_array"); "human" has printed it already."""
        if self.render_mode == "ansi":
            return self.describe()
        if self.render_mode == "rgb_array":
            return picture(self)
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs gymnasium.make(..., render_mode="ansi") or "human"')
        return None

    # --- beyond Gymnasium ---------------------------------------------------------------------------

    def describe(self) -> str:
        """This moment in words: what came, what is warm, what was planned."""
        return describe(self)

    def fork(self) -> Snapshot:
        """This moment, to come back to."""
        return Snapshot(
            track=self._user,
            episode=self._episode,
            index=self._walk.i,
            arrays=tuple(a.copy() for a in self._live()),
            rng=None if self._np_random is None else self._np_random.bit_generator.state,
            order=self._order.copy(),
            position=self._position,
            done=self._done,
            total=self._total,
            last=self._latest,
            woken=self._walk.woken,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Back to the moment of `snapshot`, exactly."""
        self._enter(snapshot.track, snapshot.episode)
        for array, saved in zip(self._live(), snapshot.arrays, strict=True):
            array[...] = saved
        self._walk.i, self._walk.woken = snapshot.index, snapshot.woken
        if snapshot.rng is not None:
            self.np_random.bit_generator.state = snapshot.rng
        self._order = snapshot.order.copy()
        self._position = snapshot.position
        self._done = snapshot.done
        self._total = snapshot.total
        self._latest = snapshot.last

    # --- its parts ----------------------------------------------------------------------------------

    def _enter(self, user: int, episode: int) -> None:
        """Stand before the first decision of an episode."""
        track = self.tracks[user]
        self._user, self._episode, self._track, self._walk = user, episode, track, track.walk
        self._last = int(track.last[episode])
        self._done = False
        self._total = 0.0
        self._latest = self._nothing
        residents = track.residents[track.offsets[episode] : track.offsets[episode + 1]]
        self._walk.enter(int(track.first[episode]), residents)

    def _live(self) -> tuple[np.ndarray, ...]:
        """The arrays that steps change."""
        return (*self._walk.state, *self._walk.book)

    def _observation(self, out: np.ndarray) -> dict[str, np.ndarray]:
        """`out`, as `Walk.observe` filled it, in its parts; nobody else has it."""
        warm, loading, scheduled, memory, _, slate, moment = self._parts
        return {
            "slate": out[slate].reshape(self._size, -1),
            "moment": out[moment],
            "warm": out[warm],
            "loading": out[loading],
            "scheduled": out[scheduled],
            "memory": out[memory],
        }

    def _asked(self, options: Mapping[str, Any]) -> tuple[int, int]:
        users = [track.timeline.user for track in self.tracks]
        user = options.get("user", users[0])
        if user not in users:
            raise InputError(f"user {user!r} is none of {', '.join(map(str, users))}")
        track = self.tracks[users.index(user)]
        episode = int(options.get("episode", 0))
        if not 0 <= episode < len(track.first):
            raise InputError(f"episode {episode} of user {user!r} is outside 0..{len(track.first) - 1}")
        return users.index(user), episode

    def _print(self) -> None:
        print(self.describe(), flush=True)

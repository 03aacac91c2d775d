"""Tracks and episodes: everything about a timeline that the environment's steps only look up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from env.errors import InputError
from env.gym import stepper
from env.gym.walk import WakingWalk, Walk
from env.judge import state
from env.judge.cost import CostModel, WorldConfig
from env.slate.slate import CONTEXT, FEATURES, build_slates
from env.sources import load_timelines
from env.splits import SESSION_GAP_S, Split, chrono, sessions, wave
from env.timeline import Timeline

EPISODES = ("session", "day", "timeline")
PARTS = ("all", "train", "validation", "test")

# What is divided by what, so that the features lie in [-1, 1]; the rest are shares already.
_SCALE = {"log_seconds_ago": 20.0, "log_events_ago": 12.0, "overdue": 4.0, "log_gap": 20.0, "pace": 12.0}
SLATE_COLUMNS = (*FEATURES, "memory_share", "hit_saving", "present")
MOMENT_COLUMNS = (
    "hour_sin", "hour_cos", "weekday_sin", "weekday_cos",
    *(name for name in CONTEXT if name not in ("hour", "weekday")),
)  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One timeline, ready to be stepped.

    first   int64 [E]: index of the event before each episode (its first decision); last: its last open
    walk    the world of the episode that is under way
    offsets, residents: who is warm at `first`, least recently used first (see `stepper.warm_starts`)
    """

    timeline: Timeline
    candidates: np.ndarray
    rules: state.Rules
    walk: Walk
    first: np.ndarray
    last: np.ndarray
    offsets: np.ndarray
    residents: np.ndarray


def episodes(timeline: Timeline, kind: str, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Episodes over the opens `indices` (sorted, > 0): (first decision, last open), int64 [E] each.

    An episode is a run of consecutive opens within one session (a pause of more than 30 minutes ends it),
    one local day, or without further limit; its first decision stands after the event before its first
    open, so every open of `indices` belongs to exactly one episode.
    """
    if kind not in EPISODES:
        raise InputError(f"episode {kind!r} is none of {', '.join(EPISODES)}")
    indices = np.asarray(indices, dtype=np.int64)
    indices = indices[indices > 0]
    if not len(indices):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if kind == "session":
        group = sessions(timeline, SESSION_GAP_S)[indices]
    elif kind == "day":
        group = (timeline.local()[indices] // 86400).astype(np.int64)
    else:
        group = np.zeros(len(indices), np.int64)
    cut = np.flatnonzero((np.diff(indices) != 1) | (np.diff(group) != 0)) + 1
    edges = np.concatenate([[0], cut, [len(indices)]])
    return indices[edges[:-1]] - 1, indices[edges[1:] - 1]


def part_indices(timelines: Sequence[Timeline], split: str | Split, part: str) -> list[np.ndarray]:
    """The opens of one part of a split, per timeline."""
    if part not in PARTS:
        raise InputError(f"part {part!r} is none of {', '.join(PARTS)}")
    if part == "all":
        return [np.arange(1, len(x), dtype=np.int64) for x in timelines]
    if isinstance(split, str):
        makers: dict[str, Callable[[Sequence[Timeline]], Split]] = {"chrono": chrono, "wave": wave}
        if split not in makers:
            raise InputError(f"split {split!r} is none of {', '.join(makers)}; or give a Split")
        split = makers[split](timelines)
    chosen: list[np.ndarray] = getattr(split, part)
    if len(chosen) != len(timelines):
        raise InputError(f"the split is of {len(chosen)} timelines, and here are {len(timelines)}")
    return chosen


@lru_cache(maxsize=4)
def load_named(spec: str, seed: int) -> tuple[Timeline, ...]:
    """The timelines called `spec`, loaded once for all environments of a process (make_vec makes many)."""
    return tuple(load_timelines(spec, seed=seed).timelines)


def people(timelines: str | Sequence[Timeline], seed: int) -> Sequence[Timeline]:
    """The timelines, loaded where they are named."""
    return load_named(timelines, seed) if isinstance(timelines, str) else timelines


@lru_cache(maxsize=8)
def _named_observations(
    spec: str, seed: int, user: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return observations(load_named(spec, seed)[user], size)


def observations(timeline: Timeline, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(candidates int32 [n, C], features float32 [n, C, len(FEATURES)], moment): scaled into [-1, 1]."""
    slates = build_slates(timeline, size)
    scale = np.array([_scale(name) for name in FEATURES], np.float32)
    features = np.clip(slates.features / scale, -1.0, 1.0).astype(np.float32)
    context = dict(zip(CONTEXT, slates.context.T, strict=True))
    hour = context.pop("hour") * (2 * np.pi / 24)
    weekday = context.pop("weekday") * (2 * np.pi / 7)
    columns = [np.sin(hour), np.cos(hour), np.sin(weekday), np.cos(weekday)]
    columns += [np.clip(values / _scale(name), -1.0, 1.0) for name, values in context.items()]
    moment = np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float32)
    return np.ascontiguousarray(slates.candidates, dtype=np.int32), features, moment


def _scale(name: str) -> float:
    return _SCALE.get(name, 16.0 if name.startswith("log_") else 1.0)


def make_tracks(
    timelines: str | Sequence[Timeline],
    chosen: Sequence[np.ndarray],
    *,
    seed: int,
    costs: CostModel,
    config: WorldConfig,
    weights: np.ndarray,
    size: int,
    episode: str,
    residents: int = 0,
) -> list[Track]:
    """One track per timeline with an episode over its `chosen` opens. Raises InputError where none has."""
    found = people(timelines, seed)
    if len(chosen) != len(found):
        raise InputError(f"indices are given for {len(chosen)} timelines, and here are {len(found)}")
    tracks = []
    for user, (timeline, opens) in enumerate(zip(found, chosen, strict=True)):
        if len(opens) and not (np.min(opens) >= 0 and np.max(opens) < len(timeline)):
            raise InputError(f"user {timeline.user!r}: indices lie outside 0..{len(timeline) - 1}")
        first, last = episodes(timeline, episode, opens)
        if not len(first):
            continue
        made = (
            _named_observations(timelines, seed, user, size)
            if isinstance(timelines, str)
            else observations(timeline, size)
        )
        tracks.append(_track(timeline, costs, config, weights, residents, (first, last), made))
    if not tracks:
        raise InputError("there is no episode: no timeline has an open to predict in this part")
    return tracks


def _track(
    timeline: Timeline,
    model: CostModel,
    config: WorldConfig,
    weights: np.ndarray,
    rows: int,
    spans: tuple[np.ndarray, np.ndarray],
    seen: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Track:
    """spans: of the episodes, as of `episodes`; seen: at every event, as of `observations`."""
    (first, last), (candidates, features, moment) = spans, seen
    costs = model.arrays(timeline)
    rules = state.rules(costs, config)
    shown = _shown(candidates, features, moment, rules)
    offsets, residents = stepper.warm_starts(timeline.target, rules, first)
    prewarms = config.max_picks * int((last - first).max())
    woken = config.woken(timeline)
    if not rows or woken is timeline:
        walk = Walk(timeline, candidates, costs, config, weights, prewarms, rows, shown)
    else:
        then = observations(woken, candidates.shape[1])
        at_wakes = then[0], _shown(*then, rules)
        walk = WakingWalk(timeline, (candidates, shown), at_wakes, costs, config, weights, prewarms, rows)
    return Track(
        timeline=timeline,
        candidates=candidates,
        rules=rules,
        walk=walk,
        first=first,
        last=last,
        offsets=offsets,
        residents=residents,
    )


def _shown(
    candidates: np.ndarray, features: np.ndarray, moment: np.ndarray, rules: state.Rules
) -> np.ndarray:
    """What is seen beside memory: the slate with what its candidates cost, and the moment, float32 [n, P]."""
    known = candidates >= 0
    where = np.maximum(candidates, 0)
    extra = np.stack(
        [
            rules.cost[where, state.MEMORY] / rules.budget,
            np.clip((rules.cost[where, state.COLD] - rules.cost[where, state.WARM]) / 10.0, 0.0, 1.0),
            np.ones(candidates.shape),
        ],
        axis=-1,
    )
    slate = np.concatenate([features, np.where(known[..., None], extra, 0.0)], axis=-1).astype(np.float32)
    shown: np.ndarray = np.concatenate([slate.reshape(len(slate), -1), moment], axis=1)
    return shown

"""Which events are to be predicted for training, validation and test.

A split holds, per timeline, the *indices* of the events to be predicted; event i is predicted from the
events before it, so a decision stands right after event i - 1. Event 0 has no past and is in no part.
Parts are disjoint, and every index of a part lies after every index of the part before it, within a user
(leave-one-user-out apart, where users are disjoint).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from env.errors import InputError
from env.timeline import Timeline

SESSION_GAP_S = 1800.0


@dataclass(frozen=True)
class Split:
    """Indices of the events to be predicted: per timeline one sorted int64 array for each part."""

    name: str
    train: list[np.ndarray]
    validation: list[np.ndarray]
    test: list[np.ndarray]

    def counts(self) -> dict[str, int]:
        """Events to be predicted in each part, over all timelines."""
        return {
            "train": sum(map(len, self.train)),
            "validation": sum(map(len, self.validation)),
            "test": sum(map(len, self.test)),
        }


def chrono(timelines: Sequence[Timeline], train: float = 0.7, validation: float = 0.1) -> Split:
    """Per user in time order: with N events, train is index < int(train·N), test is index >=
    int((train + validation)·N), validation lies between.

    Raises InputError unless 0 < train, 0 <= validation, train + validation < 1.
    """
    if not (train > 0 and validation >= 0 and train + validation < 1):
        raise InputError(
            f"a split of train {train} and validation {validation} leaves nothing for test; "
            "give shares such as 0.7 and 0.1"
        )
    # 0.7 + 0.1 is 0.7999… in binary: rounded, so that the test part starts at int(0.8·N) exactly
    end = round(train + validation, 12)
    parts = [_cut(len(x), int(train * len(x)), int(end * len(x))) for x in timelines]
    return _split("chrono", parts)


def origin(timelines: Sequence[Timeline], share: float, test: float = 0.2) -> Split:
    """As if a recording had ended a share `test` of its events after the origin, `share` of them: per user,
    the last eighth of what lies before the origin is validation, the rest train; what comes later is in no
    part.

    Raises InputError unless 0 < share and share + test <= 1.
    """
    if not (share > 0 and test > 0 and share + test <= 1):
        raise InputError(f"an origin at {share} leaves no {test} of the events for test")
    ends = [round(0.875 * share, 12), share, round(share + test, 12)]
    parts = []
    for x in timelines:
        a, b, c = (int(end * len(x)) for end in ends)
        train, validation, rest = _cut(len(x), a, b)
        parts.append((train, validation, rest[: c - b]))
    return _split(f"origin{round(100 * share)}", parts)


SPLITS = ("chrono", "wave", "origin40", "origin60")
"""Names of splits (`split_by`); an origin is where the first 40 or 60 % of each user's events end."""


def split_by(timelines: Sequence[Timeline], name: str) -> Split:
    """The split with this name, one of SPLITS. Raises InputError where the timelines cannot be split so."""
    if name == "wave":
        return wave(timelines)
    return chrono(timelines) if name == "chrono" else origin(timelines, int(name[len("origin") :]) / 100)


def wave(timelines: Sequence[Timeline], validation: float = 0.1) -> Split:
    """Wave 1 is for training (its last tenth for validation), wave 2 for test, per user.

    Raises InputError when no user has both waves. Users with one wave only have no test part.
    """
    if not 0 <= validation < 1:
        raise InputError(f"validation {validation} is no share of wave 1; give one such as 0.1")
    parts = []
    for x in timelines:
        first, second = np.flatnonzero(x.wave == 1), np.flatnonzero(x.wave == 2)
        if len(first) and len(second) and first[-1] > second[0]:
            raise InputError(f"user {x.user!r}: wave 2 begins before wave 1 has ended; use --split chrono")
        cut = int((1 - validation) * len(first))
        parts.append((first[:cut], first[cut:], second if len(first) else second[:0]))
    if not any(len(p[2]) for p in parts):
        raise InputError("these timelines have no two recording waves (webtrackr has); use --split chrono")
    return _split("wave", parts)


def leave_one_user_out(timelines: Sequence[Timeline], validation: float = 0.1) -> list[tuple[str, Split]]:
    """For each user a split in which all of that user's events are the test, and of everyone else's the
    last tenth is for validation.

    Raises InputError for fewer than two users.
    """
    if len(timelines) < 2:
        raise InputError(f"leaving one user out needs two users, and here is {len(timelines)}; use chrono")
    out = []
    for left_out in range(len(timelines)):
        parts = []
        for i, x in enumerate(timelines):
            n = len(x)
            cut = int((1 - validation) * n)
            parts.append(_cut(n, 0, 0) if i == left_out else _cut(n, cut, n))
        out.append((timelines[left_out].user, _split(f"user:{timelines[left_out].user}", parts)))
    return out


def sessions(timeline: Timeline, gap_s: float = SESSION_GAP_S) -> np.ndarray:
    """Session number of every event, int64 [n], from 0: a new one starts after a pause > `gap_s` seconds.

    A pause is counted from the opening of one event to the next.
    """
    if len(timeline) == 0:
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.cumsum(np.diff(timeline.t) > gap_s)]).astype(np.int64)


def _cut(n: int, a: int, b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i = np.arange(n, dtype=np.int64)
    return i[:a], i[a:b], i[b:]


def _split(name: str, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Split:
    """Event 0 of a timeline has no past to be predicted from."""
    a, b, c = ([np.asarray(p[k], np.int64)[p[k] > 0] for p in parts] for k in range(3))
    return Split(name=name, train=a, validation=b, test=c)

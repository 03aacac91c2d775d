"""A policy that follows a recording which is still going on: an event comes, and it is asked at once.

`Follower` is what a live recording needs of any policy. A language model keeps its state from event to event
(`rlmemo.model.streaming`), so do the counting ones; any other policy is asked afresh over all events so far,
which takes longer the longer the recording is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from env.ranking import Ranking
from env.thumbs import Thumbs
from env.timeline import Event, Timeline
from rlmemo.model.ask import FirstPick, SampledPlans, read
from rlmemo.model.readings import SlotReading, reading_of
from rlmemo.model.streaming import Following
from rlmemo.model.text import TextReading
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import BY_NOBODY, OwnPlans, Planner, Threshold


class Follower(Protocol):
    """Events go in one by one, collapsed; what is answered stands after the latest of them.

    names: the targets seen so far, in order of first appearance: by their index in a ranking.
    """

    names: list[str]

    def see(self, event: Event) -> int:
        """Take in the next event; the index of its target. Raises ValueError where time runs backwards."""
        ...

    def wake(self, t: float) -> None:
        """The machine was off, and the person is back at t: `rank` is asked then, until the next event."""
        ...

    def hear(self, thumbs: Thumbs | None) -> None:
        """What the person has said, all of it; who reads thumbs minds it from the next answer on."""
        ...

    def rank(self) -> Ranking:
        """As `Policy.rank`, one row."""
        ...

    def soon(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Who is opened soon, as of `env.judge.case.Case.told`, one row; None where it does not say."""
        ...


@dataclass(frozen=True)
class PersonsPrompt:
    """What a language model is to read of a person: a prompt int64 [1, L]. whose: who reads alike, those with
    the same adapter."""

    whose: str
    user: str
    prompt: np.ndarray


def answers(policy: LanguagePolicy, questions: Sequence[PersonsPrompt]) -> list[FirstPick]:
    """What is said to questions of several people, in one forward pass for those whose prompts are read by
    the same adapter and are equally long."""
    found: list[FirstPick | None] = [None] * len(questions)
    alike: dict[tuple[str, int], list[int]] = {}
    for k, question in enumerate(questions):
        alike.setdefault((question.whose, question.prompt.shape[1]), []).append(k)
    for places in alike.values():
        model = policy.source.of(questions[places[0]].user)
        said = read(model, np.concatenate([questions[k].prompt for k in places]), batch=len(places))
        for row, k in enumerate(places):
            found[k] = said.row(row)
    return [x for x in found if x is not None]


class _Streaming:
    """A language model that is read on."""

    def __init__(self, policy: LanguagePolicy, user: str, tz: str, keeps: bool) -> None:
        self._of, self._whose, self._user = policy.source.of, policy.source.whose, user
        self.following = Following(self._of(user), tz, keeps=keeps)
        self.names, self._keeps = self.following.names, keeps
        self._index: dict[str, int] = {}

    def see(self, event: Event) -> int:
        self.following.see(event.t, event.target, event.kind == "page")
        return self._index.setdefault(event.target, len(self._index))

    def wake(self, t: float) -> None:
        self.following.wake(t)

    def hear(self, thumbs: Thumbs | None) -> None:
        self.following.hear(thumbs)

    def question(self) -> PersonsPrompt | None:
        """What the model is to read for `rank`; None where it is not to be read together with others'."""
        prompt = self.following.question()
        return None if prompt is None else PersonsPrompt(self._whose(self._user), self._user, prompt)

    def rank(self, said: FirstPick | None = None) -> Ranking:
        """said: what the model says to `question` (None: it is asked)."""
        self._of(self._user)
        return self.following.rank(said)

    def soon(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.following.soon() if self._keeps else None

    def own(self, warm: np.ndarray, free: float, picks: int) -> SampledPlans:
        """A plan of the model's own, of places in `slate`."""
        self._of(self._user)
        return self.following.plan(warm, free, picks)

    @property
    def slate(self) -> np.ndarray:
        """What may come next, int32 [SLATE_SIZE]."""
        return self.following.slate


class _Counting:
    """Counts that are kept."""

    def __init__(self, policy: CountingPolicy) -> None:
        self.names: list[str] = []
        self._index: dict[str, int] = {}
        self._see, self._ask = policy.follow()

    def see(self, event: Event) -> int:
        index = _numbered(event.target, self._index, self.names)
        self._see(index, event.t)
        return index

    def wake(self, t: float) -> None:
        """Counts do not read the clock."""

    def hear(self, thumbs: Thumbs | None) -> None:
        """Counts do not read what was said."""

    def rank(self) -> Ranking:
        return self._ask()

    def soon(self) -> None:
        return None


class _Afresh:
    """Any policy, asked over all events so far."""

    def __init__(self, policy: Any, user: str, tz: str, keeps: bool) -> None:
        self._user, self._tz = user, tz
        self._rank: Callable[..., Ranking] = policy.rank
        self._soon: Callable[..., Any] | None = policy.soon if keeps else None
        self.names: list[str] = []
        self._index: dict[str, int] = {}
        self._events: list[Event] = []
        self._thumbs: Thumbs | None = None
        self._woken: float | None = None

    def see(self, event: Event) -> int:
        self._woken = None
        if self._events and event.t < self._events[-1].t:
            raise ValueError(f"an event at {event.t} comes after the one at {self._events[-1].t}")
        self._events.append(event)
        return _numbered(event.target, self._index, self.names)

    def wake(self, t: float) -> None:
        self._woken = t

    def hear(self, thumbs: Thumbs | None) -> None:
        self._thumbs = thumbs

    def rank(self) -> Ranking:
        return self._rank(*self._so_far())

    def soon(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._soon(*self._so_far()) if self._soon is not None else None

    def _so_far(self) -> tuple[Timeline, np.ndarray]:
        events, now = self._events, None
        wakes = [] if self._woken is None else [self._woken]
        if self._woken is not None:  # something comes after it, as in a recording; what, is not looked at
            events = [*events, replace(events[-1], t=self._woken + 1.0)]
            now = np.array([e.t for e in events])
            now[-2] = self._woken
        timeline = Timeline.from_events(self._user, events, tz=self._tz, wakes=wakes)
        timeline = replace(timeline, thumbs=self._thumbs, now=now)
        return timeline, np.array([len(self._events) - 1], np.int64)


def _numbered(target: str, index: dict[str, int], names: list[str]) -> int:
    """The number of a target by first appearance."""
    if target not in index:
        index[target] = len(names)
        names.append(target)
    return index[target]


def follower(policy: Any, user: str, tz: str, planner: Planner) -> Follower:
    """Somebody who follows a person's recording for `policy`, and answers what `planner` asks."""
    keeps = names_of(planner) and hasattr(policy, "soon")
    if isinstance(policy, CountingPolicy):
        return _Counting(policy)
    if isinstance(policy, LanguagePolicy) and _can_be_read_on(policy.source.of(user)):
        return _Streaming(policy, user, tz, keeps)
    return _Afresh(policy, user, tz, keeps)


def _can_be_read_on(model: Any) -> bool:
    return type(reading_of(model)) in (SlotReading, TextReading)


def names_of(planner: Planner) -> bool:
    """Whether a planner names who leaves first; here that is always who is least worth keeping by the
    trees."""
    return (
        planner.names != BY_NOBODY if isinstance(planner, OwnPlans | Threshold) else names_of(planner.inner)
    )

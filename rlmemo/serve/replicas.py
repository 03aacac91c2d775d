"""Replicas that think, as actors of Ray, and the crew that is asked in their stead.

    crew = Replicas("local", 2, Thinking("runs/first", {}, None, 256))
    People(store, Way(crew.whom, crew.mind, turns.apart), 256, turns)

What counts is in the store of the process that serves; a replica holds what can be made anew from it: the
minds of some people, each where its events have led. Everybody has a replica of their own, by the hash of
their name among those that are up. Where that one does not stand where the store stands, because it is new,
or another, or has thought of something that was never written, it is sent what is kept and begins anew: so a
replica that dies or is drained costs time and no answer. Ray starts it again.

These are Ray's actors and not deployments of Ray Serve, whose replicas listen on every interface of a machine
to whoever comes (Ray 2.60: `[::]`, without a word asked), and whose queue knows no urgency.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from env.errors import InputError
from rlmemo.evaluation.ray_crew import LOCAL, joined
from rlmemo.policies.registry import to_follow
from rlmemo.serve.minds import maker, opened, version_of
from rlmemo.serve.passes import MindsPast, Passes, steps, together
from rlmemo.serve.people import Elsewhere, Refused
from rlmemo.serve.told import ToldMind
from rlmemo.serve.turns import BATCH, answers_promptly

if TYPE_CHECKING:
    from env.thumbs import Thumbs
    from rlmemo.live.mind import Thought
    from rlmemo.store.live_ledger import LivePlan, LiveRow

TRIES = 2
FIRST_S = 180.0
"""Until a replica has loaded its model for the first time."""
UP_S = 60.0
"""A request waits so long for a replica to be up."""
DRAIN_S = 120.0
LOOK_S = 1.0
HANGS_S = 20.0
"""A replica that says nothing for so long is ended, and started again."""
UP, DOWN, DRAINING, RESTARTING = "up", "down", "draining", "restarting"
"""How a replica stands. DOWN: it died; RESTARTING: it was drained, and is not up again yet."""


@dataclass(frozen=True)
class Thinking:
    """What a replica is made of. policy, world, threshold: as on the command line; most: minds in memory."""

    policy: str
    world: Mapping[str, Any]
    threshold: float | None
    most: int


@dataclass(frozen=True)
class Whom:
    """Who is thought of."""

    name: str
    tz: str
    memory_mb: float | None


@dataclass(frozen=True)
class Ask:
    """What a replica is asked. stands: where the mind has to stand, by its token and the last event; past:
    from what it is made anew (None: it has to be there); rows, told: as of `ToldMind.think_all`."""

    whom: Whom
    stands: tuple[str, int]
    rows: Sequence[LiveRow]
    told: Sequence[LivePlan | None]
    batch: bool
    past: MindsPast | None = None


class Replica:
    """In a worker of Ray: the minds of some people, and the passes in which they think."""

    def __init__(self, given: Thinking) -> None:
        import torch

        torch.set_num_threads(1)
        made = to_follow(given.policy, given.world)
        self._make = maker(made, version_of(given.policy), given.threshold)
        self._most = given.most
        self._minds: OrderedDict[str, tuple[tuple[str, int], ToldMind]] = OrderedDict()
        at_once = together(made.policy, lambda name: ToldMind(self._make(name, "UTC", None)), opened)
        self._passes = Passes(made.policy, at_once)
        answers_promptly()

    async def think(self, ask: Ask) -> list[Thought] | None:
        """What comes of events; None where the mind is not here, or stands elsewhere."""
        whom = ask.whom
        stands, mind = self._minds.pop(whom.name, (None, None))
        if ask.past is None and (mind is None or stands != ask.stands):
            return None

        def begin() -> ToldMind:
            if ask.past is None and mind is not None:
                return mind
            return ToldMind(self._make(whom.name, whom.tz, whom.memory_mb))

        past = copy.deepcopy(ask.past)  # Ray's arrays cannot be written to
        work = self._passes.add(steps(begin, past, ask.rows, ask.told), ask.batch)
        now, thoughts = await asyncio.wrap_future(work)
        self._minds[whom.name] = (ask.stands[0], ask.rows[-1].id), now
        while len(self._minds) > self._most:
            self._minds.popitem(last=False)
        return thoughts

    async def stand(self) -> dict[str, Any]:
        """How it is."""
        passes = self._passes
        return {
            "pid": os.getpid(), "people": len(self._minds), "waiting": passes.waiting,
            "passes": passes.passes, "errands": passes.errands, "at_once": passes.at_once,
            "memory_mb": round(psutil.Process().memory_info().rss / 1e6),
        }  # fmt: skip


@dataclass
class Post:
    """A replica's place in the crew."""

    number: int
    actor: Any
    state: str = DOWN
    asked: int = 0
    ended: int = 0
    stands: dict[str, Any] = field(default_factory=dict)
    look: Any = None
    looked_at: float = 0.0


class Replicas:
    """Some replicas, on Ray's workers of this machine (address "local") or of a cluster."""

    def __init__(self, address: str, count: int, given: Thinking) -> None:
        """Start them, and wait until all are up. Raises InputError as `joined` does, and where one cannot
        load."""
        self._ray = joined(address, count if address == LOCAL else None)
        made = self._ray.remote(Replica).options(
            num_cpus=1, max_restarts=-1, max_task_retries=0, max_concurrency=1000,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        self.posts = [Post(k, made.remote(given)) for k in range(count)]
        self.retried = 0
        self._changed, self._closed = threading.Condition(), threading.Event()
        looks = [post.actor.stand.remote() for post in self.posts]
        for post, look in zip(self.posts, looks, strict=True):
            try:
                post.stands, post.state = self._ray.get(look, timeout=FIRST_S), UP
            except Exception as error:
                raise self._not_up(address, error) from None
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _not_up(self, address: str, error: Exception) -> InputError:
        said = [x for x in str(error).splitlines() if x.strip()] or [type(error).__name__]
        self._ray.shutdown()
        return InputError(
            f"--ray {address}: a replica does not come up ({said[-1].strip()}); try it without --ray, or "
            "with fewer --replicas"
        )

    def whom(self, name: str, tz: str, memory_mb: float | None) -> Whom:
        """Who is to be thought of."""
        return Whom(name, tz, memory_mb)

    def mind(self, whom: Whom) -> ReplicaMind:
        """One who thinks of somebody, and has seen nothing."""
        return ReplicaMind(self, whom)

    def think(self, ask: Ask) -> list[Thought] | None:
        """What comes of events; None where somebody has to be made anew first. Raises Refused where nobody
        can be asked."""
        errors = self._ray.exceptions
        for _ in range(TRIES):
            with self._post_of(ask.whom.name) as post:
                try:
                    found: list[Thought] | None = self._ray.get(post.actor.think.remote(ask))
                    return found
                except errors.RayTaskError as error:
                    raise error.cause from None
                except errors.RayError:
                    self._went_down(post)
                    self.retried += 1
                    if ask.past is None:
                        return None
        raise Refused(503, "who was to think of this has ended, twice; send that again in a while")

    @contextmanager
    def _post_of(self, name: str) -> Iterator[Post]:
        """Whose turn it is to think of somebody, once anybody is up."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(x.state == UP for x in self.posts), UP_S):
                raise Refused(503, "nobody is up here to think of this; send that again in a while")
            post = max((x for x in self.posts if x.state == UP), key=partial(_share, name))
            post.asked += 1
        try:
            yield post
        finally:
            with self._changed:
                post.asked -= 1
                self._changed.notify_all()

    def _went_down(self, post: Post) -> None:
        with self._changed:
            if post.state == UP:
                post.state = DOWN
                post.ended += 1

    def stands(self) -> dict[str, Any]:
        """How everybody is."""
        told = [
            {"number": x.number, "state": x.state, "asked": x.asked, "ended": x.ended, **x.stands}
            for x in self.posts
        ]
        return {"replicas": told, "retried": self.retried}

    def drain(self, number: int) -> dict[str, Any]:
        """Ask a replica nothing more, and begin it anew when it has answered all that it was asked. Raises
        Refused for one that is not up, or that nobody could stand in for."""
        post = self.posts[number] if 0 <= number < len(self.posts) else None
        with self._changed:
            if post is None or post.state != UP:
                raise Refused(409, f"replica {number} is not up; GET /v1/replicas says who is")
            if not any(x.state == UP for x in self.posts if x is not post):
                raise Refused(409, f"replica {number} is the only one up; drain it once another is up, too")
            post.state = DRAINING
            done = self._changed.wait_for(lambda: not post.asked, DRAIN_S)
            if not done:
                post.state = UP
                raise Refused(409, f"replica {number} has had something to do for {DRAIN_S:g} s")
            post.state = RESTARTING
            post.ended += 1
        self._ray.kill(post.actor, no_restart=False)
        return {"drained": number}

    def close(self) -> None:
        """End them, and leave the cluster."""
        self._closed.set()
        for post in self.posts:
            self._ray.kill(post.actor)
        self._ray.shutdown()

    def _watch(self) -> None:
        """Look who is up, and end who hangs."""
        errors = self._ray.exceptions
        while not self._closed.wait(LOOK_S):
            for post in self.posts:
                if post.look is None:
                    post.look, post.looked_at = post.actor.stand.remote(), time.monotonic()
                done, _ = self._ray.wait([post.look], timeout=0)
                if not done:
                    if post.state == UP and time.monotonic() - post.looked_at > HANGS_S:
                        self._went_down(post)
                        self._ray.kill(post.actor, no_restart=False)
                    continue
                look, post.look = post.look, None
                try:
                    stands = self._ray.get(look)
                except errors.RayError:
                    self._went_down(post)
                    continue
                with self._changed:
                    if post.state in (DOWN, RESTARTING) and stands["pid"] == post.stands["pid"]:
                        continue  # said before it ended
                    post.stands = stands
                    if post.state in (DOWN, RESTARTING):
                        post.state = UP
                        self._changed.notify_all()


def _share(name: str, post: Post) -> bytes:
    """Who has the largest share of a name thinks of who is called so; where one is gone, the next."""
    return hashlib.sha256(f"{post.number} {name}".encode()).digest()


class ReplicaMind:
    """Stands for a mind that a replica has, or will have."""

    def __init__(self, crew: Replicas, whom: Whom) -> None:
        self._crew, self._whom, self._token, self._last = crew, whom, uuid4().hex, 0
        self._past: MindsPast | None = MindsPast()
        self._lost = False

    def restore(self, rows: Sequence[LiveRow]) -> None:
        """Stand where these events and their plans have led; only before anything is thought."""
        assert self._past is not None
        self._past = replace(self._past, rows=rows)

    def hear(self, thumbs: Thumbs | None) -> None:
        """What the person has said, all of it; who has thought already is made anew for it."""
        if self._past is None:
            self._lost = True
        else:
            self._past = replace(self._past, thumbs=thumbs)

    def think_all(self, rows: Sequence[LiveRow], told: Sequence[LivePlan | None]) -> list[Thought]:
        """As of `ToldMind`. Raises Elsewhere where it has to be made anew."""
        if self._lost:
            raise Elsewhere
        ask = Ask(self._whom, (self._token, self._last), rows, told, BATCH.get(), self._past)
        found = self._crew.think(ask)
        if found is None:
            self._lost = True
            raise Elsewhere
        self._past, self._last = None, rows[-1].id
        return found

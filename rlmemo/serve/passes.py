"""One forward pass for several people, and whoever is urgent in the next one.

What a replica is asked becomes an `Errand`: events of one person that are taken in and decided after, one
by one, after a rebuilding where there is one to do. A pass takes the next event of up to `AT_ONCE` errands,
reads their prompts together, and lets each go on. Between two passes the order is made anew: what is urgent
first, then who came first. So a live request waits for one pass at most, however long a batch is; passes hold
either urgent errands or batches, never both, so that nobody who waits pays for a batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmemo.policies.following import PersonsPrompt, answers
from rlmemo.policies.language import LanguagePolicy
from rlmemo.serve.told import ToldMind, timed

if TYPE_CHECKING:
    from env.thumbs import Thumbs
    from rlmemo.live.mind import Thought
    from rlmemo.model.ask import FirstPick
    from rlmemo.store.live_ledger import LivePlan, LiveRow

AT_ONCE = 4
"""Errands in a pass: read together, prompts cost less each, and hardly less where there are more of them; an
urgent errand may have to wait for one pass."""

Finished = tuple[ToldMind, "list[Thought]"]
"""What comes of an errand: the mind, where it stands now, and its thoughts."""
Steps = Generator["PersonsPrompt | None", "FirstPick | None", Finished]
"""Asks its questions, is sent what is said to them, and returns what came of it."""


@dataclass(frozen=True)
class MindsPast:
    """What a mind is made anew from: the events that were decided, with their plans, and what was said."""

    rows: Sequence[LiveRow] = ()
    thumbs: Thumbs | None = None


def steps(
    begin: Callable[[], ToldMind],
    past: MindsPast | None,
    rows: Sequence[LiveRow],
    told: Sequence[LivePlan | None],
) -> Steps:
    """What an errand does, step by step. begin: gives the mind, between two passes, as it may put its own
    adapter into the model; past: to be restored first (None: the mind stands there)."""
    mind = begin()
    if past is not None:
        for _ in mind.restoring(past.rows):
            yield None
        mind.hear(past.thumbs)
    found = []
    for row, done in zip(rows, told, strict=True):
        began = time.perf_counter()
        mind.see(row, done)
        thought = mind.decide((yield mind.question()))
        found.append(thought if done else timed(thought, time.perf_counter() - began))
    return mind, found


@dataclass(order=True)
class Errand:
    """Something to do for a person, and where it stands."""

    batch: bool
    number: int
    work: Steps = field(compare=False)
    done: Future[Finished] = field(compare=False)
    question: PersonsPrompt | None = field(compare=False, default=None)
    answer: FirstPick | None = field(compare=False, default=None)
    begun: bool = field(compare=False, default=False)


class Passes:
    """A thread that makes one pass after the other. policy: who is asked; at_once: errands in a pass."""

    def __init__(self, policy: Any, at_once: int = AT_ONCE) -> None:
        self._policy, self.at_once = policy, at_once
        self.passes, self.errands = 0, 0
        self._numbers, self._waiting = count(), list[Errand]()
        self._some = threading.Condition()
        threading.Thread(target=self._go_on, name="passes", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Errands that wait for a pass."""
        return len(self._waiting)

    def add(self, work: Steps, batch: bool) -> Future[Finished]:
        """Something to do; what will come of it."""
        errand = Errand(batch, next(self._numbers), work, Future())
        with self._some:
            heappush(self._waiting, errand)
            self._some.notify()
        return errand.done

    def _next(self) -> list[Errand]:
        """Who is in the next pass."""
        with self._some:
            self._some.wait_for(lambda: self._waiting)
            found = [heappop(self._waiting)]
            while self._waiting and len(found) < self.at_once and self._waiting[0].batch == found[0].batch:
                found.append(heappop(self._waiting))
        return found

    def _go_on(self) -> None:
        import torch

        torch.set_num_threads(1)
        while True:
            going = self._next()
            going = [x for x in going if x.begun or self._gone_on(x)]
            try:
                self._read([x for x in going if x.question is not None])
            except BaseException as error:  # theirs to tell, and the next ones' to go on
                for errand in going:
                    errand.done.set_exception(error)
                continue
            # Who is urgent need not wait until a batch has made something of what it was told.
            left = [x for x in going if (x.batch and self._urgent()) or self._gone_on(x)]
            self.passes, self.errands = self.passes + 1, self.errands + len(going)
            with self._some:
                for errand in left:
                    heappush(self._waiting, errand)

    def _urgent(self) -> bool:
        """Whether somebody waits who goes first."""
        with self._some:
            return bool(self._waiting) and not self._waiting[0].batch

    def _gone_on(self, errand: Errand) -> bool:
        """Let an errand go on with what it was told; whether anything is left of it."""
        answer, errand.answer, errand.begun = errand.answer, None, True
        try:
            errand.question = errand.work.send(answer)
        except StopIteration as end:
            errand.done.set_result(end.value)
        except BaseException as error:
            errand.done.set_exception(error)
        else:
            return True
        return False

    def _read(self, asking: Sequence[Errand]) -> None:
        """The forward pass of those who ask."""
        said = answers(self._policy, [x.question for x in asking if x.question is not None])
        for errand, answer in zip(asking, said, strict=True):
            errand.question, errand.answer = None, answer


def together(policy: Any, mind: Callable[[str], ToldMind], rows: Callable[[int], LiveRow]) -> int:
    """How many people's prompts may be read in one pass: the largest number up to `AT_ONCE` with which
    everybody is told to the last bit what they are told alone; 1 where that is nobody, or where there is no
    model to ask. It is tried out, as matrix products may sum in another order where they are larger."""
    if not isinstance(policy, LanguagePolicy):
        return 1
    asked: list[PersonsPrompt] = []
    for k in range(2 * AT_ONCE):
        one = mind(f"{k}")
        for j in range(k + 2):
            one.see(rows(j * (1 + k % 3)))
            question = one.question()
            one.decide()
        if question is None:
            return 1
        asked.append(question)
    alone = [answers(policy, [x])[0] for x in asked]
    for many in range(2, AT_ONCE + 1):
        for first in range(0, len(asked) - many + 1, many):
            here = slice(first, first + many)
            said = answers(policy, asked[here])
            if not all(_same(x, y) for x, y in zip(said, alone[here], strict=True)):
                return many - 1
    return AT_ONCE


def _same(one: FirstPick, other: FirstPick) -> bool:
    pairs = ((one.first, other.first), (one.when, other.when), (one.leave, other.leave))
    return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)

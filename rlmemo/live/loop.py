"""The loop: what is new is written down, thought about, decided, done, and then one waits for more.

Everything that is known lies in the ledger; what this process holds in memory is made from it, and made anew
whenever the ledger refuses something (a full disk) or something in it was forgotten. So it may be killed at
any moment.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from env.errors import InputError
from env.timeline import Event
from rlmemo.live.activitywatch import Away, News
from rlmemo.live.acts import Executor
from rlmemo.live.clock import Waiting
from rlmemo.live.fronts import Fronts
from rlmemo.live.hearing import Hearing
from rlmemo.live.mind import Minding, Thought
from rlmemo.live.nightly import Nightly
from rlmemo.live.past import Past
from rlmemo.store.live_ledger import (
    DECIDED,
    FORGOTTEN,
    LET_GO,
    LOAD,
    NOT_YET,
    NOTHING_TO_DECIDE,
    PAST,
    WOKEN,
    LiveLedger,
    LiveRow,
    Off,
    Seen,
)
from rlmemo.store.records import Prewarm

POLL_S, POLL_AWAY_S, POLL_WAITING_S = 1.0, 5.0, 0.25
"""Between two questions to the server: usually; while the person is away, or the server; while a page waits
for the watcher of windows to tell of its time."""
LOOK_S = 60.0
"""How often it is looked whether there are other buckets."""
LEFT_KEPT = 12
"""Of who has left memory, the latest are told."""
LATE_S = 10.0
"""A plan that is made later than this after its event is kept and judged, and nothing is done."""


def _to_stderr(line: str) -> None:
    at = "" if sys.stderr.isatty() else f"{datetime.now():%Y-%m-%d %H:%M:%S} "  # a log is read days later
    print(f"{at}{line}", file=sys.stderr, flush=True)


class SourceReader(Protocol):
    """Where the loop reads what is new. place: where to go on from, kept in the ledger with what was read."""

    place: dict[str, Any]

    def read(self, *, look: bool = False) -> News:
        """What is new. look: whether there are other places to read. Raises Away."""
        ...

    def in_pause(self) -> News:
        """What is new of the time before a pause that lasts."""
        ...

    def kept(self, due_s: float | None) -> None:
        """What was read is written down. due_s: seconds until something is to be done."""
        ...


@dataclass(frozen=True)
class ActStep:
    """A step of a plan that is due at a time."""

    due: float
    plan_id: int
    what: str
    place: int
    target: str


@dataclass
class Loop:
    """One recording, going on. began: what was opened before is a past, and nothing is decided after it;
    booted: when the machine was started; late_s: see `LATE_S`; say: where a line for the person goes; stop:
    ends it; stirred: ends a wait; past: a recording that comes before what is read first; nightly: who learns
    meanwhile."""

    ledger: LiveLedger
    reader: SourceReader
    minding: Minding
    executor: Executor | None
    clock: Waiting
    began: float
    booted: float | None = None
    late_s: float = LATE_S
    say: Callable[[str], None] = _to_stderr
    stop: threading.Event = field(default_factory=threading.Event)
    stirred: threading.Event = field(default_factory=threading.Event)
    past: Past | None = None
    nightly: Nightly | None = None

    def __post_init__(self) -> None:
        self._trouble = self._ahead = self._told = ""
        self._over = ""
        self._paused = False
        self._looked = float("-inf")
        self._steps: list[ActStep] = []
        self._loaded: dict[str, tuple[float, int, int]] = {}
        self.restore()

    def restore(self) -> None:
        """Stand where the ledger stands. Raises InputError where there is none any more."""
        if self.ledger.forgotten():
            self.end()
            raise InputError(
                "all of the recording was forgotten, so live stops; start it again for a new one"
            )
        self._forgotten = self.ledger.state(FORGOTTEN)
        self.reader.place = self.ledger.state("place") or {}
        self.fronts = Fronts.from_json(self.ledger.state("front"))
        self.mind = self.minding.mind()
        rows = list(self.ledger.rows())
        done = next((k for k, r in enumerate(rows) if r.planned == NOT_YET), len(rows))
        self.mind.restore(rows[:done])
        self.hearing = Hearing(self.ledger)
        self._listen()
        self._left = (self.ledger.state("now") or {}).get("left", [])
        self._last = rows[done - 1].id if done else 0
        self._anew, self._returned = False, True
        if not self.fronts.last and self.mind.latest is not None:
            self.fronts.last = self.mind.latest.target

    def end(self) -> None:
        """Go round no more."""
        self.stop.set()
        self.stirred.set()

    def run(self) -> None:
        """Go round until `stop` is set; then undo what was done."""
        try:
            while not self.stop.is_set():
                self.clock.wait(self.turn(), self.stirred)
                self.stirred.clear()
        finally:
            if self.executor is not None:
                self.executor.undo()

    def turn(self) -> float:
        """Once round; seconds to wait until the next."""
        try:
            if self._anew or self.ledger.state(FORGOTTEN) != self._forgotten:
                self.restore()
            if self.nightly is not None and (minding := self.nightly.turn(self.clock.now())) is not None:
                self.minding = minding
                self.restore()
            wait = self._read()
            self._decide()
            self._act()
            self.reader.kept(self._due_s())
            if not self._paused:  # then nobody was asked
                self._in_trouble(self._ahead)
                self._tell(self._ahead or self.mind.trouble)
            return wait
        except Away as error:
            self._in_trouble(str(error), again=True)
            return POLL_AWAY_S
        except InputError as error:  # the ledger refused: what is in memory may be further than what is kept
            self._in_trouble(str(error), again=True)
            self._anew = True
            return POLL_AWAY_S

    def _read(self) -> float:
        """Take in what is new and write it down; how long to wait then."""
        now = self.clock.now()
        pauses = self.ledger.pauses()
        self._paused = any(p.off_t <= now and (p.back_t is None or now < p.back_t) for p in pauses)
        look = now - self._looked >= LOOK_S and not self._paused
        news = self.reader.in_pause() if self._paused else self.reader.read(look=look)
        now = self.clock.now()
        self._ahead = news.ahead
        if look:
            self._looked = now
        kept = [r for r in news.rows if not any(p.off_t <= r.t < (p.back_t or now) for p in pauses)]
        before = self.fronts.waiting
        seen, offs = self.fronts.take(replace(news, rows=tuple(kept)), now, self.booted)
        offs += self._just_started(news, seen, now)
        told = self._told_before(seen)
        switches = [*told.pop("switches", ()), *self._returns(seen, offs)]
        self._returned = self._returned or bool(switches) or any(x.why == "shutdown" for x in offs)
        if news.rows or seen or offs or self.fronts.waiting != before or told:
            state = {"place": self.reader.place, "front": self.fronts.as_json(), **told}
            # a plan follows at once, and with it this is on the disk; what a power cut takes in between goes
            # together with the place, so that it is read again
            planned = any(x.event.t >= self.began for x in seen)
            self.ledger.add(
                seen, at=now, offs=offs, since=self.began, lasting=not planned, switches=switches, **state
            )
            self.past = None
        for report in news.reports:
            self.ledger.report(report.order, report.came, at=now)
        if self._paused:
            return POLL_AWAY_S
        if self.fronts.waiting:
            return POLL_WAITING_S
        return POLL_AWAY_S if self.fronts.away is not None else POLL_S

    def _just_started(self, news: News, seen: Sequence[Seen], now: float) -> list[Off]:
        """The machine was started, and nothing is heard of it yet: the person is back, and may be planned
        for."""
        told = self.fronts.told_last(news)
        if self.booted is None or told is None or not told < self.booted <= now:
            return []
        latest = self.ledger.latest_t()
        if not self.mind.at_wakes or self._paused or seen or latest is None:
            return []
        before = max(told, latest)
        if not before < self.booted or self.booted <= self.ledger.returned(latest) < math.inf:
            return []
        self.fronts.last = ""  # nothing is open any more
        return [Off(before, now, "shutdown")]

    def _returns(self, seen: Sequence[Seen], offs: Sequence[Off]) -> list[tuple[float, str]]:
        """Offs and wakes to be recorded: where it was asked for that a pause is an off (`off_after_s`), the
        first time that the person was there again."""
        after, found = self.minding.rules().off_after_s, list[tuple[float, str]]()
        if not self.mind.at_wakes or math.isinf(after):
            return found
        backs = sorted(x.back_t for x in offs if x.back_t is not None and x.why in ("afk", "gap"))
        if not backs:
            return found
        opens = [x.event.t for x in seen]
        if (latest := self.ledger.latest_t()) is not None:  # also where nothing was decided yet
            opens = [latest, *opens]
        known = -math.inf  # the wake that was found last
        for back in backs:
            before = bisect_left(opens, back)
            if not before or not opens[before - 1] + after < back:
                continue
            last = opens[before - 1]
            if known <= last and self.ledger.returned(last) == math.inf:
                found += [(last + after, "off"), (back, "wake")]
                known = back
        return found

    def _told_before(self, seen: list[Seen]) -> dict[str, Any]:
        """Put what a past tells of before what was read; what goes into the ledger besides."""
        if self.past is None:
            return {}
        first = [self.began, *(x.event.t for x in seen), *(x.t for x in self.fronts.waiting)]
        seen[:0] = opens = self.past.until(min(first))
        return {PAST: self.past.told(opens), "switches": self.past.switches(min(first))}

    def _decide(self) -> None:
        """Plan after every event that came."""
        rows = list(self.ledger.rows(after=self._last))
        if any(row.planned == NOTHING_TO_DECIDE for row in rows):  # a past, which is to be known from now on
            self.restore()
            rows = list(self.ledger.rows(after=self._last))
        if not rows:
            self._listen()  # what was said since is read while there is time
        for row in rows:
            if row.planned != NOT_YET:
                self._last = row.id
                continue
            if row.wake < math.inf:  # nobody was there to plan for it, or it was before the machine was on
                self._wake(row.wake)
            began = time.perf_counter()
            self._listen(row.event.target)
            thought = self.mind.think(row)
            now = self.clock.now()
            plan = replace(thought.plan, made_at=now, took_s=time.perf_counter() - began)
            told = self._now_told(row.event, thought.left)
            plan_id = self.ledger.decide(row, plan, thought.record, thought.came, at=now, now=told)
            if plan_id is None:  # forgotten meanwhile, or decided by somebody else
                raise InputError("the recording has changed meanwhile; reading it anew")
            self._last = row.id
            self._plan_steps(row, replace(thought, plan=plan), plan_id)
        latest = self.mind.latest
        if latest is not None and self._returned and not self._paused:
            self._returned = False
            if (t := self.ledger.returned(latest.t)) < math.inf and (made := self._wake(t)) is not None:
                self._wake_steps(t, *made)

    def _wake(self, t: float) -> tuple[int, list[Prewarm]] | None:
        """Plan at a wake after the latest event, unless that was done: the plan that it stands beside (its
        id), and what is loaded now."""
        if not self.mind.at_wakes or self.ledger.state(WOKEN) == [self._last, t]:
            return None
        if self.mind.woken:  # the machine was off once more since: what was loaded is gone
            *_, row = self.ledger.rows(after=self._last - 1)
            self.ledger.woke(row, (), 0.0)
            self.restore()
        found = [row for row in self.ledger.rows(after=self._last - 1) if row.id == self._last]
        if not found or found[0].planned != DECIDED or found[0].plan_id is None:
            return None
        self._listen()
        plan, left = self.mind.wake(found[0], t)
        told = self._now_told(found[0].event, left)
        plan_id = self.ledger.woke(found[0], plan, t, now=told)
        return None if plan_id is None else (plan_id, plan)

    def _wake_steps(self, t: float, plan_id: int, plan: Sequence[Prewarm]) -> None:
        """What is to be done of what was planned at a wake, unless it comes too late."""
        if self.executor is None or self.clock.now() - t > self.late_s:
            return
        self._steps, self._loaded = [], {}  # what was to be done before the machine was off
        until = t + self.minding.rules().ttl_s
        for place, prewarm in enumerate(plan, self.ledger.free_place(plan_id)):
            self._steps.append(ActStep(t, plan_id, LOAD, place, prewarm.target))
            self._loaded[prewarm.target] = (until, plan_id, place)

    def _listen(self, opened: str | None = None) -> None:
        """Mind what was said since, and whether what is opened now says that something said was right."""
        known = opened is not None and self.hearing.opened(opened)
        if self.hearing.listen() or known:
            self.mind.hear(self.hearing.thumbs)

    def _now_told(self, latest: Event, gone: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """How it stands, for who looks. gone: who has left memory, and why; of all that have, the latest are
        told, with the time."""
        left = [{"t": latest.t, "target": x, "why": why} for x, why in gone]
        self._left = [*left, *self._left][:LEFT_KEPT]
        said = self.hearing.thumbs
        return {
            "memory": dict(self.mind.memory()), "t": latest.t, "front": latest.target,
            "until": dict(self.mind.until()), "left": self._left, "thumbs": 0 if said is None else len(said),
        }  # fmt: skip

    def _plan_steps(self, row: LiveRow, thought: Thought, plan_id: int) -> None:
        """What is to be done of a plan, unless it comes too late."""
        t, plan = row.event.t, thought.plan
        self._loaded.pop(row.event.target, None)
        if self.executor is None or plan.made_at - t > self.late_s:
            return
        self.executor.opened(row.event.target, row.event.kind)
        for place, target in enumerate(thought.gone):
            self._loaded.pop(target, None)
            self._steps.append(ActStep(t, plan_id, LET_GO, place, target))
        life = self.minding.rules().ttl_s
        for place, prewarm in enumerate(plan.plan):
            due = t + prewarm.delay_s
            self._steps.append(ActStep(due, plan_id, LOAD, place, prewarm.target))
            self._loaded[prewarm.target] = (due + life, plan_id, len(thought.gone) + place)

    def _act(self) -> None:
        """Do what is due, each step once; what was loaded and not used in time goes."""
        if self.executor is None:
            return
        now = self.clock.now()
        over = {x: at for x, at in self._loaded.items() if at[0] <= now}
        self._steps += [ActStep(due, plan, LET_GO, place, x) for x, (due, plan, place) in over.items()]
        self._loaded = {x: at for x, at in self._loaded.items() if x not in over}
        due = [s for s in self._steps if s.due <= now]
        self._steps = [s for s in self._steps if s.due > now]
        for step in due:
            if self._paused and step.what == LOAD:
                continue
            act = self.ledger.begin(step.plan_id, step.what, step.place, step.target, at=now)
            if act is not None:
                do = self.executor.load if step.what == LOAD else self.executor.let_go
                came = do(step.target, self.mind.kind(step.target))
                self.ledger.end(act, came, at=self.clock.now())

    def _due_s(self) -> float | None:
        """Seconds until something is to be done; None where nothing is."""
        due = [s.due for s in self._steps] + [until for until, *_ in self._loaded.values()]
        return max(0.0, min(due) - self.clock.now()) if due else None

    def _in_trouble(self, what: str, *, again: bool = False) -> None:
        """Say once that something is wrong, and once that it is right again. again: whether nothing goes on
        meanwhile, and it is tried again."""
        kind = re.sub(r"\d+", "", what)  # minutes go by, and it is the same trouble
        if kind == self._trouble:
            return
        self._trouble = kind
        if what:
            self._over = "it answers again" if again else "it is right again"
        self.say(f"{what}; trying again every {POLL_AWAY_S:g} s" if again else what or self._over)
        if again:
            self._tell(what)

    def _tell(self, what: str) -> None:
        """Have `status` and the dashboard tell of it."""
        if what != self._told:
            self._told = what
            with suppress(InputError):
                self.ledger.put(trouble=what)

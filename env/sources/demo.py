"""`demo`: synthetic timelines of six invented people over eight weeks, drawn from a seed.

Nobody ever did any of this. The demo exists so that everything runs offline at once, and it has the
structure that makes prewarming worth learning, each piece on purpose:

- *time*: routines after waking and before bed, work days and weekends, weekly chores, a week off;
- *order*: relays (Editor → Terminal → browser → Terminal → Editor), in which what follows the middle
  depends on what came before it, and interruptions, after which people go back to where they were:
  both are invisible to a first-order Markov model;
- *clocks*: checks of mail or messages every so many minutes, in the middle of something else;
- *bursts* of back-and-forth between two apps;
- *drift*: one app gradually replaces another, projects end and new ones begin;
- *novelty*: a long tail of pages and files that keeps growing.

Hosts end in `.example`, which is reserved: none of them exists.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterator

import numpy as np

from env.errors import InputError
from env.sources.personas import PERSONAS, Habit, Persona, Step
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of
from env.timeline import utc_offsets

FIRST_DAY = dt.date(2025, 3, 3)  # a Monday; the eight weeks hold both changes to summer time
WEEKS = 8
MAX_WEEKS = 520
CONCENTRATION = 40.0
_FILES = (".pdf", ".xlsx", ".docx", ".blend", ".ipynb")
# fmt: off
_WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "juniper", "kite",
    "lumen", "maple", "north", "ocean", "pine", "quartz", "river", "stone", "tide", "umber", "vale",
    "willow", "yarrow",
)
# fmt: on


class _Life:
    """One persona lived through: the state that carries over from day to day."""

    def __init__(self, persona: Persona, seed: int) -> None:
        self.persona = persona
        # a string seed is hashed with SHA-512, the same on every machine and Python
        self.rng = random.Random(f"rlmemo-demo:{seed}:{persona.user}")
        self.tail: dict[str, dict[str, int]] = {}  # hub → page → opens so far
        self.opened: list[tuple[float, str, float, str]] = []  # local seconds, target, dwell, device
        self.file_number = self.rng.randrange(10, 40)
        self.file = self._new_file()
        self.clock = 0.0
        self.bias: dict[Habit, float] = {}
        self.due: list[tuple[float, tuple[str, ...]]] = []  # today's checks: local second, targets

    def live(self, weeks: int) -> None:
        for day in range(7 * weeks):
            if day % 7 == 0:
                self._drift()
            self._day(day)

    def _drift(self) -> None:
        """Once a week every habit's weight takes a step of a random walk (log scale, kept near 0)."""
        p = self.persona
        for habit in p.work_habits + p.free_habits:
            self.bias[habit] = 0.85 * self.bias.get(habit, 0.0) + self.rng.gauss(0.0, 0.35)

    def _day(self, day: int) -> None:
        p, rng = self.persona, self.rng
        week, weekday = divmod(day, 7)
        working = p.work is not None and weekday in p.work_days and week != p.week_off
        wake = p.wake + rng.gauss(0, 0.15) + (0.0 if working else abs(rng.gauss(0.8, 0.5)))
        bed = p.bed + rng.gauss(0, 0.3)
        sessions: list[tuple[float, str, tuple[Step, ...]]] = [
            (wake, "routine", p.morning),
            (bed, "routine", p.night),
        ]
        if working and p.work is not None:
            a, b = p.work
            n = max(2, round(rng.gauss(p.work_sessions, 1.0)))
            slots = [a + (b - a) * (k + 0.15 + 0.6 * rng.random()) / n for k in range(n)]
            sessions += [(s, "work", ()) for s in slots]
            free_from = b + 0.5
        else:
            free_from = wake + 0.7
        extra = 0.0 if working else 0.5 * p.work_sessions
        for _ in range(max(1, round(rng.gauss(p.free_sessions + extra, 0.8)))):
            sessions.append((rng.uniform(free_from, max(free_from + 0.5, bed - 0.4)), "free", ()))
        for on, hour, chain in p.weekly:
            if on == weekday and week != p.week_off and rng.random() < 0.9:
                sessions.append((hour + rng.gauss(0, 0.12), "weekly", tuple((x, 1.0, 90.0) for x in chain)))
        midnight = day * 86400.0
        self.due = []
        for check in p.checks:
            if check.work_days_only and not working:
                continue
            at = check.hours[0] * 60 + rng.uniform(0, 0.5) * check.period
            while at < check.hours[1] * 60:
                self.due.append((midnight + at * 60.0, check.targets))
                at += check.period * max(0.4, rng.gauss(1.0, 0.12))
        self.due.sort()
        for hour, what, steps in sorted(sessions, key=lambda s: s[0]):
            start = midnight + hour * 3600.0
            self._checks_before(start, midnight)
            self.clock = max(self.clock + 60.0, start)
            device = p.work_device if what in ("work", "weekly") or p.work is None else "phone"
            self._session(what, steps, day / 7.0, device)
        self._checks_before(midnight + 86400.0 + p.wake * 3600.0, midnight)

    def _checks_before(self, start: float, midnight: float) -> None:
        """The checks that fall between two sessions."""
        while self.due and self.due[0][0] < start:
            at, targets = self.due.pop(0)
            self.clock = max(self.clock + 30.0, at)
            for target in targets[: 1 if self.rng.random() < 0.35 else None]:
                self._open(target, 45.0, midnight / 604800.0, "phone")

    def _session(self, what: str, steps: tuple[Step, ...], week: float, device: str) -> None:
        p, rng = self.persona, self.rng
        for target, probability, dwell in steps:
            if what == "weekly":
                self._step(target, dwell, week, device)
            elif rng.random() < probability:
                self._open(target, dwell, week, device)
        if steps:
            return
        habits = p.work_habits if what == "work" else p.free_habits
        n = 1 if rng.random() < 0.6 else 2
        for _ in range(n):
            habit = rng.choices(habits, [h.weight * math.exp(self.bias[h]) for h in habits])[0]
            if any("{file}" in x for x in habit.targets) and rng.random() < 0.12:
                self.file = self._new_file()
            for target in self._walk(habit):
                self._step(target, habit.dwell, week, device)

    def _walk(self, habit: Habit) -> Iterator[str]:
        """The targets that one spell of a habit opens, in order."""
        rng, x = self.rng, habit.targets
        # a geometric length, at least two opens
        n = 2 + int(math.log(1.0 - rng.random()) / math.log(1.0 - 1.0 / max(2.0, habit.length - 1.0)))
        if habit.shape == "stay":
            yield x[0]
        elif habit.shape == "chain":
            for target in x:
                if rng.random() < 0.92:
                    yield target
        elif habit.shape == "pair":
            for i in range(n):
                yield x[i % 2]
        elif habit.shape == "relay":
            a, hub, b = x
            ring = (a, hub, b, hub)
            for i in range(n):
                yield ring[i % 4]
        else:
            yield x[0]
            for _ in range(n - 1):
                yield self._tail_page(x[0])
                if rng.random() < 0.55:
                    yield x[0]

    def _tail_page(self, hub: str) -> str:
        """A page reached from `hub`: one seen before in proportion to its use, or a new one
        (Pitman–Yor process with concentration `CONCENTRATION`)."""
        rng, seen = self.rng, self.tail.setdefault(hub, {})
        d = self.persona.tail_growth
        if rng.random() * (sum(seen.values()) + CONCENTRATION) < CONCENTRATION + d * len(seen):
            word, other = rng.choice(self.persona.tail_words), rng.choice(_WORDS)
            name = f"{other}-{word}.example" if rng.random() < 0.7 else f"{word}.{other}.example"
        else:
            name = rng.choices(list(seen), [opens - d for opens in seen.values()])[0]
        seen[name] = seen.get(name, 0) + 1
        return name

    def _step(self, target: str, dwell: float, week: float, device: str) -> None:
        """One open within a session, with what interrupts it: afterwards people go back."""
        rng = self.rng
        self._open(target, dwell, week, device)
        if self.due and self.due[0][0] <= self.clock:
            _, targets = self.due.pop(0)
            for other in targets[: 1 if rng.random() < 0.35 else None]:
                self._open(other, 30.0, week, device)
            if rng.random() < 0.8:
                self._open(target, dwell, week, device)
        elif rng.random() < self.persona.message_rate:
            self._open(self.persona.message, 20.0, week, device)
            if rng.random() < 0.85:
                self._open(target, dwell, week, device)

    def _open(self, target: str, dwell: float, week: float, device: str) -> None:
        p, rng = self.persona, self.rng
        if "{project}" in target:
            target = target.replace("{project}", p.projects[int(week / p.project_weeks) % len(p.projects)])
        elif target == "{file}":
            target = self.file
        for at, old, new in p.swaps:
            if target == old and rng.random() < 1.0 / (1.0 + math.exp(-(week - at) * 4.0)):
                target = new
        seconds = dwell * math.exp(rng.gauss(0.0, 0.7)) + 2.0
        self.opened.append((self.clock, target, seconds, device))
        if rng.random() < 0.06:  # the same target once more, as recordings have it: collapse drops it
            again = seconds * rng.uniform(0.2, 0.8)
            self.opened[-1] = (self.clock, target, again, device)
            self.opened.append((self.clock + again, target, seconds - again, device))
        self.clock += seconds

    def _new_file(self) -> str:
        self.file_number += 1
        p = self.persona
        stem = p.projects[self.rng.randrange(len(p.projects))] if p.projects else "letter"
        return f"{stem}-{self.file_number}{_FILES[(len(p.user) + len(stem)) % len(_FILES)]}"


def load(*, seed: int = 0, collapsed: bool = True, tz: str | None = None, weeks: int = WEEKS) -> Loaded:
    """The six personas' timelines, each in its own time zone; the same seed gives the same events.

    `weeks` from 1 to 520. `tz`, where given, is the zone that all of them are said to live in (their
    days keep their local hours). Raises InputError for weeks outside that range.
    """
    if isinstance(weeks, bool) or not isinstance(weeks, int) or not 1 <= weeks <= MAX_WEEKS:
        raise InputError(f"demo: weeks is {weeks!r}; give a whole number from 1 to {MAX_WEEKS}")
    rows = Rows()
    for persona in PERSONAS:
        life = _Life(persona, seed)
        life.live(weeks)
        at = _unix(np.array([row[0] for row in life.opened]), tz or persona.tz)
        for t, (_, target, seconds, device) in zip(at.tolist(), life.opened, strict=True):
            kind = "page" if target.endswith(".example") else "file" if target.endswith(_FILES) else "app"
            rows.add(persona.user, t, target, kind, round(seconds, 3), device)
    report = ImportReport(source=f"demo (synthetic, seed {seed})", rows_read=len(rows))
    zones = {p.user: tz or p.tz for p in PERSONAS}
    timelines = timelines_of(rows, report, tz=zones, tz_known=dict.fromkeys(zones, True))
    report.changed.clear()
    report.notes.append(
        "synthetic: six invented people; no number made from it says anything about real ones"
    )
    return finish("demo", timelines, report, collapsed=collapsed, synthetic=True)


def _unix(local: np.ndarray, tz: str) -> np.ndarray:
    """Unix seconds, to the millisecond as recorders have it, of local seconds since the first midnight."""
    start = dt.datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=dt.UTC).timestamp()
    wall = start + local
    # the offset in force half a day at most from the moment, then the one in force at it; an hour that
    # the clocks skip is lived by the old one
    t = wall - utc_offsets(wall - utc_offsets(wall, tz), tz)
    return np.round(wall - utc_offsets(t, tz), 3)

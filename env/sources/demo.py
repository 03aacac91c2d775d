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
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from env.errors import InputError
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of

FIRST_DAY = dt.date(2025, 3, 3)  # a Monday; the eight weeks hold both changes to summer time
WEEKS = 8
MAX_WEEKS = 520
CONCENTRATION = 40.0
_FILES = (".pdf", ".xlsx", ".docx", ".blend", ".ipynb")

Step = tuple[str, float, float]  # target, probability of being part of the routine, median dwell in seconds


@dataclass(frozen=True)
class Habit:
    """A way of spending a session.

    shape   pair (a ↔ b), relay (a → hub → b → hub → a …), browse (hub → pages of the tail → …),
            chain (the targets one after the other), stay (one target for long)
    targets what is opened; `{project}` and `{file}` stand for the current ones
    length  mean number of opens
    dwell   median seconds between opens
    weight  how often it is chosen
    """

    shape: str
    targets: tuple[str, ...]
    length: float = 6.0
    dwell: float = 40.0
    weight: float = 1.0


@dataclass(frozen=True)
class Check:
    """Something looked at every `period` minutes between two local hours, whatever else goes on."""

    targets: tuple[str, ...]
    period: float
    hours: tuple[float, float]
    work_days_only: bool = True


@dataclass(frozen=True)
class Persona:
    """One invented person. Hours are local; `work` is None for who has no work days."""

    user: str
    tz: str
    wake: float
    bed: float
    morning: tuple[Step, ...]
    night: tuple[Step, ...]
    work: tuple[float, float] | None
    work_habits: tuple[Habit, ...]
    free_habits: tuple[Habit, ...]
    work_sessions: float
    free_sessions: float
    checks: tuple[Check, ...] = ()
    weekly: tuple[tuple[int, float, tuple[str, ...]], ...] = ()  # weekday (Monday 0), hour, chain
    swaps: tuple[tuple[float, str, str], ...] = ()  # week at which half of the opens have moved, old, new
    projects: tuple[str, ...] = ()
    project_weeks: float = 2.5
    work_days: tuple[int, ...] = (0, 1, 2, 3, 4)
    week_off: int | None = None
    message: str = "Messages"
    message_rate: float = 0.05  # probability that a message interrupts, per open
    tail_growth: float = 0.55  # Pitman–Yor discount of the tail: how fast new pages turn up
    tail_words: tuple[str, ...] = field(default=("notes", "guide", "shop", "forum"))
    work_device: str = "desktop"


PERSONAS: tuple[Persona, ...] = (
    Persona(
        user="ada-developer",
        tz="Europe/Berlin",
        wake=7.0,
        bed=23.3,
        morning=(
            ("Clock", 0.9, 15),
            ("Messages", 0.7, 40),
            ("news.example", 0.85, 150),
            ("weather.example", 0.5, 20),
            ("Podcasts", 0.6, 900),
        ),
        night=(("Messages", 0.6, 60), ("video.example", 0.5, 1200), ("Clock", 0.9, 10)),
        work=(9.0, 17.7),
        work_habits=(
            Habit("relay", ("Editor", "Terminal", "docs.{project}.example"), 9, 45, 4),
            Habit("pair", ("Editor", "Terminal"), 8, 30, 3),
            Habit("browse", ("search.example",), 5, 35, 2),
            Habit(
                "chain", ("tracker.example", "code.example", "Editor", "Terminal", "code.example"), 5, 90, 2
            ),
            Habit("pair", ("Chat", "code.example"), 5, 40, 1),
        ),
        free_habits=(
            Habit("browse", ("search.example",), 5, 60, 2),
            Habit("relay", ("forum.example", "video.example", "Messages"), 5, 120, 1),
            Habit("chain", ("shop.example", "bank.example", "Mail"), 3, 60, 0.6),
            Habit("stay", ("Games",), 1, 2400, 1),
        ),
        work_sessions=3.1,
        free_sessions=1.2,
        checks=(Check(("Mail", "Calendar"), 75, (9, 17.5)),),
        weekly=(
            (0, 9.3, ("Calendar", "tracker.example", "Slides")),
            (4, 16.5, ("timesheet.example", "Mail")),
        ),
        swaps=((3.5, "Chat", "Huddle"),),
        projects=("alpha", "borealis", "cobalt", "delta"),
        message="Chat",
        message_rate=0.06,
        tail_words=("api", "stack", "docs", "blog", "wiki"),
    ),
    Persona(
        user="bo-student",
        tz="America/New_York",
        wake=8.4,
        bed=25.0,
        morning=(
            ("Messages", 0.9, 60),
            ("Photos Feed", 0.9, 240),
            ("campus.example", 0.6, 40),
            ("Music", 0.7, 500),
        ),
        night=(("Photos Feed", 0.9, 600), ("Short Video", 0.8, 1500), ("Messages", 0.7, 60)),
        work=(10.0, 16.5),
        work_habits=(
            Habit("pair", ("Slides", "Notebook"), 8, 60, 3),
            Habit("browse", ("search.example",), 7, 40, 3),
            Habit("relay", ("{file}", "Notebook", "library.example"), 7, 80, 2),
            Habit("chain", ("campus.example", "{file}", "Notebook", "Messages"), 4, 60, 1.5),
        ),
        free_habits=(
            Habit("pair", ("Messages", "Photos Feed"), 8, 35, 3),
            Habit("relay", ("Photos Feed", "Messages", "Short Video"), 8, 70, 3),
            Habit("stay", ("Games",), 1, 1800, 1),
            Habit("browse", ("shop.example",), 5, 45, 1),
            Habit("pair", ("Maps", "food.example"), 4, 40, 0.8),
        ),
        work_sessions=2.0,
        free_sessions=2.2,
        checks=(Check(("Photos Feed",), 110, (9, 24), False),),
        weekly=((6, 20.0, ("campus.example", "Calendar", "Notebook")),),
        swaps=((5.0, "Short Video", "Clips"), (2.5, "Notebook", "Wiki Notes")),
        projects=("essay", "lab", "thesis"),
        message_rate=0.10,
        tail_growth=0.6,
        tail_words=("study", "reviews", "deals", "lyrics", "howto"),
        work_device="laptop",
    ),
    Persona(
        user="chika-accountant",
        tz="Asia/Tokyo",
        wake=6.2,
        bed=22.6,
        morning=(
            ("weather.example", 0.9, 20),
            ("trains.example", 0.85, 30),
            ("news.example", 0.9, 200),
            ("Mail", 0.8, 60),
        ),
        night=(("Recipes", 0.4, 200), ("Reader", 0.8, 1500), ("Clock", 0.9, 10)),
        work=(8.6, 17.2),
        work_habits=(
            Habit("relay", ("Ledger", "Calculator", "{file}"), 9, 30, 4),
            Habit("pair", ("Spreadsheet", "Ledger"), 9, 35, 4),
            Habit("chain", ("Mail", "{file}", "Ledger", "Spreadsheet", "Mail"), 5, 80, 3),
            Habit("chain", ("bank.example", "Ledger", "tax.example"), 3, 70, 1),
        ),
        free_habits=(
            Habit("browse", ("recipes.example",), 5, 90, 2),
            Habit("pair", ("Messages", "Photos"), 5, 50, 2),
            Habit("chain", ("shop.example", "bank.example", "Mail"), 3, 60, 1),
        ),
        work_sessions=2.8,
        free_sessions=1.0,
        checks=(Check(("Mail",), 55, (8.8, 17)), Check(("Calendar",), 190, (9, 17))),
        weekly=(
            (0, 8.8, ("Calendar", "payroll.example", "Spreadsheet")),
            (4, 15.5, ("Spreadsheet", "Mail", "Archive")),
        ),
        swaps=((4.5, "Calculator", "Sidecalc"),),
        projects=("march", "april", "audit"),
        message_rate=0.03,
        tail_growth=0.4,
        tail_words=("kitchen", "garden", "travel"),
    ),
    Persona(
        user="dee-nurse",
        tz="America/Chicago",
        wake=5.4,
        bed=21.8,
        morning=(
            ("Clock", 0.95, 10),
            ("shifts.example", 0.9, 40),
            ("Messages", 0.6, 40),
            ("weather.example", 0.6, 20),
            ("Radio", 0.7, 900),
        ),
        night=(("Messages", 0.8, 120), ("shifts.example", 0.5, 30), ("video.example", 0.7, 1800)),
        work=(6.8, 15.2),
        work_habits=(
            Habit("relay", ("Charts", "Rounds", "Lab Results"), 8, 50, 4),
            Habit("chain", ("Rounds", "Charts", "Pharmacy", "Charts", "Rounds"), 5, 60, 3),
            Habit("pair", ("Charts", "Lab Results"), 6, 30, 2),
            Habit("browse", ("medline.example",), 4, 50, 0.7),
        ),
        free_habits=(
            Habit("pair", ("Messages", "Photos"), 7, 45, 3),
            Habit("chain", ("shop.example", "list.example", "Maps"), 3, 80, 1.5),
            Habit("browse", ("search.example",), 5, 60, 1.5),
            Habit("stay", ("video.example",), 1, 2400, 1),
        ),
        work_sessions=2.8,
        free_sessions=1.5,
        checks=(Check(("Pager", "Rounds"), 85, (7, 15)), Check(("Messages",), 150, (8, 21), False)),
        weekly=((6, 18.0, ("shifts.example", "Calendar", "Messages")),),
        swaps=((5.5, "Pharmacy", "Dispense"),),
        work_days=(1, 2, 3, 5, 6),
        message_rate=0.05,
        tail_growth=0.45,
        tail_words=("health", "kids", "craft", "deals"),
        work_device="tablet",
    ),
    Persona(
        user="eli-designer",
        tz="Europe/Lisbon",
        wake=8.0,
        bed=24.2,
        morning=(
            ("Music", 0.8, 30),
            ("Photos Feed", 0.6, 200),
            ("Mail", 0.7, 80),
            ("news.example", 0.4, 120),
        ),
        night=(("Music", 0.5, 600), ("Photos Feed", 0.7, 400), ("Reader", 0.5, 900)),
        work=(10.0, 19.0),
        work_habits=(
            Habit("relay", ("Canvas", "{file}", "Palette"), 8, 70, 3),
            Habit("browse", ("inspiration.example",), 8, 30, 3),
            Habit("pair", ("Canvas", "Preview"), 10, 25, 3),
            Habit("chain", ("Mail", "board.{project}.example", "Canvas", "Preview", "Mail"), 5, 90, 2),
            Habit("relay", ("Canvas", "Huddle", "board.{project}.example"), 6, 60, 1.5),
        ),
        free_habits=(
            Habit("browse", ("inspiration.example",), 5, 60, 2),
            Habit("relay", ("Photos Feed", "Messages", "Music"), 6, 90, 2),
            Habit("chain", ("Maps", "food.example", "Messages"), 3, 60, 1),
        ),
        work_sessions=2.7,
        free_sessions=1.4,
        checks=(Check(("Mail", "Huddle"), 95, (10, 18.5)), Check(("Music",), 60, (10, 19))),
        weekly=((2, 14.0, ("Huddle", "Slides", "board.{project}.example")),),
        swaps=((4.0, "Palette", "Swatches"),),
        projects=("poster", "identity", "festival", "catalogue"),
        project_weeks=1.8,
        week_off=5,
        message_rate=0.07,
        tail_growth=0.65,
        tail_words=("type", "gallery", "studio", "print", "archive"),
    ),
    Persona(
        user="fay-retired",
        tz="Australia/Sydney",
        wake=6.8,
        bed=21.9,
        morning=(
            ("news.example", 0.95, 400),
            ("weather.example", 0.9, 30),
            ("Crossword", 0.85, 1200),
            ("Mail", 0.9, 200),
        ),
        night=(("Radio", 0.7, 1200), ("Crossword", 0.3, 600), ("Clock", 0.7, 10)),
        work=None,
        work_habits=(),
        free_habits=(
            Habit("relay", ("Photos", "Mail", "family.example"), 7, 70, 3),
            Habit("pair", ("Video Call", "Photos"), 5, 200, 1.5),
            Habit("browse", ("search.example",), 6, 80, 3),
            Habit("chain", ("bank.example", "shop.example", "list.example", "Mail"), 4, 90, 1.5),
            Habit("pair", ("garden.example", "Notes"), 7, 90, 2),
            Habit("stay", ("video.example",), 1, 2400, 1),
        ),
        work_sessions=0.0,
        free_sessions=3.3,
        checks=(Check(("Mail",), 120, (8, 20), False), Check(("Messages",), 170, (9, 20), False)),
        weekly=(
            (1, 10.0, ("library.example", "Calendar")),
            (3, 14.0, ("bridge.example", "Messages")),
            (6, 11.0, ("Video Call", "Photos", "Mail")),
        ),
        swaps=((3.0, "Notes", "Journal"),),
        message_rate=0.04,
        tail_growth=0.5,
        tail_words=("garden", "history", "recipes", "birds", "walks"),
        work_device="desktop",
    ),
)

_WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "juniper", "kite", "lumen",
    "maple", "north", "ocean", "pine", "quartz", "river", "stone", "tide", "umber", "vale", "willow", "yarrow",
)  # fmt: skip


class _Life:
    """One persona lived through: the state that carries over from day to day."""

    def __init__(self, persona: Persona, seed: int) -> None:
        self.persona = persona
        # a string seed is hashed with SHA-512, the same on every machine and Python
        self.rng = random.Random(f"rlmemo-demo:{seed}:{persona.user}")
        self.tail: dict[str, list[list[object]]] = {}
        self.opened: list[tuple[float, str, float, str]] = []  # local seconds, target, dwell, device
        self.file_number = self.rng.randrange(10, 40)
        self.file = self._new_file()
        self.clock = 0.0
        self.habit_bias: dict[str, float] = {}

    def live(self, weeks: int) -> None:
        for day in range(7 * weeks):
            if day % 7 == 0:
                self._drift()
            self._day(day)

    def _drift(self) -> None:
        """Once a week every habit's weight takes a step of a random walk (log scale, kept near 0)."""
        p = self.persona
        for habit in p.work_habits + p.free_habits:
            key = "/".join(habit.targets) + habit.shape
            self.habit_bias[key] = 0.85 * self.habit_bias.get(key, 0.0) + self.rng.gauss(0.0, 0.35)

    def _day(self, day: int) -> None:
        p, rng = self.persona, self.rng
        week, weekday = divmod(day, 7)
        working = p.work is not None and weekday in p.work_days and week != p.week_off
        wake = p.wake + rng.gauss(0, 0.15) + (0.0 if working else abs(rng.gauss(0.8, 0.5)))
        bed = p.bed + rng.gauss(0, 0.3)
        sessions: list[tuple[float, str, object]] = [(wake, "routine", p.morning), (bed, "routine", p.night)]
        if working and p.work is not None:
            a, b = p.work
            n = max(2, round(rng.gauss(p.work_sessions, 1.0)))
            slots = [a + (b - a) * (k + 0.15 + 0.6 * rng.random()) / n for k in range(n)]
            sessions += [(s, "work", None) for s in slots]
            free_from = b + 0.5
        else:
            free_from = wake + 0.7
        extra = 0.0 if working else 0.5 * p.work_sessions
        for _ in range(max(1, round(rng.gauss(p.free_sessions + extra, 0.8)))):
            sessions.append((rng.uniform(free_from, max(free_from + 0.5, bed - 0.4)), "free", None))
        for on, hour, chain in p.weekly:
            if on == weekday and week != p.week_off and rng.random() < 0.9:
                sessions.append((hour + rng.gauss(0, 0.12), "weekly", chain))
        checks: list[tuple[float, tuple[str, ...]]] = []
        for check in p.checks:
            if check.work_days_only and not working:
                continue
            at = check.hours[0] * 60 + rng.uniform(0, 0.5) * check.period
            while at < check.hours[1] * 60:
                checks.append((at * 60.0, check.targets))
                at += check.period * max(0.4, rng.gauss(1.0, 0.12))
        midnight = day * 86400.0
        self.due = sorted((midnight + t, targets) for t, targets in checks)
        for hour, what, payload in sorted(sessions, key=lambda s: s[0]):
            start = midnight + hour * 3600.0
            self._checks_before(start, midnight)
            self.clock = max(self.clock + 60.0, start)
            device = p.work_device if what in ("work", "weekly") or p.work is None else "phone"
            self._session(what, payload, day / 7.0, device)
        self._checks_before(midnight + 86400.0 + p.wake * 3600.0, midnight)

    def _checks_before(self, start: float, midnight: float) -> None:
        """The checks that fall between two sessions."""
        while self.due and self.due[0][0] < start:
            at, targets = self.due.pop(0)
            self.clock = max(self.clock + 30.0, at)
            for target in targets[: 1 if self.rng.random() < 0.35 else None]:
                self._open(target, 45.0, midnight / 604800.0, "phone")

    def _session(self, what: str, payload: object, week: float, device: str) -> None:
        p, rng = self.persona, self.rng
        if what == "routine":
            steps: tuple[Step, ...] = payload  # type: ignore[assignment]
            for target, probability, dwell in steps:
                if rng.random() < probability:
                    self._open(target, dwell, week, "phone")
            return
        if what == "weekly":
            for target in payload:  # type: ignore[attr-defined]
                self._step(target, 90.0, week, device)
            return
        habits = p.work_habits if what == "work" else p.free_habits
        n = 1 if rng.random() < 0.6 else 2
        for _ in range(n):
            weights = [h.weight * math.exp(self.habit_bias["/".join(h.targets) + h.shape]) for h in habits]
            habit = rng.choices(habits, weights)[0]
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
        rng, seen = self.rng, self.tail.setdefault(hub, [])
        d = self.persona.tail_growth
        total = sum(c for _, c in seen)  # type: ignore[misc]
        if rng.random() * (total + CONCENTRATION) < CONCENTRATION + d * len(seen):
            word, other = rng.choice(self.persona.tail_words), rng.choice(_WORDS)
            name = f"{other}-{word}.example" if rng.random() < 0.7 else f"{word}.{other}.example"
            for row in seen:
                if row[0] == name:
                    row[1] += 1  # type: ignore[operator]
                    return name
            seen.append([name, 1])
            return name
        row = rng.choices(seen, [c - d for _, c in seen])[0]  # type: ignore[operator]
        row[1] += 1  # type: ignore[operator]
        return str(row[0])

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
        offsets = _offsets(tz or persona.tz, 7 * weeks + 2)
        for local, target, seconds, device in life.opened:
            kind = "page" if target.endswith(".example") else "file" if target.endswith(_FILES) else "app"
            # milliseconds, as recorders have it
            t = round(offsets[int(local // 86400.0)] + local, 3)
            rows.add(persona.user, t, target, kind, round(seconds, 3), device)
    report = ImportReport(source=f"demo (synthetic, seed {seed})", rows_read=len(rows))
    zones = {p.user: tz or p.tz for p in PERSONAS}
    timelines = timelines_of(rows, report, tz=zones, tz_known=dict.fromkeys(zones, True))
    report.changed.clear()
    report.notes.append(
        "synthetic: six invented people; no number made from it says anything about real ones"
    )
    return finish("demo", timelines, report, collapsed=collapsed, synthetic=True)


def _offsets(tz: str, days: int) -> list[float]:
    """Per day, the unix time of "local second 0" of the demo's first day under that day's UTC offset at noon."""
    z = ZoneInfo(tz)
    start = dt.datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=dt.UTC).timestamp()
    out = []
    for day in range(days):
        noon = dt.datetime.combine(FIRST_DAY + dt.timedelta(days=day), dt.time(12), tzinfo=z)
        offset = noon.utcoffset()
        out.append(start - (offset.total_seconds() if offset else 0.0))
    return out

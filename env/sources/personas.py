"""The six invented people of `demo`: what they open, when, and how that changes.

Data, not code: `env.sources.demo` lives these lives. All of them are made up.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    tail_words: tuple[str, ...] = ("notes", "guide", "shop", "forum")
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

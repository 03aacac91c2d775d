"""Reading times: which clock a number counts on, and what a text says of its zone.

`EPOCHS` are the clocks that `--epoch` names. Without it, numbers are unix seconds, and a file whose numbers
fit another clock or unit better is refused with the option that reads it: a wrong clock moves every event
by years, and nothing later in the program could notice.
"""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from env.errors import InputError
from env.sources.missing import missing
from env.sources.report import ImportReport
from env.sources.rows import Rows, newest_first
from env.sources.time_texts import DATE_ALONE, NO_TIME, SHEET_DAY, parse_time
from env.timeline import utc_offsets

EPOCHS = {
    "unix": "seconds since 1970 (also milli-, micro- or nanoseconds, told by their size)",
    "apple": "seconds since 2001 (Safari, Screen Time, Core Data; also milli-, micro- or nanoseconds)",
    "webkit": "microseconds since 1601 (Chrome, WebKit)",
    "filetime": "100 nanoseconds since 1601 (Windows FILETIME)",
    "dotnet": "100 nanoseconds since year 1 (.NET ticks)",
    "compact": "the digits YYYYMMDDhhmmss (local time: --tz)",
}
EARLIEST = 631_152_000.0  # 1990-01-01: before that, a clock was not set
TEN_DIGITS = 1_000_000_000  # 2001-09-09: the first unix second with ten digits
APPLE_FROM = 50_000_000  # 2002-08: smaller numbers are counters and unset clocks, not Apple's times
DAY_S = 86_400.0
SHEET_1990, SHEET_2065 = 32_874, 60_268  # days since 1899-12-30, as spreadsheets count them
MAX_LENGTH = 100  # characters: no time is longer, and a pattern may take the square of a cell's length
NUMBER = re.compile(r"[+-]?(?:\d+\.?(\d*)|\.(\d+))(?:[eE]([+-]?\d+))?", re.ASCII)
_DATE_ONLY = re.compile(r"\d{4}-?\d\d-?\d\d", re.ASCII)
_COMPACT = re.compile(r"(\d{8})(\d{4}|\d{6}|\d{9})(?:\.0*)?", re.ASCII)
_COMPACT_TIME = {4: "%H%M", 6: "%H%M%S", 9: "%H%M%S%f"}
_ZERO = {  # seconds from the clock's zero to 1970, and units in a second (None: told by the size)
    "unix": (0, None),
    "apple": (-978_307_200, None),
    "webkit": (11_644_473_600, 1_000_000),
    "filetime": (11_644_473_600, 10_000_000),
    "dotnet": (62_135_596_800, 10_000_000),
}
_UNIT = {1: "seconds", 1_000: "milliseconds", 1_000_000: "microseconds", 1_000_000_000: "nanoseconds"}
# The zones without summer time whose offset is no whole hour; for whole hours there is Etc/GMT.
_ODD_ZONES = {
    12_600: "Asia/Tehran",
    16_200: "Asia/Kabul",
    19_800: "Asia/Kolkata",
    20_700: "Asia/Kathmandu",
    23_400: "Asia/Yangon",
    31_500: "Australia/Eucla",
    34_200: "Australia/Darwin",
    -34_200: "Pacific/Marquesas",
}


class Clock:
    """Reads times; remembers the time zone in which local times are to be understood.

    `tz` None means that none was given: local times without an offset are then refused. `epoch` is one of
    `EPOCHS`, or None. `retry` is the command, without its `--epoch`, that reads the file; advice names it.

    After `read`, `offset` is the offset that the text stated (seconds, None where it stated none), `named`
    the IANA zone that it stated, and `other` the other reading of a local time that comes twice, or that a
    change of clocks skips (NaN for all others).
    """

    def __init__(
        self,
        path: Path,
        tz: str | None,
        now: float | None = None,
        *,
        epoch: str | None = None,
        retry: str = "",
    ) -> None:
        self.path = path
        self.zone = None if tz is None else ZoneInfo(tz)
        self.epoch = epoch
        self.retry = retry
        self.latest = (time.time() if now is None else now) + DAY_S
        self.twice = 0
        self.offset: int | None = None
        self.named = ""
        self.other = math.nan
        self.seen: dict[tuple[str, int], tuple[int, str]] = {}  # (clock, units a second) → line, text
        self.coarse: tuple[int, str] | None = None  # the first number with too few digits
        self.exact = False  # whether the writer of such numbers prints every digit

    def read(self, text: str, line: int) -> float | str:
        """Unix seconds, or the reason for which this row is dropped.

        Raises InputError for a local time when no zone is known; `check` does for what is wrong with the
        file's numbers as a whole.
        """
        text = text.strip()
        self.offset, self.named, self.other = None, "", math.nan
        if len(text) > MAX_LENGTH:
            return NO_TIME
        if match := NUMBER.fullmatch(text):
            t = self._number(text, match, line)
        elif missing(text):
            return "t is missing"
        else:
            t = self._text(text, line)
        if isinstance(t, str):
            return t
        if not math.isfinite(t):
            return "t is not a finite number"
        if t < EARLIEST:
            return "t is before 1990"
        if t > self.latest:
            return "t is more than a day in the future"
        return t

    def check(self) -> None:
        """Raise InputError where the file's numbers as a whole do not fit the clock that reads them."""
        seen = dict(self.seen)
        for clock, units in list(seen):
            if (
                clock == "old"
            ):  # beside later times, it is theirs; alone, what could be Apple's is old as well
                seen.pop(("old" if ("unix", units) in seen else "apple", units), None)
        if len(seen) > 1:
            self._refuse_mixture(seen)
        for (clock, units), (line, text) in seen.items():
            wanted = "unix" if clock == "old" else clock
            if wanted == (self.epoch or "unix") and (self.epoch is not None or (clock, units) == ("unix", 1)):
                continue
            few = "" if self.coarse is None else "; export it with all its digits first: these are too few"
            if self.epoch is None and units == 1:
                self._refuse_early(clock, line, text, few)
            if self.epoch is None and wanted == "unix":
                raise InputError(
                    f"{self.path}, line {line}: t is {text}, too large for unix seconds: it looks like "
                    f"{_UNIT[units]}; divide the column by {units:,} and try again, or "
                    f"{self._advice('unix')}{few}"
                )
            raise InputError(
                f"{self.path}, line {line}: t is {text}, no time "
                f"{'in unix seconds' if self.epoch is None else f'by --epoch {self.epoch}'}: it looks like "
                f"{_told(clock, units)}, {self._day(text, wanted)}; {self._advice(wanted)}{few}"
            )
        if self.coarse is not None and not self.exact:
            line, text = self.coarse
            raise InputError(
                f"{self.path}, line {line}: t is {text}, with too few digits to tell the second: a "
                "spreadsheet has rounded the column; export it with all its digits, such as 1772438400"
            )

    def close(self, report: ImportReport) -> None:
        """Check the numbers, and report the local times that a change of clocks makes uncertain."""
        self.check()
        report.change("local time in the hour of a clock change (taken as the first)", count=self.twice)

    def _number(self, text: str, match: re.Match[str], line: int) -> float | str:
        value = float(text)
        if match[3] is None and self.epoch is None and TEN_DIGITS <= value <= self.latest:
            if ("unix", 1) not in self.seen:
                self.seen["unix", 1] = (line, text)
            return value
        if not math.isfinite(value):
            return "t is not a finite number"
        if value < 1:
            return "t is before 1990"
        if _DATE_ONLY.fullmatch(text) and self.epoch in (None, "compact"):
            with suppress(ValueError):
                if datetime.strptime(text, "%Y%m%d").year >= 1990:
                    return DATE_ALONE
        if self.epoch is None and SHEET_1990 <= value < SHEET_2065:
            return SHEET_DAY
        exact = _exact(text)
        clock, units = self._clock(text, exact)
        if clock:
            self.seen.setdefault((clock, units), (line, text))
        units = units or _units(exact)
        if match[3] is not None and exact >= APPLE_FROM:
            step = Fraction(10) ** (int(match[3]) - len(match[1] or match[2] or "")) / units
            if step <= 1:
                self.exact = True
            elif step > 100 or exact / units % 60:
                # Java writes 1.7724384E9 for a whole minute: the digits that are missing are noughts
                self.coarse = self.coarse or (line, text)
        if self.epoch == "compact":
            if clock == "compact":
                return self._local(_compact(text), line, text)
            return "t is not of the form YYYYMMDDhhmmss"
        return float(_since_1970(exact, self.epoch or "unix", 1 if self.epoch is None else None))

    def _clock(self, text: str, value: Fraction | int) -> tuple[str, int]:
        """The clock that a number fits best, and its units in a second; ("", 0) where it fits none.

        "old" is unix time before 2001-09 that cannot be Apple's.
        """
        units = _units(value)
        if self.epoch is not None and self.epoch != "compact":
            by = _since_1970(value, self.epoch)
            # nobody counted nanoseconds in 1990, and .NET's ticks of today would be taken for them
            fits = EARLIEST <= by <= self.latest
            if fits and not (self.epoch == "unix" and units == 10**9 and by < TEN_DIGITS):
                return self.epoch, _ZERO[self.epoch][1] or units
        if _compact(text) is not None:
            return "compact", 0
        for clock in ("webkit", "filetime", "dotnet"):
            if EARLIEST <= _since_1970(value, clock) <= self.latest:
                return clock, int(_ZERO[clock][1] or 0)
        seconds = value / units
        if TEN_DIGITS <= seconds <= self.latest:
            return "unix", units
        if self.epoch == "unix":
            return "", 0  # what is before 1990 is dropped, whatever else it could be
        if seconds >= APPLE_FROM and _since_1970(value, "apple") <= self.latest:
            return "apple", units
        if EARLIEST <= seconds < TEN_DIGITS:
            return "old", units
        return "", 0

    def _text(self, text: str, line: int) -> float | str:
        said = parse_time(text)
        if isinstance(said, str):
            return said
        if _DATE_ONLY.fullmatch(text):
            return DATE_ALONE
        when, self.named = said
        if when.tzinfo is None and self.named:
            when = when.replace(tzinfo=ZoneInfo(self.named))
        return self._local(when, line, text) if when.tzinfo is None else self._stamp(when)

    def _local(self, when: datetime | None, line: int, text: str) -> float | str:
        if when is None:
            return "t is not of the form YYYYMMDDhhmmss"
        if self.zone is None:
            raise InputError(
                f"{self.path}, line {line}: t is {text!r}, a local time without an offset; name its "
                "time zone with --tz (such as --tz Europe/Berlin), or write 2025-03-03T09:00:00+01:00"
            )
        return self._stamp(when.replace(tzinfo=self.zone))

    def _stamp(self, when: datetime) -> float | str:
        try:
            t = when.timestamp()
            if isinstance(when.tzinfo, ZoneInfo):
                other = when.replace(fold=1 - when.fold).timestamp()
                if other != t:
                    self.twice += 1
                    self.other = other
            elif offset := when.utcoffset():
                self.offset = int(offset.total_seconds())
            else:
                self.offset = 0
        except (OverflowError, ValueError):
            return "t is before 1990"
        return t

    def _refuse_mixture(self, seen: dict[tuple[str, int], tuple[int, str]]) -> None:
        (one, first), (two, second) = sorted(seen.items(), key=lambda x: x[1][0])[:2]
        all_unix = self.epoch is None and all(units == 1 for _, units in seen)
        raise InputError(
            f"{self.path}, line {second[0]}: t is {second[1]}, {_told(*two)}, but line {first[0]} has "
            f"{first[1]}, {_told(*one)}: a mixture of clocks or units; write the column in one of them"
            + (f", or, if all are unix seconds, {self._advice('unix')}" if all_unix else "")
        )

    def _refuse_early(self, clock: str, line: int, text: str, few: str) -> None:
        says = f"{self.path}, line {line}: t is {text}, as unix seconds {self._day(text, 'unix')}"
        if clock == "apple":
            raise InputError(
                f"{says}, and no time in the file is later than 2001-09: it looks like {_told(clock, 1)}, "
                f"{self._day(text, clock)}; {self._advice(clock)}, or --epoch unix if it is that old{few}"
            )
        raise InputError(
            f"{says}, and no time in the file is later than 2001-09: if it is that old, "
            f"{self._advice('unix')}{few}; if not, it was counted by another clock: write unix seconds"
        )

    def _day(self, text: str, clock: str) -> str:
        if clock == "compact":
            when = _compact(text)
            return "" if when is None else f"{when:%Y-%m-%d}"
        return f"{datetime.fromtimestamp(float(_since_1970(_exact(text), clock)), UTC):%Y-%m-%d}"

    def _advice(self, clock: str) -> str:
        if not self.retry:
            return "write it in unix seconds"
        tz = " --tz ZONE" if clock == "compact" and self.zone is None else ""
        return f"import it with {self.retry} --epoch {clock}{tz}"


def tell_apart(rows: Rows, others: dict[int, float], report: ImportReport) -> None:
    """Put right which hour is meant where local time comes twice, or is skipped, by the order of the file.

    others  row number → unix seconds by the other reading; rows hold the first

    Per user: a row that by the first reading would be before the row before it, and by the second is not, is
    in the second hour. A user whose rows mostly go back in time is read from the end. A time that the clocks
    skip is read by the old offset, unless the order asks for the new. What the order does not tell stays
    as it is, and is counted.
    """
    user, t = np.frombuffer(rows.user, np.int32), np.array(rows.t)
    told = untold = skipped = 0
    for code in np.unique(user[list(others)]):
        mine = np.flatnonzero(user == code)
        if newest_first(t[mine]):
            mine = mine[::-1]
        at = {int(i): k for k, i in enumerate(mine)}
        run: list[bool] = []
        last = -2
        for k in sorted(at[i] for i in others if user[i] == code):
            i = int(mine[k])
            before = t[mine[k - 1]] if k else -math.inf
            after = t[mine[k + 1]] if k + 1 < len(mine) else math.inf
            first, other = t[i], others[i]
            if k != last + 1:
                told, untold = _count(run, told, untold)
                run = []
            last = k
            if other < first:
                skipped += 1
                take = bool(before <= other and after < first)
            else:
                take = bool(first < before <= other)
                run.append(take)
            if take:
                t[i] = rows.t[i] = other
        told, untold = _count(run, told, untold)
    report.change("local time in the hour of a clock change (told by the order of the file)", count=told)
    report.change("local time in the hour of a clock change (taken as the first)", count=untold)
    report.change("local time that a clock change skips (taken by one of the two offsets)", count=skipped)


def _count(run: list[bool], told: int, untold: int) -> tuple[int, int]:
    return (told + len(run), untold) if any(run) else (told, untold + len(run))


def fixed_zone(offset: int, t: np.ndarray) -> str | None:
    """The zone that is `offset` seconds from UTC at all of the times `t`, or None where there is none."""
    hours, rest = divmod(offset, 3600)
    name = f"Etc/GMT{-hours:+d}" if not rest and -12 <= hours <= 14 else _ODD_ZONES.get(offset)
    if name is None or not (utc_offsets(t, name) == offset).all():
        return None
    return name


def offset_name(offset: int) -> str:
    """-18000 → -05:00"""
    minutes = abs(offset) // 60
    return f"{'-' if offset < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"


def _exact(text: str) -> Fraction | int:
    return int(text) if text.isdigit() else Fraction(Decimal(text))


def _since_1970(value: Fraction | int, clock: str, units: int | None = None) -> Fraction | float:
    zero, own = _ZERO[clock]
    units = units or own or _units(value)
    return (value - zero * units) / units  # a float holds no tick count: subtract first


def _units(value: Fraction | int) -> int:
    """Units in a second, by the size of a number that counts from 1970 or 2001."""
    size = next((k for k in range(3) if value < 10 ** (11 + 3 * k)), 3)
    return int(10 ** (3 * size))


def _compact(text: str) -> datetime | None:
    match = _COMPACT.fullmatch(text)
    if match is None:
        return None
    try:
        when = datetime.strptime(match[1] + match[2], "%Y%m%d" + _COMPACT_TIME[len(match[2])])
    except ValueError:
        return None
    return when if 1990 <= when.year < 2100 else None


def _told(clock: str, units: int) -> str:
    if clock in ("unix", "old"):
        return f"unix {_UNIT[units]}"
    if clock == "apple":
        return f"{_UNIT[units]} since 2001 (Apple's)"
    return EPOCHS[clock].split(" (local")[0]

"""Times as text: ISO 8601, and the ways of writing that state everything and can be read only one way."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from env.timeline import zone

NO_TIME = "t is neither unix seconds nor ISO 8601"
DAY_FIRST = "t has the day first"
DAY_OR_MONTH = "t has a day and a month that may be taken for each other"
DECIMAL_COMMA = "t has a decimal comma"
ZONE_LETTERS = "t names its time zone by letters"
SHEET_DAY = "t is a spreadsheet's number of days"
DATE_ALONE = "t is a date without a time of day"
YEAR_FIRST = "write 2026-03-02 08:00:00 (in a spreadsheet: format the column as YYYY-MM-DD HH:MM:SS)"

_COMPACT = re.compile(r"(\d{8})(\d{6})(\.\d+)?\s?(Z|[+-]\d\d:?\d\d)", re.ASCII)
_IN_BRACKETS = re.compile(r"(.+?)\s*\[([A-Za-z][\w+-]*(?:/[\w+-]+)*)\]", re.ASCII)
_ZONE_NAME = re.compile(r"(.+\d)\s+([A-Z][a-z]\w+/[\w+-]+(?:/[\w+-]+)?)", re.ASCII)
_UTC = re.compile(r"(.+?)\s*(?:UTC|GMT|UT|Z)(?:([+-]\d\d?)(?::?(\d\d))?)?", re.ASCII | re.IGNORECASE)
_OFFSET = re.compile(r"(.+[\dMm])\s*([+-]\d\d):?(\d\d)", re.ASCII)
_LETTERS = re.compile(r"(.+\d)\s+(?!AM\b|PM\b)([A-Z]{2,5})", re.ASCII)
_YEAR_FIRST = re.compile(
    r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})[\sT,]+(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(?:\s*([AaPp])\.?[Mm]\.?)?"
)
_YEAR_FIRST_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}", re.ASCII)
_MONTH_NAMED = re.compile(  # RFC 2822's order, and the orders of C, Java and JavaScript
    r"(?:[A-Z][a-z]{2,8},?\s+)?(?:(?P<d>\d{1,2})[\s-](?P<m>[A-Z][a-z]{2})[\s-](?P<y>\d{4})\s+(?P<t>[\d:.]+)|"
    r"(?P<m2>[A-Z][a-z]{2})\s+(?P<d2>\d{1,2})\s+(?P<y2>\d{4})\s+(?P<t2>[\d:.]+)|"
    r"(?P<m3>[A-Z][a-z]{2})\s+(?P<d3>\d{1,2})\s+(?P<t3>[\d:.]+)(?P<z3>\s+[A-Z]+)?\s+(?P<y3>\d{4}))"
    r"\s*(?P<z>(?:[A-Z]{1,4})?(?:[+-]\d\d:?\d\d)?)\s*(?:\([^)]*\))?",
    re.ASCII,
)
_POINTS = re.compile(r"\d{1,2}\.\s?\d{1,2}\.\s?(?:\d{4}|\d\d)\b.*", re.ASCII)
_SLASHES = re.compile(r"\d{1,2}([/-])\d{1,2}\1(?:\d{4}|\d\d)\b.*", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


def parse_time(text: str) -> tuple[datetime, str] | str:
    """The time that `text` states, naive where it states no offset, and the IANA zone that it names, or "";
    or why it cannot be read.

    An offset may be stated in digits, as UTC, GMT or Z, or, in dates written with the month's name, by the
    letters that RFC 2822 defines.
    """
    found = _IN_BRACKETS.fullmatch(text) or _ZONE_NAME.fullmatch(text)
    if found is None:
        when = _instant(text)
        return when if isinstance(when, str) else (when, "")
    try:
        name = zone(found[2]).key
    except ValueError:
        return "t names an unknown time zone"
    when = _instant(found[1])
    return when if isinstance(when, str) else (when, "" if name == "UTC" and when.tzinfo else name)


def _instant(text: str) -> datetime | str:
    if match := _COMPACT.fullmatch(text):  # before `fromisoformat`, which takes the ninth digit for a "T"
        text = f"{match[1]}T{match[2]}{match[3] or ''}{match[4]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return _other(text)
    except (ValueError, OverflowError):
        return NO_TIME


def _other(text: str) -> datetime | str:
    for pattern, reason in (
        (_YEAR_FIRST_DATE, DATE_ALONE),
        (_POINTS, DAY_FIRST),
        (_SLASHES, DAY_OR_MONTH),
        (_COMMA, DECIMAL_COMMA),
    ):
        if pattern.fullmatch(text):
            return reason
    if match := _MONTH_NAMED.fullmatch(text):
        return _with_month_name(match)
    if match := _UTC.fullmatch(text):
        when = _instant(match[1])
        if isinstance(when, str) or when.tzinfo is not None:
            return when
        return when.replace(tzinfo=_fixed(match[2], match[3]))
    if match := _YEAR_FIRST.fullmatch(text):
        return _with_year_first(match)
    if match := _OFFSET.fullmatch(text):
        when = _instant(match[1])
        return when if isinstance(when, str) else when.replace(tzinfo=_fixed(match[2], match[3]))
    if _LETTERS.fullmatch(text):
        return ZONE_LETTERS
    return NO_TIME


def _fixed(hours: str | None, minutes: str | None) -> timezone:
    if hours is None:
        return UTC
    size = timedelta(hours=abs(int(hours)), minutes=int(minutes or 0))
    return timezone(-size if hours.startswith("-") else size)


def _with_month_name(match: re.Match[str]) -> datetime | str:
    day, month, year, clock = (
        next(match[k + n] for n in ("", "2", "3") if match[k + n] is not None) for k in "dmyt"
    )
    own = (match["z3"] or match["z"] or "").strip()
    fraction = clock.partition(".")
    plain = f"{day} {month} {year} {fraction[0]}"
    if own[:3] in ("UTC", "GMT") and own[3:]:
        own = own[3:]  # JavaScript's GMT+0100
    when = parsedate_to_datetime(f"{plain} {own.replace(':', '')}".strip())
    if fraction[2]:
        when = when.replace(microsecond=int(fraction[2][:6].ljust(6, "0")))
    if when.tzinfo is None and own.endswith("0000"):
        return when.replace(tzinfo=UTC)
    return ZONE_LETTERS if when.tzinfo is None and own else when


def _with_year_first(match: re.Match[str]) -> datetime:
    year, _, month, day, hour, minute, second, fraction, half = match.groups()
    hours = int(hour)
    if half is not None:
        if not 1 <= hours <= 12:
            raise ValueError(f"{hours} {half}M is no hour")
        hours = hours % 12 + (12 if half in "Pp" else 0)
    micro = int((fraction or "")[:6].ljust(6, "0"))
    return datetime(int(year), int(month), int(day), hours, int(minute), int(second or 0), micro)

"""The text of Android's `adb shell dumpsys usagestats`, as a table of openings."""

from __future__ import annotations

import re
from collections import Counter

from env.sources.names import clean_name

OPENED = ("ACTIVITY_RESUMED", "MOVE_TO_FOREGROUND", "1")  # since Android 10, before, and with -c
_EVENT = re.compile(
    r'^[ \t]*time=(?:"([^"]*)"|(\S+)) type=(\S+) package=(\S+)(?: class=(\S+))?', re.MULTILINE
)
_USER = re.compile(r"\s*user=(\d+)\b")


def recognises(head: str) -> bool:
    """Whether a text that begins so is of that kind."""
    return _EVENT.search(head) is not None


def table_of(text: str) -> tuple[list[str], list[list[str]], tuple[str, ...]] | str:
    """(header, rows, notes) of the text; or, where nothing in it was opened, what it is.

    Its sections tell of the same days: what an earlier one has told is not told again. Android's users are
    kept apart where there are several; one alone has no name.
    """
    rows: list[list[str]] = []
    left_out: Counter[str] = Counter()
    told: set[tuple[str, ...]] = set()
    section: set[tuple[str, ...]] = set()
    user = "0"
    for line in text.splitlines():
        match = _EVENT.search(line)
        if match is None:
            if found := _USER.match(line):
                user = found[1]
            told |= section
            section = set()
            continue
        quoted, plain, kind, package, activity = match.groups()
        if kind not in OPENED:
            left_out[kind] += 1
            continue
        event = (user, quoted or plain, package, activity or "")
        if event not in told:
            section.add(event)
            rows.append([user, quoted or plain, package])
    if not rows:
        return "the text of Android's dumpsys usagestats without an opening (ACTIVITY_RESUMED)"
    notes: tuple[str, ...] = ("from Android's dumpsys usagestats: a line number counts its openings",)
    if left_out:
        kinds = ", ".join(f"{n:,} of {clean_name(kind)}" for kind, n in sorted(left_out.items()))
        notes += (f"events that are no openings were left out: {kinds}",)
    header = ["user", "dumpsys.time", "dumpsys.package"]
    if len({row[0] for row in rows}) == 1:
        return header[1:], [row[1:] for row in rows], notes
    return header, rows, notes

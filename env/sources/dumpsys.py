"""The text of Android's `adb shell dumpsys usagestats`, as a table of openings."""

from __future__ import annotations

import re
from collections import Counter

from env.sources.names import clean_name

OPENED = ("ACTIVITY_RESUMED", "MOVE_TO_FOREGROUND", "1")  # since Android 10, before, and with -c
SWITCHED = {"DEVICE_SHUTDOWN": "off", "26": "off", "DEVICE_STARTUP": "wake", "27": "wake"}
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
    kept apart where there are several; one alone has no name. Where the phone was switched off or on, a
    column more says which row is that.
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
        switched = SWITCHED.get(kind, "")
        if kind not in OPENED and not switched:
            left_out[kind] += 1
            continue
        event = (user, quoted or plain, package, activity or switched)
        if event not in told:
            section.add(event)
            rows.append([user, quoted or plain, package, switched])
    if all(row[3] for row in rows):
        return "the text of Android's dumpsys usagestats without an opening (ACTIVITY_RESUMED)"
    notes: tuple[str, ...] = ("from Android's dumpsys usagestats: a line number counts its openings",)
    if left_out:
        kinds = ", ".join(f"{n:,} of {clean_name(kind)}" for kind, n in sorted(left_out.items()))
        notes += (f"events that are no openings were left out: {kinds}",)
    header = ["user", "dumpsys.time", "dumpsys.package", "kind"]
    first = 1 if len({row[0] for row in rows}) == 1 else 0
    last = 4 if any(row[3] for row in rows) else 3
    return header[first:last], [row[first:last] for row in rows], notes

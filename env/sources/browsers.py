"""The history databases of browsers, as a table of visits: Chrome's and its kin's, Firefox's, Safari's.

They are read as a private copy (`env.sources.sqlite_files`), with what a browser that runs has in its `-wal`.
A visit that nobody saw is no opening: one that a server or a script sent on at once, a frame within a page, a
download; nor is one that was made on another device and came by a sync.

Chrome: components/history/core/browser/visit_database.cc, ui/base/page_transition_types.h.
Firefox: toolkit/components/places/nsINavHistoryService.idl. Safari's is not documented.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from env.errors import InputError
from env.sources.lines import TableFile
from env.sources.sqlite_files import Copy, Unreadable, private_copy

REDIRECTED, FRAME, SYNCED = "sent on at once", "a frame within a page", "another device (synced)"
DOWNLOAD, FAILED = "downloads", "what did not load"


@dataclass(frozen=True)
class BrowserDatabase:
    """How a browser keeps its visits.

    name   what its columns begin with, as `env.sources.columns.FORMATS` has them
    what   what it is called
    needs  table -> columns that tell it
    frm    its tables, the visits as `v` and the addresses as `u`
    t, url of a visit
    not_opened  (condition, what it is, column of the visits that it needs), the first that holds is counted
    """

    name: str
    what: str
    needs: dict[str, tuple[str, ...]]
    frm: str
    t: str
    not_opened: tuple[tuple[str, str, str], ...]


HISTORIES = (
    BrowserDatabase(
        "chrome",
        "Chrome's history (or Edge's, or another Chromium's)",
        {"urls": ("id", "url"), "visits": ("id", "url", "visit_time")},
        "visits AS v LEFT JOIN urls AS u ON u.id = v.url",
        "v.visit_time",
        (
            ("v.originator_cache_guid <> ''", SYNCED, "originator_cache_guid"),
            ("v.transition & 255 IN (3, 4)", FRAME, "transition"),
            # of a chain of redirections only the end (bit 29) was seen; no chain at all is an old import
            ("v.transition & 0xF0000000 AND NOT v.transition & 0x20000000", REDIRECTED, "transition"),
        ),
    ),
    BrowserDatabase(
        "firefox",
        "Firefox's history",
        {"moz_places": ("id", "url"), "moz_historyvisits": ("id", "place_id", "visit_date")},
        "moz_historyvisits AS v LEFT JOIN moz_places AS u ON u.id = v.place_id",
        "v.visit_date",
        (
            ("v.visit_type IN (4, 8)", FRAME, "visit_type"),
            ("v.visit_type = 7", DOWNLOAD, "visit_type"),
            (
                "v.id IN (SELECT from_visit FROM moz_historyvisits WHERE visit_type IN (5, 6))",
                REDIRECTED,
                "from_visit",
            ),
        ),
    ),
    BrowserDatabase(
        "safari",
        "Safari's history",
        {"history_items": ("id", "url"), "history_visits": ("id", "history_item", "visit_time")},
        "history_visits AS v LEFT JOIN history_items AS u ON u.id = v.history_item",
        "v.visit_time",
        (
            ("v.origin = 1", SYNCED, "origin"),
            ("v.load_successful = 0", FAILED, "load_successful"),
            ("v.redirect_destination IS NOT NULL", REDIRECTED, "redirect_destination"),
        ),
    ),
)


def look(path: Path) -> TableFile | None:
    """The visits in a browser's database, in time order; None for any other database.

    Raises InputError where it is a browser's and is damaged, or holds no visits.
    """
    known: BrowserDatabase | None = None
    try:
        with private_copy(path) as copy:
            copy.text_factory = lambda raw: raw.decode("utf-8", "replace")
            known = next((x for x in HISTORIES if _is(copy, x)), None)
            return None if known is None else _visits(copy, path, known)
    except Unreadable as error:
        if known is None:
            return None
        raise InputError(
            f"{path}: is {known.what}, and damaged ({error}); close the browser and copy the file anew, "
            "with the -wal beside it"
        ) from error


def _columns(copy: Copy, table: str) -> set[str]:
    return {row[1] for row in copy.execute(f"PRAGMA table_info({table})")}


def _is(copy: Copy, one: BrowserDatabase) -> bool:
    return all(_columns(copy, table) >= set(wanted) for table, wanted in one.needs.items())


def _visits(copy: Copy, path: Path, one: BrowserDatabase) -> TableFile:
    there = _columns(copy, list(one.needs)[1])
    cases = " ".join(
        f"WHEN {when} THEN {number}" for number, (when, _, c) in enumerate(one.not_opened) if c in there
    )
    why = f"CASE {cases} END" if cases else "NULL"
    rows: list[list[str]] = []
    left_out: Counter[str] = Counter()
    for t, url, number in copy.execute(f"SELECT {one.t}, u.url, {why} FROM {one.frm} ORDER BY {one.t}, v.id"):
        if number is None:
            rows.append(["" if x is None else str(x) for x in (t, url)])
        else:
            left_out[one.not_opened[number][1]] += 1
    others = ", ".join(f"{n:,}: {what}" for what, n in sorted(left_out.items()))
    if not rows:
        raise InputError(
            f"{path}: is {one.what}, and holds no visits"
            + (f" that opened a page ({others})" if others else "")
            + "; see whether another profile has them"
        )
    notes: tuple[str, ...] = (f"from {one.what}: a line number counts its visits",)
    if left_out:
        notes += (f"visits that opened nothing were left out ({others})",)
    return TableFile(path, False, "", [f"{one.name}.t", f"{one.name}.url"], rows, notes)

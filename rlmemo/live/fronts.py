"""From what ActivityWatch tells to what was opened: which window is in front, and which page in it.

The watcher of windows says which program is in front, the browser's extension which page its tab shows, also
while another program is in front. Both together are one person's opens: while a browser is in front whose
extension is awake, the page counts and not the browser; a page that changes behind another window does not
count until one sees it; what is in front again without a change between is no new open (collapse). A private
window is nothing, neither page nor browser.

Nothing else of a row is looked at or kept: no title, and of an address its host (`env.sources.names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from env.sources.names import target_and_kind
from env.timeline import Event
from rlmemo.live.activitywatch import AFK, WEB, WINDOW, BucketRow, News
from rlmemo.store.live_ledger import Off, Seen

AWAKE_S = 300.0
"""An extension that has said nothing for so long is not awake: the browser itself counts then. (It says which
page is in front at least every minute.)"""
GRACE_S = 5.0
"""A page waits until the watcher of windows has told of that time, too, and no longer than this."""
GAP_S = 300.0
"""A longer silence of the watchers of windows and of being there is an off."""
CHROMIUM = "chrome"
_BROWSERS = {
    "firefox": r"firefox.*|org\.mozilla\.firefox|navigator|librewolf|waterfox",
    "brave": r"brave.*", "edge": r"msedge.*|microsoft[ -]edge.*", "opera": r"opera.*",
    "vivaldi": r"vivaldi.*", "arc": r"arc", "zen": r"zen.*", "floorp": r"floorp", "safari": r"safari",
    CHROMIUM: r"(google[ -])?chrome.*|chromium.*",
}  # fmt: skip
BROWSERS = {name: re.compile(pattern) for name, pattern in _BROWSERS.items()}
"""Programs by the browser whose extension tells of them (`aw-watcher-web-NAME`)."""
LIKE_CHROMIUM = {"brave", "edge", "opera", "vivaldi", "arc"}
"""Their extension is Chromium's, and older ones call themselves so."""
NOTHING_IN_FRONT = {"", "unknown", "loginwindow", "lockapp"}
BLANK = re.compile(r"about:(blank|newtab|home)\b|[a-z-]+://(newtab|new-tab-page|startpage)/?$")
"""Addresses of a tab in which nothing was opened yet."""


@dataclass(frozen=True)
class Said:
    """What of a row counts. what: a target, "" for nothing that may be known; kind: its kind, or of being
    there "afk" or "not-afk"; browser: of the extension that told it, or of the program, "" for none."""

    bucket: str
    of: str
    t: float
    end: float
    what: str
    kind: str
    browser: str


def said(row: BucketRow) -> Said | None:
    """What counts of a row; None where it tells nothing."""
    if row.kind == AFK:
        status = str(row.data.get("status", ""))
        return Said(row.bucket, AFK, row.t, row.end, "", status, "") if status else None
    if row.kind == WEB:
        called = row.bucket.removeprefix("aw-watcher-web-").removeprefix("rlmemo-").partition("_")[0].lower()
        private = str(row.data.get("incognito", False)).lower() not in ("false", "0", "none", "")
        url = str(row.data.get("url", ""))
        target, kind = ("", "page") if private or BLANK.match(url) else target_and_kind(url, "page")
        return Said(row.bucket, WEB, row.t, row.end, target, kind, called)
    app = str(row.data.get("app", ""))
    plain = app.strip().lower().removesuffix(".exe")
    if plain in NOTHING_IN_FRONT:
        return Said(row.bucket, WINDOW, row.t, row.end, "", "app", "")
    browser = next((name for name, pattern in BROWSERS.items() if pattern.fullmatch(plain)), "")
    target, kind = target_and_kind(app, "app")
    return Said(row.bucket, WINDOW, row.t, row.end, target, kind, browser)


@dataclass
class Fronts:
    """What is in front, as far as it was told; goes through JSON and back, with what waits.

    window: the latest row of windows. tabs: by browser, the latest row of its extension. last: what was
    opened last. away: since when the person is away. waiting: rows that may not be taken yet.
    """

    window: Said | None = None
    tabs: dict[str, Said] = field(default_factory=dict)
    last: str = ""
    away: float | None = None
    waiting: list[Said] = field(default_factory=list)

    def take(self, news: News, now: float, booted: float | None = None) -> tuple[list[Seen], list[Off]]:
        """Take in what is new; what was opened, and when the person was away or the machine off. now, booted:
        what time it is, and when the machine was started (unix seconds)."""
        self.tabs = {name: _grown(tab, news) for name, tab in self.tabs.items()}
        fresh = [one for row in news.rows if (one := said(row)) is not None]
        present = [r.end for r in news.grown.values() if r.kind != WEB]
        offs = _gaps([x for x in fresh if x.of != WEB], max(present, default=None), booted)
        if not news.windows:
            offs += self._shut(fresh, booted)
        windows = news.told_until(WINDOW)
        if windows is None and self.window is not None:
            windows = self.window.end
        line = sorted([*self.waiting, *fresh], key=lambda x: x.t)
        seen: list[Seen] = []
        shut = [off.off_t for off in offs if off.why == "shutdown"]
        for k, one in enumerate(line):
            if shut and one.t > shut[0]:
                shut.pop(0)
                self.last = ""  # nothing is open any more
            told = one.of != WEB or not news.windows or (windows is not None and windows >= one.t)
            if not told and now - one.t < GRACE_S:
                self.waiting = line[k:]
                return seen, offs
            if one.of == AFK:
                offs += self._presence(one)
            else:
                seen += self._front(one, alone=not news.windows)
        self.waiting = []
        return seen, offs

    def _shut(self, fresh: Sequence[Said], booted: float | None) -> list[Off]:
        """The machine's having been off, by the pages alone: their silence is none of the person's."""
        before = max((max(tab.t, tab.end) for tab in self.tabs.values()), default=None)
        pages = sorted(x.t for x in fresh if x.of == WEB)
        if booted is None or before is None or not pages or not before < booted <= pages[-1]:
            return []
        return [Off(before, booted, "shutdown")]

    def told_last(self, news: News) -> float | None:
        """Until when the watchers have told something; None where they never have."""
        ends = [x.end for x in (*news.rows, *news.grown.values())]
        known = [self.window] if self.window is not None else []
        return max([*ends, *(max(x.t, x.end) for x in (*known, *self.tabs.values()))], default=None)

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Fronts:
        """What `as_json` gave; nothing known for None."""
        if data is None:
            return cls()
        return cls(
            Said(**data["window"]) if data["window"] else None,
            {name: Said(**x) for name, x in data["tabs"].items()},
            data["last"], data["away"], [Said(**x) for x in data["waiting"]],
        )  # fmt: skip

    def _front(self, one: Said, *, alone: bool) -> Sequence[Seen]:
        """What a row of a window or a page has opened: nothing or one. alone: nobody watches windows."""
        if one.of == WEB:
            self.tabs[one.browser] = one
            front = "" if self.window is None else self.window.browser
            if not alone and self._extension(front, one.t) is not one:
                return ()
            shown = one
        else:
            self.window = one
            shown = self._extension(one.browser, one.t) or one
        if not shown.what or shown.what == self.last:
            return ()
        self.last = shown.what
        return (Seen(f"{one.bucket} {one.t:.6f} {shown.what}", Event(one.t, shown.what, shown.kind)),)

    def _extension(self, browser: str, t: float) -> Said | None:
        """The page that a program shows at t; None for no browser, and where its extension is not awake."""
        if not browser:
            return None
        tab = self.tabs.get(browser) or (self.tabs.get(CHROMIUM) if browser in LIKE_CHROMIUM else None)
        return tab if tab is not None and t - max(tab.t, tab.end) <= AWAKE_S else None

    def _presence(self, one: Said) -> list[Off]:
        if one.kind == "afk":
            self.away = one.t if self.away is None else self.away
            return [Off(self.away, None, "afk")]
        off, self.away = self.away, None
        return [] if off is None else [Off(off, max(off, one.t), "afk")]


def _grown(tab: Said, news: News) -> Said:
    """A page as long as its row is now."""
    row = news.grown.get(tab.bucket)
    return replace(tab, end=row.end) if row is not None and row.t == tab.t else tab


def _gaps(rows: Iterable[Said], before: float | None, booted: float | None) -> list[Off]:
    """The silences between rows of windows and of being there, in time order."""
    offs = []
    for one in sorted(rows, key=lambda x: x.t):
        if before is not None and booted is not None and before < booted <= one.t:
            offs.append(Off(before, booted, "shutdown"))
        elif before is not None and one.t - before > GAP_S:
            offs.append(Off(before, one.t, "gap"))
        before = one.end if before is None else max(before, one.end)
    return offs

"""What ActivityWatch tells becomes what was opened, once each, and never more than a host or a program."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from fake_watch import A, FakeServer, P, T, W

from env.errors import InputError
from rlmemo.live.activitywatch import (
    AFK,
    WEB,
    WINDOW,
    ActivityWatch,
    Away,
    BucketReader,
    BucketRow,
    News,
)
from rlmemo.live.fronts import GAP_S, GRACE_S, Fronts
from rlmemo.store.live_ledger import Off, Seen


def window(t: float, app: str, end: float | None = None) -> BucketRow:
    return BucketRow(
        W, WINDOW, int(t * 10), T + t, T + (t if end is None else end), {"app": app, "title": "SECRET"}
    )


def page(t: float, url: str, end: float | None = None, **more: Any) -> BucketRow:
    return BucketRow(P, WEB, int(t * 10), T + t, T + (t if end is None else end), {"url": url, **more})


def presence(t: float, status: str, end: float) -> BucketRow:
    return BucketRow(A, AFK, int(t * 10), T + t, T + end, {"status": status})


def ordered(rows: Iterable[BucketRow]) -> tuple[BucketRow, ...]:
    return tuple(sorted(rows, key=lambda r: (r.t, [WINDOW, WEB, AFK].index(r.kind))))


def opened(
    rows: Iterable[BucketRow], fronts: Fronts | None = None, now: float = 1e6
) -> list[tuple[float, str]]:
    """(seconds, target) of what rows that come at once have opened."""
    seen, _ = (fronts or Fronts()).take(News(ordered(rows)), T + now)
    return [(round(s.event.t - T, 3), s.event.target) for s in seen]


BROWSED = (
    window(0, "Terminal"), window(10, "Firefox"), page(9, "https://news.example/a?b=SECRET", 30),
    page(30, "https://mail.example/SECRET", 60), window(40, "Firefox"), window(60, "Terminal"),
    page(70, "https://mail.example/"), page(80, "https://chat.example"), window(90, "Firefox"),
)  # fmt: skip
OPENS = [
    (0, "Terminal"), (10, "news.example"), (30, "mail.example"), (60, "Terminal"), (90, "chat.example"),
]  # fmt: skip


def test_a_page_counts_while_its_browser_is_in_front() -> None:
    assert opened(BROWSED) == OPENS


def test_rows_that_come_one_by_one_open_the_same() -> None:
    fronts, found = Fronts(), []
    seen: dict[str, BucketRow] = {}
    for row in ordered(BROWSED):
        new, _ = fronts.take(News((row,), dict(seen)), row.t + 0.1)
        found += new
        seen[row.bucket] = row
        fronts = Fronts.from_json(json.loads(json.dumps(fronts.as_json())))
    assert [(round(s.event.t - T, 3), s.event.target) for s in found] == OPENS
    assert "SECRET" not in repr((fronts, found))
    assert len({s.key for s in found}) == len(found)


def test_without_an_extension_that_is_awake_the_browser_is_the_app() -> None:
    assert opened([window(0, "Firefox"), window(5, "Mail"), window(9, "firefox.exe")]) == [
        (0, "Firefox"), (5, "Mail"), (9, "firefox.exe"),
    ]  # fmt: skip
    long_ago = [page(0, "https://old.example", 20), window(1000, "Firefox")]
    assert opened(long_ago) == [(1000, "Firefox")]
    assert opened([page(0, "https://old.example", 900), window(1000, "Firefox")]) == [(1000, "old.example")]


def test_a_page_that_is_looked_at_for_long_keeps_its_extension_awake() -> None:
    fronts = Fronts()
    first = [window(0, "Firefox"), page(1, "https://long.example"), window(2, "Firefox")]
    assert opened(first, fronts) == [(0, "Firefox"), (1, "long.example")]
    grown = {P: page(1, "https://long.example", 1200), W: window(2, "Firefox", 1200)}
    seen, offs = fronts.take(News((window(1201, "Mail"),), grown), T + 1202)
    assert [s.event.target for s in seen] == ["Mail"]
    assert offs == []
    seen, _ = fronts.take(
        News((window(1260, "Firefox"),), {**grown, W: window(1201, "Mail", 1260)}), T + 1261
    )
    assert [s.event.target for s in seen] == ["long.example"]


@pytest.mark.parametrize(
    "blank",
    ["about:blank", "about:blank#x", "about:newtab", "about:home", "chrome://newtab/", "edge://newtab"],
)
def test_an_empty_tab_is_nothing(blank: str) -> None:
    rows = [
        page(0, "https://wiki.example", 5), page(6, blank, 9), page(9.5, "https://wiki.example", 11),
        page(12, "about:config", 14), page(15, "https://newtab.example/"),
    ]  # fmt: skip
    seen, _ = Fronts().take(News(tuple(rows), windows=False), T + 60)
    assert [s.event.target for s in seen] == ["wiki.example", "about:config", "newtab.example"]


def test_a_private_window_is_nothing() -> None:
    rows = [
        window(0, "Mail"), window(5, "Firefox"), page(4.9, "https://SECRET.example", 20, incognito=True),
        window(20, "Mail"), window(30, "Firefox"), page(29, "https://open.example", 40, incognito=False),
    ]  # fmt: skip
    assert opened(rows) == [(0, "Mail"), (30, "open.example")]


def test_only_pages_are_told_where_nobody_watches_windows() -> None:
    rows = [page(0, "https://a.example"), page(9, "https://b.example"), page(10, "https://b.example/2")]
    seen, _ = Fronts().take(News(tuple(rows), windows=False), T + 10)
    assert [(s.event.t - T, s.event.target) for s in seen] == [(0, "a.example"), (9, "b.example")]
    assert opened(rows) == []  # somebody does, and has not said anything yet


def test_an_older_extension_calls_every_chromium_chrome() -> None:
    told = BucketRow("aw-watcher-web-chrome", WEB, 1, T, T + 10, {"url": "https://a.example"})
    assert opened([told, window(5, "Brave-browser")]) == [(5, "a.example")]
    assert opened([told, window(5, "Firefox")]) == [(5, "Firefox")]


def test_a_lock_screen_is_nothing() -> None:
    assert opened([window(0, "Mail"), window(5, "LockApp.exe"), window(9, "Mail")]) == [(0, "Mail")]


def test_a_page_waits_for_the_window_of_its_time() -> None:
    fronts = Fronts()
    assert opened([window(0, "Firefox")], fronts) == [(0, "Firefox")]
    assert opened([page(10, "https://a.example")], fronts, now=10) == []
    assert fronts.waiting
    seen, _ = fronts.take(News((window(9.8, "Mail", 10.8),), {W: window(0, "Firefox", 9.7)}), T + 11)
    assert [s.event.target for s in seen] == ["Mail"]  # it was behind it
    assert opened([page(20, "https://b.example"), window(19, "Firefox", 19.5)], fronts, now=20)[0][0] == 19
    assert opened([], fronts, now=20 + GRACE_S) == [(20, "b.example")]


def test_being_away_and_silence_are_offs() -> None:
    fronts = Fronts()
    rows = [window(0, "Mail", 100), presence(0, "not-afk", 100), presence(100, "afk", 130)]
    _, offs = fronts.take(News(ordered(rows)), T + 130)
    assert offs == [Off(T + 100, None, "afk")]
    fronts = Fronts.from_json(json.loads(json.dumps(fronts.as_json())))
    grown = {A: presence(100, "afk", 190), W: window(0, "Mail", 190)}
    _, offs = fronts.take(News((presence(190, "not-afk", 200),), grown), T + 200)
    assert offs == [Off(T + 100, T + 190, "afk")]
    after = 190 + GAP_S + 10
    _, offs = fronts.take(News((window(after, "Mail"),), grown), T + after)
    assert offs == [Off(T + 190, T + after, "gap")]
    _, offs = Fronts().take(News((window(after, "Mail"),), grown), T + after, booted=T + after - 5)
    assert offs == [Off(T + 190, T + after - 5, "shutdown")]
    mail = Fronts(last="Mail")
    seen, offs = mail.take(News((window(250, "Mail"), window(260, "Mail")), grown), T + 260, booted=T + 230)
    assert offs == [Off(T + 190, T + 230, "shutdown")]
    assert [s.event.t for s in seen] == [T + 250]  # it is opened again, though the silence was short


def test_a_reader_gives_every_row_once_however_often_it_begins_anew() -> None:
    server, reader = FakeServer(), None
    place: dict[str, Any] = {}
    found: list[tuple[str, float]] = []
    rows = [window(t, f"app {t}", t + 50) for t in range(1, 2000, 50)]
    for k, row in enumerate(rows):
        if k:
            server.held[W][-1] = rows[k - 1]
        server.held[W].append(BucketRow(row.bucket, row.kind, row.id, row.t, row.t, row.data))
        if k % 3 == 0:
            reader = BucketReader(server, T - 1, place=json.loads(json.dumps(place)))
        if k % 4 or reader is None:
            continue
        found += [(r.data["app"], r.t) for r in reader.read().rows]
        assert reader.read().rows == ()
        place = reader.place
    assert reader is not None
    found += [(r.data["app"], r.t) for r in reader.read().rows]
    assert found == [(r.data["app"], r.t) for r in rows]
    assert sum(len(x["ids"]) for x in reader.place.values()) < 10


def test_a_page_and_its_window_that_come_while_one_reads_are_one_open() -> None:
    """The tab is there before its window is in front; both arrive between two questions to the server."""

    class Racing(FakeServer):
        def rows(self, bucket: Any, start: float | None) -> list[BucketRow]:
            found = super().rows(bucket, start)
            if not self.came:
                self.came = True
                self.tell(P, 59.999, url="https://new.example", incognito=False)
                self.tell(W, 60.0, app="Firefox")
            return found

    server, fronts, found = Racing(), Fronts(), []
    server.came = True
    server.tell(P, 9.9, url="https://old.example", incognito=False)
    server.tell(W, 10.0, app="Firefox")
    server.tell(W, 30.0, app="Mail")
    server.tell(W, 59.0, app="Mail")
    reader = BucketReader(server, T)
    for now in (59.5, 60.1, 60.4):
        server.came = now != 60.1
        found += fronts.take(reader.read(), T + now)[0]
    found += fronts.take(reader.read(), T + 60.7)[0]
    assert [s.event.target for s in found] == ["old.example", "Mail", "new.example"]


def test_rows_before_the_recording_are_left_out_and_a_bucket_made_anew_is_read_on() -> None:
    server = FakeServer()
    server.held[W] = [window(0, "before", 90), window(100, "after")]
    reader = BucketReader(server, T + 50)
    assert [r.data["app"] for r in reader.read().rows] == ["after"]
    server.created = "2"
    server.held[W] = [window(100, "after"), window(110, "new")]
    assert [r.data["app"] for r in reader.read(look=True).rows] == ["new"]


def test_another_machine_is_never_asked() -> None:
    for host in ("example.com", "10.0.0.1", "0.0.0.0", ""):
        with pytest.raises(InputError, match="not this machine"):
            ActivityWatch(host)
    with pytest.raises(Away, match=r"nothing listens at 127\.0\.0\.1:1;"):
        ActivityWatch(port=1).info()


def test_seen_is_hashable() -> None:
    assert len({Seen("a", s.event) for s in Fronts().take(News((window(0, "x"),)), T)[0]}) == 1

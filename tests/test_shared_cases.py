"""Every file of `../shared/cases/timelines` that a table reader meets, and what is right for it.

Databases (03, 04, 46), addresses and hosts (14, 15) and second recordings (23) are tested elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from env.errors import InputError
from env.sources import Loaded, load_timelines
from rlmemo import timelines
from tests.shared_cases import case

EIGHT = "2026-03-02T08:00Z"
ELSEWHERE = ("03_", "04_", "14_", "15a", "15c", "23", "46_")


def load(name: str, **options: str) -> Loaded:
    return load_timelines(str(case(f"timelines/{name}")), collapsed=False, **options)


def refusal(name: str, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        load(name, **options)
    return str(caught.value)


def rows(loaded: Loaded) -> list[tuple[str, str]]:
    """(target, time) of all events in the order of their timelines."""
    return [
        (e.target, f"{datetime.fromtimestamp(e.t, UTC):%Y-%m-%dT%H:%MZ}") for x in loaded.timelines for e in x
    ]


def first(loaded: Loaded) -> str:
    return rows(loaded)[0][1]


def column(loaded: Loaded, name: str) -> list[Any]:
    return [getattr(e, name) for x in loaded.timelines for e in x]


def test_every_file_is_tested_here_or_named_as_tested_elsewhere() -> None:
    here = {name for name in globals() if name.startswith("test_")}
    for path in sorted(case("timelines").iterdir()):
        number = path.name.split("_")[0].split(".")[0]
        elsewhere = path.name.startswith(ELSEWHERE)
        assert elsewhere or any(f"_{number}_" in f"{name}_" for name in here), path.name


def test_01_activitywatch_windows_are_openings_and_afk_is_not() -> None:
    loaded = load("01_aw_buckets.json")
    assert [x for x, _ in rows(loaded)] == ["Editor.exe", "Mailer", "Browser", "Editor.exe"]
    assert first(loaded) == EIGHT
    assert any("left out: 1 of afkstatus" in note for note in loaded.report.notes)


def test_06_takeout_counts_microseconds() -> None:
    loaded = load("06_takeout_History.json")
    assert rows(loaded) == [("news.example", f"2026-03-02T08:0{i}Z") for i in range(3)]
    assert any("Google Takeout" in note for note in loaded.report.notes)


def test_24d_dumpsys_tells_what_was_opened() -> None:
    assert "--tz" in refusal("24d_dumpsys.txt")
    loaded = load("24d_dumpsys.txt", tz="Europe/Berlin")
    assert rows(loaded) == [("org.ex.chat", "2026-03-02T07:00Z")]
    assert any("left out: 1 of ACTIVITY_PAUSED" in note for note in loaded.report.notes)


def test_24g_browserexport() -> None:
    loaded = load("24g_browserexport.json")
    assert rows(loaded) == [("news.example", EIGHT)]
    assert any("browserexport" in note for note in loaded.report.notes)


def test_48_memo_windows_are_local_and_browsers_utc() -> None:
    assert "--tz" in refusal("48_memo.json")
    assert rows(load("48_memo.json", tz="Asia/Shanghai")) == [
        ("editor.exe", "2026-03-02T01:00Z"),
        ("browser.exe", "2026-03-02T01:01Z"),
        ("news.example", "2026-03-02T01:01Z"),
    ]


def test_02a_02b_activitywatch_buckets_are_recognised() -> None:
    desktop, android = load("02a_aw_bucket.csv"), load("02b_aw_android.csv")
    assert [x for x, _ in rows(desktop)] == ["Editor.exe", "Mailer", "Browser", "Editor.exe"]
    assert rows(android) == [("Chat", EIGHT), ("Maps", "2026-03-02T08:01Z")]
    assert column(android, "duration") == [12.3, 5.0]
    for loaded in (desktop, android):
        assert any("read as ActivityWatch's window bucket" in note for note in loaded.report.notes)


def test_02c_a_quoted_newline_in_a_column_that_is_not_read() -> None:
    loaded = load("02c_aw_title_newline.csv")
    assert len(rows(loaded)) == 4
    assert first(loaded) == EIGHT


@pytest.mark.parametrize(
    ("name", "epoch", "n"),
    [
        ("05_webkit.csv", "webkit", 3),
        ("07_coredata.csv", "apple", 4),
        ("08_ticks.csv", "dotnet", 3),
        ("09_compact14.csv", "compact", 2),
        ("36_filetime.csv", "filetime", 2),
    ],
)
def test_05_07_08_09_36_other_clocks(name: str, epoch: str, n: int) -> None:
    assert f"--epoch {epoch}" in refusal(name)
    loaded = load(name, epoch=epoch, tz="UTC")
    assert (first(loaded), len(rows(loaded))) == (EIGHT, n)
    assert loaded.report.first_day == loaded.report.last_day == "2026-03-02"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("10a_sci.csv", ("line 2", "1.77244E+09", "too few digits")),
        ("10e_comma_unix.csv", ("line 2", "decimal comma", "1772438400.25")),
        ("10g_de.csv", ("line 2", "02.03.2026 08:00:00", "day first", "2026-03-02 08:00:00")),
    ],
)
def test_10a_10e_10g_are_refused_with_the_right_hint(name: str, words: tuple[str, ...]) -> None:
    message = refusal(name)
    assert all(x in message for x in words)


def test_11_the_hour_that_comes_twice() -> None:
    assert rows(load("11_dst_fall.csv", tz="Europe/Berlin")) == [
        ("A", "2025-10-25T23:58Z"),
        ("B", "2025-10-26T00:10Z"),
        ("C", "2025-10-26T00:50Z"),
        ("D", "2025-10-26T01:05Z"),
        ("E", "2025-10-26T01:40Z"),
        ("F", "2025-10-26T02:01Z"),
    ]


@pytest.mark.parametrize("name", ["12a_utc.csv", "12d_java.csv", "12f_rfc.csv"])
def test_12a_12d_12f_times_that_state_their_zone(name: str) -> None:
    loaded = load(name)
    assert rows(loaded) == [("Mail", EIGHT), ("Notes", "2026-03-02T08:01Z")]
    zone = "Europe/Berlin" if name == "12d_java.csv" else "UTC"
    assert {x.tz for x in loaded.timelines} == {zone}


def test_16a_private_as_a_number() -> None:
    loaded = load("16a_private_float.csv")
    assert [x for x, _ in rows(loaded)] == ["Mail", "Notes", "Mail"]
    assert dict(loaded.report.dropped) == {"opened in a private window": 1}


def test_16b_waves_as_decimals() -> None:
    assert load("16b_wave_float.csv").timelines[0].wave.tolist() == [1, 1, 2, 0]


def test_16c_missing_private_and_duration() -> None:
    loaded = load("16c_R_NA.csv")
    assert [x for x, _ in rows(loaded)] == ["Mail", "Notes", "Maps"]
    assert column(loaded, "duration") == [None] * 3


def test_16e_missing_targets_and_users() -> None:
    loaded = load("16e_target_NA.csv")
    assert rows(loaded) == [("Mail", EIGHT)]
    assert dict(loaded.report.dropped) == {"target is missing": 4, "user is missing": 1}


def test_22_webtrackr() -> None:
    loaded = load("22_webtrackr.csv", tz="UTC")
    assert rows(loaded) == [("news.example", "2019-02-03T10:00Z"), ("mail.example", "2019-02-03T10:01Z")]
    assert [x.user for x in loaded.timelines] == ["p1"]
    assert column(loaded, "device") == ["desktop"] * 2
    assert "--tz" in refusal("22_webtrackr.csv")


@pytest.mark.parametrize(
    ("name", "said", "right"),
    [
        ("24a_rescuetime.csv", "RescueTime's", [("mail.example", EIGHT), ("Editor", "2026-03-02T08:05Z")]),
        ("24b_toggl.csv", "Toggl's", [("Work", EIGHT)]),
        ("24c_appusage.csv", "App Usage's", [("Chat", EIGHT), ("Maps", "2026-03-02T08:01Z")]),
        ("24e_screentime2csv.csv", "ScreenTime2CSV's", [("com.apple.mail", EIGHT)]),
        (
            "24f_browser_history.csv",
            "browser-history's",
            [("news.example", EIGHT), ("mail.example", "2026-03-02T08:01Z")],
        ),
    ],
)
def test_24a_24b_24c_24e_24f_exports_are_recognised(
    name: str, said: str, right: list[tuple[str, str]]
) -> None:
    loaded = load(name, tz="UTC")
    assert rows(loaded) == right
    assert any(said in note for note in loaded.report.notes)


def test_25a_the_advice_names_cp1252() -> None:
    message = refusal("25a_cp1252.csv")
    assert "line 2: byte 0x92" in message
    assert "iconv -f CP1252 -t UTF-8" in message


def test_31_local_hours_by_the_offset_in_the_file() -> None:
    loaded = load("31_offset_small.csv")
    x = loaded.timelines[0]
    assert (x.local() // 3600 % 24).tolist() == [20, 20, 20]
    assert loaded.report.first_day == "2026-03-01"
    assert any("-05:00" in note for note in loaded.report.notes)


def test_37_kinds_in_others_words() -> None:
    assert column(load("37_kind_web.csv"), "kind") == ["page", "page", "app"]


def test_39_a_space_after_the_comma() -> None:
    assert [x for x, _ in rows(load("39_space_after_comma.csv"))] == ["Mail, work", "Notes"]


def test_45_several_openings_within_a_minute() -> None:
    loaded = load("45_minute_res.csv")
    assert [x for x, _ in rows(loaded)] == ["Chat", "Maps", "Chat", "Maps", "Chat", "Mail", "Chat", "Mail"]
    assert not loaded.report.dropped


def test_45_all_of_them_are_stored(tmp_path: Path) -> None:
    db = str(tmp_path / "mine.db")
    timelines.main(["import", str(case("timelines/45_minute_res.csv")), "--db", db])
    assert rows(load_timelines(db, collapsed=False)) == rows(load("45_minute_res.csv"))

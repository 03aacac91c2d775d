"""Times: other clocks, digits that are missing, zones in the file, and the hour that comes twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.errors import InputError
from env.sources import EPOCHS, Loaded, load_timelines

T = 1_772_438_400  # 2026-03-02T08:00:00Z
APPLE = T - 978_307_200
WEBKIT = (T + 11_644_473_600) * 1_000_000
FILETIME = (T + 11_644_473_600) * 10_000_000
TICKS = (T + 62_135_596_800) * 10_000_000


def read(folder: Path, *times: object, **options: str) -> Loaded:
    """A file of one user who opens X0, X1, … at `times`."""
    path = folder / "mine.csv"
    path.write_text("user,t,target\n" + "".join(f'ada,"{t}",X{i}\n' for i, t in enumerate(times)))
    return load_timelines(str(path), **options)


def refusal(folder: Path, *times: object, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, *times, **options)
    message = str(caught.value)
    assert "mine.csv, line " in message
    assert "\n" not in message
    return message


def instants(loaded: Loaded) -> list[float]:
    assert len(loaded.timelines) == 1
    return loaded.timelines[0].t.tolist()


def iso(loaded: Loaded) -> dict[str, str]:
    """Target → when it was opened, in UTC."""
    return {e.target: f"{datetime.fromtimestamp(e.t, UTC):%Y-%m-%dT%H:%MZ}" for e in loaded.timelines[0]}


@pytest.mark.parametrize(
    ("epoch", "first", "second"),
    [
        ("apple", APPLE, APPLE + 60),
        ("apple", f"{APPLE}.0", f"{APPLE + 60}.0"),
        ("apple", APPLE * 10**9, (APPLE + 60) * 10**9),
        ("apple", 332_000_000, 332_000_060),  # 2011, which unix seconds would place in 1980
        ("webkit", WEBKIT, WEBKIT + 60_000_000),
        ("filetime", FILETIME, FILETIME + 600_000_000),
        ("dotnet", TICKS, TICKS + 600_000_000),
        ("compact", "20260302080000", "20260302080100"),
        ("compact", "202603020800", "202603020801"),
        ("compact", "20260302080000000", "20260302080100000"),
        ("unix", T * 1_000, (T + 60) * 1_000),
        ("unix", T * 1_000_000, (T + 60) * 1_000_000),
        ("unix", T * 10**9, (T + 60) * 10**9),
        ("unix", 900_000_000, 900_000_060),  # 1998, really
    ],
)
def test_a_file_of_another_clock_is_refused_with_the_option_that_reads_it(
    tmp_path: Path, epoch: str, first: object, second: object
) -> None:
    message = refusal(tmp_path, first, second)
    assert f"line 2: t is {first}" in message
    assert f"python -m rlmemo.timelines import {tmp_path}/mine.csv --epoch {epoch}" in message
    named = {name for name in EPOCHS if f"--epoch {name}" in message}
    assert named <= {epoch, "unix"}
    t = instants(read(tmp_path, first, second, epoch=epoch, tz="UTC"))
    assert t[1] - t[0] == 60
    real = {332_000_000: 332_000_000 + 978_307_200, 900_000_000: 900_000_000}
    assert t[0] == real.get(first, T)  # type: ignore[call-overload]


def test_fractions_of_every_clock_are_kept(tmp_path: Path) -> None:
    for epoch, t in (
        ("apple", f"{APPLE}.25"),
        ("webkit", WEBKIT + 250_000),
        ("filetime", FILETIME + 2_500_000),
        ("dotnet", TICKS + 2_500_000),
        ("unix", f"{T}250"),
        ("unix", f"{T}.25"),
    ):
        assert instants(read(tmp_path, t, epoch=epoch)) == [T + 0.25]


def test_compact_digits_are_local_unless_they_state_an_offset(tmp_path: Path) -> None:
    assert "--tz" in refusal(tmp_path, "20260302080000", epoch="compact")
    assert instants(read(tmp_path, "20260302090000", epoch="compact", tz="Europe/Berlin")) == [T]
    # an offset leaves nothing to ask; the minutes would be misread by the ninth digit taken for a "T"
    assert instants(read(tmp_path, "20260302080000Z", "20260302090122+0100")) == [T, T + 82]
    said = read(tmp_path, "20261302080000", "20260302080000", epoch="compact", tz="UTC").report
    assert dict(said.dropped) == {"t is not of the form YYYYMMDDhhmmss": 1}


@pytest.mark.parametrize(
    "times",
    [(APPLE, T, T + 60), (T, T + 60, APPLE), (T, T * 1000), (T, WEBKIT), (TICKS, FILETIME), (T, TICKS)],
)
def test_a_mixture_of_clocks_is_refused(tmp_path: Path, times: tuple[int, ...]) -> None:
    assert "a mixture of clocks or units" in refusal(tmp_path, *times)
    epoch = "webkit" if WEBKIT in times else "dotnet" if TICKS in times else None
    if epoch is not None:
        assert "a mixture of clocks or units" in refusal(tmp_path, *times, epoch=epoch)


def test_old_times_are_read_as_they_are_with_epoch_unix(tmp_path: Path) -> None:
    assert instants(read(tmp_path, APPLE, T, epoch="unix")) == [APPLE, T]
    # what Apple's clock cannot be is no mixture: a clock that was not set, or a record over that day
    assert instants(read(tmp_path, 946_684_800, T)) == [946_684_800, T]
    # and times that are written out are not suspicious
    assert instants(read(tmp_path, "1998-07-09T16:00:00Z")) == [900_000_000]


def test_the_wrong_epoch_is_refused_with_the_right_one(tmp_path: Path) -> None:
    for wrong, t, right in (
        ("webkit", APPLE, "apple"),
        ("apple", WEBKIT, "webkit"),
        ("unix", TICKS, "dotnet"),
        ("dotnet", T, "unix"),
        ("compact", T, "unix"),
    ):
        assert f"--epoch {right}" in refusal(tmp_path, t, t, epoch=wrong)
    with pytest.raises(InputError, match="--epoch mac: is none of unix, apple"):
        read(tmp_path, T, epoch="mac")


def test_advice_repeats_the_options_that_were_given(tmp_path: Path) -> None:
    path = tmp_path / "my file.csv"
    path.write_text(f"when,what\n{APPLE},Mail\n")
    with pytest.raises(InputError) as caught:
        load_timelines(str(path), columns="t=when,target=what", user="ada")
    assert f"import '{path}' --columns t=when,target=what --user ada --epoch apple" in str(caught.value)


def test_unset_clocks_spoil_a_row_and_no_file(tmp_path: Path) -> None:
    report = read(tmp_path, 0, T, T + 1, -1).report
    assert dict(report.dropped) == {"t is before 1990": 2}


@pytest.mark.parametrize(
    "times",
    [
        ("1.77244E+09",),
        ("1.772438E+09", "1.772439E+09"),
        ("1.7724E+09", "1.7724E+09"),  # divides by 60, by chance
        ("1.77243846E+09", "1.77243851E+09"),  # ten seconds are not enough, unless all are whole minutes
        ("1.77e9", str(T)),
    ],
)
def test_too_few_digits_are_refused(tmp_path: Path, times: tuple[str, ...]) -> None:
    assert "too few digits" in refusal(tmp_path, *times)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (("1.772438400E+09", "1.772438412E+09"), (0, 12)),
        (("1.7724384e9", "1.77243846e9"), (0, 60)),  # Java's way of writing whole minutes
        (("1.7724384E9", "1.772438461E9", "1.77244E9"), (0, 61, 1600)),  # one of them shows every digit
        (("1772438400.5e0",), (0.5,)),
    ],
)
def test_exact_scientific_notation_is_read(
    tmp_path: Path, times: tuple[str, ...], seconds: tuple[float, ...]
) -> None:
    assert instants(read(tmp_path, *times)) == [T + s for s in seconds]


def test_rounded_numbers_of_another_clock_get_advice_that_leads_to_right_times(tmp_path: Path) -> None:
    message = refusal(tmp_path, "1.34169E+16")
    assert "--epoch webkit" in message
    assert "all its digits" in message


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-02 08:00:00 UTC",
        "2026-03-02 08:00 GMT",
        "2026-03-02T08:00:00z",
        "2026-03-02 08:00:00 +0000 UTC",
        "2026-03-02 09:00:00 GMT+1",
        "2026-03-02 09:00:00 +01:00",
        "2026-03-02T09:00:00+01:00[Europe/Berlin]",
        "2026-03-02T09:00:00[Europe/Berlin]",
        "2026-03-02 09:00:00 Europe/Berlin",
        "2026-03-02T08:00:00Z[UTC]",
        "Mon, 02 Mar 2026 08:00:00 GMT",
        "Mon, 2 Mar 2026 09:00:00 +0100 (CET)",
        "Mon, 02 Mar 2026 03:00:00 EST",
        "Mon Mar 02 2026 09:00:00 GMT+0100 (Central European Standard Time)",
        "Mon Mar  2 08:00:00 UTC 2026",
        "2026/03/02 8:00:00 AM UTC",
        "20260302T080000Z",
    ],
)
def test_texts_that_state_their_zone_are_read(tmp_path: Path, text: str) -> None:
    assert instants(read(tmp_path, text)) == [T]


@pytest.mark.parametrize(
    ("text", "reason", "advice"),
    [
        ("02.03.2026 08:00:00", "t has the day first", "write 2026-03-02 08:00:00"),
        ("2.3.26 8:00", "t has the day first", "write 2026-03-02 08:00:00"),
        ("3/2/2026 08:00", "may be taken for each other", "write 2026-03-02 08:00:00"),
        ("1772438400,25", "t has a decimal comma", "with a point"),
        ("2026-03-02 09:00 CET", "t names its time zone by letters", "write the offset"),
        ("46083.333333", "a spreadsheet's number of days", "format the column"),
        ("2026/03/02", "a date without a time of day", "2026-03-02T09:00:00+01:00"),
        ("2026-03-02T09:00[Nowhere]", "names an unknown time zone", "2026-03-02T09:00:00+01:00"),
    ],
)
def test_what_cannot_be_read_gets_advice_of_its_own(
    tmp_path: Path, text: str, reason: str, advice: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, text)
    assert reason in str(caught.value)
    assert advice in str(caught.value)
    assert "and a target" not in str(caught.value)


def test_the_first_and_the_last_local_date_are_reported(tmp_path: Path) -> None:
    report = read(tmp_path, "2026-03-01T23:30:00Z", "2026-03-02T23:30:00Z", tz="Europe/Berlin").report
    assert (report.first_day, report.last_day) == ("2026-03-02", "2026-03-03")
    assert "  from 2026-03-02 to 2026-03-03 (local dates)" in report.lines()
    assert (report.as_dict()["first_day"], report.as_dict()["last_day"]) == ("2026-03-02", "2026-03-03")
    told = load_timelines("demo", weeks=1).report
    assert told.first_day < told.last_day


_numbers = st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{0,9})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
_texts = st.text("0123456789-:+/.,TZ []UTCGMTEuropeBerlinJan", max_size=40)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_numbers | _texts, max_size=5), st.sampled_from([None, *EPOCHS]))
def test_any_times_give_a_balanced_report_or_a_refusal(
    tmp_path: Path, times: list[str], epoch: str | None
) -> None:
    options = {"tz": "Europe/Berlin"} if epoch is None else {"tz": "Europe/Berlin", "epoch": epoch}
    try:
        loaded = read(tmp_path, *times, **options)
    except InputError:
        return
    r = loaded.report
    assert r.rows_read == r.kept + r.collapsed + sum(r.dropped.values())
    assert all(x >= "1990" for x in (r.first_day, r.last_day))


def test_a_cell_of_a_million_characters_is_no_time(tmp_path: Path) -> None:
    for cell in ("0" * 1_000_000 + "1", "2026-03-02 08:00 " * 50_000, "1" + " " * 1_000_000 + "[x"):
        report = read(tmp_path, cell, T, T + 1).report
        assert dict(report.dropped) == {"t is neither unix seconds nor ISO 8601": 1}


FALL = (("01:58", "A"), ("02:10", "B"), ("02:50", "C"), ("02:05", "D"), ("02:40", "E"), ("03:01", "F"))
FALL_UTC = {
    "A": "2025-10-25T23:58Z",
    "B": "2025-10-26T00:10Z",
    "C": "2025-10-26T00:50Z",
    "D": "2025-10-26T01:05Z",
    "E": "2025-10-26T01:40Z",
    "F": "2025-10-26T02:01Z",
}
TOLD = "local time in the hour of a clock change (told by the order of the file)"
UNTOLD = "local time in the hour of a clock change (taken as the first)"


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("users", [("ada",), ("ada", "bo")])
def test_the_hour_that_comes_twice_is_told_by_the_order_of_each_users_rows(
    tmp_path: Path, newest_first: bool, users: tuple[str, ...]
) -> None:
    rows = [f"{u},2025-10-26 {t}:00,{x}" for t, x in FALL for u in users]
    path = tmp_path / "fall.csv"
    path.write_text("\n".join(["user,t,target", *(reversed(rows) if newest_first else rows)]))
    loaded = load_timelines(str(path), tz="Europe/Berlin")
    for timeline in loaded.timelines:
        found = {e.target: f"{datetime.fromtimestamp(e.t, UTC):%Y-%m-%dT%H:%MZ}" for e in timeline}
        assert found == FALL_UTC
    assert loaded.report.changed[TOLD] == 4 * len(users)
    assert UNTOLD not in loaded.report.changed


def test_without_an_order_that_tells_the_first_hour_is_taken_and_counted(tmp_path: Path) -> None:
    loaded = read(tmp_path, "2025-10-26 02:30", "2025-10-26 04:30", tz="Europe/Berlin")
    assert iso(loaded) == {"X0": "2025-10-26T00:30Z", "X1": "2025-10-26T03:30Z"}
    assert loaded.report.changed[UNTOLD] == 1
    # rows that come from somewhere else in time tell nothing
    loaded = read(tmp_path, "2025-12-01 12:00", "2025-10-26 02:30", "2025-10-26 02:40", tz="Europe/Berlin")
    assert iso(loaded)["X1"] == "2025-10-26T00:30Z"
    assert loaded.report.changed[UNTOLD] == 2


def test_the_hour_that_is_skipped_is_told_by_the_order_too(tmp_path: Path) -> None:
    early = read(tmp_path, "2026-03-29 01:10", "2026-03-29 02:30", "2026-03-29 03:05", tz="Europe/Berlin")
    assert iso(early)["X1"] == "2026-03-29T00:30Z"
    late = read(tmp_path, "2026-03-29 01:58", "2026-03-29 02:30", "2026-03-29 03:40", tz="Europe/Berlin")
    assert iso(late)["X1"] == "2026-03-29T01:30Z"
    assert late.report.changed["local time that a clock change skips (taken by one of the two offsets)"] == 1


def test_an_offset_beside_the_zones_name_tells_the_hour(tmp_path: Path) -> None:
    loaded = read(
        tmp_path, "2025-10-26T02:40:00+02:00[Europe/Berlin]", "2025-10-26T02:30+01:00[Europe/Berlin]"
    )
    assert iso(loaded) == {"X0": "2025-10-26T00:40Z", "X1": "2025-10-26T01:30Z"}
    assert (loaded.timelines[0].tz, loaded.timelines[0].tz_known) == ("Europe/Berlin", True)
    assert not loaded.report.changed


@pytest.mark.parametrize(
    ("offset", "zone", "hour"),
    [
        ("-05:00", "Etc/GMT+5", 20),
        ("+01:00", "Etc/GMT-1", 20),
        ("+05:30", "Asia/Kolkata", 20),
        ("Z", "UTC", 20),
    ],
)
def test_one_offset_in_the_file_gives_the_local_hours(
    tmp_path: Path, offset: str, zone: str, hour: int
) -> None:
    loaded = read(tmp_path, f"2026-03-01T20:00:00{offset}", f"2026-03-01T20:05:00{offset}")
    x = loaded.timelines[0]
    assert (x.tz, x.tz_known) == (zone, zone != "UTC")
    assert (x.local() // 3600 % 24).tolist() == [hour, hour]
    assert any(zone in note or "not known" in note for note in loaded.report.notes)
    assert read(tmp_path, f"2026-03-01T20:00:00{offset}", tz="Asia/Tokyo").timelines[0].tz == "Asia/Tokyo"


def test_offsets_that_change_are_said_not_to_be_used(tmp_path: Path) -> None:
    for times in (
        ("2025-10-25T20:00:00+02:00", "2025-10-26T20:00:00+01:00"),
        ("2025-10-25T20:00:00+02:00", T),
        ("2025-10-25T20:00:00-03:30",),
    ):
        loaded = read(tmp_path, *times)
        assert (loaded.timelines[0].tz, loaded.timelines[0].tz_known) == ("UTC", False)
        assert any("are not used for local hours; give --tz" in note for note in loaded.report.notes)


def test_every_user_has_the_offset_of_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text(
        f"user,t,target\nada,2026-03-01T20:00:00-05:00,Mail\nbo,2026-03-01T20:00:00+09:00,Mail\ncy,{T},Mail\n"
    )
    loaded = load_timelines(str(path))
    assert [(x.tz, x.tz_known) for x in loaded.timelines] == [
        ("Etc/GMT+5", True),
        ("Etc/GMT-9", True),
        ("UTC", False),
    ]
    assert any("time zone of 1 user is not known" in note for note in loaded.report.notes)


@pytest.mark.parametrize("options", [{}, {"epoch": "compact", "tz": "UTC"}])
def test_eight_digits_are_a_date_without_a_time(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="a date without a time of day"):
        read(tmp_path, "20260302", "20260303", **options)


@pytest.mark.parametrize(("year", "told"), [(1995, True), (2002, False)])
def test_dates_that_a_wrong_clock_may_have_made_are_said(tmp_path: Path, year: int, told: bool) -> None:
    notes = read(tmp_path, f"{year}-03-02T08:00:00Z").report.notes
    assert any(f"no time is later than {year}-03-02" in note for note in notes) == told

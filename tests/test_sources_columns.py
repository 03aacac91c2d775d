"""Any CSV: `--columns`, `--user`, well-known headers, what is missing, repeats and quoted text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from env.errors import InputError
from env.sources import HasUsers, Loaded, load_timelines
from rlmemo import timelines

T = 1_772_438_400  # 2026-03-02T08:00:00Z


def write(folder: Path, text: str | bytes, name: str = "mine.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def read(folder: Path, text: str | bytes, **options: str) -> Loaded:
    return load_timelines(write(folder, text), collapsed=False, **options)


def refusal(folder: Path, text: str | bytes, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def events(loaded: Loaded) -> list[tuple[str, str, str]]:
    return [(x.user, e.target, e.kind) for x in loaded.timelines for e in x]


# -- columns ---------------------------------------------------------------------------------------------


def test_columns_map_any_header(tmp_path: Path) -> None:
    text = f"Person,When,Where,Length\nada,{T},https://a.example/x?q=1,3\nbo,{T},https://b.example/,4\n"
    loaded = read(tmp_path, text, columns="user=Person, t=when,target=Where,duration=Length")
    assert events(loaded) == [("ada", "a.example", "page"), ("bo", "b.example", "page")]
    assert loaded.timelines[0].duration.tolist() == [3.0]


def test_columns_win_over_headers_of_the_same_name(tmp_path: Path) -> None:
    text = f"user,t,target,url\nada,{T},Mail,https://a.example/\n"
    assert events(read(tmp_path, text, columns="target=url")) == [("ada", "a.example", "page")]
    assert events(read(tmp_path, text)) == [("ada", "Mail", "app")]


def test_a_header_with_a_comma_and_two_columns_that_make_one_time(tmp_path: Path) -> None:
    text = '"Time, local",App\n2026-03-02 08:00,Mail\n'
    loaded = read(tmp_path, text, columns='t="Time, local",target=App', user="ada", tz="UTC")
    assert loaded.timelines[0].t.tolist() == [T]
    text = "Day;Clock;App\n2026-03-02;08:00;Mail\n"
    loaded = read(tmp_path, text, columns="t=Day+Clock,target=App", user="ada", tz="UTC")
    assert loaded.timelines[0].t.tolist() == [T]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("t", "'t' is not NAME=HEADER"),
        ("t=", "'t=' is not NAME=HEADER"),
        ("", "names no column"),
        ("when=t", "'when' is no name of ours"),
        ("t=t,t=user", "t stands there twice"),
        ("t=Nope", "no column 'Nope' for t; found 'user', 't', 'target'"),
    ],
)
def test_bad_columns_are_refused(tmp_path: Path, columns: str, words: str) -> None:
    assert words in refusal(tmp_path, f"user,t,target\nada,{T},Mail\n", columns=columns)


def test_advice_for_unknown_headers_is_a_command_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, f"time,app\n{T},Mail\n")
    message = refusal(tmp_path, f"time,app\n{T},Mail\n")
    advice = message.split("with python -m rlmemo.timelines ")[1]
    assert advice == f"import {path} --columns t=time,target=app --user NAME"
    assert timelines.main(advice.split()) == 0
    assert "1 event of 1 user written" in capsys.readouterr().out


def test_user_names_the_one_user_and_only_where_no_column_does(tmp_path: Path) -> None:
    assert events(read(tmp_path, f"t,target\n{T},Mail\n", user="ada")) == [("ada", "Mail", "app")]
    assert "--user NAME" in refusal(tmp_path, f"t,target\n{T},Mail\n")
    with pytest.raises(HasUsers, match="its column 'user' names the users"):
        read(tmp_path, f"user,t,target\nbo,{T},Mail\n", user="ada")
    with pytest.raises(HasUsers, match="demo is none"):
        load_timelines("demo", weeks=1, user="ada")
    with pytest.raises(InputError, match="--epoch apple: says how to read a CSV"):
        load_timelines("demo", weeks=1, epoch="apple")


def test_show_picks_a_user_or_names_the_one_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = write(tmp_path, f"user,t,target\nada,{T},Mail\nbo,{T},Maps\n", "two.csv")
    timelines.main(["show", two, "--user", "bo", "--plot", "none"])
    assert "bo: opens by weekday" in capsys.readouterr().out
    one = write(tmp_path, f"when,what\n{T},Mail\n", "one.csv")
    timelines.main(
        ["show", one, "--columns", "t=when,target=what", "--user", "cy", "--plot", "none", "--epoch", "unix"]
    )
    assert "cy: opens by weekday" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such user; it has ada, bo"):
        timelines.main(["show", two, "--user", "dan", "--plot", "none"])


def test_import_takes_the_options_and_reports_the_dates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, f"when,what\n{T - 978_307_200},Mail\n")
    given = ["--columns", "t=when,target=what", "--user", "ada", "--epoch", "apple", "--json"]
    timelines.main(["import", path, *given, "--db", str(tmp_path / "x.db")])
    told = json.loads(capsys.readouterr().out)
    assert (told["first_day"], told["last_day"]) == ("2026-03-02", "2026-03-02")
    assert load_timelines(str(tmp_path / "x.db")).timelines[0].t.tolist() == [T]


@pytest.mark.parametrize(
    ("header", "row", "said", "event"),
    [
        (
            "timestamp,duration,app,title",
            "2026-03-02T08:00:00Z,3,Editor,x",
            "window bucket",
            ("me", "Editor", "app"),
        ),
        (
            "timestamp,duration,url,title,audible,incognito,tabCount",
            "2026-03-02T08:00:00Z,3,https://a.example/b,x,False,False,2",
            "web bucket",
            ("me", "a.example", "page"),
        ),
        (
            "id,timestamp,duration,data.app,data.package",
            "1,2026-03-02T08:00:00Z,3,Chat,org.x",
            "window",
            ("me", "Chat", "app"),
        ),
        (
            "panelist_id,wave,timestamp,url",
            f"p1,1,{T},https://a.example/b",
            "webtrackR",
            ("p1", "a.example", "page"),
        ),
        (
            "Date,Time Spent (seconds),Number of People,Activity,Category,Productivity",
            "2026-03-02T08:00:00,9,1,Editor,c,0",
            "RescueTime",
            ("me", "Editor", "app"),
        ),
        (
            "User,Description,Start date,Start time,Duration",
            "ada,Work,2026-03-02,08:00:00,01:00:00",
            "Toggl",
            ("ada", "Work", "app"),
        ),
        (
            "App name,Date,Time,Duration",
            "Chat,2026/03/02,8:00:00 AM,0:00:12",
            "App Usage",
            ("me", "Chat", "app"),
        ),
        (
            "app,usage,start_time,end_time,tz",
            f"com.x,12,{T},{T},3600",
            "ScreenTime2CSV",
            ("me", "com.x", "app"),
        ),
        (
            "Timestamp,URL,Title",
            "2026-03-02 08:00:00+00:00,https://a.example/b,x",
            "browser-history",
            ("me", "a.example", "page"),
        ),
    ],
)
def test_well_known_headers_are_recognised_and_said(
    tmp_path: Path, header: str, row: str, said: str, event: tuple[str, str, str]
) -> None:
    loaded = read(tmp_path, f"{header}\n{row}\n", tz="UTC")
    assert events(loaded) == [event]
    assert loaded.timelines[0].t.tolist() == [T]
    assert any(note.startswith("read as ") and said in note for note in loaded.report.notes)
    if event[0] == "me":
        assert any("--user gives another name" in note for note in loaded.report.notes)
        named = read(tmp_path, f"{header.upper()}\n{row}\n", tz="UTC", user="ada")
        assert [x.user for x in named.timelines] == ["ada"]


def test_an_export_with_a_column_of_people_does_not_become_one_person(tmp_path: Path) -> None:
    text = "participant,timestamp,duration,app,title\n" + "".join(
        f"{who},2026-03-02T08:00:00Z,3,Editor,x\n" for who in ("ada", "bo")
    )
    message = refusal(tmp_path, text)
    assert "no column user" in message
    assert "--columns user=participant" in message
    assert len(read(tmp_path, text, columns="user=participant").timelines) == 2
    assert len(read(tmp_path, text, user="both").timelines) == 1


def test_durations_in_hours_and_minutes_are_read(tmp_path: Path) -> None:
    text = "App name,Date,Time,Duration\nChat,2026/03/02,12:30:00 AM,1:02:03\n"
    assert read(tmp_path, text, tz="UTC").timelines[0].duration.tolist() == [3723.0]


def test_a_plain_recording_is_never_taken_for_an_export(tmp_path: Path) -> None:
    text = f"user,t,target,timestamp,duration,app\nada,{T},Mail,1,2,Editor\n"
    loaded = read(tmp_path, text)
    assert events(loaded) == [("ada", "Mail", "app")]
    assert not any("read as" in note for note in loaded.report.notes)


def test_an_afk_bucket_holds_no_openings(tmp_path: Path) -> None:
    text = "timestamp,duration,status\n2026-03-02T08:00:00Z,3,afk\n"
    assert "holds no openings" in refusal(tmp_path, text)


def test_kinds_in_others_words_and_whole_waves(tmp_path: Path) -> None:
    text = "user,t,target,kind,wave\n" + "".join(
        f"ada,{T + 60 * i},a{i}.example,{kind},{wave}\n"
        for i, (kind, wave) in enumerate(
            [("web", "1.0"), ("Website", "2"), ("URL", "2.00"), ("App", ""), ("NA", "NA")]
        )
    )
    loaded = read(tmp_path, text)
    assert [e.kind for e in loaded.timelines[0]] == ["page", "page", "page", "app", "app"]
    assert loaded.timelines[0].wave.tolist() == [1, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("column", "value", "advice"),
    [
        ("kind", "song", "accepted are app, page, file"),
        ("wave", "1.5", "accepted are whole numbers from 0 to 9999"),
    ],
)
def test_an_error_about_one_column_gives_advice_about_that_column(
    tmp_path: Path, column: str, value: str, advice: str
) -> None:
    message = refusal(tmp_path, f"user,t,target,{column}\nada,{T},Mail,{value}\n")
    assert advice in message
    assert "ISO 8601" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": [1]}', "is JSON without records of openings, and a table is wanted"),
        ("[1, 2", "is JSON that breaks off or is damaged at line 1; export it anew"),
        ('{"t": 1}\n\n{"t": 2', "is JSON that breaks off or is damaged at line 3; export it anew"),
        ('[\n{"t": 1},\n{"t" 2}]', "is JSON that breaks off or is damaged at line 3; export it anew"),
        ("{" * 100_000, "is JSON that breaks off or is damaged at line 1"),
        ("[" * 100_000 + "]" * 100_000, "is JSON without records of openings"),
        ('\n [\n{"url": "x"}]', "which is JSON: no column user and no column t and no column target"),
        ('{"buckets": {"x": {"type": "afkstatus", "events": [1]}}}', "is JSON (an export of ActivityWatch)"),
        ('{"buckets": {"x": {"type": "currentwindow", "events": [1, {"data": 2}]}}}', "2 of 2 rows"),
        ('[{"type": "session_start"}]', "is JSON (a log of MEMO)"),
        ("<!DOCTYPE html><html></html>", "is XML or HTML"),
        ('  time="2026-03-02" type=ACTIVITY_PAUSED package=org.x\n', "usagestats without an opening"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_file_without_a_header_shows_nothing_that_an_address_asks_for(tmp_path: Path) -> None:
    assert "SECRET" not in refusal(tmp_path, f"ada,{T},https://a.example/?q=SECRET\n")


@pytest.mark.parametrize("layout", ["list", "lines", "wrapped"])
def test_json_records_are_read_by_the_same_columns(tmp_path: Path, layout: str) -> None:
    ticks = 639_080_352_000_000_001  # more digits than a float holds
    records = [
        {"who": {"id": "ada"}, "at": ticks + 600_000_000 * i, "app": f"X{i}", "tags": [1]} for i in (0, 1)
    ]
    text = {
        "list": json.dumps(records, indent=1),
        "lines": "\n".join(map(json.dumps, records)),
        "wrapped": json.dumps({"version": 1, "rows": records}),
    }[layout]
    loaded = read(tmp_path, text, columns="user=who.id,t=at,target=app", epoch="dotnet")
    assert events(loaded) == [("ada", "X0", "app"), ("ada", "X1", "app")]
    assert loaded.timelines[0].t.tolist() == [T + 1e-7, T + 60 + 1e-7]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_excels_line_that_names_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    for first in ("", f"sep={delimiter}\r\n"):
        text = first + f"user,t,target\r\nada,{T},Mail\r\nada,soon,Mail\r\n".replace(",", delimiter)
        loaded = read(tmp_path, text)
        assert events(loaded) == [("ada", "Mail", "app")]
        assert next(iter(loaded.report.first.values())).startswith(f"line {4 if first else 3}")
    assert "has a header and no rows" in refusal(
        tmp_path, f"sep={delimiter}\nuser{delimiter}t{delimiter}target\n"
    )


# -- missing is missing ----------------------------------------------------------------------------------

MARKERS = ["", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "None", "NULL", "null"]


@pytest.mark.parametrize("marker", MARKERS)
def test_a_missing_marker_means_not_given_in_every_column(tmp_path: Path, marker: str) -> None:
    header = "user,t,target,kind,duration,device,wave,private\n"
    good = f"ada,{T},https://a.example/,{marker},{marker},{marker},{marker},{marker}\n"
    event = read(tmp_path, header + good).timelines[0].event(0)
    assert (event.target, event.kind, event.duration, event.device) == ("a.example", "page", None, None)
    rows = f"{marker},{T},Mail,,,,,\nada,{T},{marker},,,,,\nada,{marker},Mail,,,,,\n"
    report = read(tmp_path, header + good + rows).report
    assert dict(report.dropped) == {"user is missing": 1, "target is missing": 1, "t is missing": 1}
    assert not report.changed.keys() - {"address reduced to its host"}


def test_names_that_only_look_like_markers_are_names(tmp_path: Path) -> None:
    names = ["Na", "Nan", "-", "?", "none of these", "Null Pointer"]
    text = "user,t,target\n" + "".join(f"Nan,{T + i},{x}\n" for i, x in enumerate(names))
    loaded = read(tmp_path, text)
    assert loaded.timelines[0].user == "Nan"
    assert loaded.timelines[0].names == tuple(names)


@pytest.mark.parametrize(
    ("said", "kept"),
    [("0.0", True), ("0", True), ("0.00", True), ("NA", True), ("NaN", True), ("1.0", False), ("2", False)],
)
def test_private_as_a_number(tmp_path: Path, said: str, kept: bool) -> None:
    text = f"user,t,target,private\nada,{T},Mail,0\nada,{T + 1},Notes,{said}\n"
    assert read(tmp_path, text).timelines[0].names == (("Mail", "Notes") if kept else ("Mail",))


def test_columns_of_unknown_meaning_are_no_export_of_one_person(tmp_path: Path) -> None:
    text = f"ID,Timestamp,URL,App\nada,{T},https://a.example/,Mail\nbo,{T},https://b.example/,Chat\n"
    assert "--columns t=Timestamp,target=URL --user NAME" in refusal(tmp_path, text)
    known = f"Timestamp,URL,Title\n{T},https://a.example/,x\n"
    assert events(read(tmp_path, known)) == [("me", "a.example", "page")]


def test_a_date_and_a_time_are_named_together(tmp_path: Path) -> None:
    assert "--columns t=Date+Time,target=App --user NAME" in refusal(tmp_path, "Date,Time,App\nx,y,z\n")


def test_a_header_may_end_in_a_quotation_mark(tmp_path: Path) -> None:
    text = f'When,"The ""name"""\n{T},Mail\n'
    loaded = read(tmp_path, text, columns='t="When",target=The "name"', user="ada")
    assert events(loaded) == [("ada", "Mail", "app")]


# -- Android's dumpsys usagestats ------------------------------------------------------------------------

RESUMED = '    time="2026-03-02 08:0{}:00" type=ACTIVITY_RESUMED package={} class=org.x.Main flags=0x0\n'


def test_sections_of_dumpsys_tell_of_the_same_openings(tmp_path: Path) -> None:
    text = "user=0\n  Last 24 hour events (timeRange=x)\n"
    text += "".join(RESUMED.format(0, x) for x in ("chat", "maps", "chat"))
    text += "  In-memory daily stats\n    package=chat totalTimeUsed=1\n    events\n"
    text += RESUMED.format(0, "chat") + RESUMED.format(5, "mail").replace(
        "ACTIVITY_RESUMED", "MOVE_TO_FOREGROUND"
    )
    loaded = read(tmp_path, text, tz="UTC", user="ada")
    assert events(loaded) == [("ada", x, "app") for x in ("chat", "maps", "chat", "mail")]
    assert loaded.timelines[0].t.tolist() == [T, T, T, T + 300]
    assert "which is dumpsys usagestats: no column 'x' for t" in refusal(tmp_path, text, columns="t=x")


def test_users_of_one_android_are_kept_apart(tmp_path: Path) -> None:
    text = "".join(f"user={x}\n{RESUMED.format(0, 'chat')}" for x in (0, 10))
    assert [x.user for x in read(tmp_path, text, tz="UTC").timelines] == ["0", "10"]


# -- repeats ---------------------------------------------------------------------------------------------


def test_only_a_row_that_repeats_the_one_before_it_is_a_duplicate(tmp_path: Path) -> None:
    rows = ["a A", "b X", "a B", "a A", "a A", "b X", "a C", "a A"]
    text = "user,t,target\n" + "".join(f"{x[0]},{T},{x[2]}\n" for x in rows)
    loaded = read(tmp_path, text)
    assert [e.target for e in loaded.timelines[0]] == ["A", "B", "A", "C", "A"]
    assert [e.target for e in loaded.timelines[1]] == ["X"]
    assert dict(loaded.report.dropped) == {"exact duplicate of the row before it": 2}


def test_newest_first_is_turned_round_within_one_second_too(tmp_path: Path) -> None:
    times = [("e", 60), ("d", 0), ("c", 0), ("b", 0), ("a", -60)]
    text = "user,t,target\n" + "".join(f"bo,{T + dt},{x}\nada,{T - dt},{x}\n" for x, dt in times)
    ada, bo = read(tmp_path, text).timelines
    assert [e.target for e in ada] == ["e", "d", "c", "b", "a"]
    assert [e.target for e in bo] == ["a", "b", "c", "d", "e"]


# -- quoted text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_newline_inside_quotes_is_part_of_the_field(tmp_path: Path, end: str) -> None:
    rows = ["user,t,target,title", f'ada,{T},Mail,"Inbox', "", 'today, 5"', f'ada,{T + 1},"No', 'tes",x']
    loaded = read(tmp_path, end.join([*rows, f"ada,soon,Maps,y{end}"]))
    assert events(loaded) == [("ada", "Mail", "app"), ("ada", "No tes", "app")]
    assert loaded.report.first["t is neither unix seconds nor ISO 8601"] == "line 7: 'soon'"


def test_a_newline_in_the_header(tmp_path: Path) -> None:
    text = f'user,"t","target","no\ntes, and more"\nada,{T},Mail,x\nada,soon,Mail,x\n'
    loaded = read(tmp_path, text)
    assert events(loaded) == [("ada", "Mail", "app")]
    assert loaded.report.first["t is neither unix seconds nor ISO 8601"] == "line 4: 'soon'"


def test_fields_of_hundreds_of_thousands_of_characters_are_read(tmp_path: Path) -> None:
    for size in (200_000, 1_500_000):
        address = "https://a.example/?x=" + "y" * size
        loaded = read(tmp_path, f"user,t,target\nada,{T},{address}\nada,{T + 1},Mail\n")
        assert loaded.timelines[0].names == ("a.example", "Mail")


@pytest.mark.parametrize(
    "rows",
    [
        'ada,{0},"Mail SECRET\nada,{1},Maps\nada,{2},Notes\n',  # to the end of the file
        'ada,{0},"Mail SECRET\nada,{1},Maps\nada,{2},"Notes"\n',  # to the next one
        'ada,{0},"Mail SECRET\nada,{1},Maps\nada,{2},Notes"\n',  # to a stray one that ends a row
        'ada,{0},"Mail SECRET\nada,{1},Maps"\n',
        'ada,{0},"Mail SECRET\n',
        'ada,{0},"Mail SECRET',
    ],
)
def test_an_unclosed_quotation_mark_is_refused_where_it_opened(tmp_path: Path, rows: str) -> None:
    text = f"user,t,target\nada,{T},Mail\n" + rows.format(T + 1, T + 2, T + 3)
    message = refusal(tmp_path, text)
    assert "line 3: a quotation mark opened here is never closed" in message
    assert "SECRET" not in message


def test_a_space_after_the_delimiter_is_skipped(tmp_path: Path) -> None:
    loaded = read(tmp_path, f'user, t, target\nada, {T}, "Mail, work"\nada, {T + 1}, "Notes"\n')
    assert loaded.timelines[0].names == ("Mail, work", "Notes")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"Caf\xe9", "iconv -f LATIN1"),
        (b"Ada\x92s", "iconv -f CP1252"),
        (b"\x80 5", "iconv -f CP1252"),
        (b"\x93x\x94", "iconv -f CP1252"),
        (b"\x8d\x81", "save it as UTF-8"),  # in neither
    ],
)
def test_the_advice_names_the_encoding(tmp_path: Path, raw: bytes, said: str) -> None:
    head = b"user,t,target\nada,1772438400,"
    assert said in refusal(tmp_path, head + raw + b"\n")
    # the byte that tells may come later than the first that is not UTF-8
    assert said in refusal(tmp_path, head + b"Caf\xe9\nada,1772438401," + raw + b"\n")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("ada,1741000000,Mail\nada,1741000100,Maps\n", {}),
        ("2026-03-02T08:00:00Z;Mail\n2026-03-02T09:00:00Z;Maps\n", {}),
        ("1741000000123,Mail,2\n", {"columns": "t=time,target=app"}),
        ("Mail,02.11.2026 08:07\n", {"columns": "t=time,target=app"}),
    ],
)
def test_a_file_without_a_header_is_told_so_and_nothing_else(
    tmp_path: Path, text: str, options: dict[str, str]
) -> None:
    message = refusal(tmp_path, text, **options)
    assert "line 1: looks like a row, and there is no header; put a line above it" in message
    assert "user,t,target" in message
    assert "--columns" not in message
    assert ("write 2026-03-02 08:00:00" in message) == ("02.11." in text)


def test_columns_and_dates_that_are_both_wrong_are_one_error(tmp_path: Path) -> None:
    message = refusal(tmp_path, "Zeitpunkt;Programm;Dauer\n02.11.2026 08:07;mail;12\n")
    assert "no column user and no column t and no column target" in message
    assert "--columns t=HEADER,target=HEADER --user NAME; " in message
    assert "'02.11.2026 08:07' is no time that can be told for sure: write 2026-03-02 08:00:00" in message
    assert "told for sure" not in refusal(tmp_path, "Zeitpunkt;Programm\n2026-11-02 08:07;mail\n")

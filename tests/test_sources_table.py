"""CSV and TSV: what is read, what is counted, what is refused, and in which words (docs/timelines.md)."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.errors import InputError
from env.sources import Loaded, lines, load_timelines, table

T = 1_741_000_000  # 2025-03-03


def write(folder: Path, text: str | bytes, name: str = "usage.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def read(folder: Path, text: str | bytes, name: str = "usage.csv", **options: object) -> Loaded:
    return load_timelines(write(folder, text, name), **options)  # type: ignore[arg-type]


def refusal(folder: Path, text: str | bytes, name: str = "usage.csv", **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text, name, **options)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    return message


def attempt(folder: Path, raw: bytes) -> tuple[Loaded | None, str]:
    """What was loaded, or the words in which it was refused; anything else that is raised is a bug."""
    try:
        return read(folder, raw), ""
    except InputError as error:
        return None, str(error)


def rows(*more: str, header: str = "user,t,target", good: int = 6) -> str:
    """A file with `good` good rows (lines 2 to good + 1), then `more`."""
    return "\n".join([header, *(f"ada,{T + i},App{i % 2}" for i in range(good)), *more]) + "\n"


def balanced(loaded: Loaded) -> bool:
    r = loaded.report
    return r.rows_read == r.kept + r.collapsed + r.offs + r.wakes + sum(r.dropped.values())


def test_a_plain_file(tmp_path: Path) -> None:
    loaded = read(
        tmp_path, f"user,t,target\nbo,{T + 5},Mail\nada,{T},Mail\nada,{T + 1.5},Maps\nada,{T + 2},Maps\n"
    )
    assert [x.user for x in loaded.timelines] == ["ada", "bo"]
    ada = loaded.timelines[0]
    assert ada.names == ("Mail", "Maps")
    assert ada.t.tolist() == [T, T + 1.5]
    assert (ada.tz, ada.tz_known) == ("UTC", False)
    report = loaded.report
    assert (report.rows_read, report.kept, report.collapsed, report.users) == (4, 3, 1, 2)
    assert loaded.name == "usage.csv"
    assert not loaded.synthetic


def test_all_columns_in_any_order_and_case(tmp_path: Path) -> None:
    header = "Device,TARGET,Duration,kind,T,User,wave"
    text = f"{header}\nphone,Mail,2.5,app,{T},ada,2\n,report.pdf,,FILE,{T + 1},ada,\n"
    first, second = read(tmp_path, text).timelines[0]
    assert (first.device, first.duration, first.kind) == ("phone", 2.5, "app")
    assert (second.device, second.duration, second.kind) == (None, None, "file")
    assert read(tmp_path, text).timelines[0].wave.tolist() == [2, 0]


def test_label_is_taken_for_target_and_target_wins(tmp_path: Path) -> None:
    assert read(tmp_path, f"user,t,label\nada,{T},Mail\n").timelines[0].names == ("Mail",)
    for header in ("user,t,label,target", "user,t,target,label"):
        cells = "old,new" if header.endswith("target") else "new,old"
        assert read(tmp_path, f"{header}\nada,{T},{cells}\n").timelines[0].names == ("new",)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_line_ends_gzip_and_byte_order_mark(
    tmp_path: Path, delimiter: str, packed: bool, end: str
) -> None:
    text = rows().replace(",", delimiter).replace("\n", end)
    raw = b"\xef\xbb\xbf" + text.encode()
    loaded = read(tmp_path, gzip.compress(raw) if packed else raw, "usage.tsv.gz" if packed else "usage.tsv")
    assert loaded.report.kept == 6


def test_iso_times_with_offsets(tmp_path: Path) -> None:
    times = ("2025-03-03T12:00:00+01:00", "2025-03-03T11:00:01Z", "2025-03-03 11:00:02.5+00:00")
    text = "user,t,target\n" + "".join(f"a,{t},x{i}\n" for i, t in enumerate(times))
    t = read(tmp_path, text).timelines[0].t
    assert t.tolist() == [1741000000 - 400.0, 1741000000 - 399.0, 1741000000 - 397.5]


def test_a_local_time_needs_a_zone_and_is_read_in_it(tmp_path: Path) -> None:
    text = "user,t,target\na,2025-07-01T12:00:00,x\na,2025-01-01T12:00:00,y\n"
    message = refusal(tmp_path, text)
    assert "line 2" in message
    assert "'2025-07-01T12:00:00'" in message
    assert "--tz" in message
    x = read(tmp_path, text, tz="Europe/Berlin").timelines[0]
    assert (x.tz, x.tz_known) == ("Europe/Berlin", True)
    assert (x.local() % 86400).tolist() == [43200.0, 43200.0]
    assert np.diff(x.t)[0] == 181 * 86400 - 3600


def test_local_times_at_the_change_of_clocks_are_counted(tmp_path: Path) -> None:
    text = "user,t,target\n" + "".join(f"a,2025-10-26T0{h}:30:00,x{h}\n" for h in (1, 2, 3))
    changed = read(tmp_path, text, tz="Europe/Berlin").report.changed
    assert [n for reason, n in changed.items() if "clock change" in reason] == [1]


def test_an_unknown_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'Berlin' is unknown.*Europe/Berlin"):  # noqa: RUF043
        read(tmp_path, rows(), tz="Berlin")


@pytest.mark.parametrize(
    ("t", "unit", "factor"),
    [
        ("1741000000123", "milliseconds", "1,000"),
        ("1741000000123456", "microseconds", "1,000,000"),
        ("1.741e18", "nanoseconds", "1,000,000,000"),
    ],
)
def test_other_units_than_seconds_are_refused(tmp_path: Path, t: str, unit: str, factor: str) -> None:
    message = refusal(tmp_path, f"user,t,target\na,{t},x\n")
    assert f"looks like {unit}; divide the column by {factor} " in message
    assert "line 2" in message


@pytest.mark.parametrize(
    ("row", "reason", "where"),
    [
        ("ada,,Mail", "t is missing", "line 8: ''"),
        ("ada,soon,Mail", "t is neither unix seconds nor ISO 8601", "line 8: 'soon'"),
        ("ada,1_741_000_000,Mail", "t is neither unix seconds nor ISO 8601", "line 8: '1_741_000_000'"),
        ("ada,٣٣٣٣٣٣٣٣٣٣,Mail", "t is neither unix seconds nor ISO 8601", "line 8: '٣٣٣٣٣٣٣٣٣٣'"),
        ("ada,nan,Mail", "t is missing", "line 8: 'nan'"),
        ("ada,inf,Mail", "t is neither unix seconds nor ISO 8601", "line 8: 'inf'"),
        ("ada,1e999,Mail", "t is not a finite number", "line 8: '1e999'"),
        ("ada,2025-03-03,Mail", "t is a date without a time of day", "line 8: '2025-03-03'"),
        ("ada,0,Mail", "t is before 1990", "line 8: '0'"),
        ("ada,1970-01-01T00:00:00Z,Mail", "t is before 1990", "line 8: '1970-01-01T00:00:00Z'"),
        ("ada,0001-01-01T00:00:00+14:00,Mail", "t is before 1990", "line 8: '0001-01-01T00:00:00+14:00'"),
        ("ada,9999999999,Mail", "t is more than a day in the future", "line 8: '9999999999'"),
        (f",{T},Mail", "user is missing", "line 8"),
        (f"\x1b\x07,{T},Mail", "user is missing", "line 8"),
        (f"ada,{T},", "target is missing", "line 8: ''"),
        (f"ada,{T},  ", "target is missing", "line 8: ''"),
        (f"ada,{T},https:///?nowhere", "target has no host", "line 8: 'https:…'"),
        (f"ada,{T}", "not 3 columns", "line 8 has 2"),
        (f"ada,{T},Mail,phone", "not 3 columns", "line 8 has 4"),
        (f"ada,{T},Ma\0il", "NUL byte", "line 8"),
    ],
)
def test_a_spoiled_row_is_dropped_and_counted_with_its_line(
    tmp_path: Path, row: str, reason: str, where: str
) -> None:
    loaded = read(tmp_path, rows(row))
    assert dict(loaded.report.dropped) == {reason: 1}
    assert loaded.report.first[reason] == where
    assert loaded.report.kept == 6
    assert balanced(loaded)
    assert any(reason in line and where in line for line in loaded.report.lines())


def test_an_unknown_kind_is_dropped_and_counted(tmp_path: Path) -> None:
    text = f"user,t,target,kind\nada,{T},Mail,app\nada,{T + 1},Song,music\nada,{T + 2},Maps,\n"
    loaded = read(tmp_path, text)
    assert dict(loaded.report.dropped) == {"kind is none of app, page, file": 1}
    assert loaded.report.first["kind is none of app, page, file"] == "line 3: 'music'"
    assert [e.kind for e in loaded.timelines[0]] == ["app", "app"]


def test_an_unreadable_duration_is_left_unknown_and_counted(tmp_path: Path) -> None:
    text = "user,t,target,duration\n" + "".join(
        f"ada,{T + i},App{i},{d}\n" for i, d in enumerate(["3", "", "nan", "-1", "long", "1e12"])
    )
    loaded = read(tmp_path, text)
    assert [e.duration for e in loaded.timelines[0]] == [3.0] + [None] * 5
    assert loaded.report.changed["duration is no number of seconds (left unknown)"] == 3  # nan: not given


@pytest.mark.parametrize("header", ["private", "Incognito", "inPrivate"])
def test_nothing_of_a_private_window_is_kept(tmp_path: Path, header: str) -> None:
    said = ("1", "true", "YES", "private", "?", "0", "false", "No", "")
    rows = "".join(f"ada,{T + 60 * k},secret-{k}.example,{x}\n" for k, x in enumerate(said))
    loaded = read(tmp_path, f"user,t,target,{header}\n{rows}")
    assert loaded.timelines[0].names == tuple(f"secret-{k}.example" for k in (5, 6, 7, 8))
    assert dict(loaded.report.dropped) == {"opened in a private window": 5}
    assert balanced(loaded)
    shown = str(loaded.report.lines()) + str(loaded.report.notes) + str(loaded.report.first)
    assert not any(f"secret-{k}" in shown for k in range(5))
    # It is no fault of the file that most of it was private.
    mostly = "".join(f"ada,{T + 60 * k},x-{k},{int(k < 9)}\n" for k in range(10))
    assert len(read(tmp_path, f"user,t,target,{header}\n{mostly}").timelines[0]) == 1


def test_why_nothing_was_opened_is_said(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"user,t,target,private\nada,{T},a,1\nada,{T},b,1\n")
    assert "none of its 2 rows opens anything (2: opened in a private window)" in message


def test_the_future_is_more_than_a_day_from_now(tmp_path: Path) -> None:
    path = Path(write(tmp_path, f"user,t,target\na,{T},x\na,{T + 86399},y\na,{T + 86401},z\n"))
    loaded = table.load(lines.look(path), now=float(T))
    assert loaded.timelines[0].names == ("x", "y")


def test_rows_out_of_order_are_sorted_and_exact_duplicates_dropped(tmp_path: Path) -> None:
    text = f"user,t,target\na,{T + 9},z\na,{T},x\nb,{T},x\na,{T},x\na,{T + 5},y\na,{T},y\n"
    loaded = read(tmp_path, text, collapsed=False)
    a = loaded.timelines[0]
    assert [(e.t - T, e.target) for e in a] == [(0, "x"), (0, "y"), (5, "y"), (9, "z")]
    assert dict(loaded.report.dropped) == {"exact duplicate of the row before it": 1}
    assert loaded.report.changed["out of time order (sorted)"] == 2
    assert balanced(loaded)


@pytest.mark.parametrize(
    ("target", "kind", "name", "found"),
    [
        ("https://User:Secret@Mail.Example:8443/inbox?token=1#top", "", "mail.example:8443", "page"),
        ("http://a.example?q=secret", "app", "a.example", "page"),
        ("a.example/path?q=secret", "page", "a.example", "page"),
        ("www.a.example/me?q=secret", "", "www.a.example", "page"),
        ("bank.example/account#secret", "app", "bank.example", "page"),
        ("file:///home/secret/diary.txt", "page", "(local file)", "file"),
        ("data:text/html;secret", "page", "data:", "page"),
        ("about:blank?secret", "page", "about:blank", "page"),
        ("localhost:8888/lab?token=secret", "page", "localhost:8888", "page"),
        ("com.example.app/.Main", "app", "com.example.app/.Main", "app"),
        ("C:\\Programs\\Editor.exe", "app", "C:\\Programs\\Editor.exe", "app"),
        ("What? (game)", "app", "What? (game)", "app"),
    ],
)
def test_addresses_are_reduced_to_their_host(
    tmp_path: Path, target: str, kind: str, name: str, found: str
) -> None:
    loaded = read(tmp_path, f"user,t,target,kind\nada,{T},{target},{kind}\n")
    event = loaded.timelines[0].event(0)
    assert (event.target, event.kind) == (name, found)
    assert "ecret" not in repr(loaded)


def test_host_and_path_by_setting(tmp_path: Path) -> None:
    loaded = read(tmp_path, f"user,t,target\nada,{T},https://a.example/b/c/?q=1#d\n", page="path")
    assert loaded.timelines[0].names == ("a.example/b/c",)
    with pytest.raises(InputError, match="none of host, path"):
        read(tmp_path, rows(), page="url")


def test_names_are_printable_and_short(tmp_path: Path) -> None:
    long = "x" * 300
    text = rows(
        f"ada,{T + 100},\x1b[31mRed\x1b[0m",
        f"ada,{T + 101},evil\u202egnp",
        f"ada,{T + 102},{long}1",
        f"ada,{T + 103},{long}2",
    )
    names = read(tmp_path, text).timelines[0].names
    assert names[2:4] == ("[31mRed[0m", "evilgnp")
    assert all(len(n) <= 120 for n in names)
    assert len(set(names[4:])) == 2


def test_more_spoiled_rows_than_good_ones_are_refused(tmp_path: Path) -> None:
    bad = [f"ada,x{i},Mail" for i in range(7)]
    message = refusal(tmp_path, rows(*bad))
    assert "7 of 13 rows cannot be used" in message
    assert "line 8: 'x0'" in message
    assert read(tmp_path, rows(*bad[:6])).report.kept == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n  \n", "nothing but blank lines"),
        ("user,t,target\n", "has a header and no rows"),
        ("user,t,target", "has a header and no rows"),
        ("user,time,app\na,1,b\n", "no column t and no column target; found 'user', 'time', 'app'"),
        (f"{T},Mail\n", "line 1: looks like a row, and there is no header; put a line above it"),
        ("user,t,t,target\na,1,2,b\n", "column 't' stands there twice"),
        (rows('ada,1,"Mail', "ada,2,Maps", 'x"'), "line 8: a quotation mark opened here"),
        (rows('ada,1,"Mail' + "y" * 200_000), "line 8: a quotation mark opened here is never closed"),
        (rows().encode("utf-16"), "is UTF-16, and UTF-8 is wanted"),
        (rows().encode("utf-16-le"), "convert it with iconv -f UTF-16LE -t UTF-8"),
        (rows().encode("utf-16-be"), "convert it with iconv -f UTF-16BE -t UTF-8"),
        (rows().encode("utf-32"), "convert it with iconv -f UTF-32 -t UTF-8"),
        (rows("ada,1741000100,Café").encode("latin-1"), "line 8: byte 0xe9 is not UTF-8"),
        (rows("ada,1741000100,Почта").encode("cp1251"), "made it, or iconv -f ENCODING -t UTF-8"),
        (rows("ada,1741000100,微信读书").encode("gbk"), "made it, or iconv -f ENCODING -t UTF-8"),
        (rows("ada,1741000100,Größe “ä” é").encode("cp1252"), "is CP1252 (Windows), convert it with iconv"),
        (b"PK\x03\x04rest", "zip archive or an Excel workbook"),
        (b"PAR1rest", "Parquet"),
        (b"\x89PNG\r\n\x1a\n", "is a picture"),
        (b"\x00" * 100, "is no text, but NUL bytes"),
        (b"\xd0\xcf\x11\xe0" + b"\x00" * 100, "an old Excel workbook"),
        (b"bplist00", "an Apple property list"),
        (gzip.compress(gzip.compress(b"user")), "is compressed twice"),
        (gzip.compress(b"SQLite format 3\x00" + b"\x00" * 84), "is a compressed database"),
        (gzip.compress(rows().encode())[:-9], "truncated or damaged"),
        (gzip.compress(rows().encode() * 20000)[:3000], "truncated or damaged"),
        (b"\x1f\x8bnonsense", "truncated or damaged"),
        (gzip.compress(b""), "is empty once unpacked"),
        (gzip.compress(b"PK\x03\x04"), "zip archive"),
    ],
    # gzip writes the time of day: as part of a test's name it would differ between pytest's workers
    ids=lambda value: None if isinstance(value, str) else "bytes",
)
def test_files_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    assert words in refusal(tmp_path, text)


def test_a_damaged_gzip_names_what_to_do(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(rows(*(f"ada,{T + i},A{i}" for i in range(2000))).encode()))
    packed[len(packed) // 2] ^= 0xFF
    assert "gzip -t usage.csv.gz" in refusal(tmp_path, bytes(packed), "usage.csv.gz")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, rows(), "mine.csv")
    with pytest.raises(InputError, match=r"is a directory; name a file in it, such as mine\.csv"):
        load_timelines(str(tmp_path))
    with pytest.raises(InputError, match=r"no file or timelines of that name; did you mean webtrackr\?"):
        load_timelines("webtrack")
    with pytest.raises(InputError, match=r"no file or timelines of that name.*a Parquet file or folder"):
        load_timelines("bad\0name")
    with pytest.raises(InputError, match="no file or timelines of that name"):
        load_timelines("")
    with pytest.raises(InputError, match="no regular file"):
        load_timelines("/dev/null")


def test_an_r_data_file_is_told_from_a_table(tmp_path: Path) -> None:
    assert "is an R data file" in refusal(tmp_path, b"BZh91AY&SY", "visits.rda")


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    with pytest.raises(InputError, match="no option 'weeks'"):
        load_timelines(path, weeks=3)
    with pytest.raises(InputError, match="is none"):
        load_timelines(path, source="demo")
    with pytest.raises(InputError, match="has no option 'months'"):
        load_timelines("demo", months=3)


def test_too_many_devices_are_refused(tmp_path: Path) -> None:
    text = "user,t,target,device\n" + "".join(f"a,{T + i},x,{i}\n" for i in range(1001))
    with pytest.raises(InputError, match="more than 1000 different devices"):
        read(tmp_path, text)


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    notes = read(tmp_path, f"user,t,target,mood\nada,{T},Mail,good\n").report.notes
    assert any("columns not read: mood" in n for n in notes)


_cells = st.one_of(
    st.sampled_from(
        ["ada", "Mail", str(T), "2025-03-03T10:00:00Z", "", '"', "nan", "https://a.example/?q", "\0"]
    ),
    st.text(max_size=8),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_cells, min_size=1, max_size=5), max_size=8))
def test_any_rows_give_a_balanced_report_or_a_refusal(tmp_path: Path, cells: list[list[str]]) -> None:
    good = [f"ada,{T + i},App" for i in range(8)]
    text = "\n".join(["user,t,target", *good, *(",".join(row) for row in cells)])
    loaded, refused = attempt(tmp_path, text.encode("utf-8", "surrogatepass"))
    if loaded is None:
        assert re.search(r"line \d+|rows cannot be used", refused)
    else:
        assert balanced(loaded)
        assert loaded.report.kept + loaded.report.collapsed >= 8 - loaded.report.dropped.total()
        for x in loaded.timelines:
            assert (np.diff(x.t) >= 0).all()
            assert all(n and n.replace("\u200d", "").replace("\u200c", "").isprintable() for n in x.names)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path: Path, raw: bytes, packed: bool) -> None:
    loaded, refused = attempt(tmp_path, gzip.compress(raw) if packed else raw)
    assert loaded is not None or "usage.csv" in refused

"""lsapp and usagelogger: only what a person opened is an event; the rest is counted."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from env.errors import InputError
from env.sources import load_timelines

FIXTURES = Path(__file__).parent / "fixtures"
LSAPP = FIXTURES / "lsapp_small.tsv"
USAGE = FIXTURES / "usagelogger_small.csv"


def test_lsapp_opens() -> None:
    loaded = load_timelines(str(LSAPP))
    assert loaded.name == "lsapp"
    assert [x.user for x in loaded.timelines] == ["0", "10", "2"]
    first = loaded.timelines[0]
    assert [e.target for e in first] == ["Mail", "Maps & Navigation", "Mail"]
    assert first.t[0] == 1_516_082_465.0  # 2018-01-16 06:01:05 UTC
    assert loaded.timelines[2].names == ('Quoted "App"', "Mail")
    report = loaded.report
    assert (report.rows_read, report.kept, report.collapsed) == (11, 6, 1)
    assert dict(report.dropped) == {
        "event type Closed, not Opened": 1,
        "event type User Interaction, not Opened": 1,
        "event type Broken, not Opened": 1,
        "t is neither unix seconds nor ISO 8601": 1,
    }
    assert report.first["t is neither unix seconds nor ISO 8601"] == "line 11: 'yesterday'"


def test_lsapps_zone_is_said_and_can_be_set() -> None:
    default, eastern = load_timelines(str(LSAPP)), load_timelines(str(LSAPP), tz="America/New_York")
    assert not default.timelines[0].tz_known
    assert "not published" in " ".join(default.report.notes)
    assert eastern.timelines[0].tz_known
    assert eastern.timelines[0].t[0] - default.timelines[0].t[0] == 5 * 3600
    assert eastern.timelines[0].local()[0] == default.timelines[0].local()[0]


def test_lsapp_by_name_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLMEMO_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"github\.com/aliannejadi/LSApp"):
        load_timelines("lsapp")
    (tmp_path / "lsapp").mkdir()
    (tmp_path / "lsapp" / "lsapp.tsv.gz").write_bytes(gzip.compress(LSAPP.read_bytes()))
    assert load_timelines("lsapp").report.kept == 6
    (tmp_path / "lsapp" / "lsapp.tsv").write_text("user\tt\ttarget\na\t1\tb\n")
    with pytest.raises(InputError, match="wanted is the header user_id"):
        load_timelines("lsapp")


def test_an_lsapp_file_without_opens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lsapp.tsv"
    path.write_text(LSAPP.read_text().splitlines()[0] + "\n0\t1\t2018-01-16 06:01:09\tMail\tClosed\n")
    with pytest.raises(InputError, match="none of its 1 rows opens anything"):
        load_timelines(str(path))


def test_usagelogger_opens() -> None:
    loaded = load_timelines(str(USAGE))
    (phone,) = loaded.timelines
    assert [(e.t, e.target, e.device) for e in phone] == [
        (1571151207.626, "Chat", "phone"),
        (1571151210.0, "Browser", "phone"),
        (1571151212.0, "Mail", "phone"),
    ]
    assert (loaded.report.rows_read, loaded.report.kept, loaded.report.collapsed) == (8, 3, 1)
    assert sum(loaded.report.dropped.values()) == 4
    assert loaded.report.dropped["event type 2 (moved to the background), not an open"] == 1


def test_a_broken_usagelogger_row_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "past_usage.csv"
    shutil.copy(USAGE, path)
    with path.open("a") as stream:
        stream.write("soon,Mail,1,\n1571151213000,,1,\n1571151213000,Mail,1,extra,more\n")
    dropped = load_timelines(str(path)).report.dropped
    assert dropped["time is no number of milliseconds"] == 1
    assert dropped["app is missing"] == 1
    assert dropped["not 3 columns"] == 1


@pytest.mark.real_data("usagelogger")
def test_the_published_phone() -> None:
    report = load_timelines("usagelogger").report
    assert (report.rows_read, report.kept + report.collapsed) == (3426, 585)
    assert report.kept + report.collapsed + sum(report.dropped.values()) == report.rows_read

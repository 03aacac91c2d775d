"""What is imported is left as it is, whatever its format; what is broken is refused in one line."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from shared_cases import CASES, case

from env.errors import InputError
from env.sources import load_timelines

Cli = Callable[..., CompletedProcess[str]]
FORMATS = (
    "01_aw_buckets.json", "02a_aw_bucket.csv", "02b_aw_android.csv", "03_History", "04_wal/places.sqlite",
    "06_takeout_History.json", "22_webtrackr.csv", "24a_rescuetime.csv", "24b_toggl.csv", "24c_appusage.csv",
    "24d_dumpsys.txt", "24e_screentime2csv.csv", "24f_browser_history.csv", "24g_browserexport.json",
    "46_safari_History.db", "48_memo.json",
)  # fmt: skip
LOCAL = ("24a_rescuetime.csv", "24b_toggl.csv", "24c_appusage.csv", "24d_dumpsys.txt", "48_memo.json")


def looks(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Digest, time of change and mode of all that lies there, and of the folder itself."""
    return {
        x.name: (hashlib.sha256(x.read_bytes()).hexdigest() if x.is_file() else "", s.st_mtime_ns, s.st_mode)
        for x in (folder, *sorted(folder.iterdir()))
        if (s := x.stat())
    }


def theirs(name: str, folder: Path) -> Path:
    """A copy of a case, with what lies beside it, in a folder of its own."""
    path = case(f"timelines/{name}")
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    return folder / path.name


@pytest.mark.parametrize("name", FORMATS)
def test_reading_changes_nothing(name: str, tmp_path: Path) -> None:
    path = theirs(name, tmp_path / "theirs")
    before = looks(path.parent)
    assert sum(map(len, load_timelines(str(path), tz="Europe/Berlin").timelines)) > 0
    assert looks(path.parent) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_read_only_folder_is_enough(name: str, tmp_path: Path) -> None:
    path = theirs(name, tmp_path / "theirs")
    for file in path.parent.iterdir():
        file.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        before = looks(path.parent)
        assert load_timelines(str(path), tz="Europe/Berlin").timelines
        assert looks(path.parent) == before
    finally:
        path.parent.chmod(0o700)


@pytest.mark.parametrize("name", LOCAL)
def test_local_times_are_not_guessed_at_and_moved_by_their_zone(name: str, tmp_path: Path) -> None:
    path = str(case(f"timelines/{name}"))
    with pytest.raises(InputError, match=r"local time without an offset; name its time zone with --tz"):
        load_timelines(path)
    berlin, utc = (
        {e.target: e.t for x in load_timelines(path, tz=tz).timelines for e in x}
        for tz in ("Europe/Berlin", "UTC")
    )
    moved = {target: utc[target] - berlin[target] for target in utc}
    # of MEMO's log the browsers' rows are UTC, whatever the zone is
    assert moved == {x: 0.0 if x == "news.example" else 3600.0 for x in moved}
    assert "news.example" in moved or name != "48_memo.json"


@pytest.mark.parametrize(
    ("name", "was", "now", "words"),
    [
        ("01_aw_buckets.json", "", "half", "breaks off or is damaged at line"),
        ("06_takeout_History.json", "", "half", "breaks off or is damaged at line"),
        ("48_memo.json", "", "half", "breaks off or is damaged at line"),
        ("24g_browserexport.json", "", "half", "breaks off or is damaged at line"),
        ("24d_dumpsys.txt", "2026-03-02 08:00:00", "yesterday", "'yesterday'"),
        ("24a_rescuetime.csv", "2026-03-02T08", "March", "'March:00:00'"),
        ("24c_appusage.csv", "2026/03/02", "soon", "'soon 8:00:00 AM'"),
        ("24e_screentime2csv.csv", "1772438400", "793", "line 2"),
        ("24e_screentime2csv.csv", "start_time", "began", "no column"),
        ("03_History", "", "half", "cannot be read as a database"),
        ("46_safari_History.db", "", "half", "cannot be read as a database"),
    ],
)
def test_what_is_broken_is_refused_in_one_line(
    name: str, was: str, now: str, words: str, tmp_path: Path, cli: Cli
) -> None:
    path = theirs(name, tmp_path / "theirs")
    data = path.read_bytes()
    changed = data[: len(data) // 2] if now == "half" else data.replace(was.encode(), now.encode())
    assert changed != data
    path.write_bytes(changed)
    before = looks(path.parent)
    done = cli("rlmemo.timelines", "import", str(path), "--db", "new.db", "--tz", "Europe/Berlin")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert path.name in done.stderr
    assert words in done.stderr
    assert looks(path.parent) == before
    assert [x.name for x in tmp_path.iterdir()] == ["theirs"]


def test_every_format_of_the_cases_is_here() -> None:
    if not CASES.is_dir():
        pytest.skip("the cases are not here")
    there = {x.name for x in (CASES / "timelines").iterdir()}
    assert {x.split("/")[0] for x in FORMATS} <= there
    assert {x for x in there if x[:2] in ("24", "48", "06", "03", "01")} <= set(FORMATS)

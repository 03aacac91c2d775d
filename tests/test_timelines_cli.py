"""`python -m rlmemo.timelines`: lists, imports and shows, as docs/timelines.md says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.sources import SOURCES, load_timelines
from rlmemo import timelines
from rlmemo.report.timelines import blocks

Cli = Callable[..., subprocess.CompletedProcess[str]]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def test_the_example_of_the_documentation(
    here: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repo_root / "docs" / "timelines.md").read_text()
    example = re.search(r"```csv\n(.*?)```", page, re.DOTALL)
    shown = re.search(r"```\n\$ python -m rlmemo\.timelines (import mine\.csv)\n(.*?)```", page, re.DOTALL)
    assert example
    assert shown
    (here / "mine.csv").write_text(example[1])
    assert timelines.main(shown[1].split()) == 0
    assert capsys.readouterr().out == shown[2]


def test_list_names_every_source_and_what_is_stored(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timelines.main(["list"])
    out = capsys.readouterr().out
    assert all(name in out for name in SOURCES)
    assert "no timelines in rlmemo.db yet" in out
    assert not (here / "rlmemo.db").exists()
    timelines.main(["import", "demo", "--weeks", "1"])
    capsys.readouterr()
    timelines.main(["list"])
    out = capsys.readouterr().out
    assert "ada-developer" in out
    assert "demo (synthetic)" in out


def test_list_and_import_for_machines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timelines.main(["import", "demo", "--weeks", "1", "--db", "my.db", "--name", "trial", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] == told["rows_read"] == told["written"]["events"]
    assert 0 < told["repeats"] < told["kept"]
    timelines.main(["list", "--db", "my.db", "--json"])
    stored = json.loads(capsys.readouterr().out)["stored"]
    assert {row["source"] for row in stored} == {"trial"}
    assert sum(row["events"] for row in stored) == told["kept"]


def test_importing_twice_says_that_it_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timelines.main(["import", "demo", "--weeks", "1"])
    capsys.readouterr()
    timelines.main(["import", "demo", "--weeks", "1"])
    assert "in place of" in capsys.readouterr().out


def test_show_draws_the_week_and_writes_a_plot(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timelines.main(["show", "demo", "--weeks", "2"])
    out = capsys.readouterr().out
    assert all(day in out for day in ("Mon", "Sun"))
    assert "█" in out
    assert "synthetic" in out
    assert "plot written to runs/timelines-demo.png" in out
    assert (here / "runs" / "timelines-demo.png").read_bytes().startswith(PNG)
    assert [p.name for p in (here / "runs").iterdir()] == ["timelines-demo.png"]


def test_show_one_user_of_a_database_as_svg(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timelines.main(["import", "demo", "--weeks", "1"])
    timelines.main(
        ["show", "rlmemo.db", "--user", "bo-student", "--top", "3", "--plot", "bo.svg", "--no-collapse"]
    )
    out = capsys.readouterr().out
    assert "bo-student (synthetic): opens by weekday and hour (America/New_York)" in out
    assert "other targets" in out
    text = (here / "bo.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert not (here / "runs").exists()


def test_the_numbers_shown_are_the_timelines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timelines.main(["show", "demo", "--weeks", "1", "--plot", "none"])
    out = capsys.readouterr().out
    longest = max(load_timelines("demo", weeks=1).timelines, key=len)
    days = re.findall(r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) .* ([\d,]+)$", out, re.MULTILINE)
    assert sum(int(d.replace(",", "")) for d in days) == len(longest)


def test_names_are_shown_as_they_are_and_not_as_markup(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "user,t,target\n" + "".join(f"[red]u[/red],{1741000000 + 60 * i},{n}\n" for i, n in enumerate(
        ["[bold]App", ":smile:", "$x^{2$", "_hidden", "日本語アプリ", "e\u0301\u200dx"]
    ))  # fmt: skip
    (here / "odd.csv").write_text(text)
    timelines.main(["show", "odd.csv", "--plot", "odd.png"])
    out = capsys.readouterr().out
    assert all(name in out for name in ("[red]u[/red]", "[bold]App", ":smile:", "$x^{2$", "日本語アプリ"))
    assert (here / "odd.png").read_bytes().startswith(PNG)


def test_a_timeline_of_one_event_can_be_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "one.csv").write_text("user,t,target\nada,1741000000,Mail\n")
    timelines.main(["show", "one.csv"])
    assert "100.0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which command? there are list"),
        (("frob",), "invalid choice: 'frob'"),
        (("import",), "required: SOURCE"),
        (("import", "nope.csv"), "'nope.csv': no file or timelines of that name"),
        (("import", "demo", "--weeks", "0"), "whole number from 1 to 520"),
        (("import", "demo", "--weeks", "few"), "is no whole number"),
        (("import", "demo", "--tz", "Nowhere"), "'Nowhere' is unknown"),
        (("import", "bad.csv"), "bad.csv, line 2: t is 1741000000000"),
        (("import", "demo", "--db", "."), "is a directory"),
        (("import", "demo", "--db", "bad.csv"), "is no database"),
        (("list", "--db", "other.db"), "no such database"),
        (("show", "demo", "--user", "nobody"), "no such user; it has ada-developer"),
        (("show", "demo", "--plot", "x.txt"), "ending in .png, .svg, .pdf"),
        (("show", "demo", "--plot", "not/there.png"), "folder not is not there"),
        (("show", "demo", "--top", "0"), "whole number from 1"),
    ],
)
def test_bad_input_is_refused(here: Path, arguments: tuple[str, ...], words: str) -> None:
    (here / "bad.csv").write_text("user,t,target\nada,1741000000000,Mail\n")
    with pytest.raises(InputError) as caught:
        timelines.main(arguments)
    assert words in str(caught.value)
    assert [p.name for p in here.iterdir()] == ["bad.csv"]


def test_a_refusal_is_one_line_and_status_two(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(b"user,t,target\n\xff\xfe\n")
    done = cli("rlmemo.timelines", "import", "bad.csv")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: bad.csv, line 2: byte 0xff is not UTF-8, which is wanted; if the file is Latin-1, "
        "convert it with iconv -f LATIN1 -t UTF-8 OLD > NEW\n"
    )
    assert not (tmp_path / "rlmemo.db").exists()


def test_a_closed_pipe_is_no_error(cli: Cli, tmp_path: Path, repo_root: Path) -> None:
    script = f"{sys.executable} -m rlmemo.timelines show demo --weeks 1 --plot none | head -1"
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "rows read" in done.stdout
    assert done.stderr == ""


def test_blocks_show_every_count_that_is_not_zero() -> None:
    assert blocks(np.array([0, 1, 1000])) == " ▁█"
    assert blocks(np.array([0, 0])) == "  "
    assert blocks(np.array([], int)) == ""


def test_a_terminal_without_blocks_gets_ascii(tmp_path: Path, repo_root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "rlmemo.timelines", "show", "demo", "--weeks", "1", "--plot", "none"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "@@@@" in done.stdout
    assert done.stdout.isascii()

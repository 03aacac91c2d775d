"""Who reads a log or a pipe hears of a command every half minute; narrow terminals get whole words."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from rlmemo import benchmark, heartbeat
from rlmemo.learning.display import Display
from tests.test_train_cli import write_csv
from tests.warm import Warm


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.05)


def test_it_is_half_a_minute_at_most() -> None:
    assert heartbeat.EVERY_S <= 30.0


def test_a_long_step_is_no_silence(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    with heartbeat.Pulse("loading") as said:
        time.sleep(0.3)  # one step, in which nothing calls back
        said.update("judging mru", 2, 5, "loss 0.1")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    time.sleep(0.15)
    assert capsys.readouterr().err == ""  # it ends with the context
    assert lines[0].startswith("loading, ")
    assert re.fullmatch(r"judging mru: 2 of 5, \d+ s, loss 0.1", lines[-1])
    assert len(lines) >= 6


def test_a_benchmark_in_a_pipe(quick: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    csv = str(write_csv(tmp_path / "two.csv", 160))
    words = ["--timelines", csv, "--policies", "mru,gbdt", "--draws", "20"]
    benchmark.main(words)
    found = capfd.readouterr()
    # Which step is under way when a line is due is the machine's affair; that one is told of is ours.
    assert re.search(r"^judging (mru|gbdt): [12] of 3, \d+ s$", found.err, re.M)
    assert "judging" not in found.out  # the table stays clean
    benchmark.main([*words, "--quiet"])
    assert capfd.readouterr().err == ""


def test_a_stage_of_a_training_in_a_pipe(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    with display.stage("SFT") as bar:
        bar(3, 10, {"loss": 0.5})
        time.sleep(0.3)
    lines = capsys.readouterr().out.splitlines()
    assert "  SFT: 3 of 10, 0 s, loss 0.500" in lines
    assert lines[-1].startswith("SFT ")


def test_reports_fit_sixty_columns(warm: Warm, tmp_path: Path) -> None:
    """Words and numbers stay whole: the same ones are there as in a wide terminal."""
    csv = str(write_csv(tmp_path / "two.csv", 160))
    asked = {
        "rlmemo.benchmark": ["--timelines", csv, "--policies", "none,mru,markov1", "--draws", "20"],
        "rlmemo.timelines": ["show", csv, "--tz", "Europe/Berlin", "--plot", "none"],
    }
    for module, words in asked.items():
        said = {}
        for width in ("60", "200"):
            done = warm.run(module, *words, cwd=tmp_path, env={**os.environ, "COLUMNS": width})
            assert done.returncode == 0, done.stderr
            said[width] = done.stdout
        assert [x for x in said["60"].splitlines() if len(x.rstrip()) > 60 and " " in x.strip()] == []
        numbers = r"[+-]?\d[\d.,]*|[█▇▆▅▄▃▂▁]{4,}"
        narrow, wide = (
            {y.rstrip(".,") for y in re.findall(numbers, re.sub(r", \d+ s\b", "", x))} for x in said.values()
        )
        assert narrow == wide

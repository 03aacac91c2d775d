"""`python -m rlmemo.benchmark`: the design's JSON, the issue's numbers, bad input in one line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from rlmemo import benchmark
from rlmemo.evaluation.metrics import METRICS

Cli = Callable[..., subprocess.CompletedProcess[str]]
CONTRACT = {"timelines", "split", "collapsed", "n_events", "seed", "policies"}
OF_A_DISTRIBUTION = {
    "delay_log_loss", "delay_log_loss_past", "delay_gain", "delay_below_median", "delay_within_80",
}  # fmt: skip
"""Metrics of a policy that says more about the time than one number; counting policies do not."""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two users, 240 events each, with habits."""
    rng = np.random.default_rng(0)
    path = tmp_path / "two.csv"
    rows = ["user,t,target"]
    for user in ("ada", "bob"):
        t = 1_700_000_000.0
        for k in range(240):
            t += float(rng.exponential(300))
            rows.append(f"{user},{t:.0f},{['mail', 'web', 'mail', 'notes', 'chat'][k % 5]}{rng.integers(2)}")
    path.write_text("\n".join(rows) + "\n")
    return path


def run(*arguments: str) -> None:
    assert benchmark.main([*arguments, "--draws", "50", "--quiet"]) == 0


def test_json_is_what_the_design_says(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.json"
    run("--timelines", str(recording), "--policies", "none,mru,markov1,oracle", "--json", str(out))
    data: dict[str, Any] = json.loads(out.read_text())
    assert set(data) >= CONTRACT
    assert data["split"] == "chrono"
    assert data["collapsed"] is True
    assert data["n_events"] > 50
    assert list(data["policies"]) == ["none", "mru", "markov1", "oracle"]
    for metrics in data["policies"].values():
        assert set(metrics) <= set(METRICS)
        for value in metrics.values():
            assert set(value) == {"value", "ci95"}
            if value["ci95"] is not None:
                low, high = value["ci95"]
                assert low <= value["value"] + 1e-9
                assert value["value"] <= high + 1e-9 or low == high
    markov = data["policies"]["markov1"]
    assert set(METRICS) - OF_A_DISTRIBUTION == set(markov)
    assert 0 <= markov["hr@1"]["value"] <= markov["hr@3"]["value"] <= markov["hr@5"]["value"] <= 1
    assert data["policies"]["none"]["saved_seconds_per_open"]["value"] == 0.0
    share = data["policies"]["oracle"]["oracle_share"]["value"]
    assert share is None or share <= 1.0 + 1e-9
    assert set(data["budgets"]["markov1"]) == {"2", "4", "8", "16"}
    assert len(data["curves"]["markov1"]["hit_rate"]) == len(data["curves"]["markov1"]["threshold"])
    assert data["differences"]["mru"]["hr@1"]["against"] == "markov1"
    assert not list(tmp_path.glob("**/.*partial"))


def test_same_seed_same_numbers(recording: Path, tmp_path: Path) -> None:
    found = []
    for k in range(2):
        out = tmp_path / f"{k}.json"
        run("--timelines", str(recording), "--policies", "markov1,omnibox", "--json", str(out))
        data = json.loads(out.read_text())
        for metrics in data["policies"].values():
            for clock in ("decisions_per_second", "p50_ms", "p95_ms", "peak_rss_mb"):
                metrics.pop(clock)
        found.append(data)
    assert found[0] == found[1]


@pytest.mark.parametrize("split", ["chrono", "user"])
def test_splits_and_report(split: str, recording: Path, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    run("--timelines", str(recording), "--policies", "mfu,backoff3", "--split", split, "--html", str(html))
    text = html.read_text()
    assert text.startswith("<!doctype html>")
    assert "recorded data" in text


def test_the_terminal_names_the_data_and_the_setting(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(["--timelines", str(recording), "--policies", "mru,gbdt", "--draws", "50"]) == 0
    out = capsys.readouterr().out
    for words in ("recorded", "collapsed", "test events of 2 users", "8 typical targets", "net_seconds"):
        assert words in out
    assert "gbdt" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "markv1"], "did you mean markov1"),
        (["--policies", ","], "no policy was named"),
        (["--split", "wave"], "use --split chrono"),
        (["--reward", "nonsense=1"], "--reward: .*unknown"),
        (["--cost", "moon"], "moon"),
        (["--budgets", "0,x"], "--budgets '0,x'"),
        (["--picks", "0"], "--picks"),
        (["--picks", "13"], "--picks is 13; a slate has 12 places, so give 1 to 12"),
        (["--ttl", "0"], "--ttl-s"),
        (["--draws", "3"], "--draws 3"),
        (["--html", "."], "is a folder"),
        (["--json", "/proc/nothing/x.json"], "cannot be written"),
    ],
)
def test_bad_input_is_refused_by_name(recording: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        benchmark.main(["--timelines", str(recording), "--policies", "mru", "--quiet", *arguments])


def test_bad_input_is_one_line_and_status_two(cli: Cli) -> None:
    done = cli("rlmemo.benchmark", "--timelines", "nothing-here.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "nothing-here.csv" in done.stderr
    assert done.stdout == ""


def test_a_recording_too_short_to_test_on_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("user,t,target\nada,1700000000,mail\n")
    with pytest.raises(InputError, match="test part"):
        benchmark.main(["--timelines", str(path), "--policies", "mru", "--quiet"])

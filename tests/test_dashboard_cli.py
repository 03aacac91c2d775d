"""`python -m dashboard`: where it listens, what it refuses, and what it tells Streamlit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dashboard import serve
from dashboard.__main__ import (
    TOKEN_VARIABLE,
    addresses,
    check_db,
    check_token,
    free_port,
    is_loopback,
    main,
    names,
)
from dashboard.look import e
from dashboard.runs import find_runs, wilson
from dashboard.words import delay, moment, shown, span
from env.errors import InputError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_is_quick_and_light(cli: Cli) -> None:
    began = os.times()
    done = cli("dashboard", "--help")
    assert done.returncode == 0
    assert "--db" in done.stdout
    ended = os.times()  # the processor's time: tests run beside others
    assert sum(ended[2:4]) - sum(began[2:4]) < 1.5
    code = "import sys, dashboard.__main__; print({'streamlit', 'pandas', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_this_machine(address: str) -> None:
    assert is_loopback(address)
    check_token(address, "")


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "192.168.0.7", "example.org", "localhost.example.org", ""]
)
def test_elsewhere_needs_a_token(address: str) -> None:
    assert not is_loopback(address)
    for token in ("", "short"):
        with pytest.raises(InputError, match=TOKEN_VARIABLE):
            check_token(address, token)
    check_token(address, "x" * 16)


def test_elsewhere_without_a_token_is_refused_in_one_line(cli: Cli) -> None:
    done = cli("dashboard", "--address", "0.0.0.0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --address 0.0.0.0")
    assert done.stderr.count("\n") == 1


def test_a_token_that_was_given_counts_here_too_and_stands_in_no_log() -> None:
    with pytest.raises(InputError, match="has 5 characters"):
        check_token("127.0.0.1", "short")
    said, opened = addresses("127.0.0.1", 8501, "a token & more of it", True)
    assert "token &" not in said
    assert TOKEN_VARIABLE in said
    assert opened == "http://127.0.0.1:8501/?token=a%20token%20%26%20more%20of%20it"
    assert addresses("[::1]", 8501, "x" * 16, False) == (f"http://[::1]:8501/?token={'x' * 16}",) * 2
    assert addresses("0.0.0.0", 8501, None, False) == ("http://0.0.0.0:8501/",) * 2


def test_names_it_answers_to() -> None:
    assert names("127.0.0.1", None, []) == ["localhost", "127.0.0.1", "[::1]"]
    assert names("127.1.2.3", "memo.example", ["Other.Example"])[3:] == [
        "127.1.2.3", "memo.example", "other.example",
    ]  # fmt: skip
    assert {"*", socket.gethostname().lower()} <= set(names("0.0.0.0", None, []))


def test_what_streamlit_is_told(tmp_path: Path) -> None:
    told = serve.options("127.0.0.1", 8501, None)
    assert told["server.address"] == "127.0.0.1"
    assert told["server.enableXsrfProtection"]
    assert told["server.enableCORS"]
    assert not told["browser.gatherUsageStats"]
    assert not told["client.showErrorLinks"]
    assert told["server.headless"]
    assert serve.options("0.0.0.0", 8501, tmp_path / "x.toml")["secrets.files"] == [str(tmp_path / "x.toml")]


def test_bad_databases(tmp_path: Path, cli: Cli) -> None:
    text = tmp_path / "notes.db"
    text.write_text("this is no database, it only has the name of one")
    (tmp_path / "empty.db").touch()
    check_db(str(tmp_path / "empty.db"))
    check_db(str(tmp_path / "not-there-yet.db"))
    for path, said in ((text, "no SQLite"), (tmp_path, "is a folder"), (tmp_path / "no" / "a.db", "mkdir")):
        with pytest.raises(InputError, match=said):
            check_db(str(path))
    done = cli("dashboard", "--db", str(text))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="--port"):
            free_port("127.0.0.1", taken.getsockname()[1])
    for bad in (0, -1, 65536):
        with pytest.raises(InputError, match="no port"):
            free_port("127.0.0.1", bad)
    assert free_port("127.0.0.1", None) >= 8501


def test_the_address_must_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * 16)
    monkeypatch.setattr(serve, "serve", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(InputError, match="cannot listen"):
        main(["--address", "no.such.host.invalid", "--db", str(tmp_path / "a.db")])


def test_text_becomes_harmless() -> None:
    assert e("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert "\n" not in e("a\nb")
    assert shown("a\u202eb\u0000c\u200f") == "a b c"
    assert len(shown("x" * 500)) == 48
    assert shown("") == "(no name)"
    assert shown("☕ café 東京") == "☕ café 東京"


def test_plain_words() -> None:
    assert [span(x) for x in (0, 8, 2.5, 75, 300, 7200, 86400 * 3)] == [
        "0 s", "8 s", "2.5 s", "75 s", "5 min", "2 h", "3 days",
    ]  # fmt: skip
    assert delay(0) == "right away"
    assert delay(300) == "in 5 min"
    assert moment(1_714_982_400.0, "Europe/Berlin") == "Monday 6 May 2024, 10:00"


def test_wilson_against_known_values() -> None:
    low, high = wilson(8, 10)  # Newcombe 1998 and others: .4902 to .9433
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_what_a_report_holds_is_read_and_what_is_odd_is_left_out(tmp_path: Path) -> None:
    value = {"value": 0.5, "ci95": [0.4, 0.6]}
    bins = {"predicted": [0.2, 0.8], "observed": [0.25, 0.7], "size": [5, 5]}
    report = {
        "policies": {"a": {"hr@1": value}, "b": {"hr@1": value}},
        "reward_terms": {"a": {"saved_seconds": value, "planned": None}, "b": 3},
        "reliability": {"a": {"first": bins, "none": {"predicted": [0.1], "observed": []}}, "b": []},
        "curves": {"a": {"hit_rate": [0.1, 0.2], "odd": ["x"]}, "b": {"hit_rate": [float("nan")]}},
    }
    (tmp_path / "run.json").write_text(json.dumps(report))
    (run,) = find_runs(tmp_path)
    assert list(run.terms) == ["a"]
    assert list(run.terms["a"]) == ["saved_seconds"]
    assert run.reliability == {
        "first": {"a": {k: [float(x) for x in v] for k, v in bins.items()}},
        "none": {},
    }
    assert run.sweeps["a"] == {"hit_rate": [0.1, 0.2]}
    assert run.sweeps["b"] == {}


def test_why_is_counted_as_the_slate_counts() -> None:
    from dashboard.why import known, sentence
    from env.slate.slate import FEATURES, build_slates
    from env.sources import load_timelines

    timeline = load_timelines("demo", weeks=2).timelines[1]
    slates = build_slates(timeline)
    place = {name: k for k, name in enumerate(FEATURES)}
    looked = 0
    for i in (40, 200, len(timeline) - 2):
        there = slates.candidates[i] >= 0
        ids = slates.candidates[i][there].tolist()
        found = known(timeline.t[: i + 1], timeline.target[: i + 1], 0.0, ids)
        for x, row in zip(ids, slates.features[i][there], strict=True):
            k = found[x]
            assert k.of == i + 1
            assert np.log1p(k.opens) == pytest.approx(row[place["log_count"]], rel=1e-5)
            assert np.log1p(k.followed) == pytest.approx(row[place["log_n1"]], rel=1e-5)
            assert np.log1p(k.followed2) == pytest.approx(row[place["log_n2"]], rel=1e-5)
            assert np.log1p(k.ago_s) == pytest.approx(row[place["log_seconds_ago"]], rel=1e-5)
            assert k.followed <= k.left
            assert k.at_hour <= k.of_hour
            looked += 1
    assert looked > 20
    said = known(np.array([0.0, 60.0, 120.0, 180.0, 240.0]), np.array([0, 1, 0, 1, 0]), 0.0, [1, 7])
    assert sentence(said[1], [(180.0, "Mail"), (240.0, "Chat")]) == (
        "came after Chat 2 of 2 times; last opened 60 s ago; 40% of the opens around this time of day; "
        "40% of all"
    )
    assert sentence(said[7], []) == "never opened before"


def test_damaged_runs_are_named_and_left_out(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    (good / "report.json").write_text(
        '{"timelines": "demo", "policies": {"a": {"hr@1": {"value": 0.5, "ci95": [0.4, 0.6]}, "x": 3}, '
        '"b": 1},'
        ' "budgets": {"a": {"8": {"reward_per_open": {"value": 1, "ci95": [1, 1]}}}}}'
    )
    (good / "metrics.jsonl").write_text('{"stage": "sft", "step": 1, "loss": 2.0}\n{"stage": "sft", "st')
    for name, text in (("broken", "{"), ("list", "[]"), ("odd", '{"policies": [1]}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(text)
    (tmp_path / "good.approval-good.json").write_text('{"dr": {}}')  # the page Train's own
    found = {run.name: run for run in find_runs(tmp_path)}
    assert set(found) == {"good", "broken", "list", "odd"}
    assert [name for name, run in found.items() if run.finished] == ["good"]
    assert found["good"].policies["a"]["hr@1"].high == 0.6
    assert set(found["good"].policies) == {"a"}
    assert len(found["good"].logged) == 1
    assert find_runs(tmp_path / "nowhere") == []

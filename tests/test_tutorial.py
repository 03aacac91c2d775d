"""Every command of docs/tutorial.md is run, in order, as it stands there; only the thumbs are ours."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlmemo.store import ratings
from rlmemo.store.database import open_store

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def steps(root: Path) -> list[str]:
    """The commands of the tutorial, in order; a script in a here-document is one of them."""
    found: list[str] = []
    for block in BLOCK.findall((root / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        script = re.fullmatch(r"(python - <<'END'\n.*?)\nEND\n", block, flags=re.DOTALL)
        found += [script[1]] if script else block.splitlines()
    return found


def start_and_stop(arguments: list[str], folder: Path, root: Path) -> None:
    """The dashboard comes up, says where it is, and ends when it is asked to."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "dashboard", *arguments, "--no-open"], cwd=folder, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        try:
            until = time.monotonic() + 120
            said = ""
            while "http://" not in said:
                assert running.poll() is None, said
                assert time.monotonic() < until, said
                said += running.stdout.readline()
            running.send_signal(signal.SIGINT)
            running.wait(timeout=60)
        finally:
            running.kill()


def rate(db: Path, votes: int) -> None:
    """Thumbs by turns, as the two buttons of *Rate* give them."""
    with open_store(db, make=False) as store:
        for k in range(votes):
            showing = ratings.show_next(store, "me", 0.5)
            assert showing is not None
            ratings.rate(store, showing, k % 2)


@pytest.mark.slow
def test_the_tutorial_from_a_recording_to_a_rated_prediction(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in steps(repo_root):
        if command.startswith("python - "):
            exec(compile(command.partition("\n")[2], "tutorial.md", "exec"), {})
            ran.append("script")
            continue
        words = shlex.split(command)
        if words[0] == "source":
            continue
        assert words[:2] == ["python", "-m"], command
        module, arguments = words[2], words[3:]
        if module == "dashboard":
            start_and_stop(arguments, tmp_path, repo_root)
            rate(tmp_path / "rlmemo.db", 20)
        else:
            door = "rlmemo.feedback.__main__" if module == "rlmemo.feedback" else module
            assert importlib.import_module(door).main(arguments) == 0, command
        ran.append(module.removeprefix("rlmemo."))
    assert ran == [
        "script", "timelines", "timelines", "benchmark", "train", "predict", "dashboard", "feedback", "train",
        "benchmark",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "40 new predictions of runs/mine" in said
    assert "20 ratings that count" in said
    for made in (
        "first.html",
        "runs/mine/report.html",
        "runs/rated/report.html",
        "runs/timelines-rlmemo.png",
    ):
        assert (tmp_path / made).is_file(), made
    learned = json.loads((tmp_path / "runs" / "rated" / "feedback.json").read_text())["placed"]
    assert len({x["rated"]["id"] for x in learned}) == 20
    assert sum(x["rated"]["thumbs"] for x in learned) == 10
    assert {x["rated"]["policy"] for x in learned} == {"mine"}

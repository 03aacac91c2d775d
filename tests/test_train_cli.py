"""`python -m rlmemo.train` as a person meets it: it refuses before it works, and a stop loses nothing."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from env.errors import InputError
from rlmemo.learning.config import TrainConfig, make_config, read_yaml, settings
from rlmemo.learning.prepare import prepare
from rlmemo.learning.record import note
from rlmemo.runs.atomic import sha256
from rlmemo.runs.stages import METHODS
from rlmemo.store.database import open_store
from rlmemo.train import parser, read_command_line
from tests.tiny_base import write_tiny_base
from tests.warm import Warm

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = (
    "--sft-states", "96", "--sft-batch", "8", "--plan-states", "60", "--plan-samples", "2",
    "--dpo-pairs", "64", "--dpo-batch", "8", "--kto-plans", "64", "--kto-batch", "8", "--lora-rank", "2",
    "--checkpoint-steps", "3",
    "--policies", "none,mru",
)  # fmt: skip


def write_csv(path: Path, events: int = 240, users: int = 2) -> Path:
    """Two people who go round a few apps in loops, with some noise."""
    rng = np.random.default_rng(0)
    rows = ["user,t,target"]
    for user in range(users):
        t = 1.7e9
        place = 0
        for _ in range(events):
            t += float(rng.exponential(120.0)) + 2.0
            place = (place + 1) % 9 if rng.random() < 0.8 else int(rng.integers(14))
            rows.append(f"person{user},{t:.1f},app{place}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options for a small timeline and a tiny base model."""
    folder = tmp_path_factory.mktemp("ground")
    base = write_tiny_base(folder / "base")
    return ("--timelines", str(write_csv(folder / "two.csv")), "--tz", "UTC", "--model", str(base), *SMALL)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "ppi"], "did you mean ppo"),
        (["--method", "ppo", "--peft", "prefix"], "lora or dora"),
        (["--method", "ppo", "--ppo-batch", "100"], "does not divide"),
        (["--method", "grpo", "--group-plans", "7"], "whole groups"),
        (["--method", "dop"], "did you mean dpo"),
        (["--sft-lr", "fast"], "sft_lr is 'fast'"),
        (["--sft-batch", "1.5"], "a whole number"),
        (["--dpo-beta", "0"], "above 0"),
        (["--picks", "0"], "give 1 to 12"),
        (["--picks", "13"], "picks is 13; a slate has 12 places, so give 1 to 12"),
        (["--seed", str(2**32)], "seed is 4294967296; give 0 to 4294967295"),
        (["--ppo-lambda", "1.5"], "ppo_lambda is 1.5; give a share, 0 to 1"),
        (["--ttl", "0"], "ttl_s is 0; give 1 or more"),
        (["--split", "cronho"], "did you mean 'chrono'"),
        (["--reward", "saved_secs=1"], "did you mean 'saved_seconds'"),
        (["--reward", "hit=many"], "hit"),
        (["--timelines", "nowhere.csv"], "nowhere.csv"),
        (["--model", "./no-such-model"], "no such folder"),
        (["--policies", "mru,gbtd"], "gbtd"),
        (["--resume", "--out", "nowhere"], "no run to resume"),
        (["--resume"], "no unfinished run"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--tz", "Mars/Olympus", "--timelines", "demo"], "Mars/Olympus"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = cli("rlmemo.train", *arguments)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_refusing_is_quick_and_loads_nothing_heavy(cli: Cli, tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "short.csv", events=20, users=1)
    done = cli("rlmemo.train", "--timelines", str(csv), "--tz", "UTC", timeout=100)
    assert done.returncode == 2
    assert "19 events (repeats collapsed) of 1 user(s)" in done.stderr
    assert "record more" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["short.csv"]
    code = (
        "import sys\nfrom rlmemo.train import main\n"
        f"try:\n    main(['--timelines', {str(csv)!r}, '--tz', 'UTC'])\n"
        "except ValueError:\n    print([m for m in ('torch', 'trl', 'lightgbm') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_run_is_noted_in_a_database_that_is_not_there_yet(tmp_path: Path) -> None:
    """Its timelines come from another file: no run is lost because the database has yet to be made."""
    csv, db = write_csv(tmp_path / "a.csv", events=200, users=1), tmp_path / "new.db"
    config = make_config({"timelines": str(csv), "tz": "UTC", "db": str(db)})
    noted = note(prepare(config, tmp_path / "run", resume=False), tmp_path / "run")
    assert noted is not None
    with open_store(db) as store:
        assert [run.status for run in store.runs()] == ["running"]


def earlier_run(folder: Path, **settings: object) -> Path:
    """What is looked at of a finished run before another goes on from it."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    lines = [f"{name}: {value}\n" for name, value in settings.items()]
    (folder / "config.yaml").write_text("".join(lines))
    return folder


def test_an_adapter_stays_of_its_kind(cli: Cli, tmp_path: Path) -> None:
    """Left out, kind and size are the earlier run's; another one cannot be had, and is refused."""
    run = earlier_run(tmp_path / "first", peft="prefix", virtual_tokens=5)
    config, _, _ = read_command_line(["--init-adapter", str(run)])
    assert (config.peft, config.virtual_tokens, config.dpo_lr) == ("prefix", 5, 3e-3)
    with pytest.raises(InputError, match="ppo trains adapters of kind lora or dora, not prefix"):
        read_command_line(["--init-adapter", str(run), "--method", "ppo"])
    for more, says in (
        (["--peft", "lora"], "made with --peft prefix, and stays so; leave out --peft lora"),
        (["--virtual-tokens", "6"], "made with --virtual-tokens 5, and stays so"),
    ):
        done = cli("rlmemo.train", "--init-adapter", str(run), *more)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert says in done.stderr
        assert [p.name for p in tmp_path.iterdir()] == ["first"]


def test_a_folder_that_holds_something_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = cli("rlmemo.train", "--out", "mine")
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert "--resume" in done.stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_tokenizer_that_is_not_ours_is_refused(cli: Cli, tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base")
    tokens = json.loads((base / "tokenizer.json").read_text())
    tokens["model"]["vocab"] = {"hello": 0, "world": 1}
    (base / "tokenizer.json").write_text(json.dumps(tokens))
    done = cli("rlmemo.train", "--model", "base")
    assert done.returncode == 2
    assert "tokenizer cannot write the prompt as text, nor is it ours" in done.stderr


def test_options_and_file_and_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "sft-lr: 0.01\nseed: 7\nreward: {saved_seconds: 1, wasted: -0.1}\npolicies: [mru, gbdt]\n"
    )
    config, _, resumed = read_command_line(
        ["--config", str(file), "--seed", "8", "--out", str(tmp_path / "o")]
    )
    assert not resumed
    assert (config.sft_lr, config.seed, config.policies) == (0.01, 8, "mru,gbdt")
    assert config.reward == "saved_seconds=1,wasted=-0.1"
    assert make_config({}) == TrainConfig()
    file.write_text("sft_rate: 0.01\n")
    with pytest.raises(InputError, match="there is no setting 'sft_rate'; did you mean 'sft_"):
        read_command_line(["--config", str(file)])
    file.write_text("reward: [hit, wasted=-2]\n")
    assert read_command_line(["--config", str(file)])[0].reward == "hit,wasted=-2"
    for text in ("tz: [UTC]\n", "model: {a: 1}\n"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"mine\.yaml:1: \w+ is .*; give one value"):
            read_command_line(["--config", str(file)])
    for text, says in (("- 1\n", "no mapping"), ("a: [\n", "is no YAML"), ("settings: 3\n", "no mapping")):
        file.write_text(text)
        with pytest.raises(InputError, match=says):
            read_yaml(file)


def test_a_setting_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An older run goes on, and its config.yaml can be repeated where nothing was other than it is now."""
    settings_of_then = {**TrainConfig(method="sft").as_dict(), "ppo_entropy": 0.0, "unheard_of": 1}
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"settings": settings_of_then}))
    config, _, resumed = read_command_line(["--resume", "--out", str(tmp_path)])
    assert (config, resumed) == (TrainConfig(method="sft"), True)
    assert capsys.readouterr().err == ""
    settings_of_then["ppo_entropy"] = 0.01
    file.write_text(json.dumps({"settings": settings_of_then}))
    assert read_command_line(["--resume", "--out", str(tmp_path)])[0] == config
    assert "ppo_entropy 0.01 is taken for 0" in capsys.readouterr().err
    file.write_text("ppo_entropy: 0.0\n")
    assert read_command_line(["--config", str(file)])[0] == TrainConfig()
    file.write_text("\nppo_entropy: 0.01\n")
    with pytest.raises(
        InputError, match=r"config\.yaml:2: ppo_entropy is no setting any more, it is always 0"
    ):
        read_command_line(["--config", str(file)])


def test_every_setting_is_an_option_with_help_and_documentation(repo_root: Path) -> None:
    text = parser().format_help()
    documented = (repo_root / "docs" / "options.md").read_text(encoding="utf-8")
    for setting in settings():
        option = "--" + setting.name.replace("_", "-")
        assert option in text
        assert setting.metadata["help"]
        assert re.search(rf"`{option}[ `]", documented), f"docs/options.md does not name {option}"
    assert all(f"`{m}`" in documented for m in METHODS)


def test_every_number_is_refused_outside_its_bounds() -> None:
    numbers = [s for s in settings() if str(s.type).split(" ")[0] in ("int", "float")]
    assert len(numbers) > 40
    for setting in numbers:
        bounds = setting.metadata["bounds"]
        assert bounds.in_words(), f"{setting.name} has no bounds"
        for value in (bounds.low - 1, bounds.above, bounds.high + 1):
            if math.isfinite(value):
                with pytest.raises(InputError, match=f": {setting.name} is .*give {bounds.in_words()}$"):
                    make_config({setting.name: value})


def finish(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = cli("rlmemo.train", *arguments, timeout=500)
    assert done.returncode == 0, done.stderr
    return done


def adapters(run: Path) -> dict[str, str]:
    return {p.parent.name: sha256(p) for p in run.glob("*/adapter_model.safetensors")}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, ground: tuple[str, ...], light_trainings: None, warm: Warm
) -> tuple[Path, str]:
    """A run that was left alone, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    done = warm.run("rlmemo.train", *ground, "--out", "run", cwd=folder, env=os.environ, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


@pytest.mark.slow
def test_a_run_writes_what_it_promises(whole: tuple[Path, str]) -> None:
    run, said = whole
    assert "next:" in said
    assert "report.html" in said
    names = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert {"config.yaml", "metrics.jsonl", "report.json", "report.html", "README.md", "adapter"} <= names
    assert not list(run.glob("checkpoints/*")), "checkpoints go when a stage is finished"
    report: dict[str, Any] = json.loads((run / "report.json").read_text())
    assert set(report["policies"]) == {"none", "mru", "base", "sft", "dpo"}
    shown = said.split("test, beside the baselines", 1)[1]
    rows = [line.split() for line in shown.splitlines() if line[:3] in ("sft", "dpo")]
    table = {row[0]: row[-1] for row in rows if row[1].startswith("0.")}  # not the sentence below the table
    assert table == {k: f"{report['policies'][k]['reward_per_open']['value']:.3f}" for k in ("sft", "dpo")}
    for policy in ("sft", "dpo"):
        for metric in ("hr@1", "hr@5", "reward_per_open", "oracle_share"):
            assert {"value", "ci95"} <= set(report["policies"][policy][metric])
    assert report["collapsed"] is True
    assert set(report["stages"]) == {"base", "sft", "dpo"}
    assert report["stages"]["dpo"]["adapter_sha256"] == adapters(run)["adapter"]
    stages = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert stages == {"sft", "dpo"}
    settings_ = yaml.safe_load((run / "config.yaml").read_text())
    assert settings_["met"]["timelines"]["sha256"]
    assert make_config(settings_["settings"]).dpo_pairs == 64
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert report["policy"] in ("base", "dpo")
    assert f"| **{report['policy']}** |" in (run / "README.md").read_text()
    from rlmemo.policies.registry import make_policy

    assert make_policy(str(run)).name == "run"


@pytest.mark.slow
def test_kto_runs(cli: Cli, tmp_path: Path, ground: tuple[str, ...], light_trainings: None) -> None:
    """As PPO and its kin do in test_ppo_cli.py."""
    finish(cli, *ground, "--method", "kto", "--out", "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["method"] == "kto"
    assert {"sft", "kto"} <= set(report["policies"])


@pytest.mark.slow
def test_ctrl_c_and_kill_lose_nothing(cli: Cli, warm: Warm, tmp_path: Path, whole: tuple[Path, str]) -> None:
    """Ctrl-C within SFT, `kill -9` within DPO: the adapters are those of a run with the same settings
    (taken from its config.yaml) that was left alone."""
    settings_ = str(whole[0] / "config.yaml")

    def start_and_stop(stage: str, step: int, how: signal.Signals, *arguments: str) -> tuple[int, str]:
        process = warm.start("rlmemo.train", *arguments, cwd=tmp_path, env=os.environ)
        log = tmp_path / "cut" / "metrics.jsonl"
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            rows = (
                [json.loads(x) for x in log.read_text().splitlines() if x.endswith("}")]
                if log.exists()
                else []
            )
            if any(r["stage"] == stage and r["step"] >= step for r in rows):
                break
            time.sleep(0.005)
        process.send_signal(how)
        _, error = process.communicate(timeout=300)
        return process.returncode, error

    status, error = start_and_stop("sft", 5, signal.SIGINT, "--config", settings_, "--out", "cut")
    assert status == 130, error
    assert "continue with: python -m rlmemo.train --out cut --resume" in error
    assert "Traceback" not in error
    assert not (tmp_path / "cut" / "sft").exists()
    status, error = start_and_stop("dpo", 5, signal.SIGKILL, "--out", "cut", "--resume")
    assert status == -signal.SIGKILL, error
    refused = cli("rlmemo.train", "--out", "cut", "--resume", "--seed", "3")
    assert refused.returncode == 2
    assert "leave out --seed" in refused.stderr
    done = finish(cli, "--out", "cut", "--resume")
    assert "going on with cut: finished are" in done.stdout
    assert adapters(tmp_path / "cut") == adapters(whole[0])
    steps = [json.loads(x)["step"] for x in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == len((whole[0] / "metrics.jsonl").read_text().splitlines())
    finish(cli, "--out", "cut", "--resume")  # there is nothing left to do, and that is no error
    assert (tmp_path / "cut" / "adapter" / "plan.json").exists()

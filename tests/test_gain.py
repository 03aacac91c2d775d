"""Where there is nothing to save, it is said why, and what is said to help does."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_cases import case

from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Event, Timeline
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.evaluation.gain import gain
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.job import next_steps
from rlmemo.policies.registry import make_policies
from rlmemo.predict import Made, Options, make, predict
from rlmemo.store.database import open_store

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def opening(order: Iterable[int], every_s: float = 60.0) -> Timeline:
    """Apps by number, one after the other."""
    events = [Event(1.7e9 + every_s * k, f"app{x}", "app") for k, x in enumerate(order)]
    return Timeline.from_events("me", events)


def round_and_round(targets: int, opens: int = 300) -> Timeline:
    """The same targets in the same order, a minute apart."""
    return opening(k % targets for k in range(opens))


def csv(path: Path, timeline: Timeline) -> Path:
    rows = [
        f"{timeline.user},{t:.0f},{timeline.names[x]}"
        for t, x in zip(timeline.t, timeline.target, strict=True)
    ]
    path.write_text("\n".join(["user,t,target", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("targets", "cold", "fits", "smaller"),
    [(5, 0, True, 4.0), (3, 0, True, 2.0), (9, 200, False, None), (2, 0, True, 1.0)],
)
def test_what_is_cold_is_counted(targets: int, cold: int, fits: bool, smaller: float | None) -> None:
    timeline = round_and_round(targets)
    costs = cost_model("desktop").arrays(timeline)
    found = gain([Case(timeline, costs, WorldConfig(), 100, 300)])
    assert (found.opens, found.cold, found.targets, found.fits) == (200, cold, targets, fits)
    assert found.smaller == smaller
    assert (found.why_nothing() is None) == (cold > 0)
    if smaller is not None:
        assert f"try --budget {smaller:g}" in (found.why_nothing() or "")
        assert gain([Case(timeline, costs, WorldConfig(budget_targets=smaller), 100, 300)]).cold > 0


def test_one_target_is_never_enough() -> None:
    timeline = opening([0] * 9)
    found = gain([Case(timeline, cost_model("desktop").arrays(timeline), WorldConfig(), 2, 9)])
    assert found.smaller is None
    assert "a timeline with more targets is needed" in (found.why_nothing() or "")


def test_a_table_of_zeros_says_why_and_what_helps() -> None:
    timelines = [round_and_round(6)]
    policies = make_policies("none,markov1,oracle")
    result = evaluate(
        policies, timelines, chrono(timelines), setting=Setting(replicates=20, latency_decisions=2)
    )
    (said,) = [note for note in result.notes if "nothing to save" in note]
    assert "the 6 targets that were opened fit into memory (budget 8 typical targets)" in said
    helps = float(re.findall(r"--budget (\S+)", said)[0])
    setting = Setting(WorldOptions(budget=helps), replicates=20, latency_decisions=2)
    result = evaluate(make_policies("none,markov1,oracle"), timelines, chrono(timelines), setting=setting)
    assert not [note for note in result.notes if "nothing to save" in note]
    assert result.policies["oracle"].metrics["saved_seconds_per_open"].value > 0


def test_who_never_prewarms_is_named() -> None:
    """A policy whose probabilities say nothing keeps still, and its note does not hide that."""
    rng = np.random.default_rng(0)
    timelines = [opening(rng.integers(0, 40, 400), 4000.0)]
    (mfu,) = make_policies("mfu")
    mfu.note = "mfu: plans by a threshold tuned on validation"  # type: ignore[attr-defined]
    setting = Setting(WorldOptions(reward="saved_seconds=1,planned=-100"), replicates=20, latency_decisions=2)
    result = evaluate([mfu, *make_policies("none")], timelines, chrono(timelines), setting=setting)
    assert "mfu: plans by a threshold tuned on validation, and never prewarms" in result.notes
    (said,) = [note for note in result.notes if note.startswith("never prewarms: mfu: keeping still")]
    assert said.endswith("try --budget 4")


@pytest.mark.parametrize("source", ["round and round", "one.csv"])
def test_predict_says_why_it_kept_still(cli: Cli, tmp_path: Path, source: str) -> None:
    file = case("training/one.csv") if source == "one.csv" else csv(tmp_path / "a.csv", round_and_round(6))
    line = ["--timelines", str(file), "--policy", "markov1", "--db", "a.db"]
    for more in ((), ("--threshold", "0.1")):
        done = cli("rlmemo.predict", *line, *more)
        assert done.returncode == 0
        assert done.stdout.startswith("0 new predictions")
        assert "fit into memory" in done.stdout
        assert "rate them" not in done.stdout
        assert "--threshold" not in done.stdout  # it would not help
    (helps,) = re.findall(r"try (--budget \S+)", done.stdout)
    done = cli("rlmemo.predict", *line, *helps.split())
    assert re.match("[1-9][0-9]* new", done.stdout)
    assert "rate them: python -m dashboard --db a.db" in done.stdout
    done = cli("rlmemo.predict", *line, *helps.split())
    assert "are there already; for other moments, try --seed 1" in done.stdout


@pytest.mark.parametrize("threshold", [0.99, 0.9])
def test_the_threshold_that_is_named_helps(tmp_path: Path, threshold: float) -> None:
    options = Options(n=20, explore=0.0, threshold=threshold, world={"budget": 4.0})
    file = csv(tmp_path / "a.csv", opening(np.random.default_rng(0).integers(0, 12, 400)))
    with open_store(tmp_path / "a.db") as store:
        made = make(store, str(file), "markov1", options)
        assert made.new == 0
        assert made.still > 0
        (helps,) = re.findall(r"try --threshold (\S+)", made.why_none())
        assert predict(store, str(file), "markov1", replace(options, threshold=float(helps))) > 0


def test_who_plans_by_itself_has_no_threshold() -> None:
    assert "--still" in Made(still=5, likeliest=0.5, plans_itself=True).why_none()
    assert "--still" in Made(still=5, likeliest=0.0).why_none()
    assert "--threshold 0.45" in Made(still=5, likeliest=0.5).why_none()


def test_another_memory_is_another_prediction(tmp_path: Path) -> None:
    file = str(csv(tmp_path / "a.csv", round_and_round(12)))
    with open_store(tmp_path / "a.db") as store:
        first = predict(store, file, "markov1", Options(n=5))
        assert first > 0
        assert predict(store, file, "markov1", Options(n=5, world={"budget": 8.0})) == 0  # what it is anyway
        assert predict(store, file, "markov1", Options(n=5, world={"budget": 4.0})) > 0


def test_what_comes_next_names_the_right_database(tmp_path: Path) -> None:
    commands = dict(
        next_steps(TrainConfig(timelines="my files/a.csv", tz="UTC", budget=4.0), Path("runs/one"))
    )
    predicts, sees, *rest = (shlex.split(c) for c in commands)
    assert predicts[:5] == ["rlmemo.predict", "--timelines", "my files/a.csv", "--tz", "UTC"]
    assert predicts[5:] == ["--policy", "runs/one", "--db", "rlmemo.db"]
    assert sees == ["dashboard", "--db", "rlmemo.db"]
    assert rest[0][-1] == "--budget=4"
    with open_store(tmp_path / "my.db") as store:
        store.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
    own = str(tmp_path / "my.db")
    for config in (TrainConfig(timelines=own), TrainConfig(feedback=own), TrainConfig(db=own)):
        predicts, sees, *_ = (shlex.split(c) for c, _ in next_steps(config, tmp_path / "elsewhere" / "one"))
        assert predicts[predicts.index("--db") + 1] == own
        assert predicts[predicts.index("--timelines") + 1] == config.timelines
        assert sees == ["dashboard", "--db", own, "--runs", str(tmp_path / "elsewhere")]

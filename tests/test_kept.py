"""A run that keeps an earlier adapter says so wherever it says what it learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboard import jobs, train
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.learning.config import TrainConfig, make_config
from rlmemo.learning.display import Display
from rlmemo.learning.in_charge import InCharge
from rlmemo.learning.kept import kept
from rlmemo.learning.planner_choice import write_reports
from rlmemo.learning.prepare import prepare
from rlmemo.learning.report import called
from rlmemo.learning.run import Run
from rlmemo.policies.planners import Threshold
from rlmemo.policies.registry import make_policies
from rlmemo.report.terminal import result_table
from rlmemo.runs.folder import RunFolder
from tests.test_train_cli import write_csv

DROPPED = "DPO was not better on validation: the SFT model is kept"
UNCHANGED = "training on the ratings left the model unchanged (its plans mind what was said all the same)"


def config_of(**values: Any) -> TrainConfig:
    return make_config(values)


@pytest.mark.parametrize(
    ("values", "state", "minding", "said"),
    [
        ({}, {"kept": {"stage": "dpo"}}, False, ()),
        ({}, {"kept": {"stage": "sft"}}, False, (DROPPED,)),
        ({"preference_keep": "last"}, {}, False, ()),
        ({"method": "sft"}, {}, False, ()),
        ({}, {"kept": {"stage": "sft"}, "dpo": {"nothing": "no pair"}}, False, ()),
        (
            {"method": "kto", "feedback": "a.db", "init_adapter": "runs/mine"},
            {"kept": {"stage": "sft"}},
            False,
            ("KTO was not better on validation: the model of mine is kept", UNCHANGED),
        ),
        (
            {"feedback": "a.db"},
            {"kept": {"stage": "sft"}},
            True,
            (DROPPED, f"{UNCHANGED}; the planner minds them"),
        ),
        (
            {"feedback": "a.db"},
            {"kept": {"stage": "sft"}, "dpo": {"nothing": "no pair"}},
            False,
            (UNCHANGED,),
        ),
        (
            {"feedback": "a.db", "adapter_per_user": True},
            {"kept": {"stage": "sft"}, "users": {"in_use": 2}},
            False,
            (DROPPED, f"{UNCHANGED}; 2 people's own adapters learned from them"),
        ),
        ({"feedback": "a.db", "method": "dpo-ppo"}, {"kept": {"stage": "sft"}}, False, (DROPPED,)),
        (
            {"preference_rounds": 2},
            {"kept": {"stage": "sft"}},
            False,
            ("DPO's 2 rounds were not better on validation: the SFT model is kept",),
        ),
        (
            {"preference_rounds": 3, "feedback": "a.db"},
            {"kept": {"stage": "dpo-1"}},
            False,
            ("what DPO learned after round 1 was not better on validation: the model of round 1 is kept",),
        ),
    ],
)
def test_what_is_said(
    values: dict[str, Any], state: dict[str, Any], minding: bool, said: tuple[str, ...]
) -> None:
    assert kept(config_of(**values), state, minding=minding).said == said


def judged(prepared: Any) -> Evaluation:
    """What the judge would say where SFT and DPO plan alike."""
    setting = Setting(replicates=40, latency_decisions=3, budgets=(8.0,))
    policies = make_policies("mru,markov1")
    found = evaluate(policies, prepared.timelines, prepared.split, setting=setting)
    planned = found.policies.pop("markov1")
    found.policies |= {"sft": planned, "dpo": planned}
    return found


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_every_report_says_it(tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"timelines": str(write_csv(tmp_path / "two.csv")), "tz": "UTC", "policies": "mru"}
    config, path = config_of(**values), tmp_path / "run"
    prepared = prepare(config, path, resume=False)
    folder = RunFolder(path)
    for name in ("sft", "dpo"):
        folder.finish(name, {"steps": 3, "pairs": 64, "states": 96, "seconds": 1.0})
    folder.finish("kept", {"stage": stage})
    run = Run(prepared, folder, None, Display())  # type: ignore[arg-type]
    own, by = {"reward_per_open": 0.1}, {"reward_per_open": 0.2, "theta": 0.1}
    one = {"events": 9, "hr@1": 0.5, "hr@5": 0.9, "log_loss": 1.0, "own": own, "threshold": by,
           "planner": "threshold", "signal": True}  # fmt: skip
    evaluation, came_out = judged(prepared), kept(config, folder.state())
    evaluation.notes[:0] = came_out.said
    charge = InCharge("dpo", "dpo", 9, 0.1, 0.2, 0.02)
    write_reports(run, evaluation, dict.fromkeys(("base", "sft", "dpo"), one), Threshold(0.1), charge)
    shown = result_table(evaluation, "dpo", called(config, came_out, charge))
    page, card = (path / "report.html").read_text(), (path / "README.md").read_text()
    report = json.loads((path / "report.json").read_text())
    tables: list[Any] = []
    monkeypatch.setattr(train.look, "table", lambda head, rows, **_: tables.append(rows))
    monkeypatch.setattr(train, "html", tables.append)
    train._before_and_after(jobs.Job("run", path, path / "log", "finished", None))
    on_train_page = str(tables)
    if stage == "dpo":
        for text in (shown, page, card, json.dumps(report), on_train_page):
            assert "not better on validation" not in text
            assert "not kept" not in text
        assert "The trained model (dpo) " in " ".join(shown.split())
        assert "tags: [rlmemo, prewarming, lora, sft, dpo]" in card
        return
    assert f"note: {DROPPED}" in " ".join(shown.split())
    assert "The trained model (the SFT model) " in " ".join(shown.split())
    assert f"{DROPPED}." in page.split("<details")[0], "on the first screen"
    assert "preferring the better of two plans" not in page, "it is not what the model was taught by"
    assert "not kept: the SFT model" in page
    assert f"then DPO on 64 pairs of plans scored by replay. {DROPPED}." in card
    assert "tags: [rlmemo, prewarming, lora, sft]" in card
    assert report["notes"][0] == DROPPED
    assert DROPPED in on_train_page
    assert "after DPO (not kept: the SFT model)" in on_train_page
    assert report["stages"]["dpo"]["kept"] == "the SFT model"
    assert "kept" not in report["stages"]["sft"]

"""A text model with an adapter for each user: trained, judged as its method is, read as the run reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlmemo.learning.config import make_config
from rlmemo.learning.planner_choice import speaks
from tests.tiny_text_model import write_text_model

pytestmark = pytest.mark.usefixtures("light_trainings")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("llama"), kind="llama")


@pytest.mark.parametrize(("method", "asked"), [("sft", False), ("dpo", True), ("kto", True)])
def test_own_plans_are_asked_of_users_as_of_the_stage_before(base: Path, method: str, asked: bool) -> None:
    given = {"method": method, "adapter_per_user": True}
    text, ours = make_config({**given, "model": str(base)}), make_config(given)
    assert speaks(text, "users") is asked is speaks(text, text.shared_stages[-1])
    assert speaks(ours, "users")
    assert speaks(ours, "sft")
    assert not speaks(text, "base")


@pytest.mark.slow
def test_users_of_a_text_model_have_adapters_that_are_read_as_all_stages_are(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from rlmemo.model import switching
    from rlmemo.policies.registry import make_policy
    from rlmemo.runs.user_adapters import user_adapters
    from rlmemo.train import main
    from tests.test_text_prompt import plain, timeline

    x = timeline(plain(), 150)
    rows = [f"{u},{t},{x.names[k]}" for u in "ab" for t, k in zip(x.t, x.target, strict=True)]
    (tmp_path / "two.csv").write_text("user,t,target\n" + "\n".join(rows) + "\n")
    run = tmp_path / "run"
    settings = {
        "timelines": tmp_path / "two.csv", "tz": "UTC", "model": base, "method": "sft", "sft-states": 16,
        "sft-batch": 8, "history": 4, "lora-rank": 4, "user-states": 40, "user-epochs": 1, "policies": "mru",
        "dtype": "bfloat16", "budget": 2, "out": run,
    }  # fmt: skip
    assert main(["--adapter-per-user", *(y for k, v in settings.items() for y in (f"--{k}", str(v)))]) == 0
    made = user_adapters(run)
    assert [a.user for a in made] == ["a", "b"]
    report = json.loads((run / "report.json").read_text())
    stages = report["stages"]
    assert all("own" not in stages[name]["validation"] for name in ("base", "sft", "users"))
    assert set(report["policies"]) == {"mru", "base", "sft", "sft alone", "users"}
    assert report["in_charge"]["learned"] == "users"
    for a in made:  # both in use, so that the switch is seen to matter; and what was learned is in charge
        (a.path / "user.json").write_text(json.dumps({**a.about, "in_use": True}))
    plan = json.loads((run / "adapter" / "plan.json").read_text())
    plan.pop("stage", None)
    (run / "adapter" / "plan.json").write_text(json.dumps(plan))
    policy = make_policy(str(run))
    assert set(policy.source.adapters) == {"a", "b"}
    assert policy.model.dtype == torch.bfloat16, "as every other stage"
    ranking = policy.rank(x, np.arange(60, 70))
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-4)
    monkeypatch.setattr(switching, "LARGEST", 0)  # as a large model's: beside the weights, in bfloat16, too
    beside = make_policy(str(run))
    assert beside.model.dtype == torch.bfloat16
    np.testing.assert_allclose(beside.rank(x, np.arange(60, 70)).none, ranking.none, atol=0.02)

"""Settings that no trainer can use are refused in a line, before anything heavy loads or is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from env.errors import InputError
from rlmemo.learning.config import make_config
from rlmemo.learning.prepare import check_policies, prepare
from rlmemo.model.adapters import reading
from tests.light import unjudged
from tests.test_text_prompt import plain, timeline
from tests.tiny_text_model import write_text_model

pytestmark = pytest.mark.usefixtures("light_trainings")

SMALL = {"method": "ppo", "ppo_lanes": 4, "ppo_steps": 8}
CASES = [
    ({**SMALL, "ppo_batch": 32, "ppo_epochs": 1}, "ppo_batch 32 is all of a rollout of 4 x 8"),
    ({**SMALL, "method": "dpo-ppo", "ppo_batch": 32, "ppo_epochs": 1}, "such as 16, or ppo_epochs 2"),
    ({**SMALL, "ppo_batch": 5}, "ppo_batch 5 does not divide a rollout of 4 x 8 decisions; .*such as 4"),
    ({**SMALL, "ppo_batch": 64}, "ppo_batch 64 does not divide"),
    ({**SMALL, "ppo_lanes": 3, "ppo_steps": 5, "ppo_batch": 5}, "odd number"),
    ({"method": "grpo", "group_batch": 12, "group_plans": 8}, "multiple of 8, such as 16"),
    ({"method": "rloo", "group_batch": 4, "group_plans": 8}, "multiple of 8, such as 8"),
    ({"method": "kto", "micro_batch": 1}, "micro_batch is 1, and KTO"),
    ({"method": "kto", "kto_batch": 3, "micro_batch": 2}, r"such as 0 \(all of it at once\)"),
    ({"method": "dpo", "preference_rounds": 9, "plan_states": 8}, "plan_states 8 .* give 8 rounds at most"),
    ({"method": "dpo", "preference_rounds": 5, "dpo_pairs": 4}, "dpo_pairs 4 .* give 4 rounds at most"),
    ({"method": "kto", "preference_rounds": 5, "kto_plans": 9}, "kto_plans 9 .* give 4 rounds at most"),
    ({"method": "ppo", "ppo_lambda": 1.5}, "ppo_lambda is 1.5; give a share, 0 to 1"),
    ({"feedback_keep": "nan"}, "feedback_keep is 'nan'; give a number$"),
]


@pytest.mark.parametrize(("values", "says"), CASES)
def test_batches_that_do_not_work_out(values: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        make_config(values)
    assert "\n" not in str(caught.value)


def test_what_works_out_is_taken() -> None:
    make_config({**SMALL, "ppo_batch": 32, "ppo_epochs": 2})
    make_config({**SMALL, "ppo_batch": 16, "ppo_epochs": 1})
    make_config({"method": "kto", "micro_batch": 2})
    make_config({"method": "sft", "micro_batch": 1})
    make_config({"method": "dpo", "preference_rounds": 8, "plan_states": 8, "dpo_pairs": 8})
    make_config({"method": "sft", "preference_rounds": 8, "plan_states": 4})
    make_config({"method": "ppo", "ppo_lambda": 1})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"feedback_keep": 0.5}, "--feedback-keep says what ratings count, and there are none"),
        ({"feedback_weight": 2}, "--feedback-weight says what ratings count, and there are none"),
        ({"quantize": "4bit"}, "--quantize 4bit is for models that read text"),
        ({"model": ""}, "--model is empty; give `embedded`"),
    ],
)
def test_what_would_count_for_nothing_is_refused(tmp_path: Path, given: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        prepare(make_config({"timelines": "demo", **given}), tmp_path / "run", resume=False)
    assert list(tmp_path.iterdir()) == []


def test_what_ppo_takes_trl_takes(tmp_path: Path) -> None:
    """Every small rollout that passes our check passes TRL's own."""
    from itertools import product

    from rlmemo.learning.ppo import ppo_arguments
    from rlmemo.learning.training import Lesson
    from rlmemo.runs.folder import RunFolder

    taken = 0
    for lanes, steps, batch, epochs in product((1, 2, 3), (2, 3, 5), (2, 3, 4, 6, 9), (1, 2)):
        given = {"ppo_lanes": lanes, "ppo_steps": steps, "ppo_batch": batch, "ppo_epochs": epochs}
        try:
            config = make_config({"method": "ppo", **given})
        except InputError:
            continue
        ppo_arguments(Lesson(config, RunFolder(tmp_path), "ppo"))
        taken += 1
    assert taken > 8


def test_the_command_says_it_in_one_line_without_torch(tmp_path: Path) -> None:
    asked = [
        "--method",
        "ppo",
        "--ppo-lanes",
        "4",
        "--ppo-steps",
        "8",
        "--ppo-batch",
        "32",
        "--ppo-epochs",
        "1",
    ]
    code = (
        "import sys; from env.errors import run_main; from rlmemo.train import main\n"
        "try: run_main(main)\n"
        "finally: assert not {'torch', 'numba', 'transformers'} & set(sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *asked, "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 2, found.stderr
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("gpt2"), kind="gpt2")


@pytest.mark.parametrize("where", ["vocabulary", "added"])
def test_more_tokens_than_rows(gpt2: Path, tmp_path: Path, where: str) -> None:
    """As after a pad token was added to a tokenizer, and the model saved as it was."""
    from rlmemo.model.load import reading_for
    from rlmemo.train import main

    model = tmp_path / "model"
    shutil.copytree(gpt2, model)
    file = model / "tokenizer.json"
    made = json.loads(file.read_text())
    rows = json.loads((model / "config.json").read_text())["vocab_size"]
    if where == "vocabulary":
        made["model"]["vocab"] |= {f"more{k}": rows + k for k in range(3)}
    else:
        made["added_tokens"].append({**made["added_tokens"][0], "id": rows, "content": "<pad>"})
    file.write_text(json.dumps(made))
    for ask in (
        lambda: main(["--model", str(model), "--method", "sft", "--out", str(tmp_path / "run")]),
        lambda: reading_for(str(model), make_config({}).loading),
    ):
        with pytest.raises(
            InputError, match=rf"has {rows + (3 if where == 'vocabulary' else 1)} tokens"
        ) as e:
            ask()
        assert f"only {rows} rows" in str(e.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prefix", "p-tuning", "prompt", "ia3"])
def test_an_architecture_that_calls_its_parts_otherwise_is_trained_and_read(
    gpt2: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPT-2 has a `transformer` where others have a `model`, learned positions, and few of them.

    The one whose keys are in every layer is judged to the end, too."""
    if kind != "prefix":
        monkeypatch.setattr("rlmemo.learning.planner_choice.judge", unjudged)
    import numpy as np
    import torch

    from rlmemo.model.load import load_model
    from rlmemo.policies.registry import make_policy
    from rlmemo.train import main

    x = timeline(plain(), 150)
    rows = [f"a,{t},{x.names[k]}\n" for t, k in zip(x.t, x.target, strict=True)]
    (tmp_path / "a.csv").write_text("user,t,target\n" + "".join(rows))
    run = tmp_path / "run"
    settings = {
        "timelines": tmp_path / "a.csv", "model": gpt2, "method": "sft", "peft": kind, "sft_states": 16,
        "sft_batch": 8, "history": 200, "micro_batch": 2, "virtual_tokens": 24, "lora_rank": 4,
        "policies": "markov1", "out": run, "budget": 2, "prompt": "long",
    }  # fmt: skip
    assert main([y for k, v in settings.items() for y in ("--" + k.replace("_", "-"), str(v))]) == 0
    policy = make_policy(str(run))
    ranking = policy.rank(x, np.arange(120, 130))
    how = policy.model.reading
    longest = (how.prompts(x, how.look(x, np.array([129])), np.array([129])) >= 0).sum()
    assert how.most - 60 < longest <= how.most <= 650 - 24 - (0 if kind == "ia3" else 24)
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5)
    # Read as peft reads it.
    from peft import PeftModel

    ids = torch.arange(5, 45)[None] % 300
    own = PeftModel.from_pretrained(load_model(str(gpt2))[0], str(run / "adapter")).eval()
    read = reading(load_model(str(gpt2))[0], run / "adapter")
    bare = load_model(str(gpt2))[0]
    with torch.inference_mode():
        expected = own(input_ids=ids).logits[:, -ids.shape[1] :]
        torch.testing.assert_close(read(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        assert (bare(input_ids=ids).logits - expected).abs().max() > 1e-4


@pytest.mark.parametrize("policies", ["", " ", ",", " , "])
def test_a_list_without_a_name_is_no_policy_at_all(policies: str) -> None:
    assert make_config({"policies": policies}).baselines == ()


def test_a_policy_whose_package_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "stable_baselines3" else found(name))
    with pytest.raises(InputError, match="--policies sb3 needs Stable-Baselines3"):
        check_policies(make_config({"policies": "mfu,sb3,mfu"}).baselines)
    check_policies(("mfu", "none"))


@pytest.mark.parametrize(("more", "fits"), [({}, True), ({"peft": "prefix", "virtual_tokens": 600}, False)])
def test_a_question_has_to_fit_into_the_context(
    gpt2: Path, tmp_path: Path, more: dict[str, object], fits: bool
) -> None:
    """650 positions, of which learned tokens take most: said before the weights are loaded."""
    x = timeline(plain(), 150)
    rows = [f"a,{t},{x.names[k]}\n" for t, k in zip(x.t, x.target, strict=True)]
    (tmp_path / "a.csv").write_text("user,t,target\n" + "".join(rows))
    given = {"timelines": str(tmp_path / "a.csv"), "tz": "UTC", "model": str(gpt2), "method": "sft", **more}
    config = make_config(given)
    if fits:
        prepare(config, tmp_path / "run", resume=False)
        return
    with pytest.raises(
        InputError, match=r"leaves \d+ tokens for a prompt, too few for the question .* fewer"
    ):
        prepare(config, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()

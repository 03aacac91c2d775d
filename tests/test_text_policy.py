"""Models of a hub: loaded, asked and trained through the same doors as the embedded one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.slate.slate import SLATE_SIZE
from env.timeline import Event, Timeline, collapse
from rlmemo.model.hub import Loading, check_model, is_slots, model_sha256
from rlmemo.model.text_prompt import answer_text
from tests.test_text_prompt import HOSTILE, plain, timeline
from tests.tiny_text_model import write_text_model

pytestmark = pytest.mark.usefixtures("light_trainings")

KINDS = [("qwen3", True), ("qwen3", False), ("llama", True)]
SHORT = Loading(history=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    path = tmp_path_factory.mktemp("models")
    return {k: write_text_model(path / f"{k[0]}-{k[1]}", kind=k[0], chat=k[1]) for k in KINDS}


@pytest.fixture(scope="module", params=KINDS, ids=lambda k: f"{k[0]}-{'chat' if k[1] else 'plain'}")
def base(request: pytest.FixtureRequest, folders: dict[tuple[str, bool], Path]) -> tuple[Any, Any]:
    from rlmemo.model.load import load_model

    return load_model(str(folders[request.param]), SHORT)


@lru_cache(maxsize=1)
def made() -> Timeline:
    return timeline(plain(), 90)


def prompts(model: Any, rows: np.ndarray, seen: Timeline | None = None) -> np.ndarray:
    from rlmemo.model.readings import slates_of

    x = made() if seen is None else seen
    found: np.ndarray = model.reading.prompts(x, slates_of(x), rows)
    return found


def test_ours_and_others_are_told_apart(folders: dict[tuple[str, bool], Path]) -> None:
    assert is_slots("embedded")
    assert not any(is_slots(str(path)) for path in folders.values())


def test_the_prompt_is_the_text(base: tuple[Any, Any]) -> None:
    """The tokens say what `text_prompt` wrote, in the frame of the chat template where there is one."""
    from rlmemo.model.readings import slates_of
    from rlmemo.model.text_prompt import ANSWER, TextTimeline

    model, _ = base
    how, tokenizer = model.reading, model.reading.tokenizer
    pieces = TextTimeline.of(made(), slates_of(made()), how.keep, how.wording).pieces(40)
    row = prompts(model, np.array([40]))[0]
    said = tokenizer.decode(row[row >= 0])
    body = pieces.head + "".join(pieces.lines) + pieces.question
    if tokenizer.chat_template:
        whole = tokenizer.apply_chat_template(
            [{"role": "user", "content": body}], tokenize=False, add_generation_prompt=True
        )
        assert said == whole + ANSWER
    else:
        assert said == body + ANSWER


def test_answers_are_the_tokens_of_their_text(base: tuple[Any, Any]) -> None:
    how = base[0].reading
    assert len({*how.letters, how.nothing}) == SLATE_SIZE + 1
    for plan in ((), ((0, 0),), ((2, 3), (11, 1))):
        ids = how.plan_ids(plan)
        assert ids[-1] == how.end == how.tokenizer.eos_token_id
        assert how.tokenizer.decode(ids[:-1]) == answer_text(plan)


def test_text_for_the_trainers_comes_back_as_the_same_tokens(base: tuple[Any, Any]) -> None:
    from rlmemo.learning.dpo_kto import plan_text

    model, words = base
    how = model.reading
    for row in prompts(model, np.arange(10, 60, 7)):
        for plan in ((), ((0, 0),), ((1, 3), (4, 0), (11, 2))):
            ids = words(how.text(row) + plan_text(plan, how))["input_ids"]
            assert ids == [*row[row >= 0].tolist(), *how.plan_ids(plan)]


def test_no_name_is_a_special_token(base: tuple[Any, Any]) -> None:
    model, _ = base
    special = model.reading.tokenizer.all_special_ids
    hostile = timeline([*HOSTILE, *plain(6)], 90)
    count = lambda x: np.isin(prompts(model, np.arange(20, 60, 5), x), special).sum(1)  # noqa: E731
    np.testing.assert_array_equal(count(hostile), count(made()))


def test_a_ranking_is_a_distribution_whatever_the_batch(base: tuple[Any, Any]) -> None:
    """Equal between batch sizes, and to the bare model that reads one prompt after another from scratch."""
    import torch

    from rlmemo.model.ask import read
    from rlmemo.policies.language import LanguagePolicy

    model, _ = base
    rows = np.arange(9, 33)
    ranking = LanguagePolicy(model).rank(made(), rows)
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5)
    assert (np.diff(ranking.probability, axis=1) <= 1e-7).all()
    asked = prompts(model, rows)
    how = model.reading
    tokens = [*how.letters.tolist(), how.nothing]
    bare = []
    with torch.inference_mode():
        for row in asked:
            ids = torch.from_numpy(row[row >= 0][None])
            bare.append(model(input_ids=ids).logits[0, -1, tokens].log_softmax(-1).numpy())
    assert np.ptp(np.array(bare), axis=0).max() > 1e-4, "the moments differ, and so do the answers"
    for batch in (1, 5, 24):
        np.testing.assert_allclose(read(model, asked, batch).first, bare, atol=2e-5)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_allclose(read(model, asked[shuffled], 7).first, np.array(bare)[shuffled], atol=2e-5)


def check_propensity(model: Any, temperature: float) -> None:
    """What is logged of sampled plans is what the bare model gives them, token by token, under the mask."""
    import torch

    from rlmemo.model.ask import sample_plans

    how, asked = model.reading, prompts(model, np.arange(20, 44))
    rng = np.random.default_rng(0)
    valid = rng.random((len(asked), SLATE_SIZE)) < 0.7
    said = sample_plans(model, asked, valid, 3, temperature, rng)
    assert (said.place[:, 1] >= 0).any()
    for d, row in enumerate(asked):
        prompt = row[row >= 0].tolist()
        picks = [(int(p), int(b)) for p, b in zip(said.place[d], said.delay[d], strict=True) if p >= 0]
        assert all(valid[d, p] for p, _ in picks)
        ids = how.plan_ids(picks)
        ids = ids[:1] if not picks else ids[:-1] if len(picks) == 3 else ids
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids])).logits[0].double() / temperature
        total, before, delay = 0.0, -1, False
        for step, token in enumerate(ids):
            if delay:
                allowed = how.delays.tolist()
            else:
                places = [p for p in range(before + 1, SLATE_SIZE) if valid[d, p]]
                allowed = [*how.letters[places].tolist(), how.end if step else how.nothing]
                before = int(np.flatnonzero(how.letters == token)[0]) if token in how.letters else before
            delay = not delay
            total += float(logits[len(prompt) - 1 + step][allowed].log_softmax(0)[allowed.index(token)])
        assert said.logp[d] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.8])
def test_the_propensity_is_the_probability_of_having_said_the_plan(
    base: tuple[Any, Any], temperature: float
) -> None:
    check_propensity(base[0], temperature)


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "phi3"])
def test_other_architectures_answer_as_they_would_alone(
    folders: dict[tuple[str, bool], Path], tmp_path: Path, kind: str
) -> None:
    """Learned positions, a window of 64 tokens, layers of other names: no beginning is shared wrongly."""
    import shutil

    import torch
    import transformers

    from rlmemo.learning.adapters import new_adapter
    from rlmemo.learning.config import make_config
    from rlmemo.model.ask import read
    from rlmemo.model.forward import can_share
    from rlmemo.model.load import load_model

    path = tmp_path / kind
    shutil.copytree(folders["qwen3", True], path)
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    wide: dict[str, Any] = {
        "vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    config = {
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=2048
        ),
        "mistral": lambda: transformers.MistralConfig(**wide, sliding_window=64),
        "phi3": lambda: transformers.Phi3Config(**wide),
    }[kind]()
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(path)
    model, _ = load_model(str(path), SHORT)
    assert can_share(model) == (kind != "mistral")
    asked, tokens = prompts(model, np.arange(20, 32)), [*model.reading.letters, model.reading.nothing]
    with torch.inference_mode():
        bare = [
            model(input_ids=torch.from_numpy(r[r >= 0][None])).logits[0, -1, tokens].log_softmax(-1).numpy()
            for r in asked
        ]
    np.testing.assert_allclose(read(model, asked, 5).first, bare, atol=2e-5)
    check_propensity(model, 1.0)
    adapted = new_adapter(model, make_config({"lora_rank": 4}), 10)
    assert any("lora_" in name for name, p in adapted.named_parameters() if p.requires_grad)


def test_no_event_after_a_decision_reaches_it(base: tuple[Any, Any]) -> None:
    from rlmemo.policies.language import LanguagePolicy

    cut, one = 30, made()
    mixed = collapse(
        Timeline.from_events(
            "u",
            [one.event(i) for i in range(cut + 1)]
            + [Event(one.t[cut] + 5.0 + k, f"new{k}") for k in range(9)],
            tz=one.tz,
        )
    )
    rows = np.arange(12, cut + 1)
    np.testing.assert_array_equal(prompts(base[0], rows), prompts(base[0], rows, mixed))
    policy, world = LanguagePolicy(base[0]), WorldConfig()
    a, b = policy.rank(one, rows), policy.rank(mixed, rows)
    np.testing.assert_array_equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.probability, b.probability)
    rows = rows[:6]
    a, b = int(rows[0]) + 1, int(rows[-1]) + 2
    plans = [policy.plan(Case(x, cost_model("desktop").arrays(x), world, a, b)) for x in (one, mixed)]
    np.testing.assert_array_equal(plans[0].target, plans[1].target)


@pytest.mark.parametrize("words", ["short", "long"])
def test_a_short_context_loses_old_events_and_never_the_question(
    folders: dict[tuple[str, bool], Path], tmp_path: Path, words: str
) -> None:
    import shutil

    from rlmemo.model.load import load_model, reading_for

    path = tmp_path / "short"
    shutil.copytree(folders["qwen3", True], path)
    config = json.loads((path / "config.json").read_text())
    loading = Loading(history=24, prompt=words)
    whole = prompts(load_model(str(folders["qwen3", True]), loading)[0], np.array([60]))[0]
    config["max_position_embeddings"] = int((whole >= 0).sum()) - 60
    (path / "config.json").write_text(json.dumps(config))
    model, _ = load_model(str(path), loading)
    row = prompts(model, np.array([60]))[0]
    assert (row >= 0).sum() + 2 * 3 + 1 <= config["max_position_embeddings"]
    say, head = model.reading.tokenizer.decode, model.reading.wording.head
    (told, asked), (kept, again) = (say(x[x >= 0]).split("\nNow ") for x in (whole, row))
    assert again == asked
    assert head in kept
    assert told.endswith(kept.split(head)[1])
    assert len(kept) < len(told)
    config["max_position_embeddings"] = 200
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="too few for the question"):
        reading_for(str(path), SHORT).prompts(made(), _slates(), np.array([60]))


def _slates() -> Any:
    from rlmemo.model.readings import slates_of

    return slates_of(made())


@pytest.mark.parametrize("missing", [" A", "A0"])
def test_letters_are_found_in_other_vocabularies(missing: str) -> None:
    """Single bytes have no token " A"; where "A0" is one token, there is no digit after A."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import ByteLevel
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    from rlmemo.model.text import TextReading

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}
    merges = []
    if missing == "A0":
        merges = [("A", "0"), ("\u0120", "A")]
        vocabulary |= {"A0": len(vocabulary), "\u0120A": len(vocabulary) + 1}
    words = Tokenizer(models.BPE(vocabulary, merges))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    how = TextReading.of(tokenizer, LlamaConfig(vocab_size=len(vocabulary)))
    assert len({*how.letters, how.nothing, how.end}) == SLATE_SIZE + 2
    assert len(set(how.delays)) == len(how.delays)
    assert tokenizer.decode(how.letters[:3]).replace(" ", "") == "ABC"
    assert tokenizer.decode(how.delays) == "0123"
    assert tokenizer.decode(how.none).strip() == "none"


def test_a_tokenizer_that_cannot_write_the_prompt_is_refused(tmp_path: Path) -> None:
    from tests.tiny_base import write_tiny_base

    path = write_tiny_base(tmp_path / "old")
    raw = json.loads((path / "tokenizer.json").read_text())
    raw["model"]["vocab"] = {f"old{k}": v for k, v in raw["model"]["vocab"].items()} | {"<pad>": 0}
    (path / "tokenizer.json").write_text(json.dumps(raw))
    from transformers import AutoModelForCausalLM

    from rlmemo.model.load import load_model

    model = AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(len(raw["model"]["vocab"]) + 16)  # rows for the special tokens, too
    model.save_pretrained(path)
    with pytest.raises(InputError, match="cannot write the prompt"):
        load_model(str(path))


def test_only_safetensors_are_read(folders: dict[tuple[str, bool], Path], tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "pickled"
    shutil.copytree(folders["qwen3", True], path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(InputError, match="only safetensors"):
        check_model(str(path))


def test_parts_of_weights_are_told_apart(folders: dict[tuple[str, bool], Path], tmp_path: Path) -> None:
    from rlmemo.model.load import load_model

    model, _ = load_model(str(folders["qwen3", True]))
    digests = set()
    for bump in (0.0, 1.0):
        path = tmp_path / f"parts{bump}"
        with __import__("torch").no_grad():
            model.model.norm.weight[0] += bump
        model.save_pretrained(path, max_shard_size="40KB")
        assert not (path / "model.safetensors").exists()
        digests.add(model_sha256(str(path)))
    assert len(digests) == 2
    assert None not in digests


@pytest.mark.parametrize("command", ["train", "benchmark"])
def test_a_hub_name_without_a_network_is_one_line(tmp_path: Path, command: str) -> None:
    name = "nobody/no-such-model"
    options = {
        "train": ["--model", name, "--out", str(tmp_path / "run")],
        "benchmark": ["--policies", f"text:{name}"],
    }
    done = subprocess.run(
        [sys.executable, "-m", f"rlmemo.{command}", *options[command]],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert name in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_is_said_at_once(
    folders: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    from rlmemo.train import main

    model = ["--model", str(folders["qwen3", True]), "--out", str(tmp_path / "run")]
    with pytest.raises(InputError, match=r"grpo trains models that read our own .* ppo or dpo-ppo"):
        main([*model, "--method", "grpo"])
    with pytest.raises(InputError, match="4 bits are too coarse"):
        main([*model, "--method", "ppo", "--quantize", "4bit"])
    with pytest.raises(InputError, match=r"bitsandbytes|GPU"):
        main([*model, "--quantize", "4bit", "--peft", "lora"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_sft_learns_to_answer(folders: dict[tuple[str, bool], Path], tmp_path: Path) -> None:
    """Where the first candidate is always right, a few updates make it the likeliest answer."""
    from dataclasses import replace

    from rlmemo.learning.config import make_config
    from rlmemo.learning.sft import run_sft, save_adapter
    from rlmemo.learning.training import Lesson
    from rlmemo.learning.training_data import TrainingData, part_states
    from rlmemo.learning.training_data import prompts as prompts_of
    from rlmemo.model.ask import plan_logprobs
    from rlmemo.model.load import load_adapted, load_model, reading_for
    from rlmemo.runs.folder import RunFolder
    from tests.training_ground import small_ground

    path = str(folders["llama", True])
    ground = replace(small_ground(), reading=reading_for(path, SHORT))
    assert isinstance(ground, TrainingData)
    states = part_states(ground.split.train)[100:124]
    for slates in ground.slates:
        assert (slates.candidates[50:, 0] >= 0).all()
    always = [replace(s, answer=np.zeros_like(s.answer)) for s in ground.slates]
    config = make_config(
        {"sft_batch": 8, "micro_batch": 4, "sft_lr": 0.05, "sft_epochs": 4, "lora_rank": 8, "history": 1}
    )
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    lesson = Lesson(replace(config, model=path), folder, "sft")
    model, found = run_sft(lesson, replace(ground, slates=always), states)
    assert found["steps"] == 12
    save_adapter(model, folder.path / "sft", path)
    asked = prompts_of(ground, states)
    before = plan_logprobs(load_model(path, config.loading)[0], asked)
    after = plan_logprobs(load_adapted(path, folder.path / "sft", config.loading), asked)
    assert (before.argmax(1) != 0).any()
    assert (after.argmax(1) == 0).all()
    # The head is untrained and small, so its logits lie within 0.7 of each other whatever the adapter does.
    assert after[:, 0].mean() > before[:, 0].mean() + 0.15


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind"), [("dpo", ("qwen3", True)), ("kto", ("llama", True))])
def test_a_run_on_a_hub_model_from_end_to_end(
    folders: dict[tuple[str, bool], Path], tmp_path: Path, method: str, kind: tuple[str, bool]
) -> None:
    from rlmemo import models
    from rlmemo.policies.registry import make_policy
    from rlmemo.train import main

    x = timeline(plain(), 150)
    rows = [f"a,{t},{x.names[k]}\n" for t, k in zip(x.t, x.target, strict=True)]
    (tmp_path / "a.csv").write_text("user,t,target\n" + "".join(rows))
    run = tmp_path / "run"
    settings = {
        "timelines": tmp_path / "a.csv", "model": folders[kind], "method": method, "sft_states": 16,
        "sft_batch": 8, "plan_states": 8, "plan_samples": 1, "dpo_pairs": 8, "dpo_batch": 4, "kto_plans": 8,
        "kto_batch": 4, "history": 4, "micro_batch": 2, "lora_rank": 4, "policies": "markov1", "out": run,
        "budget": 2,
    }  # fmt: skip
    options = [y for k, v in settings.items() for y in ("--" + k.replace("_", "-"), str(v))]
    assert main(options) == 0
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    report = json.loads((run / "report.json").read_text())
    assert {"base", "sft", method} <= set(report["stages"])
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"sft", method} <= {row["stage"] for row in logged}
    if kind[0] == "llama":
        gguf = pytest.importorskip("gguf", reason="gguf is not installed (pip install gguf)")
        assert models.main(["export", str(run), "--to", str(tmp_path / "x.gguf")]) == 0
        said = gguf.GGUFReader(str(tmp_path / "x.gguf")).fields
        assert said["general.name"].contents() == folders[kind].name
        assert said["general.description"].contents().endswith("as rlmemo's run run left it, weights q8_0")
    policy = make_policy(str(run))
    assert policy.model.reading.kind == "text"
    assert policy.model.reading.keep == 4, "read as it was trained"
    ranking = policy.rank(x, np.arange(60, 70))
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5)
    again = make_policy(str(run)).rank(x, np.arange(60, 70))
    np.testing.assert_array_equal(ranking.probability, again.probability)
    untrained = make_policy(str(folders[kind])).rank(x, np.arange(60, 70))
    assert np.abs(untrained.none - ranking.none).max() > 1e-6


def test_on_a_gpu_activations_are_bfloat16_and_computed_twice(
    folders: dict[tuple[str, bool], Path],
) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from rlmemo.model.text import TextReading

    tokenizer, config = (
        x.from_pretrained(folders["qwen3", False], local_files_only=True) for x in (AutoTokenizer, AutoConfig)
    )
    for on_gpu in (False, True):
        made = TextReading.of(tokenizer, config, on_gpu=on_gpu, micro_batch=4).arguments(32)
        assert made["bf16"] is made["gradient_checkpointing"] is on_gpu
        assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (4, 8)


def test_four_bits_where_there_is_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rlmemo.model import load

    monkeypatch.setattr(load, "find_spec", lambda name: object())
    made = load.four_bits(on_gpu=True)
    assert made.load_in_4bit
    assert made.bnb_4bit_quant_type == "nf4"
    assert made.bnb_4bit_compute_dtype is torch.bfloat16
    with pytest.raises(InputError, match="needs a GPU"):
        load.four_bits(on_gpu=False)


RECIPES = sorted((Path(__file__).parents[1] / "experiments").glob("*b.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_recipes_are_complete_settings(recipe: Path) -> None:
    from rlmemo.learning.config import make_config, read_yaml

    config = make_config(read_yaml(recipe), str(recipe))
    assert (config.timelines, config.method) == ("webtrackr", "dpo")
    assert config.sft_batch % config.micro_batch == config.dpo_batch % config.micro_batch == 0
    assert config.sft_lr < 1e-3, "what is right for the embedded model would ruin a large one"
    assert config.model.count("/") == 1


def test_there_are_recipes() -> None:
    assert {"qwen3_0.6b", "llama3.1_8b"} <= {p.stem for p in RECIPES}


def test_a_hub_name_is_found_in_the_local_cache(
    folders: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    import shutil

    repo = tmp_path / "hub" / "hub" / "models--nobody--tiny"
    commit = "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(folders["qwen3", True], repo / "snapshots" / commit)
    code = (
        "from rlmemo.policies.registry import make_policy; from rlmemo.model.hub import check_model;"
        "check_model('nobody/tiny'); print(make_policy('text:nobody/tiny').model.reading.kind)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "text", done.stderr


def test_runs_from_before_there_were_two_wordings_go_on_with_theirs(tmp_path: Path) -> None:
    from rlmemo.learning.config import make_config, of_run
    from rlmemo.train import settings_before

    assert make_config({}).loading.prompt == "short"
    assert of_run({"history": 4}, "config.yaml").loading.prompt == "long"
    assert of_run({"prompt": "short"}, "config.yaml").loading.prompt == "short"
    (tmp_path / "config.yaml").write_text("settings:\n  history: 4\n")
    assert settings_before(str(tmp_path))["prompt"] == "long"


def test_the_precision_is_known_before_a_model_is_loaded(
    folders: dict[tuple[str, bool], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in the file, so that a resumed run can be held to it."""
    from rlmemo.model import precision
    from rlmemo.model.load import load_model

    path = folders["llama", True]
    monkeypatch.setattr(precision, "faster_dtype", lambda: "bfloat16")
    assert precision.chosen_dtype(path) == "float32", "a small model"
    weights = sum(p.numel() for p in load_model(str(path))[0].parameters())
    monkeypatch.setattr(precision, "LARGE", weights)
    assert precision.chosen_dtype(path) == "bfloat16"
    monkeypatch.setattr(precision, "LARGE", weights + 1)
    assert precision.chosen_dtype(path) == "float32"

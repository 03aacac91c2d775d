"""Adapters of every kind: trained, saved, read back as they were, gone on from, and one for each user."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from reward import parse_reward
from rlmemo.learning import adapters
from rlmemo.learning.config import PEFT_KINDS, TrainConfig, make_config
from rlmemo.learning.not_given import LEARNING_RATES
from rlmemo.learning.pairs import KtoExample, Pair
from rlmemo.learning.per_user import Everybody, train_users
from rlmemo.learning.training import Interrupt, Lesson, Stopped
from rlmemo.learning.training_data import States, TrainingData, part_states, prompts
from rlmemo.model import adapters as model_adapters
from rlmemo.model import slots
from rlmemo.model.hub import PROMPTED
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import kind_of, listing, safe_name, user_adapters, weights_file
from tests.training_ground import base_of, lesson_of, small_ground

pytestmark = pytest.mark.usefixtures("light_trainings")

KINDS = list(PEFT_KINDS)
SMALL = {"sft_batch": 8, "dpo_batch": 8, "kto_batch": 8, "lora_rank": 4, "virtual_tokens": 4,
         "checkpoint_steps": 2, "adapter_per_user": False}  # fmt: skip


def config_of(kind: str, **more: Any) -> TrainConfig:
    return make_config({"peft": kind, "method": "sft", **SMALL, **more})


def some_states(count: int = 32) -> States:
    states = part_states(small_ground().split.train)
    return states[np.linspace(100, len(states) - 1, count).astype(int)]


def train(config: TrainConfig, folder: Path, base: Path, stop: int = 0) -> tuple[Any, str]:
    """(the trained model, SHA-256 of its adapter at folder/sft); stop: press Ctrl-C after that update."""
    from rlmemo.learning.sft import run_sft, save_adapter

    folder.mkdir(exist_ok=True)
    interrupt = Interrupt()

    def press(done: int, total: int, values: dict[str, float]) -> None:
        interrupt.asked |= done == stop

    lesson = lesson_of(config, RunFolder(folder), "sft", base, interrupt=interrupt, progress=press)
    model, _ = run_sft(lesson, small_ground(), some_states())
    return model, save_adapter(model, folder / "sft", "embedded")


def untrained(kind: str, path: Path, base: Path, seed: int = 0) -> Any:
    """A fresh adapter that is moved by some noise, so that it does something, saved at `path`."""
    import torch

    from rlmemo.learning.sft import save_adapter

    model = adapters.new_adapter(base_of(base)[0], config_of(kind, seed=seed), 10)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
    save_adapter(model, path, "embedded")
    return model.eval()


def own_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """peft's own forward pass, float64 [B, tokens, vocabulary], learned tokens left out."""
    import torch

    with torch.inference_mode():
        out: np.ndarray = model(input_ids=torch.from_numpy(ids)).logits[:, -ids.shape[1] :].double().numpy()
    return out


@dataclass(frozen=True)
class Learned:
    """What SFT made once for all tests. adapter: its folder, not to be written to."""

    base: Path
    adapter: Path
    model: Any
    digest: str


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Learned]:
    """By kind of adapter."""
    folder = tmp_path_factory.mktemp("learned")

    @cache
    def of(kind: str) -> Learned:
        model, digest = train(config_of(kind), folder / kind, folder / "base")
        return Learned(folder / "base", folder / kind / "sft", model, digest)

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_adapter_is_read_back_as_it_was(
    tmp_path: Path, learned: Callable[[str], Learned], kind: str
) -> None:
    from rlmemo.learning.sft import save_adapter
    from rlmemo.model.ask import plan_logprobs
    from rlmemo.model.load import load_adapted
    from rlmemo.policies.language import LanguagePolicy

    made = learned(kind)
    base, adapter, model = made.base, made.adapter, made.model
    assert kind_of(adapter) == kind
    assert all(p.suffix in (".json", ".safetensors") for p in adapter.iterdir())
    asked = prompts(small_ground(), some_states(20))
    after = load_adapted(str(base), adapter)
    before = plan_logprobs(load_adapted(str(base), None), asked)
    answers = [*slots.LETTER_IDS, slots.END_ID]
    own = own_logits(model.eval(), asked)[:, -1, answers]
    own = own - np.log(np.exp(own).sum(-1, keepdims=True))
    np.testing.assert_allclose(plan_logprobs(after, asked), own, atol=1e-5)
    assert abs(plan_logprobs(after, asked) - before).max() > 1e-4, "it has learned something"
    ranking = LanguagePolicy(after).rank(small_ground().timelines[0], np.arange(50, 90))
    assert np.isfinite(ranking.probability).all()
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5)
    again = adapters.trainable(base_of(base)[0], adapter)
    assert save_adapter(again, tmp_path / "again", "embedded") == made.digest, "nothing is lost on the way"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_adapter(
    tmp_path: Path, learned: Callable[[str], Learned], kind: str
) -> None:
    made = learned(kind)
    assert train(config_of(kind), tmp_path / "two", made.base)[1] == made.digest
    assert train(config_of(kind, seed=1), tmp_path / "three", made.base)[1] != made.digest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adalora", "p-tuning", "prefix", "ia3", "none"])
def test_a_stopped_training_goes_on_exactly(
    tmp_path: Path, learned: Callable[[str], Learned], kind: str
) -> None:
    """AdaLoRA's scores and P-tuning's network are in the checkpoints, though peft leaves them out."""
    whole = learned(kind)
    with pytest.raises(Stopped):
        train(config_of(kind), tmp_path / "cut", whole.base, stop=3)
    assert train(config_of(kind), tmp_path / "cut", whole.base)[1] == whole.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method"), [*((kind, "dpo") for kind in KINDS), ("lora", "kto"), ("prefix", "kto")]
)
def test_preferences_begin_at_the_sft_model_and_move_it(
    tmp_path: Path, learned: Callable[[str], Learned], kind: str, method: str
) -> None:
    from rlmemo.learning.dpo_kto import run_dpo, run_kto
    from rlmemo.learning.sft import save_adapter
    from rlmemo.model.ask import plan_logprobs
    from rlmemo.model.load import load_adapted

    base, sft, states = learned(kind).base, learned(kind).adapter, some_states(32)
    fast = 10 * LEARNING_RATES[kind]["dpo"]
    config = config_of(kind, dpo_lr=fast, kto_lr=fast, dpo_epochs=2, kto_epochs=2)
    folder, asked = RunFolder(tmp_path / "run"), prompts(small_ground(), states)
    folder.path.mkdir()
    rows, lesson = range(len(states)), lesson_of(config, folder, method, base, sft)
    if method == "dpo":
        two = [Pair(r, "a", 0, (), ((0, 0),), 0.0, -1.0, ("none", "top")) for r in rows]
        model, _ = run_dpo(lesson, asked, two)
    else:
        one = [KtoExample(r, "a", 0, p, not p, 1.0, "top") for r in rows for p in ((), ((0, 0),))]
        model, _ = run_kto(lesson, asked, one)
    save_adapter(model, folder.path / method, "embedded")
    first = folder.logged(method)[0]
    if kind != "adalora":  # whose loss has a penalty added
        assert first["loss"] == pytest.approx(math.log(2.0) if method == "dpo" else 0.5, abs=1e-4)
    assert abs(first.get("rewards/margins", 0.0)) < 1e-4, "the reference is the SFT model"
    was, now = (plan_logprobs(load_adapted(str(base), x), asked) for x in (sft, folder.path / method))
    ratio = [(p[:, -1] - p[:, 0]).mean() for p in (was, now)]
    assert ratio[1] > ratio[0], "keeping still was preferred everywhere"


@pytest.mark.parametrize("kind", PROMPTED)
def test_learned_tokens_are_read_as_peft_reads_them(tmp_path: Path, kind: str) -> None:
    import torch

    base = tmp_path / "base"
    model = untrained(kind, tmp_path / "adapter", base)
    read = model_adapters.reading(base_of(base)[0], tmp_path / "adapter")
    ids = prompts(small_ground(), some_states(9))
    own = own_logits(model, ids)
    with torch.inference_mode():
        np.testing.assert_allclose(read(torch.from_numpy(ids)).logits.double().numpy(), own, atol=1e-5)
        # read in two parts, the second on top of the first one's cache
        first = read(torch.from_numpy(ids[:, :20]), use_cache=True)
        cache = first.past_key_values
        assert cache.get_seq_length() == 20 + 4
        rest = read(torch.from_numpy(ids[:, 20:]), past_key_values=cache, use_cache=True).logits
        np.testing.assert_allclose(rest.double().numpy(), own[:, 20:], atol=1e-5)
        # a shorter text beside a longer one, padded on the left
        padded = ids[:2].copy()
        padded[1] = np.concatenate([np.zeros(7, np.int64), ids[1, :-7]])
        mask = np.ones_like(padded)
        mask[1, :7] = 0
        place = (mask.cumsum(1) - 1).clip(0)
        out = (
            read(
                torch.from_numpy(padded),
                attention_mask=torch.from_numpy(mask),
                position_ids=torch.from_numpy(place),
            )
            .logits.double()
            .numpy()
        )
        np.testing.assert_allclose(out[0], own[0], atol=1e-5)
        np.testing.assert_allclose(out[1, 7:], own[1, :-7], atol=1e-5)


@pytest.mark.parametrize("kind", ["prefix", "prompt", "dora", "ia3", "adalora"])
def test_propensities_are_those_of_pefts_own_forward(tmp_path: Path, kind: str) -> None:
    from rlmemo.model.ask import sample_plans

    base = tmp_path / "base"
    model = untrained(kind, tmp_path / "adapter", base)
    read = model_adapters.reading(base_of(base)[0], tmp_path / "adapter")
    ids = prompts(small_ground(), some_states(24))
    rng = np.random.default_rng(0)
    valid = rng.random((len(ids), slots.SLATE_SIZE)) < 0.7
    said = sample_plans(read, ids, valid, 3, 1.0, rng)
    assert (said.place >= 0).any()
    for d, prompt in enumerate(ids):
        picks = [(int(p), int(b)) for p, b in zip(said.place[d], said.delay[d], strict=True) if p >= 0]
        tokens = slots.plan_ids(picks)
        if len(picks) == 3:
            tokens = tokens[:-1]
        logits = own_logits(model, np.array([prompt.tolist() + tokens]))[0, len(prompt) - 1 :]
        total, before = 0.0, -1
        for step, token in enumerate(tokens):
            allowed = slots.DELAY_IDS.tolist()
            if token not in allowed:
                places = [p for p in range(before + 1, slots.SLATE_SIZE) if valid[d, p]]
                allowed = [*slots.LETTER_IDS[places].tolist(), slots.END_ID]
                before = token - int(slots.LETTER_IDS[0])
            row = logits[step, allowed]
            total += float(row[allowed.index(token)] - np.log(np.exp(row).sum()))
        assert said.logp[d] == pytest.approx(total, abs=1e-4)


def test_adalora_shares_out_its_ranks(learned: Callable[[str], Learned]) -> None:
    settings = json.loads((learned("adalora").adapter / "adapter_config.json").read_text())
    ranks = [sum(mask) for mask in settings["rank_pattern"].values()]
    assert sum(ranks) <= 4 * len(ranks) < 6 * len(ranks), "from one and a half times the rank to the rank"
    assert len(set(ranks)) > 1, "not everywhere the same"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"peft": "lroa"}, "did you mean 'lora'"),
        ({"peft": "none", "adapter_per_user": True}, "needs an adapter"),
        ({"virtual_tokens": 0}, "1 or more"),
        ({"adapter_per_user": "perhaps"}, "true or false"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_config(values)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_last_layers_alone_are_changed(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "base"
    model = adapters.new_adapter(base_of(base)[0], config_of(kind, lora_layers=1), 10)
    changed = {n.split(".layers.")[1].split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert changed == {str(base_of(base)[0].config.num_hidden_layers - 1)}
    every = adapters.new_adapter(base_of(base)[0], config_of(kind), 10)
    assert adapters.count(every)[0] > adapters.count(model)[0]


def test_each_kind_has_its_learning_rates() -> None:
    assert set(LEARNING_RATES) == set(PEFT_KINDS)
    for kind, rates in LEARNING_RATES.items():
        assert make_config({"peft": kind}).sft_lr == rates["sft"]
        assert make_config({"peft": kind, "sft-lr": 0.5}).sft_lr == 0.5, "what is given counts"
    assert TrainConfig().sft_lr == LEARNING_RATES["lora"]["sft"]
    assert TrainConfig().user_lr == LEARNING_RATES["lora"]["user"]


@pytest.mark.parametrize("damage", ["weights", "config", "kind", "nothing"])
def test_a_damaged_adapter_is_refused_in_a_line(tmp_path: Path, damage: str) -> None:
    base, path = tmp_path / "base", tmp_path / "adapter"
    untrained("prefix", path, base)
    file = path / "adapter_config.json"
    if damage == "weights":
        (path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    elif damage == "config":
        file.write_text("{")
    elif damage == "kind":
        file.write_text(json.dumps({**json.loads(file.read_text()), "peft_type": "VERA"}))
    else:
        for each in path.iterdir():
            each.unlink()
    with pytest.raises(InputError, match="adapter"):
        model_adapters.reading(base_of(base)[0], path)


NAMES = [
    "../../etc/passwd",
    "a/b",
    "a b",
    "A B",
    "",
    ".",
    "..",
    "日本語",
    "ü",
    "x" * 5000,
    "\ud800",
    "nul\0",
    "c:\\d",
]


def test_any_user_name_is_a_folder_name() -> None:
    made = [safe_name(n) for n in NAMES]
    assert len({m.lower() for m in made}) == len(NAMES)
    for name in made:
        assert len(name) <= 50
        assert name == Path(name).name
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def renamed(ground: TrainingData, names: list[str]) -> TrainingData:
    """The same ground, its users called otherwise."""
    made = [copy.copy(t) for t in ground.timelines]
    for timeline, name in zip(made, names, strict=True):
        object.__setattr__(timeline, "user", name)
    return TrainingData(made, ground.slates, ground.costs, ground.world, ground.split)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "adalora", "prefix"])
def test_users_have_adapters_of_their_own(tmp_path: Path, kind: str) -> None:
    from rlmemo.model.load import load_adapted, load_model
    from rlmemo.model.switching import Switching
    from rlmemo.policies.language import LanguagePolicy
    from rlmemo.runs.atomic import folder_atomic

    base_of(tmp_path / "base")
    names = ["../Anna\0", "ünï/" + "x" * 300]
    ground = renamed(small_ground(), names)
    config = config_of(
        kind, adapter_per_user=True, user_states=40, user_epochs=1, model=str(tmp_path / "base")
    )
    run = RunFolder(tmp_path / "run")
    model, shared = train(config, run.path, tmp_path / "base")
    with folder_atomic(run.path / "adapter") as part:
        adapters.save(model, part, config.model)
    nobody = States(np.zeros(0, np.int64), np.zeros(0, np.int64))
    everybody = Everybody(ground, parse_reward("net_seconds"), nobody, [])
    found = train_users(Lesson(config, run, "users", run.path / "adapter"), everybody)
    made = user_adapters(run.path)
    assert [a.user for a in made] == sorted(names)
    assert found["users"] == 2
    assert all(a.path.parent == run.path / "adapters" for a in made)
    files = {a.user: a.path for a in made}
    digests = {u: sha256(weights_file(p)) for u, p in files.items()}
    assert len({shared, *digests.values()}) == 3
    shown = listing(run.path)
    assert "\0" not in shown
    assert len(shown.splitlines()) == 4

    indices = np.arange(60, 100)
    timeline = ground.timelines[0]
    alone = {
        u: LanguagePolicy(load_adapted(config.model, p)).rank(timeline, indices).probability
        for u, p in {**files, "somebody else": run.path / "adapter"}.items()
    }
    for merged in (True, False):
        switch = Switching(load_model(config.model)[0], run.path / "adapter", files, merged)
        policy = LanguagePolicy(switch)
        first: dict[str, np.ndarray] = {}
        for user in (*alone, *reversed(alone)):
            mine = renamed(ground, [user, "other"]).timelines[0]
            p = policy.rank(mine, indices).probability
            np.testing.assert_allclose(p, alone[user], atol=1e-5)
            np.testing.assert_array_equal(p, first.setdefault(user, p), "a switch leaves no trace")
        assert len({p.tobytes() for p in first.values()}) == 3
        streams = {
            u: policy.stream(renamed(ground, [u, "other"]).timelines[0]) for u in [*files, "somebody else"]
        }
        for user, ask in streams.items():  # in turn, each still with its own
            np.testing.assert_allclose(ask(60).probability[0], alone[user][0], atol=1e-5)


@pytest.mark.slow
def test_a_users_adapter_sees_that_user_alone(tmp_path: Path) -> None:
    """Whatever the other user did, the adapter has the same SHA-256; and an interrupted stage goes on."""
    from rlmemo.runs.atomic import folder_atomic

    base_of(tmp_path / "base")
    config = config_of(
        "lora", adapter_per_user=True, user_states=40, user_epochs=1, model=str(tmp_path / "base")
    )
    model, _ = train(config, tmp_path / "trained", tmp_path / "base")
    ground, digests = small_ground(), []
    nobody = States(np.zeros(0, np.int64), np.zeros(0, np.int64))
    other = TrainingData(
        [ground.timelines[0], ground.timelines[0]], [ground.slates[0]] * 2, [ground.costs[0]] * 2,
        ground.world, type(ground.split)(
            "chrono", *[[part[0], part[0]] for part in
                        (ground.split.train, ground.split.validation, ground.split.test)]
        ),
    )  # fmt: skip
    for k, world in enumerate((renamed(ground, ["a", "b"]), renamed(other, ["a", "b"]))):
        run = RunFolder(tmp_path / f"run{k}")
        with folder_atomic(run.path / "adapter") as part:
            adapters.save(model, part, config.model)
        said: list[int] = []
        everybody = Everybody(world, parse_reward("net_seconds"), nobody, [])
        lesson = Lesson(config, run, "users", run.path / "adapter")
        train_users(replace(lesson, progress=lambda n, *_, said=said: said.append(n)), everybody)
        before = {a.user: a.path.stat().st_mtime_ns for a in user_adapters(run.path)}
        train_users(lesson, everybody)
        assert {a.user: a.path.stat().st_mtime_ns for a in user_adapters(run.path)} == before, (
            "not done again"
        )
        digests.append({a.user: a.about["adapter_sha256"] for a in user_adapters(run.path)})
    assert digests[0]["a"] == digests[1]["a"]
    assert digests[0]["b"] != digests[1]["b"]


def test_a_damaged_user_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no adapter"):
        listing(tmp_path)
    (tmp_path / "adapters" / "anna-1").mkdir(parents=True)
    (tmp_path / "adapters" / "anna-1" / "user.json").write_text('{"user": "bert"}')
    with pytest.raises(InputError, match="is damaged"):
        user_adapters(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind"), [("dpo", "lora")])
def test_a_whole_run_with_an_adapter_per_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, kind: str
) -> None:
    """From the command line to the benchmark: the run's policy reads each user with their own adapter."""
    from rlmemo.benchmark import main as benchmark
    from rlmemo.policies.registry import make_policy
    from rlmemo.train import main

    base_of(tmp_path / "base")
    rng, rows, t = np.random.default_rng(0), ["user,t,target"], 1.7e9
    for user in ("../ä", "x/y"):
        for i in range(300):
            t += float(rng.exponential(120.0)) + 2.0
            rows.append(f"{user},{t:.1f},app{i % 9 if rng.random() < 0.8 else rng.integers(14)}")
    csv, run = tmp_path / "two.csv", tmp_path / "run"
    csv.write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = ["--timelines", str(csv), "--tz", "UTC"]
    small = {
        "model": tmp_path / "base", "method": method, "peft": kind, "sft-states": 64, "sft-batch": 8,
        "plan-states": 80, "plan-samples": 2, "dpo-pairs": 96, "kto-plans": 96, "dpo-batch": 16,
        "kto-batch": 16, "lora-rank": 2, "virtual-tokens": 2, "user-epochs": 1, "margin": 0.001,
        "policies": "mru",
    }  # fmt: skip
    main([*options, "--out", str(run), "--adapter-per-user", *(f"--{k}={v}" for k, v in small.items())])
    made = user_adapters(run)
    assert [a.user for a in made] == ["../ä", "x/y"]
    assert all(a.about["what"] == ("pairs" if method == "dpo" else "plans") for a in made)
    report = json.loads((run / "report.json").read_text())
    assert report["in_charge"]["learned"] == "users"
    assert set(report["policies"]) == {"mru", "base", "sft", method, "users"}
    plan = json.loads((run / "adapter" / "plan.json").read_text())
    plan.pop("stage", None)  # what they learned is in charge, whatever came of so little
    (run / "adapter" / "plan.json").write_text(json.dumps(plan))
    assert not list((run / "checkpoints").glob("user-*")), "nothing is left lying about"
    capsys.readouterr()
    main(["--list-adapters", str(run)])
    assert capsys.readouterr().out.count("adapters/") == 2
    for a in made:  # both in use, so that the switch is seen to matter
        (a.path / "user.json").write_text(json.dumps({**a.about, "in_use": True}))
    policy: Any = make_policy(str(run))
    assert set(policy.source.adapters) == {"../ä", "x/y"}
    file = tmp_path / "b.json"
    benchmark([*options, "--policies", f"mru,{run}", "--json", str(file), "--quiet", "--draws", "20"])
    assert "run" in json.loads(file.read_text())["policies"]

"""Streaming says what the batch path says, and both what `transformers` says; nothing is read twice.

Tolerances: float32 sums in another order, 1e-5 in logits and probabilities; bfloat16 keeps eight bits of a
number, and a logit of this size may differ by some hundredths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.slate.slate import SLATE_SIZE
from env.timeline import Event, Timeline, collapse
from rlmemo.policies.protocol import StreamingPolicy, stream_of
from tests.tiny_text_model import write_text_model


def timeline(seed: int = 0, n: int = 90, targets: int = 20) -> Timeline:
    rng = np.random.default_rng(seed)
    t = 1.7e9 + np.cumsum(rng.exponential(900, n))
    which = (rng.zipf(1.5, n) - 1) % targets
    names = [f"app {k}" if k % 2 else f"p{k}.example.com" for k in range(targets)]
    kinds = ["app" if k % 2 else "page" for k in range(targets)]
    events = [Event(float(a), names[b], kinds[b]) for a, b in zip(t, which, strict=True)]
    return collapse(Timeline.from_events("u", events, tz="Europe/Berlin"))


@pytest.fixture(scope="module")
def embedded() -> Any:
    from rlmemo.model.load import load_model

    return load_model()[0]


def text_model(folder: Path, **given: Any) -> Any:
    from rlmemo.model.load import load_model

    return load_model(str(write_text_model(folder, **given)))[0]


def same(policy: Any, made: Timeline, indices: np.ndarray) -> None:
    """Asks a policy both ways."""
    assert isinstance(policy, StreamingPolicy)
    ask, whole = stream_of(policy, made), policy.rank(made, indices)
    for row, i in enumerate(indices.tolist()):
        one = ask(i)
        np.testing.assert_allclose(one.probability[0], whole.probability[row], atol=1e-5)
        np.testing.assert_allclose(one.none[0], whole.none[row], atol=1e-5)
        # Candidates whose probabilities are equal up to rounding may change places.
        apart = np.diff(whole.probability[row], prepend=2.0, append=-1.0) < -2e-5
        clear = apart[:-1] & apart[1:]
        np.testing.assert_array_equal(one.targets[0][clear], whole.targets[row][clear])
        if whole.delay_s is not None:
            assert one.delay_s is not None
            assert one.delay_s[0] == pytest.approx(whole.delay_s[row])
        if whole.when is not None:
            assert one.when is not None
            assert one.when_edges_s == whole.when_edges_s
            np.testing.assert_allclose(one.when[0], whole.when[row], atol=1e-5)


def test_the_embedded_model_streams_what_it_says_in_batches(embedded: Any) -> None:
    from rlmemo.policies.language import LanguagePolicy

    made = timeline()
    same(LanguagePolicy(embedded), made, np.arange(len(made)))
    same(LanguagePolicy(embedded), made, np.array([3, 4, 40, 41, 70]))


@pytest.mark.parametrize(("kind", "chat"), [("qwen3", True), ("llama", False)])
def test_a_text_model_streams_what_it_says_in_batches(tmp_path: Path, kind: str, chat: bool) -> None:
    from rlmemo.policies.language import LanguagePolicy

    made = timeline(1)
    model = text_model(tmp_path, kind=kind, chat=chat)
    same(LanguagePolicy(model), made, np.arange(len(made)))  # passes the cuts of the history at 63 and 95


def test_a_live_recording_needs_no_timeline(embedded: Any) -> None:
    from rlmemo.model.streaming import Following
    from rlmemo.policies.language import LanguagePolicy

    made = timeline(2)
    following = Following(embedded, made.tz)
    with pytest.raises(ValueError, match="no event"):
        following.rank()
    for event in made:
        following.see(event.t, event.target, event.kind == "page")
    whole = LanguagePolicy(embedded).rank(made, np.array([len(made) - 1]))
    now = following.rank()
    np.testing.assert_allclose(now.probability, whole.probability, atol=1e-5)
    assert [following.names[x] for x in now.targets[0]] == [made.names[x] for x in whole.targets[0]]


@pytest.mark.parametrize("kind", ["slots", "text"])
def test_a_streamed_plan_is_the_plan_that_is_made_in_batches(
    embedded: Any, tmp_path: Path, kind: str
) -> None:
    from rlmemo.model.ask import sample_plans
    from rlmemo.model.readings import reading_of
    from rlmemo.model.streaming import Following

    model = embedded if kind == "slots" else text_model(tmp_path)
    made, rng = timeline(3), np.random.default_rng(0)
    following, said = Following(model, made.tz), 0
    for i, event in enumerate(made):
        following.see(event.t, event.target, event.kind == "page")
        warm, free = rng.integers(0, 3, SLATE_SIZE), float(rng.random())
        one = following.plan(warm, free, temperature=1.0, rng=np.random.default_rng(i))
        slates = reading_of(model).look(made, np.array([i]))
        prompts = reading_of(model).prompts(made, slates, np.array([i]), warm[None], np.array([free]))
        np.testing.assert_array_equal(following.prompt(warm, free), prompts)
        valid = (slates.candidates[[i]] >= 0) & (warm[None] == 0)
        whole = sample_plans(model, prompts, valid, 3, 1.0, np.random.default_rng(i))
        np.testing.assert_array_equal(one.place, whole.place)
        np.testing.assert_array_equal(one.delay, whole.delay)
        np.testing.assert_allclose(one.logp, whole.logp, atol=1e-4)
        said += int((one.place >= 0).sum())
    assert said > 10


def test_what_has_come_cannot_be_asked_as_if_it_had_not(embedded: Any) -> None:
    from rlmemo.policies.language import LanguagePolicy

    ask = stream_of(LanguagePolicy(embedded), timeline())
    first = ask(5)
    np.testing.assert_array_equal(ask(5).targets, first.targets)
    with pytest.raises(ValueError, match="decision 4"):
        ask(4)


@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
def test_the_lean_pass_is_that_of_transformers(heads: tuple[int, int]) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rlmemo.model import forward, small_qwen3

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=300, hidden_size=48, intermediate_size=80, num_hidden_layers=3, head_dim=16,
        num_attention_heads=heads[0], num_key_value_heads=heads[1], tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    for parameter in model.parameters():  # norms of 1 would hide a forgotten one
        torch.nn.init.normal_(parameter, 0.3 if parameter.dim() == 1 else 0.0, 0.3)
    assert not small_qwen3.fits(model)  # it is being trained
    model.eval()
    assert small_qwen3.fits(model)
    prompts = np.random.default_rng(0).integers(0, 300, (70, 33))
    ids = torch.from_numpy(prompts)
    with torch.inference_mode():
        theirs = model(input_ids=ids, logits_to_keep=3).logits
        assert float(theirs.abs().max()) > 1.0
        torch.testing.assert_close(small_qwen3.logits(model, ids, 3), theirs, atol=2e-4, rtol=1e-4)
        going = forward.begin(model, prompts, cache=True)
        going.more(prompts[:, 0])
        longer = model(input_ids=torch.cat([ids, ids[:, :1]], dim=1), logits_to_keep=1).logits
        torch.testing.assert_close(going.logits, longer, atol=2e-4, rtol=1e-4)
    model.model.layers[1].register_forward_pre_hook(lambda module, args: None)
    assert not small_qwen3.fits(model)


def test_the_weights_alone_say_what_the_model_says(embedded: Any, tmp_path: Path) -> None:
    from env.errors import InputError
    from rlmemo.model.hub import model_folder
    from rlmemo.model.small_qwen3 import read_bare
    from rlmemo.policies.language import LanguagePolicy

    made = timeline(5)
    bare = LanguagePolicy(read_bare(model_folder("embedded")))
    one, other = (x.rank(made, np.arange(len(made))) for x in (bare, LanguagePolicy(embedded)))
    np.testing.assert_allclose(one.probability, other.probability, atol=2e-6)  # (elsewhere in memory: 1e-6)
    np.testing.assert_allclose(one.none, other.none, atol=1e-5)
    same(bare, made, np.arange(len(made)))
    for told, expected in zip(
        bare.soon(made, np.arange(9)), LanguagePolicy(embedded).soon(made, np.arange(9)), strict=True
    ):
        np.testing.assert_array_equal(told, expected)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="cannot be read"):
        read_bare(tmp_path)


def test_who_is_opened_soon_is_streamed_as_in_batches(embedded: Any) -> None:
    from rlmemo.model.streaming import Following
    from rlmemo.policies.language import LanguagePolicy

    made = timeline(6)
    targets, chance = LanguagePolicy(embedded).soon(made, np.arange(len(made)))
    following = Following(embedded, made.tz, keeps=True)
    for i, event in enumerate(made):
        following.see(event.t, event.target, event.kind == "page")
        found = following.soon()
        np.testing.assert_array_equal(found[0][0], targets[i])
        np.testing.assert_array_equal(found[1][0], chance[i])
    with pytest.raises(ValueError, match="keep"):
        Following(embedded, made.tz).soon()


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_branches_are_what_reading_each_alone_says(kind: str, dtype: str, near: float) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    from rlmemo.model.branching import Reader, Story, can_branch

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    }  # fmt: skip
    model = (
        Qwen3ForCausalLM(Qwen3Config(**shape)) if kind == "qwen3" else LlamaForCausalLM(LlamaConfig(**shape))
    )
    model = model.to(getattr(torch, dtype)).eval()
    assert can_branch(model)

    def alone(ids: np.ndarray, last: int) -> Any:
        with torch.inference_mode():
            return model(input_ids=torch.from_numpy(ids)[None], logits_to_keep=last).logits.float()

    rng = np.random.default_rng(0)
    history = rng.integers(0, 200, 700)  # more than the first room, so that it has to grow
    questions, own = [rng.integers(0, 200, n) for n in (5, 17, 9, 1)], [40, 700, 77, 700]
    story = Story(model)
    story.append(history[:300])
    story.append(history[300:])
    said = story.ask(questions, own, last=1)
    scale = float(said.abs().max())
    for row, (question, n) in enumerate(zip(questions, own, strict=True)):
        expected = alone(np.concatenate([history[:n], question]), 1)
        torch.testing.assert_close(said[row : row + 1], expected, atol=near * scale, rtol=0.0)
    story.crop(690)
    torch.testing.assert_close(
        story.step(history[690:], questions[1], last=2),
        alone(np.concatenate([history, questions[1]]), 2), atol=near * scale, rtol=0.0,
    )  # fmt: skip
    assert model.config._attn_implementation == "sdpa"

    reader, width = Reader(model), 760
    rows = [np.concatenate([history[:n], q]) for n, q in zip((650, 655, 700), questions, strict=False)]
    prompts = np.stack([np.concatenate([np.full(width - len(r), -1), r]) for r in rows])
    for asked in (prompts[:1], prompts[:2], prompts, prompts[1:2], prompts[2:], prompts[::-1]):
        together = reader.read(asked, 1)
        for row, ids in zip(together, asked, strict=True):
            torch.testing.assert_close(row[None], alone(ids[ids >= 0], 1), atol=near * scale, rtol=0.0)


def test_what_a_prompt_shares_with_the_last_one_is_not_read_again(tmp_path: Path) -> None:
    from rlmemo.model.streaming import Following

    made, model = timeline(4), text_model(tmp_path)
    following = Following(model, made.tz)
    read: list[int] = []
    model.model.embed_tokens.forward = _counting(model.model.embed_tokens.forward, read)
    before, fresh = np.zeros(0, np.int64), []
    for event in made:
        following.see(event.t, event.target, event.kind == "page")
        now = following.prompt()[0]
        following.rank()
        n = min(len(before), len(now))
        fresh.append(len(now) - int((before[:n] == now[:n]).argmin() if n else 0))
        before = now
    assert read == fresh
    assert sum(read[32:62]) < 30 * len(before)  # the history of that time, and no cut in it


def _counting(forward: Any, read: list[int]) -> Any:
    def counted(ids: Any) -> Any:
        read.append(ids.numel())
        return forward(ids)

    return counted


def test_precision_is_chosen_for_large_text_models_only(tmp_path: Path, embedded: Any) -> None:
    import torch

    from rlmemo.model import precision
    from rlmemo.model.hub import Loading
    from rlmemo.model.load import load_adapted
    from rlmemo.policies.language import LanguagePolicy

    write_text_model(tmp_path)
    assert load_adapted(str(tmp_path), None).dtype == torch.float32  # small, so nothing is gained
    halved = load_adapted(str(tmp_path), None, Loading(dtype="bfloat16"))
    assert halved.dtype == torch.bfloat16
    assert load_adapted("embedded", None, Loading(dtype="bfloat16")).dtype == torch.float32
    assert precision.faster_dtype() == ("bfloat16" if precision.bfloat16_gain() >= 1.2 else "float32")
    made, rows = timeline(), np.arange(40, 60)
    full = LanguagePolicy(load_adapted(str(tmp_path), None)).rank(made, rows)
    rough = LanguagePolicy(halved).rank(made, rows)
    np.testing.assert_allclose(rough.none, full.none, atol=0.02)

"""Packed training: rows that begin alike are read once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.sources import load_timelines
from env.splits import chrono
from experiments.packed_prompt import called, tokens_a_state
from rlmemo.learning.config import make_config
from rlmemo.learning.training_data import TrainingData, part_states, sft_examples
from rlmemo.model.branching import attended
from rlmemo.model.load import reading_for
from rlmemo.model.packed_attention import packed_attention
from rlmemo.model.packing import NAME, can_pack, masked_attention, neighbours, pack, train_packed
from tests.tiny_text_model import write_text_model

HEAD = [7, 8, 9, 10, 11]
ROWS = [
    [*HEAD, 20, 21, 30, 31, 40],
    [*HEAD, 20, 21, 22, 30, 33, 41, 42],
    [*HEAD, 20, 21, 22, 30, 33, 43],  # the same question, another answer
    [*HEAD, 20, 21, 22, 23, 24, 30, 35, 40],
    [9, 9, 50, 51],  # nobody's neighbour
    [*HEAD, 20, 21, 30, 31, 40],  # once more
]


def rows() -> list[np.ndarray]:
    return [np.array(x, np.int64) for x in ROWS]


def test_every_row_stands_in_the_pack_once_and_in_order() -> None:
    held = pack(rows())
    for row, place in zip(rows(), held.place, strict=True):
        assert (held.ids[place] == row).all()
        assert (held.position[place] == np.arange(len(row))).all()
        assert (np.diff(place) > 0).all()
    assert len(held.ids) == 13 + 4 + 1 + 3 + 4, "the longest, and of each other what no row before it had"
    assert [s.first for s in held.segments[1:]] == [s.stop for s in held.segments[:-1]]


def test_a_token_sees_its_own_row_and_nothing_else() -> None:
    held = pack(rows())
    for place in held.place:
        for n, at in enumerate(place):
            segment = next(s for s in held.segments if s.first <= at < s.stop)
            before = [x for s in segment.before for x in range(s.start, s.stop)]
            assert [*before, *range(segment.first, at + 1)] == place[: n + 1].tolist()


def test_neighbours_stand_together() -> None:
    padded = np.full((len(ROWS), 14), -1, np.int64)
    for i, row in enumerate(ROWS):
        padded[i, 14 - len(row) :] = row
    drawn = [neighbours(padded, 5, seed).tolist() for seed in range(8)]
    for order in drawn:
        assert sorted(order) == list(range(len(ROWS)))
        assert {0, 5} in [set(order[i : i + 2]) for i in range(5)], "the same prompt twice"
        assert order[0] == 4 or order[-1] == 4, "who is alone goes alone"
    assert len({tuple(order) for order in drawn}) == 2, "whose turn it is, is drawn"


def model_of(tmp_path: Path, kind: str, adapter: bool) -> Any:
    """A tiny model with TRL's head on it, and an adapter that does something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    if not (tmp_path / "config.json").exists():
        write_text_model(tmp_path, kind=kind)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if adapter:
        torch.manual_seed(3)
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    return model.train()


def batch(labelled: int = 2) -> dict[str, Any]:
    """The rows as TRL gives them: padded to the right, labels on the last tokens."""
    import torch

    width = max(map(len, ROWS))
    ids = torch.zeros(len(ROWS), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(ROWS):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, len(row) - labelled : len(row)] = ids[i, len(row) - labelled : len(row)]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False}


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "lora"])
def test_a_pack_says_what_every_row_says_alone_and_teaches_the_same(
    tmp_path: Path, kind: str, adapter: bool
) -> None:
    import torch

    def step(packed: bool) -> tuple[Any, dict[str, Any]]:
        model = model_of(tmp_path, kind, adapter)
        if packed:
            train_packed(model, None)
        out = model(**batch(), fused_lm_head=True)
        (out.log_probs[:3].sum() - 0.5 * out.log_probs[3:].sum()).backward()
        return out, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    alone, wants = step(False)
    found, gives = step(True)
    assert found.log_probs.shape == alone.log_probs.shape
    assert (alone.log_probs != 0).sum() == 2 * len(ROWS)
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        assert torch.allclose(getattr(found, name).float(), getattr(alone, name).float(), atol=2e-5), name
    assert torch.isclose(found.loss, alone.loss, atol=1e-5)
    assert wants.keys() == gives.keys()
    assert len(wants) > 10
    for name, grad in wants.items():
        assert torch.allclose(grad, gives[name], atol=2e-5), name


def test_its_own_way_back_is_that_of_pytorch() -> None:
    """Where heads share keys, and in the precision that it is for."""
    import torch

    held = pack(rows())
    torch.manual_seed(0)
    heads = {"q": 6, "k": 2, "v": 2}
    made = {x: torch.randn(n, len(held.ids), 8) for x, n in heads.items()}
    told = torch.randn(6, len(held.ids), 8)

    def step(dtype: Any, plain: bool) -> list[Any]:
        q, k, v = (made[x].to(dtype, copy=True).requires_grad_() for x in heads)
        if plain:
            parts = []
            for s in held.segments:
                seen = [*s.before, slice(s.first, s.stop)]
                keys, values = (torch.cat([x[:, part] for part in seen], dim=1) for x in (k, v))
                parts.append(attended(q[:, s.first : s.stop], keys, values, 0.3))
            out = torch.cat(parts, dim=1)
        elif dtype == torch.float64:
            out = masked_attention(q, k, v, held, 0.3)
        else:
            out = packed_attention(q, k, v, held.segments, 0.3)
        out.backward(told.to(dtype))
        return [out.detach(), q.grad, k.grad, v.grad]

    wants = step(torch.float32, True)
    for want, found in zip(wants, step(torch.float32, False), strict=True):
        assert torch.allclose(want, found, atol=1e-5)
    for want, found in zip(wants, step(torch.float64, False), strict=True):  # as a GPU does it
        assert torch.allclose(want.double(), found, atol=1e-5)
    for want, found in zip(wants, step(torch.bfloat16, False), strict=True):
        assert (want - found.float()).abs().max() < 0.02 * want.abs().max()


def test_activations_that_are_computed_twice_teach_the_same(tmp_path: Path) -> None:
    """On a GPU: attention is looked up again on the way back, and must still know the pack."""
    import torch

    grads = []
    for twice in (False, True):
        model = model_of(tmp_path, "llama", True)
        train_packed(model)
        if twice:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**batch(), fused_lm_head=True).log_probs.sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 10
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_what_is_not_trained_reads_as_ever(tmp_path: Path) -> None:
    import torch

    model = model_of(tmp_path, "llama", False).eval()
    given = {k: v for k, v in batch().items() if k != "labels"}
    with torch.inference_mode():
        before = model(**given).logits
        train_packed(model)
        assert model.config._attn_implementation == NAME
        after = model(**given).logits
    real = given["attention_mask"].bool()
    assert torch.allclose(before[real], after[real], atol=1e-6)


def test_others_are_left_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_text_model(tmp_path, kind="gpt2")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not can_pack(model)
    before = model.forward
    train_packed(model)
    assert model.forward == before


def test_what_a_default_run_reads_is_what_its_trainer_is_given(tmp_path: Path) -> None:
    """Counted by hand on a recording of one pack: every other state with what is in memory, answers apart."""
    model, opens = str(write_text_model(tmp_path / "model", kind="llama")), tmp_path / "opens.csv"
    lines = [f"ada,{1.7e9 + 400 * k:.0f},{'abcdefg'[k * k % 7]}pp.org" for k in range(24)]
    opens.write_text("user,t,target\n" + "\n".join(lines) + "\n")
    found = tokens_a_state(model, str(opens), "")
    config = make_config({"model": model, "timelines": str(opens)})
    timelines = load_timelines(str(opens)).timelines
    split, how = chrono(timelines), reading_for(model, config.loading)
    data = TrainingData.prepare(timelines, split, config.world.cost_model(), config.world.rules(), how)
    made, inputs, _ = sft_examples(data, part_states(split.train), config.seed)
    assert 2 < found["states"] == len(made) <= 16
    assert found["tokens"] == round(len(pack([x[x >= 0] for x in made]).ids) / len(made), 1)
    whole = len(pack([np.array(x, np.int64) for x in inputs]).ids)
    assert found["tokens_with_answers"] == round(whole / len(made), 1) > found["tokens"]
    other = called(timelines[0], "chinese", np.random.default_rng(0))
    assert len(set(other.names)) == len(other.names) == len(timelines[0].names)
    assert not any(x[0].isascii() for x in other.names)
    assert (other.target == timelines[0].target).all()

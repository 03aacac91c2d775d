"""What the trainers are given is what the model reads, and they move it where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlmemo.learning.config import make_config
from rlmemo.learning.dpo_kto import plan_text, run_dpo, run_kto
from rlmemo.learning.pairs import KtoExample, Pair
from rlmemo.learning.training_data import answers, draw, part_states, prompts, sft_examples
from rlmemo.model import slots
from rlmemo.runs.folder import RunFolder
from tests.training_ground import base_of, lesson_of, small_ground


def quiet_progress(done: int, total: int, values: dict[str, float]) -> None:
    """Says nothing."""


def test_text_comes_back_as_the_same_tokens(tmp_path: Path) -> None:
    _, tokenizer = base_of(tmp_path / "base")
    states = part_states(small_ground().split.train)
    made = prompts(small_ground(), states[::50])
    for prompt in made:
        for plan in ((), ((0, 0),), ((1, 3), (4, 0), (11, 2))):
            ids = tokenizer(slots.text_of(prompt) + plan_text(plan))["input_ids"]
            assert ids == [*prompt.tolist(), *slots.plan_ids(list(plan))]


def test_sft_learns_from_the_answer_alone() -> None:
    ground = small_ground()
    states = part_states(ground.split.train)[50:150]
    made, inputs, labels = sft_examples(ground, states)
    right = answers(ground, states)
    assert (right.place < 0).any()
    assert (right.place >= 0).any()
    for row in range(len(states)):
        length = slots.PROMPT_LENGTH
        assert inputs[row][:length] == made[row].tolist()
        asked = labels[row][slots.LEAVE_AT]
        assert asked == slots.WHEN_IDS[right.when[row]], "asked of <when>, one token before"
        assert [x for k, x in enumerate(labels[row][:length]) if k != slots.LEAVE_AT] == [-100] * (length - 1)
        assert labels[row][length:] == inputs[row][length:]
        place = int(right.place[row])
        expected = [(place, int(right.delay[row]))] if place >= 0 else []
        assert slots.decode_plan(inputs[row][length:]) == expected
        assert len(inputs[row]) < 1024, "nothing is cut off"


def test_the_delay_leaves_time_to_load() -> None:
    ground = small_ground()
    states = part_states(ground.split.train)
    right = answers(ground, states)
    for user, rows in states.by_user():
        timeline, index = ground.timelines[user], states.index[rows]
        gap = timeline.t[index + 1] - timeline.t[index]
        load = ground.costs[user].load_s[timeline.target[index + 1]]
        start = np.asarray(ground.world.delays)[right.delay[rows]]
        assert ((start + load <= gap) | (right.delay[rows] == 0)).all()
        kept = start + load + ground.world.ttl_s >= gap
        assert (kept | (start == ground.world.delays[-1])).all(), "not gone by then"
        assert kept.mean() > 0.5


def test_the_model_and_the_world_know_the_same_delays() -> None:
    assert small_ground().world.delays == slots.DELAYS_S


def test_samples_are_apart_while_there_are_enough() -> None:
    states = part_states(small_ground().split.train)
    n = len(states)
    a, b = draw(states, n // 3, n // 3, seed=1)
    key = lambda s: set(zip(s.user.tolist(), s.index.tolist(), strict=True))  # noqa: E731
    assert len(a) == len(b) == n // 3
    assert not key(a) & key(b)
    a, b = draw(states, 10 * n, 50, seed=1)
    assert (len(a), len(b)) == (n, 50)
    assert key(draw(states, 20, 20, seed=2)[0]) != key(draw(states, 20, 20, seed=3)[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_move_the_model(tmp_path: Path, method: str) -> None:
    """Told everywhere that keeping still is better than the first place, it keeps still more often."""
    from rlmemo.learning.sft import run_sft, save_adapter
    from rlmemo.model.ask import plan_logprobs
    from rlmemo.model.load import load_adapted

    ground = small_ground()
    states = part_states(ground.split.train)[100:196]
    base = tmp_path / "base"
    config = make_config(
        {
            "sft_batch": 16, "dpo_batch": 16, "kto_batch": 16, "lora_rank": 4, "dpo_epochs": 2,
            "kto_epochs": 2,
            "dpo_lr": 3e-3, "kto_lr": 3e-3, "checkpoint_steps": 100,
        }
    )  # fmt: skip
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    model, _ = run_sft(lesson_of(config, folder, "sft", base), ground, states)
    save_adapter(model, folder.path / "sft", "embedded")
    made = prompts(ground, states)
    lesson = lesson_of(config, folder, method, base, folder.path / "sft")
    rows = range(len(states))
    if method == "dpo":
        two = [Pair(r, "a", 0, (), ((0, 0),), 0.0, -1.0, ("none", "top")) for r in rows]
        model, _ = run_dpo(lesson, made, two)
    else:
        one = [KtoExample(r, "a", 0, p, not p, 1.0, "top") for r in rows for p in ((), ((0, 0),))]
        model, _ = run_kto(lesson, made, one)
    save_adapter(model, folder.path / method, "embedded")
    before = plan_logprobs(load_adapted(str(base), folder.path / "sft"), made)
    after = plan_logprobs(load_adapted(str(base), folder.path / method), made)
    still, top = after.shape[1] - 1, 0
    assert after[:, still].mean() > before[:, still].mean()
    # the preference is about the two plans' ratio, and that is what moves most
    ratio = [(p[:, still] - p[:, top]).mean() for p in (before, after)]
    assert ratio[1] > ratio[0] + 0.1
    margins = [r["rewards/margins"] for r in folder.logged(method) if "rewards/margins" in r]
    assert margins[-1] > margins[0]

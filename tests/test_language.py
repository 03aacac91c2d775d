"""The language model: round trips, one forward pass, exact propensities, and nothing from the future."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import Plans
from env.slate.slate import SLATE_SIZE, build_slates
from env.timeline import Event, Timeline, collapse
from rlmemo.model import slots


def timeline(seed: int = 0, n: int = 150) -> Timeline:
    rng = np.random.default_rng(seed)
    t = 1.7e9 + np.cumsum(rng.exponential(400, n))
    x = (rng.zipf(1.6, n) - 1) % 25
    return collapse(Timeline.from_events("u", [Event(float(a), f"x{b}") for a, b in zip(t, x, strict=True)]))


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    from rlmemo.model.load import load_model

    return load_model()


def prompts_of(made: Timeline) -> np.ndarray:
    return slots.encode_prompts(build_slates(made), made.target, np.arange(len(made)))


def test_the_tokenizer_reads_back_what_was_written(base: tuple[Any, Any]) -> None:
    _, tokenizer = base
    for row in prompts_of(timeline())[::17]:
        text = slots.text_of(row)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == row.tolist()


def test_the_shipped_vocabulary_is_the_one_in_the_code(base: tuple[Any, Any]) -> None:
    model, tokenizer = base
    assert tokenizer.get_vocab() == slots.ID
    assert model.config.vocab_size >= len(slots.VOCABULARY)


@pytest.mark.parametrize("picks", [[], [(0, 0)], [(3, 2), (11, 1)], [(0, 3), (1, 0), (2, 1)]])
def test_plans_round_trip(picks: list[tuple[int, int]]) -> None:
    assert slots.decode_plan(slots.plan_ids(picks)) == picks


def test_a_plan_is_a_set() -> None:
    assert slots.plan_ids([(5, 1), (2, 0)]) == slots.plan_ids([(2, 0), (5, 1)])


@pytest.mark.parametrize("text", ["A", "A B <end>", "d0 <end>", "A d0", "A d0 A d1 <end>"])
def test_what_is_not_a_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        slots.decode_plan([slots.ID[x] for x in text.split()])


def test_what_is_warm_stands_in_the_prompt() -> None:
    made = timeline()
    slates, rows = build_slates(made), np.array([60])
    warm = np.zeros((1, SLATE_SIZE), np.int8)
    warm[0, 2], warm[0, 5] = 1, 2
    text = slots.text_of(slots.encode_prompts(slates, made.target, rows, warm)[0]).split()
    assert {"C:warm", "F:loading", "A:cold"} <= set(text)


def test_slates_of_another_size_are_refused() -> None:
    made = timeline()
    with pytest.raises(ValueError, match="slates of"):
        slots.encode_prompts(build_slates(made, 5), made.target, np.arange(3))


@pytest.mark.parametrize("cut", [20, 77])
def test_no_event_after_a_decision_reaches_it(base: tuple[Any, Any], cut: int) -> None:
    from rlmemo.policies.language import LanguagePolicy

    one, two = timeline(3), timeline(4)
    mixed = collapse(
        Timeline.from_events(
            "u", [one.event(i) for i in range(cut + 1)] + [e for e in two if e.t > one.t[cut]]
        )
    )
    np.testing.assert_array_equal(prompts_of(one)[: cut + 1], prompts_of(mixed)[: cut + 1])
    policy = LanguagePolicy(base[0])
    indices = np.arange(cut + 1)
    a, b = policy.rank(one, indices), policy.rank(mixed, indices)
    np.testing.assert_array_equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.probability, b.probability)
    world = WorldConfig()
    plans = [
        policy.plan(Case(x, cost_model("desktop").arrays(x), world, 1, cut + 1))
        for x in (one, one.take(np.arange(cut + 2)))
    ]
    np.testing.assert_array_equal(plans[0].target, plans[1].target)


def test_a_ranking_is_a_distribution(base: tuple[Any, Any]) -> None:
    from rlmemo.policies.language import LanguagePolicy

    made = timeline()
    ranking = LanguagePolicy(base[0]).rank(made, np.arange(10, 100))
    np.testing.assert_allclose(ranking.probability.sum(1) + ranking.none, 1.0, atol=1e-5)
    assert (np.diff(ranking.probability, axis=1) <= 1e-7).all()
    assert (ranking.targets[:, 0] != made.target[10:100]).all()
    assert ranking.delay_s is not None
    assert (ranking.delay_s > 0).all()
    assert ranking.when is not None
    assert ranking.when.shape == (90, len(ranking.when_edges_s) + 1)
    np.testing.assert_allclose(ranking.when.sum(1), 1.0, atol=1e-5)
    # The one number that is named lies in the bucket of the median.
    bucket = np.searchsorted(ranking.when_edges_s, ranking.delay_s, side="right")
    np.testing.assert_array_equal(bucket, (ranking.when.cumsum(1, dtype=np.float64) < 0.5).sum(1))


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_propensity_is_the_probability_of_having_said_the_plan(
    base: tuple[Any, Any], temperature: float
) -> None:
    import torch

    from rlmemo.model.ask import sample_plans

    model, _ = base
    prompts = prompts_of(timeline())[40:72]
    rng = np.random.default_rng(0)
    valid = rng.random((len(prompts), SLATE_SIZE)) < 0.7
    said = sample_plans(model, prompts, valid, 3, temperature, rng)
    assert (said.place >= 0).any()
    for d, prompt in enumerate(prompts):
        picks = [(int(p), int(b)) for p, b in zip(said.place[d], said.delay[d], strict=True) if p >= 0]
        ids = slots.plan_ids(picks)
        if len(picks) == 3:
            ids = ids[:-1]  # after the last pick there is nothing left to choose
        with torch.inference_mode():
            logits = model(torch.tensor([prompt.tolist() + ids])).logits[0].double() / temperature
        total, before = 0.0, -1
        for step, token in enumerate(ids):
            row = logits[len(prompt) - 1 + step]
            if token in slots.DELAY_IDS:
                allowed = slots.DELAY_IDS.tolist()
            else:
                places = [p for p in range(before + 1, SLATE_SIZE) if valid[d, p]]
                allowed = [*slots.LETTER_IDS[places].tolist(), slots.END_ID]
                before = token - int(slots.LETTER_IDS[0])
            total += float(row[allowed].log_softmax(0)[allowed.index(token)])
        assert said.logp[d] == pytest.approx(total, abs=1e-4)


def test_only_valid_places_are_ever_picked(base: tuple[Any, Any]) -> None:
    from rlmemo.model.ask import sample_plans

    prompts = prompts_of(timeline())[:60]
    valid = np.random.default_rng(1).random((60, SLATE_SIZE)) < 0.3
    said = sample_plans(base[0], prompts, valid, 3, 3.0, np.random.default_rng(2))
    for places, ok in zip(said.place, valid, strict=True):
        picked = places[places >= 0]
        assert ok[picked].all()
        assert (np.diff(picked) > 0).all()


def test_planning_all_at_once_gives_what_planning_one_by_one_gives(base: tuple[Any, Any]) -> None:
    from rlmemo.model.readings import reading_of
    from rlmemo.policies.language import LanguagePolicy, _say

    made = timeline(8, 90)
    costs, world = cost_model("desktop").arrays(made), WorldConfig(budget_targets=3)
    policy = LanguagePolicy(base[0], temperature=1.5)
    indices = np.arange(20, len(made))
    case = Case(made, costs, world, 21, len(made))
    indices = case.indices
    at_once = policy.plan(case, seed=5)
    slates = reading_of(base[0]).look(made, indices)
    plans = Plans.empty(len(indices), world.max_picks)
    for d, i in enumerate(indices):
        warm, free, _ = case.memory(slates.candidates, plans)
        row = indices[d : d + 1]
        asked = reading_of(base[0]).prompts(made, slates, row, warm[d : d + 1], free[d : d + 1])
        valid = (slates.candidates[row] >= 0) & (warm[d : d + 1] == 0)
        said = _say(base[0], asked, valid, world.max_picks, 0, 1.5, 5, row)
        picked = said.place[0] >= 0
        plans.target[d] = np.where(picked, slates.candidates[i, said.place[0]], -1)
        plans.delay[d] = np.where(picked, said.delay[0], 0)
    np.testing.assert_array_equal(at_once.target, plans.target)
    np.testing.assert_array_equal(at_once.delay, plans.delay)
    assert (at_once.target >= 0).any()


def test_residency_without_plans_is_the_no_prewarm_world(base: tuple[Any, Any]) -> None:

    made = timeline(2, 80)
    costs, world = cost_model("desktop").arrays(made), WorldConfig(budget_targets=4)
    slates = build_slates(made)
    warm, free, _ = Case(made, costs, world, 1, len(made) + 1).memory(
        slates.candidates, Plans.empty(len(made), 3)
    )
    recent: list[int] = []
    memory, budget = costs.memory_mb, world.budget(costs)
    for i, x in enumerate(made.target.tolist()):
        recent = [x, *(y for y in recent if y != x)]
        while sum(memory[y] for y in recent) > budget:
            recent.pop()
        expected = [int(c in recent) if c >= 0 else 0 for c in slates.candidates[i].tolist()]
        assert warm[i].tolist() == expected
        assert free[i] == pytest.approx(1 - sum(memory[y] for y in recent) / budget)


def test_a_missing_model_is_one_clear_error(tmp_path: Path) -> None:
    from rlmemo.model.load import load_model

    with pytest.raises(InputError, match=r"config\.json"):
        load_model(str(tmp_path))


def test_an_adapter_is_not_read_on_another_base(tmp_path: Path) -> None:
    from rlmemo.policies.run import load_run

    (tmp_path / "adapter").mkdir()
    (tmp_path / "config.yaml").write_text(
        "settings: {model: embedded}\nmet: {base_sha256: 'no such weights'}\n"
    )
    with pytest.raises(InputError, match="has changed"):
        load_run(tmp_path)

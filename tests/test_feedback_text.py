"""The approval model on judgements of text: ProactiveAgent's format, and its recording where that is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from experiments import proactive, proactive_text
from experiments.proactive import CATEGORIES, JudgedProposals, scores_of
from tests.tiny_text_model import write_text_model


def invented(n: int, seed: int = 0) -> list[JudgedProposals]:
    """Help is welcome after an error and unwelcome in a game; silence the other way round."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        stuck = bool(rng.random() < 0.5)
        event = "The terminal shows an error message" if stuck else "The user starts a round of the game"
        asked = bool(rng.random() < 0.6)
        valid = stuck == asked
        kind = CATEGORIES[(2 if valid else 3) if asked else (1 if valid else 0)]
        events = (f"The user opens project {k % 7}", event)
        made.append(JudgedProposals(events, "Offer to help with it" if asked else None, valid, kind))
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer things to choose among."""
    monkeypatch.setattr(proactive, "READINGS", ("last", "recent"))
    monkeypatch.setattr(proactive, "PENALTIES", (0.1, 1.0))


@pytest.mark.usefixtures("quick")
def test_silence_and_proposals_are_judged_by_what_happened(tmp_path: Path) -> None:
    model, held_out = proactive.train(invented(300))
    new = invented(100, seed=1)
    valid = np.array([x.valid for x in new])
    assert ((model.probability(new) >= model.threshold) == valid).mean() > 0.95
    assert ((held_out >= 0.5) == np.array([x.valid for x in invented(300)])).mean() > 0.95
    model.save(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert "terminal" not in text, "places and numbers, no words"
    assert json.loads(text)["reading"] in ("last", "recent")


def test_scores_are_what_they_are_called() -> None:
    said = np.array([1, 1, 1, 0, 0, 0, 1, 0], bool)
    valid = np.array([1, 1, 0, 1, 0, 0, 0, 1], bool)
    alarm = np.array([0, 0, 1, 0, 1, 0, 1, 0], bool)
    found = scores_of(said, valid, alarm)
    assert found == pytest.approx(
        {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "false_alarms": 2 / 3}
    )
    rows = [JudgedProposals((), "x", bool(v), CATEGORIES[2 if v else 3]) for v in valid]
    estimate = proactive.with_intervals(said, rows)["f1"]
    assert estimate.low < estimate.value < estimate.high


def test_categories_count_alike() -> None:
    rows = invented(400)
    weight = proactive.balance(rows)
    totals = [sum(w for w, x in zip(weight, rows, strict=True) if x.category == c) for c in CATEGORIES]
    assert totals == pytest.approx([100.0] * 4)


def test_a_field_is_a_namespace() -> None:
    """The same word as proposal and as event is two features; text cannot pass for another field."""
    rows = proactive.text_rows([[("task", "game")], [("any", "game")], [("any", "task game")]], 16)
    assert rows.shape == (3, 2**16)
    assert (rows[0].multiply(rows[1])).nnz == 0
    assert (rows[0].multiply(rows[2])).nnz == 0


@pytest.mark.parametrize("line", ['{"obs": 3}', "not json", '{"pred_task": null, "valid": true}'])
def test_a_damaged_file_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("RLMEMO_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"train_data.jsonl: cannot be read.*RLMEMO_DATA"):
        proactive.read("train")
    proactive.folder().mkdir(parents=True)
    good = {"obs": [{"event": "a"}], "pred_task": None, "valid": True, "category": CATEGORIES[1]}
    (proactive.folder() / "train_data.jsonl").write_text(json.dumps(good) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"train_data.jsonl:2: is no judgement"):
        proactive.read("train")


@pytest.mark.real_data("proactiveagent")
@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_people_are_predicted_better_than_by_chance() -> None:
    """By cross-validation on the training rows; the test rows are for the published table alone."""
    rows = proactive.read("train")
    assert len(rows) == 1629
    assert len(proactive.read("test")) == 120
    _, held_out = proactive.train(rows)
    found = scores_of(
        held_out >= 0.5, np.array([x.valid for x in rows]), np.zeros(len(rows), bool), proactive.balance(rows)
    )
    assert found["accuracy"] > 0.57


def test_a_text_model_is_asked_and_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in any batch; where people always agree, `yes` becomes likelier; no row is in both parts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(proactive_text, "ANSWERS", ("no", "yes"))  # this tokenizer has no word with a space
    monkeypatch.setattr(proactive_text, "LEARNING_RATE", 1e-2)
    where = write_text_model(tmp_path / "model", kind="llama")
    model, tokenizer = (x.from_pretrained(where) for x in (AutoModelForCausalLM, AutoTokenizer))
    rows = [replace(x, events=(f"{k}", *x.events)) for k, x in enumerate(invented(60))]
    learns, chooses = proactive_text.parts(rows, 0)
    assert (len(learns), len(chooses)) == (48, 12)
    assert not {x.trace for x in learns} & {x.trace for x in chooses}
    even = proactive_text.drawn(learns, 80, 0)
    assert [sum(x.category == kind for x in even) for kind in CATEGORIES] == [20] * 4
    before = proactive_text.log_odds(model, tokenizer, rows[:20])
    alone = np.concatenate([proactive_text.log_odds(model, tokenizer, [x]) for x in rows[:20]])
    np.testing.assert_allclose(before, alone, atol=1e-4)
    after = proactive_text.taught(model, tokenizer, [replace(x, valid=True) for x in rows], 0)
    assert (proactive_text.log_odds(after, tokenizer, rows[:20]) > before).all()
    found = proactive_text.judged(np.array([3.0, -3.0] * 6), chooses, np.linspace(-3, 3, 40), invented(40))
    assert set(found) == {*proactive.METRICS, "right"}

"""Thumbs so far in words: what a model that reads text, here or behind an endpoint, is told of them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_endpoint import OddEndpoint

from env.thumbs import Thumbs
from experiments import one_thumb
from rlmemo.learning import dpo_kto
from rlmemo.model.hub import Loading
from rlmemo.model.load import load_model
from rlmemo.model.text_prompt import hour_words
from rlmemo.model.thumbs_so_far import so_far
from rlmemo.policies.endpoint_options import Asking
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.registry import make_policy
from rlmemo.predict import Options, predict
from rlmemo.store.database import open_store
from rlmemo.train import main as train
from tests.test_feedback_training import rate_everything, write_csv
from tests.test_streaming import same, timeline
from tests.test_thumbs import said
from tests.tiny_text_model import write_text_model


@pytest.mark.parametrize("prompt", ["long", "short"])
def test_a_text_model_reads_thumbs_in_words(tmp_path: Path, prompt: str) -> None:
    """Of every candidate, at this time of day, and of plans and keeping still; nowhere else a word more."""
    model = load_model(str(write_text_model(tmp_path)), Loading(prompt=prompt))[0]
    made, how = timeline(), model.reading
    rows = np.arange(40, 60)
    target, hours = int(made.target[39]), (made.local()[rows] // 3600 % 24).astype(int)
    at = float(made.t[45])
    down, still = said(at, False, made.names[target], hour=12, hit=True), said(at, False, hour=18)
    loud = replace(made, thumbs=Thumbs.of([down, still]))
    slates = how.look(made, rows)
    texts = [
        [how.tokenizer.decode(ids[ids >= 0]) for ids in how.prompts(x, slates, rows)] for x in (made, loud)
    ]
    listed = (slates.candidates[rows] == target).any(axis=1) & (rows > 45)
    told = [("thumbs up 0, down 0.67, last down" if prompt == "long" else "-0.7") in x for x in texts[1]]
    assert told == listed.tolist()
    noon, evening = ((np.abs(hours - hour) <= 2) & (rows > 45) for hour in (12, 18))
    assert (noon & listed).any()
    assert evening.any()
    for k, (before, text) in enumerate(zip(*texts, strict=True)):
        place = "ABCDEFGHIJKL"[np.flatnonzero(slates.candidates[rows[k]] == target)[0]] if listed[k] else ""
        words = [f"thumbs down on {place}"] * bool(noon[k] and listed[k])
        words += ["plans a little disliked"] * bool(noon[k]) + ["none disliked"] * bool(evening[k])
        line = f"At this time of day: {', '.join(words)}.\n" if words else ""
        assert line in text
        assert ("At this time" in text) == bool(words)
        assert (before == text) == (not words and not listed[k])
    same(LanguagePolicy(model), loud, rows)


def test_quiet_hours_and_votes_on_keeping_still_are_told_in_words() -> None:
    """Somebody who is disturbed at every plan of an hour, and likes it when nothing is loaded."""
    names, candidates = ["a", "b", "c", "d"], np.array([[1, 0, 2, -1]], np.int32)
    thumbs = [said(float(k), False, "abc"[k % 3], hour=22, hit=False) for k in range(12)]
    thumbs += [said(20.0, True, hour=22), said(21.0, True, "c", hour=9), said(22.0, True, "c", hour=9)]
    now, hours = np.full(3, 99.0), np.array([22, 9, 15])
    found = so_far(Thumbs.of(thumbs), names, now, hours, np.repeat(candidates, 3, axis=0))
    assert [hour_words(found.row(d), candidates[0]) for d in range(3)] == [
        "At this time of day: thumbs down on A B C, plans disliked, none liked.\n",
        "At this time of day: thumbs up on C, plans liked.\n",
        "",
    ]


def test_an_endpoint_is_told_of_votes_on_keeping_still() -> None:
    """Who has said nothing is asked the same as ever."""
    made, row = timeline(), np.array([50])
    still = said(-math.inf, False, hour=int(made.local()[50] // 3600 % 24))
    with OddEndpoint() as odd:
        policy = make_policy(odd.spec, Asking(timeout_s=5.0, wait_s=0.01, at_once=1))
        for thumbs in (None, Thumbs.of([]), Thumbs.of([still, still])):
            policy.rank(replace(made, thumbs=thumbs), row)
        sent = [x["messages"][0]["content"] for x in odd.asked if "messages" in x]
    first, *_, last = dict.fromkeys(sent)
    assert "At this time of day: none disliked.\n" in last
    assert last.replace("At this time of day: none disliked.\n", "") == first


@pytest.mark.slow
@pytest.mark.usefixtures("light_trainings")
def test_dpo_reads_thumbs_in_the_words_of_its_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text model learns from ratings, from end to end; then it is told whose share a thumb's effect is."""
    folder, csv, db = write_text_model(tmp_path / "model"), write_csv(tmp_path / "two.csv"), tmp_path / "r.db"
    with open_store(db) as store:
        predict(store, str(csv), "markov1", Options(n=60, threshold=0.05, explore=0.5), tz="UTC")
    assert rate_everything(db) >= 40
    read, write = [], dpo_kto.prompt_text

    def watched(ids: np.ndarray, reads: Any, *more: Any) -> str:
        read.append(reads.tokenizer.decode(ids[ids >= 0]))
        return write(ids, reads, *more)

    monkeypatch.setattr(dpo_kto, "prompt_text", watched)
    small = (
        "--sft-states 16 --sft-batch 8 --plan-states 16 --plan-samples 1 --dpo-pairs 16 --dpo-batch 8 "
        "--history 4 --lora-rank 2 --tz UTC --method dpo"
    )
    run = tmp_path / "run"
    what = ["--timelines", str(csv), "--model", str(folder), "--feedback", str(db), "--out", str(run)]
    assert train([*what, *small.split(), "--policies", ""]) == 0
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    sources = [json.loads(x)["source"] for x in (run / "pairs.jsonl").read_text().splitlines()]
    assert any(x.startswith("rating:") for x in sources)
    assert len(read) >= len(sources)
    assert sum("At this time of day: " in x for x in read) > 0.3 * len(read)
    assert any(re.search(r"[A-L]\d{3} \S+ \+\d", x) for x in read)
    ranked, alone = one_thumb.table(run, 10, 0)
    assert ranked.startswith("| dpo | 10 | ")
    assert alone.startswith("| dpo, its model by itself | 10 | ")

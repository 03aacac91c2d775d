"""What the pages say: whole sentences, about the right card, and of every policy in its own picture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_in_browser import Server, new_page, press, shown, turn_to, vote
from predictions_to_rate import fill

from dashboard import after_vote, own_days, privacy, replay, summary, train, words
from dashboard.plots import Policies, traded
from dashboard.runs import Value, read_run
from env.judge.plans import FIELDS
from env.timeline import Event, Timeline
from rlmemo.evaluation.after_vote import AfterVote, PlanThen
from rlmemo.evaluation.last_week import Saved
from rlmemo.store.records import Prediction, Prewarm


def standing(**at: tuple[float, float]) -> Policies:
    return {
        name: {
            "wasted_mb_minutes_per_open": Value(waste, waste, waste),
            "hit_rate": Value(hits, hits, hits),
        }
        for name, (waste, hits) in at.items()
    }


def sweep(*points: tuple[float, float]) -> dict[str, list[float]]:
    return {
        "wasted_mb_minutes_per_open": [waste for waste, _ in points],
        "hit_rate": [hits for _, hits in points],
    }


def test_who_stands_at_zero_keeps_its_curve() -> None:
    policies = standing(none=(0, 0), markov1=(3, 0.1), dpo=(0, 0), mru=(0, 0), own=(0, 0.2))
    sweeps = {
        "dpo": sweep((5, 0.3), (1, 0.1), (0, 0)),
        "mru": sweep((0, 0), (0, 0)),
        "markov1": sweep((3, 0.1)),
    }
    rows, points = traded(policies, sweeps)
    assert rows == [("markov1", 3, 0.1), ("dpo", 0, 0), ("own", 0, 0.2)]
    assert [x for x in points if x[0] == "dpo"] == [("dpo", 5, 0.3), ("dpo", 1, 0.1), ("dpo", 0, 0)]
    assert traded(standing(dpo=(0, 0)), {"dpo": sweep((5, 0.3))})[0] == [("dpo", 0, 0)]
    assert traded(standing(dpo=(0, 0)), {}) == ([], [])


def report(path: Path) -> None:
    """A run that chose to keep still: by a lower threshold it would have had hits."""
    value = {"value": 0.0, "ci95": [0.0, 0.0]}
    some = {"value": 0.2, "ci95": [0.1, 0.3]}
    keys = ("hr@1", "wasted_mb_minutes_per_open", "hit_rate")
    curves = {k: [0.4, 0.2, 0.0] for k in ("wasted_mb_minutes_per_open", "hit_rate")}
    path.write_text(
        json.dumps(
            {
                "timelines": "x",
                "policies": {"dpo": dict.fromkeys(keys, value), "markov1": dict.fromkeys(keys, some)},
                "curves": {"dpo": curves, "markov1": curves},
                "notes": [
                    "dpo: plans by a threshold tuned on validation, and never prewarms",
                    "<b>odd</b>",
                    3,
                ],
            }
        )
    )


def test_what_a_report_notes_is_read(tmp_path: Path) -> None:
    report(tmp_path / "a.json")
    assert read_run(tmp_path / "a.json").notes[1:] == ["<b>odd</b>"]
    (tmp_path / "b.json").write_text('{"policies": {}, "notes": {"a": 1}}')
    assert read_run(tmp_path / "b.json").notes == []


@pytest.mark.browser
def test_a_run_that_keeps_still_is_in_its_own_picture(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    report(tmp_path / "runs" / "a.json")
    server = start(tmp_path / "none.db")
    page = new_page(browser)
    page.goto(f"{server.url}/policies")
    page.wait_for_selector("[data-testid=trade]")
    assert "At zero, as it never prewarms: dpo." in page.inner_text("[data-testid=trade]")
    notes = page.get_by_test_id("note").all_inner_texts()
    assert notes == ["dpo: plans by a threshold tuned on validation, and never prewarms.", "<b>odd</b>."]


@pytest.mark.browser
def test_undo_speaks_of_the_card_that_was_taken_back(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(fill(tmp_path / "a.db"))
    page = new_page(browser)
    page.goto(server.url)

    def picks() -> str:
        return ", ".join(page.locator("[data-testid=card] .pick b").all_inner_texts())

    def when() -> str:
        text: str = page.inner_text("[data-testid=card] .when")
        return text

    first = (when(), picks())
    vote(page, 1, key=True)
    second, number = (when(), picks()), shown(page)
    vote(page, 0, key=True)
    press(page, "u", f"[data-testid=card][data-prediction='{number}']")
    note = page.inner_text("[data-testid=note]")
    assert note == f"Taken back: your no to {second[0]} ({second[1]}). It is asked again above."
    last = page.inner_text("[data-testid=last]")
    assert last.startswith(f"You said yes to {first[0]} ({first[1]}): Chat was opened 2 min later.")
    # With nothing before it, the note stands alone.
    page.wait_for_timeout(1000)  # a second press of the same key would be "too quick"
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector("[data-testid=note]:has-text('your yes to')")
    page.wait_for_selector("[data-testid=last]", state="detached", timeout=10_000)


@pytest.mark.browser
def test_a_card_that_was_passed_over_comes_back(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    """After a skip, undo takes back the skip, and no vote; the bar ends where nothing waits any more."""
    server = start(fill(tmp_path / "a.db", predictions=5))
    page = new_page(browser)
    page.goto(server.url)
    voted = vote(page, 1, key=True)
    bar = page.get_by_role("progressbar")
    assert [bar.get_attribute(f"aria-value{x}") for x in ("now", "max")] == ["1", "5"]
    skipped = shown(page)
    press(page, "s", "[data-testid=skipped]")
    press(page, "u", f"[data-testid=card][data-prediction='{skipped}']")
    assert "Not passed over any more" in page.inner_text("[data-testid=note]")
    assert vote(page, 0, key=True) == skipped
    assert server.votes() == [(voted, 1), (skipped, 0)]


def test_what_was_opened_after_all_is_not_called_not_needed() -> None:
    plan = (Prewarm("music"), Prewarm("news"))
    outcome = {"next_target": "music", "next_t": 2280.0, "prewarms": ["wasted", "wasted"], "saved_s": 0.0}
    moment = Prediction("ada", 0.0, "base", "1", "", plan, {}, 1.0, outcome=outcome)
    assert words.outcome_sentences(moment)[1:] == [
        "music was no longer ready by then.",
        "news was not needed.",
    ]


def test_what_came_of_predictions() -> None:
    log = "predicting with base, 30 s\n105 new predictions of base in a.db\nrate them: python -m dashboard"
    assert own_days.result(log) == "105 new predictions to rate: see Rate."
    none = "0 new predictions of base in a.db\nit kept still at all 9 decisions; to rate that, try --still"
    assert own_days.result(none).startswith("No new prediction: it kept still at all 9 decisions")
    assert own_days.result("error: the train part is empty") == "No new prediction: the train part is empty."
    assert own_days.result("") == "No new prediction: it ended without a word."


def test_an_import_speaks_of_the_form() -> None:
    said = privacy.in_words(
        "error: a.csv, line 1: no column user; or say what is what, with python -m rlmemo.timelines import "
        "a.csv --columns t=HEADER --user NAME\nnext: python -m rlmemo.timelines show a.db"
    )
    assert len(said) == 1
    assert said[0].endswith("or say what is what, with “Columns”: t=HEADER and “Person”: NAME")
    assert privacy.in_words("hours are in UTC; give --tz to set one") == [
        "hours are in UTC; give “Time zone” to set one"
    ]
    assert privacy.in_words("this is another timeline; import it with --name 'my jan.csv' to add to it") == [
        "this is another timeline; import it with “Recording”: 'my jan.csv' to add to it"
    ]
    assert privacy.in_words("name its time zone with --tz (such as --tz Europe/Berlin), or") == [
        "name its time zone with “Time zone” (such as “Time zone”: Europe/Berlin), or"
    ]


def test_the_days_to_forget_are_in_the_zone_of_the_latest_open() -> None:
    recordings = [("America/Lima", 5.0), ("Europe/Berlin", 9.0), ("Asia/Tokyo", 7.0), ("Europe/Berlin", 1.0)]
    assert privacy.zones(recordings) == ["Europe/Berlin", "America/Lima", "Asia/Tokyo"]


def test_an_estimate_that_says_next_to_nothing_is_not_shown() -> None:
    def told(value: float, low: float, high: float) -> str:
        return train._with_interval({"value": value, "ci95": [low, high]})

    assert told(1.0, -0.13, 2.14) == "too little to say"
    assert told(0.6, 0.2, 0.9) == "too little to say"
    assert told(0.9, 0.7, 1.1) == "90% (70% to 100%)"
    few = {
        "warning": "little support: …",
        "ratings": 39,
        "effective": 3.2,
        "overlap": 0.4,
        "mean_weight": 0.9,
    }
    assert "39 ratings say as much of it as 3 of its own would" in train.support(few)
    assert "None of the rated plans" in train.support({**few, "overlap": 0.0})
    assert train.support({**few, "overlap": 1.0}).startswith("There are 39 ratings: too few to be sure.")
    assert train.support({**few, "warning": None}) == ""


def test_two_lengths_of_time_can_be_told_apart() -> None:
    assert [words.fine_span(x) for x in (8, 192.4, 170, 7500)] == [
        "8 s",
        "3 min 12 s",
        "2 min 50 s",
        "2 h 5 min",
    ]


def test_every_prewarm_of_the_last_week_is_somewhere() -> None:
    table = np.zeros((184, len(FIELDS)))
    table[:, FIELDS.index("planned")] = 1
    table[:86, FIELDS.index("hit")] = 1
    table[86:179, FIELDS.index("wasted")] = 1
    saved = Saved("backoff3", np.arange(184.0), table)
    assert "86 of 184 prewarms ready in time, 93 for nothing; 5 still loading" in replay._in_words(saved)
    assert replay._others(Saved("backoff3", np.arange(179.0), table[:179])) == ""


def test_how_far_a_training_is() -> None:
    assert train.how_far("loading 7.7 s\n  SFT on 64 states: 3 of 12, 30 s, loss 1.2") == 0.25
    assert train.how_far("  SFT on 64 states: 3 of 12, 30 s\nvalidation: 2 rankings") is None
    assert train.how_far("") is None


def test_words_stand_apart(tmp_path: Path, cli: Callable[..., Any]) -> None:
    from rlmemo.store import ratings
    from rlmemo.store.database import open_store

    db = fill(tmp_path / "a.db")
    with open_store(db) as store:
        for told in (False, True):
            showing = ratings.show_next(store, "a rater with a name that is longer than any column here", 0.5)
            assert showing is not None
            if told:
                ratings.tell(store, showing)
            ratings.rate(store, showing, 1)
    said = cli("rlmemo.feedback", "show", "--db", str(db)).stdout
    assert re.search(r"knowing +blind +1 ", said)
    assert re.search(r"knowing +outcome known +1 ", said)
    assert re.search(r"any column here +2 ", said)


@pytest.mark.browser
def test_sentences_end(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    """What stands below and between the pictures is whole sentences, on every page."""
    from env.sources import load_timelines
    from rlmemo.store.database import open_store

    (tmp_path / "runs" / "unfinished").mkdir(parents=True)
    (tmp_path / "runs" / "unfinished" / "config.yaml").touch()
    report(tmp_path / "runs" / "a.json")
    db = fill(tmp_path / "a.db")
    with open_store(db) as store:
        store.add_timelines(load_timelines("demo", weeks=1, collapsed=False))
    server = start(db)
    page = new_page(browser)
    page.goto(server.url)
    vote(page, 0, key=True)
    press(page, "u", "[data-testid=note]")
    vote(page, 0, key=True)
    seen = 0
    for name in ("days", "policies", "train", "privacy", ""):
        turn_to(page, name)
        page.wait_for_selector("h1, [data-testid=card]")
        page.wait_for_timeout(1500)
        texts = page.locator(
            ":not(.card) > div.quiet, .candidates div.quiet, .band, [data-testid=stCaptionContainer], "
            "[data-testid=stAlert], [data-testid=note], [data-testid=trade]"
        ).all_inner_texts()
        seen += len(texts)
        unended = [text for text in texts if text.strip() and not re.search(r"[.!?…]\)?$", text.strip())]
        assert unended == []
        whole = page.inner_text("body")
        assert not re.search(r"\b1 (ratings|opens|predictions|votes)\b", whole)
    assert seen > 8


def test_what_a_vote_changes_in_words() -> None:
    def told(
        before: dict[str, float], now: dict[str, float], then: float = 0.0, **targets: tuple[str, ...]
    ) -> list[str]:
        found = AfterVote(
            PlanThen(targets["was"], before), PlanThen(targets["is_now"], now), targets.get("from_", 0.21)
        )  # type: ignore[arg-type]
        return after_vote.sentences(targets["card"], found, dict.fromkeys(targets["card"], then))

    assert told({"Mail": 0.3}, {"Mail": 0.2}, card=("Mail",), was=("Mail",), is_now=()) == [
        "Before your vote it would have loaded Mail. Now it would keep still.",
        "Chance of Mail: 30.0% before, 20.0% now.",
        "It loads what has 21% or more.",
    ]
    for then, why in (
        (0.03, "The card tried that out, or was made with a lower threshold."),
        (0.25, "The card was made before other votes, or when something else was in memory."),
    ):
        assert told({"Mail": 0.3}, {"Mail": 0.3}, then, card=("Chat",), was=("Mail",), is_now=("Mail",)) == [
            "The plan stays: it would load Mail.",
            "Chance of Mail: 30.0% before and now.",
            "It loads what has 21% or more.",
            why,
        ]
    assert told({}, {}, card=(), was=(), is_now=(), from_=None) == ["The plan stays: it would keep still."]  # type: ignore[arg-type]


def test_whom_a_plan_cost_is_named() -> None:
    outcome = {"next_target": "music", "next_t": 60.0, "prewarms": ["hit"], "saved_s": 0.0,
               "pushed_out": ["news", "<b>mail"]}  # fmt: skip
    moment = Prediction("ada", 0.0, "base", "1", "", (Prewarm("music"),), {}, 1.0, outcome=outcome)
    assert words.outcome_sentences(moment)[-1] == (
        "news, <b>mail had left memory for it, and had to be loaded again."
    )


def test_pauses_with_the_machine_off_stand_apart() -> None:
    hour = 3600.0
    opens = [Event(0.0, "a"), Event(60.0, "b"), Event(10 * hour, "a"), Event(10 * hour + 120, "b")]
    made = Timeline.from_events("ada", opens, tz="UTC", tz_known=True, offs=[100.0], wakes=[9 * hour])
    on, off = summary.gaps(made)
    assert on.sum() == 2
    assert dict(zip(summary.GAP_NAMES, off.tolist(), strict=True))["4–12 h"] == off.sum() == 1


@pytest.mark.browser
def test_my_days_tell_of_offs_and_policies_of_ones_own_days(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    from env.sources.report import ImportReport, Loaded
    from rlmemo.store.database import open_store

    day = 86_400.0
    opens = [Event(1.7e9 + day * d + 600.0 * k, f"app {k % 5}") for d in range(6) for k in range(20)]
    offs = [1.7e9 + day * d + 15_000.0 for d in range(5)]
    made = Timeline.from_events("ada", opens, tz="UTC", tz_known=True, offs=offs)
    with open_store(tmp_path / "a.db") as store:
        store.add_timelines(Loaded("test", [made], ImportReport("test"), False))
    server = start(tmp_path / "a.db")
    page = new_page(browser)
    page.goto(f"{server.url}/days")
    page.wait_for_selector(".tile:has-text('times off, usually for 21 h')")
    assert "5" in page.inner_text(".tile:has-text('times off')")
    turn_to(page, "policies")
    page.wait_for_selector("text=No finished run yet")
    assert "--timelines a.db" in page.inner_text("[data-testid=stMain]")
    assert "demo" not in page.inner_text("[data-testid=stMain]")

"""A model behind an endpoint: addresses, answers, faults, the budget of calls, and the key nobody sees."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from odd_endpoint import Fault, OddEndpoint

from env.errors import InputError
from env.splits import chrono
from env.timeline import Event, Timeline, collapse
from rlmemo.benchmark import main as benchmark
from rlmemo.model.readings import slates_of
from rlmemo.policies.endpoint import EndpointPolicy, check_calls
from rlmemo.policies.endpoint_calls import Address, read_text, read_tokens
from rlmemo.policies.endpoint_options import KEY_VARIABLE, Asking
from rlmemo.policies.registry import make_policy
from rlmemo.policies.run import reading_of_run
from rlmemo.predict import main as predict
from tests.tiny_text_model import write_text_model

DAY = 86400.0
KEY = "sk-test-0123456789abcdef"
ROUTINE = tuple(f"App {k}" for k in range(9))
FAST = Asking(timeout_s=5.0, wait_s=0.01, at_once=1)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def odd() -> Iterator[OddEndpoint]:
    with OddEndpoint() as server:
        yield server


def routine(days: int = 12, names: tuple[str, ...] = ROUTINE) -> Timeline:
    """One person who opens the same things every day, ten minutes apart."""
    return collapse(
        Timeline.from_events(
            "ada",
            [Event(1.7e9 + DAY * d + 600.0 * k, x) for d in range(days) for k, x in enumerate(names)],
        )
    )


def recording(path: Path, days: int = 12) -> Path:
    t = routine(days)
    rows = [f"ada,{a},{t.names[x]}" for a, x in zip(t.t, t.target, strict=True)]
    path.write_text("\n".join(["user,t,target", *rows]) + "\n")
    return path


def ready(odd: OddEndpoint, asking: Asking = FAST, faults: list[Fault] | None = None) -> EndpointPolicy:
    """A policy that asks `odd`; `faults` wait for its first questions."""
    policy = make_policy(odd.spec, asking)
    assert isinstance(policy, EndpointPolicy)
    odd.faults = list(faults or [])
    return policy


# Addresses


@pytest.mark.parametrize(
    ("spec", "url", "model", "chat"),
    [
        ("http://localhost:80/v1#Qwen/Qwen3", "http://localhost:80/v1/chat/completions", "Qwen/Qwen3", True),
        ("http://localhost:8000#m", "http://localhost:8000/v1/chat/completions", "m", True),
        ("https://h/api/v1/#m", "https://h/api/v1/chat/completions", "m", True),
        ("https://h/v1/chat/completions#m", "https://h/v1/chat/completions", "m", True),
        ("http://[::1]:1/v1/completions#a#b", "http://[::1]:1/v1/completions", "a#b", False),
    ],
)  # fmt: skip
def test_an_address_is_read(spec: str, url: str, model: str, chat: bool) -> None:
    address = Address.of(f"openai:{spec}")
    assert (address.url, address.model, address.chat) == (url, model, chat)


@pytest.mark.parametrize(
    "spec",
    ["", "#m", "localhost:8000#m", "ftp://h/v1#m", "http://h/v1", "http://h/v1#", "http://h:port/v1#m",
     "http://me:hidden@h/v1#m", "https://h/v1?key=hidden#m", "http://[::1/v1#m", "http:///v1#m"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_secrets(spec: str) -> None:
    with pytest.raises(InputError) as refused:
        make_policy(f"openai:{spec}")
    assert "hidden" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("[::1]", True), ("10.0.0.3", False),
     ("localhost.example.org", False), ("api.example.org", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_a_foreign_address_gives_a_warning(host: str, here: bool) -> None:
    plain, sealed = (Address.of(f"openai:{scheme}://{host}/v1#m").warning for scheme in ("http", "https"))
    assert (plain == "") == (sealed == "") == here
    if not here:
        assert "leave this machine" in plain
        assert "unencrypted" in plain
        assert "unencrypted" not in sealed


def test_the_warning_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nobody answers"):  # a name that no resolver may ever know
        make_policy("openai:http://models.invalid/v1#m", FAST)
    assert capsys.readouterr().err.startswith("warning: names of targets")


# Answers


@pytest.mark.parametrize(
    ("text", "places", "said"),
    [
        ("C A F", 12, (2, 0, 5)),
        (" C, A, C", 12, (2, 0)),
        ("A0C2", 12, (0, 2)),
        ("**B**", 12, (1,)),
        ("Answer: D\nbecause", 12, (3,)),
        ("<think>\nA or B? Answer: A\n</think>\n\nB", 12, (1,)),
        ("C. wiki | opened 3", 12, (2,)),
        ("A B C D E F G", 12, (0, 1, 2, 3, 4)),
        ("E B", 3, (1,)),  # E is no candidate here
        ("none", 12, ()),
        ("None.", 12, ()),
    ],
)
def test_an_answer_is_read(text: str, places: int, said: tuple[int, ...]) -> None:
    read = read_text(text, places)
    assert read.readable
    assert read.said == said


@pytest.mark.parametrize(
    "text", ["", "I think it is C", "a b", "Apple", "L", "<think> A", "🙂", "1. C", "C-A"]
)
def test_what_is_no_answer_is_not_guessed_at(text: str) -> None:
    read = read_text(text, 5)
    assert not read.readable
    assert read.said == ()


def test_log_probabilities_are_shares_of_the_answers_mass() -> None:
    top = {" B": math.log(0.4), "A": math.log(0.2), " none": math.log(0.1), " the": math.log(0.2), " Z": -3.0}
    read = read_tokens([(" ", {}), (" B", top), ("\n", {})], " B\n", 3)
    assert read.said == (1, 0)
    assert read.p == pytest.approx((0.4 / 0.7, 0.2 / 0.7))
    # `none` was said: the letters beside it still count
    read = read_tokens([(" none", {" none": math.log(0.6), " A": math.log(0.2)})], " none", 3)
    assert read.said == (0,)
    assert read.p == pytest.approx((0.25,))


def test_the_first_letter_is_read_wherever_it_stands() -> None:
    top = {" B": math.log(0.6), " A": math.log(0.3)}
    late = [
        ("<think>", {}),
        ("A", {"A": 0.0}),
        ("</think>", {}),
        ("Answer:", {}),
        (" B", top),
        (" A", {"A": 0.0}),
    ]
    read = read_tokens(late, "<think>A</think>Answer: B A", 3)
    assert read.said == (1, 0)
    assert read.p == pytest.approx((2 / 3, 1 / 3))
    # the likeliest letter is no candidate here: the others' probabilities are still those of the first place
    for more in (" A", " K"):
        read = read_tokens([(" G", {" G": math.log(0.5), **top}), (more, {more: 0.0})], " G" + more, 3)
        assert read.p == pytest.approx((2 / 3, 1 / 3))


def test_a_letter_that_begins_a_sentence_is_not_an_answer() -> None:
    read = read_tokens([("I", {"I": -0.1, "A": -4.0}), (" think", {}), (" C", {"C": 0.0})], "I think C", 12)
    assert not read.readable
    # what a model without any training says: its letters count where they hold a share worth the name
    noise = {"xx": math.log(0.5), " A": math.log(0.02), " B": math.log(0.01)}
    assert read_tokens([("xx", noise)], "xx", 12).p == pytest.approx((2 / 3, 1 / 3))
    assert read_tokens([("xx", {"xx": -0.01, " A": -7.0})], "xx", 12).p is None


def test_without_log_probabilities_places_count_as_on_validation(odd: OddEndpoint) -> None:
    """It always says B A; how often B was right on the validation part is counted by hand."""
    timeline = routine()
    split = chrono([timeline])
    policy = ready(odd)
    policy.fit([timeline], split)
    events = split.validation[0]
    slates = policy._text(timeline).slates
    right = [int(slates.answer[j - 1]) for j in events]
    assert len(events) < 40
    counts = np.array([right.count(1), right.count(0), 0, 0, 0, len(right) - right.count(0) - right.count(1)])
    expected = (counts + 0.5) / (counts.sum() + 3)
    calls = policy.endpoint.calls
    ranking = policy.rank(timeline, events - 1)
    assert policy.endpoint.calls == calls == len(events)  # asked once, remembered
    for row, j in enumerate(events):
        assert ranking.targets[row].tolist() == slates.candidates[j - 1, [1, 0]].tolist()
        assert ranking.probability[row] == pytest.approx(expected[:2])
        assert ranking.none[row] == pytest.approx(1 - expected[:2].sum())
    assert f"as on {len(events)} validation decisions" in policy.note


def test_none_and_the_unreadable_list_nothing(odd: OddEndpoint, capsys: pytest.CaptureFixture[str]) -> None:
    timeline = routine()
    policy = ready(odd, faults=["garbage", "empty"])
    odd.say = "none"
    ranking = policy.rank(timeline, np.arange(50, 53))
    assert (ranking.targets == -1).all()
    assert ranking.none.tolist() == [1, 1, 1]
    assert "2 of 3 answers could not be read" in policy.note
    odd.say = "Well,\x1b[2J let me see"
    policy = ready(odd)
    policy.rank(timeline, np.arange(50, 75))
    assert capsys.readouterr().err.count("none of the first 20 answers could be read") == 1


# Faults


@pytest.mark.parametrize("fault", [429, 500, 503, 408, "cut"])
def test_it_tries_again(odd: OddEndpoint, fault: Fault) -> None:
    policy = ready(odd, faults=[fault, fault, fault])
    ranking = policy.rank(routine(), np.array([50]))
    assert (ranking.targets[0, :2] >= 0).all()
    assert policy.endpoint.calls == len(odd.asked) == 4


def test_it_waits_longer_each_time_and_as_long_as_it_is_asked_to(
    odd: OddEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    policy = ready(odd, Asking(wait_s=0.5, at_once=1), faults=[429, 500, 502])
    monkeypatch.setattr("rlmemo.policies.endpoint_calls.time", SimpleNamespace(sleep=waited.append))
    policy.rank(routine(), np.array([50]))
    odd.faults, odd.retry_after = [429, 429], "7.5"
    policy.rank(routine(), np.array([51]))
    odd.faults, odd.retry_after = [429], "3600"
    policy.rank(routine(), np.array([52]))
    odd.faults, odd.retry_after = [429], "Fri, 31 Dec 1999 23:59:59 GMT"
    policy.rank(routine(), np.array([53]))
    assert waited == [0.5, 1.0, 2.0, 7.5, 7.5, 60.0, 0.5]


def test_silence_is_a_fault_too(odd: OddEndpoint) -> None:
    policy = ready(odd, Asking(timeout_s=0.3, wait_s=0.01, at_once=1), faults=["hang"])
    started = time.perf_counter()
    assert (policy.rank(routine(), np.array([50])).targets[0, :2] >= 0).all()
    assert 0.3 <= time.perf_counter() - started < 30
    odd.always = "hang"
    with pytest.raises(InputError, match=r"asked 5 times and got no answer \(no answer within 0.3 s\)"):
        policy.rank(routine(), np.array([51]))


def test_it_gives_up_with_one_line(odd: OddEndpoint) -> None:
    policy = ready(odd)
    odd.always = (500, "Internal Server Error")
    with pytest.raises(InputError, match=r"asked 5 times .*500.*/v1/completions") as refused:
        policy.rank(routine(), np.array([50]))
    assert len(odd.asked) == 5
    assert len(str(refused.value).splitlines()) == 1


def test_a_refusal_is_not_tried_again(odd: OddEndpoint) -> None:
    policy = ready(odd, faults=[(404, "no model\x1b[31m is called\ntiny")])
    with pytest.raises(InputError, match=r"404 no model \[31m is called tiny; correct"):
        policy.rank(routine(), np.array([50]))
    assert len(odd.asked) == 1


def test_a_redirect_is_not_followed(odd: OddEndpoint) -> None:
    """Names of targets go to the address that was given, and to no other."""
    with OddEndpoint() as other:
        policy = ready(odd, faults=[(307, f"{other.url}/chat/completions")])
        with pytest.raises(InputError, match="307"):
            policy.rank(routine(), np.array([50]))
        assert other.asked == []


def test_fields_that_a_server_refuses_are_left_out(odd: OddEndpoint) -> None:
    """As OpenAI's own newer models answer: one field at a time, by name."""

    def strict(body: dict[str, Any]) -> Fault:
        for field, said in {
            "chat_template_kwargs": "Unknown parameter: 'chat_template_kwargs'.",
            "logprobs": "'logprobs' is not supported with this model",
            "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "temperature": "'temperature' does not support 0 with this model.",
        }.items():
            if field in body:
                return (400, said)
        return 200

    policy = ready(odd, Asking(wait_s=0.01, at_once=4))
    odd.always = strict
    ranking = policy.rank(routine(), np.arange(40, 60))
    assert (ranking.targets[:, :2] >= 0).all()
    assert set(odd.asked[-1]) == {"model", "messages", "max_completion_tokens"}
    assert len(odd.asked) <= 20 + 4 * 5  # top_logprobs is tried at 5 before it is left out
    odd.always = (400, "the model is tired")
    with pytest.raises(InputError, match="refuses the question: 400 the model is tired"):
        policy.rank(routine(), np.array([61]))


def test_a_text_is_continued_where_the_address_says_so(odd: OddEndpoint) -> None:
    policy = make_policy(f"openai:{odd.url}/completions#tiny", FAST)
    assert (policy.rank(routine(), np.array([50])).targets[0, :2] >= 0).all()
    assert odd.paths[-1] == "/v1/completions"
    assert odd.asked[0]["prompt"].endswith("\nAnswer:")
    assert odd.asked[0]["logprobs"] == 20


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("chat", [True, False])
def test_what_stays_the_same_stands_first(odd: OddEndpoint, shots: int, chat: bool) -> None:
    """A server that keeps what it has read finds the instruction and the whole history there again."""
    spec = odd.spec if chat else odd.spec.replace("#", "/completions#")
    policy = make_policy(spec, replace(FAST, shots=shots))
    timeline = routine()
    split = chrono([timeline])
    policy._examples.fit([timeline], split)
    policy.rank(timeline, np.arange(70, 76))
    sent = [x["messages"][0]["content"] if chat else x["prompt"] for x in odd.asked]
    assert len(sent) == 6
    for one, following in pairwise(sent):
        history = one[: one.index("Example:" if shots and not chat else "Now ")].rstrip()
        assert following.startswith(history)
        assert len(history) > 0.4 * len(one)
    assert ("Example:" in sent[0]) == (shots > 0 and not chat)


@pytest.mark.parametrize(
    ("told", "share"),
    [
        ({"usage": {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 80}}}, "80 % of 300"),
        ({"timings": {"cache_n": 30, "prompt_n": 10}, "usage": {"prompt_tokens": 40}}, "75 % of 120"),
        ({"usage": {"prompt_tokens": 100, "prompt_tokens_details": None}}, None),
        ({"usage": {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}}}, None),
        ({"usage": [1], "timings": "?"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_what_a_server_tells_of_its_prefix_cache_is_told(
    odd: OddEndpoint, told: dict[str, Any], share: str | None
) -> None:
    policy = ready(odd)
    odd.more = told
    policy.rank(routine(), np.arange(70, 73))
    if share is None:
        assert "prefix cache" not in policy.note
    else:
        assert f"{share} prompt tokens stood in the server's prefix cache" in policy.note


def test_a_served_run_is_asked_in_its_own_words(odd: OddEndpoint, tmp_path: Path) -> None:
    """The text that is sent becomes the very tokens that the run's model reads."""
    model = write_text_model(tmp_path / "model", kind="llama")
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "config.yaml").write_text(f"settings: {{model: {model}, prompt: short, history: 8}}\n")
    like = replace(FAST, like=run)
    policy = make_policy(f"openai:{odd.url}/completions#tiny", like)
    assert (policy.rank(routine(), np.array([50])).targets[0, :2] >= 0).all()
    how = reading_of_run(run)
    ids = how.prompts(routine(), slates_of(routine()), np.array([50]))[0]
    again = how.tokenizer(odd.asked[0]["prompt"], add_special_tokens=False)["input_ids"]
    assert again == ids[ids >= 0].tolist()
    assert odd.asked[0]["max_tokens"] == 1
    with pytest.raises(InputError, match=r"give openai:http.*/v1/completions#tiny"):
        make_policy(odd.spec, like)
    with pytest.raises(InputError, match="leave out --shots"):
        replace(like, shots=2).check()


def test_no_more_are_asked_at_once_than_allowed(odd: OddEndpoint) -> None:
    odd.slow_s = 0.05
    ready(odd, Asking(at_once=3)).rank(routine(), np.arange(40, 55))
    assert 2 <= odd.busiest <= 3


def test_what_is_asked_at_once_comes_back_in_order(odd: OddEndpoint) -> None:
    """Each answer is made from its question: the letter of the candidate that this person opens next."""

    def knows(body: dict[str, Any]) -> Fault:
        lines = body["messages"][-1]["content"].splitlines()
        time.sleep(sum(map(ord, lines[-3])) % 7 / 100)  # answers overtake each other
        current = next(x for x in lines if x.startswith("Now ")).split("open is ")[1].split(",")[0]
        following = f"App_{(int(current.removeprefix('App_')) + 1) % 9}"
        letter = next(x[0] for x in lines if x[1:].startswith(f". {following} |"))
        choice = {"message": {"content": letter}}
        return (200, json.dumps({"choices": [choice]}))

    odd.always = knows
    timeline = routine()
    rows = np.arange(40, 80)
    ranking = make_policy(odd.spec, Asking(at_once=8)).rank(timeline, rows)
    assert ranking.targets[:, 0].tolist() == timeline.target[rows + 1].tolist()


def test_nobody_there_is_said_in_one_line_and_at_once(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        recording(tmp_path / "a.csv")
        started = time.perf_counter()
        done = cli("rlmemo.benchmark", "--timelines", "a.csv", "--tz", "UTC", "--json", "a.json",
                   "--policies", f"gbdt,openai:http://127.0.0.1:{port}/v1#tiny")  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "nobody answers there" in done.stderr
    assert "Connection refused" in done.stderr
    assert time.perf_counter() - started < 60
    assert not (tmp_path / "a.json").exists()


# The budget of calls


def test_the_budget_is_refused_before_anything_is_sent(odd: OddEndpoint) -> None:
    timeline = routine()
    split = chrono([timeline])
    policy = ready(odd, Asking(max_calls=10))
    needed = len(split.validation[0]) + len(split.test[0]) + 61
    with pytest.raises(InputError, match=f"takes {needed} calls, and --max-calls is 10"):
        check_calls([policy], [timeline], split, 61)
    with pytest.raises(InputError, match=r"20 decisions are to be asked and 10 of --max-calls 10 are left"):
        policy.rank(timeline, np.arange(40, 60))
    assert odd.asked == []
    policy.rank(timeline, np.arange(40, 50))
    assert len(odd.asked) == 10
    policy.rank(timeline, np.arange(40, 50))  # these are known
    with pytest.raises(InputError, match="0 of --max-calls 10 are left; give --max-calls 11"):
        policy.rank(timeline, np.array([60]))
    assert len(odd.asked) == 10


def test_retries_are_calls_too_and_what_was_answered_is_kept(odd: OddEndpoint, tmp_path: Path) -> None:
    timeline, rows = routine(), np.arange(40, 50)
    kept = tmp_path / "new" / "answers.jsonl"
    policy = ready(odd, Asking(max_calls=10, at_once=1, wait_s=0.01, answers=kept), faults=[200, 429, 500])
    with pytest.raises(InputError, match=r"all of --max-calls 10 were sent .*--answers"):
        policy.rank(timeline, rows)
    assert len(odd.asked) == 10
    lines = kept.read_text().splitlines()
    assert len(lines) == 8
    assert "App" not in kept.read_text()
    with kept.open("a") as file:
        file.write('{"question": "abc", "sa')  # the process was killed while it wrote
    again = ready(odd, Asking(max_calls=10, at_once=1, answers=kept))
    odd.asked.clear()
    ranking = again.rank(timeline, rows)
    assert len(odd.asked) == 2
    fresh = ready(odd, Asking(at_once=1)).rank(timeline, rows)
    np.testing.assert_array_equal(ranking.targets, fresh.targets)
    np.testing.assert_array_equal(ranking.probability, fresh.probability)
    third = ready(odd, Asking(max_calls=10, at_once=1, answers=kept))
    odd.asked.clear()
    third.rank(timeline, rows)
    assert odd.asked == []


def test_a_file_of_something_else_is_no_file_of_answers(odd: OddEndpoint, tmp_path: Path) -> None:
    path = tmp_path / "diary.txt"
    path.write_text("Dear diary,\ntoday\n")
    with pytest.raises(InputError, match="line 1: is no answer"):
        make_policy(odd.spec, Asking(answers=path))
    assert path.read_text() == "Dear diary,\ntoday\n"


def test_live_decisions_are_asked_anew(odd: OddEndpoint) -> None:
    """The clock must not measure a dictionary."""
    timeline = routine()
    policy = ready(odd)
    policy.rank(timeline, np.array([50, 51]))
    ask = policy.stream(timeline)
    assert ask(50).targets.tolist() == policy.rank(timeline, np.array([50])).targets.tolist()
    assert len(odd.asked) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [("--shots", "-1"), ("--shots", "99"), ("--max-calls", "0"), ("--calls-at-once", "0"),
     ("--call-timeout", "0"), ("--call-timeout", "nan")],
)  # fmt: skip
def test_bad_numbers_are_refused(option: str, value: str) -> None:
    with pytest.raises(InputError, match=option):
        benchmark([option, value])
    with pytest.raises(InputError, match=option):
        predict([option, value])


# The key


def test_the_key_goes_to_the_server_and_nowhere_else(
    odd: OddEndpoint, cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-service")
    recording(tmp_path / "a.csv")
    done = cli("rlmemo.predict", "--timelines", "a.csv", "--tz", "UTC", "--policy", odd.spec, "--db", "a.db",
               "--n", "3", "--threshold", "0.05", "--answers", "answers.jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = cli("rlmemo.benchmark", "--timelines", "a.csv", "--tz", "UTC", "--policies", f"mru,{odd.spec}",
                 "--json", "a.json", "--html", "a.html", "--draws", "20",
                 "--answers", "answers.jsonl")  # fmt: skip
    assert report.returncode == 0, report.stderr
    assert odd.headers
    assert {h["authorization"] for h in odd.headers} == {f"Bearer {KEY}"}
    said = done.stdout + done.stderr + report.stdout + report.stderr
    assert KEY not in said
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes(), path.name
    assert {"a.db", "a.json", "a.html", "answers.jsonl"} <= {path.name for path in tmp_path.iterdir()}
    assert "openai:tiny" in json.loads((tmp_path / "a.json").read_text())["policies"]


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_server_that_quotes_the_key_is_not_quoted(
    odd: OddEndpoint, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    policy = ready(odd)
    odd.always = (status, f"your key {KEY} is not good")
    with pytest.raises(InputError) as refused:
        policy.rank(routine(), np.array([50]))
    assert odd.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(refused.value) + caplog.text + repr(vars(policy)) + repr(policy.endpoint)
    assert refused.value.__cause__ is None
    assert len(odd.asked) == (5 if status == 500 else 1)


def test_a_missing_key_is_said_where_to_put(odd: OddEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    odd.models_status = 401
    with pytest.raises(InputError, match=f"is needed: put one into the environment variable {KEY_VARIABLE}"):
        make_policy(odd.spec)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with pytest.raises(InputError, match="the key is not accepted") as refused:
        make_policy(odd.spec)
    monkeypatch.setenv(KEY_VARIABLE, "sk-with\u2028newline")
    with pytest.raises(InputError, match="no key has") as broken:
        make_policy(odd.spec)
    assert KEY not in str(refused.value)
    assert "sk-" not in str(broken.value)


# Elsewhere


def test_training_on_an_endpoint_is_refused(
    odd: OddEndpoint, cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    recording(tmp_path / "a.csv")
    done = cli("rlmemo.train", "--timelines", "a.csv", "--tz", "UTC", "--model", odd.spec, "--out", "run")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--policies openai:URL#MODEL" in done.stderr
    assert odd.paths == []
    assert not (tmp_path / "run").exists()


def test_nothing_is_contacted_unless_named(tmp_path: Path) -> None:
    """Without an endpoint among the policies the client is not even loaded."""
    recording(tmp_path / "a.csv")
    script = (
        "import sys\nfrom rlmemo.benchmark import main\n"
        "main(['--timelines', 'a.csv', '--tz', 'UTC', '--policies', 'mru', '--draws', '20', '--quiet'])\n"
        "assert 'httpx2' not in sys.modules\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr

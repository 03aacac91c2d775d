"""The prompt in levels: it only grows, tells what is known and no more, is short, and no name can speak."""

from __future__ import annotations

import re
from itertools import chain, count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.slate.slate import FEATURES, build_slates
from env.timeline import Event, Timeline, collapse
from rlmemo.model.short_prompt import (
    CODE,
    HEAD,
    LONGEST,
    WORDINGS,
    ShortNamer,
    _cut,
    event_text,
    forms,
    levels,
    thumbs_signs,
)
from rlmemo.model.text_prompt import LETTERS, TextTimeline
from rlmemo.model.thumbs_so_far import COLUMNS
from tests.test_text_prompt import HOSTILE, plain, timeline

SHORT = WORDINGS["short"]
NAME = r"(?!(?:warm|loading|cold|free|none|\d+[smhd]?)(?: |$))[^\sA-Z+\-][^\sA-Z]*"
DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d{1,2}h"
SESSION = re.compile(rf"{DAY}(?: {NAME})(?:(?: \d+[mhd])? {NAME})*")
CANDIDATES = re.compile(rf"(?: [A-L]\d\d\d {NAME}(?: warm| loading)?)+")
KIND = {name: k for k, name in enumerate(FEATURES)}


def told(made: Timeline, keep: int = 8) -> TextTimeline:
    return TextTimeline.of(made, build_slates(made), keep, SHORT)


@pytest.mark.parametrize("i", [0, 1, 40, 60])
def test_no_name_can_speak(i: int) -> None:
    """Every line is one that we wrote, every candidate a letter of the list in its turn."""
    names = [*HOSTILE, "A999", "B0", "5m", "warm", "loading", "none", "+9", "-9", "Mon", "Now", "L777 x"]
    made = timeline([*names, *plain(4)], 120)
    row = min(i, len(made) - 1)
    text = told(made).pieces(row, warm=np.arange(12) % 3).text
    assert text.startswith(HEAD)
    body = text.removeprefix(HEAD).removesuffix("\nAnswer:")
    begun, *sessions, now, listed = body.split("\n")
    assert not re.search(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", body)
    assert not begun or re.fullmatch(rf"(?:(?: \d+[mhd])? {NAME})+", begun)  # the rest of a session
    assert begun or sessions
    assert all(SESSION.fullmatch(x) for x in sessions)
    assert re.fullmatch(rf"Now {DAY} free \d+", now)
    assert not listed or CANDIDATES.fullmatch(listed)
    letters = re.findall(r"(?<= )[A-L](?=\d\d\d )", listed)
    assert letters == list(LETTERS[: len(letters)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=20))
def test_names_are_told_apart_and_depend_on_the_ones_before(names: list[str]) -> None:
    namer, again = ShortNamer(), ShortNamer()
    shown = [namer(x) for x in names]
    assert len(set(shown)) == len(names)
    assert all(re.fullmatch(NAME, x) for x in shown)
    assert [again(x) for x in names[: len(names) // 2]] == shown[: len(names) // 2]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mail.example.com", ["example", "mail.examp"]),
        ("www.bbc.co.uk", ["bbc"]),
        ("news.bbc.co.uk/sport/live", ["live", "bbc", "news.bbc"]),
        ("org.mozilla.firefox", ["firefox", "mozilla.fi"]),
        ("Calendar", ["calendar"]),
        ("t.co", ["t"]),
        ("da39a3ee5e6b", ["da39a"]),
        ("warm.com", ["warm~"]),
        ("8f155e77c8af923f", ["8f1"]),
        ("example.org/0123456789abcdef0123", ["012~", "example"]),
        ("xd544e57fff1938ca1234", ["xd5"]),
        ("www.百度一下.com", ["百"]),
        ("пример.рф", ["пр"]),
        ("пример1.рф", ["п"]),
        ("café-müller.fr", ["café-mül"]),
        ("", ["unnamed"]),
    ],
)
def test_names_are_cut_to_what_tells_them_apart(name: str, shown: list[str]) -> None:
    assert forms(name) == shown
    assert all(len(x) <= LONGEST for x in shown)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abcxyz019-_", min_size=1, max_size=30))
def test_letters_of_ascii_count_once(word: str) -> None:
    """So whoever was taught on them reads what it always read."""
    if not re.fullmatch(r"x?[0-9a-f]{16,}", word):
        assert _cut(word) == word[: CODE if any(c.isdigit() for c in word) else LONGEST]


def test_the_second_of_a_name_says_more() -> None:
    namer = ShortNamer()
    assert [namer(x) for x in ("a.example.com", "b.example.com", "example.com", "example.org")] == [
        "example", "b.example", "example~2", "example~3",
    ]  # fmt: skip


def test_a_number_is_the_first_that_is_free_however_many_share_a_form() -> None:
    """As by looking from two on each time, which takes seconds for some thousands of names."""
    hosts = [f"s{k}.same{k % 3}.example.com" for k in range(3000)]
    like_numbered = [f"same{k % 3}~{k}" for k in range(2, 60)]
    drawn = np.random.default_rng(0).permutation(
        [*hosts, *like_numbered, *(f"{x}/same1" for x in hosts[:300])]
    )
    namer, taken = ShortNamer(), set()
    for name in map(str, drawn):
        wanted = forms(name)
        ways = chain(wanted, (f"{wanted[0]}~{k}" for k in count(2)))
        shown = next(x for x in ways if x not in taken)
        taken.add(shown)
        assert namer(name) == shown
    assert sum("~" in x for x in taken) > 2000, "most share a form"


def test_levels_say_what_is_likelier() -> None:
    """Larger where it followed more often, or was opened more lately; from end to end."""
    f = np.zeros((4, len(FEATURES)), np.float32)
    f[:, KIND["fresh_share1"]] = [0.0, 0.05, 0.4, 1.0]
    f[:, KIND["skip_share"]] = [1.0, 0.4, 0.05, 0.0]
    f[:, KIND["log_seconds_ago"]] = np.log1p([40 * 86400.0, 86400.0, 300.0, 5.0])
    said = levels(f)
    assert said.tolist() == [[0, 9, 0], [3, 7, 2], [7, 3, 6], [9, 0, 9]]


def test_events_only_append_and_a_pause_begins_a_line() -> None:
    assert event_text(0.0, None, "mail") == "\nThu 0h mail"
    assert event_text(3600.0 * 33, 1800.0, "mail") == "\nFri 9h mail"
    assert event_text(0.0, 12.0, "wiki") == " wiki"
    assert event_text(0.0, 185.0, "wiki") == " 3m wiki"


def test_thumbs_are_counted_and_the_latest_stands_last() -> None:
    said = np.zeros(len(COLUMNS))
    assert thumbs_signs(said) == ""
    for name, value in {"ups": 2.0, "downs": 1.0, "last": -1.0}.items():
        said[COLUMNS.index(name)] = value
    assert thumbs_signs(said) == " +2-1"
    said[COLUMNS.index("last")] = 1.0
    assert thumbs_signs(said) == " -1+2"


@pytest.mark.parametrize("cut", [5, 30, 60])
def test_nothing_later_than_the_decision_is_in_its_prompt(cut: int) -> None:
    """Another future, other names in it: the same words."""
    made = timeline([*plain(8), "x.example.com", "y.example.com"], 80)
    kept = [(float(t), made.names[x]) for t, x in zip(made.t[: cut + 1], made.target[: cut + 1], strict=True)]
    later = [(kept[-1][0] + 50.0 * k, f"z{k}.example.com") for k in range(1, 30)]
    other = collapse(Timeline.from_events("u", [Event(*x) for x in kept + later], tz=made.tz))
    assert told(made).pieces(cut).text == told(other).pieces(cut).text


def test_it_costs_a_quarter_of_the_words() -> None:
    """In characters, as no tokenizer is at hand that was made by others."""
    made = timeline([f"page{i}.some-longer-site{i}.com" for i in range(20)], 90)
    short, long = (TextTimeline.of(made, build_slates(made), 8, WORDINGS[k]) for k in ("short", "long"))
    assert sum(len(short.question(i)) for i in range(40, 80)) * 4 < sum(
        len(long.question(i)) for i in range(40, 80)
    )
    assert sum(map(len, short.lines)) * 2 < sum(map(len, long.lines))

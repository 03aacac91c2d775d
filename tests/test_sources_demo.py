"""demo: the same seed gives the same people, and they live as its docstring says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.sources import load_timelines
from env.sources.personas import PERSONAS
from env.timeline import KINDS, Timeline


def fingerprint(people: list[Timeline]) -> str:
    digest = hashlib.sha256()
    for x in people:
        digest.update(repr((x.user, x.names, x.tz)).encode())
        for column in (x.t, x.target, x.kind, x.duration, x.device):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def hours(x: Timeline) -> np.ndarray:
    return x.local() / 3600 % 24


def test_a_seed_decides_everything() -> None:
    first = load_timelines("demo", seed=3, weeks=2).timelines
    assert fingerprint(first) == fingerprint(load_timelines("demo", seed=3, weeks=2).timelines)
    assert fingerprint(first) != fingerprint(load_timelines("demo", seed=4, weeks=2).timelines)


def test_another_process_draws_the_same_people(repo_root: Path) -> None:
    script = (
        "from env.sources import load_timelines; from tests.test_sources_demo import fingerprint; "
        "print(fingerprint(load_timelines('demo', weeks=1).timelines))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=repo_root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(repo_root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert told == {fingerprint(load_timelines("demo", weeks=1).timelines)}


def test_it_is_called_synthetic() -> None:
    loaded = load_timelines("demo", weeks=1)
    assert loaded.synthetic
    assert "synthetic" in "\n".join(loaded.report.lines())


def test_six_people_with_thousands_of_opens_in_under_a_second() -> None:
    started = time.process_time()
    people = load_timelines("demo").timelines
    assert time.process_time() - started < 1.0
    assert [x.user for x in people] == sorted(p.user for p in PERSONAS)
    assert all(2000 <= len(x) <= 4000 for x in people)
    assert all(x.tz_known and x.collapsed for x in people)
    assert len({x.tz for x in people}) == len(people)


def test_recordings_hold_repeats_that_collapse_drops() -> None:
    raw, collapsed = load_timelines("demo", weeks=2, collapsed=False), load_timelines("demo", weeks=2)
    assert raw.report.collapsed == 0
    assert collapsed.report.collapsed > 100
    assert raw.report.kept == collapsed.report.kept + collapsed.report.collapsed


def test_apps_pages_and_files_and_no_host_that_exists() -> None:
    for x in load_timelines("demo", weeks=2).timelines:
        for event in x:
            assert (event.kind == "page") == event.target.endswith(".example")
    assert {KINDS[k] for y in load_timelines("demo").timelines for k in np.unique(y.kind)} == set(KINDS)


def test_mornings_are_local_mornings() -> None:
    """Every persona wakes at its own local hour, whichever zone it lives in."""
    by_user = {p.user: p for p in PERSONAS}
    for x in load_timelines("demo", weeks=4).timelines:
        day = x.local() // 86400
        awake = [hours(x)[(day == d) & (hours(x) > 4)].min() for d in np.unique(day)[1:-1]]
        assert abs(np.median(awake) - by_user[x.user].wake) < 1.0, x.user


def test_the_nurse_does_not_chart_on_days_off() -> None:
    x = next(y for y in load_timelines("demo").timelines if y.user == "dee-nurse")
    weekday = (x.local() // 86400 + 3) % 7
    charts = x.target == x.names.index("Charts")
    assert Counter(weekday[charts].astype(int).tolist()).keys() <= {1, 2, 3, 5, 6}


def test_what_follows_the_middle_of_a_relay_depends_on_what_came_before() -> None:
    x = next(y for y in load_timelines("demo").timelines if y.user == "ada-developer")
    names = [x.names[i] for i in x.target]
    after: dict[bool, Counter[bool]] = {True: Counter(), False: Counter()}
    for a, b, c in zip(names, names[1:], names[2:], strict=False):
        if b == "Terminal":
            after[a.startswith("docs.")][c == "Editor"] += 1
    share = {k: v[True] / v.total() for k, v in after.items()}
    assert share[True] > share[False] + 0.2


def test_habits_drift_and_new_targets_keep_turning_up() -> None:
    for x in load_timelines("demo").timelines:
        first_seen = np.array([np.flatnonzero(x.target == i)[0] for i in range(len(x.names))])
        assert (first_seen > 0.7 * len(x)).sum() >= 3, x.user
    x = next(y for y in load_timelines("demo").timelines if y.user == "chika-accountant")
    old, new = (x.t[x.target == x.names.index(n)] for n in ("Calculator", "Sidecalc"))
    assert np.median(old) < np.median(new)


def test_another_zone_keeps_the_local_hours() -> None:
    here, there = load_timelines("demo", weeks=1), load_timelines("demo", weeks=1, tz="Asia/Kolkata")
    for a, b in zip(here.timelines, there.timelines, strict=True):
        assert b.tz == "Asia/Kolkata"
        same = np.abs(hours(a) - hours(b)) < 1e-6
        assert same.mean() > 0.99, "all but the hour that the clocks of New York skip on 9 March"


@pytest.mark.parametrize("weeks", [0, -1, 521, 2.5, True])
def test_weeks_out_of_range_are_refused(weeks: object) -> None:
    with pytest.raises(InputError, match="whole number from 1 to 520"):
        load_timelines("demo", weeks=weeks)

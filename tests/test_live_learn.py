"""What live learns at night: judged on days that neither trained nor chose, kept only where it is better, and
taken back on request."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_watch import FakeServer, T
from test_live_loop import StillClock
from tiny_base import write_tiny_base

from env.errors import InputError
from env.judge.case import cases
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Event, Timeline
from rlmemo.learning.in_charge import rewards
from rlmemo.live import status
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.learn import _earned, _judge, learn, roll_back, runs_of
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Minding
from rlmemo.live.nightly import Nightly, learn_time, next_time
from rlmemo.policies.planners import NEVER, Threshold
from rlmemo.policies.registry import setup, to_follow
from rlmemo.store.database import open_store
from rlmemo.store.forgetting import forget_everything, forget_period, forget_recording, forget_target
from rlmemo.store.live_learned import IN_CHARGE, LEARNED
from rlmemo.store.live_ledger import LiveLedger, Seen
from tests.warm import Warm

Cli = Callable[..., subprocess.CompletedProcess[str]]
OPENS = 450
SMALL = {
    "sft_states": 256, "sft_batch": 8, "plan_states": 60, "plan_samples": 2, "dpo_pairs": 64, "dpo_batch": 8,
    "lora_rank": 2, "policies": "none",
}  # fmt: skip
WORLD = WorldOptions(budget=3.0)


def opens(n: int) -> list[Event]:
    """A person who goes round nine programs, with some noise."""
    rng = np.random.default_rng(0)
    t, place, events = T, 0, []
    for k in range(n):
        t += float(rng.integers(20, 400)) + 7200.0 * (k % 15 == 14)  # they have a rest
        place = (place + 1) % 9 if rng.random() < 0.85 else int(rng.integers(14))
        events.append(Event(t, f"app{place}"))
    return events


def record(db: Path, policy: str, threshold: float | None = None, n: int = OPENS) -> None:
    """What live has written after it has recorded so much."""
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        settings = {
            "policy": policy, "act": "none", "budget_mb": 900.0, "began_at": T, "port": 5600,
            "threshold": threshold, "world": vars(WORLD),
        }  # fmt: skip
        seen = [Seen(str(k), e) for k, e in enumerate(opens(n))]
        ledger.add(seen, at=T, since=1e12, settings=settings)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("config")
    settings = {**SMALL, "model": str(write_tiny_base(folder / "base"))}
    (folder / "learn.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "learn.yaml")


def beside(db: Path) -> list[str]:
    """What lies in the folders of what was learned."""
    return sorted(x.name for x in db.with_name("live-runs").glob("*/*"))


@pytest.mark.slow
def test_a_better_one_takes_charge_and_goes_back_on_request(
    tmp_path: Path, config: str, cli: Cli, warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real trainer, as one types it."""
    monkeypatch.setattr(warm, "light", True)
    db = tmp_path / "a.db"
    record(db, "mfu")
    # It lets everything else go first: beside other tests it may take long.
    done = cli("rlmemo.live", "learn", "--db", str(db), "--learn-config", config, timeout=1200)
    assert done.returncode == 0, done.stderr
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        charge, learned = ledger.state(IN_CHARGE), ledger.state(LEARNED)
        assert learned["said"].startswith("what was learned takes charge: reward per open +")
        assert learned["said"] in done.stdout
        assert learned["opens"] == len(load_timelines(str(db)).timelines[0])
        assert charge["before"] == ""
        assert beside(db) == [Path(charge["run"]).name], "no copy of the recording is left"
        assert Path(charge["run"]).stat().st_mode & 0o077 == 0
        told = status.lines(ledger, None)
        assert any(x.startswith(f"in charge: {charge['run']}") for x in told)
        assert any(learned["said"] in x for x in told)
        again = cli("rlmemo.live", "learn", "--db", str(db), "--learn-config", config)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert "0 opens came since the last training; it waits for 50" in again.stderr
        assert ledger.state(IN_CHARGE) == charge
        follows(ledger, db, charge["run"])
        back = cli("rlmemo.live", "rollback", "--db", str(db))
        assert back.returncode == 0, back.stderr
        assert ledger.state(IN_CHARGE) == {"run": "", "before": None}
        assert any("is in charge again (live rollback)" in x for x in status.lines(ledger, None))
        back = cli("rlmemo.live", "rollback", "--db", str(db))
        assert (back.returncode, back.stderr.count("\n")) == (2, 1)
        assert ledger.state(IN_CHARGE) == {"run": "", "before": None}


def follows(ledger: LiveLedger, db: Path, run: str) -> None:
    """A loop that goes on follows the run, and after a rollback what it was started with."""
    given = Minding(setup("mfu", {"budget": 3.0}), "me", "UTC", 900.0, "given")

    def make(name: str) -> Minding:
        return given if not name else Minding(to_follow(name), "me", "UTC", 900.0, "learned")

    clock = StillClock(1e6)
    loop = Loop(
        ledger, BucketReader(FakeServer(), T), given, None, clock, T, say=lambda _: None,
        nightly=Nightly(ledger, db, (3, 0), None, make),
    )  # fmt: skip
    loop.turn()
    after = clock.now() - 1.0
    for version in ("learned", "given"):
        ledger.add([Seen(version, Event(after, f"app{len(version) % 9}"))], at=after)
        loop.turn()
        plans = [ledger.plan_of(row.id) for row in ledger.rows()]
        assert plans[-1] is not None
        assert plans[-1].policy_version == version
        assert loop.minding.setup.policy.name == ("mfu" if version == "given" else Path(run).name)
        charge = ledger.state(IN_CHARGE)
        ledger.put(in_charge={"run": "", "before": None})
    ledger.put(in_charge=charge | {"run": run, "before": ""})


def test_a_worse_one_changes_nothing(tmp_path: Path, config: str) -> None:
    """By the real trainer, which gets next to nothing to learn by."""
    db = tmp_path / "a.db"
    record(db, "gbdt")
    poor = {**yaml.safe_load(Path(config).read_text()), "scorer": "shipped", "method": "sft", "sft_states": 8}
    (tmp_path / "poor.yaml").write_text(yaml.safe_dump(poor))
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        said = learn(ledger, db, str(tmp_path / "poor.yaml"))
        assert "so what was in charge stays: reward per open" in said
        assert ledger.state(IN_CHARGE) is None
        assert ledger.state(LEARNED)["said"] == said
        assert any(said in x for x in status.lines(ledger, None))
        assert beside(db) == []
        with pytest.raises(InputError, match="nothing was put in charge since"):
            roll_back(ledger)


def test_a_training_that_is_killed_changes_nothing(tmp_path: Path, config: str) -> None:
    db = tmp_path / "a.db"
    record(db, "mfu")
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        ledger.put(in_charge={"run": "", "before": None})
        nightly = Nightly(ledger, db, (3, 0), config, lambda _: pytest.fail("nobody else is in charge"))
        nightly.turn(T)
        assert nightly.child is None
        assert nightly.due is not None
        nightly.turn(nightly.due + 1.0)
        child = nightly.child
        assert child is not None
        until = time.monotonic() + 120.0
        while not any("state.json" in x.name for x in db.with_name("live-runs").glob("*/*/*")):
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == 19
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(beside(db)) == 2
        assert nightly.turn(T + 9e5) is None
        assert "killed by signal 9; what was in charge stays" in ledger.state(LEARNED)["said"]
        assert ledger.state(IN_CHARGE) == {"run": "", "before": None}
        assert beside(db) == []


@pytest.mark.parametrize("found", ["stopped", "refused"])
def test_a_training_that_does_not_come_to_its_end_changes_nothing(found: str, tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    record(db, "mfu")

    def train(line: list[str] | None) -> int:
        assert line is not None
        table = Path(line[line.index("--timelines") + 1])
        assert table.stat().st_mode & 0o077 == 0
        (timeline,) = load_timelines(str(table), tz="UTC").timelines
        (own,) = load_timelines(str(db)).timelines
        assert (timeline.t == own.t).all()
        if found == "refused":
            raise InputError("too little")
        return 130

    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        said = learn(ledger, db, None, train)
        assert said.endswith("what was in charge stays")
        assert ledger.state(IN_CHARGE) is None
        assert beside(db) == []


def test_a_run_that_somebody_has_deleted_is_in_charge_no_more(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    record(db, "mfu")
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        gone = str(tmp_path / "live-runs" / "gone")
        ledger.put(in_charge={"run": gone, "before": gone})
        said = learn(ledger, db, None, lambda _: 0)  # and it leaves no run either
        assert said.startswith("what was learned cannot be followed")
        with pytest.raises(InputError, match="is not kept"):
            roll_back(ledger)
        given = Minding(setup("mfu", {"budget": 3.0}), "me", "UTC", 900.0, "given")
        said_aloud: list[str] = []
        loop = Loop(
            ledger, BucketReader(FakeServer(), T), given, None, StillClock(1e6), T, say=said_aloud.append,
            nightly=Nightly(
                ledger, db, (3, 0), None, lambda x: Minding(to_follow(x), "me", "UTC", 900.0, "learned")
            ),
        )  # fmt: skip
        loop.turn()
        assert "is no policy and no run folder" in said_aloud[0]
        loop.turn()
        assert said_aloud[1:] == ["it answers again"]
        assert loop.minding is given


@pytest.mark.parametrize("what", ["target", "period", "everything", "recording"])
def test_what_is_forgotten_is_not_in_charge_any_more(what: str, tmp_path: Path) -> None:
    """Nor does its folder stay; another recording's does, unless everything goes."""
    db = tmp_path / "a.db"
    record(db, "mfu")
    with open_store(db) as store:
        ledger, other = LiveLedger(store, "me", "UTC"), LiveLedger(store, "else", "UTC")
        other.add([Seen("x", Event(T + 9e6, "Solo"))], at=T)
        for one in (ledger, other):
            run = runs_of(one, db) / "20260101-030000"
            run.mkdir(parents=True)
            (run / "adapter.safetensors").write_bytes(b"learned")
            one.put(in_charge={"run": str(run), "before": ""}, learned={"at": T, "opens": 9, "said": "x"})
        if what == "target":
            assert forget_target(store, "app3").learned == 1
        elif what == "period":
            assert forget_period(store, T, T + 900.0).learned == 1
        elif what == "everything":
            assert forget_everything(store).learned == 2
        else:
            forget_recording(store, "live", "me")
        assert not runs_of(ledger, db).exists()
        assert runs_of(other, db).exists() == (what != "everything")
        if what in ("target", "period"):
            assert ledger.state(IN_CHARGE) == {"run": "", "before": None}
            assert "was forgotten" in ledger.state(LEARNED)["said"]
            assert Path(other.state(IN_CHARGE)["run"]).is_dir()
            nightly = Nightly(ledger, db, (3, 0), None, lambda _: pytest.fail("x"), run="before")
            nightly.make = lambda run: run or "given"  # type: ignore[assignment, return-value]
            assert nightly.turn(T) == "given"


def test_what_is_forgotten_while_it_is_learned_from_is_not_learned(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    record(db, "mfu")
    with open_store(db) as store, open_store(db) as page:
        ledger = LiveLedger(store, "me", "UTC")

        def train(line: list[str] | None) -> int:
            forget_target(page, "app3")
            assert line is not None
            Path(line[line.index("--out") + 1]).mkdir(parents=True)
            return 0

        with pytest.raises(InputError, match="something was forgotten meanwhile"):
            learn(ledger, db, None, train)
        assert ledger.state(IN_CHARGE) is None
        assert beside(db) == []


def test_plans_at_wakes_are_judged_as_live_makes_them() -> None:
    timeline = Timeline.from_events("me", opens(OPENS), tz="UTC")
    settings = {"budget_mb": 900.0, "threshold": None, "world": {**vars(WORLD), "off_after_s": 3600.0}}
    found = _earned("base", timeline, settings)
    made = setup("base", settings["world"])
    made.policy.fit([timeline], chrono([timeline]), seed=0)
    minding = Minding(made, "me", "UTC", 900.0, "judged", None, wakes=True)
    world, planner = made.world, minding.planner()
    assert isinstance(planner, Threshold)
    assert planner.wake < NEVER
    (asked,) = cases([timeline], world.costs_of([timeline]), minding.rules(), chrono([timeline]).test)
    assert len(asked.wakes) > 3
    both = [
        rewards(made.policy, x, [asked], world.worth(), 0) for x in (planner, replace(planner, wake=NEVER))
    ]
    np.testing.assert_array_equal(found, both[0])
    assert (both[0] != both[1]).any()


def test_by_chance_better_is_not_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean that is higher by less than the standard error of the difference changes nothing."""
    (timeline,) = [Timeline.from_events("me", opens(OPENS), tz="UTC")]
    n = len(chrono([timeline]).test[0])
    rng = np.random.default_rng(0)
    before = rng.normal(0.1, 1.0, n)
    for gain, better in ((0.02, False), (0.5, True), (-0.5, False)):
        after = before + gain + rng.normal(0.0, 1.0, n)
        monkeypatch.setattr("rlmemo.live.learn._earned", lambda *_, after=after: after)
        said, charge = _judge(before, timeline, "run", {})
        assert charge == better, said
        assert "standard error of the difference 0." in said


def test_too_little_to_learn_from_or_to_judge_by(tmp_path: Path) -> None:
    for n, words in ((30, "30 opens came|opens came since"), (90, "would be there to judge by")):
        record(tmp_path / f"{n}.db", "mfu", n=n)
        with open_store(tmp_path / f"{n}.db") as store:
            ledger = LiveLedger(store, "me", "UTC")
            with pytest.raises(InputError, match=words):
                learn(ledger, tmp_path / f"{n}.db", None, lambda _: pytest.fail("it trains"))
            assert not (tmp_path / "live-runs").exists()


def test_once_a_day_at_its_time_and_not_when_it_was_missed(tmp_path: Path) -> None:
    three = next_time((3, 0), T, "Europe/Berlin")
    assert three == 1700013600.0  # 2023-11-15 02:00Z
    assert next_time((3, 0), three, "Europe/Berlin") == three + 86400.0
    with open_store(tmp_path / "a.db") as store:
        nightly = Nightly(
            LiveLedger(store, "me", "Europe/Berlin"),
            tmp_path / "a.db",
            (3, 0),
            None,
            lambda _: pytest.fail("x"),
        )
        begun: list[float] = []
        nightly.begin = lambda: begun.append(now)  # type: ignore[method-assign]
        times = (T, three - 1, three + 5, three + 60, three + 90000 + 7200, three + 2 * 86400 - 1)
        for now in (*times, three + 2 * 86400 + 1):
            nightly.turn(now)
        assert begun == [three + 5, three + 2 * 86400 + 1]
    assert learn_time("03:00") == (3, 0)
    for wrong in ("3", "24:00", "night", "03:60"):
        with pytest.raises(InputError, match="is no time of day; give one such as 03:00"):
            learn_time(wrong)

"""What live learns at night: judged on days that neither trained nor chose, kept only where it is better, and
taken back on request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_watch import FakeServer, T
from test_live_loop import StillClock
from tiny_base import write_tiny_base

from env.errors import InputError
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.timeline import Event
from rlmemo import train as trainer
from rlmemo.live import status
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.learn import IN_CHARGE, LEARNED, _judge, learn, roll_back, runs_of
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Minding
from rlmemo.live.nightly import Nightly, learn_time, next_time
from rlmemo.policies.registry import setup, to_follow
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import LiveLedger, Seen

Cli = Callable[..., subprocess.CompletedProcess[str]]
OPENS = 600
SMALL = {
    "sft_states": 256, "sft_batch": 8, "plan_states": 60, "plan_samples": 2, "dpo_pairs": 64, "dpo_batch": 8,
    "lora_rank": 2, "policies": "none",
}  # fmt: skip
WORLD = WorldOptions(budget=3.0)


def opens(n: int) -> list[Event]:
    """A person who goes round nine programs, with some noise."""
    rng = np.random.default_rng(0)
    t, place, events = T, 0, []
    for _ in range(n):
        t += float(rng.integers(20, 400))
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


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LiveLedger]:
    record(tmp_path / "a.db", "mfu", 2.0)  # who never prewarms
    with open_store(tmp_path / "a.db") as store:
        yield LiveLedger(store, "me", "UTC")


def beside(db: Path) -> list[str]:
    """What lies in the folders of what was learned."""
    return sorted(x.name for x in db.with_name("live-runs").glob("*/*"))


def test_a_better_one_takes_charge_and_goes_back_on_request(tmp_path: Path, config: str, cli: Cli) -> None:
    """By the real trainer, as one types it."""
    db = tmp_path / "a.db"
    record(db, "mfu", 0.99)  # it prewarms next to nothing
    done = cli("rlmemo.live", "learn", "--db", str(db), "--learn-config", config)
    assert done.returncode == 0, done.stderr
    assert "reward per open" in done.stdout
    with open_store(db) as store:
        ledger = LiveLedger(store, "me", "UTC")
        charge, learned = ledger.state(IN_CHARGE), ledger.state(LEARNED)
        assert learned["opens"] == len(load_timelines(str(db)).timelines[0])
        assert learned["said"] in done.stdout
        assert "in charge" not in "\n".join(status.lines(ledger, None)) or charge
        if charge is None:
            assert "stays" in learned["said"]
            assert beside(db) == []
            return
        assert beside(db) == [Path(charge["run"]).name], "no copy of the recording is left"
        assert os.stat(charge["run"]).st_mode & 0o077 == 0
        assert f"in charge: {charge['run']}" in status.lines(ledger, None)
        done = cli("rlmemo.live", "rollback", "--db", str(db))
        assert done.returncode == 0
        assert ledger.state(IN_CHARGE) == {"run": "", "before": None}
        done = cli("rlmemo.live", "rollback", "--db", str(db))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)

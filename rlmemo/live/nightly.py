"""`live start --learn 03:00`: a training once a day in a process of its own, and who is in charge by it.

nightly = Nightly(ledger, db, learn_time("03:00"), None, make)
nightly.turn(now)                                  # another `Minding`, where somebody else is in charge
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from env.errors import InputError
from env.timeline import zone
from rlmemo.live.learn import tidy
from rlmemo.live.mind import Minding
from rlmemo.store.live_learned import IN_CHARGE, LEARNED
from rlmemo.store.live_ledger import LiveLedger

MISSED_S = 3600.0
"""A training that is due longer than this, as the machine slept, waits for the next day."""


def learn_time(text: str | None) -> tuple[int, int] | None:
    """Hour and minute of `--learn`. Raises InputError."""
    if text is None:
        return None
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise InputError(f"--learn {text}: is no time of day; give one such as 03:00")
    return int(found[1]), int(found[2])


def next_time(at: tuple[int, int], after: float, tz: str) -> float:
    """When it is that time of day for the first time after `after` (unix seconds)."""
    local = datetime.fromtimestamp(after, UTC).astimezone(zone(tz))
    days = (local.date() + timedelta(days=k) for k in range(3))
    times = (datetime(d.year, d.month, d.day, *at, tzinfo=zone(tz)).timestamp() for d in days)
    return next(t for t in times if t > after)


@dataclass
class Nightly:
    """Looks after the trainings of one recording. at: hour and minute; config: see `learn`; make: who thinks,
    for the folder of a run, "" for the policy that was given at the start."""

    ledger: LiveLedger
    db: Path
    at: tuple[int, int]
    config: str | None
    make: Callable[[str], Minding]
    run: str = ""
    child: subprocess.Popen[bytes] | None = None
    due: float | None = None

    def turn(self, now: float) -> Minding | None:
        """Begin a training that is due, mind one that has ended; who thinks from now on, where that changes.
        Raises InputError where that one cannot be had: who was in charge goes on."""
        if self.due is None:
            self.due = next_time(self.at, now, self.ledger.tz)
        if self.child is not None and self.child.poll() is not None:
            self._ended(self.child.returncode, now)
            self.child = None
        if now >= self.due:
            if now - self.due < MISSED_S and self.child is None:
                self.begin()
            self.due = next_time(self.at, now, self.ledger.tz)
        return self._changed()

    def begin(self) -> None:
        """Train in a process of its own, which lives on where this one is killed."""
        line = [
            sys.executable,
            "-m",
            "rlmemo.live",
            "learn",
            "--db",
            str(self.db),
            "--user",
            self.ledger.user,
        ]
        line += ["--learn-config", self.config] if self.config else []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  a pipe that nobody reads would fill
        self.child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            start_new_session=True,
        )  # fmt: skip

    def _ended(self, status: int, now: float) -> None:
        """Say why nothing was decided, where nothing was."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self._errors.close()
        if status == 0:
            return
        tidy(self.ledger, self.db)
        why = f"it was killed by signal {-status}" if status < 0 else (lines or ["it broke off"])[-1]
        said = f"no training: {why.removeprefix('error: ')}; what was in charge stays"
        self.ledger.put(learned={**(self.ledger.state(LEARNED) or {"opens": 0}), "at": now, "said": said})

    def _changed(self) -> Minding | None:
        run = str((self.ledger.state(IN_CHARGE) or {"run": ""})["run"])
        if run == self.run:
            return None
        self.run = run
        return self.make(run)

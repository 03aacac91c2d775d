"""When something is loaded: not on the battery, not over a connection that is paid for by the amount, and not
more often than so many times an hour. Letting go is always done.

What the machine doesn't say counts as allowed, and `live doctor` says so: a machine without a battery, a
connection that nobody knows of (NetworkManager does, asked by `nmcli`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from env.errors import InputError
from rlmemo.live.acts import Executor

PER_HOUR = 60
HOUR_S = 3600.0
LOOK_S = 20.0
"""How long an answer of the machine counts."""
ASK_S = 1.0
CONNECTED = "100"  # NetworkManager's state of a device that is used


def on_battery() -> bool | None:
    """Whether the machine runs on its battery; None where it has none, or does not say."""
    found = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if found is None or found.power_plugged is None else not found.power_plugged


def metered() -> bool | None:
    """Whether a connection in use is metered, or guessed to be; None where nobody says."""
    if shutil.which("nmcli") is None:
        return None
    asked = ["nmcli", "-t", "-f", "GENERAL.STATE,GENERAL.METERED", "device", "show"]
    try:
        done = subprocess.run(
            asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            timeout=ASK_S, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    said, used = [], False
    for line in done.stdout.splitlines():
        name, _, value = line.partition(":")
        if name == "GENERAL.STATE":
            used = value.startswith(CONNECTED)
        elif name == "GENERAL.METERED" and used and value.startswith(("yes", "no")):
            said.append(value.startswith("yes"))
    return any(said) if said else None


@dataclass
class Sparing:
    """An executor within limits. battery, metered: whether to load all the same then. Raises InputError for
    a limit that is none."""

    acts: Executor
    per_hour: int = PER_HOUR
    battery: bool = False
    metered: bool = False
    _lately: deque[float] = field(default_factory=deque)
    _looked: float = float("-inf")
    _why: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.per_hour <= 10_000:
            raise InputError(f"--per-hour {self.per_hour} is not accepted; give 1 or more")

    def load(self, target: str, kind: str) -> Mapping[str, Any]:
        """Load it, unless a limit is reached."""
        now = time.monotonic()
        while self._lately and now - self._lately[0] >= HOUR_S:
            self._lately.popleft()
        if len(self._lately) >= self.per_hour:
            return {"failed": f"{self.per_hour} targets were loaded within the hour"}
        if why := self._spared(now):
            return {"failed": why}
        came = self.acts.load(target, kind)
        if "failed" not in came:
            self._lately.append(now)
        return came

    def let_go(self, target: str, kind: str) -> Mapping[str, Any]:
        """Let it go."""
        return self.acts.let_go(target, kind)

    def opened(self, target: str, kind: str) -> object:
        """As the executor's."""
        return self.acts.opened(target, kind)

    def undo(self) -> None:
        """As the executor's."""
        self.acts.undo()

    def _spared(self, now: float) -> str:
        """Why nothing is loaded now; "" where something is."""
        if now - self._looked >= LOOK_S:
            self._looked, self._why = now, ""
            if not self.battery and on_battery():
                self._why = "the machine runs on its battery"
            elif not self.metered and metered():
                self._why = "the connection is metered"
        return self._why


def standing() -> list[tuple[bool | None, str]]:
    """What the machine says of both, for `live doctor`: (None: it does not), and a line."""
    power, paid = on_battery(), metered()
    charged = "no battery is known here, so nothing waits for the plug"
    if power is not None:
        charged = f"runs on {'its battery: nothing is loaded' if power else 'the plug'}"
    amount = "nobody says whether the connection is metered (NetworkManager's nmcli would): loaded over any"
    if paid is not None:
        amount = f"the connection is {'metered: nothing is loaded' if paid else 'not metered'}"
    return [(None if power is None else True, charged), (None if paid is None else True, amount)]

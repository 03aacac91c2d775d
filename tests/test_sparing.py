"""When nothing is loaded: on the battery, over a metered connection, too often in an hour, in a pause; and
what is undone when live stops."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from fake_watch import FakeServer
from test_live_loop import Noting, StillClock, loop_on, one_day

from env.errors import InputError
from rlmemo.live import sparing
from rlmemo.live.acts import CommandExecutor
from rlmemo.live.loop import ActStep
from rlmemo.live.sparing import Sparing, metered, on_battery
from rlmemo.store.live_ledger import LOAD, Off


def supply(folder: Path, name: str, **told: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for what, value in told.items():
        (folder / name / what).write_text(value + "\n")


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Linux says of the machine's power, as files."""
    folder = tmp_path / "power_supply"
    folder.mkdir()
    monkeypatch.setattr(psutil._pslinux, "POWER_SUPPLY_PATH", str(folder))
    return folder


def laptop(power: Path, plugged: bool) -> None:
    supply(power, "AC0", online=str(int(plugged)))
    supply(power, "BAT0", capacity="80", status="Charging" if plugged else "Discharging",
           energy_now="40", energy_full="50", power_now="9")  # fmt: skip


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What nmcli says, as a file."""
    folder, said = tmp_path / "bin", tmp_path / "said"
    folder.mkdir()
    (folder / "nmcli").write_text(f'#!/bin/sh\ntest "$*" = "-t -f GENERAL.STATE,GENERAL.METERED device show" '
                                  f"&& cat {said}\n")  # fmt: skip
    (folder / "nmcli").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return said


def devices(*of: tuple[str, str]) -> str:
    return "\n\n".join(f"GENERAL.STATE:{state}\nGENERAL.METERED:{paid}" for state, paid in of) + "\n"


def test_the_battery(power: Path) -> None:
    assert on_battery() is None
    laptop(power, plugged=True)
    assert on_battery() is False
    laptop(power, plugged=False)
    assert on_battery() is True


def test_the_connection(network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    up, down, loop = "100 (connected)", "30 (disconnected)", "100 (connected (externally))"
    for expected, of in (
        (None, ()),
        (None, ((up, "unknown"),)),
        (False, ((up, "no (guessed)"), (loop, "unknown"))),
        (False, ((up, "no"), (down, "yes"))),
        (True, ((up, "yes"),)),
        (True, ((loop, "unknown"), (up, "yes (guessed)"))),
    ):
        network.write_text(devices(*of))
        assert metered() is expected, of
    network.unlink()
    assert metered() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert metered() is None


def test_nothing_is_loaded_then_and_letting_go_goes_on(
    power: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("rlmemo.live.sparing.time.monotonic", lambda: clock)
    laptop(power, plugged=False)
    network.write_text(devices(("100 (connected)", "no")))
    acts = Noting()
    careful, bold = Sparing(acts), Sparing(acts, battery=True, metered=True)
    assert careful.load("a", "app") == {"failed": "the machine runs on its battery"}
    assert acts.done == []
    careful.let_go("a", "app")
    assert acts.done == [("let go", "a")]
    assert "failed" not in bold.load("a", "app")
    laptop(power, plugged=True)
    assert "failed" in careful.load("b", "app"), "asked anew after a while, not at every step"
    clock += 21.0
    assert "failed" not in careful.load("b", "app")
    network.write_text(devices(("100 (connected)", "yes")))
    clock += 21.0
    assert careful.load("c", "page") == {"failed": "the connection is metered"}
    assert "failed" not in bold.load("c", "page")
    assert ["battery" in x or "plug" in x for _, x in sparing.standing()] == [True, False]
    assert sparing.standing()[1] == (True, "the connection is metered: nothing is loaded")


def test_so_many_an_hour_of_whatever_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("rlmemo.live.sparing.time.monotonic", lambda: clock)
    acts = Noting()
    some = Sparing(acts, 2, battery=True, metered=True)
    came = []
    for _ in range(5):
        came.append("failed" in some.load("a", "app"))
        clock += 1000.0
    assert came == [False, False, True, True, False]
    for wrong in (0, 10_001):
        with pytest.raises(InputError, match="--per-hour"):
            Sparing(acts, wrong)


def test_what_is_due_in_a_pause_is_not_loaded_and_what_is_held_goes(tmp_path: Path) -> None:
    server, clock, executor = FakeServer(), StillClock(), Noting()
    with loop_on(tmp_path / "a.db", server, clock, executor) as loop:
        for k in range(20):
            one_day(server, clock, k)
            loop.turn()
        assert loop._loaded
        plan_id = next(plan for _, plan, _ in loop._loaded.values())
        loop._steps = [ActStep(clock.now() + 5.0, plan_id, LOAD, 7, "Mail")]
        loop.ledger.add((), at=clock.now(), offs=[Off(clock.now() + 1.0, None, "paused")])
        executor.done.clear()
        clock.t += 2400.0
        loop.turn()
        assert executor.done
        assert {what for what, _ in executor.done} == {"let go"}
        assert loop._steps == []


def test_commands_let_go_in_the_end_of_what_nobody_has_opened(tmp_path: Path) -> None:
    log = tmp_path / "log"
    acts = CommandExecutor(f"sh -c 'echo load $1 >> {log}' sh {{target}}",
                           f"sh -c 'echo drop $1 >> {log}' sh {{target}}")  # fmt: skip
    for target in ("a", "b", "c"):
        acts.load(target, "app")
    acts.opened("a", "app")
    acts.let_go("b", "app")
    acts.undo()
    acts.undo()
    assert log.read_text().split("\n")[3:-1] == ["drop b", "drop c"]

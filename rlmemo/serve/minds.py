"""What makes a mind for a person: a policy that was loaded, in its world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from env.timeline import Event
from rlmemo.live.mind import Mind, Minding
from rlmemo.store.live_ledger import NOT_YET, LiveRow

if TYPE_CHECKING:
    from rlmemo.policies.run import Setup


def version_of(policy: str) -> str:
    """What plans say of which version of a policy made them."""
    folder = Path(policy).expanduser()
    return folder.resolve().name if folder.is_dir() else "shipped"


def opened(k: int) -> LiveRow:
    """An event that nobody recorded, to try something out on: seven targets in turn."""
    return LiveRow(k, Event(60.0 * k, f"{k % 7}", "app"), 0.0, NOT_YET)


def maker(made: Setup, version: str, threshold: float | None) -> Callable[[str, str, float | None], Minding]:
    """What makes a minding for a person. memory: in MB, None for that of the run's world."""
    usual = made.world.budget * made.world.cost_model().cost("").memory_mb

    def make(user: str, tz: str, memory_mb: float | None) -> Minding:
        return Minding(made, user, tz, memory_mb or usual, version, threshold)

    mind = Mind(make("", "UTC", None))  # refused before anything is served
    for k in range(9):  # what is compiled or loaded at the first event is so before one comes
        mind.think(opened(k))
    return make

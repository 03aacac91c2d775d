"""Where that lies what live has learned from a recording, and who is in charge by it; and forgetting it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from rlmemo.store.database import Store

IN_CHARGE, LEARNED = "in_charge", "learned"
"""States of the ledger: {"run", "before"}, folders of runs, "" for the policy that was given at the start,
None for one that is not kept; and {"at", "opens", "said"}, what was decided last."""
FORGOTTEN_TOO = "what was learned was forgotten with what it came from; it learns anew from what is left"


def runs_folder(db: Path) -> Path:
    """The folder of all that was learned from a database's recordings."""
    return db.resolve().with_name("live-runs")


def learned_folder(db: Path, timeline_id: int) -> Path:
    """The folder of what was learned from one recording."""
    return runs_folder(db) / f"{db.name}-{timeline_id}"


def take_out_of_charge(store: Store, timelines: Iterable[int]) -> None:
    """Put the policy that live was started with back in charge of recordings, in the transaction that forgets
    something of them."""
    for number in timelines:
        for name, value in (
            (IN_CHARGE, {"run": "", "before": None}),
            (LEARNED, {"at": time.time(), "opens": 0, "said": FORGOTTEN_TOO}),
        ):
            store.db.execute(
                "UPDATE live_state SET value = ? WHERE name = ?", [json.dumps(value), f"{number} {name}"]
            )


def remove_learned(store: Store, timelines: Iterable[int]) -> int:
    """Remove what was learned from recordings; from how many of them there was something."""
    gone = 0
    for number in timelines:
        folder = learned_folder(store.path, number)
        if folder.is_dir():
            gone += any(x.is_dir() for x in folder.iterdir())
            shutil.rmtree(folder, ignore_errors=True)
    return gone

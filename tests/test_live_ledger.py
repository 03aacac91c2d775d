"""The ledger of one person among others': what is new is found without looking at what others did."""

from __future__ import annotations

from pathlib import Path

import pytest

from env.timeline import Event
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import LiveLedger, Seen

OTHERS = 3000


def seen(name: str, t: float) -> Seen:
    return Seen(f"{name}{t:g}", Event(t, f"{name}{t % 3:g}", "app"))


@pytest.mark.parametrize("back", [0, 1, 3])
def test_what_is_new_is_found_without_looking_at_everybodys(tmp_path: Path, back: int) -> None:
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    with open_store(tmp_path / "x.db") as store:
        ada, bob = LiveLedger(store, "ada", "UTC"), LiveLedger(store, "bob", "UTC")
        ada.add([seen("a", t) for t in range(5)], at=0.0)
        bob.add([seen("b", t) for t in range(OTHERS)], at=0.0)
        ada.add([seen("a", t) for t in (5.0, 5.0, 6.0)], at=0.0)
        bob.add([seen("b", OTHERS + t) for t in range(OTHERS)], at=0.0)
        ids = [row.id for row in ada.rows()]
        assert len(ids) == 7  # (one came twice)
        store.db.conn.set_progress_handler(step, 100)  # of SQLite's own steps
        after = ids[-1 - back]
        rows, keys = list(ada.rows(after=after)), ada.keys(after=after)
        store.db.conn.set_progress_handler(None, 0)
        assert [row.id for row in rows] == [k for k, _ in keys] == ids[len(ids) - back :]
    assert steps[0] < 20  # 3,000 events are some 200 of these


def test_events_of_the_same_moment_are_all_found(tmp_path: Path) -> None:
    with open_store(tmp_path / "x.db") as store:
        ada = LiveLedger(store, "ada", "UTC")
        ada.add([Seen(f"{k}", Event(7.0, f"t{k}", "app")) for k in range(4)], at=0.0)
        ids = [row.id for row in ada.rows()]
        assert [[row.id for row in ada.rows(after=x)] for x in (0, *ids)] == [
            ids[k:] for k in range(len(ids) + 1)
        ]

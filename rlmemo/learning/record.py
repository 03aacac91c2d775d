"""A run noted in a database: that it began, what it learned from, and how it ended.

Forgetting needs it: an adapter that has learned from what is now forgotten cannot unlearn it, so it has to be
named (`rlmemo.store.forgetting`). Noted is where the run's folder is, its settings, from when to when
the events lie that it learned from, and whether they, or the ratings, came from this very database.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.errors import InputError
from env.sources.database import is_database
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.prepare import Prepared, learned_span
from rlmemo.store.database import Store, open_store


@dataclass(frozen=True)
class RunRow:
    """A run's row in a database."""

    database: Path
    run_id: int

    def ended(self, status: str, folder: Path) -> None:
        """Note how the run ended: finished, stopped or failed. What cannot be written is said, no more:
        the run itself is whole."""
        try:
            with open_store(self.database) as store:
                store.end_run(self.run_id, status, _metrics(folder) if status == "finished" else None)
        except InputError as error:
            print(f"the run's end was not noted: {error}", file=sys.stderr)


def database_of(config: TrainConfig) -> Path | None:
    """Where a run is noted: `--db`, else the timelines or the ratings, where they are a database."""
    if config.db is not None:
        return Path(config.db)
    for name in (config.timelines, config.feedback):
        if name is not None and Path(name).is_file() and is_database(Path(name)):
            return Path(name)
    return None


def note(prepared: Prepared, folder: Path) -> RunRow | None:
    """Note that a run begins or goes on; None where there is no database to note it in.

    Raises InputError where the one named by `--db` cannot be written; one that was only given to read from
    is not insisted on.
    """
    config = prepared.config
    database = database_of(config)
    if database is None:
        return None
    settings = {"settings": config.as_dict(), "learned": _learned(prepared, database)}
    try:
        with open_store(database) as store:
            return RunRow(database, _row(store, str(folder.resolve()), config, settings))
    except InputError as error:
        if config.db is not None:
            raise
        print(f"this run is not noted in a database: {error}", file=sys.stderr)
        return None


def _row(store: Store, folder: str, config: TrainConfig, settings: dict[str, Any]) -> int:
    """The run's row: that of the same folder, where it has not finished."""
    for run in store.runs():
        if run.folder == folder and run.status != "finished":
            store.continue_run(run.id)
            return run.id
    return store.add_run(folder, config.method, config.model, Path(folder).name, settings)


def _learned(prepared: Prepared, database: Path) -> dict[str, Any]:
    """From when to when the events lie that are learned from or chosen by (unix seconds), and what of it
    all comes from `database`."""
    return {
        **learned_span(prepared.timelines, prepared.split),
        "events_of_this_database": _same(prepared.config.timelines, database),
        "ratings_of_this_database": _same(prepared.config.feedback, database),
    }


def _same(name: str | None, database: Path) -> bool:
    return name is not None and Path(name).exists() and database.exists() and Path(name).samefile(database)


def _metrics(folder: Path) -> dict[str, float]:
    """What the report says of the run's policy on the test part; what is no number is left out."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        judged = report["policies"][report["policy"]]
        values = {name: cell["value"] for name, cell in judged.items() if isinstance(cell, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {k: v for k, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}

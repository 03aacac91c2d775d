"""Timelines written as a folder of Parquet files, for recordings that do not fit into memory.

Columns are those of a CSV; each person is a row group of their own, so that who reads one passes over the
others; time zones, and whether anybody did this at all, stand in the files' metadata (`env.sources.parquet`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.sources.parquet import METADATA, SUFFIX
from env.timeline import KINDS, SWITCHES, Timeline
from rlmemo.runs.atomic import folder_atomic

PEOPLE_PER_FILE = 100


def write(folder: Path, timelines: Iterable[Timeline], *, synthetic: bool = False) -> tuple[int, int]:
    """Write timelines, as they come, into a new folder; (people, rows). Nothing stands there before all of
    it does. Raises InputError where something is there already, or the disk is full."""
    if folder.exists():
        raise InputError(f"{folder}: is there already; name another folder, or remove it")
    people = rows = 0
    with folder_atomic(folder) as part:
        left = iter(timelines)
        while several := tuple(islice(left, PEOPLE_PER_FILE)):
            rows += _file(part / f"part-{people // PEOPLE_PER_FILE:05d}{SUFFIX}", several, synthetic)
            people += len(several)
        if not people:
            raise InputError(f"{folder}: there are no timelines to write")
    return people, rows


def _file(path: Path, timelines: tuple[Timeline, ...], synthetic: bool) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"tz": {x.user: [x.tz, x.tz_known] for x in timelines}, "synthetic": synthetic}
    fields: list[Any] = [
        ("user", pa.string()), ("t", pa.float64()), ("target", pa.string()), ("kind", pa.string()),
        ("duration", pa.float64()), ("device", pa.string()), ("wave", pa.int16()),
    ]  # fmt: skip
    schema = pa.schema(fields, metadata={METADATA: json.dumps(about)})
    rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for timeline in timelines:
            columns = _columns(timeline)
            rows += len(columns["t"])
            writer.write_table(pa.table(columns, schema=schema))
    return rows


def _columns(timeline: Timeline) -> dict[str, Any]:
    """One person's rows in time order, offs and wakes among them."""
    switched = [(timeline.offs, SWITCHES[0]), (timeline.wakes, SWITCHES[1])]
    t = np.concatenate([timeline.t, *(times for times, _ in switched)])
    order, none = np.argsort(t, kind="stable"), [None] * (len(t) - len(timeline))
    devices = (timeline.devices[k] if k >= 0 else None for k in timeline.device)
    columns: dict[str, list[Any]] = {
        "target": [*(timeline.names[k] for k in timeline.target), *none],
        "kind": [*(KINDS[k] for k in timeline.kind), *chain(*([kind] * len(at) for at, kind in switched))],
        "duration": [*(None if np.isnan(x) else float(x) for x in timeline.duration), *none],
        "device": [*devices, *none],
        "wave": [*timeline.wave.tolist(), *none],
    }
    made = {name: [column[k] for k in order] for name, column in columns.items()}
    return {"user": [timeline.user] * len(t), "t": t[order], **made}

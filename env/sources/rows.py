"""Rows in columns, as an importer gathers them, and the way from there to sorted timelines."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from env.errors import InputError
from env.sources.names import shown
from env.sources.report import ImportReport, Loaded
from env.timeline import KINDS, SWITCHES, Timeline, collapse, utc_offsets

MAX_DEVICES = 1000
_KIND = {name: code for code, name in enumerate((*KINDS, *SWITCHES))}
_OFF, _WAKE = (_KIND[name] for name in SWITCHES)


@dataclass
class Rows:
    """Rows of any number of users, in the order in which they were read.

    The strings are numbered as they come, so a million rows take tens of megabytes and no row object.
    """

    user: array[int] = field(default_factory=lambda: array("i"))
    t: array[float] = field(default_factory=lambda: array("d"))
    target: array[int] = field(default_factory=lambda: array("i"))
    kind: array[int] = field(default_factory=lambda: array("b"))
    duration: array[float] = field(default_factory=lambda: array("d"))
    device: array[int] = field(default_factory=lambda: array("h"))
    wave: array[int] = field(default_factory=lambda: array("h"))
    users: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.t)

    def add(
        self,
        user: str,
        t: float,
        target: str,
        kind: str = "app",
        duration: float = float("nan"),
        device: str = "",
        wave: int = 0,
    ) -> None:
        """Append one row. `t` in unix seconds, `duration` in seconds, NaN where unknown; of kind `off` or
        `wake` (see `SWITCHES`) it is no opening, and its target is empty."""
        if device and device not in self.devices and len(self.devices) >= MAX_DEVICES:
            raise InputError(
                f"more than {MAX_DEVICES} different devices, the last one {shown(device)}: is the device "
                "column the right one? Rename it to leave it out"
            )
        self.user.append(self.users.setdefault(user, len(self.users)))
        self.t.append(t)
        self.target.append(self.names.setdefault(target, len(self.names)))
        self.kind.append(_KIND[kind])
        self.duration.append(duration)
        self.device.append(self.devices.setdefault(device, len(self.devices)) if device else -1)
        self.wave.append(wave)


def timelines_of(
    rows: Rows,
    report: ImportReport,
    *,
    tz: str | dict[str, str],
    tz_known: bool | dict[str, bool],
    drop_duplicates: bool = False,
) -> list[Timeline]:
    """One timeline per user, sorted by user; within a user by time. What comes at one time keeps the order of
    the rows, or, of a user whose rows stand newest first, has it turned round.

    Counts into `report` how many rows came before an earlier row of the same user, and, if
    `drop_duplicates`, how many repeated the row before them (of the same user, in the order of `rows`)
    exactly: user, time, target, kind and device. A, B, A within one second are three openings.
    `tz` and `tz_known` may differ by user. Offs and wakes of who opens nothing are dropped; where nobody
    opens anything, InputError is raised.
    """
    user = np.frombuffer(rows.user, np.int32) if len(rows) else np.zeros(0, np.int32)
    t = np.frombuffer(rows.t, np.float64) if len(rows) else np.zeros(0)
    columns: dict[str, np.ndarray] = {
        "target": np.array(rows.target, np.int32),
        "kind": np.array(rows.kind, np.int8),
        "duration": np.array(rows.duration, np.float64),
        "device": np.array(rows.device, np.int16),
        "wave": np.array(rows.wave, np.int16),
    }
    names, devices, users = list(rows.names), list(rows.devices), list(rows.users)
    grouped = np.argsort(user, kind="stable")
    same_user = user[grouped][1:] == user[grouped][:-1]
    report.change("out of time order (sorted)", count=int((same_user & (np.diff(t[grouped]) < 0)).sum()))
    position = np.arange(len(t))
    for mine in np.split(grouped, np.flatnonzero(~same_user) + 1):
        if newest_first(t[mine]):
            position[mine] *= -1
    order = np.lexsort((position, t, user))
    if drop_duplicates and len(order):
        a, b = grouped[1:], grouped[:-1]
        again = np.zeros(len(t), bool)
        again[a] = same_user & (t[a] == t[b])
        for name in ("target", "kind", "device"):
            again[a] &= columns[name][a] == columns[name][b]
        report.drop("exact duplicate of the row before it", count=int(again.sum()))
        order = order[~again[order]]
    bounds = np.searchsorted(user[order], np.arange(len(users) + 1))
    out = []
    for code in sorted(range(len(users)), key=users.__getitem__):
        mine = order[bounds[code] : bounds[code + 1]]
        kinds = columns["kind"][mine]
        pick = mine[kinds < len(KINDS)]
        if not len(pick):
            report.drop("off or wake of somebody who opens nothing", count=len(mine))
            continue
        target, own_names = _first_seen(columns["target"][pick], names)
        device, own_devices = _first_seen(columns["device"][pick], devices)
        who = users[code]
        offs, wakes = (np.unique(t[mine[kinds == code]]) for code in (_OFF, _WAKE))
        report.drop("off or wake told again", count=len(mine) - len(pick) - len(offs) - len(wakes))
        out.append(
            Timeline(
                user=who,
                t=t[pick].copy(),
                target=target.astype(np.int32),
                names=own_names,
                kind=columns["kind"][pick],
                duration=columns["duration"][pick],
                device=device.astype(np.int16),
                wave=columns["wave"][pick],
                devices=own_devices,
                tz=tz if isinstance(tz, str) else tz[who],
                tz_known=tz_known if isinstance(tz_known, bool) else tz_known[who],
                offs=offs,
                wakes=wakes,
            )
        )
    if len(rows) and not out:
        raise InputError(
            f"{report.source}: says when the machine was off, and of nothing that was opened; put both into "
            "one file"
        )
    return out


def finish(
    name: str, timelines: list[Timeline], report: ImportReport, *, collapsed: bool, synthetic: bool = False
) -> Loaded:
    """Collapse if asked, and close the report's account."""
    before = sum(len(x) for x in timelines)
    if collapsed:
        timelines = [collapse(x) for x in timelines]
    report.kept = sum(len(x) for x in timelines)
    report.collapsed = before - report.kept
    report.offs, report.wakes = sum(len(x.offs) for x in timelines), sum(len(x.wakes) for x in timelines)
    if report.offs or report.wakes:
        report.notes.append(
            f"as recorded, machines were switched off {_times(report.offs)} and back {_times(report.wakes)}: "
            "nothing is in memory afterwards"
        )
    report.users = len(timelines)
    spans = [x.t[[0, -1]] + utc_offsets(x.t[[0, -1]], x.tz) for x in timelines if len(x)]
    if spans:
        report.first_day, report.last_day = (
            f"{datetime.fromtimestamp(float(s), UTC):%Y-%m-%d}"
            for s in (min(s.min() for s in spans), max(s.max() for s in spans))
        )
    return Loaded(name=name, timelines=timelines, report=report, synthetic=synthetic)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def newest_first(t: np.ndarray) -> bool:
    """Whether a user's rows, in the order of their file, mostly go back in time, as browsers export them."""
    steps = np.diff(t)
    return bool((steps < 0).sum() > 2 * (steps > 0).sum())


def _first_seen(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Renumber `codes` by first appearance; negative codes stay -1."""
    known = codes >= 0
    unique, first, inverse = np.unique(codes[known], return_index=True, return_inverse=True)
    rank = np.empty(len(unique), np.int64)
    by_first = np.argsort(first, kind="stable")
    rank[by_first] = np.arange(len(unique))
    out = np.full(len(codes), -1, np.int64)
    out[known] = rank[inverse]
    return out, tuple(names[int(unique[i])] for i in by_first)

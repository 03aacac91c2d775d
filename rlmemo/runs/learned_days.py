"""Up to when a run had learned from a person's days: only what came later says how it would do.

A run learns from the training part of its timelines and chooses on their validation part. Both are found
again from its folder: the timelines are read once more, and where they are what they were (their hash is in
the run's config) the split is made again and this person looked for in it, by the opens themselves, as the
same person may be called otherwise elsewhere. Where they have changed since, or are gone, the last date that
the run noted in its own config tells, or in a database (`rlmemo.learning.record`): one for everybody in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from env.errors import InputError
from env.sources import load_timelines
from env.splits import split_by
from env.timeline import Timeline

if TYPE_CHECKING:
    from rlmemo.store.records import StoredRun

NEVER = -math.inf
SAME = 0.1
"""Share of the shorter timeline's opens that two recordings of one person have in common, at least. Two
people open the same thing in the same second now and then."""


def learned_until(run: Path, timeline: Timeline, noted: Iterable[StoredRun] = ()) -> float | None:
    """Unix seconds of the last of this timeline's events that a run, or one that it went on from, learned
    from or was chosen by; `NEVER` where it saw none of them; None where that cannot be told any more.

    noted: the runs that the timeline's own database knows of.
    """
    noted, seen, found = list(noted), set[Path](), NEVER
    following: Path | None = run
    while following is not None:
        folder = following.resolve()
        if folder in seen:
            return None
        seen.add(folder)
        config = _config(folder)
        until = None if config is None else _until(folder, config, timeline, noted)
        if config is None or until is None:
            return None
        found = max(found, until)
        before = config["settings"].get("init_adapter")
        following = next(iter(_places(str(before), folder)), Path(str(before))) if before else None
    return found


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    whole = isinstance(config, dict) and all(isinstance(config.get(k), dict) for k in ("settings", "met"))
    return config if whole else None


def _until(folder: Path, config: dict[str, Any], timeline: Timeline, noted: list[StoredRun]) -> float | None:
    """Of one run, whatever it went on from."""
    settings, met = config["settings"], config["met"].get("timelines")
    met = met if isinstance(met, dict) else {}
    named = str(settings.get("timelines"))
    for name in dict.fromkeys([named, *(str(place) for place in _places(named, folder))]):
        try:
            again = load_timelines(name, seed=int(settings.get("seed", 0)), tz=settings.get("tz")).timelines
        except (InputError, OSError, ValueError, TypeError):
            continue
        if not again or fingerprint(again) != met.get("sha256"):
            continue
        split = split_by(again, str(settings.get("split", "chrono")))
        last = NEVER
        for theirs, train, validation in zip(again, split.train, split.validation, strict=True):
            used = [int(part[-1]) for part in (train, validation) if len(part)]
            if used and is_same_person(theirs, timeline):
                last = max(last, float(theirs.t[max(used)]))
        return last
    own = met.get("learned")
    if isinstance(own, dict) and isinstance(own.get("until"), int | float):
        return float(own["until"])
    for row in noted:
        learned = row.config.get("learned")
        if Path(row.folder) == folder and isinstance(learned, dict):
            return float(learned["until"]) if learned.get("events_of_this_database") else None
    return None


def _places(name: str, folder: Path) -> list[Path]:
    """Where a file or folder that a run names may lie: a relative path is one from where the run was started,
    which is the folder above `runs/` as a rule."""
    places = [Path(name), folder.parent.parent / name, folder.parent / name]
    return [place for place in dict.fromkeys(places) if place.exists()]


def is_same_person(a: Timeline, b: Timeline) -> bool:
    """Whether two timelines hold the same person's opens, at least in part: `SAME` of the shorter one."""
    if not len(a) or not len(b) or a.t[-1] < b.t[0] or b.t[-1] < a.t[0]:
        return False
    shared = _opens(a) & _opens(b)
    return len(shared) >= max(1.0, SAME * min(len(a), len(b)))


def _opens(timeline: Timeline) -> set[tuple[float, str]]:
    """Time (to the second: sources round differently) and name of every open."""
    names = np.array(timeline.names, dtype=object)[timeline.target]
    return set(zip(np.floor(timeline.t).tolist(), names.tolist(), strict=True))


def fingerprint(timelines: list[Timeline]) -> str:
    """SHA-256 over what the timelines hold."""
    digest = hashlib.sha256()
    for x in timelines:
        for part in (x.user, x.tz, "\0".join(x.names)):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\1")
        for column in (x.t, x.target, x.kind):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()

"""A small store with predictions to rate, made without any policy: for the tests of rating."""

from __future__ import annotations

from pathlib import Path

from env.sources.report import ImportReport, Loaded
from env.timeline import Event, Timeline
from rlmemo.store.database import Store, open_store
from rlmemo.store.ratings import ToRate, add_moment
from rlmemo.store.records import Prediction, Prewarm

START = 1_714_982_400.0  # Monday 6 May 2024, 08:00 UTC
TARGETS = ("Mail", "Calendar", "Editor", "Chat", "news.example")
HOSTILE = "<img src=x onerror=alert(1)>**b** [l](/e)"


def add_prediction(
    store: Store, k: int, *, name: str | None = None, outcome: bool = True, timeline_id: int | None = None
) -> int:
    """Prediction number k: Mail, Calendar, Editor were opened, and `name` (else Chat) would be prewarmed."""
    t = START + 3600.0 * k
    target = name or "Chat"
    identity = store.add_prediction(
        Prediction(
            user="ada",
            t=t,
            policy="markov1",
            policy_version="test 1",
            state=f"now\n0 s ago {target}",
            plan=(Prewarm(target, 0.0), Prewarm("news.example", 300.0)),
            probabilities={target: 0.6, "news.example": 0.2},
            none_probability=0.2,
            propensity=0.9,
            timeline_id=timeline_id,
            key=f"prediction-{k}",
            outcome={
                "next_target": target,
                "next_t": t + 120.0,
                "prewarms": ["hit", "wasted"],
                "saved_s": 2.5,
                "pollution": 0,
                "wasted_mb_s": 10.0,
            }
            if outcome
            else None,
        )
    )
    steps = [(t - 400.0, "Mail"), (t - 100.0, "Calendar"), (t, name or "Editor")]
    add_moment(store, identity, ToRate("test", "Europe/Berlin", False, "validation", steps, 0.5))
    return identity


def fill(path: Path, predictions: int = 30, *, name: str | None = None) -> Path:
    """A store at `path` with one person's ten days of opens and some predictions; returns `path`."""
    events = [
        Event(START + 900.0 * i, name if name and i % 5 == 3 else TARGETS[i * 7 % 5]) for i in range(960)
    ]
    timeline = Timeline.from_events("ada", events, tz="Europe/Berlin", tz_known=True)
    with open_store(path) as store:
        store.add_timelines(Loaded("test", [timeline], ImportReport("test"), False))
        identity = store.timelines()[0].id
        for k in range(predictions):
            add_prediction(store, k, name=name, timeline_id=identity)
    return path

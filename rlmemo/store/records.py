"""What the store holds, as rows: stored timelines, runs, predictions, ratings."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from env.timeline import zone


@dataclass(frozen=True)
class TimelineRow:
    """A stored timeline; `events` is how many it holds (not collapsed), first and last are unix seconds."""

    id: int
    source: str
    user: str
    tz: str
    tz_known: bool
    synthetic: bool
    imported_at: float
    events: int
    first_t: float | None
    last_t: float | None


@dataclass(frozen=True)
class StoredRun:
    """One training run. config and metrics are what its folder's config.yaml and report.json say."""

    id: int
    folder: str
    method: str
    model: str
    policy_version: str
    config: dict[str, Any]
    status: str
    metrics: dict[str, Any] | None
    started_at: float
    ended_at: float | None


@dataclass(frozen=True)
class Prewarm:
    """One prewarm of a plan: load `target` in `delay_s` seconds."""

    target: str
    delay_s: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """What a policy decided after the event at `t` (unix seconds), and later what came of it.

    plan              the prewarms that were planned, none or up to K
    let_go            who leaves first when room is needed, in this order
    probabilities     target → probability that it is opened next
    none_probability  probability that the next open is none of these, or None
    propensity        probability with which the policy chose this plan, in (0, 1]
    policy_version    which policy exactly: a run folder's name and step, or a package version
    state             the state as text, as the policy or the rater saw it
    outcome           what replay or life made of it (the environment's accounting), None until known
    key               the same key is the same prediction, however often it is sent
    """

    user: str
    t: float
    policy: str
    policy_version: str
    state: str
    plan: Sequence[Prewarm]
    probabilities: Mapping[str, float]
    propensity: float
    let_go: Sequence[str] = ()
    none_probability: float | None = None
    timeline_id: int | None = None
    run_id: int | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    id: int | None = None
    outcome: dict[str, Any] | None = None
    outcome_at: float | None = None
    predicted_at: float | None = None


@dataclass(frozen=True)
class Rating:
    """A person's thumbs up (1) or down (0) on a prediction. blind: 1 where they did not know what had
    happened, 0 where they did."""

    id: int
    key: str
    prediction_id: int
    rater: str
    thumbs: int
    reason: str
    rated_at: float
    blind: int = 1


def state_text(steps: Sequence[tuple[float, str]], tz: str) -> str:
    """The moment as text: local time, then what was opened and how long before, oldest first.

    Names stand in JSON strings, so that a name with a line break or an instruction in it stays a name.
    """
    now = steps[-1][0]
    local = datetime.fromtimestamp(now, UTC).astimezone(zone(tz))
    lines = [f"now {local:%A %Y-%m-%d %H:%M} {tz}"]
    lines += [f"{now - t:.0f} s ago {json.dumps(target, ensure_ascii=False)}" for t, target in steps]
    return "\n".join(lines)

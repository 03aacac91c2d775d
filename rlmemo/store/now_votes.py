"""Thumbs on what live has just planned: kept as ratings like any other, so that training, estimates and the
next plan mind them.

A plan of live's becomes a stored prediction with its moment when somebody says something about it, once,
however often they do. What one says is blind where nothing has been opened since.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from env.errors import InputError
from env.judge.world_options import WorldOptions
from env.sources.names import clean_name
from rlmemo.store.database import Store
from rlmemo.store.live_ledger import SOURCE
from rlmemo.store.now import LiveMoment, LiveRecording, LiveStanding
from rlmemo.store.ratings import ToRate, add_moment
from rlmemo.store.records import Prediction, state_text

PART = "live"
SHOWN = "shown"
"""The state that says from when on a rater has seen opens on the page, by their name."""


@dataclass(frozen=True)
class LiveVote:
    """What a rater has said of a plan of live's. thumbs: 1, 0, or None for nothing that counts; given: how
    often they have spoken about it."""

    thumbs: int | None
    given: int


def key_of(of: LiveRecording, moment: LiveMoment) -> str:
    """What makes a plan of live's one prediction."""
    return f"{PART}:{of.timeline_id}:{moment.plan_id}:{moment.made_at!r}"


def said_of(store: Store, of: LiveRecording, moment: LiveMoment, rater: str) -> LiveVote:
    """What a rater has said of a plan."""
    row = store.rows(
        """SELECT (SELECT thumbs FROM latest_ratings AS r WHERE r.prediction_id = p.id AND r.rater = :rater)
                  AS thumbs,
                  (SELECT COUNT(*) FROM ratings AS r WHERE r.prediction_id = p.id AND r.rater = :rater)
                  AS given
           FROM (SELECT 1) LEFT JOIN predictions AS p ON p.key = :key""",
        {"key": key_of(of, moment), "rater": clean_name(rater)},
    )[0]
    return LiveVote(row["thumbs"], int(row["given"]))


def said_of_target(store: Store, of: LiveRecording, target: str) -> tuple[int, int]:
    """How often yes and no was said of plans with a target in this recording, by everybody who rates it."""
    row = store.rows(
        """SELECT COALESCE(SUM(r.thumbs), 0) AS ups, COUNT(*) AS n
           FROM latest_ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
           WHERE p.timeline_id = ?
             AND EXISTS (SELECT 1 FROM json_each(p.plan) WHERE json_extract(value, '$.target') = ?)""",
        [of.timeline_id, target],
    )[0]
    return int(row["ups"]), int(row["n"] - row["ups"])


def vote(
    store: Store,
    of: LiveRecording,
    how: LiveStanding,
    moment: LiveMoment,
    rater: str,
    thumbs: int,
    given: int,
) -> bool:
    """Write what a rater says of a plan, 1 or 0; on return it is committed. given: how often they had spoken
    about it when it was shown to them. False where that was answered already, from another window or by a
    second click: nothing is written then. Raises InputError where the plan was forgotten meanwhile."""
    rater = clean_name(rater)
    if not store.rows("SELECT 1 FROM live_plans WHERE id = ? AND made_at = ?",
                      [moment.plan_id, moment.made_at]):  # fmt: skip
        raise InputError("this plan was forgotten meanwhile; say something about the next one")
    prediction = store.add_prediction(
        Prediction(
            user=of.user, t=moment.t, policy=moment.policy, policy_version=moment.policy_version,
            state=state_text(moment.steps, of.tz), plan=moment.plan, let_go=moment.let_go,
            probabilities=moment.probabilities, none_probability=moment.none_probability, propensity=1.0,
            timeline_id=of.timeline_id, key=key_of(of, moment), predicted_at=moment.made_at,
        )
    )  # fmt: skip
    asked = ToRate(SOURCE, of.tz, False, PART, moment.steps, 0.5, stills=True, world=_world(how))
    add_moment(store, prediction, asked)
    latest = store.rows(
        "SELECT MAX(t) AS t FROM events WHERE timeline_id = ?", [of.timeline_id]
    )[0]["t"]  # fmt: skip
    key = f"{rater}:{prediction}:{given}"
    if store.rows("SELECT 1 FROM ratings WHERE key = ?", [key]):
        return False
    blind = moment.next is None and latest <= moment.t
    return store.rate(prediction, rater, thumbs, key=key, blind=blind).thumbs == thumbs


def take_back(store: Store, of: LiveRecording, moment: LiveMoment, rater: str) -> None:
    """Let what a rater has said of a plan not count any more; twice is once."""
    with store.write():
        store.db.execute(
            """INSERT OR IGNORE INTO withdrawals (rating_id, withdrawn_at)
               SELECT r.id, ? FROM ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
               WHERE p.key = ? AND r.rater = ?""",
            [time.time(), key_of(of, moment), clean_name(rater)],
        )


def note_shown(store: Store, of: LiveRecording, how: LiveStanding, rater: str) -> None:
    """Note that a rater sees what was opened, from the earliest open on the page: what they say elsewhere
    of later moments is not blind any more."""
    first = min((m.steps[0][0] for m in how.moments if m.steps), default=math.inf)
    name = f"{of.timeline_id} {SHOWN} {clean_name(rater)}"
    known = store.rows("SELECT value FROM live_state WHERE name = ?", [name])
    if first < (float(known[0]["value"]) if known else math.inf):
        with store.write():
            store.db.execute(
                "INSERT OR REPLACE INTO live_state (name, value) VALUES (?, ?)", [name, repr(float(first))]
            )


def _world(how: LiveStanding) -> WorldOptions | None:
    """What live plans for, as training names it: its memory in MB by what an app takes."""
    if not how.settings:
        return None
    world = WorldOptions.of(how.settings["world"])
    an_app = world.cost_model().cost("").memory_mb
    return replace(world, budget=round(float(how.settings["budget_mb"]) / an_app, 6))

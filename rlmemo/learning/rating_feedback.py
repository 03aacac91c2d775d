"""What training takes from ratings: the approval model, the reward's rating term, pairs and single rows.

A run keeps the ratings that it read (`feedback.json`, ids and numbers, no names), so that it can be resumed
whatever was rated since.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.case import Case
from env.judge.plans import Plans
from reward import TERMS, Reward
from rlmemo.approval.approval import MODEL, Approval, fit_approval
from rlmemo.approval.placed_ratings import (
    Found,
    Placed,
    RatedMoment,
    existing_store,
    not_learned,
    place_ratings,
    rating_weights,
    read_ratings,
)
from rlmemo.learning.pairs import KtoExample, Pair, Picks, ScoredPlans
from rlmemo.learning.rating_rows import (
    Sayable,
    expected_of,
    rating_examples,
    rating_pairs,
    sayable,
    states_of,
)
from rlmemo.learning.training_data import States, TrainingData
from rlmemo.policies.protocol import Planned
from rlmemo.runs.atomic import write_atomic
from rlmemo.runs.folder import RunFolder

KEPT = "feedback.json"


@dataclass(frozen=True)
class Feedback:
    """Ratings placed in a run's timelines, the approval model fitted on them (None: too few), and how much
    one thumb counts: seconds of waiting per unit of expected rating."""

    placed: list[Placed]
    approval: Approval | None
    per_thumb: float
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def states(self) -> States:
        """The different moments that were rated."""
        return states_of(self.placed)[0]

    def sentence(self) -> str:
        """What was found, in a line."""
        up = sum(p.rated.thumbs for p in self.placed)
        text = f"feedback: {len(self.placed)} ratings, {up} thumbs up"
        if not self.placed:
            text = "feedback: no ratings to learn from, going on without"
        elif self.approval is None:
            text += "; too few for an approval model"
        if self.left_out:
            text += "; left out: " + ", ".join(f"{n} {why}" for why, n in sorted(self.left_out.items()))
            if not self.placed:
                text += f"; {Found([], self.left_out).advice}"
        return text

    def expected(self, data: TrainingData, user: int, index: np.ndarray, plans: list[Picks]) -> np.ndarray:
        """Expected rating of plans as places in the slate, float64 [R], -1 to 1: the `rating` field of their
        outcome record, before it has its weight."""
        return expected_of(data, self.approval, user, index, plans)

    def worth(self, data: TrainingData, case: Case, plans: Planned | Plans) -> np.ndarray:
        """Seconds that the expected rating of every plan of a case is worth, float64 [n]; 0 without an
        approval model. What is loaded at wakes is rated by nobody."""
        if self.approval is None:
            return np.zeros(len(case))
        most = case.world.max_picks
        target, delay_s = plans.target[:, :most], np.asarray(case.world.delays)[plans.delay[:, :most]]
        rated = self.approval.expected(case.timeline, data.plain[case.user], case.indices, target, delay_s)
        return self.per_thumb * rated


def per_thumb(reward: Reward, weight: float) -> float:
    """Seconds that a thumb counts: the reward's `rating` weight (where the reward does not name the term,
    the term's own) times `--feedback-weight`."""
    return weight * dict(reward.terms).get("rating", TERMS["rating"].weight)


def read_feedback(
    db: str | Path,
    data: TrainingData,
    reward: Reward,
    *,
    weight: float,
    seed: int,
    folder: RunFolder | None = None,
) -> Feedback:
    """The ratings of a store that are about the training part of the data; what else there is is counted in
    `left_out`.

    folder: the run that keeps them; what it kept before is taken instead of the store.
    Raises InputError where the store cannot be read.
    """
    kept = folder.path / KEPT if folder else None
    if kept is not None and kept.exists():
        found = _read_kept(kept, data)
    else:
        with existing_store(db) as store:
            rated = read_ratings(store)
        weights = rating_weights(rated)
        found = place_ratings(rated, data.timelines, weight=weights, learn_on=data.split)
        if kept is not None:
            _keep(kept, found)
    approval, _ = fit_approval(found.placed, data.timelines, data.plain, seed=seed)
    if folder is not None and approval is not None:
        approval.save(folder.path / MODEL)
    return Feedback(found.placed, approval, per_thumb(reward, weight), found.left_out)


def _keep(path: Path, found: Found) -> None:
    rows = []
    for p in found.placed:
        rated = dataclasses.asdict(p.rated)
        for name in ("user", "source", "current", "plan"):
            rated.pop(name)  # names stay in the store, where they can be forgotten
        rows.append(
            {"rated": rated, "user": p.user, "index": p.index, "target": p.target.tolist(),
             "delay_s": p.delay_s.tolist(), "weight": p.weight}
        )  # fmt: skip
    write_atomic(path, json.dumps({"placed": rows, "left_out": dict(found.left_out)}) + "\n")


def _read_kept(path: Path, data: TrainingData) -> Found:
    """What `_keep` wrote. A run begun before validation moments were left out may have kept some of them."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        placed = [
            Placed(
                RatedMoment(**row["rated"], user="", source="", current=None, plan=()),
                int(row["user"]),
                int(row["index"]),
                np.array(row["target"], np.int32),
                np.array(row["delay_s"], np.float64),
                float(row["weight"]),
            )
            for row in kept["placed"]
        ]
        hidden = not_learned(data.split)
        found = Found([], Counter(kept["left_out"]))
        for p in placed:
            why = hidden[p.user].get(p.index + 1)
            if why is None:
                found.placed.append(p)
            else:
                found.left_out[why] += 1
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: is damaged ({error}); delete it and run with --resume") from None


def with_ratings(
    scored: list[ScoredPlans], data: TrainingData, feedback: Feedback | None
) -> list[ScoredPlans]:
    """The same plans, their rewards with the rating term: what a thumb counts times the expected rating."""
    if feedback is None or feedback.approval is None:
        return scored
    made: list[ScoredPlans] = list(scored)
    for user in sorted({s.user for s in scored}):
        rows = [k for k, s in enumerate(scored) if s.user == user]
        plans = [plan for k in rows for plan in scored[k].plans]
        index = np.array([scored[k].index for k in rows for _ in scored[k].plans], np.int64)
        value = feedback.per_thumb * feedback.expected(data, user, index, plans)
        at = 0
        for k in rows:
            n = len(scored[k].plans)
            made[k] = dataclasses.replace(scored[k], rewards=scored[k].rewards + value[at : at + n])
            at += n
    return made


def preference_rows(
    feedback: Feedback, data: TrainingData, method: str, *, offset: int, limit: int, seed: int
) -> list[Any]:
    """Pairs (`dpo`) or single rows (anything else) from the ratings, at most `limit`; `offset` as in
    `rating_pairs`."""
    said: list[Sayable] = sayable(feedback.placed, data)
    if method == "dpo":
        pairs: list[Pair] = rating_pairs(said, data, feedback.approval, offset=offset, limit=limit, seed=seed)
        return pairs
    rows: list[KtoExample] = rating_examples(said, data, offset=offset)
    order = np.random.default_rng([seed, 6]).permutation(len(rows))[:limit]
    return [rows[i] for i in order]


def joined(states: States, feedback: Feedback | None) -> States:
    """The states of replay, then those of the ratings."""
    if feedback is None:
        return states
    more = feedback.states
    return States(np.concatenate([states.user, more.user]), np.concatenate([states.index, more.index]))

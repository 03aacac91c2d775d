"""The stages in which the policy learns from what it says while it learns: PPO, GRPO, RLOO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from env.judge.case import Case
from env.judge.plans import FIELDS
from rlmemo.learning.pairs import Picks, ScoredPlans, score
from rlmemo.learning.rated_episodes import field as field_of
from rlmemo.learning.rating_feedback import with_ratings
from rlmemo.learning.rollout_crew import rollout_crew, score_together
from rlmemo.learning.run import Run, UnderWay
from rlmemo.learning.training_data import States
from rlmemo.model.load import through_scorer
from rlmemo.model.soon import load_soon
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import BY_MODEL, BY_NOBODY, OwnPlans

MOST_PASSES = 20  # over a small training part; more would only learn it by heart
SPOKEN = 200
"""Decisions of the validation part for which a text model says its plans at one look: they take it as long as
the decisions that it learns from."""


def run_online(run: Run, name: str, states: States) -> None:
    """Do one such stage, from the adapter of the stage before it; nothing where it is finished. Where all
    plans are worth the same, its adapter is that one."""
    if run.finished(name):
        return
    stages = run.config.shared_stages
    before = stages[stages.index(name) - 1]
    if name == "ppo":
        train = run.prepared.split.counts()["train"]
        rollout = run.config.ppo_lanes * run.config.ppo_steps
        enough = max(2, -(-MOST_PASSES * train // rollout))
        rollouts = min(run.config.ppo_rollouts, enough)
        with run.stage(name, f"PPO on {rollouts * rollout} decisions", before) as stage:
            _episodes(run, stage, rollouts)
        return
    title = f"{name.upper()} on {run.config.group_plans} plans a state"
    with run.stage(name, title, before) as stage:
        _groups(run, stage, states)


def _episodes(run: Run, stage: UnderWay, rollouts: int) -> None:
    from rlmemo.learning.ppo import run_ppo

    lesson = run.lesson(stage, replace(run.config, ppo_rollouts=rollouts))
    field = field_of(run.data, run.reward, run.feedback, run.config.ppo_half_life or math.inf)
    with rollout_crew(run.config) as crew:
        model, found = run_ppo(lesson, field, Validation(run), crew)
    run.save(stage, model, found)
    was, now = found["start_validation"], found["best_validation"]
    stage.bar.note = f"{was:+.3f} to {now:+.3f} an open on validation"


def _groups(run: Run, stage: UnderWay, states: States) -> None:
    from rlmemo.learning.grpo import run_groups

    with rollout_crew(run.config) as crew:
        shared = None if crew is None else crew.share(run.data)

        def scored(states: States, plans: list[dict[Picks, str]]) -> list[ScoredPlans]:
            if crew is None:
                made = score(run.data, states, plans, run.reward, run.config.picks)
            else:
                made = score_together(crew, shared, states, plans, run.reward, run.config.picks)
            return with_ratings(made, run.data, run.feedback)

        run.save(stage, *run_groups(run.lesson(stage), run.data, states, scored, crew))


def shortened(cases: Sequence[Case], most: int) -> list[Case]:
    """The first decisions of each case, in proportion to its length: some `most` in all, one at least."""
    total = max(most, sum(map(len, cases)))
    return [replace(x, stop=x.start + max(1, len(x) * most // total)) for x in cases]


class Validation:
    """Reward per open of a model's own likeliest plans on the validation part (0 where that is empty), with
    what their expected ratings are worth where ratings are learned from. Of a text model `SPOKEN` decisions
    of that part are looked at."""

    def __init__(self, run: Run) -> None:
        self.data, self.feedback = run.data, run.feedback
        self.cases = run.data.cases(run.data.split.validation)
        if run.data.reading.kind == "text":
            self.cases = shortened(self.cases, SPOKEN)
        self.reward, self.seed = run.reward, run.config.seed
        # The scorer that the run's policy reads, fitted on its whole training part.
        self.reading = through_scorer(run.data.reading, run.path)
        self.soon = load_soon(run.path / "scorer")
        self.way = OwnPlans(BY_MODEL if run.data.names else BY_NOBODY)

    def __call__(self, model: Any) -> float:
        model.reading, model.soon = self.reading, self.soon
        policy, weights = LanguagePolicy(model), self.reward.weights(FIELDS)
        worth = 0.0
        for case in self.cases:
            plans = self.way.plan(policy, case, seed=self.seed)
            worth += float((case.replay(plans).table @ weights).sum())
            if self.feedback is not None:
                worth += float(self.feedback.worth(self.data, case, plans).sum())
        return worth / max(sum(len(case) for case in self.cases), 1)

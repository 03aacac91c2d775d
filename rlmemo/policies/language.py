"""The language model as a policy: it ranks what may come next, and says plans of its own.

How it is asked is `rlmemo.model.ask`; where its model comes from, `rlmemo.model.switching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from env.judge.case import Case
from env.judge.plans import Plans
from env.ranking import Ranking, Stream
from env.slate.slate import Slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model.ask import SampledPlans, ranked, sample_plans
from rlmemo.model.readings import reading_of, slates_of
from rlmemo.model.soon import PLACES, soon_of
from rlmemo.model.streaming import follow
from rlmemo.model.switching import OneModel, Shelved, Switching
from rlmemo.policies.planners import Planner
from rlmemo.policies.protocol import Planned

Learn = Callable[..., None]
"""Called as learn(timelines, split) before anything is asked."""


class LanguagePolicy:
    """A language model (its adapter merged) behind the `Policy` protocol.

    model: a model that is loaded, or where one comes from (`Switching`: every user's own adapter; `Shelved`:
    loaded when asked for). planner: what it plans by (None: the judge chooses a threshold). temperature: of
    its own plans, said token by token; 0 says the likeliest. learn: what it does to learn from a training
    part (None: nothing; `python -m rlmemo.train` did it).
    """

    def __init__(
        self,
        model: Any,
        name: str = "language",
        *,
        planner: Planner | None = None,
        temperature: float = 0.0,
        note: str = "",
        learn: Learn | None = None,
    ) -> None:
        self.source = model if isinstance(model, Switching | Shelved) else OneModel(model)
        self.name, self.planner, self.temperature, self.note = name, planner, temperature, note
        self._learn = learn
        self._known: dict[tuple[int, int, int], tuple[Timeline, Ranking]] = {}

    @property
    def model(self) -> Any:
        """The model, reading with whatever adapter is in use."""
        return self.source.model

    def planning(self, planner: Planner | None, note: str = "") -> LanguagePolicy:
        """The same model planning by `planner`; what it has ranked already is not ranked again."""
        other = LanguagePolicy(
            self.source if not isinstance(self.source, OneModel) else self.source.model,
            self.name, planner=planner, temperature=self.temperature, note=note, learn=self._learn,
        )  # fmt: skip
        other._known = self._known
        return other

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Learn from the training part, if anything is to be learned beside what training did."""
        if self._learn is not None:
            self._learn(timelines, split)
            self._known.clear()

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """The slate by the model's probabilities, with all targets taken as cold; see `Policy.rank`.

        Stretches without gaps are remembered: choosing and judging ask for the same ones.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) < 2 or indices[-1] - indices[0] != len(indices) - 1:
            return self._rank(timeline, indices)
        key = (id(timeline), int(indices[0]), int(indices[-1]))
        if key not in self._known:
            self._known[key] = (
                timeline,
                self._rank(timeline, indices),
            )  # the timeline is kept: its id stays its own
        return self._known[key][1]

    def _rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        model = self.source.of(timeline.user)
        slates = reading_of(model).look(timeline, indices)
        return ranked(model, timeline, slates, indices)

    def soon(self, timeline: Timeline, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The chance of targets to be opened soon, which is what they are kept in memory for; see
        `rlmemo.model.soon`. (targets int32 [D, V], -1 for none; float64 [D, V])"""
        return soon_of(self.source.of(timeline.user)).told(slates_of(timeline, PLACES), indices)

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another, each from the event that is new; see `rlmemo.model.streaming`.
        Streams of several users may be asked in turn."""
        ask = follow(self.source.of(timeline.user), timeline)

        def one(i: int) -> Ranking:
            self.source.of(timeline.user)
            return ask(i)

        return one

    def plan(self, case: Case, *, seed: int = 0) -> Planned:
        """The model's own plans for the decisions of a case, each made in the world that the plans before
        it have left.

        A plan depends on what is warm, and that on earlier plans. Instead of one forward pass after the
        other, all decisions are asked at once in the world as far as it is known, the plans are played,
        and whoever saw another world than that is asked again, until nobody did. Decision i is final after
        at most i rounds, and what comes out is what asking one by one gives. Where the case is told who is
        opened soon, the plans name who leaves first.
        """
        model = self.source.of(case.timeline.user)
        how, indices, n, picks = reading_of(model), case.indices, len(case), case.world.max_picks
        slates = how.look(case.timeline, indices)
        candidates = slates.candidates[indices]
        names = case.worth is not None
        plans = Plans.empty(n, picks, case.world.max_let_go if names else 0)
        logp = np.zeros(n)
        asked = np.full((n, candidates.shape[1] + 1), np.nan)
        for _ in range(n + 1):
            warm, free = case.memory(slates.candidates, plans, names)
            seen = np.concatenate([warm, how.free_level(free)[:, None]], axis=1).astype(np.float64)
            rows = np.flatnonzero((seen != asked).any(1))
            if not len(rows):
                break
            asked[rows] = seen[rows]
            said = self._say(model, slates, case, indices[rows], warm[rows], free[rows], seed)
            for k in range(picks):
                picked = said.place[:, k] >= 0
                place = np.maximum(said.place[:, k], 0)
                plans.target[rows, k] = np.where(picked, candidates[rows, place], -1)
                plans.delay[rows, k] = np.where(picked, said.delay[:, k], 0)
            logp[rows] = said.logp
        return Planned(plans.target, plans.delay, np.exp(logp), plans.let_go)

    def _say(
        self,
        model: Any,
        slates: Slates,
        case: Case,
        indices: np.ndarray,
        warm: np.ndarray,
        free: np.ndarray,
        seed: int,
    ) -> SampledPlans:
        prompts = reading_of(model).prompts(case.timeline, slates, indices, warm, free)
        valid = (slates.candidates[indices] >= 0) & (warm == 0)
        picks = case.world.max_picks
        if self.temperature <= 0:
            return sample_plans(model, prompts, valid, picks, 0.0, np.random.default_rng(seed))
        # One generator a decision: what is drawn must not depend on which others are asked again.
        made = [
            sample_plans(
                model, prompts[j : j + 1], valid[j : j + 1], picks, self.temperature,
                np.random.default_rng([seed, int(i)]),
            )
            for j, i in enumerate(indices)
        ]  # fmt: skip
        return SampledPlans(
            np.concatenate([m.place for m in made]),
            np.concatenate([m.delay for m in made]),
            np.concatenate([m.logp for m in made]),
        )

"""The language model as a policy: it ranks what may come next, and says plans of its own.

How it is asked is `rlmemo.model.ask`; where its model comes from, `rlmemo.model.switching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from env.judge.case import Case
from env.judge.plans import Plans
from env.ranking import Ranking, Stream
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model.ask import (
    Answered,
    MindedPrompts,
    SampledPlans,
    answered,
    minded,
    read,
    sample_plans,
    whom,
)
from rlmemo.model.readings import reading_of, slates_of
from rlmemo.model.residents import LISTED, Residents
from rlmemo.model.scorer import Scored
from rlmemo.model.soon import PLACES, soon_of
from rlmemo.model.streaming import follow
from rlmemo.model.switching import OneModel, Shelved, Switching
from rlmemo.model.thumbs_so_far import said_by
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
        self._known: dict[tuple[int, int, int], tuple[Timeline, Answered]] = {}
        self._alone = False

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
        other._known, other._alone = self._known, self._alone
        return other

    def alone(self, name: str) -> LanguagePolicy:
        """The same model ranking by itself, where a scorer has a say otherwise; it does not mind thumbs."""
        other = LanguagePolicy(
            self.source if not isinstance(self.source, OneModel) else self.source.model,
            name,
            note=f"{name}: the model by itself, without its scorer",
        )
        other._known, other._alone = self._known, True
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
            found = self._answer(timeline, indices)
        else:
            key = (id(timeline), int(indices[0]), int(indices[-1]))
            if key not in self._known:  # the timeline is kept: its id stays its own
                self._known[key] = (timeline, self._answer(timeline, indices))
            found = self._known[key][1]
        return found.alone() if self._alone else found.together()

    def _answer(self, timeline: Timeline, indices: np.ndarray) -> Answered:
        model = self.source.of(timeline.user)
        slates = reading_of(model).look(timeline, indices)
        return answered(model, timeline, slates, indices)

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

    @property
    def names(self) -> bool:
        """Whether the model says who leaves first."""
        return reading_of(self.model).named > 0

    def plan(self, case: Case, *, seed: int = 0, naming: bool = False) -> Planned:
        """The model's own plans for the decisions of a case, each made in the world that the plans before
        it have left; see `_settled`. Where the case is told who is opened soon, they name who leaves first:
        those that are least worth keeping or, `naming`, whom the model says.
        """
        asked = _Asked(self, case, naming)
        n, picks, temperature = len(case), case.world.max_picks, self.temperature
        chosen = case.worth is not None and not naming
        plans = Plans.empty(n, picks, case.world.max_let_go if case.worth is not None else 0)
        logp = np.zeros(n)

        def walk() -> Memory:
            return case.memory(asked.slates.candidates, plans, chosen, LISTED if naming else 0)

        def say(rows: np.ndarray, memory: Memory) -> None:
            prompts, valid = asked.minded(rows, memory)
            names = plans.let_go.shape[1] if naming else 0
            said = _say(asked.model, prompts, valid, picks, names, temperature, seed, asked.indices[rows])
            candidates = asked.slates.candidates[asked.indices[rows]]
            for k in range(picks):
                picked = said.place[:, k] >= 0
                place = np.maximum(said.place[:, k], 0)
                plans.target[rows, k] = np.where(
                    picked, np.take_along_axis(candidates, place[:, None], 1)[:, 0], -1
                )
                plans.delay[rows, k] = np.where(picked, said.delay[:, k], 0)
            if said.named is not None:
                plans.let_go[rows, : said.named.shape[1]] = whom(memory[2][rows], said.named)
            logp[rows] = said.logp

        asked.settle(walk, say)
        return Planned(plans.target, plans.delay, np.exp(logp), plans.let_go)

    def naming(
        self, case: Case, ranking: Ranking, threshold: float, waking: np.ndarray | None = None
    ) -> Plans:
        """Plans by a threshold, in which the model says who leaves first. case: told who is opened soon."""
        asked = _Asked(self, case, True)
        named = np.full((len(case), case.world.max_let_go), -1, np.int32)

        def walk() -> Memory:
            plans = case.replay_ranked(ranking, threshold, named, waking)[1]
            return case.memory(asked.slates.candidates, plans, residents=LISTED)

        def say(rows: np.ndarray, memory: Memory) -> None:
            prompts, _ = asked.prompts(rows, memory)
            leave = read(asked.model, prompts).leave
            assert leave is not None
            filled = np.concatenate([memory[2][rows] >= 0, np.ones((len(rows), 1), bool)], axis=1)
            order = np.argsort(-np.where(filled, leave, -np.inf), axis=1, kind="stable")
            most = min(named.shape[1], reading_of(asked.model).named)
            first = order[:, :most]
            said = np.where((first == LISTED).cumsum(1) > 0, -1, first)  # nobody after nobody
            named[rows, :most] = whom(memory[2][rows], said)

        asked.settle(walk, say)
        return case.replay_ranked(ranking, threshold, named, waking)[1]


Memory = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What is in memory at each decision of a case, as of `Case.memory`."""


WINDOW = 16
"""Decisions that are asked at once, where plans name who leaves."""


class _Asked:
    """A model that is asked about the decisions of a case in a world that depends on its answers."""

    def __init__(self, policy: LanguagePolicy, case: Case, residents: bool) -> None:
        self.model = policy.source.of(case.timeline.user)
        self.how = reading_of(self.model)
        self.case, self.indices = case, case.indices
        self.slates = self.how.look(case.timeline, case.indices)
        self._residents = None
        if residents:
            wide = slates_of(case.timeline, PLACES)
            self._residents = Residents.of(wide, case.indices, soon_of(self.model))

    def prompts(
        self, rows: np.ndarray, memory: Memory, silent: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(prompts, which candidates may be picked bool [D, size]) of some of the decisions. silent: as if
        nothing had been said."""
        warm, free, listed = memory
        levels = None if self._residents is None else self._residents.levels(rows, listed[rows])
        at = self.indices[rows]
        timeline = replace(self.case.timeline, thumbs=None) if silent else self.case.timeline
        made = self.how.prompts(timeline, self.slates, at, warm[rows], free[rows], levels)
        return made, (self.slates.candidates[at] >= 0) & (warm[rows] == 0)

    def minded(self, rows: np.ndarray, memory: Memory) -> tuple[MindedPrompts, np.ndarray]:
        """As `prompts`, to say plans to: where the ranking minds thumbs by Bayes' rule too, so does a first
        pick."""
        prompts, valid = self.prompts(rows, memory)
        if self.case.timeline.thumbs is None or not isinstance(self.slates, Scored):
            return MindedPrompts(prompts), valid
        bare, at = self.prompts(rows, memory, silent=True)[0], self.indices[rows]
        said = said_by(self.case.timeline, at, self.slates.candidates[at])
        return minded(self.model, bare, prompts, said), valid

    def settle(self, walk: Callable[[], Memory], say: Callable[[np.ndarray, Memory], None]) -> None:
        """Ask until nobody saw another world than the one that the answers make.

        A plan depends on what is in memory, and that on earlier plans. Instead of one forward pass after the
        other, decisions are asked at once in the world as far as it is known, the plans are played, and
        whoever saw another world than that is asked again. Who leaves changes the world of many decisions, so
        only the next `WINDOW` are asked then. Decision i is final after at most i rounds,
        and what comes out is what asking one by one gives.
        """
        asked: np.ndarray | None = None
        most = len(self.indices) if self._residents is None else WINDOW
        while True:
            memory = walk()
            warm, free, listed = memory
            seen = np.concatenate([warm, self.how.free_level(free)[:, None], listed], axis=1)
            asked = np.full(seen.shape, -9) if asked is None else asked
            rows = np.flatnonzero((seen != asked).any(1))
            if not len(rows):
                return
            rows = rows[rows < rows[0] + most]
            asked[rows] = seen[rows]
            say(rows, memory)


def _say(
    model: Any,
    prompts: MindedPrompts,
    valid: np.ndarray,
    picks: int,
    names: int,
    temperature: float,
    seed: int,
    indices: np.ndarray,
) -> SampledPlans:
    """Plans for the decisions `indices`."""
    if temperature <= 0:
        rng = np.random.default_rng(seed)
        return sample_plans(model, prompts, valid, picks, 0.0, rng, names=names)
    # One generator a decision: what is drawn must not depend on which others are asked again.
    made = [
        sample_plans(
            model, prompts[j : j + 1], valid[j : j + 1], picks, temperature,
            np.random.default_rng([seed, int(i)]), names=names,
        )
        for j, i in enumerate(indices)
    ]  # fmt: skip
    return SampledPlans.join(made)

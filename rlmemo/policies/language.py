"""The language model as a policy: one forward pass ranks the slate, a short sampled sequence is a plan.

The model reads a moment as `rlmemo.model.slots` writes it. The log-probabilities of the letters and
of `<end>` after `<plan>` are the ranking and "none of these"; those of the `<when>` tokens are the time
until the next opening. A plan is sampled token by token under a mask that leaves only valid plans (places
that are filled, not warm, in slate order, a delay after each letter), so the probability that is logged
as propensity is exactly the probability of having said it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.cost import Costs, WorldConfig
from env.ranking import Ranking, Stream
from env.slate.slate import Slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model.ask import SampledPlans, ranked, sample_plans
from rlmemo.model.hub import EMBEDDED, PROMPTED, Loading, model_sha256
from rlmemo.model.load import load_adapted, load_model, with_scorer
from rlmemo.model.readings import reading_of
from rlmemo.policies.protocol import Planned


class LanguagePolicy:
    """A language model (its adapter merged) behind the `Policy` and `PlanningPolicy` protocols.

    threshold None: plans are the model's own, said token by token, greedily unless `temperature` > 0.
    threshold x: plans are the best-ranked cold targets with probability >= x, at once; the judge may then
    tune x anew (`PlanningPolicy` is not implemented by that form; see `RankedLanguagePolicy`).
    """

    def __init__(self, model: Any, name: str = "language", temperature: float = 0.0) -> None:
        self.model, self.name, self.temperature = model, name, temperature

    @staticmethod
    def load(folder: str | Path) -> Any:
        """The policy of a run folder, with the planner that its run chose on validation.

        Raises InputError where the folder holds no finished run.
        """
        folder = Path(folder)
        import yaml

        try:
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            settings, met = config["settings"], config.get("met") or {}
            choice_file = folder / "adapter" / "plan.json"
            choice = json.loads(choice_file.read_text()) if choice_file.exists() else {"planner": "own"}
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise InputError(f"{folder}: is no finished run ({error}); train one with --out") from None
        base = str(settings.get("model", EMBEDDED))
        loading = Loading(**{f.name: settings[f.name] for f in fields(Loading) if f.name in settings})
        if settings.get("peft") in PROMPTED:
            loading = replace(loading, learned=int(settings.get("virtual_tokens", 0)))
        if met.get("base_sha256") and met["base_sha256"] != model_sha256(base):
            raise InputError(f"{folder}: its base model {base} has changed since; train it again with --out")
        switch = None
        if (folder / "adapters").is_dir():
            from rlmemo.model.switching import switching
            from rlmemo.policies.per_user import per_user

            switch = switching(with_scorer(load_model(base, loading)[0], folder), folder)
        model = switch.model if switch else load_adapted(base, folder / "adapter", loading)
        kind = LanguagePolicy if choice.get("planner") == "own" else RankedLanguagePolicy
        from rlmemo.policies.approved import approved

        minding = approved(LanguagePolicy(model, folder.name), folder / "adapter", choice, folder.name)
        policy: Any = minding or kind(model, folder.name)
        return per_user(policy, switch) if switch else policy

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing: it was trained by `python -m rlmemo.train`."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """The slate by the model's probabilities, with all targets taken as cold; see `Policy.rank`."""
        indices = np.asarray(indices, np.int64)
        slates = reading_of(self.model).look(timeline, indices)
        return ranked(self.model, timeline, slates, indices)

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another, each from the event that is new; see `rlmemo.model.streaming`."""
        from rlmemo.model.streaming import follow

        return follow(self.model, timeline)

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """The model's own plans for decisions `indices` (increasing, without gaps), each made in the world
        that the plans before it have left.

        A plan depends on what is warm, and that on earlier plans. Instead of one forward pass after the
        other, all decisions are asked at once in the world as far as it is known, the plans are played,
        and whoever saw another world than that is asked again, until nobody did. Decision i is final after
        at most i rounds, and what comes out is what asking one by one gives.
        """
        from env.judge.plans import Plans
        from env.judge.residency import residency

        indices = np.asarray(indices, np.int64)
        slates = reading_of(self.model).look(timeline, indices)
        n, picks = len(indices), config.max_picks
        first, last = int(indices[0]), int(indices[-1])
        candidates = slates.candidates[indices]
        plans = Plans.empty(n, picks)
        logp = np.zeros(n)
        asked = np.full((n, candidates.shape[1] + 1), np.nan)
        for _ in range(n + 1):
            warm, free = residency(timeline, slates.candidates, costs, config, plans, first, last)
            seen = np.concatenate([warm, reading_of(self.model).free_level(free)[:, None]], axis=1).astype(
                np.float64
            )
            rows = np.flatnonzero((seen != asked).any(1))
            if not len(rows):
                break
            asked[rows] = seen[rows]
            said = self._say(slates, timeline, indices[rows], warm[rows], free[rows], config, seed)
            for k in range(picks):
                picked = said.place[:, k] >= 0
                place = np.maximum(said.place[:, k], 0)
                plans.target[rows, k] = np.where(picked, candidates[rows, place], -1)
                plans.delay[rows, k] = np.where(picked, said.delay[:, k], 0)
            logp[rows] = said.logp
        return Planned(plans.target, plans.delay, np.exp(logp))

    def _say(
        self,
        slates: Slates,
        timeline: Timeline,
        indices: np.ndarray,
        warm: np.ndarray,
        free: np.ndarray,
        config: WorldConfig,
        seed: int,
    ) -> SampledPlans:
        prompts = reading_of(self.model).prompts(timeline, slates, indices, warm, free)
        valid = (slates.candidates[indices] >= 0) & (warm == 0)
        if self.temperature <= 0:
            rng = np.random.default_rng(seed)
            return sample_plans(self.model, prompts, valid, config.max_picks, 0.0, rng)
        # One generator a decision: what is drawn must not depend on which others are asked again.
        made = [
            sample_plans(
                self.model, prompts[j : j + 1], valid[j : j + 1], config.max_picks, self.temperature,
                np.random.default_rng([seed, int(i)]),
            )
            for j, i in enumerate(indices)
        ]  # fmt: skip
        return SampledPlans(
            np.concatenate([m.place for m in made]),
            np.concatenate([m.delay for m in made]),
            np.concatenate([m.logp for m in made]),
        )


class RankedLanguagePolicy:
    """A language model that only ranks; the judge plans by a threshold tuned on validation."""

    def __init__(self, model: Any, name: str = "language") -> None:
        self._policy = LanguagePolicy(model, name)
        self.name, self.model = name, model

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing: it was trained by `python -m rlmemo.train`."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `LanguagePolicy.rank`."""
        return self._policy.rank(timeline, indices)

    def stream(self, timeline: Timeline) -> Stream:
        """See `LanguagePolicy.stream`."""
        return self._policy.stream(timeline)

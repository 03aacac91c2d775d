"""The world of a run, a benchmark, a prediction: what plans are worth, and under which rules.

Every command names it by the same options (`--costs --budget --picks --ttl-s --let-go --off-after-s
--close-after-s --reward`), a run folder keeps it in its `config.yaml`, and whoever predicts, replays, rates
or estimates with a run uses the run's own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError
from env.judge.cost import EXPECTED, PAST_RULES, CostModel, Costs, WorldConfig
from env.judge.cost_presets import PRESETS, cost_model, is_cost_file
from env.slate.slate import SLATE_SIZE
from reward import parse_reward

if TYPE_CHECKING:
    from env.timeline import Timeline
    from reward import Reward

COSTS_HELP = f"what memory and waiting cost: {', '.join(PRESETS)}, or a cost file (.json)"
LET_GO_HELP = f"who leaves when room is needed: {', '.join(PAST_RULES)}; or, but not in training, {EXPECTED}"
LET_GO_PICKS_HELP = "R, targets that a plan may let go first; 0: who leaves is the rule's to say alone"
WORLDS: Mapping[str, Mapping[str, Any]] = {"day": {"off_after_s": 7200.0, "budget": 8.0}}
"""Presets of rules, by name: some of the options below. `day`: after two hours' pause the machine was off."""
PRESET_HELP = f"a preset of rules ({', '.join(WORLDS)}); options beside it win"
MOST_PICKS = SLATE_SIZE
"""A plan takes each candidate of a slate once, and a ranking lists as many: no policy could fill more.
(`WorldConfig` takes up to 64: an environment's slate may be larger, and the judge reads any plan.)"""


@dataclass(frozen=True)
class WorldOptions:
    """Everything that a stated number depends on, besides the data and its split.

    costs   what memory and waiting cost: a preset, or the path of a cost file (`env.judge.cost_file`)
    budget  memory for what is warm, in typical (median) targets
    picks   K, prewarms per plan at most
    ttl_s   seconds after which an unused prewarm goes
    let_go  let-go rule: who leaves when room is needed, of `env.judge.cost.PAST_RULES`, or `expected`, where
            a policy says who is opened soon
    let_go_picks  R, targets that a plan may let go first; 0: who leaves is the rule's to say alone
    off_after_s, close_after_s  as in `WorldConfig`; 0: never
    reward  preset or TERM=WEIGHT,…
    """

    costs: str = "desktop"
    budget: float = 8.0
    picks: int = 3
    ttl_s: float = 1800.0
    reward: str = "net_seconds"
    let_go: str = "lru"
    let_go_picks: int = 2
    off_after_s: float = 0.0
    close_after_s: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> WorldOptions:
        """Those of a run's settings; what an older run does not name is what was the rule then.

        Raises InputError where one cannot be what it should be.
        """
        given = {f.name: settings[f.name] for f in fields(cls) if settings.get(f.name) is not None}
        try:
            return cls(
                str(given.get("costs", cls.costs)), float(given.get("budget", cls.budget)),
                int(given.get("picks", cls.picks)), float(given.get("ttl_s", cls.ttl_s)),
                str(given.get("reward", cls.reward)), str(given.get("let_go", cls.let_go)),
                int(given.get("let_go_picks", 0)),
                float(given.get("off_after_s", cls.off_after_s)),
                float(given.get("close_after_s", cls.close_after_s)),
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise InputError(f"the settings {given} name no world ({error})") from None

    def in_words(self) -> str:
        """The rules as a person would say them; what a plan is worth only where it is not the usual thing."""
        worth = "" if self.reward == WorldOptions.reward else f", reward {self.reward}"
        if self.let_go != WorldOptions.let_go:
            worth += f", let go by {self.let_go}"
        if self.let_go_picks != WorldOptions.let_go_picks:
            worth += f", at most {self.let_go_picks} let go by a plan"
        if self.off_after_s:
            worth += f", off after {self.off_after_s / 60:g} minutes"
        if self.close_after_s:
            worth += f", closed after {self.close_after_s / 60:g} minutes"
        return (
            f"memory for {self.budget:g} typical targets, {Path(self.costs).name} costs, at most "
            f"{self.picks} prewarms a plan, each for {self.ttl_s / 60:g} minutes{worth}"
        )

    def arguments(self) -> list[str]:
        """The options of a command line that name this world; what is usual is left out."""
        usual = WorldOptions()
        return [
            f"--{f.name.replace('_', '-')}={format(value, 'g') if isinstance(value, float) else value}"
            for f in fields(self)
            if (value := getattr(self, f.name)) != getattr(usual, f.name)
        ]

    def check(self) -> None:
        """Raises InputError for what there is not."""
        if not 1 <= self.picks <= MOST_PICKS:
            raise InputError(
                f"picks is {self.picks}; a slate has {MOST_PICKS} places, so give 1 to {MOST_PICKS}"
            )
        if not 0 <= self.let_go_picks <= MOST_PICKS:
            raise InputError(f"let_go_picks is {self.let_go_picks}; give 0 to {MOST_PICKS}")
        if self.let_go not in (*PAST_RULES, EXPECTED):
            raise InputError(f"let_go is {self.let_go!r}; give one of {', '.join((*PAST_RULES, EXPECTED))}")
        for name in ("off_after_s", "close_after_s"):
            value = getattr(self, name)
            if value and not value >= 1.0:
                raise InputError(f"{name} is {value:g}; give seconds >= 1, or 0 for never")
        self.rules()
        self.cost_model()
        self.worth()

    def rules(self, budget: float | None = None) -> WorldConfig:
        """The world's rules, with this budget or another."""
        return WorldConfig(
            budget_targets=self.budget if budget is None else budget,
            max_picks=self.picks,
            ttl_s=self.ttl_s,
            let_go=self.let_go,
            max_let_go=self.let_go_picks,
            off_after_s=self.off_after_s or math.inf,
            close_after_s=self.close_after_s or math.inf,
        )

    def cost_model(self) -> CostModel:
        """What the targets cost."""
        return cost_model(self.costs)

    def costs_identity(self) -> str:
        """The costs, told apart from others of the same path: a preset's name, or what a file holds."""
        if not is_cost_file(self.costs):
            return self.costs
        return "file " + hashlib.sha256(Path(self.costs).read_bytes()).hexdigest()

    def costs_of(self, timelines: Sequence[Timeline]) -> list[Costs]:
        """The costs of every timeline's targets."""
        model = self.cost_model()
        return [model.arrays(x) for x in timelines]

    def worth(self) -> Reward:
        """The reward. Raises InputError where there is no such one."""
        try:
            return parse_reward(self.reward)
        except ValueError as error:
            raise InputError(f"--reward: {error}") from None

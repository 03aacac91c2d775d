"""The stages that a run can have, each named once: what it is, what it learns from, what its settings are.

A method is its stages joined by "-", SFT before the first left out: `dpo-ppo` is sft, dpo, then ppo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StageKind = Literal["supervised", "preference", "online", "per user"]


@dataclass(frozen=True)
class Stage:
    """A stage.

    title: for people. what: it is, in one line; short: in a few words, for a choice in a list. kind:
    supervised, preference (plans scored by replay), online (what the model says while it learns) or per user.
    options: how its settings begin. counts: what of `state.json` says how much it learned from; of: what they
    are. taught: what it teaches by, for who meets it first. curves: (what is logged, its name) to be drawn.
    """

    title: str
    what: str
    kind: StageKind
    options: str
    counts: str
    of: str
    taught: str
    short: str = ""
    curves: tuple[tuple[str, str], ...] = ()


_GROUP_CURVES = (("reward", "reward a plan, sampled"), ("entropy", "entropy, nats a token"))
STAGES = {
    "sft": Stage(
        "SFT", "supervised fine-tuning on what was opened next, and when", "supervised", "sft",
        counts="states", of="training states", short="what came next",
        taught="SFT (supervised fine-tuning on what was opened next)",
        curves=(("loss", "loss, nats per token"), ("mean_token_accuracy", "tokens right")),
    ),
    "dpo": Stage(
        "DPO", "direct preference optimisation on plans scored by replay", "preference", "dpo",
        counts="pairs", of="pairs of plans scored by replay", short="better plans over worse",
        taught="DPO (preferring the better of two plans)",
        curves=(("loss", "loss"), ("rewards/accuracies", "pairs ordered right")),
    ),
    "kto": Stage(
        "KTO", "Kahneman-Tversky optimisation on single scored plans", "preference", "kto",
        counts="plans", of="plans scored by replay", short="single plans, good or bad",
        taught="KTO (shown single plans that did well or badly)",
        curves=(("loss", "loss"), ("rewards/margins", "margin of good over bad")),
    ),
    "ppo": Stage(
        "PPO", "proximal policy optimisation over episodes of the replayed world", "online", "ppo",
        counts="decisions", of="decisions in episodes of the replay", short="what its own plans lead to",
        taught="PPO (trying plans in the replayed world, for its reward)",
        curves=(
            ("plan_reward", "reward a plan, sampled"),
            ("validation/own", "reward an open on validation, likeliest plans"),
            ("explained_variance", "share of the returns' variance that the critic foresaw"),
            ("kl_to_start", "divergence from the model at the start, nats a plan"),
        ),
    ),
    "grpo": Stage(
        "GRPO", "group-relative policy optimisation on several scored plans per state", "online", "group",
        counts="plans", of="plans scored by replay",
        taught="GRPO (several plans for one moment, each against their mean)",
        curves=_GROUP_CURVES,
    ),
    "rloo": Stage(
        "RLOO", "REINFORCE, each plan against the others of its state", "online", "group",
        counts="plans", of="plans scored by replay",
        taught="RLOO (several plans for one moment, each against the others)",
        curves=_GROUP_CURVES,
    ),
    "users": Stage(
        "an adapter per user", "an adapter for each user, from the shared one on", "per user", "user",
        counts="users", of="users",
        taught="small weights of each person's own",
    ),
}  # fmt: skip

FIRST, USERS = "sft", "users"
"""What every run begins with, and the stage that gives users adapters of their own."""


def stages_of(method: str) -> tuple[str, ...]:
    """The stages of a method in which one model learns from everybody, in order."""
    return (FIRST, *(() if method == FIRST else method.split("-")))


def _described(method: str) -> str:
    first, *rest = stages_of(method)
    if not rest:
        return STAGES[first].what
    if len(rest) == 1:
        return f"{first}, then {STAGES[rest[0]].what}"
    return f"{', '.join([first, *rest[:-1]])}, then {rest[-1]}"


METHODS = {method: _described(method) for method in ("sft", "dpo", "kto", "ppo", "dpo-ppo", "grpo", "rloo")}
"""What `--method` takes, and what each is."""
ONLINE = tuple(name for name, stage in STAGES.items() if stage.kind == "online")
"""Stages in which the policy learns from what it says while it learns."""


def stage_of(name: str) -> Stage:
    """The stage of an entry in `state.json` or of a folder: a round of DPO is called `dpo-1`."""
    return STAGES[name.split("-")[0]]


def title(name: str) -> str:
    """What people call a stage, or the model before any."""
    return "base model" if name == "base" else STAGES[name].title

"""Batches and rounds that do not work out, found before anything heavy is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from env.errors import InputError

if TYPE_CHECKING:
    from rlmemo.learning.config import TrainConfig


def check_rounds(config: TrainConfig, where: str) -> None:
    """Each round has states and rows of its own."""
    each = {"dpo": {"plan_states": 1, "dpo_pairs": 1}, "kto": {"plan_states": 1, "kto_plans": 2}}
    for name, least in each.get(str(config.preference), {}).items():
        most = getattr(config, name) // least
        if config.preference_rounds > most:
            raise InputError(
                f"{where}: {name} {getattr(config, name)} cannot be shared out among preference_rounds "
                f"{config.preference_rounds}; give {most} rounds at most, or more {name}"
            )


def check_batches(config: TrainConfig, where: str) -> None:
    """What TRL's trainers would end in a traceback at, after the model was loaded."""
    rollout = config.ppo_lanes * config.ppo_steps
    said = f"a rollout of {config.ppo_lanes} x {config.ppo_steps} decisions"
    if "ppo" in config.shared_stages:
        if rollout % 2:
            raise InputError(
                f"{where}: {said} is an odd number of them, and they are learned from in pairs; give an even "
                f"ppo_lanes or ppo_steps, such as ppo_steps {config.ppo_steps + 1}"
            )
        parts = [
            x for x in range(2, rollout + 1) if rollout % x == 0 and (x < rollout or config.ppo_epochs > 1)
        ]
        near = min(parts, key=lambda x: abs(x - config.ppo_batch), default=None)
        if rollout % config.ppo_batch:
            raise InputError(
                f"{where}: ppo_batch {config.ppo_batch} does not divide {said}; give one that does, such as "
                f"{near or rollout}"
            )
        if config.ppo_epochs == 1 and config.ppo_batch == rollout:
            smaller = f"a smaller ppo_batch, such as {near}, or " if near else ""
            raise InputError(
                f"{where}: ppo_batch {config.ppo_batch} is all of {said}, and ppo_epochs is 1: one update a "
                f"rollout, in which nothing could be clipped; give {smaller}ppo_epochs 2"
            )
    if config.group_batch % config.group_plans:
        raise InputError(
            f"{where}: group_batch {config.group_batch} does not hold whole groups of {config.group_plans} "
            f"plans; give a multiple of {config.group_plans}, such as "
            f"{max(1, round(config.group_batch / config.group_plans)) * config.group_plans}"
        )
    micro, least = config.micro_batch, 2 if "kto" in config.shared_stages else 1
    if micro == 1 and least == 2:
        raise InputError(
            f"{where}: micro_batch is 1, and KTO compares the plans of one pass with each other; give 2 or "
            "more, or 0 for all of an update at once"
        )
    batches = {} if config.init_adapter else {"sft_batch": config.sft_batch}
    if config.preference:
        batches |= {f"{config.preference}_batch": getattr(config, f"{config.preference}_batch")}
    for name, batch in batches.items():
        if micro and micro < batch and batch % micro:
            fits = [x for x in range(least, micro) if not any(b % x for b in batches.values())]
            raise InputError(
                f"{where}: micro_batch {micro} does not divide {name} {batch}, so an update would not count "
                f"{batch}; give one that does, such as {max(fits, default='0 (all of it at once)')}"
            )

"""Where there is nothing to learn from: what is said of it. The adapter stays as it was (`Run.stage`)."""

from __future__ import annotations

from rlmemo.evaluation.gain import gain
from rlmemo.learning.training_data import TrainingData

SAME = 1e-9
"""Rewards that differ by less are the same."""

NO_SIGNAL = (
    "no signal: whatever is planned, the reward is that of keeping still, so no planner was chosen by it"
)


class NoSignal(Exception):
    """A stage found that all plans are worth the same; str() says why."""


def no_signal(plans: int, data: TrainingData, *, cold: bool, picked: bool) -> str:
    """What is said of `plans` plans that are all worth the same. cold: whether there was anything that could
    have been prewarmed where they were made; picked: whether any of the plans prewarms."""
    text = f"no signal: all {plans} plans are worth the same"
    budget = f"give a --budget below {data.world.budget_targets:g}"
    if not cold and gain(data.cases(data.split.train)).cold:
        return f"{text}, as nothing was cold at the moments that were looked at; look at more, or {budget}"
    if not cold:
        return (
            f"{text}, as nothing was ever cold: what is opened again fits into memory; {budget}, or record "
            "more targets"
        )
    return text if picked else f"{text}, as every one of them keeps still"

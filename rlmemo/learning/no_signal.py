"""Where there is nothing to learn from: what is said of it. The adapter stays as it was (`Run.stage`)."""

from __future__ import annotations

SAME = 1e-9
"""Rewards that differ by less are the same."""

NO_SIGNAL = (
    "no signal: whatever is planned, the reward is that of keeping still, so no planner was chosen by it"
)


class NoSignal(Exception):
    """A stage found that all plans are worth the same; str() says why."""


def no_signal(plans: int, budget: float, *, cold: bool, picked: bool) -> str:
    """What is said of `plans` plans that are all worth the same. cold: whether there was anything that could
    have been prewarmed; picked: whether any of the plans prewarms."""
    text = f"no signal: all {plans} plans are worth the same"
    if not cold:
        return (
            f"{text}, as nothing was ever cold: what is opened again fits into memory; give a --budget below "
            f"{budget:g}, or record more targets"
        )
    return text if picked else f"{text}, as every one of them keeps still"

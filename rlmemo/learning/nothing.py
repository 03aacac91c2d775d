"""Where there is nothing to learn from: it is said in one line, and the adapter stays as it was."""

from __future__ import annotations

import shutil

from rlmemo.learning.display import Display
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder

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


def leave_as_it_was(stage: str, before: str, why: str, folder: RunFolder, display: Display) -> None:
    """Finish `stage` with the adapter of the stage `before`; state, model card and report keep the reason."""
    from rlmemo.runs.user_adapters import weights_file

    display.say(f"{stage.upper()} has nothing to learn from: {why}")
    with folder_atomic(folder.path / stage) as part:
        shutil.copytree(folder.path / before, part, dirs_exist_ok=True)
    digest = sha256(weights_file(folder.path / stage))
    folder.finish(stage, {"steps": 0, "nothing": why, "adapter_sha256": digest})

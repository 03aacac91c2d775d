"""A training that is started by torchrun, with few trees and no judgement at its end.

    torchrun --nproc_per_node 2 -m tests.several OPTIONS OF rlmemo.train

DIES=dpo:12 in the environment: the second process kills itself after that update.
"""

from __future__ import annotations

import os
import signal
from typing import Any


def lighten_all() -> None:
    """What costs most and is not looked at is left out."""
    from rlmemo.learning import planner_choice, preference_rounds
    from tests.light import lighten, unjudged

    lighten()
    planner_choice.judge = unjudged
    preference_rounds.keep_best = lambda _: None


def mortal(stage: str, update: int) -> None:
    """Let this process kill itself after an update of a stage."""
    from rlmemo.learning import training

    watch = training._watch

    def watched(lesson: Any) -> Any:
        made = watch(lesson)
        ended = made.on_step_end

        def dies(args: Any, state: Any, control: Any, **more: Any) -> Any:
            if lesson.stage == stage and state.global_step == update:
                os.kill(os.getpid(), signal.SIGKILL)
            return ended(args, state, control, **more)

        made.on_step_end = dies
        return made

    training._watch = watched


if __name__ == "__main__":
    from env.errors import run_main
    from rlmemo.train import main

    lighten_all()
    if os.environ["RANK"] == "1" and "DIES" in os.environ:
        stage, update = os.environ["DIES"].split(":")
        mortal(stage, int(update))
    run_main(main)

"""Trainings that torchrun's processes do together, one after the other, with few trees and no judgement.

    torchrun --nproc_per_node 2 -m tests.several [--dies STAGE:UPDATE] OPTIONS , OPTIONS …

Every training is a fork of the process that torchrun has started, so that all of it is imported once. With
--dies the second process of the first training kills itself after that update. What torchrun would do then is
not done: the others are left to notice.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any


def lighten_all() -> None:
    """Import what a training imports; what costs most and is not looked at is left out."""
    import datasets
    import peft
    import trl.trainer.dpo_trainer
    import trl.trainer.sft_trainer

    assert all((datasets, peft, trl))
    if os.environ["RANK"] != "0":
        return
    import rlmemo.learning.job
    from rlmemo.learning import planner_choice
    from tests.light import lighten, unjudged

    assert rlmemo.learning.job
    lighten()
    planner_choice.judge = unjudged


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


def forked(number: int, words: list[str], dies: str) -> int:
    """The exit status of a training of its own."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    from env.errors import run_main
    from rlmemo.train import main

    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # they meet apart from those before
    if dies and os.environ["RANK"] == "1":
        stage, update = dies.split(":")
        mortal(stage, int(update))
    status = 1
    try:
        run_main(lambda: main(words))
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    told, death = sys.argv[1:], ""
    if told[0] == "--dies":
        death, told = told[1], told[2:]
    lighten_all()
    trainings: list[list[str]] = [[]]
    for word in told:
        if word == ",":
            trainings.append([])
        else:
            trainings[-1].append(word)
    for k, given in enumerate(trainings):
        print(
            f"training {k} of {os.environ['RANK']}: {forked(k, given, death if k == 0 else '')}", flush=True
        )

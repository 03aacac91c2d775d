"""What a process does that learns with another one (`rlmemo.learning.processes`): it waits, is told what is
to be learned from, learns it, and writes nothing."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from env.errors import InputError
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.processes import Together, of_another, together
from rlmemo.learning.training import Lesson, Stopped, hush_libraries, quiet, train
from rlmemo.runs.folder import RunFolder


def follow() -> int:
    """Learn with the first process until it is done; the exit status. What goes wrong here alone is said
    here."""
    quiet()
    me = together()
    assert me is not None
    try:
        _learn_on(me)
    except (KeyboardInterrupt, Stopped):
        return 130  # the first process says so
    except Exception as error:
        if not of_another(error) and me.first_to_fail():
            who = f"process {me.place + 1} of {me.count}"
            if not isinstance(error, InputError):
                traceback.print_exc()
            print(f"error: {who}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _learn_on(me: Together) -> None:
    while (told := me.hear()) is not None:
        # From here on Ctrl-C is the first process's matter: all stop after the same update.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _learn(told)


def _learn(told: dict[str, Any]) -> None:
    import torch

    from rlmemo.learning.dpo_kto import dpo_trainer, kto_trainer
    from rlmemo.learning.sft import sft_trainer

    hush_libraries()
    torch.set_num_threads(told["threads"])
    folder, adapter = RunFolder(Path(told["folder"])), told["adapter"] and Path(told["adapter"])
    lesson = Lesson(TrainConfig(**told["config"]), folder, told["stage"], adapter)
    trainers: dict[str, Any] = {"sft": sft_trainer, "dpo": dpo_trainer, "kto": kto_trainer}
    train(trainers[told["method"]](lesson, lesson.base(), told["columns"]), lesson)

"""rlmemo: a language model learns from feedback what to have ready before it is opened."""

import sys
from types import TracebackType


def _stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped\n")
    else:
        sys.__excepthook__(kind, error, trace)


# So it is called while `python -m` looks for a command of ours, which takes a second to import what it needs.
# Ctrl-C is no error then; later `env.errors.run_main` sees to it.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _stopped

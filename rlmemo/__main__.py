"""`rlmemo COMMAND …` and `python -m rlmemo COMMAND …`: one door to the command lines of every room.

A command is run exactly as `python -m MODULE` would run it, and only the chosen one is imported, so
`rlmemo --help` stays instant.
"""

from __future__ import annotations

import runpy
import sys
from difflib import get_close_matches
from importlib import metadata

from env.errors import InputError, run_main
from rlmemo.options import wrapped

WHAT_FOR = "Learn from a recorded timeline which app or page to have warm before it is asked for."

# command: (module that `python -m` would run, what it does)
COMMANDS = {
    "train": (
        "rlmemo.train",
        "learn from a timeline: SFT, then DPO, then an evaluation beside the baselines",
    ),
    "benchmark": ("rlmemo.benchmark", "compare policies on the same events, with intervals"),
    "timelines": ("rlmemo.timelines", "list, import and show recorded timelines"),
    "models": ("rlmemo.models", "which language models there are; fetch one by its name"),
    "predict": ("rlmemo.predict", "predict what comes next in a timeline, and log it for rating"),
    "feedback": ("rlmemo.feedback", "what people said of predictions: counts, pairs, off-policy approval"),
    "live": ("rlmemo.live", "record what is opened, plan at once, and say what that would have saved"),
    "serve": ("rlmemo.serve", "plan over HTTP for one's own devices"),
    "dashboard": ("dashboard", "see predictions in the browser and rate them"),
}


def usage() -> str:
    """What `rlmemo --help` prints."""
    lines = ["usage: rlmemo COMMAND [options]", "", wrapped(WHAT_FOR), "", "commands:"]
    lines += [wrapped(f"  {name:<10} {what}", " " * 11) for name, (_, what) in COMMANDS.items()]
    more = "`rlmemo COMMAND --help` says more; `rlmemo train` alone runs the whole job in minutes."
    lines += ["", wrapped(more)]
    return "\n".join(lines)


def version() -> str:
    """The installed version, or the one being developed where none is installed."""
    try:
        return metadata.version("rlmemo")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def main() -> int | None:
    """Hand over to the command that was asked for. Raises InputError where there is none of that name."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"rlmemo {version()}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        close = get_close_matches(command, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean `rlmemo {close[0]}`?" if close else "try `rlmemo --help`"
        raise InputError(f"there is no command {command!r} (there are: {', '.join(COMMANDS)}); {hint}")
    module, _ = COMMANDS[command]
    sys.argv = [f"rlmemo {command}", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def console() -> None:
    """The console script `rlmemo`."""
    run_main(main)


if __name__ == "__main__":
    console()

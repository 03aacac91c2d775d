"""The one way this project refuses bad input: a single line that says what to do next, exit status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from env.private import private_files


class InputError(ValueError):
    """Input that was given by a person and cannot be used; the message is shown to them as it is."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command line's `main` and leave the process with its exit status.

    InputError becomes one line on stderr and status 2; Ctrl-C becomes status 130; a closed pipe
    (`… | head`) is no error. What it writes is private, see `env.private`.
    """
    try:
        with private_files():
            sys.exit(main() or 0)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

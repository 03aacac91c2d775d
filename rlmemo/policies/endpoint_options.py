"""How a model that is not trained here is asked: how many examples, how many calls, how long to wait.

Options of the commands that can ask one. Nothing is imported here that `--help` would have to wait for.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from env.errors import InputError

KEY_VARIABLE = "RLMEMO_API_KEY"
"""Where an endpoint's key is read from, and the only place. Not OPENAI_API_KEY: that one is meant for
OpenAI alone and must not be sent to whatever address is given here."""

MAX_CALLS = 500


@dataclass(frozen=True)
class Asking:
    """How a model that is not trained here is asked.

    shots: earlier moments with their true answers, put in front of each question. The rest is for
    endpoints. max_calls: requests that one policy may send, retries included; at_once: how many of them at
    a time; timeout_s: seconds to wait for one answer; answers: file in which answers are kept, None for
    none; tries: attempts a question before giving up; wait_s: seconds before the second attempt, twice as
    many before each one after it. like: a run folder, as whose model reads it is asked.
    """

    shots: int = 0
    max_calls: int = MAX_CALLS
    at_once: int = 4
    timeout_s: float = 60.0
    answers: Path | None = None
    tries: int = 5
    wait_s: float = 0.5
    like: Path | None = None

    def check(self) -> None:
        """Raises InputError for numbers that make no sense."""
        if not 0 <= self.shots <= 32:
            raise InputError(f"--shots {self.shots} is no number of examples; give 0 to 32")
        if self.max_calls < 1:
            raise InputError(f"--max-calls {self.max_calls} leaves nothing to ask; give 1 or more")
        if not 1 <= self.at_once <= 64:
            raise InputError(f"--calls-at-once {self.at_once} is not accepted; give 1 to 64")
        if not 0 < self.timeout_s < float("inf"):
            raise InputError(f"--call-timeout {self.timeout_s} is no time to wait; give seconds above 0")
        if self.like is not None and self.shots:
            raise InputError("--ask-like asks as a run was trained, without examples; leave out --shots")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `Asking`, as a group of their own."""
    group = parser.add_argument_group("models that are not trained here")
    group.add_argument(
        "--shots", type=int, default=0, metavar="K",
        help="examples of the same person's training part in front of each question (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--max-calls", type=int, default=MAX_CALLS, metavar="N",
        help=f"requests to an endpoint, at most; more are refused (default: {MAX_CALLS})",
    )  # fmt: skip
    group.add_argument(
        "--calls-at-once", type=int, default=4, metavar="N", help="requests under way at a time (default: 4)"
    )
    group.add_argument(
        "--call-timeout", type=float, default=60.0, metavar="S", help="wait for an answer (default: 60)"
    )
    group.add_argument(
        "--answers", type=Path, metavar="FILE", help="keep answers here, and ask for none twice"
    )
    group.add_argument(
        "--ask-like", type=Path, metavar="RUN",
        help="ask an endpoint in the words that this run's model reads: it is that run, as GGUF for instance",
    )  # fmt: skip


def asking(given: argparse.Namespace) -> Asking:
    """What was given for `add_options`. Raises InputError for what is not accepted."""
    made = Asking(
        given.shots, given.max_calls, given.calls_at_once, given.call_timeout, given.answers,
        like=given.ask_like,
    )  # fmt: skip
    made.check()
    return made

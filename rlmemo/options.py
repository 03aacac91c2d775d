"""The command lines' parser: what is wrong is said in one line, and help is as wide as the terminal."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from dataclasses import fields
from difflib import get_close_matches
from itertools import groupby
from typing import Any, NoReturn

from env.errors import InputError
from env.judge.world_options import (
    COSTS_HELP,
    LET_GO_HELP,
    LET_GO_PICKS_HELP,
    PRESET_HELP,
    WORLDS,
    WorldOptions,
)

UNKNOWN = "unrecognized arguments: "
NUMBERS = {"int": "whole number", "float": "number"}
NARROWEST = 40


def columns() -> int | None:
    """How wide what is printed may be: `COLUMNS`, or the terminal; None where it goes to a file or a pipe."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return max(NARROWEST, shutil.get_terminal_size().columns)
    return None


def wrapped(text: str, indent: str = "") -> str:
    """`text`, its lines broken between words where they are wider than `columns`; further lines begin with
    `indent` more than the first. Nothing is cut: what has no spaces stays whole."""
    width = columns()
    if width is None:
        return text
    return "\n".join(_broken(line, width, indent) for line in text.split("\n"))


def _broken(line: str, width: int, indent: str = "") -> str:
    if len(line) <= width:
        return line
    first = line[: len(line) - len(line.lstrip())]
    words = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(line.strip(), width, initial_indent=first, subsequent_indent=first + indent, **words)  # type: ignore[arg-type]


def seed(text: str) -> int:
    """For an option's `type`: what NumPy and PyTorch both take as a seed."""
    if not text.strip().isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a whole number, 0 to {2**32 - 1}")
    return int(text)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps paragraphs, examples and lists of a description, and breaks what is wider than the terminal: an
    example's remark goes above it, a command goes on behind a backslash, so that it can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        out: list[str] = []
        for plain, lines in groupby(
            text.strip("\n").split("\n"), lambda x: bool(x) and not x.startswith(" ")
        ):
            kept = list(lines)
            if plain and all(len(x) <= width for x in kept):
                out += kept
            elif plain:
                out.append(_broken(" ".join(kept), width))
            else:
                out += [y for x in kept for y in _example(x, width)]
        return "\n".join(indent + x for x in "\n".join(out).split("\n"))

    def _split_lines(self, text: str, width: int) -> list[str]:
        words = [x.replace(",", ", ") if len(x) > width else x for x in text.split()]
        return textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False)

    def _format_usage(self, *given: Any) -> str:
        """As ever where it fits; else further lines begin on the left, and options stay with their values."""
        usual = super()._format_usage(*given)
        width = self._width
        if all(len(line) <= width for line in usual.split("\n")) and width >= 70:
            return usual
        whole = re.sub(r"\[[^\]]*\]", lambda m: m[0].replace(" ", "\0"), " ".join(usual.split()))
        return _broken(whole, width, "    ").replace("\0", " ") + "\n\n"


def _example(line: str, width: int) -> list[str]:
    """An indented line of a description, no wider than `width` where it has spaces."""
    if len(line) <= width:
        return [line]
    body = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    command, _, remark = body.partition("  # ")
    if remark:
        return [
            *_broken(f"{indent}# {remark}", width, "  ").split("\n"),
            *_example(indent + command.rstrip(), width),
        ]
    if body.startswith("python "):
        parts = _broken(line, width - 2, "    ").split("\n")
        return [f"{part} \\" for part in parts[:-1]] + parts[-1:]
    listed = re.match(r"\S+ {2,}", body)  # a name and, in a column of its own, what it is
    return _broken(line, width, " " * len(listed[0]) if listed else "").split("\n")


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose complaints are an `InputError`: one line, exit status 2."""

    def __init__(self, *given: Any, **more: Any) -> None:
        more.setdefault("formatter_class", Formatter)
        super().__init__(*given, **more)

    def error(self, message: str) -> NoReturn:
        """Raise what is said of `message`, argparse's own."""
        message = re.sub(
            r"invalid (int|float) value: (.*)", lambda m: f"{m[2]} is no {NUMBERS[m[1]]}", message
        )
        message = re.sub(
            r"argument (.*): not allowed with argument (.*)",
            r"\1: not allowed with \2; leave one of them out", message,
        )  # fmt: skip
        if message.endswith("required: command"):
            message = f"which command? there are {', '.join(self._commands())}"
        raise InputError(f"{message}{self._meant(message)}; see {self.prog} --help")

    def _commands(self) -> dict[str, argparse.ArgumentParser]:
        """The parsers of this command's own commands, by name."""
        found: dict[str, argparse.ArgumentParser] = {}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= action.choices
        return found

    def _meant(self, message: str) -> str:
        """Which option or choice was probably meant."""
        close: list[str] = []
        if message.startswith(UNKNOWN):
            name = message.removeprefix(UNKNOWN).split()[0].split("=")[0]
            close = get_close_matches(
                name, [x for x in self._every_option() if x.startswith("--")], n=1, cutoff=0.7
            )
        elif found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            choices = [x.strip(" '") for x in found[2].split(",")]
            close = get_close_matches(found[1], choices, n=1, cutoff=0.5)
        return f"; did you mean {close[0]}?" if close else ""

    def _every_option(self) -> list[str]:
        """This command's options and those of its commands, which argparse complains of from above."""
        below = [x for command in self._commands().values() for x in command._option_string_actions]
        return [*self._option_string_actions, *below]


WORLD_HELP = {
    "--costs": COSTS_HELP,
    "--budget": "memory for what is warm, in median targets",
    "--picks": "K, prewarms per plan at most",
    "--ttl-s": "seconds after which an unused prewarm goes",
    "--reward": "preset (net_seconds, memo, device) or TERM=WEIGHT,…",
    "--let-go": LET_GO_HELP,
    "--let-go-picks": LET_GO_PICKS_HELP,
    "--off-after-s": "a pause of more seconds means the machine was switched off; 0: never",
    "--close-after-s": "seconds out of sight after which the user closes something; 0: never",
}
"""The options of the world, the same in every command."""
METAVAR = {
    "--ttl-s": "TTL",
    "--let-go": "RULE",
    "--let-go-picks": "R",
    "--off-after-s": "S",
    "--close-after-s": "S",
}
QUIET = {"--costs": "--cost", "--ttl-s": "--ttl"}
"""What two of them were called once: still understood, and not shown."""


def add_world(parser: argparse.ArgumentParser, *, run: bool) -> None:
    """The options of the world (`env.judge.world_options`), as one group.

    run: whether a run folder may be named, whose own world is then the default.
    """
    group = parser.add_argument_group(
        "the world" + (" (left out: that of the run, or the usual one)" if run else "")
    )
    group.add_argument("--world", choices=tuple(WORLDS), help=PRESET_HELP)
    usual = WorldOptions()
    kinds = {"--picks": int, "--let-go-picks": int, **dict.fromkeys(("--costs", "--reward", "--let-go"), str)}
    for option, text in WORLD_HELP.items():
        name = option[2:].replace("-", "_")
        default = getattr(usual, name)
        group.add_argument(
            option, dest=name, type=kinds.get(option, float), metavar=METAVAR.get(option, option[2:].upper()),
            help=f"{text} (default: {default})",
        )  # fmt: skip
        if option in QUIET:
            group.add_argument(
                QUIET[option],
                dest=name,
                type=kinds.get(option, float),
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )


def world_of(args: argparse.Namespace) -> WorldOptions:
    """The world that was asked for. Raises InputError for what there is not."""
    return WorldOptions(**world_given(args))


def world_given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the world that were given, by name; what was left out is the run's, or usual. Raises
    InputError for what there is not."""
    asked: dict[str, Any] = {f.name: getattr(args, f.name, None) for f in fields(WorldOptions)}
    preset = WORLDS[args.world] if getattr(args, "world", None) else {}
    given = {**preset, **{name: value for name, value in asked.items() if value is not None}}
    try:
        WorldOptions(**given).check()
    except InputError as error:  # the rules say what they are called inside; here it is an option
        said = str(error)
        for inside, option in (
            ("budget_targets", "--budget"),
            ("picks", "--picks"),
            ("ttl_s", "--ttl-s"),
            ("let_go_picks", "--let-go-picks"),
            ("let_go", "--let-go"),
            ("off_after_s", "--off-after-s"),
            ("close_after_s", "--close-after-s"),
        ):
            said = said.replace(inside, option, 1) if said.startswith(inside) else said
        raise InputError(said) from None
    return given

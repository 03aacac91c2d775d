"""A name has one home: no public class or type alias is defined in two files of the product."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("env", "reward", "rlmemo", "dashboard")
LIKE_A_CLASS = re.compile(r"[A-Z]\w*[a-z]\w*")


def named(text: str) -> Iterator[str]:
    """The public classes and type aliases at the top of a file; an alias is what is written as a class is."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [x.id for x in targets if isinstance(x, ast.Name) and LIKE_A_CLASS.fullmatch(x.id)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_no_name_stands_for_two_things(repo_root: Path) -> None:
    homes: dict[str, list[str]] = {}
    for room in ROOMS:
        for path in sorted((repo_root / room).rglob("*.py")):
            for name in named(path.read_text(encoding="utf-8")):
                homes.setdefault(name, []).append(path.relative_to(repo_root).as_posix())
    assert len(homes) > 150
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_a_name_is_seen_however_it_is_given() -> None:
    text = "class Case: ...\nPicks = tuple[int, ...]\nStep: object = int\nSIZE = 3\n_Own = int\nn = 3\n"
    assert list(named(text)) == ["Case", "Picks", "Step"]

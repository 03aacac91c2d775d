"""Counts of the house: how long the way of one event is, and what makes code hard to find one's way in.

python -m tests.house_counts          one line of JSON
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("reward", "env", "rlmemo", "dashboard")
HEAVY = {
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "lightgbm", "sklearn", "scipy", "numba",
    "streamlit", "matplotlib", "pandas", "rdata", "xarray", "sqlite_utils", "gymnasium", "stable_baselines3",
    "altair", "rich", "safetensors", "yaml", "pooch", "httpx", "httpx2", "tokenizers", "authlib", "uvicorn",
    "starlette", "tornado", "numpy",
}  # fmt: skip
"""Libraries that cost start-up time, or that an extra brings."""


STOP = re.compile(r"^\| (.*?) \| `([\w/]+\.py)` \| (.*?) \|$", re.MULTILINE)
"""A stop on the way of one event: a row of a table in CONTRIBUTING.md."""


def files(root: Path, rooms: tuple[str, ...] = ROOMS) -> list[Path]:
    return [path for room in rooms for path in sorted((root / room).rglob("*.py"))]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_inside(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import inside a function."""
    for function in functions(path):
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.lineno, node.module


def wide(path: Path, most: int = 8) -> Iterator[str]:
    """Functions with more parameters than `most`, compiled ones left out."""
    for function in functions(path):
        compiled = any("njit" in ast.unparse(d) for d in function.decorator_list)
        a = function.args
        count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs)
        count -= bool(a.args) and a.args[0].arg in ("self", "cls")
        if not compiled and count > most:
            yield f"{path}:{function.name} ({count})"


def way(root: Path) -> list[list[tuple[str, str, list[str]]]]:
    """The stops of the way of one event, as CONTRIBUTING.md tells it: (what happens, file, names to begin
    at), in three stretches (a row becomes an event; to a gradient; to a thumb)."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## The way of one event") : text.index("## How to add")]
    tables = re.split(r"\n\*\*(?=A row|To a)", section)[1:]
    return [[(x[0], x[1], re.findall(r"`([\w.]+)`", x[2])) for x in STOP.findall(t)] for t in tables]


def counts(root: Path) -> dict[str, int]:
    """The counts that the house is measured by."""
    product = files(root)
    row, gradient, _ = ({file for _, file, _ in stretch} for stretch in way(root))
    text = {path: path.read_text(encoding="utf-8") for path in product}
    return {
        "files on the way from a row to a gradient": len(row | gradient),
        "files": len(product),
        "lines": sum(t.count("\n") for t in text.values()),
        "imports inside functions": len({(p, n, m) for p in product for n, m in imports_inside(p)}),
        "of these, our own": len(
            {(p, n, m) for p in product for n, m in imports_inside(p) if m.split(".")[0] in ROOMS}
        ),
        "functions with more than 8 parameters": sum(
            len(list(wide(p))) for p in [*product, *files(root, ("experiments",))]
        ),
    }


if __name__ == "__main__":
    print(json.dumps(counts(Path(__file__).resolve().parents[1])))

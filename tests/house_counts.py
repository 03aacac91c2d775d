"""Counts of the house: how long the way of one event is, and what makes code hard to find one's way in.

python -m tests.house_counts [TREE]   one line of JSON
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

ROOMS = ("reward", "env", "rlmemo", "dashboard")
COMPILED = ("njit", "compiled", "inlined")  # how a compiled function's decorator begins
HEAVY = {
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "lightgbm", "sklearn", "scipy", "numba",
    "streamlit", "matplotlib", "pandas", "rdata", "xarray", "sqlite_utils", "gymnasium", "stable_baselines3",
    "altair", "pooch", "httpx2", "tokenizers", "authlib", "uvicorn", "starlette", "fcntl", "resource",
    "fastapi", "pydantic", "tornado", "safetensors.torch", "huggingface_hub", "gguf", "pyarrow", "ray",
}  # fmt: skip
"""What an import inside a function is for: what takes more than 50 ms to import (rich, yaml and all others
that are used take less), comes with those or with an extra, or is there on some systems only."""

STOP = re.compile(r"^\| (.*?) \| `([\w/]+\.py)` \| (.*?) \|$", re.MULTILINE)
"""A stop on the way of one event: a row of a table in CONTRIBUTING.md."""


def files(root: Path, rooms: tuple[str, ...] = ROOMS) -> list[Path]:
    return [path for room in rooms for path in sorted((root / room).rglob("*.py"))]


def parsed(path: Path) -> ast.Module:
    """A file's code; of the same text once."""
    return _parsed(path.read_text(encoding="utf-8"))


_parsed = lru_cache(maxsize=None)(ast.parse)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
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


def brought(module: str) -> str | None:
    """What of `HEAVY` the import of a module from outside the house begins with."""
    return next((x for x in HEAVY if module == x or module.startswith(x + ".")), None)


def asked(node: ast.AST, known: Collection[str]) -> list[str]:
    """The modules that an import statement asks for, by dotted name; none for any other statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [
            full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
        ]
    return []


def at_the_top(body: list[ast.stmt], known: Collection[str]) -> Iterator[str]:
    """The modules that are imported when a module is: not those for type checkers, nor inside functions."""
    for node in body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from at_the_top(node.body + node.orelse, known)
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from at_the_top(node.body, known)
        else:
            yield from asked(node, known)


class Imports:
    """What of the heavy libraries every module of the house brings, by reading the code."""

    def __init__(self, root: Path) -> None:
        self.paths = {
            ".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p
            for p in files(root)
        }
        self.trees = {m: parsed(p) for m, p in self.paths.items()}
        self.top = {m: set(at_the_top(tree.body, self.paths)) for m, tree in self.trees.items()}
        self._heavy: dict[str, set[str]] = {}

    def heavy(self, module: str) -> set[str]:
        """The heavy libraries that importing `module` loads, by whatever way."""
        if module not in self._heavy:
            self._heavy[module] = self._look(module)
        return self._heavy[module]

    def _look(self, module: str) -> set[str]:
        found, seen, todo = set[str](), set[str](), [module]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.top:
                parts = name.split(".")
                todo += [*self.top[name], *(".".join(parts[:k]) for k in range(1, len(parts)))]
            elif library := brought(name):
                found.add(library)
        return found

    def inside(self) -> Iterator[tuple[str, int, str]]:
        """(module, line, what it asks for) of every import inside a function, but for those that may fail."""
        for module, tree in self.trees.items():
            optional = {
                x
                for node in ast.walk(tree)
                if isinstance(node, ast.Try)
                and any(h.type is not None and "ImportError" in ast.unparse(h.type) for h in node.handlers)
                for statement in node.body
                for x in ast.walk(statement)
            }
            found = {
                (node.lineno, name)
                for function in ast.walk(tree)
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
                for node in ast.walk(function)
                if node not in optional
                for name in asked(node, self.paths)
            }
            yield from ((module, line, name) for line, name in sorted(found))

    def light(self) -> list[str]:
        """The imports inside functions that could as well stand at the top: they bring nothing heavy that
        the module has not loaded by then. (No circle stands in the way: tests/test_architecture.py.)"""
        return [
            f"{module}:{line} imports {name}"
            for module, line, name in self.inside()
            if self.heavy(name) <= self.heavy(module)
        ]


def wide(path: Path, most: int = 8) -> Iterator[str]:
    """Functions with more parameters than `most`, compiled ones left out."""
    for function in functions(path):
        compiled = any(ast.unparse(d).startswith(COMPILED) for d in function.decorator_list)
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


def windows(path: Path) -> Iterator[int]:
    """Lines where a stretch of a timeline is built: a `Case` (a `Window` in older trees), or another one's
    ends are moved. `cases()` builds the parts of a split, in one place for all."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            moved = name == "replace" and {"start", "stop"} <= {k.arg for k in node.keywords}
            if name in ("Case", "Window") or moved:
                yield node.lineno


def wrappers(product: list[Path]) -> list[str]:
    """Classes that rank, or inherit it, and hold a model or another policy to do so."""
    classes = [node for path in product for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
    found: list[str] = []
    for node in sorted(classes, key=lambda x: len(x.bases)):
        methods = {x.name for x in node.body if isinstance(x, ast.FunctionDef)}
        fields = {
            x.target.id for x in node.body if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)
        }
        held = {
            x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store)
        }
        if ("rank" in methods and (methods | fields | held) & {"model", "policy", "inner"}) or any(
            ast.unparse(base) in found for base in node.bases
        ):
            found.append(node.name)
    return found


def settings(root: Path) -> int:
    """How many settings a training has: the fields of `TrainConfig`."""
    tree = parsed(root / "rlmemo/learning/config.py")
    (table,) = (x for x in tree.body if isinstance(x, ast.ClassDef) and x.name == "TrainConfig")
    return sum(isinstance(x, ast.AnnAssign) for x in table.body)


def counts(root: Path) -> dict[str, int]:
    """The counts that the house is measured by. Files on the way of one event: tests/way_of_one_event.py."""
    product = files(root)
    text = {path: path.read_text(encoding="utf-8") for path in product}
    inside = {(p, n, m) for p in product for n, m in imports_inside(p)}
    return {
        "files": len(product),
        "lines": sum(t.count("\n") for t in text.values()),
        "imports inside functions": len(inside),
        "of these, our own": len({x for x in inside if x[2].split(".")[0] in ROOMS}),
        "of these, light": len(Imports(root).light()),
        "functions with more than 8 parameters": sum(
            len(list(wide(p))) for p in [*product, *files(root, ("experiments",))]
        ),
        "places that build a window": sum(len(list(windows(p))) for p in product),
        "classes that wrap a model or a policy": len(wrappers(product)),
        "settings of a training": settings(root),
    }


if __name__ == "__main__":
    here = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    print(json.dumps(counts(here)))

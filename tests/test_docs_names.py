"""What the pages name exists: files, dotted names, functions on the way of one event, classes, rooms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlmemo.learning.config import settings
from tests.house_counts import way
from tests.option_tables import public_classes
from tests.test_architecture import ARROWS, ROOMS

TOPS = (*ROOMS, "experiments", "tests", "docs")
DOTTED = re.compile(rf"(?<![\w./:-])(?:{'|'.join(TOPS)})(?:\.\w+)+")
PATHS = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOPS)})/[\w./-]*\w\.(?:py|md|yaml|json|png|txt|safetensors)\b")
NO_MODULE = re.compile(r"\.(?:db|html|csv|example|md|png)\b")
TORCH = {"--standalone", "--nproc_per_node", "--use_deepspeed", "--zero_stage", "--num_processes"}
ELSEWHERE = {"--help", "--junitxml", "--port"} | TORCH


def pages(root: Path) -> list[Path]:
    """Every page that describes the tree as it is (LOG.md and CHANGELOG.md tell of trees that were)."""
    names = [x for x in root.glob("*.md") if x.name != "CHANGELOG.md"]
    return sorted([*names, *(root / "docs").rglob("*.md"), root / "rlmemo" / "base" / "README.md"])


def body_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or a class defines, imports or assigns, by name."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0]: node for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {x.id: node for t in targets for x in ast.walk(t) if isinstance(x, ast.Name)}
        elif isinstance(node, ast.If | ast.Try):
            found |= body_names(node.body)
    return found


def defines(file: Path, names: list[str]) -> bool:
    """Whether `file` defines names[0], and that one names[1], and so on. What is imported or assigned is not
    followed."""
    known = body_names(ast.parse(file.read_text(encoding="utf-8")).body)
    for name in names:
        node = known.get(name)
        if node is None:
            return False
        if not isinstance(node, ast.ClassDef):
            return True
        known = body_names(node.body)
    return True


def exists(root: Path, dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        place = root.joinpath(*parts[:n])
        if n == len(parts) and place.is_dir():
            return True
        file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        if file.is_file():
            return n == len(parts) or defines(file, parts[n:])
    return False


def named(page: Path) -> Iterator[str]:
    """The dotted names of a page, and what its Python examples import."""
    text = page.read_text(encoding="utf-8")
    for found in DOTTED.finditer(text):
        if not NO_MODULE.search(found[0]):
            yield found[0]
    for module, what in re.findall(r"^from (\S+) import (.+)$", text, flags=re.MULTILINE):
        if module.split(".")[0] in TOPS:
            yield from (f"{module}.{x.strip()}" for x in what.split("#")[0].split(","))


def test_every_dotted_name_is_a_module_or_something_in_one(repo_root: Path) -> None:
    names = {(page.name, name) for page in pages(repo_root) for name in named(page)}
    assert len(names) > 50
    assert [f"{page}: {name}" for page, name in sorted(names) if not exists(repo_root, name)] == []


def test_every_path_leads_to_a_file(repo_root: Path) -> None:
    paths = {(p.name, x) for p in pages(repo_root) for x in PATHS.findall(p.read_text(encoding="utf-8"))}
    assert len(paths) > 50
    assert [f"{page}: {path}" for page, path in sorted(paths) if not (repo_root / path).is_file()] == []


@pytest.mark.parametrize("wrong", ["rlmemo.policies.gone", "env.judge.accounting.gone", "rlmemo.gone.at_all"])
def test_a_name_that_is_gone_is_noticed(wrong: str, repo_root: Path) -> None:
    assert not exists(repo_root, wrong)
    assert exists(repo_root, "env.judge.case.Case.replay")


def test_every_option_named_is_one(repo_root: Path) -> None:
    """Of a command of ours, of an experiment, or (in `ELSEWHERE`) of another program that a page tells of."""
    code = [p for top in (*ROOMS, "experiments") for p in (repo_root / top).rglob("*.py")]
    known = {x for p in code for x in re.findall(r"\"(--[a-z][\w-]*)\"", p.read_text(encoding="utf-8"))}
    known |= {"--" + f.name.replace("_", "-") for f in settings()} | ELSEWHERE
    asked = {
        (page.name, option)
        for page in pages(repo_root)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8"))
    }
    gone = {x for _, x in asked if x not in known and x.replace("--no-", "--") not in known}
    assert len(asked) > 100
    assert sorted((page, option) for page, option in asked if option in gone) == []


def test_every_stop_on_the_way_of_one_event_exists(repo_root: Path) -> None:
    stops = [stop for table in way(repo_root) for stop in table]
    assert len(stops) > 30
    gone = [
        f"{file}: {name}"
        for _, file, names in stops
        for name in names or ["(none)"]
        if not (repo_root / file).is_file() or not defines(repo_root / file, name.split("."))
    ]
    assert not gone


def test_the_map_has_every_room(repo_root: Path) -> None:
    """Every room of the architecture test, and every folder of the product."""
    text = (repo_root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = text[text.index("## The map") : text.index("## The way")]
    rooms = [room.split(".")[-1] for line in ARROWS for room in line if "__main__" not in room]
    folders = [p.parent.name for top in ROOMS for p in (repo_root / top).glob("*/__init__.py")]
    single = {"errors", "options", "heartbeat"}
    missing = [x for x in [*rooms, *folders] if x not in single and not re.search(rf"\b{x}\b", drawn)]
    assert not missing
    order = [
        drawn.index(f"`{x}`") for x in ("rlmemo.store", "rlmemo.runs", "rlmemo.policies", "rlmemo.learning")
    ]
    assert order == sorted(order)


def test_every_public_class_stands_among_the_words(repo_root: Path) -> None:
    text = (repo_root / "docs" / "words.md").read_text(encoding="utf-8")
    classes = [x for room in ROOMS for x in public_classes(repo_root, room)]
    assert len(classes) > 100
    assert [name for name, file, _ in classes if f"| `{name}` | `{file}` |" not in text] == []
    assert [f"{file}: {name} says nothing" for name, file, what in classes if not what] == []


def test_every_anchor_is_a_heading(repo_root: Path) -> None:
    broken = []
    for page in pages(repo_root):
        text = page.read_text(encoding="utf-8")
        for link, anchor in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text):
            if "://" in link:
                continue
            target = page if not link else page.parent / link
            if target.is_file() and anchor not in anchors(target):
                broken.append(f"{page.name} -> {link}#{anchor}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower().replace("`", "")).replace(" ", "-") for head in heads}

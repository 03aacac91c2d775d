"""The shape of the house: which room may know which, how long a file may be, and what no file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("reward", "env", "rlmemo", "dashboard")  # each may import itself and those before it
STORE = {
    "rlmemo/schema.py",
    "rlmemo/schema_reducing.py",
    "rlmemo/store.py",
    "rlmemo/store_file.py",
    "rlmemo/store_forgetting.py",
    "rlmemo/store_importing.py",
}
LINES = 600
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager"}
# What a room must not import even lazily: its sentence in CONTRIBUTING.md says it knows nothing of it.
NOT_FOR = {
    "reward": {"torch", "transformers", "trl", "peft", "gymnasium", "sqlite_utils", "streamlit"},
    "env": {"torch", "transformers", "trl", "peft", "sqlite_utils", "streamlit", "lightgbm"},
    "rlmemo": {"streamlit"},
    "dashboard": {"trl", "peft"},
}
# Written in pieces, so that this file is no exception to what it checks.
HOSTS = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "download.py" + "torch.org")
OPTIONS = ("index-" + "url", "find-" + "links")
MACHINE_PATHS = re.compile(r"(?<![\w.$}/-])/(?:work|root|opt|home)/[\w.]")


def tracked(root: Path) -> list[Path]:
    """The files that git tracks, or (in a copy without git) every source file."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [root / name for name in done.stdout.split("\0") if name and (root / name).is_file()]
    return [path for room in (*ROOMS, "tests", "docs") for path in (root / room).rglob("*") if path.is_file()]


def sources(root: Path, room: str) -> list[Path]:
    return sorted((root / room).rglob("*.py"))


def imports(path: Path, root: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, at the top or inside a function, as (dotted name, line)."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield ".".join(filter(None, [base, node.module])), node.lineno


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_run_one_way(room: str, repo_root: Path) -> None:
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    wrong = [
        f"{path.relative_to(repo_root)}:{line} imports {module}"
        for path in sources(repo_root, room)
        for module, line in imports(path, repo_root)
        if module.split(".")[0] in later | NOT_FOR[room] | {"tests", "experiments"}
    ]
    assert not wrong


def test_reward_needs_numpy_alone(repo_root: Path) -> None:
    known = set(sys.stdlib_module_names) | {"numpy", "reward"}
    strange = {
        module
        for path in sources(repo_root, "reward")
        for module, _ in imports(path, repo_root)
        if module.split(".")[0] not in known
    }
    assert not strange


def test_the_dashboard_stays_out_of_the_trainers(repo_root: Path) -> None:
    inside = [
        (path.name, module)
        for path in sources(repo_root, "dashboard")
        for module, _ in imports(path, repo_root)
        if module.startswith(("rlmemo.learning", "rlmemo.train"))
    ]
    assert not inside


def test_only_the_store_writes_sqlite(repo_root: Path) -> None:
    """Who else opens a database opens it read-only."""
    writers = {
        path.relative_to(repo_root).as_posix()
        for room in ROOMS
        for path in sources(repo_root, room)
        for module, _ in imports(path, repo_root)
        if module.split(".")[0] in ("sqlite3", "sqlite_utils") and "mode=ro" not in path.read_text("utf-8")
    }
    assert writers <= STORE


def test_no_file_is_too_long(repo_root: Path) -> None:
    lengths = {
        path.relative_to(repo_root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked(repo_root)
        if path.suffix == ".py"
    }
    assert {name: n for name, n in lengths.items() if n > LINES} == {}


def test_no_name_says_nothing(repo_root: Path) -> None:
    vague = [
        path.relative_to(repo_root).as_posix()
        for path in tracked(repo_root)
        if FORBIDDEN_NAMES & set(re.split(r"[/_.\-]", path.relative_to(repo_root).as_posix().lower()))
    ]
    assert not vague


def test_no_registry_host_and_no_path_of_one_machine(repo_root: Path) -> None:
    found = []
    for path in tracked(repo_root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if any(word in line for word in HOSTS + OPTIONS) or MACHINE_PATHS.search(line):
                found.append(f"{path.relative_to(repo_root)}:{number}: {line.strip()[:100]}")
    assert not found


def test_git_ignores_no_source(repo_root: Path) -> None:
    """`env/` is a folder of ours, and stock ignore files ignore that name."""
    probes = [
        f"{room}/x.py" for room in (*ROOMS, "tests", "experiments", "docs", "env/sources", "rlmemo/base")
    ]
    done = subprocess.run(
        ["git", "check-ignore", *probes], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_every_package_is_in_the_wheel(repo_root: Path) -> None:
    """Packages are listed by name, so a new folder has to be added to pyproject.toml."""
    import tomllib

    listed = set(tomllib.loads((repo_root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {
        path.parent.relative_to(repo_root).as_posix().replace("/", ".")
        for room in ROOMS
        for path in sources(repo_root, room)
    }
    assert listed == there


def test_every_file_of_a_package_is_in_the_wheel(repo_root: Path) -> None:
    """Weights, the tokenizer and the like are package data, which pyproject.toml lists by pattern."""
    import tomllib

    listed = tomllib.loads((repo_root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    left_out = []
    for path in tracked(repo_root):
        inside = path.relative_to(repo_root)
        if inside.parts[0] in ROOMS and path.suffix != ".py":
            patterns = [*listed["*"], *listed.get(".".join(inside.parent.parts), [])]
            if not any(inside.match(pattern) for pattern in patterns):
                left_out.append(inside.as_posix())
    assert not left_out

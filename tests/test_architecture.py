"""The shape of the house: which room may know which, how long a file may be, and what no file may hold."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlmemo.learning.config import settings as settings_of_training
from tests.house_counts import HEAVY, Imports, counts, parsed

ROOMS = ("reward", "env", "rlmemo", "dashboard")
COMMANDS = (
    "rlmemo.feedback", "rlmemo.live", "rlmemo.serve", "rlmemo.train", "rlmemo.benchmark", "rlmemo.predict",
    "rlmemo.timelines", "rlmemo.models", "rlmemo.__main__",
)  # fmt: skip
ARROWS = (
    ("reward",),
    ("env",),
    ("rlmemo.options", "rlmemo.heartbeat", "rlmemo.hosts", "rlmemo.kept_connection"),
    ("rlmemo.store",),
    ("rlmemo.runs",),
    ("rlmemo.model", "rlmemo.approval"),
    ("rlmemo.policies",),
    ("rlmemo.evaluation",),
    ("rlmemo.report",),
    ("rlmemo.learning",),
    COMMANDS,
    ("dashboard",),
)
"""Each may import what stands before it, and itself; rooms that share a line do not know of each other, but
for the commands, which may."""
WRITERS = (
    "database", "database_file", "forgetting", "importing", "live_ledger", "schema", "schema_addresses",
)  # fmt: skip
STORE = {f"rlmemo/store/{name}.py" for name in WRITERS}
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
FIRST_HEAVY = """
import importlib, json, os, sys
import gymnasium, numpy  # whatever env brings is there already
claims, heavy = json.loads(sys.argv[1]), json.loads(sys.argv[2])

class Asked(BaseException):
    pass

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            raise Asked(name)

sys.meta_path.insert(0, Watch())
for module, expected in claims.items():
    if os.fork() == 0:
        there = set(sys.modules)
        try:
            importlib.import_module(module)
            first = None
        except Asked as asked:
            first = str(asked)
        if first not in expected if first else set(expected) - there:
            print(module, first, expected, flush=True)
        os._exit(0)
    os.wait()
"""


def tracked(root: Path) -> list[Path]:
    """The files that git tracks, or (in a copy without git) every source file."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [root / name for name in done.stdout.split("\0") if name and (root / name).is_file()]
    return [path for room in (*ROOMS, "tests", "docs") for path in (root / room).rglob("*") if path.is_file()]


def sources(root: Path, room: str) -> list[Path]:
    return sorted((root / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, at the top or inside a function, as (dotted name, line)."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


def modules(root: Path) -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for room in ROOMS
        for path in sources(root, room)
    }


def edges(root: Path) -> dict[str, dict[str, int]]:
    """Who imports whom: module -> {module: line}, inside functions and for type checkers alone included."""
    known = modules(root)
    found: dict[str, dict[str, int]] = {name: {} for name in known}
    for name, path in known.items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                asked = [(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                asked = [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
                asked = [(full if full in known else node.module, line) for full, line in asked]
            else:
                continue
            found[name].update({full: line for full, line in asked if full in known})
    return found


def room_of(module: str) -> tuple[int, str] | None:
    """Where a module's room stands in `ARROWS`, and the room; None for the packages above the rooms."""
    for place, rooms in enumerate(ARROWS):
        for room in rooms:
            if module == room or module.startswith(room + "."):
                return place, room
    assert module in ("rlmemo", "rlmemo.base", "rlmemo.base.first"), f"{module} is in no room of ARROWS"
    return None


def backwards(root: Path) -> list[str]:
    """The imports that run against the arrows."""
    wrong = []
    for name, known in edges(root).items():
        here = room_of(name)
        for other, line in known.items():
            there = room_of(other)
            if here is None or there is None or (here[1] in COMMANDS and there[1] in COMMANDS):
                continue
            if there[0] > here[0] or (there[0] == here[0] and there[1] != here[1]):
                wrong.append(f"{name}:{line} imports {other}")
    return wrong


def circles(root: Path) -> list[list[str]]:
    """The groups of modules that reach each other."""
    known = edges(root)
    reach: dict[str, set[str]] = {}
    for start in known:
        seen, todo = set[str](), [start]
        while todo:
            for other in known[todo.pop()]:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        reach[start] = seen
    return [sorted(b for b in reach[a] if a in reach[b]) for a in known if a in reach[a]]


def test_arrows_run_one_way(repo_root: Path) -> None:
    assert backwards(repo_root) == []


def test_no_two_files_reach_each_other(repo_root: Path) -> None:
    assert circles(repo_root) == []


def test_a_wrong_import_is_noticed_inside_a_function_too(repo_root: Path, tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(repo_root / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    assert (backwards(tmp_path), circles(tmp_path)) == ([], [])
    file = tmp_path / "rlmemo" / "policies" / "gbdt.py"
    file.write_text(file.read_text() + "\n\ndef late() -> None:\n    import rlmemo.learning.sft\n")
    assert [x.split(" imports ")[1] for x in backwards(tmp_path)] == ["rlmemo.learning.sft"]
    file = tmp_path / "env" / "timeline.py"
    file.write_text(file.read_text() + "\n\ndef late() -> None:\n    from env.judge import case\n")
    assert any("env.timeline" in circle and "env.judge.case" in circle for circle in circles(tmp_path))


def relative(root: Path) -> list[str]:
    """Imports by dots, which the tests here do not follow: there are none."""
    return [
        f"{path.relative_to(root)}:{node.lineno}"
        for room in ROOMS
        for path in sources(root, room)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def test_an_import_names_its_room(repo_root: Path, tmp_path: Path) -> None:
    assert relative(repo_root) == []
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "late.py").write_text("def late():\n    from .judge import case\n")
    assert relative(tmp_path) == ["env/late.py:2"]


def test_an_import_inside_a_function_brings_something_heavy(repo_root: Path) -> None:
    """What is light stands at the top, where one sees it."""
    assert Imports(repo_root).light() == []


def test_a_light_import_inside_a_function_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "__init__.py").write_text("")
    (tmp_path / "env" / "compiled.py").write_text("import numba\n")
    (tmp_path / "env" / "uses.py").write_text("from env import compiled\n")
    (tmp_path / "env" / "late.py").write_text(
        "def late():\n    import json\n    from env import uses\n    import scipy.sparse\n"
        "    try:\n        import tomllib\n    except ImportError:\n        pass\n"
    )
    (tmp_path / "env" / "later.py").write_text("import numba\ndef late():\n    from env import uses\n")
    assert Imports(tmp_path).light() == ["env.late:2 imports json", "env.later:3 imports env.uses"]


def test_the_counts_of_the_house_do_not_grow(repo_root: Path) -> None:
    found = counts(repo_root)
    assert found["of these, light"] == 0
    assert found["classes that wrap a model or a policy"] == 2  # LanguagePolicy, and Following for streams
    assert found["places that build a window"] <= 9  # two of them were calls with seven arguments before
    assert found["functions with more than 8 parameters"] <= 4
    assert found["settings of a training"] == len(settings_of_training())


def test_what_is_called_heavy_is(repo_root: Path) -> None:
    """Every module of ours that is imported inside a function is really imported, by itself: it asks for one
    of the heavy libraries that were found by reading the code, or for none where none was found."""
    house = Imports(repo_root)
    claims = {name: sorted(house.heavy(name)) for _, _, name in house.inside() if name in house.paths}
    assert len(claims) > 10
    done = subprocess.run(
        [sys.executable, "-c", FIRST_HEAVY, json.dumps(claims), json.dumps(sorted(HEAVY))],
        cwd=repo_root, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == ""


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_knows_nothing_of(room: str, repo_root: Path) -> None:
    wrong = [
        f"{path.relative_to(repo_root)}:{line} imports {module}"
        for path in sources(repo_root, room)
        for module, line in imports(path)
        if module.split(".")[0] in NOT_FOR[room] | {"tests", "experiments"}
    ]
    assert not wrong


def test_what_lies_in_a_run_folder_is_read_without_torch(repo_root: Path) -> None:
    """`rlmemo.runs` and `rlmemo.store`, and whatever they import, leave the heavy libraries out."""
    known, todo, seen = edges(repo_root), [], set[str]()
    todo = [name for name in known if name.startswith(("rlmemo.runs", "rlmemo.store"))]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += known[name]
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}
    paths = modules(repo_root)
    wrong = [
        f"{name}:{line} imports {module}"
        for name in sorted(seen)
        for module, line in imports(paths[name])
        if module.split(".")[0] in heavy
    ]
    assert not wrong


def test_reward_needs_numpy_alone(repo_root: Path) -> None:
    known = set(sys.stdlib_module_names) | {"numpy", "reward"}
    strange = {
        module
        for path in sources(repo_root, "reward")
        for module, _ in imports(path)
        if module.split(".")[0] not in known
    }
    assert not strange


def test_the_dashboard_stays_out_of_the_trainers(repo_root: Path) -> None:
    inside = [
        (path.name, module)
        for path in sources(repo_root, "dashboard")
        for module, _ in imports(path)
        if module.startswith(("rlmemo.learning", "rlmemo.train", "rlmemo.feedback"))
    ]
    assert not inside


def test_only_the_store_writes_sqlite(repo_root: Path) -> None:
    """Who else opens a database opens it read-only."""
    writers = {
        path.relative_to(repo_root).as_posix()
        for room in ROOMS
        for path in sources(repo_root, room)
        for module, _ in imports(path)
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
            above = [
                ".".join(x.parts) for x in inside.parents
            ]  # a folder that is no package is its package's
            patterns = [*listed["*"], *(y for x in above for y in listed.get(x, []))]
            if not any(inside.match(pattern) for pattern in patterns):
                left_out.append(inside.as_posix())
    assert not left_out

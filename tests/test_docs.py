"""The pages keep up with the code: links lead somewhere, commands exist, every option is written down."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rlmemo.__main__ import COMMANDS


def pages(root: Path) -> list[Path]:
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def links(page: Path) -> Iterator[str]:
    """Where a page's relative links and pictures lead, without anchors."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        link = "".join(target).split("#")[0]
        if link and "://" not in link and not link.startswith("mailto:"):
            yield link


def test_every_link_leads_somewhere(repo_root: Path) -> None:
    broken = [
        f"{page.relative_to(repo_root)} -> {link}"
        for page in pages(repo_root)
        for link in links(page)
        if not (page.parent / link).exists()
    ]
    assert not broken


def test_the_index_lists_every_page(repo_root: Path) -> None:
    listed = set(links(repo_root / "docs" / "index.md"))
    there = {path.relative_to(repo_root / "docs").as_posix() for path in (repo_root / "docs").rglob("*.md")}
    assert there - listed == {"index.md"}


def test_every_module_named_in_a_command_exists(repo_root: Path) -> None:
    modules = {
        (page.name, module)
        for page in pages(repo_root)
        for module in re.findall(r"python -m ([a-z_][\w.]*\w)", page.read_text(encoding="utf-8"))
    }
    assert modules
    assert [(page, name) for page, name in sorted(modules) if importlib.util.find_spec(name) is None] == []


def test_every_make_target_named_exists(repo_root: Path) -> None:
    rules = set(re.findall(r"^([a-z]+):", (repo_root / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        target
        for page in pages(repo_root)
        for target in re.findall(
            r"(?:^|`)make +([a-z]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    }
    assert {"train", "test", "lint"} <= named <= rules


def command_lines(root: Path) -> Iterator[tuple[str, str]]:
    """(command as typed, its help) for every module and its subcommands."""
    for module, _ in COMMANDS.values():
        pending: list[tuple[str, ...]] = [()]
        while pending:
            words = pending.pop()
            text = subprocess.run(
                [sys.executable, "-m", module, *words, "--help"],
                cwd=root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
            ).stdout
            yield " ".join((module, *words)), text
            subcommands = re.search(r"^\s+\{([\w,-]+)\}", text, flags=re.MULTILINE)
            if subcommands and len(words) < 2:
                pending += [(*words, word) for word in subcommands[1].split(",")]


def test_every_option_is_documented(repo_root: Path) -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in (repo_root / "docs").rglob("*.md"))
    missing = {
        f"{command} {option}"
        for command, text in command_lines(repo_root)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
        if option != "--help" and not re.search(re.escape(option) + r"(?![\w-])", written)
    }
    assert not missing

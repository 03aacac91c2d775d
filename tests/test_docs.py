"""The pages keep up with the code: links lead somewhere, commands exist, tables are what the code says."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from rlmemo.__main__ import COMMANDS
from rlmemo.learning.config import settings
from tests.option_tables import commands_of, options, parser_of, rewritten


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


def test_the_tables_are_what_the_code_says(repo_root: Path) -> None:
    """`make docs` rewrites them."""
    behind = [
        page.name
        for page in (repo_root / "docs").glob("*.md")
        if rewritten(page.read_text(encoding="utf-8"), repo_root) != page.read_text(encoding="utf-8")
    ]
    assert not behind, "run: make docs"


def test_every_command_has_its_table(repo_root: Path) -> None:
    written = (repo_root / "docs" / "options.md").read_text(encoding="utf-8")
    asked = [
        f"{module} {command}".strip()
        for module, _ in COMMANDS.values()
        for command in commands_of(parser_of(module)) or [""]
    ]
    assert len(asked) > len(COMMANDS)
    assert [x for x in asked if f"<!-- options: {x} -->" not in written] == []


def written_table(root: Path, what: str) -> str:
    """The table of a command as it stands in docs/options.md."""
    page = (root / "docs" / "options.md").read_text(encoding="utf-8")
    return page.partition(f"<!-- options: {what} -->\n")[2].partition("<!-- end -->")[0]


def test_the_tables_hold_every_option_of_the_help(repo_root: Path) -> None:
    """What `--help` prints, against the page: nothing is lost on the way, and nothing is left there."""
    for module, _ in COMMANDS.values():
        for command in commands_of(parser_of(module)) or [""]:
            what = f"{module} {command}".strip()
            shown = set(
                re.findall(r"^  (?:-\w, )?(--[a-z][\w-]*)", parser_of(module, command).format_help(), re.M)
            )
            table = written_table(repo_root, what)
            assert set(re.findall(r"^\| `(--[a-z][\w-]*)", table, re.M)) == shown - {"--help"}, what


def test_the_table_of_training_has_the_defaults(repo_root: Path) -> None:
    """As `TrainConfig` has them, not as the help says them."""
    rows = written_table(repo_root, "rlmemo.train").splitlines()
    for field in settings():
        option = "--" + field.name.replace("_", "-")
        (row,) = (x for x in rows if re.match(rf"\| `{option}[ `]", x))
        usual = "" if field.default is None or field.default is False else str(field.default)
        assert row.split(" | ")[1].strip().strip("`") == usual, option


def test_a_table_that_is_behind_is_noticed(repo_root: Path) -> None:
    text = (repo_root / "docs" / "options.md").read_text(encoding="utf-8")
    behind = text.replace("`--budget BUDGET`", "`--budget MB`")
    assert behind != text
    assert rewritten(behind, repo_root) == text


def test_what_a_setting_accepts_is_said_beside_its_default() -> None:
    found = {
        line.split("`")[1].split()[0]: line for line in options("rlmemo.train").splitlines() if "`--" in line
    }
    assert "| `0` | 0 to 4294967295 |" in found["--seed"]
    assert "1 to 12" in found["--picks"]
    assert "`chrono`, `wave`" in found["--split"]
    assert "above 0" in found["--budget"]

"""A bad option is one line and status 2 in every command, and help fits the terminal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from env.errors import InputError
from rlmemo.__main__ import COMMANDS
from rlmemo.options import Parser, wrapped
from tests.warm import Warm

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS_OF = {"rlmemo.timelines": ("list", "import", "show"),
               "rlmemo.feedback": ("show", "pairs", "evaluate", "approval")}  # fmt: skip
EVERY = ["rlmemo", "tests.reference.example", "experiments.evidence", "experiments.durability",
"experiments.closed_loop",
         *(module for module, _ in COMMANDS.values())]  # fmt: skip
BAD = [
    ("rlmemo.train", ["--budgte", "3"], "did you mean --budget?"),
    ("rlmemo.train", ["--peft"], "expected one argument"),
    ("rlmemo.train", ["something"], "unrecognized arguments: something"),
    ("rlmemo.train", ["--method", "nix"], "there are sft, dpo"),
    ("rlmemo.benchmark", ["--bugdet=3"], "did you mean --budget?"),
    ("rlmemo.benchmark", ["--split", "chronos"], "did you mean chrono?"),
    ("rlmemo.benchmark", ["--draws", "many"], "'many' is no whole number"),
    ("rlmemo.benchmark", ["--ttl", "x"], "'x' is no number"),
    ("rlmemo.benchmark", ["--seed", "-1"], "'-1' is no seed; give a whole number, 0 to"),
    ("rlmemo.predict", ["--seed", "-1"], "'-1' is no seed"),
    ("rlmemo.predict", ["--polcy", "mru"], "did you mean --policy?"),
    ("rlmemo.timelines", [], "which command? there are list, import, show"),
    ("rlmemo.timelines", ["improt", "x.csv"], "did you mean import?"),
    ("rlmemo.timelines", ["import"], "required: SOURCE"),
    ("rlmemo.timelines", ["import", "demo", "--seed", "-1"], "'-1' is no seed"),
    ("rlmemo.timelines", ["show", "demo", "--tzz", "UTC"], "did you mean --tz?"),
    ("rlmemo.feedback", ["pairs", "--rows", "singel"], "did you mean single?"),
    ("rlmemo.feedback", ["evaluate"], "required: --policy"),
    ("dashboard", ["--port", "x"], "'x' is no whole number"),
    ("dashboard", ["--raters", "x"], "did you mean --rater?"),
    ("tests.reference.example", ["x"], "unrecognized arguments: x"),
    ("experiments.evidence", ["--nothing-like-it"], "unrecognized arguments"),
]


@pytest.fixture
def run(warm: Warm, tmp_path: Path) -> Run:
    """`run("rlmemo.train", "--help", COLUMNS="60")` in an empty folder."""

    def run(module: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return warm.run(module, *words, cwd=tmp_path, env={**os.environ, **more})

    return run


@pytest.mark.parametrize(("module", "words", "says"), BAD)
def test_a_bad_option_is_one_line(run: Run, module: str, words: list[str], says: str, tmp_path: Path) -> None:
    done = run(module, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# mine\nmethod: dpo\nsft_sates: 3\n", "c.yaml:3: there is no setting 'sft_sates'; did you mean"),
        ("settings:\n  method: kto\n  seed: x\n", "c.yaml:3: seed is 'x'; give a whole number"),
        ("seed: 1\npeft: lorra\n", "c.yaml:2: peft 'lorra' is none of lora, dora"),
        ("method: sft\nseed: 1\nmethod: dpo\n", "c.yaml:3: method stands in line 1 already"),
        ("method: kto\nmicro-batch: 1\n", "c.yaml:2: micro_batch is 1"),
        ("seed: [1\n", "c.yaml:2: is no YAML"),
    ],
)
def test_a_bad_setting_in_a_file_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    from rlmemo.train import read_command_line

    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_command_line(["--config", str(file), "--out", str(tmp_path / "run")])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", EVERY)
def test_help_fits_sixty_columns(run: Run, module: str) -> None:
    for words in ([], *([command] for command in COMMANDS_OF.get(module, ()))):
        narrow, wide = (run(module, *words, "--help", COLUMNS=columns).stdout for columns in ("60", "200"))
        assert [x for x in narrow.splitlines() if len(x) > 60 and " " in x.strip()] == []
        said = "".join(narrow.replace("\\\n", "").split())
        for option in (x for x in wide.split() if x.startswith("--")):
            assert option.strip("[],:;.`'") in said  # nothing is cut


def test_an_example_can_be_copied_from_a_narrow_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    example = "python -m rlmemo.train --timelines webtrackr --out runs/wt"
    text = Parser(prog="x", description=f"What.\n\n    {example}   # all of it").format_help()
    assert "    # all of it\n" in text
    joined = " ".join(text.split("# all of it\n")[1].split("\n\n")[0].replace("\\\n", " ").split())
    assert joined == example


def test_text_is_as_wide_as_the_terminal_and_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "  one " + "two " * 30 + "/a/very/long/path/that/has/no/spaces/and/stays/whole/whatever/the/width"
    monkeypatch.delenv("COLUMNS", raising=False)
    assert wrapped(text) == text  # pytest's output is no terminal
    monkeypatch.setenv("COLUMNS", "60")
    lines = wrapped(text, "  ").split("\n")
    assert max(map(len, lines[:-1])) <= 60
    assert lines[1].startswith("    two")
    assert text.split() == wrapped(text).split()

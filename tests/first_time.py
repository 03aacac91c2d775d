"""What every worker would do for itself the first time, done once before they start: in a fresh clone the
libraries have no bytecode yet and the kernels are not compiled, and three workers that begin at the same time
would each do all of it.

    python -m tests.first_time imports|kernels
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "datasets", "lightgbm", "matplotlib.pyplot", "pandas", "peft", "playwright.sync_api",
    "streamlit.web.bootstrap", "torch", "transformers.models.qwen3.modeling_qwen3", "trl.trainer.dpo_trainer",
    "trl.trainer.sft_trainer",
)  # fmt: skip


def needed() -> bool:
    """Whether nothing was compiled here yet."""
    spec = find_spec("transformers")
    here = spec is not None and spec.origin is not None and Path(cache_from_source(spec.origin)).exists()
    return not here or not any((ROOT / "env").rglob("*.nbi"))


def prepare() -> None:
    """Both at once, where they are needed; what fails there will fail, and say so, in a test."""
    if needed():
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.first_time", what], cwd=ROOT,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for what in ("imports", "kernels")
        ]  # fmt: skip
        for one in started:
            one.wait()


def _imports() -> None:
    from importlib import import_module

    for name in LIBRARIES:
        if find_spec(name.partition(".")[0]) is not None:
            import_module(name)


def _kernels() -> None:
    from rlmemo.benchmark import main
    from tests.test_train_cli import write_csv

    with TemporaryDirectory() as folder:
        csv = write_csv(Path(folder) / "two.csv")
        main(
            [
                "--timelines",
                str(csv),
                "--tz",
                "UTC",
                "--policies",
                "mru,gbdt,base,oracle",
                "--quiet",
                "--draws",
                "20",
            ]
        )


if __name__ == "__main__":
    {"imports": _imports, "kernels": _kernels}[sys.argv[1]]()

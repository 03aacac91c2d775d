"""It works inside other people's programs and on other systems: Stable-Baselines3, Windows."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import env
from env.gym.render import SIZE
from tests.test_env import make, people

HOUSE = Path(__file__).parents[1]
LIKE_WINDOWS = """
import os, signal, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # `import` of it fails
for name in ("getuid", "fchmod", "killpg", "getpgid", "setsid", "getloadavg", "O_DIRECTORY", "O_NOFOLLOW"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGSTOP", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
"""
"""What our code might use and Windows' Python lacks (libraries ask `sys.platform` for more of it)."""


LIBRARIES = """
import matplotlib.pyplot, peft, scipy.stats, streamlit, torch
from transformers import AutoModelForCausalLM, Trainer
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RLOOTrainer, SFTTrainer
"""
"""Loaded before: on this system they rightly take the system for what it is."""


def like_windows(code: str, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + LIKE_WINDOWS + code, *words],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(HOUSE), "USERNAME": "me"},
    )


def ours() -> list[str]:
    """Every module of the package that is made to be imported."""
    found = []
    for package in ("env", "reward", "rlmemo", "dashboard"):
        for module in pkgutil.walk_packages([str(HOUSE / package)], f"{package}."):
            if not module.name.endswith(("__main__", "dashboard.app")):
                found.append(module.name)
    return [*found, "rlmemo.__main__", "rlmemo.feedback.__main__", "dashboard.__main__"]


def test_everything_imports_where_posix_is_missing() -> None:
    done = like_windows(
        "import importlib\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except (ImportError, AttributeError) as error:\n"
        "        print(name, repr(error))\n",
        *ours(),
        before=LIBRARIES,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "module", ["rlmemo", "rlmemo.train", "rlmemo.benchmark", "rlmemo.timelines", "rlmemo.predict",
               "rlmemo.feedback", "dashboard"],
)  # fmt: skip
def test_every_command_helps_where_posix_is_missing(module: str) -> None:
    code = f"import runpy; sys.argv[0] = {module!r}; runpy.run_module({module!r}, run_name='__main__')"
    done = like_windows(code, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_what_cannot_be_done_there_is_said(tmp_path: Path) -> None:
    done = like_windows(
        "from pathlib import Path\n"
        "from dashboard import jobs\n"
        "from env.errors import InputError\n"
        "from rlmemo.evaluation.evaluate import peak_rss_mb\n"
        "assert jobs.find(Path(sys.argv[1])) == []\n"
        "try:\n"
        "    jobs.start(Path(sys.argv[1]), 'mine', [])\n"
        "except InputError as error:\n"
        "    print(error, peak_rss_mb())\n",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "start it in a terminal: python -m rlmemo.train" in done.stdout
    assert "nan" in done.stdout


def test_a_benchmark_runs_where_posix_is_missing(tmp_path: Path) -> None:
    from tests.test_train_cli import write_csv

    csv = write_csv(tmp_path / "two.csv", 160)
    done = like_windows(
        "from env.errors import run_main; from rlmemo.benchmark import main; run_main(main)",
        "--timelines", str(csv), "--policies", "mru", "--draws", "20", "--json", str(tmp_path / "b.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"peak_rss_mb": {\n    "value": null,' in (tmp_path / "b.json").read_text()


def test_a_picture_shows_the_moment() -> None:
    walk = make(render_mode="rgb_array", episode="timeline")
    walk.reset(seed=0)
    first = walk.render()
    assert isinstance(first, np.ndarray)
    assert first.shape == (*SIZE, 3)
    assert first.dtype == np.uint8
    seen = {first.tobytes()}
    for k in range(8):
        action = np.zeros(walk.action_space.shape, np.int64)
        action[0] = k % 3
        walk.step(action)
        again, picture = walk.render(), walk.render()
        np.testing.assert_array_equal(again, picture)  # looking changes nothing
        seen.add(picture.tobytes())
    assert len(seen) > 4
    assert make(render_mode="ansi").render_mode == "ansi"


def test_a_picture_changes_nothing() -> None:
    looked, plain = (make(render_mode=mode, episode="timeline") for mode in ("rgb_array", None))
    rng = np.random.default_rng(0)
    a, b = looked.reset(seed=1)[0], plain.reset(seed=1)[0]
    for _ in range(30):
        looked.render()
        for key, value in a.items():
            np.testing.assert_array_equal(value, b[key])
        action = rng.integers(0, looked.action_space.nvec)
        a, reward, done, *_ = looked.step(action)
        b, other, *_ = plain.step(action)
        assert reward == other
        if done:
            a, b = looked.reset()[0], plain.reset()[0]


def test_gymnasiums_checker_takes_every_mode() -> None:
    from gymnasium.utils.env_checker import check_env

    assert env.__name__ == "env"
    for mode in gymnasium.make("rlmemo/Prewarm-v0", timelines=people()).metadata["render_modes"]:
        if mode != "human":
            check_env(gymnasium.make("rlmemo/Prewarm-v0", timelines=people(), render_mode=mode).unwrapped)


def test_stable_baselines_makes_it_as_it_stands() -> None:
    make_vec_env = pytest.importorskip("stable_baselines3.common.env_util").make_vec_env
    vec = make_vec_env("rlmemo/Prewarm-v0", n_envs=2, seed=0, env_kwargs={"timelines": people()})
    seen = vec.reset()
    assert seen["slate"].shape[0] == 2
    for _ in range(3):
        seen, reward, _, _ = vec.step([vec.action_space.sample() for _ in range(2)])
    assert reward.shape == (2,)
    assert vec.render().shape[2] == 3
    assert all(x.shape == (*SIZE, 3) for x in vec.get_images())
    vec.close()

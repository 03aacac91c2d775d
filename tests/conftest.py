"""Shared fixtures: where the recordings are, what a marked test needs, and one thread per worker."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before NumPy, numba and torch are imported anywhere: pytest runs several workers, and each of them
# starting a pool as wide as the machine is slower than one thread each. No hub is asked for anything.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop(
    "COLUMNS", None
)  # whoever starts the tests may have a narrow terminal; some set it for workers

import pytest  # noqa: E402
import raw_opens  # noqa: E402

from tests import first_time  # noqa: E402
from tests.warm import Warm, here  # noqa: E402

if sys.platform == "linux":
    raw_opens.install(raw_opens.found.append)

ROOT = Path(__file__).resolve().parents[1]
LONGEST = (
    "test_dashboard", "test_ray_crew", "test_trust", "test_dashboard_training", "test_adapters",
    "test_dashboard_store", "test_pages_acts", "test_oracle", "test_dashboard_votes", "test_serve_ray",
    "test_on_gpu", "test_gbdt", "test_live_watch", "test_dashboard_texts", "test_live_learn",
    "test_feedback_training", "test_endpoint", "test_several_processes", "test_help", "test_measure",
    "test_serve", "test_files_closed", "test_models", "test_dashboard_ends", "test_closed_loop",
    "test_train_cli", "test_ppo_contract", "test_dashboard_door", "test_tutorial", "test_serve_many",
    "test_text_policy", "test_evidence", "test_durability", "test_plan_samplers", "test_env_stateful",
    "test_live_loop", "test_endpoint_served", "test_in_charge", "test_little_to_learn", "test_sqlite_files",
    "test_options",
)  # fmt: skip
_modules = [0]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHELLS = ("chromium-headless-shell", "chrome-headless-shell")
"""Chromium without what only a window needs: a page costs two thirds of the processor time."""


def data_folder() -> Path:
    """The folder of recordings: RLMEMO_DATA, else ../shared/data beside the repository."""
    return Path(os.environ.get("RLMEMO_DATA") or ROOT.parent / "shared" / "data")


def chromium_path() -> str | None:
    """A Chromium that is installed, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def pytest_configure(config: pytest.Config) -> None:
    """While workers start."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        first_time.begin()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a worker keeps a file to its end, and the short ones fill up what is left."""
    place = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection() -> None:
    """One worker goes before the others."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
        first_time.wait("collected")


def pytest_collection_finish() -> None:
    """Trainings collect garbage often; what the test files have imported is looked through no more."""
    first_time.collected()
    keep_imports()
    first_time.wait()


def pytest_runtest_teardown() -> None:
    """Nor what tests have imported since."""
    if len(sys.modules) > _modules[-1] + 200:
        keep_imports()


def keep_imports() -> None:
    """Have the garbage collector pass over what is here now: half a second each time, once torch is."""
    gc.collect()
    gc.freeze()
    _modules.append(len(sys.modules))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("real_data"):
        for recording in mark.args or ("webtrackr",):
            if not (data_folder() / recording).is_dir():
                pytest.skip(f"the recording {recording!r} is not in {data_folder()} (set RLMEMO_DATA)")
    if item.get_closest_marker("browser") and chromium_path() is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrapped but where a test says how wide it is: a library that sets COLUMNS in a worker, or a
    narrow terminal, must not change what a later test reads."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of recordings (a test that needs one of them is marked `real_data`)."""
    return data_folder()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; skips where there is none."""
    found = chromium_path()
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    return found


@pytest.fixture(autouse=True)
def no_raw_opens() -> Iterator[None]:
    """No database file is opened otherwise than through SQLite while SQLite holds it."""
    yield
    noticed, raw_opens.found[:] = list(raw_opens.found), []
    assert not noticed


@pytest.fixture(scope="module")
def light_trainings(warm: Warm) -> Iterator[None]:
    """Trainings, in this process or forked, fit few trees, and the figures of their reports are painted but
    not written as SVG: for files that test neither (`test_scorer`, `test_report` and the tutorial do)."""
    from tests.light import lighten

    warm.light = True
    with pytest.MonkeyPatch.context() as patch:
        lighten(patch.setattr)
        yield
    warm.light = False


@pytest.fixture(scope="session")
def warm() -> Warm:
    """Starts commands as forks of a process that has imported what they need."""
    return here()


@pytest.fixture
def cli(
    warm: Warm, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`cli("rlmemo.timelines", "list")` is `python -m rlmemo.timelines list` in an empty folder."""
    noticed = tmp_path_factory.mktemp("noticed") / "raw_opens"
    watching = str(ROOT / "tests" / "watching")  # for what the command starts in its turn

    def run(module: str, *args: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([watching, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        more = {"RLMEMO_DATA": str(data_folder()), "COLUMNS": "100", raw_opens.VARIABLE: str(noticed)}
        env = {**os.environ, "PYTHONPATH": path, **more}
        return warm.run(module, *args, cwd=tmp_path, env=env, timeout=timeout)

    yield run
    assert not noticed.exists(), noticed.read_text()


@pytest.fixture(scope="session")
def shell(chromium: str) -> str:
    """Path of a Chromium for what needs neither extensions nor tabs in the background."""
    return next((found for name in SHELLS if (found := shutil.which(name))), chromium)


@pytest.fixture(scope="module")
def browser(shell: str) -> Iterator[Any]:
    """Headless Chromium."""
    from dashboard_in_browser import FLAGS

    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shell, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts dashboards on a database; they are stopped at the end."""
    from dashboard_in_browser import Server

    running: list[Server] = []

    def begin(db: Path, **options: Any) -> Server:
        running.append(Server(db, tmp_path, **options))
        return running[-1]

    yield begin
    for server in running:
        server.stop()
        assert not server.raw_opens.exists(), server.raw_opens.read_text()

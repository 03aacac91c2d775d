"""Runs that are killed, run out of disk, are damaged or tampered with, or learn nonsense.

`kill -9` at any moment and `--resume`: the adapter has the SHA-256 of a run that was left alone. Some kills
per method (CPU, float32, a tiny model; RLMEMO_TEST_KILLS asks for more): half of them are a random one of all
the times that the run touches its files, half a random instant. A run is killed up to five times before it
ends. No fork may open a connection.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from env.errors import InputError
from env.sources import load_timelines
from rlmemo.learning.config import make_config, settings
from rlmemo.learning.prepare import check_reporter
from rlmemo.learning.training import grows
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import COMPLETE, RunFolder, checkpoints_in, mark_complete, newest_checkpoint
from rlmemo.runs.stages import METHODS
from rlmemo.store import forgetting
from rlmemo.store.database import open_store
from tests.killing import Ended, Forge
from tests.test_train_cli import write_csv
from tests.tiny_base import write_tiny_base

KILLS = int(os.environ.get("RLMEMO_TEST_KILLS", "2"))
"""Kills of each method's run; half as many of those that share all of their code with one of `ALONE`."""
ALONE = ("sft", "dpo", "kto", "ppo")
TINY = {
    "sft-states": 40, "sft-batch": 8, "plan-states": 16, "plan-samples": 1, "dpo-pairs": 24, "dpo-batch": 8,
    "kto-plans": 24, "kto-batch": 8, "ppo-rollouts": 3, "ppo-lanes": 4, "ppo-steps": 8, "ppo-episode": 8,
    "ppo-batch": 16, "ppo-validate": 1, "group-states": 8, "group-plans": 4, "group-batch": 16,
    "lora-rank": 2, "checkpoint-steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    made = Forge(tmp_path_factory.mktemp("forge"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options for a small timeline, a tiny base model and a handful of updates."""
    folder = tmp_path_factory.mktemp("ground")
    base = write_tiny_base(folder / "base", hidden=16, layers=1)
    known = {s.name.replace("_", "-") for s in settings()}
    small = [x for k, v in TINY.items() if k in known for x in (f"--{k}", str(v))]
    return (
        "--timelines", str(write_csv(folder / "two.csv")), "--tz", "UTC", "--model", str(base), *small,
        "--policies", "none",
    )  # fmt: skip


def adapters(run: Path) -> dict[str, str]:
    """SHA-256 of all adapters of a run: each stage's, and the last."""
    return {p.parent.name: sha256(p) for p in sorted(run.glob("*/adapter_model.safetensors"))}


def go_on(forge: Forge, run: Path, options: tuple[str, ...], *, touch: int = 0, after: float = 0.0) -> Ended:
    """Resume; or begin, where the process was killed before there was a run."""
    begun = (run / "config.yaml").exists()
    given = ["--resume"] if begun else options
    return forge.run(run, [*given, "--out", str(run)], touch=touch, after=after)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_is_as_if_left_alone(
    forge: Forge, ground: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    options, run, head = (*ground, "--method", method), tmp_path / "whole", tmp_path / "head"
    if method != "dpo":  # one compares what it learned with what it began with, on the validation part
        options = (*options, "--preference-keep", "last")
    if method in ALONE and method != "dpo":  # what the others do is compiled and imported by then
        first = ("--method", "dpo") if method == "sft" else ()
        forge.warm([*options, *first, "--out", str(tmp_path / "warm")])
    whole = go_on(forge, run, options)
    assert whole.status == 0, whole.said
    wanted = adapters(run)
    stages = make_config({"method": method}).stages
    assert set(wanted) == {*stages, "adapter"}
    if method != "sft":  # most are killed in the method's own stage, going on from where that begins
        begin = forge.run(head / "checkpoints" / stages[-1], [*options, "--out", str(head)], touch=1)
        assert begin.status == -signal.SIGKILL, f"{method} keeps nothing below checkpoints/{stages[-1]}"
        shutil.copytree(head, tmp_path / "rest")
        whole = go_on(forge, tmp_path / "rest", options)
        assert adapters(tmp_path / "rest") == wanted
    rng = random.Random(f"kill {method}")
    kills, runs = 0, 0
    while kills < (KILLS if method in ALONE else KILLS // 2):
        cut, moments = tmp_path / f"cut{runs}", []
        if runs and head.exists():
            shutil.copytree(head, cut)
        runs += 1
        for _ in range(5):  # one that is killed may be killed again while it resumes
            touch = rng.randrange(1, whole.touched + 1) if kills % 2 == 0 else 0
            after = 0.0 if touch else rng.uniform(0.0, whole.seconds)
            moments.append(f"{method}, touch {touch}, after {after:.2f} s")
            ended = go_on(forge, cut, options, touch=touch, after=after)
            if ended.status == 0:  # what was left to do was done before that moment
                break
            assert ended.status == -signal.SIGKILL, f"{moments}: {ended.said}"
            kills += 1
        else:
            ended = go_on(forge, cut, options)
        assert ended.status == 0, f"{moments}: {ended.said}"
        assert adapters(cut) == wanted, moments
        assert not [p for p in cut.rglob("*") if p.name.endswith(".part")], moments


@pytest.fixture(scope="module")
def sft(forge: Forge, ground: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of SFT alone that was killed with two whole checkpoints, and the adapter that it was to make."""
    folder = tmp_path_factory.mktemp("sft")
    whole = go_on(forge, folder / "whole", (*ground, "--method", "sft"))
    assert whole.status == 0, whole.said
    (wanted,) = set(adapters(folder / "whole").values())
    cut = folder / "cut"
    kept = cut / "checkpoints" / "sft"
    begun = forge.run(kept / "checkpoint-5", [*ground, "--method", "sft", "--out", str(cut)], touch=1)
    assert begun.status == -signal.SIGKILL
    shutil.rmtree(kept / "checkpoint-5", ignore_errors=True)
    assert [p.name for p in checkpoints_in(kept)] == ["checkpoint-4", "checkpoint-2"]
    return cut, wanted


def copy_of(run: Path, to: Path) -> tuple[Path, Path]:
    """A copy of a run, and the folder of its newest whole checkpoint."""
    shutil.copytree(run, to)
    newest, _ = newest_checkpoint(to / "checkpoints" / "sft")
    assert newest is not None
    return to, newest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("adapter_model.safetensors", "one bit"),
        ("optimizer.pt", "cut off"),
        ("rng_state.pth", "one bit"),
        ("trainer_state.json", "gone"),
        (COMPLETE, "cut off"),
    ],
)
def test_a_damaged_checkpoint_costs_a_few_updates(
    forge: Forge, sft: tuple[Path, str], tmp_path: Path, name: str, how: str
) -> None:
    run, newest = copy_of(sft[0], tmp_path / "run")
    file = newest / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 3] if how == "cut off" else content)
    done = go_on(forge, run, ())
    assert done.status == 0, done.said
    assert done.said.count("passed over") == 1
    assert "checkpoint-4" in done.said
    assert set(adapters(run).values()) == {sft[1]}


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.slow
def test_code_in_a_run_folder_is_not_run(forge: Forge, sft: tuple[Path, str], tmp_path: Path) -> None:
    """Not from a checkpoint whose hashes were made to fit, nor from pickled weights beside the real ones."""
    mark = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Hostile(tmp_path / "probe")))
    assert (tmp_path / "probe").is_dir(), "it does run where it is unpickled"
    for k, name in enumerate(("optimizer.pt", "rng_state.pth", "scheduler.pt", "adapter_model.bin")):
        run, newest = copy_of(sft[0], tmp_path / f"run{k}")
        if name.endswith("bin"):
            (newest / "adapter_model.safetensors").unlink()
        (newest / name).write_bytes(pickle.dumps(Hostile(mark)))
        mark_complete(newest)
        done = go_on(forge, run, ())
        assert not mark.exists(), name
        assert done.status == 0, done.said
        assert f"checkpoint-4 holds more than numbers ({name}), which is not loaded" in done.said
        assert set(adapters(run).values()) == {sft[1]}
    from rlmemo.model.load import load_adapted

    adapter = tmp_path / "run0" / "adapter"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(InputError, match="adapter"):
        load_adapted(base, adapter)
    assert not mark.exists()


@pytest.mark.slow
def test_a_damaged_stage_is_done_again(forge: Forge, ground: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert go_on(forge, run, (*ground, "--method", "dpo")).status == 0
    wanted = adapters(run)
    weights = run / "sft" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    done = go_on(forge, run, ())
    assert done.status == 0, done.said
    assert "sft is damaged or gone; done again: sft, plans, dpo" in done.said
    assert adapters(run) == wanted


def full(ended: Ended, where: Path) -> None:
    """The run said that the disk is full, in one line, and left nothing half written."""
    assert ended.status == 2, ended.said
    (error,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert "could not be written" in error
    assert "free some space and run with --resume" in error
    assert "Traceback" not in ended.said
    assert not list(where.rglob("*.part"))


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_good_checkpoint(
    forge: Forge, sft: tuple[Path, str], ground: tuple[str, ...], tmp_path: Path
) -> None:
    """Files that may not grow (RLIMIT_FSIZE): as from the first checkpoint on, and with one there already."""
    run, newest = copy_of(sft[0], tmp_path / "later")
    size = (newest / "adapter_model.safetensors").stat().st_size
    assert size < (newest / "optimizer.pt").stat().st_size
    for limit, what in ((size + 100, "optimizer"), (size - 100, "adapter")):
        full(forge.run(run, ["--resume", "--out", str(run)], limit=limit), run)
        assert newest_checkpoint(newest.parent)[0] == newest, what
        first = tmp_path / f"first {what}"
        full(forge.run(first, [*ground, "--method", "sft", "--out", str(first)], limit=limit), first)
        assert not checkpoints_in(first / "checkpoints" / "sft")
        assert go_on(forge, first, ()).status == 0
        assert set(adapters(first).values()) == {sft[1]}
    assert go_on(forge, run, ()).status == 0
    assert set(adapters(run).values()) == {sft[1]}


@pytest.mark.slow
def test_a_disk_that_is_really_full(
    forge: Forge, sft: tuple[Path, str], ground: tuple[str, ...], tmp_path: Path
) -> None:
    """A file system of its own, filled at several places of the run (needs the right to mount one)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        for k, left in enumerate((0, 40, 120)):
            run = disk / f"run{k}"
            started = forge.run(run / "checkpoints", [*ground, "--method", "sft", "--out", str(run)], touch=1)
            assert started.status == -signal.SIGKILL
            space = shutil.disk_usage(disk).free - 1024 * left
            (disk / "ballast").write_bytes(b"\0" * max(space, 0))
            full(go_on(forge, run, ()), run)
            (disk / "ballast").unlink()
            done = go_on(forge, run, ())
            assert done.status == 0, done.said
            assert set(adapters(run).values()) == {sft[1]}
            shutil.rmtree(run)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in ("sft", "dpo", "kto", "ppo", "grpo") if m in METHODS])
def test_learning_that_goes_astray_says_what_to_change(
    forge: Forge, ground: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    run, rate = tmp_path / "run", "--group-lr" if method == "grpo" else f"--{method}-lr"
    ended = forge.run(run, [*ground, "--method", method, rate, "1e35", "--out", str(run)])
    assert ended.status == 2, ended.said
    (error,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert f"lower {rate} (it is 1e+35) and start anew" in error
    assert "Traceback" not in ended.said
    assert set(adapters(run)) == ({"sft"} if method != "sft" else set())
    if method != "sft":
        assert f"as it was before, the adapter is in {run / 'sft'}" in error
        assert RunFolder(run).recheck() == []


def test_a_loss_that_only_grows_is_noticed() -> None:
    assert not grows([0.7, 0.6, 0.5, 0.4, 0.3])
    assert not grows([0.7, 50.0, 0.5, 60.0, 0.7, 80.0]), "noise"
    assert not grows([7.0, 6.0, 20.0, 21.0, 22.0])
    assert grows([0.7, 0.6, 20.0, 30.0, 40.0])
    assert grows([7.0, 30.0, 25.0, 80.0])
    assert not grows([900.0])


@pytest.mark.slow
def test_a_run_is_noted_and_forgetting_names_it(
    forge: Forge, ground: tuple[str, ...], tmp_path: Path
) -> None:
    db, run = tmp_path / "memo.db", tmp_path / "run"
    loaded = load_timelines(ground[1], tz="UTC", collapsed=False)
    with open_store(db) as store:
        store.add_timelines(loaded)
    options = ("--timelines", str(db), *ground[4:], "--method", "sft")
    cut = go_on(forge, run, options, touch=40)
    assert cut.status == -signal.SIGKILL
    with open_store(db) as store:
        assert [(r.folder, r.status) for r in store.runs()] == [(str(run), "running")]
    assert go_on(forge, run, ()).status == 0
    elsewhere = ("--db", str(db), *ground, "--method", "sft")
    assert go_on(forge, tmp_path / "elsewhere", elsewhere).status == 0
    with open_store(db) as store:
        noted = {Path(r.folder).name: r for r in store.runs()}
        assert set(noted) == {"run", "elsewhere"}
        assert {r.status for r in noted.values()} == {"finished"}
        assert noted["run"].config["settings"]["sft_states"] == 40
        times = [float(t) for x in loaded.timelines for t in x.t]
        learned = noted["run"].config["learned"]
        assert learned["from"] == min(times)
        assert learned["until"] < max(times), "the test part is not learned from"
        late = forgetting.forget_period(store, max(times), max(times) + 1)
        assert (late.events, late.adapters) == (1, ())
        assert forgetting.forget_target(store, "app1").adapters == (str(run),)


@pytest.mark.slow
def test_reports_to_tensorboard(forge: Forge, ground: tuple[str, ...], tmp_path: Path) -> None:
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed (extra `report`)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    done = go_on(forge, run, (*ground, "--method", "sft", "--report-to", "tensorboard"))
    assert done.status == 0, done.said
    read = EventAccumulator(str(run / "tensorboard" / "sft")).Reload()
    logged = [(row["step"], row["loss"]) for row in RunFolder(run).logged("sft")]
    assert [(e.step, pytest.approx(e.value)) for e in read.Scalars("train/loss")] == logged


def test_a_reporter_that_is_not_there_is_said_in_one_line() -> None:
    check_reporter("none")
    for name in ("wandb", "trackio"):
        if find_spec(name) is None:
            with pytest.raises(InputError, match=f"{name} is not installed; `pip install {name}`"):
                check_reporter(name)


def unpickling(tree: ast.AST) -> list[int]:
    """Lines that would run code found in a file."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if (
            called.startswith(("pickle.load", "joblib.load", "dill.load", "cloudpickle.load", "shelve.open"))
            or (called == "torch.load" and given.get("weights_only") != "True")
            or given.get("allow_pickle") == "True"
            or given.get("trust_remote_code") == "True"
            or called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
        ):
            found.append(node.lineno)
    return found


def test_nothing_that_is_read_is_unpickled(repo_root: Path) -> None:
    for bad in ("pickle.load(f)", "torch.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f)"):
        assert unpickling(ast.parse(bad)) == [1], bad
    assert not unpickling(ast.parse("torch.load(f, weights_only=True)"))
    files = [p for room in ("env", "reward", "rlmemo", "dashboard") for p in (repo_root / room).rglob("*.py")]
    assert len(files) > 80
    found = {str(p): lines for p in files if (lines := unpickling(ast.parse(p.read_text(encoding="utf-8"))))}
    assert not found

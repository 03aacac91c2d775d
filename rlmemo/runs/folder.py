"""The run folder: what a run writes, so that it can be read, repeated and continued.

Everything is written to a temporary name beside its place, brought to the disk and then renamed, so a
file is there whole or not at all, whenever the process is killed. What a finished stage leaves is named
in `state.json`; what is not named there is done again.

    costs.json     a copy of the cost file, where there was one
    config.yaml    the settings, and what they met: versions, hashes of the data and of the base model
    metrics.jsonl  one line per logged step: stage, step, what the trainer measured
    state.json     the stages that are finished, and what they found
    sft/, dpo/     the adapter after each stage
    adapter/       the last one
    checkpoints/   a stage that is under way
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from env.errors import InputError
from env.private import make_private
from rlmemo.runs.atomic import PART, _sync_folder, not_written, sha256, write_atomic
from rlmemo.runs.lock import busy, hold
from rlmemo.runs.stages import stages_of, title

COMPLETE = "complete.json"
"""Written into a checkpoint after everything else: the hashes of its files."""


def mark_complete(checkpoint: Path) -> None:
    """Note the hashes of a checkpoint's files: from now on it counts as whole."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != COMPLETE)
    try:
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        hashes = {str(p.relative_to(checkpoint)): sha256(p) for p in files}
        _sync_folder(checkpoint.parent)
    except OSError as error:
        raise not_written(checkpoint, error) from None
    write_atomic(checkpoint / COMPLETE, json.dumps(hashes, indent=1))


def newest_checkpoint(
    folder: Path, vet: Callable[[Path], str | None] = lambda _: None
) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` whose files are all as they were written, and what is said
    about those that were passed over. A checkpoint that is being written when the process is killed has
    no `complete.json`; one whose files have changed since does not match it. `vet` looks at those that do
    match: what it says against one, None where it is good."""
    remarks = []
    for checkpoint in checkpoints_in(folder):
        try:
            hashes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
            damaged = [name for name, digest in hashes.items() if sha256(checkpoint / name) != digest]
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            remarks.append(
                f"{checkpoint.name} is unfinished"
                if missing == COMPLETE
                else f"{checkpoint.name} lacks {missing}"
            )
            continue
        except (OSError, ValueError, AttributeError, TypeError):
            remarks.append(f"{checkpoint.name} cannot be read")
            continue
        objection = f"is damaged ({damaged[0]})" if damaged else vet(checkpoint)
        if not objection:
            return checkpoint, remarks
        remarks.append(f"{checkpoint.name} {objection}")
    return None, remarks


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, whole or not, the newest first."""
    return sorted(
        (p for p in folder.glob("checkpoint-*") if p.name.split("-")[-1].isdigit()),
        key=lambda p: -updates(p),
    )


def updates(checkpoint: Path) -> int:
    """After how many updates a checkpoint was written."""
    return int(checkpoint.name.split("-")[-1])


COSTS = "costs.json"


@dataclass
class RunFolder:
    """One run's folder; see the module's docstring for what lies in it."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def checkpoints(self, stage: str) -> Path:
        """Where a stage under way keeps its checkpoints."""
        return self.path / "checkpoints" / stage

    def state(self) -> dict[str, Any]:
        """What is finished: stage name -> what it found. Raises InputError where state.json is damaged."""
        file = self.path / "state.json"
        if not file.exists():
            return {}
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(state, dict):
                raise ValueError
        except (OSError, ValueError):
            raise InputError(
                f"{file}: is damaged; delete it and run with --resume (finished stages are then done again)"
            ) from None
        return state

    def finish(self, stage: str, found: dict[str, Any]) -> None:
        """Note that a stage is finished; its checkpoints are not needed any more."""
        state = self.state()
        state[stage] = found
        write_atomic(self.path / "state.json", json.dumps(state, indent=1))
        shutil.rmtree(self.checkpoints(stage), ignore_errors=True)

    def log(self, stage: str, step: int, values: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        line = json.dumps({"stage": stage, "step": step, **values})
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise not_written(self.metrics_file, error) from None

    def logged(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl (of one stage); a line cut off by a crash is left out."""
        if not self.metrics_file.exists():
            return []
        rows = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and (stage is None or row.get("stage") == stage):
                rows.append(row)
        return rows

    def tidy(self) -> None:
        """Take away what a killed process left behind: files half written, checkpoints of finished stages;
        and what an older version left for everybody to read is its owner's alone again."""
        make_private(self.path)
        for left in list(self.path.rglob(f".*{PART}")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        for stage in self.state():
            shutil.rmtree(self.checkpoints(stage), ignore_errors=True)

    def recheck(self) -> list[str]:
        """Strike finished stages from state.json whose weights are not what was written, with all that came
        after; what is said about it. They are done again."""
        state = self.state()
        for place, (stage, found) in enumerate(state.items()):
            wanted = found.get("adapter_sha256") if isinstance(found, dict) else None
            files = [self.path / stage / f"{n}.safetensors" for n in ("adapter_model", "model")]
            if not wanted or any(f.is_file() and sha256(f) == wanted for f in files):
                continue
            again = list(state)[place:]
            kept = {name: state[name] for name in list(state)[:place]}
            write_atomic(self.path / "state.json", json.dumps(kept, indent=1))
            (self.path / "report.json").unlink(missing_ok=True)
            return [f"{self.path / stage} is damaged or gone; done again: {', '.join(again)}"]
        return []

    def forget_after(self, stage: str, step: int) -> None:
        """Drop the lines of `stage` beyond `step`: these steps are done again after a resume."""
        rows = [r for r in self.logged() if r.get("stage") != stage or r.get("step", 0) <= step]
        write_atomic(self.metrics_file, "".join(json.dumps(r) + "\n" for r in rows))


def unfinished(folder: Path) -> str | None:
    """What is said of a run that has no adapter yet: in which stage its training is or stopped, and how to go
    on; None for any other folder."""
    if not (folder / "config.yaml").is_file() or (folder / "adapter").is_dir():
        return None
    stage = _stage(folder)
    if busy(folder):
        return f"{folder} is not finished (another command is training it, in {stage}); wait for it"
    again = f"python -m rlmemo.train --out {shlex.quote(str(folder))} --resume"
    return f"{folder} is not finished (its training stopped in {stage}); go on with: {again}"


def _stage(folder: Path) -> str:
    """The first stage that a run has not finished, in words."""
    try:
        method = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["settings"]["method"]
        left = [stage for stage in stages_of(method) if stage not in RunFolder(folder).state()]
        return title(left[0]) if left else "its last stage"
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return "a stage that its files do not tell"


def new_folder(out: str | None, name: str) -> Path:
    """Where a new run goes: `out`, else the first free of runs/NAME, runs/NAME-2, …

    Nothing is made yet. Raises InputError where `out` is a file or holds something already.
    """
    if out is None:
        path, k = Path("runs") / name, 2
        while path.exists():
            path, k = Path("runs") / f"{name}-{k}", k + 1
        return path
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; --out takes a folder that is new or empty")
    if path.is_dir() and any(not p.name.endswith(PART) for p in path.iterdir()):
        hold(path)
        raise InputError(
            f"{path}: is there already and not empty; choose another --out, or continue it with "
            f"--out {path} --resume"
        )
    parent = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{path}: cannot be made, {parent} cannot be written to; choose another --out")
    return path


def old_folder(out: str | None) -> Path:
    """The run that `--resume` continues: `out`, else the run under runs/ that was touched last, is unfinished
    and that no other command is writing into; which one, and which are passed over, is said then. Raises
    InputError where there is none."""
    if out is not None:
        path = Path(out)
        if not (path / "config.yaml").is_file():
            raise InputError(f"{path}: holds no run to resume (no config.yaml); start one without --resume")
        return path
    runs = [p.parent for p in Path("runs").glob("*/config.yaml") if not (p.parent / "report.json").exists()]
    taken = sorted(run for run in runs if busy(run))
    others = f"another command is writing into {', '.join(map(str, taken))}" if taken else ""
    free = [run for run in runs if run not in taken]
    if not free:
        which = f"other unfinished run under runs/ ({others})" if taken else "unfinished run under runs/"
        raise InputError(f"there is no {which}; name one with --out, or start without --resume")
    path = max(free, key=lambda p: max(f.stat().st_mtime for f in p.iterdir()))
    print(f"resuming {path}{f' ({others})' if taken else ''}", flush=True)
    return path

"""The evidence: every method, several seeds, the same events, one table.

    python -m experiments.evidence                         # on validation; goes on where it stopped
    python -m experiments.evidence --part test --jobs 2    # the same runs, judged on the test part as well
    python -m experiments.evidence --config experiments/evidence/ablations.yaml
    python -m experiments.evidence --quick                 # tiny runs, to see that all of it works

A file under experiments/evidence/ says which timelines, seeds, methods, variants (any setting of
`python -m rlmemo.train`) and baselines. Every run is a run folder of `rlmemo.train` under `--out`; stages
that two runs share (SFT, above all) are learned once and copied. A run that is finished is not done
again, and neither is a judgement. `experiments/evidence_table.py` turns the judgements into numbers.

Planners, thresholds and the rounds of an early stop are chosen on the validation part. With `--part
validation` the table is of the same events that chose the threshold, for everybody alike; the test part
is read with `--part test` only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from env.errors import InputError, run_main
from env.splits import SPLITS
from rlmemo.evaluation.ray_crew import RayCrew, add_ray, crew_of
from rlmemo.learning.config import TrainConfig, make_config, settings
from rlmemo.options import Parser
from rlmemo.runs.stages import METHODS

HERE = Path(__file__).parent
PARTS = ("validation", "test")
QUICK: dict[str, Any] = {
    "sft_states": 128, "sft_batch": 16, "plan_states": 60, "plan_samples": 2, "dpo_pairs": 64,
    "dpo_batch": 16, "kto_plans": 64, "kto_batch": 16, "lora_rank": 4,
    "ppo_rollouts": 1, "ppo_lanes": 4, "ppo_steps": 16, "ppo_batch": 32, "ppo_validate": 1,
    "group_states": 32, "group_plans": 4, "group_batch": 32,
}  # fmt: skip
"""What `--quick` sets: enough to run every line, too little to learn anything."""


@dataclass(frozen=True)
class SeedRun:
    """One training: `name` is its row in the table, `given` the settings that differ from the defaults."""

    name: str
    timelines: str
    seed: int
    given: dict[str, Any]
    folder: Path

    @property
    def config(self) -> TrainConfig:
        name, split = parted(self.timelines)
        given = {"timelines": name, "seed": self.seed, **split, **self.given}
        return make_config(given, self.name)


@dataclass
class Spec:
    """What one YAML file (and the options over it) asks for."""

    timelines: list[str]
    seeds: list[int]
    variants: dict[str, dict[str, Any]]
    baselines: list[str]
    out: Path
    title: str = ""
    skipped: dict[str, str] = field(default_factory=dict)

    def runs(self) -> list[SeedRun]:
        """All runs, those with fewer stages first: they have what the longer ones begin with."""
        made = [
            SeedRun(
                name, timelines, seed, dict(given), self.out / stem(timelines) / f"seed{seed}" / slug(name)
            )
            for timelines in self.timelines
            for seed in self.seeds
            for name, given in self.variants.items()
        ]
        return sorted(made, key=lambda run: len(run.config.stages))


def parted(timelines: str) -> tuple[str, dict[str, str]]:
    """`NAME@SPLIT` as (name, the setting); another name as it is, with the usual split."""
    name, _, split = timelines.rpartition("@")
    return (name, {"split": split}) if split in SPLITS else (timelines, {})


def slug(name: str) -> str:
    """A name as a folder's name."""
    return "".join(c if c.isalnum() or c in ".-_" else "_" for c in name)


def stem(timelines: str) -> str:
    """Name of the folder of these timelines."""
    name, split = parted(timelines)
    return slug("-".join([Path(name).name.split(".")[0], *split.values()]))


KEYS = ("title", "timelines", "seeds", "methods", "variants", "settings", "baselines")


def read_spec(given: argparse.Namespace) -> Spec:
    """The file of `--config` under the options. Raises InputError for what cannot be run at all; a method
    that this version does not have is left out, with the reason in `Spec.skipped`."""
    import yaml

    path = Path(given.config)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({error}); see experiments/evidence/main.yaml") from None
    if not isinstance(data, dict) or set(data) - set(KEYS):
        odd = sorted(set(data) - set(KEYS)) if isinstance(data, dict) else type(data).__name__
        raise InputError(f"{path}: {odd} is not read here; the keys are {', '.join(KEYS)}")
    shared = {**(data.get("settings") or {}), **(QUICK if given.quick else {})}
    methods = given.methods.split(",") if given.methods else list(data.get("methods") or ["sft"])
    wanted = {str(m): {"method": str(m)} for m in methods if str(m).strip()}
    wanted |= {str(name): {"method": "dpo", **(v or {})} for name, v in (data.get("variants") or {}).items()}
    variants, skipped = {}, {}
    for name, overrides in wanted.items():
        if overrides["method"] not in METHODS:
            skipped[name] = f"--method {overrides['method']} is not among {', '.join(METHODS)}"
            continue
        variants[name] = {k: v for k, v in {**shared, **overrides}.items() if k in known_settings()}
        make_config({**shared, **overrides}, f"{path}: {name}")
    if not variants:
        raise InputError(f"{path}: names no method to run; there are {', '.join(METHODS)}")
    baselines = (
        given.baselines.split(",") if given.baselines is not None else list(data.get("baselines") or [])
    )
    timelines = given.timelines.split(",") if given.timelines else list(data.get("timelines") or ["demo"])
    try:
        seeds = [int(s) for s in (given.seeds.split(",") if given.seeds else data.get("seeds") or [0])]
    except (TypeError, ValueError):
        raise InputError(f"{path}: seeds are whole numbers, such as 0,1,2") from None
    out = (
        Path(given.out)
        if given.out
        else Path("runs") / f"evidence-{path.stem}{'-quick' if given.quick else ''}"
    )
    return Spec(
        [str(t) for t in timelines], seeds, variants, [b for b in map(str, baselines) if b.strip()], out,
        str(data.get("title") or path.stem), skipped,
    )  # fmt: skip


def known_settings() -> set[str]:
    """Names of the settings of a training run."""
    return {s.name for s in settings()}


# --- learning -------------------------------------------------------------------------------------


def learn(run: SeedRun, donors: Sequence[SeedRun]) -> None:
    """Do what is left of a run; nothing where `learned.json` is there. What it begins with is copied from
    the longest finished run in `donors` that went the same way."""
    if (run.folder / "learned.json").exists():
        return
    from rlmemo.learning.prepare import prepare
    from rlmemo.learning.training import quiet
    from rlmemo.runs.atomic import write_atomic
    from rlmemo.runs.folder import RunFolder

    quiet()
    resume = (run.folder / "config.yaml").exists()
    prepared = prepare(run.config, run.folder, resume=resume)
    folder = RunFolder(run.folder)
    copied = None if resume else inherit(run, donors)
    from rlmemo.learning.job import run_job

    began = time.perf_counter()
    run_job(prepared, folder, judged=False)
    found = {
        "seconds": time.perf_counter() - began,
        "peak_rss_mb": peak_mb(),
        "copied": copied,
        "stages": {
            k: v["seconds"] for k, v in folder.state().items() if isinstance(v, dict) and "seconds" in v
        },
    }
    write_atomic(run.folder / "learned.json", json.dumps(found, indent=1) + "\n")


def inherit(run: SeedRun, donors: Sequence[SeedRun]) -> str | None:
    """Copy the stages that a finished donor has in common with this run; the donor's name, None for none."""
    import shutil

    from rlmemo.runs.folder import RunFolder

    mine = run.config
    best: SeedRun | None = None
    for donor in donors:
        stages = donor.config.stages
        if (
            (donor.folder / "learned.json").exists()
            and stages == mine.stages[: len(stages)]
            and len(stages) < len(mine.stages)
            and same_way(donor.config, mine)
            and (best is None or len(stages) > len(best.config.stages))
        ):
            best = donor
    if best is None:
        return None
    own = {"config.yaml", "state.json", "learned.json", "adapter", "checkpoints"}
    for path in best.folder.iterdir():
        if path.name in own or path.name.startswith("judged-"):
            continue
        if path.is_dir():
            shutil.copytree(path, run.folder / path.name)
        else:
            shutil.copy(path, run.folder / path.name)
    shutil.copy(best.folder / "state.json", run.folder / "state.json")
    assert RunFolder(run.folder).state()
    return best.name


def same_way(donor: TrainConfig, mine: TrainConfig) -> bool:
    """Whether all that decided the donor's stages is set alike here. SFT knows nothing of the reward."""
    groups = {"data", "learning", "world", "sft"}
    if len(donor.stages) > 1:
        groups |= {"plans", "feedback", *donor.stages}
    free = {"method", "policies", "db", "report_to"} | ({"reward"} if len(donor.stages) == 1 else set())
    return all(
        getattr(donor, s.name) == getattr(mine, s.name)
        for s in settings()
        if s.metadata["group"] in groups and s.name not in free
    )


def peak_mb() -> float:
    """Peak resident memory of this process, MB."""
    from rlmemo.evaluation.evaluate import peak_rss_mb

    return peak_rss_mb()


# --- judging --------------------------------------------------------------------------------------


def judge_run(run: SeedRun, part: str, reward: str) -> None:
    """Judge a finished run; `judged-PART.npz` and `.json`."""
    if judged_file(run.folder, part).exists():
        return
    from experiments.evidence_judge import judge, write_judged
    from rlmemo.learning.planner_choice import stage_policies
    from rlmemo.learning.prepare import prepare
    from rlmemo.learning.training import hush_libraries, quiet
    from rlmemo.runs.folder import RunFolder

    quiet()
    hush_libraries()
    prepared = prepare(run.config, run.folder, resume=True)
    policy = stage_policies(run.config, RunFolder(run.folder))[run.config.stages[-1]]
    write_judged(judged_file(run.folder, part), judge(policy, prepared, part, reward))


def judge_baseline(name: str, run: SeedRun, folder: Path, part: str, reward: str) -> None:
    """Fit a baseline on the timelines of `run` and judge it."""
    if judged_file(folder, part).exists():
        return
    from env.sources import load_timelines
    from env.splits import split_by
    from experiments.evidence_judge import judge, write_judged
    from reward import parse_reward
    from rlmemo.learning.prepare import Prepared
    from rlmemo.policies.registry import make_policy

    config = run.config
    loaded = load_timelines(config.timelines, seed=config.seed, tz=config.tz)
    split = split_by(loaded.timelines, config.split)
    prepared = Prepared(config, loaded, split, parse_reward(reward), config.world.rules(), False)
    began = time.perf_counter()
    policy = make_policy(name)
    policy.fit(loaded.timelines, split, seed=config.seed)
    found = judge(policy, prepared, part, reward)
    found["numbers"]["fit_seconds"] = time.perf_counter() - began
    folder.mkdir(parents=True, exist_ok=True)
    write_judged(judged_file(folder, part), found)


def judged_file(folder: Path, part: str) -> Path:
    """Where the judgement of a run or baseline stands; it is written last."""
    return folder / f"judged-{part}.json"


# --- the command line -----------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(
        prog="python -m experiments.evidence",
        description=__doc__,
    )
    p.add_argument("--config", default=str(HERE / "evidence" / "main.yaml"), metavar="FILE.yaml")
    p.add_argument("--timelines", metavar="A,B", help="instead of the file's")
    p.add_argument("--seeds", metavar="N,N", help="instead of the file's")
    p.add_argument("--methods", metavar="A,B", help="instead of the file's; variants stay")
    p.add_argument("--baselines", metavar="A,B", help="instead of the file's")
    p.add_argument("--part", choices=PARTS, default="validation", help="what is judged (default: validation)")
    p.add_argument("--out", metavar="FOLDER", help="where the runs go (default: runs/evidence-NAME)")
    p.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="tasks at once, one thread each (default: 1)"
    )
    add_ray(p, "do the tasks, as many at once as there are cores,")
    p.add_argument("--quick", action="store_true", help="tiny runs, to see that everything works")
    p.add_argument("--dry-run", action="store_true", help="say what would be run, and stop")
    p.add_argument("--docs", metavar="FILE.md", help="put the table between its markers in this file")
    p.add_argument("--figures", metavar="FOLDER", help="write the plots there (default: OUT/figures)")
    p.add_argument("--task", help=argparse.SUPPRESS)
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the table; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser().parse_args(arguments)
    spec = read_spec(given)
    if given.task is not None:
        return do_task(spec, given.task, given.part)
    if given.jobs < 1:
        raise InputError(f"--jobs is {given.jobs}; give 1 or more")
    for name, why in spec.skipped.items():
        print(f"left out: {name} ({why})", file=sys.stderr)
    runs, tasks = spec.runs(), pending(spec, given.part)
    print(f"{len(runs)} runs and {len(spec.baselines)} baselines; {len(tasks)} tasks to do", file=sys.stderr)
    if given.dry_run:
        print("\n".join(tasks))
        return 0
    spec.out.mkdir(parents=True, exist_ok=True)
    with crew_of(given) as crew:
        failed = work(tasks, spec, arguments, given.jobs if crew is None else crew.cores, crew)
    from experiments.evidence_table import write_all

    write_all(spec, given.part, given, arguments)
    return 1 if failed else 0


def pending(spec: Spec, part: str) -> list[str]:
    """Tasks that are not done yet, in an order in which donors come before those who copy from them."""
    tasks = [f"run {k}" for k, run in enumerate(spec.runs()) if not finished(run.folder, part)]
    return tasks + [
        f"baselines {k}"
        for k, run in enumerate(reference_runs(spec))
        if not all(finished(baseline_folder(run, name), part) for name in spec.baselines)
    ]


def finished(folder: Path, part: str) -> bool:
    """Whether all that the table needs of a folder is there."""
    return all(judged_file(folder, p).exists() for p in dict.fromkeys(("validation", part)))


def reference_runs(spec: Spec) -> list[SeedRun]:
    """One run per timelines and seed, for the settings under which baselines are judged."""
    seen: dict[tuple[str, int], SeedRun] = {}
    for run in spec.runs():
        seen.setdefault((run.timelines, run.seed), run)
    return list(seen.values())


def baseline_folder(run: SeedRun, name: str) -> Path:
    """Where a baseline's judgement stands."""
    return run.folder.parent / "baselines" / slug(name)


def do_task(spec: Spec, task: str, part: str) -> int:
    """One task, in a process of its own, so that its peak memory is its own."""
    kind, *rest = task.split()
    runs, reward = spec.runs(), base_reward(spec)
    parts = dict.fromkeys(("validation", part))
    if kind == "run":
        run = runs[int(rest[0])]
        others = [r for r in runs if (r.timelines, r.seed) == (run.timelines, run.seed)]
        learn(run, others)
        for p in parts:
            judge_run(run, p, reward)
    else:
        run = reference_runs(spec)[int(rest[0])]
        for name in spec.baselines:
            for p in parts:
                judge_baseline(name, run, baseline_folder(run, name), p, reward)
    return 0


def base_reward(spec: Spec) -> str:
    """The reward that everybody is judged by: that of the first variant that does not name its own."""
    rewards = [v.get("reward", TrainConfig.reward) for v in spec.variants.values()]
    return str(TrainConfig.reward if TrainConfig.reward in rewards else rewards[0])


def on_worker(arguments: Sequence[str], log: Path, folder: str) -> int:
    """A task in a process of Ray's: its exit status. It writes into the log, and into the folder of the runs,
    where whoever did it before and was lost has left what it learned."""
    with contextlib.chdir(folder), log.open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            return main(list(arguments))
        except Exception:
            traceback.print_exc()
            return 1


def begin(task: str, log: Path, arguments: Sequence[str], crew: RayCrew | None) -> Any:
    """A task that runs beside this process."""
    words = [*arguments, "--task", task]
    if crew is not None:
        from experiments.evidence import on_worker  # this file is run as a script

        return crew.begin(on_worker, words, log, os.getcwd())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "experiments.evidence", *words]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def work(
    tasks: Sequence[str], spec: Spec, arguments: Sequence[str], jobs: int, crew: RayCrew | None = None
) -> int:
    """Do the tasks, `jobs` at a time; a task that needs another's stages waits for it. How many failed. crew:
    who does them (None: processes of this machine)."""
    runs = spec.runs()
    waiting, failed = list(tasks), 0
    going: dict[str, tuple[Any, float, Path]] = {}
    while waiting or going:
        for task in [t for t in waiting if len(going) < jobs]:
            if len(going) >= jobs or any(blocks(other, task, runs) for other in going):
                continue
            waiting.remove(task)
            log = spec.out / f"log-{slug(label(task, runs, spec))}.txt"
            going[task] = (begin(task, log, arguments, crew), time.perf_counter(), log)
        for task, (process, began, log) in list(going.items()):
            if process.poll() is None:
                continue
            del going[task]
            failed += process.returncode != 0
            said = "done" if process.returncode == 0 else f"FAILED, see {log}"
            seconds = time.perf_counter() - began
            print(
                f"{label(task, runs, spec)}: {said} ({seconds:.0f} s; {len(waiting)} to go)", file=sys.stderr
            )
        time.sleep(0.2)
    return failed


def blocks(other: str, task: str, runs: Sequence[SeedRun]) -> bool:
    """Whether `task` should wait for `other`: a run of the same timelines and seed with fewer stages."""
    if not (other.startswith("run") and task.startswith("run")):
        return False
    a, b = runs[int(other.split()[1])], runs[int(task.split()[1])]
    return (a.timelines, a.seed) == (b.timelines, b.seed) and len(a.config.stages) < len(b.config.stages)


def label(task: str, runs: Sequence[SeedRun], spec: Spec) -> str:
    """A task as a person reads it."""
    kind, *rest = task.split()
    run = (runs if kind == "run" else reference_runs(spec))[int(rest[0])]
    return f"{stem(run.timelines)} seed {run.seed} {run.name if kind == 'run' else 'baselines'}"


if __name__ == "__main__":
    run_main(main)

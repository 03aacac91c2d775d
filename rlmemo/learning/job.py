"""The whole job of a run, stage by stage: SFT, plans scored by replay, DPO or KTO, calibration, the report.

A stage that is finished stands in `state.json` and is not done again; a stage under way goes on from its
newest whole checkpoint.
"""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from env.judge.cost import cost_model
from rlmemo.approval.approval import MODEL
from rlmemo.learning.config import ONLINE, TrainConfig
from rlmemo.learning.display import Display
from rlmemo.learning.prepare import Prepared
from rlmemo.learning.ratings_used import Feedback, joined, read_feedback
from rlmemo.learning.training import Interrupt, hush_libraries
from rlmemo.learning.training_data import States, TrainingData, draw, part_states
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder


def run_job(start: Prepared, folder: RunFolder, *, judged: bool = True) -> None:
    """Do what is left of the run in `folder`, and say what was written.

    judged: whether the run is judged and reported on at its end; who judges many runs together leaves it out.
    """
    began = time.perf_counter()
    config, display = start.config, Display()
    data = "synthetic data" if start.loaded.synthetic else "recorded data"
    counts = start.split.counts()
    people = "user" if len(start.timelines) == 1 else "users"
    display.say(
        f"{start.loaded.name} ({data}): {len(start.timelines)} {people}, {counts['train']} events to learn "
        f"from, {counts['validation']} to choose by, {counts['test']} to test on; {config.method}, seed "
        f"{config.seed}"
    )
    if start.resumed:
        display.say(
            f"going on with {folder.path}: finished are {', '.join(folder.state()) or 'no stages yet'}"
        )
    with display.stage("loading"):
        hush_libraries()
        from rlmemo.model.load import reading_for

        _threads(folder)
        reads = reading_for(config.model, config.loading)
        ground = TrainingData.prepare(
            start.timelines, start.split, cost_model(config.costs), start.world, reads
        )
    ground = _scorers(config, folder, ground, display)
    feedback = _feedback(config, folder, ground, start, display)
    interrupt = Interrupt()
    for_sft, for_plans = draw(
        part_states(ground.split.train), config.sft_states, config.plan_states, config.seed
    )
    _sft(config, folder, ground, for_sft, interrupt, display)
    shown, stated = ground, joined(for_plans, feedback)
    if config.preference:
        from rlmemo.learning.preference_rounds import learn_preferences

        shown, stated = learn_preferences(
            config, folder, ground, for_plans, start, interrupt, display, feedback
        )
    for stage in config.shared_stages:
        if stage in ONLINE:
            from rlmemo.learning.online import run_online

            run_online(stage, config, folder, ground, for_plans, start, interrupt, display, feedback)
    if (folder.path / "report.json").exists():
        display.say(f"{folder.path} is finished: see {folder.path / 'report.html'}")
        return
    with folder_atomic(folder.path / "adapter") as part:
        shutil.copytree(folder.path / config.shared_stages[-1], part, dirs_exist_ok=True)
        if feedback is not None and feedback.approval is not None:
            feedback.approval.save(part / MODEL)
    if config.adapter_per_user:
        _users(config, folder, shown, stated, start, interrupt, display)
    if not judged:
        return
    from rlmemo.learning.choice import judge

    judge(start, folder, ground, display)
    _say_what_is_there(config, folder, display, time.perf_counter() - began)


def _feedback(
    config: TrainConfig, folder: RunFolder, ground: TrainingData, start: Prepared, display: Display
) -> Feedback | None:
    """The ratings to learn from, None where there is none."""
    if config.feedback is None:
        return None
    found = read_feedback(
        config.feedback, ground, start.reward, weight=config.feedback_weight, seed=config.seed, folder=folder
    )
    display.say(found.sentence())
    return found if found.placed else None


def _threads(folder: RunFolder) -> None:
    """The same number of threads as when the run began: sums come out the same to the last bit."""
    import torch

    state = folder.state()
    if "start" not in state:
        folder.finish("start", {"threads": torch.get_num_threads()})
    else:
        torch.set_num_threads(int(state["start"]["threads"]))


def _scorer_before(config: TrainConfig, folder: RunFolder) -> Path | None:
    """The scorers of the run that --init-adapter names, where they were fitted to the same training part."""
    import yaml

    if config.init_adapter is None or not (Path(config.init_adapter) / "scorer").is_dir():
        return None
    runs = [
        yaml.safe_load((x / "config.yaml").read_text(encoding="utf-8"))
        for x in (Path(config.init_adapter), folder.path)
    ]
    same = [
        (run["met"]["timelines"]["sha256"], *(run["settings"].get(k) for k in ("seed", "split", "scorer")))
        for run in runs
    ]
    return Path(config.init_adapter) / "scorer" if same[0] == same[1] else None


def _scorers(config: TrainConfig, folder: RunFolder, ground: TrainingData, display: Display) -> TrainingData:
    """The ground with the answers of scorers that were fitted on the training part, for a model that reads
    them."""
    from rlmemo.model.scorer import CrossFitted, base_scorer, fit_scorers, load_scorers, save_scorers

    if ground.reading.kind != "slots":
        return ground
    wide = ground.wide()
    if "scorer" not in folder.state():
        with display.stage("scorer, the trees whose answer the model reads") as bar:
            began = time.perf_counter()
            known = _scorer_before(config, folder)
            if known is not None:
                crossed = load_scorers(known)
            elif config.scorer == "fit":
                crossed = fit_scorers(wide, ground.train, seed=config.seed)
            else:
                crossed = CrossFitted(base_scorer(), ())
            with folder_atomic(folder.path / "scorer") as part:
                save_scorers(crossed, part)
            fitted = len(crossed.fold) > 0
            bar.note = "fitted on the training part" if fitted else "the shipped one"
            bar.note += f", by {config.init_adapter}" if known is not None else ""
            folder.finish("scorer", {"fitted": fitted, "seconds": time.perf_counter() - began})
    return ground.scored(load_scorers(folder.path / "scorer"), wide)


def _sft(
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    interrupt: Interrupt,
    display: Display,
) -> None:
    if "sft" in folder.state():
        return
    if config.init_adapter is not None:
        from rlmemo.model.adapters import ENCODER

        before = Path(config.init_adapter) / "adapter"
        with folder_atomic(folder.path / "sft") as part:
            for name in ("adapter_config.json", "adapter_model.safetensors", ENCODER):
                if name != ENCODER or (before / name).is_file():
                    shutil.copy(before / name, part / name)
        digest = sha256(folder.path / "sft" / "adapter_model.safetensors")
        folder.finish("sft", {"steps": 0, "init_adapter": config.init_adapter, "adapter_sha256": digest})
        return
    from rlmemo.learning.sft import run_sft, save_adapter
    from rlmemo.model.load import load_model

    with display.stage(f"SFT on {len(states)} states") as bar:
        began = time.perf_counter()
        model, found = run_sft(
            config, folder, ground, states, load_model(config.model, config.loading), interrupt, bar
        )
        found["adapter_sha256"] = save_adapter(model, folder.path / "sft", config.model)
        folder.finish("sft", {**found, "seconds": time.perf_counter() - began})


def _users(
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    start: Prepared,
    interrupt: Interrupt,
    display: Display,
) -> None:
    """An adapter for each user, from the shared one on."""
    if "users" in folder.state():
        return
    from rlmemo.learning.pairs import KtoExample, Pair, read_pairs
    from rlmemo.learning.per_user import train_users
    from rlmemo.learning.preference_rounds import preference_file

    rows: list[Any] = []
    if config.method != "sft":
        rows = read_pairs(preference_file(config, folder), Pair if config.method == "dpo" else KtoExample)
    with display.stage(f"an adapter for each of {len(ground.timelines)} users") as bar:
        began = time.perf_counter()
        found = train_users(config, folder, ground, states, rows, start.reward, interrupt, bar)
        bar.note = f"{found['in_use']} of {found['users']} do better than the shared one"
        folder.finish("users", {**found, "seconds": time.perf_counter() - began})


def _say_what_is_there(config: TrainConfig, folder: RunFolder, display: Display, seconds: float) -> None:
    path = folder.path
    display.say(f"\nwrote in {seconds:.0f} s:")
    for name, what in {
        "report.html": "the result, with plots; open it in a browser",
        "report.json": "the same for programs",
        "adapter": "the trained policy (safetensors)",
        "adapters": "one for each user; list them with python -m rlmemo.train --list-adapters RUN",
        "README.md": "model card",
        "metrics.jsonl": "what was logged, step by step",
        "config.yaml": "everything needed to repeat this run",
    }.items():
        if (path / name).exists():
            display.say(f"  {path / name}{'/' if (path / name).is_dir() else '':<4} {what}")
    display.say("next:")
    for command, what in next_steps(config, path):
        display.say(f"  python -m {command}  # {what}")


def next_steps(config: TrainConfig, path: Path) -> list[tuple[str, str]]:
    """(command, what it is for): what to do with a run that has finished. The database is the one that the
    run is noted in, or learned from; where there is none, the one that `predict` makes by itself."""
    from env.judge.cost import TYPICAL_BUDGET
    from rlmemo.learning.record import database_of

    database = database_of(config) or Path("rlmemo.db")
    on = ["--timelines", config.timelines, *(["--tz", config.tz] if config.tz else [])]
    costs = ["--cost", config.costs] if config.costs != "desktop" else []
    budget = [f"--budget={config.budget:g}"] if config.budget != TYPICAL_BUDGET else []
    runs = ["--runs", str(path.parent)] if path.parent != Path("runs") else []
    steps = [
        (
            ["rlmemo.predict", *on, "--policy", str(path), "--db", str(database), *costs],
            "predictions to rate",
        ),
        (["dashboard", "--db", str(database), *runs], "see them and rate them"),
        (
            ["rlmemo.benchmark", *on, "--policies", f"omnibox,oracle,{path}", *costs, *budget],
            "more policies, and more budgets",
        ),
    ]
    if config.timelines == "demo":
        steps.append((["rlmemo.train", "--timelines", "YOUR.csv"], "learn from your own timeline"))
    return [(shlex.join(command), what) for command, what in steps]

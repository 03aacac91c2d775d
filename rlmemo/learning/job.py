"""The whole job of a run, stage by stage: SFT, plans scored by replay, DPO or KTO, calibration, the report.

A stage that is finished stands in `state.json` and is not done again; a stage under way goes on from its
newest whole checkpoint.
"""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import replace
from pathlib import Path

import yaml

from rlmemo.approval.approval import MODEL
from rlmemo.approval.thumbs_said import told
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning import planner_choice
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.display import Display
from rlmemo.learning.online import run_online
from rlmemo.learning.pairs import KtoExample, Pair, read_pairs
from rlmemo.learning.per_user import Everybody, train_users
from rlmemo.learning.preference_rounds import learn_preferences, preference_file
from rlmemo.learning.prepare import Prepared
from rlmemo.learning.rating_feedback import Feedback, joined, read_feedback
from rlmemo.learning.record import database_of
from rlmemo.learning.run import Run
from rlmemo.learning.sft import run_sft
from rlmemo.learning.training import hush_libraries
from rlmemo.learning.training_data import States, TrainingData, draw, part_states
from rlmemo.model.adapters import ENCODER
from rlmemo.model.hub import model_folder
from rlmemo.model.load import reading_for
from rlmemo.model.precision import chosen_dtype
from rlmemo.model.readings import Reading, slates_of
from rlmemo.model.scorer import CrossFitted, base_scorer, fit_scorers, load_scorers, save_scorers
from rlmemo.model.soon import PLACES, Soon, base_soon, fit_soon, load_soon, save_soon
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.stages import ONLINE
from rlmemo.store.database_file import DEFAULT_DB


def run_job(
    prepared: Prepared, folder: RunFolder, *, judged: bool = True, crew: RayCrew | None = None
) -> None:
    """Do what is left of the run in `folder`, and say what was written.

    crew: who trains users' adapters (None: this process); judged: whether the run is judged and reported on
    at its end; who judges many runs together leaves it out.
    """
    began = time.perf_counter()
    config = prepared.config
    run = _begun(prepared, folder)
    run = replace(run, data=_scorers(run))
    run = replace(run, feedback=_feedback(run))
    if run.feedback is not None:
        run = replace(run, data=run.data.hearing(told(run.data.timelines, run.feedback.placed)))
    for_sft, for_plans = draw(
        part_states(run.data.split.train), config.sft_states, config.plan_states, config.seed
    )
    _sft(run, for_sft)
    shown, states = run.data, joined(for_plans, run.feedback)
    if config.preference:
        shown, states = learn_preferences(run, for_plans)
    for stage in config.shared_stages:
        if stage in ONLINE:
            run_online(run, stage, for_plans)
    if (run.path / "report.json").exists():
        run.display.say(f"{run.path} is finished: see {run.path / 'report.html'}")
        return
    with folder_atomic(run.path / "adapter") as part:
        shutil.copytree(run.path / config.shared_stages[-1], part, dirs_exist_ok=True)
        if run.feedback is not None and run.feedback.approval is not None:
            run.feedback.approval.save(part / MODEL)
    if config.adapter_per_user:
        _users(replace(run, data=shown), states, crew)
    if not judged:
        return
    planner_choice.judge(run)
    _say_what_is_there(run, time.perf_counter() - began)


def _begun(prepared: Prepared, folder: RunFolder) -> Run:
    """The run with its timelines as the model reads them; says what it is about to do."""
    config, display = prepared.config, Display()
    kind = "synthetic data" if prepared.loaded.synthetic else "recorded data"
    counts = prepared.split.counts()
    people = "user" if len(prepared.timelines) == 1 else "users"
    display.say(
        f"{prepared.loaded.name} ({kind}): {len(prepared.timelines)} {people}, {counts['train']} events to "
        f"learn from, {counts['validation']} to choose by, {counts['test']} to test on; {config.method}, "
        f"seed {config.seed}"
    )
    if prepared.resumed:
        display.say(
            f"going on with {folder.path}: finished are {', '.join(folder.state()) or 'no stages yet'}"
        )
    with display.stage("loading"):
        hush_libraries()
        reads = reading_for(config.model, config.loading)
        config = _as_begun(folder, config, reads)
        prepared = replace(prepared, config=config)
        costs = config.world.cost_model()
        data = TrainingData.prepare(prepared.timelines, prepared.split, costs, prepared.world, reads)
    return Run(prepared, folder, data, display)


def _feedback(run: Run) -> Feedback | None:
    """The ratings to learn from, None where there is none."""
    config = run.config
    if config.feedback is None:
        return None
    found = read_feedback(
        config.feedback, run.data, run.reward, weight=config.feedback_weight, seed=config.seed,
        folder=run.folder,
    )  # fmt: skip
    run.display.say(found.sentence())
    return found if found.placed else None


def _as_begun(folder: RunFolder, config: TrainConfig, reads: Reading) -> TrainConfig:
    """The same number of threads, and of a model that reads text the same precision, as when the run began:
    sums come out the same to the last bit."""
    import torch

    begun = folder.state().get("start")
    if begun is None:
        begun = {"threads": torch.get_num_threads()}
        if reads.kind == "text" and config.dtype == "auto":
            begun["dtype"] = chosen_dtype(model_folder(config.model))
        folder.finish("start", begun)
    torch.set_num_threads(int(begun["threads"]))
    return replace(config, dtype=begun["dtype"]) if "dtype" in begun else config


def _scorer_before(config: TrainConfig, folder: RunFolder) -> Path | None:
    """The scorers of the run that --init-adapter names, where they were fitted to the same training part."""
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


_SCORER = {
    "slots": "scorer, the trees whose answer the model reads",
    "text": "scorer, the trees that have a say beside the model",
}


def _scorers(run: Run) -> TrainingData:
    """The data with the answers of scorers that were fitted on the training part: the embedded model reads
    them, and beside any other they have a say in its rankings."""
    data, config = run.data, run.config
    wide = data.wide()
    if not run.finished("scorer"):
        with run.stage("scorer", _SCORER[data.reading.kind]) as stage:
            known = _scorer_before(config, run.folder)
            if known is not None:
                crossed = load_scorers(known)
            elif config.scorer == "fit":
                crossed = fit_scorers(wide, data.train, seed=config.seed)
            else:
                crossed = CrossFitted(base_scorer(), ())
            with folder_atomic(run.path / "scorer") as part:
                save_scorers(crossed, part)
                save_soon(_soon(run, known), part)
            fitted = len(crossed.fold) > 0
            stage.bar.note = "fitted on the training part" if fitted else "the shipped one"
            stage.bar.note += f", by {config.init_adapter}" if known is not None else ""
            stage.found = {"fitted": fitted}
    scored = data.scored(load_scorers(run.path / "scorer"), wide)
    return scored.knowing(load_soon(run.path / "scorer"))


def _soon(run: Run, known: Path | None) -> Soon:
    """Who is opened soon, fitted on the training part; as in the run before, where its scorers are used."""
    if known is not None:
        return load_soon(known)
    if run.config.scorer != "fit":
        return base_soon()
    timelines = run.data.timelines
    slates, targets = [slates_of(x, PLACES) for x in timelines], [x.target for x in timelines]
    return fit_soon(slates, targets, run.data.train, seed=run.config.seed)


def _sft(run: Run, states: States) -> None:
    config = run.config
    if run.finished("sft"):
        return
    if config.init_adapter is not None:
        before = Path(config.init_adapter) / "adapter"
        with folder_atomic(run.path / "sft") as part:
            for name in ("adapter_config.json", "adapter_model.safetensors", ENCODER):
                if name != ENCODER or (before / name).is_file():
                    shutil.copy(before / name, part / name)
        digest = sha256(run.path / "sft" / "adapter_model.safetensors")
        run.folder.finish("sft", {"steps": 0, "init_adapter": config.init_adapter, "adapter_sha256": digest})
        return
    with run.stage("sft", f"SFT on {len(states)} states") as stage:
        run.save(stage, *run_sft(run.lesson(stage), run.data, states))


def _users(run: Run, states: States, crew: RayCrew | None) -> None:
    """An adapter for each user, from the shared one on. run.data, states: what the preferences of the run
    point into."""
    if run.finished("users"):
        return
    config, rows = run.config, []
    if config.method != "sft":
        kind = Pair if config.method == "dpo" else KtoExample
        rows = read_pairs(preference_file(config, run.folder), kind)
    everybody = Everybody(run.data, run.reward, states, rows)
    with run.stage("users", f"an adapter for each of {len(run.data.timelines)} users", "adapter") as stage:
        stage.found = train_users(run.lesson(stage), everybody, crew)
        stage.bar.note = f"{stage.found['in_use']} of {stage.found['users']} do better than the shared one"


def _say_what_is_there(run: Run, seconds: float) -> None:
    path, display = run.path, run.display
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
    for command, what in next_steps(run.config, path):
        display.say(f"  python -m {command}  # {what}")


def next_steps(config: TrainConfig, path: Path) -> list[tuple[str, str]]:
    """(command, what it is for): what to do with a run that has finished. The database is the one that the
    run is noted in, or learned from; where there is none, the one that `predict` makes by itself."""
    database = database_of(config) or Path(DEFAULT_DB)
    on = ["--timelines", config.timelines, *(["--tz", config.tz] if config.tz else [])]
    world = config.world.arguments()  # for the benchmark alone, which judges all policies in one world
    runs = ["--runs", str(path.parent)] if path.parent != Path("runs") else []
    steps = [
        (
            ["rlmemo.predict", *on, "--policy", str(path), "--db", str(database)],
            "predictions to rate",
        ),
        (["dashboard", "--db", str(database), *runs], "see them and rate them"),
        (
            ["rlmemo.benchmark", *on, "--policies", f"omnibox,oracle,{path}", *world],
            "more policies, and more budgets",
        ),
    ]
    if config.timelines == "demo":
        steps.append((["rlmemo.train", "--timelines", "YOUR.csv"], "learn from your own timeline"))
    return [(shlex.join(command), what) for command, what in steps]

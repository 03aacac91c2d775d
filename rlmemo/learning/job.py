"""The whole job of a run, stage by stage: SFT, plans scored by replay, DPO or KTO, calibration, the report.

A stage that is finished stands in `state.json` and is not done again; a stage under way goes on from its
newest whole checkpoint.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from env.cost import cost_model
from rlmemo.feedback.learning import MODEL, Feedback, joined, preference_rows, read_feedback, with_ratings
from rlmemo.learning.config import ONLINE, TrainConfig
from rlmemo.learning.display import Display
from rlmemo.learning.folder import RunFolder, folder_atomic, sha256
from rlmemo.learning.pairs import (
    Pair,
    Picks,
    Verdict,
    pairs,
    plan_odds,
    propose,
    read_pairs,
    score,
    verdicts,
    write_pairs,
)
from rlmemo.learning.start import Start
from rlmemo.learning.states import Ground, States, draw, held, part_states, prompts
from rlmemo.learning.training import Interrupt, hush_libraries

BATCH = 256  # prompts per forward pass outside training


def run_job(start: Start, folder: RunFolder, *, judged: bool = True) -> None:
    """Do what is left of the run in `folder`, and say what was written.

    judged: whether the run is judged and reported on at its end; who judges many runs together leaves it out.
    """
    began = time.perf_counter()
    config, display = start.config, Display()
    data = "synthetic data" if start.loaded.synthetic else "recorded data"
    counts = start.split.counts()
    display.say(
        f"{start.loaded.name} ({data}): {len(start.timelines)} users, {counts['train']} events to learn "
        f"from, {counts['validation']} to choose by, {counts['test']} to test on; {config.method}, seed "
        f"{config.seed}"
    )
    if start.resumed:
        display.say(
            f"going on with {folder.path}: finished are {', '.join(folder.state()) or 'no stages yet'}"
        )
    with display.stage("loading"):
        hush_libraries()
        from rlmemo.policies.text_loading import reading_for

        _threads(folder)
        reads = reading_for(config.model, config.loading)
        ground = Ground.prepare(start.timelines, start.split, cost_model(config.costs), start.world, reads)
    feedback = _feedback(config, folder, ground, start, display)
    interrupt = Interrupt()
    for_sft, for_plans = draw(
        part_states(ground.split.train), config.sft_states, config.plan_states, config.seed
    )
    _sft(config, folder, ground, for_sft, interrupt, display)
    if config.preference:
        _plans(config, folder, ground, for_plans, start, display, feedback)
        _preferences(config, folder, ground, joined(for_plans, feedback), interrupt, display)
    for stage in config.shared_stages:
        if stage in ONLINE:
            from rlmemo.learning.online import run_online

            run_online(stage, config, folder, ground, for_plans, start, interrupt, display)
    if (folder.path / "report.json").exists():
        display.say(f"{folder.path} is finished: see {folder.path / 'report.html'}")
        return
    with folder_atomic(folder.path / "adapter") as part:
        shutil.copytree(folder.path / config.shared_stages[-1], part, dirs_exist_ok=True)
        if feedback is not None and feedback.approval is not None:
            feedback.approval.save(part / MODEL)
    if config.adapter_per_user:
        _users(config, folder, ground, joined(for_plans, feedback), start, interrupt, display)
    if not judged:
        return
    from rlmemo.learning.judgement import judge

    judge(start, folder, ground, display)
    _say_what_is_there(config, folder, display, time.perf_counter() - began)


def _feedback(
    config: TrainConfig, folder: RunFolder, ground: Ground, start: Start, display: Display
) -> Feedback | None:
    """The ratings to learn from, None where there is none."""
    if config.feedback is None:
        return None
    found = read_feedback(
        config.feedback, ground, start.reward, weight=config.feedback_weight, seed=config.seed, folder=folder
    )
    display.say(found.sentence() if found else "feedback: no ratings of these timelines; going on without")
    return found


def _threads(folder: RunFolder) -> None:
    """The same number of threads as when the run began: sums come out the same to the last bit."""
    import torch

    state = folder.state()
    if "start" not in state:
        folder.finish("start", {"threads": torch.get_num_threads()})
    else:
        torch.set_num_threads(int(state["start"]["threads"]))


def _sft(
    config: TrainConfig,
    folder: RunFolder,
    ground: Ground,
    states: States,
    interrupt: Interrupt,
    display: Display,
) -> None:
    if "sft" in folder.state():
        return
    if config.init_adapter is not None:
        before = Path(config.init_adapter) / "adapter"
        with folder_atomic(folder.path / "sft") as part:
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copy(before / name, part / name)
        digest = sha256(folder.path / "sft" / "adapter_model.safetensors")
        folder.finish("sft", {"steps": 0, "init_adapter": config.init_adapter, "adapter_sha256": digest})
        return
    from rlmemo.learning.sft import run_sft, save_adapter
    from rlmemo.policies.language import load_model

    with display.stage(f"SFT on {len(states)} states") as bar:
        began = time.perf_counter()
        model, found = run_sft(
            config, folder, ground, states, load_model(config.model, config.loading), interrupt, bar
        )
        found["adapter_sha256"] = save_adapter(model, folder.path / "sft", config.model)
        folder.finish("sft", {**found, "seconds": time.perf_counter() - began})


def _plans(
    config: TrainConfig,
    folder: RunFolder,
    ground: Ground,
    states: States,
    start: Start,
    display: Display,
    feedback: Feedback | None = None,
) -> None:
    """Several plans per state, scored; what is kept of them goes to pairs.jsonl or plans.jsonl."""
    if "plans" in folder.state():
        return
    with display.stage(f"plans for {len(states)} states, by replay") as bar:
        began = time.perf_counter()
        made, odds = propose_plans(config, folder.path / "sft", ground, states, bar)
        scored = with_ratings(score(ground, states, made, start.reward, config.picks, odds), ground, feedback)
        users = [t.user for t in ground.timelines]
        rows: list[Pair] | list[Verdict]
        if config.preference == "dpo":
            rows = pairs(
                scored, users, margin=config.margin, limit=config.dpo_pairs, pairing=config.pairing,
                seed=config.seed,
            )  # fmt: skip
        else:
            rows = verdicts(scored, users, margin=config.margin, limit=config.kto_plans, seed=config.seed)
        replayed = len(rows)
        if feedback is not None:
            rows += preference_rows(
                feedback, ground, str(config.preference), offset=len(states),
                limit=round(config.feedback_weight * replayed), seed=config.seed,
            )  # fmt: skip
        write_pairs(_preference_file(config, folder), rows)
        plans = sum(len(s.plans) for s in scored)
        best = float(np.mean([s.rewards.max() for s in scored])) if scored else 0.0
        by_origin: dict[str, list[float]] = {}
        for s in scored:
            for worth, origin in zip(s.rewards, s.origins, strict=True):
                by_origin.setdefault(origin, []).append(float(worth))
        bar.note = f"{plans} plans, {len(rows)} kept"
        found: dict[str, Any] = {"states": len(states), "plans": plans, "kept": len(rows)}
        found |= {"from_ratings": len(rows) - replayed} if feedback else {}
        found["reward_by_origin"] = {origin: float(np.mean(r)) for origin, r in by_origin.items()}
        found |= {"best_reward": best, "seconds": time.perf_counter() - began}
        folder.finish("plans", found)


def _preference_file(config: TrainConfig, folder: RunFolder) -> Path:
    return folder.path / ("pairs.jsonl" if config.preference == "dpo" else "plans.jsonl")


def propose_plans(
    config: TrainConfig, adapter: Path, ground: Ground, states: States, progress: Any
) -> tuple[list[dict[Picks, str]], list[np.ndarray]]:
    """The plans of `states` and how likely the model says them (`propose` and `plan_odds` of
    `rlmemo.learning.pairs`), asked of the base model with `adapter`."""
    from rlmemo.policies.language import load_adapted, plan_logprobs, sample_plans

    model = load_adapted(config.model, adapter, config.loading)
    rng = np.random.default_rng([config.seed, 3])

    def sample(asked: np.ndarray, valid: np.ndarray, temperature: float) -> list[Picks]:
        said = sample_plans(model, asked, valid, config.picks, temperature, rng)
        return [
            tuple((int(p), int(d)) for p, d in zip(places, delays, strict=True) if p >= 0)
            for places, delays in zip(said.place, said.delay, strict=True)
        ]

    made: list[dict[Picks, str]] = [{} for _ in range(len(states))]
    asked = prompts(ground, states)
    odds = [np.zeros(0)] * len(states)
    done = 0
    for user, rows in states.by_user():
        slates = ground.slates[user]
        warm, _ = held(ground, user)
        for part in np.array_split(rows, -(-len(rows) // BATCH)):
            index = states.index[part]
            first = plan_logprobs(model, asked[part])
            valid = (slates.candidates[index] >= 0) & (warm[index] == 0)
            found = propose(
                first, slates.candidates[index], warm[index], asked[part], sample,
                picks=config.picks, samples=config.plan_samples, temperature=config.temperature,
            )  # fmt: skip
            for k, (row, plan) in enumerate(zip(part, found, strict=True)):
                made[row] = plan
                odds[row] = plan_odds(first[k], valid[k], tuple(plan))
            done += len(part)
            progress(done, len(states))
    return made, odds


def _preferences(
    config: TrainConfig,
    folder: RunFolder,
    ground: Ground,
    states: States,
    interrupt: Interrupt,
    display: Display,
) -> None:
    method = str(config.preference)
    if method in folder.state():
        return
    from rlmemo.learning.adapters import weights_file
    from rlmemo.learning.preference import run_dpo, run_kto
    from rlmemo.learning.sft import save_adapter
    from rlmemo.policies.language import load_model

    rows = read_pairs(_preference_file(config, folder), Pair if method == "dpo" else Verdict)
    adapter = folder.path / "sft"
    if not rows or (method == "kto" and len({r.good for r in rows}) < 2):
        display.say(
            f"{method.upper()} has nothing to learn from: no two plans differ by --margin {config.margin:g}"
        )
        with folder_atomic(folder.path / method) as part:
            shutil.copytree(adapter, part, dirs_exist_ok=True)
        folder.finish(method, {"steps": 0, "adapter_sha256": sha256(weights_file(adapter))})
        return
    what = "pairs" if method == "dpo" else "plans"
    with display.stage(f"{method.upper()} on {len(rows)} {what}") as bar:
        began = time.perf_counter()
        run: Any = run_dpo if method == "dpo" else run_kto
        model, found = run(
            config,
            folder,
            prompts(ground, states),
            rows,
            adapter,
            load_model(config.model, config.loading),
            interrupt,
            bar,
        )
        found["adapter_sha256"] = save_adapter(model, folder.path / method, config.model)
        folder.finish(method, {**found, "seconds": time.perf_counter() - began})


def _users(
    config: TrainConfig,
    folder: RunFolder,
    ground: Ground,
    states: States,
    start: Start,
    interrupt: Interrupt,
    display: Display,
) -> None:
    """An adapter for each user, from the shared one on."""
    if "users" in folder.state():
        return
    from rlmemo.learning.per_user import train_users

    rows: list[Any] = []
    if config.method != "sft":
        rows = read_pairs(_preference_file(config, folder), Pair if config.method == "dpo" else Verdict)
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
    compare = f"rlmemo.benchmark --timelines {config.timelines} --policies omnibox,oracle,{path}"
    for command, what in {
        compare: "more policies, and more budgets",
        "rlmemo.train --timelines YOUR.csv": "learn from your own timeline",
        "dashboard": "see predictions and rate them",
    }.items():
        display.say(f"  python -m {command:<70} {what}")

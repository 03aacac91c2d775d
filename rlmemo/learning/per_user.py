"""One adapter per user on one base: each goes on from the shared adapter, on that user's part alone.

    RUN/adapters/NAME/    a user's adapter, and user.json: whose it is, what it learned from, what it is worth
    RUN/adapter/          the shared one, which reads for everybody else

What is trained on is the user's own: the training states after SFT, the pairs or plans of the run's
preferences after DPO or KTO. An adapter is in use where it does better than the shared one on that user's
validation part (log loss after SFT, reward per open otherwise); elsewhere the shared one stays.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from env.splits import Split
from reward import Reward
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.training import Interrupt
from rlmemo.learning.training_data import States, TrainingData, part_states, prompts
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.user_adapters import ABOUT, FOLDER, safe_name, user_adapters, weights_file

LEAST_STATES = 30
"""Fewer training states or plans than these: the user stays with the shared adapter."""


def one_user(ground: TrainingData, user: int) -> TrainingData:
    """The ground with one user alone."""
    split = ground.split
    return TrainingData(
        timelines=[ground.timelines[user]],
        slates=[ground.slates[user]],
        costs=[ground.costs[user]],
        world=ground.world,
        split=Split(split.name, [split.train[user]], [split.validation[user]], [split.test[user]]),
        reading=ground.reading,
    )


def states_of(ground: TrainingData, user: int, limit: int, seed: int) -> States:
    """At most `limit` of a user's training states, drawn at random and in time order."""
    mine = part_states(ground.split.train)
    mine = mine[mine.user == user]
    rng = np.random.default_rng([seed, 5, user])
    return mine[np.sort(rng.permutation(len(mine))[:limit])]


def train_users(
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    rows: list[Any],
    reward: Reward,
    interrupt: Interrupt,
    progress: Any,
) -> dict[str, Any]:
    """Train every user's adapter; what the stage found: {"users", "in_use", "left_shared", "steps"}.

    states, rows: of the run's preferences (empty after SFT): `rows[k].row` points into `states`.
    A user whose adapter lies there already is passed over, so an interrupted run goes on with the next one.
    """
    done = {a.user for a in user_adapters(folder.path)}
    left_shared = []
    for user, timeline in enumerate(ground.timelines):
        progress(user, len(ground.timelines))
        if timeline.user in done:
            continue
        if not _train_one(config, folder, ground, user, states, rows, reward, interrupt):
            left_shared.append(timeline.user)
    progress(len(ground.timelines), len(ground.timelines))
    found = user_adapters(folder.path)
    return {
        "users": len(found),
        "in_use": sum(a.in_use for a in found),
        "left_shared": left_shared,
        "steps": sum(int(a.about["steps"]) for a in found),
    }


def _train_one(
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    user: int,
    states: States,
    rows: list[Any],
    reward: Reward,
    interrupt: Interrupt,
) -> bool:
    """Train one user's adapter; False where there is too little to learn from."""
    from rlmemo.learning import adapters
    from rlmemo.model.load import load_model

    began = time.perf_counter()
    name = ground.timelines[user].user
    shared, path = folder.path / "adapter", folder.path / FOLDER / safe_name(name)
    scratch = RunFolder(folder.path / "checkpoints" / f"user-{path.name}")
    run: Any
    if config.method == "sft":
        mine = states_of(ground, user, config.user_states, config.seed)
        what, n = "states", len(mine)
    else:
        kept = [r for r in rows if r.user == name]
        what, n = ("pairs" if config.method == "dpo" else "plans"), len(kept)
        if config.method == "kto" and len({r.good for r in kept}) < 2:
            return False
    if n < LEAST_STATES:
        return False
    scratch.path.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(config, report_to="none")
    quietly = lambda *_: None  # noqa: E731 - one bar over all users is enough
    base = load_model(config.model, config.loading)
    if config.method == "sft":
        from rlmemo.learning.sft import run_sft

        mild = dataclasses.replace(config, sft_lr=config.user_lr, sft_epochs=config.user_epochs)
        model, found = run_sft(mild, scratch, ground, mine, base, interrupt, quietly, adapter=shared)
    else:
        from rlmemo.learning.preference import run_dpo, run_kto

        run = run_dpo if config.method == "dpo" else run_kto
        mild = dataclasses.replace(config, dpo_epochs=config.user_epochs, kto_epochs=config.user_epochs)
        asked = prompts(ground, states)
        model, found = run(mild, scratch, asked, kept, shared, base, interrupt, quietly)
    with folder_atomic(path) as part:
        adapters.save(model, part, config.model)
        worth = {
            "shared": _worth(config, ground, user, reward, shared),
            "own": _worth(config, ground, user, reward, part),
        }
        about = {
            "user": name,
            "learned_from": n,
            "what": what,
            "steps": found["steps"],
            "seconds": round(time.perf_counter() - began, 1),
            "in_use": _better(config.method, worth["own"], worth["shared"]),
            "validation": worth,
            "adapter_sha256": sha256(weights_file(part)),
        }
        (part / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    folder.log("users", user, {"user": name, "in_use": about["in_use"], "loss": found["loss"]})
    shutil.rmtree(scratch.path, ignore_errors=True)
    return True


def _worth(
    config: TrainConfig, ground: TrainingData, user: int, reward: Reward, adapter: Path
) -> dict[str, Any]:
    from rlmemo.learning.choice import validate
    from rlmemo.model.load import load_adapted
    from rlmemo.policies.language import LanguagePolicy

    policy = LanguagePolicy(load_adapted(config.model, adapter, config.loading), "user")
    return validate(policy, one_user(ground, user), reward, config.seed)


def _better(method: str, own: dict[str, Any], shared: dict[str, Any]) -> bool:
    if not own.get("events"):
        return False
    if method == "sft":
        return bool(own["log_loss"] < shared["log_loss"])
    best = [max(x[way]["reward_per_open"] for way in ("own", "threshold")) for x in (own, shared)]
    return best[0] > best[1] and not math.isnan(best[0])

"""One adapter per user on one base: each goes on from the shared adapter, on that user's part alone.

    RUN/adapters/NAME/    a user's adapter, and user.json: whose it is, what it learned from, what it is worth
    RUN/adapter/          the shared one, which reads for everybody else

What is trained on is the user's own: the training states after SFT, the pairs or plans of the run's
preferences after DPO or KTO. An adapter is in use where it does better than the shared one on that user's
validation part (log loss after SFT, reward per open otherwise); elsewhere the shared one stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from env.private import private_files
from env.splits import Split
from reward import Reward
from rlmemo.evaluation.ray_crew import RayCrew
from rlmemo.learning import adapters
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.dpo_kto import run_dpo, run_kto
from rlmemo.learning.planner_choice import best_reward, speaks, validate
from rlmemo.learning.sft import run_sft
from rlmemo.learning.training import Interrupt, Lesson, Stopped, in_silence, quiet
from rlmemo.learning.training_data import States, TrainingData, part_states, prompts
from rlmemo.model.load import load_adapted
from rlmemo.policies.language import LanguagePolicy
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.stages import STAGES, USERS
from rlmemo.runs.user_adapters import ABOUT, FOLDER, safe_name, user_adapters, weights_file

USERS_A_TASK = 4
LEAST_STATES = 30
"""Fewer training states or plans than these: the user stays with the shared adapter."""


def one_user(data: TrainingData, user: int) -> TrainingData:
    """The data with one user alone."""
    split = data.split
    return TrainingData(
        timelines=[data.timelines[user]],
        slates=[data.slates[user]],
        costs=[data.costs[user]],
        world=data.world,
        split=Split(split.name, [split.train[user]], [split.validation[user]], [split.test[user]]),
        reading=data.reading,
    )


def states_of(data: TrainingData, user: int, limit: int, seed: int) -> States:
    """At most `limit` of a user's training states, drawn at random and in time order."""
    mine = part_states(data.split.train)
    mine = mine[mine.user == user]
    rng = np.random.default_rng([seed, 5, user])
    return mine[np.sort(rng.permutation(len(mine))[:limit])]


@dataclass(frozen=True)
class Everybody:
    """What all users' adapters are made from. states, rows: of the run's preferences (empty after SFT):
    `rows[k].row` points into `states`."""

    data: TrainingData
    reward: Reward
    states: States
    rows: list[Any]


def train_users(lesson: Lesson, everybody: Everybody, crew: RayCrew | None = None) -> dict[str, Any]:
    """Train every user's adapter, from the shared one (`lesson.adapter`) on; what the stage found: {"users",
    "in_use", "left_shared", "steps"}. crew: who trains them (None: this process); the run folder is where all
    of them can write.

    A user whose adapter lies there already is passed over, so an interrupted run goes on with the next one.
    """
    folder, timelines = lesson.folder, everybody.data.timelines
    done = {a.user for a in user_adapters(folder.path)}
    users = [user for user, timeline in enumerate(timelines) if timeline.user not in done]
    left_shared = []
    rows = _in_turn(lesson, everybody, users) if crew is None else _together(lesson, everybody, users, crew)
    for user, row in zip(users, rows, strict=True):
        if row is None:
            left_shared.append(timelines[user].user)
        else:
            folder.log("users", user, row)
        lesson.progress(user + 1, len(timelines), {})
    lesson.progress(len(timelines), len(timelines), {})
    found = user_adapters(folder.path)
    return {
        "users": len(found),
        "in_use": sum(a.in_use for a in found),
        "left_shared": left_shared,
        "steps": sum(int(a.about["steps"]) for a in found),
    }


def _in_turn(lesson: Lesson, everybody: Everybody, users: Sequence[int]) -> Iterator[dict[str, Any] | None]:
    for user in users:
        lesson.progress(user, len(everybody.data.timelines), {})
        yield _train_one(lesson, everybody, user)


def _together(
    lesson: Lesson, everybody: Everybody, users: Sequence[int], crew: RayCrew
) -> Iterator[dict[str, Any] | None]:
    """The same on the crew's workers, a few users a task, with as many threads as here: so it is the same to
    the last bit. Raises Stopped after Ctrl-C; what is finished stays."""
    import torch

    plain = dataclasses.replace(lesson, interrupt=Interrupt(), progress=in_silence)
    shared = crew.share((plain, everybody, os.getcwd(), torch.get_num_threads()))
    parts = [list(users[k : k + USERS_A_TASK]) for k in range(0, len(users), USERS_A_TASK)]
    for promise in crew.do(_train_some, parts, shared):
        yield from crew.get([promise])[0]
        if lesson.interrupt.asked:
            raise Stopped


@private_files()
def _train_some(
    users: Sequence[int], given: tuple[Lesson, Everybody, str, int]
) -> list[dict[str, Any] | None]:
    """On a worker, in the folder that paths begin at. A user whose adapter lies there was trained before the
    worker that did it was lost."""
    import torch

    lesson, everybody, folder, threads = given
    torch.set_num_threads(threads)
    quiet()
    found: list[dict[str, Any] | None] = []
    with contextlib.chdir(folder):
        done = {a.user: a.about for a in user_adapters(lesson.folder.path)}
        for user in users:
            about = done.get(everybody.data.timelines[user].user)
            found.append(_told(about) if about else _train_one(lesson, everybody, user))
    return found


def _told(about: dict[str, Any]) -> dict[str, Any]:
    """What is logged of a user's adapter."""
    return {name: about[name] for name in ("user", "in_use", "loss")}


def _train_one(lesson: Lesson, everybody: Everybody, user: int) -> dict[str, Any] | None:
    """Train one user's adapter, and what is logged of it; None where there is too little to learn from."""
    began = time.perf_counter()
    config, data, folder = lesson.config, everybody.data, lesson.folder
    name, shared = data.timelines[user].user, lesson.saved
    path = folder.path / FOLDER / safe_name(name)
    scratch = RunFolder(folder.path / "checkpoints" / f"user-{path.name}")
    kept = [r for r in everybody.rows if r.user == name]
    mine = states_of(data, user, config.user_states, config.seed)
    what = STAGES[config.method].counts
    n = len(mine) if config.method == "sft" else len(kept)
    if config.method == "kto" and len({r.good for r in kept}) < 2:
        return None
    if n < LEAST_STATES:
        return None
    scratch.path.mkdir(parents=True, exist_ok=True)
    mild: dict[str, Any] = {f"{config.method}_epochs": config.user_epochs}
    if config.method == "sft":
        mild |= {"sft_lr": config.user_lr, "sft_updates": 0}  # the shared adapter has learned already
    # One bar over all users is enough, and so is one report.
    own = dataclasses.replace(
        lesson, config=dataclasses.replace(config, report_to="none", **mild), folder=scratch,
        stage=config.method, progress=in_silence,
    )  # fmt: skip
    if config.method == "sft":
        model, found = run_sft(own, data, mine)
    else:
        learn: Any = run_dpo if config.method == "dpo" else run_kto
        model, found = learn(own, prompts(data, everybody.states), kept)
    with folder_atomic(path) as part:
        adapters.save(model, part, config.model)
        worth = {
            "shared": _worth(config, everybody, user, shared),
            "own": _worth(config, everybody, user, part),
        }
        about = {
            "user": name,
            "learned_from": n,
            "what": what,
            "steps": found["steps"],
            "loss": found["loss"],
            "seconds": round(time.perf_counter() - began, 1),
            "in_use": _better(config.method, worth["own"], worth["shared"]),
            "validation": worth,
            "adapter_sha256": sha256(weights_file(part)),
        }
        (part / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(scratch.path, ignore_errors=True)
    return _told(about)


def _worth(config: TrainConfig, everybody: Everybody, user: int, adapter: Path) -> dict[str, Any]:
    policy = LanguagePolicy(load_adapted(config.model, adapter, config.loading), "user")
    own = speaks(config, USERS)
    return validate(policy, one_user(everybody.data, user), everybody.reward, config.seed, own=own)


def _better(method: str, own: dict[str, Any], shared: dict[str, Any]) -> bool:
    if not own.get("events"):
        return False
    if method == "sft":
        return bool(own["log_loss"] < shared["log_loss"])
    best = [best_reward(x) for x in (own, shared)]
    return best[0] > best[1] and not math.isnan(best[0])

"""Learning from preferences, round by round: several plans per state, scored by replay, then DPO or KTO.

A round begins with the model as it is now. With `--plan-world played` its ranking is put in charge of the
training part first, so that it learns where it will stand; then it says plans, they are scored, and what
is kept of them trains the adapter, held to what it was at the beginning of the round. The next round
begins with what came out. States and pairs are shared out among the rounds.

    world.npz, pairs.jsonl | plans.jsonl, dpo/ | kto/     of the last round
    world-1.npz, pairs-1.jsonl, dpo-1/ …                  of those before it
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlmemo.learning.baselines import Baseline, fit_baselines
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.display import Display
from rlmemo.learning.incumbent import load_played, played, ranked_by, save_played
from rlmemo.learning.nothing import SAME, leave_as_it_was, no_signal
from rlmemo.learning.pairs import (
    KtoExample,
    Pair,
    Picks,
    pairs,
    plan_odds,
    propose,
    read_pairs,
    score,
    verdicts,
    write_pairs,
)
from rlmemo.learning.prepare import Prepared
from rlmemo.learning.ratings_used import Feedback, joined, preference_rows, with_ratings
from rlmemo.learning.training import Interrupt
from rlmemo.learning.training_data import States, TrainingData, memory_at, prompts
from rlmemo.runs.atomic import folder_atomic, sha256
from rlmemo.runs.folder import RunFolder

BATCH = 256  # prompts per forward pass outside training


@dataclass(frozen=True)
class Round:
    """One round. method: dpo or kto; mark: "" for the last round, -1, -2 … for those before it; adapter: the
    stage that it begins with; config: the run's, with this round's share of pairs or plans."""

    method: str
    mark: str
    adapter: str
    config: TrainConfig
    number: int
    rounds: int

    @property
    def stage(self) -> str:
        """Name of its adapter's folder, and of the stage in `state.json`."""
        return self.method + self.mark

    @property
    def plans(self) -> str:
        """Name of its other stage, in which plans are scored."""
        return "plans" + self.mark

    @property
    def file(self) -> str:
        """What its preferences are written to."""
        return ("pairs" if self.method == "dpo" else "plans") + f"{self.mark}.jsonl"

    @property
    def world(self) -> str:
        """What the plans of the policy in charge are written to."""
        return f"world{self.mark}.npz"

    def states(self, states: States) -> States:
        """Its share of the states."""
        return states[np.arange(self.number, len(states), self.rounds)]


def rounds_of(config: TrainConfig) -> list[Round]:
    """The rounds of a run, in order."""
    method = str(config.preference)
    n = config.preference_rounds
    made: list[Round] = []
    for k in range(n):
        share = replace(
            config,
            dpo_pairs=max(1, config.dpo_pairs // n),
            kto_plans=max(2, config.kto_plans // n),
            seed=config.seed,
        )
        mark = "" if k + 1 == n else f"-{k + 1}"
        made.append(Round(method, mark, made[-1].stage if made else "sft", share, k, n))
    return made


def learn_preferences(
    config: TrainConfig,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    start: Prepared,
    interrupt: Interrupt,
    display: Display,
    feedback: Feedback | None = None,
) -> tuple[TrainingData, States]:
    """All rounds that are not finished yet; the ground and the states that the last one's rows point into."""
    shown, mine = ground, states
    for one in rounds_of(config):
        if one.mark and one.stage in folder.state():
            continue
        mine = one.states(states)
        score_by_replay(one, folder, ground, mine, start, display, feedback)
        world = folder.path / one.world
        shown = load_played(ground, world) if config.plan_world == "played" else ground
        train_round(one, folder, shown, joined(mine, feedback), interrupt, display)
    if config.preference_keep == "best":
        keep_best(config, folder, ground, start, display)
    return shown, joined(mine, feedback)


def score_by_replay(
    one: Round,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    start: Prepared,
    display: Display,
    feedback: Feedback | None = None,
) -> None:
    """Several plans per state, scored; what is kept of them goes to the round's file."""
    if one.plans in folder.state():
        return
    config = one.config
    with display.stage(f"plans for {len(states)} states, by replay") as bar:
        from rlmemo.model.load import load_adapted

        began = time.perf_counter()
        model = load_adapted(config.model, folder.path / one.adapter, config.loading)
        charge: dict[str, Any] = {}
        if config.plan_world == "played":
            ground, charge = played(ground, ranked_by(model, ground), start.reward)
            save_played(ground, folder.path / one.world)
        baselines = fit_baselines(config.planned_by, ground, start.reward, config.seed)
        for note in (b.found["note"] for b in baselines if "note" in b.found):
            display.say(f"{note}")
        made, odds = propose_plans(config, model, ground, states, bar, baselines)
        scored = with_ratings(score(ground, states, made, start.reward, config.picks, odds), ground, feedback)
        users = [t.user for t in ground.timelines]
        rows: list[Pair] | list[KtoExample]
        if one.method == "dpo":
            rows = pairs(
                scored, users, margin=config.margin, limit=config.dpo_pairs, pairing=config.pairing,
                seed=config.seed,
            )  # fmt: skip
        else:
            rows = verdicts(scored, users, margin=config.margin, limit=config.kto_plans, seed=config.seed)
        replayed = len(rows)
        if feedback is not None:
            rows += preference_rows(
                feedback, ground, one.method, offset=len(states),
                limit=_limit(one, replayed), seed=config.seed,
            )  # fmt: skip
        write_pairs(folder.path / one.file, rows)
        plans = sum(len(s.plans) for s in scored)
        best = float(np.mean([s.rewards.max() for s in scored])) if scored else 0.0
        by_origin: dict[str, list[float]] = {}
        for s in scored:
            for worth, origin in zip(s.rewards, s.origins, strict=True):
                by_origin.setdefault(origin, []).append(float(worth))
        bar.note = f"{plans} plans, {len(rows)} kept"
        found: dict[str, Any] = {"states": len(states), "plans": plans, "kept": len(rows)}
        found |= {"in_charge": charge} if charge else {}
        found |= {"baselines": {b.name: b.found for b in baselines}} if baselines else {}
        found |= {"from_ratings": len(rows) - replayed} if feedback else {}
        found["spread"] = max((float(np.ptp(s.rewards)) for s in scored), default=0.0)
        found["reward_by_origin"] = {origin: float(np.mean(r)) for origin, r in by_origin.items()}
        found |= {"best_reward": best, "seconds": time.perf_counter() - began}
        folder.finish(one.plans, found)


def _limit(one: Round, replayed: int) -> int:
    """How many rows from ratings there may be at most: as many as replay gave, times what a thumb counts;
    where replay gave none, as many as it might have given."""
    most = one.config.dpo_pairs if one.method == "dpo" else one.config.kto_plans
    return round(one.config.feedback_weight * (replayed or most))


def _nothing(one: Round, found: dict[str, Any], rows: Sequence[Any]) -> str:
    """Why there is nothing to learn from; found: of the plans that were scored."""
    config = one.config
    if rows:
        kind, other = ("good", "bad") if rows[0].good else ("bad", "good")
        return f"all {len(rows)} plans that were kept are {kind} ones, and it needs {other} ones as well"
    what = "two plans of a state differ" if one.method == "dpo" else "plan differs from its state's mean"
    why = f"no {what} by --margin {config.margin:g}"
    if found.get("spread", config.margin) < SAME:
        different = found["plans"] > found["states"]
        why = no_signal(found["plans"], config.budget, cold=different, picked=different)
    if "from_ratings" in found:
        why += "; and no rating is learned from"
        why += " with --feedback-weight 0" if config.feedback_weight == 0 else ""
    return why


def propose_plans(
    config: TrainConfig,
    model: Any,
    ground: TrainingData,
    states: States,
    progress: Any,
    baselines: Sequence[Baseline] = (),
) -> tuple[list[dict[Picks, str]], list[np.ndarray]]:
    """The plans of `states` and how likely the model says them (`propose` and `plan_odds` of
    `rlmemo.learning.pairs`). Where a policy is in charge, its plan and those next to it are among them, and
    so are those of the baselines."""
    from rlmemo.model.ask import plan_logprobs, sample_plans

    rng = np.random.default_rng([config.seed, 3])

    def sample(asked: np.ndarray, valid: np.ndarray, temperature: float) -> list[Picks]:
        said = sample_plans(model, asked, valid, config.picks, temperature, rng, top_p=config.plan_top_p)
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
        warm, _ = memory_at(ground, user)
        planned = {b.name: b.plans(ground, user, states.index[rows]) for b in baselines}
        begun = 0
        for part in np.array_split(rows, -(-len(rows) // BATCH)):
            index = states.index[part]
            now = None if ground.plans is None else ground.plans[user].target[index]
            candidates = slates.candidates[index]
            first = plan_logprobs(model, asked[part])
            valid = (candidates >= 0) & (warm[index] == 0)
            found = propose(
                first, candidates, warm[index], asked[part], sample,
                picks=config.picks, samples=config.plan_samples, temperature=config.temperature,
                charge=None if now is None else _places(candidates, now),
                baselines={
                    name: _places(candidates, targets[begun : begun + len(part)])
                    for name, targets in planned.items()
                },
            )  # fmt: skip
            begun += len(part)
            for k, (row, plan) in enumerate(zip(part, found, strict=True)):
                made[row] = plan
                odds[row] = plan_odds(first[k], valid[k], tuple(plan))
            done += len(part)
            progress(done, len(states))
    return made, odds


def _places(candidates: np.ndarray, target: np.ndarray) -> list[list[int]]:
    """Places in the slates int [D, size] of the targets int [D, K] (-1 for none) that stand there."""
    return [
        [int(np.flatnonzero(row == x)[0]) for x in wanted if x >= 0 and (row == x).any()]
        for row, wanted in zip(candidates, target, strict=True)
    ]


def train_round(
    one: Round,
    folder: RunFolder,
    ground: TrainingData,
    states: States,
    interrupt: Interrupt,
    display: Display,
) -> None:
    """Train the adapter on what the round kept."""
    if one.stage in folder.state():
        return
    from rlmemo.learning.preference import run_dpo, run_kto
    from rlmemo.learning.sft import save_adapter
    from rlmemo.model.load import load_model

    config, method = one.config, one.method
    rows = read_pairs(folder.path / one.file, Pair if method == "dpo" else KtoExample)
    adapter = folder.path / one.adapter
    if not rows or (method == "kto" and len({r.good for r in rows}) < 2):
        leave_as_it_was(
            one.stage, one.adapter, _nothing(one, folder.state()[one.plans], rows), folder, display
        )
        return
    what = "pairs" if method == "dpo" else "plans"
    which = f", round {one.number + 1} of {one.rounds}" if one.rounds > 1 else ""
    with display.stage(f"{method.upper()} on {len(rows)} {what}{which}") as bar:
        began = time.perf_counter()
        run: Any = run_dpo if method == "dpo" else run_kto
        base = load_model(config.model, config.loading)
        asked = prompts(ground, states)
        model, found = run(config, folder, asked, rows, adapter, base, interrupt, bar, stage=one.stage)
        found["adapter_sha256"] = save_adapter(model, folder.path / one.stage, config.model)
        folder.finish(one.stage, {**found, "seconds": time.perf_counter() - began})


def keep_best(
    config: TrainConfig, folder: RunFolder, ground: TrainingData, start: Prepared, display: Display
) -> None:
    """Let the last round's folder hold the adapter that plans best on validation, of SFT's and all rounds'.

    Rewards are noisy and few; a round that made the planner worse is not worth keeping. Each is worth what
    the better of its two planners gains (`rlmemo.learning.choice.validate`); ties go to the earlier one.
    Without validation events the last one stays.
    """
    if "kept" in folder.state():
        return
    from rlmemo.learning.choice import validate
    from rlmemo.model.load import load_adapted
    from rlmemo.policies.language import LanguagePolicy
    from rlmemo.runs.user_adapters import weights_file

    began = time.perf_counter()
    rounds = rounds_of(config)
    names = [rounds[0].adapter, *(one.stage for one in rounds)]
    worth: dict[str, float] = {}
    with display.stage("which round to keep, on validation") as bar:
        for name in names:
            model = LanguagePolicy(load_adapted(config.model, folder.path / name, config.loading), name)
            found = validate(model, ground, start.reward, config.seed)
            worth[name] = max(found[how]["reward_per_open"] for how in ("own", "threshold"))
            bar(len(worth), len(names), None)
        best = max(names, key=lambda name: worth[name]) if found["events"] else names[-1]
        bar.note = f"{best}: " + ", ".join(f"{name} {value:.3f}" for name, value in worth.items())
    last = rounds[-1].stage
    if best != last:
        with folder_atomic(folder.path / last) as part:
            shutil.copytree(folder.path / best, part, dirs_exist_ok=True)
        digest = sha256(weights_file(folder.path / last))
        folder.finish(last, {**folder.state()[last], "adapter_sha256": digest})
    folder.finish("kept", {"stage": best, "reward": worth, "seconds": time.perf_counter() - began})


def preference_file(config: TrainConfig, folder: RunFolder) -> Path:
    """What the preferences of the last round were written to."""
    return folder.path / rounds_of(config)[-1].file

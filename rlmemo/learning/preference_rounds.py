"""Learning from preferences, round by round: several plans per state, scored by replay, then DPO or KTO.

A round begins with the model as it is now. With `--plan-world played` its ranking is put in charge of the
training part first, so that it learns where it will stand; then it says plans, they are scored, and what
is kept of them trains the adapter, held to what it was at the beginning of the round. The next round
begins with what came out. States and pairs are shared out among the rounds.

    world.npz, pairs.jsonl | plans.jsonl, dpo/ | kto/     of the last round
    world-1.npz, pairs-1.jsonl, dpo-1/ …                  of those before it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from rlmemo.learning.approval_choice import choose
from rlmemo.learning.baselines import Baseline, fit_baselines
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.dpo_kto import run_dpo, run_kto
from rlmemo.learning.incumbent import load_incumbent, put_in_charge, ranked_by, save_incumbent
from rlmemo.learning.no_signal import SAME, NoSignal, no_signal
from rlmemo.learning.pairs import (
    KtoExample,
    Leave,
    Pair,
    Picks,
    Sampler,
    ScoredPlans,
    kto_examples,
    naming,
    pairs,
    picked,
    plan_odds,
    propose,
    read_pairs,
    score,
    write_pairs,
)
from rlmemo.learning.planner_choice import best_reward, planner_found, validate_once
from rlmemo.learning.rating_feedback import joined, preference_rows, with_ratings
from rlmemo.learning.run import Run
from rlmemo.learning.training_data import States, TrainingData, memory_at, prompts
from rlmemo.model.ask import MindedPrompts, plan_on, read, sample_plans
from rlmemo.model.branching import Reader, can_branch
from rlmemo.model.load import load_adapted
from rlmemo.model.readings import reading_of
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import Approved, OwnPlans, Threshold
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.stages import STAGES

BATCH = 256  # prompts per forward pass outside training
SWAPS, DRAWS = 5, 2  # who is named otherwise, in plans to compare


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


def learn_preferences(run: Run, states: States) -> tuple[TrainingData, States]:
    """All rounds that are not finished yet; the data and the states that the last one's rows point into."""
    shown, mine = run.data, states
    for one in rounds_of(run.config):
        if one.mark and run.finished(one.stage):
            continue
        mine = one.states(states)
        score_by_replay(run, one, mine)
        if run.config.plan_world == "played":
            shown = load_incumbent(run.data, run.path / one.world)
        train_round(replace(run, data=shown), one, joined(mine, run.feedback))
    if run.config.preference_keep == "best":
        keep_best(run)
    return shown, joined(mine, run.feedback)


def score_by_replay(run: Run, one: Round, states: States) -> None:
    """Several plans per state, scored; what is kept of them goes to the round's file."""
    if run.finished(one.plans):
        return
    config, data = one.config, run.data
    with run.stage(one.plans, f"plans for {len(states)} states, by replay") as stage:
        model = load_adapted(config.model, run.path / one.adapter, config.loading)
        charge: dict[str, Any] = {}
        if config.plan_world == "played":
            data, charge = put_in_charge(data, ranked_by(model, data), run.reward)
            save_incumbent(data, run.path / one.world)
        baselines = fit_baselines(config.planned_by, data, run.reward, config.seed)
        for note in (b.found["note"] for b in baselines if "note" in b.found):
            run.display.say(f"{note}")
        made, odds = propose_plans(config, model, data, states, stage.bar, baselines)
        scored = with_ratings(score(data, states, made, run.reward, config.picks, odds), data, run.feedback)
        rows, replayed = _kept(replace(run, data=data), one, scored, len(states))
        write_pairs(run.path / one.file, rows)
        plans = sum(len(s.plans) for s in scored)
        best = float(np.mean([s.rewards.max() for s in scored])) if scored else 0.0
        by_origin: dict[str, list[float]] = {}
        for s in scored:
            for worth, origin in zip(s.rewards, s.origins, strict=True):
                by_origin.setdefault(origin, []).append(float(worth))
        stage.bar.note = f"{plans} plans, {len(rows)} kept"
        found: dict[str, Any] = {"states": len(states), "plans": plans, "kept": len(rows)}
        found |= {"in_charge": charge} if charge else {}
        found |= {"baselines": {b.name: b.found for b in baselines}} if baselines else {}
        found |= {"from_ratings": len(rows) - replayed} if run.feedback else {}
        found["picked"] = any(picked(plan) for s in scored for plan in s.plans)
        found["spread"] = max((float(np.ptp(s.rewards)) for s in scored), default=0.0)
        found["reward_by_origin"] = {origin: float(np.mean(r)) for origin, r in by_origin.items()}
        found["plans_by_origin"] = {origin: len(r) for origin, r in by_origin.items()}
        stage.found = {**found, "best_reward": best}


def _kept(
    run: Run, one: Round, scored: list[ScoredPlans], states: int
) -> tuple[list[Pair] | list[KtoExample], int]:
    """(the rows that the round learns from, how many of them are from replay); states: how many prompts stand
    before those of the ratings."""
    config = one.config
    users = [t.user for t in run.data.timelines]
    rows: list[Pair] | list[KtoExample]
    if one.method == "dpo":
        rows = pairs(
            scored, users, margin=config.margin, limit=config.dpo_pairs, pairing=config.pairing,
            seed=config.seed,
        )  # fmt: skip
    else:
        rows = kto_examples(scored, users, margin=config.margin, limit=config.kto_plans, seed=config.seed)
    replayed = len(rows)
    if run.feedback is not None:
        rows += preference_rows(
            run.feedback, run.data, one.method, offset=states, limit=_limit(one, replayed), seed=config.seed
        )
    return rows, replayed


def _limit(one: Round, replayed: int) -> int:
    """How many rows from ratings there may be at most: as many as replay gave, times what a thumb counts;
    where replay gave none, as many as it might have given."""
    most = one.config.dpo_pairs if one.method == "dpo" else one.config.kto_plans
    return round(one.config.feedback_weight * (replayed or most))


def _nothing(data: TrainingData, one: Round, found: dict[str, Any], rows: Sequence[Any]) -> str:
    """Why there is nothing to learn from; found: of the plans that were scored."""
    config = one.config
    if rows:
        kind, other = ("good", "bad") if rows[0].good else ("bad", "good")
        return f"all {len(rows)} plans that were kept are {kind} ones, and it needs {other} ones as well"
    what = "two plans of a state differ" if one.method == "dpo" else "plan differs from its state's mean"
    why = f"no {what} by --margin {config.margin:g}"
    if found.get("spread", config.margin) < SAME:
        why = no_signal(found["plans"], data, cold=found["picked"], picked=found["picked"])
    if "from_ratings" in found:
        why += "; and no rating is learned from"
        why += " with --feedback-weight 0" if config.feedback_weight == 0 else ""
    return why


def propose_plans(
    config: TrainConfig,
    model: Any,
    data: TrainingData,
    states: States,
    progress: Any,
    baselines: Sequence[Baseline] = (),
) -> tuple[list[dict[Picks, str]], list[np.ndarray]]:
    """The plans of `states` and how likely the model says them (`propose` and `plan_odds` of
    `rlmemo.learning.pairs`). Where a policy is in charge, its plan and those next to it are among them, and
    so are those of the baselines."""
    rng = np.random.default_rng([config.seed, 3])
    # A long prompt is read once, and every plan is said on top of it.
    reader = Reader(model) if reading_of(model).shares and can_branch(model) else None
    batch = BATCH if reader is None else 1

    def sampler(asked: np.ndarray) -> Sampler:
        def sample(valid: np.ndarray, greedy: bool) -> list[Picks]:
            hot, top_p = 0.0 if greedy else config.temperature, config.plan_top_p
            if reader is None:
                said = sample_plans(model, asked, valid, config.picks, hot, rng, top_p=top_p)
            else:
                said = plan_on(reader, MindedPrompts(asked), valid, config.picks, hot, rng, top_p)
            return said.plans()

        return sample

    made: list[dict[Picks, str]] = [{} for _ in range(len(states))]
    asked = prompts(data, states)
    odds = [np.zeros(0)] * len(states)
    done = 0
    for user, rows in states.by_user():
        slates = data.slates[user]
        held = memory_at(data, user)
        warm = held.warm
        planned = {b.name: b.plans(data, user, states.index[rows]) for b in baselines}
        begun = 0
        for part in np.array_split(rows, -(-len(rows) // batch)):
            index = states.index[part]
            now = None if data.plans is None else data.plans[user].target[index]
            candidates = slates.candidates[index]
            answer = read(model, asked[part], reader=reader)
            first = answer.first
            valid = (candidates >= 0) & (warm[index] == 0)
            found = propose(
                first, candidates, warm[index], sampler(asked[part]),
                picks=config.picks, samples=config.plan_samples,
                charge=None if now is None else _places(candidates, now),
                baselines={
                    name: _places(candidates, targets[begun : begun + len(part)])
                    for name, targets in planned.items()
                },
            )  # fmt: skip
            seed = [config.seed, 12, int(part[0])]
            leave = _leaves(data, answer.leave, held.listed[index], seed)
            if leave is not None:
                found = [naming(p, x) for p, x in zip(found, leave, strict=True)]
            begun += len(part)
            for k, (row, plan) in enumerate(zip(part, found, strict=True)):
                made[row] = plan
                odds[row] = plan_odds(first[k], valid[k], tuple(plan))
            done += len(part)
            progress(done, len(states))
    return made, odds


def _leaves(
    data: TrainingData, said: np.ndarray | None, listed: np.ndarray, seed: Sequence[int]
) -> list[Leave] | None:
    """Who may be named at D states (None: nobody). said: float32 [D, LISTED + 1], as of `FirstPick.leave`.

    Beside whom the model names: those least worth keeping, nobody, each of the first few with the model's own
    first, and two draws of the model.
    """
    if data.names == 0 or said is None:
        return None
    rng, made = np.random.default_rng(seed), []
    for log_p, residents in zip(said, listed, strict=True):
        n = int((residents >= 0).sum())
        log_p = log_p[:n].astype(np.float64)
        greedy = tuple(np.argsort(-log_p, kind="stable")[: data.names].tolist())
        others: dict[tuple[int, ...], str] = {tuple(range(min(n, data.names))): "least worth"}
        others.setdefault((), "nobody")
        for swap in range(min(n, SWAPS)):
            others.setdefault((swap, *greedy)[: data.names] if swap not in greedy else (swap,), "swap")
        for _ in range(DRAWS):
            drawn = np.argsort(-(log_p + rng.gumbel(size=n)), kind="stable")[: data.names]
            others.setdefault(tuple(drawn.tolist()), "drawn")
        made.append(Leave(greedy, others))
    return made


def _places(candidates: np.ndarray, target: np.ndarray) -> list[list[int]]:
    """Places in the slates int [D, size] of the targets int [D, K] (-1 for none) that stand there."""
    return [
        [int(np.flatnonzero(row == x)[0]) for x in wanted if x >= 0 and (row == x).any()]
        for row, wanted in zip(candidates, target, strict=True)
    ]


def train_round(run: Run, one: Round, states: States) -> None:
    """Train the adapter on what the round kept. run.data, states: what the round's rows point into."""
    if run.finished(one.stage):
        return
    method = one.method
    rows = read_pairs(run.path / one.file, Pair if method == "dpo" else KtoExample)
    which = f", round {one.number + 1} of {one.rounds}" if one.rounds > 1 else ""
    title = f"{method.upper()} on {len(rows)} {STAGES[method].counts}{which}"
    with run.stage(one.stage, title, one.adapter) as stage:
        if not rows or (method == "kto" and len({r.good for r in rows}) < 2):
            raise NoSignal(_nothing(run.data, one, run.folder.state()[one.plans], rows))
        learn: Any = run_dpo if method == "dpo" else run_kto
        asked = prompts(run.data, states)
        run.save(stage, *learn(run.lesson(stage, one.config), asked, rows, run.data.names > 0))


def keep_best(run: Run) -> None:
    """Let the last round's folder hold the adapter that plans best on validation, of SFT's and all rounds'.

    Rewards are noisy and few; a round that made the planner worse is not worth keeping. Each is worth what
    the better of its two planners gains (`rlmemo.learning.planner_choice.validate`) or, where ratings are
    learned from, what the planner gains that minds them, expected ratings included; ties go to the earlier
    one. Without validation events the last one stays.
    """
    if run.finished("kept"):
        return
    config = run.config
    rounds = rounds_of(config)
    names = [rounds[0].adapter, *(one.stage for one in rounds)]
    worth: dict[str, float] = {}
    known: dict[str, dict[str, Any]] = {}

    @cache
    def read_from(name: str) -> LanguagePolicy:
        return LanguagePolicy(load_adapted(config.model, run.path / name, config.loading), name)

    with run.stage("kept", "which round to keep, on validation") as stage:
        for name in names:
            found = validate_once(run, name, partial(read_from, name), known)
            worth[name] = best_reward(found)
            minding = _minding(run, read_from(name), planner_found(found)) if found["events"] else None
            if minding is not None:
                worth[name] = minding.found["worth_per_open"]
            stage.bar(len(worth), len(names), None)
        best = max(names, key=lambda name: worth[name]) if found["events"] else names[-1]
        stage.bar.note = f"{best}: " + ", ".join(f"{name} {value:.3f}" for name, value in worth.items())
        last = rounds[-1].stage
        if best != last:
            digest = run.copy(best, last)
            run.folder.finish(last, {**run.folder.state()[last], "adapter_sha256": digest})
        stage.found = {"stage": best, "reward": worth, "validated": known}


def _minding(run: Run, policy: LanguagePolicy, plain: OwnPlans | Threshold) -> Approved | None:
    """The planner that minds the ratings best; None where none are learned from, or a price is set for it
    (`--feedback-keep`): a planner pays it, the model under it is to be as good as it can be."""
    feedback, seed = run.feedback, run.config.seed
    if feedback is None or feedback.approval is None or run.config.feedback_keep is not None:
        return None
    return choose(policy, feedback.approval, run.data, run.reward, feedback.per_thumb, seed, plain)


def preference_file(config: TrainConfig, folder: RunFolder) -> Path:
    """What the preferences of the last round were written to."""
    return folder.path / rounds_of(config)[-1].file

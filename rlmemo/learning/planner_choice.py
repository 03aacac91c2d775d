"""The end of a run: what each stage is worth on validation, then everything once on the test part.

Two ways of planning are read from the same model: its `own` plans, as it says them token by token, and
plans by `threshold`, that is whatever it ranks above a probability that was tuned on validation. Which of
the two a stage uses is chosen on validation too, by one rule for all stages, so that the same adapter is
worth the same in every row. Beside what the run learned last stands the model as it came, with the shipped
planner; who of the two is in charge (`rlmemo.learning.in_charge`), and by what, is in `adapter/plan.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from env.ranking import Ranking
from reward import Reward
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.evaluation.metrics import places
from rlmemo.learning.approval_choice import minding, minding_as_shipped
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.display import Bar
from rlmemo.learning.in_charge import InCharge, as_shipped, decide
from rlmemo.learning.kept import kept
from rlmemo.learning.model_card import model_card
from rlmemo.learning.no_signal import NO_SIGNAL, SAME
from rlmemo.learning.report import called, training_page
from rlmemo.learning.run import Run
from rlmemo.learning.training_data import TrainingData
from rlmemo.model.hub import EMBEDDED, is_slots
from rlmemo.model.load import load_adapted, load_switching
from rlmemo.model.switching import Shelf, Shelved
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import (
    BY_MODEL,
    BY_NOBODY,
    THRESHOLDS,
    Approved,
    OwnPlans,
    Planner,
    Threshold,
    choose,
)
from rlmemo.policies.registry import make_policies
from rlmemo.policies.shipped import shipped_planner
from rlmemo.report.evaluation import report_data
from rlmemo.report.terminal import result_table
from rlmemo.runs import plan_file
from rlmemo.runs.atomic import write_atomic
from rlmemo.runs.folder import RunFolder
from rlmemo.runs.plan_file import BASE
from rlmemo.runs.stages import FIRST, USERS

PAST = 2000
"""Opens before the test part by which the shipped planner is checked: some seconds for the embedded model."""


def judge(run: Run) -> None:
    """Validation for every stage, then the test part, once; writes the reports. Nothing is done where the
    report is there already."""
    if (run.path / "report.json").exists():
        return
    config, display = run.config, run.display
    stages = stage_policies(config, run.folder)
    with display.stage("validation, stage by stage") as bar:
        found, known = {}, dict(run.folder.state().get("kept", {}).get("validated", {}))
        for done, name in enumerate(stages):
            found[name] = validate_once(run, name, partial(stages.__getitem__, name), known)
            bar(done + 1, len(stages), None)
        planners: dict[str, Planner] = {}
        for name in config.stages:
            planners[name], rated = minding(
                planner_found(found[name]), stages[name], run.path / "adapter", run.data, config, run.reward
            )
            found[name] = {**found[name], **({"rated": rated} if rated else {})}
        last = config.stages[-1]
        learned = planner_found(found[last]) if config.feedback_keep is not None else planners[last]
        charge, planners[BASE] = _in_charge(run, stages, learned)
        planner = planners[charge.stage]
        plan_file.write(run.path, plan_json(charge, planner))
        bar.note = f"{charge.stage}: {said(planner, charge.stage, config)}"
    if not any(one["signal"] for one in found.values()):
        display.say(f"validation: {NO_SIGNAL}; a smaller --budget than {config.budget:g} leaves more to gain")
    with display.stage("test, beside the baselines") as bar:
        evaluation = _test(run, stages, planners, bar)
    came_out = kept(config, run.folder.state(), minding=minds(planner))
    evaluation.notes[:0] = [*charge.said, *came_out.said]
    write_reports(run, evaluation, found, planner, charge)
    display.say(f"\n{result_table(evaluation, charge.stage, called(config, came_out, charge))}")


def plan_json(charge: InCharge, planner: Planner) -> dict[str, Any]:
    """What `adapter/plan.json` holds: the planner, and whose it is where that is not the run's adapter."""
    return {**planner.to_json(), **({"stage": BASE} if charge.kept_base else {})}


def _in_charge(run: Run, stages: dict[str, LanguagePolicy], learned: Planner) -> tuple[InCharge, Planner]:
    """Who is in charge of the run, and what the model as it came plans by. learned: the planner of what the
    run learned; where a price is set for ratings, the one without them: both pay it."""
    config, data, base = run.config, run.data, stages[BASE]
    ours = is_slots(config.model)
    validation = data.cases(data.split.validation)
    # A model of a hub answers once or twice a second: the validation part, which it has ranked, has to do.
    past = data.cases(_past(data)) if ours else validation
    switched = any(len(x.offs) or len(x.wakes) for x in data.timelines)
    shipped = as_shipped(
        base, shipped_planner(config.world, switched=switched), past, run.reward, config.seed
    )
    last = config.stages[-1]
    charge = decide(
        (last, stages[last], learned), (base, shipped), validation, run.reward, seed=config.seed,
        called="shipped model" if config.model == EMBEDDED else "untrained model",
        rated=partial(run.feedback.worth, data) if run.feedback and config.feedback_keep is None else None,
    )  # fmt: skip
    adapter = run.path / "adapter"
    return charge, minding_as_shipped(shipped, base, adapter, data, config, run.reward)


def _past(data: TrainingData) -> list[np.ndarray]:
    """Per timeline, the latest events of the training and validation parts, at most PAST of all people."""
    most = PAST // max(1, len(data.timelines))
    parts = zip(data.split.train, data.split.validation, strict=True)
    return [np.concatenate(both)[-max(most, len(both[1])) :] for both in parts]


def stage_policies(config: TrainConfig, folder: RunFolder) -> dict[str, LanguagePolicy]:
    """Language policies by stage: the base model as it came, then after each stage."""

    def load(stage: str) -> Any:
        adapter = None if stage == "base" else folder.path / stage
        return load_adapted(config.model, adapter, config.loading)

    stages = ("base", *config.shared_stages)
    found: dict[str, LanguagePolicy]
    if is_slots(config.model):
        found = {stage: LanguagePolicy(load(stage), stage) for stage in stages}
    else:
        shelf = Shelf(load)
        found = {stage: LanguagePolicy(Shelved(shelf, stage), stage) for stage in stages}
    if config.adapter_per_user:
        found[USERS] = LanguagePolicy(load_switching(config.model, folder.path, config.loading), USERS)
    return found


def validate_once(
    run: Run, stage: str, policy: Callable[[], LanguagePolicy], known: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """As `validate`, of a stage's model; where another stage has the same adapter, what was found for that.

    known: what is known already, by the adapters' SHA-256; this is added.
    """
    adapter = run.folder.state().get(stage, {}).get("adapter_sha256", stage)
    if adapter not in known:
        own = speaks(run.config, stage)
        known[adapter] = validate(policy(), run.data, run.reward, run.config.seed, own=own)
    return known[adapter]


def speaks(config: TrainConfig, stage: str) -> bool:
    """Whether a stage's own plans are tried. A text model's are not before it has learned from plans: to have
    it say them, each in the world that those before it leave, takes several times as long as to rank. A
    user's adapter has learned from what the shared stage before it has."""
    learned = config.shared_stages[-1] if stage == USERS else stage
    return is_slots(config.model) or learned not in (BASE, FIRST)


def best_reward(found: dict[str, Any]) -> float:
    """The reward per open of the better way to plan of what `validate` found."""
    return max(float(found[way]["reward_per_open"]) for way in ("own", "threshold") if way in found)


def validate(
    policy: Any, data: TrainingData, reward: Reward, seed: int, *, own: bool = True
) -> dict[str, Any]:
    """What a stage is worth on validation: hr@1, hr@5, log loss, the reward per open of its own plans (where
    `own`) and of plans by the best threshold, which of the two it is to plan by ("planner"; ties: by
    threshold), and whether rewards differed at all ("signal")."""
    parts = data.cases(data.split.validation)
    if not parts:
        nothing = {"reward_per_open": 0.0}
        by = {**nothing, "theta": THRESHOLDS[-1], "wake": THRESHOLDS[-1]}
        return {"events": 0, "own": nothing, "threshold": by, "planner": "threshold", "signal": False}
    rankings = [policy.rank(case.timeline, case.indices) for case in parts]
    ranking, opened = Ranking.join(rankings), np.concatenate([case.opened for case in parts])
    place = places(ranking, opened)
    given = np.where(
        place >= 0, ranking.probability[np.arange(len(place)), np.maximum(place, 0)], ranking.none
    )
    choice = choose(policy, parts, rankings, reward, own=own, seed=seed)
    threshold, by_threshold = choice.threshold
    return {
        "events": len(place),
        "hr@1": float((place == 0).mean()),
        "hr@5": float(((place >= 0) & (place < 5)).mean()),
        "log_loss": float(-np.log(np.maximum(given, 1e-6)).mean()),
        **({"own": {"reward_per_open": choice.own}} if own else {}),
        "threshold": {
            "reward_per_open": max(by_threshold, choice.named),
            "theta": threshold.theta,
            "wake": threshold.wake,
        },
        "planner": choice.planner.to_json()["planner"],
        "names": choice.planner.names,
        "signal": bool(np.ptp(choice.by_threshold) > SAME or (own and abs(choice.own) > SAME)),
    }


def planner_found(found: dict[str, Any]) -> OwnPlans | Threshold:
    """What a stage is to plan by, as `validate` found."""
    names, by = str(found.get("names", BY_NOBODY)), found["threshold"]
    return OwnPlans(names) if found["planner"] == "own" else Threshold(by["theta"], names, by["wake"])


def minds(planner: Planner) -> bool:
    """Whether what is liked changes what is planned."""
    return isinstance(planner, Approved) and planner.strength > 0


def said(planner: Planner, stage: str, config: TrainConfig) -> str:
    """How the planner of a stage plans in the run's world, in a few words."""
    inner = planner.inner if isinstance(planner, Approved) else planner
    tuned = "a threshold tuned on validation"
    if stage == BASE:
        shipped = inner in [shipped_planner(config.world, switched=x) for x in (False, True)]
        tuned = "the shipped threshold" if shipped else "a threshold tuned on the opens before the test part"
    how = "its own plans" if isinstance(inner, OwnPlans) else f"plans by {tuned}"
    if isinstance(planner, Approved):
        return f"{how}, minding the ratings"
    return how + (", ratings counted" if config.feedback is not None and stage != BASE else "")


def _test(run: Run, stages: dict[str, LanguagePolicy], planners: dict[str, Planner], bar: Bar) -> Evaluation:
    config = run.config
    others = [name for name in config.baselines if name != BASE or config.model != EMBEDDED]
    policies: list[Any] = make_policies(others) if others else []
    for stage in (BASE, *config.stages):
        by = planners[stage]
        # by a threshold: the judge chooses it anew, as for every other policy; but the shipped one stands,
        # one under which the model says who leaves, and one that ratings helped to choose
        anew = (
            isinstance(by, Threshold) and stage != BASE and by.names != BY_MODEL and config.feedback is None
        )
        asked = None if anew else by
        policies.append(stages[stage].planning(asked, f"{stage}: {said(by, stage, config)}"))
    if not is_slots(config.model):  # the scorer's say is part of what the run learned; without it, beside it
        last = config.shared_stages[-1]
        policies.append(stages[last].alone(f"{last} alone"))
    setting = Setting(config.world, budgets=(config.budget,), seed=config.seed)
    return evaluate(
        policies,
        run.data.timelines,
        run.data.split,
        name=run.prepared.loaded.name,
        synthetic=run.prepared.loaded.synthetic,
        setting=setting,
        progress=lambda what, done, total: bar(done, total, None),
    )


def write_reports(
    run: Run, evaluation: Evaluation, found: dict[str, Any], planner: Planner, charge: InCharge
) -> None:
    """report.html, README.md (the model card) and, last, report.json: where it is, the run is finished."""
    config, state = run.config, run.folder.state()
    came_out = kept(config, state, minding=minds(planner))
    page = training_page(run.prepared, run.folder, evaluation, found, came_out, charge)
    page.write(run.path / "report.html")
    card = model_card(run.prepared, state, evaluation, found, planner.to_json(), came_out, charge)
    write_atomic(run.path / "README.md", card)
    report = {
        "method": config.method,
        "policy": charge.stage,
        "plans": planner.to_json(),
        "in_charge": charge.to_json(),
        "stages": {
            name: {
                **state.get(name, {}),
                "validation": found.get(name, {}),
                **({"kept": came_out.whose} if name == came_out.stage else {}),
            }
            for name in ("base", *config.stages)
        },
        "preferences": state.get("plans"),
        **report_data(evaluation),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_atomic(run.path / "report.json", json.dumps(report, indent=1) + "\n")

"""How the evidence judges one policy: the ways it may plan by, each chosen on validation.

- `own`: what a policy plans by itself, a language model or the oracle;
- `threshold`: the cold targets that it ranks above a probability, as a run plans (`planners.choose`): nobody
  is named to leave first, or those least worth keeping by who is opened soon, or whom the model says; a
  policy that comes with a threshold (the base as shipped) keeps it;
- `pair`: the ranking at its best with a let-go rule of the world, by probability or by what a prewarm is
  worth, as `experiments.who_leaves` has it, with `expected` told by trees fitted on the training part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from env.judge.case import Case, cases
from env.ranking import Ranking

if TYPE_CHECKING:
    from env.judge.plans import Outcomes
    from reward import Reward
    from rlmemo.learning.prepare import Prepared
    from rlmemo.policies.planners import Threshold
    from rlmemo.policies.protocol import Policy

COLUMNS = ("reward", "saved_s", "hit", "wasted", "prewarms", "kept", "pollution", "cold")
WAYS = ("own", "threshold", "pair")


def judge(policy: Policy, prepared: Prepared, part: str, reward: str) -> dict[str, Any]:
    """What the policy does on the events of a part.

    Returns {"arrays": per way of WAYS that it has float64 [n, COLUMNS + reward terms], "curve" [T, 5] (hit,
    wasted, prewarms, reward per open by threshold), "numbers": hr@1, hr@5, log loss, and what was chosen}.
    """
    from env.judge.plans import FIELDS
    from reward import parse_reward
    from rlmemo.policies.planners import THRESHOLDS, Threshold, choose, planner_of, sweep, told

    worth, seed = parse_reward(reward), prepared.config.seed
    costs = prepared.config.world.costs_of(prepared.timelines)
    tuning = cases(prepared.timelines, costs, prepared.world, prepared.split.validation)
    test = tuning
    if part != "validation":
        test = cases(prepared.timelines, costs, prepared.world, prepared.split.test)
    numbers: dict[str, Any] = {"events": sum(map(len, test))}
    fixed = planner_of(policy)
    if fixed is not None and not isinstance(fixed, Threshold):  # keeping still, the oracle, SB3
        arrays = {"own": _joined(policy, fixed, test, worth, seed)}
        return {"arrays": arrays, "numbers": numbers, "terms": [name for name, _ in worth.terms]}
    tuned = [policy.rank(c.timeline, c.indices) for c in tuning]
    asked = tuned if test is tuning else [policy.rank(c.timeline, c.indices) for c in test]
    ways: dict[str, Any] = {"threshold": fixed}
    if fixed is None:
        speaks = hasattr(policy, "plan")
        choice = choose(policy, tuning, tuned, worth, own=speaks, seed=seed)
        ways = {**({"own": choice.own_by} if speaks else {}), "threshold": choice.by_threshold_alone}
    arrays = {}
    for name, way in ways.items():
        began = time.perf_counter()
        arrays[name] = _joined(policy, way, test, worth, seed, asked)
        numbers[name] = {**way.to_json(), "seconds": time.perf_counter() - began}
    arrays["pair"], numbers["pair"] = _pair(policy, prepared, part, (tuned, asked), ways["threshold"], worth)
    told_of = [told(policy, c) for c in test]
    named = bool(ways["threshold"].names) and all(c.worth is not None for c in told_of)
    totals = sweep(told_of, asked, names=named) / numbers["events"]
    at = [FIELDS.index(f) for f in ("hit", "wasted", "planned")]
    arrays["curve"] = np.column_stack([totals[:, at], totals @ worth.weights(FIELDS), THRESHOLDS])
    numbers |= {"theta": ways["threshold"].theta, **ranking_numbers(test, asked)}
    return {"arrays": arrays, "numbers": numbers, "terms": [name for name, _ in worth.terms]}


def _joined(
    policy: Any,
    way: Any,
    test: Sequence[Case],
    worth: Reward,
    seed: int,
    asked: Sequence[Ranking] | None = None,
) -> np.ndarray:
    """What planning by `way` comes to, the cases' opens in a row."""
    rankings = asked if asked is not None else [None] * len(test)
    plans = [way.plan(policy, c, seed=seed, ranking=r) for c, r in zip(test, rankings, strict=True)]
    return np.concatenate([columns(c.replay(p), worth) for c, p in zip(test, plans, strict=True)])


def _pair(
    policy: Policy,
    prepared: Prepared,
    part: str,
    rankings: tuple[Sequence[Ranking], Sequence[Ranking]],
    usual: Threshold,
    worth: Reward,
) -> tuple[np.ndarray, str]:
    """The best pair of planning rule and let-go rule: what it comes to, and what it is. rankings: of the
    validation part and of `part`; usual: the threshold way, which says what is loaded at wakes."""
    from experiments.who_leaves import Asked, Said, best_way, every_way, fitted
    from rlmemo.policies.planners import NEVER, rank_wakes

    timelines, split, world = prepared.timelines, prepared.split, prepared.config.world
    soon = fitted(timelines, split, prepared.config.seed, 10)
    tuning, test = (Asked(timelines, world, p, soon) for p in (split.validation, getattr(split, part)))
    tuned, asked = (
        Said(ranked, [rank_wakes(policy, c) for c in of.cases])
        for ranked, of in zip(rankings, (tuning, test), strict=True)
    )
    wake = usual.wake if any(map(len, tuned.wakes)) else NEVER
    way, _ = best_way(tuning, tuned, every_way(wake))
    return np.concatenate([columns(x, worth) for x in test.outcomes(asked, way)]), str(way)


def ranking_numbers(test: Sequence[Case], asked: Sequence[Ranking]) -> dict[str, float]:
    """hr@1, hr@5 and log loss of rankings of the cases' decisions."""
    from rlmemo.evaluation.metrics import answer_log_p, places, rank_scores

    ranking = Ranking.join(asked)
    place = places(ranking, np.concatenate([c.opened for c in test]))
    found = {k: float(score.mean()) for k, score in rank_scores(place).items() if k in ("hr@1", "hr@5")}
    return found | {"log_loss": float(-answer_log_p(ranking, place).mean())}


def columns(outcomes: Outcomes, worth: Reward) -> np.ndarray:
    """float64 [opens of the window, len(COLUMNS) + terms of the reward]; a plan's prewarms and its waste
    stand with the open that it was made before."""
    from env.judge.plans import FIELDS, NONE, WASTED

    a, b = outcomes.start, outcomes.stop
    outcome = outcomes.outcome[a - 1 : b - 1]
    parts = [np.broadcast_to(v, len(outcomes.table))[a:b] for v in worth.parts(outcomes).values()]
    return np.column_stack(
        [
            np.sum(parts, axis=0), outcomes.saved_s[a:b], outcomes.hit[a:b],
            (outcome == WASTED).sum(1), (outcome != NONE).sum(1),
            outcomes.table[a:b, [FIELDS.index(f) for f in COLUMNS[5:]]], *parts,
        ]
    )  # fmt: skip


def write_judged(file: Path, found: Mapping[str, Any]) -> None:
    """Arrays first, then the numbers: where these are, the judgement is whole."""
    from rlmemo.runs.atomic import file_atomic, write_atomic

    with file_atomic(file.with_suffix(".npz")) as new, new.open("wb") as out:
        np.savez_compressed(out, **found["arrays"])
    text = json.dumps({**found["numbers"], "terms": found["terms"]}, indent=1)
    write_atomic(file, text + "\n")

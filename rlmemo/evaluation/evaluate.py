"""One judgement for everybody: all metrics of DESIGN section 9 for a list of policies on a split.

The benchmark, the trainers' reports and the dashboard call `evaluate`, so a number means the same
wherever it stands. Policies are fitted on the training part, planners are tuned on the validation part,
and the test part is looked at once. All intervals come from the same draws of sessions; differences are
paired on the same events.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from env.errors import InputError
from env.judge.case import Case, cases
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS
from env.judge.world_options import WorldOptions
from env.ranking import Ranking, decisions
from env.splits import Split, sessions
from env.timeline import Timeline
from rlmemo.evaluation.bootstrap import REPLICATES, Draws, Estimate, interval, session_groups
from rlmemo.evaluation.delays import Delays, past_shares
from rlmemo.evaluation.each_person import (
    Alone,
    CaseResult,
    Crew,
    HowJudged,
    added,
    best_thresholds,
    bounds,
    came,
    lists_anybody,
    tested,
    timed,
)
from rlmemo.evaluation.gain import gain
from rlmemo.evaluation.metrics import (
    Calibration,
    Opens,
    calibration,
    listed_calibration,
    new_target_auc,
    none_calibration,
    places,
    prewarm_metrics,
    rank_scores,
    ranking_metrics,
    timing_metrics,
)
from rlmemo.policies.planners import (
    THRESHOLDS,
    Planner,
    Threshold,
    planner_of,
)
from rlmemo.policies.protocol import Policy
from rlmemo.policies.registry import COUNTING

if TYPE_CHECKING:
    from env.judge.cost import CostModel
    from reward import Reward

BUDGETS = (2.0, 4.0, 8.0, 16.0)
PAIRED = ("hr@1", "hr@5", "mrr@5", "hit_rate", "saved_seconds_per_open", "reward_per_open")
ORACLE = "oracle"
BOUNDS = ("none", ORACLE)
"""Policies that nobody expects anything of."""
Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total)."""


@dataclass(frozen=True)
class Setting:
    """How the judge is set: everything that a stated number depends on, besides data and split.

    world: of the main numbers; budgets: of the comparison, in typical (median) targets; costs:
    measured ones, in place of those that `world` names.
    """

    world: WorldOptions = field(default_factory=WorldOptions)
    budgets: tuple[float, ...] = BUDGETS
    seed: int = 0
    replicates: int = REPLICATES
    latency_decisions: int = 60
    costs: CostModel | None = None


@dataclass
class Judged:
    """What was found for one policy.

    curve: one row per threshold of `THRESHOLDS` at the main budget: prewarms, wasted, hits, pollution
    (all per open), saved seconds and reward per open; threshold: the one that validation chose, NaN for
    a policy that plans by itself. budgets: reward, saved seconds and cold opens per open by budget.
    """

    name: str
    metrics: dict[str, Estimate]
    note: str = ""
    threshold: float = float("nan")
    curve: dict[str, np.ndarray] = field(default_factory=dict)
    budgets: dict[float, dict[str, Estimate]] = field(default_factory=dict)
    terms: dict[str, Estimate] = field(default_factory=dict)
    """The reward per open by term, weighted: they add up to `reward_per_open`."""
    calibration: Calibration | None = None
    calibration_all: Calibration | None = None
    """Of every listed target."""
    calibration_none: Calibration | None = None
    delays: Delays | None = None
    per_user: dict[str, float] = field(default_factory=dict)
    per_event: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Evaluation:
    """The whole result. differences[name][metric] = (the counting policy compared with, estimate)."""

    timelines: str
    split: str
    collapsed: bool
    synthetic: bool
    setting: Setting
    n_events: int
    n_users: int
    policies: dict[str, Judged]
    differences: dict[str, dict[str, tuple[str, Estimate]]]
    user_events: dict[str, int]
    notes: list[str]
    unseen: float = 0.0
    """Share of test events whose target was never seen before: a miss for every policy but the oracle."""
    seconds: float = 0.0
    against_gbdt: dict[str, dict[str, tuple[str, Estimate]]] = field(default_factory=dict)
    """As `differences`, against the gradient-boosted ranker where it is among the policies."""
    nothing: str = ""
    """Why nothing can be saved and what helps, where that is so; among the notes too."""

    def as_json(self) -> dict[str, object]:
        """The contract of DESIGN section 8, with the setting, curves, budgets and differences beside it."""
        return {
            "timelines": self.timelines,
            "split": self.split,
            "collapsed": self.collapsed,
            "n_events": self.n_events,
            "seed": self.setting.seed,
            "policies": {
                name: {metric: estimate.as_json() for metric, estimate in judged.metrics.items()}
                for name, judged in self.policies.items()
            },
            "synthetic": self.synthetic,
            "n_users": self.n_users,
            "unseen": self.unseen,
            "setting": {
                "cost": self.setting.world.costs,
                "budget_targets": self.setting.world.budget,
                "max_picks": self.setting.world.picks,
                "ttl_s": self.setting.world.ttl_s,
                "let_go": self.setting.world.let_go,
                "let_go_picks": self.setting.world.let_go_picks,
                "off_after_s": self.setting.world.off_after_s,
                "close_after_s": self.setting.world.close_after_s,
                "reward": self.setting.world.reward,
                "replicates": self.setting.replicates,
            },
            "thresholds": {n: _finite(j.threshold) for n, j in self.policies.items()},
            "budgets": {
                n: {f"{b:g}": {m: e.as_json() for m, e in by.items()} for b, by in j.budgets.items()}
                for n, j in self.policies.items()
            },
            "curves": {
                n: {"threshold": list(THRESHOLDS), **{k: v.tolist() for k, v in j.curve.items()}}
                for n, j in self.policies.items()
                if j.curve
            },
            **{
                key: {
                    n: {m: {"against": against, **e.as_json()} for m, (against, e) in by.items()}
                    for n, by in found.items()
                }
                for key, found in (("differences", self.differences), ("against_gbdt", self.against_gbdt))
            },
            "reward_terms": {
                n: {term: e.as_json() for term, e in j.terms.items()} for n, j in self.policies.items()
            },
            "reliability": {
                n: {
                    what: {
                        "predicted": c.predicted.tolist(),
                        "observed": c.observed.tolist(),
                        "size": c.size.tolist(),
                    }
                    for what, c in (
                        ("first", j.calibration),
                        ("all", j.calibration_all),
                        ("none", j.calibration_none),
                    )
                    if c is not None
                }
                for n, j in self.policies.items()
                if j.calibration is not None
            },
            "delays": {n: j.delays.as_json() for n, j in self.policies.items() if j.delays is not None},
            "hr@1_per_user": {n: j.per_user for n, j in self.policies.items() if j.per_user},
            "notes": self.notes,
        }


def evaluate(
    policies: Sequence[Policy],
    timelines: Sequence[Timeline],
    split: Split | Sequence[Split],
    *,
    name: str = "timelines",
    synthetic: bool = False,
    setting: Setting | None = None,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> Evaluation:
    """Judge `policies` on the test part of `split` (several splits are folds, joined: leave one user out).

    A policy called `oracle` gives the upper bound that `oracle_share` is a share of; without it the bound is
    computed all the same. crew: who does what is done person by person (None: this process); the numbers are
    the same to the last digit, whoever does. Raises InputError where there is nothing to test on.
    """
    setting = setting or Setting()
    model = setting.costs or cost_model(setting.world.costs)
    reward = setting.world.worth()
    folds = [split] if isinstance(split, Split) else list(split)
    began = time.perf_counter()
    run = _Run(timelines, folds, setting, model, reward, crew or Alone())
    if run.n_events == 0:
        raise InputError(
            f"{name}: the test part of split {folds[0].name} is empty; record more events, "
            "or choose another --split"
        )
    steps = len(policies) + 1
    if progress:
        progress("oracle", 0, steps)
    bound = run.oracle()
    judged: dict[str, Judged] = {}
    for k, policy in enumerate(policies):
        if progress:
            progress(policy.name, k + 1, steps)
        label = policy.name
        while label in judged:
            label += "'"
        judged[label] = run.judge(policy, bound)
    if progress:
        progress("done", steps, steps)
    nothing = gain(run.parts).why_nothing() or ""
    why = run.why_still(judged, nothing)
    notes = [j.note for j in judged.values() if j.note] + why + run.notes
    return Evaluation(
        timelines=name,
        split=folds[0].name.split(":")[0],
        collapsed=all(t.collapsed for t in timelines),
        synthetic=synthetic,
        setting=setting,
        n_events=run.n_events,
        n_users=len({c.user for c in run.parts}),
        policies=judged,
        differences=_differences(judged, run.draws, COUNTING),
        against_gbdt=_differences(judged, run.draws, ("gbdt",)),
        user_events=run.user_events(),
        notes=notes,
        unseen=run.unseen(),
        seconds=time.perf_counter() - began,
        nothing=nothing,
    )


class _Run:
    """The test events of all folds, laid out once: a case per fold and timeline."""

    def __init__(
        self,
        timelines: Sequence[Timeline],
        folds: Sequence[Split],
        setting: Setting,
        model: CostModel,
        reward: Reward,
        crew: Crew,
    ) -> None:
        self.timelines, self.folds, self.setting, self.reward = timelines, folds, setting, reward
        self.costs = [model.arrays(t) for t in timelines]
        self.notes: list[str] = []
        self.worlds = {b: setting.world.rules(b) for b in sorted({*setting.budgets, setting.world.budget})}
        tests = [self._cases(fold.test) for fold in folds]
        self.crew, self.tests = crew, [crew.parts(x) for x in tests]
        self.parts = [case for x in tests for case in x]
        groups, users = session_groups([sessions(c.timeline)[c.start : c.stop] for c in self.parts])
        self.n_events = len(groups)
        self.answers = _join([c.opened for c in self.parts])
        self.gaps = _join([np.diff(c.timeline.t)[c.indices] for c in self.parts])
        self.users = users
        self.new = _join([_first_opens(c.timeline)[c.start : c.stop] for c in self.parts])
        self.draws = Draws(groups, users, seed=setting.seed, replicates=setting.replicates)

    def why_still(self, judged: dict[str, Judged], nothing: str) -> list[str]:
        """Why policies never prewarm, where some do not; their notes say that they do not. nothing: why
        nothing can be saved, where that is so."""
        still = [
            name for name, j in judged.items()
            if name not in BOUNDS and not j.metrics["prewarms_per_open"].value
        ]  # fmt: skip
        for name in still:
            if judged[name].note:
                judged[name].note += ", and never prewarms"
        if nothing or not still:
            return [nothing] if nothing else []
        said = "keeping still was worth most on the validation part; in less memory more is cold"
        return [f"never prewarms: {', '.join(still)}: {said}: try --budget {self.setting.world.budget / 2:g}"]

    def user_events(self) -> dict[str, int]:
        return {c.timeline.user: len(c) for c in self.parts}

    def unseen(self) -> float:
        return float(np.sum(self.new)) / max(1, self.n_events)

    def oracle(self) -> dict[float, np.ndarray]:
        """What the clairvoyant bound saves at each test open, float64 [n], by budget."""
        each = [self.crew.get(self.crew.do(bounds, parts, self.worlds)) for parts in self.tests]
        found = [x for fold in each for part in fold for x in part]
        return {budget: _join([x[budget] for x in found]) for budget in self.worlds}

    def judge(self, policy: Policy, bound: dict[float, np.ndarray]) -> Judged:
        setting, worlds, main = self.setting, self.worlds, self.setting.world.budget
        crew, planner = self.crew, planner_of(policy)
        chosen: list[float] = []
        found: list[CaseResult] = []
        curve: np.ndarray | float = 0.0
        seconds = 0.0
        latency: list[float] = []
        for fold, parts in zip(self.folds, self.tests, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # said as the policy's note instead
                policy.fit(self.timelines, fold, seed=setting.seed)
            ours = crew.share(policy)
            if planner:
                ways: dict[float, Planner] = dict.fromkeys(worlds, planner)
            else:
                inside = crew.parts(self._cases(fold.validation))
                ways = dict(best_thresholds(crew, ours, inside, worlds, self.reward))
                chosen.append(cast(Threshold, ways[main]).theta)
            said = crew.do(tested, parts, ours, planner, setting.latency_decisions)
            lists = any(crew.get(crew.do(lists_anybody, said)))
            how = HowJudged(worlds, main, ways, planner is None, lists, self.reward, setting.seed)
            here = [x for part in crew.get(crew.do(came, said, ours, how)) for x in part]
            for took, alone in crew.get(crew.do(timed, said)):
                seconds, latency = seconds + took, latency or alone
            if lists:
                curve = curve + added([x.swept for x in here if x.swept is not None])
            found += here
        rankings = [x.ranking for x in found]
        ranking = Ranking.join(rankings)
        judged = Judged(policy.name, {}, note=getattr(policy, "note", ""))
        judged.threshold = float(np.median(chosen)) if chosen else float("nan")
        if (ranking.targets >= 0).any():
            place = places(ranking, self.answers)
            judged.metrics |= ranking_metrics(ranking, self.answers, self.draws)
            judged.metrics["new_auc"] = new_target_auc(ranking, self.new, self.draws)
            judged.metrics |= timing_metrics(ranking, self.answers, self.gaps, self.draws)
            judged.calibration = calibration(ranking, self.answers, self.draws)
            if ranking.when is not None:
                edges = ranking.when_edges_s
                judged.delays, found_when = Delays.judge(
                    ranking.when, edges, self.gaps, self._past_delays(edges), self.draws
                )
                judged.metrics |= found_when
            judged.calibration_all = listed_calibration(ranking, self.answers, self.draws)
            judged.calibration_none = none_calibration(ranking, self.answers, self.draws)
            judged.per_user = {
                c.timeline.user: float((place[self.users == k] == 0).mean()) for k, c in enumerate(self.parts)
            }
            judged.curve = self._curve(np.asarray(curve))
            judged.per_event = {k: score for k, score in rank_scores(place).items() if k in PAIRED}
        for budget in sorted(worlds):
            few = zip(*(x.by_budget[budget] for x in found), strict=True)
            reward, saved_s, cold = (_join(list(x)) for x in few)
            if budget in setting.budgets:
                judged.budgets[budget] = {
                    "reward_per_open": self.draws.ratio(reward),
                    "saved_seconds_per_open": self.draws.ratio(saved_s),
                    "oracle_share": self.draws.ratio(saved_s, bound[budget]),
                    "cold_rate": self.draws.ratio(cold),
                }
        opens = Opens.join([x.opens for x in found])
        judged.metrics |= prewarm_metrics(opens, self.draws, bound[main])
        judged.terms = {
            term: self.draws.ratio(_join([x.terms[term] for x in found])) for term, _ in self.reward.terms
        }
        judged.per_event |= {
            "hit_rate": opens.hit,
            "saved_seconds_per_open": opens.saved_s,
            "reward_per_open": opens.reward,
        }
        judged.metrics |= _cost_metrics(self.n_events, seconds, latency, setting.seed, self.draws.tell())
        return judged

    def _past_delays(self, edges: tuple[float, ...]) -> np.ndarray:
        """What a count says of each test event's gap, float64 [n, B]: of the gaps in the training and
        validation part of the fold that tests it, the user's own and everybody's."""
        rows = []
        for fold in self.folds:
            gaps = [
                np.diff(x.t)[decisions(np.concatenate([fold.train[u], fold.validation[u]]))]
                for u, x in enumerate(self.timelines)
            ]
            for u, shares in enumerate(past_shares(gaps, edges)):
                rows.append(np.tile(shares, (len(decisions(fold.test[u])), 1)))
        return np.concatenate(rows)

    def _cases(self, part: Sequence[np.ndarray]) -> list[Case]:
        return cases(self.timelines, self.costs, self.setting.world.rules(), part)

    def _curve(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        n = max(self.n_events, 1)
        column = {name: totals[:, k] / n for k, name in enumerate(FIELDS)}
        return {
            "prewarms_per_open": column["planned"],
            "wasted_per_open": column["wasted"],
            "hit_rate": column["hit"],
            "pollution_rate": column["pollution"],
            "wasted_mb_minutes_per_open": column["wasted_mb_s"] / 60.0,
            "saved_seconds_per_open": column["saved_s"],
            "reward_per_open": totals @ self.reward.weights(FIELDS) / n,
        }


def _differences(
    judged: dict[str, Judged], draws: Draws, others: Sequence[str]
) -> dict[str, dict[str, tuple[str, Estimate]]]:
    """Every policy against the best of `others` in each metric, paired on the same events."""
    out: dict[str, dict[str, tuple[str, Estimate]]] = {name: {} for name in judged}
    for metric in PAIRED:
        counting = [
            (judged[c].per_event[metric].mean(), c)
            for c in others
            if c in judged and metric in judged[c].per_event
        ]
        if not counting:
            continue
        best = max(counting)[1]
        for name, one in judged.items():
            if name != best and metric in one.per_event:
                estimate = draws.difference(one.per_event[metric], judged[best].per_event[metric])
                out[name][metric] = (best, estimate)
    return out


def _cost_metrics(
    n: int, seconds: float, latency: Sequence[float], seed: int, bounded: bool
) -> dict[str, Estimate]:
    """bounded: whether there are intervals at all; those of single decisions are no exception."""
    ms = np.array(latency) if len(latency) else np.full(1, np.nan)
    drawn = np.random.default_rng(seed).choice(ms, (200, len(ms)))

    def quantile(q: float) -> Estimate:
        value = float(np.quantile(ms, q))
        return interval(value, np.quantile(drawn, q, axis=1)) if bounded and len(ms) > 1 else Estimate(value)

    return {
        "decisions_per_second": Estimate(n / max(seconds, 1e-9)),
        "p50_ms": quantile(0.5),
        "p95_ms": quantile(0.95),
        "peak_rss_mb": Estimate(peak_rss_mb()),
    }


def peak_rss_mb() -> float:
    """Peak resident memory of this process so far, MB; NaN on Windows, which does not tell it this way."""
    try:
        import resource
    except ImportError:
        return float("nan")
    per_mb = 2.0**20 if sys.platform == "darwin" else 1024.0  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mb


def _first_opens(timeline: Timeline) -> np.ndarray:
    """bool [n], whether each event is the first opening of its target."""
    first = np.zeros(len(timeline), bool)
    first[np.unique(timeline.target, return_index=True)[1]] = True
    return first


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _finite(x: float) -> float | None:
    return x if np.isfinite(x) else None

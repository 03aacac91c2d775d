"""An evaluation as report sections: what the benchmark's page and the trainers' pages have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rlmemo.evaluation.bootstrap import Estimate
from rlmemo.evaluation.evaluate import BOUNDS, PAIRED, Evaluation, Judged
from rlmemo.evaluation.metrics import BETTER, METRICS
from rlmemo.policies.registry import POLICIES
from rlmemo.report.figures import Axis, Line, Size, curves, heat, intervals
from rlmemo.report.numbers import SHORT, signed, value
from rlmemo.report.page import Page, Section, Table
from rlmemo.report.result import (
    badge,
    best_policy,
    first_figure,
    first_table,
    hits_against_waste,
    result,
    telling,
    where,
)

RANKING = ("hr@1", "hr@3", "hr@5", "mrr@5", "hr@1_macro", "log_loss", "ece", "ece_all", "ece_none", "new_auc")
PREWARMING = (
    "reward_per_open", "saved_seconds_per_open", "oracle_share", "hit_rate", "waste_rate", "pollution_rate",
)  # fmt: skip
HOW = (
    "prewarms_per_open", "coverage", "cold_rate", "base_cold_rate", "kept_rate", "wasted_mb_minutes_per_open",
    "lead_time_median_s",
)  # fmt: skip
COUNT = "a count of the past"
BINS = 10
EVENTS_A_BIN = 50
"""A share of fewer events is known to no better than 14 points either way: too little for a curve."""
CALIBRATION = "Can the probabilities be believed?"
_MANY = (
    "The {n:,} first guesses stand in ten bins of about {each:,}, by how sure the policy was: that against "
    "how often it was right. On the dashed line the two agree; a planner that weighs costs needs that. "
    "Below, the same for every listed target, in twenty bins, and for the probability of none of them."
)
_FEW = (
    "How sure a policy was of its first guess on average, and how often that guess was right; where the two "
    "agree, it can be believed. {n:,} events are too few for a curve, which takes {each:,}: its points would "
    "be mostly luck."
)
IDLE_WINS = ("waste_rate", "pollution_rate")
"""Keeping still is the best at these, so their best is not worth pointing out."""
WHEN = (
    "delay_error_median_s", "memo_score", "delay_log_loss", "delay_gain", "delay_below_median",
    "delay_within_80",
)  # fmt: skip
COST = ("decisions_per_second", "p50_ms", "p95_ms", "peak_rss_mb")


def evaluation_page(evaluation: Evaluation, *, command: str = "") -> Page:
    """The benchmark's page."""
    n = len([name for name in evaluation.policies if name not in BOUNDS])
    of = best_policy(evaluation)
    many = "One policy guesses" if n == 1 else f"{n} policies guess"
    loads = "loads" if n == 1 else "load"
    return Page(
        title=f"What to have warm next: {evaluation.timelines}",
        lead=f"{many} what is opened next and {loads} it ahead: {where(evaluation)}.",
        badge=badge(evaluation),
        result=result(evaluation, of),
        table=first_table(evaluation, of),
        figure=first_figure(evaluation, of),
        facts=facts(evaluation),
        sections=evaluation_sections(evaluation, of),
        command=command,
    )


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Everything that the numbers depend on."""
    setting = evaluation.setting
    s = setting.world
    kind = "synthetic (drawn from a seed; no person did this)" if evaluation.synthetic else "recorded"
    return [
        ("timelines", f"{evaluation.timelines}, {kind}"),
        ("users", ", ".join(f"{u} ({n:,})" for u, n in evaluation.user_events.items())),
        ("split", evaluation.split),
        ("repeats of the same target", "collapsed" if evaluation.collapsed else "kept"),
        ("test events", f"{evaluation.n_events:,}"),
        ("of targets never seen before", f"{100 * evaluation.unseen:.1f} % of the test events"),
        ("memory budget", f"{s.budget:g} typical targets"),
        ("prewarms per plan", f"at most {s.picks}, at once after the event"),
        ("a prewarm expires", f"{s.ttl_s / 60:g} min after it was ready"),
        ("who leaves when room is needed", s.let_go),
        ("targets that a plan may let go first", str(s.let_go_picks)),
        ("cost preset", s.costs),
        ("reward", s.reward),
        (
            "intervals",
            f"95 %, bootstrap over sessions, {setting.replicates:,} draws, seed {setting.seed}",
        ),
        ("computed in", f"{evaluation.seconds:.0f} s"),
    ]


def evaluation_sections(evaluation: Evaluation, of: str | None = None) -> list[Section]:
    """All sections of an evaluation, those that have nothing to show left out. of: the policy that the page
    is about, the best where it is left out."""
    of = of or best_policy(evaluation)
    made = (
        _ranking(evaluation),
        _curve(evaluation),
        _prewarming(evaluation),
        _budgets(evaluation),
        _calibration(evaluation, of),
        _when(evaluation),
        _users(evaluation),
        _paired(evaluation),
        _cost(evaluation),
        _words(evaluation),
    )
    return [section for section in made if section is not None]


def metric_table(
    policies: dict[str, Judged], metrics: Sequence[str], *, caption: str = "", bests: bool = True
) -> Table:
    """Policies down, metrics across, each value over its interval; the best of each column stands out."""
    shown = [
        m
        for m in metrics
        if any(m in j.metrics and np.isfinite(j.metrics[m].value) for j in policies.values())
    ]
    rows, strong = [], set()
    for name, judged in policies.items():
        rows.append([name, *(value(judged.metrics.get(m), m) for m in shown)])
    for c, metric in enumerate(shown, start=1):
        values = [
            j.metrics[metric].value * BETTER[metric]
            if metric in j.metrics and n not in ("oracle", "none")
            else np.nan
            for n, j in policies.items()
        ]
        telling = bests and BETTER[metric] and metric not in IDLE_WINS
        if telling and len(values) > 1 and np.isfinite(values).any():
            strong.add((int(np.nanargmax(values)), c))
    return Table(["policy", *(SHORT.get(m, m) for m in shown)], rows, caption, frozenset(strong))


def _ranking(evaluation: Evaluation) -> Section | None:
    ranked = {n: j for n, j in evaluation.policies.items() if "hr@1" in j.metrics}
    if not ranked:
        return None
    panels = [
        (title, {n: _triple(j.metrics[m]) for n, j in ranked.items()})
        for m, title in (("hr@1", "named first (hr@1)"), ("hr@5", "among five (hr@5)"))
    ]
    return Section(
        "Naming what comes next",
        [
            (
                "How often the target that was opened next stood first, or among the first five, of"
                " a policy's list. The current target never stands in a list, and "
                f"{100 * evaluation.unseen:.1f} % of these events open a target that was never seen "
                "before: a miss for everybody."
            )
        ],
        [
            intervals(panels, alt="Hit rates at one and at five, with 95 % intervals, by policy"),
            metric_table(ranked, RANKING, caption="Small: 95 % interval, bootstrap over sessions."),
        ],
        inside="How often the first guess, or one of the first five, was right",
    )


def _curve(evaluation: Evaluation) -> Section | None:
    drawn = {n: j for n, j in evaluation.policies.items() if j.curve}
    figure = hits_against_waste(evaluation, list(evaluation.policies))
    if not drawn or figure is None:
        return None
    grid = (0.05, 0.1, 0.2, 0.4)
    rows = [[n, *(f"{100 * _at(j.curve, w):.1f} %" for w in grid)] for n, j in drawn.items()]
    strong = {(int(np.argmax([_at(j.curve, w) for j in drawn.values()])), c + 1) for c, w in enumerate(grid)}
    return Section(
        "Hits against waste",
        [
            ("A policy can always hit more by prewarming more. So every policy is drawn over all its "
            "thresholds, and the honest comparison is upwards: hits at equal waste. A large dot is the "
            "threshold that the validation part chose for the reward.")
        ],
        [
            figure,
            Table(
                ["hits per open at …", *(f"{w:g} wasted / open" for w in grid)], rows,
                "Read off the curves by linear interpolation between thresholds.",
                frozenset(strong if len(rows) > 1 else ()),
            ),
        ],
        inside="Who hits more for the same waste: the curve of every policy, and a table",
    )  # fmt: skip


def _prewarming(evaluation: Evaluation) -> Section:
    s = evaluation.setting.world
    thresholds = ", ".join(
        f"{n} {'never' if j.threshold > 1 else f'{j.threshold:.3g}'}"
        for n, j in evaluation.policies.items()
        if np.isfinite(j.threshold)
    )
    notes = [f"Thresholds chosen on validation: {thresholds}."] if thresholds else []
    own = [n for n, j in evaluation.policies.items() if n not in BOUNDS and not np.isfinite(j.threshold)]
    if own:
        notes.append(f"By plans of their own, without a threshold: {', '.join(own)}.")
    return Section(
        "What prewarming brought",
        [
            (
                f"At {s.budget:g} typical targets of memory, at most {s.picks} prewarms per "
                f"plan, costs of the preset {s.costs}. Saved seconds are the waiting in a world "
                "without prewarms minus the waiting in this one, over the same events; they can be "
                "negative, when prewarms push out what was needed."
            )
        ],
        [
            metric_table(evaluation.policies, PREWARMING),
            metric_table(evaluation.policies, HOW, bests=False),
        ],
        notes,
        inside="Saved seconds, hits, waste and reward of every policy, with 95 % intervals",
    )


def _budgets(evaluation: Evaluation) -> Section | None:
    budgets = list(evaluation.setting.budgets)
    names = [n for n, j in evaluation.policies.items() if j.budgets]
    if len(budgets) < 2 or not names:
        return None

    def by(name: str, metric: str, part: str = "value") -> np.ndarray:
        found = evaluation.policies[name].budgets
        return np.array([getattr(found[b][metric], part) for b in budgets])

    def line(name: str, metric: str) -> Line:
        return Line(x, by(name, metric), band=(by(name, metric, "low"), by(name, metric, "high")))

    lines = [n for n in names if n not in ("none", "oracle")]
    x = np.arange(len(budgets))
    rows = [
        [
            n,
            *(
                value(evaluation.policies[n].budgets[b]["reward_per_open"], "reward_per_open")
                for b in budgets
            ),
        ]
        for n in names
    ]
    if not lines:
        return None
    memory = Axis("memory budget, typical targets", names=[f"{b:g}" for b in budgets])
    return Section(
        "More memory, less memory",
        [
            ("Reward per open, and the share of opens that had to be waited for, by how many typical "
            "targets the memory holds; thresholds are chosen anew for each. With much, what would have "
            "helped is warm anyway.")
        ],
        [
            curves(
                {n: line(n, "reward_per_open") for n in lines}, x=memory,
                y=Axis(f"reward per open ({evaluation.setting.world.reward})"),
                alt="Reward per open at each memory budget, one line per policy, shaded 95 % intervals",
            ),
            curves(
                {n: line(n, "cold_rate") for n in names}, x=memory,
                y=Axis("opens that were waited for", percent=True),
                alt="Cold opens at each memory budget, one line per policy, shaded 95 % intervals",
            ),
            Table(["reward per open", *(f"{b:g} targets" for b in budgets)], rows, "Small: 95 % interval."),
        ],
        inside="The reward and the cold opens at other memory budgets",
    )  # fmt: skip


def _calibration(evaluation: Evaluation, of: str) -> Section | None:
    names = [n for n in telling(evaluation, of) if evaluation.policies[n].calibration is not None]
    if not names:
        return None
    n = evaluation.n_events
    bins = min(BINS, n // EVENTS_A_BIN)
    left = len([1 for j in evaluation.policies.values() if j.calibration is not None]) - len(names)
    others = f" The error of the other {left} stands under “Naming what comes next”." if left else ""
    inside = f"How often a guess was right, against how sure the policy was of it ({n:,} events)"
    if bins < BINS:
        return Section(CALIBRATION, [_FEW.format(n=n, each=EVENTS_A_BIN * BINS) + others],
                       [_said_and_right(evaluation, names, max(1, bins))], inside=inside)  # fmt: skip
    figures = []
    for label, alt, of_what in (
        ("probability of the first guess", "the first guess", "calibration"),
        ("probability of a listed target", "every listed target", "calibration_all"),
        ("probability of none of these", "none", "calibration_none"),
    ):
        found = {name: getattr(evaluation.policies[name], of_what) for name in names}
        figures.append(
            curves(
                {name: Line(c.predicted, c.observed) for name, c in found.items() if c is not None},
                x=Axis(label, percent=True), y=Axis("share that was right", percent=True), diagonal=True,
                alt=f"Reliability of {alt} by policy", size=Size(3.2), among=list(evaluation.policies),
            )
        )  # fmt: skip
    return Section(CALIBRATION, [_MANY.format(n=n, each=n // BINS) + others], figures, inside=inside)


def _said_and_right(evaluation: Evaluation, names: Sequence[str], bins: int) -> Table:
    """A row for each policy and bin: what was said, what came true, of how many events."""
    rows = []
    for name in names:
        found = evaluation.policies[name].calibration
        assert found is not None
        for k, part in enumerate(found.merged(bins)):
            said, right, size = part
            rows.append([name if not k else "", f"{100 * said:.0f} %", f"{100 * right:.0f} %", f"{size:.0f}"])
    return Table(["policy", "it was sure to", "it was right in", "of events"], rows)


def _when(evaluation: Evaluation) -> Section | None:
    judged = {n: j for n, j in evaluation.policies.items() if any(m in j.metrics for m in WHEN)}
    if not judged:
        return None
    said = {n: j.delays for n, j in judged.items() if j.delays is not None}
    shown, tables = dict(judged), []
    for k, edges in enumerate(dict.fromkeys(d.edges_s for d in said.values())):
        of = {n: d for n, d in said.items() if d.edges_s == edges}
        first = next(iter(of.values()))
        count = COUNT if k == 0 else f"{COUNT}, {len(edges) + 1} buckets"
        shown[count] = Judged(count, first.past_metrics)
        columns = [first.observed, *(d.predicted for d in of.values()), first.past]
        names = enumerate(_bucket_names(edges))
        rows = [[name, *(f"{100 * c[b]:.1f} %" for c in columns)] for b, name in names]
        caption = "Share of the test events, and the mean probability that was given."
        tables.append(Table(["next open after …", "came true", *of, count], rows, caption))
    paragraphs = [
        "How long until the next open: the error of the one number that a policy names, and MEMO's score."
    ]
    if said:
        paragraphs.append(
            "Who says a distribution over that time is judged by its logarithm, beside a count of the user's"
            " own delays in the training and validation part. Half of the true delays should fall below its"
            " median, and 80 % into its central 80 %."
        )
    return Section(
        "When, not only what",
        paragraphs,
        [metric_table(shown, WHEN, bests=False), *tables],
        inside="How well the time until the next open was foretold",
    )


def _bucket_names(edges_s: Sequence[float]) -> list[str]:
    """Buckets of time in words."""

    def time(s: float) -> str:
        return f"{s:g} s" if s < 120 else f"{s / 60:g} min" if s < 7200 else f"{s / 3600:g} h"

    middle = [f"{time(a)} – {time(b)}" for a, b in pairwise(edges_s)]
    return [f"less than {time(edges_s[0])}", *middle, f"{time(edges_s[-1])} and more"]


def _users(evaluation: Evaluation) -> Section | None:
    ranked = [n for n, j in evaluation.policies.items() if j.per_user]
    users = list(evaluation.user_events)
    if not ranked or len(users) < 2:
        return None
    values = np.array([[evaluation.policies[n].per_user.get(u, np.nan) for n in ranked] for u in users])
    labels = [f"{u} ({evaluation.user_events[u]:,})" for u in users]
    shown = slice(0, 24)
    left = f" The first 24 of {len(users)} users are shown." if len(users) > 24 else ""
    return Section(
        "Person by person",
        ["How often the next target was named first, in per cent, for each person." + left],
        [heat(labels[shown], ranked, values[shown], alt="hr@1 in per cent by person and policy")],
        inside="How often the first guess was right, for each person",
    )


def _paired(evaluation: Evaluation) -> Section | None:
    tables = [
        table
        for found in (evaluation.differences, evaluation.against_gbdt)
        if (table := _difference_table(found)) is not None
    ]
    if not tables:
        return None
    return Section(
        "Differences, paired on the same events",
        [
            (
                "Against the counting policy that is best on the test part in that column (chosen "
                "with hindsight, in its favour). Where the interval leaves out zero, the difference"
                " is more than the luck of these sessions."
            )
        ],
        tables,
        inside="What is more than luck, against the best counting rule and against gbdt",
    )


def _difference_table(found: dict[str, dict[str, tuple[str, Estimate]]]) -> Table | None:
    names = [n for n, by in found.items() if by and n not in ("none", "oracle")]
    if not names:
        return None
    against = {m: a for by in found.values() for m, (a, _) in by.items()}
    metrics = [m for m in PAIRED if m in against]
    rows = [[n, *(signed(found[n][m][1], m) if m in found[n] else "–" for m in metrics)] for n in names]
    return Table(["policy", *(f"{SHORT.get(m, m)} vs {against[m]}" for m in metrics)], rows)


def _cost(evaluation: Evaluation) -> Section | None:
    judged = {n: j for n, j in evaluation.policies.items() if n not in ("none", "oracle")}
    if not judged:
        return None
    return Section(
        "Time, and what it costs to ask",
        [
            (
                "The speed of asking: in one batch, and one decision after another as events come in. "
                "Peak memory is that of the whole process until then."
            )
        ],
        [metric_table(judged, COST, bests=False)],
        inside="Milliseconds a decision, decisions a second, memory",
    )


def _words(evaluation: Evaluation) -> Section:
    used = {m for j in evaluation.policies.values() for m in j.metrics}
    rows = [[SHORT.get(m, m), text] for m, text in METRICS.items() if m in used]
    tables = [Table(["metric", "meaning"], rows, prose=True)]
    if who := [[n, POLICIES[n]] for n in evaluation.policies if n in POLICIES]:
        tables.append(Table(["policy", "what it does"], who, prose=True))
    return Section(
        "What the words mean",
        [
            (
                "Hit: a prewarmed target was opened while warm and would have been cold. Wasted: "
                "expired, evicted or never used. Pollution: an open that was cold only because a "
                "prewarm had pushed the target out. Oracle: what a clairvoyant planner could save "
                "at most, under the same memory and load times. The user's next event is taken not "
                "to depend on what was prewarmed."
            )
        ],
        tables,
        evaluation.notes,
        inside="Every metric, word and policy used here, and what to mind about these data",
    )


def _triple(e: Estimate) -> tuple[float, float, float]:
    return e.value, e.low, e.high


def _at(curve: dict[str, np.ndarray], wasted: float) -> float:
    """Hits per open at that many wasted prewarms per open; the best reached with no more waste."""
    order = np.argsort(curve["wasted_per_open"], kind="stable")
    x, y = curve["wasted_per_open"][order], np.maximum.accumulate(curve["hit_rate"][order])
    return float(np.interp(wasted, x, y))


def report_data(evaluation: Evaluation) -> dict[str, Any]:
    """What `report.json` and `benchmark --json` hold."""
    return dict(evaluation.as_json())

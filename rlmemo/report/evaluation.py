"""An evaluation as report sections: what the benchmark's page and the trainers' pages have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rlmemo.evaluation.bootstrap import Estimate
from rlmemo.evaluation.evaluate import COUNTING, PAIRED, Evaluation, Judged
from rlmemo.evaluation.metrics import BETTER, METRICS
from rlmemo.report.figures import curves, heat, intervals
from rlmemo.report.page import Headline, Page, Section, Table

PERCENT = {
    "hr@1", "hr@3", "hr@5", "hr@1_macro", "hit_rate", "waste_rate", "pollution_rate", "coverage",
    "oracle_share", "delay_below_median", "delay_within_80",
}  # fmt: skip
RANKING = ("hr@1", "hr@3", "hr@5", "mrr@5", "hr@1_macro", "log_loss", "ece", "ece_all", "ece_none", "new_auc")
PREWARMING = (
    "reward_per_open", "saved_seconds_per_open", "oracle_share", "hit_rate", "waste_rate", "pollution_rate",
)  # fmt: skip
HOW = ("prewarms_per_open", "coverage", "wasted_mb_minutes_per_open", "lead_time_median_s")
COUNT = "a count of the past"
IDLE_WINS = ("waste_rate", "pollution_rate")
"""Keeping still is the best at these, so their best is not worth pointing out."""
WHEN = (
    "delay_error_median_s", "memo_score", "delay_log_loss", "delay_gain", "delay_below_median",
    "delay_within_80",
)  # fmt: skip
COST = ("decisions_per_second", "p50_ms", "p95_ms", "peak_rss_mb")
SHORT = {
    "reward_per_open": "reward, s/open",
    "saved_seconds_per_open": "saved, s/open",
    "oracle_share": "share of oracle bound",
    "hit_rate": "hits / open",
    "waste_rate": "wasted / prewarm",
    "pollution_rate": "pollution / open",
    "prewarms_per_open": "prewarms / open",
    "wasted_mb_minutes_per_open": "wasted MB·min/open",
    "lead_time_median_s": "lead time, s",
    "delay_error_median_s": "delay error, s",
    "delay_log_loss": "delay log loss, nats",
    "delay_log_loss_past": "delay log loss of a count, nats",
    "delay_gain": "gain on a count, nats",
    "delay_below_median": "below the median",
    "delay_within_80": "within 80 %",
    "memo_score": "MEMO score",
    "decisions_per_second": "decisions / s",
    "p50_ms": "p50, ms",
    "p95_ms": "p95, ms",
    "peak_rss_mb": "peak RSS, MB",
    "hr@1_macro": "hr@1, user mean",
    "log_loss": "log loss, nats",
    "ece": "calibration error",
    "ece_all": "calibration error, all listed",
    "ece_none": "calibration error, none",
    "new_auc": "new targets foreseen, AUC",
}


def evaluation_page(evaluation: Evaluation, *, command: str = "", title: str = "") -> Page:
    """The benchmark's page."""
    data = "synthetic data" if evaluation.synthetic else "recorded data"
    people = f"{evaluation.n_users} {'person' if evaluation.n_users == 1 else 'people'}"
    return Page(
        title=title or f"Who has the next target warm? {evaluation.timelines}",
        lead=(
            f"{len(evaluation.policies)} policies on the same {evaluation.n_events:,} test events of"
            f" {people}. Each one ranks what may be opened next, and prewarms what it is sure enough"
            " of; the judge replays both worlds, with and without prewarms, and counts what was "
            "saved and what was wasted."
        ),
        badge=data,
        headlines=headlines(evaluation),
        facts=facts(evaluation),
        sections=evaluation_sections(evaluation),
        command=command,
    )


def headlines(evaluation: Evaluation, of: str | None = None) -> list[Headline]:
    """The numbers to remember, each beside what it should be compared with: those of the policy `of`, or
    of whichever is best."""
    found: list[Headline] = []
    for metric, label in (
        ("hr@1", "next target named first"),
        ("hr@5", "next target among five"),
        ("saved_seconds_per_open", "waiting saved per open"),
        ("oracle_share", "of what a clairvoyant could save"),
    ):
        values = {
            n: j.metrics[metric].value
            for n, j in evaluation.policies.items()
            if metric in j.metrics and n != "oracle" and np.isfinite(j.metrics[metric].value)
        }
        if not values or (of is not None and of not in values):
            continue
        best = of if of is not None else max(values, key=lambda n: values[n])
        value = f"{100 * values[best]:.1f} %" if metric in PERCENT else f"{values[best]:.3f} s"
        beside = best
        if metric in evaluation.differences.get(best, {}):
            against, d = evaluation.differences[best][metric]
            beside = f"{best}; {_signed(d, metric)} against {against}"
        elif counting := [n for n in COUNTING if n in values and n != best]:
            other = max(counting, key=lambda n: values[n])
            beside = f"{best}; {other} {_number(values[other], metric)}"
        found.append(Headline(value, label, beside))
    return found


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Everything that the numbers depend on."""
    asked, s = evaluation.setting, evaluation.setting.world
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
        ("cost preset", s.costs),
        ("reward", s.reward),
        (
            "intervals",
            f"95 %, bootstrap over sessions, {asked.replicates:,} draws, seed {asked.seed}",
        ),
        ("computed in", f"{evaluation.seconds:.0f} s"),
    ]


def evaluation_sections(evaluation: Evaluation) -> list[Section]:
    """All sections of an evaluation, those that have nothing to show left out."""
    made = (
        _ranking(evaluation),
        _curve(evaluation),
        _prewarming(evaluation),
        _budgets(evaluation),
        _calibration(evaluation),
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
        rows.append([name, *(_value(judged.metrics.get(m), m) for m in shown)])
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
    )


def _curve(evaluation: Evaluation) -> Section | None:
    drawn = {n: j for n, j in evaluation.policies.items() if j.curve}
    if not drawn:
        return None
    series = {n: (j.curve["wasted_per_open"], j.curve["hit_rate"]) for n, j in drawn.items()}
    marks = {}
    for n, j in evaluation.policies.items():
        if n == "none" or "hit_rate" not in j.metrics:
            continue
        wasted = _of(j, "waste_rate") * _of(j, "prewarms_per_open")
        if not drawn.get(n) and n != "oracle":
            series[n] = (np.array([wasted]), np.array([_of(j, "hit_rate")]))
        if n != "oracle":
            marks[n] = (float(wasted), float(_of(j, "hit_rate")))
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
            curves(
                series, x_label="wasted prewarms per open", y_label="hits per open", marks=marks,
                alt="Hits per open against wasted prewarms per open, one curve per policy",
            ),
            Table(
                ["hits per open at …", *(f"{w:g} wasted / open" for w in grid)], rows,
                "Read off the curves by linear interpolation between thresholds.",
                frozenset(strong if len(rows) > 1 else ()),
            ),
        ],
    )  # fmt: skip


def _prewarming(evaluation: Evaluation) -> Section:
    s = evaluation.setting.world
    thresholds = ", ".join(
        f"{n} {'never' if j.threshold > 1 else f'{j.threshold:.3g}'}"
        for n, j in evaluation.policies.items()
        if np.isfinite(j.threshold)
    )
    notes = [f"Thresholds chosen on validation: {thresholds}."] if thresholds else []
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
    )


def _budgets(evaluation: Evaluation) -> Section | None:
    budgets = list(evaluation.setting.budgets)
    names = [n for n, j in evaluation.policies.items() if j.budgets]
    if len(budgets) < 2 or not names:
        return None

    def column(name: str, metric: str, part: str = "value") -> np.ndarray:
        by = evaluation.policies[name].budgets
        return np.array([getattr(by[b][metric], part) for b in budgets])

    lines = [n for n in names if n not in ("none", "oracle")]
    x = np.arange(len(budgets))
    rows = [
        [
            n,
            *(
                _value(evaluation.policies[n].budgets[b]["reward_per_open"], "reward_per_open")
                for b in budgets
            ),
        ]
        for n in names
    ]
    if not lines:
        return None
    return Section(
        "More memory, less memory",
        [
            ("Reward per open when the budget holds 2, 4, 8 or 16 typical targets; thresholds are "
            "chosen anew for each. With little memory a prewarm pushes out what is needed; with "
            "much, what would have helped is warm anyway.")
        ],
        [
            curves(
                {n: (x, column(n, "reward_per_open")) for n in lines},
                bands={
                    n: (column(n, "reward_per_open", "low"), column(n, "reward_per_open", "high"))
                    for n in lines
                },
                x_label="memory budget, typical targets",
                y_label=f"reward per open ({evaluation.setting.world.reward})",
                alt="Reward per open at each memory budget, one line per policy, shaded 95 % intervals",
                categories=[f"{b:g}" for b in budgets], points=True,
            ),
            Table(["reward per open", *(f"{b:g} targets" for b in budgets)], rows, "Small: 95 % interval."),
        ],
    )  # fmt: skip


def _calibration(evaluation: Evaluation) -> Section | None:
    drawn = {n: j.calibration for n, j in evaluation.policies.items() if j.calibration is not None}
    if not drawn:
        return None
    return Section(
        "Can the probabilities be believed?",
        [
            ("First guesses in ten bins of equal size: how sure the policy was against how often it was "
            "right. On the dashed line the two agree; a planner that weighs costs needs that. Below, "
            "the same for every listed target, in twenty bins, and for the probability of none of them.")
        ],
        [
            curves(
                {n: (c.predicted, c.observed) for n, c in drawn.items()},
                x_label="probability that was given", y_label="share that was right",
                alt="Reliability of the first guess by policy", percent=(True, True), diagonal=True,
                points=True,
            ),
            curves(
                {
                    n: (j.calibration_all.predicted, j.calibration_all.observed)
                    for n, j in evaluation.policies.items()
                    if j.calibration_all is not None
                },
                x_label="probability of a listed target", y_label="share that was right",
                alt="Reliability of every listed target by policy", percent=(True, True), diagonal=True,
                points=True,
            ),
            curves(
                {
                    n: (j.calibration_none.predicted, j.calibration_none.observed)
                    for n, j in evaluation.policies.items()
                    if j.calibration_none is not None
                },
                x_label="probability of none of these", y_label="share in which it was none",
                alt="Reliability of none by policy", percent=(True, True), diagonal=True, points=True,
            ),
        ],
    )  # fmt: skip


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
    return Section("When, not only what", paragraphs, [metric_table(shown, WHEN, bests=False), *tables])


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
    )


def _difference_table(found: dict[str, dict[str, tuple[str, Estimate]]]) -> Table | None:
    names = [n for n, by in found.items() if by and n not in ("none", "oracle")]
    if not names:
        return None
    against = {m: a for by in found.values() for m, (a, _) in by.items()}
    metrics = [m for m in PAIRED if m in against]
    rows = [
        [n, *(_signed(found[n][m][1], m, interval=True) if m in found[n] else "–" for m in metrics)]
        for n in names
    ]
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
    )


def _words(evaluation: Evaluation) -> Section:
    used = {m for j in evaluation.policies.values() for m in j.metrics}
    rows = [[SHORT.get(m, m), text] for m, text in METRICS.items() if m in used]
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
        [Table(["metric", "meaning"], rows, prose=True)],
        evaluation.notes,
    )


def _triple(e: Estimate) -> tuple[float, float, float]:
    return e.value, e.low, e.high


def _of(judged: Judged, metric: str) -> float:
    value = judged.metrics[metric].value if metric in judged.metrics else 0.0
    return value if np.isfinite(value) else 0.0


def _at(curve: dict[str, np.ndarray], wasted: float) -> float:
    """Hits per open at that many wasted prewarms per open; the best reached with no more waste."""
    order = np.argsort(curve["wasted_per_open"], kind="stable")
    x, y = curve["wasted_per_open"][order], np.maximum.accumulate(curve["hit_rate"][order])
    return float(np.interp(wasted, x, y))


def _number(value: float, metric: str) -> str:
    if metric in PERCENT:
        return f"{100 * value:.1f} %"
    if metric in ("decisions_per_second", "peak_rss_mb"):
        return f"{value:,.0f}"
    if metric in ("p50_ms", "p95_ms"):
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    if metric in ("delay_error_median_s", "lead_time_median_s"):
        return f"{value:.0f}"
    if metric == "wasted_mb_minutes_per_open":
        return f"{value:.1f}"
    return f"{value:.3f}"


def _value(e: Estimate | None, metric: str) -> str:
    if e is None or not np.isfinite(e.value):
        return "–"
    text = _number(e.value, metric)
    if e.bounded:
        low, high = _number(e.low, metric).removesuffix(" %"), _number(e.high, metric).removesuffix(" %")
        text += f"\n{low} … {high}"
    return text


def _signed(e: Estimate, metric: str, *, interval: bool = False) -> str:
    def one(x: float) -> str:
        return f"{100 * x:+.1f}" if metric in PERCENT else f"{x:+.3f}"

    unit = " points" if metric in PERCENT and not interval else ""
    text = f"{one(e.value)}{unit}"
    if interval and e.bounded:
        text += f"\n{one(e.low)} … {one(e.high)}"
    return text


def report_data(evaluation: Evaluation) -> dict[str, Any]:
    """What `report.json` and `benchmark --json` hold."""
    return dict(evaluation.as_json())

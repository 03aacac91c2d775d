"""report.html of a run: what each stage brought, the learning curves, then the judge's sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlmemo.evaluation.evaluate import BOUNDS
from rlmemo.learning.no_signal import NO_SIGNAL
from rlmemo.report.evaluation import evaluation_sections, facts
from rlmemo.report.figures import Axis, Line, Size, curves
from rlmemo.report.page import Page, Section, Table
from rlmemo.report.result import WORDS, badge, first_figure, first_table, result, where
from rlmemo.runs.plan_file import BASE
from rlmemo.runs.stages import STAGES, title

if TYPE_CHECKING:
    from rlmemo.evaluation.evaluate import Evaluation
    from rlmemo.learning.config import TrainConfig
    from rlmemo.learning.in_charge import InCharge
    from rlmemo.learning.kept import Kept
    from rlmemo.learning.prepare import Prepared
    from rlmemo.runs.folder import RunFolder


def training_page(
    prepared: Prepared,
    folder: RunFolder,
    evaluation: Evaluation,
    found: dict[str, Any],
    kept: Kept,
    charge: InCharge,
) -> Page:
    """The run's page. kept: which of its adapters the run ended with; charge: who is in charge of it."""
    config, state = prepared.config, folder.state()
    used = charge.stage
    after = {name: f"after {title(name)}" for name in config.stages} | {BASE: f"before: {charge.base}"}
    if kept.stage:
        after[kept.stage] = "not kept"
    taught = [STAGES[s].taught for s in config.stages if s != kept.stage or not kept.early]
    return Page(
        title=f"What to have warm next: {prepared.loaded.name}",
        lead=(
            f"A language model taught by {', then '.join(taught)} on "
            f"{prepared.split.counts()['train']:,} opens{_others(evaluation, config.stages)}: "
            f"{where(evaluation)}."
        ),
        badge=badge(evaluation),
        result=[
            *(f"{said[0].upper()}{said[1:]}." for said in charge.said),
            *result(evaluation, used, called(config, kept, charge)),
            *(f"{said[0].upper()}{said[1:]}." for said in kept.said),
            *_learned_nothing(config.stages, state),
        ],
        table=first_table(evaluation, used, WORDS | after),
        figure=first_figure(evaluation, used),
        facts=[*facts(evaluation), *_run_facts(prepared, state, kept)],
        sections=[
            s
            for s in (
                _stages(config.stages, found, kept),
                _learning(folder, config.shared_stages),
                _plans(state),
            )
            if s is not None
        ]
        + list(evaluation_sections(evaluation, used)),
        command=f"python -m rlmemo.train --config {folder.config_file.name} --out ANOTHER_FOLDER",
    )


def called(config: TrainConfig, kept: Kept, charge: InCharge) -> str:
    """What the run's policy goes by where its result is told."""
    last = config.stages[-1]
    if charge.kept_base:
        return f"The {charge.base}"
    return f"The trained model ({kept.whose if kept.stage == last else last})"


def _learned_nothing(stages: tuple[str, ...], state: dict[str, Any]) -> list[str]:
    """A sentence for each stage that had nothing to learn from."""
    found = {stage: state.get(stage, {}).get("nothing") for stage in stages}
    return [f"{title(stage)} learned nothing: {why}." for stage, why in found.items() if why]


def _others(evaluation: Evaluation, stages: tuple[str, ...]) -> str:
    """How many policies stand beside the trained ones."""
    n = len([name for name in evaluation.policies if name not in (*stages, BASE, *BOUNDS)])
    return f", beside {n} other {'policy' if n == 1 else 'policies'}" if n else ""


def _run_facts(prepared: Prepared, state: dict[str, Any], kept: Kept) -> list[tuple[str, str]]:
    config = prepared.config
    made = [
        ("base model", config.model),
        ("adapter", config.adapter_text),
    ]
    for stage in config.stages:
        found = state.get(stage, {})
        if stage == "users":
            made.append((title(stage), f"{found.get('in_use', 0)} of {found.get('users', 0)} in use"))
            continue
        if "nothing" in found:
            made.append((title(stage), f"learned nothing: {found['nothing']}"))
            continue
        what = STAGES[stage].counts
        amount = found.get(what, 0)
        dropped = f"; not better on validation: {kept.whose} is kept" if stage == kept.stage else ""
        made.append(
            (
                title(stage),
                f"{amount} {what}, {found.get('steps', 0)} updates, {found.get('seconds', 0):.0f} s{dropped}",
            )
        )
    return made


_STAGES_TEXT = (
    "Before and after every stage, on the validation part, which no stage has learned from. The threshold is "
    "chosen on the same events, so its reward here is a little too kind; the test part below has the last "
    "word. Every stage plans by whichever of its two ways does better here; the model as it came then "
    "plans by its shipped threshold, as it would for somebody new."
)

_NOT_SPOKEN = (
    "A text model's own plans are tried once it has learned from plans; before that they stand as –."
)


def _stages(stages: tuple[str, ...], found: dict[str, Any], kept: Kept) -> Section | None:
    rows = []
    for name in ("base", *stages):
        v = found.get(name, {})
        if not v.get("events"):
            continue
        rows.append(
            [
                f"{title(name)} (not kept: {kept.whose})" if name == kept.stage else title(name),
                f"{100 * v['hr@1']:.1f} %",
                f"{100 * v['hr@5']:.1f} %",
                f"{v['log_loss']:.3f}",
                f"{v['threshold']['reward_per_open']:.4f}",
                f"{v['threshold']['theta']:g}",
                f"{v['own']['reward_per_open']:.4f}" if "own" in v else "–",
                "its own" if v["planner"] == "own" else "threshold",
            ]
        )
    if not rows:
        return None
    signal = any(v.get("signal") for v in found.values())
    columns = (
        "stage", "hr@1", "hr@5", "log loss", "reward by threshold", "threshold", "reward of own plans",
        "plans by",
    )  # fmt: skip
    return Section(
        title="What each stage brought",
        text=[
            _STAGES_TEXT,
            *([] if all("own" in v for v in found.values()) else [_NOT_SPOKEN]),
            *([] if signal else [f"Here: {NO_SIGNAL}."]),
        ],
        parts=(Table(columns, rows, caption="validation; rewards per open"),),
        inside="The model before and after each stage, on events that none of them learned from",
    )


def _learning(folder: RunFolder, stages: tuple[str, ...]) -> Section | None:
    figures = []
    for stage in stages:
        rows = folder.logged(stage)
        for key, label in STAGES[stage].curves:
            points = [(r["step"], r[key]) for r in rows if key in r]
            if len(points) > 1:
                x, y = (np.array(c, dtype=float) for c in zip(*points, strict=True))
                name = f"{title(stage)}: {label}"
                figures.append(
                    curves(
                        {name: Line(x, y)},
                        x=Axis("updates"),
                        y=Axis(label),
                        alt=f"{name} over updates",
                        size=Size(2.6),
                    )
                )
    if not figures:
        return None
    return Section(
        title="Learning curves",
        text=("From metrics.jsonl, averaged between two lines.",),
        parts=figures,
        inside="Loss and the like over the updates of each stage",
    )


def _plans(state: dict[str, Any]) -> Section | None:
    found = state.get("plans")
    if not found:
        return None
    names = {
        "none": "keep still", "greedy": "the model's likeliest plan", "sampled": "sampled from the model",
        "top": "its likeliest places at once", "delayed": "its likeliest place, later",
        "slate": "first of the untrained slate", "in charge": "the plan of the policy in charge",
        "one less": "the plan in charge, one prewarm less",
        "one more": "the plan in charge, and one more of the likeliest",
        "opened": "what was opened next, alone or beside the plan in charge",
    }  # fmt: skip
    many = found.get("plans_by_origin", {})
    rows = [
        [names.get(k, k), f"{v:+.4f}", f"{many[k]:,}" if k in many else "–"]
        for k, v in sorted(found["reward_by_origin"].items(), key=lambda kv: -kv[1])
    ]
    text = (
        f"In {found['states']:,} training states, {found['plans']:,} different plans were scored exactly, by "
        f"forking the replay; {found['kept']:,} comparisons were kept. With hindsight the best plan of a "
        f"state is worth {found['best_reward']:.3f} more than keeping still, on average over all states. A "
        "row of the table is the average of one kind of plan, over the states that had such a plan alone: a "
        "kind that stands only where much can be saved may be worth more than the best plan of another."
    )
    return Section(
        title="Where the preferences come from",
        text=[text],
        parts=(Table(("plan", "mean reward over keeping still", "of so many plans"), rows),),
        inside="Which kinds of plans were compared, and what they were worth",
    )

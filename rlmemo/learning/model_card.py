"""README.md of a run: the model card, in the form that the Hugging Face hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmemo.runs.stages import STAGES

if TYPE_CHECKING:
    from rlmemo.evaluation.evaluate import Evaluation
    from rlmemo.learning.in_charge import InCharge
    from rlmemo.learning.kept import Kept
    from rlmemo.learning.prepare import Prepared

METRICS = (
    "hr@1",
    "hr@5",
    "reward_per_open",
    "saved_seconds_per_open",
    "hit_rate",
    "waste_rate",
    "oracle_share",
)


def model_card(
    prepared: Prepared,
    state: dict[str, Any],
    evaluation: Evaluation,
    found: dict[str, Any],
    choice: dict[str, Any],
    kept: Kept,
    charge: InCharge,
) -> str:
    """The card's text (Markdown with a YAML head). kept: which of its adapters the run ended with; charge:
    who is in charge of it."""
    config, reward, events = prepared.config, prepared.reward, sum(map(len, prepared.timelines))
    data = "synthetic timelines" if prepared.loaded.synthetic else "recorded timelines"
    policy = charge.stage
    learned_by = [stage for stage in config.stages if stage != kept.stage or not kept.early]
    head = "\n".join(
        [
            "---",
            f"library_name: {'transformers' if config.peft == 'none' else 'peft'}",
            "license: apache-2.0",
            f"base_model: {'rlmemo/embedded' if config.model == 'embedded' else Path(config.model).name}",
            "pipeline_tag: text-generation",
            "tags: [rlmemo, prewarming, " + config.peft + ", " + ", ".join(learned_by) + "]",
            "---",
        ]
    )
    rows = ["| policy | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, judged in evaluation.policies.items():
        cells = []
        for metric in METRICS:
            e = judged.metrics.get(metric)
            if e is None or not np.isfinite(e.value):
                cells.append("–")
            elif e.bounded:
                cells.append(f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})")
            else:
                cells.append(f"{e.value:.3f}")
        rows.append(f"| {'**' + name + '**' if name == policy else name} | " + " | ".join(cells) + " |")
    stages = []
    for name in ("base", *config.stages):
        v, s = found.get(name, {}), state.get(name, {})
        if v.get("events"):
            made = f", {s['steps']} updates in {s.get('seconds', 0):.0f} s" if "steps" in s else ""
            made += f" (not kept: {kept.whose})" if name == kept.stage else ""
            own = f", {v['own']['reward_per_open']:.4f} by its own plans" if "own" in v else ""
            stages.append(
                f"- `{name}`{made}: validation hr@1 {v['hr@1']:.3f}, reward per open "
                f"{v['threshold']['reward_per_open']:.4f} by threshold{own}"
            )
    learned = {
        name: f"{stage.title} on {state.get(name, {}).get(stage.counts, 0)} {stage.of}"
        for name, stage in STAGES.items()
    }
    users = state.get("users", {})
    learned["users"] = (
        f"an adapter for each of {users.get('users', 0)} users, in use for {users.get('in_use', 0)}"
    )
    learned |= {
        stage: f"{stage.upper()}, which learned nothing ({state[stage]['nothing']})"
        for stage in config.stages
        if "nothing" in state.get(stage, {})
    }
    how = ", then ".join(learned[s] for s in config.stages)
    for said in (*kept.said, *charge.said):
        how += f". {said[0].upper()}{said[1:]}"
    planner = (
        "its own plans, said token by token"
        if choice["planner"] == "own"
        else f"whatever it ranks above p = {choice['threshold']:g}"
    )
    return f"""{head}

# A prewarming policy for {prepared.loaded.name}

A language model{" that was trained" if config.peft == "none" else "'s adapter"} ({config.adapter_text})
that plans, after every opened app or page, what to have warm before it is asked for.
Trained by `python -m rlmemo.train`: {how}.

**Data**: {prepared.loaded.name}, {data}, {len(prepared.timelines)} users, {events} events,
repeats of the same target {"collapsed" if evaluation.collapsed else "kept"}; split {config.split}:
{", ".join(f"{k} {v}" for k, v in prepared.split.counts().items())} events.
**Reward**: {reward.name} ({reward.spec}); costs: {config.costs}; memory for {config.budget:g}
median targets; at most {config.picks} prewarms per plan. **Seed**: {config.seed}.

It plans by {planner} ({
        f"as the {charge.base} does" if charge.kept_base else "chosen on validation"
    }). Use it with `make_policy("THIS_FOLDER")`, or
`python -m rlmemo.benchmark --policies THIS_FOLDER`.

## Test part ({evaluation.n_events} events, 95 % intervals by bootstrap over sessions)

{chr(10).join(rows)}

## Stages, on validation

{chr(10).join(stages)}

## Limits

It was judged by replay: what the user does next does not depend on what was prewarmed. Costs come from a
preset, not from a measurement of a machine. It learned from these people only{
        ", who are invented" if prepared.loaded.synthetic else ""
    }.
"""

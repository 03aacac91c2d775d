"""The hand-worked examples of docs/accounting.md: two prewarms; one let-go; a night and a wake.

    python -m tests.reference.example        # prints the table that stands in the docs

`tests/test_hand_example.py` holds the docs, the readable world, the compiled kernel and the environment to
the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from env.errors import run_main
from env.judge.cost import Costs, WorldConfig
from env.judge.plans import OUTCOME_NAMES, Plans, at_wake
from env.timeline import Event, Timeline
from rlmemo.options import Parser
from tests.reference.world import replay

LET_GO_COLUMNS = ("base_wait_s", "wait_s", "saved_s", "cold", "base_cold", "kept", "pollution")
WAKE_COLUMNS = ("base_wait_s", "wait_s", "saved_s", "planned", "hit", "held_mb_s")
COLUMNS = (
    "base_wait_s", "wait_s", "saved_s", "hit", "late", "redundant", "wasted", "pollution", "held_mb_s",
    "wasted_mb_s",
)  # fmt: skip


def hand_example() -> tuple[Timeline, Costs, WorldConfig, Plans]:
    """Three apps of 400 MB, of which two fit; every app takes 4 s cold, 1 s warm, 3 s to load.

    After event 1 `chat` is prewarmed in 30 s, after event 2 `mail` at once.
    """
    opens = [(0.0, "mail"), (10.0, "editor"), (42.0, "chat"), (100.0, "editor"), (102.0, "chat")]
    timeline = Timeline.from_events("example", [Event(t, target) for t, target in opens])
    same = np.ones(len(timeline.names))
    costs = Costs(memory_mb=400 * same, cold_s=4 * same, warm_s=1 * same, load_s=3 * same)
    config = WorldConfig(budget_mb=1000.0, ttl_s=1800.0, max_picks=1, delays=(0.0, 30.0))
    plans = Plans.empty(len(timeline), 1)
    mail, _, chat = range(3)
    plans.target[1, 0], plans.delay[1, 0] = chat, 1
    plans.target[2, 0], plans.delay[2, 0] = mail, 0
    return timeline, costs, config, plans


def let_go_example() -> tuple[Timeline, Costs, WorldConfig, Plans]:
    """The same apps and room; after event 1 the editor is to leave first."""
    _, costs, config, _ = hand_example()
    opens = [(0.0, "mail"), (10.0, "editor"), (42.0, "chat"), (100.0, "mail"), (130.0, "chat")]
    timeline = Timeline.from_events("example", [Event(t, target) for t, target in opens])
    plans = Plans.empty(len(timeline), 1, 1)
    plans.let_go[1, 0] = 1
    return timeline, costs, config, plans


def wake_example() -> tuple[Timeline, Costs, WorldConfig, Plans]:
    """The same apps and room, off after two hours; after event 1 mail and the editor are asked for at the
    wake."""
    _, costs, config, _ = hand_example()
    opens = [(0.0, "mail"), (10.0, "editor"), (30000.0, "mail"), (30002.0, "editor")]
    timeline = Timeline.from_events("example", [Event(t, target) for t, target in opens])
    two = Costs(costs.memory_mb[:2], costs.cold_s[:2], costs.warm_s[:2], costs.load_s[:2])
    plans = Plans.empty(len(timeline), 2)
    plans.target[1], plans.delay[1] = [0, 1], at_wake(0)
    return timeline, two, replace(config, off_after_s=7200.0), plans


def let_go_table() -> str:
    """The outcome of `let_go_example` as the Markdown table of the docs."""
    return _outcome_table(let_go_example(), LET_GO_COLUMNS)


def wake_table() -> str:
    """The outcome of `wake_example` as the Markdown table of the docs."""
    return _outcome_table(wake_example(), WAKE_COLUMNS)


def _outcome_table(example: tuple[Timeline, Costs, WorldConfig, Plans], columns: tuple[str, ...]) -> str:
    timeline, costs, config, plans = example
    outcomes = replay(timeline, costs, config, plans)
    lines = [
        "| " + " | ".join(["event", "t", "opened", *columns]) + " |",
        "|" + "---|" * (3 + len(columns)),
    ]
    for j, event in enumerate(timeline):
        row = [str(j), f"{event.t:g}", event.target]
        row += [f"{getattr(outcomes, name)[j]:g}" for name in columns]
        lines.append("| " + " | ".join(row) + " |")
    total = [f"{outcomes.total(name):g}" for name in columns]
    return "\n".join([*lines, "| " + " | ".join(["sum", "", "", *total]) + " |"]) + "\n"


def table() -> str:
    """The example's outcome as the Markdown tables of the docs."""
    from reward import parse_reward

    timeline, costs, config, plans = hand_example()
    outcomes = replay(timeline, costs, config, plans)
    reward = parse_reward("net_seconds").per_open(outcomes)
    head = ["event", "t", "opened", *COLUMNS, "net_seconds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for j, event in enumerate(timeline):
        row = [str(j), f"{event.t:g}", event.target]
        row += [f"{getattr(outcomes, name)[j]:g}" for name in COLUMNS] + [f"{reward[j]:.6f}"]
        lines.append("| " + " | ".join(row) + " |")
    total = [f"{outcomes.total(name):g}" for name in COLUMNS]
    lines += ["| " + " | ".join(["sum", "", "", *total, f"{reward.sum():.6f}"]) + " |", ""]
    lines += [
        "| planned after event | prewarm | delay | outcome | MB s held | lead s |",
        "|---|---|---|---|---|---|",
    ]
    for i, k in zip(*np.nonzero(plans.target >= 0), strict=True):
        lead = outcomes.lead_s[i, k]
        row = [
            str(i), timeline.names[plans.target[i, k]], f"{config.delays[plans.delay[i, k]]:g}",
            OUTCOME_NAMES[outcomes.outcome[i, k]], f"{outcomes.prewarm_mb_s[i, k]:g}",
            "" if np.isnan(lead) else f"{lead:g}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    Parser(prog="python -m tests.reference.example", description=__doc__.split("\n")[0]).parse_args()
    print(table(), let_go_table(), wake_table(), sep="\n", end="")


if __name__ == "__main__":
    run_main(main)

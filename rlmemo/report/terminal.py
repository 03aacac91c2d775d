"""The main numbers of an evaluation as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlmemo.evaluate import Evaluation

COLUMNS = (
    ("hr@1", "hr@1", 5), ("hr@3", "hr@3", 5), ("hr@5", "hr@5", 5), ("mrr@5", "mrr@5", 5),
    ("hit_rate", "hits", 7), ("waste_rate", "wasted", 7), ("saved_seconds_per_open", "saved s", 7),
    ("oracle_share", "oracle", 7), ("reward_per_open", "reward", 7),
)  # fmt: skip


def result_table(result: Evaluation) -> str:
    """A row for every policy, and what the numbers depend on."""
    kind = "synthetic" if result.synthetic else "recorded"
    wide = max(len(name) for name in [*result.policies, "policy"])
    lines = [
        (
            f"{result.timelines} ({kind}), split {result.split}, "
            f"{'collapsed' if result.collapsed else 'not collapsed'}, {result.n_events:,} test events of "
            f"{result.n_users} {'user' if result.n_users == 1 else 'users'}"
        ),
        "  ".join([f"{'policy':<{wide}}", *(f"{title:>{width}}" for _, title, width in COLUMNS)]),
    ]
    for name, judged in result.policies.items():
        cells = []
        for metric, _, width in COLUMNS:
            e = judged.metrics.get(metric)
            if e is None or e.value != e.value:
                text = "–"
            elif metric in ("hit_rate", "waste_rate", "oracle_share"):
                text = f"{100 * e.value:.1f} %"
            else:
                text = f"{e.value:.3f}"
            cells.append(f"{text:>{width}}")
        lines.append("  ".join([f"{name:<{wide}}", *cells]))
    setting = result.setting
    lines += [
        "hits and saved seconds per open, wasted per prewarm, oracle: share of the clairvoyant bound",
        (
            f"budget {setting.budget:g} typical targets, at most {setting.max_picks} prewarms, "
            f"costs {setting.cost}, reward {setting.reward}, {result.seconds:.0f} s"
        ),
        *(f"note: {note}" for note in result.notes),
    ]
    return "\n".join(lines)

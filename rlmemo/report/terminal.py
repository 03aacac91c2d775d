"""The main numbers of an evaluation as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlmemo.options import columns, wrapped

if TYPE_CHECKING:
    from rlmemo.evaluation.evaluate import Evaluation

COLUMNS = (
    ("hr@1", "hr@1", 5), ("hr@3", "hr@3", 5), ("hr@5", "hr@5", 5), ("mrr@5", "mrr@5", 5),
    ("hit_rate", "hits", 7), ("waste_rate", "wasted", 7), ("saved_seconds_per_open", "saved s", 7),
    ("oracle_share", "oracle", 7), ("reward_per_open", "reward", 7),
)  # fmt: skip


def result_table(result: Evaluation) -> str:
    """A row for every policy, and what the numbers depend on; where the terminal is too narrow for all the
    columns, tables one below the other."""
    kind = "synthetic" if result.synthetic else "recorded"
    wide = max(len(name) for name in [*result.policies, "policy"])
    lines = [
        wrapped(
            f"{result.timelines} ({kind}), split {result.split}, "
            f"{'collapsed' if result.collapsed else 'not collapsed'}, {result.n_events:,} test events of "
            f"{result.n_users} {'user' if result.n_users == 1 else 'users'}"
        ),
    ]
    for shown in _parts(wide):
        lines.append("  ".join([f"{'policy':<{wide}}", *(f"{title:>{width}}" for _, title, width in shown)]))
        for name, judged in result.policies.items():
            cells = []
            for metric, _, width in shown:
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
        wrapped(
            "hits and saved seconds per open, wasted per prewarm, oracle: share of the clairvoyant bound"
        ),
        wrapped(
            f"budget {setting.world.budget:g} typical targets, at most {setting.world.picks} prewarms, "
            f"costs {setting.world.costs}, reward {setting.world.reward}, {result.seconds:.0f} s"
        ),
        *(wrapped(f"note: {note}", "  ") for note in result.notes),
    ]
    return "\n".join(lines)


def _parts(wide: int) -> list[Sequence[tuple[str, str, int]]]:
    """`COLUMNS`, in as many parts as make each fit beside names that are `wide`; at least one column each."""
    room = columns()
    if room is None:
        return [COLUMNS]
    parts: list[list[tuple[str, str, int]]] = [[]]
    for column in COLUMNS:
        if parts[-1] and wide + sum(2 + w for *_, w in [*parts[-1], column]) > room:
            parts.append([])
        parts[-1].append(column)
    return [*parts]

"""The main numbers of an evaluation as a table for the terminal, and its result in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlmemo.options import columns, wrapped
from rlmemo.report.result import best_policy
from rlmemo.report.result import result as in_words

if TYPE_CHECKING:
    from rlmemo.evaluation.evaluate import Evaluation

RANKING = (("hr@1", "hr@1", 5), ("hr@5", "hr@5", 5), ("mrr@5", "mrr@5", 5))
PREWARMING = (
    ("hit_rate", "hits", 6), ("kept_rate", "kept", 6), ("waste_rate", "wasted", 7),
    ("saved_seconds_per_open", "saved s", 7), ("oracle_share", "oracle", 7), ("reward_per_open", "reward", 6),
)  # fmt: skip


def result_table(result: Evaluation, of: str = "", called: str = "") -> str:
    """A row for every policy, what the numbers depend on, and what came out for the policy `of` (left out:
    the best), under the name `called`; where the terminal is too narrow for all the columns, tables one below
    the other."""
    kind = "synthetic" if result.synthetic else "recorded"
    wide = max(len(name) for name in [*result.policies, "policy"])
    lines = [
        wrapped(
            f"{result.timelines} ({kind}), split {result.split}, "
            f"{'collapsed' if result.collapsed else 'not collapsed'}, {result.n_events:,} test events of "
            f"{result.n_users} {'user' if result.n_users == 1 else 'users'}"
        ),
    ]
    for k, shown in enumerate(_parts(wide)):
        lines += [""] if k else []
        lines.append("  ".join([f"{'policy':<{wide}}", *(f"{title:>{width}}" for _, title, width in shown)]))
        for name, judged in result.policies.items():
            cells = []
            for metric, _, width in shown:
                e = judged.metrics.get(metric)
                if e is None or e.value != e.value:
                    text = "–"
                elif metric in ("hit_rate", "kept_rate", "waste_rate", "oracle_share"):
                    text = f"{100 * e.value:.1f} %"
                else:
                    text = f"{e.value:.3f}"
                cells.append(f"{text:>{width}}")
            lines.append("  ".join([f"{name:<{wide}}", *cells]))
    setting = result.setting
    lines += [
        wrapped(
            "hr@1: how often the first guess was right; hits: opens that were ready because they were loaded "
            "early; kept: because another was let go instead; wasted per prewarm; oracle: share of what a "
            "clairvoyant would save"
        ),
        wrapped(
            f"budget {setting.world.budget:g} typical targets, at most {setting.world.picks} prewarms, "
            f"costs {setting.world.costs}, reward {setting.world.reward}, {result.seconds:.0f} s"
        ),
        *(wrapped(f"note: {note}", "  ") for note in result.notes),
        *(wrapped(said) for said in [in_a_hundred(result, of or best_policy(result), called)] if said),
        "",
        wrapped(" ".join(in_words(result, of or best_policy(result), called))).replace("\u00a0", " "),
    ]
    return "\n".join(lines)


def in_a_hundred(result: Evaluation, of: str, called: str = "") -> str:
    """What was loaded, kept and let go for `of`, in a sentence; nothing where it did neither. called: how to
    name it."""
    found = {name: 100.0 * e.value for name, e in result.policies[of].metrics.items()}
    loaded, kept = found.get("prewarms_per_open", 0.0), found.get("kept_rate", 0.0)
    if not loaded and not kept:
        return ""
    who = called[:1].lower() + called[1:] or of
    return (
        f"in 100 opens {who} loaded {loaded:.1f} early, {found['hit_rate']:.1f} of them hits; kept "
        f"{kept:.1f} by letting others go; and had let go {found['pollution_rate']:.1f} that were needed"
    )


def _parts(wide: int) -> list[list[tuple[str, str, int]]]:
    """All columns; where they do not fit beside names that are `wide`, the ranking above the prewarming, each
    in as many parts as it takes; at least one column each."""
    room = columns()

    def taken(part: Sequence[tuple[str, str, int]]) -> int:
        return wide + sum(2 + w for *_, w in part)

    if room is None or taken([*RANKING, *PREWARMING]) <= room:
        return [[*RANKING, *PREWARMING]]
    parts: list[list[tuple[str, str, int]]] = []
    for group in (RANKING, PREWARMING):
        parts.append([])
        for column in group:
            if parts[-1] and taken([*parts[-1], column]) > room:
                parts.append([])
            parts[-1].append(column)
    return parts

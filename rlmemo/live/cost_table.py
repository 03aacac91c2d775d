"""What was measured, as a table for a terminal, and for a page of docs (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rlmemo.live.starts import Samples

HEAD = (
    "target", "cold, s", "warmed, s", "warm, s", "taken away", "memory, MB", "loading early, s",
    "loading early, MB",
)  # fmt: skip


def shown(found: Sequence[Samples]) -> list[str]:
    """The lines of the table; medians, and (least–most) of the repeats."""
    rows = [HEAD, tuple("---" for _ in HEAD), *(_row(samples) for samples in found)]
    wide = [max(len(row[k]) for row in rows) for k in range(len(HEAD))]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) + " |"
        for row in rows
    ]


def _row(samples: Samples) -> tuple[str, ...]:
    share = samples.taken_away()
    return (
        samples.target,
        *(_spread(x) for x in (samples.cold_s, samples.warmed_s, samples.warm_s)),
        "–" if math.isnan(share) else f"{100 * share:.0f} %",
        f"{samples.memory_mb:.0f}",
        _spread(samples.read_s),
        f"{np.median(samples.read_mb):.{0 if np.median(samples.read_mb) >= 1 else 2}f}",
    )


def _spread(seconds: Sequence[float]) -> str:
    digits = 2 if np.median(seconds) >= 0.1 else 3
    return f"{np.median(seconds):.{digits}f} ({min(seconds):.{digits}f}–{max(seconds):.{digits}f})"

"""What each stage of finished runs brought, on their test part, as one Markdown table.

    python -m experiments.stages_table runs/smollm2 [runs/other ...]

Rows are policies as they stand in `report.json`: the model as it came, after every stage, the last without
its scorer, and the baselines. Seconds are those of the stage itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from env.errors import InputError, run_main
from rlmemo.options import Parser

COLUMNS = ("hr@1", "hr@5", "reward_per_open")


def rows(run: Path) -> list[tuple[str, ...]]:
    """(run, policy, metrics with their intervals, seconds of the stage) of a run. Raises InputError."""
    try:
        told: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
        policies, stages = told["policies"], told["stages"]
        return [
            (
                run.name,
                name,
                *(_cell(found.get(column)) for column in COLUMNS),
                f"{stages[name]['seconds']:.0f}" if "seconds" in stages.get(name, {}) else "",
            )
            for name, found in policies.items()
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: is no finished run ({error}); train one with --out") from None


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    low, high = found["ci95"]
    return f"{found['value']:.3f} [{low:.3f}, {high:.3f}]"


def table(runs: list[Path]) -> str:
    """All of them, in the order that they were given in."""
    head = ("run", "policy", *COLUMNS, "seconds")
    lines = [head, tuple("---" for _ in head), *(row for run in runs for row in rows(run))]
    return "\n".join(f"| {' | '.join(x)} |" for x in lines)


def main() -> int:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.stages_table", description=__doc__)
    top.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    print(table(top.parse_args().runs))
    return 0


if __name__ == "__main__":
    run_main(main)

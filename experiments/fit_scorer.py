"""Fit the shipped scorer: boosted trees that put one number on every candidate (rlmemo.model.scorer).

    python -m experiments.fit_scorer            # writes rlmemo/base/scorer.txt, some minutes on one core

On synthetic personas only (experiments/personas.py). Refitting it changes what every trained model reads:
pre-train anew afterwards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from env.errors import run_main
from experiments.fit_codebook import moments
from rlmemo.model.scorer import WIDE, Scorer, boost, log_loss, right_places, table
from rlmemo.options import Parser

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 40_000_000


def gather(people: int, each: int, first: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows and right places of `each` decisions of `people` personas, and the places of a slate."""
    rows, right, places = [], [], 0
    for i in range(people):
        slates, indices = moments(first + i, WIDE)
        indices = indices[:each]
        places = slates.candidates.shape[1]
        rows.append(table(slates, indices))
        right.append(right_places(slates, indices))
    return np.concatenate(rows), np.concatenate(right), places


def main() -> None:
    parser = Parser(
        description=__doc__,
    )
    parser.add_argument("--personas", type=int, default=1000)
    parser.add_argument("--each", type=int, default=80, help="decisions of each persona")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--lr", type=float, default=0.08)
    parser.add_argument("--out", type=Path, default=ROOT / "rlmemo/base/scorer.txt")
    args = parser.parse_args()
    rows, right, places = gather(args.personas, args.each, FIRST_SEED)
    held_rows, held_right, _ = gather(60, 150, 2_000_000_000)
    booster = boost(
        rows, right, places, seed=0, rounds=args.rounds, held=(held_rows, held_right),
        learning_rate=args.lr, num_leaves=31,
    )  # fmt: skip
    scores = booster.predict(held_rows, raw_score=True).reshape(-1, places + 1)
    print(
        f"{booster.best_iteration} rounds on {len(right)} decisions; {log_loss(scores, held_right):.4f} nats "
        f"a decision on {len(held_right)} of personas that were held out"
    )
    Scorer((booster,)).save(args.out)


if __name__ == "__main__":
    run_main(main)

"""Fit the shipped trees that say what is opened soon (rlmemo.model.soon).

    python -m experiments.fit_soon            # writes rlmemo/base/soon.txt, some minutes on one core

On synthetic personas only (experiments/personas.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from env.errors import run_main
from env.slate.slate import slates_from_columns
from experiments.personas import persona
from rlmemo.model.soon import PLACES, SOON, Soon, candidate_rows, fit, soon_after
from rlmemo.options import Parser

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED, HELD_SEED = 50_000_000, 2_100_000_000


def gather(people: int, each: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all candidates of `each` decisions of `people` personas, and whether they are opened soon."""
    known, soon = [], []
    for seed in range(first, first + people):
        rng = np.random.default_rng(seed)
        n = int(np.exp(rng.uniform(np.log(200), np.log(6000))))
        t, target, site, targets = persona(int(rng.integers(2**31)), n)
        slates = slates_from_columns(t, target, t + 3600.0 * rng.integers(-11, 13), site, targets, PLACES)
        rows = rng.permutation(np.arange(20, n - 1 - SOON))[:each]
        filled = slates.candidates[rows] >= 0
        known.append(candidate_rows(slates, rows)[filled.ravel()])
        soon.append(soon_after(target, slates.candidates, rows)[filled])
    return np.concatenate(known), np.concatenate(soon)


def log_loss(score: np.ndarray, soon: np.ndarray) -> float:
    """Mean nats a candidate of log-odds."""
    return float(np.logaddexp(0.0, np.where(soon, -score, score)).mean())


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--personas", type=int, default=1000)
    parser.add_argument("--each", type=int, default=60, help="decisions of each persona")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "rlmemo/base/soon.txt")
    args = parser.parse_args()
    rows, soon = gather(args.personas, args.each, FIRST_SEED)
    held_rows, held_soon = gather(60, 150, HELD_SEED)
    booster = fit(rows, soon, seed=0, rounds=args.rounds)
    found, share = booster.predict(held_rows, raw_score=True), float(soon.mean())
    always = log_loss(np.full(len(held_soon), np.log(share / (1.0 - share))), held_soon)
    print(
        f"{args.rounds} rounds on {len(soon)} candidates; {log_loss(found, held_soon):.4f} nats a candidate "
        f"on {len(held_soon)} of personas that were held out, {always:.4f} by their share alone"
    )
    Soon(booster).save(args.out)


if __name__ == "__main__":
    run_main(main)

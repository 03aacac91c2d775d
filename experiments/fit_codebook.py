"""Fit the codebook: the four decision trees that turn a candidate's statistics into tokens.

    python experiments/fit_codebook.py            # writes rlmemo/base/codebook.json, about a minute

On synthetic personas only (experiments/personas.py). Refitting it makes every trained model unreadable:
pre-train anew afterwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PERSONAS, ROWS_EACH = 600, 150


def moments(seed: int) -> tuple[Any, np.ndarray]:
    """Slates of one persona and the rows to learn from."""
    from env.slate import SLATE_SIZE, slates_from_columns
    from experiments.personas import persona

    rng = np.random.default_rng(seed)
    n = int(np.exp(rng.uniform(np.log(200), np.log(6000))))
    t, target, site, v = persona(int(rng.integers(2**31)), n)
    slates = slates_from_columns(t, target, t + 3600.0 * rng.integers(-11, 13), site, v, SLATE_SIZE)
    rows = np.arange(20, n - 1)
    return slates, rng.permutation(rows)[:ROWS_EACH]


def main() -> None:
    from sklearn.tree import DecisionTreeClassifier

    from env.slate import SLATE_SIZE
    from rlmemo.policies.codebook import GROUPS, LEAVES
    from rlmemo.policies.reading import statistics

    people = [moments(10_000_000 + i) for i in range(PERSONAS)]
    answer = np.concatenate([s.answer[rows] for s, rows in people])
    here = np.concatenate([s.candidates[rows] >= 0 for s, rows in people]).ravel()
    opened = (np.arange(SLATE_SIZE)[None] == answer[:, None]).ravel()[here]
    book = {}
    for name in GROUPS:
        values = np.concatenate([statistics(s, rows, name) for s, rows in people])[here]
        fitted = DecisionTreeClassifier(
            criterion="log_loss", max_leaf_nodes=LEAVES, min_samples_leaf=500, random_state=0
        ).fit(values, opened)
        tree = fitted.tree_
        share = tree.value[:, 0, 1] / tree.value[:, 0].sum(1)
        log_odds = np.log((share + 1e-4) / (1 - share + 1e-4))
        leaves = np.flatnonzero(tree.children_left < 0)
        order = leaves[np.argsort(log_odds[leaves], kind="stable")]
        number = np.full(tree.node_count, -1)
        number[order] = np.arange(len(order))
        odds = np.zeros(LEAVES)
        odds[: len(order)] = log_odds[order]
        book[name] = {
            "feature": np.where(tree.children_left < 0, -1, tree.feature).tolist(),
            "threshold": [float(np.float32(x)) for x in tree.threshold],
            "left": tree.children_left.tolist(),
            "right": tree.children_right.tolist(),
            "leaf": number.tolist(),
            "log_odds": [round(float(x), 4) for x in odds],
        }
        loss = -(opened * np.log(share[fitted.apply(values)] + 1e-9)).sum() / len(answer)
        print(f"{name}: {len(order)} leaves, {loss:.4f} nats a decision on {len(answer)} decisions")
    (ROOT / "rlmemo/base/codebook.json").write_text(json.dumps(book) + "\n")


if __name__ == "__main__":
    main()

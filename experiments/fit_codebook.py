"""Fit the codebook: the tree that turns a candidate's statistics into a token.

    python -m experiments.fit_codebook            # writes rlmemo/base/codebook.json, about a minute

On synthetic personas only (experiments/personas.py). Refitting it makes every trained model unreadable:
pre-train anew afterwards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from env.slate.slate import SLATE_SIZE
from rlmemo.model.codebook import LEAVES
from rlmemo.options import Parser

ROOT = Path(__file__).resolve().parents[1]

PERSONAS, ROWS_EACH = 1200, 150


def moments(seed: int, size: int = SLATE_SIZE) -> tuple[Any, np.ndarray]:
    """Slates of one persona and the rows to learn from."""
    from env.slate.slate import slates_from_columns
    from experiments.personas import persona

    rng = np.random.default_rng(seed)
    n = int(np.exp(rng.uniform(np.log(200), np.log(6000))))
    t, target, site, v = persona(int(rng.integers(2**31)), n)
    slates = slates_from_columns(t, target, t + 3600.0 * rng.integers(-11, 13), site, v, size)
    rows = np.arange(20, n - 1)
    return slates, rng.permutation(rows)[:ROWS_EACH]


def flatten(tree: dict[str, Any], value: np.ndarray) -> dict[str, Any]:
    """A tree of LightGBM's dump as arrays over nodes, leaves numbered by their value."""
    nodes: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> int:
        at = len(nodes)
        nodes.append({"feature": -1, "threshold": 0.0, "left": -1, "right": -1, "leaf": -1, "value": 0.0})
        if "leaf_value" in node:
            nodes[at]["value"] = float(value[node["leaf_index"]])
        else:
            threshold = float(np.float32(node["threshold"]))
            nodes[at] |= {"feature": node["split_feature"], "threshold": threshold}
            nodes[at]["left"] = walk(node["left_child"])
            nodes[at]["right"] = walk(node["right_child"])
        return at

    walk(tree["tree_structure"])
    leaves = sorted((i for i, x in enumerate(nodes) if x["feature"] < 0), key=lambda i: nodes[i]["value"])
    for number, at in enumerate(leaves):
        nodes[at]["leaf"] = number
    values = [round(nodes[at]["value"], 4) for at in leaves]
    arrays = {k: [x[k] for x in nodes] for k in ("feature", "threshold", "left", "right", "leaf")}
    return arrays | {"log_odds": values + [0.0] * (LEAVES - len(leaves))}


def main() -> None:
    Parser(
        description=__doc__,
    ).parse_args()
    import lightgbm

    from rlmemo.model.slots import statistics

    people = [moments(10_000_000 + i) for i in range(PERSONAS)]
    answer = np.concatenate([s.answer[rows] for s, rows in people])
    here = np.concatenate([s.candidates[rows] >= 0 for s, rows in people]).ravel()
    opened = (np.arange(SLATE_SIZE)[None] == answer[:, None]).ravel()[here]
    values = np.concatenate([statistics(s, rows) for s, rows in people])[here]
    parameters = {
        "objective": "binary", "num_leaves": LEAVES, "learning_rate": 1.0, "min_data_in_leaf": 300,
        "max_delta_step": 2.0, "boost_from_average": False, "verbose": -1, "num_threads": 2, "seed": 0,
        "deterministic": True,
    }  # fmt: skip
    score = np.full(len(opened), np.log(opened.mean() / (1 - opened.mean())))
    # The tree starts from the mean, far from what most of its leaves should say, so its leaves take a few
    # Newton steps (on the same leaves).
    booster = lightgbm.train(parameters, lightgbm.Dataset(values, opened, init_score=score), 1)
    leaf = booster.predict(values, pred_leaf=True).ravel()
    step = np.zeros(LEAVES)
    for _ in range(4):
        p = 1 / (1 + np.exp(-(score + step[leaf])))
        gradient = np.bincount(leaf, opened - p, LEAVES)
        hessian = np.bincount(leaf, p * (1 - p), LEAVES) + 1.0
        step += np.clip(gradient / hessian, -2, 2)
    p = 1 / (1 + np.exp(-(score + step[leaf])))
    loss = -np.where(opened, np.log(p), np.log(1 - p)).sum() / len(answer)
    print(f"{loss:.4f} nats a decision on {len(answer)} decisions")
    book = {"s": flatten(booster.dump_model()["tree_info"][0], step)}
    (ROOT / "rlmemo/base/codebook.json").write_text(json.dumps(book) + "\n")


if __name__ == "__main__":
    run_main(main)

"""LightGBM's boosted trees answered without LightGBM: the same sums to the last bit, in less time.

A decision asks some hundred small trees about seventeen rows, up to three times. Between two decisions a
model was read, so the trees are no longer in a core's caches, and LightGBM's lie in many places. Here they
are five arrays, and a tree is asked about all rows before the next is: half the time in the midst of a stream
of decisions, four fifths on thousands of rows (experiments/LOG.md, "two boosters").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Trees:
    """An ensemble of trees with numerical splits, in one array of nodes.

    child int32 [2 * nodes]: where node k goes on for values up to its threshold (2 k) and above it (2 k + 1);
    a leaf goes on to itself. root int32 [trees]; feature int32 and threshold float64 [nodes]; leaf float64
    [nodes], what a leaf adds to the score.
    """

    root: np.ndarray
    child: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    leaf: np.ndarray

    @classmethod
    def of(cls, booster: Any) -> Trees:
        """Those of a LightGBM booster, up to its best round.

        Raises ValueError where a split is of categories or has a way for missing values: ours have neither.
        """
        text = booster.model_to_string(num_iteration=booster.best_iteration or None)
        root: list[int] = []
        child, feature, threshold, leaf = ([np.zeros(0)] for _ in range(4))
        nodes = 0
        for tree in text.split("\nTree=")[1:]:
            said = dict(line.split("=", 1) for line in tree.split("\n\n")[0].splitlines() if "=" in line)
            values = np.array(said["leaf_value"].split(), np.float64)
            # Bit 0: categories; bits 2 and 3: what stands for a missing value.
            if (_numbers(said, "decision_type") & 0b1101).any():
                raise ValueError("a tree with categories or missing values")
            splits, leaves = len(values) - 1, np.arange(len(values))
            ways = np.stack([_numbers(said, "left_child"), _numbers(said, "right_child")], axis=1).ravel()
            ways = np.where(ways >= 0, ways, splits + ~ways)  # LightGBM writes ~leaf
            child.append(nodes + np.concatenate([ways, np.repeat(splits + leaves, 2)]))
            feature.append(np.concatenate([_numbers(said, "split_feature"), 0 * leaves]))
            threshold.append(np.append(np.array(said.get("threshold", "").split(), np.float64), 0.0 * leaves))
            leaf.append(np.append(np.zeros(splits), values))
            root.append(nodes)
            nodes += splits + len(values)
        return cls(
            np.array(root, np.int32),
            np.concatenate(child).astype(np.int32),
            np.concatenate(feature).astype(np.int32),
            np.concatenate(threshold),
            np.concatenate(leaf),
        )

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Raw scores, float64 [m], of float32 rows [m, columns] without missing values; columns beyond those
        that the trees know are not read."""
        from rlmemo.model.tree_kernel import scores

        return scores(rows, self.root, self.child, self.feature, self.threshold, self.leaf)


class BoosterText:
    """A booster that was written down, and is asked as one of LightGBM's. LightGBM itself is not loaded: with
    all that it brings along if it is there (pandas, scikit-learn, pyarrow) it takes 150 MB, and its trees are
    asked here (`Trees`).

    Raises ValueError for a text that is none, or not all of one.
    """

    best_iteration = -1

    def __init__(self, text: str) -> None:
        head, *trees = text.split("\nTree=")
        said = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
        if not trees or len(trees) != len(said.get("tree_sizes", "").split()):
            raise ValueError("it is not whole")
        if "\nend of trees" not in trees[-1]:
            raise ValueError("it breaks off")
        self._text, self._columns = text, int(said.get("max_feature_idx", "")) + 1

    def num_feature(self) -> int:
        """How many columns its rows have."""
        return self._columns

    def model_to_string(self, num_iteration: int | None = None) -> str:
        """As it was written; all of it, as only the best rounds are written down."""
        return self._text

    def predict(self, rows: np.ndarray, **given: Any) -> np.ndarray:
        """What LightGBM says."""
        import lightgbm as lgb

        return np.asarray(lgb.Booster(model_str=self._text).predict(rows, **given))


def _numbers(said: dict[str, str], name: str) -> np.ndarray:
    return np.array(said.get(name, "").split(), np.int64)

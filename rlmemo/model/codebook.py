"""From statistics to a token: a boosted tree that says what kind of candidate this is.

A language model needs tokens, and every statistic binned by hand into a token of its own makes a slate of
twelve candidates cost a hundred tokens or more. So the bins are fitted: a tree asks of all the statistics
together "is this candidate opened next?", and its leaves are the tokens, sorted by their answer, so that
`s0` is the least and `s255` the most promising. The tree was fitted on synthetic personas by
`experiments/fit_codebook.py` and is stored as plain numbers in `rlmemo/base/codebook.json`; nothing here
is fitted to a recording. (What all the statistics say together in one number is the scorer's part.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

LEAVES = 256


@dataclass(frozen=True)
class Tree:
    """One fitted tree, as arrays over its nodes.

    feature int64 [nodes], index into FEATURES + CONTEXT, -1 at a leaf; threshold float32 [nodes], go left
    when value <= threshold; left, right int64 [nodes]; leaf int64 [nodes], token number at a leaf;
    log_odds float32 [LEAVES], what the leaf adds to the log-odds of "opened next", by token number.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaf: np.ndarray
    log_odds: np.ndarray

    def tokens(self, values: np.ndarray) -> np.ndarray:
        """Token numbers, int64 [m], of float32 values [m, len(FEATURES) + len(CONTEXT)]."""
        from rlmemo.model.tree_kernel import reached

        return self.leaf[reached(values, self.feature, self.threshold, self.left, self.right)]


@lru_cache(maxsize=1)
def load_codebook() -> Tree:
    """The shipped tree."""
    tree = json.loads((files("rlmemo.base") / "codebook.json").read_text())["s"]
    return Tree(
        feature=np.array(tree["feature"], np.int64),
        threshold=np.array(tree["threshold"], np.float32),
        left=np.array(tree["left"], np.int64),
        right=np.array(tree["right"], np.int64),
        leaf=np.array(tree["leaf"], np.int64),
        log_odds=np.array(tree["log_odds"], np.float32),
    )

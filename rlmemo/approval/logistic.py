"""Logistic regression on sparse rows: weighted, with an L2 penalty chosen by cross-validation, calibrated.

Small on purpose: NumPy and SciPy alone, the same bits for the same rows, and saved as JSON (only weights
that are not zero), so that reading a model never runs code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5


@dataclass(frozen=True)
class Logistic:
    """p = sigmoid(slope * (bias + rows @ weights) + shift); slope and shift calibrate (Platt)."""

    weights: np.ndarray
    bias: float
    slope: float = 1.0
    shift: float = 0.0
    penalty: float = 1.0

    def margin(self, rows: Any) -> np.ndarray:
        """Uncalibrated log-odds, float64 [n], of a sparse matrix of rows."""
        found: np.ndarray = np.asarray(rows @ self.weights).ravel() + self.bias
        return found

    def probability(self, rows: Any) -> np.ndarray:
        """Calibrated probabilities, float64 [n]."""
        return _sigmoid(self.slope * self.margin(rows) + self.shift)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the weights that are not zero as {place: weight}."""
        kept = np.flatnonzero(np.abs(self.weights) > 1e-9)
        return {
            "size": len(self.weights),
            "weights": {str(int(i)): float(self.weights[i]) for i in kept},
            "bias": self.bias,
            "slope": self.slope,
            "shift": self.shift,
            "penalty": self.penalty,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Logistic:
        """What `as_json` gave. Raises ValueError, KeyError or TypeError for anything else."""
        weights = np.zeros(int(data["size"]))
        for place, weight in data["weights"].items():
            weights[int(place)] = float(weight)
        rest = [float(data[name]) for name in ("bias", "slope", "shift", "penalty")]
        if not np.isfinite([*weights, *rest]).all():
            raise ValueError("a weight is no finite number")
        return cls(weights, *rest)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def fit(rows: Any, up: np.ndarray, weight: np.ndarray, penalty: float) -> Logistic:
    """Minimise the weighted log loss plus penalty / 2 * |weights|^2 (the bias is free but for a hair).

    rows: sparse [n, size]; up: 0 or 1, [n]; weight: [n], mean about 1. One class alone is allowed: the bias
    is then held by half a made-up row of each.
    """
    from scipy.optimize import minimize

    used = np.unique(rows.indices)
    some = rows.tocsc()[:, used].tocsr()
    y = up.astype(np.float64)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = some @ x[1:] + x[0]
        p = _sigmoid(z)
        value = float((weight * (np.logaddexp(0.0, z) - y * z)).sum() + 0.5 * penalty * (x[1:] @ x[1:]))
        value += 0.5 * float(np.logaddexp(0.0, x[0]) + np.logaddexp(0.0, -x[0]))
        error = weight * (p - y)
        gradient = np.concatenate([[error.sum()], some.T @ error + penalty * x[1:]])
        gradient[0] += float(_sigmoid(x[:1])[0]) - 0.5
        return value, gradient

    found = minimize(loss, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    weights = np.zeros(rows.shape[1])
    weights[used] = found.x[1:]
    return Logistic(weights, float(found.x[0]), penalty=penalty)


def folds_of(groups: np.ndarray, seed: int, folds: int = FOLDS) -> np.ndarray:
    """A fold for every row, int64 [n]; rows of one group stay together."""
    names, place = np.unique(groups, return_inverse=True)
    dealt = np.arange(len(names)) % min(folds, max(2, len(names)))
    fold: np.ndarray = np.random.default_rng([seed, 7]).permutation(dealt)[place]
    return fold


def out_of_fold(
    rows: Any, up: np.ndarray, weight: np.ndarray, penalty: float, fold: np.ndarray
) -> np.ndarray:
    """Each row's margin under a model that has not seen its fold, float64 [n]."""
    margin = np.zeros(len(up))
    for k in np.unique(fold):
        out = fold == k
        margin[out] = fit(rows[~out], up[~out], weight[~out], penalty).margin(rows[out])
    return margin


def log_loss(margin: np.ndarray, up: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean log loss of margins."""
    return float((weight * (np.logaddexp(0.0, margin) - up * margin)).sum() / weight.sum())


def fit_calibrated(
    rows: Any,
    up: np.ndarray,
    weight: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> tuple[Logistic, np.ndarray]:
    """(model, out-of-fold probabilities float64 [n]): the penalty with the least log loss in
    cross-validation, then slope and shift fitted to the out-of-fold margins.

    groups: [n]; rows of one group are never in training and held out at once.
    """
    fold = folds_of(groups, seed)
    if len(np.unique(fold)) < 2:
        model = fit(rows, up, weight, PENALTIES[-1])
        return model, model.probability(rows)
    margins = {penalty: out_of_fold(rows, up, weight, penalty, fold) for penalty in PENALTIES}
    best = min(PENALTIES, key=lambda p: log_loss(margins[p], up, weight))
    slope, shift = platt(margins[best], up, weight)
    model = fit(rows, up, weight, best)
    made = Logistic(model.weights, model.bias, slope, shift, best)
    return made, _sigmoid(slope * margins[best] + shift)


def platt(margin: np.ndarray, up: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(slope, shift) with the least log loss, the slope kept within 0.2 and 3: a handful of ratings must
    neither turn a model round nor make it sure."""
    from scipy.optimize import minimize

    def loss(x: np.ndarray) -> float:
        z = x[0] * margin + x[1]
        prior = 0.5 * (x[0] - 1.0) ** 2 + 0.05 * x[1] ** 2
        return float((weight * (np.logaddexp(0.0, z) - up * z)).sum() + prior)

    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.2, 3.0), (-5.0, 5.0)])
    return float(found.x[0]), float(found.x[1])

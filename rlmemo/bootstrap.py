"""95 % intervals by bootstrap over sessions: whole sessions are drawn with replacement, user by user.

Events within a session hang together, so drawing single events would give intervals that are too
narrow. Every metric is computed from the same draws, so a difference between two policies is paired
on the same events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REPLICATES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; the bounds are NaN where there is too little to draw from."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, object]:
        """`{"value": …, "ci95": [lo, hi]}`, with null for what is not defined."""
        return {"value": _number(self.value), "ci95": [_number(self.low), _number(self.high)]}


class Draws:
    """Draws of sessions, made once and used for every metric.

    groups: int64 [n], the session of each observation, 0..S-1; users: int64 [n], its user, 0..U-1. A
    session belongs to one user. As many sessions are drawn for each user as the user has.
    """

    def __init__(
        self, groups: np.ndarray, users: np.ndarray, *, seed: int = 0, replicates: int = REPLICATES
    ) -> None:
        groups, users = np.asarray(groups, np.int64), np.asarray(users, np.int64)
        if len(groups) != len(users):
            raise ValueError("groups and users must have the same length")
        self.groups = groups
        self.users = users
        self.n_groups = int(groups.max()) + 1 if len(groups) else 0
        self.n_users = int(users.max()) + 1 if len(users) else 0
        owner = np.full(self.n_groups, -1, np.int64)
        owner[groups] = users
        rng = np.random.default_rng(seed)
        self.weights = np.zeros((replicates, self.n_groups), np.float64)
        for user in range(self.n_users):
            mine = np.flatnonzero(owner == user)
            if len(mine):
                self.weights[:, mine] = rng.multinomial(
                    len(mine), np.full(len(mine), 1 / len(mine)), size=replicates
                )
        self._member = np.zeros((self.n_users, self.n_groups))
        for user in range(self.n_users):
            self._member[user, owner == user] = 1.0

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.groups, weights=np.asarray(values, np.float64), minlength=self.n_groups)

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray | None = None) -> Estimate:
        """sum(numerator) / sum(denominator), both float [n]; the mean where no denominator is given.

        The value is NaN where the denominator sums to 0, for example waste per prewarm of a policy
        that never prewarms.
        """
        if denominator is None:
            denominator = np.ones(len(self.groups))
        top, bottom = self._sums(numerator), self._sums(denominator)
        return _estimate(
            float(_divide(top.sum(), bottom.sum())), _divide(self.weights @ top, self.weights @ bottom)
        )

    def macro(self, numerator: np.ndarray) -> Estimate:
        """The mean over users of each user's mean of `numerator` float [n]."""
        top, bottom = self._sums(numerator), self._sums(np.ones(len(self.groups)))
        per_user = _divide(self._member @ top, self._member @ bottom)
        tops = self.weights @ (self._member * top).T
        bottoms = self.weights @ (self._member * bottom).T
        with np.errstate(all="ignore"):
            return _estimate(_mean(per_user), np.array([_mean(row) for row in _divide(tops, bottoms)]))

    def median(self, values: np.ndarray, where: np.ndarray) -> Estimate:
        """The (lower) median of `values` float [m], the m-th belonging to observation `where` int [m]."""
        values, where = np.asarray(values, np.float64), np.asarray(where, np.int64)
        keep = np.isfinite(values)
        values, where = values[keep], where[keep]
        if len(values) == 0:
            return Estimate(float("nan"), float("nan"), float("nan"))
        order = np.argsort(values, kind="stable")
        values, session = values[order], self.groups[where[order]]
        medians = np.full(len(self.weights), np.nan)
        for b, weights in enumerate(self.weights):
            mass = np.cumsum(weights[session])
            if mass[-1] > 0:
                medians[b] = values[np.searchsorted(mass, mass[-1] / 2)]
        return _estimate(float(values[(len(values) - 1) // 2]), medians)

    def difference(self, a: np.ndarray, b: np.ndarray, denominator: np.ndarray | None = None) -> Estimate:
        """Paired difference ratio(a) - ratio(b) over the same observations and the same draws."""
        return self.ratio(np.asarray(a, np.float64) - np.asarray(b, np.float64), denominator)


def session_groups(sessions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join per-user session ids (int [n_u] each) into (groups, users), both int64 [sum n_u], as `Draws`
    wants them; a session is renumbered so that no two users share one."""
    groups, users, base = [], [], 0
    for user, ids in enumerate(sessions):
        _, renumbered = np.unique(ids, return_inverse=True)
        groups.append(renumbered + base)
        users.append(np.full(len(ids), user, np.int64))
        base += int(renumbered.max()) + 1 if len(ids) else 0
    if not groups:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(groups).astype(np.int64), np.concatenate(users)


def _estimate(value: float, replicates: np.ndarray) -> Estimate:
    finite = np.asarray(replicates)[np.isfinite(replicates)]
    if not np.isfinite(value) or len(finite) == 0:
        return Estimate(float(value), float("nan"), float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None

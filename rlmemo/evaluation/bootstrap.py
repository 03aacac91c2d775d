"""95 % intervals by bootstrap over sessions: whole sessions are drawn with replacement, user by user.

Events within a session hang together, so drawing single events would give intervals that are too
narrow. Every metric is computed from the same draws, so a difference between two policies is paired
on the same events. What rests on one session alone has no interval: no draw of it could come out
otherwise, and that says nothing about how it would come out in another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REPLICATES = 1000
MOST_DENSE = 10_000_000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; both bounds are NaN where there is too little to draw from."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def as_json(self) -> dict[str, object]:
        """`{"value": …, "ci95": [lo, hi]}`: null for a value that is not defined, and in place of the list
        where there is no interval."""
        value = float(self.value) if np.isfinite(self.value) else None
        return {"value": value, "ci95": [float(self.low), float(self.high)] if self.bounded else None}

    def text(self, spec: str = ".3f") -> str:
        """`value [low, high]`, `value [–]` without an interval, an en dash without a value."""
        if not np.isfinite(self.value):
            return "–"
        interval = f"{self.low:{spec}}, {self.high:{spec}}" if self.bounded else "–"
        return f"{self.value:{spec}} [{interval}]"


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
        self._varies = (
            np.bincount(owner, minlength=self.n_users)[owner] > 1 if len(groups) else np.zeros(0, bool)
        )
        self._owner = owner

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.groups, weights=np.asarray(values, np.float64), minlength=self.n_groups)

    def tell(self, mass: np.ndarray | None = None) -> bool:
        """Whether draws say anything of an estimate: it rests on two sessions or more, and those drawn can
        come out otherwise than all of them. mass: float [S], what each session brings; None: all count."""
        there = np.ones(self.n_groups, bool) if mass is None else np.asarray(mass) != 0
        return bool(there.sum() > 1 and (there & self._varies).any())

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray | None = None) -> Estimate:
        """sum(numerator) / sum(denominator), both float [n]; the mean where no denominator is given.

        The value is NaN where the denominator sums to 0, for example waste per prewarm of a policy
        that never prewarms. There is no interval where one session alone brings all of the denominator.
        """
        if denominator is None:
            denominator = np.ones(len(self.groups))
        top, bottom = self._sums(numerator), self._sums(denominator)
        value = float(_divide(top.sum(), bottom.sum()))
        return self._estimate(value, _divide(self.weights @ top, self.weights @ bottom), bottom)

    def macro(self, numerator: np.ndarray) -> Estimate:
        """The mean over users of each user's mean of `numerator` float [n]."""
        top, bottom = self._sums(numerator), self._sums(np.ones(len(self.groups)))
        member = self._members()
        per_user = _divide(member @ top, member @ bottom)
        tops, bottoms = (self._by_user(member, x) for x in (top, bottom))
        with np.errstate(all="ignore"):
            means = np.array([_mean(row) for row in _divide(tops, bottoms)])
        return self._estimate(_mean(per_user), means, bottom)

    def _members(self) -> Any:
        """Which session is whose, 0 or 1, [users, sessions]: an array, sparse where it would be large."""
        if self.n_users * self.n_groups <= MOST_DENSE:
            member = np.zeros((self.n_users, self.n_groups))
            member[self._owner, np.arange(self.n_groups)] = 1.0
            return member
        from scipy.sparse import csr_matrix

        at = self._owner, np.arange(self.n_groups)
        return csr_matrix((np.ones(self.n_groups), at), (self.n_users, self.n_groups))

    def _by_user(self, member: Any, values: np.ndarray) -> np.ndarray:
        """Each draw's sum of values (float [sessions]) by user, float64 [draws, users]."""
        if isinstance(member, np.ndarray):
            dense: np.ndarray = self.weights @ (member * values).T
            return dense
        sparse: np.ndarray = (member @ (self.weights * values).T).T
        return sparse

    def median(self, values: np.ndarray, where: np.ndarray) -> Estimate:
        """The (lower) median of `values` float [m], the m-th belonging to observation `where` int [m]."""
        values, where = np.asarray(values, np.float64), np.asarray(where, np.int64)
        keep = np.isfinite(values)
        values, where = values[keep], where[keep]
        if len(values) == 0:
            return Estimate(float("nan"))
        order = np.argsort(values, kind="stable")
        values, session = values[order], self.groups[where[order]]
        medians = np.full(len(self.weights), np.nan)
        for b, weights in enumerate(self.weights):
            mass = np.cumsum(weights[session])
            if mass[-1] > 0:
                medians[b] = values[np.searchsorted(mass, mass[-1] / 2)]
        mass = np.bincount(session, minlength=self.n_groups)
        return self._estimate(float(values[(len(values) - 1) // 2]), medians, mass)

    def difference(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Paired difference ratio(a) - ratio(b) over the same observations and the same draws."""
        return self.ratio(np.asarray(a, np.float64) - np.asarray(b, np.float64))

    def _estimate(self, value: float, replicates: np.ndarray, mass: np.ndarray) -> Estimate:
        return interval(value, replicates) if self.tell(mass) else Estimate(value)


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


def interval(value: float, replicates: np.ndarray) -> Estimate:
    """A value with the 95 % interval of its replicates, float [B]; those that are not finite are left out."""
    finite = np.asarray(replicates)[np.isfinite(replicates)]
    if not np.isfinite(value) or len(finite) == 0:
        return Estimate(float(value))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def interval_of_a_gap(value: float, replicates: np.ndarray) -> Estimate:
    """As `interval`, for a mean of absolute gaps, 0 or more.

    Noise can only add to a gap, and draws add it a second time: their percentiles lie too high, often wholly
    above the value. So they are mirrored at the value (the basic bootstrap, as for calibration errors in
    Kumar, Liang and Ma, "Verified Uncertainty Calibration", 2019), cut off at 0, and made to reach it.
    """
    drawn = interval(value, replicates)
    if not drawn.bounded:
        return drawn
    low, high = 2 * value - drawn.high, 2 * value - drawn.low
    return Estimate(value, max(0.0, min(value, low)), max(value, high))


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")

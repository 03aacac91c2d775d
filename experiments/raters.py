"""Invented people who say what they think of plans, for pre-training: many kinds of taste, none told.

What a person thinks of having one target ready at one hour (`Taste.likes`) is known to the experiment alone;
a model reads the thumbs. Not used by `experiments.closed_loop`, whose people (`experiments.simulated_rater`)
neither pre-training nor tuning has seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from env.thumbs import Thumb, Thumbs

PARTS = 4  # of the day, in which a target may be liked or not


def part(local: np.ndarray | float) -> np.ndarray:
    """The part of the day of local wall-clock seconds, int64."""
    return (np.asarray(local) // 21600 % PARTS).astype(np.int64)


@dataclass(frozen=True)
class Taste:
    """Chances of thumbs up. of: float64 [targets, PARTS], nan where a target is like any other; night:
    hours in which nothing is welcome (from, how many); right, wrong: of a plan with what was opened next, and
    without; still: of keeping still (where nothing listed came next; else); noise: a thumb turned round."""

    of: np.ndarray
    night: tuple[float, float]
    right: float
    wrong: float
    still: tuple[float, float]
    noise: float

    @classmethod
    def drawn(cls, frequency: np.ndarray, rng: np.random.Generator) -> Taste:
        """frequency: float64 [targets], of opening; what is opened more often has opinions sooner."""
        n = len(frequency)
        of = np.full((n, PARTS), np.nan)
        some = rng.choice([0, 1, 3, 6, 12])
        weight = frequency ** rng.choice([0.0, 0.5, 1.0]) + 1e-9
        chosen = rng.choice(n, min(n, some), replace=False, p=weight / weight.sum())
        for target in chosen:
            chance = rng.choice([rng.uniform(0.0, 0.15), rng.uniform(0.85, 1.0)], p=[0.55, 0.45])
            parts = rng.random(PARTS) < 0.5 if rng.random() < 0.3 else np.ones(PARTS, bool)
            of[target, parts] = chance
        hours = float(rng.choice([0.0, 0.0, rng.uniform(3, 8)]))
        return cls(
            of, (float(rng.uniform(0, 24)), hours), float(rng.uniform(0.65, 0.95)),
            float(rng.choice([0.1, 0.3, 0.5, 0.7])), (0.9, float(rng.uniform(0.2, 0.8))),
            float(rng.choice([0.0, 0.05, 0.15])),
        )  # fmt: skip

    def quiet(self, hour: np.ndarray) -> np.ndarray:
        """Whether nothing is welcome at local hours."""
        found: np.ndarray = (hour - self.night[0]) % 24 < self.night[1]
        return found

    def likes(self, target: np.ndarray, local: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The chance of thumbs up of having targets ready that are opened next with probability p, and what
        it were of somebody who is neither for nor against anything: float64, as target [D, K]."""
        usual = p * self.right + (1 - p) * self.wrong
        of = self.of[np.maximum(target, 0), part(local)[:, None]]
        chance = np.where(np.isnan(of), usual, of)
        chance = np.where(self.quiet(local / 3600 % 24)[:, None], 0.05, chance)
        return chance * (1 - 2 * self.noise) + self.noise, usual * (1 - 2 * self.noise) + self.noise

    def thumb(self, plan: np.ndarray, opened: int, local: float, rng: np.random.Generator) -> bool:
        """What is said of one plan, int64 [K] of targets, none for keeping still."""
        quiet = bool(self.quiet(np.array(local / 3600 % 24)))
        of = self.of[plan, int(part(local))]
        if not len(plan):
            chance = self.still[0] if quiet or opened < 0 else self.still[1]
        elif quiet:
            chance = 0.05
        elif np.nanmin(of, initial=1.0) < 0.5:
            chance = float(np.nanmin(of))
        elif not np.isnan(of).all():
            chance = float(np.nanmax(of))
        else:
            chance = self.right if opened in plan else self.wrong
        return bool(rng.random() < chance * (1 - 2 * self.noise) + self.noise)


@dataclass(frozen=True)
class Mind:
    """What somebody likes until a time, unix seconds, and from then on (inf: they never change it)."""

    before: Taste
    after: Taste
    turn: float

    def at(self, t: float) -> Taste:
        """What they like at a time."""
        return self.after if t >= self.turn else self.before


def rated(
    t: np.ndarray, local: np.ndarray, target: np.ndarray, rows: np.ndarray, candidates: np.ndarray,
    p: np.ndarray, mind: Mind, rng: np.random.Generator,
) -> Thumbs:  # fmt: skip
    """Thumbs on plans made at the moments `rows` by a threshold on p (float64 [m, size], of candidates), some
    of one other target, some to keep still."""
    order = np.argsort(-p, axis=1, kind="stable")
    threshold = float(np.exp(rng.uniform(np.log(0.04), np.log(0.5))))
    said: list[Thumb] = []
    stills = rng.random() < 0.5
    for m, row in enumerate(rows.tolist()):
        picks = [k for k in order[m, :3].tolist() if p[m, k] >= threshold and candidates[m, k] >= 0]
        if rng.random() < 0.15:
            picks = rng.choice(np.flatnonzero(candidates[m] >= 0), 1).tolist()
        if not picks and not stills:
            continue
        plan = candidates[m, picks].astype(np.int64)
        opened = int(target[row + 1])
        near = opened if opened in candidates[m] else -1
        up = mind.at(float(t[row])).thumb(plan, opened if len(plan) else near, float(local[row]), rng)
        names = tuple(str(x) for x in plan)
        hit = opened in plan if len(plan) else None
        said.append(Thumb(float(t[row]), int(local[row] // 3600 % 24), up, hit, names))
    return Thumbs.of(said)

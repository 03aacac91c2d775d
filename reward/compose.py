"""Composing terms into a reward: by preset, from the command line, from YAML.

parse_reward("net_seconds")
parse_reward("saved_seconds=1,wasted_mb_minutes=-0.01,rating=0.5")
parse_reward({"preset": "net_seconds", "rating": 1.0})      # a preset with one weight changed
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from reward.terms import TERMS


class RewardError(ValueError):
    """A reward that cannot be composed; the message says what can."""


PRESETS: dict[str, dict[str, float]] = {
    # Everything in seconds of waiting: what was saved, less the price of memory-time and of asking.
    "net_seconds": {
        name: TERMS[name].weight for name in ("saved_seconds", "held_mb_minutes", "planned", "rating")
    },
    # Hit or miss, as the predecessor scored: right 1, right but not in time a half, wrong -1.
    "memo": {"hit": 1.0, "late": 0.5, "wasted": -1.0},
    # Published device constants, in seconds (Pixel 6a): 509 ms saved by a hit, 0.5 ms start-up cost of a
    # miss, 8.4 ms per dispatched action. An open that a prewarm made cold costs what a hit saves.
    "device": {"hit": 0.509, "wasted": -0.0005, "planned": -0.0084, "pollution": -0.509},
}
DEFAULT = "net_seconds"


@dataclass(frozen=True)
class Reward:
    """A weighted sum of terms. terms: (name, weight) in order; spec: how to write it again."""

    name: str
    terms: tuple[tuple[str, float], ...]

    @property
    def spec(self) -> str:
        """The reward as `parse_reward` reads it."""
        return ",".join(f"{name}={weight:g}" for name, weight in self.terms)

    def per_open(self, outcomes: Any) -> Any:
        """The reward of every record: the shape of the record's fields (float64 [n] for `Outcomes`)."""
        total: Any = 0.0
        for name, weight in self.terms:
            total = total + weight * np.asarray(TERMS[name](outcomes), dtype=np.float64)
        return total

    def parts(self, outcomes: Any) -> dict[str, Any]:
        """The weighted parts, by term: what `per_open` adds up."""
        return {n: w * np.asarray(TERMS[n](outcomes), dtype=np.float64) for n, w in self.terms}

    def weights(self, fields: Sequence[str]) -> np.ndarray:
        """Reward per unit of each record field, float64 [len(fields)]: `table @ weights` is the reward.

        Raises RewardError where a term is not linear in the fields.
        """
        eye = np.eye(len(fields))
        probes = np.concatenate([eye, np.zeros((1, len(fields))), eye.sum(0, keepdims=True) * 3.0])
        record = SimpleNamespace(**{field: probes[:, i] for i, field in enumerate(fields)})
        values = np.broadcast_to(self.per_open(record), (len(probes),))
        weights = np.array(values[: len(fields)])
        if values[-2] != 0.0 or not math.isclose(values[-1], 3.0 * weights.sum(), rel_tol=1e-9, abs_tol=1e-9):
            raise RewardError(f"reward {self.spec!r} has a term that is not linear in the outcome")
        return weights


def parse_reward(spec: str | Mapping[str, Any] | Reward | None = None) -> Reward:
    """A reward from a preset's name, a list of `term=weight` (a bare term takes its own weight), or a
    mapping (from YAML) of the same; `preset: NAME` in either starts from that preset.

    Raises RewardError (a ValueError) for an unknown term or preset, and for a weight that is no number.
    """
    if isinstance(spec, Reward):
        return spec
    if spec is None:
        spec = DEFAULT
    if isinstance(spec, str):
        text = spec.strip()
        if text in PRESETS:
            return Reward(text, tuple(PRESETS[text].items()))
        pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
        items: list[tuple[str, Any]] = [(n.strip(), w.strip() if eq else None) for n, eq, w in pairs]
    else:
        items = [(str(n), w) for n, w in spec.items()]
    if not items:
        raise RewardError(f"the reward is empty; {_accepted()}")
    weights: dict[str, float] = {}
    name = "custom"
    for key, value in items:
        if key == "preset" or (value is None and key in PRESETS):
            preset = str(value) if key == "preset" else key
            if preset not in PRESETS:
                raise RewardError(
                    f"reward preset {preset!r} is unknown{_guess(preset, PRESETS)}; {_accepted()}"
                )
            weights = {**PRESETS[preset], **weights}
            name = preset if len(items) == 1 else "custom"
        elif key in PRESETS:
            raise RewardError(
                f"reward preset {key!r} takes no weight; write preset={key} and the terms that change"
            )
        elif key not in TERMS:
            raise RewardError(
                f"reward term {key!r} is unknown{_guess(key, [*TERMS, *PRESETS])}; {_accepted()}"
            )
        else:
            weights[key] = TERMS[key].weight if value is None else _number(key, value)
    return Reward(name, tuple(weights.items()))


def _number(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise RewardError(
            f"reward weight {value!r} of {key!r} is no finite number; write {key}=1.0"
        ) from None
    return number


def _guess(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _accepted() -> str:
    return f"presets: {', '.join(PRESETS)}; terms: {', '.join(TERMS)}"

"""What is said where a run keeps the adapter of an earlier stage or round, as what it learned later was not
better on validation (`--preference-keep best`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmemo.learning.config import TrainConfig
from rlmemo.runs.stages import FIRST, title

UNCHANGED = "training on the ratings left the model unchanged (its plans mind what was said all the same)"


@dataclass(frozen=True)
class Kept:
    """How a run's preferences came out. stage: the one whose adapter was not better, "" where what was
    learned last is kept; whose: the model that is kept in its place, in words; early: whether no round is
    kept at all; said: what to tell of it, a clause each."""

    stage: str = ""
    whose: str = ""
    early: bool = False
    said: tuple[str, ...] = ()


def kept(config: TrainConfig, state: dict[str, Any], *, minding: bool = False) -> Kept:
    """What a finished run (its `state.json`) kept. minding: whether its planner minds the ratings."""
    last, found = config.preference, state.get("kept", {}).get("stage")
    if last is None:
        return Kept()
    names = [f"{last}-{k + 1}" for k in range(config.preference_rounds - 1)] + [last]
    later = names[names.index(found) + 1 :] if found in names else names if found == FIRST else []
    dropped = any("nothing" not in state.get(name, {}) for name in later)
    unchanged = found == FIRST or all("nothing" in state.get(name, {}) for name in names)
    ratings = _ratings(config, state, minding) if config.feedback is not None and unchanged else ()
    if not dropped:
        return Kept(said=ratings)
    called = title(last)
    if found != FIRST:
        k = names.index(found) + 1
        whose = f"the model of round {k}"
        what = f"what {called} learned after round {k} was"
    else:
        before = config.init_adapter
        whose = f"the model of {Path(before).name or before}" if before else f"the {title(FIRST)} model"
        what = f"{called} was" if len(names) == 1 else f"{called}'s {len(names)} rounds were"
    return Kept(last, whose, found == FIRST, (f"{what} not better on validation: {whose} is kept", *ratings))


def _ratings(config: TrainConfig, state: dict[str, Any], minding: bool) -> tuple[str, ...]:
    """That the ratings changed nothing in the model, and where they did count."""
    if config.shared_stages[-1] != config.preference:
        return ()  # a stage after the preferences may have learned from them
    in_use = state.get("users", {}).get("in_use", 0)
    also = [
        *(["the planner minds them"] if minding else []),
        *([f"{in_use} people's own adapters learned from them"] if in_use else []),
    ]
    return (f"{UNCHANGED}{'; ' if also else ''}{' and '.join(also)}",)

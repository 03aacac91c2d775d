"""A readable picture of one moment of the environment: what came, what is warm, what was planned."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from env import kernel
from env.plans import FIELDS

if TYPE_CHECKING:
    from env.prewarm import PrewarmEnv

_BAR = 24


def describe(env: PrewarmEnv) -> str:
    """Several lines of text for the environment's present moment."""
    track, i = env._track, env._i
    timeline, state, budget = track.timeline, track.state, track.rules.budget
    action, record, reward = env._latest
    names, now = timeline.names, float(timeline.t[i])
    outcome = dict(zip(FIELDS, record.tolist(), strict=True))
    local = datetime(1970, 1, 1) + timedelta(seconds=float(timeline.local()[i]))
    steps = f"step {i - env._first} of {env._last - env._first}"
    lines = [f"── {local:%a %Y-%m-%d %H:%M:%S}  user {timeline.user}  {steps}"]
    came = f"opened     {names[timeline.target[i]]}"
    if i > env._first:
        gap = _span(now - float(timeline.t[i - 1]))
        how = _how(outcome, float(track.rules.cost[timeline.target[i], kernel.WARM]))
        came += f"  after {gap}: {how}, waited {outcome['wait_s']:.2f} s"
        if outcome["saved_s"]:
            came += f", saved {outcome['saved_s']:+.2f} s"
        lines.append("planned    " + (_picks(env, action, i - 1) or "nothing"))
    lines.append(came)
    used, held = float(state.reg[kernel.USED]), float(state.reg[kernel.HELD_MB])
    full, hatched = round(_BAR * (used - held) / budget), round(_BAR * held / budget)
    bar = "█" * full + "▒" * hatched
    lines.append(
        f"memory     [{bar[:_BAR]:░<{_BAR}}] {used:.0f} of {budget:.0f} MB; "
        f"{held:.0f} MB prewarmed and not used"
    )
    warm, loading = [], []
    x = int(state.link[len(names), 0])
    while x != len(names):
        ready = float(state.when[x, 1])
        if ready > now:
            loading.append(f"{names[x]} (ready in {_span(ready - now)})")
        else:
            warm.append(names[x] + ("*" if state.link[x, 2] >= 0 else ""))
        x = int(state.link[x, 0])
    lines.append("warm       " + (", ".join(warm) or "nothing") + ("   (* prewarmed)" if held else ""))
    if loading:
        lines.append("loading    " + ", ".join(loading))
    due = sorted(
        (float(state.due_t[k]), int(state.due_code[k]) - kernel.START_CODE)
        for k in range(int(state.ireg[kernel.N_DUE]))
        if state.due_code[k] >= kernel.START_CODE
    )
    if due:
        text = ", ".join(f"{names[track.book.target[n]]} in {_span(at - now)}" for at, n in due)
        lines.append("scheduled  " + text)
    slate = [names[c] for c in track.candidates[i] if c >= 0]
    lines.append("slate      " + (" ".join(f"{k + 1}:{name}" for k, name in enumerate(slate)) or "empty"))
    if i > env._first:
        lines.append(f"reward     {reward:+.3f}   episode {env._total:+.3f}")
    return "\n".join(lines) + "\n"


def _how(outcome: dict[str, float], warm_s: float) -> str:
    if outcome["hit"]:
        return "hit"
    if outcome["late"]:
        return "late"
    if outcome["pollution"]:
        return "cold because a prewarm evicted it"
    return "warm" if outcome["wait_s"] <= warm_s else "cold"


def _picks(env: PrewarmEnv, action: np.ndarray, i: int) -> str:
    track = env._track
    said = []
    for k in range(env.config.max_picks):
        place, bucket = int(action[2 * k]), int(action[2 * k + 1])
        target = int(track.candidates[i, place - 1]) if place else -1
        if target >= 0:
            delay = env.config.delays[bucket]
            said.append(f"{track.timeline.names[target]} {'now' if not delay else 'in ' + _span(delay)}")
    return ", ".join(said)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

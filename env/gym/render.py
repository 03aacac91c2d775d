"""One moment of the environment, as text and as a picture: what came, what is warm, what was planned."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np

from env.judge import state as judge
from env.judge.plans import FIELDS
from env.timeline import utc_offsets

if TYPE_CHECKING:
    from env.gym.tracks import Track
    from env.gym.walk import Walk
    from env.judge.cost import WorldConfig


class Rendered(Protocol):
    """What of the environment (`env.gym.prewarm`) is drawn."""

    config: WorldConfig
    _track: Track
    _walk: Walk
    _last: int
    _latest: tuple[np.ndarray, np.ndarray, float]
    _total: float
    _size: int


_BAR = 24
SIZE = (240, 320)
"""Height and width of a picture, pixels."""
_COLORS = {
    "paper": (250, 250, 247), "free": (226, 228, 232), "front": (104, 116, 132), "held": (228, 132, 46),
    "cold": (196, 200, 206), "warm": (60, 160, 92), "loading": (236, 196, 60), "scheduled": (86, 142, 214),
    "hit": (60, 160, 92), "late": (236, 196, 60), "open warm": (104, 116, 132), "open cold": (200, 62, 58),
    "pollution": (128, 30, 90), "gain": (60, 160, 92), "loss": (200, 62, 58), "ink": (40, 44, 52),
}  # fmt: skip


def describe(env: Rendered) -> str:
    """Several lines of text for the environment's present moment."""
    track, i = env._track, env._walk.i
    timeline, state, budget = track.timeline, track.walk.state, track.rules.budget
    action, record, reward = env._latest
    names, now = timeline.names, env._walk.now
    outcome = dict(zip(FIELDS, record.tolist(), strict=True))
    offset = float(utc_offsets(np.array([now]), timeline.tz)[0])
    local = datetime(1970, 1, 1) + timedelta(seconds=now + offset)
    steps = f"step {i - env._walk.first} of {env._last - env._walk.first}"
    lines = [f"── {local:%a %Y-%m-%d %H:%M:%S}  user {timeline.user}  {steps}"]
    came = f"opened     {names[timeline.target[i]]}"
    if env._walk.woken:
        came = "back       the machine was off, and nothing is opened yet"
        lines.append("planned    " + (_picks(env, action) or "nothing"))
    elif i > env._walk.first:
        gap = _span(now - float(timeline.t[i - 1]))
        how = _how(outcome, float(track.rules.cost[timeline.target[i], judge.WARM]))
        came += f"  after {gap}: {how}, waited {outcome['wait_s']:.2f} s"
        if outcome["saved_s"]:
            came += f", saved {outcome['saved_s']:+.2f} s"
        lines.append("planned    " + (_picks(env, action) or "nothing"))
        if goes := [names[x] for x in state.ireg[judge.MARKS :] if x >= 0]:
            lines.append("let go     " + ", ".join(goes) + " first")
    lines.append(came)
    used, held = float(state.reg[judge.USED]), float(state.reg[judge.HELD_MB])
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
        (float(state.due_t[k]), int(state.due_code[k]) & judge.NUMBER)
        for k in range(int(state.ireg[judge.N_DUE]))
        if state.due_code[k] >= judge.START_CODE
    )
    if due:
        text = ", ".join(f"{names[track.walk.book.target[n]]} in {_span(at - now)}" for at, n in due)
        lines.append("scheduled  " + text)
    slate = [names[c] for c in env._walk.listed if c >= 0]
    lines.append("slate      " + (" ".join(f"{k + 1}:{name}" for k, name in enumerate(slate)) or "empty"))
    if i > env._walk.first or env._walk.woken:
        lines.append(f"reward     {reward:+.3f}   episode {env._total:+.3f}")
    return "\n".join(lines) + "\n"


def picture(env: Rendered) -> np.ndarray:
    """The present moment as uint8 `SIZE` + (3,), without words.

    From above: how the target that was just opened came (green: a hit, yellow: late, grey: warm anyway, red:
    cold, purple: cold because a prewarm evicted it); the memory (grey: held by what was opened, orange: by
    prewarms not yet used, light: free); a row for every place of the slate (grey: cold, green: warm, yellow:
    loading, blue: scheduled; a dark mark on its left: just planned; its length: how often it was opened); the
    last reward, to the right of the middle in green or to its left in red, a bar of half the width for 5 s.
    """
    track, i = env._track, env._walk.i
    state, budget = track.walk.state, track.rules.budget
    height, width = SIZE
    image = np.empty((height, width, 3), np.uint8)
    image[:] = _COLORS["paper"]

    def box(top: int, bottom: int, left: float, right: float, color: str) -> None:
        image[top:bottom, round(left) : max(round(left), round(right))] = _COLORS[color]

    edge, inner = 8, width - 16
    action, record, reward = env._latest
    if i > env._walk.first and not env._walk.woken:
        outcome = dict(zip(FIELDS, record.tolist(), strict=True))
        how = _how(outcome, float(track.rules.cost[track.timeline.target[i], judge.WARM]))
        known = {"hit": "hit", "late": "late", "warm": "open warm", "cold": "open cold"}
        box(8, 28, edge, edge + inner, known.get(how, "pollution"))
    used, held = float(state.reg[judge.USED]), float(state.reg[judge.HELD_MB])
    front = edge + inner * min(1.0, (used - held) / budget)
    box(36, 56, edge, edge + inner, "free")
    box(36, 56, edge, front, "front")
    box(36, 56, front, min(edge + inner, front + inner * held / budget), "held")

    size = env._size
    out = np.empty(env._walk.width, np.float32)
    env._walk.observe(out)
    warm, loading, scheduled = out[:size], out[size : 2 * size], out[2 * size : 3 * size]
    opened = np.bincount(track.timeline.target[: i + 1], minlength=len(track.timeline.names))
    begun = i > env._walk.first or env._walk.woken
    asked = {
        int(env._walk.asked[p - 1]) for p in action[: 2 * env.config.max_picks : 2].tolist() if p and begun
    }
    pitch = (height - 64 - 32) / size
    for k, target in enumerate(env._walk.listed.tolist()):
        if target < 0:
            continue
        top, bottom = 64 + round(k * pitch), 64 + max(round(k * pitch) + 1, round((k + 1) * pitch) - 2)
        kind = "loading" if loading[k] else "warm" if warm[k] else "scheduled" if scheduled[k] else "cold"
        long = 12 + (inner - 20) * opened[target] / max(1, opened.max())
        box(top, bottom, edge + 8, edge + 8 + long, kind)
        if target in asked:
            box(top, bottom, edge, edge + 5, "ink")

    middle = width / 2
    reach = middle + inner / 2 * float(np.clip(reward / 5.0, -1.0, 1.0))
    box(height - 24, height - 8, min(middle, reach), max(middle, reach), "gain" if reward > 0 else "loss")
    box(height - 28, height - 4, middle - 1, middle + 1, "ink")
    return image


def _how(outcome: dict[str, float], warm_s: float) -> str:
    if outcome["hit"]:
        return "hit"
    if outcome["late"]:
        return "late"
    if outcome["pollution"]:
        return "cold because a prewarm evicted it"
    return "warm" if outcome["wait_s"] <= warm_s else "cold"


def _picks(env: Rendered, action: np.ndarray) -> str:
    track = env._track
    said = []
    for k in range(env.config.max_picks):
        place, bucket = int(action[2 * k]), int(action[2 * k + 1])
        target = int(env._walk.asked[place - 1]) if place else -1
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

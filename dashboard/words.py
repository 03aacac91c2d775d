"""Plain words for what is in the store: moments, gaps, plans and outcomes as a person would say them.

Everything here returns plain text. Names of targets and users come from recordings and are untrusted:
`shown` makes them fit for one line, and whoever puts them on a page escapes them (`dashboard.look`).
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from env.timeline import zone
from rlmemo.store.waiting import Told

if TYPE_CHECKING:
    from rlmemo.store.records import Prediction

LONGEST = 48

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(name: object, longest: int = LONGEST) -> str:
    """`name` on one line, without control or direction-changing characters, at most `longest` long."""
    kept = (" " if unicodedata.category(c) in _HIDDEN else c for c in str(name))
    text = " ".join("".join(kept).split()) or "(no name)"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def moment(t: float, tz: str) -> str:
    """The local time of `t` (unix seconds): 'Tuesday 14 May 2019, 09:42'."""
    local = datetime.fromtimestamp(t, UTC).astimezone(zone(tz))
    return f"{local:%A} {local.day} {local:%B %Y, %H:%M}"


def span(seconds: float) -> str:
    """A length of time: '8 s', '5 min', '2 h', '3 days'."""
    seconds = abs(seconds)
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    days = round(seconds / 86400)
    return f"{days} day{'s' if days != 1 else ''}"


def fine_span(seconds: float) -> str:
    """A length of time with its smaller unit, for two that are compared: '3 min 12 s', '2 h 5 min'."""
    whole = round(abs(seconds))
    if whole < 60:
        return span(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def delay(seconds: float) -> str:
    """When a prewarm starts, counted from the moment: 'right away', 'in 5 min'."""
    return "right away" if seconds <= 0 else f"in {span(seconds)}"


OUTCOME_WORDS = {
    "hit": "was ready in time",
    "late": "was still loading",
    "redundant": "was warm anyway",
    "wasted": "was not needed",
}
"""What became of one prewarm, for someone who does not know the words of DESIGN section 2."""


LATER = "What else became of it is told later, on Your votes: another card is about the time right after it."
"""Said instead of what became of a plan, while telling it would give an answer away."""


def outcome_sentences(prediction: Prediction, told: Told = Told.ALL) -> list[str]:
    """What really happened after a prediction, one fact a line; empty while it is not known. told: no more
    than that, and why."""
    outcome = prediction.outcome
    if not outcome:
        return []
    if told is Told.NOTHING:
        return ["What happened is told once the other predictions of this moment are rated."]
    lines = []
    if outcome.get("next_target") is not None:
        after = span(float(outcome["next_t"]) - prediction.t)
        lines.append(f"{shown(outcome['next_target'])} was opened {after} later.")
    else:
        lines.append("Nothing was opened after that.")
    if told is Told.NEXT:
        return [*lines, LATER]
    results = outcome.get("prewarms") or []
    for pick, result in zip(prediction.plan, results, strict=False):
        if result == "wasted" and pick.target == outcome.get("next_target"):
            lines.append(f"{shown(pick.target)} was no longer ready by then.")
        elif result in OUTCOME_WORDS:
            lines.append(f"{shown(pick.target)} {OUTCOME_WORDS[result]}.")
    pushed_out = outcome.get("pushed_out") or []
    if pushed_out:
        lines.append(
            f"{', '.join(map(shown, pushed_out))} had left memory for it, and had to be loaded again."
        )
    saved = outcome.get("saved_s")
    if saved is not None and abs(saved) >= 0.05:
        lines.append(f"The plan {'saved' if saved > 0 else 'added'} {span(saved)} of waiting.")
    return lines


def count(n: int, one: str) -> str:
    """'1 prediction', '1,200 predictions'."""
    return f"{n:,} {one if n == 1 else one + 's'}"


def sentence(note: str) -> str:
    """A note with its full stop. It may begin with a policy's name, which stays as it is."""
    return note if note.endswith((".", "!", "?", "…")) else f"{note}."

"""What a person has said, as it goes from a device to a server: all of it, in place of what was sent before.

So it may be sent again, or late, and what was taken back is gone. One word tells whether both sides have the
same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from env.thumbs import Thumb, Thumbs

MOST, MOST_CHARACTERS = 4000, 900_000
"""So many of the latest are sent, in so many characters; of what was said before hardly anything counts (a
thumb fades with newer ones)."""

Sent = list[dict[str, Any]]
"""Thumbs as JSON, in the order in which they were given: hour, up, hit (None: not known), targets."""


def sent_of(thumbs: Thumbs | None, name: Callable[[str], str]) -> Sent:
    """What is sent of thumbs. name: what a target is called there."""
    if thumbs is None:
        return []
    columns = zip(thumbs.hour, thumbs.up, thumbs.hit, thumbs.targets, strict=True)
    made: Sent = []
    left = MOST_CHARACTERS
    for hour, up, hit, targets in reversed(list(columns)):
        one = {
            "hour": int(hour), "up": bool(up), "hit": None if math.isnan(hit) else bool(hit),
            "targets": [name(x) for x in targets],
        }  # fmt: skip
        left -= len(json.dumps(one)) + 2
        if left < 0 or len(made) == MOST:
            break
        made.append(one)
    return made[::-1]


def thumbs_of(sent: Sequence[dict[str, Any]]) -> Thumbs | None:
    """What was sent; it counts at every moment from now on. None where nothing was said."""
    if not sent:
        return None
    return Thumbs.of(Thumb(-math.inf, x["hour"], x["up"], x["hit"], tuple(x["targets"])) for x in sent)


def digest(sent: Sequence[dict[str, Any]]) -> str:
    """A word that stands for it, "" for nothing."""
    if not sent:
        return ""
    return hashlib.sha256(json.dumps(list(sent), sort_keys=True).encode()).hexdigest()[:24]

"""What the times of a file say of their users' time zones, and what is made of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from env.sources.clock import fixed_zone, offset_name
from env.sources.rows import Rows


@dataclass
class Zones:
    """Per user, the zones (IANA names) and offsets (seconds) that the times stated; None for times that
    stated neither."""

    said: dict[str, set[str | int | None]] = field(default_factory=dict)

    def add(self, user: str, named: str, offset: int | None) -> None:
        """Note what one time of `user` stated."""
        told = named or offset
        known = self.said.get(user)
        if known is None:
            self.said[user] = {told}
        elif told not in known:
            known.add(told)

    def settle(self, rows: Rows, tz: str | None) -> tuple[dict[str, str], dict[str, bool], list[str]]:
        """(zone of each user, whether it is known, notes).

        `tz` goes for all. Without it, a user whose times all name one zone has that, one whose times all
        state one offset has a zone with that offset. Offset 0 is how UTC is written, and says nothing of
        where somebody is. Offsets that change belong to a zone, but which one is not guessed.
        """
        if tz is not None:
            return dict.fromkeys(self.said, tz), dict.fromkeys(self.said, True), []
        zones, known = {}, {}
        fixed: Counter[str] = Counter()
        changing: dict[str, list[int]] = {}
        t, user = np.frombuffer(rows.t, np.float64), np.frombuffer(rows.user, np.int32)
        for who, told in self.said.items():
            only = next(iter(told)) if len(told) == 1 else None
            offsets = sorted(x for x in told if isinstance(x, int) and x)
            zone = only if isinstance(only, str) else None
            if isinstance(only, int) and only:
                zone = fixed_zone(only, t[user == rows.users[who]])
                if zone is not None:
                    fixed[f"{offset_name(only)} ({zone})"] += 1
            if zone is None and offsets:
                changing[who] = offsets
            zones[who], known[who] = zone or "UTC", zone is not None
        notes = []
        if fixed:
            whose = ", ".join(f"{name} of {_people(n)}" for name, n in fixed.items())
            notes.append(f"local hours by the offset in the file: {whose}; give --tz to name the zone")
        names = sorted({z for w, z in zones.items() if known[w] and not z.startswith("Etc/")})
        named = [z for z in names if any(z in told for told in self.said.values())]
        if named:
            notes.append(f"local hours by the time zone that the file names: {', '.join(named)}")
        if changing:
            who, offsets = next(iter(changing.items()))
            more = f" and {len(changing) - 1} more" if len(changing) > 1 else ""
            notes.append(
                f"the offsets in the file ({', '.join(map(offset_name, offsets))} of {who}{more}) give the "
                "times and are not used for local hours; give --tz to name the zone"
            )
        if not all(known.values()):
            some = "" if not any(known.values()) else f" of {_people(sum(not x for x in known.values()))}"
            notes.append(
                f"the time zone{some} is not known: hours and weekdays are in UTC; give --tz to set one"
            )
        return zones, known, notes


def _people(n: int) -> str:
    return "1 user" if n == 1 else f"{n:,} users"

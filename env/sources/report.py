"""What an importer hands back: timelines, and an account of every row that it read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from env.timeline import Timeline


@dataclass
class ImportReport:
    """The account of one import. Every row is in exactly one place:
    `rows_read == kept + collapsed + offs + wakes + sum(dropped.values())`.

    rows_read  data rows in the source (a header is no row)
    kept       events in the timelines that were handed back
    collapsed  consecutive opens of the same target, dropped by the collapse rule
    offs       rows that say when the machine was switched off; no events
    wakes      rows that say when it was back
    dropped    reason → rows that became no event
    changed    reason → rows that were kept with something put right (sorted, shortened, …)
    first      reason → where it happened first ("line 7: 'abc'")
    notes      what a reader of numbers made from these timelines should know
    first_day  the local date of the first event of all users ("2026-03-02"), "" where there is none;
               a clock that was read wrongly shows here
    last_day   that of the last event
    """

    source: str
    rows_read: int = 0
    kept: int = 0
    collapsed: int = 0
    offs: int = 0
    wakes: int = 0
    users: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    first_day: str = ""
    last_day: str = ""

    def drop(self, reason: str, where: str = "", count: int = 1) -> None:
        """Count `count` rows that became no event."""
        if count:
            self.dropped[reason] += count
            if where:
                self.first.setdefault(reason, where)

    def change(self, reason: str, where: str = "", count: int = 1) -> None:
        """Count `count` rows that were kept with something put right."""
        if count:
            self.changed[reason] += count
            if where:
                self.first.setdefault(reason, where)

    def lines(self) -> list[str]:
        """The report for a person, one fact per line."""
        dropped = sum(self.dropped.values())
        people = "1 user" if self.users == 1 else f"{self.users:,} users"
        head = (
            f"{self.source}: {self.rows_read:,} rows read, {self.kept:,} kept as events of {people}, "
            f"{self.collapsed:,} collapsed, {dropped:,} dropped"
        )
        out = [head]
        if self.first_day:
            out.append(f"  from {self.first_day} to {self.last_day} (local dates)")
        for label, counts in (("dropped", self.dropped), ("changed", self.changed)):
            for reason, count in counts.most_common():
                where = f" (first: {self.first[reason]})" if reason in self.first else ""
                out.append(f"  {label} {count:,}: {reason}{where}")
        return out + [f"  note: {note}" for note in self.notes]

    def as_dict(self) -> dict[str, object]:
        """The report for a machine: plain dicts, lists, strings and ints."""
        return {
            "source": self.source,
            "rows_read": self.rows_read,
            "kept": self.kept,
            "collapsed": self.collapsed,
            "offs": self.offs,
            "wakes": self.wakes,
            "users": self.users,
            "first_day": self.first_day or None,
            "last_day": self.last_day or None,
            "dropped": dict(self.dropped),
            "changed": dict(self.changed),
            "first": dict(self.first),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Loaded:
    """Timelines and where they came from. `synthetic` is True for what no person ever did: say so
    wherever a number made from it is shown."""

    name: str
    timelines: list[Timeline]
    report: ImportReport
    synthetic: bool = False

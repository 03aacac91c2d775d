"""Events and timelines: the columnar record of what one person opened, and when.

A `Timeline` is one user's events in time order. It is stored in columns (NumPy arrays), because the
environment, the slate and the policies all walk over it by index; `Event` is the row view.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from env.thumbs import Thumbs

KINDS = ("app", "page", "file")
SWITCHES = ("off", "wake")
"""What a recording may tell beside openings: the machine was switched off, and it was back."""


@dataclass(frozen=True, slots=True)
class Event:
    """One recorded opening.

    t: unix seconds, UTC. target: app id, or page reduced to its host. kind: one of `KINDS`.
    duration: seconds in the foreground, or None. device: free text, or None.
    """

    t: float
    target: str
    kind: str = "app"
    duration: float | None = None
    device: str | None = None


def _never() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True)
class Timeline:
    """One user's events in time order, with the user's time zone.

    t          float64 [n], unix seconds, UTC, non-decreasing
    target     int32 [n], index into `names`
    names      target names in order of first appearance (so `names[: target[:i].max() + 1]` is what
               had been seen before event i, and nothing later can be read off an index)
    kind       int8 [n], index into `KINDS`
    duration   float64 [n], seconds, NaN where unknown
    device     int16 [n], index into `devices`, -1 where unknown
    wave       int16 [n], recording wave, 0 where the source has none
    tz         IANA name of the user's time zone
    tz_known   False when `tz` is a stated default, not something the source recorded
    collapsed  True once consecutive opens of the same target have been dropped
    now        float64 [n], when the moment after each event is looked at, unix seconds: later than `t` at a
               wake (None: right after every event)
    offs       float64 [O], when the machine was switched off, as recorded, unix seconds, ascending; no events
    wakes      float64 [W], when it was back. One that no off stands before says that it was off until then
    thumbs     what this person said of what was shown to them (None: nothing); no part of the recording
    """

    user: str
    t: np.ndarray
    target: np.ndarray
    names: tuple[str, ...]
    kind: np.ndarray
    duration: np.ndarray
    device: np.ndarray
    wave: np.ndarray
    devices: tuple[str, ...] = ()
    tz: str = "UTC"
    tz_known: bool = False
    collapsed: bool = False
    now: np.ndarray | None = None
    offs: np.ndarray = field(default_factory=_never)
    wakes: np.ndarray = field(default_factory=_never)
    thumbs: Thumbs | None = None

    @classmethod
    def from_events(
        cls,
        user: str,
        events: Iterable[Event],
        *,
        tz: str = "UTC",
        tz_known: bool = False,
        wave: Iterable[int] | None = None,
        offs: Iterable[float] = (),
        wakes: Iterable[float] = (),
    ) -> Timeline:
        """Build a timeline; events are put into time order (stable, so ties keep their order).

        offs, wakes: as in `Timeline`, in any order. Raises ValueError for a kind that is not in `KINDS`, a
        time that is not finite, or an unknown time zone.
        """
        rows = list(events)
        zone(tz)
        t = np.array([e.t for e in rows], dtype=np.float64)
        off, back = (np.unique(np.array(list(times), dtype=np.float64)) for times in (offs, wakes))
        if not all(np.isfinite(times).all() for times in (t, off, back)):
            raise ValueError(f"user {user!r}: a time is not a finite number")
        order = np.argsort(t, kind="stable")
        rows = [rows[i] for i in order]
        names: dict[str, int] = {}
        devices: dict[str, int] = {}
        target = np.array([names.setdefault(e.target, len(names)) for e in rows], dtype=np.int32)
        device = np.array(
            [-1 if e.device is None else devices.setdefault(e.device, len(devices)) for e in rows],
            dtype=np.int16,
        )
        try:
            kind = np.array([KINDS.index(e.kind) for e in rows], dtype=np.int8)
        except ValueError:
            bad = next(e.kind for e in rows if e.kind not in KINDS)
            raise ValueError(f"user {user!r}: kind {bad!r} is none of {', '.join(KINDS)}") from None
        waves = np.zeros(len(rows), np.int16) if wave is None else np.array(list(wave), np.int16)[order]
        return cls(
            user=user,
            t=t[order],
            target=target,
            names=tuple(names),
            kind=kind,
            duration=np.array([np.nan if e.duration is None else e.duration for e in rows], dtype=np.float64),
            device=device,
            wave=waves,
            devices=tuple(devices),
            tz=tz,
            tz_known=tz_known,
            offs=off,
            wakes=back,
        )

    def __len__(self) -> int:
        return len(self.t)

    def __iter__(self) -> Iterator[Event]:
        return (self.event(i) for i in range(len(self)))

    def event(self, i: int) -> Event:
        """Event i as a row."""
        device = int(self.device[i])
        duration = float(self.duration[i])
        return Event(
            t=float(self.t[i]),
            target=self.names[self.target[i]],
            kind=KINDS[self.kind[i]],
            duration=None if np.isnan(duration) else duration,
            device=None if device < 0 else self.devices[device],
        )

    def take(self, keep: np.ndarray) -> Timeline:
        """The timeline restricted to `keep` (bool [n] or sorted int indices), names re-indexed by
        first appearance; of offs and wakes those between the first and the last of these events."""
        old, t = self.target[keep], self.t[keep]
        first_t, last_t = (t[0], t[-1]) if len(t) else (np.inf, -np.inf)
        first: dict[int, int] = {}
        new = np.array([first.setdefault(int(x), len(first)) for x in old], dtype=np.int32)
        return replace(
            self,
            t=t,
            target=new,
            names=tuple(self.names[i] for i in first),
            kind=self.kind[keep],
            duration=self.duration[keep],
            device=self.device[keep],
            wave=self.wave[keep],
            now=None if self.now is None else self.now[keep],
            offs=self.offs[(self.offs >= first_t) & (self.offs < last_t)],
            wakes=self.wakes[(self.wakes > first_t) & (self.wakes <= last_t)],
        )

    def contents(self) -> bytes:
        """What tells its events, in their zone, from those of other timelines: a digest."""
        digest = hashlib.sha256(self.t.tobytes() + self.target.tobytes() + self.tz.encode())
        digest.update("\0".join(self.names).encode("utf-8", "surrogatepass"))
        if self.now is not None:
            digest.update(self.now.tobytes())
        for name, times in zip(SWITCHES, (self.offs, self.wakes), strict=True):
            if len(times):
                digest.update(name.encode() + times.tobytes())
        return digest.digest()

    def switched(self) -> tuple[np.ndarray, np.ndarray]:
        """The event that comes next after each recorded off and each wake, int64 [O] and [W]; `len(self)` for
        none. What is opened at the time of an off came before it, what is opened at that of a wake after."""
        return np.searchsorted(self.t, self.offs, "right"), np.searchsorted(self.t, self.wakes, "left")

    def rested(self) -> np.ndarray:
        """Whether the machine was off between the event before each and the event, as recorded; bool [n]."""
        was_off = np.zeros(len(self) + 1, bool)
        for following in self.switched():
            was_off[following] = True
        was_off[0] = False
        return was_off[:-1]

    def local(self) -> np.ndarray:
        """Local wall-clock seconds since 1970 of every event, float64 [n]; hour = local // 3600 % 24,
        weekday = (local // 86400 + 3) % 7 with Monday 0."""
        return self.t + utc_offsets(self.t, self.tz)

    def local_now(self) -> np.ndarray:
        """Local wall-clock seconds of `now`, as of `local`; float64 [n]."""
        return self.local() if self.now is None else self.now + utc_offsets(self.now, self.tz)


def zone(tz: str) -> ZoneInfo:
    """The time zone called `tz`. Raises ValueError where there is none of that name."""
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"time zone {tz!r} is unknown; use an IANA name such as Europe/Berlin") from None


def utc_offsets(t: np.ndarray, tz: str) -> np.ndarray:
    """Seconds to add to UTC to get wall-clock time in `tz`, float64 with the shape of `t`.

    Looked up once per hour that occurs (zone rules change on the hour or half hour at most).
    """
    z = zone(tz)
    if tz == "UTC" or len(t) == 0:
        return np.zeros(len(t))
    half_hours, where = np.unique(np.floor(t / 1800.0), return_inverse=True)
    offsets = [
        datetime.fromtimestamp(h * 1800.0, UTC).astimezone(z).utcoffset().total_seconds()  # type: ignore[union-attr]
        for h in half_hours
    ]
    return np.array(offsets, dtype=np.float64)[where]


def collapse(timeline: Timeline) -> Timeline:
    """Drop consecutive opens of the same target over the whole timeline, keeping the first of each run. What
    is opened after a recorded off was not open any more: a run ends there."""
    if len(timeline) == 0 or timeline.collapsed:
        return replace(timeline, collapsed=True)
    keep = timeline.rested()
    keep[0] = True
    keep[1:] |= timeline.target[1:] != timeline.target[:-1]
    return replace(timeline.take(keep), collapsed=True, offs=timeline.offs, wakes=timeline.wakes)

"""Two ways to read a moment behind one interface: slots, our own vocabulary, and text, any other.

A model carries its reading with it (`reading_of`). Whoever asks a model (`rlmemo.policies.language`) or
trains one (`rlmemo.learning`) gets prompts, the tokens of an answer and what to tell TRL from the reading,
and does not know which of the two it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from env.slate.slate import Slates, build_slates
from env.timeline import Timeline
from rlmemo.model import slots
from rlmemo.model.scorer import WIDE, Scored, Scorer, shortlist_of
from rlmemo.model.thumbs_so_far import SoFar, said_by


class Reading(Protocol):
    """How a model reads a moment, and says a plan.

    letters int64 [size] and delays int64 [len(DELAYS_S)]: tokens of a place and of a delay bucket.
    nothing: the token that begins the answer "none of these"; end: the token that ends a plan of picks.
    named: residents that a plan may name; their tokens, or as many of `nobody`, stand before the last token
    of a prompt, which begins the picks, and are asked for at the token before them. 0 where the reading says
    nothing of who leaves. residents: int64 [LISTED], tokens of those that a prompt lists.
    when: int64 [len(WHEN)], tokens of the time until the next opening, asked at the token before those;
    None where the reading has no view of it.
    batch: prompts in one forward pass; shares: whether prompts begin alike (`rlmemo.model.forward`).
    """

    @property
    def kind(self) -> str: ...
    @property
    def letters(self) -> np.ndarray: ...
    @property
    def delays(self) -> np.ndarray: ...
    @property
    def nothing(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def named(self) -> int: ...
    @property
    def residents(self) -> np.ndarray: ...
    @property
    def nobody(self) -> int: ...
    @property
    def when(self) -> np.ndarray | None: ...
    @property
    def batch(self) -> int: ...
    @property
    def shares(self) -> bool: ...

    def look(self, timeline: Timeline, rows: np.ndarray) -> Slates:
        """The slates that the model looks at, of a whole timeline; only `rows` need be right."""
        ...

    def prompts(
        self,
        timeline: Timeline,
        slates: Slates,
        rows: np.ndarray,
        warm: np.ndarray | None = None,
        free: np.ndarray | None = None,
        residents: np.ndarray | None = None,
    ) -> np.ndarray:
        """Prompts of the decisions `rows`, int64 [D, L], -1 to the left where one is shorter; see
        `rlmemo.model.slots.encode_prompts`."""
        ...

    def memory(self, prompts: np.ndarray) -> np.ndarray:
        """Which places of those that leave first are filled, read off the prompts: bool [D, LISTED]."""
        ...

    def free_level(self, free: np.ndarray) -> np.ndarray:
        """What a prompt tells of the free share of memory, int64 [D]."""
        ...

    def plan_ids(self, picks: Sequence[tuple[int, int]], naming: bool = False) -> list[int]:
        """Tokens of a plan of (place, delay bucket) pairs, with its end. naming: and before them of who
        leaves first, see `rlmemo.model.slots.plan_ids`."""
        ...

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """Tokens in the form that the tokenizer given to TRL turns back into exactly them."""
        ...

    def arguments(self, batch: int) -> dict[str, Any]:
        """What a TRL config needs to be told otherwise for this reading; batch: states per update."""
        ...


@lru_cache(maxsize=32)
def _slates(key: tuple[str, int, bytes], size: int) -> Slates:
    return build_slates(_TIMELINES.pop(key), size)


_TIMELINES: dict[tuple[str, int, bytes], Timeline] = {}


def slates_of(timeline: Timeline, size: int = slots.SLATE_SIZE) -> Slates:
    """The timeline's slates, computed once per timeline (recognised by its contents)."""
    key = (timeline.user, len(timeline), timeline.contents())
    _TIMELINES[key] = timeline
    made = _slates(key, size)
    _TIMELINES.pop(key, None)
    return made


class Looks:
    """Looks at timelines through a scorer (None: the shipped one), and remembers what it saw. leading: as of
    `rlmemo.model.scorer.shortlist_of`."""

    def __init__(self, scorer: Scorer | None = None, *, leading: bool = False) -> None:
        self.scorer, self.leading = scorer, leading
        self._looked: list[_Looked] = []

    def __deepcopy__(self, memo: Any) -> Looks:
        return self  # what it has looked at is nobody's to change

    def look(self, timeline: Timeline, rows: np.ndarray) -> Scored:
        """See `Reading.look`."""
        wide = slates_of(timeline, WIDE)
        one = next((x for x in self._looked if x.wide is wide), None)
        if one is None:
            one = _Looked.at(wide)
            self._looked = [*self._looked[-31:], one]
        missing = np.unique(rows[~one.known[rows]])
        if len(missing):
            one.fill(missing, self.one(wide, missing))
        return one.slates

    def one(self, wide: Slates, rows: np.ndarray) -> Scored:
        """Rows of wide slates, one each."""
        return shortlist_of(wide, rows, self.scorer, leading=self.leading)

    def forget(self) -> None:
        """Look anew next time (what looking costs can be measured then)."""
        for one in self._looked:
            one.known[:] = False


@dataclass(frozen=True)
class _Looked:
    """What a scorer has chosen of one timeline's wide slates so far. known: bool [n]; rows of `slates` that
    are not known are empty."""

    wide: Slates
    slates: Scored
    known: np.ndarray

    @classmethod
    def at(cls, wide: Slates) -> _Looked:
        n, size = len(wide.candidates), slots.SLATE_SIZE
        empty = Scored(
            np.full((n, size), -1, np.int32), np.zeros((n, size, wide.features.shape[2]), np.float32),
            wide.context, np.full(n, -1, np.int32), np.zeros((n, size + 1), np.float32),
        )  # fmt: skip
        return cls(wide, empty, np.zeros(n, bool))

    def fill(self, rows: np.ndarray, found: Scored) -> None:
        for name in ("candidates", "features", "answer", "score"):
            getattr(self.slates, name)[rows] = getattr(found, name)
        self.known[rows] = True


class SlotReading:
    """The embedded model's reading: `rlmemo.model.slots`. scorer: whose answers it reads (None: the
    shipped one's). memory: whether it reads who is in memory and what was said, and says who leaves; the
    first base did not."""

    def __init__(self, scorer: Scorer | None = None, memory: bool = True) -> None:
        self.looks = Looks(scorer)
        self.named = slots.NAMED if memory else 0

    def __deepcopy__(self, memo: Any) -> SlotReading:
        return self  # what it has looked at is nobody's to change

    kind = "slots"
    letters = slots.LETTER_IDS
    delays = slots.DELAY_IDS
    nothing = slots.END_ID
    end = slots.END_ID
    residents = slots.RESIDENT_IDS
    nobody = slots.NOBODY_ID
    when: np.ndarray | None = slots.WHEN_IDS
    batch = 256
    shares = False

    def look(self, timeline: Timeline, rows: np.ndarray) -> Scored:
        return self.looks.look(timeline, rows)

    def prompts(
        self,
        timeline: Timeline,
        slates: Slates,
        rows: np.ndarray,
        warm: np.ndarray | None = None,
        free: np.ndarray | None = None,
        residents: np.ndarray | None = None,
    ) -> np.ndarray:
        made = slots.encode_prompts(slates, timeline.target, rows, warm, free, residents=residents)
        if timeline.thumbs is not None:
            made = self.hear(made, said_by(timeline, rows, slates.candidates[rows]))
        return made if self.named else slots.plain(made)

    def hear(self, prompts: np.ndarray, said: SoFar) -> np.ndarray:
        """Prompts with the thumbs so far, as far as it reads them."""
        return slots.with_thumbs(prompts, said.levels(), said.mood()) if self.named else prompts

    def memory(self, prompts: np.ndarray) -> np.ndarray:
        return slots.listed(prompts)

    def free_level(self, free: np.ndarray) -> np.ndarray:
        return slots.free_level(free)

    def plan_ids(self, picks: Sequence[tuple[int, int]], naming: bool = False) -> list[int]:
        return slots.plan_ids(picks, naming)

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        return slots.text_of(np.asarray(ids))

    def arguments(self, batch: int) -> dict[str, Any]:
        return {}


SLOTS, PLAIN_SLOTS = SlotReading(), SlotReading(memory=False)


def reading_of(model: Any) -> Reading:
    """The reading that `load_model` gave to a model; slots where it gave none."""
    found: Reading = getattr(model, "reading", SLOTS)
    return found


def join(parts: Sequence[tuple[np.ndarray, np.ndarray]], total: int) -> np.ndarray:
    """Prompts of `total` states from (rows, prompts of these rows), padded to the left: int64 [total, L]."""
    width = max((made.shape[1] for _, made in parts), default=0)
    out = np.full((total, width), -1, np.int64)
    for rows, made in parts:
        out[np.asarray(rows)[:, None], np.arange(width - made.shape[1], width)[None]] = made
    return out

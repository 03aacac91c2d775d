"""A language model that follows a recording as it goes on: an event comes, and the next decision is there.

`Following` keeps what can be kept from event to event: the counts behind the slate
(`env.slate.slate_stream`), the tokens of the lines of a text prompt, and the keys and values of what the
model has read of them (`rlmemo.model.branching`), so that an event adds its own tokens and nothing else is
read twice. The embedded model's prompt states a whole history anew in 48 tokens; what is kept for it is the
counts, and its forward pass is `rlmemo.model.small_qwen3`. The answers are those of the batch path
(tests/test_streaming.py).

    following = Following(load_adapted("embedded", Path("runs/first/adapter")), tz="Europe/Berlin")
    following.see(time.time(), "org.mozilla.firefox")
    following.rank()                                   # a Ranking of one row
    following.names[following.rank().targets[0, 0]]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from env.ranking import Ranking, Stream
from env.slate.slate import SLATE_SIZE, Slates, site_key
from env.slate.slate_stream import SlateStream
from env.thumbs import HOURS, Thumbs
from env.timeline import KINDS, Timeline, utc_offsets
from rlmemo.model import slots
from rlmemo.model.ask import (
    FirstPick,
    MindedPrompts,
    SampledPlans,
    heard,
    minded,
    plan_on,
    ranked,
    ranking,
    read,
    sample_plans,
)
from rlmemo.model.branching import Reader, can_branch
from rlmemo.model.readings import SlotReading, reading_of
from rlmemo.model.scorer import WIDE, Scored
from rlmemo.model.soon import PLACES, soon_of
from rlmemo.model.text import TextReading
from rlmemo.model.thumbs_so_far import SoFar, ToldThumbs, so_far

PAGE = KINDS.index("page")


class Following:
    """A model and one person's events so far. Consecutive events open different targets (collapsed).

    names: the targets seen so far, by their index in a `Ranking`. keeps: whether `soon` will be asked.
    """

    def __init__(self, model: Any, tz: str = "UTC", *, keeps: bool = False) -> None:
        self.model, self.tz = model, tz
        self.names: list[str] = []
        self._reading = reading_of(model)
        self._index: dict[str, int] = {}
        self._sites: dict[str, int] = {}
        self._site: list[int] = []
        self._slots = self._reading if isinstance(self._reading, SlotReading) else None
        self._looks = self._slots.looks if self._slots else None
        if isinstance(self._reading, TextReading):
            self._looks = self._reading.looks
        self._slates = SlateStream(WIDE if self._looks else SLATE_SIZE, keep=slots.HISTORY + 1)
        self._kept = SlateStream(PLACES) if keeps else None
        self._looked: Slates | None = None
        self._text = _Lines(self._reading) if isinstance(self._reading, TextReading) else None
        self._reader = Reader(model) if self._reading.shares and can_branch(model) else None
        self._t = self._local = 0.0
        self._now = self._now_local = 0.0
        self._thumbs: ToldThumbs | None = None

    @property
    def events(self) -> int:
        """Events seen so far."""
        return self._slates.seen

    def see(self, t: float, target: str, page: bool = False, local: float | None = None) -> None:
        """Take in the next event. t: unix seconds; page: whether it opened a page; local: wall-clock seconds
        since 1970 (None: from the time zone). Raises ValueError where time runs backwards."""
        index = self._index.get(target)
        if index is None:
            index = self._index[target] = len(self.names)
            self.names.append(target)
            self._site.append(self._sites.setdefault(site_key(target, page), len(self._sites)))
            if self._text is not None:
                self._text.name(target)
        local = t + float(utc_offsets(np.array([t]), self.tz)[0]) if local is None else local
        gap = t - self._t if self.events else None
        self._slates.see(t, local, index, self._site[index])
        if self._kept is not None:
            self._kept.see(t, local, index, self._site[index])
        self._looked = None
        if self._text is not None:
            self._text.line(local, gap, index)
        self._t, self._local = self._now, self._now_local = t, local

    def wake(self, t: float) -> None:
        """The machine was off, and the person is back at t (unix seconds): what is asked until the next event
        is asked then, and what was opened last is not open any more."""
        self._now, self._now_local = t, t + float(utc_offsets(np.array([t]), self.tz)[0])
        self._looked = None

    def hear(self, thumbs: Thumbs | None) -> None:
        """What the person has said, all of it; it is minded from the next answer on."""
        self._thumbs = None if thumbs is None else ToldThumbs(thumbs, self._thumbs)

    def _said(self, prompt: np.ndarray) -> np.ndarray:
        """The embedded model's prompt with the thumbs so far."""
        if self._thumbs is None or self._slots is None:
            return prompt
        return self._slots.hear(prompt, self._so_far())

    def _so_far(self) -> SoFar:
        """The thumbs so far, of those that may come next; one row."""
        assert self._thumbs is not None
        now, hour = np.array([self._now]), np.array([int(self._now_local // 3600 % HOURS)])
        candidates = self._look().candidates[-1:]
        return so_far(self._thumbs, self.names, now, hour, candidates, np.array([self._t]))

    def prompt(self, warm: np.ndarray | None = None, free: float | None = None) -> np.ndarray:
        """What the model reads now, int64 [1, L]. warm: [SLATE_SIZE], 0 cold, 1 warm, 2 loading (None: all
        cold); free: share of the memory budget that is free (None: nothing is known, as in `rank`)."""
        if self._text is not None:
            return self._told(self._text, warm, free, None if self._thumbs is None else self._so_far())
        return self._said(self._bare(warm, free))

    def _told(
        self, text: _Lines, warm: np.ndarray | None, free: float | None, said: SoFar | None
    ) -> np.ndarray:
        """A text model's prompt, with the thumbs that are given."""
        here = self.events - 1, self._now_local, self._slates.targets[-1]
        return text.prompt(self._look(), *here, warm, free, said)

    def _bare(self, warm: np.ndarray | None = None, free: float | None = None) -> np.ndarray:
        """The model's prompt, without thumbs."""
        looked, kept = self._look(), min(self.events, self._slates.keep)
        if self._text is not None:
            return self._told(self._text, warm, free, None)
        assert self._slots is not None
        made = slots.encode_prompts(
            looked, self._slates.targets[-kept:], np.array([kept - 1]), None if warm is None else warm[None],
            None if free is None else np.array([free]), here=np.zeros(1, np.int64),
        )  # fmt: skip
        return made if self._slots.named else slots.plain(made)

    def _look(self) -> Slates:
        """The slate that the model looks at now, one row."""
        if not self.events:
            raise ValueError("no event was seen yet, so there is nothing to decide")
        if self._looked is None:
            now = self._slates.window.at(slice(-1, None))
            if self._now > self._t:
                now = self._slates.woken(self._now, self._now_local)
            self._looked = self._looks.one(now, np.zeros(1, np.int64)) if self._looks else now
        return self._looked

    def question(self) -> np.ndarray | None:
        """What `rank` has the model read, int64 [1, L], where somebody else may read it together with other
        people's; None where it is read on from what was read before."""
        if self._slots is None or self._reader is not None:
            return None
        return self._bare() if isinstance(self._look(), Scored) else self.prompt()

    def rank(self, said: FirstPick | None = None) -> Ranking:
        """See `Policy.rank`; one row, for the latest event. said: what the model says to `question` (None: it
        is asked)."""
        now = self._look()
        if not isinstance(now, Scored):
            said = said or read(self.model, self.prompt(), reader=self._reader)
            return ranking(said, now.candidates)
        bare, minds = self._bare(), None
        if self._thumbs is not None:
            thumbs = self._so_far()
            if self._text is not None:
                told = self._told(self._text, None, None, thumbs)
            else:
                assert self._slots is not None
                told = self._slots.hear(bare, thumbs)
            minds = heard(self.model, bare, told, thumbs)
        said = said or read(self.model, bare, reader=self._reader)
        return ranking(said, now.candidates, now.score, heard=minds)

    def soon(self) -> tuple[np.ndarray, np.ndarray]:
        """The chance of targets to be opened soon, as of `LanguagePolicy.soon`; one row."""
        if self._kept is None:
            raise ValueError("soon is asked of who was told to keep what it needs")
        targets, chance = soon_of(self.model).told(self._kept.window, np.zeros(1, np.int64))
        return targets.copy(), chance

    def plan(
        self,
        warm: np.ndarray,
        free: float,
        max_picks: int = 3,
        temperature: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> SampledPlans:
        """A plan of the model's own, of places in `slate`. warm, free: see `prompt`."""
        warm = np.asarray(warm)
        valid = (self._look().candidates >= 0) & (warm[None] == 0)
        rng = np.random.default_rng(0) if rng is None else rng
        prompt = MindedPrompts(self.prompt(warm, free))
        if self._thumbs is not None and isinstance(self._look(), Scored):
            prompt = minded(self.model, self._bare(warm, free), prompt.prompts, self._so_far())
        if self._reader is not None:
            return plan_on(self._reader, prompt, valid, max_picks, temperature, rng)
        return sample_plans(self.model, prompt, valid, max_picks, temperature, rng)

    @property
    def slate(self) -> np.ndarray:
        """What may come next, int32 [SLATE_SIZE], -1 where a place is empty."""
        return self._look().candidates[0].copy()


class _Lines:
    """The lines of a text prompt in tokens, as they come; what `TextReading.prompts` makes of a timeline."""

    def __init__(self, how: TextReading) -> None:
        self.how = how
        self.shown: list[str] = []
        self._namer = how.wording.namer()
        self._ids: list[int] = []
        self._ends = [0]

    def name(self, target: str) -> None:
        """A new target."""
        self.shown.append(self._namer(target))

    def line(self, local: float, gap: float | None, target: int) -> None:
        """A new event."""
        self._ids += self.how.line_ids(self.how.wording.event(local, gap, self.shown[target]))
        self._ends.append(len(self._ids))

    def prompt(
        self,
        slates: Slates,
        i: int,
        local: float,
        target: int,
        warm: np.ndarray | None,
        free: float | None,
        said: SoFar | None,
    ) -> np.ndarray:
        """The prompt of decision i, int64 [1, L]. slates: its last row is that of event i; said: thumbs so
        far, one row."""
        text = self.how.wording.question(
            slates, len(slates.candidates) - 1, local, self.shown[int(target)], self.shown, warm,
            1.0 if free is None else free, said,
        )  # fmt: skip
        question = self.how.line_ids(text)
        first = self.how.first_event(i, self._ends, len(question))
        history = self._ids[self._ends[first] : self._ends[i + 1]]
        return np.concatenate([self.how.head, np.array(history, np.int64), question, self.how.tail])[None]


def follow(model: Any, timeline: Timeline) -> Stream:
    """Answers decisions of a recorded timeline one after the other, reading events as they are reached.

    A reading that is neither of the two (one with examples in it) is asked afresh at every decision.
    """
    if type(reading_of(model)) not in (SlotReading, TextReading):
        slates = reading_of(model).look(timeline, np.arange(len(timeline)))
        return lambda i: ranked(model, timeline, slates, np.array([i]))
    following = Following(model, timeline.tz)
    following.hear(timeline.thumbs)
    local = timeline.local()

    def answer(i: int) -> Ranking:
        for k in range(following.events, i + 1):
            page = bool(timeline.kind[k] == PAGE)
            following.see(float(timeline.t[k]), timeline.names[timeline.target[k]], page, float(local[k]))
        if following.events != i + 1:
            raise ValueError(f"decision {i} was asked after event {following.events - 1} had come")
        return following.rank()

    return answer

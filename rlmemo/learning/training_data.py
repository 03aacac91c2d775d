"""Training states: decisions of the training part, as the model reads them, and what was right to answer.

A state is (user, index): the moment right after event `index` of that user's timeline. Its prompt is made
from events 0..index and from what the no-prewarm world holds then; its answer from event index + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from env.judge.case import Case, cases
from env.judge.cost import CostModel, Costs, WorldConfig
from env.judge.plans import Plans
from env.ranking import decisions
from env.slate.slate import Slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.learning.who_leaves import leaving, opens_until
from rlmemo.model import slots
from rlmemo.model.readings import SLOTS, Reading, join, slates_of
from rlmemo.model.residents import LISTED, Residents
from rlmemo.model.scorer import WIDE, CrossFitted
from rlmemo.model.soon import PLACES, Soon


@dataclass(frozen=True)
class TrainingData:
    """Timelines with everything that training looks up in them, in the timelines' order.

    plans: of the policy that is in charge (`rlmemo.learning.incumbent`), [n, K] per timeline, all at once;
    None: nobody prewarms. residents: who may be in memory after each event, per timeline; None: a plan names
    nobody, and nobody is read of.
    """

    timelines: list[Timeline]
    slates: Sequence[Slates]
    costs: list[Costs]
    world: WorldConfig
    split: Split
    reading: Reading = SLOTS
    plans: list[Plans] | None = None
    residents: list[Residents] | None = None

    @classmethod
    def prepare(
        cls,
        timelines: Sequence[Timeline],
        split: Split,
        model: CostModel,
        world: WorldConfig,
        reads: Reading = SLOTS,
    ) -> TrainingData:
        """Slates and costs of every timeline. reads: how the model that learns reads a moment."""
        return cls(
            timelines=list(timelines),
            slates=[slates_of(x) for x in timelines],
            costs=[model.arrays(x) for x in timelines],
            world=world,
            split=split,
            reading=reads,
        )

    def cases(self, part: Sequence[np.ndarray]) -> list[Case]:
        """The stretches of a part of the split, one per timeline that has some."""
        return cases(self.timelines, self.costs, self.world, part)

    @property
    def train(self) -> list[np.ndarray]:
        """Decisions of the training part, per timeline."""
        return [decisions(events) for events in self.split.train]

    @property
    def plain(self) -> list[Slates]:
        """The slates by their own order alone, whatever the model that learns looks at."""
        return [slates_of(x) for x in self.timelines]

    def wide(self) -> list[Slates]:
        """The slates that scorers score, and from which they choose what the embedded model reads."""
        return [slates_of(x, WIDE) for x in self.timelines]

    def knowing(self, soon: Soon) -> TrainingData:
        """The same with who may be in memory, as far as plans may name somebody and the model that learns
        says whom."""
        if self.world.max_let_go == 0 or self.reading.named == 0:
            return self
        rows = [np.arange(len(x)) for x in self.timelines]
        known = [
            Residents.of(slates_of(x, PLACES), at, soon) for x, at in zip(self.timelines, rows, strict=True)
        ]
        return replace(self, residents=known)

    def hearing(self, timelines: Sequence[Timeline]) -> TrainingData:
        """The same with timelines that carry thumbs (`rlmemo.approval.thumbs_said`)."""
        return replace(self, timelines=list(timelines))

    def deaf(self) -> TrainingData:
        """The same without thumbs."""
        return replace(self, timelines=[replace(x, thumbs=None) for x in self.timelines])

    @property
    def names(self) -> int:
        """Residents that a plan may name."""
        return min(self.world.max_let_go, self.reading.named) if self.residents is not None else 0

    def scored(self, crossed: CrossFitted, wide: Sequence[Slates] | None = None) -> TrainingData:
        """The same with what the scorers choose from the wide slates (None: made here), and their answers. A
        model of text reads its slates as they are; there the scorers have a say in rankings alone."""
        wide, text = self.wide() if wide is None else wide, self.reading.kind == "text"
        slates = [crossed.score(s, train, leading=text) for s, train in zip(wide, self.train, strict=True)]
        return replace(self, slates=slates)


@dataclass(frozen=True)
class States:
    """S decisions. user int64 [S] (position of the timeline), index int64 [S] (event known last)."""

    user: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: np.ndarray | slice) -> States:
        return States(self.user[rows], self.index[rows])

    def by_user(self) -> list[tuple[int, np.ndarray]]:
        """(user, rows of this user's states) for every user that has some."""
        return [(int(u), np.flatnonzero(self.user == u)) for u in np.unique(self.user)]


def part_states(events: Sequence[np.ndarray]) -> States:
    """The decisions that predict `events` (per timeline, as in `Split`)."""
    made = [decisions(e) for e in events]
    return States(
        user=np.concatenate(
            [np.full(len(d), u, np.int64) for u, d in enumerate(made)] or [np.zeros(0, np.int64)]
        ),
        index=np.concatenate(made or [np.zeros(0, np.int64)]),
    )


def draw(states: States, first: int, second: int, seed: int) -> tuple[States, States]:
    """Two random samples of at most `first` and `second` states, sorted; apart from each other as far as
    there are enough states (preferences are better learned where SFT has not seen the answer)."""
    order = np.random.default_rng([seed, 1]).permutation(len(states))
    a = order[:first]
    rest = order[first:]
    b = rest[:second] if len(rest) >= second else np.concatenate([rest, a])[:second]
    return states[np.sort(a)], states[np.sort(b)]


@dataclass(frozen=True)
class Held:
    """What the world holds right after each event of one user, under plans [n, K]: warm int8 [n, size], 1
    where that candidate is resident, 2 where it is loading; free float64 [n], share of the memory budget;
    listed int64 [n, LISTED], the residents that are least worth keeping, -1 for no more, and levels of them,
    as a model reads them (None: nobody is read of)."""

    plans: Plans
    warm: np.ndarray
    free: np.ndarray
    listed: np.ndarray
    levels: np.ndarray | None


def memory_at(data: TrainingData, user: int) -> Held:
    """What the world holds under the plans of whoever is in charge; where nobody is, nothing is loaded early,
    and those leave first that are least worth keeping."""
    timeline = data.timelines[user]
    n = len(timeline)
    plans = Plans.empty(n, 1, data.names) if data.plans is None else data.plans[user]
    case = Case(timeline, data.costs[user], data.world, 1, n + 1, user)  # the last event's decision, too
    if data.residents is None:
        return Held(plans, *case.memory(data.slates[user].candidates, plans), None)
    known = data.residents[user]
    case = replace(case, worth=known.told)
    found = case.memory(data.slates[user].candidates, plans, data.plans is None, LISTED)
    return Held(plans, *found, known.levels(np.arange(n), found[2]))


def training_part(data: TrainingData, user: int, last: int = 0) -> Case:
    """One user's timeline up to the last event of the training part (up to event `last`, if that is later),
    as a case of all its decisions: nothing that happens later can be seen in it. Its costs are those of the
    targets that appear in it (names stand in order of first appearance)."""
    last = max(last, int(data.split.train[user].max(initial=0)))
    part = data.timelines[user].take(np.arange(last + 1))
    c, n = data.costs[user], len(part.names)
    costs = Costs(c.memory_mb[:n], c.cold_s[:n], c.warm_s[:n], c.load_s[:n])
    worth = None
    if data.residents is not None:
        targets, chance = data.residents[user].told
        worth = targets[: len(part)], chance[: len(part)]
    return Case(part, costs, data.world.resolved(c), 1, len(part), user, worth)


def prompts(data: TrainingData, states: States, *, cold: np.ndarray | None = None) -> np.ndarray:
    """Prompts of the states as the data's model reads them, in the data's world (see `memory_at`): int64
    [S, L], -1 to the left where one is shorter.

    cold: bool [S], states that are shown as they are for a ranking: memory empty, every candidate cold.
    """
    made = []
    for user, rows in states.by_user():
        timeline, slates = data.timelines[user], data.slates[user]
        held = memory_at(data, user)
        empty = np.zeros(len(rows), bool) if cold is None else cold[rows]
        for some, bare in ((rows[~empty], False), (rows[empty], True)):
            index = states.index[some]
            if len(some):
                levels = None if held.levels is None else held.levels[index]
                now = () if bare else (held.warm[index], held.free[index], levels)
                made.append((some, data.reading.prompts(timeline, slates, index, *now)))
    return join(made, len(states))


@dataclass(frozen=True)
class Answers:
    """What was right: place int64 [S] in the slate of the target opened next, -1 where it is not listed;
    delay int64 [S], the earliest delay bucket at which a prewarm would still have been warm at that opening
    (too early costs a little memory, too late costs the hit), or the last one, where the opening is further
    away than that and the time to live; when int64 [S], bucket of the time until that opening; wait float64
    [S, LISTED], opens of the training part until each resident is opened, by what keeping it saves per MB
    (None: nobody is read of)."""

    place: np.ndarray
    delay: np.ndarray
    when: np.ndarray
    wait: np.ndarray | None = None


def answers(data: TrainingData, states: States) -> Answers:
    """The right answers of the states; the only thing here that looks at event index + 1."""
    place = np.full(len(states), -1, np.int64)
    delay = np.zeros(len(states), np.int64)
    when = np.zeros(len(states), np.int64)
    wait = None if data.residents is None else np.zeros((len(states), LISTED))
    for user, rows in states.by_user():
        timeline, index = data.timelines[user], states.index[rows]
        if wait is not None:
            wait[rows] = _wait(data, user, index)
        gap = timeline.t[index + 1] - timeline.t[index]
        load = data.costs[user].load_s[timeline.target[index + 1]]
        place[rows] = data.slates[user].answer[index]
        ready = np.asarray(data.world.delays) + load[:, None]
        warm = (ready + data.world.ttl_s >= gap[:, None]) & (
            (ready <= gap[:, None]) | (ready == ready[:, :1])
        )
        delay[rows] = np.where(warm.any(1), warm.argmax(1), len(data.world.delays) - 1)
        when[rows] = slots.when_bucket(gap)
    return Answers(place, delay, when, wait)


def _wait(data: TrainingData, user: int, index: np.ndarray) -> np.ndarray:
    """See `Answers.wait`; of one user's decisions."""
    listed, costs = memory_at(data, user).listed[index], data.costs[user]
    known = data.timelines[user].target[: max(int(data.split.train[user].max()), int(index.max()) + 1) + 1]
    saving = ((costs.cold_s - costs.warm_s) / costs.memory_mb)[np.maximum(listed, 0)]
    return np.where(listed >= 0, opens_until(known, index, listed) / np.maximum(saving, 1e-12), -1.0)


def sft_examples(
    data: TrainingData, states: States, seed: int = 0
) -> tuple[np.ndarray, list[list[int]], list[list[int]]]:
    """What SFT reads: (prompts int64 [S, L], input ids, labels), the last two ragged.

    Every other state is shown with memory empty, as a ranking sees it, the others with what the world holds,
    as a plan sees it. The answer is the next target in time, or the empty plan where the slate
    does not hold it: what to keep still about is left to the preferences. (Saying "empty" also where the
    next target is warm already makes the model so shy that DPO finds no plan of its own to learn from.)
    In our own reading, the label at `<leave>` asks the token before it, `<when>`, for the time until the next
    opening; and who leaves first is learned where memory is shown (`rlmemo.learning.who_leaves`).
    Thumbs are not shown: what is opened next does not go by them, and would teach not to mind them.
    """
    how, data = data.reading, data.deaf()
    cold = np.arange(len(states)) % 2 == 1
    made = prompts(data, states, cold=cold)
    right = answers(data, states)
    needed = right.place >= 0
    rng = np.random.default_rng([seed, 11])
    named = None if right.wait is None else leaving(right.wait, data.names, rng)[1]
    inputs, labels = [], []
    for row, padded in enumerate(made):
        prompt = padded[padded >= 0].tolist()
        picks = [(int(right.place[row]), int(right.delay[row]))] if needed[row] else []
        leave = [] if named is None or cold[row] else named[row][named[row] >= 0].tolist()
        plan = how.plan_ids([*picks, *((-1 - int(x), turn) for turn, x in enumerate(leave))], bool(leave))
        begin = len(prompt) - 1  # where the picks begin
        if leave:  # they are said before that, where the prompt has nobody
            prompt = prompt[: begin - how.named]
        label = [-100] * len(prompt) + plan
        label[begin] = -100
        if how.when is not None:
            label[begin - how.named - 1] = int(how.when[right.when[row]])
        inputs.append(prompt + plan)
        labels.append(label)
    return made, inputs, labels

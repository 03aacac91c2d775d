"""Rollouts: many episodes of the training part, stepped side by side through the real accounting.

An episode is a stretch of one user's training part; its memory begins with what the history before it left
warm. What the user does is recorded, so the moments of a whole rollout are known before it starts and prompts
of our own tokens are encoded at once; only what is in memory depends on the policy, and that is filled in at
every step. A text tells of memory in words, so its prompts are written at every step.
The world of a step is the actual one: what the policy's own earlier plans have made of it.

Rewards are the environment's, credited to the plan that they follow from (`env.judge.credit`): undiscounted
they sum to the reward of the episode in the accounting, up to the end of the training part, where what is
unused is wasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from env.gym import stepper
from env.gym.tracks import observations
from env.gym.walk import Walk
from env.judge.case import Case
from env.judge.plans import FIELDS, N_FIELDS, Plans
from env.judge.state import MEMORY, rules
from reward import Reward
from rlmemo.learning.grammar import pickable
from rlmemo.learning.training_data import TrainingData, training_part
from rlmemo.model import slots
from rlmemo.model.ask import SampledPlans, whom
from rlmemo.model.readings import join
from rlmemo.model.residents import LISTED

SIZE = slots.SLATE_SIZE
NEVER = -1  # as an episode's last open: what it leaves unused is resolved by `env.judge.credit`, later
DYNAMIC = 3 * SIZE + stepper.N_MEMORY + SIZE + 1 + 3  # memory, what the policy thinks, clock of the episode
AHEAD = SIZE + 1  # what each place would have been worth, and their mean under the policy
ROWS = 16
"""Residents that the critic sees and of which some can be named, where a plan names any."""
Say = Callable[[np.ndarray, np.ndarray], SampledPlans]
"""(a prompt for each lane, int64 [lanes, L], -1 to the left where one is shorter; pickable bool [lanes,
SIZE]) -> a plan for each, with `first`."""


@dataclass(frozen=True)
class Moments:
    """What is known of a rollout before it starts: [lanes, steps] each.

    A lane plays episodes one after the other. user, index int64: whose moment, right after which event.
    first bool: an episode begins here; last bool: it ends with this decision.
    """

    user: np.ndarray
    index: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Rollout:
    """D = lanes * steps decisions, flat, lane by lane.

    prompts int64 [D, L], -1 to the left where one is shorter; free bool [D, SIZE], places that could be
    picked; place, delay int64 [D, K] (-1: no pick); named int64 [D, R], places of
    the residents that leave first (-1: nobody); logp float64 [D]; reward float64 [D], credited to the
    decision; features float32 [D, F], what the critic sees, of which the last AHEAD columns know what came
    next: what each place, at once, would have been worth, and their mean under the policy; gap_s float64 [D],
    seconds until the next event; last bool [D], the episode ends here.
    """

    prompts: np.ndarray
    free: np.ndarray
    place: np.ndarray
    delay: np.ndarray
    named: np.ndarray
    logp: np.ndarray
    features: np.ndarray
    reward: np.ndarray
    gap_s: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True)
class Spoken:
    """The plans of a rollout: place, delay int64 [lanes, steps, K], -1 for no pick; let_go int64 [lanes,
    steps, R], the targets that leave first, -1 for nobody."""

    place: np.ndarray
    delay: np.ndarray
    let_go: np.ndarray


class Field:
    """The training part of the data, ready to be played on. half_life_s: see `env.judge.credit.credits`."""

    def __init__(self, data: TrainingData, reward: Reward, half_life_s: float = math.inf) -> None:
        self.data, self.reward, self.half_life_s = data, reward, half_life_s
        self.weights = reward.weights(FIELDS)
        self.users = [u for u, events in enumerate(data.split.train) if len(events) > 1]
        self.cases: dict[int, Case] = {}
        self.still: dict[int, np.ndarray] = {}
        for user in self.users:
            self.cases[user] = training_part(data, user)
            self.still[user] = _static(data, user)
        self.names = data.names
        known = data.residents or []
        self.told = [np.ascontiguousarray(np.concatenate(x.told, axis=1), np.float64) for x in known]
        self.rows = ROWS if self.names else 0
        self.seen = 3 * SIZE + stepper.N_MEMORY + self.rows * stepper.N_RESIDENT
        dynamic = DYNAMIC + self.rows * stepper.N_RESIDENT + AHEAD
        self.features = next(iter(self.still.values())).shape[1] + dynamic if self.users else 0

    @cached_property
    def starts(self) -> dict[int, tuple[int, int]]:
        """(first decision, last open) of each user's training part: one run of consecutive events."""
        return {u: (int(self.data.split.train[u][0]) - 1, len(self.cases[u])) for u in self.users}

    def draw(self, lanes: int, steps: int, length: int, rng: np.random.Generator) -> Moments:
        """Random episodes of at most `length` decisions, users in proportion to their training events."""
        room = np.array([self.starts[u][1] - self.starts[u][0] for u in self.users], float)
        shape = (lanes, steps)
        made = Moments(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool),
                       np.zeros(shape, bool))  # fmt: skip
        for lane in range(lanes):
            at = 0
            while at < steps:
                user = self.users[int(rng.choice(len(self.users), p=room / room.sum()))]
                first, last = self.starts[user]
                n = min(length, steps - at, last - first)
                begin = int(rng.integers(first, last - n + 1))
                made.user[lane, at : at + n] = user
                made.index[lane, at : at + n] = np.arange(begin, begin + n)
                made.first[lane, at] = made.last[lane, at + n - 1] = True
                at += n
        return made

    def play(self, moments: Moments, picks: int, say: Say) -> Rollout:
        """Step through the moments, a plan of `say` at each."""
        lanes, steps = moments.user.shape
        encoded = None  # what a text says is written at every step
        if self.data.reading.kind == "slots":
            encoded = self.prompts(moments.user.ravel(), moments.index.ravel()).reshape(lanes, steps, -1)
        shown: list[tuple[np.ndarray, np.ndarray]] = []
        free = np.zeros((lanes, steps, SIZE), bool)
        worlds: dict[int, Walk] = {}  # of the episode that a lane is in
        record, scrap = np.zeros(N_FIELDS), np.zeros(self.seen, np.float32)
        named = np.full((lanes, steps, self.names), -1, np.int64)
        let_go = np.full((lanes, steps, self.names), -1, np.int64)
        listed = np.full((lanes, LISTED), -1, np.int64)
        place = np.full((lanes, steps, picks), -1, np.int64)
        delay = np.zeros((lanes, steps, picks), np.int64)
        logp = np.zeros((lanes, steps))
        features = np.zeros((lanes, steps, self.features), np.float32)
        first_pick = np.zeros((lanes, steps, SIZE + 1))
        out = np.zeros((lanes, self.seen), np.float32)
        left = _decisions_left(moments.last)
        for k in range(steps):
            for lane in range(lanes):
                if moments.first[lane, k]:
                    user, index = int(moments.user[lane, k]), int(moments.index[lane, k])
                    worlds[lane] = self.world(user, index, steps * picks)
                worlds[lane].observe(out[lane])
                if self.names:
                    worlds[lane].least_worth(self.told[int(moments.user[lane, k])], listed[lane])
            asked, free[:, k] = self.ask(moments, k, out, listed, encoded)
            shown.append((np.arange(lanes) * steps + k, asked))
            said = say(asked, free[:, k])
            place[:, k], delay[:, k], logp[:, k], first_pick[:, k] = (
                said.place, said.delay, said.logp, said.first
            )  # fmt: skip
            if said.named is not None:
                named[:, k] = said.named
                let_go[:, k] = whom(listed, said.named)
            for lane, world in worlds.items():
                still = self.still[moments.user[lane, k]][world.i]
                clock = (world.i - world.first, left[lane, k])
                features[lane, k, : len(still)] = still
                features[lane, k, len(still) : -AHEAD] = np.concatenate(
                    [out[lane], first_pick[lane, k], np.log1p(clock) / 6.0, [min(left[lane, k], 64) / 64.0]]
                )
                action = np.stack([place[lane, k] + 1, delay[lane, k]], axis=1).reshape(-1)
                if self.names:
                    action = np.concatenate([action, world.rows_of(let_go[lane, k])])
                world.step(action, NEVER, record, scrap)
        reward, features[:, :, -AHEAD:-1] = self.credit(moments, Spoken(place, delay, let_go), first_pick)
        features[:, :, -1] = (features[:, :, -AHEAD:-1] * first_pick[:, :, :SIZE]).sum(2)
        times = {u: self.data.timelines[u].t for u in self.users}
        gap = np.array(
            [
                times[u][i + 1] - times[u][i]
                for u, i in zip(moments.user.flat, moments.index.flat, strict=True)
            ]
        )
        flat = lanes * steps
        return Rollout(
            prompts=join(shown, flat),
            free=free.reshape(flat, SIZE),
            place=place.reshape(flat, picks),
            delay=delay.reshape(flat, picks),
            named=named.reshape(flat, self.names),
            logp=logp.reshape(flat),
            features=features.reshape(flat, -1),
            reward=reward.reshape(flat),
            gap_s=gap,
            last=moments.last.reshape(flat),
        )

    def world(self, user: int, index: int, prewarms: int) -> Walk:
        """A user's world right after event `index`, with the memory that the history before left."""
        candidates = np.ascontiguousarray(self.data.slates[user].candidates, np.int32)
        case = self.cases[user]
        walk = Walk(case.timeline, candidates, case.costs, case.world, self.weights, prewarms, self.rows)
        walk.enter(index)
        return walk

    def memory(self, moments: Moments, k: int, listed: np.ndarray) -> np.ndarray:
        """The tokens of the residents at step k of every lane, int64 [lanes, LISTED]. listed: their
        targets."""
        assert self.data.residents is not None
        levels = np.full(listed.shape, -1)
        for user in np.unique(moments.user[:, k]):
            at = moments.user[:, k] == user
            levels[at] = self.data.residents[user].levels(moments.index[at, k], listed[at])
        return slots.memory_ids(levels)

    def ask(
        self, moments: Moments, k: int, seen: np.ndarray, listed: np.ndarray, encoded: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(prompts of step k, int64 [lanes, L], places that may be picked, bool [lanes, SIZE]), in the world
        that is seen. listed: the residents' targets. encoded: the prompts with memory empty, which it is
        written into (None: they are written anew)."""
        warm, share = seen[:, :SIZE] + 2 * seen[:, SIZE : 2 * SIZE], seen[:, 3 * SIZE]
        if encoded is None:
            user, index = moments.user[:, k], moments.index[:, k]
            slates = self.data.slates
            filled = np.array([slates[u].candidates[i] >= 0 for u, i in zip(user, index, strict=True)])
            return self.prompts(user, index, warm, share), filled & (warm == 0)
        prompts = encoded[:, k]
        if self.names:
            prompts[:, slots.MEMORY_AT] = self.memory(moments, k, listed)
        show_memory(prompts, warm, share)
        return prompts, pickable(prompts)

    def prompts(self, user: np.ndarray, index: np.ndarray, *held: np.ndarray) -> np.ndarray:
        """Prompts of N moments, user and index int64 [N], as the data's model reads them: int64 [N, L], -1 to
        the left where one is shorter. held: what is warm [N, SIZE] and which share of memory is free [N]
        (none: memory is empty)."""
        made = []
        for one in np.unique(user):
            at = np.flatnonzero(user == one)
            slates, timeline = self.data.slates[one], self.data.timelines[one]
            made.append((at, self.data.reading.prompts(timeline, slates, index[at], *(x[at] for x in held))))
        return join(made, len(user))

    def credit(self, moments: Moments, said: Spoken, first_pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(credit of every plan, float64 [lanes, steps]; what each place alone, at once, would have been
        worth there, float64 [lanes, steps, SIZE], 0 where the policy would hardly have picked it).

        The second depends on the state and on what the user did next, not on the plan that was drawn: it
        may be in a baseline, because the user's future does not depend on plans.
        """
        place, delay = said.place, said.delay
        lanes, steps, picks = place.shape
        reward, ahead = np.zeros((lanes, steps)), np.zeros((lanes, steps, SIZE))
        for lane in range(lanes):
            for begin in np.flatnonzero(moments.first[lane]):
                end = begin + int(np.argmax(moments.last[lane, begin:])) + 1
                rows = slice(begin, end)
                user, first = int(moments.user[lane, begin]), int(moments.index[lane, begin])
                candidates = self.data.slates[user].candidates[first : first + end - begin]
                some = place[lane, rows] >= 0
                slots = np.maximum(place[lane, rows], 0)
                target = np.where(some, np.take_along_axis(candidates, slots, axis=1), -1).astype(np.int32)
                when = np.where(some, delay[lane, rows], 0).astype(np.int8)
                p = first_pick[lane, rows, :SIZE]
                several = np.full((end - begin, 1 + SIZE, picks), -1, np.int32)
                several[:, 0] = target
                several[:, 1:, 0] = np.where(p > 1e-3, candidates, -1)
                later = np.zeros(several.shape, np.int8)
                later[:, 0] = when
                names = said.let_go[lane, rows].astype(np.int32)
                nobody = np.full((end - begin, 1 + SIZE, self.names), -1, np.int32)
                nobody[:, 0] = names
                episode = replace(self.cases[user], start=first + 1, stop=first + int(end - begin) + 1)
                made = episode.credits(
                    Plans(target, when, names), Plans(several, later, nobody), self.half_life_s, self.names
                )
                made = made @ self.weights
                reward[lane, rows] = made[:, 0]
                ahead[lane, rows] = made[:, 1:]
        return reward, ahead


def show_memory(prompts: np.ndarray, warm: np.ndarray, free: np.ndarray) -> None:
    """Write into prompts that were encoded with memory empty what memory holds now.

    prompts int64 [B, PROMPT_LENGTH]; warm [B, SIZE], 0 cold, 1 warm, 2 loading; free [B], a share.
    Equal to encoding them anew (tests/test_rollout.py), at a hundredth of the cost.
    """
    state = np.asarray(warm, np.int64)  # what is cold stands there as it is, with what was said of it
    prompts[:, slots.CANDIDATE_ENDS] = np.where(state > 0, _COLD + state, prompts[:, slots.CANDIDATE_ENDS])
    odds = (prompts[:, _FREE_PLACE] - _FREE_TOKEN) % _ODDS_LEVELS  # the other half of that token
    prompts[:, _FREE_PLACE] = _FREE_TOKEN + slots.free_level(free) * _ODDS_LEVELS + odds


_COLD = np.array([slots.ID[f"{letter}:{slots.STATES[0]}"] for letter in slots.LETTERS])
_FREE_TOKEN = slots.ID["m0.0"]
_ODDS_LEVELS = sum(token.startswith("m0.") for token in slots.VOCABULARY)
_FREE_PLACE = int(slots.CANDIDATE_ENDS[0]) - 2 - slots.HISTORY - 1


def _decisions_left(last: np.ndarray) -> np.ndarray:
    """How many decisions its episode still has at each moment, this one included: int64 [lanes, steps]."""
    left = np.zeros(last.shape, np.int64)
    for k in range(last.shape[1] - 1, -1, -1):
        after = left[:, k + 1] if k + 1 < last.shape[1] else 0
        left[:, k] = np.where(last[:, k], 1, after + 1)
    return left


def _static(data: TrainingData, user: int) -> np.ndarray:
    """What the critic sees of a moment that does not depend on plans: the slate's statistics with what each
    candidate holds and saves, and the clock. float32 [n, F]."""
    _, features, moment = observations(data.timelines[user], SIZE)
    candidates = data.slates[user].candidates
    rule = rules(data.costs[user], data.world)
    where = np.maximum(candidates, 0)
    known = (candidates >= 0)[..., None]
    saving = (data.costs[user].cold_s - data.costs[user].warm_s)[where]
    extra = np.stack([rule.cost[where, MEMORY] / rule.budget, saving / 10.0], axis=-1) * known
    slate = np.concatenate([features, extra, known], axis=-1)
    return np.concatenate([slate.reshape(len(slate), -1), moment], axis=1).astype(np.float32)

"""Asking the language model: one forward pass ranks the slate, a short sampled sequence is a plan.

The log-probabilities of the letters and of `<end>` after `<plan>` are the ranking and "none of these";
those of the `<when>` tokens are the time until the next opening. A plan is sampled token by token under a
mask that leaves only valid plans (places that are filled, not warm, in slate order, a delay after each
letter), so the probability that is logged as propensity is exactly the probability of having said it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from env.ranking import Ranking
from env.slate.slate import Slates
from env.timeline import Timeline
from rlmemo.model import slots
from rlmemo.model.branching import Reader, can_branch
from rlmemo.model.forward import batches, begin
from rlmemo.model.readings import Reading, reading_of
from rlmemo.model.scorer import Scored
from rlmemo.model.thumbs_so_far import SoFar, said_by

POOL = 2 / 3
"""Weight of the scorer in a ranking that it and the model make together, in log-probability: the model and
the two boosters of a run's scorer count alike. A model this small reads with a loss what the scorer
said (.02 nats; experiments/LOG.md, "two boosters")."""
FITTED = 1.5
"""How much more thumbs count where a run fitted its scorer: it is surer of what comes next, so the same step
changes less (experiments/LOG.md, "thumbs after a training"). Measured for people that it was fitted to."""


# Middle of each `WHEN` bucket in log time, seconds: what is said when one number is asked for.
WHEN_S = np.sqrt(np.array([0.7, *slots.WHEN_EDGES_S]) * np.array([*slots.WHEN_EDGES_S, 86400.0]))


@dataclass(frozen=True)
class FirstPick:
    """What the model says of D moments. first float32 [D, size + 1]: log-probability of each place as the
    first pick, last column none; when float32 [D, len(WHEN)]: log-probability of the time until the next
    opening; leave float32 [D, LISTED + 1]: of each resident to be named first, last column nobody (None
    where the model's reading has no view of it)."""

    first: np.ndarray
    when: np.ndarray | None
    leave: np.ndarray | None = None

    def row(self, d: int) -> FirstPick:
        """Of one of the moments."""
        here = slice(d, d + 1)
        when, leave = (None if x is None else x[here] for x in (self.when, self.leave))
        return FirstPick(self.first[here], when, leave)


def read(
    model: Any, prompts: np.ndarray, batch: int | None = None, reader: Reader | None = None
) -> FirstPick:
    """One forward pass over prompts int64 [D, L] of the model's reading; the head is evaluated at a few
    places only. batch: prompts at a time (None: as the reading says). reader: of the same model, which
    remembers what it has read (None: a new one, where the model's prompts begin alike)."""
    import torch

    how = reading_of(model)
    asked = [(0, np.append(how.letters, how.nothing))]  # so many tokens before the last one
    if how.named:
        asked.append((how.named + 1, np.append(how.residents, how.nobody)))
    if how.when is not None:
        asked.append((how.named + 2 if how.named else 1, how.when))
    last = 1 + max(back for back, _ in asked)
    found: list[list[np.ndarray]] = [[np.zeros((0, len(tokens)), np.float32)] for _, tokens in asked]
    if reader is None and how.shares and can_branch(model):
        reader = Reader(model)
    with torch.inference_mode():
        for rows in batches(prompts, batch or how.batch, how.shares):
            if reader is not None:
                logits = reader.read(prompts[rows], last)
            else:
                logits = begin(model, prompts[rows], last=last, share=how.shares).logits
            for (back, tokens), said in zip(asked, found, strict=True):
                some = logits[:, -1 - back, torch.from_numpy(tokens).to(logits.device)]
                said.append(some.log_softmax(-1).cpu().numpy())
    said_ = [np.concatenate(x) for x in found]
    return FirstPick(said_[0], said_[-1] if how.when is not None else None, said_[1] if how.named else None)


def plan_logprobs(model: Any, prompts: np.ndarray) -> np.ndarray:
    """Log-probability of each place as first pick and, last, of none: float32 [D, size + 1]."""
    return read(model, prompts).first


@dataclass(frozen=True)
class SampledPlans:
    """Plans over slates. place int64 [D, K], -1 for no pick; delay int64 [D, K]; logp float64 [D], natural
    log of the probability of having sampled this plan under the mask (0 where greedy); first float64
    [D, size + 1], probability under the mask of each place as first pick, last none (None: not kept); named
    int64 [D, R], which of the residents that a prompt lists leave first, -1 for nobody (None: not asked)."""

    place: np.ndarray
    delay: np.ndarray
    logp: np.ndarray
    first: np.ndarray | None = None
    named: np.ndarray | None = None

    @classmethod
    def join(cls, parts: Sequence[SampledPlans]) -> SampledPlans:
        """One after the other."""
        first = [x.first for x in parts if x.first is not None]
        named = [x.named for x in parts if x.named is not None]
        return cls(
            np.concatenate([x.place for x in parts]), np.concatenate([x.delay for x in parts]),
            np.concatenate([x.logp for x in parts]), np.concatenate(first) if first else None,
            np.concatenate(named) if named else None,
        )  # fmt: skip

    def plans(self) -> list[tuple[tuple[int, int], ...]]:
        """As `Reading.plan_ids` takes them, sorted."""
        made = []
        for d in range(len(self.place)):
            picks = [(int(p), int(x)) for p, x in zip(self.place[d], self.delay[d], strict=True) if p >= 0]
            if self.named is not None:
                picks += [
                    (-1 - int(resident), turn) for turn, resident in enumerate(self.named[d]) if resident >= 0
                ]
            made.append(tuple(sorted(picks)))
        return made

    @property
    def propensity(self) -> np.ndarray:
        """Probability with which each plan was chosen, float64 [D]."""
        return np.exp(self.logp)


@dataclass(frozen=True)
class MindedPrompts:
    """What plans are said to. prompts: int64 [D, L]; sooner: float64 [D, size + 1], what is added to the
    log-probabilities of a first pick, last column none (None: nothing, as where nobody has rated)."""

    prompts: np.ndarray
    sooner: np.ndarray | None = None

    def __getitem__(self, rows: slice | np.ndarray) -> MindedPrompts:
        """Of some of the moments."""
        return MindedPrompts(self.prompts[rows], None if self.sooner is None else self.sooner[rows])


def whom(listed: np.ndarray, named: np.ndarray) -> np.ndarray:
    """The targets of residents that are listed (int64 [D, LISTED]) and named by their place, int64 [D, R]."""
    found = np.take_along_axis(listed, np.maximum(named, 0), axis=1)
    return np.where(named >= 0, found, -1)


def sample_plans(
    model: Any,
    prompts: np.ndarray | MindedPrompts,
    valid: np.ndarray,
    max_picks: int,
    temperature: float,
    rng: np.random.Generator,
    top_p: float = 1.0,
    names: int = 0,
) -> SampledPlans:
    """A plan for each prompt; only places that are `valid` (bool [D, size]) are ever picked.

    temperature 0 takes the likeliest token at every step. top_p below 1 draws each token from its nucleus,
    the likeliest ones under the mask that together have that share (Holtzman et al. 2020); `logp` and
    `first` are then of what is left. The key-value cache of the prompt is kept, so a plan of k picks costs
    one pass over the prompt and 2 k tokens more, for those that go on. names: how many of the residents that
    the prompts list may be named to leave first, before anything is picked; as far as the model's reading
    says who leaves.
    """
    asked = prompts if isinstance(prompts, MindedPrompts) else MindedPrompts(prompts)
    n, size = valid.shape
    place, delay = np.full((n, max_picks), -1, np.int64), np.zeros((n, max_picks), np.int64)
    logp, first = np.zeros(n), np.zeros((n, size + 1))
    how = reading_of(model)
    names = min(names, how.named)
    named = np.full((n, names), -1, np.int64)
    for rows in batches(asked.prompts, how.batch, how.shares):
        said = SampledPlans(place[rows], delay[rows], logp[rows], first[rows], named[rows])
        _sample(model, asked[rows], valid[rows], said, temperature, rng, None, top_p)
    return SampledPlans(place, delay, logp, first, named if names else None)


def plan_on(
    reader: Reader,
    prompt: MindedPrompts,
    valid: np.ndarray,
    max_picks: int,
    temperature: float,
    rng: np.random.Generator,
    top_p: float = 1.0,
) -> SampledPlans:
    """As `sample_plans`, of one prompt, by a reader that remembers what it has read."""
    nothing = np.full((1, max_picks), -1, np.int64)
    first = np.zeros((1, valid.shape[1] + 1))
    said = SampledPlans(nothing, np.zeros_like(nothing), np.zeros(1), first)
    _sample(reader.model, prompt, valid, said, temperature, rng, reader, top_p)
    return said


def _sample(
    model: Any,
    minded: MindedPrompts,
    valid: np.ndarray,
    said: SampledPlans,
    temperature: float,
    rng: np.random.Generator,
    reader: Reader | None,
    top_p: float,
) -> None:
    """Fill `said` for one batch."""
    import torch

    how, size, prompts = reading_of(model), valid.shape[1], minded.prompts
    place, delay, logp = said.place, said.delay, said.logp
    rows = np.arange(len(prompts))
    free = valid.copy()
    noise = rng.random((place.shape[1], 2, len(prompts)))  # drawn at once: who stops early changes no other
    with torch.inference_mode():
        naming = said.named is not None and said.named.shape[1] > 0
        asked = prompts[:, : -how.named - 1] if naming else prompts
        going: Any = reader.begin(asked) if reader else begin(model, asked, cache=True, share=how.shares)
        if naming:
            _name(going, prompts, said, how, temperature, rng, top_p)
        for k in range(place.shape[1]):
            letters = np.append(how.letters, how.end if k else how.nothing)
            logits = going.logits[:, -1].cpu().numpy()[:, letters]
            if k == 0 and minded.sooner is not None:
                logits = logits + minded.sooner
            allowed = np.concatenate([free, np.ones((len(rows), 1), bool)], axis=1)
            if k == 0:
                drawn_at = (temperature, top_p) if temperature > 0 else (1.0, 1.0)
                assert said.first is not None
                said.first[:] = _shares(logits, allowed, *drawn_at)
            chosen, lp = _draw(logits, allowed, temperature, noise[k, 0, rows], top_p)
            logp[rows] += lp
            goes_on = chosen < size
            if not goes_on.any():
                return
            keep = np.flatnonzero(goes_on)
            rows, chosen, free = rows[keep], chosen[keep], free[keep]
            if len(keep) < len(goes_on):
                going.keep(keep)
            going.more(how.letters[chosen])
            when, lp = _draw(
                going.logits[:, -1].cpu().numpy()[:, how.delays],
                np.ones((len(rows), len(how.delays)), bool),
                temperature,
                noise[k, 1, rows],
                top_p,
            )
            logp[rows] += lp
            place[rows, k], delay[rows, k] = chosen, when
            free &= np.arange(size)[None] > chosen[:, None]  # a plan is written in slate order
            if k + 1 < place.shape[1]:
                going.more(how.delays[when])


def _name(
    going: Any,
    prompts: np.ndarray,
    said: SampledPlans,
    how: Reading,
    temperature: float,
    rng: np.random.Generator,
    top_p: float,
) -> None:
    """Say who leaves first, and go on to where the picks begin. going: it has read up to that question."""
    assert said.named is not None
    rows, most = np.arange(len(prompts)), said.named.shape[1]
    free = how.memory(prompts)
    noise = rng.random((most, len(prompts)))
    tokens = np.append(how.residents, how.nobody)
    ended = np.zeros(len(prompts), bool)
    for k in range(how.named):
        chosen = np.full(len(prompts), len(how.residents))
        if k < most:
            allowed = np.concatenate([free & ~ended[:, None], np.ones((len(prompts), 1), bool)], axis=1)
            logits = going.logits[:, -1].cpu().numpy()[:, tokens]
            chosen, lp = _draw(logits, allowed, temperature, noise[k], top_p)
            said.logp[:] += lp
            ended |= chosen == len(how.residents)
            said.named[:, k] = np.where(ended, -1, chosen)
            free[rows[~ended], chosen[~ended]] = False
        going.more(tokens[chosen])
    going.more(np.ascontiguousarray(prompts[:, -1]))


def _draw(
    logits: np.ndarray, allowed: np.ndarray, temperature: float, noise: np.ndarray, top_p: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """A choice per row among `allowed`, and its log-probability (0 where greedy). top_p: see
    `sample_plans`."""
    if temperature <= 0:
        return np.where(allowed, logits, -np.inf).argmax(1), np.zeros(len(logits))
    p = _shares(logits, allowed, temperature, top_p)
    chosen = np.minimum((p.cumsum(1) < noise[:, None]).sum(1), allowed.shape[1] - 1)
    # Rounding can push the draw past the last column that has a share; the likeliest one stands in.
    wrong = p[np.arange(len(p)), chosen] == 0
    chosen[wrong] = p[wrong].argmax(1)
    return chosen, np.log(p[np.arange(len(p)), chosen])


def _shares(logits: np.ndarray, allowed: np.ndarray, temperature: float, top_p: float = 1.0) -> np.ndarray:
    """Probabilities among what is allowed, float64, of logits at a temperature. top_p below 1: of the
    nucleus alone, the fewest likeliest columns whose shares sum to it at least; the others get 0."""
    masked = np.where(allowed, logits.astype(np.float64), -np.inf)
    p = np.exp((masked - masked.max(1, keepdims=True)) / temperature)
    shares: np.ndarray = p / p.sum(1, keepdims=True)
    if top_p >= 1.0:
        return shares
    order = np.argsort(-shares, axis=1, kind="stable")
    falling = np.take_along_axis(shares, order, axis=1)
    before = falling.cumsum(1) - falling  # what the likelier ones have together: 0 for the likeliest
    nucleus = np.zeros_like(shares)
    np.put_along_axis(nucleus, order, np.where(before < top_p, falling, 0.0), axis=1)
    nucleus /= nucleus.sum(1, keepdims=True)
    return nucleus


def ranking(
    said: FirstPick,
    candidates: np.ndarray,
    score: np.ndarray | None = None,
    pool: float = POOL,
    heard: np.ndarray | None = None,
) -> Ranking:
    """What was said of D moments as a ranking of their slates, int32 [D, size].

    score: what the model's scorer said of them, float32 [D, size + 1] as of `Scored`; the two are then
    pooled, with weight `pool` for the scorer's. heard: what thumbs change, as of `heard`.
    """
    first = said.first.astype(np.float64)
    if score is not None:
        first = (1.0 - pool) * first + pool * score
        first -= np.logaddexp.reduce(first, axis=1, keepdims=True)
    if heard is not None:
        some = heard.any(axis=1)
        first[some] += heard[some]
        first[some] -= np.logaddexp.reduce(first[some], axis=1, keepdims=True)
    p = np.exp(first)
    listed = np.where(candidates >= 0, p[:, :-1], 0.0)
    order = np.argsort(-np.where(candidates >= 0, listed, -1.0), axis=1, kind="stable")
    rows = np.arange(len(candidates))[:, None]
    none = 1.0 - listed.sum(1)
    when = delay_s = None
    if said.when is not None:
        when = np.exp(said.when.astype(np.float64))
        reach = when.cumsum(1)
        delay_s = WHEN_S[(reach < 0.5).sum(1).clip(0, len(WHEN_S) - 1)].astype(np.float32)
    return Ranking(
        targets=candidates[rows, order].astype(np.int32),
        probability=listed[rows, order].astype(np.float32),
        none=np.clip(none, 0.0, 1.0).astype(np.float32),
        delay_s=delay_s,
        when=None if when is None else when.astype(np.float32),
        when_edges_s=() if when is None else slots.WHEN_EDGES_S,
    )


@dataclass(frozen=True)
class Answered:
    """What a model, its scorer and thumbs say of D moments, as `ranking` takes it. own: what of `heard` the
    model reads in the thumbs, as of `read_in`."""

    said: FirstPick
    candidates: np.ndarray
    score: np.ndarray | None = None
    heard: np.ndarray | None = None
    own: np.ndarray | None = None

    def together(self) -> Ranking:
        """As they rank."""
        return ranking(self.said, self.candidates, self.score, heard=self.heard)

    def alone(self) -> Ranking:
        """As the model ranks by itself."""
        return ranking(self.said, self.candidates)


def answered(
    model: Any, timeline: Timeline, slates: Slates, rows: np.ndarray, reader: Reader | None = None
) -> Answered:
    """What is said of the decisions `rows` of slates that the model looks at, memory empty.

    reader: see `read`.
    """
    how, candidates = reading_of(model), slates.candidates[rows]
    prompts = how.prompts(timeline, slates, rows)
    if not isinstance(slates, Scored) or timeline.thumbs is None:
        score = slates.score[rows] if isinstance(slates, Scored) else None
        return Answered(read(model, prompts, reader=reader), candidates, score)
    bare = how.prompts(replace(timeline, thumbs=None), slates, rows)
    own = read_in(model, bare, prompts)
    minds = _pooled(model, own, said_by(timeline, rows, candidates))
    return Answered(read(model, bare), candidates, slates.score[rows], minds, own)


def ranked(
    model: Any, timeline: Timeline, slates: Slates, rows: np.ndarray, reader: Reader | None = None
) -> Ranking:
    """How the model ranks decisions, with its scorer where it has one; as of `answered`."""
    return answered(model, timeline, slates, rows, reader).together()


def heard(model: Any, bare: np.ndarray, prompts: np.ndarray, said: SoFar) -> np.ndarray:
    """How much sooner each place is picked first for what was said: differences of log-probabilities, float64
    [D, size + 1]. The model reads it in its prompts (bare: the same without thumbs); the scorer, whose trees
    know of none, minds it by Bayes' rule; the two are pooled like their answers."""
    return _pooled(model, read_in(model, bare, prompts), said)


def _pooled(model: Any, own: np.ndarray, said: SoFar) -> np.ndarray:
    looks = getattr(reading_of(model), "looks", None)
    fitted = looks is not None and looks.scorer is not None and looks.scorer.below is not None
    return (FITTED if fitted else 1.0) * ((1.0 - POOL) * own + POOL * said.sooner())


def minded(model: Any, bare: np.ndarray, prompts: np.ndarray, said: SoFar) -> MindedPrompts:
    """Prompts with thumbs, to say plans to whose first pick minds them as a ranking does (`heard`): what the
    model reads in them counts in part, and Bayes' rule beside it. Later picks go by what the model reads."""
    own = read_in(model, bare, prompts)
    return MindedPrompts(prompts, _pooled(model, own, said) - own)


def read_in(model: Any, bare: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """What the model makes of thumbs in its prompts: differences of log-probabilities to the same without,
    float64 [D, size + 1]."""
    bare, prompts = equally_wide(bare, prompts)
    some = np.flatnonzero((bare != prompts).any(axis=1))
    both = read(model, np.concatenate([bare[some], prompts[some]])).first.astype(np.float64)
    found = np.zeros((len(prompts), both.shape[1]))
    found[some] = both[len(some) :] - both[: len(some)]
    return found


def equally_wide(*made: np.ndarray) -> list[np.ndarray]:
    """Prompts int64 [D, L_i] with as many columns each, -1 to the left."""
    width = max(x.shape[1] for x in made)
    return [np.pad(x, ((0, 0), (width - x.shape[1], 0)), constant_values=-1) for x in made]

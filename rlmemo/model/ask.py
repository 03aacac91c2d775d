"""Asking the language model: one forward pass ranks the slate, a short sampled sequence is a plan.

The log-probabilities of the letters and of `<end>` after `<plan>` are the ranking and "none of these";
those of the `<when>` tokens are the time until the next opening. A plan is sampled token by token under a
mask that leaves only valid plans (places that are filled, not warm, in slate order, a delay after each
letter), so the probability that is logged as propensity is exactly the probability of having said it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from env.ranking import Ranking
from env.slate.slate import Slates
from env.timeline import Timeline
from rlmemo.model import slots
from rlmemo.model.branching import Reader, can_branch
from rlmemo.model.forward import batches, begin
from rlmemo.model.readings import reading_of
from rlmemo.model.scorer import Scored

POOL = 2 / 3
"""Weight of the scorer in a ranking that it and the model make together, in log-probability: the model and
the two boosters of a run's scorer count alike. A model this small reads with a loss what the scorer
said (.02 nats; experiments/LOG.md, "two boosters")."""


# Middle of each `WHEN` bucket in log time, seconds: what is said when one number is asked for.
WHEN_S = np.sqrt(np.array([0.7, *slots.WHEN_EDGES_S]) * np.array([*slots.WHEN_EDGES_S, 86400.0]))


@dataclass(frozen=True)
class FirstPick:
    """What the model says of D moments. first float32 [D, size + 1]: log-probability of each place as the
    first pick, last column none; when float32 [D, len(WHEN)]: log-probability of the time until the next
    opening (None where the model's reading has no view of it)."""

    first: np.ndarray
    when: np.ndarray | None


def read(
    model: Any, prompts: np.ndarray, batch: int | None = None, reader: Reader | None = None
) -> FirstPick:
    """One forward pass over prompts int64 [D, L] of the model's reading; the head is evaluated at two places
    only. batch: prompts at a time (None: as the reading says). reader: of the same model, which remembers
    what it has read (None: a new one, where the model's prompts begin alike)."""
    import torch

    how = reading_of(model)
    asked = [np.append(how.letters, how.nothing)] + ([] if how.when is None else [how.when])
    found: list[list[np.ndarray]] = [[np.zeros((0, len(tokens)), np.float32)] for tokens in asked]
    if reader is None and how.shares and can_branch(model):
        reader = Reader(model)
    with torch.inference_mode():
        for rows in batches(prompts, batch or how.batch, how.shares):
            if reader is not None:
                logits = reader.read(prompts[rows], len(asked))
            else:
                logits = begin(model, prompts[rows], last=len(asked), share=how.shares).logits
            for back, (tokens, said) in enumerate(zip(asked, found, strict=True)):
                some = logits[:, -1 - back, torch.from_numpy(tokens).to(logits.device)]
                said.append(some.log_softmax(-1).cpu().numpy())
    both = [np.concatenate(x) for x in found]
    return FirstPick(both[0], both[1] if how.when is not None else None)


def plan_logprobs(model: Any, prompts: np.ndarray) -> np.ndarray:
    """Log-probability of each place as first pick and, last, of none: float32 [D, size + 1]."""
    return read(model, prompts).first


@dataclass(frozen=True)
class SampledPlans:
    """Plans over slates. place int64 [D, K], -1 for no pick; delay int64 [D, K]; logp float64 [D], natural
    log of the probability of having sampled this plan under the mask (0 where greedy); first float64
    [D, size + 1], probability under the mask of each place as first pick, last none (None: not kept)."""

    place: np.ndarray
    delay: np.ndarray
    logp: np.ndarray
    first: np.ndarray | None = None

    @property
    def propensity(self) -> np.ndarray:
        """Probability with which each plan was chosen, float64 [D]."""
        return np.exp(self.logp)


def sample_plans(
    model: Any,
    prompts: np.ndarray,
    valid: np.ndarray,
    max_picks: int,
    temperature: float,
    rng: np.random.Generator,
    reader: Reader | None = None,
    top_p: float = 1.0,
) -> SampledPlans:
    """A plan for each prompt; only places that are `valid` (bool [D, size]) are ever picked.

    temperature 0 takes the likeliest token at every step. top_p below 1 draws each token from its nucleus,
    the likeliest ones under the mask that together have that share (Holtzman et al. 2020); `logp` and
    `first` are then of what is left. The key-value cache of the prompt is kept, so a plan of k picks costs
    one pass over the prompt and 2 k tokens more, for those that go on. reader: see `read`; prompts are then
    read one by one.
    """
    n, size = valid.shape
    place, delay = np.full((n, max_picks), -1, np.int64), np.zeros((n, max_picks), np.int64)
    logp, first = np.zeros(n), np.zeros((n, size + 1))
    how = reading_of(model)
    for rows in batches(prompts, 1 if reader else how.batch, how.shares):
        said = SampledPlans(place[rows], delay[rows], logp[rows], first[rows])
        _sample(model, prompts[rows], valid[rows], said, temperature, rng, reader, top_p)
    return SampledPlans(place, delay, logp, first)


def _sample(
    model: Any,
    prompts: np.ndarray,
    valid: np.ndarray,
    said: SampledPlans,
    temperature: float,
    rng: np.random.Generator,
    reader: Reader | None,
    top_p: float,
) -> None:
    """Fill `said` for one batch."""
    import torch

    how, size = reading_of(model), valid.shape[1]
    place, delay, logp = said.place, said.delay, said.logp
    rows = np.arange(len(prompts))
    free = valid.copy()
    noise = rng.random((place.shape[1], 2, len(prompts)))  # drawn at once: who stops early changes no other
    with torch.inference_mode():
        going: Any = reader.begin(prompts) if reader else begin(model, prompts, cache=True, share=how.shares)
        for k in range(place.shape[1]):
            letters = np.append(how.letters, how.end if k else how.nothing)
            logits = going.logits[:, -1].cpu().numpy()
            allowed = np.concatenate([free, np.ones((len(rows), 1), bool)], axis=1)
            if k == 0:
                drawn_at = (temperature, top_p) if temperature > 0 else (1.0, 1.0)
                assert said.first is not None
                said.first[:] = _shares(logits[:, letters], allowed, *drawn_at)
            chosen, lp = _draw(logits[:, letters], allowed, temperature, noise[k, 0, rows], top_p)
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
    said: FirstPick, candidates: np.ndarray, score: np.ndarray | None = None, pool: float = POOL
) -> Ranking:
    """What was said of D moments as a ranking of their slates, int32 [D, size].

    score: what the model's scorer said of them, float32 [D, size + 1] as of `Scored`; the two are then
    pooled, with weight `pool` for the scorer's.
    """
    first = said.first.astype(np.float64)
    if score is not None:
        first = (1.0 - pool) * first + pool * score
        first -= np.logaddexp.reduce(first, axis=1, keepdims=True)
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


def ranked(
    model: Any, timeline: Timeline, slates: Slates, rows: np.ndarray, reader: Reader | None = None
) -> Ranking:
    """How the model ranks the decisions `rows` of slates that it looks at, memory empty.

    reader: see `read`.
    """
    said = read(model, reading_of(model).prompts(timeline, slates, rows), reader=reader)
    score = slates.score[rows] if isinstance(slates, Scored) else None
    return ranking(said, slates.candidates[rows], score)

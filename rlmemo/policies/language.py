"""The language model as a policy: one forward pass ranks the slate, a short sampled sequence is a plan.

The model reads a moment as `rlmemo.policies.reading` writes it. The log-probabilities of the letters and
of `<end>` after `<plan>` are the ranking and "none of these"; those of the `<when>` tokens are the time
until the next opening. A plan is sampled token by token under a mask that leaves only valid plans (places
that are filled, not warm, in slate order, a delay after each letter), so the probability that is logged
as propensity is exactly the probability of having said it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from env.cost import Costs, WorldConfig
from env.errors import InputError
from env.slate import Slates
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies import reading
from rlmemo.policies.branching import Reader, can_branch
from rlmemo.policies.forward import batches, begin
from rlmemo.policies.hub import (
    EMBEDDED,
    PROMPTED,
    Loading,
    check_model,
    is_slots,
    model_folder,
    model_sha256,
)
from rlmemo.policies.planners import Planned
from rlmemo.policies.precision import for_reading
from rlmemo.policies.protocol import Ranking, Stream
from rlmemo.policies.readings import SlotReading, reading_of
from rlmemo.policies.scorer import Scored

POOL = 2 / 3
"""Weight of the scorer in a ranking that it and the model make together, in log-probability: the model and
the two boosters of a run's scorer count alike. A model this small reads with a loss what the scorer
said (.02 nats; experiments/LOG.md, "two boosters")."""
# Middle of each `WHEN` bucket in log time, seconds: what is said when one number is asked for.
WHEN_S = np.sqrt(np.array([0.7, *reading.WHEN_EDGES_S]) * np.array([*reading.WHEN_EDGES_S, 86400.0]))


def load_model(name: str = EMBEDDED, loading: Loading = Loading()) -> tuple[Any, Any]:  # noqa: B008
    """(model, tokenizer) of the embedded base model, a folder in hub format, or a hub's name.

    A model with our vocabulary comes in float32 on the CPU; any other as `rlmemo.policies.text` loads it, and
    then the tokenizer is the one that reads `Reading.text` back. Only safetensors are read, and nothing is
    downloaded. Raises InputError where there is no such model.
    """
    check_model(name, download=False)
    if not is_slots(name):
        from rlmemo.policies.text_loading import load_text

        return load_text(name, loading)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    # transformers 5.23 asks itself for a property that it has deprecated.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    path = model_folder(name)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for reading less than a megabyte
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, use_safetensors=True, dtype="float32", attn_implementation="sdpa"
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model {name}: cannot be read ({error})") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    return model.eval(), tokenizer


def load_adapted(name: str, adapter: Path | None, loading: Loading = Loading()) -> Any:  # noqa: B008
    """The model `name` reading with the adapter of a folder (None: as it came), in the precision that
    `loading.dtype` says."""
    model, _ = load_model(name, loading)
    if adapter is not None:
        from rlmemo.learning.adapters import reading as read_with

        model = read_with(model, adapter)
    model = for_reading(model.eval(), loading.dtype)
    return model if adapter is None else with_scorer(model, adapter.parent)


def with_scorer(model: Any, run: Path) -> Any:
    """The model, reading the answers of the scorer of a run folder, if it reads any."""
    from rlmemo.policies.scorer import load_scorers

    if reading_of(model).kind == "slots":
        model.reading = SlotReading(load_scorers(run / "scorer").final)
    return model


@dataclass(frozen=True)
class Said:
    """What the model says of D moments. first float32 [D, size + 1]: log-probability of each place as the
    first pick, last column none; when float32 [D, len(WHEN)]: log-probability of the time until the next
    opening (None where the model's reading has no view of it)."""

    first: np.ndarray
    when: np.ndarray | None


def read(model: Any, prompts: np.ndarray, batch: int | None = None, reader: Reader | None = None) -> Said:
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
    return Said(both[0], both[1] if how.when is not None else None)


def plan_logprobs(model: Any, prompts: np.ndarray) -> np.ndarray:
    """Log-probability of each place as first pick and, last, of none: float32 [D, size + 1]."""
    return read(model, prompts).first


@dataclass(frozen=True)
class Sampled:
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
    batch: int | None = None,
    reader: Reader | None = None,
    top_p: float = 1.0,
) -> Sampled:
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
    for rows in batches(prompts, 1 if reader else batch or how.batch, how.shares):
        _sample(
            model, prompts[rows], valid[rows], temperature, rng, place[rows], delay[rows], logp[rows],
            first[rows], size, reader, top_p,
        )  # fmt: skip
    return Sampled(place, delay, logp, first)


def _sample(
    model: Any,
    prompts: np.ndarray,
    valid: np.ndarray,
    temperature: float,
    rng: np.random.Generator,
    place: np.ndarray,
    delay: np.ndarray,
    logp: np.ndarray,
    first: np.ndarray,
    size: int,
    reader: Reader | None,
    top_p: float,
) -> None:
    """Fill place, delay, logp and first for one batch."""
    import torch

    how = reading_of(model)
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
                first[:] = _shares(logits[:, letters], allowed, *drawn_at)
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
    said: Said, candidates: np.ndarray, score: np.ndarray | None = None, pool: float = POOL
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
        when_edges_s=() if when is None else reading.WHEN_EDGES_S,
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


class LanguagePolicy:
    """A language model (its adapter merged) behind the `Policy` and `PlanningPolicy` protocols.

    threshold None: plans are the model's own, said token by token, greedily unless `temperature` > 0.
    threshold x: plans are the best-ranked cold targets with probability >= x, at once; the judge may then
    tune x anew (`PlanningPolicy` is not implemented by that form; see `RankedLanguagePolicy`).
    """

    def __init__(self, model: Any, name: str = "language", temperature: float = 0.0) -> None:
        self.model, self.name, self.temperature = model, name, temperature

    @staticmethod
    def load(folder: str | Path) -> Any:
        """The policy of a run folder, with the planner that its run chose on validation.

        Raises InputError where the folder holds no finished run.
        """
        folder = Path(folder)
        import yaml

        try:
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            settings, met = config["settings"], config.get("met") or {}
            choice_file = folder / "adapter" / "plan.json"
            choice = json.loads(choice_file.read_text()) if choice_file.exists() else {"planner": "own"}
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise InputError(f"{folder}: is no finished run ({error}); train one with --out") from None
        base = str(settings.get("model", EMBEDDED))
        loading = Loading(**{f.name: settings[f.name] for f in fields(Loading) if f.name in settings})
        if settings.get("peft") in PROMPTED:
            loading = replace(loading, learned=int(settings.get("virtual_tokens", 0)))
        if met.get("base_sha256") and met["base_sha256"] != model_sha256(base):
            raise InputError(f"{folder}: its base model {base} has changed since; train it again with --out")
        switch = None
        if (folder / "adapters").is_dir():
            from rlmemo.policies.per_user import per_user, switching

            switch = switching(with_scorer(load_model(base, loading)[0], folder), folder)
        model = switch.model if switch else load_adapted(base, folder / "adapter", loading)
        kind = LanguagePolicy if choice.get("planner") == "own" else RankedLanguagePolicy
        from rlmemo.feedback.judging import approved

        minding = approved(LanguagePolicy(model, folder.name), folder / "adapter", choice, folder.name)
        policy: Any = minding or kind(model, folder.name)
        return per_user(policy, switch) if switch else policy

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing: it was trained by `python -m rlmemo.train`."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """The slate by the model's probabilities, with all targets taken as cold; see `Policy.rank`."""
        indices = np.asarray(indices, np.int64)
        slates = reading_of(self.model).look(timeline, indices)
        return ranked(self.model, timeline, slates, indices)

    def stream(self, timeline: Timeline) -> Stream:
        """One decision after another, each from the event that is new; see `rlmemo.policies.streaming`."""
        from rlmemo.policies.streaming import follow

        return follow(self.model, timeline)

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """The model's own plans for decisions `indices` (increasing, without gaps), each made in the world
        that the plans before it have left.

        A plan depends on what is warm, and that on earlier plans. Instead of one forward pass after the
        other, all decisions are asked at once in the world as far as it is known, the plans are played,
        and whoever saw another world than that is asked again, until nobody did. Decision i is final after
        at most i rounds, and what comes out is what asking one by one gives.
        """
        from env.plans import Plans
        from rlmemo.policies.residency import residency

        indices = np.asarray(indices, np.int64)
        slates = reading_of(self.model).look(timeline, indices)
        n, picks = len(indices), config.max_picks
        first, last = int(indices[0]), int(indices[-1])
        candidates = slates.candidates[indices]
        plans = Plans.empty(n, picks)
        logp = np.zeros(n)
        asked = np.full((n, candidates.shape[1] + 1), np.nan)
        for _ in range(n + 1):
            warm, free = residency(timeline, slates.candidates, costs, config, plans, first, last)
            seen = np.concatenate([warm, reading_of(self.model).free_level(free)[:, None]], axis=1).astype(
                np.float64
            )
            rows = np.flatnonzero((seen != asked).any(1))
            if not len(rows):
                break
            asked[rows] = seen[rows]
            said = self._say(slates, timeline, indices[rows], warm[rows], free[rows], config, seed)
            for k in range(picks):
                picked = said.place[:, k] >= 0
                place = np.maximum(said.place[:, k], 0)
                plans.target[rows, k] = np.where(picked, candidates[rows, place], -1)
                plans.delay[rows, k] = np.where(picked, said.delay[:, k], 0)
            logp[rows] = said.logp
        return Planned(plans.target, plans.delay, np.exp(logp))

    def _say(
        self,
        slates: Slates,
        timeline: Timeline,
        indices: np.ndarray,
        warm: np.ndarray,
        free: np.ndarray,
        config: WorldConfig,
        seed: int,
    ) -> Sampled:
        prompts = reading_of(self.model).prompts(timeline, slates, indices, warm, free)
        valid = (slates.candidates[indices] >= 0) & (warm == 0)
        if self.temperature <= 0:
            rng = np.random.default_rng(seed)
            return sample_plans(self.model, prompts, valid, config.max_picks, 0.0, rng)
        # One generator a decision: what is drawn must not depend on which others are asked again.
        made = [
            sample_plans(
                self.model, prompts[j : j + 1], valid[j : j + 1], config.max_picks, self.temperature,
                np.random.default_rng([seed, int(i)]),
            )
            for j, i in enumerate(indices)
        ]  # fmt: skip
        return Sampled(
            np.concatenate([m.place for m in made]),
            np.concatenate([m.delay for m in made]),
            np.concatenate([m.logp for m in made]),
        )


class RankedLanguagePolicy:
    """A language model that only ranks; the judge plans by a threshold tuned on validation."""

    def __init__(self, model: Any, name: str = "language") -> None:
        self._policy = LanguagePolicy(model, name)
        self.name, self.model = name, model

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing: it was trained by `python -m rlmemo.train`."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `LanguagePolicy.rank`."""
        return self._policy.rank(timeline, indices)

    def stream(self, timeline: Timeline) -> Stream:
        """See `LanguagePolicy.stream`."""
        return self._policy.stream(timeline)

"""The other reading: a long context of anonymous slots, every event supervised (the idea of STAP).

    python -m experiments.pretrain_slots --minutes 20 --timelines webtrackr        # one line of JSON
    python -m experiments.pretrain_slots --minutes 20 --statistics                 # both readings in one

Targets become slot tokens, numbered anew at random for every window of a timeline (STAP, arXiv
2605.29863), so that a model can only learn how people repeat themselves. One position an event: the sum
of its slot's, its gap's and its hour's embedding; asked at every position: the slot of the next event,
or "new" where the window has not shown it yet. Qwen3 architecture, random start, synthetic personas
alone; judged on the validation part of a recording beside the same answers restricted to the candidates
of the slate. With `--statistics` the shipped scorer's distribution over the slate, which knows the whole
history, stands beside every event: its mean slot is added to what is read, its log-probabilities to what is
answered, so that the model only has to learn what the statistics do not say. An experiment to compare with
`rlmemo.model.slots` (experiments/LOG.md), not a part of the product. Minutes are those of the processor
(run it with OMP_NUM_THREADS=1), so that other work on the machine changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Any

import numpy as np

from env.errors import run_main
from rlmemo.options import Parser

SLOTS = 256
NEW = SLOTS  # the answer "a target that this window has not shown", nor the slate where there is one
GAPS_S = (2.0, 5.0, 10.0, 30.0, 90.0, 300.0, 1800.0, 14400.0)
HOURS = 8
UNLISTED = -8.0
"""What the scorer is taken to say, in log-probability, of a target that its slate does not list."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What the scorer says at every event: candidates int64 [n, K] (-1: none), log_p float32 [n, K + 1], the
    last of none of them."""

    candidates: np.ndarray
    log_p: np.ndarray

    def cut(self, part: slice) -> Told:
        return Told(self.candidates[part], self.log_p[part])


def told(slates: Any, scorer: Any) -> Told:
    """What a scorer says of wide slates."""
    log_p = scorer.log_p(slates, np.arange(len(slates.candidates)))
    return Told(slates.candidates.astype(np.int64), log_p)


def window(
    target: np.ndarray, t: np.ndarray, local: np.ndarray, rng: np.random.Generator, said: Told | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[int, int]]:
    """One window of L + 1 events as tokens int64 [3, L] (slot, gap, hour), answers int64 [L] (-1 where there
    are more targets than slots), what the scorer says by slot and of NEW, float32 [L, SLOTS + 1] (None: not
    asked), and the slot of every target. Nothing of event i + 1 is in column i."""
    listed = said.candidates[:-1].ravel() if said else target[:0]
    everything = np.concatenate([target, listed[listed >= 0]])
    ids, first = np.unique(everything, return_index=True)
    ids = ids[np.argsort(first)][:SLOTS]  # what was opened first, then what is only listed
    slots = dict(zip(ids.tolist(), rng.permutation(SLOTS)[: len(ids)].tolist(), strict=True))
    lookup = np.full(int(everything.max()) + 1, -1, np.int64)
    lookup[ids] = list(slots.values())
    slot = lookup[target]
    opened = np.full(len(lookup), len(target))
    np.minimum.at(opened, target, np.arange(len(target)))
    new = opened[target[1:]] == np.arange(1, len(target))  # first opened in this window by event i + 1
    bias = None
    if said is not None:
        candidates, log_p = said.candidates[:-1], said.log_p[:-1]
        bias = np.full((len(target) - 1, SLOTS + 1), UNLISTED, np.float32)
        row, place = np.nonzero(candidates >= 0)
        at = lookup[candidates[row, place]]
        bias[row[at >= 0], at[at >= 0]] = log_p[row, place][at >= 0]
        bias[:, NEW] = log_p[:, -1]
        new &= ~(candidates == target[1:, None]).any(1)
    answer = np.where(new, NEW, slot[1:])
    gap = np.searchsorted(np.array(GAPS_S), np.diff(t, prepend=t[0]), side="right")
    hour = (local // (86400 / HOURS) % HOURS).astype(np.int64)
    return np.stack([np.where(slot < 0, 0, slot), gap, hour])[:, :-1], answer, bias, slots


class Windows:
    """Windows of personas, drawn from a pool that is refilled a little with every batch."""

    def __init__(self, length: int, seed: int, scorer: Any = None, pool: int = 60) -> None:
        self.length, self.rng, self.scorer = length, np.random.default_rng(seed), scorer
        self.people = [self._person() for _ in range(pool)]

    def _person(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, Told | None]:
        from env.slate.slate import slates_from_columns
        from experiments.personas import persona
        from rlmemo.model.scorer import WIDE

        n = int(np.exp(self.rng.uniform(np.log(self.length + 50), np.log(6000))))
        t, target, site, v = persona(int(self.rng.integers(2**31)), n)
        local = t + 3600.0 * self.rng.integers(-11, 13)
        said = None
        if self.scorer is not None:
            said = told(slates_from_columns(t, target, local, site, v, WIDE), self.scorer)
        return target.astype(np.int64), t, local, said

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Tokens [size, 3, L], answers [size, L], what the scorer says [size, L, SLOTS + 1]."""
        self.people[int(self.rng.integers(len(self.people)))] = self._person()
        made = []
        for _ in range(size):
            target, t, local, said = self.people[int(self.rng.integers(len(self.people)))]
            a = int(self.rng.integers(0, len(target) - self.length))
            cut = slice(a, a + self.length + 1)
            made.append(window(target[cut], t[cut], local[cut], self.rng, said.cut(cut) if said else None))
        bias = None if self.scorer is None else np.stack([m[2] for m in made if m[2] is not None])
        return np.stack([m[0] for m in made]), np.stack([m[1] for m in made]), bias


def make_model(hidden: int, layers: int, length: int) -> Any:
    """A Qwen3 over slots, gaps and hours, and what the scorer says of the slots, if it is told."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    class Slots(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Qwen3Model(
                Qwen3Config(
                    vocab_size=8, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
                    num_attention_heads=4, num_key_value_heads=4, head_dim=hidden // 4,
                    max_position_embeddings=length,
                )
            )  # fmt: skip
            self.slot = torch.nn.Embedding(SLOTS + 1, hidden)
            self.gap = torch.nn.Embedding(len(GAPS_S) + 1, hidden)
            self.hour = torch.nn.Embedding(HOURS, hidden)
            for table in (self.slot, self.gap, self.hour):
                torch.nn.init.normal_(table.weight, std=hidden**-0.5)
            self.mix = torch.nn.Linear(hidden, hidden, bias=False)
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.correction = torch.nn.Parameter(torch.full((), 0.1))

        def forward(self, tokens: Any, said: Any = None) -> Any:
            """tokens int64 [B, 3, L], said float32 [B, L, SLOTS + 1] -> logits [B, L, SLOTS + 1]."""
            x = self.slot(tokens[:, 0]) + self.gap(tokens[:, 1]) + self.hour(tokens[:, 2])
            if said is not None:
                x = x + self.mix(said.exp() @ self.slot.weight)
            hidden_ = self.body(inputs_embeds=x, use_cache=False).last_hidden_state
            logits = hidden_ @ self.slot.weight.T
            return logits if said is None else self.weight * said + self.correction * logits

    return Slots()


def judge(
    model: Any, name: str, length: int, scorers: dict[str, Any] | None = None, stride: int = 64
) -> dict[str, float]:
    """hr@1/3/5 and mrr@5 on the validation part, from the last `length` events of every decision: of all
    targets that have a slot, and of those that stand in the slate. Slots are numbered by one draw. scorers:
    by name, whose answers the model is told (one after the other), each judged alone too."""
    import torch

    from env.slate.slate import build_slates
    from env.sources import load_timelines
    from env.splits import chrono
    from rlmemo.model.scorer import WIDE, fit_scorers

    loaded = load_timelines(name, seed=0)
    split = chrono(loaded.timelines)
    wide = [build_slates(x, WIDE) for x in loaded.timelines]
    train = [e[e > 0] - 1 for e in split.train]
    ranks: dict[str, list[int]] = {}
    for kind, given in (scorers or {"": None}).items():
        rng = np.random.default_rng(0)
        scorer = fit_scorers(wide, train, seed=0).final if given == "fitted" else given
        for u, timeline in enumerate(loaded.timelines):
            slates, events = (build_slates(timeline) if scorer is None else wide[u]), split.validation[u]
            local = timeline.local()
            all_said = None if scorer is None else told(slates, scorer)
            for a in range(int(events[0]), int(events[-1]) + 1, stride):
                b = min(a + stride, int(events[-1]) + 1)
                start = max(0, b - 1 - length)
                cut = slice(start, b)
                target = timeline.target[cut].astype(np.int64)
                said = all_said.cut(cut) if all_said else None
                tokens, _, bias, slots = window(target, timeline.t[cut], local[cut], rng, said)
                with torch.no_grad():
                    asked = () if bias is None else (torch.from_numpy(bias[None]),)
                    logits = model(torch.from_numpy(tokens[None]), *asked)[0].numpy()
                for event in range(a, b):
                    i = event - 1 - start
                    listed = [x for x in slates.candidates[event - 1].tolist() if x >= 0]
                    shown = set(target[: i + 1].tolist()) | (set(listed) if said else set())
                    shown.discard(int(target[i]))
                    score = {x: logits[i][slots[x]] for x in shown if x in slots}
                    kinds = {"all": score, "slate": {x: v for x, v in score.items() if x in listed}}
                    if said is not None:
                        own = said.log_p[i]
                        kinds["scorer alone"] = dict(zip(listed, own[: len(listed)].tolist(), strict=True))
                    for made, value in kinds.items():
                        mine = value.get(int(timeline.target[event]))
                        place = 99 if mine is None else sum(v > mine for v in value.values())
                        ranks.setdefault(" ".join(filter(None, (kind, made))), []).append(place)
    found: dict[str, float] = {"judged": float(len(next(iter(ranks.values()))))}
    for kind, places in ranks.items():
        r = np.array(places)
        found |= {f"{kind} hr@{k}": float((r < k).mean()) for k in (1, 3, 5)}
        found[f"{kind} mrr@5"] = float(np.where(r < 5, 1 / (r + 1.0), 0).mean())
    return found


def main() -> None:
    parser = Parser(
        description=__doc__,
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="training time, the schedule's length")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=384, help="events of context")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--timelines", default="webtrackr", help="whose validation part judges")
    parser.add_argument("--statistics", action="store_true", help="the scorer beside every event; see above")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import torch

    torch.manual_seed(args.seed)
    model = make_model(args.hidden, args.layers, args.length)
    scorer = None
    if args.statistics:
        from rlmemo.model.scorer import base_scorer

        scorer = base_scorer()
    windows = Windows(args.length, args.seed, scorer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    start, told_at, step, mean = time.process_time(), -60.0, 0, 0.0
    while (progress := (time.process_time() - start) / (60 * args.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
        tokens, answer, said = windows.batch(args.batch)
        logits = model(torch.from_numpy(tokens), *([] if said is None else [torch.from_numpy(said)]))
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(answer).flatten(), ignore_index=-1
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, mean = step + 1, 0.98 * mean + 0.02 * loss.item() if step else loss.item()
        if time.process_time() - start - told_at > 60:
            told_at = time.process_time() - start
            print(json.dumps({"s": round(told_at), "step": step, "loss": round(mean, 3)}), flush=True)
    model.eval()
    scorers = {"shipped": scorer, "fitted": "fitted"} if scorer is not None else None
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()), "minutes": args.minutes,
                "events": step * args.batch * args.length, "loss": round(mean, 3),
                "timelines": args.timelines,
                "statistics": args.statistics,
                **{k: round(v, 4) for k, v in judge(model, args.timelines, args.length, scorers).items()},
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    run_main(main)

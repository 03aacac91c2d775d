"""The other reading: a long context of anonymous slots, every event supervised (the idea of STAP).

    python -m experiments.pretrain_slots --minutes 20 --timelines webtrackr        # one line of JSON

Targets become slot tokens, numbered anew at random for every window of a timeline (STAP, arXiv
2605.29863), so that a model can only learn how people repeat themselves. One position an event: the sum
of its slot's, its gap's and its hour's embedding; asked at every position: the slot of the next event,
or "new" where the window has not shown it yet. Qwen3 architecture, random start, synthetic personas
alone; judged on the validation part of a recording beside the same answers restricted to the candidates
of the slate. An experiment to compare with `rlmemo.policies.reading` (experiments/LOG.md), not a part of
the product. Minutes are those of the processor (run it with OMP_NUM_THREADS=1), so that other work on
the machine changes nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import numpy as np

SLOTS = 256
NEW = SLOTS  # the answer "a target that this window has not shown"
GAPS_S = (2.0, 5.0, 10.0, 30.0, 90.0, 300.0, 1800.0, 14400.0)
HOURS = 8


def window(
    target: np.ndarray, t: np.ndarray, local: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One window of L + 1 events as tokens int64 [3, L] (slot, gap, hour) and answers int64 [L]; -1 where
    there are more targets than slots. Nothing of event i + 1 is in column i of the tokens."""
    first, place = np.unique(target, return_index=True)[1], np.zeros(int(target.max()) + 1, np.int64)
    order = target[np.sort(first)]
    place[order] = np.arange(len(order))
    number = place[target]
    names = rng.permutation(SLOTS)
    slot = np.where(number < SLOTS, names[np.minimum(number, SLOTS - 1)], -1)
    shown = np.maximum.accumulate(number)
    answer = np.where(number[1:] > shown[:-1], NEW, slot[1:])
    gap = np.searchsorted(np.array(GAPS_S), np.diff(t, prepend=t[0]), side="right")
    hour = (local // (86400 / HOURS) % HOURS).astype(np.int64)
    return np.stack([np.where(slot < 0, names[-1], slot), gap, hour])[:, :-1], answer


class Windows:
    """Windows of personas, drawn from a pool that is refilled a little with every batch."""

    def __init__(self, length: int, seed: int, pool: int = 60) -> None:
        self.length, self.rng, self.seed = length, np.random.default_rng(seed), seed
        self.people = [self._person() for _ in range(pool)]

    def _person(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from experiments.personas import persona

        n = int(np.exp(self.rng.uniform(np.log(self.length + 50), np.log(6000))))
        t, target, _, _ = persona(int(self.rng.integers(2**31)), n)
        return target.astype(np.int64), t, t + 3600.0 * self.rng.integers(-11, 13)

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [size, 3, L] and answers [size, L]."""
        self.people[int(self.rng.integers(len(self.people)))] = self._person()
        made = []
        for _ in range(size):
            target, t, local = self.people[int(self.rng.integers(len(self.people)))]
            a = int(self.rng.integers(0, len(target) - self.length))
            cut = slice(a, a + self.length + 1)
            made.append(window(target[cut], t[cut], local[cut], self.rng))
        return np.stack([m[0] for m in made]), np.stack([m[1] for m in made])


def make_model(hidden: int, layers: int, length: int) -> Any:
    """A Qwen3 over slots, gaps and hours; `embed` gives the sums that it reads."""
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

        def forward(self, tokens: Any) -> Any:
            """tokens int64 [B, 3, L] -> logits [B, L, SLOTS + 1]."""
            x = self.slot(tokens[:, 0]) + self.gap(tokens[:, 1]) + self.hour(tokens[:, 2])
            hidden_ = self.body(inputs_embeds=x, use_cache=False).last_hidden_state
            return hidden_ @ self.slot.weight.T

    return Slots()


def judge(model: Any, name: str, length: int, stride: int = 64) -> dict[str, float]:
    """hr@1/3/5 and mrr@5 on the validation part, from the last `length` events of every decision: of all
    slots that the window has shown, and of those that stand in the slate. Slots are numbered by one draw."""
    import torch

    from env.slate import build_slates
    from env.sources import load_timelines
    from env.splits import chrono

    loaded = load_timelines(name, seed=0)
    split, rng = chrono(loaded.timelines), np.random.default_rng(0)
    ranks: dict[str, list[int]] = {"all": [], "slate": []}
    for u, timeline in enumerate(loaded.timelines):
        slates, events = build_slates(timeline), split.validation[u]
        local = timeline.local()
        for a in range(int(events[0]), int(events[-1]) + 1, stride):
            b = min(a + stride, int(events[-1]) + 1)
            start = max(0, b - 1 - length)
            cut = slice(start, b)
            target = timeline.target[cut].astype(np.int64)
            tokens, _ = window(target, timeline.t[cut], local[cut], rng)
            with torch.no_grad():
                logits = model(torch.from_numpy(tokens[None]))[0].numpy()
            for event in range(a, b):
                i = event - 1 - start
                known = dict(zip(target[: i + 1].tolist(), tokens[0][: i + 1].tolist(), strict=True))
                known.pop(int(target[i]), None)
                for kind in ranks:
                    listed = set(slates.candidates[event - 1].tolist()) if kind == "slate" else None
                    score = {x: logits[i][s] for x, s in known.items() if listed is None or x in listed}
                    mine = score.get(int(timeline.target[event]))
                    ranks[kind].append(99 if mine is None else sum(v > mine for v in score.values()))
    found: dict[str, float] = {"judged": float(len(ranks["all"]))}
    for kind, made in ranks.items():
        r = np.array(made)
        found |= {f"{kind}_hr@{k}": float((r < k).mean()) for k in (1, 3, 5)}
        found[f"{kind}_mrr@5"] = float(np.where(r < 5, 1 / (r + 1.0), 0).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="training time, the schedule's length")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=384, help="events of context")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--timelines", default="webtrackr", help="whose validation part judges")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import torch

    torch.manual_seed(args.seed)
    model = make_model(args.hidden, args.layers, args.length)
    windows = Windows(args.length, args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    start, said, step, mean = time.process_time(), -60.0, 0, 0.0
    while (progress := (time.process_time() - start) / (60 * args.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
        tokens, answer = windows.batch(args.batch)
        logits = model(torch.from_numpy(tokens))
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(answer).flatten(), ignore_index=-1
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, mean = step + 1, 0.98 * mean + 0.02 * loss.item() if step else loss.item()
        if time.process_time() - start - said > 60:
            said = time.process_time() - start
            print(json.dumps({"s": round(said), "step": step, "loss": round(mean, 3)}), flush=True)
    model.eval()
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()), "minutes": args.minutes,
                "events": step * args.batch * args.length, "loss": round(mean, 3),
                "timelines": args.timelines,
                **{k: round(v, 4) for k, v in judge(model, args.timelines, args.length).items()},
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()

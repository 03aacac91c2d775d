"""Teach the embedded base what thumbs mean: its tokens for what was said, and nothing else of it.

    python -m experiments.teach_thumbs --out /tmp/base --minutes 10

Invented people (`experiments.personas`) rate plans as their taste says (`experiments.raters`). What a plan
should be there is what the base says without thumbs, each candidate's share multiplied by how much sooner
than usual that person would approve of it (odds against odds); the base, reading the thumbs, learns to come
near that. Only tokens that belong to thumbs are learned: without thumbs every answer stays what it is to the
last bit. Such a token is the one without thumbs, in its parts more or less, and something added: both are the
same for every letter, so that what was learned of those that come first in a slate holds for the last; and a
little is its own.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from experiments.pretrain_base import HELD_OUT, save
from rlmemo.options import Parser

THOUGHT, SAID = 0.5, 1.5
"""How strongly counts what the person thinks (the power of odds against odds), and what is made of what was
said (`thumbs_so_far.opinion`). Without the second a single thumb down on a plan in vain would change next to
nothing, since most of those mean nothing; but who says something wants it minded. Together about 2, which was
chosen on people of the kind of `experiments.thumbs_at_once`, of other seeds than those that are reported."""
OWN = 0.3
"""How much slower than what all letters share what is a token's own is learned."""
MOST, LEAST = 40.0, 1 / 200
"""How much sooner than usual a candidate may be picked, at most and at least."""
USUALLY = -0.2
"""Log of how much sooner those of whom nobody has said anything are wanted on average, before its power."""


def invent(seed: int, most: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Decisions of one person who rates: prompts that know of no thumbs int64 [m, L]; levels int64 [m, size]
    and moods int64 [m], what was said by then; log of how much sooner each candidate is wanted, float32
    [m, size]."""
    from env.slate.slate import slates_from_columns
    from experiments.personas import persona
    from experiments.raters import Mind, Taste, rated
    from rlmemo.model import slots as r
    from rlmemo.model.scorer import WIDE, base_scorer, shortlist
    from rlmemo.model.thumbs_so_far import COLUMNS, so_far

    rng = np.random.default_rng(seed)
    n = int(np.exp(rng.uniform(np.log(200), np.log(4000))))
    t, target, site, v = persona(int(rng.integers(2**31)), n)
    local = t + 3600.0 * rng.integers(-11, 13)
    wide = slates_from_columns(t, target, local, site, v, WIDE)
    every = rng.permutation(np.arange(5, n - 1))
    many = min(len(every) // 2, int(np.exp(rng.uniform(0.0, np.log(400)))))
    asked, rows = np.sort(every[:many]), np.sort(every[many : many + most])
    slates = shortlist(wide.at(asked), base_scorer().log_p(wide, asked))
    first, second = (Taste.drawn(np.bincount(target, minlength=v) / n, rng) for _ in range(2))
    mind = Mind(first, second, float(t[int(rng.integers(n))]) if rng.random() < 0.3 else math.inf)
    thumbs = rated(
        t, local, target, asked, slates.candidates, np.exp(slates.score[:, :-1].astype(np.float64)),
        mind, rng,
    )  # fmt: skip
    slates = shortlist(wide.at(rows), base_scorer().log_p(wide, rows))
    prompts = r.encode_prompts(slates, target, rows, here=np.arange(len(rows)))
    names = [str(x) for x in range(v)]
    said = so_far(thumbs, names, t[rows], (local[rows] // 3600 % 24).astype(np.int64), slates.candidates)
    p = np.exp(slates.score[:, :-1].astype(np.float64))
    sooner = np.zeros(p.shape)
    for taste, mine in ((mind.before, t[rows] < mind.turn), (mind.after, t[rows] >= mind.turn)):
        likes, usual = taste.likes(slates.candidates[mine], local[rows[mine]], p[mine])
        sooner[mine] = np.log(likes / (1 - likes)) - np.log(usual / (1 - usual))
    sooner = THOUGHT * (sooner - USUALLY) + SAID * said.said[..., COLUMNS.index("opinion")]
    sooner = np.clip(sooner, math.log(LEAST), math.log(MOST))
    return (
        prompts,
        said.levels(),
        said.mood(),
        np.where(slates.candidates >= 0, sooner, 0.0).astype(np.float32),
    )


def gather(model: Any, seeds: range, again: int = 0) -> tuple[Any, Any, Any]:
    """`invent` of many, as tensors: prompts with thumbs [N, L], what the base says without them and what it
    should say, log-probabilities [N, size + 1]. again: as often once more, with levels drawn for each
    candidate and nothing known of the moment, to be minded as they usually are: so that each level is learned
    of every letter."""
    import torch

    from rlmemo.model import slots as r
    from rlmemo.model.thumbs_so_far import LEVELS, NEUTRAL, NO_MOOD

    made = [invent(seed) for seed in seeds]
    plain, levels, mood, sooner = (np.concatenate([x[k] for x in made]) for k in range(4))
    with torch.no_grad():
        first = torch.cat([answers(model, some) for some in torch.from_numpy(plain).split(1024)])
    heard = [r.with_thumbs(plain, levels, mood)]
    right = [wanted(first, torch.from_numpy(sooner))]
    rng = np.random.default_rng(len(plain))
    means = usual(levels, sooner, first[:, :-1].exp().numpy())
    for _ in range(again):
        some = rng.random(levels.shape) < 0.25
        drawn = np.where(some, rng.integers(0, LEVELS, levels.shape), NEUTRAL)
        heard.append(r.with_thumbs(plain, drawn, np.full(len(plain), NO_MOOD)))
        right.append(wanted(first, torch.from_numpy(means[drawn])))
    return torch.from_numpy(np.concatenate(heard)), first.repeat(1 + again, 1), torch.cat(right)


def usual(levels: np.ndarray, sooner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """How much sooner a candidate is wanted at each level, on average, float32 [LEVELS]. weight: of each, all
    three [N, size]."""
    from rlmemo.model.thumbs_so_far import LEVELS, NEUTRAL

    at = levels.ravel()
    total = np.bincount(at, (weight * sooner).ravel(), LEVELS)
    found = total / np.maximum(np.bincount(at, weight.ravel(), LEVELS), 1e-9)
    found[NEUTRAL] = 0.0
    return found.astype(np.float32)


def answers(model: Any, prompts: Any, said: Said | None = None) -> Any:
    """Log-probabilities of the first pick, [B, size + 1]. said: what tokens with thumbs are (None: as the
    model's embedding has them)."""
    import torch

    from rlmemo.model import slots as r

    if said is None:
        hidden = model.model(input_ids=prompts, use_cache=False).last_hidden_state[:, -1]
    else:
        made = said.table(model)[prompts]
        hidden = model.model(inputs_embeds=made, use_cache=False).last_hidden_state[:, -1]
    ids = torch.from_numpy(np.append(r.LETTER_IDS, r.END_ID))
    return model.lm_head(hidden)[:, ids].float().log_softmax(-1)


class Said:
    """Tokens with thumbs, as far as they are learned: for each level of liking and each mood a vector that is
    added, and one that the token without thumbs is multiplied by (less 1); and one of each token's own."""

    def __init__(self, hidden: int) -> None:
        import torch

        from rlmemo.model import slots as r

        kinds: dict[str, int] = {}
        which = [kinds.setdefault(token.rsplit(":", 1)[1], len(kinds)) for token in r.SAID_OF]
        self.kind = torch.tensor(which)
        self.bare = torch.tensor([r.ID[plain] for plain in r.SAID_OF.values()])
        self.first = r.ID[next(iter(r.SAID_OF))]
        self.added, self.scale = (torch.zeros((len(kinds), hidden), requires_grad=True) for _ in range(2))
        self.own = torch.zeros((len(which), hidden), requires_grad=True)

    def rows(self, model: Any) -> Any:
        """Their rows of the embedding."""
        plain = model.model.embed_tokens.weight[self.bare]
        return plain * (1 + self.scale[self.kind]) + self.added[self.kind] + self.own

    def table(self, model: Any) -> Any:
        """The whole embedding."""
        import torch

        return torch.cat([model.model.embed_tokens.weight[: self.first], self.rows(model)])


def wanted(first: Any, sooner: Any) -> Any:
    """What the answer should be, log-probabilities [B, size + 1]. first: without thumbs."""
    moved = first.clone()
    moved[:, :-1] += sooner
    return moved.log_softmax(-1)


def divergence(said: Any, right: Any) -> Any:
    """Kullback-Leibler divergence of what is said from what is right, [B], nats."""
    return (right.exp() * (right - said)).sum(-1)


def widen(model: Any, said: Said) -> None:
    """Give a base the tokens for thumbs."""
    import torch

    from rlmemo.model import slots as r

    rows = math.ceil(len(r.VOCABULARY) / 64) * 64
    if model.config.vocab_size < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        made = said.rows(model)
        model.model.embed_tokens.weight[said.first : said.first + len(made)] = made


def judged(model: Any, rows: tuple[Any, Any, Any]) -> dict[str, float]:
    """Divergence from what is right without thumbs, and reading them, nats."""
    import torch

    heard, first, right = rows
    with torch.no_grad():
        said = torch.cat([answers(model, some) for some in heard.split(1024)])
    without, reading = (float(divergence(x, right).mean()) for x in (first, said))
    return {"without": without, "reading": reading, "closed": 1.0 - reading / without}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the base that has learned it")
    parser.add_argument("--base", type=Path, default=Path("rlmemo/base"), help="the base that learns")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time, the schedule's length")
    parser.add_argument("--people", type=int, default=1500, help="invented people to learn from")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    teach(parser.parse_args())


def teach(args: argparse.Namespace) -> None:
    """See the module."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(args.base, local_files_only=True, dtype=torch.float32)
    model.eval().requires_grad_(False)
    said = Said(model.config.hidden_size)
    widen(model, said)
    began = time.time()
    held_out = gather(model, range(HELD_OUT, HELD_OUT + 100))
    heard, _, right = gather(model, range(args.seed, args.seed + args.people), again=1)
    begun = {"people": args.people, "decisions": len(heard) // 2, "inventing_s": round(time.time() - began)}
    print(json.dumps({**begun, **judged(model, held_out)}), flush=True)
    shared, own = {"params": [said.added, said.scale]}, {"params": [said.own]}
    optimizer = torch.optim.Adam([shared, own], betas=(0.9, 0.98))
    start, step, last, mean = time.time(), 0, time.time(), []
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = (args.lr if group is optimizer.param_groups[0] else OWN * args.lr) * (
                0.5 + 0.5 * math.cos(math.pi * progress)
            )
        rows = torch.randint(0, len(heard), (args.batch,))
        loss = divergence(answers(model, heard[rows], said), right[rows]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        mean.append(float(loss.detach()))
        if time.time() - last > 30:
            print(
                json.dumps(
                    {"s": round(time.time() - start), "step": step, "loss": round(float(np.mean(mean)), 4)}
                ),
                flush=True,
            )
            last, mean = time.time(), []
    widen(model, said)
    found = judged(model, held_out)
    print(json.dumps({"steps": step, **found}), flush=True)
    shutil.copytree(args.base, args.out, dirs_exist_ok=True)
    save(model, args.out)
    known = json.loads((args.out / "pretraining.json").read_text())
    known["parameters"] = sum(p.numel() for p in model.parameters())
    known["thumbs"] = {
        "people": args.people,
        "decisions": len(heard) // 2,
        "steps": step,
        "minutes": args.minutes,
        **found,
    }
    (args.out / "pretraining.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)

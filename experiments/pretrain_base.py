"""Pre-train the embedded base model on synthetic personas, from nothing.

A Qwen3-architecture causal language model over the tokens of `rlmemo.model.slots` learns, from
moments of invented people only, five things in one forward pass: at `<plan>` which letter of the slate
is opened next (or `<end>`: none of them), after the letter which delay bucket, at `<when>` how long it
will take, at `<leave>` who of memory is not opened soon and may leave, and, as an auxiliary task that makes
the pointing learnable, at the end of every candidate whether it is the one. No recording is read.

    python -m experiments.pretrain_base --out /tmp/base --minutes 8 --size small      # on a GPU
    python -m experiments.pretrain_base --out /tmp/base --minutes 60 --size tiny      # on two cores

Simplified on purpose: one process trains, the others invent people; the learning rate follows the
clock, so `--minutes` is the only schedule; no checkpoint but the last.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing as mp
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from rlmemo.learning.who_leaves import leaving, opens_until
from rlmemo.options import Parser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIZES = {  # hidden, layers, heads, intermediate
    "tiny": (64, 3, 4, 192),
    "mini": (96, 4, 4, 256),
    "small": (128, 4, 4, 384),
    "medium": (192, 4, 6, 576),
    "large": (256, 6, 8, 768),
}
HELD_OUT = 2_000_000_000  # persona seeds from here on are for evaluation
LABELS = (
    7  # columns after the prompt: letter, delay | labels: letter, delay, when, who leaves (bits), and then
)


def informed(score: np.ndarray, answer: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """The log-probabilities of a scorer that knows more, still calibrated: float32 [m, places + 1].

    Of every place it has also seen one number, normal with variance 1 around `strength` where it is the
    answer and around 0 elsewhere, and has taken it into account as Bayes says. A run's own scorer knows more
    than the shipped one in just this way; a model that never met such a one mistrusts it. score: float32
    [m, places + 1]; answer: int64 [m], the last column for none.
    """
    seen = rng.standard_normal(score.shape)
    seen[np.arange(len(answer)), answer] += strength
    found = score + strength * seen
    found -= np.logaddexp.reduce(found, axis=1, keepdims=True)
    return np.asarray(found, np.float32)


def invent(seed: int, *, every_row: bool = False, most: float = 0.0) -> np.ndarray:
    """Encoded decisions of one persona, int16 [m, PROMPT_LENGTH + LABELS]; read with the answer of a scorer
    that is `informed` by up to `most`.

    Columns: the prompt (in every other one somebody is named), the answer's two tokens as input, then the
    label tokens at `<plan>` (a letter or END), after the letter (a delay, or PAD) and at `<when>`; last, bit
    by bit, which of the residents are the right ones to name first, and next.
    """
    from env.slate.slate import slates_from_columns
    from experiments.personas import persona
    from rlmemo.model import slots as r
    from rlmemo.model.scorer import WIDE, base_scorer, right_places, shortlist

    rng = np.random.default_rng(seed)
    n = int(np.exp(rng.uniform(np.log(200), np.log(6000))))
    t, target, site, v = persona(int(rng.integers(2**31)), n)
    local = t + 3600.0 * rng.integers(-11, 13)
    wide = slates_from_columns(t, target, local, site, v, WIDE)
    rows = np.arange(5, n - 1)
    if not every_row:
        rows = rng.permutation(rows)[: min(len(rows), 1500)]
    score = base_scorer().log_p(wide, rows)
    if most > 0:
        score = informed(score, right_places(wide, rows), float(rng.uniform(0.0, most)), rng)
    slates = shortlist(wide.at(rows), score)
    held, levels, wait = remember(t, target, local, site, v, rows, rng)
    warm = ((slates.candidates[:, :, None] == held[:, None, :]).any(2) & (slates.candidates >= 0)).astype(
        np.int8
    )
    warm[(rng.random(warm.shape) < 0.02) & (warm > 0)] = 2
    free = rng.choice([0.0, 0.0, 0.1, 0.4, 1.0], len(rows))
    prompts = r.encode_prompts(slates, target, rows, warm, free, here=np.arange(len(rows)), residents=levels)
    leave = name(prompts, wait, rng)
    gap = t[rows + 1] - t[rows]
    answer = slates.answer
    known = answer >= 0
    letter = np.where(known, r.LETTER_IDS[answer], r.END_ID)
    delay = np.where(known, r.DELAY_IDS[r.delay_bucket(gap)], 0)
    when = r.WHEN_IDS[r.when_bucket(gap)]
    labels = np.stack([letter, delay, letter, delay, when], 1)
    return np.concatenate([prompts, labels, leave], 1).astype(np.int16)


def remember(
    t: np.ndarray, target: np.ndarray, local: np.ndarray, site: np.ndarray, v: int, rows: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Something that may be in memory at each of the decisions `rows`: by how lately it was opened, by how
    soon it may be wanted, or by both, as somebody who manages it would have it.

    (held int32 [m, V], targets, -1 where it is not; levels int64 [m, LISTED] of those that are listed; and
    which of them are right to name, bool: not among the next `SOON` opens, or else the one that is opened
    last.)
    """
    from env.slate.slate import slates_from_columns
    from rlmemo.model.residents import LISTED, Residents
    from rlmemo.model.soon import PLACES, base_soon

    m = len(rows)
    known = Residents.of(slates_from_columns(t, target, local, site, v, PLACES), rows, base_soon())
    ago = np.where(known.targets >= 0, known.ago, np.inf)
    chance = np.where(known.targets >= 0, known.chance, -1.0)
    by_time, by_chance = ago.argsort(1).argsort(1), (-chance).argsort(1).argsort(1)
    share = np.where(known.targets >= 0, rng.choice([0.0, 0.3, 0.7], (m, 1)), 0.0)
    room = np.where(rng.random((m, 1)) < 0.5, rng.integers(6, 10, (m, 1)), rng.integers(0, 14, (m, 1)))
    order = ((1 - share) * by_time + share * by_chance + rng.random((m, PLACES))).argsort(1).argsort(1)
    there = (order < room) & (known.targets >= 0)
    held = np.where(there, known.targets, -1)
    size = np.exp(rng.normal(0.0, rng.choice([0.0, 0.0, 0.7]), v))  # what keeping a target saves per MB
    worth = np.where(there, known.chance * size[np.maximum(known.targets, 0)], np.inf)
    first = worth.argsort(1, kind="stable")[:, :LISTED]
    listed = np.take_along_axis(held, first, 1).astype(np.int64)
    wait = opens_until(target, rows, listed)
    scale = np.where(listed >= 0, size[np.maximum(listed, 0)], 1.0)
    return held, known.levels(np.arange(m), listed), np.where(listed >= 0, wait / scale, -1.0)


def name(prompts: np.ndarray, wait: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Who is right to be named first, and next, bit by bit: int64 [m, NAMED]; and name them in every other
    prompt, so that what follows is learned after names as well. wait: see `rlmemo.learning.who_leaves`."""
    from rlmemo.model import slots as r

    right, chosen = leaving(wait, r.NAMED, rng)
    some = rng.random(len(wait)) < 0.5
    for turn in range(r.NAMED):
        named = some & (chosen[:, turn] >= 0)
        prompts[named, r.LEAVE_AT + 1 + turn] = r.RESIDENT_IDS[chosen[named, turn]]
    bits: np.ndarray = right @ (1 << np.arange(wait.shape[1]))
    return bits


def held_out_rows() -> np.ndarray:
    """9,000 decisions of 60 people that are kept for evaluation, as of `invent`."""
    rng = np.random.default_rng(7)
    return np.concatenate([rng.permutation(invent(HELD_OUT + i))[:150] for i in range(60)])


def _worker(first: int, stride: int, most: float, queue: Any) -> None:
    seed = first
    while True:
        queue.put(invent(seed, most=most))
        seed += stride


def make_model(size: str) -> Any:
    """A randomly initialised model of one of `SIZES`."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rlmemo.model import slots as r
    from rlmemo.model.codebook import load_codebook

    hidden, layers, heads, inner = SIZES[size]
    config = Qwen3Config(
        vocab_size=math.ceil(len(r.VOCABULARY) / 64) * 64,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=max(16, hidden // heads // 8 * 8),
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=r.ID[r.BOS],
        eos_token_id=r.END_ID,
        pad_token_id=r.ID[r.PAD],
    )
    model = Qwen3ForCausalLM(config)
    # A statistic's token starts as what it says of the candidate's log-odds along one direction, so that
    # training begins from counting and not from noise; letters shown in the slate start as the letter that
    # is answered.
    with torch.no_grad():
        weight = model.model.embed_tokens.weight
        direction = torch.randn(hidden) / hidden**0.5
        for first, odds in (("s0", load_codebook().log_odds), ("q0", q_odds())):
            at = r.ID[first]
            weight[at : at + len(odds)] += 0.05 * torch.from_numpy(odds)[:, None] * direction
        for letter in r.LETTERS:
            for state in r.STATES:
                weight[r.ID[f"{letter}:{state}"]] += weight[r.ID[letter]]
        for resident in r.RESIDENTS:
            for level, odds in enumerate(resident_odds()):
                weight[r.ID[f"{resident}:{level}"]] += weight[r.ID[resident]] + 0.05 * float(odds) * direction
    return model


def q_odds() -> np.ndarray:
    """What each `q` token says: log-odds, float32."""
    from rlmemo.model.slots import ODDS_EDGES

    step = ODDS_EDGES[1] - ODDS_EDGES[0]
    return (np.append(ODDS_EDGES, ODDS_EDGES[-1] + step) - step / 2).astype(np.float32)


def resident_odds() -> np.ndarray:
    """What each level of a resident says of its being opened soon: log-odds, float64."""
    from rlmemo.model.residents import AGO_EDGES, ODDS_EDGES

    middle = np.concatenate(
        [ODDS_EDGES[:1] - 0.5, (ODDS_EDGES[1:] + ODDS_EDGES[:-1]) / 2, ODDS_EDGES[-1:] + 0.5]
    )
    return np.repeat(middle, len(AGO_EDGES) + 1)


def start_from(model: Any, folder: Path) -> int:
    """Take over the weights of an earlier base model of the same size: those of the tokens that both know
    by name, and all others. A `q` token that it does not know starts as the `s` token with the nearest
    log-odds. The number of tokens taken over."""
    import torch
    from transformers import AutoModelForCausalLM

    from rlmemo.model import slots as r
    from rlmemo.model.codebook import load_codebook

    old = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    known = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weights = old.state_dict()
    table = weights.pop("model.embed_tokens.weight")
    weights.pop("lm_head.weight", None)
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        mine = model.model.embed_tokens.weight
        shared = [name for name in r.ID if name in known]
        for name in shared:
            mine[r.ID[name]] = table[known[name]]
        if "q0" not in known:
            leaf = load_codebook().log_odds
            for level, odds in enumerate(q_odds()):
                mine[r.ID[f"q{level}"]] = mine[r.ID[f"s{int(np.abs(leaf - odds).argmin())}"]]
        for name in ("m0.", "m1.", "m2.", "m3."):  # the moment's last token, once without the scorer's "none"
            if name[:-1] in known:
                for level in range(10):
                    mine[r.ID[f"{name}{level}"]] = table[known[name[:-1]]]
    return len(shared)


def save(model: Any, out: Path) -> None:
    """Write model and tokenizer to `out` in hub format."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from rlmemo.model import slots as r

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel(r.ID, unk_token=r.PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=r.PAD, bos_token=r.BOS, eos_token=r.END, unk_token=r.PAD
    )
    fast.save_pretrained(out)
    model.save_pretrained(out)


def losses(model: Any, batch: Any) -> tuple[Any, Any]:
    """Total loss, and (letter, delay, when, aux, leave) losses detached; batch int64 [B, PROMPT_LENGTH +
    LABELS]."""
    import torch
    from torch.nn.functional import cross_entropy

    from rlmemo.model import slots as r

    length, slate = r.PROMPT_LENGTH, len(r.CANDIDATE_ENDS)
    hidden = model.model(input_ids=batch[:, : length + 1], use_cache=False).last_hidden_state
    asked = [r.WHEN_AT, *range(r.LEAVE_AT, r.LEAVE_AT + r.NAMED), r.PLAN_AT, length]
    places = torch.tensor([*r.CANDIDATE_ENDS.tolist(), *asked], device=batch.device)
    logits = model.lm_head(hidden[:, places]).float()
    letter, delay, when = batch[:, -2 - r.NAMED - 1], batch[:, -2 - r.NAMED], batch[:, -1 - r.NAMED]
    candidate = torch.arange(slate, device=batch.device)[None] + r.LETTER_IDS[0]
    yes = candidate == letter[:, None]
    yes_no = logits[:, :slate][:, :, [r.ID[r.NO], r.ID[r.YES]]]
    aux = cross_entropy(yes_no.flatten(0, 1), yes.flatten().long())
    l_when = cross_entropy(logits[:, slate], when)
    l_letter = cross_entropy(logits[:, -2], letter)
    l_delay = cross_entropy(logits[:, -1], delay, ignore_index=0)
    l_leave = leave_loss(
        logits[:, slate + 1 : -2], batch[:, r.LEAVE_AT + 1 : r.PLAN_AT], batch[:, -r.NAMED :]
    )
    parts = torch.stack([l_letter, l_delay, l_when, aux, l_leave])
    return l_letter + 0.3 * l_delay + 0.3 * l_when + 1.0 * aux + 0.3 * l_leave, parts.detach()


def leave_loss(logits: Any, named: Any, bits: Any) -> Any:
    """Cross-entropy of who is named: any of those that are right and not named yet, nobody where there is
    none. logits [B, NAMED, vocabulary]; named int64 [B, NAMED], what was said; bits int64 [B], who is right.
    What comes after nobody is not learned."""
    import torch

    from rlmemo.model import slots as r

    device = logits.device
    ids = torch.from_numpy(np.append(r.RESIDENT_IDS, r.NOBODY_ID)).to(device)
    total = logits.new_zeros(())
    counts = torch.ones(len(bits), dtype=torch.bool, device=device)
    for k in range(r.NAMED):
        right = (bits[:, k, None] >> torch.arange(len(r.RESIDENT_IDS), device=device)) & 1
        share = torch.cat([right, (right.sum(1, keepdim=True) == 0).long()], 1).float()
        share = share / share.sum(1, keepdim=True)
        found = -(share * logits[:, k].log_softmax(-1)[:, ids]).sum(1)
        total = total + (found * counts).sum() / counts.sum().clamp(min=1)
        counts = counts & (named[:, k] != r.NOBODY_ID)
    return total / r.NAMED


def evaluate(model: Any, rows: np.ndarray, device: str) -> dict[str, float]:
    """hr@1/3/5 of the letters and of the slate's own order, log losses, over encoded decisions."""
    import torch

    from rlmemo.model import slots as r

    ranks, own, total, parts = [], [], 0, torch.zeros(5, dtype=torch.float64)
    leaves: dict[str, list[np.ndarray]] = {"named_soon": [], "first_soon": []}
    body = getattr(model, "_orig_mod", model)
    with torch.no_grad():
        for start in range(0, len(rows), 2048):
            batch = torch.from_numpy(rows[start : start + 2048].astype(np.int64)).to(device)
            hidden = body.model(input_ids=batch[:, : r.PROMPT_LENGTH], use_cache=False).last_hidden_state
            logits = body.lm_head(hidden[:, r.PLAN_AT]).float()
            leave = body.lm_head(hidden[:, r.LEAVE_AT]).float()[
                :, torch.from_numpy(r.RESIDENT_IDS).to(device)
            ]
            there = batch[:, torch.from_numpy(r.MEMORY_AT).to(device)] != r.ID[r.NO_RESIDENT]
            chosen, some = leave.masked_fill(~there, -1e9).argmax(1), there.sum(1) > 1
            leaves["named_soon"].append(1 - ((batch[:, -r.NAMED] >> chosen) & 1)[some].cpu().numpy())
            leaves["first_soon"].append(1 - (batch[:, -r.NAMED] & 1)[some].cpu().numpy())
            score = logits[:, torch.from_numpy(r.LETTER_IDS).to(device)]
            answer = batch[:, -2 - r.NAMED - 1] - int(r.LETTER_IDS[0])
            known = batch[:, -2 - r.NAMED - 1] != r.END_ID
            right = score.gather(1, answer.clamp(0, r.SLATE_SIZE - 1)[:, None])
            rank = torch.where(known, (score > right).sum(1), 99)
            ranks.append(rank.cpu().numpy())
            own.append(torch.where(known, answer, 99).cpu().numpy())
            parts += losses(body, batch)[1].double().cpu() * len(batch)
            total += len(batch)
    rank, own_rank = np.concatenate(ranks), np.concatenate(own)
    result = {f"hr@{k}": float((rank < k).mean()) for k in (1, 3, 5)}
    result |= {f"slate_hr@{k}": float((own_rank < k).mean()) for k in (1, 3, 5)}
    result |= {k: float(np.concatenate(v).mean()) for k, v in leaves.items()}
    names = ("loss_letter", "loss_delay", "loss_when", "loss_aux", "loss_leave")
    return result | {k: float(v) for k, v in zip(names, parts / total, strict=True)}


def main() -> None:
    parser = Parser(
        description=__doc__,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time, the schedule's length")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=max(1, (mp.cpu_count() or 2) - 1))
    parser.add_argument("--pool", type=int, default=400_000, help="rows held for shuffling")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the training process")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--informed", type=float, default=0.0, help="how much more scorers may know; see `informed`"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--init", type=Path, help="folder of an earlier base model of this size to start from"
    )
    args = parser.parse_args()

    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    context = mp.get_context("fork")
    invent(1)  # compile once, before the workers start
    queue: Any = context.Queue(maxsize=64)
    workers = [
        context.Process(target=_worker, args=(args.seed + i, args.workers, args.informed, queue), daemon=True)
        for i in range(args.workers)
    ]
    for w in workers:
        w.start()
    held_out = held_out_rows()
    raw = make_model(args.size)
    if args.init:
        print(f"{start_from(raw, args.init)} tokens as in {args.init}", flush=True)
    raw = raw.to(device)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    trained = torch.compile(losses) if device == "cuda" else losses
    decay = [p for p in raw.parameters() if p.dim() > 1]
    rest = [p for p in raw.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=device == "cuda")
    pool = torch.zeros((args.pool, held_out.shape[1]), dtype=torch.int16, device=device)
    filled = at = seen = step = logged = 0
    start = time.time()
    last_log, mean = start, torch.zeros(5, device=device)
    while True:
        elapsed = time.time() - start
        progress = elapsed / (60 * args.minutes)
        if progress >= 1:
            break
        # Every row is drawn about twice before it is replaced: inventing costs time as well.
        while filled < min(args.pool, 20 * args.batch) or 2 * (seen - args.pool) < step * args.batch:
            chunk = torch.from_numpy(queue.get()).to(device)
            chunk = chunk[: args.pool - at]
            pool[at : at + len(chunk)] = chunk
            at = (at + len(chunk)) % args.pool
            filled = min(args.pool, max(filled, at if at else args.pool))
            seen += len(chunk)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress))
        batch = pool[torch.randint(0, filled, (args.batch,), device=device)].long()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=args.bf16):
            loss, parts = trained(raw, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
        optimizer.step()
        mean += parts
        step += 1
        if time.time() - last_log > 30:
            mean /= step - logged
            print(
                json.dumps(
                    {
                        "s": round(elapsed), "step": step, "examples": step * args.batch, "fresh": seen,
                        "losses": [round(x, 4) for x in mean.tolist()],
                    }
                ),
                flush=True,
            )  # fmt: skip
            save(raw, args.out)  # so that a killed run leaves something
            last_log, logged, mean = time.time(), step, torch.zeros(5, device=device)
    for w in workers:
        w.terminate()
    raw.eval()
    result: dict[str, Any] = evaluate(raw, held_out, device)
    result |= {
        "size": args.size, "parameters": sum(p.numel() for p in raw.parameters()), "steps": step,
        "examples": step * args.batch, "fresh_examples": seen, "minutes": args.minutes, "device": device,
        "seed": args.seed, "warm_start": args.init is not None, "informed": args.informed,
    }  # fmt: skip
    save(raw.cpu(), args.out)
    (args.out / "pretraining.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run_main(main)

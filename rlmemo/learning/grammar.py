"""What can be said after a prompt, and how likely the model says it: the mask of a plan, in torch.

A plan is letters of places that are filled and cold, in the order of the slate, each followed by a delay, and
`<end>` (`rlmemo.model.slots`); before them may stand who leaves first. `rlmemo.model.ask` samples under that
mask, so whoever trains on what was sampled must look at the same distribution. Only the tokens that a plan is
made of are scored ("symbols": the letters, `<end>`, the delays). Which places may be picked is read off a
prompt of our own tokens; a text says it in words, so its samples carry it along.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlmemo.model import slots
from rlmemo.model.packing import last_logits
from rlmemo.model.readings import Reading, reading_of

SIZE = len(slots.LETTERS)
SYMBOLS = np.concatenate(
    [slots.LETTER_IDS, [slots.END_ID], slots.DELAY_IDS, slots.RESIDENT_IDS, [slots.NOBODY_ID, slots.PLAN_ID]]
)
END = SIZE  # its column; the delays follow
RESIDENTS = (
    END + 1 + len(slots.DELAY_IDS)
)  # the first of their columns; nobody, and where picks begin, follow
NOBODY, PLAN = RESIDENTS + slots.LISTED, RESIDENTS + slots.LISTED + 1
_NOTHING_KNOWN = np.array([i for token, i in slots.ID.items() if token in ("s-", "q-")])


def naming_tokens(names: int) -> int:
    """Tokens that stand before the picks of a plan that may name so many residents."""
    return slots.NAMED + 1 if names else 0


def pickable(prompts: np.ndarray) -> np.ndarray:
    """Places that a plan may name, bool [B, SIZE], read off the prompts int64 [B, PROMPT_LENGTH]."""
    cold = (prompts[:, slots.CANDIDATE_ENDS, None] == slots.COLD_IDS).any(axis=-1)
    filled = ~np.isin(prompts[:, slots.CANDIDATE_ENDS - 1], _NOTHING_KNOWN)
    made: np.ndarray = cold & filled
    return made


def symbols(how: Reading) -> np.ndarray:
    """The tokens that a plan is made of, in the order of their columns, int64 [S]; a text names nobody."""
    return SYMBOLS if how.kind == "slots" else np.concatenate([how.letters, [how.end], how.delays])


def columns(plans: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Which symbol each token of the plans int64 [B, C] is, int64 [B, C]. tokens: of the symbols. Any other
    (a text's "none") is the end, and so is all that stands behind it."""
    same = plans[..., None] == tokens
    found = np.where(same.any(-1), same.argmax(-1), END)
    return np.where((found == END).cumsum(1) > 0, END, found)


def allowed(
    free: np.ndarray, said: np.ndarray, picks: int, width: int, names: int = 0, listed: Any = None
) -> np.ndarray:
    """Symbols that may be said at each place of the plans, bool [B, C, width]; behind the end only the end.

    free: bool [B, SIZE], places that may be picked. said: int64 [B, C], as of `columns`. width: symbols that
    there are. names: how many residents may be named; the plans then begin with who leaves first, of those
    that are listed (bool [B, LISTED]).
    """
    batch, length = said.shape
    mask = np.zeros((batch, length, width), bool)
    begin = 0
    if names:
        _allow_names(mask, listed, said, names)
        begin = slots.NAMED + 1
    free = free.copy()
    asked = np.zeros(batch, np.int64)
    ended = np.zeros(batch, bool)
    due = np.zeros(batch, bool)  # a letter was said, its delay is due
    for j in range(begin, length):
        open_ = ~due & ~ended
        mask[:, j, :SIZE] = free & (open_ & (asked < picks))[:, None]
        mask[:, j, END] = ~due
        mask[:, j, END + 1 : RESIDENTS] = due[:, None]
        column = said[:, j]
        letter = open_ & (column < SIZE)
        free &= ~letter[:, None] | (np.arange(SIZE) > column[:, None])
        asked += letter
        ended |= open_ & ~letter
        due = letter
    return mask


def _allow_names(mask: np.ndarray, listed: np.ndarray, said: np.ndarray, names: int) -> None:
    """Allow, at the first places of plans, residents that are listed and not named yet, and nobody."""
    free = listed.copy()
    for j in range(slots.NAMED):
        mask[:, j, RESIDENTS:NOBODY] = free & (j < names)
        mask[:, j, NOBODY] = True
        column = said[:, j]
        free &= (np.arange(RESIDENTS, NOBODY) != column[:, None]) & (column != NOBODY)[:, None]
    mask[:, slots.NAMED, PLAN] = True


def plan_log_probs(
    model: Any, prompts: Any, plans: Any, picks: int, temperature: float = 1.0, names: int = 0,
    free: np.ndarray | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Log-probability of each token of the plans under the mask, and the entropy of what could have been
    said there: two float tensors [B, C], differentiable, 0 behind the end.

    model: a causal language model (a `PeftModel` is looked into); one of our own tokens has `model` and
    `lm_head` inside. prompts int64 [B, L], -1 to the left where one is shorter (a text's), plans int64
    [B, C]: tensors. names: see `allowed`; the prompts then end where who leaves first is asked for. free:
    places that may be picked, bool [B, SIZE] (None: read off the prompts).
    """
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    how, shown, ids = reading_of(inner), prompts.cpu().numpy(), plans.cpu().numpy()
    tokens = symbols(how)
    column = columns(ids, tokens)
    if how.kind == "slots":
        logits = _slot_logits(inner, prompts, plans)
    else:
        logits = _text_logits(inner, shown, ids, column)
    logits = logits / temperature
    free = pickable(shown) if free is None else free
    listed = slots.listed(shown) if names else None
    mask = torch.from_numpy(allowed(free, column, picks, len(tokens), names, listed)).to(logits.device)
    log_p = logits.masked_fill(~mask, -1e9).log_softmax(-1)
    said = log_p.gather(-1, torch.from_numpy(column).to(logits.device)[..., None])[..., 0]
    entropy = -(log_p.exp() * log_p.masked_fill(~mask, 0.0)).sum(-1)
    return said, entropy


def _slot_logits(inner: Any, prompts: Any, plans: Any) -> Any:
    """Logits of the symbols at each place of plans of our own tokens, float32 [B, C, S]."""
    import torch

    ids = torch.cat([prompts, plans[:, :-1]], dim=1)
    hidden = inner.model(input_ids=ids, use_cache=False).last_hidden_state[:, prompts.shape[1] - 1 :]
    tokens = torch.from_numpy(SYMBOLS).to(hidden.device)
    return torch.nn.functional.linear(hidden, inner.lm_head.weight[tokens]).float()


def _text_logits(inner: Any, prompts: np.ndarray, plans: np.ndarray, column: np.ndarray) -> Any:
    """The same of plans in a text's tokens, up to their ends; 0 behind them, where nothing is chosen."""
    import torch

    how, ends = reading_of(inner), (column == END).argmax(1)
    rows = [np.concatenate([p[p >= 0], x[:e]]) for p, x, e in zip(prompts, plans, ends, strict=True)]
    found = last_logits(inner, rows, ends + 1)
    chosen = np.arange(plans.shape[1])[None] <= ends[:, None]
    tokens = np.tile(symbols(how), (len(found), 1))
    tokens[np.nonzero(chosen)[1] == 0, END] = how.nothing  # where a plan begins, its end is "none"
    made = found.new_zeros(*plans.shape, tokens.shape[1])
    made[torch.from_numpy(chosen).to(found.device)] = found.gather(
        1, torch.from_numpy(tokens).to(found.device)
    )
    return made

"""What can be said after a prompt, and how likely the model says it: the mask of a plan, in torch.

A plan is letters of places that are filled and cold, in the order of the slate, each followed by a delay, and
`<end>` (`rlmemo.model.slots`); before them may stand who leaves first. `rlmemo.policies.language` samples
under that mask, so whoever trains on what was sampled must look at the same distribution; here the mask is
read off the tokens themselves, so the samples need not carry it along. Only the tokens that a plan is made of
are scored ("symbols": the letters, `<end>`, the delays).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlmemo.model import slots

SIZE = len(slots.LETTERS)
SYMBOLS = np.concatenate(
    [slots.LETTER_IDS, [slots.END_ID], slots.DELAY_IDS, slots.RESIDENT_IDS, [slots.NOBODY_ID, slots.PLAN_ID]]
)
END = SIZE  # its column; the delays follow
RESIDENTS = (
    END + 1 + len(slots.DELAY_IDS)
)  # the first of their columns; nobody, and where picks begin, follow
NOBODY, PLAN = RESIDENTS + slots.LISTED, RESIDENTS + slots.LISTED + 1
_COLUMN = np.full(len(slots.VOCABULARY), END, np.int64)
_COLUMN[SYMBOLS] = np.arange(len(SYMBOLS))
_COLD = np.array([slots.ID[f"{letter}:{slots.STATES[0]}"] for letter in slots.LETTERS])
_NOTHING_KNOWN = np.array([i for token, i in slots.ID.items() if token in ("s-", "q-")])


def naming_tokens(names: int) -> int:
    """Tokens that stand before the picks of a plan that may name so many residents."""
    return slots.NAMED + 1 if names else 0


def pickable(prompts: np.ndarray) -> np.ndarray:
    """Places that a plan may name, bool [B, SIZE], read off the prompts int64 [B, PROMPT_LENGTH]."""
    cold = prompts[:, slots.CANDIDATE_ENDS] == _COLD
    filled = ~np.isin(prompts[:, slots.CANDIDATE_ENDS - 1], _NOTHING_KNOWN)
    made: np.ndarray = cold & filled
    return made


def allowed(prompts: np.ndarray, plans: np.ndarray, picks: int, names: int = 0) -> np.ndarray:
    """Symbols that may be said at each place of the plans, bool [B, C, len(SYMBOLS)].

    plans: int64 [B, C], the tokens that were said, then padding. Behind `<end>` only `<end>` stands. names:
    how many residents may be named; the plans then begin with who leaves first.
    """
    batch, length = plans.shape
    mask = np.zeros((batch, length, len(SYMBOLS)), bool)
    begin = 0
    if names:
        _allow_names(mask, prompts, plans, names)
        begin = slots.NAMED + 1
    free = pickable(prompts)
    asked = np.zeros(batch, np.int64)
    ended = np.zeros(batch, bool)
    due = np.zeros(batch, bool)  # a letter was said, its delay is due
    for j in range(begin, length):
        open_ = ~due & ~ended
        mask[:, j, :SIZE] = free & (open_ & (asked < picks))[:, None]
        mask[:, j, END] = ~due
        mask[:, j, END + 1 : RESIDENTS] = due[:, None]
        column = _COLUMN[plans[:, j]]
        letter = open_ & (column < SIZE)
        free &= ~letter[:, None] | (np.arange(SIZE) > column[:, None])
        asked += letter
        ended |= open_ & ~letter
        due = letter
    return mask


def _allow_names(mask: np.ndarray, prompts: np.ndarray, plans: np.ndarray, names: int) -> None:
    """Allow, at the first places of plans, residents that are listed and not named yet, and nobody."""
    free = slots.listed(prompts)
    for j in range(slots.NAMED):
        mask[:, j, RESIDENTS:NOBODY] = free & (j < names)
        mask[:, j, NOBODY] = True
        column = _COLUMN[plans[:, j]]
        free &= (np.arange(RESIDENTS, NOBODY) != column[:, None]) & (column != NOBODY)[:, None]
    mask[:, slots.NAMED, PLAN] = True


def plan_log_probs(
    model: Any, prompts: Any, plans: Any, picks: int, temperature: float = 1.0, names: int = 0
) -> tuple[Any, Any]:
    """Log-probability of each token of the plans under the mask, and the entropy of what could have been
    said there: two float tensors [B, C], differentiable, 0 behind `<end>`.

    model: a causal language model with `model` and `lm_head` inside (a `PeftModel` is looked into).
    prompts int64 [B, PROMPT_LENGTH], plans int64 [B, C]: tensors; no padding on the left. names: see
    `allowed`; the prompts then end where who leaves first is asked for.
    """
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids = torch.cat([prompts, plans[:, :-1]], dim=1)
    hidden = inner.model(input_ids=ids, use_cache=False).last_hidden_state[:, prompts.shape[1] - 1 :]
    symbols = torch.from_numpy(SYMBOLS).to(hidden.device)
    logits = torch.nn.functional.linear(hidden, inner.lm_head.weight[symbols]).float() / temperature
    mask = torch.from_numpy(allowed(prompts.cpu().numpy(), plans.cpu().numpy(), picks, names)).to(
        hidden.device
    )
    log_p = logits.masked_fill(~mask, -1e9).log_softmax(-1)
    column = torch.from_numpy(_COLUMN).to(hidden.device)[plans]
    said = log_p.gather(-1, column[..., None])[..., 0]
    entropy = -(log_p.exp() * log_p.masked_fill(~mask, 0.0)).sum(-1)
    return said, entropy

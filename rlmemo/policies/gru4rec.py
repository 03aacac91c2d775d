"""GRU4Rec: a recurrent network over the opens of a session (Hidasi and others 2016, ICLR, arXiv:1511.06939).

As in its authors' own PyTorch version (github.com/hidasib/GRU4Rec_PyTorch_Official, gru4rec_pytorch.py), made
because most others leave parts out (Hidasi and Czapp 2023, "The effect of third party implementations on
reproducibility", RecSys, arXiv:2307.14956): sessions run side by side, and one that ends gives its lane to
the next with a fresh state; the gradient goes back one event; cross-entropy over the answers of the batch
and `SAMPLES` further targets that all of its events share, drawn by popularity ** `ALPHA`; each score less
the logarithm of how often it is put there (logQ); one embedding for what is read and what is scored
("constrained"); dropout on both, the state that is carried on included; Adagrad without momentum.

Otherwise here: a session starts after a pause of 30 minutes; the answer after its last open is the first of
the next one, as every open is to be predicted; for training, one of more than `LONGEST` opens is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapreplace
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout

from rlmemo.policies.sequence import OpenedRows, SequencePolicy

SIZE = 192
LANES = 32
LONGEST = 100
SAMPLES, ALPHA = 512, 0.75
DROP_READ, DROP_STATE = 0.5, 0.3
RATE = 0.05
"""Chosen among eight settings by mrr@5 on webtrackr's validation part (experiments/LOG.md)."""


class Gru4Rec(nn.Module):
    """One GRU layer; scores are its state times the embeddings, plus a bias each."""

    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        rows = len(counts)
        self.embedding = nn.Embedding(rows, SIZE, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(rows))
        self.gru = nn.GRU(SIZE, SIZE)
        spread = (6 / (rows + SIZE)) ** 0.5
        nn.init.uniform_(self.embedding.weight, -spread, spread)
        nn.init.zeros_(self.embedding.weight.data[0])
        for weight in self.gru.parameters():
            edge = (3 / SIZE) ** 0.5 if weight.dim() > 1 else 0.0
            nn.init.uniform_(weight, -edge, edge)
        self.popularity = torch.from_numpy(counts).float()
        # The authors' rule exactly: an accumulator that starts at their epsilon, and none beside the root.
        self.rule = torch.optim.Adagrad(self.parameters(), lr=RATE, initial_accumulator_value=1e-6, eps=0.0)

    def epoch(self, parts: Sequence[OpenedRows]) -> None:
        """Every session once, in order of time."""
        state = torch.zeros(1, LANES, SIZE)
        drawn = self.popularity**ALPHA
        for read, answer, fresh in _side_by_side(parts):
            there = answer > 0
            state = state.detach() * ~fresh[None, :, None]
            x = dropout(self.embedding(read), DROP_READ)
            state = dropout(self.gru(x[None], state)[1], DROP_STATE)
            samples = torch.multinomial(drawn, SAMPLES, replacement=True)
            scored = torch.cat([answer[there], samples])
            often = torch.cat([self.popularity[answer[there]], drawn[samples]])
            scores = state[0, there] @ self.embedding(scored).T + self.bias[scored] - often.log()
            loss = cross_entropy(scores, torch.arange(int(there.sum())), reduction="sum") / LANES
            self.rule.zero_grad()
            loss.backward()
            self.rule.step()

    @torch.inference_mode()
    def scores(self, opens: OpenedRows, indices: np.ndarray) -> np.ndarray:
        """The state after each event, from its session's events so far, times the embeddings."""
        numbers, place = np.unique(opens.session[indices], return_inverse=True)
        starts = np.searchsorted(opens.session, numbers)
        ends = [int(indices[place == k].max()) + 1 for k in range(len(numbers))]
        rows = [torch.from_numpy(opens.row[a:b]) for a, b in zip(starts.tolist(), ends, strict=True)]
        states, _ = self.gru(self.embedding(nn.utils.rnn.pad_sequence(rows)))
        scores = states[indices - starts[place], place] @ self.embedding.weight.T + self.bias
        return np.asarray(scores)


def _side_by_side(parts: Sequence[OpenedRows]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """What is read (int64 [`LANES`]), what is opened next (0 where a lane has run out), and where a session
    starts (bool), step by step. A session goes into the lane that is free first."""
    cuts = [
        (float(part.t[cut]), k, int(cut), int(min(cut + LONGEST, end)))
        for k, part in enumerate(parts)
        for start, end in zip(*_bounds(part.session), strict=True)
        for cut in range(start, end, LONGEST)
    ]
    free = [(0, lane) for lane in range(LANES)]
    lanes: list[list[tuple[int, int, bool]]] = [[] for _ in range(LANES)]
    for _, k, a, b in sorted(cuts):
        row = parts[k].row[a : b + 1].tolist()  # one further: the first open of the next session, if any
        _, lane = free[0]
        lanes[lane] += [(x, y, n == 0) for n, (x, y) in enumerate(pairwise(row))]
        heapreplace(free, (len(lanes[lane]), lane))
    for step in range(max(map(len, lanes))):
        now = [lane[step] if step < len(lane) else (0, 0, True) for lane in lanes]
        read, answer, fresh = zip(*now, strict=True)
        yield torch.tensor(read), torch.tensor(answer), torch.tensor(fresh)


def _bounds(session: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First event of every session, and the one after its last."""
    starts = np.flatnonzero(np.diff(session, prepend=session[0] - 1))
    return starts, np.append(starts[1:], len(session))


def policy() -> SequencePolicy:
    """The policy `gru4rec`."""
    return SequencePolicy("gru4rec", Gru4Rec)

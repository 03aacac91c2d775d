"""SASRec: a causal transformer over a person's last opens (Kang and McAuley 2018, ICDM, arXiv:1808.09781).

Learned with the cross-entropy over all targets at every position, not with one sampled negative each as at
first: that is what it takes to be as good as BERT4Rec or better (Klenitskiy and Vasilev 2023, "Turning dross
into gold loss", RecSys, arXiv:2309.07602; github.com/antklen/sasrec-bert4rec-recsys23). Theirs are: the
same embedding for what is read and what is scored, what is read times the root of its size, learned places,
two blocks of one head, ReLU layers as wide as the embedding, weights from N(0, 0.02), Adam.

Otherwise here: blocks are torch's, normed before each half with the sum left as it is (theirs adds the normed
query); a person's opens are cut into windows anew in each epoch, as few people have many opens each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rlmemo.policies.sequence import OpenedRows, SequencePolicy

SIZE = 64
BLOCKS, HEADS = 2, 1
LENGTH = 50
DROP = 0.2
RATE = 1e-3
"""Chosen among eight settings by mrr@5 on webtrackr's validation part (experiments/LOG.md)."""
BATCH = 16
PASSES = 4
"""How often an epoch goes over the training part: one pass over a few people is a dozen steps."""


class SasRec(nn.Module):
    """Scores are the last place's output times the embeddings."""

    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(counts), SIZE, padding_idx=0)
        self.place = nn.Parameter(torch.zeros(LENGTH, SIZE))
        self.drop = nn.Dropout(DROP)
        block = nn.TransformerEncoderLayer(
            SIZE, HEADS, dim_feedforward=SIZE, dropout=DROP, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, BLOCKS, nn.LayerNorm(SIZE), enable_nested_tensor=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        nn.init.zeros_(self.embedding.weight.data[0])
        self.rule = torch.optim.Adam(self.parameters(), lr=RATE)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows int64 [B, L] to float32 [B, L, SIZE]; a place sees itself and those before it."""
        length = rows.shape[1]
        x = self.drop(self.embedding(rows) * SIZE**0.5 + self.place[:length])
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        found: torch.Tensor = self.blocks(x, mask=mask, is_causal=True)
        return found

    def epoch(self, parts: Sequence[OpenedRows]) -> None:
        """`PASSES` times over all opens, each time in other windows."""
        for _ in range(PASSES):
            windows = []
            for part in parts:
                rows = torch.from_numpy(part.row)
                first = -int(torch.randint(LENGTH, ()))
                windows += [rows[max(0, a) : a + LENGTH + 1] for a in range(first, len(rows) - 1, LENGTH)]
            windows = [window for window in windows if len(window) > 1]
            for chosen in torch.randperm(len(windows)).split(BATCH):
                batch = nn.utils.rnn.pad_sequence([windows[k] for k in chosen], batch_first=True)
                read, answer = batch[:, :-1], batch[:, 1:] - 1
                scores = self(read) @ self.embedding.weight[1:].T
                loss = cross_entropy(scores.flatten(0, 1), answer.flatten(), ignore_index=-1)
                self.rule.zero_grad()
                loss.backward()
                self.rule.step()

    @torch.inference_mode()
    def scores(self, opens: OpenedRows, indices: np.ndarray) -> np.ndarray:
        """The output after each event, from the last `LENGTH` up to it, times the embeddings."""
        start = np.maximum(indices - LENGTH + 1, 0)
        event = np.minimum(start[:, None] + np.arange(LENGTH), indices[:, None])
        found = self(torch.from_numpy(opens.row[event]))
        last = found[torch.arange(len(indices)), torch.from_numpy(indices - start)]
        return np.asarray(last @ self.embedding.weight.T)


def policy() -> SequencePolicy:
    """The policy `sasrec`."""
    return SequencePolicy("sasrec", SasRec)

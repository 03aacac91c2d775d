"""The experiment that pre-trains: scorers that know more."""

from __future__ import annotations

import numpy as np

from experiments.pretrain_base import informed


def test_a_scorer_that_knows_more_is_still_calibrated() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.5), 20_000)
    score, answer = np.log(p).astype(np.float32), (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    rows = np.arange(len(p))
    losses = []
    for strength in (0.0, 0.7, 1.5):
        found = np.exp(informed(score, answer, strength, np.random.default_rng(1)).astype(np.float64))
        assert np.allclose(found.sum(1), 1.0, atol=1e-5)
        losses.append(-np.log(found[rows, answer]).mean())
        for low, high in ((0.0, 0.05), (0.2, 0.3), (0.6, 0.8), (0.95, 1.0)):
            these = (found >= low) & (found < high)
            right = (np.arange(6) == answer[:, None])[these]
            assert abs(right.mean() - found[these].mean()) < 4 * (0.25 / these.sum()) ** 0.5
    assert losses[0] > losses[1] + 0.05 > losses[2] + 0.1

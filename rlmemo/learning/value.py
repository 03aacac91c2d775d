"""The critic: what a moment is worth to the policy, and what a plan was worth beyond that.

A small network of its own, apart from the language model: it sees what the policy's prompt leaves out (the
statistics unbinned, what each candidate holds and saves, what is scheduled, how long the episode still goes
on), costs next to nothing, and learns with a learning rate of its own.

It may also know what the user did next, which the policy never does. What comes next does not depend on
plans, so a baseline that knows it changes no expected gradient, only its noise (Mao et al. 2019, "Variance
reduction for reinforcement learning in input-driven environments", arXiv 1807.02264); and most of the noise
here is just that: whether the guess was the one that came.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

HIDDEN = 64


class Critic(torch.nn.Module):
    """features float32 [B, F] -> value float32 [B], in units of the reward.

    knows: how many columns at the end know what came next; they are left out unless `hindsight`. The last of
    them is a value already (the policy's likely plans, scored), and the network learns what is missing.
    """

    def __init__(self, features: int, knows: int, hindsight: bool, seed: int) -> None:
        super().__init__()
        self.seen = features if hindsight else features - knows
        self.share = torch.nn.Parameter(torch.tensor(1.0)) if hindsight else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(self.seen, HIDDEN), torch.nn.Tanh(),
                torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Tanh(),
                torch.nn.Linear(HIDDEN, 1),
            )  # fmt: skip
        for parameter in self.layers[-1].parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, features: Any) -> Any:
        value = self.layers(features[:, : self.seen])[:, 0]
        return value if self.share is None else value + self.share * features[:, -1]

    def values(self, features: np.ndarray) -> np.ndarray:
        """Values float64 [D] of features float32 [D, F], without gradients."""
        device = next(self.parameters()).device
        with torch.no_grad():
            found: np.ndarray = self(torch.from_numpy(features).to(device)).cpu().numpy().astype(np.float64)
        return found

    def fit(self, features: np.ndarray, returns: np.ndarray, *, rate: float, passes: int, seed: int) -> None:
        """Regress returns on features before the first update, so that its advantages mean something."""
        device = next(self.parameters()).device
        x = torch.from_numpy(features).to(device)
        y = torch.from_numpy(returns.astype(np.float32)).to(device)
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.01)
        rng = np.random.default_rng([seed, 6])
        for _ in range(passes):
            for rows in np.array_split(rng.permutation(len(y)), max(1, len(y) // 128)):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(self(x[rows]), y[rows])
                loss.backward()
                optimizer.step()
        self.zero_grad()


def discounts(gap_s: np.ndarray, half_life_s: float) -> np.ndarray:
    """Discount from each decision to the next, float64: halved every `half_life_s` seconds of the clock, 1
    where that is infinite.

    Events come seconds or hours apart, so a discount goes by the clock and not by the number of events. The
    rewards have to be credits with the same half-life (`env.judge.credit`), or the order of plans is turned
    round.
    """
    halved: np.ndarray = 0.5 ** (np.asarray(gap_s, np.float64) / half_life_s)
    return halved


def advantages(
    reward: np.ndarray, value: np.ndarray, discount: np.ndarray, last: np.ndarray, lam: float
) -> np.ndarray:
    """Generalised advantage estimates over the decisions of episodes, float64 [lanes, steps].

    reward, value, discount (to the next decision): float64 [lanes, steps]; last: bool, the episode ends after
    this decision and nothing is worth anything beyond it. lam: 0 trusts the critic, 1 what was seen.
    """
    made = np.zeros(reward.shape)
    following = np.zeros(len(reward))
    for k in range(reward.shape[1] - 1, -1, -1):
        ahead = value[:, k + 1] if k + 1 < reward.shape[1] else np.zeros(len(reward))
        on = np.where(last[:, k], 0.0, discount[:, k])
        following = reward[:, k] + on * ahead - value[:, k] + on * lam * following
        made[:, k] = following
    return made


def explained_variance(value: np.ndarray, returns: np.ndarray) -> float:
    """Share of the variance of the returns that the values foresaw: 1 all of it, 0 none; 0 where they do not
    vary."""
    spread = float(np.var(returns))
    return 0.0 if spread < 1e-12 else 1.0 - float(np.var(returns - value)) / spread

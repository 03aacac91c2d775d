"""What classical policies would plan in the preference states, to be compared with what the model says.

Each plans by a threshold on its ranking, tuned for the reward on the training part as it would have been in
charge there (`rlmemo.learning.incumbent`). It is given timelines that end with the training part, so it reads
nothing beyond. The counting policies learn from the events before a moment alone. `gbdt` is fitted: each of
`BLOCKS` blocks of the training part is ranked by trees fitted on the others, as trees are far too sure of
moments whose answer they have seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from env.judge.plans import Plans
from env.ranking import Ranking, decisions
from env.splits import Split
from env.timeline import Timeline
from reward import Reward
from rlmemo.learning.incumbent import put_in_charge
from rlmemo.learning.training_data import TrainingData, training_part
from rlmemo.model.scorer import BLOCKS
from rlmemo.policies.registry import make_policy


@dataclass(frozen=True)
class Baseline:
    """A classical policy with its threshold. rankings: by user, of decisions 0, 1, … of the training part;
    found: "theta", "reward_per_open" on the training part, and "note" where it could not be fitted."""

    name: str
    theta: float
    rankings: dict[int, Ranking]
    found: dict[str, float | str]

    def plans(self, data: TrainingData, user: int, index: np.ndarray) -> np.ndarray:
        """What it would prewarm, all at once, at the user's decisions `index` int64 [D] in the data's world
        as it is then: targets int32 [D, P], at most K of them a row, -1 elsewhere."""
        case, ranking = training_part(data, user), self.rankings[user]
        n = len(case)
        now = Plans.empty(n, 1, data.names)
        if data.plans is not None:
            plans = data.plans[user]
            now = Plans(plans.target[:n], plans.delay[:n], plans.let_go[:n])
        warm, _, _ = case.memory(ranking.targets, now, data.names > 0 and data.plans is None)
        sure = ranking.probability.astype(np.float64) >= self.theta  # as the judge compares them
        wanted = sure & (ranking.targets >= 0) & (warm == 0)
        wanted &= wanted.cumsum(axis=1) <= case.world.max_picks
        made: np.ndarray = np.where(wanted, ranking.targets, -1)[index]
        return made


def fit_baselines(names: Sequence[str], data: TrainingData, reward: Reward, seed: int) -> list[Baseline]:
    """The policies called `names`, fitted and tuned on the training part of the data."""
    parts = [training_part(data, user).timeline for user in range(len(data.timelines))]
    made = []
    for name in names:
        note = ""
        if name == "gbdt":
            rankings, note = _crossed(parts, data.split.train, seed)
        else:
            policy = make_policy(name)
            rankings = {u: policy.rank(x, np.arange(len(x) - 1)) for u, x in enumerate(parts)}
        _, found = put_in_charge(data, lambda user, _, of=rankings: of[user], reward)  # type: ignore[misc]
        told: dict[str, float | str] = {**found, "note": note} if note else {**found}
        made.append(Baseline(name, found["theta"], rankings, told))
    return made


def _crossed(
    parts: Sequence[Timeline], train: Sequence[np.ndarray], seed: int
) -> tuple[dict[int, Ranking], str]:
    """Rankings of all decisions of the parts by `gbdt`, those of a block by trees that are fitted on the
    other blocks and stopped early on it, as `rlmemo.model.scorer.fit_scorers` does it; and what the policy
    says where that is too little to learn from."""
    blocks = [np.array_split(np.arange(1, len(x)), BLOCKS) for x in parts]
    rows: list[list[Ranking]] = [[] for _ in parts]
    note = ""
    for b in range(BLOCKS):
        mine = [np.intersect1d(events, of[b]) for events, of in zip(train, blocks, strict=True)]
        others = [np.setdiff1d(events, of[b]) for events, of in zip(train, blocks, strict=True)]
        policy = make_policy("gbdt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is its note, which is passed on
            policy.fit(parts, Split("plans", others, mine, [x[:0] for x in others]), seed=seed)
        note = getattr(policy, "note", "") or note
        for user, part in enumerate(parts):
            rows[user].append(policy.rank(part, decisions(blocks[user][b])))
    return {user: Ranking.join(found) for user, found in enumerate(rows)}, note
